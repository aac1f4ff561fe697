"""A library in one file: its database and the files that people added. The desk's own documents are their owner's.

Both ways go through SQLite's online backup, so that they work while other processes search; writers wait.
"""

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from index.errors import DamagedError, StoreError
from index.store import SCHEMA_VERSION, Store

_DATABASE = "library.sqlite"
_CONTENTS = "contents.json"
_PORTION = 1 << 20


class Contents(BaseModel):
    """What a backup says of itself: the SHA-256 of each of its other files, by the name in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    documents: int
    files: dict[str, str]


def snapshot(store: Store, uploads: Path, scratch: Path) -> None:
    """The database and the added files as they are at one moment, in a new folder; the caller is the only writer.

    The files are linked, not copied: theirs is never written to again. Raises StoreError.
    """
    try:
        scratch.mkdir(parents=True)
        with closing(sqlite3.connect(scratch / _DATABASE)) as connection:
            store.copy_to(connection)
            connection.execute("PRAGMA journal_mode = DELETE")
            kept = [row[0] for row in connection.execute("SELECT DISTINCT file FROM documents WHERE origin = 'added'")]
        for file in kept:
            if (uploads / file).is_file():
                linked = scratch / "uploads" / file
                linked.parent.mkdir(parents=True, exist_ok=True)
                os.link(uploads / file, linked)
    except OSError as error:
        raise StoreError(f"The library cannot be copied to {scratch}: {error.strerror or error}.") from None


def pack(scratch: Path, target: Path) -> Contents:
    """Writes a snapshot to `target`, by renaming a finished file; returns what is in it. Raises StoreError."""
    beside = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.iterdir():
            if re.fullmatch(re.escape(target.name) + r"\.[0-9a-f]{8}\.part", left.name):
                left.unlink(missing_ok=True)  # of a backup that was killed
        with closing(sqlite3.connect(scratch / _DATABASE)) as connection:
            (documents,) = connection.execute("SELECT COUNT(*) FROM documents").fetchone()
        files = {}
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in sorted(path for path in scratch.rglob("*") if path.is_file()):
                name = path.relative_to(scratch).as_posix()
                with path.open("rb") as file:
                    files[name] = hashlib.file_digest(file, "sha256").hexdigest()
                archive.write(path, name)
            contents = Contents(schema_version=SCHEMA_VERSION, documents=documents, files=files)
            archive.writestr(_CONTENTS, contents.model_dump_json(indent=2))
        beside.replace(target)
        return contents
    except (OSError, ValueError) as error:
        raise StoreError(f"The backup {target} cannot be written: {error}.") from None
    finally:
        beside.unlink(missing_ok=True)


def restore(database: Path, uploads: Path, source: Path) -> Contents:
    """Puts the library in `source` in place of the one at `database`; the caller holds the writer lock.

    Nothing is touched before every file of the backup has been checked. A database that is too damaged to be written to
    is moved aside; a program that has it open must then be started again. Raises StoreError if the backup is missing,
    damaged or of another version.
    """
    beside = database.with_name(f"{database.name}.{secrets.token_hex(4)}.part")
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(source) as archive:
            contents = _checked(archive, source)
            for name in contents.files:
                if name != _DATABASE:
                    _unpack(archive, name, uploads.parent / name)
            _unpack(archive, _DATABASE, beside)
        try:
            with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
                # Another id: what was derived from the library before must not be taken for this one's.
                connection.execute("UPDATE meta SET value = ? WHERE key = 'library'", (secrets.token_hex(8),))
        except sqlite3.Error:
            raise StoreError(f"{source} holds no library's database: choose another file.") from None
        try:
            with closing(Store(database)) as store, closing(sqlite3.connect(beside)) as connection:
                store.copy_from(connection)
        except DamagedError:
            for suffix in ("", "-wal", "-shm"):
                old = database.with_name(database.name + suffix)
                if old.exists():
                    old.replace(old.with_name(f"{database.name}.damaged-{secrets.token_hex(4)}{suffix}"))
            beside.replace(database)
        return contents
    except OSError as error:
        raise StoreError(f"{source} cannot be unpacked: {error.strerror or error}.") from None
    finally:
        beside.unlink(missing_ok=True)


def _opened(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except FileNotFoundError:
        raise StoreError(f"There is no backup at {source}: check the path.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{source} is no backup of a library, or is damaged ({error}).") from None


def _checked(archive: zipfile.ZipFile, source: Path) -> Contents:
    """What is in a backup, once every file of it has the hash that it should have."""
    try:
        contents = Contents.model_validate_json(archive.read(_CONTENTS))
    except (KeyError, ValidationError, zipfile.BadZipFile, OSError):
        raise StoreError(f"{source} is no backup of a library, or is damaged: choose another file.") from None
    if contents.schema_version != SCHEMA_VERSION:
        raise StoreError(
            f"{source} was written in format {contents.schema_version}, this program reads {SCHEMA_VERSION}: restore "
            "it with the version that wrote it."
        )
    if _DATABASE not in contents.files:
        raise StoreError(f"{source} holds no database: choose another file.")
    for name, expected in contents.files.items():
        parts = Path(name).parts
        inside = name == _DATABASE or (parts[:1] == ("uploads",) and len(parts) > 2 and ".." not in parts)
        try:
            with archive.open(name) as file:
                found = hashlib.file_digest(_seekless(file), "sha256").hexdigest()
        except (KeyError, zipfile.BadZipFile, OSError, EOFError):
            found = ""
        if not inside or found != expected:
            raise StoreError(f"{source} is damaged: {json.dumps(name)} in it has changed. Use another backup.")
    return contents


def _seekless(file: object) -> io.BufferedReader:
    return io.BufferedReader(file)  # type: ignore[arg-type]  # a zip member reads like a raw file


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with archive.open(name) as packed, beside.open("wb") as file:
            shutil.copyfileobj(packed, file, _PORTION)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
