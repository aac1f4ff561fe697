"""The row under an answer as HTML: thumbs, other ways to answer, which of two is preferred. Knows no page.

A press comes back as the button's name and value; `read_press` reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, get_args

from chains.turn import BASE_MODEL, Route, RouteDecision, RouteOption

Thumb = Literal["up", "down"]
Side = Literal["first", "second", "neither"]

_THUMBS: dict[Thumb, str] = {"up": "Helpful", "down": "Not helpful"}
MOST_WRITTEN = 4000
"""Characters of a better answer."""
_SIDES: dict[Side, str] = {"first": "Prefer this answer", "second": "Prefer this answer", "neither": "No preference"}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to answer, and what people read for it."""

    option: RouteOption
    words: str

    @property
    def key(self) -> str:
        name = self.option.adapter or self.option.workflow
        return self.option.route.value + (f":{name}" if name else "")


@dataclass(frozen=True, slots=True)
class Press:
    """A button that was pressed under the turn at `place`."""

    place: int
    name: str
    value: str


def read_press(name: object, value: object) -> Press | None:
    """What was pressed, from what the browser sends; None for what no button of ours sends."""
    place, _, rest = str(value).partition("|")
    if name not in ("thumb", "again", "prefer", "correct") or not place.isdecimal() or len(place) > 6:
        return None
    return Press(int(place), str(name), rest)


def other_ways(ways: Sequence[Way], decision: RouteDecision) -> list[Way]:
    """The ways that an answer did not take."""
    return [way for way in ways if not _is_taken(way.option, decision)]


def _is_taken(option: RouteOption, decision: RouteDecision) -> bool:
    """Whether a decision took this way; one without a workflow's name stands for all of them."""
    if option.route is not decision.route:
        return False
    if option.route is Route.ADAPTER:
        return option.adapter == decision.adapter
    return option.workflow in (None, decision.workflow)


def row_under(place: int, thumb: Thumb | None, ways: Sequence[Way], better: str = "") -> str:
    """Thumbs, a menu of the other ways to answer, and what `better_answer` says."""
    thumbs = "".join(
        f'<button type="button" class="sb-act sb-{one}{" sb-on" if one == thumb else ""}" name="thumb" '
        f'value="{place}|{one}" title="{words}{" (your choice)" if one == thumb else ""}"></button>'
        for one, words in _THUMBS.items()
    )
    menu = "".join(_button("again", f"{place}|{way.key}", way.words) for way in ways)
    if menu:
        menu = f'<details class="sb-ways"><summary>Answer again with</summary><div>{menu}</div></details>'
    return f'<div class="sb-row">{thumbs}{menu}{better}</div>'


def better_answer(place: int, decision: RouteDecision, written: bool) -> str:
    """The way to write a better answer than an adapter's; "" under other answers, whose words are not trained."""
    if not is_correctable(decision):
        return ""
    if written:
        return '<span class="sb-thanks">Your answer is kept for review.</span>'
    return _button("correct", f"{place}|", "Write a better answer")


def is_correctable(decision: RouteDecision) -> bool:
    """Whether an adapter's own words answered."""
    return decision.route is Route.ADAPTER and decision.adapter not in (None, BASE_MODEL)


def side_by_side(place: int, first: str, second: str, choosable: bool) -> str:
    """Two answers to one question; `choosable` once both can be chosen from."""
    sides: list[tuple[Side, str]] = [("first", first), ("second", second)]
    columns = "".join(
        f'<div class="sb-side">{html}{_choice(place, side) if choosable else ""}</div>' for side, html in sides
    )
    return f'<div class="sb-sides">{columns}</div>{_choice(place, "neither")}'


def is_thumb(value: str) -> bool:
    return value in get_args(Thumb)


def is_side(value: str) -> bool:
    return value in get_args(Side)


def _choice(place: int, side: Side) -> str:
    return f'<div class="sb-row">{_button("prefer", f"{place}|{side}", _SIDES[side])}</div>'


def _button(name: str, value: str, words: str) -> str:
    return (
        f'<button type="button" class="sb-act" name="{name}" value="{escape(value, quote=True)}">'
        f"{escape(words)}</button>"
    )
