"""Citations: made from exact spans, verified against the document's stored text, never forced."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chains.support import LEANS, known_names, supports
from chains.turn import Citation
from index.chunk import sentences
from index.document import Document, ScoredPassage

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SUPPORT = 0.6
"""Cosine from which a passage's sentence may support an answer's sentence; below it the sentence is marked."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A span of a passage to quote. `start`/`end` are code points in the document's text."""

    hit: ScoredPassage
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        offset = self.hit.passage.start
        return self.hit.passage.text[self.start - offset : self.end - offset]


def cite(number: int, quote: Quote, answer_start: int, answer_end: int) -> Citation:
    passage = quote.hit.passage
    return Citation(
        number=number,
        passage=passage.id,
        document=quote.hit.path,
        document_id=passage.document_id,
        title=quote.hit.title,
        page=passage.page,
        section=passage.section,
        start=quote.start,
        end=quote.end,
        quote=quote.text,
        score=quote.score,
        answer_start=answer_start,
        answer_end=answer_end,
        passage_text=passage.text,
        passage_start=passage.start,
    )


def verified(citations: Sequence[Citation], document: Callable[[str], Document | None]) -> tuple[Citation, ...]:
    """Those whose quote is exactly the slice of the document as it is stored now."""
    kept = []
    texts: dict[str, str] = {}
    for citation in citations:
        if citation.document_id not in texts:
            found = document(citation.document_id)
            texts[citation.document_id] = found.text if found else ""
        if texts[citation.document_id][citation.start : citation.end] == citation.quote != "":
            kept.append(citation)
    return tuple(kept)


_CODE = re.compile(r"\[([a-z0-9]{1,8}(?:\s*[,;]\s*[a-z0-9]{1,8})*)\]")
_LONGEST_CODE = 48


def split_codes(pieces: Iterator[str], known: Mapping[str, int]) -> Iterator[str | int]:
    """Text pieces and, where the model wrote `[code]` of a known passage, that passage's place.

    Unknown codes are dropped, also when a code is split over several pieces. Text in brackets that cannot
    be a code passes through.
    """
    held = ""
    for piece in pieces:
        held += piece
        while True:
            opening = held.find("[")
            if opening < 0:
                if held:
                    yield held
                held = ""
                break
            if opening:
                yield held[:opening]
                held = held[opening:]
            found = _CODE.match(held)
            if found:
                for code in re.split(r"\s*[,;]\s*", found.group(1)):
                    if code in known:
                        yield known[code]
                held = held[found.end() :]
            elif "]" in held or len(held) > _LONGEST_CODE:
                yield held[0]
                held = held[1:]
            else:
                break
    if held:
        yield held


def attribute(answer: str, hits: Sequence[ScoredPassage], embed: Embed) -> tuple[list[Citation], list[tuple[int, int]]]:
    """Each sentence of the answer with the passage sentence that supports it, and the unsupported spans.

    What supports is the nearest that states the same amounts, dates and names, and denies the same
    (`chains/support.py`).
    """
    said = sentences(answer)
    sources = [source for hit in hits for source in _sources(hit)]
    if not said or not sources:
        return [], list(said)
    vectors = embed([answer[start:end] for start, end in said] + [source.quote.text for source in sources])
    similarity = vectors[: len(said)] @ vectors[len(said) :].T
    names = known_names([hit.passage.text for hit in hits])
    citations: list[Citation] = []
    unsupported: list[tuple[int, int]] = []
    numbers: dict[str, int] = {}
    for row, (start, end) in zip(similarity, said, strict=True):
        near = [int(place) for place in np.argsort(-row, kind="stable") if row[place] >= SUPPORT]
        text = answer[start:end]
        best = next((n for n in near if supports(text, sources[n].quote.text, sources[n].around, names)), None)
        if best is None:
            unsupported.append((start, end))
            continue
        quote = replace(sources[best].quote, score=float(row[best]))
        number = numbers.setdefault(quote.hit.passage.id, len(numbers) + 1)
        citations.append(cite(number, quote, start, end))
    return citations, unsupported


@dataclass(frozen=True, slots=True)
class _Source:
    """A sentence of a passage; `around` are its headings, and the sentence before it if it leans on that."""

    quote: Quote
    around: str


def _sources(hit: ScoredPassage) -> Iterator[_Source]:
    before = ""
    for start, end in sentences(hit.passage.text, hit.passage.start):
        quote = Quote(hit, start, end, 0.0)
        leaned_on = before if LEANS.match(quote.text) else ""
        yield _Source(quote, f"{hit.title}\n{hit.passage.section}\n{leaned_on}")
        before = quote.text
