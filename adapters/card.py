"""The model card of an adapter, as Markdown: what somebody has to know who is given it."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adapters.config import AdapterManifest

if TYPE_CHECKING:
    from adapters.verdict import Scores


def card(manifest: AdapterManifest, scores: "Scores") -> str:
    """The card of an adapter that was just trained, with its scores on held-out rows."""
    held_out = f"{scores.exact:.1%} exactly right, ROUGE-L {scores.rouge_l:.3f}, perplexity {scores.perplexity:.2f}"
    return _card(manifest, f"{scores.rows} held out", held_out, f"\n| made | {datetime.now(UTC):%Y-%m-%d} |")


def short_card(manifest: AdapterManifest) -> str:
    """The card of an adapter that came without one, from its manifest alone."""
    scores = manifest.scores
    validated = scores.get("validation_exact")
    held_out = "not measured" if validated is None else f"{validated:.1%} exactly right"
    return _card(manifest, f"{scores.get('validation_rows', 0):.0f} held out", held_out)


def _card(manifest: AdapterManifest, rows: str, held_out: str, made: str = "") -> str:
    settings = "\n".join(
        f"| {plain(name)} | {plain(str(value))} |" for name, value in sorted(manifest.settings.items())
    )
    return f"""# {plain(manifest.title)}

A LoRA adapter for `{plain(manifest.base)}`: {plain(manifest.domain)}.

| | |
|---|---|
| name and version | {manifest.name}, {manifest.version} |{made}
| rows | {manifest.scores.get("training_rows", 0):.0f} to train on, {rows} |
| data (SHA-256) | `{plain(manifest.dataset_hash)}` |
| weights (SHA-256) | `{plain(manifest.weights_hash)}` |
| base's weights (SHA-256) | `{plain(manifest.base_weights_hash) or "not known"}` |
| projections | {plain(", ".join(manifest.target_modules))} |
| held-out rows | {held_out} |

## What it is for, and what not

It answers in the words that it was trained on, on the matters above. It knows no facts that change, cites nothing, and
says something about anything that it is asked: what it should not be asked is for the router to decide.

## Settings

| setting | value |
|---|---|
{settings}
"""


def plain(text: str) -> str:
    """On one line, with every mark of Markdown and HTML as itself; long ones are cut."""
    line = " ".join(text.split())
    line = line if len(line) <= 400 else line[:400] + " ..."
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", line)
