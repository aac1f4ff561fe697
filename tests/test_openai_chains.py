"""The chains of a desk whose engine is a model server: adapter, workflow, reading, and what people see of faults."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from adapters_small import make_base, make_settings
from chat_server import KEY, ChatServer, free_port, says, whole, words
from langchain_core.messages import HumanMessage

from adapters.engine import Engine, Message, Sampling
from app.assembly import Switchboard, assemble, describe
from chains.chat_model import token_logprobs
from chains.engines import chat_model, open_engine
from chains.openai_engine import sender
from chains.turn import Answer, Event, Failed, Filled, Finished, Route, Routed, Token, Turn
from desk.config import DEFAULT_DESK, load_desk
from desk.settings import ServerSettings

BASE = "owner/base"
VARIABLE = "SWITCHBOARD_TEST_KEY"
FLICKER = "Check the video cable at both ends, then update the graphics driver."
READING = "A Harbor Link session ends after twelve hours. It rains in Lisbon."
DOCUMENT = """# Harbor Link

## How long a session lasts

A Harbor Link session ends after twelve hours. Sign in again to go on.
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(models=[BASE, "it-support-v5", "triage"]).up() as running:
        yield running


@pytest.fixture(scope="module")
def board(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switchboard]:
    """The sample's routes and workflow over one document, with the server as the engine."""
    root = tmp_path_factory.mktemp("served") / "mine"
    (root / "documents").mkdir(parents=True)
    (root / "documents" / "harbor-link.md").write_text(DOCUMENT, encoding="utf-8")
    shutil.copytree(DEFAULT_DESK / "workflows", root / "workflows")
    shutil.copy(DEFAULT_DESK / "routes.yaml", root / "routes.yaml")
    ignore = shutil.ignore_patterns("weights", "eval.jsonl")
    shutil.copytree(DEFAULT_DESK / "adapters", root / "adapters", ignore=ignore)
    for rows in (root / "adapters").glob("*/train.jsonl"):
        rows.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[:150]), encoding="utf-8")
    settings = yaml.safe_load((DEFAULT_DESK / "desk.yaml").read_text(encoding="utf-8"))
    models = {"engine": "openai", "url": server.url, "base": BASE, "api_key_env": VARIABLE, "answer_s": 20}
    (root / "desk.yaml").write_text(
        yaml.safe_dump({"title": "T", "description": "D", "contact": settings["contact"], "models": models})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        board = assemble(load_desk(root))
        board.start()
        yield board
        board.close()


@pytest.fixture(autouse=True)
def as_new(server: ChatServer) -> None:
    fresh = ChatServer(server.port, models=server.models)
    fresh.texts = {BASE: READING, "it-support-v5": FLICKER, "triage": '{"category": "network", "priority": "P2"}'}
    vars(server).update(vars(fresh))


def events(board: Switchboard, turn: Turn) -> list[Event]:
    return list(board.assistant.answer(turn))


def finished(seen: list[Event]) -> Answer:
    assert isinstance(seen[-1], Finished), seen[-1]
    return seen[-1].answer


def chosen(question: str) -> Turn:
    return Turn(question, route=Route.ADAPTER, adapter="it-support", user="browser-id")


def test_the_start_says_where_the_models_are_and_what_is_left_out(board: Switchboard, server: ChatServer) -> None:
    lines = describe(board)
    assert f"Base model {BASE}, served at {server.url}" in lines
    assert "Adapters   it-support v5, triage" in lines
    left_out = [line for line in lines if line.startswith("Left out")]
    assert len(left_out) == 1 and "Adapter service-desk is left out: the model server" in left_out[0]
    assert not any(KEY in line for line in lines)


def test_an_adapter_answers_from_the_server_for_its_sender(board: Switchboard, server: ChatServer) -> None:
    seen = events(board, chosen("The display of my notebook keeps flickering"))
    answer = finished(seen)
    assert answer.text == FLICKER and answer.decision.route is Route.ADAPTER
    assert len([event for event in seen if isinstance(event, Token)]) == len(FLICKER.split())
    (body,) = server.bodies
    assert body["model"] == "it-support-v5" and body["user"] == sender("browser-id") and body["logprobs"] is True
    assert "browser-id" not in str(server.bodies) + str(server.headers)


def test_a_desk_routes_to_an_adapter_on_the_server(board: Switchboard) -> None:
    answer = finished(events(board, Turn("The display of my notebook keeps flickering")))
    assert (answer.decision.route, answer.decision.adapter, answer.text) == (Route.ADAPTER, "it-support", FLICKER)


def test_a_workflow_is_filled_by_the_server_and_drafts_from_the_documents(
    board: Switchboard, server: ChatServer
) -> None:
    server.script = [whole(server.texts["triage"]), whole("the network team")]
    seen = events(board, Turn("How long does a Harbor Link session last?", route=Route.BOTH, user="browser-id"))
    wanted = {"category": "network", "priority": "P2", "team": "Network Team"}
    assert [event.fields for event in seen if isinstance(event, Filled)] == [wanted]
    answer = finished(seen)
    assert answer.fields == wanted and "priority P2 and is with the Network Team" in answer.text
    assert any("ends after twelve hours" in citation.quote for citation in answer.citations)
    assert [body["model"] for body in server.bodies] == ["triage", "triage"]
    assert {body["user"] for body in server.bodies} == {sender("browser-id")}


def test_documents_are_read_by_the_base_and_what_it_adds_is_marked(board: Switchboard, server: ChatServer) -> None:
    question = "How long does a Harbor Link session last?"
    answer = finished(events(board, Turn(question, route=Route.RETRIEVAL, user="browser-id")))
    assert answer.text == READING
    (citation,) = answer.citations
    assert citation.quote.startswith("A Harbor Link session ends after twelve hours.")
    assert [READING[start:end].strip() for start, end in answer.unsupported] == ["It rains in Lisbon."]
    (body,) = server.bodies
    assert body["model"] == BASE and body["user"] == sender("browser-id")
    assert "ends after twelve hours" in body["messages"][-1]["content"] and body["messages"][0]["role"] == "system"


def needs_confidence(board: Switchboard, monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    offer = board.engine._offer  # type: ignore[attr-defined]
    infos = tuple(replace(info, least_confidence=least) for info in offer.infos)
    monkeypatch.setattr(board.engine, "_offer", replace(offer, infos=infos))


def test_an_adapter_that_is_not_sure_is_stopped_and_the_documents_answer(
    board: Switchboard, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_confidence(board, monkeypatch, 0.5)
    server.texts["it-support-v5"] = " ".join(["word"] * 3000)
    server.logprob = -2.0
    turn = Turn("The display of my notebook keeps flickering")
    seen = events(board, turn)
    assert "not sure enough" in [event for event in seen if isinstance(event, Routed)][-1].decision.reason
    assert "word word" not in finished(seen).text
    server.logprob, server.texts["it-support-v5"] = -0.01, FLICKER
    assert finished(events(board, turn)).text == FLICKER


def test_a_server_that_tells_no_log_probabilities_is_taken_at_its_word_at_once(
    board: Switchboard, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_confidence(board, monkeypatch, 0.5)
    server.script = [lambda _: server.streamed(words(FLICKER))]
    seen = events(board, Turn("The display of my notebook keeps flickering"))
    assert finished(seen).text == FLICKER
    assert len([event for event in seen if isinstance(event, Token)]) == len(FLICKER.split())


@pytest.mark.parametrize(("route", "adapter"), [(Route.ADAPTER, "it-support"), (Route.BOTH, None)])
def test_whoever_chats_sees_no_address_and_the_next_turn_goes_on(
    board: Switchboard, server: ChatServer, caplog: pytest.LogCaptureFixture, route: Route, adapter: str | None
) -> None:
    turn = Turn("How long does a Harbor Link session last?", route=route, adapter=adapter)
    server.script = [says(500, "boom")]
    last = events(board, turn)[-1]
    assert isinstance(last, Failed)
    assert last.message.startswith("The language model does not answer just now (turn ")
    assert "127.0.0.1" not in last.message and f"127.0.0.1:{server.port} is out of order (status 500" in caplog.text
    finished(events(board, turn))


def test_documents_are_quoted_while_the_server_cannot_read_them(
    board: Switchboard, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    turn = Turn("How long does a Harbor Link session last?", route=Route.RETRIEVAL)
    server.script = [says(503, "boom")]
    answer = finished(events(board, turn))
    assert answer.text == "A Harbor Link session ends after twelve hours. Sign in again to go on."
    assert [citation.quote for citation in answer.citations] == [answer.text]
    assert "quoted instead of read: The model server" in caplog.text
    server.script = [lambda _: server.streamed(words(READING)[:4])]
    seen = events(board, turn)  # begun, so not begun again
    assert isinstance(seen[-1], Failed) and any(isinstance(event, Token) for event in seen)


@pytest.mark.parametrize("route", [Route.ADAPTER, Route.BOTH])
def test_a_busy_server_and_a_late_answer_are_told_in_their_own_words(
    board: Switchboard, server: ChatServer, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    adapter = "it-support" if route is Route.ADAPTER else None
    turn = Turn("How long does a Harbor Link session last?", route=route, adapter=adapter)
    server.script = [says(429, "quota")]
    last = events(board, turn)[-1]
    assert isinstance(last, Failed) and "Everybody is busy: " in last.message
    if route is Route.ADAPTER:
        monkeypatch.setattr(board.assistant._model, "answer_s", 0.2)
        server.script = [lambda _: server.streamed(words(FLICKER, -0.01), pause_s=0.1)]
        seen = events(board, turn)
        assert isinstance(seen[-1], Failed) and "took longer than 0.2 s" in seen[-1].message
        assert any(isinstance(event, Token) for event in seen)


def test_a_turn_that_is_closed_ends_the_answer_on_the_server(board: Switchboard, server: ChatServer) -> None:
    server.script = [lambda _: server.streamed(words("word " * 3000, -0.01), pause_s=0.01)]
    turn = board.assistant.answer(chosen("The display of my notebook keeps flickering"))
    while not isinstance(next(turn), Token):
        pass
    assert not server.left.is_set()
    turn.close()  # type: ignore[attr-defined]
    assert server.left.wait(5)


# transformers serve: no adapters, no log-probabilities, no schemas


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(folder of a small base, address of `transformers serve` on it)."""
    root = tmp_path_factory.mktemp("transformers")
    (root / "shipped" / "red").mkdir(parents=True)
    (root / "shipped" / "red" / "adapter.yaml").write_text("title: Red\ndomain: Things\n", encoding="utf-8")
    (root / "cache" / "hub").mkdir(parents=True)
    make_base(root / "base")
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    environment = os.environ | {"HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with (root / "log").open("w") as log:
        serve = [program, "serve", str(root / "base"), "--port", str(port), "--device", "cpu"]
        process = subprocess.Popen(serve, stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"transformers serve did not start: {(root / 'log').read_text()[-800:]}")
        yield root, f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait(timeout=30)


def test_transformers_serve_answers_as_the_engine_does_and_has_no_adapters(transformers: tuple[Path, str]) -> None:
    root, url = transformers
    engine = open_engine(make_settings(root, server=ServerSettings(url, str(root / "base"))))
    assert engine.adapters == () and "Adapter red is left out" in engine.failures[0]
    model = chat_model(engine, 30)
    local = Engine(make_settings(root))
    local.start()
    assert local.wait_ready(60)
    for question in ("My screen flickers", "Which agreement?"):
        wanted = "".join(local.stream([Message("user", question)], None, Sampling(max_tokens=12)))
        chunks = list(model.stream([HumanMessage(question)], max_tokens=12, user="u"))
        # Bytes of an unfinished character are kept by the one and dropped by the other.
        assert "".join(str(chunk.content) for chunk in chunks).rstrip("\ufffd") == wanted.rstrip("\ufffd")
        assert [value for chunk in chunks for value in token_logprobs(chunk)] == []
    local.close()
    engine.close()


def test_transformers_serve_fills_fields_though_it_takes_no_schemas(transformers: tuple[Path, str]) -> None:
    root, url = transformers
    text = "title: Red\ndomain: Things\ntask: fields\n"
    (root / "shipped" / "red" / "adapter.yaml").write_text(text, encoding="utf-8")
    engine = open_engine(make_settings(root, server=ServerSettings(url, str(root / "base"))))
    choices = {"priority": ("P1", "P2"), "team": ("Network Team", "Facilities")}
    filled = engine._filling.fill([Message("user", "Triage this.")], str(root / "base"), choices, "")  # type: ignore[attr-defined]
    assert list(filled) == list(choices) and all(value in choices[name] for name, value in filled.items())
    engine.close()
