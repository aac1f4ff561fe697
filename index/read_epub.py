"""E-books (EPUB) to blocks of plain text: their pages in reading order, by the HTML reader."""

import posixpath
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lxml import etree

from index.archive import open_archive
from index.blocks import TextAssembler, one_line
from index.errors import LimitError, SourceError
from index.read_html import read_html
from index.read_text import decode

MAX_TEXT_BYTES = 40_000_000
"""Of all pages together: a novel has half a million."""
MAX_PACKAGE_BYTES = 5_000_000
"""Of the list of a book's files, which is held as a tree; of 10,000 entries it has one million."""
MAX_MARKS = 1_000_000
"""Tags at whose start or end "<" stands; they take the parser about 15 microseconds each."""
_CONTAINER = "META-INF/container.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml"})


def read_epub(path: Path, name: str, into: TextAssembler) -> str | None:
    """Appends a book's pages to `into` in the order of its spine; returns its title.

    Raises SourceError for a file that is no EPUB or that is locked to a reading device.
    """
    with open_archive(path, name) as archive:
        package_path = _package_path(archive, name)
        package = _xml(archive, package_path, name)
        pages = _spine(package, posixpath.dirname(package_path))
        members = {item.filename: item for item in archive.infolist()}
        if _locked(archive, members, pages):
            raise SourceError(f"{name} is locked to a reading device (DRM): add a copy that is not.")
        if sum(members[page].file_size for page in pages if page in members) > MAX_TEXT_BYTES:
            raise LimitError(f"holds more than {MAX_TEXT_BYTES / 1e6:.0f} MB of text: split it.")
        missing = [page for page in pages if page not in members]
        marks = 0
        for page in pages:
            if page in members:
                source = decode(archive.read(page), f"{name}/{page}")
                marks += source.count("<")
                if marks > MAX_MARKS:
                    raise LimitError(f"has more than {MAX_MARKS:,} tags: split it.")
                read_html(source, into)
    if missing:
        into.notes.append(f"{len(missing)} pages that the book lists are not in it: {', '.join(missing[:5])}.")
    titles = _named(package, "title")
    return one_line("".join(titles[0].itertext())) or None if titles else None


def _package_path(archive: zipfile.ZipFile, name: str) -> str:
    for entry in _named(_xml(archive, _CONTAINER, name), "rootfile"):
        if entry.get("full-path"):
            return str(entry.get("full-path"))
    raise SourceError(f"{name} does not say where its pages are listed: convert it to EPUB again.")


def _spine(package: Any, folder: str) -> list[str]:
    """The paths in the archive of the book's pages in reading order, its table of contents left out."""
    manifest = {str(entry.get("id")): entry for entry in _named(package, "item")}
    pages: list[str] = []
    for entry in _named(package, "itemref"):
        item = manifest.get(str(entry.get("idref")))
        if item is None or item.get("media-type") not in _PAGES or "nav" in (item.get("properties") or "").split():
            continue
        pages.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or "").split("#")[0])))
    return list(dict.fromkeys(pages))


def _locked(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], pages: list[str]) -> bool:
    """Whether pages are encrypted; fonts often are, which does not matter."""
    if any(members[page].flag_bits & 1 for page in pages if page in members):
        return True
    if "META-INF/encryption.xml" not in members:
        return False
    entries = _named(_xml(archive, "META-INF/encryption.xml", ""), "CipherReference")
    return bool({unquote(entry.get("URI") or "") for entry in entries} & set(pages))


def _xml(archive: zipfile.ZipFile, member: str, name: str) -> Any:
    """The root of an XML file in the archive; entities are not expanded and nothing else is loaded."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        if archive.getinfo(member).file_size > MAX_PACKAGE_BYTES:
            raise LimitError(f"lists its pages in more than {MAX_PACKAGE_BYTES / 1e6:.0f} MB: split it.")
        return etree.fromstring(archive.read(member), parser)
    except (KeyError, etree.XMLSyntaxError):
        raise SourceError(f"{name} is damaged or no EPUB ({member} cannot be read): convert it again.") from None


def _named(root: Any, tag: str) -> list[Any]:
    """The elements with this name in any namespace, in document order."""
    return list(root.iter(f"{{*}}{tag}"))
