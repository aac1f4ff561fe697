"""What a source tells about its documents while it is read, and the error of one that cannot be.

Every loader is a generator of these events; mirror.py turns them into files.
"""

from dataclasses import dataclass

from index.errors import LibraryError


class ConnectorError(LibraryError):
    """A source cannot be read, or not to its end: which, why, what to do. Holds no secret."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mirrored file came from.

    `key` identifies the document in its source from run to run, `address` is what people read: a URL where
    there is one. `date` is ISO. `etag` and `modified` are whatever lets the source say "unchanged".
    """

    key: str
    address: str
    title: str
    date: str | None = None
    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A document with its content; `suffix` (".html") is one that the library reads."""

    source: Source
    suffix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Same:
    """The document `key` is as it was when it was mirrored."""

    key: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The document `key` is there but could not be read this time: what is mirrored of it stays."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A part of the source could not be listed: nothing that was not seen may be taken for gone."""

    address: str
    reason: str


Event = Found | Same | Failed | Unlisted
