"""Assembles a document's plain text block by block, so that every loader's text reads and counts alike.

Knows nothing of file formats.
"""

import re
from collections.abc import Sequence

from index.document import Block
from index.errors import LimitError

MAX_CHARACTERS = 20_000_000
"""More text than this in one source would take hours to embed on a processor."""
MAX_BLOCKS = 400_000
"""A sheet of 400,000 rows is no document to quote from; it belongs in a database."""
MAX_HEADING_CHARACTERS = 300
"""What is longer is no heading, whatever it is marked as: headings are embedded with every passage below them."""
_STORED_KINDS = {"code": "paragraph", "record": "row"}

_LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control, direction-changing, zero-width and tag characters and lone surrogates: a reader cannot see them,
SQLite cannot store some of them, and hidden text in them could speak to a model behind the reader's back."""
_WIDE_SPACES = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SPACES = re.compile(r" {2,}")


def clean(text: str) -> str:
    """`text` with \\n as its only line break and without characters that nobody can see."""
    return _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))


def one_line(text: str) -> str:
    """`text` cleaned, with every run of white space as one space."""
    return " ".join(clean(text).split())


def lines_of(text: str, keep_indent: bool = False) -> str:
    """`text` cleaned line by line: spaces collapsed, blank lines dropped, indentation kept if asked."""
    kept = []
    for line in clean(text).split("\n"):
        plain = _WIDE_SPACES.sub(" ", line).rstrip()
        body = plain.lstrip(" ")
        if body:
            indent = plain[: len(plain) - len(body)] if keep_indent else ""
            kept.append(indent + _SPACES.sub(" ", body))
    return "\n".join(kept)


def row_text(columns: Sequence[str], values: Sequence[str]) -> str:
    """A table row in words: "Column: value; Column: value", empty cells left out.

    A value without a column name stands alone, and so does one that repeats its column's name. Underscores in
    column names are a database's spaces.
    """
    parts = []
    for number, value in enumerate(values):
        column = columns[number].replace("_", " ") if number < len(columns) else ""
        if value:
            parts.append(f"{column}: {value}" if column and column != value else value)
    return "; ".join(parts)


class TextAssembler:
    """Collects blocks in reading order; `text` and `blocks` are the document so far.

    `notes` are sentences for whoever added the file: what was left out, and why. `dated` is the ISO date that the
    source carries outside its text, such as a message's. Raises LimitError beyond MAX_BLOCKS or MAX_CHARACTERS.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self.dated: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, kind: str, text: str, page: int | None = None, level: int = 0) -> None:
        """Appends one block; nothing if no visible character is in it.

        Beside the kinds of a Block, `kind` may be code (a paragraph that keeps its indentation) or record (a row
        of several lines).
        """
        single = kind in ("heading", "row")
        tidy = one_line(text) if single else lines_of(text, keep_indent=kind in ("list", "code"))
        tidy = tidy.strip()
        kind = _STORED_KINDS.get(kind, kind)
        if not tidy:
            return
        if kind == "heading" and len(tidy) > MAX_HEADING_CHARACTERS:
            kind, level = "paragraph", 0
        if self._length + len(tidy) > MAX_CHARACTERS:
            raise LimitError(f"holds more than {MAX_CHARACTERS:,} characters of text: split it.")
        if len(self.blocks) >= MAX_BLOCKS:
            raise LimitError(f"holds more than {MAX_BLOCKS:,} paragraphs and rows: split it.")
        if self.blocks:
            rows = kind == "row" and self.blocks[-1].kind == "row"
            self._append("\n" if rows else "\n\n")
        start = self._length
        self._append(tidy)
        self.blocks.append(Block(kind, start, self._length, page, level))

    def table(self, rows: Sequence[Sequence[str]], page: int | None = None) -> None:
        """Appends a table whose first row holds the column names, as one block per further row."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        cells = [row for row in cells if any(row)]
        if len(cells) == 1:
            self.add("row", "; ".join(cell for cell in cells[0] if cell), page)
        for row in cells[1:]:
            self.add("row", row_text(cells[0], row), page)

    def append(self, other: "TextAssembler", deeper: int) -> None:
        """Appends what `other` holds, its headings `deeper` levels down, without its page numbers."""
        for block in other.blocks:
            text = other.text[block.start : block.end]
            kind = "record" if block.kind == "row" else "code" if block.kind == "paragraph" else block.kind
            self.add(kind, text, None, block.level + deeper if block.level else 0)
        self.notes.extend(other.notes)

    def _append(self, part: str) -> None:
        self._parts.append(part)
        self._length += len(part)
