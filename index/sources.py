"""Files to documents: which reader takes a file, what is wrong with one, its title and the date it states.

The readers are in read_*.py; where documents are stored is store.py's business.
"""

import datetime
import hashlib
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from index.blocks import TextAssembler, clean
from index.document import DESK_COLLECTION, Document
from index.errors import SourceError
from index.read_html import read_html
from index.read_markdown import read_markdown
from index.read_office import check_office, read_docx, read_xlsx
from index.read_pdf import read_pdf
from index.read_table import read_csv

READERS_VERSION = 1
"""Raised when a reader's text changes: stored documents are then read again by the next build."""
MAX_CHARACTERS = 20_000_000
"""More text than this in one source would take hours to embed on a processor."""

FORMATS = {
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
    ".csv": "csv",
    ".txt": "txt",
}
"""Suffix to format of every file that can be read."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = (
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\s+(?P<month>[A-Za-z]{3,9})\.?,?\s+(?P<year>\d{4})"
    r"|(?P<month2>[A-Za-z]{3,9})\.?\s+(?P<day2>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year2>\d{4})"
    r"|(?P<iso>\d{4}-\d{2}-\d{2})"
)
_STATED = (
    r"(?:last\s+)?(?:reviewed|updated|modified|changed|revised)(?:\s+on)?\s*:?\s*",
    r"(?:applied|valid|in force)\s+until\s*:?\s*",
)
_OUTDATED = re.compile(
    r"^(?:note:\s*)?(?:out of date|outdated|superseded|obsolete|archived|withdrawn|expired|"
    r"no longer (?:valid|in force))\b"
    r"|\b(?:this|the present)\s+(?:\w+\s+){1,3}?(?:applied until|(?:has been|is|was|have been|are)\s+"
    r"(?:\w+\s+)?(?:superseded|replaced|withdrawn|obsolete|archived|out of date|outdated|"
    r"no longer (?:valid|in force|current|in use|maintained))|no longer applies|does not apply any ?more)",
    re.IGNORECASE | re.MULTILINE,
)
_OUTDATED_TITLE = re.compile(r"\b(?:superseded|obsolete|outdated|archived|withdrawn|out of date)\b", re.IGNORECASE)
_HEAD_CHARACTERS = 800
"""How much of a text counts as its head: what stands further down is about something else."""


def document_id(name: str, collection: str) -> str:
    """16 hex digits that follow from the path for the desk's own documents; 32 random ones for others."""
    if collection == DESK_COLLECTION:
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return secrets.token_hex(16)


def load_source(path: Path, *, name: str, collection: str, max_bytes: int) -> Document:
    """The document in the file `path`, called `name` in messages and in its `path` field.

    Raises SourceError with one sentence that says what is wrong, with which file, and what to do.
    """
    data_format = check_source(path, name, max_bytes)
    into = TextAssembler()
    try:
        stated = _READERS[data_format](path, name, into)
    except SourceError:
        raise
    except RecursionError:
        raise SourceError(f"{name} is nested too deeply to be read: save it in a simpler form.") from None
    except Exception as error:
        raise SourceError(
            f"{name} cannot be read as {data_format} and seems damaged ({type(error).__name__}): open it in "
            "its own program and save it again."
        ) from error
    text = into.text
    if not text:
        hint = (
            "it seems to be scanned, so run text recognition (OCR) on it first"
            if data_format == "pdf"
            else "add a file that holds some"
        )
        raise SourceError(f"{name} has no text in it: {hint}.")
    if len(text) > MAX_CHARACTERS:
        raise SourceError(f"{name} holds {len(text):,} characters; the limit is {MAX_CHARACTERS:,}: split it.")
    title = _title(into, stated, name, data_format)
    return Document(
        id=document_id(name, collection),
        path=name,
        title=title,
        format=data_format,
        text=text,
        content_hash=file_hash(path),
        collection=collection,
        blocks=tuple(into.blocks),
        updated=stated_date(text),
        outdated=says_outdated(title, text),
    )


