"""An adapter's rows: reading and checking train.jsonl, a seeded split, and the noisy token rows to train on."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from adapters.augment import Noise, disturb
from adapters.checks import groups_of
from adapters.config import TrainingSettings
from adapters.errors import DatasetError
from adapters.prompts import encode_example
from adapters.rows import Example, Fault, read_rows

__all__ = ["Example", "read_examples"]

MOST_TOLD = 20
"""Faults that one message names."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids and their labels, -100 where no loss is taken."""

    input_ids: list[int]
    labels: list[int]


def read_examples(path: Path) -> list[Example]:
    """The rows of a file, in any form that rows.py reads. Raises DatasetError naming file, line and fault of each."""
    placed, faults = read_rows(path)
    if faults:
        raise DatasetError(told(faults))
    return [one.row for one in placed]


def told(faults: Sequence[Fault]) -> str:
    """The first faults, a line each, and how many more there are."""
    more = [f"and {len(faults) - MOST_TOLD:,} more"] if len(faults) > MOST_TOLD else []
    return "\n".join([*map(str, faults[:MOST_TOLD]), *more])


def row_hash(row: Example) -> str:
    """Tells rows apart: the first 16 hexadecimal digits of SHA-256 over all that was said."""
    said = [*(message.content for message in row.before), row.prompt, row.completion]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8")).hexdigest()[:16]


def dataset_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over prompts and completions, whatever their order."""
    rows = sorted(
        json.dumps([*(message.content for message in row.before), row.prompt, row.completion], ensure_ascii=False)
        for row in examples
    )
    return hashlib.sha256("\n".join(rows).encode("utf-8")).hexdigest()


def split(
    examples: Sequence[Example], share: float, seed: int, before: "Split | None" = None
) -> tuple[list[Example], list[Example]]:
    """(training, validation): `share` of the rows, seeded by `seed`.

    Near-duplicate questions stay on one side. Other questions of answers that training has are held out; only where no
    answer has two questions, whole pairs are. The same rows and seed give the same split. Rows that were there
    `before`, at a split of the same share and seed, stay on the side where they were, and new ones fill the share up.
    """
    ordered = sorted(examples, key=lambda row: (row.completion, row.prompt, row.before and row.before[-1].content))
    numbers = groups_of([row.prompt for row in ordered])
    sizes = Counter(numbers)
    of: dict[str, set[int]] = {}
    for row, number in zip(ordered, numbers, strict=True):
        of.setdefault(row.completion, set()).add(number)
    chance = random.Random(seed)  # noqa: S311
    held, known = _sides(ordered, numbers, before if before and (before.seed, before.share) == (seed, share) else None)
    trained = set(known)
    owed = share * sum(sizes[number] for number in held | known) - sum(sizes[number] for number in held)
    for own in of.values():
        free = [number for number in chance.sample(sorted(own), len(own)) if number not in trained | held]
        owed += share * sum(sizes[number] for number in free)
        for place, number in enumerate(free):
            # An answer keeps a question for training.
            if sizes[number] <= owed + 1e-9 and (place < len(free) - 1 or own & trained):
                held.add(number)
                owed -= sizes[number]
            else:
                trained.add(number)
    if not any(own & held and own & trained for own in of.values()):
        fresh = trained - known
        for number in chance.sample(sorted(fresh), len(fresh))[:-1]:
            if sizes[number] <= owed + 1e-9:
                held.add(number)
                owed -= sizes[number]
    validation = [row for row, number in zip(ordered, numbers, strict=True) if number in held]
    training = [row for row, number in zip(ordered, numbers, strict=True) if number not in held]
    chance.shuffle(validation)
    chance.shuffle(training)
    return training, validation


def _sides(rows: Sequence[Example], numbers: Sequence[int], before: "Split | None") -> tuple[set[int], set[int]]:
    """The groups that were held out before, and those that training had; none where nothing tells or nothing is left.

    A group that a new row makes of two is held out: the version before is not asked about what it was trained on.
    """
    if before is None or before.training is None:
        return set(), set()
    left_out, trained_on = set(before.validation), set(before.training)
    hashes = [row_hash(row) for row in rows]
    held = {number for own, number in zip(hashes, numbers, strict=True) if own in left_out}
    trained = {number for own, number in zip(hashes, numbers, strict=True) if own in trained_on}
    return (held, trained - held) if held else (set(), set())


class Split(BaseModel):
    """split.json beside an adapter's weights: which rows training left out and, where it says so, which it had, by
    their hashes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    share: float
    validation: tuple[str, ...]
    training: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, seed: int, share: float, validation: Sequence[Example], training: Sequence[Example] | None = None
    ) -> "Split":
        had = None if training is None else tuple(sorted(map(row_hash, training)))
        return cls(seed=seed, share=share, validation=tuple(sorted(map(row_hash, validation))), training=had)

    def left_out(self, examples: Sequence[Example]) -> list[Example]:
        """Those of the rows that training left out."""
        held = set(self.validation)
        return [row for row in examples if row_hash(row) in held]

    def unseen(self, examples: Sequence[Example]) -> list[Example]:
        """Those of the rows that training did not have: left out, or new since."""
        if self.training is None:
            return self.left_out(examples)
        had = set(self.training)
        return [row for row in examples if row_hash(row) not in had]


def token_rows(examples: Sequence[Example], tokenizer: Any, settings: TrainingSettings) -> list[TokenRow]:
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
            ids, mask = encode_example(tokenizer, prompt, row.completion, row.before)
            if len(ids) > settings.max_tokens:
                ids, mask = encode_example(tokenizer, row.prompt, row.completion, row.before)
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


def plain_rows(examples: Sequence[Example], tokenizer: Any, most: int) -> list[TokenRow]:
    """Every row as it is, with its whole answer; what does not fit `most` tokens is left out."""
    rows = []
    for row in examples:
        ids, mask = encode_example(tokenizer, row.prompt, row.completion, row.before)
        if len(ids) <= most:
            rows.append(TokenRow(ids, [token if taken else -100 for token, taken in zip(ids, mask, strict=True)]))
    return rows


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
