"""What one browser tab has on screen and what it still has to answer. Knows no page."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app import render
from chains.turn import Citation, Exchange, RouteOption
from index.related import RelatedDocument


@dataclass(slots=True, eq=False)
class Shown:
    """One turn as the page shows it, written by its own answer alone; `exchange` is set when it can be history.

    `option` is what its sender chose when a clarifying question was put; `offered` are the options of one, in words.
    """

    asked: str
    option: RouteOption | None = None
    may_ask: bool = True
    offered: tuple[str, ...] = ()
    html: str = ""
    citations: tuple[Citation, ...] = ()
    related: tuple[RelatedDocument, ...] = ()
    exchange: Exchange | None = None
    finished: bool = False


@dataclass(slots=True, eq=False)
class Conversation:
    """One tab's turns, and the questions that wait. One object for all events of the tab; lives in its session.

    Events of a tab run side by side, and what they send can reach the browser in another order. So an answer writes
    nothing but its own turn, and goes on only while that is `growing`; every event sends the whole conversation as it
    is by then, and an answer that ends, for whatever reason, sends it last.
    """

    turns: tuple[Shown, ...] = ()
    growing: Shown | None = None
    waiting: deque[Shown] = field(default_factory=deque)

    def ask(self, question: str, option: RouteOption | None = None, may_ask: bool = True) -> None:
        """The question waits for its answer; one that is being written ends where it is. A blank one ends nothing."""
        if question.strip():
            self.growing = None
        self.waiting.append(Shown(question, option, may_ask))

    def ask_again(self) -> None:
        """The last turn's question waits anew, with what was chosen for it; it is not put back to its sender twice."""
        last = self.turns[-1] if self.turns else None
        if last is not None:
            self.ask(self.take_last(), last.option, may_ask=last.may_ask and not last.offered)

    def choose(self, place: int) -> None:
        """The question that was put back to its sender waits anew, in the place of that turn, with an option chosen."""
        last = self.turns[-1] if self.turns else None
        options = last.exchange.options if last and last.exchange else ()
        if place < len(options):
            self.ask(self.take_last(), options[place], may_ask=False)

    def begin(self) -> Shown | None:
        """The next question as a turn; None where nothing was asked. It grows unless a newer question waits."""
        shown = self.waiting.popleft()
        if not shown.asked.strip():
            return None
        self.turns = (*self.turns, shown)
        self.growing = None if any(later.asked.strip() for later in self.waiting) else shown
        return shown

    def stop(self) -> None:
        """Forgets what waits; the answer that is being written ends where it is."""
        self.growing = None
        self.waiting.clear()

    def take_last(self) -> str:
        """Stops, takes the last turn away and returns its question; "" where there is none."""
        self.stop()
        if not self.turns:
            return ""
        *kept, last = self.turns
        self.turns = tuple(kept)
        return last.asked

    def clear(self) -> None:
        self.stop()
        self.turns = ()

    def messages(self) -> list[dict[str, Any]]:
        """The chat's rows; a clarifying question has its options as buttons while it is the last."""
        rows: list[dict[str, Any]] = []
        for shown in self.turns:
            rows.append({"role": "user", "content": render.plain(shown.asked)})
            if shown is self.growing and not shown.finished:
                html = render.writing(shown.html or '<div class="sb-wait">…</div>')
            else:
                html = shown.html if shown.finished else shown.html + render.note("Stopped.")
            row: dict[str, Any] = {"role": "assistant", "content": html}
            if shown.offered and shown is self.turns[-1]:
                row["options"] = [{"label": word, "value": str(n)} for n, word in enumerate(shown.offered)]
            rows.append(row)
        return rows

    def panel(self) -> str:
        turns = [(place, shown.asked, shown.citations, shown.related) for place, shown in enumerate(self.turns)]
        return render.sources_panel(turns)
