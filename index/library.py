"""The library of a desk: add, build, search, remove. The one door to this package.

It knows nothing of models that write, of routes or of pages.
"""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from desk.config import IndexSettings
from index.chunk import CHUNKING_VERSION, cut, embedded_text, sentences
from index.derived import Derived, TextRow
from index.document import DESK_COLLECTION, Document, DocumentInfo, Passage, SearchResult
from index.embed import Embedder, MiniLM, token_counter
from index.errors import SourceError, StoreError
from index.locking import ReadWriteLock, WriterLock
from index.search import Indexes, search
from index.sources import FORMATS, READERS_VERSION, document_id, file_hash, load_source
from index.store import Failure, Store, Stored

_LOG = logging.getLogger(__name__)
_GROUP_PASSAGES = 256
"""A build puts documents into the indexes in groups of about this many passages: each costs a save."""

Stage = Literal["reading", "embedding", "storing", "stored", "indexed"]
"""Where `add_file` is: at "stored" the document is safe, at "indexed" it can be found."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """`done` of `total` files are dealt with; `path` is the latest."""

    done: int
    total: int
    path: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, in documents; `failures` are (path, reason) of files that could not be read."""

    added: int
    changed: int
    removed: int
    unchanged: int
    failures: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What the library holds. `formats` counts documents, `failures` are (path, reason) of the last build."""

    documents: int
    passages: int
    formats: dict[str, int]
    embedding_model: str
    chunk_tokens: int
    state: str
    stale: bool
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A document that has been read, cut and embedded, but not stored."""

    document: Document
    passages: tuple[Passage, ...]
    vectors: tuple[NDArray[np.float32], ...]
    stored: Stored


def open_library(settings: IndexSettings, on_progress: Callable[[BuildProgress], None] | None = None) -> "Library":
    """The desk's library with the embedding model of this machine, built first if absent or stale.

    Raises EmbedderError or StoreError; files that cannot be read are in `status().failures`.
    """
    library = Library.open(settings, MiniLM(settings.models, settings.threads))
    if library.is_stale():
        library.build(on_progress)
    return library


