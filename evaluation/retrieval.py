"""How well the library finds passages on public question sets, beside each of its halves alone.

XQuAD-en (Artetxe et al. 2020, arXiv:1910.11856) has 240 paragraphs, each a document here: a hit is the question's own
paragraph. COVID-QA (Möller et al. 2020) has long articles: a hit is a passage that overlaps the answer's span.
Settings may be tuned on COVID-QA; XQuAD is for reporting.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from desk.config import IndexSettings
from desk.errors import DeskError
from index.document import DESK_COLLECTION, ScoredPassage
from index.library import Library, open_library
from index.search import LEXICAL_WEIGHT

SETS = {"xquad": "xquad/xquad.en.json", "covidqa": "covidqa/200423_covidQA.json"}
DEPTH = 50
"""Hits that are ranked anew for the halves: as many as each half puts forward, so their first ranks are exact."""
RESAMPLES = 2000
SEED = 20265

Ranks = list[NDArray[np.bool_]]
"""Per question, whether the hit at each rank is right."""


@dataclass(frozen=True, slots=True)
class Question:
    """`start` and `end` are the answer's span in the document's text as it was loaded; a whole paragraph for XQuAD."""

    text: str
    document: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, its 95% interval, and that of "hybrid minus this"; both by the paired bootstrap."""

    value: float
    interval: tuple[float, float]
    behind: tuple[float, float]


def measure_retrieval(
    data: Path, name: str, settings: IndexSettings
) -> tuple[int, int, dict[str, dict[str, Measured]]]:
    """(questions, passages, figures per method). Raises DeskError when the set's file is not in `data`."""
    path = data / SETS[name]
    if not path.is_file():
        raise DeskError(f"{path} is missing: give the folder that holds {', '.join(SETS.values())} (--data DIR).")
    paragraphs = list(_paragraphs(path))
    with _library([context for context, _ in paragraphs], settings) as library:
        questions = list(_questions(library, paragraphs, whole=name == "xquad"))
        ranked = _ask(library, questions, by_document=name == "xquad")
        passages = library.status().passages
    ours = {figure: _figure(ranked["hybrid"], figure) for figure in FIGURES}
    report = {
        method: {figure: _compare(ours[figure], _figure(ranks, figure)) for figure in FIGURES}
        for method, ranks in ranked.items()
    }
    return len(questions), passages, report


def _paragraphs(path: Path) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """(context, its questions with the first answer's span) of a file in SQuAD's format."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            rows = []
            for row in paragraph["qas"]:
                answer = row["answers"][0]
                rows.append((row["question"], answer["answer_start"], answer["answer_start"] + len(answer["text"])))
            yield paragraph["context"], rows


@contextmanager
def _library(texts: Sequence[str], settings: IndexSettings) -> Iterator[Library]:
    """A library of its own with one text file a document, gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "documents"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / _file(number)).write_text(text, encoding="utf-8")
        library = open_library(replace(settings, documents=folder, state=Path(scratch) / "state"))
        try:
            yield library
        finally:
            library.close()


def _file(number: int) -> str:
    return f"{number:04d}.txt"


def _questions(
    library: Library, paragraphs: Sequence[tuple[str, list[tuple[str, int, int]]]], whole: bool
) -> Iterator[Question]:
    ids = {Path(info.path).name: info.id for info in library.documents()}
    for number, (context, rows) in enumerate(paragraphs):
        document = library.document(ids[_file(number)])
        assert document is not None
        place = _by_printed(document.text)
        for text, start, end in rows:
            if whole:
                yield Question(text, document.id, 0, len(document.text))
            else:
                printed = len("".join(context[:start].split())), len("".join(context[:end].split()))
                yield Question(text, document.id, place[printed[0]], place[printed[1] - 1] + 1)


def _by_printed(text: str) -> list[int]:
    """The place of each character that is no white space: the one thing that loading a text changes."""
    return [place for place, character in enumerate(text) if not character.isspace()]


def _ask(library: Library, questions: Sequence[Question], by_document: bool) -> dict[str, Ranks]:
    """Ranks by method. A hit's score is its cosine plus LEXICAL_WEIGHT x BM25, so both halves can be had from it."""
    methods: Mapping[str, Callable[[ScoredPassage], float]] = {
        "hybrid": lambda hit: hit.score,
        "vectors": lambda hit: hit.similarity,
        "bm25": lambda hit: (hit.score - hit.similarity) / LEXICAL_WEIGHT,
    }
    vectors = library.embedder.embed([question.text for question in questions])
    ranked: dict[str, Ranks] = {method: [] for method in methods}
    for question, vector in zip(questions, vectors, strict=True):
        hits = library.search(question.text, vector, 2 * DEPTH, frozenset({DESK_COLLECTION})).hits
        for method, score in methods.items():
            order = sorted(hits, key=score, reverse=True)[:DEPTH]
            ranked[method].append(_right(order, question, by_document))
    return ranked


def _right(hits: Sequence[ScoredPassage], question: Question, by_document: bool) -> NDArray[np.bool_]:
    """Whether each hit is right; with `by_document` a document counts once, at its best rank."""
    rows, seen = [], set()
    for hit in hits:
        passage = hit.passage
        if by_document and passage.document_id in seen:
            continue
        seen.add(passage.document_id)
        inside = passage.start < question.end and question.start < passage.end
        rows.append(passage.document_id == question.document and inside)
    return np.array(rows, dtype=np.bool_)


def _ndcg(ranks: NDArray[np.bool_]) -> float:
    """nDCG@10 with gains of 0 and 1; the ideal has as many right hits as were found at all, and at least one."""
    gains = 1 / np.log2(np.arange(2, 12))
    best = float(gains[: max(1, min(10, int(ranks.sum())))].sum())
    return float(gains[: len(ranks[:10])][ranks[:10]].sum()) / best


FIGURES: Mapping[str, Callable[[NDArray[np.bool_]], float]] = {
    "recall@1": lambda ranks: float(ranks[:1].any()),
    "recall@5": lambda ranks: float(ranks[:5].any()),
    "nDCG@10": _ndcg,
}


def _figure(ranks: Ranks, figure: str) -> NDArray[np.float64]:
    return np.array([FIGURES[figure](one) for one in ranks])


def _compare(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Measured:
    """Of `theirs`, over the same resampled questions for both."""
    draws = np.random.default_rng(SEED).integers(0, len(ours), (RESAMPLES, len(ours)))
    return Measured(float(theirs.mean()), _middle(theirs[draws]), _middle((ours - theirs)[draws]))


def _middle(samples: NDArray[np.float64]) -> tuple[float, float]:
    """The range that holds 95% of the samples' means."""
    low, high = np.quantile(samples.mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
