"""What no passage supports, from a model that reads to the page, its history and the command line."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.__main__ import _print_answer
from app.assembly import Switchboard
from app.conversation import Conversation
from app.pages.chat import ChatPage
from chains.assistant import Assistant
from chains.judge import Judgement
from chains.prepared import Draft, Prepared
from chains.retrieval import answer_from_documents
from chains.turn import Event, Finished, Route, Turn
from tests.fakes import CopyingReader

QUESTION = "How long does a Harbor Link connection last before it ends?"
RIGHT, WRONG = "A connection ends after 12 hours.", "A connection ends after 13 hours."


class Reading(Assistant):
    """The desk's assistant with a model that reads, which says a right sentence and a wrong one."""

    def _from_documents(self, prepared: Prepared, judgement: Judgement) -> Iterator[Event | Draft]:
        model, embed = CopyingReader(script=f"{RIGHT} {WRONG}"), self.library.embedder.embed
        return answer_from_documents(prepared, judgement, self.library, self.judge, embed, model, "ext. 1")


@pytest.fixture
def reading(board: Switchboard) -> Assistant:
    return Reading(
        board.desk.chains, board.library, board.embedder, board.engine, board.assistant.router, board.assistant.judge
    )


def finished(assistant: Assistant) -> Finished:
    *_, last = assistant.answer(Turn(QUESTION, route=Route.RETRIEVAL))
    assert isinstance(last, Finished), last
    return last


def test_an_answer_says_which_of_its_sentences_no_passage_supports(reading: Assistant) -> None:
    answer = finished(reading).answer
    assert [answer.text[start:end] for start, end in answer.unsupported] == [WRONG]
    assert [answer.text[one.answer_start : one.answer_end] for one in answer.citations] == [RIGHT]
    assert answer.to_json()["unsupported"] == [[len(RIGHT) + 1, len(RIGHT) + 1 + len(WRONG)]]


def test_the_mark_and_the_count_stay_in_the_conversation(board: Switchboard, reading: Assistant) -> None:
    page = ChatPage(replace(board, assistant=reading))
    talk = Conversation()
    for question in (QUESTION, "How do I set up Harbor Link?"):
        talk.ask(question)
        list(page.answer(talk, "retrieval", "auto", ""))
    first = talk.messages()[1]["content"]
    assert f'<span class="sb-unsupported" title="No passage supports this">{WRONG}</span>' in first
    assert "1 sentence is marked: no passage found says so." in first
    assert first.index(RIGHT) < first.index("sb-chip") < first.index(WRONG)


def test_the_command_line_names_each_sentence(reading: Assistant, capsys: pytest.CaptureFixture[str]) -> None:
    _print_answer(finished(reading))
    assert f"  [no passage found says so] {WRONG}\n" in capsys.readouterr().out
