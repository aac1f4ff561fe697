"""What is put back in a ranking: out-of-date passages, repeats, and the older of two that say the same.

Functions of hits and their vectors alone. A hit that is put back keeps at most the score of the one before it, so that
scores always fall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index.document import ScoredPassage
from index.lexical import text_terms

OUTDATED_FACTOR = 0.85
"""An out-of-date passage keeps this share of its score when a current one scores near it."""
NEAR = 0.75
"""A current passage with this share of an out-of-date one's score is near enough to go first."""
DIVERSITY = 0.8
"""Lambda of maximal marginal relevance (Carbonell and Goldstein 1998): the weight of a hit's score, the rest being that
of its cosine with the nearest hit before it."""
REPEATS = 0.95
"""Only a cosine from here on counts as a repeat. With every cosine counted, .95 to .7 as lambda cost 0 to 2 points of
recall@5 on COVID-QA and up to 7 on the sample desk; with this floor neither loses any (docs/log.md, 2026-11-25)."""
REPEATED_TERMS = 0.9
"""And only where this share of the terms (of all that either has) is common: rows of a table are alike to the model."""
SAME_COSINE = 0.9
SAME_TERMS = 0.8
"""Two passages say the same from this cosine and this share of common terms (of all that either has) on. The
terms tell a new edition from another clause of the same form; numbers may differ, since they are what changes."""

Vectors = Mapping[str, NDArray[np.float32]]
"""A unit vector by passage id."""


def in_force_first(hits: Sequence[ScoredPassage]) -> list[ScoredPassage]:
    """Hits by score, out-of-date ones lowered where a current one is near; equal ones as they came."""
    best = max((hit.score for hit in hits if not hit.outdated), default=0.0)
    lowered = [
        replace(hit, score=hit.score * OUTDATED_FACTOR)
        if hit.outdated and hit.score > 0 and best >= NEAR * hit.score
        else hit
        for hit in hits
    ]
    return sorted(lowered, key=lambda hit: -hit.score)


def put_back_repeats(hits: Sequence[ScoredPassage], vectors: Vectors) -> list[ScoredPassage]:
    """Ranked hits anew: each next one has the best DIVERSITY * score - (1 - DIVERSITY) * likeness to one before it."""
    if len(hits) < 2:
        return list(hits)
    stacked = np.stack([vectors[hit.passage.id] for hit in hits])
    cosine = stacked @ stacked.T
    likeness = np.zeros_like(cosine)
    for one, other in np.argwhere(np.triu(cosine >= REPEATS, 1)).tolist():
        if _common(text_terms(hits[one].passage.text), text_terms(hits[other].passage.text)) >= REPEATED_TERMS:
            likeness[one, other] = likeness[other, one] = cosine[one, other]
    if not likeness.any():  # as nearly always
        return list(hits)
    left = list(range(len(hits)))
    order: list[int] = []
    repeated = np.zeros(len(hits))
    while left:
        taken = max(left, key=lambda at: DIVERSITY * hits[at].score - (1 - DIVERSITY) * repeated[at])
        left.remove(taken)
        order.append(taken)
        repeated = np.maximum(repeated, likeness[taken])
    return falling([hits[at] for at in order])


def newer_first(hits: Sequence[ScoredPassage], vectors: Vectors) -> list[ScoredPassage]:
    """Ranked hits, but of two that say the same in documents with stated dates the newer directly before the older.

    The date of an out-of-date one says until when it applied: it never goes first by it.
    """
    left = list(hits)
    ordered: list[ScoredPassage] = []
    while left:
        first = left[0]
        same = [hit for hit in left[1:] if _is_newer_edition(hit, first, vectors)]
        taken = max(same, key=lambda hit: hit.updated or "", default=first)
        left.remove(taken)
        ordered.append(taken)
    return falling(ordered)


def _is_newer_edition(hit: ScoredPassage, other: ScoredPassage, vectors: Vectors) -> bool:
    if not hit.updated or not other.updated or hit.updated <= other.updated:
        return False
    if hit.outdated or hit.passage.document_id == other.passage.document_id:
        return False
    if float(vectors[hit.passage.id] @ vectors[other.passage.id]) < SAME_COSINE:
        return False
    ours, theirs = _without_numbers(hit.passage.text), _without_numbers(other.passage.text)
    return _common(ours, theirs) >= SAME_TERMS


def _without_numbers(text: str) -> frozenset[str]:
    return frozenset(term for term in text_terms(text) if not any(map(str.isdecimal, term)))


def _common(ours: frozenset[str], theirs: frozenset[str]) -> float:
    """The share of the terms of both that each has, in [0, 1]; 1 where neither has any."""
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0


def falling(hits: Sequence[ScoredPassage]) -> list[ScoredPassage]:
    """The hits in their order, each score at most the one before."""
    falling: list[ScoredPassage] = []
    for hit in hits:
        limit = falling[-1].score if falling else hit.score
        falling.append(replace(hit, score=limit) if hit.score > limit else hit)
    return falling
