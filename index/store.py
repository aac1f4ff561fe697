"""The library's one source of truth: a SQLite file with documents, passages and their vectors.

A file's documents are replaced in one transaction. Every change raises `revision`, and every passage that comes or
goes is noted with it, so that what is derived (vector index, lexical index) can catch up from any revision it has
seen. It knows neither.
"""

import contextlib
import json
import queue
import secrets
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.document import NO_FILTER, Block, Document, DocumentInfo, Filter, Passage
from index.errors import DamagedError, StoreError
from index.stored import Changes, Entry, Failure, PassageRow, State, Stored, TextRow, Vectors

SCHEMA_VERSION = 3
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
CHECKED_BYTES = 50_000_000
"""A database up to this size is checked whole when it is opened, which reads all of it; `verify` checks any. One of
38 MB took 0.03 s from memory and 1.1 from the disk, one of 377 MB 0.4 and 9.5 (docs/log.md)."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL, title TEXT NOT NULL,
    format TEXT NOT NULL, collection TEXT NOT NULL, content_hash TEXT NOT NULL, text TEXT NOT NULL,
    blocks TEXT NOT NULL, updated TEXT, outdated INTEGER NOT NULL, address TEXT, notes TEXT NOT NULL,
    recipe TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('desk', 'added')), file TEXT NOT NULL, file_hash TEXT NOT NULL,
    stamp TEXT NOT NULL, added_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    UNIQUE (collection, path)
);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (key) ON DELETE CASCADE, ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, section TEXT NOT NULL, page INTEGER,
    revision INTEGER NOT NULL
);
CREATE INDEX passages_of_document ON passages (document);
CREATE INDEX passages_since ON passages (revision);
CREATE TABLE models (model INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimension INTEGER NOT NULL);
CREATE TABLE vectors (
    number INTEGER NOT NULL REFERENCES passages (number) ON DELETE CASCADE,
    model INTEGER NOT NULL REFERENCES models (model) ON DELETE CASCADE, data BLOB NOT NULL,
    PRIMARY KEY (number, model)
);
CREATE TABLE gone (number INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
CREATE INDEX gone_since ON gone (revision);
CREATE TABLE failures (
    path TEXT PRIMARY KEY, file TEXT NOT NULL, stamp TEXT NOT NULL, hash TEXT NOT NULL, reason TEXT NOT NULL
);
"""
_DOCUMENT = "id, path, title, format, text, content_hash, collection, blocks, updated, outdated, address, notes"
_PASSAGE = 'd.id, p.ordinal, p.start, p."end", p.text, p.section, p.page'
_STORED = "id, path, file, origin, collection, file_hash, stamp, recipe"

Numbers = Sequence[int] | NDArray[np.int64] | NDArray[np.uint32]


