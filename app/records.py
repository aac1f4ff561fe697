"""What people say of answers, kept in a database: thumbs, other ways to answer, preferences, better answers. SQLite,
or PostgreSQL.

Of a turn the question alone is kept, as it was understood: no answer but one that its reader wrote, no passage, no name
of a file.
"""

import datetime
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chains.turn import Route, RouteOption
from desk.errors import DeskError

log = logging.getLogger(__name__)

Kind = Literal["thumb", "override", "preference"]
"""`thumb`: up or down on an answer; `override`: another way to answer was asked for, again or from the start;
`preference`: which of two."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufffe\uffff]")
_MOST_USER = 64
"""Characters of a browser's random id: those of ours have half as many."""
_CONNECT_S = 5
"""A database that does not answer within this time takes no record; nobody waits longer for it."""
_SCHEMA = sa.MetaData()
_FEEDBACK = sa.Table(
    "feedback",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("value", sa.String(16), nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    *(sa.Column(f"decided_{part}", sa.String(100)) for part in ("route", "adapter", "workflow")),
    *(sa.Column(f"chosen_{part}", sa.String(100)) for part in ("route", "adapter", "workflow")),
)
_CORRECTIONS = sa.Table(
    "corrections",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("adapter", sa.String(100), nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
)
_REVIEWS = sa.Table(
    "reviews",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("candidate", sa.String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Feedback:
    """One opinion on one turn. `question` is the question as it was understood.

    `decided` is the way of the answer that the opinion is about; `chosen` the way that was asked for instead, or
    preferred, and None for a thumb. `value` is `up` or `down`; `again` or `control`; `first` or `second`. `control`:
    the sender chose before there was an answer, and `decided` is the way that the router would have taken.
    """

    user: str
    kind: Kind
    value: str
    question: str
    decided: RouteOption
    chosen: RouteOption | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """A better answer than the adapter's, as one reader wrote it."""

    user: str
    adapter: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Record:
    """A kept opinion; `at` is UTC. `id` grows in the order of writing."""

    id: int
    at: datetime.datetime
    feedback: Feedback


class Records:
    """The database of a desk's records; safe to use from many threads."""

    def __init__(self, url: URL) -> None:
        """Opens, or creates, the tables. Raises DeskError where the database cannot be used."""
        self._url = url
        self._engine = _engine(url)
        try:
            _SCHEMA.create_all(self._engine)
        except (SQLAlchemyError, OSError) as error:
            self._engine.dispose()
            raise DeskError(
                f"The records cannot be kept in {_shown(url)} ({type(error).__name__}): see that the database is there "
                "and may be written to, or leave records.url_env out of desk.yaml to keep them in a file."
            ) from None

    def keep(self, feedback: Feedback) -> bool:
        """Whether the opinion was written. A database that fails is logged, never raised: the chat goes on."""
        return self._insert(_FEEDBACK, [_row(feedback)], feedback.kind)

    def correct(self, correction: Correction) -> bool:
        """Whether the better answer was written, as `keep` says it."""
        words = {"question": _storable(correction.question), "answer": _storable(correction.answer)}
        row = {"at": _now(), "user_id": correction.user[:_MOST_USER], "adapter": correction.adapter, **words}
        return self._insert(_CORRECTIONS, [row], "better answer")

    def review(self, candidates: Sequence[str]) -> bool:
        """Whether it was written that somebody has decided about these candidate pairs."""
        return self._insert(_REVIEWS, [{"at": _now(), "candidate": one} for one in candidates], "review")

    def all(self) -> tuple[Record, ...]:
        """Every record, oldest first. Raises DeskError where the database cannot be read."""
        return tuple(_record(row) for row in self._rows(_FEEDBACK))

    def corrections(self) -> tuple[Correction, ...]:
        """Every better answer, oldest first. Raises as `all`."""
        rows = [row._mapping for row in self._rows(_CORRECTIONS)]
        return tuple(Correction(row["user_id"], row["adapter"], row["question"], row["answer"]) for row in rows)

    def reviewed(self) -> dict[str, datetime.datetime]:
        """When somebody decided about a candidate pair, the last time. Raises as `all`."""
        return {row._mapping["candidate"]: _utc(row._mapping["at"]) for row in self._rows(_REVIEWS)}

    def _insert(self, table: sa.Table, rows: list[dict[str, object]], what: str) -> bool:
        try:
            with self._engine.begin() as connection:
                if rows:
                    connection.execute(table.insert(), rows)
        except (SQLAlchemyError, OSError) as error:
            log.warning("a %s was not recorded in %s: %s", what, _shown(self._url), type(error).__name__)
            return False
        return True

    def _rows(self, table: sa.Table) -> Sequence[sa.Row[tuple[object, ...]]]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(sa.select(table).order_by(table.c.id)).all()
        except (SQLAlchemyError, OSError) as error:
            raise DeskError(f"The records in {_shown(self._url)} cannot be read: {type(error).__name__}.") from None

    def close(self) -> None:
        self._engine.dispose()


def open_records(address: str, file: Path) -> Records:
    """The records at a database's address; "" keeps them in `file`. Raises DeskError."""
    if not address:
        file.parent.mkdir(parents=True, exist_ok=True)
        return Records(URL.create("sqlite+pysqlite", database=str(file)))
    try:
        url = make_url(address)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend != "postgresql":
        raise DeskError(
            "The environment variable that records.url_env names holds no address of a PostgreSQL database: write it "
            "as postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    return Records(url.set(drivername="postgresql+psycopg"))


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_S})
    engine = sa.create_engine(url, connect_args={"timeout": _CONNECT_S})

    @sa.event.listens_for(engine, "connect")
    def _many_at_once(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    return engine


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _utc(at: datetime.datetime) -> datetime.datetime:
    """SQLite forgets the zone of what it is given."""
    return at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at.astimezone(datetime.UTC)


def _storable(text: str) -> str:
    """The text without what some place that it goes to cannot hold: a zero character (PostgreSQL), half a surrogate
    pair (UTF-8), a non-character (XML, and with it workbooks)."""
    return _UNSTORABLE.sub("", text)


def _row(feedback: Feedback) -> dict[str, object]:
    decided, chosen = feedback.decided, feedback.chosen
    return {
        "at": _now(),
        "user_id": feedback.user[:_MOST_USER],
        "kind": feedback.kind,
        "value": feedback.value,
        "question": _storable(feedback.question),
        "decided_route": decided.route.value,
        "decided_adapter": decided.adapter,
        "decided_workflow": decided.workflow,
        "chosen_route": chosen.route.value if chosen else None,
        "chosen_adapter": chosen.adapter if chosen else None,
        "chosen_workflow": chosen.workflow if chosen else None,
    }


def _record(row: sa.Row[tuple[object, ...]]) -> Record:
    one = row._mapping
    options = [
        RouteOption(Route(one[f"{who}_route"]), one[f"{who}_adapter"], one[f"{who}_workflow"])
        if one[f"{who}_route"]
        else None
        for who in ("decided", "chosen")
    ]
    assert options[0] is not None, "every record says how the answer came about"
    feedback = Feedback(one["user_id"], one["kind"], one["value"], one["question"], options[0], options[1])
    return Record(one["id"], _utc(one["at"]), feedback)
