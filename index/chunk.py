"""Documents to passages, and text to sentences. Knows neither files nor vectors."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from index.document import Block, Document, Passage

CHUNKING_VERSION = 1
"""Raised when passages are cut differently: stored documents are then cut again by the next build."""
MODEL_TOKENS = 254
"""What all-MiniLM-L6-v2 reads: 256 tokens, of which two mark the start and the end."""
_LEAST_TOKENS = 40
_CHARACTERS_PER_TOKEN = 40
"""More than in any text that people write: the tokenizer takes a word of more than 100 characters for one unknown
token, so that without this a megabyte without spaces would be one passage."""
_LONGEST_WORD = 100
"""How far around a full stop is looked for an abbreviation or the next word: to look at the whole line each time
takes minutes for a long one."""
TABLE_FORMATS = frozenset({"csv", "json", "jsonl", "xlsx"})
"""Formats whose every row is a record of its own."""

CountTokens = Callable[[str], int]
Span = tuple[int, int]

_NEVER_LAST = frozenset(
    re.findall(
        r"\S+",
        """e.g i.e cf vs mr mrs ms dr prof st ca approx resp incl excl dept tel ext fig figs eq para sec vol art
        jan feb mar apr jun jul aug sep sept oct nov dec al sr jr""",
    )
)
"""Abbreviations (without their last full stop) after which a sentence goes on, whatever follows."""
_LAST_UNLESS_NUMBER = frozenset(["no", "nos", "nr", "p", "pp"])
_SENTENCE_END = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]+[\"'\u2019\u201d)\]]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*"
)
_OPENING = re.compile(r"[\"'\u2018\u201c(\[\u00bf\u00a1]*(.)", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*\u2022]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_PAIR = re.compile(r"(?:^|; )[^:;.!?\n]{1,60}: ")
_LONG_ITEM_CHARACTERS = 300
"""A list item longer than this holds several sentences that are worth quoting apart."""


def sentences(text: str, start: int = 0) -> list[Span]:
    """Spans of the sentences in `text`, in order, moved by `start`; they cover all but the space between.

    A list item (with its mark), a table row and every line of its own are units that are not split, save
    for items of more than 300 characters.
    """
    found: list[Span] = []
    for line in re.finditer(r"[^\n]+", text):
        first, last = _trim(text, line.start(), line.end())
        if first < last:
            found.extend((start + a, start + b) for a, b in _split_line(text, first, last))
    return found


def _split_line(text: str, first: int, last: int) -> Iterator[Span]:
    line = text[first:last]
    item = _ITEM.match(line)
    if len(_PAIR.findall(line)) >= 2 and _PAIR.match(line):
        yield first, last
        return
    if item and len(line) <= _LONG_ITEM_CHARACTERS:
        yield first, last
        return
    begin = 0
    for end in _SENTENCE_END.finditer(line, item.end() if item else 0):
        if _ends_sentence(line, end):
            a, b = _trim(line, begin, end.end())
            yield first + a, first + b
            begin = end.end()
    a, b = _trim(line, begin, len(line))
    if a < b:
        yield first + a, first + b


def _ends_sentence(line: str, end: re.Match[str]) -> bool:
    rest = line[end.end() : end.end() + _LONGEST_WORD].lstrip()
    if not rest:
        return False
    mark = end.group()
    if mark[0] in "!?\u3002\uff01\uff1f":
        return mark[0] not in "!?" or not _starts_low(rest)
    if _starts_low(rest):
        return False
    before = line[max(0, end.start() - _LONGEST_WORD) : end.start()]
    word = re.split(r"[\s(\[\"'\u201c\u2018/]", before)[-1].lower()
    if mark.startswith("..") or mark[0] == "\u2026":
        return True
    if mark != "." and not mark.startswith(".)"):
        return True
    if word in _NEVER_LAST or (len(word) == 1 and word.isalpha() and line[end.start() - 1].isupper()):
        return False
    return not (word in _LAST_UNLESS_NUMBER and rest[0].isdigit())


def _starts_low(rest: str) -> bool:
    """Whether the text goes on in lower case (or with a mark such as a comma), so that no sentence starts."""
    opening = _OPENING.match(rest)
    letter = opening.group(1) if opening else rest[0]
    return letter.islower() or letter in ",;:.!?)]"


def _trim(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


@dataclass(frozen=True, slots=True)
class _Section:
    """The blocks below one heading, and the path of headings to it."""

    path: str
    blocks: tuple[Block, ...]


def cut(document: Document, chunk_tokens: int, count: CountTokens) -> tuple[Passage, ...]:
    """The passages of a document in order, each of at most `chunk_tokens` tokens, never across a heading or
    a page. Every character of the text is in exactly one passage, but for headings and space between blocks.
    """
    passages: list[Passage] = []
    for section in _sections(document):
        context = count(embedded_text(document.title, section.path, ""))
        limit = max(_LEAST_TOKENS, min(chunk_tokens, MODEL_TOKENS - context))
        for start, end, page in _pack(document, section.blocks, limit, _capped(count, limit)):
            ordinal = len(passages)
            text = document.text[start:end]
            passages.append(
                Passage(f"{document.id}:{ordinal}", document.id, ordinal, start, end, text, section.path, page)
            )
    return tuple(passages)


def _capped(count: CountTokens, limit: int) -> CountTokens:
    """`count`, but more than `limit` at once for a text that is too long to fit whatever it says."""

    def capped(text: str) -> int:
        return limit + 1 if len(text) > limit * _CHARACTERS_PER_TOKEN else count(text)

    return capped


def embedded_text(title: str, section: str, text: str) -> str:
    """What is embedded for a passage: where it stands, then what it says."""
    return "\n".join(part for part in (title, section, text) if part)


def _sections(document: Document) -> Iterator[_Section]:
    """Runs of blocks below one heading. A document of nothing but headings is one section of them."""
    headings = [block for block in document.blocks if block.kind == "heading"]
    tops = [block for block in headings if block.level == 1]
    title = tops[0] if len(tops) == 1 and tops[0] is headings[0] else None
    if len(headings) == len(document.blocks):
        yield _Section("", document.blocks)
        return
    path: list[Block] = []
    body: list[Block] = []
    for block in document.blocks:
        if block.kind != "heading":
            body.append(block)
            continue
        if body:
            yield _Section(_path(document, path), tuple(body))
            body = []
        path = [upper for upper in path if upper.level < block.level]
        if block is not title:
            path.append(block)
    if body:
        yield _Section(_path(document, path), tuple(body))


def _path(document: Document, headings: Sequence[Block]) -> str:
    return " > ".join(document.text[block.start : block.end] for block in headings)


def _pack(
    document: Document, blocks: Sequence[Block], limit: int, count: CountTokens
) -> Iterator[tuple[int, int, int | None]]:
    """Spans (start, end, page) of whole blocks, as many together as fit."""
    current: list[Block] = []
    for piece in _pieces(document, blocks, limit, count):
        if current:
            joins = (
                piece.page == current[0].page
                and not (document.format in TABLE_FORMATS and "row" in (piece.kind, current[-1].kind))
                and count(document.text[current[0].start : piece.end]) <= limit
            )
            if not joins:
                yield current[0].start, current[-1].end, current[0].page
                current = []
        current.append(piece)
    if current:
        yield current[0].start, current[-1].end, current[0].page


def _pieces(document: Document, blocks: Sequence[Block], limit: int, count: CountTokens) -> Iterator[Block]:
    """Blocks that fit; a line that introduces a list is kept with it, a long block comes in parts."""
    at = 0
    while at < len(blocks):
        block = blocks[at]
        following = blocks[at + 1] if at + 1 < len(blocks) else None
        introduces = (
            following is not None
            and following.kind == "list"
            and following.page == block.page
            and document.text[block.end - 1] == ":"
        )
        if following is not None and introduces:
            block = Block("list", block.start, following.end, block.page)
            at += 1
        at += 1
        if count(document.text[block.start : block.end]) <= limit:
            yield block
        else:
            for start, end in _parts(document.text, block.start, block.end, limit, count):
                yield Block(block.kind, start, end, block.page)


def _parts(text: str, start: int, end: int, limit: int, count: CountTokens) -> Iterator[Span]:
    """A long span as runs of whole sentences, as many as fit; a sentence too long is cut between words."""
    first: int | None = None
    last = start
    for a, b in sentences(text[start:end], start):
        if first is not None and count(text[first:b]) > limit:
            yield first, last
            first = None
        if first is None and count(text[a:b]) > limit:
            *whole, (a, b) = _word_runs(text, a, b, limit, count)
            yield from whole
        first = a if first is None else first
        last = b
    if first is not None:
        yield first, last


def _word_runs(text: str, start: int, end: int, limit: int, count: CountTokens) -> list[Span]:
    """Cuts between words so that each run fits; a word that alone does not fit is cut between characters."""
    runs: list[Span] = []
    longest = limit * _CHARACTERS_PER_TOKEN
    while count(text[start : min(end, start + longest + 1)]) > limit:
        low, high = start + 1, start + limit
        while high < min(end, start + longest) and count(text[start:high]) <= limit:
            low, high = high, min(end, start + longest, 2 * high - start)
        while low < high:  # the longest prefix that fits: doubled until one does not, then by bisection
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(text[start:middle]) <= limit else (low, middle - 1)
        space = max((text.rfind(blank, start + 1, low + 1) for blank in " \n"), default=-1)
        stop = space if space > start else low
        a, b = _trim(text, start, stop)
        if a < b:
            runs.append((a, b))
        start = _trim(text, stop, end)[0]
    runs.append((start, end))
    return runs
