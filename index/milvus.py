"""Passages in Milvus: the same answers to a search as the local indexes give, from one server for many machines.

Derived from the store like those. A collection holds one row per passage: the middle of its sentences' vectors, since
the candidates are scored by their sentences in the store afterwards, and its terms. A mark in a second collection says
which library and revision the first one holds; it is written last, and to take a change in twice does no harm.
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from index.derived import NOTHING
from index.document import NO_FILTER, Filter
from index.errors import StoreError, UnreachableError
from index.lexical import FIELDS, LEXICAL_VERSION, day, folders_of, index_terms
from index.milvus_service import MOST_BYTES, MOST_FOLDERS, MilvusService, Row, condition, has_term
from index.store import Store
from index.stored import State, TextRow, Vectors
from index.vectors import middle

_LOG = logging.getLogger(__name__)
_FORMAT = 1
MIDDLES_EACH = 8
"""How many candidates are asked by vector for each that is wanted, since their sentences decide. On 803 passages of
COVID-QA the ten with the nearest sentences are among 50, 100, 200, 400 nearest middles by .895, .949, .980, .998."""
WORDS_EACH = 4
"""How many are asked by the words of each field for each that is wanted, since the fields' sums decide."""
BATCH = 500
"""Passages that are written, or read back, at a time: about 2 MB."""
MOST_COUNTS = 100_000
"""Counts of terms that are kept, some 30 MB: each person's uploads are a collection, so each counts for himself."""
AT_ONCE = 8
"""How many of a question's requests run side by side."""

Tell = Callable[[int, int], None]
"""Hears how many of how many passages are written."""


