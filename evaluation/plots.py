"""Pictures for a report, drawn as SVG: bars beside goals, curves, a matrix. All words in them are escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from desk.page import Html
from evaluation.measures import Measure

_SIDE = 640
"""Of a matrix, in pixels."""
_NAMED = 40
"""With more labels than this their names would overlap: a cell then says in its tip what it is."""
_TITLES = 330
_ROW = 26
_PLOT_WIDTH, _PLOT_HEIGHT = 560, 320
_LEFT, _TOP = 56, 14
COLOURS = ("#1f5fa8", "#c8551b", "#2c7a4b", "#7a4fa3")
"""Told apart by people who see colours differently, too."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve through `points` (x, y); `intervals` are (low, high) of each y, drawn as whiskers."""

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What a plot's axes are called and reach from and to; y is a share, from `least` to 1."""

    x: str
    y: str
    x_range: tuple[float, float] = (0.0, 1.0)
    x_ticks: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    least: float = 0.0


def bars(measures: Sequence[Measure]) -> Html:
    """A bar per share with its 95% interval; a goal is a green mark, a floor an orange one. Others are left out."""
    rows = [one for one in measures if one.unit == "share" and one.value == one.value]
    width = 420
    drawn = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _TITLES + tick * width
        drawn.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{len(rows) * _ROW}"/>')
        drawn.append(_text(x, len(rows) * _ROW + 16, f"{tick:.0%}", "middle"))
    for place, one in enumerate(rows):
        drawn += _bar(one, place * _ROW, width)
    height = len(rows) * _ROW + 50
    key = [("whisker", "95% interval")]
    key += [("mark goal", "goal")] * any(one.goal is not None for one in rows)
    key += [("mark floor", "floor")] * any(one.floor is not None for one in rows)
    for place, (kind, words) in enumerate(key):
        x, y = _TITLES + place * 130, height - 14
        drawn.append(f'<line class="{kind}" x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}"/>')
        drawn.append(_text(x + 24, y + 4, words))
    return _picture("measures", _TITLES + width + 80, height, drawn)


def _bar(one: Measure, top: float, width: float) -> list[str]:
    middle = top + _ROW / 2
    kind = "bar less" if one.at_most else "bar"
    length = f"{min(one.value, 1.0) * width:.1f}"
    drawn = [
        _text(_TITLES - 8, middle + 4, one.title + (" (less is better)" if one.at_most else ""), "end"),
        f'<rect class="{kind}" x="{_TITLES}" y="{top + 5}" width="{length}" height="{_ROW - 10}">'
        f"<title>{escape(f'{one.title}: {one.shown} {one.counted}')}</title></rect>",
    ]
    if one.shown_interval and one.interval:
        low, high = (_TITLES + end * width for end in one.interval)
        drawn.append(f'<line class="whisker" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>')
    for name, value in (("goal", one.goal), ("floor", one.floor)):
        if value is not None:
            x = _TITLES + value * width
            drawn.append(f'<line class="mark {name}" x1="{x:.1f}" y1="{top + 2}" x2="{x:.1f}" y2="{top + _ROW - 2}"/>')
    return [*drawn, _text(_TITLES + width + 10, middle + 4, one.shown)]


