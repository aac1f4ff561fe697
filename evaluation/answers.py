"""How well answers from the documents hold up: whether the sentence that answers is quoted, its passage cited, and what
no passage answers refused.

Rows name their gold document and its answers, so any questions over any corpus can be measured. Nothing is chosen on
them: the quotes and the refusals are those of the chat, and the search is its hybrid one.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from chains.citations import Quote
from chains.extract import answers, choose_quotes
from chains.judge import Judge, Judgement, open_judge
from desk.errors import DeskError
from desk.settings import IndexSettings
from evaluation.beir import CorpusRow, first_fault, lines_of, read_rows
from evaluation.corpus import COLLECTIONS, Corpus, corpus_of, document_of
from evaluation.retrieval import SETS
from evaluation.right import flat
from evaluation.share import Refusals, Share
from index.chunk import sentences
from index.document import ScoredPassage
from index.embed import Embedder, open_embedder
from index.search import search

_EMBED_TOGETHER = 256
_TELL_EVERY = 500


class QuestionRow(BaseModel):
    """A question; an answerable one names the document (`passage_id`, an _id of the corpus) and texts that answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    question: str
    answerable: bool
    passage_id: str | None = None
    answers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_what_answers(self) -> "QuestionRow":
        if self.answerable and not (self.passage_id and self.answers):
            raise ValueError("an answerable question needs passage_id and at least one of answers")
        return self


@dataclass(frozen=True, slots=True)
class Stated:
    """What the judge says of a question: how likely it is that nothing found answers, and that the likeliest one does;
    and whether that one holds a gold answer."""

    unanswered: float
    best: float
    best_right: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question: `hits` says of each quoted sentence, in order, whether it holds a gold answer, `cited`
    of each quote whether it is of the gold document. Both are empty for a refusal."""

    row: QuestionRow
    stated: Stated
    quotes: tuple[str, ...]
    hits: tuple[bool, ...]
    cited: tuple[bool, ...]

    @property
    def refused(self) -> bool:
        return not self.cited


def read_questions(path: Path) -> list[QuestionRow]:
    """The rows of a JSONL file. Raises DeskError with file and line for a bad one."""
    rows = []
    for number, line in lines_of(path):
        try:
            rows.append(QuestionRow.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            raise DeskError(f"{path}, line {number}: not JSON ({error.msg}): write one object a line.") from None
        except ValidationError as error:
            raise DeskError(f"{path}, line {number}: {first_fault(error.errors())}.") from None
    return rows


def measure_answers(
    corpus: Path, questions: Path, settings: IndexSettings, embedder: Embedder | None = None
) -> list[Outcome]:
    """What comes of each question over the corpus. Raises DeskError for bad input, or a gold document it lacks."""
    asked = read_questions(questions)
    if not asked:
        raise DeskError(f"{questions} holds no question.")
    documents = [document_of(row.id, row.title or "", row.text) for row in read_rows(corpus, CorpusRow)]
    lacking = {row.passage_id for row in asked if row.answerable} - {document.id for document in documents}
    if lacking:
        raise DeskError(
            f"{questions} names {len(lacking):,} documents that {corpus} lacks, such as {min(map(str, lacking))!r}."
        )
    model = embedder or open_embedder(settings)
    judge = open_judge(settings.models, settings.threads)
    with corpus_of(documents, model, settings) as made:
        return list(_outcomes(made, model, judge, asked, settings.passages))


def _outcomes(
    made: Corpus, embedder: Embedder, judge: Judge, asked: Sequence[QuestionRow], k: int
) -> Iterator[Outcome]:
    for first in range(0, len(asked), _EMBED_TOGETHER):
        group = asked[first : first + _EMBED_TOGETHER]
        for row, vector in zip(group, embedder.embed_queries([row.question for row in group]), strict=True):
            found = search(made.indexes, row.question, vector, k, COLLECTIONS)
            judgement = judge.judge(row.question, found)
            quotes = choose_quotes(row.question, found.hits, judgement) if answers(judgement) else []
            yield outcome(row, quotes, stated_of(row, found.hits, judgement))
        if first // _TELL_EVERY != (first + len(group)) // _TELL_EVERY:
            print(f"{first + len(group):,} of {len(asked):,} questions asked", file=sys.stderr, flush=True)


def stated_of(row: QuestionRow, hits: Sequence[ScoredPassage], judgement: Judgement) -> Stated:
    """What the judge says of the hits' sentences, beside the row's answers."""
    spoken = [hit.passage.text[start:end] for hit in hits for start, end in sentences(hit.passage.text)]
    if not spoken:
        return Stated(judgement.unanswered, 0.0, False)
    odds = np.concatenate(judgement.sentences)
    likeliest = int(odds.argmax())
    return Stated(judgement.unanswered, float(odds[likeliest]), holds_answer(row, spoken[likeliest]))


def outcome(row: QuestionRow, quotes: Sequence[Quote], stated: Stated) -> Outcome:
    """How the quotes in answer to a question compare with its row."""
    quoted = [quote.text[start:end] for quote in quotes for start, end in sentences(quote.text)]
    return Outcome(
        row,
        stated,
        tuple(quote.text for quote in quotes),
        tuple(holds_answer(row, text) for text in quoted),
        tuple(quote.hit.passage.document_id == row.passage_id for quote in quotes),
    )


def holds_answer(row: QuestionRow, text: str) -> bool:
    """Whether one of the row's answers stands in the text, whatever its case and white space."""
    said = flat(text)
    return any(flat(answer) in said for answer in row.answers)


