"""A page that shows how texts were decided: the confusion matrix, how far probabilities can be trusted, the figures.

One HTML file without links to anything outside; pictures are inside it. Labels come from files, so they are escaped.
"""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from desk.errors import DeskError
from evaluation.routing import OUTSIDE, Decided, reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "routing.html"
CONFUSED = 25
_NAMED = 40
"""With more labels than this their names would overlap; the page lists the pairs that were confused most instead."""


def write_report(where: Path, figures: Mapping[str, float | None], decided: Decided) -> Path:
    """The file that was written: `where` itself, or `routing.html` in it. Raises DeskError without matplotlib."""
    path = where if where.suffix in (".html", ".htm") else where / NAME
    page = report_page(figures, decided)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def report_page(figures: Mapping[str, float | None], decided: Decided) -> str:
    """The page. Raises DeskError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DeskError(
            "A report needs matplotlib, which is not installed: `pip install -r requirements-dev.txt`, or leave out "
            "--report."
        ) from None
    matrix, curve = Figure(figsize=(9, 8), layout="constrained"), Figure(figsize=(6, 5), layout="constrained")
    _draw_confusion(matrix, decided)
    _draw_reliability(curve, decided)
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{'-' if value is None else f'{value:g}'}</td></tr>"
        for key, value in figures.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Routing</title>"
        "<style>body{font:16px system-ui;margin:2rem auto;max-width:60rem}td{padding:.1rem 1rem}"
        "img{max-width:100%}</style>"
        f"<h1>Routing</h1><p>{len(decided.gold):,} texts</p><table>{rows}</table>"
        f"<h2>Given over gold label</h2>{_picture(matrix, 'confusion matrix')}{_confused(decided)}"
        f"<h2>Right over stated probability</h2>{_picture(curve, 'reliability')}</html>\n"
    )


def _draw_confusion(figure: "Figure", decided: Decided) -> None:
    """A row per gold label, a column per given one, in shares of the row."""
    labels = sorted({*decided.gold, *decided.given})
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, ([place[one] for one in decided.gold], [place[one] for one in decided.given]), 1)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, label="share of the gold label's texts")
    axes.set(xlabel="given", ylabel="gold")
    if len(labels) <= _NAMED:
        names = [_plain(label) for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=90)
        axes.set_yticks(range(len(labels)), names)


def _draw_reliability(figure: "Figure", decided: Decided) -> None:
    """Per bin of the best label's probability, how many in-scope texts had it right."""
    inside = decided.gold != OUTSIDE
    bins = reliability(decided.confidence[inside], decided.best[inside] == decided.gold[inside])
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7")
    axes.plot([mean for mean, _, _ in bins], [right for _, right, _ in bins], marker="o")
    axes.bar([mean for mean, _, _ in bins], [share for _, _, share in bins], width=0.04, color="0.85")
    axes.set(xlabel="stated probability", ylabel="share right (line), share of texts (bars)", xlim=(0, 1), ylim=(0, 1))


def _confused(decided: Decided) -> str:
    """The pairs of labels that were confused most, as a table."""
    wrong = decided.gold != decided.given
    pairs, counts = np.unique(np.stack([decided.gold[wrong], decided.given[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSED]
    rows = "".join(
        f"<tr><td>{html.escape(str(gold))}</td><td>{html.escape(str(given))}</td><td>{count}</td></tr>"
        for gold, given, count in zip(*pairs[:, order], counts[order], strict=True)
    )
    return f"<table><tr><th>gold</th><th>given</th><th>texts</th></tr>{rows}</table>"


def _plain(label: str) -> str:
    """A label as matplotlib may draw it: a dollar would begin a formula."""
    return label.replace("$", r"\$")


def _picture(figure: "Figure", words: str) -> str:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}">'
