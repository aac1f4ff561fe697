"""What the embedded model learns from: the desk's documents and pretraining/ files, never an adapter's folder.

Documents are read as plain text (md, txt, html, csv); other formats are left to retrieval.
"""

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import DatasetError
from adapters.prompts import Message


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RestatementRow(_Row):
    """Different people's words for one and the same thing."""

    texts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)


class _DialogueMessage(_Row):
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class DialogueRow(_Row):
    messages: tuple[_DialogueMessage, ...] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class Corpus:
    """`documents`: whole texts; `restatements`: groups of the same meaning; `glossary`: (term, meaning).

    `fingerprint` is the SHA-256 of every text in order: the same corpus has the same one on any machine.
    """

    documents: tuple[str, ...]
    restatements: tuple[tuple[str, ...], ...]
    dialogues: tuple[tuple[Message, ...], ...]
    glossary: tuple[tuple[str, str], ...]

    @property
    def texts(self) -> list[str]:
        """Every text, for the tokenizer."""
        return [
            *self.documents,
            *(text for group in self.restatements for text in group),
            *(message.content for dialogue in self.dialogues for message in dialogue),
            *(f"{term}: {meaning}" for term, meaning in self.glossary),
        ]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode("utf-8") + b"\0")
        return digest.hexdigest()


def read_corpus(desk: Path) -> Corpus:
    """The corpus of the desk in folder `desk`. Raises DatasetError when there is nothing to learn from."""
    folder = desk / "pretraining"
    restatements, dialogues = (
        sorted(folder.glob("restatements*.jsonl")),
        sorted(folder.glob("dialogues*.jsonl")),
    )
    if not (restatements and dialogues and (desk / "documents").is_dir()):
        raise DatasetError(
            f"{desk} lacks documents/, pretraining/restatements.jsonl or pretraining/dialogues.jsonl: "
            "pre-training learns from these."
        )
    return Corpus(
        documents=tuple(text for path in sorted((desk / "documents").rglob("*")) if (text := _plain(path))),
        restatements=tuple(row.texts for path in restatements for row in _read_rows(path, RestatementRow)),
        dialogues=tuple(
            tuple(Message(message.role, message.content) for message in row.messages)
            for path in dialogues
            for row in _read_rows(path, DialogueRow)
        ),
        glossary=_glossary(folder / "glossary.txt"),
    )


RowT = TypeVar("RowT", bound=_Row)


def _read_rows(path: Path, model: type[RowT]) -> list[RowT]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(model.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            raise DatasetError(f"{path}, line {number}: {str(error).splitlines()[0]}.") from None
    return rows


def _glossary(path: Path) -> tuple[tuple[str, str], ...]:
    """Pairs of "term: meaning" lines; a desk need not have the file."""
    if not path.exists():
        return ()
    pairs = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    return tuple((term.strip(), meaning.strip()) for term, meaning in pairs if term.strip() and meaning.strip())


def _plain(path: Path) -> str:
    """A document's text without its markup; "" for a folder or a format that is not read here."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in {".md", ".txt", ".html", ".csv"}:
        return ""
    text = path.read_text(encoding="utf-8")
    if suffix == ".html":
        reader = _HtmlText()
        reader.feed(text)
        text = "".join(reader.parts)
    elif suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        text = "\n".join(", ".join(f"{key}: {value}" for key, value in row.items()) for row in rows)
    else:
        text = re.sub(r"^\s*[#>|-]+\s*|[*`]|\s*\|\s*", " ", text, flags=re.MULTILINE)
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


class _HtmlText(HTMLParser):
    """Collects the visible text; block elements end a line."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in {"style", "script"}
        if tag in {"td", "th"}:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"style", "script"}
        if tag in {"p", "li", "tr", "h1", "h2", "h3", "h4", "title", "div", "dt", "dd"}:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data.replace("\n", " "))
