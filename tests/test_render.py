import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from app import render
from chains.citations import Quote, cite
from chains.turn import Route, RouteDecision
from index.document import Document
from index.related import RelatedDocument
from tests.fakes import hit

HOSTILE = '<img src=x onerror=alert(1)> & "quotes" **bold** <|end|> [a](javascript:alert(1))'


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.text += "\n" if tag == "br" else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Words:
    words = Words()
    words.feed(html)
    return words


def test_hostile_text_is_shown_and_never_becomes_markup() -> None:
    citation = cite(1, Quote(hit(HOSTILE, path=HOSTILE), 0, len(HOSTILE), 1.0), 0, len(HOSTILE))
    decision = RouteDecision(Route.RETRIEVAL, None, None, {Route.RETRIEVAL: 1.0}, HOSTILE)
    pages = [
        render.plain(HOSTILE),
        render.badge(decision, HOSTILE, "asked"),
        render.answer_text(HOSTILE, [citation], "0"),
        render.fields_table({"a": HOSTILE}, {"a": HOSTILE}),
        render.sources_panel([("0", HOSTILE, [citation], [RelatedDocument("id", "p", HOSTILE, "desk", 0.9)])]),
        render.failure(HOSTILE),
        render.source_page(Document("id", HOSTILE, HOSTILE, "md", HOSTILE, "hash"), 0, 5),
    ]
    for page in pages:
        assert not read(page).tags & {"img", "script", "iframe"}
        assert "onerror=alert(1)>" not in page
        assert "\n" not in page.replace(HOSTILE, "") or "<pre>" in page


@given(st.text(alphabet="ab <&\n.", min_size=1, max_size=60), st.data())
def test_the_answer_reads_the_same_with_chips_and_marks(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    citation = cite(3, Quote(hit("quote"), 0, 5, 1.0), start, end)
    html = render.answer_text(text, [citation], "7", [(start, end)])
    shown = read(re.sub(r'<a class="sb-chip".*?</a>', "", html)).text
    assert shown == text
    assert 'href="#sb-7-3"' in html


def test_the_panel_marks_exactly_the_quoted_span() -> None:
    text = "First one. Second & last. Third."
    citation = cite(1, Quote(hit(text, start=100), 111, 125, 1.0), 0, 14)
    html = render.sources_panel([("0", "asked", [citation], [])])
    assert "First one. <mark>Second &amp; last.</mark> Third." in html
    assert citation.quote == "Second & last."


def test_titles_of_the_closest_documents_are_links_in_their_order() -> None:
    documents = [RelatedDocument(name, "p", title, "desk", 0.5) for name, title in (("one", "Leave"), ("two", "<Pay>"))]
    html = render.answer_text("Closest were: Leave; <Pay>. Leave a note.", [], "0", (), documents)
    assert re.findall(r'href="/source/(\w+)"[^>]*>([^<]*)</a>', html) == [("one", "Leave"), ("two", "&lt;Pay&gt;")]
    assert read(html).text == "Closest were: Leave; <Pay>. Leave a note."


def test_a_pdf_opens_at_its_page_and_other_documents_at_the_quote() -> None:
    pdf = cite(1, Quote(hit("Some words.", page=4, path="documents/b.pdf"), 0, 11, 1.0), 0, 11)
    assert render.source_link(pdf) == "/source/id-documents/b.pdf/original#page=4"
    other = cite(1, Quote(hit("Some words.", start=7), 7, 18, 1.0), 0, 11)
    assert render.source_link(other) == "/source/id-documents/a.md?start=7&end=18#cited"


def test_the_source_page_marks_the_asked_span_and_survives_a_wrong_one() -> None:
    document = Document("id", "documents/a.md", "Title", "md", "one two three", "hash")
    assert 'one <mark id="cited">two</mark> three' in render.source_page(document, 4, 7)
    assert "<mark" not in render.source_page(document, 99, 400)


def test_the_newest_turn_is_on_top_and_open() -> None:
    citation = cite(1, Quote(hit("Some words."), 0, 11, 1.0), 0, 11)
    html = render.sources_panel([("0", "older", [citation], []), ("1", "newer", [citation], [])])
    assert html.index("newer") < html.index("older")
    assert html.count("<details open>") == 1
