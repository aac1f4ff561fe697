"""An adapter that appears while the app runs: chosen by itself, offered on the page, no trouble when it is broken."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_desk import add_parking, parking_rows, small_desk

from app.assembly import Switchboard
from app.conversation import Conversation
from app.pages.chat import ChatPage
from chains.fitting import fit_router, grounds
from chains.learned import FILE, Learned, write_learned
from chains.turn import Route, Routed, RouteDecision, Turn
from chains.utterances import Label

ASKED = "who gives out cards for the garage barrier?"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Switchboard]:
    with small_desk(tmp_path / tmp_path.name) as board:
        yield board


def decided(board: Switchboard) -> RouteDecision:
    return next(event for event in board.assistant.answer(Turn(ASKED)) if isinstance(event, Routed)).decision


def test_messages_go_to_an_adapter_that_was_trained_while_the_app_ran(own: Switchboard) -> None:
    assert decided(own).adapter is None
    router = own.assistant.router
    assert own.route_anew(own.routed_on) == own.routed_on and own.assistant.router is router
    add_parking(own, parking_rows())
    on = own.route_anew(own.routed_on)
    assert on.adapters == (("parking", 1),)
    decision = decided(own)
    assert decision.route is Route.ADAPTER and decision.adapter == "parking"
    assert own.route_anew(on) == on

    shutil.rmtree(own.desk.adapters.shipped / "parking")
    own.engine.refresh(30)
    assert own.route_anew(on).adapters == () and decided(own).adapter is None


def test_the_page_offers_it_in_the_dropdown_and_as_another_way(own: Switchboard) -> None:
    page, talk = ChatPage(own), Conversation()
    page.adapters_now(talk)
    assert not any(way.option.adapter == "parking" for way in talk.ways)
    add_parking(own, parking_rows())
    update = page.adapters_now(talk)
    assert ("parking: Things of parking", "parking") in update["choices"]
    assert any(way.option.adapter == "parking" for way in talk.ways)


def test_one_whose_rows_cannot_be_read_is_offered_and_told_of(
    own: Switchboard, caplog: pytest.LogCaptureFixture
) -> None:
    add_parking(own, "no row\n")
    assert own.route_anew(own.routed_on).adapters == (("parking", 1),)
    assert "no message is routed to parking by itself" in caplog.text and "train.jsonl, line 1" in caplog.text
    assert decided(own).adapter is None
    assert "parking" in [name for _, name in ChatPage(own).adapter_choices()]


def test_what_people_taught_is_taken_up(own: Switchboard) -> None:
    add_parking(own, parking_rows())
    on = own.route_anew(own.routed_on)
    path = own.desk.chains.state / FILE
    router = own.assistant.router
    write_learned(path, [Learned("my badge does not beep", Label(Route.ADAPTER, "parking"))])
    taught = own.route_anew(on)
    assert taught == grounds(own.desk.chains, own.engine) != on
    assert own.assistant.router is not router
    event = next(one for one in own.assistant.answer(Turn("my badge does not beep")) if isinstance(one, Routed))
    assert event.decision.adapter == "parking"


def test_a_fit_that_fails_is_tried_again(own: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    add_parking(own, parking_rows())
    monkeypatch.setattr("app.assembly.ROUTER_S", 0.01)
    monkeypatch.setattr("app.assembly.ROUTER_PAUSE_S", 0.01)
    calls: list[int] = []

    def once(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the library is away")
        own.closing.set()
        return fit_router(*given)

    monkeypatch.setattr("app.assembly.fit_router", once)
    own._follow_router()
    assert len(calls) == 2 and decided(own).adapter == "parking"
