"""PDF pages to blocks of plain text: lines joined into paragraphs, headings, lists and tables by geometry.

Where the characters come from is pdf_pages.py's business, reading pictures of text that of recognise.py.
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from index.blocks import MAX_HEADING_CHARACTERS, TextAssembler, one_line, row_text
from index.pdf_pages import LIGATURES, pages_named, read_pages
from index.recognise import recognise_pages

_BULLET = re.compile(r"[•◦▪●○■□‣∙·\u2013\-*]\s+(?=\S)")
_LONE_BULLET = re.compile(r"[•◦▪●○■□‣∙]")
_NUMBER = re.compile(r"\(?(\d{1,2}|[a-z])[.)]\s+(?=\S)")
_NUMBERED_HEADING = re.compile(r"(\d{1,2}(?:\.\d{1,2})*)\.?\s+[A-Z]")
_PAGE_NUMBER = re.compile(r"(page\s*)?\d+(\s*(of|/)\s*\d+)?", re.IGNORECASE)
_HYPHENATED = frozenset(("self", "semi", "multi", "cross", "well", "high", "long", "short", "part", "full", "half"))
_LONGEST_PARAGRAPH = 20_000
_MOST_CELLS = 60
"""On one line. Above these two a file is no document, and to join what it holds takes the square of the time."""
_LONGEST_LOOK = 30
"""Lines. Where more than so many stood in columns and were no table, none is looked for again before their end."""
_FIELD_LINE = re.compile(r"[A-Z][\w /'-]{0,40}: ")


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of characters on one line. Points from the page's bottom left; `size` is the font's."""

    text: str
    page: int
    x0: float
    x1: float
    y: float
    size: float
    bold: bool = False


Line = list[Segment]
"""Segments on one baseline, left to right; more than one where wide gaps part them, as in a table."""


def read_pdf(path: Path, name: str, into: TextAssembler) -> str | None:
    """Appends the text of a PDF to `into`, pages counted from 1; returns the title it states, if any.

    Pages without a text layer are read by text recognition where it is installed, and named in a note where not.
    Raises SourceError for a file that is protected by a password, damaged, or over the limits of pdf_process.py.
    """
    read = read_pages(path, name)
    if read.broken:
        into.notes.append(f"Damaged pages were left out: {pages_named(read.broken)}.")
    lines = [_lines([Segment(run[0], number, *run[1:]) for run in runs]) for number, runs in enumerate(read.pages, 1)]
    pages = _without_running_titles(lines)
    sizes = Counter[float]()
    for page in pages:
        for line in page:
            for part in line:
                sizes[round(part.size, 1)] += len(part.text)
    body = sizes.most_common(1)[0][0] if sizes else 10.0
    larger = sorted({size for size in sizes if size > body * 1.12}, reverse=True)[:_MOST_CELLS]
    recognised = recognise_pages(path, read.blank, into.notes)
    _Layout(into, body, larger, _spellings(pages)).write(pages, recognised)
    return one_line(read.title) or None


def _lines(segments: list[Segment]) -> list[Line]:
    """Segments that share a baseline, in reading order: the file's order, table cells sorted left to right."""
    lines: list[Line] = []
    for part in segments:
        for line in reversed(lines[-12:]):
            same = abs(line[0].y - part.y) <= 0.35 * max(part.size, line[0].size) and len(line) < _MOST_CELLS
            if same and all(part.x0 >= other.x1 - 1 or part.x1 <= other.x0 + 1 for other in line):
                line.append(part)
                line.sort(key=lambda segment: segment.x0)
                break
        else:
            lines.append([part])
    return [_joined_bullet(line) for line in lines]


def _joined_bullet(line: Line) -> Line:
    """A bullet or number set apart from its item belongs to it."""
    if len(line) == 2 and (_LONE_BULLET.fullmatch(line[0].text) or re.fullmatch(r"\(?\w{1,2}[.)]", line[0].text)):
        return [replace(line[1], text=f"{line[0].text} {line[1].text}", x0=line[0].x0)]
    return line


def _without_running_titles(pages: list[list[Line]]) -> list[list[Line]]:
    """The pages without page numbers and without the header and footer lines that repeat on them.

    A line among the top or bottom two of its page is a repeat if, digits aside, it stands on at least half
    of the pages (and on two).
    """
    edges: Counter[str] = Counter()
    for page in pages:
        edges.update({_digitless(line) for line in _edge_lines(page)})
    repeated = {text for text, count in edges.items() if count >= max(2, len(pages) / 2)}
    kept = []
    for page in pages:
        dropped = [
            line
            for line in _edge_lines(page)
            if _digitless(line) in repeated or _PAGE_NUMBER.fullmatch(_line_text(line))
        ]
        kept.append([line for line in page if not any(line is other for other in dropped)])
    return kept


