import itertools
from collections.abc import Callable

from chains.extract import QUOTE_WORDS, choose_quotes
from index.document import ScoredPassage
from tests.fakes import hit

STEPS = "Allow ten minutes.\n1. Open the catalogue.\n2. Choose install.\n3. Restart the laptop.\nThen call the desk."


def words_of(question: str) -> Callable[[str], float]:
    asked = set(question.lower().strip("?").split())
    return lambda text: len(asked & set(text.lower().strip(".").split())) / len(asked)


def texts(question: str, *hits: ScoredPassage, most: int = 3) -> list[str]:
    return [quote.text for quote in choose_quotes(question, hits, words_of(question), most)]


def test_a_how_to_question_gets_the_whole_procedure_in_one_quote() -> None:
    quotes = texts("How do I install it?", hit(STEPS))
    assert len(quotes) == 1
    assert "1. Open the catalogue.\n2. Choose install.\n3. Restart the laptop." in quotes[0]


def test_every_quote_is_a_slice_of_its_passage_and_none_overlap() -> None:
    long = " ".join(f"Sentence number {n} speaks of buoys and of harbour {n}." for n in range(40))
    passage = hit(long, start=50)
    quotes = choose_quotes("harbour 7", [passage], words_of("harbour 7"), 3)
    spans = sorted((quote.start, quote.end) for quote in quotes)
    assert len(spans) >= 1
    assert all(long[quote.start - 50 : quote.end - 50] == quote.text for quote in quotes)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert all(len(quote.text.split()) <= QUOTE_WORDS for quote in quotes)


def test_the_best_sentence_leads_and_brings_its_neighbour() -> None:
    text = "Forgot a guest? Call extension 4000. " + "Unrelated words follow here at length. " * 12
    assert texts("who do i call if i forgot a guest", hit(text))[0].startswith("Forgot a guest? Call extension 4000.")


def test_the_same_words_are_not_quoted_twice() -> None:
    one = hit("Laptops are replaced every 4 years.", path="documents/a.md")
    two = hit("Laptops are replaced every 4 years!", path="documents/b.md")
    assert len(texts("how often are laptops replaced", one, two)) == 1


def test_no_more_quotes_than_asked_for() -> None:
    hits = [
        hit(f"Place {name} has lamps and chairs.", path=f"documents/{name}.md") for name in ("ab", "cd", "ef", "gh")
    ]
    assert len(texts("lamps chairs", *hits, most=2)) <= 2
    assert texts("anything") == []


def test_a_line_about_the_document_itself_is_quoted_only_when_asked_for() -> None:
    text = "Last reviewed: 22 April 2026\nOwner: Dock Team\nA dock costs 219 EUR and joins two screens."
    assert texts("what does a dock cost", hit(text)) == ["A dock costs 219 EUR and joins two screens."]
    assert "22 April 2026" in texts("when was the dock page last updated", hit(text))[0]
    assert "Dock Team" in texts("who owns the dock page", hit(text))[0]
