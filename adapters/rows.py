"""Reads question-answer pairs in the forms that people have them in: each row with the place that it came from.

JSON lines, or one JSON list, with `prompt`/`completion`, `messages`, Alpaca's `instruction`/`input`/`output` or
ShareGPT's `conversations`; CSV and XLSX with a column for the question and one for the answer. A conversation gives a
row for each of its answers. A fault of one row never costs another its place: reading goes on, and all faults are told
together.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import DatasetError
from adapters.prompts import Message

QUESTION_COLUMNS = ("prompt", "question", "q", "instruction", "input")
ANSWER_COLUMNS = ("completion", "answer", "a", "response", "output")
INTENT_COLUMNS = ("intent", "topic", "label")
MAX_FILE_BYTES = 500_000_000
SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Example:
    """One row: what a user writes and the exact answer. `intent` names the group it belongs to; `before` is what was
    said before, a system message first if there is one."""

    prompt: str
    completion: str
    intent: str | None = None
    before: tuple[Message, ...] = ()

    @property
    def chat(self) -> list[Message]:
        """What the answer follows: what was said before, then the question."""
        return [*self.before, Message("user", self.prompt)]


@dataclass(frozen=True, slots=True)
class Placed:
    """A row, and where it stands: the file, and its line (of a table its row, counted as the program shows it;
    of a JSON list its place, from 1)."""

    row: Example
    path: Path
    line: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row. `kind` is one of KINDS; a row with a severe fault cannot be trained on. `row` is the
    one that has it: a line may hold several; None where the line gave no rows."""

    path: Path
    line: int
    kind: str
    message: str
    severe: bool = True
    row: Example | None = None

    def __str__(self) -> str:
        return f"{self.path}, {placed_at(self.path, self.line)}: {self.message}"


def placed_at(path: Path, line: int) -> str:
    """Where a row stands in its file, in words."""
    return f"{'row' if path.suffix.lower() == '.json' else 'line'} {line}"


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1)
    completion: str = Field(min_length=1)
    intent: str | None = None


class _Alpaca(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str = Field(min_length=1)
    input: str = ""
    output: str = Field(min_length=1)
    system: str = ""


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    content: str


class _Messages(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: list[_Turn] = Field(min_length=2)
    intent: str | None = None


class _ShareTurn(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    speaker: str = Field(alias="from")
    value: str


class _ShareGpt(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    conversations: list[_ShareTurn] = Field(min_length=2)
    system: str = ""


def read_rows(path: Path) -> tuple[list[Placed], list[Fault]]:
    """All rows that can be read, in order, and the faults of the others. Raises DatasetError for another file."""
    if not path.is_file():
        raise DatasetError(f'{path} is missing: write one {{"prompt": ..., "completion": ...}} row a line.')
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DatasetError(f"{path} is larger than {MAX_FILE_BYTES / 1e6:,.0f} MB: split it.")
    readers = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv, ".xlsx": _xlsx}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path} is no training data that can be read: give .jsonl, .json, .csv or .xlsx.")
    placed, faults = [], []
    try:
        for found in reader(path):
            if isinstance(found, Fault):
                faults.append(found)
            else:
                placed.append(found)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error}): check who may read it.") from None
    if not placed and not faults:
        raise DatasetError(f"{path} holds no rows.")
    return placed, faults


def _json_lines(path: Path) -> Iterator[Placed | Fault]:
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            message = f"it is not UTF-8 text ({error.reason} at byte {error.start} of the line)."
            yield Fault(path, number, "encoding", message)
        except (ValueError, RecursionError) as error:
            yield Fault(path, number, "form", f"no JSON object ({getattr(error, 'msg', 'too deep or too long')}).")
        else:
            yield from _placed(value, path, number)


def _json_list(path: Path) -> Iterator[Placed | Fault]:
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable JSON ({getattr(error, 'msg', 'too deep or too long')}).") from None
    if not isinstance(values, list):
        raise DatasetError(f"{path} holds no list: write [row, row, ...], or one row a line into a .jsonl file.")
    for number, value in enumerate(values, 1):
        yield from _placed(value, path, number)


def _placed(value: object, path: Path, number: int) -> Iterator[Placed | Fault]:
    """The rows of one JSON value, or what is wrong with it."""
    try:
        rows = _from_json(value)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "row"
        yield Fault(path, number, "form", f"{key}: {fault['msg']}.")
    except _RoleError as error:
        yield Fault(path, number, "roles", str(error))
    else:
        yield from (Placed(row, path, number) for row in rows)


class _RoleError(Exception):
    """Messages whose roles make no conversation."""


