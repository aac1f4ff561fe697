"""JSON to blocks of plain text: a list of objects as records, anything else as an outline of its keys."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from index.blocks import MAX_CHARACTERS, TextAssembler, one_line
from index.errors import LimitError, SourceError

MAX_VALUES = 2_000_000
"""A value of two characters takes 60 bytes and more once it is read."""
_MAX_NAME_CHARACTERS = 20_000
"""Of a field with the names of all that it is in, which stand before each value of a record."""
_LONG_CHARACTERS = 600
"""A record longer than this is written field by field, so that a sentence of it can be quoted alone."""
_MAX_HEADING_LEVEL = 6


def read_json(source: str, name: str, into: TextAssembler) -> str | None:
    """Appends a JSON file to `into`; returns its title or name, if it is an object that states one.

    Raises SourceError for a file that is not JSON.
    """
    try:
        value = _parse(source)
    except json.JSONDecodeError as error:
        raise SourceError(f"{name} is not JSON (line {error.lineno}: {error.msg}): correct it there.") from None
    _outline(value, 1, into)
    if isinstance(value, Mapping) and isinstance(value.get("title"), str):
        return one_line(value["title"]) or None
    return None


def read_jsonl(source: str, name: str, into: TextAssembler) -> None:
    """Appends a file with one JSON value a line, each as a record; lines that are none are named in a note.

    Raises SourceError if no line is JSON.
    """
    wrong: list[int] = []
    good = 0
    for number, line in enumerate(source.split("\n"), 1):
        if not line.strip():
            continue
        try:
            _record(_parse(line), into)
        except (json.JSONDecodeError, RecursionError):
            wrong.append(number)
        else:
            good += 1
    if wrong and not good:
        raise SourceError(f"{name} holds no line of JSON (line {wrong[0]} is the first that is none): correct it.")
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        shown = ", ".join(str(number) for number in wrong[:10])
        into.notes.append(f"Lines that are not JSON were left out: {shown}{more}.")


def _parse(source: str) -> Any:
    """The value, numbers as they are written. Raises json.JSONDecodeError, or LimitError for too many values."""
    if sum(source.count(mark) for mark in ",[{") > MAX_VALUES:
        raise LimitError(f"holds more than {MAX_VALUES:,} values: split it.")
    return json.loads(source, parse_int=str, parse_float=str, parse_constant=str)


def _outline(value: Any, level: int, into: TextAssembler) -> None:
    """An object's plain values as lines, then each of its objects and lists under its key as heading."""
    if isinstance(value, list):
        if all(not isinstance(item, Mapping | list) for item in value):
            into.add("list", "\n".join(f"- {_scalar(item)}" for item in value if _scalar(item)))
            return
        for item in value:
            _record(item, into)
        return
    if not isinstance(value, Mapping):
        into.add("paragraph", _scalar(value))
        return
    into.add("paragraph", "\n".join(f"{_words(key)}: {text}" for key, item in value.items() if (text := _plain(item))))
    for key, item in value.items():
        if isinstance(item, Mapping | list) and not _plain(item) and item:
            if level <= _MAX_HEADING_LEVEL:
                into.add("heading", _words(key), level=min(level + 1, _MAX_HEADING_LEVEL))
                _outline(item, level + 1, into)
            else:
                _record({key: item}, into)


def _record(value: Any, into: TextAssembler) -> None:
    """One block: "key: value; key: value", or a field a line where it is long."""
    fields: list[str] = []
    size = 0
    for key, text in _pairs("", value):
        size += len(key) + len(text)
        if size > MAX_CHARACTERS:
            raise LimitError(f"holds more than {MAX_CHARACTERS:,} characters of text: split it.")
        fields.append(f"{key}: {text}" if key else text)
    row = "; ".join(one_line(field) for field in fields)
    if len(row) <= _LONG_CHARACTERS:
        into.add("row", row)
    else:
        into.add("record", "\n".join(fields))


def _pairs(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """The (name, text) pairs of a value, a nested name after its parents' ("address city").

    Raises LimitError for a name that is no name any more.
    """
    if len(prefix) > _MAX_NAME_CHARACTERS:
        raise LimitError(f"has names of more than {_MAX_NAME_CHARACTERS:,} characters: shorten them.")
    plain = _plain(value)
    if plain:
        yield prefix, plain
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _pairs(f"{prefix} {_words(key)}".strip(), item)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(prefix, item)


def _plain(value: Any) -> str:
    """A plain value, or a list of plain ones, as text; nothing for objects and for lists that hold any."""
    if isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            return ""
        return ", ".join(text for item in value if (text := _scalar(item)))
    return "" if isinstance(value, Mapping) else _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value).strip()


def _words(key: str) -> str:
    """A key as words: "delivery_days" and "deliveryDays" become "delivery days"."""
    parted = re.sub(r"(?<=[a-z\d])(?=[A-Z][a-z])", " ", key).replace("_", " ")
    return one_line(parted if parted == key or " " not in parted else _lower(parted))


def _lower(text: str) -> str:
    """Words in lower case, but for abbreviations in capitals."""
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in text.split(" "))
