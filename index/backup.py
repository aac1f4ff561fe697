"""A library in one file: its database and the files that people added. The desk's own documents are their owner's.

Both ways go through SQLite's online backup, so that they work while other processes read and write.
"""

import glob
import hashlib
import io
import json
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
    """The first file of a backup: the SHA-256 of each of the others, by its name in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    documents: int
    files: dict[str, str]


def back_up(store: Store, uploads: Path, target: Path) -> Contents:
    """Writes the library as it is at one moment to `target`, by renaming a finished file; returns what is in it.

    Raises StoreError if the file cannot be written. An added file that is removed meanwhile is left out.
    """
    beside = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    copy = beside.with_name(f"{beside.name}.sqlite")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{glob.escape(target.name)}.*.part*"):
            left.unlink(missing_ok=True)  # of a backup that was killed
        with closing(sqlite3.connect(copy)) as connection:
            store.copy_to(connection)
            connection.execute("PRAGMA journal_mode = DELETE")
            (documents,) = connection.execute("SELECT COUNT(*) FROM documents").fetchone()
            kept = [row[0] for row in connection.execute("SELECT DISTINCT file FROM documents WHERE origin = 'added'")]
        members = {_DATABASE: copy, **{f"uploads/{file}": uploads / file for file in kept}}
        members = {name: path for name, path in members.items() if path.is_file()}
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            files = {}
            for name, path in members.items():
                with path.open("rb") as file:
                    files[name] = hashlib.file_digest(file, "sha256").hexdigest()
                archive.write(path, name)
            contents = Contents(schema_version=SCHEMA_VERSION, documents=documents, files=files)
            archive.writestr(_CONTENTS, contents.model_dump_json(indent=2))
        beside.replace(target)
        return contents
    except OSError as error:
        raise StoreError(f"The backup {target} cannot be written: {error.strerror or error}.") from None
    finally:
        beside.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def restore(database: Path, uploads: Path, source: Path) -> Contents:
    """Puts the library in `source` in place of the one at `database`; the caller holds the writer lock.

    Nothing is touched before every file of the backup has been checked. A database that is too damaged to be written to
    is moved aside. Raises StoreError if the backup is missing, damaged or of another version.
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
        with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
            # Another id: what was derived from the library before must not be taken for this one's.
            connection.execute("UPDATE meta SET value = ? WHERE key = 'library'", (secrets.token_hex(8),))
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
        inside = name == _DATABASE or (parts[0] == "uploads" and len(parts) > 2 and ".." not in parts)
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
