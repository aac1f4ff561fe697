"""A report as one HTML file: title, command, date, measures, pictures, misses. It asks for nothing from outside.

Questions, answers and labels come from files and are hostile: every word is escaped here or in `plots`, and the page
(desk/page.py) forbids scripts besides.
"""

import datetime
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from desk.page import Html, closed_page
from evaluation.measures import Measure

MOST_MISSES = 60
"""Of a kind, on the page: more nobody reads, and --misses writes them all."""
_MOST_WORDS = 600
"""Characters of a cell."""
_STYLE = """:root{color-scheme:light}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;
padding:0 1rem;color:#1a1a1a;background:#fff}h1{margin-bottom:.2rem}h2{margin-top:2.2rem}.about{color:#555}
code{background:#f2f3f5;padding:.1rem .35rem;border-radius:.2rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:.6rem 0}th{border-bottom:2px solid #ccc;font-weight:600}
th,td{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:bottom}
td{border-bottom:1px solid #eee;vertical-align:top;overflow-wrap:anywhere}
.misses{font-size:.9rem;table-layout:fixed}.misses th{width:30%}.misses th:last-child{width:40%}
.number{text-align:right;font-variant-numeric:tabular-nums}td.number{white-space:nowrap}
.yes{color:#2c7a4b}.no{color:#b3401a}summary{cursor:pointer;font-weight:600;margin:.4rem 0}
svg{max-width:100%;height:auto;font:13px system-ui,sans-serif;display:block;margin:.6rem 0}
.frame{fill:none;stroke:#888}.grid{stroke:#e6e6e6}.even{stroke:#888;stroke-dasharray:5}
.curve{fill:none;stroke-width:2}.bar{fill:#8db4dd}.bar.less{fill:#d8c49a}.whisker{stroke:#1a1a1a;stroke-width:1.5}
.mark{stroke-width:3}.goal{stroke:#2c7a4b}.floor{stroke:#d9822b}.here{stroke:#555;stroke-dasharray:3}
.cell{fill:#1f5fa8}.on-dark{fill:#fff}"""

Miss = tuple[str, str, str]
"""A question, what was expected of it, and what it got."""


def write_page(where: Path, name: str, page: Html) -> Path:
    """The file that was written: `where` itself if it ends in .html, or `name`.html in that folder."""
    path = where if where.suffix in (".html", ".htm") else where / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def page_of(title: str, command: str, about: str, parts: Sequence[Html]) -> Html:
    """The whole page; `about` says in a sentence what was measured on."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    opening = f'<h1>{escape(title)}</h1><p class="about">{escape(about)}<br><code>{escape(command)}</code><br>{now}</p>'
    return closed_page(title, _STYLE, opening + "".join(parts))


def section(title: str, said: str, *parts: Html) -> Html:
    """A headed part of the page; `said` tells how to read it."""
    return Html(f"<h2>{escape(title)}</h2>{f'<p>{escape(said)}</p>' if said else ''}{''.join(parts)}")


def measure_table(measures: Sequence[Measure]) -> Html:
    """A row per measure; columns that none of them fills are left out."""
    columns = {
        "value": [one.shown for one in measures],
        "of": [one.counted for one in measures],
        "95% interval": [one.shown_interval for one in measures],
        "goal": [one.shown_goal for one in measures],
        "floor": ["" if one.floor is None else f"{one.floor:.1%}" for one in measures],
    }
    used = {name: cells for name, cells in columns.items() if any(cells)}
    head = "".join(f'<th class="number">{name}</th>' for name in used)
    rows = []
    for place, one in enumerate(measures):
        verdict = {True: ' <span class="yes">reached</span>', False: ' <span class="no">missed</span>', None: ""}
        cells = "".join(
            f'<td class="number">{escape(column[place])}{verdict[one.reached] if name == "goal" else ""}</td>'
            for name, column in used.items()
        )
        rows.append(f"<tr><td>{escape(one.title)}</td>{cells}</tr>")
    return Html(f"<table><tr><th>measure</th>{head}</tr>{''.join(rows)}</table>")


def table(head: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> Html:
    """Numbers stand at the right, with three digits behind the point unless they are whole."""
    if not rows:
        return Html("<p>None.</p>")
    numeric = [not isinstance(cell, str) for cell in rows[0]]
    heads = "".join(f"<th{_number(right)}>{escape(name)}</th>" for name, right in zip(head, numeric, strict=True))
    body = "".join(f"<tr>{''.join(map(_table_cell, row))}</tr>" for row in rows)
    return Html(f"<table><tr>{heads}</tr>{body}</table>")


def misses_of(kinds: Mapping[str, Sequence[Miss]]) -> Html:
    """What went wrong, a table per kind that can be folded; the first MOST_MISSES of each."""
    if not any(kinds.values()):
        return Html("<p>None.</p>")
    return Html("".join(_misses(kind, rows) for kind, rows in kinds.items() if rows))


def _misses(kind: str, rows: Sequence[Miss]) -> str:
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_short(cell))}</td>' for cell in row)}</tr>" for row in rows[:MOST_MISSES]
    )
    more = f"<p>{len(rows) - MOST_MISSES} more are not shown.</p>" if len(rows) > MOST_MISSES else ""
    return (
        f"<details open><summary>{escape(kind)}: {len(rows)}</summary>"
        f'<table class="misses"><tr><th>question</th><th>expected</th><th>got</th></tr>{body}</table>{more}</details>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _MOST_WORDS else text[: _MOST_WORDS - 1].rstrip() + "…"


def _table_cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return f"<td>{escape(_short(value))}</td>"
    shown = "-" if value != value else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return f"<td{_number(True)}>{shown}</td>"


def _number(right: bool) -> str:
    return ' class="number"' if right else ""
