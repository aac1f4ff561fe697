"""Hybrid search: nearest vectors and best words, fused into one ranking. Stores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.document import NO_FILTER, Filter, ScoredPassage, SearchResult
from index.lexical import query_terms, rarity, text_terms
from index.match import Match, match, wanted
from index.rank import in_force_first, newer_first, put_back_repeats
from index.store import Store
from index.stored import PassageRow
from index.vectors import middle

CANDIDATES = 50
"""How many passages each of the two searches puts forward."""
READ = 30
"""How many of the candidates are read for how their words match. On COVID-QA 20, 30, 50 and 80 rank .726, .727, .729
and .730 (nDCG@10); reading one takes 0.1 ms."""
LEXICAL_WEIGHT = 0.3
"""What a BM25 score equal to the sum of its query's rarities is worth, in units of cosine. With .2 the ranks on
COVID-QA differ by less than half a point (docs/log.md, 2026-11-25)."""
MATCH_WEIGHT = 0.4
"""What all terms of the query close together are worth, in units of cosine. Chosen on COVID-QA, where it lifts recall@1
from .541 to .597, and on the sample desk's development turns, where more of it loses at rank 1."""

Scored = tuple[int, float]


class PassageIndex(Protocol):
    """What finds passages: the local indexes, or a service. Numbers are those of the store."""

    @property
    def model(self) -> int:
        """The embedding model whose vectors it holds, as the store numbers it."""
        ...

    def nearest(
        self, vector: NDArray[np.float32], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[Scored]:
        """The `n` nearest passages of these collections with the cosine of their nearest sentence, best first; fewer
        where some have many sentences among the nearest."""
        ...

    def words(
        self, terms: Sequence[str], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[Scored]:
        """At most `n` passages of these collections with any of the terms and their BM25 scores, best first."""
        ...

    def frequencies(self, terms: Sequence[str], collections: frozenset[str]) -> tuple[dict[str, int], int]:
        """In about how many passages of these collections each term stands, and how many there are."""
        ...


@dataclass(frozen=True, slots=True)
class Indexes:
    """What a search looks into: one state of the library."""

    store: Store
    index: PassageIndex


def search(
    indexes: Indexes,
    query: str,
    vector: NDArray[np.float32],
    k: int,
    collections: frozenset[str],
    only: Filter = NO_FILTER,
) -> SearchResult:
    """The `k` best passages of `collections` for a query and its unit vector, best first.

    Both halves put passages forward; the best by their two scores are read, and ranked by how their words match as
    well. Repeats of a better hit are put back, older ones of two that say the same go behind the newer. A passage found
    by its words alone carries its true cosine all the same.
    """
    store, index = indexes.store, indexes.index
    terms = query_terms(query)
    frequencies, total = index.frequencies(terms, collections)
    weights = {term: rarity(frequencies[term], total) for term in terms}
    candidates = max(CANDIDATES, k)
    similarity = dict(index.nearest(vector, candidates, collections, only))
    words = index.words(terms, candidates, collections, only)
    for number, rows in store.vectors(index.model, [number for number, _ in words if number not in similarity]):
        similarity[number] = float((rows @ vector).max())
    scores = fuse(similarity, words, sum(weights.values()))
    read = sorted(scores, key=lambda number: (-scores[number], number))[: max(READ, k)]
    asked = wanted(query, weights)
    hits = []
    vectors = {}
    for row in sorted(store.rows(read, collections, index.model, only), key=lambda row: row.number):
        matched = match(asked, row.passage.text, f"{row.title}\n{row.passage.section}")
        hits.append(_hit(row, row.vectors @ vector, matched, scores[row.number] + MATCH_WEIGHT * matched.score))
        vectors[row.passage.id] = middle(row.vectors)
    ranked = newer_first(put_back_repeats(in_force_first(hits), vectors), vectors)
    known = [term for term in terms if frequencies[term]]
    return SearchResult(tuple(ranked[: max(0, k)]), _share(known, weights), weights)


def fuse(similarity: Mapping[int, float], words: Sequence[Scored], rarities: float) -> dict[int, float]:
    """One score per passage: its cosine plus its weighted BM25 score.

    `similarity` holds the cosine of every candidate; `rarities` is the sum of the query's term weights, which
    makes BM25 scores of different queries alike: a passage with few of the words gains little, even if no
    other has more. A passage without a vector is no candidate.
    """
    lexical = {number: score / rarities for number, score in words} if rarities > 0 else {}
    return {number: cosine + LEXICAL_WEIGHT * lexical.get(number, 0.0) for number, cosine in similarity.items()}


def _hit(row: PassageRow, similarity: NDArray[np.float32], matched: Match, score: float) -> ScoredPassage:
    """`similarity` holds the cosine of each of the passage's sentences, in order."""
    cosines = tuple(np.clip(similarity, -1.0, 1.0).tolist())
    return ScoredPassage(
        passage=row.passage,
        path=row.path,
        title=row.title,
        collection=row.collection,
        score=score,
        similarity=max(cosines),
        sentences=cosines,
        coverage=matched.coverage,
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
