"""Files to entries of the store: read, cut, embedded. What was embedded of a document before is not embedded again."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.chunk import CHUNKING_VERSION, CountTokens, cut, embedded_text, sentences
from index.document import DESK_COLLECTION, Document
from index.embed import Embedder
from index.errors import EmbedderError, SourceError
from index.sources import READERS_VERSION, SourceFailure, document_id, file_hash, load_sources
from index.store import Store
from index.stored import Entry, Failure, Stored, TextRow

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read: `name` is its path as people know it, `file` where it is kept; see `Stored`.

    What a connector knows better than the file's own text is in `title` and `address` (where it came from); `date`
    (ISO) counts for a text that states none.
    """

    path: Path
    name: str
    file: str
    origin: str
    collection: str
    stamp: str
    title: str = ""
    address: str | None = None
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The entries of a file, more than one of an archive, and the members of it that could not be read."""

    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...]


class Intake:
    """Reads files for one library with one embedding model."""

    def __init__(self, store: Store, embedder: Embedder, model: int, count: CountTokens, chunk_tokens: int) -> None:
        self._store = store
        self._embedder = embedder
        self._model = model
        self._count = count
        self._chunk_tokens = chunk_tokens
        self.recipe = f"{READERS_VERSION}|{CHUNKING_VERSION}/{chunk_tokens}"
        """How files are read and cut: a document with another recipe is read again."""

    def read(self, source: SourceFile, max_bytes: int, before: Sequence[Stored]) -> "Taken":
        """What a file holds. A document keeps the id that it has in `before`, and the vectors of equal passages.

        Raises SourceError if nothing in the file can be read, EmbedderError if the model fails.
        """
        if "?" in source.name and not _is_utf8(str(source.path)):
            raise SourceError(f"The name of {source.name} is not UTF-8: rename the file.")
        known = {item.inner: item for item in before}
        digest = file_hash(source.path) if source.path.is_file() else ""
        entries, failures = [], []
        for item in load_sources(source.path, name=source.name, collection=source.collection, max_bytes=max_bytes):
            inner = item.path.removeprefix(source.name)
            if source.origin == "added" and before and inner and inner not in known:
                continue  # its owner has removed this member of the archive
            if isinstance(item, SourceFailure):
                failures.append(Failure(item.path, source.file, source.stamp, digest, item.reason))
            else:
                entries.append(self._entry(item, source, digest, known.get(inner)))
        if not entries:
            raise SourceError(_nothing_in(source.name, failures))
        return Taken(tuple(entries), tuple(failures))

    def embed_rows(self, rows: Sequence[TextRow]) -> dict[int, Vectors]:
        """The vectors of stored passages, by number."""
        vectors = embed_parts(self._embedder, [(row.title, row.section, row.text) for row in rows])
        return {row.number: own for row, own in zip(rows, vectors, strict=True)}

    def _entry(self, document: Document, source: SourceFile, digest: str, old: Stored | None) -> Entry:
        document = replace(
            document,
            id=old.id if old else self._fresh_id(source, document.path),
            title=source.title or document.title,
            address=source.address,
            updated=document.updated or source.date,
        )
        passages = cut(document, self._chunk_tokens, self._count)
        known: Mapping[tuple[str, str], Vectors] = {}
        before = self._store.document(old.id) if old else None
        if before is not None and before.title == document.title:
            known = self._store.embedded(before.id, self._model)
        new = [passage for passage in passages if (passage.section, passage.text) not in known]
        parts = [(document.title, passage.section, passage.text) for passage in new]
        embedded = dict(zip((passage.ordinal for passage in new), embed_parts(self._embedder, parts), strict=True))
        vectors = tuple(
            embedded[passage.ordinal] if passage.ordinal in embedded else known[passage.section, passage.text]
            for passage in passages
        )
        stored = Stored(
            document.id,
            document.path,
            source.file,
            source.origin,
            document.collection,
            digest,
            source.stamp,
            self.recipe,
        )
        return Entry(document, passages, vectors, stored)

    def _fresh_id(self, source: SourceFile, path: str) -> str:
        """16 hex digits that follow from the path for the desk's files (unless a moved file has them), else random."""
        if source.origin != "desk":
            return secrets.token_hex(16)
        for attempt in range(1000):
            text = f"{path}#{attempt}" if attempt else path
            made = document_id(text, DESK_COLLECTION)
            if self._store.find(made) is None:
                return made
        return secrets.token_hex(8)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing_in(name: str, failures: Sequence[Failure]) -> str:
    if not failures:
        return f"{name} no longer holds what was read from it."
    if len(failures) == 1:
        return failures[0].reason
    return f"Nothing in {name} can be read. The first of {len(failures)} reasons: {failures[0].reason}"


def embed_parts(embedder: Embedder, parts: Sequence[tuple[str, str, str]]) -> list[Vectors]:
    """For each (title, section, text) of a passage the vectors of its sentences, (s, d), title and section in front.

    Raises EmbedderError if the model fails.
    """
    spans = [sentences(text) for _, _, text in parts]
    texts = [
        embedded_text(title, section, text[start:end])
        for (title, section, text), own in zip(parts, spans, strict=True)
        for start, end in own
    ]
    rows = embedder.embed(texts)
    if rows.shape != (len(texts), embedder.dimension):
        raise EmbedderError(f"{embedder.name} returned vectors of shape {rows.shape}.")
    return np.split(rows, np.cumsum([len(own) for own in spans])[:-1]) if spans else []
