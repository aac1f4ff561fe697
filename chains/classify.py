"""Which label a text has, from its vector: kernel ridge regression on labelled vectors, with calibrated probabilities
and a level below which a text counts as out of scope.

It knows nothing of routes. The desk's router and `python -m evaluation routing` stand on it alike.

A score per label is fitted to 1 for the label's own texts and 0 for all others, with a Gaussian kernel (Rasmussen and
Williams 2006, chapter 2: the mean of a Gaussian process). Scores become probabilities by one factor, and tell what is
out of scope, by models fitted without a part of the texts and without whole labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

WIDTH = 1.0
RIDGE = 0.1
"""The kernel is exp(-WIDTH * squared distance), RIDGE is added to its diagonal. On a fifth of BANKING77's
training file WIDTH .5 and 1 give .923 and .926, logistic regression .912; RIDGE .03 gives .926 (docs/log.md)."""
EXACT = 10_500
LANDMARKS = 4_096
"""Up to EXACT texts the solution is exact, and takes memory and time of their square and cube (10,000: .8 GB, about 5 s
on one core). Of more, LANDMARKS represent the others (Nyström's method), which makes a decision cheap as well."""
NEIGHBOURS = 5
"""Nearest texts of a label whose mean cosine says how near it is."""
GROUPS = 4
HELD = 0.1
"""Models that judge texts they never saw: each lacks a GROUPS-th of the labels and HELD of the other texts."""
FREE = 0.02
"""So much of what is in scope may always be rejected, if that buys more than the stated recall."""
_CHUNK = 1024
PARTS = 5
"""Parts of the texts in `score_unseen`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of n texts: a score per label `(n, labels)`, and the mean cosine of the best label's nearest texts `(n,)`."""

    values: Vectors
    nearest: Vectors

    def evidence(self) -> Numbers:
        """`(n, 3)` of which whether a text is in scope is judged: the two best scores, and `nearest`."""
        best = np.sort(self.values, axis=1)[:, ::-1]
        second = best[:, 1] if best.shape[1] > 1 else np.zeros(len(best))
        return np.stack([best[:, 0], second, self.nearest], axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The fitted scores: `points` are `(m, d)` unit vectors, `owners` the label of each by its place, `weights`
    `(labels, m)`."""

    points: Vectors
    owners: Places
    weights: Vectors

    def score(self, vectors: Vectors) -> Scores:
        """The scores of `(n, d)` unit vectors."""
        if len(vectors) == 1:
            return self._score_one(vectors[0])
        values, nearest = [], []
        for start in range(0, len(vectors), _CHUNK):
            cosines = vectors[start : start + _CHUNK] @ self.points.T
            values.append(_gaussian(cosines) @ self.weights.T)
            best = values[-1].argmax(axis=1)
            nearest += [self._near(row, label) for row, label in zip(cosines, best, strict=True)]
        empty = np.empty((0, len(self.weights)), dtype=np.float32)
        return Scores(np.concatenate([empty, *values]), np.array(nearest, dtype=np.float32))

    def values(self, cosines: Vectors) -> Vectors:
        """`(labels,)`: the scores of a text from its cosines to the points `(m,)`."""
        values: Vectors = np.einsum("lm,m->l", self.weights, _gaussian(cosines))
        return values

    def _score_one(self, vector: Vectors) -> Scores:
        """Without BLAS, whose threads wait for each other: beside other work on both cores it takes 24 ms, this 1."""
        cosines = cosines_to(self.points, vector)
        values = self.values(cosines)
        near = self._near(cosines, int(values.argmax()))
        return Scores(values[None], np.array([near], dtype=np.float32))

    def _near(self, cosines: Vectors, label: int) -> float:
        own = cosines[self.owners == label]
        return float(np.sort(own)[-NEIGHBOURS:].mean())


@dataclass(frozen=True, slots=True)
class Classifier:
    """A kernel with its calibration: `sharpness` multiplies the scores before the softmax, `inside` `(4,)` weighs
    `Scores.evidence` and a bias into the log-odds that a text is in scope, which `level` is the least of."""

    labels: tuple[str, ...]
    kernel: Kernel
    sharpness: float
    inside: Numbers
    level: float

    def probabilities(self, scores: Scores) -> Numbers:
        """`(n, labels)`: how likely each label is, given that one of them is right."""
        return softmax(self.sharpness * scores.values)

    def in_scope(self, scores: Scores) -> Numbers:
        """`(n,)`: log-odds that a text belongs to any label, if as many did as did not."""
        odds: Numbers = scores.evidence() @ self.inside[:-1] + self.inside[-1]
        return odds


def cosines_to(points: Vectors, vector: Vectors) -> Vectors:
    """`(m,)`: the cosines of `(m, d)` unit vectors with one, by the thread that asks alone."""
    cosines: Vectors = np.einsum("md,d->m", points, vector)
    return cosines


def softmax(logits: NDArray[Any]) -> Numbers:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    shares: Numbers = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def fit_kernel(vectors: Vectors, owners: Places, exact: int = EXACT) -> Kernel:
    """The kernel fitted to unit vectors `(n, d)` and the label of each, 0..labels-1, every label present.

    Labels weigh alike, however many texts each has.
    """
    from scipy.linalg import cho_factor, cho_solve

    counts = np.bincount(owners)
    rarity = (len(owners) / (len(counts) * counts))[owners].astype(np.float32)
    targets = np.eye(len(counts), dtype=np.float32)[owners]
    if len(vectors) <= exact:
        chosen = np.arange(len(vectors))
        gram: NDArray[Any] = _gaussian(vectors @ vectors.T)
        gram[np.diag_indices_from(gram)] += RIDGE / rarity
        right: NDArray[Any] = targets
    else:
        chosen = _evenly(owners, min(LANDMARKS, exact))
        gram, right = _normal_equations(vectors, targets, rarity, vectors[chosen])
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    weights = cho_solve(factor, right, check_finite=False).astype(np.float32)
    return Kernel(vectors[chosen], owners[chosen], np.ascontiguousarray(weights.T))


def fit_classifier(
    vectors: Vectors, labels: Sequence[str], strays: Vectors, recall: float, seed: int = 0
) -> Classifier:
    """The classifier of `(n, d)` unit vectors and their labels; `strays` `(s, d)` are texts known to be out of scope.

    Without strays, the texts of labels that a model was fitted without stand for what is out of scope. `recall` is the
    share of either that `level` rejects. Needs two labels.
    """
    names = tuple(sorted(set(labels)))
    owners = np.array([names.index(label) for label in labels], dtype=np.int64)
    judged = _judge_unseen(vectors, owners, strays, np.random.default_rng(seed))
    inside, level = _fit_scope(judged.evidence_in, judged.evidence_out, recall)
    return Classifier(names, fit_kernel(vectors, owners), judged.sharpness, inside, level)


def score_unseen(vectors: Vectors, owners: Places, places: Places, seed: int = 0) -> Vectors:
    """`(places, labels)`: the scores of some of the texts by kernels that were fitted without them.

    A label that has no other text scores 0.
    """
    part = np.random.default_rng(seed).permutation(len(owners)) % PARTS
    values = np.zeros((len(places), int(owners.max()) + 1), dtype=np.float32)
    for number in range(PARTS):
        asked = np.flatnonzero(part[places] == number)
        if not len(asked) or (part != number).sum() == 0:
            continue
        known, own = np.unique(owners[part != number], return_inverse=True)
        kernel = fit_kernel(vectors[part != number], own.astype(np.int64))
        values[np.ix_(asked, known)] = kernel.score(vectors[places[asked]]).values
    return values


@dataclass(frozen=True, slots=True)
class _Judged:
    """What models said of texts that they never saw, in scope and out of it `(n, 3)`."""

    sharpness: float
    evidence_in: Numbers
    evidence_out: Numbers


def _judge_unseen(vectors: Vectors, owners: Places, strays: Vectors, chance: np.random.Generator) -> _Judged:
    """Each of GROUPS models is fitted without a part of the labels (none, where strays are known) and of the texts."""
    groups = chance.permutation(int(owners.max()) + 1) % GROUPS
    parts = chance.permutation(len(owners)) % round(1 / HELD)
    inside, outside, scored, right = [], [], [], []
    for group in range(min(GROUPS, len(groups))):
        away = np.zeros(len(owners), dtype=bool) if len(strays) else groups[owners] == group
        unseen = ~away & (parts == group)
        kept = np.flatnonzero(~away & ~unseen)
        known, own = np.unique(owners[kept], return_inverse=True)
        asked = np.flatnonzero(unseen & np.isin(owners, known))
        kernel = fit_kernel(vectors[kept], own.astype(np.int64), exact=EXACT if len(owners) <= EXACT else 2048)
        scores = kernel.score(vectors[asked])
        inside.append(scores.evidence())
        outside.append(kernel.score(strays if len(strays) else vectors[away]).evidence())
        scored.append(scores.values)
        right.append(np.searchsorted(known, owners[asked]))
    return _Judged(fit_sharpness(scored, right), np.concatenate(inside), np.concatenate(outside))


def fit_sharpness(scored: Sequence[Vectors], right: Sequence[Places]) -> float:
    """The factor under which the right labels are likeliest, to a fiftieth."""
    tried = np.geomspace(1.0, 100.0, 240)

    def surprise(factor: float) -> float:
        chances = [softmax(factor * rows)[np.arange(len(own)), own] for rows, own in zip(scored, right, strict=True)]
        return float(-np.log(np.concatenate(chances) + 1e-12).sum())

    return float(min(tried, key=surprise))


def _fit_scope(inside: Numbers, outside: Numbers, recall: float) -> tuple[Numbers, float]:
    """Weights of the evidence with a bias last, and the log-odds below which `recall` of `outside` lies, and FREE of
    `inside` at least."""
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([inside, outside])
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    targets = np.repeat([1, 0], [len(inside), len(outside)])
    model = LogisticRegression(class_weight="balanced").fit((rows - mean) / spread, targets)
    weights = model.coef_[0] / spread
    rule = np.append(weights, model.intercept_[0] - weights @ mean)
    stated = np.quantile(outside @ rule[:-1] + rule[-1], recall)
    return rule, float(max(stated, np.quantile(inside @ rule[:-1] + rule[-1], FREE)))


def _gaussian(cosines: Vectors) -> Vectors:
    """The kernel of unit vectors by their cosines."""
    kernel: Vectors = np.exp(2 * WIDTH * (cosines - 1), dtype=np.float32)
    return kernel


def _evenly(owners: Places, most: int) -> Places:
    """Places of about `most` texts, of each label as many as its share, and one at least."""
    share = most / len(owners)
    picked = []
    for label in range(int(owners.max()) + 1):
        own = np.flatnonzero(owners == label)
        picked.append(own[np.linspace(0, len(own) - 1, max(1, int(len(own) * share))).astype(np.int64)])
    return np.concatenate(picked)


def _normal_equations(vectors: Vectors, targets: Vectors, rarity: Vectors, points: Vectors) -> tuple[Numbers, Numbers]:
    """Both sides of the landmarks' least squares, each text weighed by its label's rarity."""
    gram: Numbers = RIDGE * _gaussian(points @ points.T).astype(np.float64)
    gram[np.diag_indices_from(gram)] += RIDGE * 1e-2  # near-duplicates would leave it singular
    right = np.zeros((len(points), targets.shape[1]))
    for start in range(0, len(vectors), _CHUNK):  # sums of a chunk in float32, of chunks in float64
        part = slice(start, start + _CHUNK)
        kernel = _gaussian(vectors[part] @ points.T)
        weighed = kernel * rarity[part, None]
        gram += weighed.T @ kernel
        right += weighed.T @ targets[part]
    return gram, right