def _spellings(pages: list[list[Line]]) -> frozenset[str]:
    """The words that stand whole on a line, in lower case, hyphenated ones as they are."""
    lines = (_line_text(line).lower() for page in pages for line in page)
    return frozenset(word for line in lines for word in re.findall(r"\w+(?:-\w+)*(?![-\w])", line))


def _edge_lines(page: list[Line]) -> list[Line]:
    by_height = sorted(page, key=lambda line: -line[0].y)
    return by_height[:2] + by_height[2:][-2:]


def _digitless(line: Line) -> str:
    return re.sub(r"\d+", "#", _line_text(line))


def _line_text(line: Line) -> str:
    return one_line(" ".join(part.text for part in line))


class _Layout:
    """Writes lines as blocks. Paragraphs go on over a page's end; the first page counts as theirs."""

    def __init__(self, into: TextAssembler, body: float, larger: list[float], words: frozenset[str]) -> None:
        self._spellings = words
        self._into = into
        self._body = body
        self._larger = larger
        self._kind = "paragraph"
        self._texts: list[str] = []
        self._numbers: set[str] = set()
        self._page = 1
        self._last: Segment | None = None
        self._item_x = 0.0

    def write(self, pages: list[list[Line]], recognised: Mapping[int, list[str]]) -> None:
        """Writes all pages; `recognised` holds the paragraphs of those, by number, whose text is in a picture."""
        for number, page in enumerate(pages, 1):
            if number in recognised:
                self._flush()
                self._last = None
                for paragraph in recognised[number]:
                    self._into.add("paragraph", paragraph, number)
                continue
            at = 0
            self._look_from = 0
            while at < len(page):
                taken = self._table(page, at) if len(page[at]) > 1 and at >= self._look_from else 0
                if not taken:
                    self._line(page[at], page[at + 1] if at + 1 < len(page) else None)
                    taken = 1
                at += taken
        self._flush()

    def _line(self, line: Line, following: Line | None) -> None:
        part = replace(line[0], text=one_line_soft(" ".join(s.text for s in line)), x1=line[-1].x1)
        if not part.text:
            return
        level = self._heading_level(part, following)
        bullet = _BULLET.match(part.text)
        number = _NUMBER.match(part.text)
        if level:
            self._heading(part, level)
        elif (bullet or number) and self._opens_item(part, number):
            mark = f"{number.group(1)}. " if number else "- "
            start = number.end() if number else bullet.end() if bullet else 0
            if self._kind != "list":
                self._flush()
                self._kind, self._page = "list", part.page
            self._texts.append(mark + part.text[start:])
            if number:
                self._numbers.add(number.group(1))
            self._item_x = part.x0
        elif self._continues(part):
            self._join(part.text)
        else:
            self._flush()
            self._kind, self._page, self._texts = "paragraph", part.page, [part.text]
        self._last = part

    def _heading(self, part: Segment, level: int) -> None:
        last = self._last
        goes_on = self._kind == "heading" and len(self._texts[-1]) < MAX_HEADING_CHARACTERS
        if goes_on and last and abs(last.size - part.size) < 0.2 and self._near(part, last):
            self._join(part.text)
        else:
            self._flush()
            self._kind, self._page, self._texts = f"heading{level}", part.page, [part.text]
            self._kind = "heading"
            self._level = level

    def _heading_level(self, part: Segment, following: Line | None) -> int:
        """Depth of a heading from 1, by size, else by bold or by numbering with a gap; 0 for other lines."""
        text = part.text
        if len(text) > 120 or not re.search(r"[^\W\d_]", text):
            return 0
        numbered = _NUMBERED_HEADING.match(text)
        depth = numbered.group(1).count(".") + 1 if numbered else 0
        if part.size > self._body * 1.12:
            rank = min(range(len(self._larger)), key=lambda i: abs(self._larger[i] - part.size))
            return min(6, rank + 1)
        if text.endswith((".", ",", ";", ":")) or _BULLET.match(text):
            return 0
        if part.bold and len(text) < 80 and not _FIELD_LINE.match(text):
            return min(6, len(self._larger) + max(1, depth))
        return 0

    def _opens_item(self, part: Segment, number: re.Match[str] | None) -> bool:
        """Whether a mark at the line's start is a list's, not a figure or dash inside a sentence."""
        if number is None or not number.group(1).isdecimal():
            return number is None or self._kind == "list" or number.group(1) == "a"
        value = int(number.group(1))
        if value == 1:
            return True
        return self._kind == "list" and str(value - 1) in self._numbers

    def _near(self, part: Segment, last: Segment) -> bool:
        return part.page == last.page and 0 < last.y - part.y < 1.65 * max(part.size, last.size)

    def _continues(self, part: Segment) -> bool:
        """Whether a line goes on with the block before it."""
        last = self._last
        if last is None or not self._texts or self._kind == "heading" or len(self._texts[-1]) > _LONGEST_PARAGRAPH:
            return False
        if abs(last.size - part.size) > 0.15 * self._body:
            return False
        if part.page != last.page:
            return not re.search(r"[.!?:]$", last.text) and part.text[:1].islower()
        if not self._near(part, last):
            return False
        if self._kind == "list":
            return part.x0 > self._item_x + 1 or not re.search(r"[.!?:;]$", last.text)
        if _FIELD_LINE.match(part.text) and _FIELD_LINE.match(self._texts[-1]):
            self._texts.append("")
        return True

    def _join(self, text: str) -> None:
        before = self._texts[-1]
        if before[-1:] in ("-", "\u00ad") and before[-2:-1].isalpha() and text[:1].islower():
            self._texts[-1] = before[:-1] + ("" if self._is_one_word(before, text) else "-") + text
        elif before.endswith("\u00ad"):
            self._texts[-1] = before[:-1] + "-" + text
        else:
            self._texts[-1] = f"{before} {text}" if before else text

    def _is_one_word(self, before: str, text: str) -> bool:
        """Whether a hyphen at a line's end only parts a word: as the rest of the document spells it, else
        not after e-, re-, self- and the like."""
        first = re.split(r"[^\w]", before[:-1])[-1].lower()
        second = re.split(r"[^\w]", text)[0].lower()
        if f"{first}-{second}" in self._spellings:
            return False
        return f"{first}{second}" in self._spellings or (len(first) > 3 and first not in _HYPHENATED)

    def _flush(self) -> None:
        if self._texts:
            text = "\n".join(self._texts).replace("\u00ad", "")
            level = self._level if self._kind == "heading" else 0
            self._into.add(self._kind, text, self._page, level)
        self._texts, self._kind = [], "paragraph"
        self._numbers.clear()

    _level = 0
    _look_from = 0

    def _table(self, page: list[Line], at: int) -> int:
        """Writes the table that starts at a line; returns how many lines it took, 0 if it is no table."""
        columns = [part.x0 for part in page[at]]
        lines: list[Line] = []
        for line in itertools.islice(page, at, None):
            gap = lines[-1][0].y - line[0].y if lines else 1.0
            if gap <= 0 or gap > 4 * self._body or any(_column(part, columns) is None for part in line):
                break
            lines.append(line)
        rows = _rows(lines, columns)
        if len(rows) < 2 or sum(1 for row in rows if sum(map(bool, row)) > 1) < 2:
            if len(lines) > _LONGEST_LOOK:
                self._look_from = at + len(lines)
            return 0
        self._flush()
        self._last = None
        for row in rows[1:]:
            self._into.add("row", row_text(rows[0], row), lines[0][0].page)
        return len(lines)


