"""How often an adapter is right on rows that it never saw."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from adapters.base import read_base_manifest
from adapters.dataset import Example
from adapters.decode import Decoder
from adapters.errors import AdapterError
from adapters.prompts import Message
from adapters.registry import find_adapters
from desk.config import AdapterSettings


def load_adapter(settings: AdapterSettings, name: str) -> Decoder:
    """The base with that adapter alone. Raises AdapterError with the reason when it cannot be used."""
    found, refused = find_adapters(settings.shipped, settings.trained, read_base_manifest(settings.base))
    wanted = [one for one in found if one.manifest.name == name]
    decoder = Decoder(settings) if wanted else None
    refused += decoder.attach(wanted) if decoder else []
    if decoder is None or name not in decoder.attached:
        own = [sentence for sentence in refused if f"Adapter {name} " in sentence]
        raise AdapterError(" ".join(own) or f"{name} is not trained yet.")
    return decoder


def answer_scores(
    decoder: Decoder, adapter: str | None, examples: Sequence[Example], max_new_tokens: int
) -> dict[str, float]:
    """`exact`: share of answers equal to the completion; `known`: share equal to any completion of the rows."""
    answers = decoder.answers([row.prompt for row in examples], adapter, max_new_tokens)
    known = {row.completion for row in examples}
    right = sum(answer == row.completion for answer, row in zip(answers, examples, strict=True))
    return {
        "questions": float(len(examples)),
        "exact": right / len(examples),
        "known": sum(answer in known for answer in answers) / len(examples),
    }


def field_scores(
    decoder: Decoder,
    adapter: str,
    examples: Sequence[Example],
    choices: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Share of right values per field, and the share that the rows' most frequent value would get."""
    truth = [json.loads(row.completion) for row in examples]
    filled = []
    with decoder.adapter(adapter):
        for row in examples:
            values = [value for value in decoder.fill([Message("user", row.prompt)], choices) if value is not None]
            filled.append(dict(zip(choices, values, strict=True)))
    scores = {"tickets": float(len(examples))}
    for name in choices:
        values = [row[name] for row in truth]
        scores[name] = sum(got[name] == value for got, value in zip(filled, values, strict=True)) / len(values)
        scores[f"{name}_majority"] = Counter(values).most_common(1)[0][1] / len(values)
    return scores
