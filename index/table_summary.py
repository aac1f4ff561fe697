"""What a table holds, in words: so that a question about the table, not about a row of it, finds an answer."""

import re
from collections.abc import Sequence

MIN_ROWS = 3
MAX_COLUMNS = 60
"""Columns that are named; a passage has no room for more."""
MAX_DESCRIBED = 20
MAX_DISTINCT = 8
_MAX_VALUE_CHARACTERS = 40
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?%?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def summary(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table's name, number of rows and columns on one line; on the next the ranges of columns of numbers and
    dates, and the values of columns that have few. Nothing for a table of fewer than MIN_ROWS rows, nor for two
    columns of which there is nothing to say: those are terms and what they mean.
    """
    named = [(place, column.replace("_", " ")) for place, column in enumerate(columns) if column]
    if len(rows) < MIN_ROWS or not named:
        return ""
    shown = ", ".join(column for _, column in named[:MAX_COLUMNS])
    more = f" and {len(named) - MAX_COLUMNS} more" if len(named) > MAX_COLUMNS else ""
    facts = (_described(column, [row[place] for row in rows if place < len(row)]) for place, column in named)
    described = [fact for fact in facts if fact][:MAX_DESCRIBED]
    if len(named) <= 2 and not described:
        return ""
    first = f"{name} has {len(rows)} rows and {len(named)} columns: {shown}{more}."
    return "\n".join([first, *([f"Values of the columns: {'; '.join(described)}."] if described else [])])


def _described(column: str, cells: Sequence[str]) -> str:
    """A column's range or its few values; nothing for one whose values are mostly different."""
    values = [cell for cell in cells if cell]
    if not values:
        return ""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        if all(map(_NUMBER.fullmatch, distinct)):
            return f"{column} from {min(distinct, key=_number)} to {max(distinct, key=_number)}"
        if all(map(_DATE.fullmatch, distinct)):
            return f"{column} from {min(distinct)} to {max(distinct)}"
    few = len(distinct) <= MAX_DISTINCT and 2 * len(distinct) <= len(values)
    short = all(len(value) <= _MAX_VALUE_CHARACTERS and ";" not in value for value in distinct)
    listed = ", ".join(distinct[:-1]) + " or " * (len(distinct) > 1) + distinct[-1]
    return f"{column} is {listed}" if few and short else ""


def _number(cell: str) -> float:
    return float(cell.rstrip("%"))
