"""Where a turn goes: a classifier over the shared embedding, weighed with what the library says.

Two stages. The first is a logistic regression on utterance vectors: one label for documents, one per
adapter, one per workflow, one for out of scope. The second weighs the first stage's log-probabilities with
evidence from the search (is there a close passage? do the question's rare terms occur?) and from the
adapters (how near are their own questions?); it is fitted on the development half of the desk's golden
turns, and a desk without any keeps the first stage alone.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import RunnableLambda
from numpy.typing import NDArray

from chains.errors import TurnError
from chains.turn import BASE_MODEL, Route, RouteDecision
from desk.config import ChainSettings
from index.document import ScoredPassage, SearchResult

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

NEIGHBOURS = 5
"""Nearest utterances whose mean similarity is evidence for a label: BANKING77 gives AUROC .90 with it alone."""
MOST_QUESTIONS = 1000
"""About how many of an adapter's training questions are examples, evenly over the file: each is embedded once."""
LEAST_EVIDENCE = 0.35
"""Below this, nothing found is quoted where a desk has too few golden turns to fit the rule on."""
WRONGLY_REFUSED = 0.0
"""The share of answerable development turns that may be refused, out of fold. Evidence hardly separates the answerable
from the rest, and a quote beside the point costs less than a refusal that hides the right one."""
STRENGTH = 0.3
"""scikit-learn's C of what is fitted on the few development turns. Out of fold on 214 of them, 0.1, 0.3, 1 and 3 route
.957, .959, .950 and .938 right."""
FOLDS = 5
"""Parts of the development turns: each is judged by a rule fitted on the others when the level is chosen."""
STRONG_SIMILARITY = 0.45
"""Cosine from which a passage is called strong in words; quoted passages of the development turns lie above."""


@dataclass(frozen=True, slots=True)
class Label:
    """What an utterance is an example of."""

    route: Route
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Utterances:
    texts: tuple[str, ...]
    labels: tuple[Label, ...]


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


