"""Zip files (also Office files and e-books, which are zip files) looked at before anything in them is unpacked."""

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

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
_STREAMED = re.compile(r"xl/(worksheets/|sharedStrings\.xml)")
_STRINGS_FACTOR = 8
"""Each shared string becomes an object on the way, in about 30 microseconds."""
_STYLES_FACTOR = 16
"""Each style becomes an object of about a kilobyte, for twelve bytes or more in the file."""
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError)
"""What zipfile raises for archives that are damaged, encrypted, or packed in a way that it does not know."""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def check_document(path: Path, name: str) -> None:
    """Raises SourceError unless `path`, a document of the Office or e-book kind, is a zip file of a sane size."""
    with path.open("rb") as file:
        start = file.read(len(_OLE))
    if start == _OLE:
        raise SourceError(
            f"{name} is protected by a password or in the old Office format: save it without a password "
            "as .docx, .xlsx or .pptx and add it again."
        )
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{name} is damaged or not what its name says: open it in its program and save it again.")
    with open_archive(path, name) as archive:
        tags = sum(
            _tags(archive, item) * (_STRINGS_FACTOR if "sharedStrings" in item.filename else 1)
            for item in archive.infolist()
            if _STREAMED.match(item.filename)
        )
        trees = sum(
            item.file_size * (_STYLES_FACTOR if item.filename.lower().endswith("styles.xml") else 1)
            for item in archive.infolist()
            if item.filename.lower().endswith((".xml", ".rels")) and not _STREAMED.match(item.filename)
        )
    if tags > MAX_STREAMED_TAGS:
        raise SourceError(
            f"{name} holds more than two million cells or half a million strings: split it, or keep only what is "
            "looked up in it."
        )
    if trees > MAX_TREE_BYTES:
        raise SourceError(
            f"{name} holds more than {MAX_TREE_BYTES / 1e6:,.0f} MB of XML: split it or save it as text or PDF."
        )


def _tags(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> int:
    """How many tags a part has, read in pieces: a parser takes a hundred times as long to find out."""
    count = 0
    try:
        with archive.open(item) as part:
            while piece := part.read(1_000_000):
                count += piece.count(b"<") - piece.count(b"</")
    except DAMAGED:
        return 0  # what is wrong with it is said by whoever reads it
    return count


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
    for item in archive.infolist():
        plain = plain_name(item.filename)
        hidden = any(part.startswith((".", "~$", "__MACOSX")) for part in plain.split("/"))
        if item.is_dir() or not plain or hidden:
            continue
        name, number = plain, 1
        while name in found:
            number += 1
            stem, dot, suffix = plain.rpartition(".")
            name = f"{stem} ({number}).{suffix}" if dot else f"{plain} ({number})"
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
