"""What a source supports: exact pairs that share nearly all their words and differ in what matters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.citations import attribute
from chains.support import amounts, dates, known_names, proper_names, supports
from tests.fakes import HashEmbedder, hit

LEAVE = "Full-time staff have 27 days of annual leave."


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("Full-time staff have 28 days of annual leave.", LEAVE),
        ("Full-time staff have 27 weeks of annual leave.", LEAVE),
        ("Full-time staff have twenty-eight days of annual leave.", LEAVE),
        ("The limit is 1,600 euros.", "The limit is 1,500 euros."),
        ("A meal costs 5.60 EUR.", "A meal costs 5.50 EUR."),
        ("A meal costs 5.50 pounds.", "A meal costs 5.50 EUR."),
        ("The gate opens at 14:30.", "The gate opens at 14:00."),
        ("One monitor is lent.", "Two monitors are lent."),
        ("A note is needed from the third day.", "A note is needed from the fourth day."),
        ("A quarter or 25 percent is paid.", "A quarter is paid."),
    ],
)
def test_another_number_is_not_supported(sentence: str, source: str) -> None:
    assert not supports(sentence, source)
    assert supports(source, source)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("The leave year starts on 1 May.", "The leave year starts on 1 April."),
        ("The leave year starts on 2 April.", "The leave year starts on 1 April."),
        ("Claims are paid every Friday.", "Claims are paid every Thursday."),
        ("It runs from 30 April to 1 June.", "It runs from 1 April to 30 June."),
        ("It was founded in 1995.", "It was founded in 1959."),
    ],
)
def test_another_date_is_not_supported(sentence: str, source: str) -> None:
    assert not supports(sentence, source)
    assert supports(source, source)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("Exceptions are decided by Tobin Ashgrove.", "Exceptions are decided by Imelda Storrow."),
        ("Tobin Ashgrove decides on exceptions.", "Imelda Storrow decides on exceptions."),
        ("The works doctor is at Harlow Fen.", "The works doctor is at Pellgate."),
        ("Form H-3 is filed by the people team.", "Form H-2 is filed by the people team."),
        ("The VPN is needed.", "The client is needed."),
    ],
)
def test_another_name_is_not_supported(sentence: str, source: str) -> None:
    assert not supports(sentence, source)
    assert supports(source, source)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("Leave may be swapped for pay.", "Leave may not be swapped for pay."),
        ("Leave may not be carried over.", "Leave may be carried over."),
        ("Smoking in the cars is allowed.", "Smoking in the cars is forbidden."),
        ("Smoking in the cars is not forbidden.", "Smoking in the cars is forbidden."),
        ("A receipt is never needed.", "A receipt is needed."),
        ("Breaks are paid.", "Breaks are unpaid."),
        ("Saving it in a browser is allowed.", "Keeping it in the vault is allowed; saving it in a browser is not."),
        ("Drivers don't get half days.", "Drivers get half days."),
        ("Nobody checks the forms.", "The desk checks the forms."),
    ],
)
def test_a_denial_that_the_source_has_not_is_not_supported_nor_the_reverse(sentence: str, source: str) -> None:
    assert not supports(sentence, source)
    assert not supports(source, sentence)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("Staff get twenty-seven days of leave.", LEAVE),
        ("You have 27 days.", LEAVE),
        ("The limit is 1500 euros.", "Anything under €1,500 may be bought."),
        ("It costs 5.5 EUR.", "It costs 5.50 EUR."),
        ("A note is needed from the 4th day.", "From the fourth calendar day a note is required."),
        ("The year starts on the 1st of April.", "The leave year starts on 1 April."),
        (
            "Saving it in a browser is not allowed.",
            "Keeping it in the vault is allowed; saving it in a browser is not.",
        ),
        ("Smoking is not allowed.", "Smoking and vaping are forbidden."),
        ("No more than three days in a row can be booked.", "Book at most three days in a row."),
        ("Employees keep their days.", "Staff keep their days."),
        ("Boots and gloves are not paid.", "Gloves and boots are not paid."),
        ("The one on the left is yours.", "The left one is yours."),
        ("First, open the client.", "Open the client."),
        ("A visitor needs one host.", "A visitor needs a host."),
        ("That may change in two hundred and five days.", "That may change after 205 days."),
    ],
)
def test_the_same_in_other_words_is_supported(sentence: str, source: str) -> None:
    assert supports(sentence, source)


def test_a_name_may_stand_in_the_headings_but_an_amount_may_not() -> None:
    assert supports("At Tessaly staff have leave.", "Full-time staff have leave.", "Annual leave at Tessaly")
    assert not supports("At Corvane staff have leave.", "Full-time staff have leave.", "Annual leave at Tessaly")
    assert not supports("Staff have 27 days.", "Full-time staff have leave.", "The 27 days")


def test_a_name_at_the_beginning_is_known_by_the_passages() -> None:
    names = known_names(["The gate at Pellgate is open. Drivers wait."])
    assert names == {"pellgate"}
    assert not supports("Pellgate is open at night.", "The gate is open at night.", names=names)
    assert supports("Drivers wait.", "They wait.", names=names)


def test_numbers_are_read_in_digits_and_words() -> None:
    assert amounts("1.4 million pounds, two hundred and five, €9 and 31 March at 14:30, four percent") == {
        *(("1400000", "pound"), ("205", ""), ("9", "euro"), ("31", "mar"), ("14:30", ""), ("4", "%")),
    }
    assert dates("On Friday, in May or by 3 Sept; it may march") == {"fri", "may", "sep"}
    assert list(proper_names("Then Imelda Storrow opens E-11. Staff go home.")) == ["Imelda", "Storrow", "E-11"]


@given(st.text(alphabet="aA1 .,-'€%\n:no", max_size=60))
def test_every_text_supports_itself(text: str) -> None:
    assert supports(text, text)


def test_a_sentence_with_another_number_is_marked_and_the_next_best_source_may_support() -> None:
    hits = [
        hit("Staff have 27 days of annual leave each year."),
        hit("Staff have 30 days of annual leave each year now.", path="documents/b.md"),
    ]
    answer = "Staff have 30 days of annual leave each year. Staff have 31 days of annual leave each year."
    citations, unsupported = attribute(answer, hits, HashEmbedder().embed)
    assert [(one.document, one.number) for one in citations] == [("documents/b.md", 1)]
    assert [answer[start:end] for start, end in unsupported] == ["Staff have 31 days of annual leave each year."]


def test_what_a_source_leans_on_may_name_what_it_means() -> None:
    passage = hit("The Lumbrel is orange. It works without network for four hours of the shift.")
    said = "The Lumbrel works without network for four hours of the shift."
    assert attribute(said, [passage], HashEmbedder().embed)[1] == []
    wrong = said.replace("Lumbrel", "Wexcard")
    assert attribute(wrong, [passage], HashEmbedder().embed)[1] == [(0, len(wrong))]
