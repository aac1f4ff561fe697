"""Passages for a message in its conversation, on a library with exact word vectors."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chains.condense import Understood
from chains.context import NEW_WORDS, look_around, vector_of
from chains.workflow import look_up
from desk.settings import IndexSettings
from index.document import SearchResult
from index.library import Library
from tests.fakes import HashEmbedder

DESK = frozenset({"desk"})
NOTES = {
    "charging.md": "# Charging\n\nCharge the car with the badge for the price of the socket.\n\n## Elsewhere\n\n"
    "There is no charger in Ghent yet.\n",
    "canteen.md": "# Canteen\n\nSoup in Ghent. Lunch is at noon.\n",
    "leave.md": "# Leave\n\nA holiday lasts until June.\n",
}
EMBED = HashEmbedder().embed


@pytest.fixture
def library(settings: IndexSettings) -> Iterator[Library]:
    for name, text in NOTES.items():
        (settings.documents / name).write_text(text, encoding="utf-8")
    opened = Library.open(settings, HashEmbedder())
    opened.build()
    yield opened
    opened.close()


def understood(follows: float) -> Understood:
    return Understood(
        message="and in Ghent?",
        condensed="How do I charge the car in Ghent?",
        place="How do I charge the car? Charge the car with the badge for the price of the socket.",
        follows=follows,
    )


def around(library: Library, given: Understood, vector: NDArray[np.float32], k: int = 5) -> tuple[SearchResult, bool]:
    look = partial(look_up, library, EMBED, k=k, collections=DESK)
    return look_around(library, look, EMBED, given, vector, k, DESK)


def found(library: Library, given: Understood, k: int = 5) -> list[tuple[str, str]]:
    result, _ = around(library, given, vector_of(EMBED, given), k)
    return [(Path(hit.path).name, hit.passage.section) for hit in result.hits]


def test_a_message_that_stands_alone_is_searched_exactly_as_without_a_conversation(library: Library) -> None:
    given = understood(0.0)
    vector = vector_of(EMBED, given)
    assert np.array_equal(vector, EMBED([given.message])[0])
    assert around(library, given, vector) == look_up(library, EMBED, given.message, vector, 5, DESK)


def test_a_follow_up_finds_what_stands_beside_what_was_just_read(library: Library) -> None:
    assert found(library, understood(0.0))[0][0] == "canteen.md"
    assert found(library, understood(1.0))[0][0] == "charging.md"


def test_scores_fall_and_no_passage_comes_twice(library: Library) -> None:
    given = understood(0.5)
    result, ordered = around(library, given, vector_of(EMBED, given))
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.passage.id for hit in result.hits}) == len(result.hits) > 1
    assert not ordered


def test_no_more_passages_come_back_than_were_asked_for(library: Library) -> None:
    assert len(found(library, understood(0.5), k=2)) == 2


def test_each_sentence_keeps_its_own_cosine_with_the_message_as_it_is_meant(library: Library) -> None:
    given = understood(1.0)
    message, condensed = EMBED([given.message, given.condensed])
    meant = message + condensed
    meant /= np.linalg.norm(meant)
    result, _ = around(library, given, vector_of(EMBED, given))
    for hit in result.hits:
        lone = library.search(given.condensed, meant, 30, DESK)
        alike = next(one for one in lone.hits if one.passage.id == hit.passage.id)
        assert hit.sentences == pytest.approx(alike.sentences)


def test_the_new_words_weigh_more_than_those_of_the_question_before(library: Library) -> None:
    given = understood(1.0)
    weights = around(library, given, vector_of(EMBED, given))[0].term_weights
    plain = library.search(given.condensed, EMBED([given.condensed])[0], 5, DESK).term_weights
    assert {term: weights[term] / plain[term] for term in plain} == {"charg": 1.0, "car": 1.0, "ghent": NEW_WORDS}


def test_the_vector_lies_the_nearer_to_the_condensed_reading_the_likelier_a_follow_up(library: Library) -> None:
    condensed = EMBED([understood(1.0).condensed])[0]
    near = [float(vector_of(EMBED, understood(follows)) @ condensed) for follows in (0.0, 0.5, 1.0)]
    assert near[0] < near[1] < near[2] < 1
    assert np.linalg.norm(vector_of(EMBED, understood(0.5))) == pytest.approx(1.0)


def test_the_place_is_no_evidence_for_a_message_that_is_out_of_scope_by_itself(library: Library) -> None:
    vector = vector_of(EMBED, understood(1.0))
    inside, outside = (around(library, replace(understood(1.0), stray=stray), vector)[0] for stray in (0.0, 1.0))
    assert [hit.passage.id for hit in inside.hits] == [hit.passage.id for hit in outside.hits]
    message, condensed = EMBED([understood(1.0).message, understood(1.0).condensed])
    meant = (message + condensed) / np.linalg.norm(message + condensed)
    alone = {hit.passage.id: hit for hit in library.search(understood(1.0).condensed, meant, 30, DESK).hits}
    assert [hit.similarity for hit in outside.hits] == pytest.approx(
        [alone[hit.passage.id].similarity for hit in outside.hits]
    )
    assert [hit.similarity for hit in inside.hits] != pytest.approx([hit.similarity for hit in outside.hits])
