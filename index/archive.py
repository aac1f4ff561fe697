"""Zip files (also Office files and e-books, which are zip files) looked at before anything in them is unpacked."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lxml import etree

from index.errors import SourceError
from index.names import plain_name

MAX_UNPACKED_BYTES = 200_000_000
MAX_TREE_BYTES = 40_000_000
"""Of XML that is held as a tree, which takes about twenty times as much memory. A Word file of 1,000 pages has 10
million; a workbook's sheets and strings are read as they come and do not count."""
MAX_STREAMED_TAGS = 8_000_000
"""In a workbook's sheets and strings: about two million filled cells, which take ten seconds."""
MAX_ENTRIES = 10_000
MAX_RATIO = 200
"""Above these a file is a zip bomb or near enough: ordinary ones unpack to 3 to 20 times their size."""
_RATIO_FROM_BYTES = 5_000_000
"""Below this unpacked size the ratio says nothing: a small sheet of equal rows packs very well."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What documents use. The other methods may ask for gigabytes of memory in a few bytes."""
_SHEET = re.compile(r"xl/worksheets/")
_CONTENTS = "[Content_Types].xml"
_PIECE = 262_144
"""Bytes. A cell has at most 32,767 characters, which take 230,000 where each is escaped."""
_ENDS = {b"<!--": b"-->", b"<?": b"?>"}
"""Where "<" may stand in what is no text and no tag."""
_OPENING = re.compile(rb"<!--|<\?")
_LONGEST = len(b"<!DOCTYPE")
_STRINGS_FACTOR = 8
"""Each shared string becomes an object on the way, in about 30 microseconds."""
_STYLES_FACTOR = 16
"""Each style becomes an object of about a kilobyte, for twelve bytes or more in the file."""
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError)
"""What zipfile raises for archives that are damaged, encrypted, or packed in a way that it does not know."""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def check_document(path: Path, name: str) -> None:
    """Raises SourceError unless `path`, a document of the Office or e-book kind, is a zip file of a sane size."""
    _check_kind(path, name)
    with open_archive(path, name) as archive:
        _check_trees([item for item in archive.infolist() if _is_xml(archive, item)], name)


def _check_kind(path: Path, name: str) -> None:
    with path.open("rb") as file:
        start = file.read(len(_OLE))
    if start == _OLE:
        raise SourceError(
            f"{name} is protected by a password or in the old Office format: save it without a password "
            "as .docx, .xlsx or .pptx and add it again."
        )
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{name} is damaged or not what its name says: open it in its program and save it again.")


def check_workbook(path: Path, name: str) -> None:
    """Raises SourceError unless `path` is a zip file whose sheets, strings and other parts are of a sane size."""
    _check_kind(path, name)
    with open_archive(path, name) as archive:
        parts = [item for item in archive.infolist() if _is_xml(archive, item)]
        strings = {"xl/sharedStrings.xml", *_strings(archive)}
        streamed = {item.filename for item in parts if _SHEET.match(item.filename)} | strings
        tags = 0
        for item in parts:
            found = _tags(archive, item, name)
            if item.filename in streamed:
                tags += found * (_STRINGS_FACTOR if item.filename in strings else 1)
        _check_trees([item for item in parts if item.filename not in streamed], name)
    if tags > MAX_STREAMED_TAGS:
        raise SourceError(
            f"{name} holds more than two million cells or half a million strings: split it, or keep only what is "
            "looked up in it."
        )


def _check_trees(parts: Sequence[zipfile.ZipInfo], name: str) -> None:
    trees = sum(
        item.file_size * (_STYLES_FACTOR if item.filename.lower().endswith("styles.xml") else 1) for item in parts
    )
    if trees > MAX_TREE_BYTES:
        raise SourceError(
            f"{name} holds more than {MAX_TREE_BYTES / 1e6:,.0f} MB of XML: split it or save it as text or PDF."
        )


def _is_xml(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bool:
    """Whether a part could be XML by how it begins: what it is read as is said elsewhere, not by its name."""
    try:
        with archive.open(item) as part:
            start = part.read(64)
    except DAMAGED:
        return False  # what is wrong with it is said by whoever reads it
    return start.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1] in (b"", b"<", b"\x4c")


def _strings(archive: zipfile.ZipFile) -> set[str]:
    """The parts that a workbook's table of contents calls shared strings."""
    try:
        if archive.getinfo(_CONTENTS).file_size > MAX_TREE_BYTES:
            return set()
        root = etree.fromstring(archive.read(_CONTENTS), etree.XMLParser(resolve_entities=False, no_network=True))
    except (KeyError, etree.XMLSyntaxError, *DAMAGED):
        return set()  # what is wrong with it is said by whoever reads it
    named = (entry for entry in root.iter() if "sharedStrings" in str(entry.get("ContentType")))
    return {str(entry.get("PartName")).lstrip("/") for entry in named}


