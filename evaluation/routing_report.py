"""A page that shows how texts were decided: the confusion matrix, how far probabilities can be trusted, the figures.

One HTML file without links to anything outside; pictures are drawn in it as SVG. Labels come from files, so they are
escaped.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from evaluation.routing import OUTSIDE, Decided, reliability

NAME = "routing.html"
CONFUSED = 25
_SIDE = 640
"""Of the confusion matrix and of the reliability figure, in pixels."""
_NAMED = 40
"""With more labels than this their names would overlap: a cell then says in its tip what it is."""
_STYLE = """body{font:16px system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}
td,th{padding:.1rem 1rem;text-align:left}
svg{max-width:100%;height:auto;font:11px system-ui}.frame{fill:none;stroke:#888}.even{stroke:#aaa;stroke-dasharray:4}
.curve{fill:none;stroke:#1f5fa8;stroke-width:2}.share{fill:#cfd8e3}.cell{fill:#1f5fa8}"""


def write_report(where: Path, figures: Mapping[str, float | None], decided: Decided) -> Path:
    """The file that was written: `where` itself if it ends in .html, or `routing.html` in it."""
    path = where if where.suffix in (".html", ".htm") else where / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report_page(figures, decided), encoding="utf-8")
    return path


def report_page(figures: Mapping[str, float | None], decided: Decided) -> str:
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{'-' if value is None else f'{value:.4g}'}</td></tr>"
        for key, value in figures.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Routing</title><style>{_STYLE}</style>"
        f"<h1>Routing</h1><p>{len(decided.gold):,} texts</p><table>{rows}</table>"
        f"<h2>Given label over gold label</h2><p>A row per gold label, a column per given one; the "
        f"darker, the larger the share of the row.</p>{_confusion(decided)}<h2>Confused most</h2>{_confused(decided)}"
        f"<h2>Share right over stated probability</h2><p>On the dashed line probabilities are what they say. Bars: the "
        f"share of the texts.</p>{_reliability(decided)}</html>\n"
    )


def _confusion(decided: Decided) -> str:
    """The matrix as a picture; cells without texts are left out."""
    labels = sorted({*decided.gold.tolist(), *decided.given.tolist()})
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([place[one] for one in decided.gold], [place[one] for one in decided.given]), 1)
    left, size = (180, _SIDE / len(labels)) if len(labels) <= _NAMED else (10, _SIDE / len(labels))
    cells = []
    for row, column in zip(*counts.nonzero(), strict=True):
        share = counts[row, column] / counts[row].sum()
        tip = escape(f"{labels[row]} given {labels[column]}: {counts[row, column]}")
        cells.append(
            f'<rect class=cell x="{left + column * size:.1f}" y="{row * size:.1f}" width="{size:.1f}" '
            f'height="{size:.1f}" opacity="{max(share, 0.05):.2f}"><title>{tip}</title></rect>'
        )
    if len(labels) <= _NAMED:
        for number, label in enumerate(labels):
            middle = (number + 0.5) * size
            cells.append(f'<text x="{left - 6}" y="{middle + 4:.1f}" text-anchor="end">{escape(label)}</text>')
            across, down = left + middle + 4, _SIDE + 8
            turned = f'transform="rotate(90 {across - 8:.1f} {down})"'
            cells.append(f'<text x="{across - 8:.1f}" y="{down}" {turned}>{escape(label)}</text>')
    frame = f'<rect class=frame x="{left}" y="0" width="{_SIDE}" height="{_SIDE}"/>'
    return _picture("confusion matrix", left + _SIDE + 10, _SIDE + left, "".join(cells) + frame)


def _reliability(decided: Decided) -> str:
    """Per bin of the best label's probability, how many in-scope texts had it right."""
    inside = decided.gold != OUTSIDE
    bins = reliability(decided.confidence[inside], decided.best[inside] == decided.gold[inside])
    side, left = _SIDE / 2, 40

    def at(x: float, y: float) -> str:
        return f"{left + x * side:.1f},{(1 - y) * side + 10:.1f}"

    drawn = [f'<rect class=frame x="{left}" y="10" width="{side}" height="{side}"/>']
    for mean, _, share in bins:
        x, y = at(mean, share).split(",")
        drawn.append(f'<rect class=share x="{float(x) - 4:.1f}" y="{y}" width="8" height="{share * side:.1f}"/>')
    drawn.append(f'<polyline class=even points="{at(0, 0)} {at(1, 1)}"/>')
    drawn.append(f'<polyline class=curve points="{" ".join(at(mean, right) for mean, right, _ in bins)}"/>')
    for tick in (0, 0.5, 1):
        drawn.append(f'<text x="{left + tick * side:.1f}" y="{side + 26}" text-anchor="middle">{tick}</text>')
        drawn.append(f'<text x="{left - 6}" y="{(1 - tick) * side + 14:.1f}" text-anchor="end">{tick}</text>')
    return _picture("reliability", left + side + 20, side + 40, "".join(drawn))


def _confused(decided: Decided) -> str:
    """The pairs of labels that were confused most, as a table."""
    wrong = decided.gold != decided.given
    if not wrong.any():
        return "<p>None.</p>"
    pairs, counts = np.unique(np.stack([decided.gold[wrong], decided.given[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSED]
    rows = "".join(
        f"<tr><td>{escape(str(gold))}</td><td>{escape(str(given))}</td><td>{count}</td></tr>"
        for gold, given, count in zip(*pairs[:, order], counts[order], strict=True)
    )
    return f"<table><tr><th>gold</th><th>given</th><th>texts</th></tr>{rows}</table>"


def _picture(words: str, width: float, height: float, drawn: str) -> str:
    shape = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg role=img aria-label="{words}" {shape}>{drawn}</svg>'
