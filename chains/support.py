"""Whether the documents hold enough on a question to quote from them at all, and what the library says of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chains.combine import FOLDS, Numbers, Softmax, fit_scaled
from index.document import ScoredPassage, SearchResult

LEAST_EVIDENCE = 0.35
"""Below this, nothing found is quoted where a desk has too few golden turns to fit the rule on."""
WRONGLY_REFUSED = 0.0
"""The share of answerable development turns that may be refused, out of fold. Evidence hardly separates the answerable
from the rest, and a quote beside the point costs less than a refusal that hides the right one."""
STRENGTH = 0.3
"""scikit-learn's C of the rule."""
STRONG_SIMILARITY = 0.45
"""Cosine from which a passage is called strong in words; quoted passages of the development turns lie above."""


@dataclass(frozen=True, slots=True)
class Support:
    """A fitted rule: the probability that documents answer, and the least of it that is quoted from."""

    rule: Softmax
    least: float

    def holds(self, row: Numbers) -> bool:
        return float(self.rule(row)[1]) >= self.least


def fit_support(rows: Numbers, answered: NDArray[np.bool_]) -> Support | None:
    """The rule fitted on questions that documents answer and on questions that none does, `(n, features)`.

    None with fewer than FOLDS of either: LEAST_EVIDENCE stays the rule.
    """
    if min(answered.sum(), (~answered).sum()) < FOLDS:
        return None
    targets = answered.astype(np.int64)
    # Every class in every part, in an order that does not depend on how the file is sorted.
    fold = np.empty(len(rows), dtype=np.int64)
    for kind in (0, 1):
        fold[targets == kind] = np.arange((targets == kind).sum()) % FOLDS
    judged = np.empty(len(rows))
    for part in range(FOLDS):
        rule = fit_scaled(rows[fold != part], targets[fold != part], STRENGTH, alike=True)
        judged[fold == part] = rule(rows[fold == part])[:, 1]
    least = float(np.quantile(judged[answered], WRONGLY_REFUSED))
    return Support(fit_scaled(rows, targets, STRENGTH, alike=True), least)


def evidence(found: SearchResult) -> float:
    """How clearly the library answers: that of the best hit, in [-0.5, 1]."""
    return max((hit.evidence for hit in found.hits), default=0.0)


def strong_words(hits: Sequence[ScoredPassage]) -> str:
    strong = sum(hit.similarity >= STRONG_SIMILARITY for hit in hits)
    if strong == 0:
        return "no strong passage"
    return f"{strong} strong passage{'' if strong == 1 else 's'}"
