"""The zip file of a Slack export: a document per thread, and one per channel and day for what stands alone.

Public channels only, unless the owner names others: an export may hold private channels and direct messages.
The zip file is read in place; nothing is unpacked to disk.
"""

import html
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from desk.connectors import SlackFile
from index.archive import DAMAGED
from index.blocks import one_line
from index.connectors.items import ConnectorError, Event, Found, Source, Unlisted
from index.connectors.page import html_page, paragraphs

_FILE_BYTES = 100_000_000
_CHANNEL_BYTES = 200_000_000
"""Of a channel's days together, of which what people wrote is held at once. A message has about a kilobyte."""
_KINDS = (None, "thread_broadcast", "file_share", "me_message")
"""Subtypes of what people wrote; the others are joins, renames, bots' messages and the like."""
_DAY = re.compile(r"([^/]+)/(\d{4}-\d{2}-\d{2})\.json")
_MARK = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")
_STAMP = re.compile(r"\d{1,10}\.\d{1,9}")
"""Seconds since 1970, up to the year 2286."""


def read_slack(connector: SlackFile) -> Iterator[Event]:
    """The chosen channels' conversations. A channel with a day that cannot be read is left as it is mirrored.

    Raises ConnectorError if the file is not there, is no zip file, or is no export.
    """
    try:
        with zipfile.ZipFile(connector.path) as export:
            yield from _channels(connector, export)
    except OSError as error:
        raise ConnectorError(f"the export {connector.path} cannot be read ({error.strerror}): check path") from None
    except zipfile.BadZipFile:
        raise ConnectorError(f"{connector.path} is no zip file, or a damaged one: export it again") from None


def _channels(connector: SlackFile, export: zipfile.ZipFile) -> Iterator[Event]:
    try:
        public = {str(row["name"]): str(row["id"]) for row in _rows(export, "channels.json")}
        people = {str(row["id"]): _name(row) for row in _rows(export, "users.json")}
    except (ConnectorError, KeyError, TypeError) as error:
        raise ConnectorError(f"{connector.path} is no Slack export: channels.json or users.json: {error}") from None
    chosen = set(connector.channels) or set(public)
    days: dict[str, list[str]] = defaultdict(list)
    for name in export.namelist():
        found = _DAY.fullmatch(name)
        if found and found.group(1) in chosen:
            days[found.group(1)].append(name)
    for channel in sorted(chosen - set(days) - set(public)):
        yield Unlisted(channel, "the export has no channel of this name: correct channels")
    for channel, names in sorted(days.items()):
        if sum(export.getinfo(name).file_size for name in names) > _CHANNEL_BYTES:
            yield Unlisted(channel, f"this channel has more than {_CHANNEL_BYTES / 1e6:.0f} MB and is left as it is")
            continue
        try:
            written = [row for name in sorted(names) for row in _rows(export, name) if _is_written(row)]
        except ConnectorError as error:
            yield Unlisted(channel, f"this channel is left as it is mirrored: {error}")
            continue
        yield from _conversations(connector, channel, public.get(channel, ""), written, people)


def _rows(export: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    """The objects in a JSON file of the export. Raises ConnectorError for a damaged or huge one."""
    try:
        if export.getinfo(name).file_size > _FILE_BYTES:
            raise ConnectorError(f"{name} is larger than {_FILE_BYTES / 1e6:.0f} MB")
        rows = json.loads(export.read(name))
    except KeyError:
        raise ConnectorError(f"{name} is missing") from None
    except (RecursionError, *DAMAGED):
        raise ConnectorError(f"{name} is damaged or encrypted") from None
    if not isinstance(rows, list):
        raise ConnectorError(f"{name} does not hold a list")
    return [row for row in rows if isinstance(row, dict)]


def _name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile")
    names = [profile.get("display_name"), profile.get("real_name")] if isinstance(profile, dict) else []
    return one_line(str(next(filter(None, [*names, user.get("real_name"), user.get("name")]), "somebody")))


def _conversations(
    connector: SlackFile, channel: str, channel_id: str, written: list[dict[str, Any]], people: Mapping[str, str]
) -> Iterator[Event]:
    """A channel's documents: threads with a reply by their first message's time, the rest by day (UTC)."""
    threads = {
        str(message["thread_ts"]) for message in written if message.get("thread_ts", message["ts"]) != message["ts"]
    }
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in sorted(written, key=lambda message: float(message["ts"])):
        stamp = str(message.get("thread_ts") or message["ts"])
        groups[stamp if stamp in threads else _date(message)].append(message)
    for key, group in groups.items():
        date = _date(group[-1])
        first = _plain(str(group[0]["text"]), people)
        opening = one_line(first)[:80].strip()
        title = f"#{channel}: {opening}" if key in threads else f"#{channel}, {date}"
        lines = [f"{_author(message, people)}: {_plain(str(message['text']), people)}" for message in group]
        body = "\n".join(paragraphs(line) for line in lines)
        address = _address(connector, channel, channel_id, str(group[0]["ts"]))
        yield Found(Source(f"{channel}/{key}", address, title, date), ".html", html_page(title, body))


def _is_written(message: Mapping[str, Any]) -> bool:
    stamps = [message.get("ts"), message.get("thread_ts") or message.get("ts")]
    return (
        message.get("type") == "message"
        and message.get("subtype") in _KINDS
        and isinstance(message.get("text"), str)
        and bool(message["text"].strip())
        and all(isinstance(stamp, str) and _STAMP.fullmatch(stamp) for stamp in stamps)
    )


def _author(message: Mapping[str, Any], people: Mapping[str, str]) -> str:
    return people.get(str(message.get("user")), "somebody")


def _plain(text: str, people: Mapping[str, str]) -> str:
    """A message's words: mentions as names, links as their label and address, Slack's own escapes undone."""

    def shown(mark: re.Match[str]) -> str:
        target, label = mark.group(1), mark.group(2)
        if target.startswith("@"):
            return "@" + people.get(target[1:], label or "somebody")
        if target.startswith("#"):
            return "#" + (label or "channel")
        if target.startswith("!"):
            return "@" + (label or target[1:].split("^")[0]).lstrip("@")
        target = target.removeprefix("mailto:")
        return f"{label} ({target})" if label and label != target else target

    return html.unescape(_MARK.sub(shown, text))


def _date(message: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(float(message["ts"]), UTC).date().isoformat()


def _address(connector: SlackFile, channel: str, channel_id: str, stamp: str) -> str:
    if connector.workspace is None or not re.fullmatch(r"[A-Z0-9]{1,30}", channel_id):
        return f"#{channel}, {datetime.fromtimestamp(float(stamp), UTC):%Y-%m-%d %H:%M} UTC"
    return f"{connector.workspace.rstrip('/')}/archives/{channel_id}/p{stamp.replace('.', '')}"
