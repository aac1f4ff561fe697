"""The rows of a query as documents, read in a transaction that cannot write. PostgreSQL and SQLite.

The address of the database, password included, is in an environment variable; no message repeats it.
"""

import datetime
import sqlite3
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.engine import URL, Connection, Engine, RowMapping
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from desk.config import secret
from desk.connectors import DatabaseFile
from index.connectors.items import ConnectorError, Event, Failed, Found, Source
from index.connectors.page import html_page, paragraphs, table

_CONNECT_S = 10
_BATCH = 500
_KEY_CHARACTERS = 200
_STEPS = 100_000
"""Of SQLite's machine, about a millisecond, between two looks at the clock."""
_CELL_CHARACTERS = len("<td></td>")

_Order = tuple[int, Decimal, str]


def read_database(connector: DatabaseFile, until: float) -> Iterator[Event]:
    """A document per row, or one document with all rows ordered by their keys, as the connector says.

    Raises ConnectorError if the database cannot be reached, the query fails, takes longer than until `until` (of
    time.monotonic()), or a column is missing.
    """
    url = _url(connector)
    engine = _engine(url, until)
    try:
        with engine.connect() as connection:
            rows = _rows(connector, connection, until)
            yield from _each_row(connector, rows) if connector.document == "row" else _one_table(connector, rows)
    except (SQLAlchemyError, OSError) as error:
        if time.monotonic() > until:
            raise _late(connector) from None
        raise ConnectorError(f"the database did not do what was asked: {_plainly(error, url)}") from None
    finally:
        engine.dispose()


def _url(connector: DatabaseFile) -> URL:
    try:
        url = sqlalchemy.make_url(secret(connector.url_env, connector.name))
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise ConnectorError(
            f"the environment variable {connector.url_env} holds no database address: write it as "
            "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////PATH"
        ) from None
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database:
        return url.set(drivername="sqlite+pysqlite", query={})
    raise ConnectorError(f"{backend} is no database that can be read here: use PostgreSQL or SQLite")


def _engine(url: URL, until: float) -> Engine:
    """An engine whose every session is read-only by the database's own means."""
    if url.get_backend_name() == "sqlite":
        address = Path(url.database or "").absolute().as_uri() + "?mode=ro"

        def connect() -> sqlite3.Connection:
            opened = sqlite3.connect(address, uri=True, timeout=_CONNECT_S)
            opened.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
            # Whatever wrote the file, one text in another encoding must not end the run.
            opened.text_factory = lambda raw: raw.decode("utf-8", "replace")
            return opened

        return sqlalchemy.create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    limit_ms = max(1, int((until - time.monotonic()) * 1000))
    options = f"-c default_transaction_read_only=on -c statement_timeout={limit_ms} -c lock_timeout=10000"
    arguments = {"connect_timeout": _CONNECT_S, "options": options}
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _late(connector: DatabaseFile) -> ConnectorError:
    return ConnectorError(f"the query took longer than {connector.max_minutes} minutes: raise max_minutes or narrow it")


def _rows(connector: DatabaseFile, connection: Connection, until: float) -> Iterator[RowMapping]:
    """The query's rows as they come, from one snapshot. The query is sent as it is written."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    streamed = connection.execution_options(stream_results=True, yield_per=_BATCH, no_parameters=True)
    result = streamed.exec_driver_sql(connector.query)
    if not result.returns_rows:
        raise ConnectorError("the query returns no rows: write a SELECT")
    columns = list(result.keys())
    for wanted in (connector.key, connector.title, connector.date):
        if wanted and wanted not in columns:
            raise ConnectorError(f"the query has no column {wanted!r}; its columns: {', '.join(columns)}")
    for row in result.mappings():
        if time.monotonic() > until:
            raise _late(connector)
        yield row


def _each_row(connector: DatabaseFile, rows: Iterator[RowMapping]) -> Iterator[Event]:
    shown_apart = {connector.title} if connector.title else set()
    for number, row in enumerate(rows, 1):
        key = _text(row[connector.key])
        if not key or len(key) > _KEY_CHARACTERS:
            yield Failed(f"row {number}", f"its {connector.key} is empty or too long to be a key")
            continue
        title = _text(row[connector.title]) if connector.title else ""
        title = title or f"{connector.name} {key}"
        fields = [f"{_label(name)}: {_text(value)}" for name, value in row.items() if name not in shown_apart]
        filled = [field for field in fields if not field.endswith(": ")]
        body = "\n".join(paragraphs(field) for field in filled)
        yield Found(
            Source(key, _address(connector, key), title, _date(connector, row)), ".html", html_page(title, body)
        )


def _one_table(connector: DatabaseFile, rows: Iterator[RowMapping]) -> Iterator[Event]:
    """One document; rows are ordered by key, so that their order in the database changes nothing."""
    columns: Sequence[str] = ()
    cells: list[tuple[_Order, list[str]]] = []
    dates: list[str] = []
    size = 0
    for row in rows:
        columns = columns or list(row.keys())
        values = [_text(value) for value in row.values()]
        # As it is written: a million empty rows take memory, too.
        size += sum(map(len, values)) + (len(values) + 1) * _CELL_CHARACTERS
        if size > connector.max_mb * 1_000_000:
            raise ConnectorError(f"the rows are larger than {connector.max_mb} MB together (max_mb): narrow the query")
        cells.append((_order(row[connector.key]), values))
        dates += [date for date in [_date(connector, row)] if date]
    if not cells:
        return
    title = connector.name.replace("-", " ").capitalize()
    body = table([_label(name) for name in columns], [values for _, values in sorted(cells)])
    address = f"{connector.name}: {len(cells)} rows"
    yield Found(Source("table", address, title, max(dates, default=None)), ".html", html_page(title, body))


def _order(key: object) -> _Order:
    """Numbers by size, before everything else by its text."""
    if isinstance(key, int | float | Decimal):
        return 0, Decimal(key), ""
    return 1, Decimal(0), _text(key)


def _address(connector: DatabaseFile, key: str) -> str:
    if connector.address is None:
        return f"{connector.name}: {key}"
    return connector.address.replace("{key}", quote(key, safe=""))


def _label(column: str) -> str:
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _text(value: object) -> str:
    if value is None or isinstance(value, bytes | bytearray | memoryview):
        return ""
    return value.isoformat(" ") if isinstance(value, datetime.datetime) else str(value)


def _date(connector: DatabaseFile, row: RowMapping) -> str | None:
    """The ISO date in the date column, if it holds one."""
    value = row[connector.date] if connector.date else None
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    try:
        return datetime.date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return None


def _plainly(error: Exception, url: URL) -> str:
    """The first line of the driver's own message, without anything that the address holds in secret."""
    cause = getattr(error, "orig", None) or error
    line = (str(cause).strip().splitlines() or [""])[0][:300] or type(cause).__name__
    hidden = [str(url.password or ""), url.render_as_string(hide_password=False)]
    hidden += [quote(value, safe="") for value in hidden[:1]]
    for value in sorted(filter(None, hidden), key=len, reverse=True):
        line = line.replace(value, "***")
    return line
