"""The classifier on made-up vectors: its scores against the formula, its probabilities, what it rejects and keeps."""

import numpy as np
import pytest
from numpy.typing import NDArray

from chains.classify import (
    RIDGE,
    WIDTH,
    cosines_to,
    fit_classifier,
    fit_kernel,
    score_unseen,
    softmax,
)

NONE = np.empty((0, 24), dtype=np.float32)


def cloud(labels: int, each: int, seed: int = 0, spread: float = 0.12) -> tuple[NDArray[np.float32], list[str]]:
    """Unit vectors around one random direction per label."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, 24))[:labels]
    rows = np.repeat(centres, each, axis=0) / 5 + chance.normal(scale=spread, size=(labels * each, 24))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32), [f"label {number:02d}" for number in np.repeat(np.arange(labels), each)]


def owners(labels: list[str]) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


@pytest.mark.parametrize("few", [12, 5])
def test_scores_are_those_of_kernel_ridge_regression_with_labels_weighing_alike(few: int) -> None:
    known, labels = cloud(4, 12)
    known, targets = known[: 36 + few], np.eye(4)[owners(labels)][: 36 + few]
    asked, _ = cloud(4, 3, seed=1)

    def kernel(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
        apart = ((one[:, None].astype(float) - other[None]) ** 2).sum(axis=2)
        return np.asarray(np.exp(-WIDTH * apart))

    weights = len(known) / (4 * targets.sum(axis=0)) @ targets.T
    expected = kernel(asked, known) @ np.linalg.solve(kernel(known, known) + np.diag(RIDGE / weights), targets)
    assert np.allclose(fit_kernel(known, targets.argmax(axis=1)).score(asked).values, expected, atol=2e-4)


def test_one_text_is_scored_as_many_are() -> None:
    known, labels = cloud(6, 20)
    asked, _ = cloud(6, 2, seed=1)
    kernel = fit_kernel(known, owners(labels))
    together = kernel.score(asked)
    for row, text in enumerate(asked):
        alone = kernel.score(text[None])
        assert np.allclose(alone.values[0], together.values[row], atol=1e-4)
        assert alone.nearest[0] == pytest.approx(together.nearest[row], abs=1e-5)
        assert np.allclose(cosines_to(known, text), known @ text, atol=1e-5)


def test_landmarks_decide_nearly_as_all_texts_do() -> None:
    known, labels = cloud(10, 60)
    asked, _ = cloud(10, 30, seed=3)
    whole = fit_kernel(known, owners(labels)).score(asked).values.argmax(axis=1)
    kernel = fit_kernel(known, owners(labels), exact=200)
    assert len(kernel.points) == 200 and set(kernel.owners) == set(range(10))
    assert (kernel.score(asked).values.argmax(axis=1) == whole).mean() > 0.98


def test_probabilities_state_how_often_they_are_right() -> None:
    known, labels = cloud(12, 60, spread=0.3)
    asked, gold = cloud(12, 200, seed=4, spread=0.3)
    fitted = fit_classifier(known, labels, NONE, recall=0.8)
    chances = fitted.probabilities(fitted.kernel.score(asked))
    right = chances.argmax(axis=1) == owners(gold)
    assert np.allclose(chances.sum(axis=1), 1)
    assert 0.6 < right.mean() < 0.98
    assert chances.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.06)


def test_the_stated_share_of_unknown_labels_is_rejected() -> None:
    """Of labels that neither the classifier nor its operating point ever saw."""
    vectors, labels = cloud(40, 30, spread=0.24)
    strange = np.array([int(label[-2:]) % 4 == 0 for label in labels])
    fitted = fit_classifier(vectors[~strange], list(np.array(labels)[~strange]), NONE, recall=0.8)
    fresh, names = cloud(40, 20, seed=7, spread=0.24)
    out = np.array([int(name[-2:]) % 4 == 0 for name in names])
    odds = fitted.in_scope(fitted.kernel.score(fresh))
    assert 0.65 < (odds[out] < fitted.level).mean() < 0.95
    assert (odds[~out] >= fitted.level).mean() > (odds[out] >= fitted.level).mean() + 0.3


def test_known_strays_set_the_level_where_there_are_some() -> None:
    known, labels = cloud(6, 40, spread=0.24)
    strays = cloud(20, 30, seed=5, spread=0.24)[0][180:]
    low = fit_classifier(known, labels, strays, recall=0.5)
    high = fit_classifier(known, labels, strays, recall=0.95)
    assert low.level < high.level
    assert (high.in_scope(high.kernel.score(strays)) < high.level).mean() >= 0.9


def test_texts_are_scored_by_kernels_that_never_saw_them() -> None:
    """A lone text of another kind under a label: with it, its label is certain; without it, nothing speaks for it."""
    known, labels = cloud(4, 15)
    own = owners(labels)
    own[0] = 3
    seen = fit_kernel(known, own).score(known[:1]).values[0]
    unseen = score_unseen(known, own, np.arange(60))
    assert seen[3] > 0.5 and unseen[0, 3] < 0.2 and unseen[0].argmax() == 0
    assert (unseen[1:].argmax(axis=1) == own[1:]).all()


def test_a_label_of_one_text_scores_nothing_unseen() -> None:
    known, labels = cloud(3, 8)
    own = np.append(owners(labels), 3)
    strange = -known[:1]
    assert score_unseen(np.concatenate([known, strange]), own, np.array([24]))[0, 3] == 0.0


def test_softmax_survives_large_scores() -> None:
    assert np.allclose(softmax(np.array([[1000.0, 0.0], [0.0, 0.0]])), [[1, 0], [0.5, 0.5]])
