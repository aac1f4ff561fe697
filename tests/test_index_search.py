"""Vector scores are exact, words are matched as words, and the two are fused without duplicates."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEmbedder

from index.derived import Derived
from index.document import DESK_COLLECTION, Document, Passage
from index.lexical import LexicalIndex, query_terms, rarity, text_terms
from index.match import WINDOW, Match, match, wanted
from index.rank import OUTDATED_FACTOR
from index.search import LEXICAL_WEIGHT, MATCH_WEIGHT, Indexes, coverage, fuse, search
from index.store import Store
from index.stored import Entry, Stored, TextRow

ALL = frozenset({DESK_COLLECTION})


def row(number: int, title: str, section: str, text: str, collection: str) -> TextRow:
    return TextRow(number, title, section, text, collection, "documents/it/a.md", "md", None)


def test_words_match_by_stem_accent_and_spelling_and_never_as_syntax(tmp_path: Path) -> None:
    index = LexicalIndex.create(
        tmp_path / "lexical",
        [
            row(1, "Policies", "", "Na\u00efve e-mail and Wi-Fi rules", "desk"),
            row(2, "Other", "Booking rooms", "nothing here", "desk"),
            row(3, "Other", "", "secret policy", "someone"),
        ],
        "",
    )

    def numbers(query: str, collections: frozenset[str] = ALL) -> list[int]:
        return sorted(number for number, _ in index.search(query_terms(query), 10, collections))

    assert numbers("policy") == [1]
    assert numbers("policy", frozenset({"desk", "someone"})) == [1, 3]
    assert numbers("naive") == numbers("email") == numbers("E-mail") == numbers("wifi") == [1]
    assert numbers("book a room") == [2]
    assert numbers('body:policy AND (title:"x" OR *) ^2 ~') == [1]
    assert numbers("collection:someone -nothing") == [2]
    assert numbers("what is the") == numbers("") == numbers("policy", frozenset()) == []


def test_bm25_scores_equal_the_formula(tmp_path: Path) -> None:
    texts = ["alpha beta", "alpha alpha gamma delta", "beta gamma epsilon zeta eta theta"]
    index = LexicalIndex.create(
        tmp_path / "lexical", [row(number, "", "", text, "desk") for number, text in enumerate(texts)], ""
    )
    found = dict(index.search(["alpha"], 10, ALL))
    mean = sum(len(text.split()) for text in texts) / 3
    for number in (0, 1):
        words = texts[number].split()
        count, length = words.count("alpha"), len(words)
        norm = 1.2 * (1 - 0.75 + 0.75 * length / mean)
        assert found[number] == pytest.approx(rarity(2, 3) * count * 2.2 / (count + norm), rel=1e-5)
    assert index.frequencies(["alpha", "omega"], ALL, 3, 1.0) == {"alpha": 2, "omega": 0}
    assert index.search_all(["alpha"], 10) == index.search(["alpha"], 10, ALL)


def test_what_is_written_is_found_after_refresh_only(tmp_path: Path) -> None:
    index = LexicalIndex.create(tmp_path / "lexical", [row(1, "", "", "anchor", "desk")], "first")
    index.write([row(2, "", "", "anchor", "desk")], gone=[1], mark="second")
    assert ([number for number, _ in index.search(["anchor"], 5, ALL)], index.mark, len(index)) == ([1], "second", 1)
    index.refresh()
    assert ([number for number, _ in index.search(["anchor"], 5, ALL)], index.mark, len(index)) == ([2], "second", 1)


def test_a_write_killed_before_its_commit_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    index = LexicalIndex.create(tmp_path / "lexical", [row(n, "", "", "anchor", "desk") for n in (1, 2)], "first")
    meta = tmp_path / "lexical" / "meta.json"
    committed = meta.read_bytes()
    index.write([], [1], "second")
    assert list(meta.parent.glob("*.del"))
    meta.write_bytes(committed)  # what a kill leaves: the list of deletions is there, the commit is not
    index.write([], [1], "second")
    index.refresh()
    assert [number for number, _ in index.search(["anchor"], 5, ALL)] == [2]


def test_query_terms_leave_out_stop_words_and_repeats() -> None:
    assert query_terms("How do I change the user's PASSWORDS, and a password?") == [
        "chang",
        "user",
        "password",
    ]
    assert query_terms("What's this? I don't know where you've been") == []
    assert len(query_terms(" ".join(f"word{number}" for number in range(200)))) == 64
    assert {"sign", "in", "email"} <= text_terms("sign-in by e-mail")


def test_fusion_adds_weighted_words_to_cosine() -> None:
    scores = fuse({1: 0.5, 2: 0.6, 3: 0.1}, [(3, 8.0), (1, 4.0)], 10.0)
    assert scores == pytest.approx({1: 0.5 + 0.4 * LEXICAL_WEIGHT, 2: 0.6, 3: 0.1 + 0.8 * LEXICAL_WEIGHT})
    assert fuse({1: 0.5}, [], 0.0) == {1: 0.5}


def test_coverage_is_the_share_of_the_terms_weight() -> None:
    weights = {"vpn": 3.0, "phone": 1.0}
    assert coverage(weights, "The VPN client") == 0.75
    assert coverage(weights, "phones") == 0.25
    assert coverage(weights, "nothing") == coverage({}, "vpn") == 0.0


def test_a_match_is_coverage_times_closeness() -> None:
    asked = wanted("Charge the injected batteries", {"charg": 1.0, "inject": 2.0, "batteri": 3.0})
    perfect = match(asked, "We charge injected batteries here.")
    assert perfect == Match(1.0, 1.0)
    other = match(asked, "An injection, then the battery: charge.")
    assert other.coverage == 1.0
    assert other.score == pytest.approx(((1 + 0.7 * 2 + 0.7 * 3) / 6) ** 2)
    apart = match(asked, "charge " + "x " * (WINDOW - 2) + "injected batteries")
    assert apart.score == pytest.approx(5 / 6)
    assert match(asked, "charge", above="injected batteries") == Match(1.0, pytest.approx(1 / 6))
    assert match(asked, "charge charge charge").score == pytest.approx(1 / 36)
    assert match(asked, "nothing") == match(wanted("the", {}), "the") == Match(0.0, 0.0)


def test_a_match_equals_trying_every_window() -> None:
    random = np.random.default_rng(4)
    vocabulary = ["cats", "cat", "dogs", "dog", "tree", "xx", "yy", "zz"]
    asked = wanted("cats dog tree", {"cat": 2.0, "dog": 1.0, "tree": 4.0})
    for _ in range(200):
        words = list(random.choice(vocabulary, 60, p=[0.02, 0.03, 0.03, 0.02, 0.03, 0.29, 0.29, 0.29]))

        def counted(part: list[str]) -> float:
            return (
                max(2.0 * ("cats" in part), 1.4 * ("cat" in part))
                + max(1.0 * ("dog" in part), 0.7 * ("dogs" in part))
                + 4.0 * ("tree" in part)
            )

        closest = max(counted(words[at : at + WINDOW]) for at in range(len(words)))
        assert match(asked, " ".join(words)).score == pytest.approx(counted(words) * closest / 49)


def test_a_hit_scores_its_cosine_its_words_and_its_match(tmp_path: Path) -> None:
    texts = ["harbour bridge of the town", "bridge", "quiet garden path"]
    rows = [(f"d{number}", DESK_COLLECTION, text, False) for number, text in enumerate(texts)]
    for indexes, embedder in library_of(tmp_path, rows):
        query = "harbour bridges"
        vector = embedder.embed([query])[0]
        found = search(indexes, query, vector, 10, ALL)
        bm25 = dict(indexes.index.words(query_terms(query), 10, ALL))
        asked = wanted(query, found.term_weights)
        for number, text in enumerate(texts, 1):
            hit = next(hit for hit in found.hits if hit.passage.text == text)
            words = bm25.get(number, 0.0) / sum(found.term_weights.values())
            cosine = float(embedder.embed([text])[0] @ vector)
            matched = match(asked, text, hit.title)
            expected = cosine + LEXICAL_WEIGHT * words + MATCH_WEIGHT * matched.score
            assert hit.score == pytest.approx(expected, abs=1e-5)
            assert hit.coverage == matched.coverage


def library_of(folder: Path, rows: Sequence[tuple[str, str, str, bool]]) -> Iterator[tuple[Indexes, HashEmbedder]]:
    """Indexes over one-passage documents of (id, collection, text, outdated) rows, "|" between sentences."""
    embedder = HashEmbedder()
    store = Store(folder / "library.sqlite")
    model = store.model(embedder.name, embedder.dimension)
    for key, collection, text, outdated in rows:
        source = Document(
            key, f"{key}.md", key, "md", text, key, collection=collection, updated=None, outdated=outdated
        )
        passage = Passage(f"{key}:0", key, 0, 0, len(text), text, "", None)
        stored = Stored(key, f"{key}.md", f"{key}.md", "desk", collection, key, "", "1")
        store.put([Entry(source, (passage,), (embedder.embed(text.split("|")),), stored)], [], model)
    yield Indexes(store, Derived(store, folder / "derived", embedder.name, embedder.dimension, 1)), embedder
    store.close()


def test_a_hit_carries_exact_figures_and_stands_once(tmp_path: Path) -> None:
    texts = ["harbour bridge", "harbour tunnel", "quiet garden"]
    rows = [(f"d{number}", DESK_COLLECTION, text, False) for number, text in enumerate(texts)]
    for indexes, embedder in library_of(tmp_path, rows):
        vector = embedder.embed(["harbour bridge zebra"])[0]
        found = search(indexes, "harbour bridge zebra", vector, 10, ALL)
        assert [hit.passage.text for hit in found.hits][:2] == texts[:2]
        assert len({hit.passage.id for hit in found.hits}) == len(found.hits) == 3
        for hit in found.hits:
            expected = float(embedder.embed([hit.passage.text])[0] @ vector)
            assert hit.similarity == pytest.approx(expected, abs=1e-6)
        weights = {"harbour": rarity(2, 3), "bridg": rarity(1, 3), "zebra": rarity(0, 3)}
        assert found.term_weights == pytest.approx(weights)
        known = weights["harbour"] + weights["bridg"]
        assert found.known_terms == pytest.approx(known / sum(weights.values()))
        assert found.hits[0].coverage == pytest.approx(known / sum(weights.values()))
        assert found.hits[1].coverage == pytest.approx(weights["harbour"] / sum(weights.values()))
        assert len(search(indexes, "harbour", vector, 1, ALL).hits) == 1


def test_a_passage_is_as_near_as_its_nearest_sentence(tmp_path: Path) -> None:
    rows = [
        ("two", DESK_COLLECTION, "harbour bridge|quiet garden", False),
        ("one", DESK_COLLECTION, "garden", False),
    ]
    for indexes, embedder in library_of(tmp_path, rows):
        vector = embedder.embed(["quiet garden"])[0]
        for query in ("quiet garden", "harbour"):
            found = {hit.passage.document_id: hit for hit in search(indexes, query, vector, 5, ALL).hits}
            expected = embedder.embed(["harbour bridge", "quiet garden"]) @ vector
            np.testing.assert_allclose(found["two"].sentences, expected, atol=1e-6)
            assert found["two"].similarity == pytest.approx(1.0)


def test_another_collection_adds_neither_hits_nor_known_terms(tmp_path: Path) -> None:
    rows = [("mine", "me", "zebra crossing", False), ("open", DESK_COLLECTION, "harbour", False)]
    for indexes, embedder in library_of(tmp_path, rows):
        vector = embedder.embed(["zebra"])[0]
        found = search(indexes, "zebra", vector, 10, ALL)
        assert [hit.passage.document_id for hit in found.hits] == ["open"]
        assert found.known_terms == 0.0
        both = search(indexes, "zebra", vector, 10, frozenset({"me", DESK_COLLECTION}))
        assert both.hits[0].passage.document_id == "mine"
        assert both.known_terms == 1.0


def test_an_out_of_date_passage_gives_way_to_a_current_one_near_it(tmp_path: Path) -> None:
    rows = [
        ("old", DESK_COLLECTION, "holiday days twenty five", True),
        ("new", DESK_COLLECTION, "holiday days twenty seven each year", False),
        ("other", DESK_COLLECTION, "gatekey client", True),
    ]
    for indexes, embedder in library_of(tmp_path, rows):
        vector = embedder.embed(["holiday days twenty five"])[0]
        found = search(indexes, "holiday days twenty five", vector, 3, ALL)
        old = next(hit for hit in found.hits if hit.passage.document_id == "old")
        assert old.outdated
        similar = {hit.passage.document_id: hit for hit in found.hits}
        assert similar["old"].similarity > similar["new"].similarity
        plain = search(indexes, "gatekey client", embedder.embed(["gatekey client"])[0], 1, ALL).hits[0]
        assert plain.passage.document_id == "other"
        assert plain.score > 1.0 > OUTDATED_FACTOR
