"""An adapter's rows: reading and checking train.jsonl, a seeded split, and the noisy token rows to train on."""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.augment import Noise, disturb
from adapters.config import TrainingSettings
from adapters.errors import DatasetError
from adapters.prompts import encode_example


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1)
    completion: str = Field(min_length=1)
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One row: what a user writes and the exact answer. `intent` names the group it belongs to."""

    prompt: str
    completion: str
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids and their labels, -100 where no loss is taken."""

    input_ids: list[int]
    labels: list[int]


def read_examples(path: Path) -> list[Example]:
    """The rows of a JSONL file. Raises DatasetError naming file, line and fault."""
    if not path.is_file():
        raise DatasetError(f'{path} is missing: write one {{"prompt": ..., "completion": ...}} row a line.')
    examples = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _Row.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {number}: no JSON object ({error.msg}).") from None
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"]) or "row"
            raise DatasetError(f"{path}, line {number}: {key}: {fault['msg']}.") from None
        examples.append(Example(row.prompt, row.completion, row.intent))
    if not examples:
        raise DatasetError(f"{path} holds no rows.")
    return examples


def dataset_hash(examples: list[Example]) -> str:
    """SHA-256 over prompts and completions, whatever their order."""
    rows = sorted(json.dumps([row.prompt, row.completion], ensure_ascii=False) for row in examples)
    return hashlib.sha256("\n".join(rows).encode("utf-8")).hexdigest()


def split(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(training, validation): of every group of one completion, `share` of its rows, seeded by `seed`.

    A group keeps at least one row for training. The same rows and seed give the same split.
    """
    groups: dict[str, list[Example]] = {}
    for row in sorted(examples, key=lambda row: (row.completion, row.prompt)):
        groups.setdefault(row.completion, []).append(row)
    chance = random.Random(seed)  # noqa: S311
    training, validation = [], []
    for rows in groups.values():
        chance.shuffle(rows)
        held = min(round(share * len(rows)), len(rows) - 1)
        validation += rows[:held]
        training += rows[held:]
    return training, validation


def token_rows(examples: list[Example], tokenizer: Any, settings: TrainingSettings) -> list[TokenRow]:
    """`settings.epochs` noisy versions of every row, in batches of like length, batches shuffled.

    Only `full_answers` of them carry the whole answer: which answer it is shows in its first tokens, so the
    others stop after `opening_tokens` and cost a third. Raises DatasetError when a row does not fit.
    """
    chance = random.Random(settings.seed)  # noqa: S311
    noise = _scaled(settings.noise)
    batches: list[list[TokenRow]] = []
    for _ in range(settings.epochs):
        rows = []
        for row in chance.sample(examples, len(examples)):
            prompt = disturb_prompt(row.prompt, noise, chance)
            ids, mask = encode_example(tokenizer, prompt, row.completion)
            if len(ids) > settings.max_tokens:
                ids, mask = encode_example(tokenizer, row.prompt, row.completion)
            if len(ids) > settings.max_tokens:
                raise DatasetError(
                    f"a row of {len(ids)} tokens is longer than max_tokens={settings.max_tokens}: shorten it or "
                    f"raise training.max_tokens in adapter.yaml. It begins {row.prompt[:60]!r}."
                )
            if chance.random() >= settings.full_answers:
                end = mask.index(1) + settings.opening_tokens
                ids, mask = ids[:end], mask[:end]
            labels = [token if taken else -100 for token, taken in zip(ids, mask, strict=True)]
            rows.append(TokenRow(ids, labels))
        rows.sort(key=lambda row: len(row.input_ids) + chance.randrange(6))
        size = settings.batch_size
        epoch = [rows[i : i + size] for i in range(0, len(rows), size)]
        chance.shuffle(epoch)
        batches += epoch
    return [row for batch in batches for row in batch]


def disturb_prompt(prompt: str, noise: Noise, chance: random.Random) -> str:
    """The prompt with noise; where it has several lines, the first instructs and stays as it is."""
    instruction, newline, text = prompt.partition("\n")
    if not newline:
        return disturb(prompt, noise, chance)
    return f"{instruction}\n{disturb(text, noise, chance)}"


def _scaled(factor: float) -> Noise:
    plain = Noise()
    return Noise(
        drop=plain.drop * factor,
        slip=plain.slip * factor,
        lower=min(1.0, plain.lower * factor),
        bare=min(1.0, plain.bare * factor),
        opening=min(1.0, plain.opening * factor),
        closing=min(1.0, plain.closing * factor),
        shuffle=min(1.0, plain.shuffle * factor),
    )
