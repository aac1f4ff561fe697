"""The report of a trained adapter as one HTML page: verdict, scores, curves, answers beside what was wanted.

Rows and answers are hostile: each word is escaped here, and the page (desk/page.py) runs nothing.
"""

import base64
import difflib
import re
from html import escape

from adapters.config import AdapterManifest
from adapters.verdict import Verdict
from desk.page import Html, closed_page

NAMES = {"base": "bare base", "before": "version before", "candidate": "this version"}
MEASURES = (
    ("answers exactly right", "exact", "{:.1%}"),
    ("ROUGE-L", "rouge_l", "{:.3f}"),
    ("terms of the domain that belong there", "terms", "{:.1%}"),
    ("perplexity of the right answers", "perplexity", "{:.2f}"),
)
MOST_ROWS = 100
"""On the page, the wrong ones first."""
MOST_CHARACTERS = 2000
"""Of a text, on the page."""
ALIKE = 0.4
"""Share of words in common (difflib's ratio) below which a comparison word by word only confuses."""
_STYLE = """:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;
--good:#1a7f37;--bad:#b3261e;--added:#ffe2b8;--gone:#ffd7d5}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--paper:#0d1117;--card:#161b22;--line:#30363d;
--good:#56d364;--bad:#ff8a80;--added:#5a3d0a;--gone:#67221f}}
body{font:16px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2rem 0 .4rem}
p{margin:.5rem 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem 1.2rem .3rem 0;text-align:left;
border-bottom:1px solid var(--line);overflow-wrap:normal}td+td,th+th{text-align:right;font-variant-numeric:tabular-nums}
img{max-width:100%;height:auto;background:#fff;border-radius:.4rem}
article{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem;margin:.8rem 0}
h3{font-size:1rem;margin:0 0 .5rem}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(15rem,100%),1fr));gap:.6rem 1.2rem}
.side{white-space:pre-wrap;min-width:0}
.side b{display:block;font-size:.8rem;font-weight:600;color:var(--soft)}.side b.good{color:var(--good)}
.side b.bad{color:var(--bad)}ins,del{color:inherit;border-radius:.2rem;padding:0 .1rem}
ins{background:var(--added);text-decoration:underline}del{background:var(--gone)}"""


def page(manifest: AdapterManifest, verdict: Verdict, picture: bytes) -> Html:
    """The whole page; `picture` is the PNG of the curves, empty where there is none."""
    title = f"{manifest.title}, version {manifest.version}"
    tone, word = ("good", "Promoted.") if verdict.promoted else ("bad", "Not promoted.")
    curves = ""
    if picture:
        data = base64.b64encode(picture).decode("ascii")
        curves = f'<h2>Loss</h2><img alt="Training and validation loss by step" src="data:image/png;base64,{data}">'
    order = wrong_first(verdict)
    right = sum(_is_right(verdict, place) for place in order)
    more = f" {len(order) - MOST_ROWS:,} more rows are not shown." if len(order) > MOST_ROWS else ""
    body = (
        f'<h1>{escape(title)}</h1><p class="soft">{escape(manifest.domain)}. A LoRA adapter for '
        f"{escape(manifest.base)}.</p>"
        f'<p><strong class="{tone}">{word}</strong> {escape(verdict.reason)}</p>'
        f"<h2>Scores</h2>{_scores(verdict)}{curves}"
        f"<h2>Answers side by side</h2><p>{len(order) - right:,} of {len(order):,} rows that training left out are not "
        "answered exactly as wanted; they come first."
        f"{more} <ins>Underlined</ins> is what an answer has beyond the wanted one, <del>struck out</del> what it "
        f"lacks.</p>{''.join(_row(verdict, place) for place in order[:MOST_ROWS])}"
    )
    return closed_page(title, _STYLE, body)


def score_rows(verdict: Verdict) -> list[tuple[str, list[str]]]:
    """Each measure's title and its values as text, by contender."""
    return [
        (title, [form.format(getattr(scores, attribute)) for scores in verdict.scores.values()])
        for title, attribute, form in MEASURES
    ]


def wrong_first(verdict: Verdict) -> list[int]:
    """The rows' places, those that the new version answers wrongly first."""
    return sorted(range(len(verdict.rows)), key=lambda place: _is_right(verdict, place))


def marked(wanted: str, answer: str) -> Html:
    """The answer with <ins> around words beyond the wanted ones, and <del> around wanted ones that it lacks.

    An answer that has little in common with the wanted one is a different one: it is marked as a whole.
    """
    before, after = _words(_short(wanted)), _words(_short(answer))
    bare = [[word.strip() for word in words] for words in (before, after)]
    # Blanks count where nothing else differs.
    one, other = (before, after) if bare[0] == bare[1] else bare
    match = difflib.SequenceMatcher(None, one, other, autojunk=False)
    if match.ratio() < ALIKE:
        return Html(f"<ins>{escape(''.join(after))}</ins>")
    parts = []
    for kind, i, j, k, n in match.get_opcodes():
        gone, come = escape("".join(before[i:j])), escape("".join(after[k:n]))
        if kind == "equal":
            parts.append(come)
            continue
        parts += [f"<del>{gone}</del>"] * bool(gone) + [f"<ins>{come}</ins>"] * bool(come)
    return Html("".join(parts))


def _is_right(verdict: Verdict, place: int) -> bool:
    return verdict.answers["candidate"][place] == verdict.rows[place].completion


def _scores(verdict: Verdict) -> str:
    head = "".join(f"<th>{NAMES[name]}</th>" for name in verdict.scores)
    rows = "".join(
        f"<tr><td>{title}</td>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
        for title, values in score_rows(verdict)
    )
    return f'<div class="wide"><table><tr><th>measure</th>{head}</tr>{rows}</table></div>'


def _row(verdict: Verdict, place: int) -> str:
    row = verdict.rows[place]
    said = [*(message.content for message in row.before), row.prompt]
    sides = [f'<div class="side"><b>wanted</b>{escape(_short(row.completion))}</div>']
    for name, answers in verdict.answers.items():
        answer = answers[place]
        tone, word = ("good", "as wanted") if answer == row.completion else ("bad", "differs")
        text = marked(row.completion, answer) if answer else '<span class="soft">(nothing)</span>'
        sides.append(f'<div class="side"><b class="{tone}">{NAMES[name]}: {word}</b>{text}</div>')
    question = "<br>".join(escape(_short(text)) for text in said)
    return f'<article><h3>{question}</h3><div class="sides">{"".join(sides)}</div></article>'


def _words(text: str) -> list[str]:
    """Words with the blanks that follow them, nothing lost."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1].rstrip() + "…"