def _rows(lines: list[Line], columns: list[float]) -> list[list[str]]:
    """The cells' texts, row by row. Rows stand further apart than the lines of one cell; where all lines
    are evenly apart, each that has something in the first column is a row."""
    gaps = [before[0].y - after[0].y for before, after in pairwise(lines)]
    limit = 1.25 * min(gaps, default=0.0)
    even = max(gaps, default=0.0) <= limit
    cells: list[list[list[str]]] = []
    for number, line in enumerate(lines):
        places = [_column(part, columns) or 0 for part in line]
        opens = number == 0 or (0 in places if even else gaps[number - 1] > limit)
        if opens:
            cells.append([[] for _ in columns])
        for part, place in zip(line, places, strict=True):
            cells[-1][place].append(part.text)
    return [[one_line(one_line_soft(" ".join(cell))) for cell in row] for row in cells]


def _column(part: Segment, columns: list[float]) -> int | None:
    """Which column a segment starts in: none if it starts 3 points or more beside all of them."""
    nearest = min(range(len(columns)), key=lambda index: abs(columns[index] - part.x0))
    return nearest if abs(columns[nearest] - part.x0) < 3 else None


def one_line_soft(text: str) -> str:
    """`text` on one line with ligatures written out; a soft hyphen at its end stays for the joining."""
    tail = "\u00ad" if text.rstrip().endswith("\u00ad") else ""
    return one_line(text.translate(LIGATURES)) + tail
