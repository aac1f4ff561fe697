"""Synchronises connectors into their mirror folders. The door to this package: `sync`, `sync_all`, `mirrors`.

It writes files; taking them into the library is a build's work.
"""

import dataclasses
import datetime
import hashlib
import logging
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from desk.connectors import (
    ConfluenceFile,
    Connector,
    DatabaseFile,
    FolderFile,
    GitFile,
    MailboxFile,
    SitemapFile,
    SlackFile,
    WebFile,
)
from desk.errors import DeskError
from desk.settings import IndexSettings
from index.blocks import one_line
from index.connectors.items import ConnectorError, Event, Failed, Found, Same, Source, Unlisted
from index.connectors.mirror import LastRun, Mirror, held, last_run, read_sources, write_last_run
from index.connectors.schedule import is_due

_LOG = logging.getLogger(__name__)
_SCHEDULE_KEYS = {"collection", "every", "max_documents", "max_mb", "max_minutes", "ca_file"}
"""Settings that do not change which documents a connector stands for."""
_KEY_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a run did, in documents. `failures` are (address, reason).

    `complete` is whether the whole source was seen; where it was not, nothing unseen was removed.
    """

    connector: str
    added: int
    changed: int
    removed: int
    unchanged: int
    failures: tuple[tuple[str, str], ...]
    complete: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class MirrorFolder:
    """A connector's documents on disk: `sources` by file name in `folder`, all of them in `collection`."""

    connector: str
    folder: Path
    collection: str
    sources: Mapping[str, Source]
    last: LastRun | None


def mirror_folder(settings: IndexSettings, name: str) -> Path:
    return settings.state / "connectors" / name


def mirrors(settings: IndexSettings) -> list[MirrorFolder]:
    """The mirrors of all connectors of the desk as they are on disk. Reads no network and no source.

    A connector that was never run, or that now stands for another source, has no files.
    """
    found = []
    for connector in settings.connectors:
        folder = mirror_folder(settings, connector.name)
        mark = fingerprint(connector)
        sources, last = read_sources(folder, mark), last_run(folder, mark)
        found.append(MirrorFolder(connector.name, folder, connector.collection, sources, last))
    return found


def sync_all(
    settings: IndexSettings,
    name: str | None = None,
    on_report: Callable[[SyncReport], None] = lambda report: None,
) -> list[SyncReport]:
    """Runs all connectors of the desk, or the one called `name`; deletes mirrors that have no connector any more.

    Raises ConnectorError for an unknown name. A connector that fails is in the reports and keeps no other back.
    """
    chosen = [connector for connector in settings.connectors if name in (None, connector.name)]
    if name is not None and not chosen:
        known = ", ".join(connector.name for connector in settings.connectors) or "none"
        raise ConnectorError(f"desk.yaml has no connector {name!r}; known connectors: {known}.")
    _forget_others(settings)
    return [_reported(settings, connector, on_report) for connector in chosen]


def sync_due(settings: IndexSettings, now: datetime.datetime | None = None) -> list[SyncReport]:
    """Runs the connectors that are due at `now` (UTC, the present by default), one after the other."""
    now = now or datetime.datetime.now(datetime.UTC)
    due = [
        connector
        for connector, mirror in zip(settings.connectors, mirrors(settings), strict=True)
        if is_due(connector.every_s, mirror.last, now)
    ]
    return [_reported(settings, connector, lambda report: None) for connector in due]


def sync(connector: Connector, folder: Path) -> SyncReport:
    """Makes `folder` hold what the connector's source holds, and says what that took.

    A source that cannot be read, or not to its end, is a failure in the report. Raises ConnectorError if the
    folder is another run's at the moment, or holds files that no run wrote.
    """
    started, clock = _now(), time.monotonic()
    with held(folder):
        mark = fingerprint(connector)
        mirror = Mirror(folder, mark)
        before = last_run(folder, mark)
        failed_runs = before.failed_runs + 1 if before else 1
        write_last_run(folder, LastRun(started, mark, failed_runs=failed_runs))
        run = _Run(connector, mirror, clock + connector.max_minutes * 60)
        try:
            run.take(_read(connector, folder, mirror.known(), run.until))
        finally:
            mirror.save()
        report = run.report(time.monotonic() - clock)
        outcome = {key: getattr(report, key) for key in ("added", "changed", "removed", "unchanged")}
        failed_runs = 0 if run.complete else failed_runs
        done = LastRun(started, mark, _now(), run.complete, failed_runs, failures=report.failures, **outcome)
        write_last_run(folder, done)
    _LOG.info(
        "connector %s: %d added, %d changed, %d removed, %d unchanged, %d failures, %s, in %.1f s",
        *(report.connector, report.added, report.changed, report.removed, report.unchanged, len(report.failures)),
        "complete" if report.complete else "not complete",
        report.seconds,
    )
    return report


