"""Files to documents: which reader takes a file, what is wrong with one, which documents an archive holds.

The readers are in read_*.py; where documents are stored is store.py's business.
"""

import hashlib
import secrets
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from index.archive import check_document, check_workbook, member_names, open_archive, unpack
from index.blocks import MAX_HEADING_CHARACTERS, TextAssembler
from index.document import DESK_COLLECTION, Document
from index.errors import LimitError, SourceError
from index.read_email import read_email
from index.read_epub import read_epub
from index.read_html import read_html
from index.read_json import read_json, read_jsonl
from index.read_markdown import read_markdown
from index.read_office import read_docx, read_xlsx
from index.read_pdf import read_pdf
from index.read_slides import read_pptx
from index.read_table import read_csv
from index.read_text import decode, read_text
from index.stated import readable_title, says_outdated, stated_date

READERS_VERSION = 3
"""Raised when a reader's text changes: stored documents are then read again by the next build."""
MAX_NESTING = 3
"""Archives within archives that are opened, and messages attached to messages."""
MAX_ARCHIVE_BYTES = 500_000_000
"""Unpacked, of an archive and all archives in it together."""

FORMATS = {
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
    ".pptx": "pptx",
    ".csv": "csv",
    ".txt": "txt",
    ".json": "json",
    ".jsonl": "jsonl",
    ".eml": "eml",
    ".epub": "epub",
    ".zip": "zip",
}
"""Suffix to format of every file that can be read. A zip holds documents of its own: see load_sources."""
_TABLES = frozenset({"xlsx", "csv", "json", "jsonl"})


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """A source that could not be read: its path, as a document's would be, and one sentence that says why."""

    path: str
    reason: str


def document_id(name: str, collection: str) -> str:
    """16 hex digits that follow from the path for the desk's own documents; 32 random ones for others."""
    if collection == DESK_COLLECTION:
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return secrets.token_hex(16)


def load_sources(path: Path, *, name: str, collection: str, max_bytes: int) -> Iterator[Document | SourceFailure]:
    """The documents in the file `path`: one, or those of a zip archive as it is unpacked, file by file.

    A member's path is the archive's with its own behind it ("guides.zip/it/a.md"); what cannot be read comes as a
    SourceFailure in its place. Never raises SourceError. An archive that holds nothing to read is a failure itself.
    """
    yield from _sources(path, name, collection, max_bytes, _Allowance(MAX_ARCHIVE_BYTES), 0)


@dataclass(slots=True)
class _Allowance:
    """How many bytes may still be unpacked."""

    bytes: int


def _sources(
    path: Path, name: str, collection: str, max_bytes: int, allowance: _Allowance, depth: int
) -> Iterator[Document | SourceFailure]:
    if (Path(name).suffix or path.suffix).lower() != ".zip":
        try:
            yield load_source(path, name=name, collection=collection, max_bytes=max_bytes)
        except SourceError as error:
            yield SourceFailure(name, str(error))
        return
    try:
        check_source(path, name, max_bytes)
        if depth > MAX_NESTING:
            raise SourceError(f"{name} is an archive more than {MAX_NESTING} archives deep: unpack it and add that.")
        archive = open_archive(path, name)
    except SourceError as error:
        yield SourceFailure(name, str(error))
        return
    with archive, tempfile.TemporaryDirectory() as folder:
        members = member_names(archive)
        if not members:
            yield SourceFailure(name, f"{name} holds no files: add an archive that holds some.")
        for inner, item in members.items():
            label = f"{name}/{inner}"
            try:
                unpacked = _unpacked(archive, item, label, Path(folder), max_bytes, allowance)
            except SourceError as error:
                yield SourceFailure(label, str(error))
                continue
            yield from _sources(unpacked, label, collection, max_bytes, allowance, depth + 1)
            unpacked.unlink()


def _unpacked(
    archive: zipfile.ZipFile, item: zipfile.ZipInfo, label: str, folder: Path, max_bytes: int, allowance: _Allowance
) -> Path:
    """A member of an archive as a file in `folder`. Raises SourceError for one that may not or cannot be read."""
    _check_suffix(Path(label).suffix.lower(), label)
    _check_size(item.file_size, label, max_bytes)
    allowance.bytes -= item.file_size
    if allowance.bytes < 0:
        raise SourceError(
            f"{label} was left out: with it the archive unpacks to more than {MAX_ARCHIVE_BYTES / 1e6:,.0f} MB. "
            "Split it."
        )
    return unpack(archive, item, label, folder)


def load_source(path: Path, *, name: str, collection: str, max_bytes: int) -> Document:
    """The document in the file `path`, called `name` in messages and in its `path` field.

    Raises SourceError with one sentence that says what is wrong, with which file, and what to do.
    """
    data_format = check_source(path, name, max_bytes)
    if data_format == "zip":
        raise SourceError(f"{name} holds documents of its own: unpack it and add them.")
    into = TextAssembler()
    stated = _read(data_format, path, name, into)
    text = into.text
    if not text:
        raise SourceError(f"{name} has no text in it{_why_empty(data_format, into)}")
    title = _title(into, stated, name, data_format)[:MAX_HEADING_CHARACTERS]
    return Document(
        id=document_id(name, collection),
        path=name,
        title=title,
        format=data_format,
        text=text,
        content_hash=file_hash(path),
        collection=collection,
        blocks=tuple(into.blocks),
        updated=into.dated or stated_date(text),
        outdated=says_outdated(title, text),
        notes=tuple(into.notes),
    )