def curves(words: str, axes: Axes, drawn: Sequence[Line], at: tuple[float, str] | None = None) -> Html:
    """Lines over one pair of axes; `at` is an x that is marked, with what it is called."""
    parts = _frame(axes)
    if at:
        x, _ = _at(axes, at[0], axes.least)
        top, bottom = _TOP, _TOP + _PLOT_HEIGHT
        parts.append(f'<line class="here" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        to_the_left = at[0] > sum(axes.x_range) / 2
        parts.append(_text(x + (-6 if to_the_left else 6), top + 14, at[1], "end" if to_the_left else "start"))
    for colour, line in zip(COLOURS, drawn, strict=False):
        parts += _line(axes, line, colour)
    for place, (colour, line) in enumerate(zip(COLOURS, drawn, strict=False)):
        x, y = _LEFT + _PLOT_WIDTH + 16, _TOP + 12 + place * 20
        parts.append(f'<line stroke="{colour}" stroke-width="3" x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}"/>')
        parts.append(_text(x + 24, y, line.name))
    return _picture(words, _LEFT + _PLOT_WIDTH + 270, _TOP + _PLOT_HEIGHT + 46, parts)


def diagonal(words: str, axes: Axes, drawn: Sequence[Line]) -> Html:
    """Curves beside a dashed line on which both axes are equal."""
    (x0, y0), (x1, y1) = _at(axes, 0, 0), _at(axes, 1, 1)
    dashed = f'<line class="even" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/></svg>'
    return Html(curves(words, axes, drawn).replace("</svg>", dashed))


def _frame(axes: Axes) -> list[str]:
    right, bottom = _LEFT + _PLOT_WIDTH, _TOP + _PLOT_HEIGHT
    parts = []
    step = 0.2 if not axes.least else 0.1 if axes.least < 0.9 else 0.02
    for tick in np.arange(axes.least, 1 + step / 2, step):
        _, y = _at(axes, axes.x_range[0], tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:.0%}", "end"))
    for tick in axes.x_ticks:
        x, _ = _at(axes, tick, axes.least)
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    parts.append(f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}"/>')
    parts.append(_text(_LEFT + _PLOT_WIDTH / 2, bottom + 38, axes.x, "middle"))
    turned = f'transform="rotate(-90 12 {_TOP + _PLOT_HEIGHT / 2})"'
    middle = f'x="12" y="{_TOP + _PLOT_HEIGHT / 2}" text-anchor="middle"'
    return [*parts, f"<text {middle} {turned}>{escape(axes.y)}</text>"]


def _line(axes: Axes, line: Line, colour: str) -> list[str]:
    places = [_at(axes, x, y) for x, y in line.points if x == x and y == y]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<polyline class="curve" stroke="{colour}" points="{points}"><title>{escape(line.name)}</title></polyline>'
    ]
    for (x, _), (low, high) in zip(line.points, line.intervals, strict=False):
        (across, bottom), (_, top) = _at(axes, x, low), _at(axes, x, high)
        parts.append(f'<line stroke="{colour}" x1="{across:.1f}" y1="{bottom:.1f}" x2="{across:.1f}" y2="{top:.1f}"/>')
    if line.dots:
        parts += [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
    return parts


def _at(axes: Axes, x: float, y: float) -> tuple[float, float]:
    first, last = axes.x_range
    return _LEFT + (x - first) / (last - first) * _PLOT_WIDTH, _TOP + (1 - y) / (1 - axes.least) * _PLOT_HEIGHT


def matrix(gold: Sequence[str], given: Sequence[str]) -> Html:
    """A row per gold label, a column per given one; the darker, the larger the share of the row."""
    labels = sorted({*gold, *given})
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([place[one] for one in gold], [place[one] for one in given]), 1)
    named = len(labels) <= _NAMED
    left, size = (16 + 7 * max(map(len, labels)) if named else 10), min(_SIDE / len(labels), 60.0)
    side = size * len(labels)
    cells = []
    for row, column in zip(*counts.nonzero(), strict=True):
        share = counts[row, column] / counts[row].sum()
        x, y = left + column * size, row * size
        tip = escape(f"{labels[row]} given {labels[column]}: {counts[row, column]}")
        cells.append(
            f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" '
            f'opacity="{max(share, 0.08):.2f}"><title>{tip}</title></rect>'
        )
        if size >= 24:
            kind = ' class="on-dark"' if share > 0.5 else ""
            centre = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"'
            cells.append(f"<text{kind} {centre}>{counts[row, column]}</text>")
    if named:
        for number, label in enumerate(labels):
            middle = (number + 0.5) * size
            cells.append(_text(left - 6, middle + 4, label, "end"))
            turned = f'transform="rotate(90 {left + middle - 4:.1f} {side + 8:.1f})"'
            cells.append(f'<text x="{left + middle - 4:.1f}" y="{side + 8:.1f}" {turned}>{escape(label)}</text>')
    frame = f'<rect class="frame" x="{left}" y="0" width="{side:.1f}" height="{side:.1f}"/>'
    return _picture("confusion matrix", left + side + 10, side + (left if named else 10), [*cells, frame])


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _picture(words: str, width: float, height: float, drawn: Sequence[str]) -> Html:
    shape = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return Html(f'<svg role="img" aria-label="{escape(words)}" {shape}>{"".join(drawn)}</svg>')
