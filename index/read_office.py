"""Word and Excel files to blocks of plain text. Reads stored values only: no macros, formulas or pictures."""

import datetime
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from index.blocks import TextAssembler, one_line
from index.errors import SourceError
from index.read_table import add_table

MAX_UNPACKED_BYTES = 200_000_000
MAX_RATIO = 200
"""Above these an Office file is a zip bomb or near enough: ordinary ones unpack to 3 to 20 times their size."""
_RATIO_FROM_BYTES = 5_000_000
"""Below this unpacked size the ratio says nothing: a small sheet of equal rows packs very well."""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_DEFAULT_SHEET = re.compile(r"(sheet|blad|feuil|tabelle)\s*\d*", re.IGNORECASE)


def check_office(path: Path, name: str) -> None:
    """Raises SourceError unless `path` is a zip file that unpacks to a sane size."""
    with path.open("rb") as file:
        start = file.read(len(_OLE))
    if start == _OLE:
        raise SourceError(
            f"{name} is protected by a password or in the old Office format: save it without a password "
            "as .docx or .xlsx and add it again."
        )
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{name} is damaged or not an Office file: open it in its program and save it again.")
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
    ratio = unpacked / max(1, path.stat().st_size)
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > _RATIO_FROM_BYTES and ratio > MAX_RATIO):
        raise SourceError(
            f"{name} unpacks to {unpacked / 1e6:,.0f} MB, which is not safe to open: split it or save it as "
            "text or PDF."
        )


def read_docx(path: Path, into: TextAssembler) -> str | None:
    """Appends a Word file's body to `into`; returns its title property, if someone set it."""
    import docx
    from docx.table import Table

    document = docx.Document(str(path))
    numbering = _Numbering(document)
    titled = any(paragraph.style.name == "Title" for paragraph in document.paragraphs if paragraph.style)
    lines: list[str] = []

    def flush() -> None:
        into.add("list", "\n".join(lines))
        lines.clear()
        numbering.restart()

    for item in document.iter_inner_content():
        if isinstance(item, Table):
            flush()
            into.table(list(_docx_rows(item)))
            continue
        text = one_line(item.text) if not item.text.count("\n") else item.text
        style = str(item.style.name or "") if item.style is not None else ""
        level = _heading_level(style, titled)
        mark = numbering.mark(item, style)
        if not text.strip():
            continue
        if mark is not None and not level:
            lines.append(mark + one_line(text))
            continue
        flush()
        into.add("heading" if level else "paragraph", text, level=level)
    flush()
    title = one_line(document.core_properties.title or "")
    return title if title and title != "Word Document" else None


def _docx_rows(table: Any) -> Iterator[list[str]]:
    """The texts of a table's rows; a cell merged over columns counts once, then as empty."""
    for row in table.rows:
        texts: list[str] = []
        previous = None
        for cell in row.cells:
            texts.append("" if cell._tc is previous else cell.text)
            previous = cell._tc
        yield texts


def _heading_level(style: str, titled: bool) -> int:
    """Depth from 1, 0 for other styles; below a title, "Heading 1" is of depth 2."""
    if style == "Title":
        return 1
    found = re.fullmatch(r"Heading (\d)", style)
    return int(found.group(1)) + titled if found else 0


class _Numbering:
    """The marks of list paragraphs. Word stores no numbers: they are counted again here."""

    def __init__(self, document: Any) -> None:
        from docx.oxml.ns import qn

        self._formats: dict[tuple[str, str], str] = {}
        self._counts: dict[int, int] = {}
        try:
            root = document.part.numbering_part.element
        except (KeyError, NotImplementedError):
            return
        value, number_id = qn("w:val"), qn("w:numId")
        abstract: dict[str, dict[str, str]] = {}
        for entry in root.iterfind(qn("w:abstractNum")):
            levels = {}
            for level in entry.iterfind(qn("w:lvl")):
                kind = level.find(qn("w:numFmt"))
                levels[level.get(qn("w:ilvl"))] = kind.get(value) if kind is not None else "decimal"
            abstract[entry.get(qn("w:abstractNumId"))] = levels
        for entry in root.iterfind(qn("w:num")):
            link = entry.find(qn("w:abstractNumId"))
            for depth, kind in abstract.get(link.get(value) if link is not None else "", {}).items():
                self._formats[(entry.get(number_id), depth)] = kind

    def restart(self) -> None:
        self._counts.clear()

    def mark(self, paragraph: Any, style: str) -> str | None:
        """ "- " or "2. " with its indentation; None for a paragraph that is no list item."""
        depth, kind = self._level(paragraph, style)
        if kind is None:
            return None
        indent = "  " * depth
        if kind in ("bullet", "none"):
            return f"{indent}- "
        for deeper in [level for level in self._counts if level > depth]:
            del self._counts[deeper]
        self._counts[depth] = self._counts.get(depth, 0) + 1
        return f"{indent}{self._counts[depth]}. "

    def _level(self, paragraph: Any, style: str) -> tuple[int, str | None]:
        number = paragraph._p.xpath("string(./w:pPr/w:numPr/w:numId/@w:val)")
        depth = paragraph._p.xpath("string(./w:pPr/w:numPr/w:ilvl/@w:val)") or "0"
        if number and number != "0":
            return int(depth), self._formats.get((number, depth), "bullet")
        found = re.fullmatch(r"List (Bullet|Number)(?: (\d))?", style)
        if not found:
            return 0, None
        return int(found.group(2) or 1) - 1, "bullet" if found.group(1) == "Bullet" else "decimal"


def read_xlsx(path: Path, into: TextAssembler) -> str | None:
    """Appends every sheet's rows to `into`, a sheet's name as heading; returns the title property."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                continue
            sheet.reset_dimensions()
            rows = list(_xlsx_rows(sheet.iter_rows()))
            if rows and not _DEFAULT_SHEET.fullmatch(sheet.title):
                into.add("heading", sheet.title, level=2)
            add_table(rows, into)
        title = one_line(book.properties.title or "")
    finally:
        book.close()
    return title or None


def _xlsx_rows(rows: Iterable[Iterable[Any]]) -> Iterator[list[str]]:
    for row in rows:
        yield [_cell_text(cell) for cell in row]


def _cell_text(cell: Any) -> str:
    """A cell as a person sees it, near enough: 0.05 as 5% where so formatted, 1450.0 as 1450."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat() if isinstance(value, datetime.date) else value.isoformat("minutes")
    if isinstance(value, int | float):
        if "%" in str(cell.number_format or ""):
            return f"{value * 100:.10g}%"
        return f"{value:.15g}"
    return one_line(str(value))
