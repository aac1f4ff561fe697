"""Rows of a real database become documents, and nothing that a query says can change the database."""

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from desk.connectors import DatabaseFile
from index.connectors.database import read_database
from index.connectors.items import ConnectorError
from index.connectors.mirror import read_sources
from index.connectors.sync import SyncReport, fingerprint, sync
from index.sources import load_source

URL_ENV = "SWITCHBOARD_TEST_DATABASE"


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """A connection to a fresh database of articles; the connector's variable holds its address."""
    with psycopg.connect(postgres + "postgres", autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS desk WITH (FORCE)")
        admin.execute("CREATE DATABASE desk")
    monkeypatch.setenv(URL_ENV, postgres + "desk")
    with psycopg.connect(postgres + "desk", autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE articles (id int PRIMARY KEY, title text, body text, updated timestamptz, price numeric)"
        )
        connection.execute(
            "INSERT INTO articles VALUES"
            " (1, 'VPN <b>', E'Open the client.\\n\\n# Not a heading', '2026-03-04 10:00+00', 12.50),"
            " (2, 'Mail', 'Use the 100% new client: it::works', '2026-03-05 10:00+00', NULL)"
        )
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def rows(query: str = "SELECT * FROM articles", **values: object) -> DatabaseFile:
    entry = {"name": "crm", "loader": "database", "url_env": URL_ENV, "query": query, "key": "id"}
    return DatabaseFile.model_validate(entry | values)


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    """added, changed, removed, unchanged"""
    return report.added, report.changed, report.removed, report.unchanged


def texts(connector: DatabaseFile, folder: Path) -> dict[str, str]:
    sources = read_sources(folder, fingerprint(connector))
    return {
        source.key: load_source(folder / name, name=name, collection="desk", max_bytes=10_000_000).text
        for name, source in sources.items()
    }


def test_each_row_is_a_document_that_follows_its_row(database: psycopg.Connection, folder: Path) -> None:
    connector = rows(title="title", date="updated", address="https://crm.example/articles/{key}")
    assert counts(sync(connector, folder)) == (2, 0, 0, 0)
    found = texts(connector, folder)
    assert found["1"].startswith("VPN <b>\n\nId: 1\n\nBody: Open the client.\n\n# Not a heading\n\nUpdated: 2026-03-04")
    assert found["1"].endswith("Price: 12.50") and "Price" not in found["2"]
    assert "Use the 100% new client: it::works" in found["2"]
    sources = {source.key: source for source in read_sources(folder, fingerprint(connector)).values()}
    assert (sources["1"].address, sources["1"].title) == ("https://crm.example/articles/1", "VPN <b>")
    assert sources["2"].date == "2026-03-05"
    database.execute("UPDATE articles SET body = 'Use the old client.' WHERE id = 2")
    database.execute("INSERT INTO articles VALUES (3, 'Wi-Fi', 'Harbour.', now(), 1)")
    database.execute("DELETE FROM articles WHERE id = 1")
    assert counts(sync(connector, folder)) == (1, 1, 1, 0)
    assert set(texts(connector, folder)) == {"2", "3"}


def test_all_rows_are_one_table_whatever_their_order(database: psycopg.Connection, folder: Path) -> None:
    query = "SELECT id, title, price FROM articles ORDER BY id "
    connector = rows(query + "DESC", document="table", date="")
    sync(connector, folder)
    assert texts(connector, folder) == {"table": "Crm\n\nId: 1; Title: VPN <b>; Price: 12.50\nId: 2; Title: Mail"}
    before = next(folder.glob("*.html")).read_bytes()
    again = rows(query + "ASC", document="table")
    sync(again, folder.with_name("other"))
    assert next(folder.with_name("other").glob("*.html")).read_bytes() == before


def test_a_query_is_sent_as_it_is_written(database: psycopg.Connection, folder: Path) -> None:
    connector = rows("SELECT id, body FROM articles WHERE body LIKE '%100%% new%' AND id::text = '2' OR body = ':x'")
    assert counts(sync(connector, folder)) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM articles RETURNING id",
        "WITH gone AS (DELETE FROM articles RETURNING id) SELECT id FROM gone",
        "SELECT 1 AS id; DELETE FROM articles",
        "COMMIT; DELETE FROM articles; SELECT 1 AS id",
        "SELECT id FROM empty_articles()",
        "INSERT INTO articles VALUES (9) RETURNING id",
        "CREATE TABLE more AS SELECT 1 AS id",
        "SELECT id FROM articles FOR UPDATE",
        "DROP TABLE articles",
    ],
)
def test_no_query_can_write(database: psycopg.Connection, folder: Path, query: str) -> None:
    database.execute(
        "CREATE FUNCTION empty_articles() RETURNS TABLE (id int) LANGUAGE sql AS 'DELETE FROM articles RETURNING id'"
    )
    report = sync(rows(query), folder)
    assert not report.complete and counts(report) == (0, 0, 0, 0), report
    assert database.execute("SELECT count(*) FROM articles").fetchone() == (2,)
    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_a_query_that_fails_on_a_later_row_removes_nothing(database: psycopg.Connection, folder: Path) -> None:
    connector = rows("SELECT id, 10 / (id - 2000) AS share FROM articles ORDER BY id")
    sync(connector, folder)
    database.execute("DELETE FROM articles WHERE id = 1")
    database.execute("INSERT INTO articles (id) SELECT generate_series(1400, 2000)")
    report = sync(connector, folder)
    assert not report.complete and report.removed == 0 and "division by zero" in report.failures[0][1]
    assert {"1", "2", "1400"} <= set(texts(connector, folder))