def _read(data_format: str, path: Path, name: str, into: TextAssembler) -> str | None:
    """What the format's reader returns; whatever it raises becomes a SourceError."""
    try:
        return _READERS[data_format](path, name, into)
    except LimitError as error:
        raise SourceError(f"{name} {error}") from None
    except SourceError:
        raise
    except RecursionError:
        raise SourceError(f"{name} is nested too deeply to be read: save it in a simpler form.") from None
    except MemoryError:
        raise SourceError(f"{name} takes more memory to read than there is: split it.") from None
    except Exception as error:
        raise SourceError(
            f"{name} cannot be read as {data_format} and seems damaged ({type(error).__name__}): open it in "
            "its own program and save it again."
        ) from error


def _why_empty(data_format: str, into: TextAssembler) -> str:
    if into.notes:
        return f". {into.notes[0]}"
    also = ", nor could any be recognised" if data_format == "pdf" else ""
    return f"{also}: add a file that holds some."


def check_source(path: Path, name: str, max_bytes: int) -> str:
    """The format of a file that may be read. Raises SourceError for one that may not, before opening it."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise SourceError(f"{name} {what}: check the path ({path}).")
    data_format = _check_suffix(Path(name).suffix.lower() or path.suffix.lower(), name)
    _check_size(path.stat().st_size, name, max_bytes)
    return data_format


def _check_suffix(suffix: str, name: str) -> str:
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise SourceError(f"{name} has the unsupported format {suffix or '(none)'}: use one of {known}.")
    return FORMATS[suffix]


def _check_size(size: int, name: str, max_bytes: int) -> None:
    if size == 0:
        raise SourceError(f"{name} is empty (0 bytes): save or upload it again.")
    if size > max_bytes:
        raise SourceError(
            f"{name} has {size / 1e6:,.1f} MB; the limit is {max_bytes / 1e6:,.1f} MB: split it, or raise "
            "limits.upload_mb in desk.yaml."
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _title(into: TextAssembler, stated: str | None, name: str, data_format: str) -> str:
    """The first heading of depth 1, else the title that the file states, else its first heading or its name.

    A table's first line is no title, whatever it looks like, and a book's first chapter is not the book's.
    """
    if data_format in _TABLES:
        return stated or readable_title(name)
    headings = [block for block in into.blocks if block.kind == "heading"]
    first = next((block for block in headings if block.level == 1), None)
    if stated and (first is None or data_format == "epub"):
        return stated
    first = first or (headings[0] if headings else None)
    return into.text[first.start : first.end] if first else readable_title(name)


_Reader = Callable[[Path, str, TextAssembler], str | None]


def _md(path: Path, name: str, into: TextAssembler) -> str | None:
    return read_markdown(decode(path.read_bytes(), name), into)


def _html(path: Path, name: str, into: TextAssembler) -> str | None:
    return read_html(decode(path.read_bytes(), name), into)


def _csv(path: Path, name: str, into: TextAssembler) -> None:
    read_csv(decode(path.read_bytes(), name), name, into)


def _txt(path: Path, name: str, into: TextAssembler) -> None:
    read_text(decode(path.read_bytes(), name), into)


def _json(path: Path, name: str, into: TextAssembler) -> str | None:
    return read_json(decode(path.read_bytes(), name), name, into)


def _jsonl(path: Path, name: str, into: TextAssembler) -> None:
    read_jsonl(decode(path.read_bytes(), name), name, into)


def _docx(path: Path, name: str, into: TextAssembler) -> str | None:
    check_document(path, name)
    return read_docx(path, into)


def _xlsx(path: Path, name: str, into: TextAssembler) -> str | None:
    check_workbook(path, name)
    return read_xlsx(path, name, into)


def _pptx(path: Path, name: str, into: TextAssembler) -> str | None:
    check_document(path, name)
    return read_pptx(path, into)


def _epub(path: Path, name: str, into: TextAssembler) -> str | None:
    check_document(path, name)
    return read_epub(path, name, into)


def _eml(path: Path, name: str, into: TextAssembler, depth: int = 0) -> str | None:
    """A message with what is attached to it, which is read from a file of its own like any source."""

    def attached(content: bytes, label: str) -> TextAssembler:
        data_format = _check_suffix(Path(label).suffix.lower(), label)
        if data_format == "zip" or not content or depth >= MAX_NESTING:
            raise SourceError(f"{label} is not read as part of a message: add it alone.")
        inner = TextAssembler()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"attached{Path(label).suffix.lower()}"
            file.write_bytes(content)
            if data_format == "eml":
                _eml(file, label, inner, depth + 1)
            else:
                _read(data_format, file, label, inner)
        return inner

    return read_email(path.read_bytes(), name, into, attached)


_READERS: dict[str, _Reader] = {
    "md": _md,
    "html": _html,
    "pdf": read_pdf,
    "docx": _docx,
    "xlsx": _xlsx,
    "pptx": _pptx,
    "csv": _csv,
    "txt": _txt,
    "json": _json,
    "jsonl": _jsonl,
    "eml": _eml,
    "epub": _epub,
}
