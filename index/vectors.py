"""Nearest passages by cosine, in FAISS: exact in memory, or a graph in a file. Derived from the store.

Exact search holds a vector per sentence and scores a passage by its nearest one. The graph (HNSW, Malkov and Yashunin
2016, arXiv:1603.09320, with 8-bit codes) holds one vector per passage, the middle of its sentences; who searches it
scores the candidates by their sentences afterwards. Neither forgets a row: which passages are still there, and which
of them a search may return, is said by `Within`.
"""

import hashlib
import importlib
import secrets
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from index.errors import StoreError

METRIC = "inner product of unit vectors"
LINKS = 16
"""Links per node (M). Each takes 8 bytes: with 384 8-bit dimensions a passage takes about 530 bytes in all."""
BUILD_EFFORT = 80
"""Candidates that are looked at for a new node's links (efConstruction)."""
EFFORTS = (64, 128, 256, 512)
"""Candidates that a search looks at (efSearch): the first that reaches the wanted recall is kept."""
WANTED_RECALL = 0.95
SAMPLE = 200
"""Passages whose neighbours are searched for to measure recall@10."""
SCAN_SHARE = 0.1
"""Below this share of passages that may be returned, all of them are scored: a graph leads mostly to the others."""

Vectors = NDArray[np.float32]
Scored = list[tuple[int, float]]


_PORTION = 1000
"""Passages whose vectors are added together."""


Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion


class Within:
    """A set of passages that a search may return, by their numbers."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.table = np.zeros(int(numbers.max()) + 1 if len(numbers) else 1, dtype=np.bool_)
        self.table[numbers] = True
        self.count = len(numbers)

    def __contains__(self, number: int) -> bool:
        return number < len(self.table) and bool(self.table[number])

    def of(self, owners: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which rows belong to these passages."""
        inside = owners < len(self.table)
        inside[inside] = self.table[owners[inside]]
        return inside


class _Rows:
    """A FAISS index and whose its rows are: `owners` has the passage's number for each row."""

    def __init__(self, index: Any, owners: NDArray[np.uint32]) -> None:
        faiss: Any = importlib.import_module("faiss")
        # A question is one vector: more threads gain nothing, and theirs go on spinning after the search, which doubled
        # the time of the next question's embedding on 2 cores.
        faiss.omp_set_num_threads(1)
        self._faiss = faiss
        self._index = index
        self.owners = owners
        self._selectors: WeakKeyDictionary[Within, tuple[int, Any, Any, int]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self.owners)

    def _selector(self, within: Within) -> tuple[Any, int]:
        """What makes FAISS keep to the rows of some passages, and how many rows these are."""
        known = self._selectors.get(within)
        if known is None or known[0] != len(self):
            inside = within.of(self.owners)
            bits = np.packbits(inside, bitorder="little")  # kept: FAISS points into it
            known = (len(self), bits, self._faiss.IDSelectorBitmap(bits), int(inside.sum()))
            self._selectors[within] = known
        return known[2], known[3]

    def _scored(self, cosines: NDArray[np.float32], rows: NDArray[np.int64]) -> Scored:
        found = rows >= 0
        return list(zip(self.owners[rows[found]].tolist(), cosines[found].tolist(), strict=True))


class ExactVectors(_Rows):
    """Vectors of sentences in memory, searched one by one."""

    def __init__(self, dimension: int) -> None:
        faiss: Any = importlib.import_module("faiss")
        super().__init__(faiss.IndexFlatIP(dimension), np.empty(0, np.uint32))
        self.dimension = dimension

    def add(self, passages: Iterable[tuple[int, Vectors]]) -> None:
        """Adds the unit vectors of passages, (s, dimension) each; in portions, so that they are held once."""
        for portion in batched(passages, _PORTION):
            for _, rows in portion:
                if rows.ndim != 2 or rows.shape[1] != self.dimension:
                    raise StoreError(f"Vectors of {self.dimension} dimensions were expected, not {rows.shape}.")
            owners = [np.full(len(rows), number, np.uint32) for number, rows in portion]
            self._index.add(np.ascontiguousarray(np.concatenate([rows for _, rows in portion]), dtype=np.float32))
            self.owners = np.concatenate([self.owners, *owners])

    def search(self, vector: Vectors, n: int, within: Within | None = None) -> Scored:
        """At most n (passage number, cosine) pairs, one per sentence, the nearest first; None: among all."""
        n = min(n, len(self))
        if n < 1:
            return []
        row = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, self.dimension)
        parameters = self._faiss.SearchParameters(sel=self._selector(within)[0]) if within else None
        cosines, rows = self._index.search(row, n, params=parameters)
        return self._scored(cosines[0], rows[0])

    def passages(self) -> dict[int, Vectors]:
        """The vectors of each passage."""
        rows = self._index.reconstruct_n(0, len(self)) if len(self) else np.empty((0, self.dimension), np.float32)
        starts = np.flatnonzero(np.diff(self.owners)) + 1  # the rows of a passage stand together
        firsts = self.owners[np.concatenate([[0], starts])] if len(self) else self.owners
        return dict(zip(firsts.tolist(), np.split(rows, starts), strict=False))