class Store:
    """The database. Any number of threads may read and write; writers wait for each other.

    Raises DamagedError if the file is damaged, StoreError if it was made by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._all: list[sqlite3.Connection] = []
        self._one_writer = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._telling():
                self._writer = self._connect()
                self._file = self.path.stat().st_ino
                self._prepare()
        except StoreError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self._all.append(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL: what has been stored survives a power cut too.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL")
        version = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            with self.writing() as connection:
                if int(connection.execute("PRAGMA user_version").fetchone()[0]) == 0:
                    for statement in _SCHEMA.strip().split(";\n"):
                        connection.execute(statement)
                    fresh = (secrets.token_hex(8),)
                    connection.execute(
                        "INSERT INTO meta VALUES ('revision', '0'), ('embedded', '0'), ('library', ?)", fresh
                    )
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise StoreError(
                f"The library at {self.path} has format {version}, this program reads {SCHEMA_VERSION}: move the "
                "file away and run `python -m index build`."
            )
        elif self.path.stat().st_size <= CHECKED_BYTES:
            state = self._writer.execute("PRAGMA quick_check").fetchone()[0]
            if state != "ok":
                raise self._damaged(state)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Database errors as sentences: a damaged file with the way back, anything else with its own words."""
        try:
            yield
        except sqlite3.Error as error:
            # An error of the module itself, such as a closed connection, has no code of SQLite's.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                raise self._damaged(error) from None
            raise StoreError(
                f"The library at {self.path} cannot be used just now ({error}): try again, or start the program again."
            ) from None

    def _check_file(self) -> None:
        """Raises StoreError where another file has taken the place of the one that connections still see."""
        try:
            found = self.path.stat().st_ino
        except FileNotFoundError:
            found = 0
        if found != self._file:
            raise StoreError(f"The library at {self.path} was put in place anew meanwhile: start the program again.")

    def _damaged(self, what: object) -> DamagedError:
        fault = " ".join(str(what).split())
        return DamagedError(
            f"The library at {self.path} is damaged ({fault}): put a backup in its place with `python -m index restore "
            "FILE`. Without one, move the file away and run `python -m index build`; files that people added are lost "
            "then."
        )

    def close(self) -> None:
        for connection in self._all:
            connection.close()
        self._all.clear()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is stored at the end, or nothing if the block raises."""
        with self._telling(), self._one_writer:
            self._check_file()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the library throughout the block."""
        with self._telling():
            self._check_file()
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                with contextlib.suppress(sqlite3.DatabaseError):
                    connection.execute("ROLLBACK")
                self._readers.put(connection)

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copies one state of the database into another, while others go on reading and writing."""
        with self._telling(), closing(sqlite3.connect(self.path)) as source:
            source.backup(target)

    def copy_from(self, source: sqlite3.Connection) -> None:
        """Replaces the whole database by another; readers see one or the other."""
        with self._telling(), self._one_writer:
            source.backup(self._writer)

    def state(self) -> State:
        with self.reading() as connection:
            found = dict(connection.execute("SELECT key, value FROM meta"))
        return State(found["library"], int(found["embedded"]), int(found["revision"]))

    def model(self, name: str, dimension: int) -> int:
        """The number of an embedding model in this library; it gets one if it is new. Raises StoreError if its
        vectors have another dimension than those stored under its name."""
        with self.reading() as connection:
            row = connection.execute("SELECT model, dimension FROM models WHERE name = ?", (name,)).fetchone()
        if row is None:
            with self.writing() as connection:
                connection.execute("INSERT OR IGNORE INTO models (name, dimension) VALUES (?, ?)", (name, dimension))
                row = connection.execute("SELECT model, dimension FROM models WHERE name = ?", (name,)).fetchone()
        if row[1] != dimension:
            raise StoreError(f"{name} gives vectors of {dimension} dimensions, the library holds some of {row[1]}.")
        return int(row[0])

    def models(self) -> dict[int, str]:
        """The embedding models that this library has vectors of."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT model, name FROM models"))

    def drop_models(self, keep: int) -> None:
        """Forgets the vectors of every other model."""
        with self.writing() as connection:
            connection.execute("DELETE FROM models WHERE model <> ?", (keep,))

    def changes(self, since: int) -> Changes:
        """What came and went after a revision; -1 gives all that is there."""
        with self.reading() as connection:
            cursor = connection.execute(
                "SELECT number, document FROM passages WHERE revision > ? ORDER BY number", (since,)
            )
            added = _pairs(cursor)
            gone = connection.execute("SELECT number FROM gone WHERE revision > ?", (since,)).fetchall()
            revision = int(_meta(connection, "revision"))
        return Changes(revision, added, np.array([row[0] for row in gone], dtype=np.int64))

    def put(self, entries: Sequence[Entry], gone: Sequence[str], model: int) -> None:
        """Stores documents in place of those with ids in `gone`, or with their own ids or paths, in one transaction."""
        with self.writing() as connection:
            revision = _raise_revision(connection)
            _delete(connection, revision, gone)
            for entry in entries:
                _delete(connection, revision, _replaced(connection, entry.document))
                key = _insert(connection, entry)
                for passage, rows in zip(entry.passages, entry.vectors, strict=True):
                    number = _insert_passage(connection, key, passage, revision)
                    connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", (number, model, _blob(rows)))

    def put_vectors(self, model: int, rows: Mapping[int, Vectors]) -> None:
        """Stores the vectors of passages that the model had none of; passages that went meanwhile are left out.

        No change of the library: whoever searches with this model loads its vectors after `note_embedded`.
        """
        with self.writing() as connection:
            for number, vectors in rows.items():
                connection.execute(
                    "INSERT OR REPLACE INTO vectors SELECT number, ?, ? FROM passages WHERE number = ?",
                    (model, _blob(vectors), number),
                )

    def note_embedded(self) -> None:
        """Tells every process that a model's vectors are complete."""
        with self.writing() as connection:
            connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'embedded'")

    def touch(self, file: str, stamp: str) -> None:
        """Notes that a file of the desk has a new time of change but the same content."""
        with self.writing() as connection:
            connection.execute("UPDATE documents SET stamp = ? WHERE file = ? AND origin = 'desk'", (stamp, file))

    def set_failures(self, failures: Sequence[Failure]) -> None:
        """Replaces the list of unreadable files."""
        with self.writing() as connection:
            connection.execute("DELETE FROM failures")
            connection.executemany(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
                [(item.path, item.file, item.stamp, item.hash, item.reason) for item in failures],
            )

    def failures(self) -> list[Failure]:
        with self.reading() as connection:
            rows = connection.execute("SELECT path, file, stamp, hash, reason FROM failures ORDER BY path").fetchall()
        return [Failure(*row) for row in rows]

    def stored(self) -> list[Stored]:
        """What is stored of every document, ordered by path."""
        with self.reading() as connection:
            rows = connection.execute(f"SELECT {_STORED} FROM documents ORDER BY path, id").fetchall()  # noqa: S608
        return [Stored(*row) for row in rows]

    def find(self, document_id: str) -> Stored | None:
        with self.reading() as connection:
            row = connection.execute(f"SELECT {_STORED} FROM documents WHERE id = ?", (document_id,)).fetchone()  # noqa: S608
        return Stored(*row) if row else None

    def added(self, collection: str, name: str) -> list[Stored]:
        """The documents that were read from an added file of this name."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT {_STORED} FROM documents WHERE collection = ? AND origin = 'added' "  # noqa: S608
                "AND substr(file, instr(file, '/') + 1) = ? ORDER BY path",
                (collection, name),
            ).fetchall()
        return [Stored(*row) for row in rows]

    def has(self, document_ids: Sequence[str]) -> bool:
        """Whether all of these documents are stored."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT COUNT(*) FROM documents WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(document_ids)),),
            ).fetchone()
        return int(row[0]) == len(set(document_ids))

    def document(self, document_id: str) -> Document | None:
        with self.reading() as connection:
            row = connection.execute(f"SELECT {_DOCUMENT} FROM documents WHERE id = ?", (document_id,)).fetchone()  # noqa: S608
        if row is None:
            return None
        blocks = tuple(Block(*block) for block in json.loads(row[7]))
        return Document(
            *(row[0], row[1], row[2], row[3], row[4], row[5], row[6]),
            blocks=blocks,
            updated=row[8],
            outdated=bool(row[9]),
            address=row[10],
            notes=tuple(json.loads(row[11])),
        )

    def documents(self, collections: frozenset[str] | None = None) -> list[DocumentInfo]:
        """The documents of some collections (None: of every one), ordered by path."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT d.id, d.path, d.title, d.format, d.collection, d.updated, d.outdated, length(d.text), "
                "COUNT(p.number), MAX(p.page), d.added_at FROM documents d "
                "LEFT JOIN passages p ON p.document = d.key GROUP BY d.key ORDER BY d.path, d.id"
            ).fetchall()
        infos = [DocumentInfo(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), *row[7:]) for row in rows]
        return [info for info in infos if collections is None or info.collection in collections]

    def counts(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT (SELECT COUNT(*) FROM documents), (SELECT COUNT(*) FROM passages)"
            ).fetchone()
        return int(row[0]), int(row[1])

    def counts_of(self, collections: frozenset[str]) -> dict[str, int]:
        """How many documents each of these collections has, without empty ones, by name."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT collection, COUNT(*) FROM documents WHERE collection IN (SELECT value FROM json_each(?)) "
                "GROUP BY collection ORDER BY collection",
                (json.dumps(sorted(collections)),),
            ).fetchall()
        return {str(name): int(count) for name, count in rows}

    def passages(self, document_id: str) -> list[Passage]:
        """A document's passages in order."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT {_PASSAGE} FROM passages p JOIN documents d ON d.key = p.document "  # noqa: S608
                "WHERE d.id = ? ORDER BY p.ordinal",
                (document_id,),
            ).fetchall()
        return [_passage(row) for row in rows]

    def numbers(self, document_id: str) -> list[int]:
        """The numbers of a document's passages, in order."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT p.number FROM passages p JOIN documents d ON d.key = p.document "
                "WHERE d.id = ? ORDER BY p.ordinal",
                (document_id,),
            ).fetchall()
        return [int(row[0]) for row in rows]

    def places(self) -> dict[int, tuple[str, int, int]]:
        """The document, start and end of every passage, by its number."""
        with self.reading() as connection:
            rows = connection.execute(
                'SELECT p.number, d.id, p.start, p."end" FROM passages p JOIN documents d ON d.key = p.document'
            ).fetchall()
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def embedded(self, document_id: str, model: int) -> dict[tuple[str, str], Vectors]:
        """The vectors of a document's passages by (section, text)."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT p.section, p.text, v.data FROM passages p JOIN documents d ON d.key = p.document "
                "JOIN vectors v ON v.number = p.number AND v.model = ? WHERE d.id = ?",
                (model, document_id),
            ).fetchall()
            dimension = _dimension(connection, model)
        return {(section, text): _rows(data, dimension) for section, text, data in rows}

    def unembedded(self, model: int, most: int) -> list[TextRow]:
        """At most `most` passages that the model has no vectors of, in order of their numbers."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT {_TEXT} WHERE NOT EXISTS "  # noqa: S608
                "(SELECT 1 FROM vectors v WHERE v.number = p.number AND v.model = ?) ORDER BY p.number LIMIT ?",
                (model, most),
            ).fetchall()
        return [TextRow(*row) for row in rows]

    def count_unembedded(self, model: int) -> int:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT (SELECT COUNT(*) FROM passages) - (SELECT COUNT(*) FROM vectors WHERE model = ?)", (model,)
            ).fetchone()
        return int(row[0])

    def vectors(self, model: int, numbers: Numbers | None = None) -> Iterator[tuple[int, Vectors]]:
        """(number, vectors of its sentences) of some passages (None: of all) in order of their numbers."""
        chosen, given = _chosen("AND number", numbers)
        with self.reading() as connection:
            dimension = _dimension(connection, model)
            for number, data in connection.execute(
                f"SELECT number, data FROM vectors WHERE model = ? {chosen}ORDER BY number",  # noqa: S608
                (model, *given),
            ):
                yield number, _rows(data, dimension)

    def texts(self, numbers: Numbers | None = None) -> Iterator[TextRow]:
        """What the lexical index keeps of some passages (None: of all), in order of their numbers."""
        chosen, given = _chosen("WHERE p.number", numbers)
        with self.reading() as connection:
            for row in connection.execute(f"SELECT {_TEXT} {chosen}ORDER BY p.number", given):
                yield TextRow(*row)

    def keys(self, collections: frozenset[str], only: Filter) -> NDArray[np.int64]:
        """The keys of the documents in some collections that pass a filter, ascending."""
        where, values = _narrowed(only)
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT key FROM documents d WHERE collection IN (SELECT value FROM json_each(?)) "  # noqa: S608
                f"{where} ORDER BY key",
                (json.dumps(sorted(collections)), *values),
            ).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def rows(
        self, numbers: Sequence[int], collections: frozenset[str], model: int, only: Filter = NO_FILTER
    ) -> list[PassageRow]:
        """The passages with these numbers that are in these collections and pass the filter, in no order."""
        where, values = _narrowed(only)
        with self.reading() as connection:
            dimension = _dimension(connection, model)
            rows = connection.execute(
                f"SELECT p.number, {_PASSAGE}, d.path, d.title, d.collection, d.updated, d.outdated, "  # noqa: S608
                "(SELECT data FROM vectors v WHERE v.number = p.number AND v.model = ?) "
                "FROM passages p JOIN documents d ON d.key = p.document "
                "WHERE p.number IN (SELECT value FROM json_each(?)) "
                f"AND d.collection IN (SELECT value FROM json_each(?)) {where}",
                (model, json.dumps([int(number) for number in numbers]), json.dumps(sorted(collections)), *values),
            ).fetchall()
        return [
            PassageRow(
                *(row[0], _passage(row[1:8]), row[8], row[9], row[10], row[11], bool(row[12])),
                vectors=_rows(row[13] or b"", dimension),
            )
            for row in rows
        ]

    def problems(self) -> list[str]:
        """What is wrong inside the database, one sentence each."""
        found = []
        with self.reading() as connection:
            state = connection.execute("PRAGMA quick_check").fetchone()[0]
            if state != "ok":
                return [f"The database is damaged: {state}."]
            for document_id, text in connection.execute("SELECT id, text FROM documents"):
                for ordinal, start, end, part in connection.execute(
                    'SELECT p.ordinal, p.start, p."end", p.text FROM passages p '
                    "JOIN documents d ON d.key = p.document WHERE d.id = ?",
                    (document_id,),
                ):
                    if text[start:end] != part:
                        found.append(f"Passage {ordinal} of {document_id} is not the text at its span.")
        return found


