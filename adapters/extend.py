"""Adds reviewed rows to an adapter's training data: what is wrong with one is told, and costs no other its place."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.checks import asked, check_rows, without
from adapters.dataset import told
from adapters.errors import DatasetError
from adapters.folders import replacing_file, writing
from adapters.rows import Example, Fault, Placed, as_line, read_rows
from adapters.run_folder import take_lock


@dataclass(frozen=True, slots=True)
class Extended:
    """`added` rows were written; `replaced` counts those that gave way to one of them, `known` those that were there
    already; `faults` are of the others."""

    added: tuple[Example, ...]
    replaced: int
    known: int
    faults: tuple[Fault, ...]


def extend(folder: Path, new: Sequence[Placed]) -> Extended:
    """Writes the sound ones of `new` to the train.jsonl of an adapter's folder, which is replaced whole or not at all.

    A question that stands there with another answer gives way to the new row; one that is there already is not
    written twice. Raises DatasetError where what is there cannot be read, or somebody else is writing it, and
    UnwritableError.
    """
    path = folder / "train.jsonl"
    with writing(path), _alone(folder):
        before = path.read_bytes() if path.is_file() else b""
        held_out, old = _read(folder / "eval.jsonl"), _read(path)
        faults = [*check_rows(new), *(fault for fault in check_rows(held_out, new) if fault.kind == "leakage")]
        known = {(asked(one.row), one.row.completion.strip()) for one in old}
        told_apart = [one for one in without(new, faults) if (asked(one.row), one.row.completion.strip()) not in known]
        stuck = [fault for one in told_apart if (fault := _within_conversation(one, old))]
        sound = [one for one in told_apart if one.line not in {fault.line for fault in stuck}]
        topics = {one.row.completion: one.row.intent for one in old}
        rows = [replace(one.row, intent=topics.get(one.row.completion)) for one in sound]
        gone = _lines_of(old, {asked(row) for row in rows})
        # Numbered as rows.py numbers them: by line feeds alone.
        kept = [line for number, line in enumerate(before.split(b"\n"), 1) if number not in gone and line.strip()]
        text = b"".join(line.removesuffix(b"\r") + b"\n" for line in kept) + "".join(map(as_line, rows)).encode()
        if path.is_file() and path.read_bytes() != before:
            raise DatasetError(f"{path} was changed meanwhile: run the command again.")
        if rows:
            with replacing_file(path) as beside:
                beside.write_bytes(text)
    return Extended(tuple(rows), len(gone), len(without(new, faults)) - len(told_apart), (*faults, *stuck))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time writes an adapter's rows. Raises DatasetError while another one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        take_lock(handle, f"Somebody else is adding rows to {folder}: try again when they are done.")
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> list[Placed]:
    """The rows of a file that may be absent. Raises DatasetError for one with a severe fault."""
    placed, faults = read_rows(path) if path.is_file() else ([], [])
    if severe := [fault for fault in faults if fault.severe]:
        raise DatasetError(told(severe))
    return placed


def _lines_of(old: Sequence[Placed], questions: set[str]) -> set[int]:
    """The lines of these questions."""
    return {one.line for one in old if asked(one.row) in questions}


def _within_conversation(new: Placed, old: Sequence[Placed]) -> Fault | None:
    """A fault for a row whose question stands in a conversation: its line holds other answers, which would go too."""
    rows = Counter(one.line for one in old)
    for one in old:
        if rows[one.line] > 1 and asked(one.row) == asked(new.row):
            message = f"line {one.line} of {one.path.name} answers it within a conversation: mend it there."
            return Fault(new.path, new.line, "contradiction", message)
    return None
