"""How often an adapter is right on rows that it never saw."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from adapters.answer import Step
from adapters.base import load_base, read_base_manifest
from adapters.dataset import Example
from adapters.decode import Decoder
from adapters.errors import DatasetError
from adapters.greedy import ROWS_AT_ONCE
from adapters.lora_batch import AdapterWeights
from adapters.registry import find_adapter
from adapters.residents import load_weights
from desk.settings import AdapterSettings

LOST = 0.05
"""Share of the right answers that may be given up for the wrong ones that are not given either."""
LEAST_ROWS = 40


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """A batch of its own, for scoring, and the adapter that is scored."""

    decoder: Decoder
    weights: AdapterWeights

    def of(self, adapter: str | None) -> AdapterWeights | None:
        """The weights for a name, None for the bare base."""
        return None if adapter is None else self.weights


def load_adapter(settings: AdapterSettings, name: str) -> LoadedAdapter:
    """The base with that adapter alone. Raises AdapterError with the reason when it cannot be used."""
    found = find_adapter(settings, name, read_base_manifest(settings.base))
    torch.set_num_threads(settings.threads)
    decoder = Decoder(load_base(settings.base, settings.quantization, settings.cache))
    return LoadedAdapter(decoder, load_weights(found, decoder))


def answer_scores(
    loaded: LoadedAdapter, adapter: str | None, examples: Sequence[Example], max_new_tokens: int
) -> dict[str, float]:
    """`exact`: share of answers equal to the completion; `known`: share equal to any completion of the rows."""
    chats = [row.chat for row in examples]
    replies = loaded.decoder.chat_replies(chats, loaded.of(adapter), max_new_tokens, ROWS_AT_ONCE)
    answers = [reply.text for reply in replies]
    known = {row.completion for row in examples}
    right = sum(answer == row.completion for answer, row in zip(answers, examples, strict=True))
    return {
        "questions": float(len(examples)),
        "exact": right / len(examples),
        "known": sum(answer in known for answer in answers) / len(examples),
    }


@dataclass(frozen=True, slots=True)
class Calibration:
    """`level`: answers of less confidence are better not given; shares of the right and of the wrong ones below it."""

    level: float
    right_below: float
    wrong_below: float


def calibrate(loaded: LoadedAdapter, adapter: str, examples: Sequence[Example], max_new_tokens: int) -> Calibration:
    """The level at which LOST of the right answers to these rows, which training never saw, are given up.

    Raises DatasetError when fewer than LEAST_ROWS of them are answered right: a level would be chance.
    """
    chats = [row.chat for row in examples]
    replies = loaded.decoder.chat_replies(chats, loaded.of(adapter), max_new_tokens, ROWS_AT_ONCE)
    judged = [(reply.confidence, reply.text == row.completion) for reply, row in zip(replies, examples, strict=True)]
    right = sorted(sure for sure, correct in judged if correct)
    wrong = [sure for sure, correct in judged if not correct]
    if len(right) < LEAST_ROWS:
        raise DatasetError(
            f"Only {len(right)} of {len(examples)} validation rows of {adapter} are answered right, and a level needs "
            f"{LEAST_ROWS}: add rows to train.jsonl, or raise training.validation in adapter.yaml and train again."
        )
    level = round(right[int(LOST * len(right))], 4)
    return Calibration(level, _below(right, level), _below(wrong, level))


def _below(values: Sequence[float], level: float) -> float:
    return sum(value < level for value in values) / len(values) if values else 0.0


def field_scores(
    loaded: LoadedAdapter,
    adapter: str,
    examples: Sequence[Example],
    choices: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Share of right values per field, and the share that the rows' most frequent value would get."""
    truth = [json.loads(row.completion) for row in examples]
    steps: list[list[Step]] = [[] for _ in examples]
    rows = [
        loaded.decoder.fields(row.chat, loaded.of(adapter), choices, kept.append)
        for row, kept in zip(examples, steps, strict=True)
    ]
    loaded.decoder.run(rows, ROWS_AT_ONCE)
    filled = [dict(zip(choices, (step.text for step in kept), strict=True)) for kept in steps]
    scores = {"tickets": float(len(examples))}
    for name in choices:
        values = [row[name] for row in truth]
        scores[name] = sum(got[name] == value for got, value in zip(filled, values, strict=True)) / len(values)
        scores[f"{name}_majority"] = Counter(values).most_common(1)[0][1] / len(values)
    return scores
