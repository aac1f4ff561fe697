"""Rows of cells to blocks of plain text, and CSV files to rows."""

import csv
import io
from collections.abc import Sequence

from index.blocks import TextAssembler, one_line, row_text

csv.field_size_limit(10_000_000)


def read_csv(source: str, into: TextAssembler) -> None:
    """Appends a CSV file's rows to `into`. The separator is found from the first lines (, ; tab or |)."""
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(source[:8192], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    reader = csv.reader(io.StringIO(source, newline=""), dialect)
    add_table([[one_line(cell) for cell in row] for row in reader], into)


def add_table(rows: Sequence[Sequence[str]], into: TextAssembler) -> None:
    """Appends a sheet to `into`, each row as one block.

    A line of one cell at the start or after an empty line is a note, or a heading if the column names stand
    right below it; the first line of several cells after it holds the names of the columns of the rows that
    follow.
    """
    columns: list[str] = []
    caption = ""
    unused = False
    gap = True
    for row in rows:
        cells = [cell.strip() for cell in row]
        filled = [cell for cell in cells if cell]
        if len(filled) == 1 and cells[0] and (gap or not columns):
            into.add("row", _names(columns) if unused else "")
            into.add("paragraph", caption)
            caption, columns, unused = filled[0], [], False
        elif filled and not columns:
            is_heading = caption and not gap and ": " not in caption and not caption.endswith(".")
            into.add("heading" if is_heading else "paragraph", caption, level=3 if is_heading else 0)
            caption, columns, unused = "", cells, True
        elif filled:
            into.add("row", row_text(columns, cells))
            unused = False
        gap = not filled
    into.add("row", _names(columns) if unused else "")
    into.add("paragraph", caption)


def _names(columns: Sequence[str]) -> str:
    """A line that was taken for column names but has no rows below it."""
    return "; ".join(cell for cell in columns if cell)
