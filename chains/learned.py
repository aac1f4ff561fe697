"""Utterances that a desk learned from its users' feedback: read when the router is fitted, beside the desk's own.

`python -m evaluation refit` decides what is learned, and writes the file; without one, nothing is.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from chains.turn import Route
from chains.utterances import Label
from desk.edge import Edge
from desk.errors import DeskError

FILE = "learned.jsonl"
"""Its name in the folder of the router's state."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A question, and what should answer it."""

    text: str
    label: Label


class _Row(Edge):
    text: str = Field(min_length=1)
    route: Route
    name: str | None = None


def read_learned(path: Path) -> tuple[Learned, ...]:
    """The learned utterances of a file, () where there is none. Raises DeskError naming file and line."""
    if not path.exists():
        return ()
    learned = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = _Row.model_validate_json(line)
        except ValidationError:
            raise DeskError(
                f"{path}, line {number}: not a learned utterance. `python -m evaluation refit --forget` removes the "
                "file, `--apply` writes it anew from the records."
            ) from None
        learned.append(Learned(row.text, Label(row.route, row.name)))
    return tuple(learned)


def write_learned(path: Path, learned: Sequence[Learned]) -> None:
    """Puts the utterances in place of those of before; a reader sees either all of the old or all of the new."""
    rows = [{"text": one.text, "route": one.label.route.value, "name": one.label.name} for one in learned]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)