def _from_json(value: object) -> list[Example]:
    """The rows of one JSON value. Raises ValidationError or _RoleError."""
    keys = value.keys() if isinstance(value, dict) else ()
    if "messages" in keys:
        chat = _Messages.model_validate(value)
        return _conversation([(turn.role, turn.content) for turn in chat.messages], chat.intent)
    if "conversations" in keys:
        shared = _ShareGpt.model_validate(value)
        turns = [(SHAREGPT_ROLES.get(turn.speaker, turn.speaker), turn.value) for turn in shared.conversations]
        return _conversation([("system", shared.system), *turns] if shared.system else turns, None)
    if "instruction" in keys:
        task = _Alpaca.model_validate(value)
        prompt = f"{task.instruction}\n{task.input}" if task.input.strip() else task.instruction
        before = (Message("system", task.system),) if task.system.strip() else ()
        return [Example(prompt, task.output, None, before)]
    pair = _Pair.model_validate(value)
    return [Example(pair.prompt, pair.completion, pair.intent)]


def _conversation(turns: Sequence[tuple[str, str]], intent: str | None) -> list[Example]:
    """A row for each answer of a conversation, with what was said before it."""
    said: list[Message] = []
    rows = []
    for number, (role, content) in enumerate(turns, 1):
        expected = "user" if not said or said[-1].role != "user" else "assistant"
        if role == "system" and number == 1:
            said.append(Message("system", content))
            continue
        if role != expected:
            raise _RoleError(f"message {number} is of {role!r}, where {expected!r} has to speak.")
        if not content.strip():
            raise _RoleError(f"message {number}, of {role!r}, is empty.")
        if role == "assistant":
            rows.append(Example(said[-1].content, content, intent, tuple(said[:-1])))
        said.append(Message("user" if role == "user" else "assistant", content))
    if turns[-1][0] != "assistant":
        raise _RoleError("the last message has to be the assistant's: nothing answers it.")
    return rows


def _csv(path: Path) -> Iterator[Placed | Fault]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as CSV UTF-8."
        ) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="")
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from None
    yield from _table(path, list(reader.fieldnames or []), rows)


def _xlsx(path: Path) -> Iterator[Placed | Fault]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        values = [[("" if cell is None else str(cell)) for cell in row] for row in sheet.iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # openpyxl raises whatever its parts raise
        raise DatasetError(f"{path} cannot be read as a workbook ({type(error).__name__}): save it again.") from None
    names, body = (values[0], values[1:]) if values else ([], [])
    yield from _table(path, names, [(line, dict(zip(names, row, strict=False))) for line, row in enumerate(body, 2)])


def _table(path: Path, names: Sequence[str], rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Placed | Fault]:
    """Rows of a table whose first row names its columns."""
    known = {name.strip().lower(): name for name in names if name}

    def column(wanted: Sequence[str]) -> str | None:
        return next((known[name] for name in wanted if name in known), None)

    question, answer, intent = column(QUESTION_COLUMNS), column(ANSWER_COLUMNS), column(INTENT_COLUMNS)
    if question is None or answer is None:
        raise DatasetError(
            f"{path} has the columns {', '.join(names) or 'none'}: name one {' or '.join(QUESTION_COLUMNS[:2])} and "
            f"one {' or '.join(ANSWER_COLUMNS[:2])} in its first row."
        )
    for line, row in rows:
        prompt, completion = (str(row.get(name) or "").strip() for name in (question, answer))
        if not prompt and not completion:
            continue
        if not prompt or not completion:
            yield Fault(path, line, "empty", f"the {'question' if not prompt else 'answer'} is empty.")
            continue
        topic = str(row.get(intent) or "").strip() if intent else ""
        yield Placed(Example(prompt, completion, topic or None), path, line)


def as_line(row: Example) -> str:
    """A row as a line of train.jsonl; one with a history as a whole conversation, read as a row for each answer."""
    pair: dict[str, object] = {"prompt": row.prompt, "completion": row.completion}
    if row.before:
        said = [*row.chat, Message("assistant", row.completion)]
        pair = {"messages": [{"role": message.role, "content": message.content} for message in said]}
    intent = {} if row.intent is None else {"intent": row.intent}
    return json.dumps(pair | intent, ensure_ascii=False) + "\n"


def as_lines(rows: Sequence[Example]) -> list[str]:
    """The lines of train.jsonl for these rows: those that follow one another in one conversation have a line together.

    An answer whose history's own rows are not among them brings those along: a conversation is read whole.
    """
    following = [*rows[1:], None]
    return [
        as_line(row) for row, after in zip(rows, following, strict=True) if after is None or not _goes_on(row, after)
    ]


def from_line(line: str) -> list[Example]:
    """The rows of a line that as_line wrote."""
    return _from_json(json.loads(line))


def _goes_on(row: Example, after: Example) -> bool:
    """Whether `after` is the next answer of the same conversation."""
    return after.intent == row.intent and after.before == (*row.chat, Message("assistant", row.completion))
