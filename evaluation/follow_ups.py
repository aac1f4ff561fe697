"""Fits and measures the follow-up rule of `chains/condense.py` on the development turns, by cross-validation."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.assembly import Switchboard
from chains.condense import can_follow, features, needs_history
from chains.golden import GoldenTurn, read_golden
from chains.turn import Route
from desk.errors import DeskError
from index.document import DESK_COLLECTION

SEED = 20264
FOLDS = 8
ROUNDS = 5
MOST_FALSE = 0.04
"""Share of the messages that stand alone which may be taken for follow-ups when the level is chosen."""


@dataclass(frozen=True, slots=True)
class FollowUpReport:
    """`caught`: follow-ups seen; `mistaken`: others taken for one; both out of fold, but at a level that was chosen on
    the same rows. `by_words`: the same two shares of the words alone.

    `weights` belong into `condense.WEIGHTS`, `level` into `condense.LIKELY`: they are the program's, for every desk.
    """

    follow_ups: int
    others: int
    caught: float
    mistaken: float
    by_words: tuple[float, float]
    weights: tuple[float, ...]
    level: float


def measure_follow_ups(board: Switchboard) -> FollowUpReport:
    """Follow-ups and new subjects of the development turns, and its other turns as said after another question.

    Raises DeskError when there are fewer than FOLDS of either.
    """
    cases = [case for case in _cases(read_golden(board.desk.chains.golden_dev)) if can_follow(case[0])]
    compare = partial(board.assistant.compare, board.embedder.embed_queries, frozenset({DESK_COLLECTION}))
    rows = np.array([features(message, compare(message, previous)) for message, previous, _ in cases])
    targets = np.array([follows for _, _, follows in cases])
    if min(targets.sum(), (~targets).sum()) < FOLDS:
        raise DeskError(f"{board.desk.chains.golden_dev} has fewer than {FOLDS} follow-ups, or other turns: add some.")
    words = np.array([needs_history(message) for message, _, _ in cases])
    groups = np.unique([message for message, _, _ in cases], return_inverse=True)[1]
    chances = _out_of_fold(rows, targets, groups)
    level = float(np.quantile(chances[~targets & ~words], 1 - MOST_FALSE))
    taken = words | (chances >= level)
    weights, bias = _fit(rows, targets)
    return FollowUpReport(
        follow_ups=int(targets.sum()),
        others=int((~targets).sum()),
        caught=float(taken[targets].mean()),
        mistaken=float(taken[~targets].mean()),
        by_words=(float(words[targets].mean()), float(words[~targets].mean())),
        weights=(*(round(float(weight), 2) for weight in weights), round(bias, 2)),
        level=round(level, 2),
    )


def _cases(turns: Sequence[GoldenTurn]) -> list[tuple[str, str, bool]]:
    """(message, question before it, whether it follows up). A turn without a history is put after a question about
    something else, and after one about the same document: people stay with a subject in whole sentences too."""
    chance = random.Random(SEED)  # noqa: S311
    alone = [turn for turn in turns if turn.route is Route.RETRIEVAL and not turn.history]
    cases = [(turn.question, turn.history[-1].question, turn.follow_up) for turn in turns if turn.history]
    for turn in turns:
        others = [one for one in alone if one is not turn]
        near = [one for one in others if _documents(one) & _documents(turn)]
        if not turn.history:
            cases += [(turn.question, chance.choice(few).question, False) for few in (others, near) if few]
    return cases


def _documents(turn: GoldenTurn) -> set[str]:
    return {passage.document for passage in turn.passages}


def _out_of_fold(rows: NDArray[Any], targets: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row's probability by models fitted without its group, averaged over ROUNDS partitions."""
    from sklearn.model_selection import StratifiedGroupKFold

    chances = np.zeros(len(targets))
    for round_number in range(ROUNDS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=round_number)
        for train, held in folds.split(rows, targets, groups):
            weights, bias = _fit(rows[train], targets[train])
            chances[held] += 1 / (1 + np.exp(-(rows[held] @ weights + bias))) / ROUNDS
    return chances


def _fit(rows: NDArray[Any], targets: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Weights and bias on the features as they are, fitted on columns scaled alike."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    model = LogisticRegression().fit((rows - mean) / spread, targets)
    weights = model.coef_[0] / spread
    return weights, float(model.intercept_[0] - weights @ mean)
