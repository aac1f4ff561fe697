"""What stands beside a passage: the rest of its section, and documents about the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from index.chunk import TABLE_FORMATS, CountTokens
from index.document import Passage, ScoredPassage
from index.search import Indexes
from index.vectors import middle


@dataclass(frozen=True, slots=True)
class RelatedDocument:
    """`similarity` is the cosine of its nearest sentence, in [-1, 1]."""

    document_id: str
    path: str
    title: str
    collection: str
    similarity: float


def section_around(
    hit: ScoredPassage, passages: Sequence[Passage], limit_tokens: int, count: CountTokens
) -> tuple[Passage, ...]:
    """The hit's passage with its neighbours in the same section, in the document's order, at most `limit_tokens` long.

    `passages` are the document's. Neighbours join in turn, the following one first, until one does not fit. Each stays
    the passage that it is, with its own id and span, so that what is quoted from it is cited as from any other. A row
    of a table stays alone, and so does a hit that is longer than the limit.
    """
    section = hit.passage.section
    first = last = next((at for at, passage in enumerate(passages) if passage.id == hit.passage.id), -1)
    if first < 0:  # the document has changed since
        return (hit.passage,)
    if PurePosixPath(hit.path).suffix.lower().lstrip(".") in TABLE_FORMATS:
        return (passages[first],)
    tokens = count(hit.passage.text)
    after = True
    while True:
        options = [at for at in (first - 1, last + 1) if 0 <= at < len(passages) and passages[at].section == section]
        if not options:
            break
        at = max(options) if after else min(options)
        tokens += count(passages[at].text)
        if tokens > limit_tokens:
            break
        first, last = min(first, at), max(last, at)
        after = not after
    return tuple(passages[first : last + 1])


def vector_of(indexes: Indexes, passages: Sequence[Passage], collections: frozenset[str]) -> NDArray[np.float32] | None:
    """The unit vector of what some passages are about; None if none is in `collections`, or stored any longer."""
    chosen: list[int] = []
    for document, ordinals in _by_document(passages).items():
        numbers = indexes.store.numbers(document)
        chosen += [numbers[ordinal] for ordinal in ordinals if ordinal < len(numbers)]
    rows = sorted(indexes.store.rows(chosen, collections, indexes.index.model), key=lambda row: row.number)
    embedded = [row.vectors for row in rows if len(row.vectors)]
    return middle(np.concatenate(embedded)) if embedded else None


def _by_document(passages: Sequence[Passage]) -> dict[str, list[int]]:
    """The places of passages in their documents."""
    found: dict[str, list[int]] = {}
    for passage in passages:
        found.setdefault(passage.document_id, []).append(passage.ordinal)
    return found


def related(
    indexes: Indexes,
    vector: NDArray[np.float32],
    k: int,
    collections: frozenset[str],
    without: frozenset[str] = frozenset(),
    least: float = -1.0,
) -> list[RelatedDocument]:
    """The `k` documents of `collections` nearest to a unit vector, best first, but for those whose ids are `without`.

    None whose nearest sentence has a cosine under `least`.

    The vector is a document's or a passage's from here, with its own document left out, or an embedded answer's, with
    those left out that it cites.
    """
    n = max(1, k) * 8
    while True:
        nearest = dict(indexes.index.nearest(vector, n, collections))
        rows = {row.number: row for row in indexes.store.rows(list(nearest), collections, indexes.index.model)}
        found: dict[str, RelatedDocument] = {}
        for number, similarity in nearest.items():
            row = rows.get(number)
            if row is None or row.passage.document_id in without or similarity < least:
                continue
            key = row.passage.document_id
            found.setdefault(key, RelatedDocument(key, row.path, row.title, row.collection, min(1.0, similarity)))
        farthest = min(nearest.values(), default=-1.0)
        if len(found) >= k or farthest < least or n >= indexes.store.counts()[1]:
            return list(found.values())[: max(0, k)]
        n *= 4
