"""What one browser tab has on screen and what it still has to answer. Knows no page."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app import feedback, render
from app.feedback import Thumb, Way
from chains.message import cleaned
from chains.turn import Answer, Citation, Exchange, RouteOption
from index.related import RelatedDocument


@dataclass(slots=True, eq=False)
class Shown:
    """One turn as the page shows it, written by its own answer alone; `exchange` is set when it can be history.

    `anchor` begins the ids of its passages in the panel. `second` is another way's answer to the same question, as long
    as nobody has said which one is preferred; the first is the history until then. `notice` stands above the answer.
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
    anchor: str = ""
    notice: str = ""
    answer: Answer | None = None
    thumb: Thumb | None = None
    corrected: bool = False
    second: "Shown | None" = None


@dataclass(slots=True, eq=False)
class Conversation:
    """One tab's turns, the questions that wait, and the turn that a better answer is written for.

    One object for all events of the tab; lives in its session.

    Events of a tab run side by side, and what they send can reach the browser in another order. So an answer writes
    nothing but its own turn, and goes on only while that is `growing`; every event sends the whole conversation as it
    is by then, and an answer that ends, for whatever reason, sends it last.
    """

    turns: tuple[Shown, ...] = ()
    growing: Shown | None = None
    waiting: deque[Shown] = field(default_factory=deque)
    ways: tuple[Way, ...] = ()
    correcting: Shown | None = None

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
        shown.anchor = str(len(self.turns))
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

    def turn(self, place: int) -> Shown | None:
        """The turn at `place`; None where there is none (any more)."""
        return self.turns[place] if place < len(self.turns) else None

    def history(self, before: int) -> tuple[Exchange, ...]:
        """What a turn at place `before` can refer to."""
        return tuple(shown.exchange for shown in self.turns[:before] if shown.exchange)

    def begin_second(self, first: Shown, option: RouteOption) -> Shown:
        """Another answer to a turn's question, which grows beside the first; what else grows ends where it is."""
        second = Shown(first.asked, anchor=f"{first.anchor}b", option=option, may_ask=False)
        first.second = self.growing = second
        return first.second

    def settle(self, place: int, keep_second: bool) -> None:
        """One of two answers goes on as the turn, the other goes."""
        first = self.turns[place]
        second, first.second = first.second, None
        if self.growing is second:
            self.growing = None
        if keep_second and second is not None:
            self.turns = (*self.turns[:place], second, *self.turns[place + 1 :])

    def messages(self) -> list[dict[str, Any]]:
        """The chat's rows; a clarifying question has its options as buttons while it is the last."""
        rows: list[dict[str, Any]] = []
        for place, shown in enumerate(self.turns):
            rows.append({"role": "user", "content": render.plain(cleaned(shown.asked))})
            html = self._html(shown)
            if shown.second is not None:
                both = shown.answer is not None and shown.second.answer is not None
                html = feedback.side_by_side(place, html, self._html(shown.second), both)
            elif shown.answer is not None and not shown.answer.clarify and not shown.answer.parts:
                ways = feedback.other_ways(self.ways, shown.answer.decision)
                better = feedback.better_answer(place, shown.answer.decision, shown.corrected)
                html += feedback.row_under(place, shown.thumb, ways, better)
            row: dict[str, Any] = {"role": "assistant", "content": html}
            if shown.offered and shown is self.turns[-1]:
                row["options"] = [{"label": word, "value": str(n)} for n, word in enumerate(shown.offered)]
            rows.append(row)
        return rows

    def _html(self, shown: Shown) -> str:
        above = render.note(shown.notice) if shown.notice else ""
        if shown.finished:
            return above + shown.html
        if shown is self.growing:
            return above + render.writing(shown.html or '<div class="sb-wait">…</div>')
        return above + shown.html + render.note("Stopped.")

    def panel(self) -> str:
        both = [one for shown in self.turns for one in (shown, shown.second) if one is not None]
        turns = [(shown.anchor, shown.asked, shown.citations, shown.related) for shown in both]
        return render.sources_panel(turns)
