"""The generative documents chain with a small model that really reads its prompt."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chains.judge import Judge
from chains.prepared import Draft, Prepared
from chains.retrieval import answer_from_documents, in_force
from chains.turn import Cited, Route, RouteDecision, Token, Turn
from desk.settings import IndexSettings
from index.library import Library
from tests.fakes import CopyingReader, HashEmbedder, hit

NOTE = "# Canteen\n\nLunch is served from noon to one. A meal costs 5.50 EUR. Bring your badge to pay.\n"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "canteen.md").write_text(NOTE, encoding="utf-8")
    settings = IndexSettings(documents, tmp_path / "state", tmp_path / "models", 180, 5, 20, 1)
    opened = Library.open(settings, HashEmbedder())
    opened.build()
    yield opened
    opened.close()


def prepared(library: Library, question: str = "What does a meal cost?") -> Prepared:
    vector = HashEmbedder().embed([question])[0]
    found = library.search(question, vector, 5, frozenset({"desk"}))
    decision = RouteDecision(Route.RETRIEVAL, None, None, {Route.RETRIEVAL: 1.0}, "test")
    return Prepared(Turn(question), question, np.asarray(vector), found, decision)


def answered(library: Library, judge: Judge, script: str | None, **asked: str) -> tuple[str, list[Cited], Draft]:
    model = CopyingReader(script=script) if script is not None else None
    turn = prepared(library, **asked)
    judgement = judge.judge(turn.standalone, turn.found)
    events = list(answer_from_documents(turn, judgement, library, judge, HashEmbedder().embed, model, "ext. 1"))
    text = "".join(event.text for event in events if isinstance(event, Token))
    draft = events[-1]
    assert isinstance(draft, Draft)
    return text, [event for event in events if isinstance(event, Cited)], draft


def test_codes_leave_the_text_and_sentences_get_their_passage(library: Library, judge: Judge) -> None:
    text, cited, draft = answered(
        library, judge, "A meal costs 5.50 EUR [{code}]. Penguins swim under thick ice [zzzz]."
    )
    assert "[" not in text
    assert [one.citation.quote for one in cited] == ["A meal costs 5.50 EUR."]
    assert draft.citations == tuple(one.citation for one in cited)
    assert [text[a:b] for a, b in draft.unsupported] == ["Penguins swim under thick ice ."]


def test_an_answer_that_nothing_supports_is_followed_by_what_the_documents_say(library: Library, judge: Judge) -> None:
    text, cited, draft = answered(library, judge, "Penguins swim under thick ice.")
    assert "Nothing in the documents supports the above" in text
    assert cited and all(text[c.citation.answer_start : c.citation.answer_end] == c.citation.quote for c in cited)
    assert draft.unsupported


def test_a_model_that_finds_nothing_is_believed(library: Library, judge: Judge) -> None:
    _, cited, draft = answered(library, judge, "The documents do not say.")
    assert draft.refused and not cited


def test_without_a_reader_the_answer_is_quotes_alone(library: Library, judge: Judge) -> None:
    text, cited, draft = answered(library, judge, None)
    assert "A meal costs 5.50 EUR." in text and not draft.refused
    assert "\n\n".join(one.citation.quote for one in cited) == text


def test_too_little_evidence_is_a_refusal_that_names_the_closest(library: Library, judge: Judge) -> None:
    text, cited, draft = answered(library, judge, None, question="Which gas do weather balloons hold?")
    assert draft.refused and not cited
    assert "Canteen" in text and "ext. 1" in text


def test_out_of_date_documents_are_quoted_only_when_the_question_means_them() -> None:
    now = hit("Five days may be carried over.", path="documents/leave.md")
    past = replace(hit("Eight days may be carried over.", path="documents/old.md"), outdated=True, title="GateKey 2023")
    assert in_force("How many days may be carried over?", (past, now)) == (now,)
    assert in_force("How many days could be carried over in 2023?", (past, now)) == (past, now)
    assert in_force("Does GateKey still work?", (past, now)) == (past, now)
    assert in_force("How many days were carried over before?", (past, now)) == (past, now)
    assert in_force("How many days until it ends, before I lose them?", (past, now)) == (now,)
    assert in_force("How many days?", (past,)) == (past,)
