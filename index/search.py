"""Hybrid search: nearest vectors and best words, fused into one ranking. Stores nothing."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.document import NO_FILTER, Filter, ScoredPassage, SearchResult
from index.lexical import query_terms, rarity, text_terms
from index.store import PassageRow, Store

CANDIDATES = 50
"""How many passages each of the two searches puts forward."""
LEXICAL_WEIGHT = 0.3
"""What a BM25 score equal to the sum of its query's rarities is worth, in units of cosine. Measured on XQuAD
(1,190 questions, 240 paragraphs), recall@1 and @5: cosine .897/.982, BM25 .934/.985, reciprocal rank fusion
.927/.992, this .955/.997; with the score as a share of the best one instead, .955/.994."""
OUTDATED_FACTOR = 0.85
"""An out-of-date passage keeps this share of its score when a current one scores near it."""
NEAR = 0.75
"""A current passage with this share of an out-of-date one's score is near enough to go first."""

Scored = tuple[int, float]


class PassageIndex(Protocol):
    """What finds candidates: the local indexes, or a service. Numbers are those of the store."""

    @property
    def model(self) -> int:
        """The embedding model whose vectors it holds, as the store numbers it."""
        ...

    def nearest(
        self, vector: NDArray[np.float32], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[int]:
        """The numbers of about the `n` passages of these collections that are nearest, and some more."""
        ...

    def words(
        self, terms: Sequence[str], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[Scored]:
        """At most `n` (number, BM25 score) pairs, best first, of passages with any of the terms."""
        ...

    def frequencies(self, terms: Sequence[str], collections: frozenset[str]) -> tuple[dict[str, int], int]:
        """In how many passages of these collections each term stands, and how many there are."""
        ...


def search(
    store: Store,
    index: PassageIndex,
    query: str,
    vector: NDArray[np.float32],
    k: int,
    collections: frozenset[str],
    only: Filter = NO_FILTER,
) -> SearchResult:
    """The `k` best passages of `collections` for a query and its unit vector, best first.

    The index puts candidates forward; their cosines are computed from the stored vectors, so that a passage that was
    found by its words alone carries its true one all the same.
    """
    terms = query_terms(query)
    frequencies, total = index.frequencies(terms, collections)
    weights = {term: rarity(frequencies[term], total) for term in terms}
    wanted = max(CANDIDATES, k)
    words = index.words(terms, wanted, collections, only)
    numbers = {*index.nearest(vector, wanted, collections, only), *(number for number, _ in words)}
    rows = [row for row in store.rows(list(numbers), collections, index.model, only) if len(row.vectors)]
    cosines = {row.number: np.clip(row.vectors @ vector, -1.0, 1.0) for row in rows}
    best = {number: float(cosine.max()) for number, cosine in cosines.items()}
    scores = fuse(best, words, sum(weights.values()))
    hits = [
        _hit(row, score, cosines[row.number].tolist(), weights) for row, score in _ranked(rows, scores)[: max(0, k)]
    ]
    known = [term for term in terms if frequencies[term]]
    return SearchResult(tuple(hits), _share(known, weights), weights)


def fuse(similarity: Mapping[int, float], words: Sequence[Scored], rarities: float) -> dict[int, float]:
    """One score per passage: its cosine plus its weighted BM25 score.

    `similarity` holds the cosine of every candidate; `rarities` is the sum of the query's term weights, which
    makes BM25 scores of different queries alike: a passage with few of the words gains little, even if no
    other has more. A passage without a vector is no candidate.
    """
    lexical = {number: score / rarities for number, score in words} if rarities > 0 else {}
    return {number: cosine + LEXICAL_WEIGHT * lexical.get(number, 0.0) for number, cosine in similarity.items()}


def _ranked(rows: Sequence[PassageRow], scores: dict[int, float]) -> list[tuple[PassageRow, float]]:
    """Rows with their final scores, best first; equal ones in the order of their numbers."""
    current = [scores[row.number] for row in rows if not row.outdated]
    best_current = max(current, default=0.0)
    ranked = []
    for row in rows:
        score = scores[row.number]
        if row.outdated and score > 0 and best_current >= NEAR * score:
            score *= OUTDATED_FACTOR
        ranked.append((row, score))
    return sorted(ranked, key=lambda pair: (-pair[1], pair[0].number))


def _hit(row: PassageRow, score: float, similarity: Sequence[float], weights: Mapping[str, float]) -> ScoredPassage:
    passage = row.passage
    return ScoredPassage(
        passage=passage,
        path=row.path,
        title=row.title,
        collection=row.collection,
        score=score,
        similarity=max(similarity),
        sentences=tuple(similarity),
        coverage=coverage(weights, f"{row.title}\n{passage.section}\n{passage.text}"),
        updated=row.updated,
        outdated=row.outdated,
    )


def coverage(weights: Mapping[str, float], text: str) -> float:
    """The share of the query's terms that occur in `text`, weighted by rarity, in [0, 1]."""
    found = text_terms(text)
    return _share([term for term in weights if term in found], weights)


def _share(terms: Sequence[str], weights: Mapping[str, float]) -> float:
    """The part of all terms' weight that some of them make up, in [0, 1]; 0 without terms."""
    total = sum(weights.values())
    return min(1.0, sum(weights[term] for term in terms) / total) if total else 0.0
