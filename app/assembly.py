"""Puts the layers of a desk together: library, engine, router, assistant. Knows no page."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from app.records import Records, open_records
from chains.assistant import Assistant, fit_router
from chains.engines import AnyEngine, open_engine
from chains.judge import open_judge
from desk.config import Desk, records_address
from index.build import BuildProgress
from index.embed import Embedder
from index.library import Library, open_library

_LOG = logging.getLogger(__name__)
CONNECTORS_S = 60
"""Seconds between two looks at which connectors are due: schedules are of minutes and more."""


@dataclass(frozen=True, slots=True)
class Switchboard:
    """An assembled desk. After `start()` the engine loads in its own thread; a turn that needs it waits for it."""

    desk: Desk
    library: Library
    embedder: Embedder
    engine: AnyEngine
    assistant: Assistant
    records: Records
    closing: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begins to load the model, whose imports would hold up the page by seconds, and to follow the connectors."""
        self.engine.start()
        if self.desk.index.connectors:
            threading.Thread(target=self._follow_connectors, name="connectors", daemon=True).start()

    def _follow_connectors(self) -> None:
        while not self.closing.wait(CONNECTORS_S):
            try:
                self.library.sync_due()
            except Exception:
                _LOG.exception("The connectors could not be followed; the next try is in %d s.", CONNECTORS_S)

    def close(self) -> None:
        self.closing.set()
        self.engine.close()
        self.library.close()
        self.records.close()


def assemble(desk: Desk, on_progress: Callable[[BuildProgress], None] | None = None) -> Switchboard:
    """Everything a turn needs; builds the index when it is absent or stale.

    Raises LibraryError or ModelError when the library or the base model cannot be used at all; a single
    bad document or adapter is reported (`library.status().failures`, `engine.failures`) and left out.
    """
    records = open_records(records_address(desk.app), desk.app.records)
    engine = open_engine(desk.adapters)
    library = open_library(desk.index, on_progress)
    embedder = library.embedder
    router = fit_router(desk.chains, library, embedder, engine)
    judge = open_judge(desk.index.models, desk.index.threads)
    assistant = Assistant(desk.chains, library, embedder, engine, router, judge)
    return Switchboard(desk, library, embedder, engine, assistant, records)


def describe(board: Switchboard) -> list[str]:
    """What the program runs on, one line each, for the console."""
    desk, engine = board.desk, board.engine
    status = board.library.status()
    adapters = ", ".join(f"{info.name} v{info.version}" if info.version else info.name for info in engine.adapters)
    server = desk.adapters.server
    lines = [
        f"Desk       {desk.app.title} ({desk.root})",
        f"Base model {engine.base.name}, {f'served at {server.url}' if server else engine.base.size}",
        f"Adapters   {adapters or 'none'}",
        f"Embedder   {board.embedder.name}",
        f"Index      {status.documents} documents, {status.passages} passages",
        f"State      {desk.state}",
    ]
    lines += [f"Left out   {sentence}" for sentence in engine.failures]
    lines += [f"Left out   {path}: {reason}" for path, reason in status.failures]
    return lines
