"""What a desk is about: its documents and question-answer pairs, put together by what they mean. Decides nothing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from adapters.checks import check_rows, without
from adapters.config import AdapterFile, read_adapter_file
from adapters.dataset import Example
from adapters.rows import read_rows
from chains.utterances import Embed, Vectors
from index.document import DocumentInfo
from index.library import Library
from index.stated import readable_title

Item = TypeVar("Item")
APART = 1.25
"""How far apart (Ward's distance of unit vectors) topics are at least. Of the sample desk's 128 documents and intents
.9 makes 111 topics, 1.1 66, 1.25 43, in which whoever knows the desk finds its parts again, 1.5 23, which put canteens
beside leave."""
READ = 4
"""Passages of a document, and questions of an intent, that its vector is the mean of, evenly chosen."""
MOST_UNITS = 1500
"""Documents and intents that are looked at, evenly chosen where there are more: joining them takes their square."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of a topic: a document, or the clean pairs of one intent (without intents: of one answer).

    `group` is the document's folder or the adapter's title; `fields` says that the answers are a form's fields.
    """

    name: str
    group: str
    document: DocumentInfo | None = None
    pairs: tuple[Example, ...] = ()
    fields: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """Units that are about the same; `centre` is (d,), their mean direction."""

    name: str
    units: tuple[Unit, ...]
    centre: NDArray[np.float32]

    @property
    def documents(self) -> tuple[DocumentInfo, ...]:
        return tuple(unit.document for unit in self.units if unit.document)

    @property
    def pairs(self) -> tuple[Example, ...]:
        return tuple(pair for unit in self.units for pair in unit.pairs)

    @property
    def fields(self) -> bool:
        return any(unit.fields for unit in self.units)


def gather_topics(library: Library, collections: frozenset[str], adapters: Path, embed: Embed) -> list[Topic]:
    """The desk's topics. What fills a form's fields is a topic of its own, whatever its tickets are about.

    Raises DatasetError where an adapter's rows cannot be read.
    """
    units = evenly([*_documents(library, collections), *_pairs(adapters)], MOST_UNITS)
    if not units:
        return []
    vectors = np.stack([_vector(unit, library, embed) for unit in units])
    free = [place for place, unit in enumerate(units) if not unit.fields]
    groups = [[place] for place, unit in enumerate(units) if unit.fields]
    for number in sorted(set(numbers := _clusters(vectors[free]))):
        groups.append([place for place, own in zip(free, numbers, strict=True) if own == number])
    return [_topic([units[place] for place in group], vectors[group]) for group in groups]


def _documents(library: Library, collections: frozenset[str]) -> Iterator[Unit]:
    for info in library.documents(collections):
        yield Unit(info.title, Path(info.path).parent.name, document=info)


def _pairs(adapters: Path) -> Iterator[Unit]:
    for folder in sorted(adapters.iterdir()) if adapters.is_dir() else ():
        if not (folder / "train.jsonl").is_file():
            continue
        file = read_adapter_file(folder / "adapter.yaml")
        placed, faults = read_rows(folder / "train.jsonl")
        rows = [one.row for one in without(placed, [*faults, *check_rows(placed)])]
        if file.task == "fields" or (rows and all(_is_form(row.completion) for row in rows)):
            yield Unit(file.title, file.title, pairs=tuple(rows), fields=True)
        else:
            yield from _intents(file, rows)


def _intents(file: AdapterFile, rows: Sequence[Example]) -> Iterator[Unit]:
    grouped: dict[str, list[Example]] = {}
    for row in rows:
        grouped.setdefault(row.intent or row.completion, []).append(row)
    for key, own in grouped.items():
        name = readable_title(key) if own[0].intent else own[0].prompt[:60]
        yield Unit(name, file.title, pairs=tuple(own))


def _is_form(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def _vector(unit: Unit, library: Library, embed: Embed) -> NDArray[np.float32]:
    """(d,), of length 1."""
    if unit.document:
        passages = evenly(library.passages(unit.document.id), READ)
        texts = [f"{unit.document.title}: {passage.text}" for passage in passages] or [unit.document.title]
    else:
        chosen = evenly(unit.pairs, READ)
        # An answer tells intents of one adapter apart better than another wording of the question.
        texts = [text for pair in chosen for text in (pair.prompt, pair.completion)] or [unit.name]
    mean = embed(texts).mean(axis=0)
    return _unit(mean)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / (np.linalg.norm(vector) or 1.0), np.float32)


def _clusters(vectors: Vectors) -> list[int]:
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) < 2:
        return [1] * len(vectors)
    return [int(number) for number in fcluster(linkage(vectors, "ward"), APART, "distance")]


def _topic(units: Sequence[Unit], vectors: Vectors) -> Topic:
    """Named after the unit nearest to its middle, a document if there is one."""
    centre = _unit(vectors.mean(axis=0))
    nearness = vectors @ centre
    first = max(range(len(units)), key=lambda place: (units[place].document is not None, float(nearness[place])))
    named = units[first]
    more = f" and {len(units) - 1} more" if len(units) > 1 else ""
    name = named.name if named.fields or not named.group else f"{named.group}: {named.name}{more}"
    # A document's title may hold what a terminal obeys.
    return Topic("".join(letter for letter in name if letter.isprintable()), tuple(units), centre)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, from the first on at even distances."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])
