"""Passages for a message in its conversation: found by the message, by what it means, and near what was just read.

A message that stands alone is searched as it is. The more likely a message is a follow-up, the more its condensed
reading and the place of the conversation count; in between, both readings put passages forward, and the better evidence
wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chains.citations import Embed
from chains.condense import Understood
from chains.retrieval import search_in_force
from chains.workflow import LookUp
from index.document import ScoredPassage, SearchResult
from index.lexical import query_terms
from index.library import Library
from index.search import READ

PLACE_WEIGHT = 0.5
"""What a passage's score for the last question and its answer counts beside its score for the condensed message. Out of
fold .25, .5, .75 and 1 give the fact in 88%, 91%, 89% and 89% of 120 follow-ups; with 1, messages that stand alone
lose."""
NEW_WORDS = 2.0
"""How much rarer a follow-up's own terms are taken to be than those of the question before it, which outnumber them."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one reading of a message found, and what that counts in the order of the passages and as evidence."""

    found: SearchResult
    weight: float
    evidence: float
    is_place: bool = False


def vector_of(embed: Embed, understood: Understood) -> Vector:
    """`(d,)`, unit length: the message's, as far towards midway to its condensed reading as it follows up."""
    if not understood.follows:
        vector: Vector = embed([understood.message])[0]
        return vector
    message, condensed, _ = embed([understood.message, understood.condensed, understood.place])
    return _between(message, condensed, understood.follows / 2)


def look_around(
    library: Library,
    look: LookUp,
    embed: Embed,
    understood: Understood,
    vector: Vector,
    k: int,
    collections: frozenset[str],
) -> tuple[SearchResult, bool]:
    """What the library says of a message in its conversation; and whether an order precedes it, as `look` says."""
    follows = understood.follows
    if not follows:
        return look(understood.message, vector)
    message, condensed, place = embed([understood.message, understood.condensed, understood.place])

    def read(text: str, vector: Vector) -> SearchResult:
        # The last answer's words, which the place has, say nothing about whether the past is meant.
        return search_in_force(library, text, vector, READ, collections, meant=understood.condensed)

    meant = read(understood.condensed, _between(message, condensed, 0.5))
    readings = [
        _Reading(meant, follows, follows),
        _Reading(
            read(understood.place, place),
            follows * PLACE_WEIGHT,
            follows * PLACE_WEIGHT * (1 - understood.stray),
            is_place=True,
        ),
    ]
    if follows < 1:
        readings.append(_Reading(read(understood.message, message), 1 - follows, 1 - follows))
    known = sum(one.found.known_terms * one.weight for one in readings if not one.is_place)
    new = set(query_terms(understood.message))
    weights = {term: rarity * (NEW_WORDS if term in new else follows) for term, rarity in meant.term_weights.items()}
    return SearchResult(tuple(_blended(readings, k)), known, weights, meant.older), False


def _between(one: Vector, other: Vector, share: float) -> Vector:
    """The unit vector that lies `share` of the way from one to the other."""
    middle: Vector = (1 - share) * one + share * other
    unit: Vector = middle / np.linalg.norm(middle)
    return unit


def _blended(readings: Sequence[_Reading], k: int) -> list[ScoredPassage]:
    """The `k` best passages of all readings by their weighted scores, best first.

    One that a reading did not put forward has the score of the last that it did.
    """
    hits = [{hit.passage.id: hit for hit in one.found.hits} for one in readings]
    least = [min((hit.score for hit in one.found.hits), default=0.0) for one in readings]
    total = sum(one.weight for one in readings)
    scores = {}
    for passage in dict.fromkeys(passage for found in hits for passage in found):
        score = sum(
            one.weight * (found[passage].score if passage in found else low)
            for one, found, low in zip(readings, hits, least, strict=True)
        )
        scores[passage] = score / total
    best = sorted(scores, key=lambda passage: -scores[passage])[:k]
    return [
        _mean([(found[one], by) for by, found in zip(readings, hits, strict=True) if one in found], scores[one])
        for one in best
    ]


def _mean(found: Sequence[tuple[ScoredPassage, _Reading]], score: float) -> ScoredPassage:
    """One passage as several readings found it, with the weighted means of what they say of it.

    That the place is well documented is evidence for the message too, unless that is out of scope by itself; which
    sentence answers it, the place cannot say.
    """
    counts = np.array([one.evidence for _, one in found])
    shares = counts / counts.sum() if counts.any() else np.full(len(found), 1 / len(found))
    asked = [(hit.sentences, one.weight) for hit, one in found if not one.is_place] or [(found[0][0].sentences, 1.0)]
    sentences = np.average([row for row, _ in asked], axis=0, weights=[weight for _, weight in asked])
    return replace(
        found[0][0],
        score=score,
        similarity=float(shares @ [hit.similarity for hit, _ in found]),
        coverage=float(shares @ [hit.coverage for hit, _ in found]),
        sentences=tuple(sentences.tolist()),
    )