_TEXT = (
    "p.number, d.title, p.section, p.text, d.collection, d.path, d.format, d.updated "
    "FROM passages p JOIN documents d ON d.key = p.document"
)


def _chosen(column: str, numbers: Numbers | None) -> tuple[str, tuple[str, ...]]:
    """The condition that keeps to some numbers (None: to none), and its values."""
    if numbers is None:
        return "", ()
    given = json.dumps([int(number) for number in numbers])
    return f"{column} IN (SELECT value FROM json_each(?)) ", (given,)  # noqa: S608


def _meta(connection: sqlite3.Connection, key: str) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def _raise_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'revision'")
    return int(_meta(connection, "revision"))


def _dimension(connection: sqlite3.Connection, model: int) -> int:
    row = connection.execute("SELECT dimension FROM models WHERE model = ?", (model,)).fetchone()
    if row is None:
        raise StoreError("This library has been embedded with another model meanwhile: start the program again.")
    return int(row[0])


def _pairs(cursor: sqlite3.Cursor) -> NDArray[np.int64]:
    """The rows of a cursor with two whole numbers each, (n, 2); in portions, since a million tuples take 100 MB."""
    parts = [np.empty((0, 2), np.int64)]
    while rows := cursor.fetchmany(50_000):
        parts.append(np.array(rows, dtype=np.int64))
    return np.concatenate(parts)


