"""A folder elsewhere on disk: its files of readable formats. Links that lead out of it are not followed."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from desk.connectors import FolderFile
from index.connectors.items import ConnectorError, Event, Failed, Found, Same, Source, Unlisted
from index.sources import FORMATS
from index.stated import readable_title


def read_folder(connector: FolderFile, known: Mapping[str, Source]) -> Iterator[Event]:
    """The folder's files in order. A file with the size and time that it had is not read again.

    Raises ConnectorError if the folder itself is not there.
    """
    root = connector.path
    if not root.is_dir():
        raise ConnectorError(f"the folder {root} is not there or may not be read: check path, or whether it is mounted")
    faults: list[OSError] = []
    for where, folders, names in os.walk(root, onerror=faults.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            key = path.relative_to(root).as_posix()
            hidden = name.startswith((".", "~$"))
            if hidden or path.suffix.lower() not in FORMATS or not is_chosen(key, connector.include, connector.exclude):
                continue
            yield from _file(connector, path, key, known.get(key))
    for fault in faults:
        shown = Path(str(fault.filename)).relative_to(root).as_posix()
        yield Unlisted(shown, f"this folder cannot be listed ({fault.strerror}): give the program the right to read it")


def _file(connector: FolderFile, path: Path, key: str, before: Source | None) -> Iterator[Event]:
    try:
        if not path.resolve().is_relative_to(connector.path.resolve()):
            yield Failed(key, "this is a link that leads out of the folder: copy the file instead")
            return
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        if before is not None and before.etag == stamp:
            yield Same(key)
            return
        if status.st_size > connector.max_mb * 1_000_000:
            yield Failed(key, f"has {status.st_size / 1e6:,.1f} MB; the limit is {connector.max_mb} MB (max_mb)")
            return
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:  # Python 3.11 calls a link that leads to itself a RuntimeError
        why = error.strerror if isinstance(error, OSError) else "it is a link in a circle"
        yield Failed(key, f"this file cannot be read ({why})")
        return
    date = datetime.fromtimestamp(status.st_mtime, UTC).date().isoformat()
    address = file_address(connector.address, connector.name, key)
    yield Found(Source(key, address, readable_title(key), date, etag=stamp), path.suffix.lower(), content)


def is_chosen(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether shell patterns choose a path: any of `include` (all if there is none) and none of `exclude`."""
    included = not include or any(fnmatchcase(path, pattern) for pattern in include)
    return included and not any(fnmatchcase(path, pattern) for pattern in exclude)


def file_address(template: str | None, name: str, path: str) -> str:
    """Where people find a file: the owner's address with {path} filled in, or "name: path"."""
    if template is None:
        return f"{name}: {path}"
    return template.replace("{path}", quote(path, errors="surrogateescape"))
