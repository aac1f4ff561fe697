"""What the desk's utterances make of a turn: a score per label, and the evidence that the router weighs.

It decides nothing: `chains/router.py` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chains.classify import Kernel, Places, cosines_to, fit_kernel, fit_sharpness, score_unseen, softmax
from chains.combine import FOLDS, Numbers
from chains.kept import Arrays, kept
from chains.turn import Route
from chains.utterances import Label, Utterances
from index.document import SearchResult

Vectors = NDArray[np.float32]

NEIGHBOURS = 5
"""Nearest utterances whose mean similarity is evidence for a route."""
STAND_INS = 60
"""Utterances per route that models score which never saw them: they stand for golden turns where a desk has none."""
SHARPNESS = 10.0
"""What scores are multiplied with before the softmax where there are too few utterances to fit it."""
LIBRARY = slice(8, 12)
WIDTH = 13
"""Where a row has what the library says, and how long it is."""
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
    workflow: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A turn as it is read: `values` are a score per label, `row` `(WIDTH,)` is what the second stage weighs."""

    values: Vectors
    row: Numbers


class FirstStage:
    """The fitted scores of the desk's labels: documents, each adapter, each workflow, out of scope."""

    def __init__(self, utterances: Utterances, vectors: Vectors, folder: Path | None) -> None:
        """`folder` keeps the fit, if given."""
        self.labels = sorted(set(utterances.labels), key=lambda label: (label.route, label.name or ""))
        owners = np.array([self.labels.index(label) for label in utterances.labels], dtype=np.int64)
        self._members = {route: [i for i, label in enumerate(self.labels) if label.route is route] for route in Route}
        self._stand_ins = _spread(self._rows_of(owners))
        self._stand_in_labels = owners[self._stand_ins]
        self._fit(vectors, owners, folder)
        self._rows = self._rows_of(self._kernel.owners)

    @property
    def stand_ins(self) -> dict[int, Route]:
        """The utterances that are scored by kernels that never saw them, by their places among all."""
        routes = [self.labels[label].route for label in self._stand_in_labels]
        return dict(zip(self._stand_ins.tolist(), routes, strict=True))

    def read(self, given: RouterInput) -> Read:
        cosines = cosines_to(self._kernel.points, given.vector)
        values = self._kernel.values(cosines)
        return Read(values, self._row(given, values, cosines))

    def unseen_row(self, place: int, given: RouterInput) -> Numbers:
        """The row of one of `stand_ins`, scored by a kernel that never saw it."""
        cosines = cosines_to(self._kernel.points, given.vector)
        apart = np.where(cosines > 1 - 1e-4, np.float32(-1), cosines)  # all but itself
        return self._row(given, self._unseen[self._stand_ins == place][0], apart)

    def route_probabilities(self, read: Read) -> dict[Route, float]:
        """How likely each route is by the scores alone."""
        chances = softmax(self._sharpness * read.values)
        return {route: float(chances[members].sum()) for route, members in self._members.items()}

    def shares(self, read: Read, route: Route) -> list[tuple[Label, float]]:
        """How likely each label of a route is, if it is the right one; they sum to 1."""
        members = self._members[route]
        if not members:
            return []
        chances = softmax(self._sharpness * read.values[members])
        return [(self.labels[member], float(chance)) for member, chance in zip(members, chances, strict=True)]

    def best(self, read: Read, route: Route) -> str | None:
        """The name of the route's best label; None where it has no name, or the desk no such label."""
        shares = self.shares(read, route)
        return max(shares, key=lambda pair: pair[1])[0].name if shares else None

    def nearest(self, vector: Vectors, apart_from: Route) -> float:
        """The cosine of the utterance nearest to `(d,)` among those of the other routes; 0 where there are none."""
        others = ~np.isin(self._kernel.owners, self._members[apart_from])
        return float(cosines_to(self._kernel.points[others], vector).max()) if others.any() else 0.0

    def _rows_of(self, owners: Places) -> dict[Route, Places]:
        """Per route the places of its labels' texts."""
        return {route: np.flatnonzero(np.isin(owners, members)) for route, members in self._members.items()}

    def _fit(self, vectors: Vectors, owners: Places, folder: Path | None) -> None:
        """The kernel, the stand-ins' scores by kernels that never saw them, and the factor that both fit."""
        made_from = vectors.tobytes() + owners.tobytes() + f"{_FORM} {STAND_INS}".encode()

        def fit() -> Arrays:
            kernel = fit_kernel(vectors, owners)
            unseen = score_unseen(vectors, owners, self._stand_ins)
            return {"points": kernel.points, "owners": kernel.owners, "weights": kernel.weights, "unseen": unseen}

        arrays = kept(folder, "router", made_from, fit) if folder else fit()
        self._kernel = Kernel(arrays["points"], arrays["owners"], arrays["weights"])
        self._unseen: Vectors = arrays["unseen"]
        enough = len(self._stand_ins) >= FOLDS * len(self.labels)
        self._sharpness = fit_sharpness([self._unseen], [self._stand_in_labels]) if enough else SHARPNESS

    def _row(self, given: RouterInput, values: Vectors, cosines: Vectors) -> Numbers:
        """`(WIDTH,)`: per route the best score and how near its utterances are, LIBRARY, and the form."""
        scores, near = [], []
        for route, members in self._members.items():
            scores.append(float(values[members].max()) if members else 0.0)
            best = np.sort(cosines[self._rows[route]])[-NEIGHBOURS:]
            near.append(float(best.mean()) if best.size else 0.0)
        return np.array([*scores, *near, *_library_evidence(given.found), float(given.ordered)])


def _spread(rows: Mapping[Route, Places]) -> Places:
    """STAND_INS places of each route, evenly over its rows; all where there are fewer."""
    picked = [own[np.linspace(0, len(own) - 1, min(STAND_INS, len(own))).astype(np.int64)] for own in rows.values()]
    return np.concatenate(picked)


def _library_evidence(found: SearchResult) -> tuple[float, float, float, float]:
    """The best cosine, the best term coverage, the share of the question's terms that occur at all, the best score."""
    hits = found.hits
    best = max((hit.similarity for hit in hits), default=0.0), max((hit.coverage for hit in hits), default=0.0)
    return *best, found.known_terms, max((hit.score for hit in hits), default=0.0)
