"""The library of a desk: add, build, search, remove. The one door to this package.

It knows nothing of models that write, of routes or of pages.
"""

import contextlib
import logging
import re
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from desk.index_file import StoreName
from desk.settings import IndexSettings
from index.archive import member_file
from index.backup import Contents, pack, restore, snapshot
from index.build import (
    MIRRORED,
    Build,
    BuildProgress,
    BuildReport,
    Folders,
    Replacement,
    embed_missing,
    is_stale,
    stamp_of,
)
from index.connectors.sync import sync_due
from index.derived import EXACT_ROWS, Derived, LibraryIndex
from index.document import (
    DESK_COLLECTION,
    NO_FILTER,
    Document,
    DocumentInfo,
    Filter,
    Passage,
    ScoredPassage,
    SearchResult,
)
from index.embed import Embedder, open_embedder, token_counter
from index.errors import SourceError, StoreError, UnreachableError
from index.intake import Intake, SourceFile
from index.locking import ReadWriteLock, WriterLock
from index.milvus import MilvusIndex, Tell
from index.milvus_service import MilvusService
from index.names import plain_name
from index.related import RelatedDocument, related, section_around, vector_of
from index.rerank import RERANKED, CrossEncoderReranker, rerank
from index.search import Indexes, search
from index.sources import FORMATS, file_hash
from index.store import Store
from index.stored import Stored

_LOG = logging.getLogger(__name__)
_UNPACKED = "unpacked"
"""The folder of files that were unpacked from archives to be shown."""
_TRIES = 3
"""How often a search is made into which another process writes: it may have seen half of a change."""
Stage = Literal["reading", "embedding", "storing", "stored", "indexed"]
"""Where `add_file` is: at "stored" the document is safe, at "indexed" it can be found."""


