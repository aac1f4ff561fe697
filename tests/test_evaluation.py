"""The measuring code on small data with known answers."""

from dataclasses import replace

import pytest

from app.assembly import Switchboard
from chains.condense import WEIGHTS
from chains.golden import GoldenTurn
from chains.turn import Answer, Route, RouteDecision
from chains.utterances import Label
from evaluation.desk import Asked, measure_turns
from evaluation.follow_ups import measure_rule, measure_stages
from evaluation.refit import goes_right
from evaluation.right import route_right
from evaluation.share import Refusals, Share


def test_only_turns_that_need_their_history_count_as_follow_ups() -> None:
    def turn(follow_up: bool) -> Asked:
        row = {
            "id": "a",
            "question": "until when?",
            "history": [{"question": "How long?", "answer": "A week."}],
            "follow_up": follow_up,
            "route": "retrieval",
            "passages": [{"document": "a.md", "quote": "June"}],
            "facts": [["June"]],
        }
        return Asked(GoldenTurn.model_validate(row), (), None, None)

    assert measure_turns([turn(True), turn(False), turn(True)])["follow_up_fact"].total == 2


@pytest.mark.slow
def test_the_follow_up_rule_is_fitted_on_the_desk_and_tells_most_follow_ups_from_the_rest(board: Switchboard) -> None:
    report = measure_rule(board)
    assert report.caught.total >= 100 and report.mistaken.total > report.caught.total
    assert report.caught.value > 0.8
    assert report.mistaken.value < 0.15
    assert len(report.weights) == len(WEIGHTS)


def test_the_stages_of_a_follow_up_are_counted_over_the_turns_that_documents_answer(board: Switchboard) -> None:
    past = {"question": "When is lunch served in Rotterdam?", "answer": "11:45-13:30"}
    row = {"route": "retrieval", "history": [past], "facts": [["12:00-13:00"]]}
    place = {"document": "documents/workplace/canteen-and-kitchens.md", "quote": "Hot lunch: 12:00-13:00"}
    turns = [
        GoldenTurn.model_validate(row | {"id": "a", "question": "and in Ghent?", "passages": [place]}),
        GoldenTurn.model_validate(row | {"id": "b", "question": "and in Ghent?"}),
    ]
    stages = measure_stages(board.assistant, turns)
    assert set(stages["follow-ups"].values()) == {Share(1, 1)}
    assert stages["stand alone"] == {}


def test_a_message_with_several_intents_is_right_when_every_part_is() -> None:
    def part(route: Route, text: str) -> Answer:
        return Answer("q", RouteDecision(route, None, None, {}, ""), text, route is Route.NONE)

    def asked(*parts: Answer) -> Asked:
        gold = [{"route": "retrieval", "facts": [["June", "6th"]]}, {"route": "none", "refused": True}]
        row = {"id": "a", "question": "q", "route": "retrieval", "parts": gold}
        return Asked(GoldenTurn.model_validate(row), (), replace(part(Route.RETRIEVAL, ""), parts=parts), None)

    june, nothing = part(Route.RETRIEVAL, "In June."), part(Route.NONE, "Sorry.")
    shares = measure_turns([asked(june, nothing), asked(june), asked(nothing, nothing), asked()])
    assert (shares["several_parted"].right, shares["several_right"].right) == (2, 1)


def test_the_f1_of_refusing_is_counted_and_its_interval_holds_it() -> None:
    told = Refusals.of([(True, True)] * 6 + [(True, False)] * 2 + [(False, True)] * 4 + [(False, False)] * 88)
    assert (told.precision, told.recall) == (Share(6, 8), Share(6, 10))
    assert told.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    low, high = told.f1_interval
    assert 0.3 < low < told.f1 < high < 0.95
    wide, narrow = (Refusals.of([(True, True), (True, False), (False, True)] * n).f1_interval for n in (5, 500))
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0])


def test_refusing_has_no_f1_where_all_can_be_answered() -> None:
    told = Refusals.of([(True, False), (False, False)]).to_json()
    assert told == {"precision": 0.0, "recall": None, "f1": None, "low": None, "high": None}
    assert Refusals.of([(False, True)]).f1 == 0.0


def test_a_share_of_nothing_is_null() -> None:
    assert Share.of([]).to_json() == {"value": None, "low": None, "high": None, "right": 0, "total": 0}
    assert Share.of([True, False, True, True]) == Share(3, 4)


def test_a_workflow_counts_for_the_route_and_an_adapter_does_not() -> None:
    both = GoldenTurn(id="a", question="q", route=Route.BOTH, workflow="triage")
    assert route_right(both, Route.BOTH, "triage") and not route_right(both, Route.BOTH, "other")
    assert not route_right(both, Route.ADAPTER, "triage")
    adapter = GoldenTurn(id="a", question="q", route=Route.ADAPTER, adapter="one")
    assert route_right(adapter, Route.ADAPTER, None)
    assert goes_right(adapter, Label(Route.ADAPTER, "one")) and not goes_right(adapter, Label(Route.ADAPTER, "two"))
    assert goes_right(both, Label(Route.BOTH, "triage")) and not goes_right(both, Label(Route.BOTH, "other"))
