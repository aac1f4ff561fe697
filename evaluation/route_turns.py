"""How the desk's router decides on the development turns it was fitted on, each judged by a router that never saw it.

The turns are those with one intent and without a history. The level that declines is chosen on the same judgements.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.assembly import Switchboard
from chains.first_stage import RouterInput
from chains.fitting import fitting_turns
from chains.golden import GoldenTurn
from chains.turn import Route, RouteDecision
from chains.workflow import look_up
from desk.errors import DeskError
from evaluation.calibration import calibration_error
from evaluation.right import route_right
from evaluation.routing import OUTSIDE, Decided
from evaluation.share import Share
from index.document import NO_GROUPS


@dataclass(frozen=True, slots=True)
class RoutedTurn:
    golden: GoldenTurn
    decision: RouteDecision


def route_unseen(board: Switchboard) -> list[RoutedTurn]:
    """Every such turn with its decision. Raises DeskError where there are too few turns of some route."""
    settings, embed = board.desk.chains, board.embedder.embed_queries
    readable = board.library.readable(NO_GROUPS)
    routed = []
    for place, golden in enumerate(fitting_turns(settings.golden_dev)):
        text = golden.question.strip()
        vector = embed([text])[0]
        given = RouterInput(vector, *look_up(board.library, embed, text, vector, settings.passages, readable))
        decision = board.assistant.router.decide_unseen(place, given)
        if decision is None:
            break
        routed.append(RoutedTurn(golden, decision))
    if not routed:
        raise DeskError(f"{settings.golden_dev} has too few turns of some route to leave any out: add some of each.")
    return routed


def measure_unseen(routed: Sequence[RoutedTurn]) -> tuple[dict[str, Share], float]:
    """Shares of the turns, and the expected calibration error of the likeliest route's probability."""
    adapters = [one for one in routed if one.golden.adapter]
    outside = [one for one in routed if one.golden.route is Route.NONE]
    inside = [one for one in routed if one.golden.route is not Route.NONE]
    wrong = [one for one in routed if not _right(one)]
    shares = {
        "route": Share(len(routed) - len(wrong), len(routed)),
        "adapter": Share.of(one.decision.adapter == one.golden.adapter for one in adapters),
        "out_of_scope_declined": Share.of(one.decision.route is Route.NONE for one in outside),
        "in_scope_declined": Share.of(one.decision.route is Route.NONE for one in inside),
        "ambiguous": Share.of(one.decision.alternative is not None for one in routed),
        "wrong_and_ambiguous": Share.of(one.decision.alternative is not None for one in wrong),
    }
    likeliest = [max(one.decision.probabilities.items(), key=lambda pair: pair[1]) for one in routed]
    right = np.array([route is one.golden.route for (route, _), one in zip(likeliest, routed, strict=True)])
    return shares, calibration_error(np.array([chance for _, chance in likeliest]), right)


def decided_turns(routed: Sequence[RoutedTurn]) -> Decided:
    """The turns as a report shows them: a label per way to answer."""
    likeliest = [one.decision.options[0] for one in routed]
    return Decided(
        texts=tuple(one.golden.question for one in routed),
        gold=np.array([_name(one.golden.route, one.golden.adapter, one.golden.workflow) for one in routed]),
        best=np.array([_name(option.route, option.adapter, option.workflow) for option, _ in likeliest]),
        confidence=np.array([chance for _, chance in likeliest]),
        in_scope=np.array([1 - one.decision.probabilities[Route.NONE] for one in routed]),
        given=np.array([_name(one.decision.route, one.decision.adapter, one.decision.workflow) for one in routed]),
    )


def _right(one: RoutedTurn) -> bool:
    return route_right(one.golden, one.decision.route, one.decision.workflow)


def _name(route: Route, adapter: str | None, workflow: str | None) -> str:
    if route is Route.NONE:
        return OUTSIDE
    return f"{route.value} {adapter or workflow or ''}".strip()
