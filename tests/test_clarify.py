"""A turn that two options could answer: the question back, its replies, both answers, and who is never asked."""

from dataclasses import replace

import pytest

from app.assembly import Switchboard
from app.conversation import Conversation
from app.pages.chat import ChatPage
from chains.assistant import Assistant
from chains.clarify import label, options, take_reply
from chains.first_stage import RouterInput
from chains.router import Router
from chains.turn import Answer, Cited, Exchange, Finished, Route, RouteDecision, RouteOption, Token, Turn

QUESTION = "On which day is salary paid?"
DOCUMENTS = RouteOption(Route.RETRIEVAL)
ADVICE = RouteOption(Route.ADAPTER, "it-support")
TITLES = {"triage": "Ticket triage"}


class Torn(Router):
    """The desk's router, but it always has an alternative as well."""

    def __init__(self, real: Router, alternative: RouteOption) -> None:
        self.__dict__.update(real.__dict__)
        self.alternative_option = alternative

    def decide(self, given: RouterInput) -> RouteDecision:
        decision = super().decide(given)
        return decision if decision.forced else replace(decision, alternative=self.alternative_option)


def torn(board: Switchboard, when: str = "ask", alternative: RouteOption = ADVICE) -> Assistant:
    settings = replace(board.desk.chains, when_ambiguous=when)
    router = Torn(board.assistant.router, alternative)
    return Assistant(settings, board.library, board.embedder, board.engine, router, board.assistant.judge)


def finished(assistant: Assistant, turn: Turn) -> Answer:
    *_, last = assistant.answer(turn)
    assert isinstance(last, Finished), last
    return last.answer


def test_an_ambiguous_turn_ends_with_one_question_that_names_both_options(board: Switchboard) -> None:
    seen = list(torn(board).answer(Turn(QUESTION)))
    answer = seen[-1].answer if isinstance(seen[-1], Finished) else None
    assert answer is not None and answer.clarify == ("Documents", "it-support")
    assert answer.text == "I can search the documents or ask it-support for this. Which one do you want?"
    assert "".join(event.text for event in seen if isinstance(event, Token)) == answer.text
    assert answer.to_json()["clarify"] == ["Documents", "it-support"]
    assert not answer.refused and answer.citations == () and answer.decision.route is Route.RETRIEVAL


@pytest.mark.parametrize(("word", "route"), [("Documents", Route.RETRIEVAL), (" it-support. ", Route.ADAPTER)])
def test_a_word_answers_the_question(board: Switchboard, word: str, route: Route) -> None:
    assistant = torn(board)
    past = Exchange(QUESTION, "Which one do you want?", (DOCUMENTS, ADVICE))
    answer = finished(assistant, Turn(word, (past,)))
    assert (answer.standalone, answer.decision.route, answer.decision.forced) == (QUESTION, route, True)
    assert answer.clarify == ()


def test_the_same_question_is_never_put_back_twice(board: Switchboard) -> None:
    past = Exchange(QUESTION, "Which one do you want?", (DOCUMENTS, ADVICE))
    answer = finished(torn(board), Turn(QUESTION.lower(), (past,)))
    assert answer.clarify == () and answer.decision.route is Route.RETRIEVAL and answer.citations
    assert finished(torn(board), Turn(QUESTION, may_ask=False)).clarify == ()


@pytest.mark.parametrize("turn", [Turn(QUESTION, route=Route.RETRIEVAL), Turn(QUESTION, adapter="it-support")])
def test_who_chose_is_not_asked(board: Switchboard, turn: Turn) -> None:
    for when in ("ask", "both"):
        answer = finished(torn(board, when), turn)
        assert answer.clarify == () and answer.parts == ()


def test_both_options_answer_one_below_the_other(board: Switchboard) -> None:
    seen = list(torn(board, "both").answer(Turn(QUESTION)))
    answer = seen[-1].answer if isinstance(seen[-1], Finished) else None
    assert answer is not None and answer.clarify == ()
    documents, advice = answer.parts
    assert (documents.heading, advice.heading) == ("From the documents", "From it-support")
    assert (documents.decision.route, advice.decision.adapter) == (Route.RETRIEVAL, "it-support")
    assert documents.citations
    assert tuple(event.citation for event in seen if isinstance(event, Cited)) == answer.citations
    for citation in answer.citations:
        assert answer.text[citation.answer_start : citation.answer_end] == citation.quote


def test_a_refusal_is_no_option() -> None:
    decision = RouteDecision(Route.RETRIEVAL, None, None, {}, "", alternative=RouteOption(Route.NONE))
    assert options(decision) == ()
    assert options(replace(decision, alternative=DOCUMENTS)) == ()
    assert options(replace(decision, alternative=ADVICE)) == (DOCUMENTS, ADVICE)
    assert options(replace(decision, alternative=ADVICE, forced=True)) == ()


def test_options_have_the_names_that_the_page_uses() -> None:
    workflow = RouteOption(Route.BOTH, workflow="triage")
    assert [label(one, TITLES) for one in (DOCUMENTS, ADVICE, workflow)] == ["Documents", "it-support", "Ticket triage"]


def test_another_message_after_the_question_is_a_message_of_its_own() -> None:
    past = Exchange(QUESTION, "Which one do you want?", (DOCUMENTS, ADVICE))
    turn = Turn("Where is the canteen?", (past,))
    assert take_reply(turn, TITLES) == turn


def test_a_clicked_option_answers_in_the_place_of_the_question(board: Switchboard) -> None:
    page = ChatPage(replace(board, assistant=torn(board)))
    talk = Conversation()
    talk.ask(QUESTION)
    list(page.answer(talk, "auto", "auto", ""))
    row = talk.messages()[-1]
    assert row["options"] == [{"label": "Documents", "value": "0"}, {"label": "it-support", "value": "1"}]
    assert "Which one:" in row["content"]
    talk.choose(0)
    list(page.answer(talk, "auto", "auto", ""))
    assert len(talk.turns) == 1 and "You chose Documents" in talk.messages()[-1]["content"]
    assert "options" not in talk.messages()[-1]


def test_retry_answers_a_question_that_was_put_back_and_keeps_what_was_chosen(board: Switchboard) -> None:
    page = ChatPage(replace(board, assistant=torn(board)))
    talk = Conversation()
    talk.ask(QUESTION)
    list(page.answer(talk, "auto", "auto", ""))
    talk.ask_again()
    list(page.answer(talk, "auto", "auto", ""))
    assert "sb-chip" in talk.messages()[-1]["content"] and not talk.turns[-1].offered
    talk.clear()
    talk.ask(QUESTION, ADVICE)
    list(page.answer(talk, "auto", "auto", ""))
    talk.ask_again()
    list(page.answer(talk, "auto", "auto", ""))
    assert "You chose it-support" in talk.messages()[-1]["content"]


def test_another_way_that_is_asked_for_after_a_word_is_the_one_that_answers(board: Switchboard) -> None:
    past = Exchange(QUESTION, "Which one do you want?", (DOCUMENTS, ADVICE))
    answer = finished(torn(board), Turn("Documents", (past,), route=Route.ADAPTER, adapter="it-support"))
    assert (answer.standalone, answer.decision.adapter) == (QUESTION, "it-support")


def test_a_passage_has_one_number_in_all_parts(board: Switchboard) -> None:
    answer = finished(torn(board, "both", DOCUMENTS), Turn(QUESTION))
    numbers = {}
    for citation in answer.citations:
        assert numbers.setdefault(citation.passage, citation.number) == citation.number
    assert sorted(set(numbers.values())) == list(range(1, len(numbers) + 1))
