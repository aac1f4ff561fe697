"""Where a turn goes: a classifier over the shared embedding, weighed with what the library says.

Two stages. The first (`chains/first_stage.py`) scores a question's vector for documents, each adapter, each workflow
and out of scope. The second weighs these scores with evidence from the search (how good is the best passage, do the
question's rare terms occur?), from the adapters and the desk's other utterances (how near are they?) and from the
message's form; it is fitted on the development half of the desk's golden turns, and on held-out utterances where there
are too few. What it says are probabilities; a level on that of "out of scope" keeps the recall that the desk states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from langchain_core.runnables import RunnableLambda
from numpy.typing import NDArray

from chains.combine import FOLDS, Numbers, Softmax, fit_scaled, judge_unseen, level_for
from chains.errors import TurnError
from chains.evidence import evidence, strong_words
from chains.first_stage import LIBRARY, WIDTH, FirstStage, Read, RouterInput
from chains.turn import BASE_MODEL, Route, RouteDecision, RouteOption
from chains.utterances import Label, Utterances
from desk.settings import RoutingSettings
from index.document import SearchResult

Vectors = NDArray[np.float32]
StandIn = Callable[[int], RouterInput]

STRENGTH = 1.0
"""scikit-learn's C of the second stage. Out of fold on 245 development turns .3 and 1 route .963 and .965 right, with
expected calibration errors of .049 and .032."""


@dataclass(frozen=True, slots=True)
class GoldenRoute:
    """A development example for the second stage."""

    given: RouterInput
    route: Route


class Router:
    """Decides a turn's route. Fitting takes a second or two; deciding well under a millisecond."""

    def __init__(
        self,
        utterances: Utterances,
        vectors: Vectors,
        workflow_titles: dict[str, str],
        settings: RoutingSettings | None = None,
        folder: Path | None = None,
    ) -> None:
        """`folder` keeps the first stage's fit, if given."""
        self._titles = workflow_titles
        self._settings = settings or RoutingSettings()
        self._first = FirstStage(utterances, vectors, folder)
        self._second: Softmax | None = None
        self._second_routes: list[Route] = []
        self._level = 0.5
        self._usual: Numbers = np.zeros(WIDTH)
        self._rescue: float | None = None
        self._judged: Numbers | None = None

    def fit_evidence(self, golden: Sequence[GoldenRoute], stand_in: StandIn | None = None) -> None:
        """Fits the second stage on development turns; with fewer than three routes, does nothing.

        For a route with fewer than FOLDS of them, utterances stand in, each scored by a first stage that never saw
        it: `stand_in` tells what is found for one, by its place among all. So a desk without golden turns is fitted
        too, and a workflow that no turn knows yet is not ruled out.
        """
        read = [self._first.read(example.given) for example in golden]
        routes = [example.route for example in golden]
        rows, found = [one.row for one in read], [example.given.found for example in golden]
        few = {route for route in Route if routes.count(route) < FOLDS}
        for place, route in self._first.stand_ins.items() if stand_in else ():
            if route in few and stand_in:
                given = stand_in(place)
                rows.append(self._first.unseen_row(place, given))
                routes.append(route)
                found.append(given.found)
        if len(set(routes)) < 3:
            return
        self._fit_second(np.stack(rows), routes, found)

    def decide(self, given: RouterInput) -> RouteDecision:
        """The route, with its probabilities and the reason in words. A choice of the sender always wins."""
        read = self._first.read(given)
        probabilities = self._route_probabilities(read)
        if given.route or given.adapter or given.workflow:
            return self._chosen(given, read, probabilities)
        return self._decided(given, read, probabilities)

    def decide_unseen(self, place: int, given: RouterInput) -> RouteDecision | None:
        """What it would decide on one of the turns that it was fitted on, by its place, had that been left out.

        For measuring. None where there were too few turns of some route to leave any out.
        """
        if self._judged is None:
            return None
        return self._decided(given, self._first.read(given), self._by_route(self._judged[place]))

    def nearest(self, vector: Vectors) -> float:
        """The cosine of the utterance nearest to `(d,)` that is no question to the documents."""
        return self._first.nearest(vector, Route.RETRIEVAL)

    def as_runnable(self) -> RunnableLambda[RouterInput, RouteDecision]:
        """The router as a LangChain runnable."""
        return RunnableLambda(self.decide, name="router")

    def _decided(self, given: RouterInput, read: Read, probabilities: dict[Route, float]) -> RouteDecision:
        route = self._choose(probabilities)
        if route is Route.NONE and self._rescue is not None and evidence(given.found) >= self._rescue:
            route = Route.RETRIEVAL
        chosen = as_option(Label(route, self._first.best(read, route)))
        options = self._options(probabilities, read)
        return RouteDecision(
            route=route,
            adapter=chosen.adapter,
            workflow=chosen.workflow,
            probabilities=probabilities,
            reason=self._reason(chosen, probabilities, given, read),
            alternative=self._alternative(chosen, options),
            options=options,
        )

    def _choose(self, probabilities: Mapping[Route, float]) -> Route:
        """The likeliest route; but none from its level on, which keeps the stated recall, and only from there."""
        if probabilities[Route.NONE] >= self._level:
            return Route.NONE
        return max((route for route in Route if route is not Route.NONE), key=lambda route: probabilities[route])

    def _fit_second(self, features: Numbers, routes: Sequence[Route], found: Sequence[SearchResult]) -> None:
        self._second_routes = sorted(set(routes))
        targets = np.array([self._second_routes.index(route) for route in routes], dtype=np.int64)
        self._second = fit_scaled(features, targets, STRENGTH)
        self._usual = features.mean(axis=0)
        strays = [evidence(one) for one, route in zip(found, routes, strict=True) if route is Route.NONE]
        # A question about a document that was added later looks out of scope to the first stage. It is
        # rescued when the library answers it more clearly than it answers any out-of-scope example.
        self._rescue = max(strays, default=1.0) + 0.05
        if np.bincount(targets).min() < FOLDS:
            return
        self._judged = judge_unseen(features, targets, STRENGTH)
        if Route.NONE in self._second_routes:
            outside = self._second_routes.index(Route.NONE)
            self._level = level_for(self._settings.out_of_scope_recall, self._judged[targets == outside, outside])

    def _chosen(self, given: RouterInput, read: Read, probabilities: dict[Route, float]) -> RouteDecision:
        route = given.route or (Route.ADAPTER if given.adapter else Route.BOTH)
        adapter = workflow = None
        if route is Route.ADAPTER:
            adapter = given.adapter or self._first.best(read, route)
            if adapter is None:
                raise TurnError("No adapter is available here. Choose Documents, or train an adapter first.")
            what = "the base model" if adapter == BASE_MODEL else adapter
            reason = f"You chose {what}" if given.adapter else f"You chose Adapter; {adapter} is nearest"
        elif route is Route.BOTH:
            workflow = given.workflow or self._first.best(read, route)
            if workflow is None:
                raise TurnError("This desk has no workflow. Choose Documents or Adapter instead.")
            if given.workflow and given.workflow not in self._titles:
                known = ", ".join(sorted(self._titles)) or "none"
                raise TurnError(f"There is no workflow {workflow!r} here: choose one of these: {known}.")
            title = self._titles.get(workflow, workflow)
            reason = f"You chose {title}" if given.workflow else f"You chose Both; workflow {title}"
        else:
            reason = f"You chose Documents; {strong_words(given.found.hits)}"
        own = self._decided(given, read, probabilities)
        return RouteDecision(
            *(route, adapter, workflow, probabilities, reason), forced=True, options=own.options, instead=own.option
        )

    def _route_probabilities(self, read: Read) -> dict[Route, float]:
        if self._second is None:
            return self._first.route_probabilities(read)
        return self._by_route(self._second(read.row))

    def _by_route(self, probabilities: Numbers) -> dict[Route, float]:
        known = dict(zip(self._second_routes, probabilities, strict=True))
        return {route: float(known.get(route, 0.0)) for route in Route}

    def _options(self, probabilities: dict[Route, float], read: Read) -> tuple[tuple[RouteOption, float], ...]:
        """Every label as a way to answer: a route's probability is shared out by its labels' scores."""
        options = [
            (as_option(label), share * probabilities[route])
            for route in Route
            for label, share in self._first.shares(read, route)
        ]
        return tuple(sorted(options, key=lambda pair: -pair[1]))

    def _alternative(self, chosen: RouteOption, options: Sequence[tuple[RouteOption, float]]) -> RouteOption | None:
        """The likeliest other way to answer, if no further below the chosen one than the desk's margin."""
        ways = {option: chance for option, chance in options if option.route is not Route.NONE}
        if chosen not in ways or len(ways) < 2:
            return None
        least = ways.pop(chosen) - self._settings.ambiguity_margin
        other = max(ways, key=lambda option: ways[option])
        return other if ways[other] > least else None

    def _reason(self, chosen: RouteOption, chances: Mapping[Route, float], given: RouterInput, read: Read) -> str:
        """What decided, in words for whoever asked."""
        route, sure = chosen.route, f"{min(chances[chosen.route], 0.99):.0%} sure"
        by_words = self._by_words(route, chances, read)
        if route is Route.RETRIEVAL:
            return strong_words(given.found.hits) + (
                "; asked like other questions to the documents" if by_words else ""
            )
        if route is Route.ADAPTER:
            why = "like the questions it was trained on" if by_words else "the documents say less on it"
            return f"{chosen.adapter} ({sure}): {why}"
        if route is Route.BOTH:
            why = "an order with a ticket" if given.ordered else "like other tickets"
            return f"{self._titles.get(chosen.workflow or '', chosen.workflow or '')} ({sure}): {why}"
        why = "like other messages that are declined" if by_words else "the documents say little on it"
        return f"outside what this desk covers ({sure}): {why}"

    def _by_words(self, route: Route, chances: Mapping[Route, float], read: Read) -> bool:
        """Whether the wording speaks more for the route, against the likeliest other, than what the library holds."""
        if self._second is None or route not in self._second_routes:
            return True
        other = max((one for one in self._second_routes if one is not route), key=lambda one: chances[one])
        own, against = (self._second.weights[self._second_routes.index(one)] for one in (route, other))
        speaks = (own - against) * (read.row - self._usual)
        return float(speaks[: LIBRARY.start].sum()) > float(speaks[LIBRARY].sum())


def as_option(label: Label) -> RouteOption:
    """The label as a way to answer."""
    adapter, workflow = (label.name if label.route is kind else None for kind in (Route.ADAPTER, Route.BOTH))
    return RouteOption(label.route, adapter, workflow)
