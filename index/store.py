"""The library's one source of truth: a SQLite file with documents, passages and their vectors.

One transaction per document. The vector index and the lexical index are made from it; it knows neither.
"""

import contextlib
import hashlib
import json
import queue
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.document import Block, Document, DocumentInfo, Passage
from index.errors import StoreError

SCHEMA_VERSION = 2
MOST_SENTENCES = 256
"""Room for a passage's sentences in the numbering of vectors: a passage has at most 250 tokens, so fewer."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, title TEXT NOT NULL, format TEXT NOT NULL,
    collection TEXT NOT NULL, content_hash TEXT NOT NULL, text TEXT NOT NULL, blocks TEXT NOT NULL,
    updated TEXT, outdated INTEGER NOT NULL, recipe TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('desk', 'added')), stamp TEXT NOT NULL,
    added_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    UNIQUE (collection, path)
);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE, ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, section TEXT NOT NULL,
    page INTEGER, vectors BLOB NOT NULL
);
CREATE INDEX passages_of_document ON passages (document_id);
CREATE TABLE failures (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, hash TEXT NOT NULL, reason TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of a source file, to see whether it changed. `stamp` is its size and time of change,
    `recipe` says how it was read, cut and embedded."""

    id: str
    path: str
    origin: str
    content_hash: str
    stamp: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file of the desk that could not be read when it last changed, and why."""

    path: str
    stamp: str
    hash: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassageRow:
    """A passage with its number in the derived indexes and what search needs of its document."""

    number: int
    passage: Passage
    path: str
    title: str
    collection: str
    updated: str | None
    outdated: bool


class Store:
    """The database. Any number of threads may read; the caller lets one thread write at a time.

    Raises StoreError if the file is damaged or was made by another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._all: list[sqlite3.Connection] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._writer = self._connect()
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            raise StoreError(
                f"The library at {path} cannot be opened ({error}): move the file away and run `python -m index build`."
            ) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        self._all.append(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _prepare(self) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL")
        version = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            with self.writing() as connection:
                if int(connection.execute("PRAGMA user_version").fetchone()[0]) == 0:
                    for statement in _SCHEMA.strip().split(";\n"):
                        connection.execute(statement)
                    connection.execute("INSERT INTO meta VALUES ('revision', '0')")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise StoreError(
                f"The library at {self._path} has format {version}, this program reads {SCHEMA_VERSION}: move the "
                "file away and run `python -m index build`."
            )

    def close(self) -> None:
        for connection in self._all:
            connection.close()
        self._all.clear()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is stored at the end, or nothing if the block raises."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the library throughout the block."""
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.execute("ROLLBACK")
            self._readers.put(connection)

    def revision(self) -> int:
        """A number that rises with every change of documents, whichever process makes it."""
        with self.reading() as connection:
            return read_revision(connection)

    def corpus_hash(self) -> str:
        """A hash of which passages are stored, under which numbers: what derived indexes must agree with."""
        digest = hashlib.sha256()
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT d.id, d.content_hash, d.recipe, MIN(p.number), COUNT(p.number) FROM documents d "
                "LEFT JOIN passages p ON p.document_id = d.id GROUP BY d.id ORDER BY d.id"
            )
            for row in rows:
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def next_number(self) -> int:
        """The number of the next passage; numbers are never used twice."""
        with self.reading() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
        return int(row[0]) + 1 if row else 1

    def replaced_by(self, document: Document) -> list[int]:
        """The numbers of the passages that go when `put` stores a document."""
        with self.reading() as connection:
            return [number for old in _replaced(connection, document) for number in _numbers(connection, old)]

    def numbers_of(self, document_id: str) -> list[int]:
        with self.reading() as connection:
            return _numbers(connection, document_id)

    def put(
        self,
        document: Document,
        passages: Sequence[Passage],
        vectors: Sequence[NDArray[np.float32]],
        *,
        stored: Stored,
        first: int,
    ) -> None:
        """Stores a document in place of the one with its id or its path in its collection.

        `vectors` holds for each passage one row per sentence, (s, d) float32 with s at most
        MOST_SENTENCES; passages are numbered upwards from `first`.
        """
        with self.writing() as connection:
            for old in _replaced(connection, document):
                connection.execute("DELETE FROM documents WHERE id = ?", (old,))
            _insert(connection, document, stored)
            for number, (passage, rows) in enumerate(zip(passages, vectors, strict=True), first):
                _insert_passage(connection, number, passage, rows)
            _raise_revision(connection)

    def remove(self, document_id: str) -> None:
        """Removes a document and its passages."""
        with self.writing() as connection:
            connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))
            _raise_revision(connection)

    def touch(self, document_id: str, stamp: str) -> None:
        """Notes that a file has a new time of change but the same content."""
        with self.writing() as connection:
            connection.execute("UPDATE documents SET stamp = ? WHERE id = ?", (stamp, document_id))

    def set_failures(self, failures: Sequence[Failure]) -> None:
        """Replaces the list of the desk's unreadable files."""
        with self.writing() as connection:
            connection.execute("DELETE FROM failures")
            connection.executemany(
                "INSERT INTO failures VALUES (?, ?, ?, ?)",
                [(item.path, item.stamp, item.hash, item.reason) for item in failures],
            )

    def failures(self) -> list[Failure]:
        with self.reading() as connection:
            rows = connection.execute("SELECT path, stamp, hash, reason FROM failures ORDER BY path").fetchall()
        return [Failure(*row) for row in rows]

    def stored(self) -> list[Stored]:
        """What is stored of every source, ordered by path."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT id, path, origin, content_hash, stamp, recipe FROM documents ORDER BY path, id"
            ).fetchall()
        return [Stored(*row) for row in rows]

    def find(self, collection: str, path: str) -> Stored | None:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT id, path, origin, content_hash, stamp, recipe FROM documents WHERE collection = ? AND path = ?",
                (collection, path),
            ).fetchone()
        return Stored(*row) if row else None

    def origin(self, document_id: str) -> str | None:
        """'desk', 'added', or None for an unknown id."""
        with self.reading() as connection:
            row = connection.execute("SELECT origin FROM documents WHERE id = ?", (document_id,)).fetchone()
        return str(row[0]) if row else None

    def document(self, document_id: str) -> Document | None:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT id, path, title, format, text, content_hash, collection, blocks, updated, outdated "
                "FROM documents WHERE id = ?",
                (document_id,),
            ).fetchone()
        if row is None:
            return None
        blocks = tuple(Block(*block) for block in json.loads(row[7]))
        return Document(
            *(row[0], row[1], row[2], row[3], row[4], row[5], row[6]),
            blocks=blocks,
            updated=row[8],
            outdated=bool(row[9]),
        )

    def documents(self, collections: frozenset[str] | None = None) -> list[DocumentInfo]:
        """All documents of some collections (None: of every one), ordered by path."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT d.id, d.path, d.title, d.format, d.collection, d.updated, d.outdated, length(d.text), "
                "COUNT(p.number), MAX(p.page), d.added_at FROM documents d "
                "LEFT JOIN passages p ON p.document_id = d.id GROUP BY d.id ORDER BY d.path, d.id"
            ).fetchall()
        infos = [DocumentInfo(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), *row[7:]) for row in rows]
        return [info for info in infos if collections is None or info.collection in collections]

    def passages(self, document_id: str) -> list[Passage]:
        """A document's passages in order."""
        with self.reading() as connection:
            rows = connection.execute(
                'SELECT id, document_id, ordinal, start, "end", text, section, page FROM passages '
                "WHERE document_id = ? ORDER BY ordinal",
                (document_id,),
            ).fetchall()
        return [Passage(*row) for row in rows]

    def vectors(self, name: str, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Vector ids (n,) and vectors (n, dimension) of all sentences embedded by the model `name`.

        A sentence's id is its passage's number times MOST_SENTENCES plus its place in the passage.
        """
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT p.number, p.vectors FROM passages p JOIN documents d ON d.id = p.document_id "
                "WHERE d.recipe LIKE ? ESCAPE '\\' AND length(p.vectors) % ? = 0 ORDER BY p.number",
                (f"%|{_escaped(name)}", dimension * 4),
            ).fetchall()
        counts = [len(row[1]) // (dimension * 4) for row in rows]
        ids = [vector_ids(row[0], count) for row, count in zip(rows, counts, strict=True)]
        joined = b"".join(row[1] for row in rows)
        vectors = np.frombuffer(joined, dtype="<f4").astype(np.float32).reshape(sum(counts), dimension)
        return np.concatenate([np.empty(0, np.int64), *ids]), vectors

    def texts(self) -> Iterator[tuple[int, str, str, str, str]]:
        """(number, title, section, text, collection) of every passage."""
        with self.reading() as connection:
            yield from connection.execute(
                "SELECT p.number, d.title, p.section, p.text, d.collection FROM passages p "
                "JOIN documents d ON d.id = p.document_id ORDER BY p.number"
            )

    def numbers_by_collection(self) -> dict[str, list[int]]:
        """The numbers of the passages of each collection."""
        found: dict[str, list[int]] = {}
        with self.reading() as connection:
            for collection, number in connection.execute(
                "SELECT d.collection, p.number FROM passages p JOIN documents d ON d.id = p.document_id"
            ):
                found.setdefault(collection, []).append(number)
        return found

    def rows(self, numbers: Sequence[int], collections: frozenset[str]) -> list[PassageRow]:
        """The passages with these numbers that are in these collections, in no order; unknown ones left out."""
        with self.reading() as connection:
            rows = connection.execute(
                'SELECT p.number, p.id, p.document_id, p.ordinal, p.start, p."end", p.text, p.section, p.page, '
                "d.path, d.title, d.collection, d.updated, d.outdated "
                "FROM passages p JOIN documents d ON d.id = p.document_id "
                "WHERE p.number IN (SELECT value FROM json_each(?)) "
                "AND d.collection IN (SELECT value FROM json_each(?))",
                (json.dumps([int(number) for number in numbers]), json.dumps(sorted(collections))),
            ).fetchall()
        return [
            PassageRow(row[0], Passage(*row[1:9]), row[9], row[10], row[11], row[12], bool(row[13])) for row in rows
        ]

    def problems(self) -> list[str]:
        """What is wrong inside the database, one sentence each."""
        found = []
        with self.reading() as connection:
            state = connection.execute("PRAGMA quick_check").fetchone()[0]
            if state != "ok":
                found.append(f"The database is damaged: {state}.")
            for document_id, text in connection.execute("SELECT id, text FROM documents"):
                for ordinal, start, end, part in connection.execute(
                    'SELECT ordinal, start, "end", text FROM passages WHERE document_id = ?', (document_id,)
                ):
                    if text[start:end] != part:
                        found.append(f"Passage {ordinal} of {document_id} is not the text at its span.")
        return found


def vector_ids(number: int, count: int) -> NDArray[np.int64]:
    """The vector ids of a passage's `count` sentences. Raises StoreError for more than MOST_SENTENCES."""
    if count > MOST_SENTENCES:
        raise StoreError(f"Passage {number} has {count} sentences, at most {MOST_SENTENCES} are stored.")
    return np.arange(number * MOST_SENTENCES, number * MOST_SENTENCES + count, dtype=np.int64)


def read_revision(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()[0])


def _raise_revision(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'revision'")


def _replaced(connection: sqlite3.Connection, document: Document) -> list[str]:
    rows = connection.execute(
        "SELECT id FROM documents WHERE id = ? OR (collection = ? AND path = ?)",
        (document.id, document.collection, document.path),
    ).fetchall()
    return [str(row[0]) for row in rows]


def _numbers(connection: sqlite3.Connection, document_id: str) -> list[int]:
    rows = connection.execute("SELECT number FROM passages WHERE document_id = ?", (document_id,)).fetchall()
    return [int(row[0]) for row in rows]


def _insert(connection: sqlite3.Connection, document: Document, stored: Stored) -> None:
    blocks = json.dumps([[b.kind, b.start, b.end, b.page, b.level] for b in document.blocks])
    values: list[Any] = [
        *(document.id, document.path, document.title, document.format, document.collection),
        *(document.content_hash, document.text, blocks, document.updated, int(document.outdated)),
        *(stored.recipe, stored.origin, stored.stamp),
    ]
    connection.execute(
        "INSERT INTO documents (id, path, title, format, collection, content_hash, text, blocks, updated, "
        "outdated, recipe, origin, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )


def _insert_passage(
    connection: sqlite3.Connection, number: int, passage: Passage, vectors: NDArray[np.float32]
) -> None:
    connection.execute(
        'INSERT INTO passages (number, id, document_id, ordinal, start, "end", text, section, page, vectors) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(number, passage.id, passage.document_id, passage.ordinal, passage.start, passage.end),
            *(passage.text, passage.section, passage.page, vectors.astype("<f4").tobytes()),
        ),
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
