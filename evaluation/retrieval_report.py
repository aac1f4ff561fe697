"""What a search found, as lines and as a page: recall by depth beside its halves, and the queries that it loses."""

import math
from collections.abc import Mapping, Sequence

from desk.page import Html
from evaluation.page import Miss, misses_of, page_of, section, table
from evaluation.plots import Axes, Line, curves
from evaluation.ranking import DEPTH, Measured, recall
from evaluation.retrieval import METHODS, Found, Lost, Ranked, compared

NAMES = {"bm25": "BM25 alone", "dense": "vectors alone", "hybrid": "hybrid"}


def lines(report: Mapping[str, Mapping[str, Measured]]) -> list[str]:
    """A table for a terminal, a line each."""
    rows = ["  95% intervals, and those of hybrid minus this"]
    for method, figures in report.items():
        for name, one in figures.items():
            beside = "" if method == "hybrid" else f"  {_span(one.behind, '+.3f')}"
            rows.append(f"  {method:8} {name:9} {one.value:.3f} ({_span(one.interval, '.3f')}){beside}")
    return rows


def retrieval_page(command: str, sets: Mapping[str, tuple[Found, Mapping[str, Mapping[str, Measured]]]]) -> Html:
    """The page, with a part for each set: what was found and its figures."""
    about = "; ".join(
        f"{name}: {len(found.ranked):,} queries, {found.passages:,} passages" for name, (found, _) in sets.items()
    )
    return page_of("Retrieval", command, about, [part for name, one in sets.items() for part in _parts(name, *one)])


def _parts(name: str, found: Found, report: Mapping[str, Mapping[str, Measured]]) -> list[Html]:
    lost = [one for one in found.ranked if one.lost]
    won = {method: sum(_won(one.lost, method) for one in lost if one.lost) for method in METHODS[:2]}
    said = (
        f"Of {len(found.ranked):,} queries, {len(lost):,} find their first relevant item lower than one half of the "
        f"search alone does: BM25 alone is better in {won['bm25']:,}, vectors alone in {won['dense']:,}."
    )
    return [
        section(
            name,
            "95% intervals, and those of hybrid minus the half, by the paired bootstrap.",
            table(["measure", "method", "value", "95% interval", "hybrid minus this"], _rows(report)),
        ),
        section(
            f"{name}: recall over depth",
            "The share of what is relevant among the first so many; whiskers are 95% intervals.",
            _recall(found.ranked),
        ),
        section(f"{name}: lost by hybrid", said, misses_of(_by_kind(lost))),
    ]


def _rows(report: Mapping[str, Mapping[str, Measured]]) -> list[list[str]]:
    return [
        [
            figure,
            NAMES[method],
            f"{report[method][figure].value:.3f}",
            _span(report[method][figure].interval, ".3f"),
            "" if method == "hybrid" else _span(report[method][figure].behind, "+.3f"),
        ]
        for figure in report["hybrid"]
        for method in METHODS
    ]


def _recall(ranked: Sequence[Ranked]) -> Html:
    found = {
        method: [compared(ranked, method, recall(depth)) for depth in range(1, DEPTH + 1)]
        for method in reversed(METHODS)
    }
    drawn = []
    for place, (method, measured) in enumerate(found.items()):
        # Side by side, or the whiskers would hide each other.
        points = [(depth + (place - 1) * 0.08, one.value) for depth, one in enumerate(measured, 1)]
        drawn.append(Line(NAMES[method], points, [one.interval for one in measured], dots=True))
    lowest = min(one.interval[0] for measured in found.values() for one in measured)
    least = min(0.9, math.floor(lowest * 10) / 10)
    axes = Axes("depth", "recall", (0.5, DEPTH + 0.5), range(1, DEPTH + 1), least)
    return curves("recall over depth", axes, drawn)


def _by_kind(lost: Sequence[Ranked]) -> dict[str, list[Miss]]:
    """The worst lost first, a query under each half that wins it."""
    kinds: dict[str, list[Miss]] = {f"Won by {NAMES[method]}": [] for method in METHODS[:2]}
    for one in sorted(lost, key=lambda row: -_loss(row.lost)):
        for method in METHODS[:2]:
            if one.lost and _won(one.lost, method):
                ranks = f"rank {_rank(one.lost, method)} by {NAMES[method]}, {_rank(one.lost, 'hybrid')} by hybrid"
                kinds[f"Won by {NAMES[method]}"].append((one.query.text, f"{ranks}: {one.lost.wanted}", one.lost.got))
    return kinds


def _won(lost: Lost, method: str) -> bool:
    return _reciprocal(lost, method) > _reciprocal(lost, "hybrid")


def _loss(lost: Lost | None) -> float:
    return max(_reciprocal(lost, method) for method in METHODS) - _reciprocal(lost, "hybrid") if lost else 0.0


def _reciprocal(lost: Lost, method: str) -> float:
    rank = lost.ranks[method]
    return 1 / rank if rank else 0.0


def _rank(lost: Lost, method: str) -> str:
    rank = lost.ranks[method]
    return str(rank) if rank else f"below {DEPTH}"


def _span(ends: tuple[float, float], form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}"
