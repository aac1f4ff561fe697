"""The measuring code on small data with known answers."""

from dataclasses import replace

from app.assembly import Switchboard
from chains.golden import GoldenTurn
from chains.turn import Answer, Route, RouteDecision
from evaluation.desk import Asked, measure_turns
from evaluation.follow_ups import measure_follow_ups


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


def test_the_follow_up_rule_is_fitted_on_the_desk_and_beats_words_alone(board: Switchboard) -> None:
    report = measure_follow_ups(board)
    assert report.follow_ups >= 40 and report.others > report.follow_ups
    assert report.caught > report.by_words[0] + 0.1
    assert report.mistaken < 0.1
