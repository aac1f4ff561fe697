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

    A line of one cell at the start or after an empty line is a paragraph (a caption, a note); the first line
    of several cells after it holds the column names of the rows that follow.
    """
    columns: list[str] = []
    used = True
    gap = True
    for row in rows:
        cells = [cell.strip() for cell in row]
        filled = [cell for cell in cells if cell]
        if not filled:
            gap = True
            continue
        if len(filled) == 1 and cells[0] and (gap or not columns):
            _unused(columns, used, into)
            into.add("paragraph", filled[0])
            columns, used = [], True
        elif not columns:
            columns, used = cells, False
        else:
            into.add("row", row_text(columns, cells))
            used = True
        gap = False
    _unused(columns, used, into)


def _unused(columns: Sequence[str], used: bool, into: TextAssembler) -> None:
    """Writes a line that was taken for column names but has no rows below it."""
    if not used:
        into.add("row", "; ".join(cell for cell in columns if cell))