@dataclass(frozen=True, slots=True)
class Added:
    """The documents of an added file, more than one of an archive; `failures` are (path, reason) of other members."""

    documents: tuple[Document, ...]
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What the library holds. `formats` counts documents, `failures` are (path, reason) of the last build; `index` says
    how vectors are searched."""

    documents: int
    passages: int
    formats: dict[str, int]
    embedding_model: str
    chunk_tokens: int
    index: str
    state: str
    stale: bool
    failures: tuple[tuple[str, str], ...]


def open_library(settings: IndexSettings, on_progress: Callable[[BuildProgress], None] | None = None) -> "Library":
    """The desk's library with the embedding model of this machine, built first if absent or stale.

    Raises EmbedderError or StoreError; files that cannot be read are in `status().failures`.
    """
    library = Library.open(settings, open_embedder(settings))
    if library.is_stale():
        library.build(on_progress)
    return library


def restore_library(settings: IndexSettings, source: Path) -> Contents:
    """Puts a backup in place of the desk's library, which may be damaged, missing, or in use by a running app.

    Raises StoreError; nothing has changed then.
    """
    writer = WriterLock(settings.state / "writer.lock")
    with writer.held():
        return restore(settings.state / "library.sqlite", settings.state / "uploads", source)


class Library:
    """Documents of one desk, searchable. Safe for many threads: reads go on while one of them writes."""

    def __init__(self, settings: IndexSettings, embedder: Embedder, exact_rows: int = EXACT_ROWS) -> None:
        self._settings = settings
        self._embedder = embedder
        self._exact_rows = exact_rows
        self._folders = Folders(settings)
        self._reranker = CrossEncoderReranker(settings.reranker) if settings.reranker else None
        self._uploads = settings.state / "uploads"
        self._building = threading.Lock()
        self._lock = ReadWriteLock()
        self._writer = WriterLock(settings.state / "writer.lock")
        self._store = Store(settings.state / "library.sqlite")
        with self._writer.held():
            sweep(settings.state)
            self._derived = self._open_index(settings.store)
            self._drop_orphans()

    @classmethod
    def open(cls, settings: IndexSettings, embedder: Embedder, exact_rows: int = EXACT_ROWS) -> "Library":
        """The library under `settings.state`, made if absent; damaged indexes are made again.

        With more than `exact_rows` vectors a graph finds the nearest ones. Raises StoreError if the database itself
        cannot be used.
        """
        return cls(settings, embedder, exact_rows)

    def _open_index(self, store: StoreName, tell: Tell = lambda done, total: None) -> LibraryIndex:
        """The index of a store, brought up to the library."""
        settings, folder = self._settings, self._settings.state / "derived"
        name, dimension = self._embedder.name, self._embedder.dimension
        if store == "local":
            return Derived(self._store, folder, name, dimension, settings.threads, self._exact_rows)
        if settings.milvus is None:
            raise StoreError("desk.yaml does not say where Milvus is: add index.milvus.uri (docs/milvus.md).")
        service = MilvusService(settings.milvus)
        return MilvusIndex(self._store, service, folder, name, dimension, settings.milvus.prefix, tell)

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

        An unchanged file costs its hash, a moved one nothing more. A file that cannot be read is reported and keeps
        nobody else back; what was stored of it before is dropped.
        """
        tell = on_progress or (lambda progress: None)
        with self._building:
            self._embed_missing(tell)
            build = Build(self._store, self._intake, self._folders, self._max_bytes)
            report = build.run(self._put, self._uploads, tell)
            with self._writer.held():
                self._refresh()
                prepared = self._derived.prepare()
                with self._lock.alone():
                    self._derived.tidy(prepared)
        return report

    def sync_due(self) -> bool:
        """Fetches what connectors find whose time has come, and builds what is new; whether any was due."""
        due = bool(sync_due(self._settings))
        if due or self.is_stale():
            self.build()
        return due

    def is_stale(self) -> bool:
        """Whether a build would change anything. Files with the same size and time are not read."""
        unembedded = self._store.count_unembedded(self._derived.model) > 0
        return unembedded or is_stale(self._store, self._intake, self._folders, self._uploads)

    def add_file(
        self,
        path: Path,
        *,
        name: str,
        collection: str = DESK_COLLECTION,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> Added:
        """Adds a copy of a file, in place of the one with the same name in the collection; it can be found
        at once. Raises SourceError if the file cannot be read; nothing is changed then. Raises UnreachableError if it
        is stored but the service that searches does not answer: it is found once that does.
        """
        told = on_stage or (lambda stage: None)
        told("reading")
        name = plain_name(name) or "upload"
        if "/" in name and name.partition("/")[0] in (self._settings.documents.name, MIRRORED):
            raise SourceError(f"{name} has the path of a file of the desk: rename its folder, or add the file alone.")
        same = self._same(path, self._store.added(collection, name))
        if same is not None:
            return Added((same,), ())
        told("embedding")
        source = SourceFile(path, name, "", "added", collection, stamp_of(path))
        taken = self._intake.read(source, self._max_bytes, [])
        file = f"{taken.entries[0].document.id}/{name}"
        entries = tuple(replace(entry, stored=replace(entry.stored, file=file)) for entry in taken.entries)
        told("storing")
        with self._writer.held():
            copy = self._uploads / file
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            except OSError as error:
                raise SourceError(f"{name} cannot be kept ({error.strerror}): check space and rights.") from None
            gone = tuple(item.id for item in self._store.added(collection, name))
            try:
                self._put([Replacement(entries, gone)], told)
            except UnreachableError as error:
                raise UnreachableError(f"{name} is stored, but cannot be found yet: {error}") from None
            finally:
                self._drop_orphans()
        failures = tuple((failure.path, failure.reason) for failure in taken.failures)
        return Added(tuple(entry.document for entry in entries), failures)

    def _same(self, path: Path, before: Sequence[Stored]) -> Document | None:
        """The document that a file was added as before, if that is all there is of it and nothing has changed."""
        if len(before) != 1 or before[0].inner or not path.is_file() or not self._file_of(before[0]).is_file():
            return None
        if (before[0].recipe, before[0].file_hash) != (self._intake.recipe, file_hash(path)):
            return None
        return self._store.document(before[0].id)

    def remove(self, document_id: str) -> None:
        """Removes an added document and its copy. Raises SourceError for an unknown id, or for a document of
        the desk's own folder: it would come back with the next build."""
        stored = self._store.find(document_id)
        if stored is None:
            raise SourceError(f"There is no document {document_id}: `python -m index status` lists them.")
        if stored.origin == "desk":
            path = self._folders.path(stored.file)
            raise SourceError(
                f"{document_id} belongs to the desk: delete the file {path} and run `python -m index build`."
            )
        with self._writer.held():
            try:
                self._put([Replacement((), (document_id,))])
            except UnreachableError as error:
                _LOG.warning("%s is removed; the index learns of it later: %s", document_id, error)
            self._drop_orphans()

    def search(
        self,
        query: str,
        vector: NDArray[np.float32],
        k: int,
        collections: frozenset[str],
        only: Filter = NO_FILTER,
    ) -> SearchResult:
        """The `k` best passages for a query and its unit vector, from these collections only, best first."""
        row = np.asarray(vector, np.float32).reshape(-1)
        wanted = k if self._reranker is None else max(k, RERANKED)
        found = self._undisturbed(
            lambda: search(Indexes(self._store, self._derived), query, row, wanted, collections, only)
        )
        if self._reranker is None:
            return found
        return replace(found, hits=tuple(rerank(found.hits, query, self._reranker)[:k]))

    def _undisturbed(self, look: Callable[[], SearchResult]) -> SearchResult:
        """What a search finds in one state of the library: repeated where another process wrote meanwhile, and in the
        end with that one kept waiting."""
        for _ in range(_TRIES):
            with self._reading():
                before = self._derived.state
                found = look()
            if self._store.state() == before:
                return found
        with self._writer.held():
            self._refresh()
            return look()

    def related(
        self, passages: Sequence[Passage], k: int, collections: frozenset[str], least: float = -1.0
    ) -> list[RelatedDocument]:
        """The `k` documents of these collections nearest to what some passages are about, their own left out; none with
        a cosine under `least`."""
        indexes = Indexes(self._store, self._derived)
        with self._reading():
            vector = vector_of(indexes, passages, collections)
            if vector is None:
                return []
            own = frozenset(passage.document_id for passage in passages)
            return related(indexes, vector, k, collections, own, least)

    def around(self, hit: ScoredPassage, limit_tokens: int) -> tuple[Passage, ...]:
        """A hit's passage with its neighbours in the same section, in order, at most `limit_tokens` long in all."""
        return section_around(hit, self._store.passages(hit.passage.document_id), limit_tokens, token_counter())

    def readable(self, groups: frozenset[str]) -> frozenset[str]:
        """The collections that members of some groups may read, uploads aside."""
        named = {one.name for one in self._settings.collections if not one.groups or one.groups & groups}
        return frozenset({DESK_COLLECTION, *named})

    def count(self) -> int:
        """How many documents there are."""
        return self._store.counts()[0]

    def counts(self, collections: frozenset[str]) -> dict[str, int]:
        """How many documents each of these collections has, without empty ones."""
        return self._store.counts_of(collections)

    def documents(self, collections: frozenset[str] | None = None) -> list[DocumentInfo]:
        """The documents of some collections (None: of all), ordered by path."""
        return self._store.documents(collections)

    def document(self, document_id: str) -> Document | None:
        return self._store.document(document_id)

    def passages(self, document_id: str) -> list[Passage]:
        """A document's passages in order; none for an unknown id."""
        return self._store.passages(document_id)

    def original(self, document_id: str) -> Path | None:
        """The file a document was read from: the desk's own, the copy of an upload, or a file unpacked from an archive.

        None if it is gone.
        """
        stored = self._store.find(document_id)
        if stored is None:
            return None
        path = self._file_of(stored)
        if not stored.inner:
            return path if path.is_file() else None
        kept = self._settings.state / _UNPACKED / f"{stored.id}-{stored.file_hash[:16]}" / Path(stored.path).name
        if kept.is_file():
            return kept
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                member_file(path, stored.inner.lstrip("/"), Path(scratch)).replace(kept)
        except (SourceError, OSError):
            return None
        return kept

    def _file_of(self, stored: Stored) -> Path:
        return self._folders.path(stored.file) if stored.origin == "desk" else self._uploads / stored.file

    def status(self) -> LibraryStatus:
        documents = self._store.documents()
        return LibraryStatus(
            documents=len(documents),
            passages=sum(info.passages for info in documents),
            formats=dict(sorted(Counter(info.format for info in documents).items())),
            embedding_model=self._embedder.name,
            chunk_tokens=self._settings.chunk_tokens,
            index=self._derived.description,
            state=str(self._settings.state),
            stale=self.is_stale(),
            failures=tuple((failure.path, failure.reason) for failure in self._store.failures()),
        )

    def back_up(self, target: Path) -> Contents:
        """Writes the database and the added files to one file, while others search. Raises StoreError."""
        if target.resolve().is_relative_to(self._settings.state.resolve()):
            raise StoreError(f"{target} is inside the library's own folder: write the backup elsewhere.")
        scratch = self._settings.state / f"backup-{secrets.token_hex(4)}.part"
        try:
            with self._writer.held():
                snapshot(self._store, self._uploads, scratch)
            return pack(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def migrate(self, store: StoreName, on_progress: Callable[[BuildProgress], None] | None = None) -> int:
        """Makes the index of the other store from the database, and checks it; how many passages it holds.

        This library goes on with the one that it has, until desk.yaml names the other. Raises StoreError if it cannot
        be made; what is half made is made anew the next time.
        """
        if store == self._settings.store:
            raise StoreError(f"This desk's index is {store} already: index.store in desk.yaml says so.")
        tell = on_progress or (lambda progress: None)
        with self._writer.held():
            passages = self._store.counts()[1]
            tell(BuildProgress(0, passages, store, "passage"))
            index = self._open_index(store, lambda done, total: tell(BuildProgress(done, total, store, "passage")))
            index.catch_up()  # raises what opening only warns of
            index.tidy(index.prepare())
            if problems := index.problems():
                raise StoreError(f"The index was not moved: {' '.join(problems)}")
            tell(BuildProgress(passages, passages, store, "passage"))
        return passages

    def verify(self) -> list[str]:
        """What is wrong with the stored library, one sentence each; nothing if all is well."""
        with self._writer.held():
            with self._lock.alone():
                self._derived.catch_up()
            found = self._store.problems() or self._derived.problems()
        for stored in self._store.stored():
            if not self._file_of(stored).is_file():
                found.append(f"The original file of {stored.path} ({stored.id}) is gone.")
        if self.is_stale():
            found.append("The library is stale: run `python -m index build`.")
        return found

    @property
    def _intake(self) -> Intake:
        # The model's number changes when a backup is restored.
        return Intake(self._store, self._embedder, self._derived.model, token_counter(), self._settings.chunk_tokens)

    @property
    def _max_bytes(self) -> int:
        return self._settings.upload_mb * 1_000_000

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """The indexes as they are, after taking in what another process may have written."""
        while True:
            with self._lock.shared():
                if self._derived.state == self._store.state():
                    yield
                    return
            with self._writer.held():
                self._refresh()

    def _refresh(self) -> None:
        if self._derived.state != self._store.state():
            with self._lock.alone():
                self._derived.catch_up()

    def _embed_missing(self, tell: Callable[[BuildProgress], None]) -> None:
        """Embeds what this library's model has not, then drops the vectors of models that went before it."""
        model = self._derived.model
        if embed_missing(self._store, self._intake, model, tell):
            with self._writer.held(), self._lock.alone():
                self._store.note_embedded()
                self._derived.load()
            return
        models = self._store.models()
        if len(models) > 1 and model == max(models):
            # Not at once after embedding: a process with the model before may still be searching. And never by such a
            # process, which would drop what the newer one has embedded.
            with self._writer.held():
                self._derived.drop_others()

    def _put(self, group: Sequence[Replacement], told: Callable[[Stage], None] = lambda stage: None) -> None:
        """Stores replacements and lets searches see them, all at one moment; safe from then on.

        Raises UnreachableError if the index is a service that does not answer: all is stored then all the same.
        """
        with self._writer.held():
            with contextlib.suppress(UnreachableError):
                self._refresh()
            with self._lock.alone():
                for one in group:
                    # An added file that is read anew may have been replaced or removed by its owner meanwhile.
                    if not one.again or self._store.has(one.gone):
                        self._store.put(one.entries, one.gone, self._derived.model)
                told("stored")
                self._derived.catch_up()
            told("indexed")

    def _drop_orphans(self) -> None:
        """Deletes copies of uploads that no document has: replaced, removed, or of an add that was cut off."""
        stored = self._store.stored()
        known = {item.file.partition("/")[0] for item in stored if item.origin == "added"}
        shown = {f"{item.id}-{item.file_hash[:16]}" for item in stored if item.inner}
        for root, kept in ((self._uploads, known), (self._settings.state / _UNPACKED, shown)):
            for folder in root.iterdir() if root.is_dir() else ():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)


_PART = re.compile(r".+\.[0-9a-f]{8}\.part")
"""What a file of people's own is called while it is unpacked from a backup."""


def sweep(folder: Path) -> None:
    """Deletes what a killed writer was writing in a library's folder. The caller must be the only writer."""
    for path in [*folder.glob("*.part*"), *folder.glob("derived/**/*.part*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for path in folder.glob("uploads/**/*.part"):
        if path.is_file() and _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


def supported(path: Path) -> bool:
    """Whether a file's name has a suffix that can be read."""
    return path.suffix.lower() in FORMATS
