"""Puts the layers of a desk together: library, engine, router, assistant. Knows no page."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from app.records import Records, open_records
from chains.assistant import Assistant
from chains.engines import AnyEngine, open_engine
from chains.fitting import Grounds, fit_router, grounds
from chains.judge import open_judge
from desk.config import records_address
from desk.settings import Desk
from index.build import BuildProgress
from index.embed import Embedder
from index.library import Library, open_library

_LOG = logging.getLogger(__name__)
CONNECTORS_S = 60
"""Seconds between two looks at which connectors are due: schedules are of minutes and more."""
ROUTER_S = 10
"""Seconds between two looks at whether there is a new adapter, or something learned, to route to."""
ROUTER_PAUSE_S = 120
"""And after a fit that failed."""


@dataclass(frozen=True, slots=True)
class Switchboard:
    """An assembled desk. After `start()` the engine loads in its own thread; a turn that needs it waits for it."""

    desk: Desk
    library: Library
    embedder: Embedder
    engine: AnyEngine
    assistant: Assistant
    records: Records
    routed_on: Grounds
    closing: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begins to load the model, whose imports would hold up the page by seconds, and to follow what changes."""
        self.engine.start()
        threading.Thread(target=self._follow_router, name="router", daemon=True).start()
        if self.desk.index.connectors:
            threading.Thread(target=self._follow_connectors, name="connectors", daemon=True).start()

    def _follow_connectors(self) -> None:
        while not self.closing.wait(CONNECTORS_S):
            try:
                self.library.sync_due()
            except Exception:
                _LOG.exception("The connectors could not be followed; the next try is in %d s.", CONNECTORS_S)

    def route_anew(self, routed_on: Grounds) -> Grounds:
        """What the router stands on from now on: fitted anew, while the one before serves, if that has changed."""
        now = grounds(self.desk.chains, self.engine)
        if now != routed_on:
            self.assistant.take_router(fit_router(self.desk.chains, self.library, self.embedder, now))
            _LOG.info("routes to %s", ", ".join(name for name, _ in now.adapters) or "no adapter")
        return now

    def _follow_router(self) -> None:
        routed_on, pause = self.routed_on, ROUTER_S
        while not self.closing.wait(pause):
            try:
                self.engine.refresh()
                routed_on = self.route_anew(routed_on)
                pause = ROUTER_S
            except Exception:
                pause = ROUTER_PAUSE_S
                _LOG.exception("The router stays as it was; the next try is in %d s.", pause)

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
    on = grounds(desk.chains, engine)
    router = fit_router(desk.chains, library, embedder, on)
    judge = open_judge(desk.index.models, desk.index.threads)
    assistant = Assistant(desk.chains, library, embedder, engine, router, judge)
    return Switchboard(desk, library, embedder, engine, assistant, records, on)


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
