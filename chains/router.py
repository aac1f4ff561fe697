"""Where a turn goes: a classifier over the shared embedding, weighed with what the library says.

Two stages. The first scores a question's vector for documents, each adapter, each workflow and out of scope
(`chains/classify.py`). The second weighs these scores with evidence from the search (how good is the best passage, do
the question's rare terms occur?), from the adapters and the desk's other utterances (how near are they?) and from the
message's form; it is fitted on the development half of the desk's golden turns, and on held-out utterances where a
desk has none. What it says are probabilities; a level on that of "out of scope" keeps the recall that the desk states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from langchain_core.runnables import RunnableLambda
from numpy.typing import NDArray

from chains.classify import Kernel, Places, cosines_to, fit_kernel, fit_sharpness, score_unseen, softmax
from chains.combine import FOLDS, Numbers, Softmax, fit_scaled, judge_unseen, level_for
from chains.errors import TurnError
from chains.kept import Arrays, kept
from chains.support import LEAST_EVIDENCE, Support, evidence, fit_support, strong_words
from chains.turn import BASE_MODEL, Route, RouteDecision, RouteOption
from chains.utterances import Label, Utterances, cached_vectors, gather_utterances
from desk.config import RoutingSettings
from index.document import SearchResult

Vectors = NDArray[np.float32]

__all__ = [
    "GoldenRoute",
    "Label",
    "Router",
    "RouterInput",
    "Utterances",
    "cached_vectors",
    "gather_utterances",
]
NEIGHBOURS = 5
"""Nearest utterances whose mean similarity is evidence for a route."""
STAND_INS = 60
"""Utterances per route that models score which never saw them: they stand for golden turns where a desk has none."""
STRENGTH = 1.0
"""scikit-learn's C of the second stage. Out of fold on 245 development turns .3 and 1 route .963 and .965 right, with
expected calibration errors of .049 and .032."""
SHARPNESS = 10.0
"""What scores are multiplied with before the softmax where there are too few utterances to fit it."""
_NEAR = slice(4, 8)
_LIBRARY = slice(8, 12)
"""Where `Router._features` has how near each route's utterances are, and what the library says."""
_FORM = 1
"""Raised when what is kept of a fit changes: it is then fitted again."""


