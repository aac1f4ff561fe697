"""The model card and the report of a trained adapter, as Markdown beside its weights."""

import re
from datetime import UTC, datetime
from pathlib import Path

from adapters.config import AdapterManifest
from adapters.live import CURVES
from adapters.verdict import Scores, Verdict

REPORT = "report.md"
CARD = "README.md"
SHOWN = 20
"""Rows whose answers stand side by side in the report, the wrong ones first."""
NAMES = {"base": "bare base", "before": "version before", "candidate": "this version"}


def write_report(folder: Path, manifest: AdapterManifest, verdict: Verdict) -> None:
    """Writes report.md and the card; texts of rows and answers are escaped."""
    (folder / REPORT).write_text(report(manifest, verdict, picture=(folder / CURVES).is_file()), encoding="utf-8")
    (folder / CARD).write_text(card(manifest, verdict), encoding="utf-8")


def report(manifest: AdapterManifest, verdict: Verdict, *, picture: bool) -> str:
    """The scores, the verdict, the curves, and answers side by side."""
    lines = [
        f"# {_plain(manifest.title)}, version {manifest.version}",
        "",
        f"**{'Promoted' if verdict.promoted else 'Not promoted'}.** {verdict.reason}",
        "",
        "| measure | " + " | ".join(NAMES[name] for name in verdict.scores) + " |",
        "|---|" + "---|" * len(verdict.scores),
    ]
    for title, attribute, form in (
        ("answers exactly right", "exact", "{:.1%}"),
        ("ROUGE-L", "rouge_l", "{:.3f}"),
        ("terms of the domain that belong there", "terms", "{:.1%}"),
        ("perplexity of the right answers", "perplexity", "{:.2f}"),
    ):
        values = [form.format(getattr(scores, attribute)) for scores in verdict.scores.values()]
        lines.append(f"| {title} | {' | '.join(values)} |")
    lines += ["", f"Measured on {len(verdict.rows)} rows that training left out."]
    if picture:
        lines += ["", f"![Training and validation loss by step]({CURVES})"]
    lines += ["", "## Answers side by side", ""]
    right = [got == row.completion for got, row in zip(verdict.answers["candidate"], verdict.rows, strict=True)]
    order = sorted(range(len(right)), key=right.__getitem__)
    for place in order[:SHOWN]:
        row = verdict.rows[place]
        lines += [f"### {_plain(row.prompt)}", "", f"- wanted: {_plain(row.completion)}"]
        lines += [f"- {NAMES[name]}: {_plain(answers[place])}" for name, answers in verdict.answers.items()]
        lines.append("")
    return "\n".join(lines)


def card(manifest: AdapterManifest, verdict: Verdict) -> str:
    """What somebody has to know who is given this adapter."""
    scores: Scores = verdict.scores["candidate"]
    settings = "\n".join(f"| {name} | {value} |" for name, value in sorted(manifest.settings.items()))
    return f"""# {_plain(manifest.title)}

A LoRA adapter for `{_plain(manifest.base)}`: {_plain(manifest.domain)}.

| | |
|---|---|
| name and version | {manifest.name}, {manifest.version} |
| made | {datetime.now(UTC):%Y-%m-%d} |
| rows | {manifest.scores.get("training_rows", 0):.0f} to train on, {scores.rows} held out |
| data (SHA-256) | `{manifest.dataset_hash}` |
| weights (SHA-256) | `{manifest.weights_hash}` |
| base's weights (SHA-256) | `{manifest.base_weights_hash}` |
| projections | {", ".join(manifest.target_modules)} |
| held-out rows | {scores.exact:.1%} exactly right, ROUGE-L {scores.rouge_l:.3f}, perplexity {scores.perplexity:.2f} |

## What it is for, and what not

It answers in the words that it was trained on, on the matters above. It knows no facts that change, cites nothing, and
says something about anything that it is asked: what it should not be asked is for the router to decide.

## Settings

| setting | value |
|---|---|
{settings}
"""


def _plain(text: str) -> str:
    """On one line, with every mark of Markdown and HTML as itself; long ones are cut."""
    line = " ".join(text.split())
    line = line if len(line) <= 400 else line[:400] + " ..."
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", line)
