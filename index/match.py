"""How well the words of a text match those of a query: all of them, close together, spelled as asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from index.lexical import stem, words_of

WINDOW = 20
"""Terms that stand within this many words are close: about a sentence. 10, 30 and 50 rank COVID-QA within half a point
of it (docs/log.md, 2026-11-25)."""
OTHER_FORM = 0.7
"""What a term counts that the text has in another form than the query ("injection" for "injected")."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query's terms with their weights, and its words as they are spelled."""

    weights: Mapping[str, float]
    words: frozenset[str]


def wanted(query: str, weights: Mapping[str, float]) -> Wanted:
    return Wanted(weights, frozenset(words_of(query)))


@dataclass(frozen=True, slots=True)
class Match:
    """`coverage` is the share of the query's terms that the text or what stands above it has, weighted by rarity.

    `score` is the same share with terms in another form counted less, times the greatest one within WINDOW words of the
    text: 1 if the text has all terms close together, spelled as in the query. Both in [0, 1].
    """

    coverage: float
    score: float


def match(query: Wanted, text: str, above: str = "") -> Match:
    """How `text` matches, under its title and section `above`."""
    total = sum(query.weights.values())
    if not total:
        return Match(0.0, 0.0)
    found = _found(query, text)
    values: dict[str, float] = {}
    for _, term, value in (*found, *_found(query, above)):
        values[term] = max(value, values.get(term, 0.0))
    covered = sum(query.weights[term] for term in values)
    return Match(min(1.0, covered / total), sum(values.values()) * _closest(found) / (total * total))


def _found(query: Wanted, text: str) -> list[tuple[int, str, float]]:
    """(place in words, term, what it counts) of each word of `text` that is one of the query's terms."""
    words = words_of(text)
    weights = query.weights
    return [
        (place, term, weights[term] * (1.0 if words[place] in query.words else OTHER_FORM))
        for place, term in enumerate(map(stem, words))
        if term in weights
    ]


def _closest(found: Sequence[tuple[int, str, float]]) -> float:
    """The most that different terms count together within WINDOW words."""
    best = 0.0
    for number, (first, _, _) in enumerate(found):
        values: dict[str, float] = {}
        for place, term, value in found[number:]:
            if place - first >= WINDOW:
                break
            values[term] = max(value, values.get(term, 0.0))
        best = max(best, sum(values.values()))
    return best
