"""What the library says of a question, in a number and in words."""

from collections.abc import Sequence

from index.document import ScoredPassage, SearchResult

STRONG_SIMILARITY = 0.45
"""Cosine from which a passage is called strong in words; quoted passages of the development turns lie above."""


def evidence(found: SearchResult) -> float:
    """How clearly the library answers: that of the best hit, in [-0.5, 1]."""
    return max((hit.evidence for hit in found.hits), default=0.0)


def strong_words(hits: Sequence[ScoredPassage]) -> str:
    strong = sum(hit.similarity >= STRONG_SIMILARITY for hit in hits)
    if strong == 0:
        return "no strong passage"
    return f"{strong} strong passage{'' if strong == 1 else 's'}"