def gather_utterances(settings: ChainSettings, questions: dict[str, tuple[str, ...]]) -> Utterances:
    """The desk's utterances; `questions` are each adapter's own training questions."""
    texts: list[str] = []
    labels: list[Label] = []

    def add(label: Label, rows: Sequence[str]) -> None:
        texts.extend(rows)
        labels.extend([label] * len(rows))

    add(Label(Route.RETRIEVAL), settings.routes.retrieval)
    for name, own in questions.items():
        step = max(1, len(own) // MOST_QUESTIONS)
        add(Label(Route.ADAPTER, name), (*settings.routes.adapters.get(name, ()), *own[::step]))
    for name, rows in settings.routes.workflows.items():
        add(Label(Route.BOTH, name), rows)
    add(Label(Route.NONE), settings.routes.out_of_scope)
    return Utterances(tuple(texts), tuple(labels))


def cached_vectors(texts: Sequence[str], embed: Embed, embedder: str, folder: Path) -> Vectors:
    """`(n, d)` unit vectors of the utterances; kept in `folder` under the hash of texts and embedder."""
    digest = hashlib.sha256(json.dumps([embedder, list(texts)]).encode()).hexdigest()[:32]
    path = folder / f"utterances-{digest}.npy"
    if path.exists():
        stored: Vectors = np.load(path, allow_pickle=False)
        return stored
    vectors = embed(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("utterances-*.npy"):
        old.unlink(missing_ok=True)
    beside = folder / f"{secrets.token_hex(4)}.part.npy"  # of its own: several processes may start at once
    np.save(beside, vectors, allow_pickle=False)
    beside.replace(path)
    return vectors


@dataclass(frozen=True, slots=True)
class _Softmax:
    """A fitted multinomial logistic regression as plain arrays: scikit-learn's own call costs milliseconds."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, row: NDArray[Any]) -> NDArray[np.float64]:
        logits = self.weights @ row + self.bias
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())


def _fit(rows: NDArray[Any], targets: NDArray[np.int64], strength: float) -> _Softmax:
    """Targets are 0..n-1, each present; `strength` is scikit-learn's C. Classes weigh alike whatever their size."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(rows, targets)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: scikit-learn keeps one row
        weights, bias = np.vstack([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return _Softmax(weights, bias)


def _fit_scaled(rows: NDArray[np.float64], targets: NDArray[np.int64]) -> _Softmax:
    """`_fit` on columns scaled alike; the scaling becomes part of the weights."""
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    fitted = _fit((rows - mean) / spread, targets, STRENGTH)
    weights = fitted.weights / spread
    return _Softmax(weights, fitted.bias - weights @ mean)


class Router:
    """Decides a turn's route. Fitting takes a second or two; deciding well under a millisecond."""

    def __init__(self, utterances: Utterances, vectors: Vectors, workflow_titles: dict[str, str]) -> None:
        self._labels = sorted(set(utterances.labels), key=lambda label: (label.route, label.name or ""))
        self._titles = workflow_titles
        self._vectors = vectors
        targets = np.array([self._labels.index(label) for label in utterances.labels])
        self._members = {route: [i for i, label in enumerate(self._labels) if label.route is route] for route in Route}
        self._rows = {route: np.isin(targets, members) for route, members in self._members.items()}
        self._first = _fit(vectors, targets, strength=10.0)
        self._second: _Softmax | None = None
        self._second_routes: list[Route] = []
        self._rescue: float | None = None
        self._support: _Softmax | None = None
        self._least_support = 0.0

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(label.name for label in self._labels if label.route is Route.ADAPTER and label.name)

    def fit_evidence(self, golden: Sequence[GoldenRoute]) -> None:
        """Fits the second stage on development turns; with fewer than three routes among them, does nothing."""
        routes = sorted({example.route for example in golden})
        if len(routes) < 3:
            return
        features = np.stack([self._features(example.given) for example in golden])
        self._second = _fit_scaled(features, np.array([routes.index(example.route) for example in golden]))
        self._second_routes = routes
        asked = [place for place, e in enumerate(golden) if e.route in (Route.RETRIEVAL, Route.NONE)]
        self._fit_support([golden[place] for place in asked], features[asked])
        strays = [evidence(e.given.found) for e in golden if e.route is Route.NONE]
        # A question about a document that was added later looks out of scope to the first stage. It is
        # rescued when the library answers it more clearly than it answers any out-of-scope example.
        self._rescue = max(strays, default=1.0) + 0.05

    def decide(self, given: RouterInput) -> RouteDecision:
        """The route, with its probabilities and the reason in words. A choice of the sender always wins."""
        labels = self._first(given.vector)
        probabilities = self._route_probabilities(given, labels)
        if given.route is not None or given.adapter is not None:
            return self._chosen(given, labels, probabilities)
        route = max(probabilities, key=lambda name: probabilities[name])
        if route is Route.NONE and self._rescue is not None and evidence(given.found) >= self._rescue:
            route = Route.RETRIEVAL
        name = self._best(labels, route)
        return RouteDecision(
            route=route,
            adapter=name if route is Route.ADAPTER else None,
            workflow=name if route is Route.BOTH else None,
            probabilities=probabilities,
            reason=self._reason(route, name, probabilities, given.found),
        )

    def nearest(self, vector: Vectors) -> float:
        """The cosine of the utterance nearest to `(d,)` that is no question to the documents."""
        similar = (self._vectors @ vector)[~self._rows[Route.RETRIEVAL]]
        return float(similar.max()) if similar.size else 0.0

    def answerable(self, given: RouterInput) -> bool:
        """Whether the documents hold enough on the question to quote from them at all."""
        if not given.found.hits:
            return False
        if self._support is None:
            return evidence(given.found) >= LEAST_EVIDENCE
        if self._rescue is not None and evidence(given.found) >= self._rescue:
            return True
        return float(self._support(self._support_features(self._features(given)))[1]) >= self._least_support

    def _fit_support(self, golden: Sequence[GoldenRoute], features: NDArray[np.float64]) -> None:
        """Fits the rule of `answerable` on questions that documents answer and on questions that none does.

        With fewer than FOLDS of either, LEAST_EVIDENCE stays the rule.
        """
        answered = np.array([example.route is Route.RETRIEVAL and not example.refused for example in golden])
        if min(answered.sum(), (~answered).sum()) < FOLDS:
            return
        rows = self._support_features(features)
        targets = answered.astype(np.int64)
        # Every class in every part, in an order that does not depend on how the file is sorted.
        fold = np.empty(len(golden), dtype=np.int64)
        for kind in (0, 1):
            fold[targets == kind] = np.arange((targets == kind).sum()) % FOLDS
        judged = np.empty(len(golden))
        for part in range(FOLDS):
            rule = _fit_scaled(rows[fold != part], targets[fold != part])
            judged[fold == part] = [rule(row)[1] for row in rows[fold == part]]
        self._support = _fit_scaled(rows, targets)
        self._least_support = float(np.quantile(judged[answered], WRONGLY_REFUSED))

    def _support_features(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(..., 5)` of `_features`: the library's three, out-of-scope probability and its nearest utterances."""
        stray = 2 * list(self._members).index(Route.NONE)
        return features[..., [-4, -3, -2, stray, stray + 1]]

    def as_runnable(self) -> RunnableLambda[RouterInput, RouteDecision]:
        """The router as a LangChain runnable."""
        return RunnableLambda(self.decide, name="router")

    def _chosen(
        self, given: RouterInput, labels: NDArray[np.float64], probabilities: dict[Route, float]
    ) -> RouteDecision:
        route = given.route or Route.ADAPTER
        adapter = workflow = None
        if route is Route.ADAPTER:
            adapter = given.adapter or self._best(labels, route)
            if adapter is None:
                raise TurnError("No adapter is available here. Choose Documents, or train an adapter first.")
            what = "the base model" if adapter == BASE_MODEL else adapter
            reason = f"You chose {what}" if given.adapter else f"You chose Adapter; {adapter} is nearest"
        elif route is Route.BOTH:
            workflow = self._best(labels, route)
            if workflow is None:
                raise TurnError("This desk has no workflow. Choose Documents or Adapter instead.")
            reason = f"You chose Both; workflow {self._titles.get(workflow, workflow)}"
        else:
            reason = f"You chose Documents; {_strong_words(given.found.hits)}"
        return RouteDecision(route, adapter, workflow, probabilities, reason, forced=True)

    def _route_probabilities(self, given: RouterInput, labels: NDArray[np.float64]) -> dict[Route, float]:
        if self._second is None:
            return {route: float(labels[members].sum()) for route, members in self._members.items()}
        known = dict(zip(self._second_routes, self._second(self._features(given)), strict=True))
        return {route: float(known.get(route, 0.0)) for route in Route}

    def _features(self, given: RouterInput) -> NDArray[np.float64]:
        """`(n,)`: per route log-probability and nearest utterances, then three of the library and the form."""
        labels = self._first(given.vector)
        similarity = self._vectors @ given.vector
        row: list[float] = []
        for route, members in self._members.items():
            row.append(float(np.log(labels[members].sum() + 1e-4)) if members else -9.0)
            near = np.sort(similarity[self._rows[route]])[-NEIGHBOURS:]
            row.append(float(near.mean()) if near.size else 0.0)
        return np.array([*row, *_library_evidence(given.found), float(given.ordered)])

    def _best(self, labels: NDArray[np.float64], route: Route) -> str | None:
        own = [(p, label.name) for p, label in zip(labels, self._labels, strict=True) if label.route is route]
        return max(own, key=lambda pair: pair[0])[1] if own else None

    def _reason(self, route: Route, name: str | None, probabilities: dict[Route, float], found: SearchResult) -> str:
        sure = f"{min(probabilities[route], 0.99):.0%} sure"
        if route is Route.RETRIEVAL:
            return _strong_words(found.hits)
        if route is Route.ADAPTER:
            return f"{name} ({sure})"
        if route is Route.BOTH:
            return f"{self._titles.get(name or '', name or '')} ({sure})"
        return f"outside what this desk covers ({sure})"


def _library_evidence(found: SearchResult) -> tuple[float, float, float]:
    """The best cosine, the best term coverage, and the share of the question's terms that occur at all."""
    best = max((hit.similarity for hit in found.hits), default=0.0)
    return best, max((hit.coverage for hit in found.hits), default=0.0), found.known_terms


def evidence(found: SearchResult) -> float:
    """How clearly the library answers: that of the best hit, in [-0.5, 1]."""
    return max((hit.evidence for hit in found.hits), default=0.0)


def _strong_words(hits: Sequence[ScoredPassage]) -> str:
    strong = sum(hit.similarity >= STRONG_SIMILARITY for hit in hits)
    if strong == 0:
        return "no strong passage"
    return f"{strong} strong passage{'' if strong == 1 else 's'}"
