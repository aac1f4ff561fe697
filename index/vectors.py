"""Nearest passages by cosine, in FAISS: exact search over unit vectors. Derived from the store."""

import importlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import StoreError

METRIC = "inner product of unit vectors"


class VectorIndex:
    """Passage numbers and their vectors. The caller keeps writers apart from readers."""

    def __init__(self, dimension: int) -> None:
        import faiss

        # A question is one vector: more threads gain nothing, and theirs go on spinning after the search, which doubled
        # the time of the next question's embedding on 2 cores.
        faiss.omp_set_num_threads(1)
        self.dimension = dimension
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, numbers: Sequence[int] | NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds (n, dimension) unit vectors under n numbers that are not in the index yet."""
        if vectors.shape != (len(numbers), self.dimension):
            raise StoreError(
                f"{len(numbers)} vectors of {self.dimension} dimensions were expected, the shape is {vectors.shape}."
            )
        if len(numbers):
            rows = np.ascontiguousarray(vectors, dtype=np.float32)
            self._index.add_with_ids(rows, np.asarray(numbers, dtype=np.int64))

    def remove(self, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        """Removes the numbers that are in the index."""
        if len(numbers):
            self._index.remove_ids(np.asarray(numbers, dtype=np.int64))

    def search(self, vector: NDArray[np.float32], n: int, allowed: "Allowed | None" = None) -> list[tuple[int, float]]:
        """At most n (number, cosine) pairs, the nearest first, among the allowed numbers (None: all)."""
        if not len(self) or n < 1:
            return []
        row = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, self.dimension)
        n = min(n, len(self))
        if allowed is None:
            scores, numbers = self._index.search(row, n)
        else:
            scores, numbers = self._index.search(row, n, params=allowed.parameters())
        return [(int(i), float(s)) for i, s in zip(numbers[0], scores[0], strict=True) if i >= 0]

    def similarity(self, vector: NDArray[np.float32], numbers: Sequence[int]) -> dict[int, float]:
        """The cosine of a unit vector with the vectors under some numbers; unknown numbers are left out."""
        found = {}
        for number in numbers:
            try:
                row = self._index.reconstruct(int(number))
            except RuntimeError:
                continue
            found[int(number)] = float(row @ vector)
        return found

    def numbers(self) -> NDArray[np.int64]:
        """The numbers in the index, ascending."""
        import faiss

        return np.sort(faiss.vector_to_array(self._index.id_map)) if len(self) else np.empty(0, np.int64)

    def vector(self, number: int) -> NDArray[np.float32]:
        return np.asarray(self._index.reconstruct(int(number)), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Writes the index beside `path` and renames it."""
        import faiss

        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            faiss.write_index(self._index, str(beside))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, dimension: int) -> "VectorIndex":
        """The index in a file. Raises StoreError if it is missing, damaged or of another kind."""
        import faiss

        index = cls(dimension)
        try:
            loaded = faiss.read_index(str(path))
        except RuntimeError as error:
            raise StoreError(f"The vector index {path} is damaged or missing ({str(error)[-80:]}).") from None
        inner = loaded.index if isinstance(loaded, faiss.IndexIDMap2) else None
        if inner is None or inner.d != dimension or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise StoreError(f"The vector index {path} is of another kind or dimension than {dimension}.")
        index._index = loaded
        return index


class Allowed:
    """A set of numbers that a search may return, as a bitmap over all of them."""

    def __init__(self, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        faiss: Any = importlib.import_module("faiss")
        wanted = np.asarray(numbers, dtype=np.int64)
        mask = np.zeros(int(wanted.max()) + 1 if len(wanted) else 1, dtype=np.uint8)
        mask[wanted] = 1
        self._bits = np.packbits(mask, bitorder="little")  # kept: FAISS points into it
        self._selector = faiss.IDSelectorBitmap(self._bits)
        self._faiss = faiss

    def parameters(self) -> Any:
        """What makes a FAISS search keep to these numbers."""
        return self._faiss.SearchParameters(sel=self._selector)