def _replaced(connection: sqlite3.Connection, document: Document) -> list[str]:
    rows = connection.execute(
        "SELECT id FROM documents WHERE id = ? OR (collection = ? AND path = ?)",
        (document.id, document.collection, document.path),
    ).fetchall()
    return [str(row[0]) for row in rows]


def _delete(connection: sqlite3.Connection, revision: int, document_ids: Sequence[str]) -> None:
    for document_id in document_ids:
        connection.execute(
            "INSERT OR IGNORE INTO gone SELECT p.number, ? FROM passages p JOIN documents d ON d.key = p.document "
            "WHERE d.id = ?",
            (revision, document_id),
        )
        connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))


def _insert(connection: sqlite3.Connection, entry: Entry) -> int:
    document, stored = entry.document, entry.stored
    blocks = json.dumps([[b.kind, b.start, b.end, b.page, b.level] for b in document.blocks])
    values: list[Any] = [
        *(document.id, document.path, document.title, document.format, document.collection),
        *(document.content_hash, document.text, blocks, document.updated, int(document.outdated), document.address),
        *(json.dumps(document.notes), stored.file_hash),
        *(stored.recipe, stored.origin, stored.file, stored.stamp),
    ]
    key = connection.execute(
        "INSERT INTO documents (id, path, title, format, collection, content_hash, text, blocks, updated, "
        "outdated, address, notes, file_hash, recipe, origin, file, stamp) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    ).lastrowid
    assert key is not None
    return key


def _insert_passage(connection: sqlite3.Connection, key: int, passage: Passage, revision: int) -> int:
    number = connection.execute(
        'INSERT INTO passages (document, ordinal, start, "end", text, section, page, revision) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(key, passage.ordinal, passage.start, passage.end),
            *(passage.text, passage.section, passage.page, revision),
        ),
    ).lastrowid
    assert number is not None
    return number


def _narrowed(only: Filter) -> tuple[str, list[str]]:
    """A filter as further conditions on `documents d`, and their values."""
    where, values = "", []
    if only.source is not None:
        source = only.source.strip("/")
        where += "AND (d.path = ? OR substr(d.path, 1, ?) = ?) "
        values += [source, str(len(source) + 1), f"{source}/"]
    if only.formats is not None:
        where += "AND d.format IN (SELECT value FROM json_each(?)) "
        values.append(json.dumps(sorted(only.formats)))
    for limit, sign in ((only.since, ">="), (only.until, "<=")):
        if limit is not None:
            where += f"AND d.updated {sign} ? "
            values.append(limit)
    return where, values


def _passage(row: Sequence[Any]) -> Passage:
    return Passage(f"{row[0]}:{row[1]}", *row)


def _blob(vectors: Vectors) -> bytes:
    return vectors.astype("<f4").tobytes()


def _rows(data: bytes, dimension: int) -> Vectors:
    """The vectors in a blob, (s, dimension)."""
    rows = np.frombuffer(data, dtype="<f4").reshape(-1, dimension)
    return rows if sys.byteorder == "little" else rows.astype(np.float32)
