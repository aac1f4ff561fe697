"""Brings a library up to the files of its folders: what is new, changed, moved, gone. Resumes where it was cut off."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from desk.settings import IndexSettings
from index.connectors.sync import mirror_folder, mirrors
from index.document import DESK_COLLECTION
from index.errors import SourceError
from index.intake import Intake, SourceFile
from index.sources import file_hash
from index.store import Store
from index.stored import Entry, Failure, Stored

GROUP_PASSAGES = 256
"""A build hands documents over in groups of about this many passages: each group costs a write of the word index."""
_EMBED_ROWS = 256
MIRRORED = "connectors"
"""What the path of a document begins with that a connector found."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """`done` of `total` files (or passages, while a new model embeds them) are dealt with; `path` is the latest."""

    done: int
    total: int
    path: str
    unit: Literal["file", "passage"] = "file"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, in files; `failures` are (path, reason) of what could not be read."""

    added: int
    changed: int
    moved: int
    removed: int
    unchanged: int
    failures: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Replacement:
    """What takes the place of the documents with ids in `gone`, in one transaction.

    `again`: the same added file, read in a new way; it counts only while all of `gone` is still stored.
    """

    entries: tuple[Entry, ...]
    gone: tuple[str, ...]
    again: bool = False


Put = Callable[[Sequence[Replacement]], None]
Tell = Callable[[BuildProgress], None]


@dataclass(frozen=True, slots=True)
class Folders:
    """The files of a desk and of its connectors' mirrors, and which collection each belongs to."""

    settings: IndexSettings

    def files(self) -> dict[str, SourceFile]:
        """The files by their path: relative to the desk, or `connectors/` and the connector's name in front.

        Hidden files and those that lock others are none of them.
        """
        root = self.settings.documents
        found = {}
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            if path.name.startswith("~$") or any(part.startswith(".") for part in inside.parts) or not path.is_file():
                continue
            # A name that is not UTF-8 is shown as far as it is; reading such a file says so.
            name = f"{root.name}/{inside.as_posix()}".encode("utf-8", "replace").decode()
            found[name] = SourceFile(path, name, name, "desk", self._collection(name), stamp_of(path))
        for mirror in mirrors(self.settings):
            for file, source in sorted(mirror.sources.items()):
                path, name = mirror.folder / file, f"{MIRRORED}/{mirror.connector}/{file}"
                found[name] = SourceFile(
                    *(path, name, name, "desk", mirror.collection, stamp_of(path)),
                    title=source.title,
                    address=source.address,
                    date=source.date,
                )
        return found

    def check(self, known: Mapping[str, object]) -> None:
        """Raises SourceError where the documents folder has gone whose files are stored: a share that is not there."""
        root = self.settings.documents
        if not root.is_dir() and any(file.startswith(f"{root.name}/") for file in known):
            raise SourceError(f"The documents folder {root} is not there: bring it back, or create it empty.")

    def _collection(self, name: str) -> str:
        """That of the innermost folder that is named in desk.yaml, else the one that everyone may read."""
        inside = [
            (len(one.folder), one.name)
            for one in self.settings.collections
            if one.folder is not None and name.startswith(f"{one.folder}/")
        ]
        return max(inside)[1] if inside else DESK_COLLECTION

    def path(self, name: str) -> Path:
        """Where a file of this path is."""
        first, _, rest = name.partition("/")
        if first == MIRRORED:
            connector, _, file = rest.partition("/")
            return mirror_folder(self.settings, connector) / file
        return self.settings.documents.parent / name