class Mark(BaseModel):
    """What a collection holds: whose passages, up to which revision (-1: being made), `lacking` so many vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    owner: str
    library: str
    embedding_model: str
    dimension: int
    revision: int
    lacking: int


class MilvusIndex:
    """A library's passages in Milvus. The caller holds the writer lock for every method but those that search.

    Opens without Milvus too, so that documents can be read and added meanwhile; what searches raises UnreachableError.
    """

    def __init__(
        self,
        store: Store,
        service: MilvusService,
        folder: Path,
        name: str,
        dimension: int,
        prefix: str,
        tell: Tell = lambda done, total: None,
    ) -> None:
        self._store = store
        self._service = service
        self._name = name
        self._dimension = dimension
        self._prefix = prefix
        self._tell = tell
        self._owner = _owner(folder)
        self._counts: dict[tuple[str, str], int] = {}
        self._side_by_side = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="milvus")
        self.load()

    def load(self) -> None:
        """Brings the collection up to the store, made anew if it is damaged or held another library of this desk."""
        self.state = NOTHING
        try:
            self.catch_up()
        except UnreachableError as error:
            _LOG.warning("%s Documents cannot be searched until then.", error)

    def catch_up(self) -> None:
        """Takes in what the store has gained and lost since. Raises UnreachableError if Milvus does not answer, and
        StoreError if the collection belongs to somebody else."""
        now = self._store.state()
        if self.state == now:
            return
        if (self.state.library, self.state.embedded) != (now.library, now.embedded):
            self.state = NOTHING
            self.model = self._store.model(self._name, self._dimension)
        with self._looking_again():
            since = self._held(now.library, now.revision)
            if since is None or not self._take(now, since):
                self._make_anew(now.library)
                self._take(now, -1)

    def prepare(self) -> None:
        """Milvus tidies up by itself."""

    def tidy(self, prepared: object) -> None:
        """Milvus tidies up by itself."""

    def drop_others(self) -> None:
        """Forgets the vectors of every other model, here and in Milvus."""
        self._store.drop_models(keep=self.model)
        for name in self._service.collections():
            mark = self._mark(name) if name.startswith(f"{self._prefix}_passages_") else None
            if mark is not None and name != self._passages and mark.owner == self._owner:
                self._service.drop(name)
                self._service.delete(self._marks, [name])

    @property
    def description(self) -> str:
        return f"{self._service.place}, collection {self._passages}"

    def nearest(
        self, vector: NDArray[np.float32], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[tuple[int, float]]:
        """About the `n` nearest passages of these collections with the cosine of their nearest sentence, best first."""
        if not collections or n < 1:
            return []
        with self._looking_again():
            near = self._service.nearest(self._passages, vector, n * MIDDLES_EACH, condition(collections, only))
        scored = ((number, float((rows @ vector).max())) for number, rows in self._store.vectors(self.model, near))
        return sorted(scored, key=lambda pair: -pair[1])[:n]

    def words(
        self, terms: Sequence[str], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[tuple[int, float]]:
        """At most n (number, BM25 score) pairs, best first: the fields' scores, weighted and added up."""
        if not terms or not collections or n < 1:
            return []
        where = condition(collections, only)
        with self._looking_again():
            found = list(
                self._side_by_side.map(
                    lambda field: self._service.words(self._passages, field, terms, n * WORDS_EACH, where), FIELDS
                )
            )
        scores: dict[int, float] = {}
        for weight, pairs in zip(FIELDS.values(), found, strict=True):
            for number, score in pairs:
                scores[number] = scores.get(number, 0.0) + weight * score
        return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:n]

    def frequencies(self, terms: Sequence[str], collections: frozenset[str]) -> tuple[dict[str, int], int]:
        """In how many passages of `collections` each term stands, and how many there are: a count each, kept until the
        library changes or there are too many."""
        if not collections:
            return dict.fromkeys(terms, 0), 0
        inside = condition(collections, NO_FILTER)
        wanted = ["", *terms]
        if len(self._counts) > MOST_COUNTS:
            self._counts = {}
        known = self._counts
        asked = [term for term in wanted if (inside, term) not in known]
        with self._looking_again():
            counts = self._side_by_side.map(lambda term: self._count(inside, term), asked)
            found = {term: known[inside, term] for term in wanted if term not in asked}
            found.update(zip(asked, counts, strict=True))
        for term in asked:
            known[inside, term] = found[term]
        return {term: found[term] for term in terms}, found[""]

    def problems(self) -> list[str]:
        """Where the collection differs from the store, one sentence each."""
        numbers = self._store.changes(-1).added[:, 0]
        found = []
        held = self._service.count(self._passages)
        if held != len(numbers):
            found.append(f"{self.description} holds {held} passages, the library {len(numbers)}.")
        lacking = wrong = 0
        for batch in _batches(numbers):
            rows = self._service.read(self._passages, batch.tolist(), ["number", "vector", "words"])
            there = {int(row["number"]): row for row in rows}
            lacking += len(batch) - len(there)
            for expected in self._rows(batch):
                row = there.get(expected["number"], expected)
                same = row["words"] == expected["words"] and np.allclose(row["vector"], expected["vector"], atol=1e-6)
                wrong += not same
        if lacking or wrong:
            found.append(f"{self.description} lacks {lacking} passages and holds {wrong} that differ.")
        return found

    @property
    def _passages(self) -> str:
        return f"{self._prefix}_passages_{self.model}"

    @property
    def _marks(self) -> str:
        return f"{self._prefix}_marks"

    def _count(self, inside: str, term: str) -> int:
        return self._service.count(self._passages, f"{inside} and {has_term(term)}" if term else inside)

    @contextmanager
    def _looking_again(self) -> Iterator[None]:
        """Where a request fails, the next search opens the collection anew: the server may have been away, or begun
        again without it. Says so where another process has dropped it, with this model's vectors."""
        try:
            yield
        except StoreError as error:
            self.state = NOTHING
            if not isinstance(error, UnreachableError):
                self._store.rows([], frozenset(), self.model)  # raises if the model is gone
            raise

    def _held(self, library: str, revision: int) -> int | None:
        """The revision that the collection holds this library at; None if it must be made anew. Raises StoreError for a
        collection that is somebody else's."""
        mark = self._mark(self._passages)
        there = self._passages in self._service.collections()
        foreign = mark is not None and mark.owner != self._owner and mark.library != library
        if foreign or (there and mark is None):
            raise StoreError(
                f"{self.description} belongs to another library: give this desk an index.milvus.prefix of its own in "
                f"desk.yaml, or drop that collection and {self._marks} in Milvus if nobody needs them."
            )
        if mark is None or not there or not 0 <= mark.revision <= revision:
            return None
        if mark.model_copy(update={"owner": self._owner}) != self._new_mark(library, mark.revision, mark.lacking):
            return None
        if not self.state.library:
            if mark.lacking and self._store.count_unembedded(self.model) != mark.lacking:
                return None
            self._service.load(self._passages)
        return mark.revision

    def _take(self, now: State, since: int) -> bool:
        """Writes what changed after a revision and then the mark; False if the collection holds something else than
        the store for all that."""
        changes = self._store.changes(since)
        for batch in _batches(changes.gone):
            self._service.delete(self._passages, batch.tolist())
        numbers, done = changes.added[:, 0], 0
        for batch in _batches(numbers):
            self._service.write(self._passages, list(self._rows(batch)))
            done += len(batch)
            self._tell(done, len(numbers))
        if not self.state.library and (held := self._service.count(self._passages)) != self._store.counts()[1]:
            if since < 0:
                raise StoreError(f"{self.description} holds {held} passages after {len(numbers)} were written to it.")
            return False
        if since != changes.revision:
            self._note(self._new_mark(now.library, changes.revision, self._store.count_unembedded(self.model)))
        self.state = replace(now, revision=changes.revision)
        self._counts = {}
        return True

    def _make_anew(self, library: str) -> None:
        """An empty collection under a mark that claims it: a run that is cut off from here on is begun again."""
        _LOG.info("Making %s from the library.", self.description)
        names = self._service.collections()
        if self._marks not in names:
            self._service.create_marks(self._marks)
        self._note(self._new_mark(library, -1, 0))
        if self._passages in names:
            self._service.drop(self._passages)
        self._service.create_passages(self._passages, self._dimension)

    def _mark(self, name: str) -> Mark | None:
        """The mark of a collection. Raises StoreError for one that this program cannot read."""
        if self._marks not in self._service.collections():
            return None
        if not self.state.library:
            self._service.load(self._marks)
        for row in self._service.read(self._marks, [name], ["name", "text"]):
            try:
                return Mark.model_validate_json(row["text"])
            except ValidationError:
                raise StoreError(
                    f"{self._service.place}, collection {self._marks}, was written by another program or version: give "
                    "this desk an index.milvus.prefix of its own in desk.yaml."
                ) from None
        return None

    def _note(self, mark: Mark) -> None:
        self._service.write(
            self._marks, [{"name": self._passages, "text": mark.model_dump_json(), "unused": [0.0, 0.0]}]
        )

    def _new_mark(self, library: str, revision: int, lacking: int) -> Mark:
        return Mark(
            format=f"{_FORMAT}.{LEXICAL_VERSION}",
            owner=self._owner,
            library=library,
            embedding_model=self._name,
            dimension=self._dimension,
            revision=revision,
            lacking=lacking,
        )

    def _rows(self, numbers: NDArray[np.int64]) -> Iterator[Row]:
        """The rows of some passages as Milvus keeps them."""
        vectors = dict(self._store.vectors(self.model, numbers))
        for text in self._store.texts(numbers):
            yield row_of(text, vectors.get(text.number), self._dimension)


