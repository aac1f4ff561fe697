"""Hybrid search: nearest vectors and best words, fused into one ranking. Stores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.document import ScoredPassage, SearchResult
from index.lexical import LexicalIndex, query_terms, rarity, text_terms
from index.store import MOST_SENTENCES, PassageRow, Store, vector_ids
from index.vectors import Allowed, VectorIndex

CANDIDATES = 50
"""How many passages each of the two searches puts forward."""
SENTENCES_EACH = 4
"""How many sentences are looked at for each passage that the vector search puts forward."""
LEXICAL_WEIGHT = 0.3
"""What a BM25 score equal to the sum of its query's rarities is worth, in units of cosine. Measured on XQuAD
(1,190 questions, 240 paragraphs), recall@1 and @5: cosine .897/.982, BM25 .934/.985, reciprocal rank fusion
.927/.992, this .955/.997; with the score as a share of the best one instead, .955/.994."""
OUTDATED_FACTOR = 0.85
"""An out-of-date passage keeps this share of its score when a current one scores near it."""
NEAR = 0.75
"""A current passage with this share of an out-of-date one's score is near enough to go first."""

Scored = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Indexes:
    """What a search looks into: one state of the library.

    `sentences` counts each passage's sentences; `allowed` is None where all may be read.
    """

    store: Store
    vectors: VectorIndex
    sentences: Mapping[int, int]
    lexical: LexicalIndex
    allowed: Allowed | None


def search(
    indexes: Indexes, query: str, vector: NDArray[np.float32], k: int, collections: frozenset[str]
) -> SearchResult:
    """The `k` best passages of `collections` for a query and its unit vector, best first.

    A passage found by its words alone carries its true cosine all the same.
    """
    terms = query_terms(query)
    frequencies, total = indexes.lexical.frequencies(terms, collections)
    weights = {term: rarity(frequencies[term], total) for term in terms}
    wanted = max(CANDIDATES, k)
    similarity = dict(search_vectors(indexes, vector, wanted))
    words = indexes.lexical.search(terms, wanted, collections)
    for number, _ in words:
        if number not in similarity and number in indexes.sentences:
            similarity[number] = max(_sentence_similarity(indexes, vector, number))
    scores = fuse(similarity, words, sum(weights.values()))
    rows = indexes.store.rows(list(scores), collections)
    hits = [
        _hit(row, demoted, _sentence_similarity(indexes, vector, row.number), weights)
        for row, demoted in _ranked(rows, scores)[: max(0, k)]
    ]
    known = [term for term in terms if frequencies[term]]
    return SearchResult(tuple(hits), _share(known, weights), weights)


def search_vectors(indexes: Indexes, vector: NDArray[np.float32], n: int) -> list[Scored]:
    """Nearest passages with the cosine of their nearest sentence, best first: about `n`, fewer where some have many
    sentences among the nearest."""
    found: dict[int, float] = {}
    for sentence, cosine in indexes.vectors.search(vector, n * SENTENCES_EACH, indexes.allowed):
        found.setdefault(sentence // MOST_SENTENCES, cosine)
    return list(found.items())


def search_words(indexes: Indexes, query: str, n: int, collections: frozenset[str]) -> list[Scored]:
    """At most `n` passages with a term of the query and their BM25 scores, best first."""
    return indexes.lexical.search(query_terms(query), n, collections)


def _sentence_similarity(indexes: Indexes, vector: NDArray[np.float32], number: int) -> list[float]:
    """The cosine of each sentence of a passage, in order."""
    ids = vector_ids(number, indexes.sentences[number]).tolist()
    found = indexes.vectors.similarity(vector, ids)
    return [min(1.0, max(-1.0, found[sentence])) for sentence in ids]


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
