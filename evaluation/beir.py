"""Reads question sets in BEIR's layout (Thakur et al. 2021, arXiv:2104.08663): corpus, queries and judgements."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from desk.errors import DeskError

_COLUMNS = ["query-id", "corpus-id", "score"]


class _Row(BaseModel):
    """A row's own fields beside these (`metadata`, `url`) are other tools' and say nothing here."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id: str = Field(alias="_id", min_length=1)


class CorpusRow(_Row):
    title: str | None = None
    text: str


class QueryRow(_Row):
    text: str


_AnyRow = TypeVar("_AnyRow", CorpusRow, QueryRow)


def read_rows(path: Path, kind: type[_AnyRow]) -> Iterator[_AnyRow]:
    """The rows of a JSONL file in order. Raises DeskError with file and line for a bad row or a second one of an id."""
    seen: set[str] = set()
    for number, line in lines_of(path):
        try:
            row = kind.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise DeskError(f"{path}, line {number}: not JSON ({error.msg}): write one object a line.") from None
        except ValidationError as error:
            raise DeskError(f"{path}, line {number}: {first_fault(error.errors())}.") from None
        if row.id in seen:
            raise DeskError(f"{path}, line {number}: the _id {row.id!r} stands twice: give each row its own.")
        seen.add(row.id)
        yield row


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """The grades above 0 by query and document; a query that has none is left out.

    Raises DeskError with file and line for a missing header, a bad row or a second judgement of a pair.
    """
    lines = lines_of(path)
    number, header = next(lines, (1, ""))
    if header.rstrip("\n").split("\t") != _COLUMNS:
        raise DeskError(f"{path}, line {number}: the header is not {' '.join(_COLUMNS)}, parted by tabs: add it.")
    grades: dict[str, dict[str, float]] = {}
    for number, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        score = _number(cells[2]) if len(cells) == 3 else None
        if score is None or not all(cells):
            raise DeskError(f"{path}, line {number}: not a query-id, a corpus-id and a number, parted by tabs.")
        of_query = grades.setdefault(cells[0], {})
        if cells[1] in of_query:
            raise DeskError(f"{path}, line {number}: {cells[0]!r} and {cells[1]!r} are judged twice: keep one row.")
        of_query[cells[1]] = score
    relevant = {query: {item: grade for item, grade in row.items() if grade > 0} for query, row in grades.items()}
    return {query: row for query, row in relevant.items() if row}


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Raises DeskError for a file that is missing or not UTF-8."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DeskError(f"{path}, after line {number}: not UTF-8 ({error.reason}): save it as UTF-8.") from None
    except OSError as error:
        raise DeskError(f"{path} cannot be read ({error.strerror}): check the path.") from None


def first_fault(errors: Any) -> str:
    """The first fault that pydantic names, as a sentence."""
    where = ".".join(str(part) for part in errors[0]["loc"])
    return f"{where or 'the row'}: {errors[0]['msg']}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
