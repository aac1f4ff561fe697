"""Word and Excel files to blocks of plain text. Reads stored values only: no macros, formulas or pictures."""

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from index.blocks import TextAssembler, one_line
from index.errors import LimitError
from index.read_table import add_table
from index.stated import readable_title

MAX_PARTS = 200_000
"""Paragraphs and cells of a Word file: about 5,000 pages of them."""
MAX_CELLS = 3_000_000
"""Cells of a workbook that are read, empty ones between filled ones included."""
_WIDEST = 100
"""Columns that a cell is spread over. Word has 63 at most, a file can state any number."""
_DEEPEST_LEVEL = 8
"""Of lists, from 0: Word has nine levels, a file can state any."""
_DEFAULT_SHEET = re.compile(r"(sheet|blad|feuil|tabelle)\s*\d*", re.IGNORECASE)


def read_docx(path: Path, into: TextAssembler) -> str | None:
    """Appends a Word file's body to `into`; returns its title property, if someone set it."""
    import docx
    from docx.oxml.ns import qn
    from docx.table import Table

    document = docx.Document(str(path))
    if sum(1 for _ in document.element.iter(qn("w:p"), qn("w:tc"))) > MAX_PARTS:
        raise LimitError(f"has more than {MAX_PARTS:,} paragraphs and cells: split it.")
    numbering = _Numbering(document)
    style_of = _style_names(document)
    titled = any(style_of(paragraph) == "Title" for paragraph in document.paragraphs)
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
        style = style_of(item)
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


def _style_names(document: Any) -> Callable[[Any], str]:
    """A function that gives the name of a paragraph's style; python-docx looks through all styles for each."""
    from docx.enum.style import WD_STYLE_TYPE

    kind = WD_STYLE_TYPE.PARAGRAPH
    names = {style.style_id: str(style.name or "") for style in document.styles if style.type == kind}
    default = document.styles.default(kind)
    usual = str(default.name or "") if default is not None else ""
    return lambda paragraph: names.get(paragraph._p.style, usual)


def _docx_rows(table: Any) -> Iterator[list[str]]:
    """The texts of a table's rows; a cell merged over columns counts once, then as empty, one merged over rows in each.

    python-docx's own cells are not asked: it makes as many as the file says, and goes up a merged cell row by row.
    """
    from docx.table import _Cell

    above: dict[int, str] = {}
    for row in table.rows:
        texts: list[str] = []
        here: dict[int, str] = {}
        column = row.grid_cols_before
        for cell in row._tr.tc_lst:
            text = above.get(column, "") if cell.vMerge == "continue" else _Cell(cell, table).text
            here[column] = text
            texts += [text, *[""] * (min(cell.grid_span, _WIDEST) - 1)]
            column += cell.grid_span
        above = here
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
        numbered = paragraph._p.pPr is not None
        number = paragraph._p.xpath("string(./w:pPr/w:numPr/w:numId/@w:val)") if numbered else ""
        depth = (paragraph._p.xpath("string(./w:pPr/w:numPr/w:ilvl/@w:val)") if numbered else "") or "0"
        if number and number != "0":
            return min(int(depth), _DEEPEST_LEVEL), self._formats.get((number, depth), "bullet")
        found = re.fullmatch(r"List (Bullet|Number)(?: (\d))?", style)
        if not found:
            return 0, None
        return int(found.group(2) or 1) - 1, "bullet" if found.group(1) == "Bullet" else "decimal"


def read_xlsx(path: Path, name: str, into: TextAssembler) -> str | None:
    """Appends every visible sheet's rows to `into`, a sheet's name as heading; returns the title property.

    Raises LimitError for more than MAX_CELLS cells.
    """
    import openpyxl

    _check_sheets(path)
    cells = 0
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                continue
            sheet.reset_dimensions()
            rows = list(_xlsx_rows(sheet.iter_rows(), MAX_CELLS - cells))
            cells += sum(map(len, rows))
            named = not _DEFAULT_SHEET.fullmatch(sheet.title)
            if rows and named:
                into.add("heading", sheet.title, level=2)
            add_table(rows, into, sheet.title if named else readable_title(name))
        title = one_line(book.properties.title or "")
    finally:
        book.close()
    return title or None


def _check_sheets(path: Path) -> None:
    """Raises LimitError for a workbook that names one part as a sheet again and again; each time it would be read."""
    from openpyxl.reader.excel import ExcelReader

    reader = ExcelReader(path, read_only=True, data_only=True)
    try:
        reader.read_manifest()
        reader.read_workbook()
        parts = [relation.target for _, relation in reader.parser.find_sheets()]
    finally:
        reader.archive.close()
    if len(set(parts)) < len(parts):
        raise LimitError("has a sheet several times over, which no program writes: save it again.")


def _xlsx_rows(rows: Iterable[Sequence[Any]], cells: int) -> Iterator[list[str]]:
    """The rows' texts without the empty cells at their ends, and without most of a long run of empty rows.

    Raises LimitError where they come to more than `cells` cells, each row counted as one more: a row's number and
    a cell's letters are whatever the file says, and what is missing before them is handed over as empty.
    """
    empty = 0
    for row in rows:
        cells -= len(row) + 1
        if cells < 0:
            raise LimitError(f"has more than {MAX_CELLS:,} cells: split it.")
        texts = [_cell_text(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        empty = 0 if texts else empty + 1
        if empty <= 1:
            yield texts


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
