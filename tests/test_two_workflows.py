"""A desk with two workflows: a sender's choice between them is the one that answers, wherever it is made."""

from dataclasses import replace

import pytest

from app.__main__ import _print_answer
from app.assembly import Switchboard
from app.conversation import Conversation
from app.feedback import other_ways
from app.pages.chat import ChatPage
from app.pages.feedback import FeedbackHandlers, ways_of
from chains.assistant import Assistant
from chains.clarify import label, with_choice
from chains.first_stage import RouterInput
from chains.router import Router
from chains.turn import Finished, Route, RouteDecision, RouteOption, Turn
from tests.test_feedback import press

TICKET = "Sort this ticket: The printer in hall 2 prints blank labels, nobody can ship."
OPENING = "The intake took this as {priority}."
INTAKE = RouteOption(Route.BOTH, workflow="intake")


class Titled(Router):
    """The desk's router, which knows a second workflow by its title; no utterance leads there."""

    def __init__(self, real: Router) -> None:
        self.__dict__.update(real.__dict__)
        self._titles = {**self._titles, "intake": "Request intake"}


class Torn(Titled):
    """The same, torn between the two."""

    def decide(self, given: RouterInput) -> RouteDecision:
        decision = super().decide(given)
        return decision if decision.forced else replace(decision, alternative=INTAKE)


def two(board: Switchboard, kind: type[Titled] = Titled) -> Switchboard:
    """The sample desk with a second workflow, which says something else."""
    first = board.desk.chains.workflows["triage"]
    second = first.model_copy(update={"title": "Request intake", "reply_opening": OPENING})
    settings = replace(board.desk.chains, workflows={"triage": first, "intake": second})
    router = kind(board.assistant.router)
    assistant = Assistant(settings, board.library, board.embedder, board.engine, router, board.assistant.judge)
    return replace(board, desk=replace(board.desk, chains=settings), assistant=assistant)


def test_each_workflow_is_a_way_of_its_own_in_the_control_and_under_an_answer(board: Switchboard) -> None:
    both = two(board)
    assert ChatPage(both).route_choices()[3:] == [("Ticket triage", "both:triage"), ("Request intake", "both:intake")]
    assert ChatPage(board).route_choices()[3:] == [("Both", "both")]
    ways = ways_of(both)
    decided = RouteDecision(Route.BOTH, None, "intake", {}, "")
    assert [way.key for way in other_ways(ways, decided) if way.option.route is Route.BOTH] == ["both:triage"]


@pytest.mark.parametrize(("route", "opens"), [("both:intake", "The intake took this as"), ("both:triage", "Thank you")])
def test_the_route_control_chooses_the_workflow(board: Switchboard, route: str, opens: str) -> None:
    talk = Conversation()
    talk.ask(TICKET)
    list(ChatPage(two(board)).answer(talk, route, "auto", "someone"))
    answer = talk.turns[0].answer
    assert answer is not None and answer.text.startswith(opens)
    assert answer.decision.option == RouteOption(Route.BOTH, workflow=route.partition(":")[2])


def test_answering_again_by_the_other_workflow_does_so(board: Switchboard) -> None:
    both = two(board)
    page = ChatPage(both)
    talk = Conversation(ways=ways_of(both))
    talk.ask(TICKET)
    list(page.answer(talk, "both:triage", "auto", "someone"))
    list(FeedbackHandlers(page).answer_again(talk, "someone", press("again", "0|both:intake")))
    second = talk.turns[0].second
    assert second is not None and second.answer is not None and second.answer.decision.option == INTAKE


def test_a_button_of_the_clarifying_question_chooses_the_workflow(board: Switchboard) -> None:
    page = ChatPage(two(board, Torn))
    talk = Conversation()
    talk.ask(TICKET)
    list(page.answer(talk, "auto", "auto", "someone"))
    assert talk.turns[0].offered == ("Ticket triage", "Request intake")
    talk.choose(1)
    list(page.answer(talk, "auto", "auto", "someone"))
    answer = talk.turns[0].answer
    assert answer is not None and answer.decision.option == INTAKE and answer.text.startswith("The intake took")


def test_the_command_line_says_how_to_choose_and_prints_which_was(
    board: Switchboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assistant = two(board, Torn).assistant
    *_, asked = assistant.answer(Turn(TICKET))
    assert isinstance(asked, Finished)
    _print_answer(asked)
    assert "Request intake: ask again with --route both --workflow intake\n" in capsys.readouterr().out
    routed = next(iter(assistant.answer(Turn(TICKET, workflow="intake"))))
    assert routed.to_json()["workflow"] == "intake"


def test_a_choice_carries_the_workflow() -> None:
    assert with_choice(Turn(TICKET), INTAKE) == Turn(TICKET, route=Route.BOTH, workflow="intake", may_ask=False)
    assert label(INTAKE, {"intake": "Request intake"}) == "Request intake"
