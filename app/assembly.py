"""Puts the layers of a desk together: library, engine, router, assistant. Knows no page."""

from collections.abc import Callable
from dataclasses import dataclass

from adapters.engine import Engine
from chains.assistant import Assistant, fit_router
from desk.config import Desk
from index.build import BuildProgress
from index.embed import Embedder
from index.library import Library, open_library


@dataclass(frozen=True, slots=True)
class Switchboard:
    """An assembled desk. After `start()` the engine loads in its own thread; a turn that needs it waits for it."""

    desk: Desk
    library: Library
    embedder: Embedder
    engine: Engine
    assistant: Assistant

    def start(self) -> None:
        """Begins to load the model. Not part of assembling: its imports would hold up the page by seconds."""
        self.engine.start()

    def close(self) -> None:
        self.engine.close()
        self.library.close()


def assemble(desk: Desk, on_progress: Callable[[BuildProgress], None] | None = None) -> Switchboard:
    """Everything a turn needs; builds the index when it is absent or stale.

    Raises LibraryError or ModelError when the library or the base model cannot be used at all; a single
    bad document or adapter is reported (`library.status().failures`, `engine.failures`) and left out.
    """
    engine = Engine(desk.adapters)
    library = open_library(desk.index, on_progress)
    embedder = library.embedder
    router = fit_router(desk.chains, library, embedder, engine)
    assistant = Assistant(desk.chains, library, embedder, engine, router)
    return Switchboard(desk, library, embedder, engine, assistant)


def describe(board: Switchboard) -> list[str]:
    """What the program runs on, one line each, for the console."""
    desk, engine = board.desk, board.engine
    status = board.library.status()
    adapters = ", ".join(f"{info.name} v{info.version}" for info in engine.adapters) or "none"
    lines = [
        f"Desk       {desk.app.title} ({desk.root})",
        f"Base model {engine.base.name}, {engine.base.size}",
        f"Adapters   {adapters}",
        f"Embedder   {board.embedder.name}",
        f"Index      {status.documents} documents, {status.passages} passages",
        f"State      {desk.state}",
    ]
    lines += [f"Left out   {sentence}" for sentence in engine.failures]
    lines += [f"Left out   {path}: {reason}" for path, reason in status.failures]
    return lines
