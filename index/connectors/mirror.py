"""One connector's folder: documents as plain files, sources.json that says where each came from, the last run.

Every file is written beside and renamed, so a run that is killed leaves a usable mirror. Knows nothing of loaders.
"""

import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.blocks import one_line
from index.connectors.items import ConnectorError, Found, Source

SOURCES = "sources.json"
_LAST_RUN = ".last-run.json"
_PARTIAL = ".partial-"
_VERSION = 1
_SAVE_EVERY_S = 1.0
"""A killed run loses at most the addresses of the files written this long before; the next run restores them."""
_FAILURES_KEPT = 100
_TEXT = 2000
"""No title or address is longer, in characters: they come from outside and are shown."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the latest run went. Times are UTC in ISO form; `finished` is None if it is running or was killed.

    `fingerprint` is of the connector as it was then, `complete` whether the whole source was seen, `failed_runs`
    how many runs in a row up to this one did not; `failures` are (address, reason), the first hundred.
    """

    started: str
    fingerprint: str
    finished: str | None = None
    complete: bool = False
    failed_runs: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    failures: tuple[tuple[str, str], ...] = ()


def file_name(key: str, suffix: str) -> str:
    """A safe file name that follows from `key` alone: its readable end and 80 bits of its SHA-256.

    Letters a to z, digits and hyphens only, at most 80 characters, whatever `key` holds.
    """
    plain = unicodedata.normalize("NFKD", key.split("?")[0].rstrip("/")).encode("ascii", "ignore").decode()
    tail = plain.replace("\\", "/").rsplit("/", 1)[-1]
    stem = tail.rsplit(".", 1)[0] if re.search(r"\.[A-Za-z]{2,5}$", tail) else tail
    words = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:48].strip("-")
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:20]
    return f"{words}-{digest}{suffix}" if words else f"{digest}{suffix}"


class Mirror:
    """A mirror folder that one run has to itself. Raises ConnectorError for a folder of other files."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        if not (folder / SOURCES).exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ConnectorError(f"{folder} holds files but mirrors nothing: give a folder that is empty or new.")
        self._folder = folder
        self._fingerprint = fingerprint
        self._files = read_sources(folder, fingerprint)
        self._names = {source.key: name for name, source in self._files.items()}
        self._clear_strangers()
        self.save()

    def known(self) -> dict[str, Source]:
        """The documents whose files are there, by key."""
        return {source.key: source for source in self._files.values()}

    def put(self, found: Found) -> str:
        """Writes a document if its content differs from its file. Returns "added", "changed" or "unchanged"."""
        source = dataclasses.replace(
            found.source,
            address=one_line(found.source.address)[:_TEXT],
            title=one_line(found.source.title)[:_TEXT],
        )
        name = file_name(source.key, found.suffix)
        before = self._names.get(source.key)
        path = self._folder / name
        if before == name and path.read_bytes() == found.content:
            outcome = "unchanged"
        else:
            write_whole(path, found.content)
            outcome = "changed" if before else "added"
        self._files[name] = source
        self._names[source.key] = name
        if before and before != name:
            self._files.pop(before, None)
            (self._folder / before).unlink(missing_ok=True)
        self._save_now_and_then()
        return outcome

    def remove(self, key: str) -> None:
        name = self._names.pop(key)
        (self._folder / name).unlink(missing_ok=True)
        self._files.pop(name, None)
        self._save_now_and_then()

    def save(self) -> None:
        files = {name: dataclasses.asdict(source) for name, source in sorted(self._files.items())}
        _write_json(self._folder / SOURCES, {"version": _VERSION, "fingerprint": self._fingerprint, "files": files})
        self._saved = time.monotonic()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def _clear_strangers(self) -> None:
        """Deletes what sources.json does not name: the rest of a killed run, or of another source."""
        for path in self._folder.iterdir():
            kept = path.name in self._files or path.name in (SOURCES, _LAST_RUN) or not path.is_file()
            if not kept and (not path.name.startswith(".") or path.name.startswith(_PARTIAL)):
                path.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it against other runs. Raises ConnectorError if one is going on."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConnectorError(
                f"The connector {folder.name} is being synchronised by another process: wait for it to end."
            ) from None
        yield


def read_sources(folder: Path, fingerprint: str) -> dict[str, Source]:
    """The mirrored files by name, those that exist; none if the folder mirrors another source.

    A damaged sources.json counts as none: the next run writes it anew.
    """
    try:
        stored = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        if stored["version"] != _VERSION or stored["fingerprint"] != fingerprint:
            return {}
        files = {str(name): Source(**source) for name, source in stored["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: source for name, source in files.items() if Path(name).name == name and (folder / name).is_file()}


def last_run(folder: Path, fingerprint: str) -> LastRun | None:
    """How the latest run of this connector went; None if there was none or its record is damaged."""
    try:
        stored = json.loads((folder / _LAST_RUN).read_text(encoding="utf-8"))
        failures = tuple((str(address), str(reason)) for address, reason in stored.pop("failures"))
        run = LastRun(**stored, failures=failures)
        if run.fingerprint != fingerprint or datetime.datetime.fromisoformat(run.started).tzinfo is None:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return run


def write_last_run(folder: Path, run: LastRun) -> None:
    run = dataclasses.replace(run, failures=run.failures[:_FAILURES_KEPT])
    _write_json(folder / _LAST_RUN, dataclasses.asdict(run))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, json.dumps(value, ensure_ascii=True, indent=1).encode())