class GraphVectors(_Rows):
    """One vector per passage in a file that is mapped into memory; never changed once it is built."""

    def __init__(self, index: Any, owners: NDArray[np.uint32], effort: int) -> None:
        super().__init__(index, owners)
        self._effort = effort
        self._storage = self._faiss.downcast_index(index.storage)

    @classmethod
    def load(cls, path: Path, dimension: int, effort: int) -> "GraphVectors":
        """The graph in a file. Raises StoreError if it is missing, damaged or of another kind."""
        faiss: Any = importlib.import_module("faiss")
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            owners = np.load(_owners_path(path), mmap_mode="r", allow_pickle=False)
        except (RuntimeError, OSError, ValueError) as error:
            raise StoreError(f"The vector index {path} is damaged or missing ({str(error)[-80:]}).") from None
        graph = isinstance(index, faiss.IndexHNSWSQ) and index.metric_type == faiss.METRIC_INNER_PRODUCT
        if not graph or index.d != dimension or index.ntotal != len(owners):
            raise StoreError(f"The vector index {path} is of another kind or dimension than {dimension}.")
        return cls(index, owners, effort)

    def search(self, vector: Vectors, n: int, within: Within | None = None) -> Scored:
        """At most n (passage number, cosine with its middle) pairs, about the nearest first; None: among all."""
        row = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        n = min(n, len(self))
        effort = max(self._effort, n)
        if within is None:
            found = self._index.search(row, n, params=self._faiss.SearchParametersHNSW(efSearch=effort))
            return self._scored(found[0][0], found[1][0])
        selector, count = self._selector(within)
        n = min(n, count)
        if n < 1:
            return []
        if count < SCAN_SHARE * len(self):
            found = self._storage.search(row, n, params=self._faiss.SearchParameters(sel=selector))
        else:
            parameters = self._faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
            found = self._index.search(row, n, params=parameters)
        return self._scored(found[0][0], found[1][0])


def middle(rows: Vectors) -> Vectors:
    """The unit vector midway between (n, d) unit vectors, what a text is about as a whole; zeros if they cancel."""
    mean: Vectors = rows.mean(axis=0)
    unit: Vectors = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return unit


def build_graph(
    path: Path, passages: Iterable[tuple[int, Vectors]], count: int, dimension: int, threads: int
) -> tuple[int, float]:
    """Writes the graph of at most `count` passages; returns the effort that a search needs and its recall@10.

    Recall is measured against exact search for the vectors of sampled passages, each with noise of half its length: a
    question is near a passage, not the passage. The unpacked vectors wait in a file beside `path` meanwhile.
    """
    faiss: Any = importlib.import_module("faiss")
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    rows = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=(max(1, count), dimension))
    try:
        owners = np.empty(count, np.uint32)
        total = 0
        for number, vectors in passages:
            if len(vectors) and total < count:
                rows[total], owners[total] = middle(vectors), number
                total += 1
        filled: Vectors = rows[:total]
        owners = owners[:total]
        index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_EFFORT
        faiss.omp_set_num_threads(threads)
        try:
            index.train(filled[:: max(1, total // 100_000)])
            for start in range(0, total, 20_000):
                index.add(filled[start : start + 20_000])
        finally:
            faiss.omp_set_num_threads(1)
        effort, recall = _measured(index, filled)
        faiss.write_index(index, str(path))
        with _owners_path(path).open("wb") as file:
            np.save(file, owners, allow_pickle=False)
        return effort, recall
    finally:
        scratch.unlink(missing_ok=True)


def _measured(index: Any, rows: Vectors) -> tuple[int, float]:
    """The least effort of EFFORTS whose recall@10 is as wanted (or the most), and that recall."""
    faiss: Any = importlib.import_module("faiss")
    random = np.random.default_rng(0)
    sample = rows[random.choice(len(rows), min(SAMPLE, len(rows)), replace=False)]
    noise = random.normal(size=sample.shape).astype(np.float32)
    asked = sample + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    _, true = faiss.knn(asked, np.ascontiguousarray(rows), min(10, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
    recall = 0.0
    for effort in EFFORTS:
        _, found = index.search(asked, true.shape[1], params=faiss.SearchParametersHNSW(efSearch=effort))
        recall = float(np.mean([np.isin(ours, exact).mean() for ours, exact in zip(found, true, strict=True)]))
        if recall >= WANTED_RECALL:
            break
    return effort, recall


def remove_graph(path: Path) -> None:
    path.unlink(missing_ok=True)
    _owners_path(path).unlink(missing_ok=True)


def graph_hash(path: Path) -> str:
    """SHA-256 of a graph's two files, in hex. Raises StoreError if one is missing."""
    digest = hashlib.sha256()
    try:
        for part in (path, _owners_path(path)):
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise StoreError(f"The vector index {path} is missing ({error.strerror}).") from None
    return digest.hexdigest()


def _owners_path(path: Path) -> Path:
    return path.with_suffix(".owners.npy")
