"""What `python -m evaluation reading` asks, and how its figures are told."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.base import load_base
from adapters.config import BaseManifest, read_manifest, write_manifest
from adapters.tiny.written import write_written
from desk.errors import DeskError
from evaluation.measures import Measure, lines, of_shares
from evaluation.reading import (
    BAR,
    Item,
    Read,
    generated_items,
    miss_row,
    reaches_bar,
    read_items,
    shares,
    training_exercises,
    written_items,
    xquad_items,
)

SETS = ("generated", "reworded", "written", "xquad")
TITLES = {
    "copied": "Fact copied right",
    "named": "Its passage named",
    "copied_and_named": "Both",
    "abstained": "Abstained where no passage says",
    "answerable_refused": "Answerable but refused",
}


def ask_sets(model: str, data: Path | None, count: int, names: Sequence[str] = ()) -> dict[str, list[Read]]:
    """The replies of the model in folder `model` (or of a hub id), by set: those of `names`, or all.

    XQuAD's is asked where `data` is given.
    """
    wanted = names or SETS
    base = load_base(model)
    read = {}
    for name in SETS:
        if name not in wanted or (name == "xquad" and data is None):
            continue
        items = _items(name, data, count)
        read[name] = read_items(base, items)
        print(f"{name}: {len(items):,} questions asked", file=sys.stderr, flush=True)
    return read


def _items(name: str, data: Path | None, count: int) -> list[Item]:
    if name == "xquad":
        assert data is not None, "XQuAD's set needs its folder"
        return xquad_items(data, count)
    return written_items(count) if name == "written" else generated_items(count, reworded=name == "reworded")


def measures_of(read: Sequence[Read]) -> list[Measure]:
    """The figures of one set beside the bar."""
    return of_shares(shares(read), TITLES, BAR)


def misses_of(read: Mapping[str, Sequence[Read]]) -> list[dict[str, Any]]:
    """What went wrong, as JSON rows."""
    return [
        {"set": name, **miss_row(one)}
        for name, rows in read.items()
        for one in rows
        if not (one.abstained if one.item.right is None else one.copied and one.named)
    ]


FIGURES = "## Figures"
OWN_SETS = tuple(name for name in SETS if name != "xquad")
LEAST_ASKED = 100
"""Questions of a set: of 100, 80% right are 71% to 87% by Wilson's interval, and of fewer they say less."""


def record(folder: Path, read: Mapping[str, Sequence[Read]], command: str) -> bool:
    """Writes the figures into the folder's README.md and base.json, and there whether the model can read: if each set
    of our own was asked at least LEAST_ASKED questions and reaches the bar. Returns that.

    Raises DeskError for a folder without the two files.
    """
    card = folder / "README.md"
    if not (card.is_file() and (folder / "base.json").is_file()):
        raise DeskError(f"{folder} lacks README.md or base.json: --record is for what `pretrain --reading` wrote.")
    few = [name for name in OWN_SETS if len(read.get(name, ())) < LEAST_ASKED]
    can = not few and all(reaches_bar(read[name]) for name in OWN_SETS)
    told = {name: {key: share.to_json() for key, share in shares(rows).items()} for name, rows in read.items()}
    tables = [f"{name}:\n" + "\n".join(lines(measures_of(rows))) for name, rows in read.items()]
    verdict = "The bar is reached: it may answer in the chat." if can else "The bar is not reached."
    if few:
        verdict = f"Not decided: at least {LEAST_ASKED} questions of each set are needed, also of {', '.join(few)}."
    before = card.read_text(encoding="utf-8").split(FIGURES)[0]
    figures = "\n\n".join(tables)
    card.write_text(f"{before}{FIGURES}\n\n`{command}`\n\n```\n{figures}\n```\n\n{verdict}\n", encoding="utf-8")
    manifest = read_manifest(folder / "base.json", BaseManifest)
    created = {**manifest.created, "reading": told}
    write_manifest(folder / "base.json", manifest.model_copy(update={"can_read": can, "created": created}))
    return can


def write_exercises(path: Path) -> int:
    """Writes the questions that are not held out as exercises to train on; how many exercises they are."""
    exercises = list(training_exercises())
    write_written(path, exercises)
    return len(exercises)
