"""Feedback is kept as it was given, in SQLite and in a real PostgreSQL, and never gets in the way."""

import datetime
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

from app.records import Correction, Feedback, Records, open_records
from chains.turn import Route, RouteOption
from desk.config import load_desk, records_address
from desk.errors import DeskError

THUMB = Feedback("u1", "thumb", "up", "How often is a laptop replaced?", RouteOption(Route.RETRIEVAL))
AGAIN = Feedback(
    "u2",
    "override",
    "again",
    "المنفذ 7, “why” \x00 'x'); DROP TABLE feedback; --",
    RouteOption(Route.BOTH, workflow="triage"),
    RouteOption(Route.ADAPTER, "it-support"),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    """ "" for a file, or the address of an empty database."""
    if request.param == "sqlite":
        return ""
    server: str = request.getfixturevalue("postgres")
    with psycopg.connect(server + "postgres", autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS records WITH (FORCE)")
        admin.execute("CREATE DATABASE records")
    return server + "records"


@pytest.fixture
def records(address: str, tmp_path: Path) -> Iterator[Records]:
    opened = open_records(address, tmp_path / "records.db")
    yield opened
    opened.close()


def test_what_is_kept_comes_back_in_order_with_its_time(records: Records) -> None:
    before = datetime.datetime.now(datetime.UTC)
    assert records.keep(THUMB) and records.keep(AGAIN)
    after = datetime.datetime.now(datetime.UTC)
    first, second = records.all()
    assert first.feedback == THUMB and first.id < second.id
    assert second.feedback.question == AGAIN.question.replace("\x00", "")
    assert (second.feedback.decided, second.feedback.chosen) == (AGAIN.decided, AGAIN.chosen)
    assert before <= first.at <= second.at <= after


def test_better_answers_and_reviews_come_back(records: Records) -> None:
    first = Correction("u1", "it-support", "Why?", "It's “so”.")
    second = Correction("u2" + "x" * 200, "a", "How?\x00", "\ufffe'); DROP --\ud800\uffff")
    assert records.correct(first) and records.correct(second)
    assert records.review(["a1", "b2"]) and records.review([])
    assert records.corrections() == (first, Correction("u2" + "x" * 62, "a", "How?", "'); DROP --"))
    assert set(records.reviewed()) == {"a1", "b2"} and records.all() == ()


def test_records_outlive_the_program(records: Records, address: str, tmp_path: Path) -> None:
    records.keep(THUMB)
    records.close()
    again = open_records(address, tmp_path / "records.db")
    assert [record.feedback for record in again.all()] == [THUMB]
    again.close()


def test_many_threads_lose_nothing(records: Records) -> None:
    def write(number: int) -> None:
        for place in range(10):
            records.keep(Feedback(f"u{number}", "thumb", "down", f"question {place}", RouteOption(Route.NONE)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {(record.feedback.user, record.feedback.question) for record in records.all()}
    assert len(records.all()) == 80 and len(kept) == 80


def test_a_write_that_fails_says_so_and_raises_nothing(tmp_path: Path) -> None:
    records = open_records("", tmp_path / "records.db")
    with sqlite3.connect(tmp_path / "records.db") as other:
        other.execute("DROP TABLE feedback")
    other.close()
    assert not records.keep(THUMB)
    with pytest.raises(DeskError, match="cannot be read"):
        records.all()
    records.close()


def test_a_database_that_cannot_be_used_stops_the_start_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match=re.escape("postgresql+psycopg://owner:***@127.0.0.1:1/")) as caught:
        open_records("postgresql://owner:hunter2@127.0.0.1:1/records", tmp_path / "records.db")
    assert "hunter2" not in str(caught.value)
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as the head of one" * 20)
    with pytest.raises(DeskError, match=r"text\.db"):
        Records(URL.create("sqlite+pysqlite", database=str(tmp_path / "text.db")))


@pytest.mark.parametrize("address", ["mysql://a:hunter2@b/c", "hunter2", "postgresql+:/hunter2"])
def test_an_address_that_is_none_of_postgresql_is_not_repeated(address: str, tmp_path: Path) -> None:
    with pytest.raises(DeskError, match="postgresql://USER") as caught:
        open_records(address, tmp_path / "records.db")
    assert "hunter2" not in str(caught.value)


def test_desk_yaml_names_the_variable_with_the_address(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert records_address(load_desk(desk).app) == ""
    with (desk / "desk.yaml").open("a") as file:
        file.write("records:\n  url_env: DESK_RECORDS\n")
    with pytest.raises(DeskError, match="DESK_RECORDS, which is not set"):
        records_address(load_desk(desk).app)
    monkeypatch.setenv("DESK_RECORDS", "postgresql://a@b/c")
    assert make_url(records_address(load_desk(desk).app)).host == "b"
