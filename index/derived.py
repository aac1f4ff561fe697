"""The vector index and the lexical index as one: loaded if they fit the store, else made again from it.

On disk they stand beside a manifest that says what they were made of. The manifest goes before a change and
comes back after it, so that a crash leaves none, and the next start rebuilds.
"""

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from index.errors import StoreError
from index.lexical import LEXICAL_VERSION, LexicalIndex
from index.store import MOST_SENTENCES, Store, vector_ids
from index.vectors import METRIC, Allowed, VectorIndex

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_MOST_ALLOWED = 64
"""How many users' sets of collections are kept ready: at 100,000 passages one takes about 3 MB."""

TextRow = tuple[int, str, str, str, str]
"""(number, title, section, text, collection) of a passage."""


class Manifest(BaseModel):
    """What index files were made of; `generation` is random and changes with every save."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    embedding_model: str
    dimension: int
    metric: str
    chunking: str
    lexical: int
    corpus_hash: str
    generation: str


class Derived:
    """Both indexes in memory. The caller holds the writer lock for every method but `allowed`."""

    def __init__(self, store: Store, folder: Path, model: str, dimension: int, chunking: str) -> None:
        self._store = store
        self._folder = folder
        self._model = model
        self._dimension = dimension
        self._chunking = chunking
        self._manifest: Manifest | None = None
        self._allowed: dict[frozenset[str], Allowed] = {}
        self._members: dict[str, list[int]] = {}
        self.sentences: dict[int, int] = {}
        """How many sentences each passage has."""
        folder.mkdir(parents=True, exist_ok=True)
        self.vectors = VectorIndex(dimension)
        self.lexical: LexicalIndex
        self.revision = -1
        self.load()

    @property
    def _manifest_path(self) -> Path:
        return self._folder / "manifest.json"

    def is_current(self) -> bool:
        """Whether nobody else changed the store or the files since they were loaded or saved here."""
        return self.revision == self._store.revision() and self._manifest == self._read_manifest()

    def load(self) -> None:
        """Reads the files, or makes them again where they do not fit the store or are damaged."""
        revision = self._store.revision()
        manifest = self._read_manifest()
        expected = self._describe(manifest.generation if manifest else "")
        fault = "there is no index yet" if manifest is None else "the index does not fit the library"
        if manifest == expected:
            try:
                vectors = VectorIndex.load(self._folder / "vectors.faiss", self._dimension)
                lexical = LexicalIndex(self._folder / "lexical")
                numbers, _ = self._store.vectors(self._model, self._dimension)
                if len(lexical) != self._passages() or not np.array_equal(vectors.numbers(), numbers):
                    raise StoreError("the index lacks passages")
                self.vectors, self.lexical, self._manifest = vectors, lexical, manifest
                self._remember(revision)
                return
            except StoreError as error:
                fault = str(error)
        if revision > 0:
            _LOG.info("Making the search index again from the library: %s", fault)
        self._rebuild()
        self._remember(revision)

    def write_words(self, rows: Sequence[TextRow], gone: Sequence[int]) -> None:
        """First half of a change: on disk, not yet seen by searches. From here to `save` there is no manifest."""
        self._manifest_path.unlink(missing_ok=True)
        self.lexical.write(rows, gone)

    def swap(
        self,
        numbers: Sequence[int],
        vectors: Sequence[NDArray[np.float32]],
        gone: Sequence[int],
        revision: int,
    ) -> None:
        """Second half: in memory. `vectors` has a row per sentence of each passage. No search may run meanwhile."""
        self.vectors.remove(self._ids_of(gone))
        for number, rows in zip(numbers, vectors, strict=True):
            self.vectors.add(vector_ids(number, len(rows)), rows)
        self.lexical.refresh()
        self._remember(revision)

    def save(self) -> None:
        """Writes what is in memory, then the manifest."""
        self.vectors.save(self._folder / "vectors.faiss")
        manifest = self._describe(secrets.token_hex(8))
        beside = self._manifest_path.with_suffix(".part")
        beside.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        beside.replace(self._manifest_path)
        self._manifest = manifest

    def allowed(self, collections: frozenset[str]) -> Allowed | None:
        """The passages of some collections for the vector search; None where that is every passage."""
        if collections.issuperset(self._members):
            return None
        found = self._allowed.get(collections)
        if found is None:
            numbers = [number for name in collections for number in self._members.get(name, [])]
            if len(self._allowed) >= _MOST_ALLOWED:
                self._allowed = {}
            found = self._allowed[collections] = Allowed(self._ids_of(numbers))
        return found

    def problems(self) -> list[str]:
        """Where the indexes differ from the store, one sentence each."""
        found = []
        numbers, vectors = self._store.vectors(self._model, self._dimension)
        if not np.array_equal(self.vectors.numbers(), numbers):
            found.append(f"The vector index holds {len(self.vectors)} sentences, the library {len(numbers)}.")
        elif any(not np.array_equal(self.vectors.vector(int(n)), row) for n, row in zip(numbers, vectors, strict=True)):
            found.append("The vector index holds other vectors than the library.")
        if len(vectors) and not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4):
            found.append("Some stored vectors are not of length 1.")
        if len(self.lexical) != self._passages():
            found.append(f"The lexical index holds {len(self.lexical)} passages, the library {self._passages()}.")
        return found

    def _ids_of(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """The vector ids in the index that belong to some passages."""
        ids = self.vectors.numbers()
        return ids[np.isin(ids // MOST_SENTENCES, np.asarray(numbers, dtype=np.int64))]

    def _rebuild(self) -> None:
        self._manifest_path.unlink(missing_ok=True)
        numbers, vectors = self._store.vectors(self._model, self._dimension)
        self.vectors = VectorIndex(self._dimension)
        self.vectors.add(numbers, vectors)
        self.lexical = LexicalIndex.create(self._folder / "lexical", self._store.texts())
        self.save()

    def _remember(self, revision: int) -> None:
        self.revision = revision
        self._members = self._store.numbers_by_collection()
        self._allowed = {}
        passages, counts = np.unique(self.vectors.numbers() // MOST_SENTENCES, return_counts=True)
        self.sentences = dict(zip(passages.tolist(), counts.tolist(), strict=True))

    def _passages(self) -> int:
        return sum(info.passages for info in self._store.documents())

    def _describe(self, generation: str) -> Manifest:
        return Manifest(
            format=_FORMAT,
            embedding_model=self._model,
            dimension=self._dimension,
            metric=METRIC,
            chunking=self._chunking,
            lexical=LEXICAL_VERSION,
            corpus_hash=self._store.corpus_hash(),
            generation=generation,
        )

    def _read_manifest(self) -> Manifest | None:
        try:
            return Manifest.model_validate_json(self._manifest_path.read_bytes())
        except (OSError, ValidationError):
            return None