class _Run:
    """One run: what was seen of the source, and what became of it in the mirror."""

    def __init__(self, connector: Connector, mirror: Mirror, until: float) -> None:
        self.until = until
        self.complete = True
        self._connector = connector
        self._mirror = mirror
        self._before = mirror.known()
        self._seen: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._failures: list[tuple[str, str]] = []

    def take(self, events: Iterator[Event]) -> None:
        """Takes a source's events into the mirror, then drops what is gone, if the whole source was seen."""
        try:
            for event in events:
                self._take(event)
        except (ConnectorError, DeskError) as error:
            self._stopped(str(error))
        except OSError:
            raise
        except Exception as error:
            # The source's own text may be in the message, so only the place is logged.
            place = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("connector %s: %s at\n%s", self._connector.name, type(error).__name__, place)
            self._stopped(f"stopped at something unexpected ({type(error).__name__}); the log says where")
        if self.complete:
            for key in self._before.keys() - self._seen:
                self._mirror.remove(key)
                self._counts["removed"] += 1

    def report(self, seconds: float) -> SyncReport:
        return SyncReport(
            connector=self._connector.name,
            added=self._counts["added"],
            changed=self._counts["changed"],
            removed=self._counts["removed"],
            unchanged=self._counts["unchanged"],
            failures=tuple((one_line(address)[:_KEY_CHARACTERS], one_line(why)) for address, why in self._failures),
            complete=self.complete,
            seconds=seconds,
        )

    def _take(self, event: Event) -> None:
        limits = self._connector
        if time.monotonic() > self.until:
            raise ConnectorError(f"stopped after {limits.max_minutes} minutes: raise max_minutes or narrow the source")
        if isinstance(event, Unlisted):
            self.complete = False
            self._failures.append((event.address, event.reason))
            return
        key = _key(event)
        if isinstance(event, Found) and key in self._seen:
            self._failures.append((event.source.address, "an earlier document of the source has the same key"))
            return
        if len(self._seen) >= limits.max_documents:
            raise ConnectorError(
                f"stopped after {limits.max_documents:,} documents: raise max_documents or narrow the source"
            )
        self._seen.add(key)
        match event:
            case Failed(reason=reason):
                self._failures.append((self._before[key].address if key in self._before else key, reason))
            case Same():
                self._counts["unchanged"] += 1
            case Found(source, suffix, content):
                self._found(dataclasses.replace(source, key=key), suffix, content)

    def _found(self, source: Source, suffix: str, content: bytes) -> None:
        limit_mb = self._connector.max_mb
        if len(content) > limit_mb * 1_000_000:
            self._failures.append(
                (source.address, f"has {len(content) / 1e6:,.1f} MB; the limit is {limit_mb} MB (max_mb)")
            )
        else:
            self._counts[self._mirror.put(Found(source, suffix, content))] += 1

    def _stopped(self, reason: str) -> None:
        self.complete = False
        self._failures.append((self._connector.name, reason))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _key(event: Found | Same | Failed) -> str:
    """The event's key; one that is too long to keep is replaced by its hash."""
    key = event.source.key if isinstance(event, Found) else event.key
    if len(key) <= _KEY_CHARACTERS:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _read(connector: Connector, folder: Path, known: Mapping[str, Source], until: float) -> Iterator[Event]:
    """The events of a connector's source. What a loader needs is imported where it is needed: a start is quick."""
    match connector:
        case DatabaseFile():
            from index.connectors.database import read_database

            return read_database(connector, until)
        case SitemapFile():
            from index.connectors.web import read_sitemap

            return read_sitemap(connector, known, until)
        case WebFile():
            from index.connectors.web import read_pages

            return read_pages(connector, known, until)
        case ConfluenceFile():
            from index.connectors.confluence import read_confluence

            return read_confluence(connector, until)
        case GitFile():
            from index.connectors.git import read_repository

            return read_repository(connector, folder / ".repository", until)
        case MailboxFile():
            from index.connectors.mailbox import read_mailbox

            return read_mailbox(connector)
        case SlackFile():
            from index.connectors.slack import read_slack

            return read_slack(connector)
        case FolderFile():
            from index.connectors.folder import read_folder

            return read_folder(connector, known)


def _reported(settings: IndexSettings, connector: Connector, on_report: Callable[[SyncReport], None]) -> SyncReport:
    try:
        report = sync(connector, mirror_folder(settings, connector.name))
    except (ConnectorError, OSError) as error:
        report = SyncReport(connector.name, 0, 0, 0, 0, ((connector.name, str(error)),), complete=False, seconds=0.0)
    on_report(report)
    return report


def _forget_others(settings: IndexSettings) -> None:
    """Deletes mirrors whose connector is no longer in desk.yaml: what they hold is nobody's business any more."""
    root = mirror_folder(settings, ".").resolve()
    names = {connector.name for connector in settings.connectors}
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in names and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint(connector: Connector) -> str:
    """Follows from what the connector stands for. A mirror of something else must not pass for this one's."""
    identity = connector.model_dump_json(exclude=_SCHEDULE_KEYS)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
