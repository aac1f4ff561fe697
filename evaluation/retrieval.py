"""How well the library's search finds what answers, beside each of its halves alone over the whole corpus.

Question sets come in BEIR's layout, or as two public ones: XQuAD-en (Artetxe et al. 2020, arXiv:1910.11856) has 240
paragraphs, each a document here; a hit is the question's own paragraph. COVID-QA (Möller et al. 2020) has long
articles; a hit is a passage that overlaps the answer's span. Settings may be tuned on COVID-QA; XQuAD is for reporting.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from desk.errors import DeskError
from desk.settings import IndexSettings
from evaluation.beir import CorpusRow, QueryRow, read_qrels, read_rows
from evaluation.corpus import COLLECTIONS, Corpus, Place, corpus_of, document_of
from evaluation.ranking import DEPTH, FIGURES, Figure, Judged, Measured, compare
from index.document import Document, Passage
from index.embed import Embedder, open_embedder
from index.lexical import query_terms
from index.search import READ, search

SETS = {"xquad": "xquad/xquad.en.json", "covidqa": "covidqa/200423_covidQA.json"}
METHODS = ("bm25", "dense", "hybrid")
_EMBED_TOGETHER = 256
_TELL_EVERY = 500
_NOT = DEPTH + 1
"""The rank of what is not among the first DEPTH."""

Name = Callable[[Place], str]
"""What a passage is part of, in the words of the judgements."""


@dataclass(frozen=True, slots=True)
class Query:
    """`name` gives the item that a passage is part of, `relevant` the grades of the items that answer."""

    text: str
    name: Name
    relevant: Judged


@dataclass(frozen=True, slots=True)
class Lost:
    """A query for which one half of the search alone ranks something relevant higher than both together do.

    `ranks` are those of the first relevant item by method, None below DEPTH; `wanted` is its passage, `got` the one
    that both together put first.
    """

    ranks: Mapping[str, int | None]
    wanted: str
    got: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A query with the first DEPTH items of each method, best first."""

    query: Query
    items: Mapping[str, tuple[str, ...]]
    lost: Lost | None


@dataclass(frozen=True, slots=True)
class Found:
    """All queries of a set, ranked over so many passages."""

    passages: int
    ranked: tuple[Ranked, ...]


def rank_beir(
    corpus: Path, queries: Path, qrels: Path, settings: IndexSettings, embedder: Embedder | None = None
) -> Found:
    """What each method finds for the queries with a relevant document; a document ranks by its best passage.

    `embedder` is the one that the settings choose unless given. A relevant document that is not in the corpus counts
    as never found, as in trec_eval. Raises DeskError with file and line for bad input.
    """
    judged = read_qrels(qrels)
    asked = [row for row in read_rows(queries, QueryRow) if row.id in judged]
    if not asked:
        raise DeskError(f"No query of {queries} has a relevant document in {qrels}: check that they belong together.")
    if len(asked) < len(judged):
        print(f"{len(judged) - len(asked):,} judged queries are not in {queries}: left out", file=sys.stderr)
    documents = (document_of(row.id, row.title or "", row.text) for row in read_rows(corpus, CorpusRow))
    model = embedder or open_embedder(settings)
    with corpus_of(documents, model, settings) as made:
        lacking = {item for row in asked for item in judged[row.id]} - {place[0] for place in made.passages.values()}
        if lacking:
            print(f"{len(lacking):,} relevant documents are not in {corpus}: counted as not found", file=sys.stderr)
        return _rank(made, model, [Query(row.text, _document_name, judged[row.id]) for row in asked])


def rank_public(data: Path, name: str, settings: IndexSettings) -> Found:
    """The same for a set of SETS. Raises DeskError when its file is not in `data`."""
    path = data / SETS[name]
    if not path.is_file():
        raise DeskError(f"{path} is missing: give the folder that holds {', '.join(SETS.values())} (--data DIR).")
    contexts = list(_contexts(path))
    documents = [document_of(f"{number:04d}", "", context) for number, (context, _) in enumerate(contexts)]
    model = open_embedder(settings)
    with corpus_of(documents, model, settings) as made:
        return _rank(made, model, list(_questions(documents, contexts, whole=name == "xquad")))


