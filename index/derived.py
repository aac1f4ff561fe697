"""The vector index and the lexical index as one. Derived from the store, whose every state they can catch up with.

Small libraries hold their vectors in memory, read from the store at the start. From `EXACT_ROWS` vectors on, a graph
is built and mapped from its file; what comes afterwards is searched exactly beside it until the next `tidy`. The
lexical index notes the revision that it was brought to, the manifest that of the graph: both notes come last, and to
take a change in twice does no harm.
"""

import logging
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from index.document import NO_FILTER, Filter
from index.errors import StoreError
from index.lexical import HALF, LEXICAL_VERSION, LexicalIndex
from index.search import PassageIndex
from index.store import Store
from index.stored import Changes, State
from index.vectors import METRIC, ExactVectors, GraphVectors, Within, build_graph, graph_hash, remove_graph

_LOG = logging.getLogger(__name__)
_FORMAT = 2
EXACT_ROWS = 200_000
"""Exact search takes a time that grows with the vectors: a hybrid search of 100,000 takes 13 ms, of 10,000 takes 7
(`benchmarks/search.py`, docs/log.md)."""
SENTENCES_EACH = 4
"""How many sentences are looked at for each passage that an exact search is to put forward."""
GRAPH_EXTRA = 2
"""How many candidates the graph puts forward for each passage that is wanted, since their sentences decide."""
_SPARE = 4
"""How many times as many of the best by words are looked at for those that may be read, before all of these are."""
NOTHING = State("", -1, -1)
_MOST_WITHIN = 64
"""How many users' sets of passages are kept ready: at 100,000 passages one takes about 0.2 MB."""


class Graph(BaseModel):
    """A graph in a file: up to which revision it holds the library's passages, and how well it finds them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: str
    revision: int
    passages: int
    effort: int
    recall_at_10: float


class Manifest(BaseModel):
    """What the index files were made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    library: str
    embedding_model: str
    dimension: int
    metric: str
    graph: Graph | None


@dataclass(frozen=True, slots=True)
class _Mark:
    """The state of the library that the lexical index was written for."""

    library: str
    revision: int

    def __str__(self) -> str:
        return f"{LEXICAL_VERSION}:{self.library}:{self.revision}"

    @classmethod
    def read(cls, text: str) -> "_Mark | None":
        """None for no mark, or one of another version."""
        version, _, rest = text.partition(":")
        library, _, revision = rest.partition(":")
        return cls(library, int(revision)) if version == str(LEXICAL_VERSION) and revision.isdecimal() else None


class LibraryIndex(PassageIndex, Protocol):
    """What a library asks of its index, wherever that is. The caller holds the writer lock for these methods."""

    state: State
    """The state of the library that the index holds; NOTHING before it holds any."""

    def load(self) -> None:
        """Brings the index up to the store, whatever it held."""
        ...

    def catch_up(self) -> None:
        """Takes in what the store has gained and lost since. No search may run meanwhile."""
        ...

    def prepare(self) -> Graph | None:
        """Does what a build should leave done, beside what searches use meanwhile."""
        ...

    def tidy(self, prepared: Graph | None) -> None:
        """Puts in place what was prepared. No search may run meanwhile."""
        ...

    def drop_others(self) -> None:
        """Forgets the vectors of every other model."""
        ...

    def problems(self) -> list[str]:
        """Where the index differs from the store, one sentence each."""
        ...

    @property
    def description(self) -> str:
        """How vectors are searched."""
        ...


