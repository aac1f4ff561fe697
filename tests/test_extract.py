"""Which sentences are quoted, given how likely each is to answer."""

import itertools
import re

import numpy as np

from chains.citations import Quote
from chains.extract import MOST_UNANSWERED, QUOTE_WORDS, UNSURE, answers, choose_quotes, unsure
from chains.judge import Judgement
from index.chunk import sentences
from index.document import ScoredPassage
from tests.fakes import hit

STEPS = "Allow ten minutes.\n1. Open the catalogue.\n2. Choose install.\n3. Restart the laptop.\nThen call the desk."


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def judged(question: str, *hits: ScoredPassage) -> Judgement:
    """Odds by how many of the question's words a sentence has: enough to tell sentences apart."""
    asked = words_of(question)
    scores = [
        np.array(
            [
                np.exp(8 * len(asked & words_of(one.passage.text[start:end])) / len(asked))
                for start, end in sentences(one.passage.text)
            ],
            dtype=np.float32,
        )
        for one in hits
    ]
    total = sum(float(row.sum()) for row in scores)
    return Judgement(tuple(row / total for row in scores), 0.0, 0.0)


def quotes(question: str, *hits: ScoredPassage, most: int = 3) -> list[Quote]:
    return choose_quotes(question, hits, judged(question, *hits), most)


def texts(question: str, *hits: ScoredPassage, most: int = 3) -> list[str]:
    return [quote.text for quote in quotes(question, *hits, most=most)]


def test_a_how_to_question_gets_the_whole_procedure_in_one_quote() -> None:
    found = texts("How do I install it?", hit(STEPS))
    assert "1. Open the catalogue.\n2. Choose install.\n3. Restart the laptop." in found[0]
    assert "2. Choose install." in texts("choose install", hit(STEPS))[0]
    assert "1. Open the catalogue." not in texts("choose install", hit(STEPS))[0]


def test_every_quote_is_a_slice_of_its_passage_and_none_overlap() -> None:
    long = " ".join(f"Sentence number {n} speaks of buoys and of harbour {n}." for n in range(40))
    found = quotes("harbour 7", hit(long, start=50))
    spans = sorted((quote.start, quote.end) for quote in found)
    assert len(spans) >= 1
    assert all(long[quote.start - 50 : quote.end - 50] == quote.text for quote in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert all(len(quote.text.split()) <= QUOTE_WORDS for quote in found)


def test_the_likeliest_sentence_leads_and_brings_what_follows_it() -> None:
    text = (
        "Welcome to the desk. If you forgot a guest, act. Call extension 4000. "
        + "Unrelated words follow here at length. " * 12
    )
    assert texts("who do i call if i forgot a guest", hit(text))[0].startswith(
        "If you forgot a guest, act. Call extension 4000."
    )


def test_one_sentence_is_enough_where_no_other_is_likely() -> None:
    sure = "The depot in Lund opens at six in the morning and closes at ten at night on every working day of the year."
    other = "Parcels of more than thirty kilograms are weighed at the ramp, where two people lift them onto the scale."
    passage = hit(f"{sure} {other}")
    odds = np.array([0.97, 0.03], dtype=np.float32)
    assert [quote.text for quote in choose_quotes("when", [passage], Judgement((odds,), 0.0, 0.0))] == [sure]
    even = np.array([0.5, 0.5], dtype=np.float32)
    assert len(choose_quotes("when", [passage], Judgement((even,), 0.0, 0.0))) == 2


def test_the_same_words_are_not_quoted_twice() -> None:
    one = hit("Laptops are replaced every 4 years.", path="documents/a.md")
    two = hit("Laptops are replaced every 4 years!", path="documents/b.md")
    assert len(texts("how often are laptops replaced", one, two)) == 1


def test_no_more_quotes_than_asked_for() -> None:
    hits = [
        hit(text, path=f"documents/{number}.md")
        for number, text in enumerate(
            ("Room one has lamps.", "Chairs stand in hall two.", "Lamps cost 40 EUR a piece.")
        )
    ]
    assert len(texts("lamps chairs", *hits, most=2)) == 2
    assert choose_quotes("anything", [], Judgement((), 1.0, 1.0)) == []


def test_a_line_about_the_document_itself_is_quoted_only_when_asked_for() -> None:
    text = "Last reviewed: 22 April 2026\nOwner: Dock Team\nA dock costs 219 EUR and joins two screens."
    assert texts("what does a dock cost", hit(text)) == ["A dock costs 219 EUR and joins two screens."]
    assert "22 April 2026" in texts("when was the dock page last reviewed", hit(text))[0]
    assert "Dock Team" in texts("which team is the owner of this page", hit(text))[0]


def test_what_is_likelier_no_answer_is_not_quoted_and_a_close_call_is_said_to_be_one() -> None:
    row = np.array([0.1], dtype=np.float32)
    assert [answers(Judgement((row,), 0.0, none)) for none in (0.0, MOST_UNANSWERED, MOST_UNANSWERED + 0.01)] == [
        True,
        True,
        False,
    ]
    assert [unsure(Judgement((row,), 0.0, none)) for none in (0.0, UNSURE, UNSURE + 0.01)] == [False, False, True]
    assert not answers(Judgement((), 0.0, 0.0))


def test_a_sentence_that_leans_on_a_short_one_brings_it_along() -> None:
    text = "Wages are paid on the 24th. If that is a Sunday, they come on the Friday before. Slips are sent by mail."
    assert texts("on the Friday before a Sunday", hit(text))[0].startswith("Wages are paid on the 24th. If that is")
    text = text.replace(
        "Wages are paid", "Wages for all who work at the depots, in the offices and on the road are paid"
    )
    assert texts("on the Friday before a Sunday", hit(text))[0].startswith("If that is a Sunday")


def test_a_row_of_a_table_is_quoted_alone() -> None:
    rows = ["Item: Dock; Price: 219; Owner: Ann", "Item: Lamp; Price: 40; Owner: Bea", "Item: Mat; Price: 9; Owner: Cy"]
    sure = np.array([0.96, 0.02, 0.02], dtype=np.float32)
    quoted = choose_quotes("price of a dock", [hit("\n".join(rows))], Judgement((sure,), 0.0, 0.0))
    assert [quote.text for quote in quoted] == rows[:1]
