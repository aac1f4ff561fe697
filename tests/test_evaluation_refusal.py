"""How the refusal head is measured: on rows with values that are known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chains.refusal import REFUSAL_FEATURES
from evaluation.refusal import FOLDS, RefusalReport, Rows, _fit, _out_of_fold, area_under_curve

WIDTH = len(REFUSAL_FEATURES)


def rows(refused: int, answered: int, apart: float) -> Rows:
    random = np.random.default_rng(0)
    values = random.normal(size=(refused + answered, WIDTH)).astype(np.float32)
    values[:refused, 0] += apart
    return [(row, place < refused) for place, row in enumerate(values)]


def test_the_area_is_that_of_scikit_learn_with_ties() -> None:
    chances = np.random.default_rng(1).integers(0, 5, size=60) / 5
    refused = np.arange(60) % 3 == 0
    assert area_under_curve(chances, refused) == pytest.approx(roc_auc_score(refused, chances))


def test_a_turn_is_judged_by_heads_that_never_saw_it() -> None:
    """What tells nothing is known to a head that saw it, and to no other."""
    turns = rows(30, 30, apart=0.0)
    refused = np.array([answer for _, answer in turns])
    seen = _fit([], turns)
    assert area_under_curve(np.array([seen.chance(row) for row, _ in turns]), refused) > 0.65
    assert area_under_curve(_out_of_fold([], turns), refused) < 0.55


def test_turns_that_lie_apart_are_told_apart_out_of_fold() -> None:
    turns = rows(FOLDS * 2, FOLDS * 4, apart=6.0)
    refused = np.array([answer for _, answer in turns])
    assert area_under_curve(_out_of_fold(rows(20, 20, apart=6.0), turns), refused) > 0.98


def test_f1_is_the_harmonic_mean_and_nothing_without_a_right_refusal() -> None:
    report = RefusalReport(_fit([], rows(5, 5, 1.0)), 10, 5, 0.5, precision=0.5, recall=1.0, answerable_refused=0.1)
    assert report.f1 == pytest.approx(2 / 3)
    assert RefusalReport(report.head, 10, 5, 0.5, 0.0, 0.0, 0.0).f1 == 0.0
