"""HTML to blocks of plain text: headings, paragraphs, lists, tables. Drops scripts, styles and navigation."""

import re

from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import CData, PreformattedString

from index.blocks import TextAssembler, one_line
from index.errors import LimitError

MAX_TAGS = 300_000
"""A tag takes about a kilobyte and 25 microseconds; a manual of 1,000 pages on one page has 100,000."""
MAX_DEPTH = 2_000
"""Elements within elements. Reading goes by recursion and ends far earlier, but the parser itself takes time that
grows with the square of the depth."""
_PARSER = "lxml"
"""Not html.parser: that one nests list items and cells whose end tags are left out, as HTML allows."""
_DROPPED = frozenset(
    re.findall(
        r"\w+",
        "script style nav noscript template svg math head iframe object canvas audio video select button",
    )
)
_INLINE = frozenset(
    re.findall(
        r"\w+",
        """a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark meter
        output progress q rp rt ruby s samp small span strike strong sub sup time tt u var wbr""",
    )
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*)")
_INTERNAL_SUBSET = re.compile(r"<!DOCTYPE[^>\[]*\[[^\]]*\]\s*>")
"""Declarations of entities, which XHTML may hold; what HTML's parser does not know of it, it takes for text."""
_CLOSED_BY_ITSELF = frozenset(
    re.findall(
        r"\w+",
        """area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody tfoot
        option optgroup colgroup rt rp""",
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read_html(source: str, into: TextAssembler) -> str | None:
    """Appends the body of `source` to `into`; returns the text of <title>, if any.

    Raises LimitError for more than MAX_TAGS tags, RecursionError for a page that is nested too deeply.
    """
    _check(source)
    soup = BeautifulSoup(_INTERNAL_SUBSET.sub("", source, count=1), _PARSER)
    title = one_line(soup.title.get_text()) if soup.title else ""
    _Walker(into).walk(soup.body or soup)
    return title or None


def html_text(fragment: str) -> str:
    """The plain text of a piece of HTML, one line per block."""
    _check(fragment)
    into = TextAssembler()
    _Walker(into).walk(BeautifulSoup(fragment, _PARSER))
    return into.text


def _check(source: str) -> None:
    """Raises LimitError or RecursionError for a page that would take the parser too long.

    Depth is counted without the elements that HTML closes by itself.
    """
    depth = tags = 0
    opened: dict[str, int] = {}
    for tag in _TAG.finditer(source):
        tags += 1
        if tags > MAX_TAGS:
            raise LimitError(f"has more than {MAX_TAGS:,} tags: split it.")
        name = tag.group(2).lower()
        if name in _CLOSED_BY_ITSELF:
            continue
        if not tag.group(1):
            opened[name] = opened.get(name, 0) + 1
            depth += 1
        elif opened.get(name):
            opened[name] -= 1
            depth -= 1
        if depth > MAX_DEPTH:
            raise RecursionError


class _Walker:
    """Goes through a tree once; inline text is gathered until a block element starts or ends."""

    def __init__(self, into: TextAssembler) -> None:
        self._into = into
        self._inline: list[str] = []

    def walk(self, root: Tag) -> None:
        self._children(root)
        self._flush()

    def _children(self, tag: Tag) -> None:
        for child in tag.children:
            if isinstance(child, Tag):
                self._tag(child)
            else:
                self._inline.append(_words(child))

    def _tag(self, tag: Tag) -> None:
        if _is_dropped(tag):
            return
        if tag.name == "br":
            self._inline.append("\v")
        elif tag.name in _INLINE:
            self._inline.append(_label(tag))
            self._children(tag)
        else:
            self._flush()
            self._block(tag)
            self._flush()

    def _block(self, tag: Tag) -> None:
        if tag.name in _HEADINGS:
            self._into.add("heading", _text(tag), level=_HEADINGS[tag.name])
        elif tag.name in ("ul", "ol", "menu"):
            self._into.add("list", "\n".join(_list(tag, "")))
        elif tag.name == "dl":
            self._into.add("list", "\n".join(_definitions(tag)))
        elif tag.name == "table":
            self._table(tag)
        elif tag.name == "pre":
            self._into.add("code", tag.get_text())
        else:
            self._children(tag)

    def _table(self, table: Tag) -> None:
        caption = table.find("caption")
        if isinstance(caption, Tag):
            self._into.add("paragraph", _text(caption))
        rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
        cells = [list(row.find_all(["td", "th"], recursive=False)) for row in rows]
        written = [_spread(row) for row in cells]
        if cells and all(len(row) <= 1 for row in cells):
            for row in cells:
                for cell in row:
                    self._tag_as_text(cell)
        elif cells and not any(cell.name == "th" for cell in cells[0]) and _headed_by_rows(cells):
            self._into.add("list", "\n".join(f"{row[0]}: {'; '.join(row[1:])}" for row in written))
        else:
            self._into.table(written)

    def _tag_as_text(self, cell: Tag) -> None:
        """A table of one column lays out text: read what is in it as if the table were not there."""
        self._children(cell)
        self._flush()

    def _flush(self) -> None:
        text = _join("".join(self._inline))
        self._inline.clear()
        self._into.add("paragraph", text)


def _headed_by_rows(cells: list[list[Tag]]) -> bool:
    return all(len(row) > 1 and row[0].name == "th" for row in cells)


def _spread(row: list[Tag]) -> list[str]:
    """The cells' texts; one that spans columns is followed by empty cells."""
    texts = []
    for cell in row:
        span = str(cell.get("colspan") or "1")
        width = int(span) if re.fullmatch(r"[0-9]{1,4}", span) else 1
        texts.append(_text(cell))
        texts.extend([""] * (min(width, 100) - 1))
    return texts


def _list(tag: Tag, indent: str) -> list[str]:
    start = str(tag.get("start") or "1")
    number = int(start) if re.fullmatch(r"-?[0-9]{1,9}", start) else 1
    lines = []
    for item in tag.find_all("li", recursive=False):
        mark = f"{number}. " if tag.name == "ol" else "- "
        inner = indent + " " * len(mark)
        own: list[str] = []
        nested: list[str] = []
        for child in item.children:
            if isinstance(child, Tag) and child.name in ("ul", "ol", "menu"):
                nested.extend(_list(child, inner))
            elif isinstance(child, Tag):
                block = child.name not in _INLINE and child.name != "br"
                own.append(f"\v{_marked(child)}\v" if block else _marked(child))
            else:
                own.append(_words(child))
        body = [line for line in _join("".join(own)).split("\n") if line]
        if body or nested:
            lines.append(indent + mark + (body[0] if body else ""))
            lines.extend(inner + line for line in body[1:])
            lines.extend(nested)
        number += 1
    return lines


def _definitions(tag: Tag) -> list[str]:
    lines: list[str] = []
    term = ""
    for part in tag.find_all(["dt", "dd"]):
        if part.name == "dt":
            term = _text(part)
        else:
            lines.append(f"- {term}: {_text(part)}" if term else f"- {_text(part)}")
    return lines


def _text(tag: Tag) -> str:
    return one_line(_marked(tag).replace("\v", " "))


def _marked(tag: Tag) -> str:
    """The words in a tag with \\v where a line ends."""
    if _is_dropped(tag):
        return ""
    if tag.name == "br":
        return "\v"
    pieces = [_label(tag)]
    for child in tag.children:
        if isinstance(child, Tag):
            block = child.name not in _INLINE and child.name != "br"
            pieces.append(f"\v{_marked(child)}\v" if block else _marked(child))
        else:
            pieces.append(_words(child))
    return "".join(pieces)


def _label(tag: Tag) -> str:
    return str(tag.get("alt") or "") if tag.name == "img" else ""


def _words(node: object) -> str:
    if isinstance(node, PreformattedString) and not isinstance(node, CData):
        return ""
    return str(node).replace("\v", " ") if isinstance(node, NavigableString) else ""


def _join(text: str) -> str:
    return "\n".join(line for line in (one_line(part) for part in text.split("\v")) if line)


def _is_dropped(tag: Tag) -> bool:
    return tag.name in _DROPPED or tag.get("aria-hidden") == "true" or tag.has_attr("hidden")