def check_source(path: Path, name: str, max_bytes: int) -> str:
    """The format of a file that may be read. Raises SourceError for one that may not, before opening it."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise SourceError(f"{name} {what}: check the path ({path}).")
    suffix = Path(name).suffix.lower() or path.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise SourceError(f"{name} has the unsupported format {suffix or '(none)'}: use one of {known}.")
    size = path.stat().st_size
    if size == 0:
        raise SourceError(f"{name} is empty (0 bytes): save or upload it again.")
    if size > max_bytes:
        raise SourceError(
            f"{name} has {size / 1e6:,.1f} MB; the limit is {max_bytes / 1e6:,.1f} MB: split it, or raise "
            "limits.upload_mb in desk.yaml."
        )
    return FORMATS[suffix]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable_title(name: str) -> str:
    """A title from a file's name: "meeting-rooms_2026.csv" becomes "Meeting rooms 2026"."""
    words = " ".join(re.split(r"[-_\s]+", Path(name).stem)).strip()
    return words[:1].upper() + words[1:] if words else name


def stated_date(text: str) -> str | None:
    """The ISO date of the line that says when a text was last reviewed, or until when it applied."""
    for opening in _STATED:
        for found in re.finditer(rf"\b{opening}(?:{_DATE})", text, re.IGNORECASE):
            date = _date(found)
            if date is not None:
                return date
    return None


def _date(found: re.Match[str]) -> str | None:
    parts = found.groupdict()
    try:
        if parts["iso"]:
            return datetime.date.fromisoformat(parts["iso"]).isoformat()
        month = (parts["month"] or parts["month2"]).lower()
        number = _MONTHS.index(month[:3]) + 1
        return datetime.date(
            int(parts["year"] or parts["year2"]), number, int(parts["day"] or parts["day2"])
        ).isoformat()
    except ValueError:
        return None


def says_outdated(title: str, text: str) -> bool:
    """Whether a text says in its title or at its head that it no longer applies."""
    return bool(_OUTDATED_TITLE.search(title) or _OUTDATED.search(text[:_HEAD_CHARACTERS]))


def _title(into: TextAssembler, stated: str | None, name: str, data_format: str) -> str:
    """The first heading of depth 1, else the title that the file states, else its first heading or its name.

    A table's first line is no title, whatever it looks like.
    """
    if data_format in ("xlsx", "csv"):
        return stated or readable_title(name)
    headings = [block for block in into.blocks if block.kind == "heading"]
    first = next((block for block in headings if block.level == 1), None)
    if first is None and stated:
        return stated
    first = first or (headings[0] if headings else None)
    return into.text[first.start : first.end] if first else readable_title(name)


def decode(data: bytes, name: str) -> str:
    """The text of a file in UTF-8, UTF-16 with its mark, or Windows-1252. Raises SourceError for others."""
    encodings = ["utf-16"] if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        controls = sum(text.count(chr(code)) for code in (*range(0, 9), *range(14, 32)))
        if controls <= max(1, len(text) // 1000):
            return clean(text)
    raise SourceError(f"{name} is not text in a known encoding: save it as UTF-8.")


def _read_txt(source: str, into: TextAssembler) -> None:
    """Paragraphs are parted by empty lines; lines that wrap are joined, those of a list or a form are not."""
    for part in re.split(r"\n[ \t]*\n", source):
        lines = [line for line in part.split("\n") if line.strip()]
        item = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s+\S")
        if sum(bool(item.match(line)) for line in lines) >= max(2, len(lines) / 2):
            into.add("list", "\n".join(lines))
        elif len(lines) > 1 and all(len(line) >= 50 for line in lines[:-1]):
            into.add("paragraph", " ".join(line.strip() for line in lines))
        else:
            into.add("paragraph", "\n".join(lines))


_Reader = Callable[[Path, str, TextAssembler], str | None]


def _md(path: Path, name: str, into: TextAssembler) -> str | None:
    return read_markdown(decode(path.read_bytes(), name), into)


def _html(path: Path, name: str, into: TextAssembler) -> str | None:
    return read_html(decode(path.read_bytes(), name), into)


def _csv(path: Path, name: str, into: TextAssembler) -> None:
    read_csv(decode(path.read_bytes(), name), into)


def _txt(path: Path, name: str, into: TextAssembler) -> None:
    _read_txt(decode(path.read_bytes(), name), into)


def _docx(path: Path, name: str, into: TextAssembler) -> str | None:
    check_office(path, name)
    return read_docx(path, into)


def _xlsx(path: Path, name: str, into: TextAssembler) -> str | None:
    check_office(path, name)
    return read_xlsx(path, into)


_READERS: dict[str, _Reader] = {
    "md": _md,
    "html": _html,
    "pdf": read_pdf,
    "docx": _docx,
    "xlsx": _xlsx,
    "csv": _csv,
    "txt": _txt,
}
