"""What one browser tab has on screen and what it still has to answer. Knows no page."""

from collections import deque
from dataclasses import dataclass, field

from app import render
from chains.turn import Citation, Exchange
from index.related import RelatedDocument


@dataclass(slots=True, eq=False)
class Shown:
    """One turn as the page shows it, written by its own answer alone; `exchange` is set when it can be history."""

    asked: str
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
    waiting: deque[str] = field(default_factory=deque)

    def ask(self, question: str) -> None:
        """The question waits for its answer; one that is being written ends where it is. A blank one ends nothing."""
        if question.strip():
            self.growing = None
        self.waiting.append(question)

    def begin(self) -> Shown | None:
        """The next question as a turn; None where nothing was asked. It grows unless a newer question waits."""
        question = self.waiting.popleft()
        if not question.strip():
            return None
        shown = Shown(question)
        self.turns = (*self.turns, shown)
        self.growing = None if any(map(str.strip, self.waiting)) else shown
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

    def messages(self) -> list[dict[str, str]]:
        rows = []
        for shown in self.turns:
            rows.append({"role": "user", "content": render.plain(shown.asked)})
            if shown is self.growing and not shown.finished:
                html = render.writing(shown.html or '<div class="sb-wait">…</div>')
            else:
                html = shown.html if shown.finished else shown.html + render.note("Stopped.")
            rows.append({"role": "assistant", "content": html})
        return rows

    def panel(self) -> str:
        turns = [(place, shown.asked, shown.citations, shown.related) for place, shown in enumerate(self.turns)]
        return render.sources_panel(turns)
