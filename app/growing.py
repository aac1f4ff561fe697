"""An answer's HTML while it is written: what its events have brought so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from app import render
from chains.turn import Citation, Cited, Event, Filled, Part, Routed, Token


@dataclass(slots=True, eq=False)
class Growing:
    """Takes a turn's events in order; `anchor` begins the ids of its passages.

    Of several parts each has a heading, which is also in the text, and a badge.
    """

    anchor: str
    asked: str
    titles: Mapping[str, str]
    understood: str = ""
    text: str = ""
    head: str = ""
    _before: str = ""
    _heading: str = ""
    _start: int = 0
    _citations: list[Citation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.understood = self.asked

    def take(self, event: Event) -> None:
        match event:
            case Part(heading=heading):
                self._before, self._heading = self._done(), heading
                self.head, self._citations = "", []
            case Routed(decision=decision, standalone=standalone):
                self._start = len(self.text)
                asked = render.asked_part(self._heading, standalone) if self._heading else self.asked
                self.head = render.badge(decision, standalone, asked)
                if not self._heading:
                    self.understood = standalone
            case Filled(fields=fields):
                self.head += render.fields_table(fields, self.titles)
            case Token(text=piece):
                self.text += piece
            case Cited(citation=citation):
                start, end = citation.answer_start - self._start, citation.answer_end - self._start
                self._citations.append(replace(citation, answer_start=start, answer_end=end))
            case _:
                pass

    def html(self) -> str:
        return self._before + self._part()

    def _done(self) -> str:
        return self._before + self._part() if self.head else self._before

    def _part(self) -> str:
        # What comes before the route is the heading's own text.
        text = self.text[self._start :] if self.head else ""
        html = self.head + render.answer_text(text, self._citations, self.anchor)
        return render.section(self._heading, html) if self._heading else html