def test_rows_without_a_key_of_their_own_are_named(database: psycopg.Connection, folder: Path) -> None:
    connector = rows("SELECT * FROM (VALUES ('a', 1), (NULL, 2), ('a', 3), (repeat('x', 201), 4)) AS v (id, number)")
    report = sync(connector, folder)
    assert texts(connector, folder) == {"a": "crm a\n\nId: a\n\nNumber: 1"}
    assert [address for address, _ in report.failures] == ["row 2", "crm: a", "row 4"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"key": "nummer"}, "no column 'nummer'; its columns: id, title, body, updated, price"),
        ({"title": "titel"}, "no column 'titel'"),
        ({"query": "SELECT * FROM no_such_table"}, 'relation "no_such_table" does not exist'),
    ],
)
def test_a_wrong_query_or_column_is_explained(
    database: psycopg.Connection, folder: Path, values: dict[str, str], said: str
) -> None:
    report = sync(rows(**({"query": "SELECT * FROM articles"} | values)), folder)
    assert not report.complete and said in report.failures[0][1]


@pytest.mark.parametrize(
    "change",
    [
        ("hunter2", "wrong-hunter2"),
        ("/desk", "/absent"),
        ("127.0.0.1:", "127.0.0.1:1"),
        ("owner:", "nobody:"),
        ("/desk", "/desk?sslmode=hunter2%2F%2B%25%C3%A9"),  # the driver repeats a value that it does not know
        ("postgresql", "mysql"),
        ("postgresql://", "postgresql:/"),
        ("@127", ":@@127"),
    ],
)
def test_no_message_file_or_log_repeats_the_password(
    database: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: tuple[str, str],
) -> None:
    monkeypatch.setenv(URL_ENV, os.environ[URL_ENV].replace(*change, 1))
    connector = rows()
    with caplog.at_level("DEBUG"):
        report = sync(connector, folder)
    assert not report.complete and report.failures
    written = b"".join(path.read_bytes() for path in folder.iterdir()).decode()
    shown = repr(connector) + repr(report) + caplog.text + written
    assert "hunter2" not in shown and "%C3%A9" not in shown


def test_a_missing_variable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_ENV, raising=False)
    assert f"environment variable {URL_ENV}" in sync(rows(), folder).failures[0][1]


def test_many_rows_are_read_in_parts(database: psycopg.Connection, folder: Path) -> None:
    connector = rows("SELECT id, id * 2 AS twice FROM generate_series(1200, 1, -1) AS id", document="table")
    sync(connector, folder)
    (text,) = texts(connector, folder).values()
    assert text.split("\n") == ["Crm", "", *(f"Id: {number}; Twice: {number * 2}" for number in range(1, 1201))]


# SQLite


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "a #1 file%.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER, text TEXT, image BLOB)")
        connection.execute("INSERT INTO notes VALUES (1, '100% sure', x'00ff'), (2, 'two', NULL)")
    connection.close()
    monkeypatch.setenv(URL_ENV, f"sqlite:///{path}")
    return path


def test_sqlite_is_read_and_cannot_be_written(sqlite: Path, folder: Path) -> None:
    connector = rows("SELECT * FROM notes")
    assert counts(sync(connector, folder)) == (2, 0, 0, 0)
    assert texts(connector, folder)["1"] == "crm 1\n\nId: 1\n\nText: 100% sure"
    before = sqlite.read_bytes()
    for query in ("DELETE FROM notes RETURNING id", "CREATE TABLE x (id)", "PRAGMA query_only = OFF"):
        report = sync(rows(query), folder.with_name("other"))
        assert not report.complete and counts(report) == (0, 0, 0, 0), query
    assert sqlite.read_bytes() == before


def test_text_in_another_encoding_costs_only_its_letters(sqlite: Path, folder: Path) -> None:
    with sqlite3.connect(sqlite) as connection:
        connection.execute("INSERT INTO notes VALUES (3, CAST(x'636166e9' AS TEXT), NULL)")
    connector = rows("SELECT * FROM notes ORDER BY id DESC")
    report = sync(connector, folder)
    assert report.failures == () and counts(report) == (3, 0, 0, 0)
    assert texts(connector, folder)["3"] == "crm 3\n\nId: 3\n\nText: caf\ufffd"


ENDLESS = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"


@pytest.mark.usefixtures("sqlite")
@pytest.mark.parametrize(
    "query", [f"{ENDLESS} SELECT max(id) AS id FROM n", f"{ENDLESS} SELECT id FROM n WHERE id < 0"]
)
def test_a_query_without_end_is_stopped_when_its_time_is_over(query: str) -> None:
    with pytest.raises(ConnectorError, match="took longer than 30 minutes"):
        list(read_database(rows(query), time.monotonic() + 0.5))


@pytest.mark.usefixtures("sqlite")
def test_a_table_without_end_is_refused_though_its_cells_are_empty(folder: Path) -> None:
    report = sync(rows(f"{ENDLESS} SELECT id, '' AS text FROM n", document="table", max_mb=1), folder)
    assert "the rows are larger than 1 MB together" in report.failures[0][1]
    report = sync(rows(f"{ENDLESS} SELECT NULL AS id, NULL AS text FROM n", document="table", max_mb=1), folder)
    assert "the rows are larger than 1 MB together" in report.failures[0][1]


def test_a_sqlite_file_that_is_not_there_is_not_made(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_ENV, f"sqlite:///{tmp_path}/absent.db")
    assert not sync(rows(), folder).complete and not (tmp_path / "absent.db").exists()
