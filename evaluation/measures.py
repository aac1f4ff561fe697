"""A figure as people read it, beside its interval, its goal and its floor; the same in a terminal and on a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.share import Share

Unit = Literal["share", "number", "ms", "s"]
AT_MOST = frozenset(
    {"answerable_refused", "one_parted", "in_scope_declined", "uncited_share", "calibration_error", "ece"}
)
"""Measures of which less is better: their goal and their floor are ceilings."""


@dataclass(frozen=True, slots=True)
class Measure:
    """`value` and `interval` are NaN where there was nothing to count; `counted` is what a share is of, "3/4"."""

    name: str
    title: str
    value: float
    unit: Unit = "share"
    interval: tuple[float, float] | None = None
    counted: str = ""
    goal: float | None = None
    floor: float | None = None

    @property
    def at_most(self) -> bool:
        return self.name in AT_MOST

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without a goal or a value."""
        if self.goal is None or self.value != self.value:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @property
    def shown(self) -> str:
        return shown(self.value, self.unit)

    @property
    def shown_interval(self) -> str:
        if self.interval is None or self.interval[0] != self.interval[0]:
            return ""
        return " to ".join(shown(end, self.unit) for end in self.interval)

    @property
    def shown_goal(self) -> str:
        return "" if self.goal is None else ("at most " if self.at_most else "") + shown(self.goal, self.unit)


def of_shares(
    shares: Mapping[str, Share],
    titles: Mapping[str, str],
    goals: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
) -> list[Measure]:
    """A measure per share, in order; one without a title is called by its name."""
    goals, floors = goals or {}, floors or {}
    return [
        Measure(
            name,
            titles.get(name, name),
            share.value,
            interval=share.interval,
            counted=f"{share.right}/{share.total}",
            goal=goals.get(name),
            floor=floors.get(name),
        )
        for name, share in shares.items()
    ]


def lines(measures: Sequence[Measure]) -> list[str]:
    """A table for a terminal, a line each."""
    titles = [one.title + (" (lower is better)" if one.at_most else "") for one in measures]
    width = max(map(len, titles), default=0)
    return [
        f"  {title:{width}}  {one.shown:>8}  {_beside(one)}".rstrip()
        for title, one in zip(titles, measures, strict=True)
    ]


def shown(value: float, unit: Unit) -> str:
    """In words: a share in percent, "-" for what could not be counted."""
    if value != value:
        return "-"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "number":
        return f"{value:.3f}"
    return f"{value:.2f} {unit}"


def _beside(one: Measure) -> str:
    notes: Iterable[str] = (
        one.counted,
        f"95% {one.shown_interval}" if one.shown_interval else "",
        f"goal {one.shown_goal}" if one.shown_goal else "",
    )
    told = ", ".join(note for note in notes if note)
    return f"({told})" if told else ""