class Library:
    """Documents of one desk, searchable. Safe for many threads: reads go on while one of them writes."""

    def __init__(self, settings: IndexSettings, embedder: Embedder) -> None:
        self._settings = settings
        self._embedder = embedder
        self._count = token_counter()
        self._chunking = f"{CHUNKING_VERSION}/{settings.chunk_tokens}"
        self._recipe = f"{READERS_VERSION}|{self._chunking}|{embedder.name}"
        self._uploads = settings.state / "uploads"
        self._building = threading.Lock()
        self._lock = ReadWriteLock()
        self._writer = WriterLock(settings.state / "writer.lock")
        self._store = Store(settings.state / "library.sqlite")
        with self._writer.held():
            self._derived = Derived(
                self._store, settings.state / "derived", embedder.name, embedder.dimension, self._chunking
            )
            self._drop_orphans()

    @classmethod
    def open(cls, settings: IndexSettings, embedder: Embedder) -> "Library":
        """The library under `settings.state`, made if absent; damaged indexes are made again.

        Raises StoreError if the database itself cannot be used.
        """
        return cls(settings, embedder)

    @property
    def embedder(self) -> Embedder:
        """The model that this library's vectors come from: questions must use the same."""
        return self._embedder

    def close(self) -> None:
        with self._lock.alone():
            self._store.close()
            self._writer.close()

    def build(self, on_progress: Callable[[BuildProgress], None] | None = None) -> BuildReport:
        """Brings the library up to the desk's files: new and changed ones are read, deleted ones dropped.

        An unchanged file costs its hash. A file that cannot be read is reported and keeps nobody else back;
        what was stored of it before is dropped.
        """
        started = time.perf_counter()
        with self._building:
            files = self._files()
            known = {item.path: item for item in self._store.stored() if item.origin == "desk"}
            counts: Counter[str] = Counter()
            failures: list[Failure] = []
            added = [item for item in self._store.stored() if self._is_outdated_upload(item)]
            total = len(files) + len(added)
            group: list[_Ready] = []
            for done, (name, path) in enumerate(files.items(), 1):
                outcome = self._desk_file(name, path, known.get(name), failures)
                if isinstance(outcome, _Ready):
                    group.append(outcome)
                    counts["changed" if name in known else "added"] += 1
                else:
                    counts[outcome] += 1
                if sum(len(ready.passages) for ready in group) >= _GROUP_PASSAGES:
                    self._put(group)
                    group = []
                if on_progress:
                    on_progress(BuildProgress(done, total, name))
            for done, item in enumerate(added, len(files) + 1):
                group.extend(self._read_again(item, failures))
                counts["changed"] += 1
                if on_progress:
                    on_progress(BuildProgress(done, total, item.path))
            self._put(group)
            unreadable = {failure.path for failure in failures}
            for name, item in known.items():
                if name not in files or name in unreadable:
                    self._remove(item.id)
                    counts["removed"] += 1
            self._store.set_failures(failures)
        return BuildReport(
            added=counts["added"],
            changed=counts["changed"],
            removed=counts["removed"],
            unchanged=counts["unchanged"],
            failures=tuple((failure.path, failure.reason) for failure in failures),
            seconds=time.perf_counter() - started,
        )

    def is_stale(self) -> bool:
        """Whether a build would change anything. Files with the same size and time are not read."""
        files = self._files()
        stored = self._store.stored()
        known = {item.path: item for item in stored if item.origin == "desk"}
        failed = {failure.path: failure for failure in self._store.failures()}
        if any(self._is_outdated_upload(item) for item in stored):
            return True
        if known.keys() - files.keys() or failed.keys() - files.keys():
            return True
        for name, path in files.items():
            item = known.get(name) or failed.get(name)
            if item is None or (isinstance(item, Stored) and item.recipe != self._recipe):
                return True
            expected = item.content_hash if isinstance(item, Stored) else item.hash
            if _stamp(path) != item.stamp and _hash_or_none(path) != expected:
                return True
        return False

    def add_file(
        self,
        path: Path,
        *,
        name: str,
        collection: str = DESK_COLLECTION,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> Document:
        """Adds a copy of a file, in place of the one with the same name in the collection; it can be found
        at once. Raises SourceError if the file cannot be read; nothing is changed then.
        """
        told = on_stage or (lambda stage: None)
        told("reading")
        name = _plain_name(name)
        old = self._store.find(collection, name)
        if old is not None and path.is_file() and old.recipe == self._recipe:
            same = self._store.document(old.id)
            if same is not None and same.content_hash == file_hash(path):
                return same
        document = load_source(path, name=name, collection=collection, max_bytes=self._max_bytes)
        told("embedding")
        ready = self._prepare(document, "added", _stamp(path))
        told("storing")
        with self._writer.held():
            folder = self._uploads / document.id
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / Path(name).name)
            self._put([ready], told)
            self._drop_orphans()
        return document

    def remove(self, document_id: str) -> None:
        """Removes an added document and its copy. Raises SourceError for an unknown id, or for a document of
        the desk's own folder: it would come back with the next build."""
        origin = self._store.origin(document_id)
        if origin is None:
            raise SourceError(f"There is no document {document_id}: `python -m index status` lists them.")
        if origin == "desk":
            path = self.original(document_id)
            raise SourceError(
                f"{document_id} belongs to the desk: delete the file {path} and run `python -m index build`."
            )
        self._remove(document_id)

    def search(self, query: str, vector: NDArray[np.float32], k: int, collections: frozenset[str]) -> SearchResult:
        """The `k` best passages for a query and its unit vector, from these collections only, best first."""
        with self._reading():
            derived = self._derived
            allowed = derived.allowed(collections)
            indexes = Indexes(self._store, derived.vectors, derived.sentences, derived.lexical, allowed)
            return search(indexes, query, np.asarray(vector, np.float32).reshape(-1), k, collections)

    def documents(self, collections: frozenset[str] | None = None) -> list[DocumentInfo]:
        """The documents of some collections (None: of all), ordered by path."""
        return self._store.documents(collections)

    def document(self, document_id: str) -> Document | None:
        return self._store.document(document_id)

    def passages(self, document_id: str) -> list[Passage]:
        """A document's passages in order; none for an unknown id."""
        return self._store.passages(document_id)

    def original(self, document_id: str) -> Path | None:
        """The file a document was read from: the desk's own, or the copy of an upload. None if it is gone."""
        document = self._store.document(document_id)
        if document is None:
            return None
        if self._store.origin(document_id) == "desk":
            path = self._settings.documents.parent / document.path
        else:
            path = self._uploads / document_id / Path(document.path).name
        return path if path.is_file() else None

    def status(self) -> LibraryStatus:
        documents = self._store.documents()
        return LibraryStatus(
            documents=len(documents),
            passages=sum(info.passages for info in documents),
            formats=dict(sorted(Counter(info.format for info in documents).items())),
            embedding_model=self._embedder.name,
            chunk_tokens=self._settings.chunk_tokens,
            state=str(self._settings.state),
            stale=self.is_stale(),
            failures=tuple((failure.path, failure.reason) for failure in self._store.failures()),
        )

    def verify(self) -> list[str]:
        """What is wrong with the stored library, one sentence each; nothing if all is well."""
        with self._writer.held():
            self._refresh()
            found = self._store.problems() + self._derived.problems()
        for info in self._store.documents():
            if self.original(info.id) is None:
                found.append(f"The original file of {info.path} ({info.id}) is gone.")
        if self.is_stale():
            found.append("The library is stale: run `python -m index build`.")
        return found

    @property
    def _max_bytes(self) -> int:
        return self._settings.upload_mb * 1_000_000

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """The indexes as they are, after taking in what another process may have written."""
        while True:
            with self._lock.shared():
                if self._derived.revision == self._store.revision():
                    yield
                    return
            with self._writer.held():
                self._refresh()

    def _refresh(self) -> None:
        if not self._derived.is_current():
            with self._lock.alone():
                self._derived.load()

    def _files(self) -> dict[str, Path]:
        """The desk's files by their path relative to the desk; hidden and lock files are none of them."""
        root = self._settings.documents
        return {
            path.relative_to(root.parent).as_posix(): path
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and not path.name.startswith("~$")
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        }

    def _desk_file(
        self, name: str, path: Path, known: Stored | None, failures: list[Failure]
    ) -> "_Ready | Literal['unchanged', 'failed']":
        stamp, digest = _stamp(path), _hash_or_none(path)
        try:
            if known and digest == known.content_hash and known.recipe == self._recipe:
                if stamp != known.stamp:
                    with self._writer.held():
                        self._store.touch(known.id, stamp)
                return "unchanged"
            document = load_source(path, name=name, collection=DESK_COLLECTION, max_bytes=self._max_bytes)
            return self._prepare(document, "desk", stamp)
        except SourceError as error:
            failures.append(Failure(name, stamp, digest or "", str(error)))
            return "failed"

    def _read_again(self, item: Stored, failures: list[Failure]) -> list[_Ready]:
        """An added document, read again from its copy for a new way of reading, cutting or embedding."""
        path, before = self.original(item.id), self._store.document(item.id)
        if path is None or before is None:
            return []
        document = load_source(path, name=item.path, collection=before.collection, max_bytes=path.stat().st_size)
        return [self._prepare(replace(document, id=item.id), "added", item.stamp)]

    def _is_outdated_upload(self, item: Stored) -> bool:
        return item.origin == "added" and item.recipe != self._recipe and self.original(item.id) is not None

    def _prepare(self, document: Document, origin: str, stamp: str) -> _Ready:
        passages = cut(document, self._settings.chunk_tokens, self._count)
        spans = [sentences(passage.text) for passage in passages]
        texts = [
            embedded_text(document.title, passage.section, passage.text[start:end])
            for passage, own in zip(passages, spans, strict=True)
            for start, end in own
        ]
        rows = self._embedder.embed(texts)
        if rows.shape != (len(texts), self._embedder.dimension):
            raise StoreError(f"{self._embedder.name} returned vectors of shape {rows.shape}.")
        vectors = tuple(np.split(rows, np.cumsum([len(own) for own in spans])[:-1])) if spans else ()
        stored = Stored(document.id, document.path, origin, document.content_hash, stamp, self._recipe)
        return _Ready(document, passages, vectors, stored)

    def _put(self, group: Sequence[_Ready], told: Callable[[Stage], None] = lambda stage: None) -> None:
        """Stores documents and lets searches see them, all at one moment; safe from then on."""
        if not group:
            return
        with self._writer.held():
            self._refresh()
            first = self._store.next_number()
            numbers: list[int] = []
            rows: list[TextRow] = []
            for ready in group:
                for passage in ready.passages:
                    document = ready.document
                    numbers.append(first + len(numbers))
                    rows.append((numbers[-1], document.title, passage.section, passage.text, document.collection))
            gone = [number for ready in group for number in self._store.replaced_by(ready.document)]
            self._derived.write_words(rows, gone)
            with self._lock.alone():
                number = first
                for ready in group:
                    self._store.put(ready.document, ready.passages, ready.vectors, stored=ready.stored, first=number)
                    number += len(ready.passages)
                told("stored")
                vectors = [rows for ready in group for rows in ready.vectors]
                self._derived.swap(numbers, vectors, gone, self._store.revision())
            self._derived.save()
            told("indexed")

    def _remove(self, document_id: str) -> None:
        with self._writer.held():
            self._refresh()
            gone = self._store.numbers_of(document_id)
            self._derived.write_words([], gone)
            with self._lock.alone():
                self._store.remove(document_id)
                self._derived.swap([], [], gone, self._store.revision())
            self._derived.save()
            self._drop_orphans()

    def _drop_orphans(self) -> None:
        """Deletes copies of uploads that no document has: replaced, removed, or of an add that was cut off."""
        if not self._uploads.is_dir():
            return
        known = {item.id for item in self._store.stored()}
        for folder in self._uploads.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


def supported(path: Path) -> bool:
    """Whether a file's name has a suffix that can be read."""
    return path.suffix.lower() in FORMATS


def _stamp(path: Path) -> str:
    """Size and time of change of a file: the same for a file that nobody wrote to."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _hash_or_none(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None


def _plain_name(name: str) -> str:
    """An upload's name as a plain relative path: no way up or out, no characters that nobody can see."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    cleaned = "/".join("".join(c for c in part if c.isprintable()).strip() for part in parts)
    return cleaned or "upload"


__all__ = [
    "BuildProgress",
    "BuildReport",
    "Library",
    "LibraryStatus",
    "Stage",
    "document_id",
    "open_library",
    "supported",
]
