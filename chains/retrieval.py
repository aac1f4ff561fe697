"""The documents chain: extractive with the embedded model, generative with a model that can read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage
from numpy.typing import NDArray

from adapters.reader import NOT_SAID, READER
from chains.citations import Embed, Quote, attribute, cite, split_codes, verified
from chains.extract import MAX_QUOTES, answers, choose_quotes, unsure
from chains.judge import Judge, Judgement
from chains.prepared import Draft, Prepared
from chains.prompts import UNSURE_OPENING, not_in_documents, passage_codes, reader_prompt
from chains.turn import Citation, Cited, Event, Token
from index.chunk import sentences
from index.document import ScoredPassage, SearchResult
from index.lexical import query_terms
from index.library import Library
from index.related import RelatedDocument

_PIECE = re.compile(r"\S+\s*|\s+")


def answer_from_documents(
    prepared: Prepared,
    judgement: Judgement,
    library: Library,
    judge: Judge,
    embed: Embed,
    model: BaseChatModel | None,
    contact: str,
) -> Iterator[Event | Draft]:
    """Tokens and citations, and last a Draft. `judgement` is of what was found; `model` is None where none can read."""
    if not answers(judgement):
        yield from _not_found(prepared, library, contact)
    elif model is None:
        yield from _extract(prepared, library, judge, judgement, contact)
    else:
        yield from _generate(prepared, library, judgement, embed, model, contact)


def say(text: str) -> Iterator[Token]:
    """The text in pieces of a word, so that a page can show it as it grows."""
    for piece in _PIECE.findall(text):
        yield Token(piece)


_CLOSEST = 3
"""So many documents are named in a refusal."""


def _not_found(prepared: Prepared, library: Library, contact: str) -> Iterator[Event | Draft]:
    """The refusal: what was searched, and what came closest."""
    closest = closest_documents(prepared.found.hits)
    counts = library.counts(prepared.turn.collections)
    yield from say(not_in_documents(counts, [document.title for document in closest], contact))
    yield Draft(refused=True, closest=closest)


def closest_documents(hits: Sequence[ScoredPassage]) -> tuple[RelatedDocument, ...]:
    """The documents of the best hits, each once, best first."""
    found: dict[str, RelatedDocument] = {}
    for hit in hits:
        document = RelatedDocument(hit.passage.document_id, hit.path, hit.title, hit.collection, hit.similarity)
        found.setdefault(hit.passage.document_id, document)
    return tuple(found.values())[:_CLOSEST]


def quote_passages(
    prepared: Prepared, library: Library, judgement: Judgement, most: int, offset: int = 0
) -> tuple[str, tuple[Citation, ...]]:
    """An extractive answer's text and its verified citations; `offset` is where the text will stand.

    Whether steps are wanted, the message's own words say: not the question before it.
    """
    return _compose(choose_quotes(prepared.turn.question, prepared.found.hits, judgement, most), library, offset)


_SPARE = 4
"""How many more passages are asked for, to take the places of out-of-date ones."""


def search_in_force(
    library: Library,
    question: str,
    vector: NDArray[np.float32],
    k: int,
    collections: frozenset[str],
    meant: str | None = None,
) -> SearchResult:
    """The library's `k` best passages for a question, without out-of-date ones that it does not mean.

    `meant` says whether the past is meant, where `question` is not what the sender asked.
    """
    found = library.search(question, vector, k + _SPARE, collections)
    current = in_force(question if meant is None else meant, found.hits)
    older = tuple(hit for hit in found.hits if hit not in current)
    return replace(found, hits=current[:k], older=older)


_PAST = re.compile(
    r"\b(?:19|20)\d\d\b|\b(?:old|older|former|previous(?:ly)?|used to|back then|past)\b|\bbefore\W*$", re.IGNORECASE
)


def in_force(question: str, hits: Sequence[ScoredPassage]) -> tuple[ScoredPassage, ...]:
    """The hits without out-of-date documents, unless the question asks of the past or names one by its title."""
    current = [hit for hit in hits if not hit.outdated]
    if not current or _PAST.search(question):
        return tuple(hits)
    common = {word for hit in current for word in _words(hit.title)}
    asked = _words(question)
    return tuple(hit for hit in hits if not hit.outdated or (_words(hit.title) - common) & asked)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def _compose(quotes: Sequence[Quote], library: Library, offset: int) -> tuple[str, tuple[Citation, ...]]:
    drafts = [cite(number, quote, 0, 0) for number, quote in _numbered(quotes)]
    text = ""
    placed: list[Citation] = []
    for citation in verified(drafts, library.document):
        if text:
            text += "\n\n"
        start = offset + len(text)
        text += citation.quote
        placed.append(_standing(citation, start))
    return text, tuple(placed)


def _numbered(quotes: Sequence[Quote]) -> list[tuple[int, Quote]]:
    """One number per passage, in the order of first use: what answers best goes first."""
    numbers: dict[str, int] = {}
    return [(numbers.setdefault(quote.hit.passage.id, len(numbers) + 1), quote) for quote in quotes]


def _standing(citation: Citation, start: int) -> Citation:
    """The citation with its quote in the answer, from `start` on."""
    return replace(citation, answer_start=start, answer_end=start + len(citation.quote))


def _extract(
    prepared: Prepared, library: Library, judge: Judge, judgement: Judgement, contact: str
) -> Iterator[Event | Draft]:
    opening = UNSURE_OPENING if unsure(judgement) else ""
    quoted, citations = quote_passages(prepared, library, judgement, most=MAX_QUOTES, offset=len(opening))
    text = opening + quoted
    if not citations:
        yield from _not_found(prepared, library, contact)
        return
    position = 0
    for citation in citations:
        yield from say(text[position : citation.answer_end])
        yield Cited(citation)
        position = citation.answer_end
    older = _contradicted(prepared, library, judge, citations, len(text) + len(_OLDER))
    for citation in older:
        yield from say(_OLDER + citation.quote)
        yield Cited(citation)
    yield Draft(citations=(*citations, *older))


_OLDER = "\n\nAn older document, which no longer applies, says: "
AS_LIKELY = 0.005
ALIKE = 0.4
"""What an out-of-date document says is shown from this share of the quoted sentence's odds on, if this share of its
words stands in the quotes: then it says something else of the same matter. If it is likelier than they are, it is shown
anyhow. Chosen on the development turns, of which 21 find such a document and six have one that contradicts."""


def _contradicted(
    prepared: Prepared, library: Library, judge: Judge, citations: Sequence[Citation], offset: int
) -> tuple[Citation, ...]:
    """What an out-of-date document says of the same matter instead; at most one quote."""
    found = prepared.found
    if not found.older:
        return ()
    judgement = judge.judge(prepared.standalone, replace(found, hits=found.hits + found.older))
    current = max(float(odds.max(initial=0.0)) for odds in judgement.sentences[: len(found.hits)])
    past = replace(judgement, sentences=judgement.sentences[len(found.hits) :])
    quotes = choose_quotes(prepared.turn.question, found.older, past, 1)
    if not quotes or quotes[0].score < current * (AS_LIKELY if _is_of(quotes[0].text, citations) else 1):
        return ()
    number = max(citation.number for citation in citations) + 1
    drafts = verified([cite(number, quotes[0], 0, 0)], library.document)
    return tuple(_standing(draft, offset) for draft in drafts)


def _is_of(text: str, citations: Sequence[Citation]) -> bool:
    """Whether the first sentence of a text treats what is cited, in its words."""
    start, end = sentences(text)[0]
    own = set(query_terms(text[start:end]))
    said = {term for citation in citations for term in query_terms(citation.quote)}
    return len(own & said) >= ALIKE * len(own)


def _generate(
    prepared: Prepared, library: Library, judgement: Judgement, embed: Embed, model: BaseChatModel, contact: str
) -> Iterator[Event | Draft]:
    hits = _with_neighbours(library, prepared.found.hits)
    codes = passage_codes(hits)
    prompt = [SystemMessage(READER), reader_prompt(prepared.standalone, hits, codes)]
    text = ""
    pieces = (str(chunk.content) for chunk in model.stream(prompt, user=prepared.turn.user))
    for part in split_codes(pieces, codes):
        if isinstance(part, str):
            text += part
            yield Token(part)
    if NOT_SAID.rstrip(".").lower() in text.lower():
        yield Draft(refused=True)
        return
    drafts, unsupported = attribute(text, hits, embed)
    citations = verified(drafts, library.document)
    for citation in citations:
        yield Cited(citation)
    if not citations:
        quoted, sources = quote_passages(prepared, library, judgement, most=2, offset=len(text) + len(_FALLBACK))
        if sources:
            yield from say(_FALLBACK + quoted)
            for citation in sources:
                yield Cited(citation)
            citations = sources
    yield Draft(citations=citations, unsupported=tuple(unsupported))


_SECTION_TOKENS = 360
"""What a hit brings of its section to a model that reads: about two passages."""


def _with_neighbours(library: Library, hits: Sequence[ScoredPassage]) -> tuple[ScoredPassage, ...]:
    """The hits with the rest of their sections as far as it fits, each passage once, in the order of reading."""
    found = {hit.passage.id: hit for hit in hits}
    order: dict[str, None] = {}
    for hit in hits:
        for passage in library.around(hit, _SECTION_TOKENS):
            found.setdefault(passage.id, replace(hit, passage=passage, sentences=()))
            order.setdefault(passage.id)
    return tuple(found[passage] for passage in order)


_FALLBACK = "\n\nNothing in the documents supports the above. What they say: "
