"""What is written beside a trained adapter for people: the card, and the report as Markdown and as a page."""

from pathlib import Path

from adapters.card import card, plain
from adapters.config import AdapterManifest
from adapters.folders import CARD, CURVES, REPORT, REPORT_PAGE
from adapters.report_page import NAMES, page, score_rows, wrong_first
from adapters.verdict import Verdict

SHOWN = 20
"""Rows whose answers stand side by side in the report, the wrong ones first."""


def write_report(folder: Path, manifest: AdapterManifest, verdict: Verdict, note: str = "") -> None:
    """Writes report.md, report.html and the card; texts of rows and answers are escaped. `note` is for report.md."""
    curves = folder / CURVES
    picture = curves.read_bytes() if curves.is_file() else b""
    (folder / REPORT).write_text(report(manifest, verdict, picture=bool(picture), note=note), encoding="utf-8")
    (folder / REPORT_PAGE).write_text(page(manifest, verdict, picture), encoding="utf-8")
    (folder / CARD).write_text(card(manifest, verdict.scores["candidate"]), encoding="utf-8")


def report(manifest: AdapterManifest, verdict: Verdict, *, picture: bool, note: str = "") -> str:
    """The scores, the verdict with a note if there is one, the curves, and answers side by side."""
    lines = [
        f"# {plain(manifest.title)}, version {manifest.version}",
        "",
        f"**{'Promoted' if verdict.promoted else 'Not promoted'}.** {verdict.reason}",
        "",
        "| measure | " + " | ".join(NAMES[name] for name in verdict.scores) + " |",
        "|---|" + "---|" * len(verdict.scores),
    ]
    lines += [f"| {title} | {' | '.join(values)} |" for title, values in score_rows(verdict)]
    lines += ["", f"Measured on {len(verdict.rows)} rows that training left out."]
    if note:
        lines += ["", note]
    if picture:
        lines += ["", f"![Training and validation loss by step]({CURVES})"]
    lines += ["", "## Answers side by side", ""]
    order = wrong_first(verdict)
    for place in order[:SHOWN]:
        row = verdict.rows[place]
        lines += [f"### {plain(row.prompt)}", "", f"- wanted: {plain(row.completion)}"]
        lines += [f"- {NAMES[name]}: {plain(answers[place])}" for name, answers in verdict.answers.items()]
        lines.append("")
    return "\n".join(lines)
