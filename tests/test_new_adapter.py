"""An adapter that appears while the app runs: chosen by itself, offered on the page, no trouble when it is broken."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from adapters_small import make_adapter

from app.assembly import Switchboard, assemble
from app.conversation import Conversation
from app.pages.chat import ChatPage
from chains.fitting import grounds
from chains.learned import FILE, Learned, write_learned
from chains.turn import Route, Routed, RouteDecision, Turn
from chains.utterances import Label
from desk.config import DEFAULT_DESK, EMBEDDED_BASE, load_desk

QUESTIONS = [
    f"{opening} {thing}"
    for opening in ("where can I get", "how do I pay for", "who gives out", "I lost")
    for thing in ("a parking permit", "the garage card", "a space for my car", "the barrier code")
]
ASKED = "who gives out cards for the garage barrier?"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Switchboard]:
    """A desk with one document, the sample's routes and no adapter, running."""
    root = tmp_path / "mine"
    (root / "documents").mkdir(parents=True)
    (root / "documents" / "lunch.md").write_text("# Lunch\n\nLunch is served at noon.\n", encoding="utf-8")
    routes = yaml.safe_load((DEFAULT_DESK / "routes.yaml").read_text(encoding="utf-8"))
    kept = {"retrieval": routes["retrieval"], "out_of_scope": routes["out_of_scope"]}
    (root / "routes.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    (root / "desk.yaml").write_text(yaml.safe_dump({"title": "T", "description": "D", "contact": "us"}))
    board = assemble(load_desk(root))
    board.engine.start()
    assert board.engine.wait_ready(60)
    yield board
    board.close()


def add_parking(board: Switchboard, text: str) -> None:
    folder = board.desk.adapters.shipped / "parking"
    make_adapter(EMBEDDED_BASE, folder / "weights", "parking", 7)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    board.engine.refresh(30)


def rows() -> str:
    return "".join(json.dumps({"prompt": question, "completion": "Ask the porter."}) + "\n" for question in QUESTIONS)


def decided(board: Switchboard) -> RouteDecision:
    return next(event for event in board.assistant.answer(Turn(ASKED)) if isinstance(event, Routed)).decision


def test_messages_go_to_an_adapter_that_was_trained_while_the_app_ran(own: Switchboard) -> None:
    assert decided(own).adapter is None
    router = own.assistant.router
    assert own.route_anew(own.routed_on) == own.routed_on and own.assistant.router is router
    add_parking(own, rows())
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
    add_parking(own, rows())
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
    add_parking(own, rows())
    on = own.route_anew(own.routed_on)
    path = own.desk.chains.state / FILE
    write_learned(path, [Learned("my badge does not beep", Label(Route.ADAPTER, "parking"))])
    taught = own.route_anew(on)
    assert taught != on and [one.text for one in taught.learned] == ["my badge does not beep"]
    assert taught == grounds(own.desk.chains, own.engine)
