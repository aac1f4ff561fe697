"""Bytes to text in whatever encoding they are, and plain text to blocks."""

import codecs
import re

from index.blocks import TextAssembler, clean
from index.errors import SourceError

_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s+\S")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f]")
_FOR_NAMES = ("idna", "punycode")
"""Encodings of host names: to read a page in one takes time that grows with the square of its length."""


def decode(data: bytes, name: str) -> str:
    """The text of a file in UTF-8, UTF-16 with its mark, or Windows-1252. Raises SourceError for others."""
    encodings = ["utf-16"] if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        controls = sum(1 for _ in _CONTROLS.finditer(text))
        if controls <= max(1, len(text) // 1000):
            return clean(text)
    raise SourceError(f"{name} is not text in a known encoding: save it as UTF-8.")


def decode_stated(data: bytes, charset: str) -> str | None:
    """The text in the encoding that its sender states; None if there is no such encoding, or the text is not in it."""
    try:
        return None if codecs.lookup(charset).name in _FOR_NAMES else data.decode(charset)
    except (LookupError, ValueError):
        return None


def read_text(source: str, into: TextAssembler) -> None:
    """Paragraphs are parted by empty lines; lines that wrap are joined, those of a list or a form are not."""
    for part in re.split(r"\n[ \t]*\n", source):
        lines = [line for line in part.split("\n") if line.strip()]
        if sum(bool(_ITEM.match(line)) for line in lines) >= max(2, len(lines) / 2):
            into.add("list", "\n".join(lines))
        elif len(lines) > 1 and all(len(line) >= 50 for line in lines[:-1]):
            into.add("paragraph", " ".join(line.strip() for line in lines))
        else:
            into.add("paragraph", "\n".join(lines))
