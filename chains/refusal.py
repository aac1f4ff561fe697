"""How likely it is that nothing found answers a question, from what its likeliest sentence and its passages lack.

A question whose matter is covered but whose detail is not has a near passage, and in it words that are like nothing of
the question's: a token of the question that no token of the passage is near, a rare term that stands nowhere. Where the
judge of sentences only compares sentences with each other, these say whether what was asked for is there at all.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.lexical import STOP_WORDS

Floats = NDArray[np.float32]

REFUSAL_FEATURES = (
    *("none", "likeness", "passage's mean", "passage's least", "most beside the sentence"),
    *("terms in sentence", "terms in passage", "terms anywhere", "rarest missing", "missing"),
)
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class RefusalHead:
    """A logistic regression on REFUSAL_FEATURES, which are scaled by `mean` and `deviation`, (n,) each."""

    mean: Floats
    deviation: Floats
    weights: Floats
    bias: float

    def chance(self, values: Floats) -> float:
        """The probability that nothing found answers."""
        score = float((values - self.mean) / self.deviation @ self.weights) + self.bias
        return float(1 / (1 + np.exp(-score)))


@dataclass(frozen=True, slots=True)
class Found:
    """What the likeliest sentence and its passage are to a question.

    `sentence` and `passage` hold, per token of the question, the cosine of the nearest token there, (tokens,); the
    terms are stemmed, `anywhere` those of all passages.
    """

    sentence: Floats
    passage: Floats
    sentence_terms: Set[str]
    passage_terms: Set[str]
    anywhere: Set[str]


def content_tokens(question: str, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which tokens, by where they begin, belong to words that are no stop words; all where there are no such words."""
    spans = [word.span() for word in _WORD.finditer(question) if word.group().lower() not in STOP_WORDS]
    inside = np.array([any(first <= start < end for first, end in spans) for start in starts], dtype=np.bool_)
    return inside if inside.any() else np.ones(len(starts), dtype=np.bool_)


def refusal_features(
    none: float, found: Found, weights: Floats, content: NDArray[np.bool_], rarity: Mapping[str, float]
) -> Floats:
    """(REFUSAL_FEATURES,), float32. `weights` are those of the question's tokens, `rarity` of its terms; `none` is the
    judge's probability that no sentence answers."""
    shares = weights * content
    shares = shares / max(float(shares.sum()), 1e-9)
    lacking = [weight for term, weight in rarity.items() if term not in found.passage_terms]
    total = sum(rarity.values()) or 1.0

    def covered(terms: Set[str]) -> float:
        return sum(weight for term, weight in rarity.items() if term in terms) / total

    return np.array(
        [
            np.log((none + 1e-6) / (1 - none + 1e-6)),
            weights @ found.sentence,
            shares @ found.passage,
            found.passage[content].min(),
            ((found.passage - found.sentence) * content).max(),
            *map(covered, (found.sentence_terms, found.passage_terms, found.anywhere)),
            max(lacking, default=0.0),
            len(lacking),
        ],
        dtype=np.float32,
    )


def fit_refusal(rows: Sequence[Sequence[Floats]], refused: Sequence[Sequence[bool]]) -> RefusalHead:
    """The head for several sets of questions, each of which counts as much, and in it both answers as much."""
    from sklearn.linear_model import LogisticRegression

    values = np.stack([row for part in rows for row in part])
    targets = np.array([answer for part in refused for answer in part], dtype=np.bool_)
    counts = np.array([0.5 / (sum(part) if answer else len(part) - sum(part)) for part in refused for answer in part])
    mean, deviation = values.mean(0), values.std(0) + 1e-6
    model = LogisticRegression(C=STRENGTH, max_iter=1000)
    model.fit((values - mean) / deviation, targets, sample_weight=counts / counts.mean())
    return RefusalHead(mean, deviation, model.coef_[0].astype(np.float32), float(model.intercept_[0]))


STRENGTH = 0.3
"""scikit-learn's C; .03, .1 and 1 give the same area under the curve."""
