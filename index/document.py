"""The words of the library: Document, Passage, ScoredPassage. Holds no behaviour beyond slicing text."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DESK_COLLECTION = "desk"
"""The collection every user of the desk may read; an upload goes into its owner's own collection."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of a document's text that is never split in its middle if it can be helped.

    `kind` is heading, paragraph, list (a whole list), or row (a table row written with its column names).
    `start`/`end` are code points in the document's text; `level` is the heading's depth from 1.
    """

    kind: str
    start: int
    end: int
    page: int | None = None
    level: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """One source as stored: its plain text and where its blocks are in it.

    `path` is relative to the desk (documents/it/x.md) or the name of an upload; `id` is stable for a path
    of the desk and random elsewhere; `content_hash` is the SHA-256 of the file's bytes;
    `updated` is the ISO date that the text itself states, if any; `outdated` is whether the text says at
    its head that it no longer applies; `address` is where a connector found it; `notes` are sentences for whoever
    added it: what was left out, and why.
    """

    id: str
    path: str
    title: str
    format: str
    text: str
    content_hash: str
    collection: str = DESK_COLLECTION
    blocks: tuple[Block, ...] = field(default=())
    updated: str | None = None
    outdated: bool = False
    address: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document as listed, without its text. `characters` and `passages` are counts; `added_at` is UTC."""

    id: str
    path: str
    title: str
    format: str
    collection: str
    updated: str | None
    outdated: bool
    characters: int
    passages: int
    pages: int | None
    added_at: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is exactly `document.text[start:end]`.

    `section` is the heading path ("Set-up > On a phone"), `page` counts from 1 where the format has pages.
    """

    id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    text: str
    section: str
    page: int | None


@dataclass(frozen=True, slots=True)
class ScoredPassage:
    """A search hit. `score` is the fused one (higher is better), `similarity` the cosine of the passage's nearest
    sentence in [-1, 1], `sentences` that of each of its sentences in order (those of `index.chunk.sentences`),
    `coverage` the share, weighted by rarity, of the query's terms that occur in the passage, in [0, 1]."""

    passage: Passage
    path: str
    title: str
    collection: str
    score: float
    similarity: float
    coverage: float
    updated: str | None = None
    outdated: bool = False
    sentences: tuple[float, ...] = ()

    @property
    def evidence(self) -> float:
        """How clearly the passage is about the query: the mean of cosine and coverage, in [-0.5, 1]."""
        return 0.5 * self.similarity + 0.5 * self.coverage


@dataclass(frozen=True, slots=True)
class Filter:
    """What a search is narrowed to, beside what may be read; None narrows nothing.

    `source` is a document's path or a folder above it, `formats` are names as in `Document.format`; `since` and `until`
    are ISO dates, both inclusive, which only documents that state a date can satisfy.
    """

    source: str | None = None
    formats: frozenset[str] | None = None
    since: str | None = None
    until: str | None = None


NO_FILTER = Filter()
NO_GROUPS: frozenset[str] = frozenset()
"""There are no accounts yet: whoever has the page open is in no group."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, and what the library as a whole says about the query.

    `older` are out-of-date hits that whoever searched left out.

    `known_terms` is the share, weighted by rarity, of the query's terms that occur anywhere in the readable
    collections; 0.0 for a query that has no terms beside stop words. `term_weights` gives each query term's
    rarity, which `index.search.coverage` weighs a text with.
    """

    hits: tuple[ScoredPassage, ...]
    known_terms: float
    term_weights: Mapping[str, float] = field(default_factory=dict)
    older: tuple[ScoredPassage, ...] = ()
