"""Fits the follow-up rule of `chains/condense.py` on the development turns, by cross-validation, and shows at which
stage follow-ups are lost."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.assembly import Switchboard
from chains.assistant import Assistant
from chains.condense import SHOWN, UNLIKELY, can_follow, features, weight_of
from chains.golden import GoldenTurn, read_golden
from chains.turn import Answer, Finished, Retrieved, Route, Routed, Turn
from chains.workflow import look_up
from desk.errors import DeskError
from evaluation.right import holds_facts, holds_gold
from evaluation.share import Share
from index.document import DESK_COLLECTION, ScoredPassage

SEED = 20264
FOLDS = 8
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class FollowUpReport:
    """`caught`: follow-ups shown as one; `mistaken`: others shown as one; `touched`: others for which the conversation
    counts at all; all out of fold. `weights` belong into `condense.WEIGHTS`: they are the program's, for every desk.
    """

    caught: Share
    mistaken: Share
    touched: Share
    weights: tuple[float, ...]


def measure_rule(board: Switchboard) -> FollowUpReport:
    """Follow-ups and new subjects of the development turns, and its other turns as said after another question.

    Raises DeskError when there are fewer than FOLDS of either.
    """
    cases = [case for case in _cases(read_golden(board.desk.chains.golden_dev)) if can_follow(case[0])]
    embed = board.embedder.embed_queries
    look = partial(
        look_up, board.library, embed, k=board.desk.chains.passages, collections=frozenset({DESK_COLLECTION})
    )
    compare = partial(board.assistant.compare, embed, look)
    rows = np.array([features(message, compare(message, previous)) for message, previous, _ in cases])
    targets = np.array([follows for _, _, follows in cases])
    if min(targets.sum(), (~targets).sum()) < FOLDS:
        raise DeskError(f"{board.desk.chains.golden_dev} has fewer than {FOLDS} follow-ups, or other turns: add some.")
    groups = np.unique([message for message, _, _ in cases], return_inverse=True)[1]
    chances = _out_of_fold(rows, targets, groups)
    shown = np.array([weight_of(chance) >= SHOWN for chance in chances])
    weights, bias = _fit(rows, targets)
    return FollowUpReport(
        caught=_share(shown[targets]),
        mistaken=_share(shown[~targets]),
        touched=_share(chances[~targets] > UNLIKELY),
        weights=(*(round(float(weight), 2) for weight in weights), round(bias, 2)),
    )


def measure_stages(assistant: Assistant, turns: Sequence[GoldenTurn]) -> dict[str, dict[str, Share]]:
    """Per kind of turn with a history that documents answer, the share that is still right after each stage.

    The rule was fitted on these turns: its weights are few, but see `measure_rule`.
    """
    told = [turn for turn in turns if turn.history and turn.passages]
    kinds = {"follow-ups": True, "stand alone": False}
    return {name: _stages(assistant, [turn for turn in told if turn.follow_up is kind]) for name, kind in kinds.items()}


def _stages(assistant: Assistant, turns: Sequence[GoldenTurn]) -> dict[str, Share]:
    stages: dict[str, list[bool]] = {}
    for golden in turns:
        routed, hits, answer = _as_routed(assistant, golden)
        forced = _as_routed(assistant, golden, Route.RETRIEVAL)[2]
        shown = routed is not None and routed.standalone != golden.question.strip()
        reached = {
            "taken for what it is": shown is golden.follow_up,
            "passage in the first 5": holds_gold(hits[:5], golden),
            "passage first": holds_gold(hits[:1], golden),
            "fact quoted, Documents chosen": holds_facts(forced, golden),
            "routed to the documents": routed is not None and routed.decision.route is Route.RETRIEVAL,
            "fact quoted, as routed": holds_facts(answer, golden),
        }
        for stage, right in reached.items():
            stages.setdefault(stage, []).append(right)
    return {stage: _share(np.array(rights)) for stage, rights in stages.items()}


def _as_routed(
    assistant: Assistant, golden: GoldenTurn, route: Route | None = None
) -> tuple[Routed | None, tuple[ScoredPassage, ...], Answer | None]:
    """The decision, the hits and the answer of a turn; no answer where it goes to an adapter, which holds no fact of a
    document."""
    routed: Routed | None = None
    hits: tuple[ScoredPassage, ...] = ()
    for event in assistant.answer(Turn(golden.question, golden.exchanges, route=route)):
        match event:
            case Routed():
                routed = event
            case Retrieved(hits=found):
                hits = found
                if routed and routed.decision.route in (Route.ADAPTER, Route.BOTH):
                    return routed, hits, None
            case Finished(answer=answer):
                return routed, hits, answer
            case _:
                pass
    return routed, hits, None


def _share(rights: NDArray[np.bool_]) -> Share:
    return Share(int(rights.sum()), len(rights))


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
