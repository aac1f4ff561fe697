"""Passages are slices of the text that follow its headings; sentences are cut where a reader would."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk.config import DEFAULT_DESK
from index.blocks import TextAssembler
from index.chunk import cut, sentences
from index.document import DESK_COLLECTION, Document, Passage
from index.embed import token_counter
from index.sources import load_source

DESK_FILES = sorted(path for path in (DEFAULT_DESK / "documents").rglob("*") if path.is_file())


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def document(*blocks: tuple[str, str], data_format: str = "md", pages: list[int] | None = None) -> Document:
    """A document of (kind, text) blocks; a heading's kind is "h1" to "h6"."""
    into = TextAssembler()
    for number, (kind, text) in enumerate(blocks):
        page = pages[number] if pages else None
        if re.fullmatch(r"h\d", kind):
            into.add("heading", text, page, int(kind[1]))
        else:
            into.add(kind, text, page)
    return Document("d", "d.md", "Title", data_format, into.text, "", blocks=tuple(into.blocks))


def check_spans(source: Document, passages: tuple[Passage, ...]) -> None:
    """Each passage is its slice, none overlap, and every visible character outside headings is in one."""
    covered = bytearray(len(source.text))
    for number, passage in enumerate(passages):
        assert passage.text == source.text[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        assert passage.ordinal == number
        assert not any(covered[passage.start : passage.end])
        covered[passage.start : passage.end] = b"\1" * (passage.end - passage.start)
    headings = [block for block in source.blocks if block.kind == "heading"]
    if len(headings) < len(source.blocks):
        for block in headings:
            assert not any(covered[block.start : block.end])
            covered[block.start : block.end] = b"\1" * (block.end - block.start)
    assert [c for c, seen in zip(source.text, covered, strict=True) if not seen and not c.isspace()] == []


@pytest.mark.parametrize("path", DESK_FILES, ids=[path.name for path in DESK_FILES])
def test_passages_of_the_sample_desk_cover_it_exactly(path: Path) -> None:
    source = load_source(path, name=path.name, collection=DESK_COLLECTION, max_bytes=10_000_000)
    count = token_counter()
    for limit in (60, 180):
        passages = cut(source, limit, count)
        check_spans(source, passages)
        assert max(count(passage.text) for passage in passages) <= limit


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from(["h1", "h2", "h3", "paragraph", "list", "row", "code"]),
        st.text(st.sampled_from("ab .:;!?\n-1Zé😀\u00a0\u3002\"'("), max_size=120),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(BLOCKS, st.sampled_from(["md", "csv"]))
def test_passages_of_any_text_cover_it_exactly(blocks: list[tuple[str, str]], data_format: str) -> None:
    source = document(*blocks, data_format=data_format)
    check_spans(source, cut(source, 40, words))
    check_spans(source, cut(source, 40, len))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("abZ .?!,;:\n-12)(\"'é。"), max_size=200), st.integers(0, 50))
def test_sentences_cover_any_text_in_order(text: str, start: int) -> None:
    spans = sentences(text, start)
    assert all(first < last for first, last in spans)
    assert all(spans[i][1] <= spans[i + 1][0] for i in range(len(spans) - 1))
    kept = "".join(text[first - start : last - start] for first, last in spans)
    assert re.sub(r"\s", "", kept) == re.sub(r"\s", "", text)


def test_sections_are_heading_paths_without_the_only_title() -> None:
    source = document(
        ("h1", "Handbook"),
        ("paragraph", "Intro."),
        ("h2", "Set-up"),
        ("h3", "On a phone"),
        ("paragraph", "Tap."),
        ("h2", "Costs"),
        ("paragraph", "None."),
    )
    found = [(passage.section, passage.text) for passage in cut(source, 100, words)]
    assert found == [("", "Intro."), ("Set-up > On a phone", "Tap."), ("Costs", "None.")]