@dataclass(frozen=True, slots=True)
class RouterInput:
    """What the router sees of a turn: the standalone question's vector, the search, the sender's choices.

    `ordered` says that the message has the form of an order with a ticket behind it ("Sort this: ...").
    """

    vector: Vectors
    found: SearchResult
    ordered: bool = False
    route: Route | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class GoldenRoute:
    """A development example for the second stage; `refused` says that no document answers it."""

    given: RouterInput
    route: Route
    refused: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """What the first stage makes of a turn: a score per label, and the second stage's row `(13,)`."""

    values: Vectors
    row: Numbers


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
        self._labels = sorted(set(utterances.labels), key=lambda label: (label.route, label.name or ""))
        self._titles = workflow_titles
        self._settings = settings or RoutingSettings()
        owners = np.array([self._labels.index(label) for label in utterances.labels], dtype=np.int64)
        self._members = {route: [i for i, label in enumerate(self._labels) if label.route is route] for route in Route}
        self._stand_ins = _spread(self._rows_of(owners))
        self._stand_in_labels = owners[self._stand_ins]
        self._fit_first(vectors, owners, folder)
        self._rows = self._rows_of(self._kernel.owners)
        self._second: Softmax | None = None
        self._second_routes: list[Route] = []
        self._level = 0.5
        self._usual: Numbers = np.zeros(_LIBRARY.stop + 1)
        self._rescue: float | None = None
        self._support: Support | None = None
        self._judged: Numbers | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(label.name for label in self._labels if label.route is Route.ADAPTER and label.name)

    @property
    def stand_ins(self) -> tuple[int, ...]:
        """Places of the utterances that `fit_utterances` takes."""
        return tuple(self._stand_ins.tolist())

    def fit_evidence(self, golden: Sequence[GoldenRoute]) -> None:
        """Fits the second stage on development turns; with fewer than three routes among them, does nothing."""
        if len({example.route for example in golden}) < 3:
            return
        read = [self._read(example.given) for example in golden]
        routes = [example.route for example in golden]
        self._fit_second(np.stack([one.row for one in read]), routes, [example.given.found for example in golden])
        rows = np.stack([self._support_row(one) for one in read])
        asked = np.isin(routes, [Route.RETRIEVAL, Route.NONE])
        answered = np.array([example.route is Route.RETRIEVAL and not example.refused for example in golden])
        self._support = fit_support(rows[asked], answered[asked])

    def fit_utterances(self, given: Sequence[RouterInput]) -> None:
        """Fits the second stage on what was found for each of `stand_ins`: for a desk without golden turns.

        Each is scored by a first stage that never saw it. With fewer than three routes, does nothing.
        """
        routes = [self._labels[label].route for label in self._stand_in_labels]
        if len(set(routes)) < 3:
            return
        rows = [
            self._row(one, values, _apart(cosines_to(self._kernel.points, one.vector)))
            for one, values in zip(given, self._unseen, strict=True)
        ]
        self._fit_second(np.stack(rows), routes, [one.found for one in given])

    def decide(self, given: RouterInput) -> RouteDecision:
        """The route, with its probabilities and the reason in words. A choice of the sender always wins."""
        read = self._read(given)
        probabilities = self._route_probabilities(read)
        if given.route is not None or given.adapter is not None:
            return self._chosen(given, read, probabilities)
        return self._decided(given, read, probabilities)

    def decide_unseen(self, place: int, given: RouterInput) -> RouteDecision | None:
        """What it would decide on one of the turns that it was fitted on, by its place, had that been left out.

        For measuring. None where there were too few turns of some route to leave any out.
        """
        if self._judged is None:
            return None
        return self._decided(given, self._read(given), self._by_route(self._judged[place]))

    def nearest(self, vector: Vectors) -> float:
        """The cosine of the utterance nearest to `(d,)` that is no question to the documents."""
        others = self._kernel.owners != self._labels.index(Label(Route.RETRIEVAL))
        return float(cosines_to(self._kernel.points[others], vector).max()) if others.any() else 0.0

    def answerable(self, given: RouterInput) -> bool:
        """Whether the documents hold enough on the question to quote from them at all."""
        if not given.found.hits:
            return False
        if self._support is None:
            return evidence(given.found) >= LEAST_EVIDENCE
        if self._rescue is not None and evidence(given.found) >= self._rescue:
            return True
        return self._support.holds(self._support_row(self._read(given)))

    def as_runnable(self) -> RunnableLambda[RouterInput, RouteDecision]:
        """The router as a LangChain runnable."""
        return RunnableLambda(self.decide, name="router")

    def _decided(self, given: RouterInput, read: _Read, probabilities: dict[Route, float]) -> RouteDecision:
        route = self._choose(probabilities)
        if route is Route.NONE and self._rescue is not None and evidence(given.found) >= self._rescue:
            route = Route.RETRIEVAL
        chosen = _option(route, self._best(read.values, route))
        options = self._options(probabilities, read.values)
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

    def _rows_of(self, owners: Places) -> dict[Route, Places]:
        """Per route the places of its labels' texts."""
        return {route: np.flatnonzero(np.isin(owners, members)) for route, members in self._members.items()}

    def _fit_first(self, vectors: Vectors, owners: Places, folder: Path | None) -> None:
        """The kernel, the stand-ins' scores by kernels that never saw them, and the factor that both fit."""
        made_from = vectors.tobytes() + owners.tobytes() + f"{_FORM} {STAND_INS}".encode()

        def fit() -> Arrays:
            kernel = fit_kernel(vectors, owners)
            unseen = score_unseen(vectors, owners, self._stand_ins)
            return {"points": kernel.points, "owners": kernel.owners, "weights": kernel.weights, "unseen": unseen}

        arrays = kept(folder, "router", made_from, fit) if folder else fit()
        self._kernel = Kernel(arrays["points"], arrays["owners"], arrays["weights"])
        self._unseen: Vectors = arrays["unseen"]
        enough = len(self._stand_ins) >= FOLDS * len(self._labels)
        self._sharpness = fit_sharpness([self._unseen], [self._stand_in_labels]) if enough else SHARPNESS

    def _fit_second(self, features: Numbers, routes: Sequence[Route], found: Sequence[SearchResult]) -> None:
        self._second_routes = sorted(set(routes))
        targets = np.array([self._second_routes.index(route) for route in routes], dtype=np.int64)
        self._second = fit_scaled(features, targets, STRENGTH, alike=False)
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

    def _support_row(self, read: _Read) -> Numbers:
        """`(5,)`: three of the library, out of scope's log-probability by the first stage, its nearest utterances."""
        stray = softmax(self._sharpness * read.values)[self._members[Route.NONE]].sum()
        return np.array([*read.row[_LIBRARY][:3], np.log(stray + 1e-4), read.row[_NEAR][list(Route).index(Route.NONE)]])

    def _chosen(self, given: RouterInput, read: _Read, probabilities: dict[Route, float]) -> RouteDecision:
        route = given.route or Route.ADAPTER
        adapter = workflow = None
        if route is Route.ADAPTER:
            adapter = given.adapter or self._best(read.values, route)
            if adapter is None:
                raise TurnError("No adapter is available here. Choose Documents, or train an adapter first.")
            what = "the base model" if adapter == BASE_MODEL else adapter
            reason = f"You chose {what}" if given.adapter else f"You chose Adapter; {adapter} is nearest"
        elif route is Route.BOTH:
            workflow = self._best(read.values, route)
            if workflow is None:
                raise TurnError("This desk has no workflow. Choose Documents or Adapter instead.")
            reason = f"You chose Both; workflow {self._titles.get(workflow, workflow)}"
        else:
            reason = f"You chose Documents; {strong_words(given.found.hits)}"
        options = self._options(probabilities, read.values)
        return RouteDecision(route, adapter, workflow, probabilities, reason, forced=True, options=options)

    def _route_probabilities(self, read: _Read) -> dict[Route, float]:
        if self._second is None:
            labels = softmax(self._sharpness * read.values)
            return {route: float(labels[members].sum()) for route, members in self._members.items()}
        return self._by_route(self._second(read.row))

    def _by_route(self, probabilities: Numbers) -> dict[Route, float]:
        known = dict(zip(self._second_routes, probabilities, strict=True))
        return {route: float(known.get(route, 0.0)) for route in Route}

    def _options(self, probabilities: dict[Route, float], values: Vectors) -> tuple[tuple[RouteOption, float], ...]:
        """Every label as a way to answer: a route's probability is shared out by its labels' scores."""
        options = []
        for route, members in self._members.items():
            shares = softmax(self._sharpness * values[members]) if members else ()
            for member, share in zip(members, shares, strict=True):
                options.append((_option(route, self._labels[member].name), float(share) * probabilities[route]))
        return tuple(sorted(options, key=lambda pair: -pair[1]))

    def _alternative(self, chosen: RouteOption, options: Sequence[tuple[RouteOption, float]]) -> RouteOption | None:
        """The likeliest other way to answer, if no further below the chosen one than the desk's margin."""
        ways = {option: chance for option, chance in options if option.route is not Route.NONE}
        if chosen not in ways or len(ways) < 2:
            return None
        least = ways.pop(chosen) - self._settings.ambiguity_margin
        other = max(ways, key=lambda option: ways[option])
        return other if ways[other] > least else None

    def _read(self, given: RouterInput) -> _Read:
        cosines = cosines_to(self._kernel.points, given.vector)
        values = self._kernel.values(cosines)
        return _Read(values, self._row(given, values, cosines))

    def _row(self, given: RouterInput, values: Vectors, cosines: Vectors) -> Numbers:
        """`(13,)`: per route the best score and how near its utterances are (_NEAR), _LIBRARY, and the form."""
        scores, near = [], []
        for route, members in self._members.items():
            scores.append(float(values[members].max()) if members else 0.0)
            best = np.sort(cosines[self._rows[route]])[-NEIGHBOURS:]
            near.append(float(best.mean()) if best.size else 0.0)
        return np.array([*scores, *near, *_library_evidence(given.found), float(given.ordered)])

    def _best(self, values: Vectors, route: Route) -> str | None:
        own = [(float(values[member]), self._labels[member].name) for member in self._members[route]]
        return max(own, key=lambda pair: pair[0])[1] if own else None

    def _reason(self, chosen: RouteOption, chances: Mapping[Route, float], given: RouterInput, read: _Read) -> str:
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

    def _by_words(self, route: Route, chances: Mapping[Route, float], read: _Read) -> bool:
        """Whether the wording speaks more for the route, against the likeliest other, than what the library holds."""
        if self._second is None or route not in self._second_routes:
            return True
        other = max((one for one in self._second_routes if one is not route), key=lambda one: chances[one])
        own, against = (self._second.weights[self._second_routes.index(one)] for one in (route, other))
        speaks = (own - against) * (read.row - self._usual)
        return float(speaks[: _LIBRARY.start].sum()) > float(speaks[_LIBRARY].sum())


def _option(route: Route, name: str | None) -> RouteOption:
    return RouteOption(route, name if route is Route.ADAPTER else None, name if route is Route.BOTH else None)


def _apart(cosines: Vectors) -> Vectors:
    """Cosines of an utterance to all, without that to itself."""
    return np.where(cosines > 1 - 1e-4, np.float32(-1), cosines)


def _spread(rows: Mapping[Route, Places]) -> Places:
    """STAND_INS places of each route, evenly over its rows; all where there are fewer."""
    picked = [own[np.linspace(0, len(own) - 1, min(STAND_INS, len(own))).astype(np.int64)] for own in rows.values()]
    return np.concatenate(picked)


def _library_evidence(found: SearchResult) -> tuple[float, float, float, float]:
    """The best cosine, the best term coverage, the share of the question's terms that occur at all, the best score."""
    hits = found.hits
    best = max((hit.similarity for hit in hits), default=0.0), max((hit.coverage for hit in hits), default=0.0)
    return *best, found.known_terms, max((hit.score for hit in hits), default=0.0)