class Build:
    """One build. `put` stores and shows replacements; a build that is cut off has put all that it had finished."""

    def __init__(self, store: Store, intake: Intake, folders: Folders, max_bytes: int) -> None:
        self._store = store
        self._intake = intake
        self._folders = folders
        self._max_bytes = max_bytes
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._before: list[Failure] = []
        self._group: list[Replacement] = []

    def run(self, put: Put, uploads: Path, tell: Tell) -> BuildReport:
        started = time.perf_counter()
        files = self._folders.files()
        known = by_file(self._store.stored())
        self._folders.check(known)
        self._before = self._store.failures()
        again = [(file, items) for file, items in known.items() if is_old_upload(items, self._intake.recipe, uploads)]
        total = len(files) + len(again)
        lost = {file: items for file, items in known.items() if items[0].origin == "desk" and file not in files}
        for done, (name, source) in enumerate(files.items(), 1):
            self._take(source, known.get(name, []), lost)
            self._hand_over(put, GROUP_PASSAGES)
            tell(BuildProgress(done, total, name))
        for done, (file, items) in enumerate(again, len(files) + 1):
            item = items[0]
            self._read(SourceFile(uploads / file, item.name, file, "added", item.collection, item.stamp), items)
            self._hand_over(put, GROUP_PASSAGES)
            tell(BuildProgress(done, total, item.name))
        self._hand_over(put, 1)
        if lost:
            put([Replacement((), tuple(item.id for item in items)) for items in lost.values()])
        self._counts["removed"] += len(lost)
        self._store.set_failures(self._failures)
        return BuildReport(
            added=self._counts["added"],
            changed=self._counts["changed"],
            moved=self._counts["moved"],
            removed=self._counts["removed"],
            unchanged=self._counts["unchanged"],
            failures=tuple((failure.path, failure.reason) for failure in self._failures),
            seconds=time.perf_counter() - started,
        )

    def _take(self, source: SourceFile, items: list[Stored], lost: dict[str, list[Stored]]) -> None:
        digest = hash_or_none(source.path)
        if items and is_current(items, digest, source.collection, self._intake.recipe):
            if source.stamp != items[0].stamp:
                self._store.touch(source.file, source.stamp)
            self._failures += [failure for failure in self._before if failure.file == source.file]
            self._counts["unchanged"] += 1
            return
        came = "changed" if items else "added"
        if not items:
            moved = next((file for file, old in lost.items() if old[0].file_hash == digest), None)
            if moved is not None:
                items, came = lost.pop(moved), "moved"
        if self._read(source, items):
            self._counts[came] += 1
        elif items:
            self._counts["removed"] += 1

    def _read(self, source: SourceFile, items: list[Stored]) -> bool:
        """Puts a file into the group; one that cannot be read any more loses what was stored of it."""
        gone = tuple(item.id for item in items)
        again = source.origin == "added"
        try:
            taken = self._intake.read(source, self._max_bytes, items)
        except SourceError as error:
            digest = hash_or_none(source.path) or ""
            self._failures.append(Failure(source.name, source.file, source.stamp, digest, str(error)))
            # What people added is kept as it is: its copy is the only one.
            if gone and not again:
                self._group.append(Replacement((), gone))
            return False
        self._failures += taken.failures
        self._group.append(Replacement(taken.entries, gone, again))
        return True

    def _hand_over(self, put: Put, least: int) -> None:
        size = sum(max(1, len(entry.passages)) for one in self._group for entry in one.entries)
        if self._group and size + len(self._group) >= least:
            put(self._group)
            self._group = []


def embed_missing(store: Store, intake: Intake, model: int, tell: Tell) -> int:
    """Embeds the passages that a model has no vectors of, beside those of other models; how many there were."""
    total, done = store.count_unembedded(model), 0
    while rows := store.unembedded(model, _EMBED_ROWS):
        store.put_vectors(model, intake.embed_rows(rows))
        done += len(rows)
        tell(BuildProgress(done, max(total, done), rows[-1].path, "passage"))
    return done


def by_file(stored: Sequence[Stored]) -> dict[str, list[Stored]]:
    """What is stored, by the file that it was read from."""
    files: dict[str, list[Stored]] = {}
    for item in stored:
        files.setdefault(item.file, []).append(item)
    return files


def is_stale(store: Store, intake: Intake, folders: Folders, uploads: Path) -> bool:
    """Whether a build would change anything. Files with the same size and time are not read."""
    files, known = folders.files(), by_file(store.stored())
    failed = {failure.file: failure for failure in store.failures()}
    added = {file: items for file, items in known.items() if items[0].origin == "added"}
    if any(is_old_upload(items, intake.recipe, uploads) for file, items in added.items() if file not in failed):
        return True
    if (known.keys() | failed.keys()) - added.keys() - files.keys():
        return True
    return any(_differs(source, known.get(name, []), failed.get(name), intake.recipe) for name, source in files.items())


def _differs(source: SourceFile, items: Sequence[Stored], failure: Failure | None, recipe: str) -> bool:
    if items:
        item = items[0]
        if item.recipe != recipe or item.collection != source.collection:
            return True
        return source.stamp != item.stamp and hash_or_none(source.path) != item.file_hash
    if failure is None:
        return True
    return source.stamp != failure.stamp and hash_or_none(source.path) != failure.hash


def is_current(items: Sequence[Stored], digest: str | None, collection: str, recipe: str) -> bool:
    """Whether what is stored of a file is what a build would store."""
    return all((item.file_hash, item.collection, item.recipe) == (digest, collection, recipe) for item in items)


def is_old_upload(items: Sequence[Stored], recipe: str, uploads: Path) -> bool:
    """Whether an added file should be read again from its copy, in a new way."""
    return items[0].origin == "added" and items[0].recipe != recipe and (uploads / items[0].file).is_file()


def stamp_of(path: Path) -> str:
    """Size and time of change of a file: the same for a file that nobody wrote to."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def hash_or_none(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None
