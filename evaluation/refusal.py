"""Fits the refusal head (chains/refusal.py) on the judge's held-out questions and a desk's development turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.assembly import Switchboard
from chains.extract import MOST_UNANSWERED
from chains.golden import GoldenTurn, read_golden
from chains.judge import Floats
from chains.refusal import RefusalHead, fit_refusal
from chains.turn import Route, Turn
from desk.errors import DeskError
from evaluation.judge import lacks, search_held_out
from index.document import NO_GROUPS

FOLDS = 10
ROUNDS = 3
SEED = 0

Rows = list[tuple[Floats, bool]]
"""What the head weighs, and whether nothing answers."""


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """Figures of the turns out of fold, refused above MOST_UNANSWERED: `area` under the curve, precision and recall,
    and the share of answerable turns that is refused. `head` is fitted on all."""

    head: RefusalHead
    turns: int
    unanswerable: int
    area: float
    precision: float
    recall: float
    answerable_refused: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def measure_refusal(board: Switchboard) -> RefusalReport:
    """Fits and measures. Raises DeskError where fewer than FOLDS turns are answerable, or not."""
    judge = board.assistant.judge
    asked = lacks(judge, search_held_out(board.desk.index))
    turns = rows_of(board, read_golden(board.desk.chains.golden_dev))
    refused = np.array([answer for _, answer in turns], dtype=np.bool_)
    if min(refused.sum(), (~refused).sum()) < FOLDS:
        raise DeskError(
            f"{board.desk.chains.golden_dev} has fewer than {FOLDS} turns that no document answers: add some."
        )
    chances = _out_of_fold(asked, turns)
    told = chances > MOST_UNANSWERED
    rightly = int((told & refused).sum())
    return RefusalReport(
        head=_fit(asked, turns),
        turns=len(turns),
        unanswerable=int(refused.sum()),
        area=area_under_curve(chances, refused),
        precision=rightly / max(1, int(told.sum())),
        recall=rightly / int(refused.sum()),
        answerable_refused=float(told[~refused].mean()),
    )


def rows_of(board: Switchboard, turns: Sequence[GoldenTurn]) -> Rows:
    """Those of the turns to the documents, with Documents chosen; without the few for which nothing is found."""
    readable = board.library.readable(NO_GROUPS)
    rows: Rows = []
    for golden in turns:
        if golden.route is not Route.RETRIEVAL or golden.parts:
            continue
        turn = Turn(golden.question, golden.exchanges, route=Route.RETRIEVAL, collections=readable)
        prepared = board.assistant.prepare(turn)
        row = board.assistant.judge.lacks(prepared.standalone, prepared.found)
        if row is not None:
            rows.append((row, golden.refused))
    return rows


def area_under_curve(chances: NDArray[np.float64], refused: NDArray[np.bool_]) -> float:
    """How often an unanswerable turn has the higher chance than an answerable one."""
    above, below = chances[refused][:, None], chances[~refused][None]
    return float((above > below).mean() + 0.5 * (above == below).mean())


def _out_of_fold(asked: Rows, turns: Rows) -> NDArray[np.float64]:
    """Each turn's chance by heads fitted without its fold, averaged over ROUNDS partitions."""
    from sklearn.model_selection import StratifiedKFold

    chances = np.zeros(len(turns))
    for round_number in range(ROUNDS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED + round_number)
        for train, held in folds.split(turns, [refused for _, refused in turns]):
            head = _fit(asked, [turns[place] for place in train])
            chances[held] += [head.chance(turns[place][0]) / ROUNDS for place in held]
    return chances


def _fit(*sets: Rows) -> RefusalHead:
    return fit_refusal([[row for row, _ in part] for part in sets], [[refused for _, refused in part] for part in sets])