def _tags(archive: zipfile.ZipFile, item: zipfile.ZipInfo, name: str) -> int:
    """How many tags a part has, read in pieces: a parser takes a hundred times as long to find out.

    Raises SourceError for a tag, comment or instruction that does not end for a whole piece (expat before 2.6 begins
    with it again for every 16 kB that it is given), and for what Office files must not hold: other encodings than
    those with ASCII in them, and declarations.
    """
    count = 0
    inside = rest = b""
    try:
        with archive.open(item) as part:
            while piece := part.read(_PIECE):
                count += piece.count(b"<") - piece.count(b"</")
                data = rest + piece
                endless = len(piece) == _PIECE and (inside or b"<") not in data
                if endless or b"\0" in piece or b"<!DOCTYPE" in data:
                    raise SourceError(f"{name} seems damaged (in {item.filename}): open it and save it again.")
                inside, rest = _open_at_end(data, inside)
    except DAMAGED:
        return 0  # what is wrong with it is said by whoever reads it
    return count


def _open_at_end(data: bytes, inside: bytes) -> tuple[bytes, bytes]:
    """What ends the comment or instruction in which a piece ends (b"" for none), and the bytes at its end that may
    begin such a thing, or end it. `inside` is what ends the one in which it begins."""
    at = 0
    while True:
        if inside:
            end = data.find(inside, at)
            if end < 0:
                return inside, data[at:][-2:]
            at = end + len(inside)
        opening = _OPENING.search(data, at)
        if opening is None:
            return b"", data[at:][1 - _LONGEST :]
        inside, at = _ENDS[opening.group()], opening.end()


def open_archive(path: Path, name: str) -> zipfile.ZipFile:
    """The opened archive. Raises SourceError for one that is damaged or not safe to unpack.

    Sizes are those that the archive states; reading stops at them, so that a false one cannot unpack to more.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED:
        raise SourceError(f"{name} is damaged or no zip archive: pack it again.") from None
    try:
        _check(archive, path.stat().st_size, name)
    except SourceError:
        archive.close()
        raise
    return archive


def _check(archive: zipfile.ZipFile, packed: int, name: str) -> None:
    items = archive.infolist()
    if len(items) > MAX_ENTRIES:
        raise SourceError(f"{name} holds {len(items):,} files; the limit is {MAX_ENTRIES:,}: split it.")
    unpacked = sum(item.file_size for item in items)
    ratio = unpacked / max(1, packed)
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > _RATIO_FROM_BYTES and ratio > MAX_RATIO):
        raise SourceError(
            f"{name} unpacks to {unpacked / 1e6:,.0f} MB, which is not safe to open: split it or save it as "
            "text or PDF."
        )
    if any(item.compress_type not in _METHODS for item in items):
        raise SourceError(f"{name} is packed by an unusual method: pack it again as an ordinary zip file.")


def member_names(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by a plain relative name, in the archive's order; folders and hidden files left out.

    A name leads nowhere else, whatever the archive says: no drives, no "..", no characters that nobody can see.
    Of files whose plain names are the same, the second is called "name (2)" and so on.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    numbers: dict[str, int] = {}
    for item in archive.infolist():
        plain = plain_name(item.filename)
        hidden = any(part.startswith((".", "~$", "__MACOSX")) for part in plain.split("/"))
        if item.is_dir() or not plain or hidden:
            continue
        name, number = plain, numbers.get(plain, 1)
        while name in found:
            number += 1
            stem, dot, suffix = plain.rpartition(".")
            name = f"{stem} ({number}).{suffix}" if dot else f"{plain} ({number})"
        numbers[plain] = number
        found[name] = item
    return found


def unpack(archive: zipfile.ZipFile, item: zipfile.ZipInfo, name: str, folder: Path) -> Path:
    """A member as a file in `folder`, under a name that only its suffix decides. Raises SourceError if it is
    protected by a password, damaged, or only a link."""
    if item.flag_bits & 1:
        raise SourceError(f"{name} is protected by a password: pack it without one.")
    if stat.S_ISLNK(item.external_attr >> 16):
        raise SourceError(f"{name} is a link to another file: pack that one instead.")
    suffix = re.sub(r"[^.\w]", "", PurePosixPath(name).suffix.lower(), flags=re.ASCII)[:20]
    file = folder / f"member{len(list(folder.iterdir()))}{suffix}"
    try:
        with archive.open(item) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
    except DAMAGED:
        file.unlink(missing_ok=True)
        raise SourceError(f"{name} is damaged in the archive: pack it again.") from None
    return file


def member_file(path: Path, inner: str, folder: Path) -> Path:
    """The original of a document that was read from the archive `path`, unpacked into `folder`.

    `inner` is the document's path behind the archive's ("it/a.md", or "more.zip/it/a.md" for an archive in the
    archive). Raises SourceError if it is not there any more.
    """
    with open_archive(path, path.name) as archive:
        for name, item in member_names(archive).items():
            if name == inner:
                return unpack(archive, item, name, folder)
            if name.lower().endswith(".zip") and inner.startswith(f"{name}/"):
                return member_file(unpack(archive, item, name, folder), inner[len(name) + 1 :], folder)
    raise SourceError(f"{path.name} no longer holds {inner}: add the archive again.")
