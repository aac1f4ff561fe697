"""Rows of cells to blocks of plain text, and CSV files to rows."""

import csv
import io
from collections.abc import Sequence

from index.blocks import TextAssembler, one_line, row_text
from index.errors import LimitError
from index.stated import readable_title
from index.table_summary import summary

MAX_CELLS = 3_000_000
MAX_CELL_CHARACTERS = 10_000_000
_SNIFFED_CHARACTERS = 8192

csv.field_size_limit(MAX_CELL_CHARACTERS)


def read_csv(source: str, name: str, into: TextAssembler) -> None:
    """Appends a CSV file's rows to `into`. The separator is found from the first lines (, ; tab or |).

    Raises LimitError for more than MAX_CELLS cells.
    """
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(source[:_SNIFFED_CHARACTERS], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows: list[list[str]] = []
    cells = 0
    try:
        for row in csv.reader(io.StringIO(source, newline=""), dialect):
            cells += len(row) + 1
            if cells > MAX_CELLS:
                raise LimitError(f"has more than {MAX_CELLS:,} cells: split it.")
            rows.append([one_line(cell) for cell in row])
    except csv.Error:
        raise LimitError(f"has a cell of more than {MAX_CELL_CHARACTERS:,} characters: it is no table.") from None
    add_table(rows, into, readable_title(name))


def add_table(rows: Sequence[Sequence[str]], into: TextAssembler, name: str) -> None:
    """Appends a sheet called `name` to `into`, each row as one block, and behind each table's rows its summary.

    A line of one cell at the start or after an empty line is a note, or a heading if the column names stand
    right below it; the first line of several cells after it holds the names of the columns of the rows that
    follow.
    """
    columns: list[str] = []
    held: list[list[str]] = []
    caption = ""
    unused = False
    gap = True
    for row in rows:
        cells = [cell.strip() for cell in row]
        filled = [cell for cell in cells if cell]
        if len(filled) == 1 and cells[0] and (gap or not columns):
            into.add("row", _names(columns) if unused else "")
            into.add("paragraph", summary(name, columns, held))
            into.add("paragraph", caption)
            caption, columns, held, unused = filled[0], [], [], False
        elif filled and not columns:
            is_heading = caption and not gap and ": " not in caption and not caption.endswith(".")
            into.add("heading" if is_heading else "paragraph", caption, level=3 if is_heading else 0)
            caption, columns, unused = "", cells, True
        elif filled:
            into.add("row", row_text(columns, cells))
            held.append(cells)
            unused = False
        gap = not filled
    into.add("row", _names(columns) if unused else "")
    into.add("paragraph", summary(name, columns, held))
    into.add("paragraph", caption)


def _names(columns: Sequence[str]) -> str:
    """A line that was taken for column names but has no rows below it."""
    return "; ".join(cell for cell in columns if cell)
