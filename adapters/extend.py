"""Adds reviewed rows to an adapter's training data: what is wrong with one is told, and costs no other its place."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.checks import asked, check_rows, plain, without
from adapters.dataset import told
from adapters.errors import DatasetError
from adapters.rows import Example, Fault, Placed, as_line, read_rows


@dataclass(frozen=True, slots=True)
class Extended:
    """`added` rows were written; `replaced` counts those that gave way to one of them; `faults` are of the others."""

    added: tuple[Example, ...]
    replaced: int
    faults: tuple[Fault, ...]


def extend(folder: Path, new: Sequence[Placed]) -> Extended:
    """Writes the sound ones of `new` to the train.jsonl of an adapter's folder, which is replaced whole or not at all.

    A question that stands there with another answer gives way to the new row; one that is there already is not
    written twice. Raises DatasetError where what is there cannot be read.
    """
    path, held_out = folder / "train.jsonl", _read(folder / "eval.jsonl")
    old = _read(path)
    faults = [*check_rows(new), *(fault for fault in check_rows(held_out, new) if fault.kind == "leakage")]
    known = {(asked(one.row), plain(one.row.completion)) for one in old}
    sound = [one for one in without(new, faults) if (asked(one.row), plain(one.row.completion)) not in known]
    topics = {one.row.completion: one.row.intent for one in old}
    rows = [replace(one.row, intent=topics.get(one.row.completion)) for one in sound]
    gone = _lines_of(old, {asked(row) for row in rows})
    lines = path.read_text(encoding="utf-8-sig").split("\n") if path.is_file() else []
    kept = [line for number, line in enumerate(lines, 1) if number not in gone and line.strip()]
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_text("".join(f"{line}\n" for line in kept) + "".join(map(as_line, rows)), encoding="utf-8")
    beside.replace(path)
    return Extended(tuple(rows), len(gone), tuple(faults))


def _read(path: Path) -> list[Placed]:
    """The rows of a file that may be absent. Raises DatasetError for one with a severe fault."""
    placed, faults = read_rows(path) if path.is_file() else ([], [])
    if severe := [fault for fault in faults if fault.severe]:
        raise DatasetError(told(severe))
    return placed


def _lines_of(old: Sequence[Placed], questions: set[str]) -> set[int]:
    """The lines of these questions; of a line that holds a whole conversation, none: its other answers would go too."""
    rows = Counter(one.line for one in old)
    return {one.line for one in old if rows[one.line] == 1 and asked(one.row) in questions}
