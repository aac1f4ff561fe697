"""What is counted of answers, by hand; and the whole measurement over a small corpus."""

import math
from pathlib import Path

import pytest

from chains.citations import Quote
from desk.errors import DeskError
from evaluation.answers import Outcome, QuestionRow, Stated, figures, outcome, read_questions
from tests.fakes import hit


def row(answer: str | None, passage: str = "d1") -> QuestionRow:
    if answer is None:
        return QuestionRow(question="?", answerable=False)
    return QuestionRow(question="?", answerable=True, passage_id=passage, answers=(answer,))


def quote(text: str, document: str = "d1") -> Quote:
    return Quote(hit(text, path=document), 0, len(text), 1.0)


def came(row: QuestionRow, quotes: list[Quote]) -> Outcome:
    return outcome(row, quotes, Stated(0.4, 0.3, False))


def test_an_outcome_tells_each_sentence_and_each_citation() -> None:
    of = hit("x", path="d1").passage.document_id
    one = came(row("NINE euros", of), [quote("Ask Ann. It costs nine  euros."), quote("Elsewhere.", "other.md")])
    assert one.hits == (False, True, False)
    assert one.cited == (True, False)
    assert not one.refused


def test_the_figures_are_those_counted_by_hand() -> None:
    of = hit("x", path="d1").passage.document_id
    outcomes = [
        came(row("nine", of), [quote("It is nine. More here.")]),
        came(row("ten", of), [quote("Not it."), quote("It is ten.", "other.md")]),
        came(row("six", of), []),
        came(row(None), []),
        came(row(None), [quote("Nine.")]),
    ]
    got = figures(outcomes)
    assert got["first_sentence_hit"] == pytest.approx(1 / 3)
    assert got["quoted_hit"] == pytest.approx(2 / 3)
    assert got["mean_quoted_sentences"] == pytest.approx((2 + 2) / 2)
    assert got["citation_precision"] == pytest.approx(2 / 3)
    assert got["citation_recall"] == pytest.approx(2 / 3)
    assert got["uncited_share"] == 0.0
    assert got["refusal_precision"] == got["refusal_recall"] == got["refusal_f1"] == 0.5


def test_what_cannot_be_counted_is_no_number() -> None:
    got = figures([came(row("nine"), [quote("Nine.", "other.md")])])
    assert math.isnan(got["refusal_f1"]) and math.isnan(got["refusal_precision"])
    assert got["citation_recall"] == 0.0


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON"),
        ('{"question": "When?", "answerable": true, "answers": ["noon"]}', "needs passage_id"),
        ('{"answerable": false}', "question"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Who?", "answerable": false}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DeskError, match=f"line 3.*{fault}"):
        read_questions(path)
