"""The workflow chain: the adapter fills the fields, the documents support the drafted reply."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adapters.engine import Message
from adapters.errors import ModelError
from chains.citations import Embed
from chains.engines import AnyEngine
from chains.errors import ServerError, TurnError
from chains.judge import Judge
from chains.prepared import Draft, Prepared
from chains.retrieval import quote_passages, say, search_in_force
from chains.turn import Cited, Event, Filled
from desk.desk_file import WorkflowFile
from index.document import SearchResult
from index.library import Library

_ORDER = re.compile(
    r"^[^\n:>]{0,100}?\b(?:triage|sort|sorted|classify|categori[sz]e|prioriti[sz]e|assign|route|process|handle|assess|"
    r"file|ticket|request|queue|category|message)\b[^\n:>]{0,80}(?::|\n|>+)[\s>-]*",
    re.IGNORECASE,
)
DRAFT_EVIDENCE = 0.37
"""A drafted reply quotes passages of this evidence and more. Of the development half's 15 tickets nine have a passage
that helps above it and one below; no best passage that is beside the point reaches it."""
_NO_PASSAGE = "No document matches this ticket closely enough to be quoted."


def ticket_text(message: str) -> str:
    """The ticket without the order in front of it ("Sort this ticket: ..."); the message if nothing is left."""
    rest = _ORDER.sub("", message, count=1).strip()
    return rest or message.strip()


LookUp = Callable[[str, NDArray[np.float32]], tuple[SearchResult, bool]]
"""`look_up` of a message and its vector, for one turn."""


def look_up(
    library: Library, embed: Embed, question: str, vector: NDArray[np.float32], k: int, collections: frozenset[str]
) -> tuple[SearchResult, bool]:
    """What the library says of a message, searched as the ticket it may hold; and whether an order precedes it."""
    ticket = ticket_text(question)
    ordered = ticket != question.strip()
    own = embed([ticket])[0] if ordered else vector
    return search_in_force(library, ticket, own, k, collections), ordered


def run_workflow(
    prepared: Prepared, workflow: WorkflowFile, engine: AnyEngine, library: Library, judge: Judge
) -> Iterator[Event | Draft]:
    """Fields first, then the drafted reply with cited passages, and last a Draft."""
    ticket = ticket_text(prepared.standalone)
    message = Message("user", f"{workflow.instruction}\n{ticket}")
    choices = {name: field.choices for name, field in workflow.fields.items()}
    try:
        fields = engine.fill([message], workflow.adapter, choices, user=prepared.turn.user)
    except ServerError:
        raise
    except ModelError as error:
        raise TurnError(f"{workflow.title}: {error}") from error
    yield Filled(fields)
    opening = workflow.reply_opening.format_map(fields) + "\n\n"
    yield from say(opening)
    # A reply that quotes beside the point is worse than one that quotes nothing.
    strong = tuple(hit for hit in prepared.found.hits if hit.evidence >= DRAFT_EVIDENCE)
    turn = replace(prepared.turn, question=ticket)
    about = replace(prepared, turn=turn, standalone=ticket, found=replace(prepared.found, hits=strong))
    judgement = judge.judge(ticket, about.found)
    quoted, citations = quote_passages(about, library, judgement, most=2, offset=len(opening))
    yield from say(quoted or _NO_PASSAGE)
    for citation in citations:
        yield Cited(citation)
    yield from say("\n\n" + workflow.reply_closing)
    yield Draft(citations=citations, fields=fields)