def test_one_of_several_top_headings_is_part_of_the_path() -> None:
    source = document(("h1", "One"), ("paragraph", "a"), ("h1", "Two"), ("paragraph", "b"))
    assert [passage.section for passage in cut(source, 100, words)] == ["One", "Two"]


def test_a_list_stays_with_the_line_that_introduces_it() -> None:
    filler = " ".join(["word"] * 30)
    steps = "\n".join(f"{number}. step number {number}" for number in range(1, 6))
    source = document(("paragraph", filler), ("paragraph", "Do this:"), ("list", steps))
    assert [passage.text for passage in cut(source, 50, words)] == [filler, f"Do this:\n\n{steps}"]


def test_a_long_list_is_cut_between_items() -> None:
    steps = "\n".join(f"{number}. {'word ' * 12}end" for number in range(1, 8))
    for passage in cut(document(("list", steps)), 60, words):
        assert re.match(r"\d\. ", passage.text)
        assert passage.text.endswith("end")


def test_every_row_of_a_sheet_is_a_passage_and_a_small_table_elsewhere_stays_whole() -> None:
    rows = (("paragraph", "Prices"), ("row", "Item: dock; Price: 219"), ("row", "Item: headset; Price: 95"))
    assert len(cut(document(*rows, data_format="xlsx"), 180, words)) == 3
    assert len(cut(document(*rows, data_format="md"), 180, words)) == 1


def test_a_passage_stays_on_its_page() -> None:
    source = document(("paragraph", "One."), ("paragraph", "Two."), ("paragraph", "Three."), pages=[1, 1, 2])
    assert [(p.page, p.text) for p in cut(source, 100, words)] == [(1, "One.\n\nTwo."), (2, "Three.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One thing. Another thing.", ["One thing.", "Another thing."]),
        ("Use a tool, e.g. Stowage. Then go.", ["Use a tool, e.g. Stowage.", "Then go."]),
        ("It costs 3.5 EUR. See vpn.corvane.example/x.html for more.", None),
        ("Ask Dr. Smith or J. Doe. They know.", ["Ask Dr. Smith or J. Doe.", "They know."]),
        ("Call No. 5 first. No. We will not.", ["Call No. 5 first.", "No.", "We will not."]),
        ("From 8 a.m. to 5 p.m. on weekdays. Closed on Sunday.", None),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Really? Yes! And then", ["Really?", "Yes!", "And then"]),
        ("Wait... what? Go on.", ["Wait... what?", "Go on."]),
        ("1. Open it. Search.\n2. Close it.", ["1. Open it. Search.", "2. Close it."]),
        ("room: Mistral; notes: Large. Own machine.; seats: 24", None),
        ("Last reviewed: 4 March\nOwner: IT", ["Last reviewed: 4 March", "Owner: IT"]),
        ("(See below.) It works.", ["(See below.)", "It works."]),
        ("これは本です。それも本です。", ["これは本です。", "それも本です。"]),
        ("The iPhone. 3 days later it broke.", ["The iPhone.", "3 days later it broke."]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str] | None) -> None:
    found = [text[first:last] for first, last in sentences(text)]
    if expected is None:
        expected = {
            "It": ["It costs 3.5 EUR.", "See vpn.corvane.example/x.html for more."],
            "Fr": ["From 8 a.m. to 5 p.m. on weekdays.", "Closed on Sunday."],
            "ro": [text],
        }[text[:2]]
    assert found == expected


def test_a_long_list_item_is_quoted_by_sentence() -> None:
    item = "1. " + "This sentence is of a good length and ends here. " * 8
    found = [item[first:last] for first, last in sentences(item)]
    assert len(found) == 8
    assert found[0] == "1. This sentence is of a good length and ends here."


def test_a_text_without_spaces_is_cut_though_it_counts_as_one_token() -> None:
    source = document(("paragraph", "x" * 100_000))
    passages = cut(source, 50, words)
    check_spans(source, passages)
    assert max(len(passage.text) for passage in passages) == 50 * 40
