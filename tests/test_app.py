"""The server and the command line, as other programs see them."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.assembly import Switchboard, describe
from app.conversation import Conversation, Shown
from app.pages.chat import ChatPage, build_page
from chains.turn import Exchange
from desk.config import ROOT

QUESTION = "How long does a Harbor Link connection last before it ends?"


def get(url: str) -> tuple[int, dict[str, str], str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode("utf-8", "replace")


def run(*arguments: str, state: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**os.environ, "SWITCHBOARD_HOME": str(state)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_server_says_that_it_is_well(address: str, board: Switchboard) -> None:
    status, _, body = get(f"{address}/healthz")
    assert status == 200 and json.loads(body) == {"status": "ok", "documents": board.library.status().documents}


def test_a_source_is_shown_as_locked_down_text_with_the_quote_marked(address: str, board: Switchboard) -> None:
    info = next(one for one in board.library.documents() if one.path.endswith(".html"))
    document = board.library.document(info.id)
    assert document is not None
    status, headers, body = get(f"{address}/source/{info.id}?start=0&end=12")
    assert status == 200 and '<mark id="cited">' in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert get(f"{address}/source/nothing")[0] == 404


def test_only_pdf_originals_open_in_the_browser(address: str, board: Switchboard) -> None:
    by_format = {info.path.rsplit(".", 1)[-1]: info.id for info in board.library.documents()}
    _, headers, body = get(f"{address}/source/{by_format['pdf']}/original")
    assert headers["content-type"] == "application/pdf" and headers["content-disposition"].startswith("inline")
    assert body.startswith("%PDF")
    _, headers, _ = get(f"{address}/source/{by_format['html']}/original")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment")


def test_ask_prints_the_events_and_last_the_finished_turn(board: Switchboard, state_folder: Path) -> None:
    done = run("ask", QUESTION, "--json", state=state_folder)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [rows[0]["type"], rows[1]["type"], rows[-1]["type"]] == ["routed", "retrieved", "finished"]
    assert rows[-1]["route"] == "retrieval" and "12 hours" in rows[-1]["answer"]


def test_a_desk_with_a_fault_stops_the_start_in_one_sentence(tmp_path: Path) -> None:
    done = run("--desk", str(tmp_path / "nowhere"), "ask", "hello", state=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("switchboard: There is no desk at")
    assert "Traceback" not in done.stderr


def test_the_app_file_starts_by_its_path_as_on_a_space(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "app" / "__main__.py"), "--help"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "ask" in done.stdout


def test_a_foreign_package_of_our_name_is_named(tmp_path: Path) -> None:
    foreign = tmp_path / "adapters"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("", encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import app.__main__ as m; "
        f"sys.path.insert(0, {str(tmp_path)!r}); m.check_neighbours()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and str(foreign) in done.stderr


def test_what_it_runs_on_is_said_without_secrets(board: Switchboard) -> None:
    text = "\n".join(describe(board))
    assert board.embedder.name in text and "it-support" in text and str(board.desk.state) in text


def asked(*questions: str) -> Conversation:
    """A conversation in which all of these were asked before the first answer began."""
    conversation = Conversation()
    for question in questions:
        conversation.ask(question)
    return conversation


def shown_chat(conversation: Conversation) -> str:
    return "".join(row["content"] for row in conversation.messages())


def test_the_last_turn_is_taken_back() -> None:
    talk = Conversation((Shown("one", exchange=Exchange("one", "1")), Shown("two")))
    assert talk.take_last() == "two" and [shown.asked for shown in talk.turns] == ["one"]
    assert talk.take_last() == "one" and talk.take_last() == "" and talk.turns == ()


def test_only_the_newest_question_grows() -> None:
    conversation = asked("first", "second")
    first, second = conversation.begin(), conversation.begin()
    assert first is not None and conversation.growing is second and not conversation.waiting
    conversation.ask("third")
    assert conversation.growing is None and "sb-writing" not in shown_chat(conversation)


def test_a_blank_question_ends_no_answer() -> None:
    conversation = asked("first")
    first = conversation.begin()
    conversation.ask("  ")
    assert conversation.growing is first and conversation.begin() is None and conversation.growing is first


def answering(board: Switchboard, conversation: Conversation) -> Iterator[tuple[Any, ...]]:
    return ChatPage(board).answer(conversation, "retrieval", "auto", "")


def test_an_answer_shows_the_page_last_and_ends_no_longer_growing(board: Switchboard) -> None:
    conversation = asked(QUESTION)
    *_, (messages, panel, _) = answering(board, conversation)
    assert "12 hours" in messages[1]["content"] and "sb-writing" not in messages[1]["content"]
    assert "sb-card" in panel and conversation.turns[0].exchange is not None


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_stopped_answer_says_last_how_the_page_stands(board: Switchboard, steps: int) -> None:
    conversation = asked(QUESTION)
    answer = answering(board, conversation)
    for _ in range(steps):
        assert "sb-writing" in next(answer)[0][1]["content"]
    conversation.stop()
    rest = list(answer)
    assert len(rest) == 1 and "sb-writing" not in rest[0][0][1]["content"]
    assert rest[0][:2] == (conversation.messages(), conversation.panel())


def test_an_answer_writes_nothing_into_a_conversation_that_was_cleared_or_went_on(board: Switchboard) -> None:
    conversation = asked(QUESTION)
    old = answering(board, conversation)
    next(old)
    conversation.clear()
    conversation.ask("On which day is salary paid?")
    new = answering(board, conversation)
    next(new)
    list(old)
    *_, (messages, _, _) = new
    assert len(messages) == 2 and "salary" in messages[0]["content"] and "12 hours" not in messages[1]["content"]


def test_a_question_that_was_stopped_before_its_answer_began_is_not_answered(board: Switchboard) -> None:
    conversation = asked(QUESTION)
    conversation.stop()
    assert len(list(answering(board, conversation))) == 1 and conversation.turns == ()


def test_all_ways_to_ask_share_one_limit(board: Switchboard) -> None:
    answers = [event for event in build_page(board).fns.values() if event.name == "answer"]
    assert len(answers) == 5 and {event.concurrency_id for event in answers} == {"answer"}
    assert {event.concurrency_limit for event in answers} == {board.desk.app.parallel_turns}
