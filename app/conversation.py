"""What one browser tab has on screen and what it still has to answer. Knows no page."""

from collections import deque
from dataclasses import dataclass, field, replace

from app import render
from chains.turn import Citation, Exchange


@dataclass(frozen=True, slots=True)
class Shown:
    """One turn as the page shows it; `exchange` is set once it can serve as history, `writing` while it grows."""

    asked: str
    html: str = ""
    citations: tuple[Citation, ...] = ()
    exchange: Exchange | None = None
    writing: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one browser tab has on screen. Lives in the tab's session and nowhere else."""

    turns: tuple[Shown, ...] = field(default=())

    def history(self) -> tuple[Exchange, ...]:
        return tuple(shown.exchange for shown in self.turns if shown.exchange)

    def messages(self) -> list[dict[str, str]]:
        rows = []
        for shown in self.turns:
            if shown.asked:
                rows.append({"role": "user", "content": render.plain(shown.asked)})
            html = shown.html or '<div class="sb-wait">…</div>'
            rows.append({"role": "assistant", "content": render.writing(html) if shown.writing else html})
        return rows

    def settled(self) -> "Conversation":
        """The same with nothing growing any more: what was stopped stays as far as it came."""
        return Conversation(tuple(replace(shown, writing=False) for shown in self.turns))

    def panel(self) -> str:
        return render.sources_panel([(place, shown.asked, shown.citations) for place, shown in enumerate(self.turns)])


@dataclass(slots=True)
class Questions:
    """The questions of one tab that wait for their answer. One object for all its events, so that they see it change.

    An answer writes the conversation only while `newest` is its own number: two must not write at once.
    """

    newest: int = 0
    waiting: deque[tuple[int, str]] = field(default_factory=deque)

    def ask(self, question: str) -> None:
        self.newest += 1
        self.waiting.append((self.newest, question))

    def begin(self) -> tuple[int, str] | None:
        """The number and text of the next question; None when nothing waits."""
        return self.waiting.popleft() if self.waiting else None

    def drop(self) -> None:
        """Forgets what waits, and lets the answer that is being written end where it is."""
        self.newest += 1
        self.waiting.clear()


def take_last(conversation: Conversation) -> tuple[Conversation, str]:
    """The conversation without its last asked turn (and what came after it), and that turn's question."""
    for place in range(len(conversation.turns) - 1, -1, -1):
        if conversation.turns[place].asked:
            return Conversation(conversation.turns[:place]), conversation.turns[place].asked
    return conversation, ""