def measure_xquad(
    data: Path, settings: IndexSettings, embedder: Embedder | None = None
) -> tuple[list[Outcome], list[Outcome]]:
    """XQuAD-en's questions over its 240 paragraphs; and over the half of the paragraphs with an even number, so that
    the questions of the others have no answer there. Raises DeskError when the file is missing."""
    path = data / SETS["xquad"]
    if not path.is_file():
        raise DeskError(f"{path} is missing: give the folder that holds {SETS['xquad']} (--data DIR).")
    paragraphs = [
        paragraph
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    documents = [document_of(f"{number:04d}", "", one["context"]) for number, one in enumerate(paragraphs)]
    asked = [
        QuestionRow(
            question=row["question"],
            answerable=True,
            passage_id=documents[number].id,
            answers=tuple(dict.fromkeys(answer["text"] for answer in row["answers"])),
        )
        for number, one in enumerate(paragraphs)
        for row in one["qas"]
    ]
    kept = {document.id for document in documents[::2]}
    parted = [row if row.passage_id in kept else QuestionRow(question=row.question, answerable=False) for row in asked]
    model = embedder or open_embedder(settings)
    judge = open_judge(settings.models, settings.threads)
    with corpus_of(documents, model, settings) as made:
        whole = list(_outcomes(made, model, judge, asked, settings.passages))
    with corpus_of(documents[::2], model, settings) as made:
        return whole, list(_outcomes(made, model, judge, parted, settings.passages))


def missed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The questions that were wrongly refused or answered, or whose quotes hold no gold answer."""
    return [
        one
        for one in outcomes
        if (one.row.answerable and not any(one.hits)) or (not one.row.answerable and not one.refused)
    ]


def miss_row(one: Outcome) -> dict[str, Any]:
    """A question that went wrong, as JSON."""
    return {
        "question": one.row.question,
        "answers": list(one.row.answers),
        "refused": one.refused,
        "quotes": list(one.quotes),
        "gold_cited": any(one.cited),
    }


def shares(outcomes: Sequence[Outcome]) -> dict[str, Share]:
    """What is counted of answerable questions, by name; `citation_precision` is over quotes."""
    gold = [one for one in outcomes if one.row.answerable]
    answered = [one for one in gold if not one.refused]
    return {
        "first_sentence_hit": Share.of(one.hits[:1] == (True,) for one in gold),
        "quoted_hit": Share.of(any(one.hits) for one in gold),
        "citation_precision": Share.of(right for one in answered for right in one.cited),
        "citation_recall": Share.of(any(one.cited) for one in gold),
        "uncited_share": Share.of(not one.cited for one in answered),
    }


def quoted_sentences(outcomes: Sequence[Outcome]) -> float:
    """How many an answer to an answerable question quotes in the mean; NaN without any."""
    counts = [len(one.hits) for one in outcomes if one.row.answerable and not one.refused]
    return float(np.mean(counts)) if counts else float("nan")


def refusals(outcomes: Sequence[Outcome]) -> Refusals:
    """How refusing tells what no passage answers."""
    return Refusals.of((one.refused, not one.row.answerable) for one in outcomes)


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The figures by name; NaN where there is nothing to count. `refusal_*` take a refusal for a positive."""
    told = refusals(outcomes)
    counted = {name: share.value for name, share in shares(outcomes).items()}
    return {
        **counted,
        "mean_quoted_sentences": quoted_sentences(outcomes),
        "refusal_precision": told.precision.value,
        "refusal_recall": told.recall.value,
        "refusal_f1": told.f1,
    }
