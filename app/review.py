"""The workbook in which somebody decides about candidate pairs, and what becomes of it: rows of an adapter's data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.dataset import Example, read_examples
from adapters.errors import DatasetError
from adapters.extend import Extended, extend
from adapters.folders import replacing_file, writing
from adapters.rows import Placed
from app.assembly import Switchboard
from app.candidates import Candidate, candidates
from chains.engines import chat_model
from chains.utterances import cached_vectors

YES, NO = ("yes", "y", "x", "1", "true"), ("no", "n", "0", "false")
COLUMNS = {
    "take": 8,
    "question": 50,
    "answer": 70,
    "why it is here": 30,
    "the adapter answers now": 50,
    "nearest question it knows": 40,
    "and its answer": 50,
    "id": 18,
}
"""The workbook's columns, and their widths in characters."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, section 2.2: what is no character."""
MOST = 500
"""Candidates of one workbook: the adapter is asked each of them. Those with most people behind them come first."""
MOST_TITLE = 31
"""Characters of a sheet's title, which says whose workbook it is."""
START_S = 300
"""Seconds that the model may take to load."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What was decided: rows to take, the candidates they came from, those that were refused; `open` wait."""

    taken: tuple[Placed, ...]
    keys: tuple[str, ...]
    refused: tuple[str, ...]
    open: int


def write_review(board: Switchboard, adapter: str, path: Path) -> tuple[int, int]:
    """(candidates that were written to a new workbook at `path`, how many more there are); none writes nothing.

    Raises DatasetError, and UnwritableError.
    """
    rows = read_examples(_folder(board, adapter) / "train.jsonl")
    waiting = candidates(board.records, adapter)
    found = waiting[:MOST]
    if not found:
        return 0, 0
    if path.suffix.lower() != ".xlsx":
        raise DatasetError(f"{path} would hold a workbook: give it a name that ends with .xlsx.")
    if path.exists():
        raise DatasetError(f"{path} is there already: take it in with --take {path}, or name another with --file.")
    if not path.resolve().parent.is_dir():
        raise DatasetError(f"There is no folder {path.resolve().parent}: make it, or name another file with --file.")
    model = chat_model(board.engine)
    board.engine.start()
    if not board.engine.wait_ready(START_S):
        raise DatasetError(f"The model was not ready after {START_S} s: try again.")
    now = [str(model.bind(adapter=adapter).invoke(one.question).content) for one in found]
    with writing(path):
        _save(path, adapter, found, now, _nearest(board, adapter, rows, [one.question for one in found]))
    return len(found), len(waiting) - len(found)


def take_review(board: Switchboard, adapter: str, path: Path) -> tuple[Reviewed, Extended]:
    """Puts the accepted rows of a workbook into the adapter's train.jsonl, and notes what was decided.

    Rows with a fault stay undecided. Raises DatasetError where the workbook, or what is there, cannot be read.
    """
    folder = _folder(board, adapter)
    reviewed = read_review(path, adapter)
    extended = extend(folder, reviewed.taken)
    faulty = {fault.line for fault in extended.faults if fault.severe}
    keys = [key for key, one in zip(reviewed.keys, reviewed.taken, strict=True) if one.line not in faulty]
    if not board.records.review([key for key in (*keys, *reviewed.refused) if key]):
        raise DatasetError("The rows are taken, but the records could not be written: they will be proposed again.")
    return reviewed, extended


def read_review(path: Path, adapter: str) -> Reviewed:
    """The decisions in a workbook of that adapter. Raises DatasetError."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        title = book.worksheets[0].title
        values = [[_text(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # openpyxl raises whatever its parts raise
        raise DatasetError(f"{path} cannot be read as a workbook ({type(error).__name__}).") from None
    names = [name.lower() for name in values[0]] if values else []
    if missing := [name for name in ("take", "question", "answer", "id") if name not in names]:
        raise DatasetError(f"{path} lacks the columns {', '.join(missing)}: `python -m app candidates` writes one.")
    if title != adapter[:MOST_TITLE]:
        raise DatasetError(f"{path} is not a workbook of {adapter}: its sheet is called {title!r}.")
    taken, keys, refused, undecided = [], [], [], 0
    for line, cells in enumerate(values[1:], 2):
        row = dict(zip(names, cells, strict=False))
        if row.get("take", "").lower() in YES:
            taken.append(Placed(Example(row.get("question", ""), row.get("answer", "")), path, line))
            keys.append(row.get("id", ""))
        elif row.get("take", "").lower() in NO:
            refused.append(row.get("id", ""))
        elif any(cells):
            undecided += 1
    return Reviewed(tuple(taken), tuple(keys), tuple(refused), undecided)


def lines(adapter: str, reviewed: Reviewed, extended: Extended) -> list[str]:
    """What became of a workbook, a line each."""
    added, refused = len(extended.added), len(reviewed.refused)
    told = [f"{added} rows added, {extended.replaced} in the place of another answer; {refused} refused"]
    told[0] += f"; {extended.known} there already" if extended.known else ""
    told[0] += f"; {reviewed.open} left for later" if reviewed.open else ""
    for fault in extended.faults:
        out = fault.severe or fault.kind == "duplicate"
        told.append(f"  {'not taken' if out else 'taken, but look again'}: {fault}")
    if added:
        told.append(f"`python -m adapters train {adapter}` makes the next version.")
    return told


def _folder(board: Switchboard, adapter: str) -> Path:
    """The adapter's folder in the desk. Raises DatasetError for one that does not answer in words."""
    chatting = [info.name for info in board.engine.adapters if "chat" in info.capabilities]
    if adapter not in chatting:
        known = ", ".join(chatting) or "none"
        raise DatasetError(f"There is no adapter {adapter!r} that answers in words; known: {known}.")
    return board.desk.adapters.shipped / adapter


def _nearest(board: Switchboard, adapter: str, rows: Sequence[Example], questions: Sequence[str]) -> list[Example]:
    """For each question the training row whose question is nearest by the embedding model."""
    embedder, folder = board.embedder, board.desk.chains.state / "candidates" / adapter
    known = cached_vectors([row.prompt for row in rows], embedder.embed_queries, embedder.name, folder)
    return [rows[int(place)] for place in np.argmax(embedder.embed_queries(questions) @ known.T, axis=1)]


def _save(path: Path, adapter: str, found: Sequence[Candidate], now: Sequence[str], nearest: Sequence[Example]) -> None:
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.worksheets[0]
    sheet.title = adapter[:MOST_TITLE]
    rows = [
        ["", one.question, one.answer, one.why, said, row.prompt, row.completion, one.key]
        for one, said, row in zip(found, now, nearest, strict=True)
    ]
    for line, values in enumerate([list(COLUMNS), *rows], 1):
        for column, value in enumerate(values, 1):
            cell: Any = sheet.cell(line, column)
            if text := _cell_text(value):
                cell.value, cell.data_type = text, "s"  # what a reader typed is text, and never a formula
            cell.alignment = Alignment(wrap_text=True, vertical="top")
            cell.font = Font(bold=line == 1)
    for column, width in enumerate(COLUMNS.values(), 1):
        sheet.column_dimensions[get_column_letter(column)].width = width
    sheet.freeze_panes = "D2"
    choice = DataValidation("list", formula1='"yes,no"', allow_blank=True)
    choice.add(f"A2:A{len(rows) + 1}")
    sheet.add_data_validation(choice)
    with replacing_file(path) as beside:
        book.save(beside)


def _cell_text(text: str) -> str:
    """A text without the characters that XML, and with it a workbook, cannot hold."""
    return _NOT_XML.sub("", text)


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()