def row_of(text: TextRow, vectors: Vectors | None, dimension: int) -> Row:
    """A passage as Milvus keeps it; a vector of zeros where the model has not embedded it."""
    terms = {field: index_terms(part) for field, part in _parts(text).items()}
    return {
        "number": text.number,
        "vector": middle(vectors).tolist() if vectors is not None and len(vectors) else [0.0] * dimension,
        "collection": text.collection,
        "format": text.format,
        "updated": day(text.updated) if text.updated else 0,
        "sources": [*folders_of(text.path)[:MOST_FOLDERS], text.path],
        "words": _joined(sorted({term for found in terms.values() for term in found})),
        **{field: _joined(found) for field, found in terms.items()},
    }


def _parts(text: TextRow) -> dict[str, str]:
    return {"title": text.title, "section": text.section, "body": text.text}


def _joined(terms: Sequence[str]) -> str:
    """Terms with a space between them; the last ones are left out of what is longer than a field may be."""
    whole = " ".join(terms)
    data = whole.encode()
    if len(data) <= MOST_BYTES:
        return whole
    return data[: MOST_BYTES + 1].decode("utf-8", "ignore").rpartition(" ")[0]


def _batches(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(numbers), BATCH):
        yield numbers[start : start + BATCH]


def _owner(folder: Path) -> str:
    """The random id under which this library's folder makes collections, also after a backup was restored."""
    path = folder / "milvus-owner"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8")
