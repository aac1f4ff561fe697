from hypothesis import given
from hypothesis import strategies as st

from chains.citations import Quote, attribute, cite, split_codes, verified
from chains.turn import Citation
from index.document import Document
from tests.fakes import HashEmbedder, hit

KNOWN = {"ab2c": 0, "xy9z": 1}


def parts(text: str, cuts: list[int]) -> list[str | int]:
    places = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    merged: list[str | int] = []
    for part in split_codes(iter(pieces), KNOWN):
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


@given(st.lists(st.integers(0, 60)))
def test_codes_are_found_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    text = "Leave is 27 days [ab2c]. Ask [HR] soon [xy9z, ab2c], see [1] or [zzzz]."
    assert parts(text, cuts) == [
        "Leave is 27 days ", 0, ". Ask [HR] soon ", 1, 0, ", see  or .",
    ]  # fmt: skip


@given(st.text(alphabet="a[]b2c, \n", max_size=40), st.lists(st.integers(0, 40)))
def test_no_text_is_lost_or_made_up(text: str, cuts: list[int]) -> None:
    assert parts(text, cuts) == parts(text, [])


def test_a_bracket_that_never_closes_is_passed_on_at_the_end() -> None:
    assert parts("see [ab2", []) == ["see [ab2"]


def citation_of(text: str, start: int, end: int) -> Citation:
    return cite(1, Quote(hit(text), start, end, 0.9), 0, end - start)


def test_a_citation_survives_only_while_its_quote_stands_in_the_stored_text() -> None:
    text = "Lunch is at noon. It costs 5.50 EUR."
    good = citation_of(text, 18, 36)
    assert good.quote == "It costs 5.50 EUR."

    def library(stored: str) -> Document:
        return Document("id-documents/a.md", "documents/a.md", "A title", "md", stored, "hash")

    assert verified([good], lambda _: library(text)) == (good,)
    assert verified([good], lambda _: library(text.replace("5.50", "6.00"))) == ()
    assert verified([good], lambda _: None) == ()


def test_each_sentence_is_attributed_or_marked_and_never_both() -> None:
    hits = [
        hit("Full-time employees have 27 days of leave. Part-time staff get a share."),
        hit("Bring your badge.", start=90),
    ]
    answer = "Full-time employees have 27 days of leave. Penguins swim quickly under ice."
    citations, unsupported = attribute(answer, hits, HashEmbedder().embed)
    assert [(c.answer_start, c.answer_end, c.quote) for c in citations] == [
        (0, 42, "Full-time employees have 27 days of leave.")
    ]
    assert [answer[a:b] for a, b in unsupported] == ["Penguins swim quickly under ice."]