def _contexts(path: Path) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """(context, its questions with the first answer's span) of a file in SQuAD's format."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            rows = []
            for row in paragraph["qas"]:
                answer = row["answers"][0]
                rows.append((row["question"], answer["answer_start"], answer["answer_start"] + len(answer["text"])))
            yield paragraph["context"], rows


def _questions(
    documents: Sequence[Document], contexts: Sequence[tuple[str, list[tuple[str, int, int]]]], whole: bool
) -> Iterator[Query]:
    for document, (context, rows) in zip(documents, contexts, strict=True):
        place = _by_printed(document.text)
        for text, first, last in rows:
            if whole:
                yield Query(text, _document_name, {document.id: 1.0})
            else:
                printed = len("".join(context[:first].split())), len("".join(context[:last].split()))
                start, end = place[printed[0]], place[printed[1] - 1] + 1
                yield Query(text, _span_name(document.id, start, end), {"answer": 1.0})


def _by_printed(text: str) -> list[int]:
    """The place of each character that is no white space: the one thing that loading a text changes."""
    return [place for place, character in enumerate(text) if not character.isspace()]


def _document_name(place: Place) -> str:
    return place[0]


def _span_name(wanted: str, start: int, end: int) -> Name:
    """The passages that overlap a span are one item, "answer"; each other passage is one of its own."""

    def name(place: Place) -> str:
        document, first, last = place
        return "answer" if document == wanted and first < end and start < last else f"{document}:{first}"

    return name


def measure(ranked: Sequence[Ranked]) -> dict[str, dict[str, Measured]]:
    """The figures of each method over the queries."""
    return {method: {name: compared(ranked, method, of) for name, of in FIGURES.items()} for method in METHODS}


def compared(ranked: Sequence[Ranked], method: str, of: Figure) -> Measured:
    """A figure of a method, beside that of the hybrid search."""
    ours, theirs = (
        np.array([of(one.items[name], one.query.relevant) for one in ranked]) for name in ("hybrid", method)
    )
    return compare(ours, theirs)


def _rank(made: Corpus, embedder: Embedder, queries: Sequence[Query]) -> Found:
    ranked = []
    for query, vector in zip(queries, _vectors(embedder, queries), strict=True):
        found = rankings(made, query.text, vector, query.name)
        items = {method: tuple(places) for method, places in found.items()}
        ranked.append(Ranked(query, items, _lost(made, query, found)))
        if len(ranked) % _TELL_EVERY == 0:
            print(f"{len(ranked):,} of {len(queries):,} queries asked", file=sys.stderr, flush=True)
    return Found(len(made.passages), tuple(ranked))


def _lost(made: Corpus, query: Query, found: Mapping[str, Mapping[str, Place]]) -> Lost | None:
    relevant = {
        method: next(((rank, item) for rank, item in enumerate(places, 1) if item in query.relevant), (_NOT, ""))
        for method, places in found.items()
    }
    method, (rank, item) = min(relevant.items(), key=lambda pair: pair[1][0])
    if rank >= relevant["hybrid"][0]:
        return None
    ranks = {name: None if at == _NOT else at for name, (at, _) in relevant.items()}
    first = next(iter(found["hybrid"].values()), None)
    return Lost(ranks, _text(made, found[method][item]), _text(made, first) if first else "")


def _text(made: Corpus, place: Place) -> str:
    document, start, _ = place
    return next(one.text for one in made.indexes.store.passages(document) if one.start == start)


def _vectors(embedder: Embedder, queries: Sequence[Query]) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(queries), _EMBED_TOGETHER):
        yield from embedder.embed_queries([query.text for query in queries[first : first + _EMBED_TOGETHER]])


def rankings(made: Corpus, text: str, vector: NDArray[np.float32], name: Name) -> dict[str, dict[str, Place]]:
    """The first DEPTH items of each method for a query, best first, each with its best passage."""

    index = made.indexes.index

    def bm25(n: int) -> list[Place]:
        return [made.passages[number] for number, _ in index.words(query_terms(text), n, COLLECTIONS)]

    def dense(n: int) -> list[Place]:
        return [made.passages[number] for number, _ in index.nearest(vector, n, COLLECTIONS)]

    def hybrid(n: int) -> list[Place]:
        return [_place(hit.passage) for hit in search(made.indexes, text, vector, n, COLLECTIONS).hits]

    most = len(made.passages)
    return {found.__name__: _items(found, name, most) for found in (bm25, dense, hybrid)}


def _items(found: Callable[[int], Sequence[Place]], name: Name, most: int) -> dict[str, Place]:
    """The first DEPTH different items of what a method finds, asked for more until they are that many or all."""
    n = READ
    while True:
        items: dict[str, Place] = {}
        for place in found(n):
            items.setdefault(name(place), place)
        if len(items) >= DEPTH or n >= most:
            return dict(islice(items.items(), DEPTH))
        n *= 4


def _place(passage: Passage) -> Place:
    return passage.document_id, passage.start, passage.end
