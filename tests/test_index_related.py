"""A hit brings its section as far as it fits, and related documents are the nearest that may be read."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fakes import HashEmbedder

from desk.config import load_desk
from evaluation.corpus import Corpus, corpus_of
from index.blocks import TextAssembler
from index.document import DESK_COLLECTION, Document, Passage, ScoredPassage
from index.related import related, section_around, vector_of
from index.vectors import middle

ALL = frozenset({DESK_COLLECTION})


def count(text: str) -> int:
    return len(text.split())


SECTIONS = ("Start", "Middle", "Middle", "Middle", "Middle", "Middle", "End")
PARAGRAPHS = [f"{section} {number} " + "word " * 17 + "end." for number, section in enumerate(SECTIONS)]
TEXT = "\n\n".join(PARAGRAPHS)


def passages() -> tuple[Passage, ...]:
    """One of 20 words for each paragraph."""
    starts = [TEXT.index(text) for text in PARAGRAPHS]
    return tuple(
        Passage(f"h:{number}", "h", number, start, start + len(text), text, section, None)
        for number, (start, text, section) in enumerate(zip(starts, PARAGRAPHS, SECTIONS, strict=True))
    )


def hit_of(passage: Passage, path: str = "h.md") -> ScoredPassage:
    return ScoredPassage(passage, path, "Handbook", DESK_COLLECTION, 1.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1000, [1, 2, 3, 4, 5]), (100, [1, 2, 3, 4, 5]), (99, [2, 3, 4, 5]), (60, [2, 3, 4]), (40, [3, 4]), (5, [3])],
)
def test_a_hit_brings_the_rest_of_its_section_as_far_as_it_fits(limit: int, expected: list[int]) -> None:
    own = passages()
    around = section_around(hit_of(own[3]), own, limit, count)
    assert [passage.ordinal for passage in around] == expected
    assert sum(count(passage.text) for passage in around) <= max(limit, 20)
    assert all(TEXT[passage.start : passage.end] == passage.text for passage in around)
    assert set(around) <= set(own)


def test_a_section_ends_at_its_headings_and_a_row_stays_alone() -> None:
    own = passages()
    assert [passage.ordinal for passage in section_around(hit_of(own[0]), own, 1000, count)] == [0]
    assert [passage.ordinal for passage in section_around(hit_of(own[6]), own, 1000, count)] == [6]
    assert section_around(hit_of(own[3], "h.csv"), own, 1000, count) == (own[3],)


@pytest.fixture
def made() -> Iterator[tuple[Corpus, HashEmbedder]]:
    texts = {
        "ships": "harbour ferry sail\n\nferry ticket",
        "boats": "harbour ferry boat",
        "pears": "garden tree pear",
        "trees": "garden tree oak",
        "hidden": "harbour ferry sail",
    }
    embedder = HashEmbedder()
    documents = []
    for name, text in texts.items():
        into = TextAssembler()
        for part in text.split("\n\n"):
            into.add("paragraph", part)
        collection = "other" if name == "hidden" else DESK_COLLECTION
        documents.append(
            Document(name, name, "", "txt", into.text, "", collection=collection, blocks=tuple(into.blocks))
        )
    with corpus_of(documents, embedder, replace(load_desk().index, chunk_tokens=40)) as corpus:
        yield corpus, embedder


def test_related_documents_are_the_nearest_but_the_document_itself(made: tuple[Corpus, HashEmbedder]) -> None:
    corpus, embedder = made
    for name, nearest in (("ships", "boats"), ("boats", "ships"), ("pears", "trees"), ("trees", "pears")):
        vector = vector_of(corpus.indexes, corpus.indexes.store.passages(name), ALL)
        assert vector is not None
        found = related(corpus.indexes, vector, 10, ALL, frozenset({name}))
        assert found[0].document_id == nearest
        assert {one.document_id for one in found} == {"ships", "boats", "pears", "trees"} - {name}
        for one in found:
            texts = [corpus.indexes.store.document(one.document_id)]
            rows = embedder.embed([part for text in texts if text for part in text.text.split("\n\n")])
            assert one.similarity == pytest.approx(float((rows @ vector).max()), abs=1e-5)
        assert related(corpus.indexes, vector, 1, ALL, frozenset({name})) == found[:1]
    answer = embedder.embed(["an oak is a tree"])[0]
    assert related(corpus.indexes, answer, 1, ALL)[0].document_id == "trees"
    assert related(corpus.indexes, answer, 0, ALL) == []


def test_a_document_or_passage_is_the_mean_of_its_sentences(made: tuple[Corpus, HashEmbedder]) -> None:
    corpus, embedder = made
    rows = embedder.embed(["harbour ferry sail", "ferry ticket"])
    got = vector_of(corpus.indexes, corpus.indexes.store.passages("ships"), ALL)
    assert got is not None
    np.testing.assert_allclose(got, middle(rows), atol=1e-6)
    passage = corpus.indexes.store.passages("boats")[0]
    own = vector_of(corpus.indexes, [passage], ALL)
    assert own is not None
    np.testing.assert_allclose(own, embedder.embed(["harbour ferry boat"])[0], atol=1e-6)


def test_what_may_not_be_read_has_no_vector_and_is_related_to_nothing(made: tuple[Corpus, HashEmbedder]) -> None:
    corpus, _ = made
    assert vector_of(corpus.indexes, corpus.indexes.store.passages("hidden"), ALL) is None
    assert vector_of(corpus.indexes, corpus.indexes.store.passages("nobody"), ALL) is None
    hidden = corpus.indexes.store.passages("hidden")[0]
    assert vector_of(corpus.indexes, [hidden], ALL) is None
    assert vector_of(corpus.indexes, [replace(hidden, document_id="ships", ordinal=9)], ALL) is None
    vector = vector_of(corpus.indexes, corpus.indexes.store.passages("ships"), ALL)
    assert vector is not None
    assert "hidden" not in {one.document_id for one in related(corpus.indexes, vector, 10, ALL)}
