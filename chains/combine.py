"""Small models on the evidence of few turns: fitted, judged on turns that they never saw, with a level for a recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chains.classify import softmax

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

FOLDS = 5
"""Parts of the turns: each is judged by a model fitted on the others."""
ROUNDS = 4
"""Partitions over which the judgements are averaged: one alone moves the level by a turn or two."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """A fitted multinomial logistic regression as plain arrays: scikit-learn's own call costs milliseconds."""

    weights: Numbers
    bias: Numbers

    def __call__(self, row: NDArray[Any]) -> Numbers:
        """`(classes,)` of one row `(features,)`, or `(n, classes)` of many."""
        return softmax(row @ self.weights.T + self.bias)


def fit_scaled(rows: Numbers, targets: Places, strength: float) -> Softmax:
    """Fitted on columns scaled alike; the scaling becomes part of the weights. Targets are 0..n-1, each present.

    `strength` is scikit-learn's C.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit((rows - mean) / spread, targets)
    weights, bias = model.coef_ / spread, model.intercept_
    if len(weights) == 1:  # two classes: scikit-learn keeps one row
        weights, bias = np.vstack([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return Softmax(weights, bias - weights @ mean)


def judge_unseen(rows: Numbers, targets: Places, strength: float) -> Numbers:
    """`(n, classes)`: each row's probabilities by models fitted without it. Needs FOLDS rows of each class."""
    classes = int(targets.max()) + 1
    judged = np.zeros((len(rows), classes))
    for turn in range(ROUNDS):
        part = spread_evenly(targets, np.random.default_rng(turn))
        for fold in range(FOLDS):
            model = fit_scaled(rows[part != fold], targets[part != fold], strength)
            judged[part == fold] += model(rows[part == fold]) / ROUNDS
    return judged


def spread_evenly(targets: Places, chance: np.random.Generator) -> Places:
    """The part of each row, 0..FOLDS-1, drawn so that every class is spread over all of them."""
    part = np.empty(len(targets), dtype=np.int64)
    for one in np.unique(targets):
        own = np.flatnonzero(targets == one)
        part[own] = (chance.permutation(len(own)) + int(chance.integers(FOLDS))) % FOLDS
    return part


def level_for(recall: float, probabilities: Sequence[float] | Numbers) -> float:
    """The level that `recall` of these probabilities reach, .5 at most: above it everything else is less likely."""
    ordered = np.sort(np.asarray(probabilities))[::-1]
    return float(min(0.5, ordered[min(len(ordered), max(1, int(np.ceil(recall * len(ordered))))) - 1]))
