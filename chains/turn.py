"""What travels through a turn: Turn, RouteDecision, Citation, Answer, and the events the assistant yields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from index.document import DESK_COLLECTION, Passage, ScoredPassage
from index.related import RelatedDocument

BASE_MODEL = "base"
"""The adapter choice that means: the base model, with no adapter."""


class Route(StrEnum):
    RETRIEVAL = "retrieval"
    ADAPTER = "adapter"
    BOTH = "both"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RouteOption:
    """A way to answer a turn: a route, and which adapter or workflow it takes."""

    route: Route
    adapter: str | None = None
    workflow: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn of the conversation, finished or stopped: what was asked (as understood) and what was answered.

    `options` are those between which the answer asked the sender to choose.
    """

    question: str
    answer: str
    options: tuple[RouteOption, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One message and what its sender chose. `route`, `adapter` and `workflow` are None for Auto.

    `may_ask` says whether the turn may end with a clarifying question: no question is put twice.
    """

    question: str
    history: tuple[Exchange, ...] = ()
    route: Route | None = None
    adapter: str | None = None
    workflow: str | None = None
    collections: frozenset[str] = frozenset({DESK_COLLECTION})
    user: str = "local"
    may_ask: bool = True


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """Where a turn goes. `probabilities` sum to 1 over the four routes; `reason` is for people.

    `options` are all ways to answer with their probabilities, likeliest first; they sum to 1 as well.
    `alternative` is set when the turn is ambiguous: another option was about as likely. `own` says that the assistant
    answers itself, about itself. `instead` is what would have been decided if the sender had not chosen (`forced`).
    """

    route: Route
    adapter: str | None
    workflow: str | None
    probabilities: Mapping[Route, float]
    reason: str
    forced: bool = False
    alternative: RouteOption | None = None
    options: tuple[tuple[RouteOption, float], ...] = ()
    own: bool = False
    instead: RouteOption | None = None

    @property
    def option(self) -> RouteOption:
        """The way to answer that was decided on."""
        return RouteOption(self.route, self.adapter, self.workflow)


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote that supports a part of an answer.

    `quote == document text[start:end]`; `answer_start`/`answer_end` are code points in the answer's text.
    `passage_start` places the passage in the document, so that the quote can be marked inside it.
    """

    number: int
    passage: str
    document: str
    document_id: str
    title: str
    page: int | None
    section: str
    start: int
    end: int
    quote: str
    score: float
    answer_start: int
    answer_end: int
    passage_text: str
    passage_start: int

    def as_passage(self) -> Passage:
        """The passage that is quoted, as the library knows it."""
        ordinal = int(self.passage.rpartition(":")[2])
        end = self.passage_start + len(self.passage_text)
        return Passage(
            *(self.passage, self.document_id, ordinal, self.passage_start, end, self.passage_text, self.section),
            page=self.page,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "passage": self.passage,
            "document": self.document,
            "page": self.page,
            "section": self.section,
            "start": self.start,
            "end": self.end,
            "quote": self.quote,
            "score": round(self.score, 4),
            "answer_start": self.answer_start,
            "answer_end": self.answer_end,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished turn. `standalone` is the question as it was understood after the condense step.

    `unsupported` lists spans of the text that no passage supports (generative answers only); `related` are further
    documents about what was cited, or those that a refusal names as the closest. `clarify` are the options of a
    clarifying question, in words, where the text is one. `parts` are the answers of a message with several intents,
    whose texts follow each other in `text`, each under its `heading`; the numbers of their citations run through,
    `answer_start` and `answer_end` are of the part's own text.
    """

    standalone: str
    decision: RouteDecision
    text: str
    refused: bool
    citations: tuple[Citation, ...] = ()
    fields: Mapping[str, str] | None = None
    unsupported: tuple[tuple[int, int], ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    related: tuple[RelatedDocument, ...] = ()
    clarify: tuple[str, ...] = ()
    parts: tuple["Answer", ...] = ()
    heading: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "finished",
            "route": self.decision.route.value,
            "adapter": self.decision.adapter,
            "answer": self.text,
            "refused": self.refused,
            "clarify": list(self.clarify) or None,
            "citations": [citation.to_json() for citation in self.citations],
            "unsupported": [list(span) for span in self.unsupported],
            "fields": dict(self.fields) if self.fields is not None else None,
            "parts": [{"heading": part.heading, **part.to_json()} for part in self.parts] or None,
            "timings_ms": {name: round(ms, 2) for name, ms in self.timings_ms.items()},
        }


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` of `of` begins, under this heading; what follows is of it until the next part or the end."""

    number: int
    of: int
    heading: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "part", "number": self.number, "of": self.of, "heading": self.heading}


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a turn, or a part of it, goes; comes again where it goes on elsewhere."""

    decision: RouteDecision
    standalone: str

    def to_json(self) -> dict[str, Any]:
        decision = self.decision
        return {
            "type": "routed",
            "route": decision.route.value,
            "adapter": decision.adapter,
            "workflow": decision.workflow,
            "reason": decision.reason,
            "forced": decision.forced,
            "probabilities": {route.value: round(p, 4) for route, p in decision.probabilities.items()},
            "standalone": self.standalone,
        }


@dataclass(frozen=True, slots=True)
class Retrieved:
    hits: tuple[ScoredPassage, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "retrieved",
            "passages": [
                {
                    "passage": hit.passage.id,
                    "document": hit.path,
                    "section": hit.passage.section,
                    "page": hit.passage.page,
                    "score": round(hit.score, 4),
                    "similarity": round(hit.similarity, 4),
                }
                for hit in self.hits
            ],
        }


@dataclass(frozen=True, slots=True)
class Token:
    text: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "token", "text": self.text}


@dataclass(frozen=True, slots=True)
class Cited:
    citation: Citation

    def to_json(self) -> dict[str, Any]:
        return {"type": "cited", "number": self.citation.number, **self.citation.to_json()}


@dataclass(frozen=True, slots=True)
class Filled:
    """The structured fields of a workflow, as soon as they are known."""

    fields: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"type": "filled", "fields": dict(self.fields)}


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence for the sender beside the answer; comes before everything else, if at all."""

    message: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "noted", "message": self.message}


@dataclass(frozen=True, slots=True)
class Finished:
    answer: Answer

    def to_json(self) -> dict[str, Any]:
        return self.answer.to_json()


@dataclass(frozen=True, slots=True)
class Failed:
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "failed", "message": self.message}


Event = Noted | Part | Routed | Retrieved | Token | Cited | Filled | Finished | Failed