class Derived:
    """Both indexes. The caller holds the writer lock for every method but those that search."""

    def __init__(
        self, store: Store, folder: Path, name: str, dimension: int, threads: int, exact_rows: int = EXACT_ROWS
    ) -> None:
        self._store = store
        self._folder = folder
        self._name = name
        self._dimension = dimension
        self._threads = threads
        self._exact_rows = exact_rows
        self._one_at_a_time = threading.Lock()
        self.load()

    def load(self) -> None:
        """Opens what is on disk and brings it up to the store; makes anew what is damaged or of another library."""
        self.state = NOTHING
        self.model = self._store.model(self._name, self._dimension)
        self._own = self._folder / f"vectors-{self.model}"
        self._own.mkdir(parents=True, exist_ok=True)
        self._within: OrderedDict[tuple[frozenset[str], Filter], Within | None] = OrderedDict()
        self._members = np.empty((0, 2), np.int64)
        self._recent = ExactVectors(self._dimension)
        self._dead = False
        self._manifest = self._read_manifest()
        self._graph = self._open_graph()
        self._drop_graphs()
        self._open_words()
        self.catch_up()

    def catch_up(self) -> None:
        """Takes in what the store has gained and lost since. No search may run meanwhile.

        What would more than double the vectors that are searched one by one goes into a graph at once, which keeps the
        cost of a long build within twice that of the last graph.
        """
        now = self._store.state()
        same = (self.state.library, self.state.embedded) == (now.library, now.embedded)
        # A manifest of another process names a graph that is newer than this one's.
        if self.state != NOTHING and (not same or self._read_manifest() != self._manifest):
            return self.load()
        if self.state == now:
            return
        since, self.state = self.state.revision, NOTHING
        changes = self._store.changes(since)
        self._take_words(now.library, changes.revision)
        members = np.concatenate([self._members, changes.added])
        self._members = members[~np.isin(members[:, 0], changes.gone)] if len(changes.gone) else members
        self._within.clear()
        numbers = self._missing(changes)
        most = max(self._exact_rows, len(self._graph) if self._graph is not None else 0)
        state = replace(now, revision=changes.revision)
        # A model that has not embedded everything yet gets its graph when it has.
        if len(numbers) + len(self._recent) > 2 * most and not self._store.count_unembedded(self.model):
            self._adopt(self._build_graph(state.revision), state.library)
        elif len(numbers):
            self._recent.add(self._store.vectors(self.model, None if len(numbers) == len(self._members) else numbers))
        if len(changes.gone):
            self._drop_dead()
        # Last: what failed half-way is loaded anew by the next search.
        self.state = state

    def drop_others(self) -> None:
        """Forgets the vectors of every other model."""
        self._store.drop_models(keep=self.model)
        for folder in self._folder.glob("vectors-*"):
            if folder != self._own:
                shutil.rmtree(folder, ignore_errors=True)

    def prepare(self) -> Graph | None:
        """Builds a graph where too many vectors are searched one by one, beside what searches use meanwhile."""
        return self._build_graph(self.state.revision) if int(self._alive().sum()) > self._exact_rows else None

    def tidy(self, prepared: Graph | None) -> None:
        """Puts what was prepared in place, and writes the manifest. No search may run meanwhile."""
        if prepared is not None:
            self._adopt(prepared, self.state.library)
        self._write_manifest(self.graph, self.state.library)

    def nearest(
        self, vector: NDArray[np.float32], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[tuple[int, float]]:
        """About the `n` nearest passages of these collections with the cosine of their nearest sentence, best first."""
        within = self._allowed(collections, only)
        found: dict[int, float] = {}
        for number, cosine in self._recent.search(vector, n * SENTENCES_EACH, within):
            found.setdefault(number, cosine)
        if self._graph is not None:
            candidates = [number for number, _ in self._graph.search(vector, n * GRAPH_EXTRA, within)]
            for number, rows in self._store.vectors(self.model, candidates):
                found[number] = float((rows @ vector).max())
        return sorted(found.items(), key=lambda pair: -pair[1])[:n]

    def words(
        self, terms: Sequence[str], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[tuple[int, float]]:
        """At most n (number, BM25 score) pairs, best first."""
        within = self._allowed(collections, only)
        if within is None:
            return self.lexical.search_all(terms, n)
        if within.count >= HALF * len(self._members):
            best = self.lexical.search_all(terms, n * _SPARE)
            found = [pair for pair in best if pair[0] in within]
            if len(found) >= n or len(best) < n * _SPARE:
                return found[:n]
        return self.lexical.search(terms, n, collections, only)

    def frequencies(self, terms: Sequence[str], collections: frozenset[str]) -> tuple[dict[str, int], int]:
        """In how many passages of `collections` each term stands, and how many there are."""
        within = self._allowed(collections, NO_FILTER)
        everything = len(self._members)
        total = everything if within is None else within.count
        return self.lexical.frequencies(terms, collections, total, total / max(1, everything)), total

    @property
    def graph(self) -> Graph | None:
        """What the manifest says of the graph, where there is one."""
        return self._manifest.graph if self._graph is not None and self._manifest else None

    @property
    def description(self) -> str:
        graph = self.graph
        return "exact" if graph is None else f"graph of {graph.passages}, recall@10 {graph.recall_at_10:.3f}"

    def problems(self) -> list[str]:
        """Where the indexes differ from the store, one sentence each."""
        found = []
        numbers = self._store.changes(-1).added[:, 0]
        if not np.array_equal(np.sort(self._members[:, 0]), numbers):
            found.append(f"The indexes know {len(self._members)} passages, the library {len(numbers)}.")
        if len(self.lexical) != len(numbers):
            found.append(f"The lexical index holds {len(self.lexical)} passages, the library {len(numbers)}.")
        exact = self._recent.passages()
        in_graph = set(self._graph.owners.tolist()) if self._graph is not None else set()
        lacking = wrong = 0
        for number, rows in self._store.vectors(self.model):
            if number in exact:
                wrong += not np.array_equal(exact[number], rows)
            else:
                lacking += number not in in_graph
            if len(rows) and not np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-4):
                found.append(f"The stored vectors of passage {number} are not of length 1.")
        if lacking or wrong:
            found.append(f"The vector index lacks {lacking} passages and holds other vectors of {wrong}.")
        if self.graph is not None and graph_hash(self._own / self.graph.file) != self.graph.sha256:
            found.append(f"The vector index {self.graph.file} is damaged: start the program again to rebuild it.")
        return found

    @property
    def _manifest_path(self) -> Path:
        return self._own / "manifest.json"

    def _open_words(self) -> None:
        folder = self._folder / "lexical"
        try:
            self.lexical = LexicalIndex(folder)
        except StoreError as error:
            _LOG.info("Making the lexical index again from the library: %s", error)
            self.lexical = LexicalIndex.create(folder, [], "")

    def _take_words(self, library: str, revision: int) -> None:
        """Brings the lexical index to a revision, from whatever state it is in."""
        self.lexical.refresh()
        mark = _Mark.read(self.lexical.mark)
        if mark is not None and mark.library == library and mark.revision <= revision:
            try:
                self._write_words(library, mark.revision, revision)
            except StoreError as error:
                _LOG.info("Making the lexical index again from the library: %s", error)
            else:
                if len(self.lexical) == self._store.counts()[1]:
                    return
        self.lexical = LexicalIndex.create(self._folder / "lexical", self._store.texts(), str(_Mark(library, revision)))

    def _write_words(self, library: str, since: int, revision: int) -> None:
        """Writes what has changed between two revisions. Raises StoreError."""
        if since < revision:
            changes = self._store.changes(since)
            # A passage that came is dropped first: after a crash it may be there already.
            gone = np.concatenate([changes.gone, changes.added[:, 0]])
            self.lexical.write(self._store.texts(changes.added[:, 0]), gone, str(_Mark(library, revision)))
            self.lexical.refresh()

    def _open_graph(self) -> GraphVectors | None:
        state = self._store.state()
        if self._manifest is None or self._manifest.graph is None:
            return None
        graph, path = self._manifest.graph, self._own / self._manifest.graph.file
        try:
            if (self._manifest.library, self._manifest.embedding_model) != (state.library, self._name):
                raise StoreError(f"The vector index {path} belongs to another library or model.")
            if graph.revision > state.revision or graph_hash(path) != graph.sha256:
                raise StoreError(f"The vector index {path} is damaged.")
            return GraphVectors.load(path, self._dimension, graph.effort)
        except StoreError as error:
            _LOG.info("Making the vector index again from the library: %s", error)
            self._manifest = None
            return None

    def _drop_graphs(self) -> None:
        """Deletes the graphs that the manifest does not name: of a build that was killed."""
        named = self._manifest.graph.file if self._manifest and self._manifest.graph else ""
        for path in self._own.glob("graph-*.faiss"):
            if path.name != named:
                remove_graph(path)

    def _missing(self, changes: Changes) -> NDArray[np.int64]:
        """The numbers among those that came whose vectors the graph does not hold."""
        numbers = changes.added[:, 0]
        return numbers if self._graph is None else numbers[~np.isin(numbers, self._graph.owners)]

    def _alive(self) -> NDArray[np.bool_]:
        """Which of the vectors that are searched one by one belong to passages that are still there."""
        return np.isin(self._recent.owners, self._members[:, 0])

    def _drop_dead(self) -> None:
        """Reads the vectors that are searched one by one anew where most of them are of passages that are gone."""
        alive = self._alive()
        if len(alive) > 2 * alive.sum() + 1000:
            numbers = np.unique(self._recent.owners[alive])
            self._recent = ExactVectors(self._dimension)
            self._recent.add(self._store.vectors(self.model, numbers))
            alive = self._alive()
        in_graph = self._graph is not None and bool(np.isin(self._graph.owners, self._members[:, 0], invert=True).any())
        self._dead = in_graph or not bool(alive.all())

    def _build_graph(self, revision: int) -> Graph:
        """A graph of all passages in a file that no manifest names yet."""
        path = self._own / f"graph-{secrets.token_hex(4)}.faiss"
        total = len(self._members)
        effort, recall = build_graph(path, self._store.vectors(self.model), total, self._dimension, self._threads)
        return Graph(
            file=path.name,
            sha256=graph_hash(path),
            revision=revision,
            passages=total,
            effort=effort,
            recall_at_10=round(recall, 4),
        )

    def _adopt(self, graph: Graph, library: str) -> None:
        self._graph = GraphVectors.load(self._own / graph.file, self._dimension, graph.effort)
        self._recent = ExactVectors(self._dimension)
        self._dead = False
        self._within.clear()
        self._write_manifest(graph, library)
        self._drop_graphs()

    def _allowed(self, collections: frozenset[str], only: Filter) -> Within | None:
        """The passages that a search may return; None where that is every row of the indexes."""
        key = (collections, only)
        with self._one_at_a_time:
            if key not in self._within:
                inside = np.isin(self._members[:, 1], self._store.keys(collections, only))
                whole = not self._dead and bool(inside.all())
                self._within[key] = None if whole else Within(self._members[inside, 0])
                if len(self._within) > _MOST_WITHIN:
                    self._within.popitem(last=False)
            self._within.move_to_end(key)
            return self._within[key]

    def _write_manifest(self, graph: Graph | None, library: str) -> None:
        manifest = Manifest(
            format=_FORMAT,
            library=library,
            embedding_model=self._name,
            dimension=self._dimension,
            metric=METRIC,
            graph=graph,
        )
        if manifest == self._manifest:
            return
        beside = self._manifest_path.with_suffix(".part")
        beside.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        beside.replace(self._manifest_path)
        self._manifest = manifest

    def _read_manifest(self) -> Manifest | None:
        try:
            manifest = Manifest.model_validate_json(self._manifest_path.read_bytes())
        except (OSError, ValidationError):
            return None
        return manifest if manifest.format == _FORMAT else None
