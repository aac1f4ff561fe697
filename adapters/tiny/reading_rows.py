"""Exercises as token ids: the passages once, and after them every question with its answer, blind to the others.

So one row of ids teaches as many answers as questions fit in, and each is learned exactly as it is asked later: its
ids, its places and what it may look at are those of a chat with this one question (tests hold that).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from adapters.prompts import Message, encode_chat, encode_text
from adapters.reader import NOT_SAID, READER, asked, copied, shown_passage
from adapters.tiny.exercises import Exercise

NOTHING = -100
"""Label of a place whose next token is not learned, and source of a token that is copied from nowhere."""


@dataclass(frozen=True, slots=True)
class Block:
    """Ids of a question up to where the reply opens, and of its answer; `sources` says of each of the answer's where in
    the prefix it is copied from: 0 for the first one of an answer that no passage holds."""

    question: list[int]
    answer: list[int]
    sources: list[int]
    kind: str


@dataclass(frozen=True, slots=True)
class Row:
    """`prefix`: ids up to the questions."""

    prefix: list[int]
    blocks: list[Block]

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(one.question) + len(one.answer) for one in self.blocks)


@dataclass(frozen=True, slots=True)
class Rows:
    """Tensors `(rows, tokens)` of int64.

    `block` numbers a row's blocks from 1 (0: prefix, -1: padding). `labels` holds the next token, `sources` where it is
    copied from, both NOTHING where that is not learned; `answer` says to which of `kinds`, the questions of all rows,
    the next token belongs (-1: none).
    """

    ids: Any
    places: Any
    block: Any
    labels: Any
    sources: Any
    answer: Any
    kinds: tuple[str, ...]

    def to(self, device: Any) -> "Rows":
        """The same on a device."""
        names = [field.name for field in fields(self) if field.name != "kinds"]
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def seen(self) -> Any:
        """Which tokens each may look at: `(rows, 1, tokens, tokens)` of bool."""
        own = self.block[:, :, None] == self.block[:, None, :]
        return (own | (self.block[:, None, :] == 0)).tril()[:, None]


class RowWriter:
    """Writes exercises in a tokenizer's ids. No token may hold a line's end and something else."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        frame = encode_chat(tokenizer, [Message("user", "")], open_reply=True)
        told = encode_chat(tokenizer, [Message("system", READER), Message("user", "")], open_reply=True)
        self._user, self._reply = frame[:1], frame[1:]
        self._told = told[: len(told) - len(frame)]
        self._end = [tokenizer.convert_tokens_to_ids("<|end|>")]

    def write(self, exercise: Exercise, room: int, told: bool) -> Row:
        """The exercise in at most `room` ids, as many of its questions as fit; with `told` the assistant's instructions
        come first. A row whose passages are too long has no block."""
        prefix = [*(self._told if told else []), *self._user]
        starts = []
        for number, one in enumerate(exercise.passages):
            starts.append(len(prefix))
            prefix += self._encode(shown_passage(one.code, one.title, "", one.text), first=not number)
        bounds = list(zip(starts, [*starts[1:], len(prefix)], strict=True))
        row, left = Row(prefix, []), room - len(prefix)
        for question in dict.fromkeys(exercise.asked):
            ids = self._encode(asked(question.question), first=False) + self._reply
            if question.answer is None or question.place is None:
                answer = encode_text(self._tokenizer, NOT_SAID) + self._end
                sources = [0] + [NOTHING] * (len(answer) - 1)
            else:
                code = exercise.passages[question.place].code
                answer = encode_text(self._tokenizer, copied(question.answer, code)) + self._end
                value = encode_text(self._tokenizer, question.answer)
                sources = _sources(prefix, bounds[question.place], value, answer)
            left -= len(ids) + len(answer)
            if left < 0:
                break
            row.blocks.append(Block(ids, answer, sources, question.kind))
        return row

    def _encode(self, text: str, *, first: bool) -> list[int]:
        """A part of a message. Alone, a later part would begin with a space's token: it stands before the line ends
        that part them, and is taken off."""
        return encode_text(self._tokenizer, text) if first else encode_text(self._tokenizer, "\n\n" + text)[1:]


def _sources(prefix: list[int], bounds: tuple[int, int], value: list[int], answer: list[int]) -> list[int]:
    """Where the ids of an answer stand in the passage within `bounds`: its value if that is there just once, and the
    code, which opens the passage after a space and a bracket."""
    start, end = bounds
    sources = [NOTHING] * len(answer)
    found = [at for at in range(start, end - len(value) + 1) if prefix[at : at + len(value)] == value]
    if len(found) == 1 and answer[: len(value)] == value:
        sources[: len(value)] = range(found[0], found[0] + len(value))
    closing = answer[len(value) : -1]
    at = next((at for at in range(start, end) if prefix[at] == closing[-1]), end) - len(closing) + 1
    for place, token in enumerate(closing):
        if at + place >= start and prefix[at + place] == token:
            sources[len(value) + place] = at + place
    return sources


def stack(rows: Sequence[Row], padding: int, text_share: float, chance: Random) -> Rows:
    """The rows as tensors; beside the answers `text_share` of the passages' tokens are learned."""
    import torch

    width = max(map(len, rows))
    columns: dict[str, list[list[int]]] = {
        name: [] for name in ("ids", "places", "block", "labels", "sources", "answer")
    }
    kinds: list[str] = []
    for row in rows:
        lines = _lines(row, len(kinds), text_share, chance)
        kinds += [one.kind for one in row.blocks]
        for (name, column), empty in zip(columns.items(), (padding, 0, -1, NOTHING, NOTHING, -1), strict=True):
            column.append(lines[name] + [empty] * (width - len(row)))
    return Rows(**{name: torch.tensor(column) for name, column in columns.items()}, kinds=tuple(kinds))


def _lines(row: Row, before: int, text_share: float, chance: Random) -> dict[str, list[int]]:
    """The row's part of each tensor; `before` questions stand in earlier rows."""
    size = len(row.prefix)
    learned = [token if chance.random() < text_share else NOTHING for token in row.prefix[1:]]
    lines = {
        "ids": list(row.prefix),
        "places": list(range(size)),
        "block": [0] * size,
        "labels": [*learned, NOTHING],
        "sources": [NOTHING] * size,
        "answer": [-1] * size,
    }
    for number, one in enumerate(row.blocks):
        asked_ids, told = len(one.question) - 1, len(one.answer)
        lines["ids"] += one.question + one.answer
        lines["places"] += range(size, size + asked_ids + 1 + told)
        lines["block"] += [number + 1] * (asked_ids + 1 + told)
        lines["labels"] += [NOTHING] * asked_ids + one.answer + [NOTHING]
        lines["sources"] += [NOTHING] * asked_ids + one.sources + [NOTHING]
        lines["answer"] += [-1] * asked_ids + [before + number] * told + [-1]
    return lines


def exact(rows: Rows, learned: Any, right: Any) -> Iterator[tuple[str, bool]]:
    """Kind of each question and whether its whole answer was foretold token by token, as greedy decoding then writes
    it. `right` says of each place in the mask `learned` whether its likeliest next token is the label."""
    import torch

    answer = rows.answer[learned]
    told = answer >= 0
    wrong = torch.zeros(len(rows.kinds), dtype=torch.long, device=answer.device)
    wrong.index_add_(0, answer[told], (~right[told]).long())
    yield from zip(rows.kinds, (wrong == 0).tolist(), strict=True)
