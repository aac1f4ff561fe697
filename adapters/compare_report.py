"""A comparison as Markdown, as JSON, and as a picture."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.compare import Comparison
from adapters.intervals import perplexity_interval, wilson
from adapters.memory import Method
from adapters.trial import Trial

REPORT, FIGURES, PICTURE = "report.md", "report.json", "comparison.png"
NAMES: dict[Method, str] = {"lora": "LoRA", "qlora": "QLoRA", "full": "all weights"}
COLOURS: dict[Method, str] = {"lora": "#0f766e", "qlora": "#b45309", "full": "#4338ca"}


def write_comparison(folder: Path, found: Comparison) -> None:
    """Writes the three files."""
    (folder / REPORT).write_text(report(found), encoding="utf-8")
    (folder / FIGURES).write_text(json.dumps(figures(found), indent=2) + "\n", encoding="utf-8")
    draw(found, folder / PICTURE)


def report(found: Comparison) -> str:
    """The table, the three sayings beside what was measured, and the picture."""
    trials = found.trials
    first = next(iter(trials.values()))
    lines = [
        f"# {found.name}: {', '.join(NAMES[method] for method in trials)}",
        "",
        f"Base {found.base}; {first.steps} steps of {first.plan.training.batch_size} rows, the same in the same order; "
        f"measured on {found.rows} rows that training left out.",
        "",
        "| | " + " | ".join(NAMES[method] for method in trials) + " |",
        "|---|" + "---|" * len(trials),
    ]
    table = [cells(found, method) for method in trials]
    lines += [f"| {title} | {' | '.join(row[title] for row in table)} |" for title in table[0]]
    lines += ["", *(f"- {sentence}" for sentence in (*sayings(found), *found.left_out.values()))]
    lines += ["", f"![Memory, speed, quality and losses of the methods]({PICTURE})", ""]
    if found.rates:
        tried = ", ".join(f"{loss:.3f} at {rate:g}" for rate, loss in found.rates.items()).replace("inf at", "none at")
        lines.append(
            f"The learning rate of all weights was chosen by the best validation loss: {tried}. That of LoRA and"
        )
        lines.append("QLoRA is the recipe's.")
    lines.append(
        "Intervals are 95%, over the held-out rows; another seed would differ too. Memory is the peak of two steps on"
    )
    lines.append("the longest rows, in a process of its own, beyond what it held before its base was loaded.")
    return "\n".join(lines) + "\n"


def cells(found: Comparison, method: Method) -> dict[str, str]:
    """A column of the table, by the rows' titles."""
    trial = found.trials[method]
    low, high = wilson(sum(trial.right), len(trial.right))
    least, most = perplexity_interval(trial.logprobs)
    return {
        "base's weights held in": trial.plan.kind,
        "learning rate": f"{trial.plan.learning_rate:g}",
        "weights that learn": f"{trial.trained_weights / 1e6:,.2f}M",
        "peak memory": f"{found.peaks[method] / 1e6:,.0f} MB (estimated {found.estimated[method] / 1e6:,.0f})",
        "tokens a second": f"{trial.tokens_per_s:,.0f}",
        "weights that are kept": f"{trial.kept_bytes / 1e6:,.2f} MB",
        "best validation loss": f"{trial.best_validation:.3f}",
        "answers exactly right": f"{trial.scores.exact:.1%} ({low:.1%} to {high:.1%})",
        "ROUGE-L": f"{trial.scores.rouge_l:.3f}",
        "perplexity of the right answers": f"{trial.scores.perplexity:.3f} ({least:.3f} to {most:.3f})",
    }


def sayings(found: Comparison) -> list[str]:
    """What people say of the methods, and what this run says."""
    if "lora" not in found.trials:
        return []
    lines = []
    if "full" in found.trials:
        memory, time = found.peaks["full"] / found.peaks["lora"], found.step_ratio("full")[1]
        lines.append(
            f'"LoRA comes close to training all weights": {_exact_beside(found, "full")} All weights take '
            f"{memory:.2f} times LoRA's memory and {time:.2f} times its time."
        )
    if "qlora" in found.trials:
        early, ratio, late = found.step_ratio("qlora")
        memory = found.peaks["qlora"] / found.peaks["lora"]
        lines.append(
            f'"QLoRA is 30% slower than LoRA": a step takes {ratio:.2f} times LoRA\'s time (half of the steps '
            f"{early:.2f} to {late:.2f})."
        )
        lines.append(f'"QLoRA is far smaller": its peak is {memory:.2f} times LoRA\'s. {_exact_beside(found, "qlora")}')
    return lines


def _exact_beside(found: Comparison, method: Method) -> str:
    """How a method's exact answers compare with LoRA's, with the interval of the difference."""
    own, lora = (found.trials[one].scores.exact for one in (method, "lora"))
    gain = found.gain(method)
    value, low, high = (f"{100 * figure:+.1f}" for figure in gain)
    better = NAMES[method] if gain[1] > 0 else "LoRA"
    shown = "a difference is not shown" if gain[1] <= 0 <= gain[2] else f"the better one is {better}"
    return f"{NAMES[method]} {own:.1%} exactly right, LoRA {lora:.1%} ({value} points, {low} to {high}): {shown}."


def figures(found: Comparison) -> dict[str, Any]:
    """Everything measured, as JSON."""
    return {
        "adapter": found.name,
        "base": found.base,
        "held_out_rows": found.rows,
        "methods": {method: _figures(found, method, trial) for method, trial in found.trials.items()},
        "left_out": dict(found.left_out),
        "rates": [
            {"learning_rate": rate, "validation_loss": loss if math.isfinite(loss) else None}
            for rate, loss in found.rates.items()
        ],
    }


def _figures(found: Comparison, method: Method, trial: Trial) -> dict[str, Any]:
    beside: dict[str, Any] = {}
    if "lora" in found.trials and method != "lora":
        beside = {"step_ratio": found.step_ratio(method), "exact_gain": found.gain(method)}
    return {
        "precision": trial.plan.kind,
        "learning_rate": trial.plan.learning_rate,
        "steps": trial.steps,
        "tokens": trial.tokens,
        "seconds": sum(trial.step_s),
        "tokens_per_s": trial.tokens_per_s,
        "trained_weights": trial.trained_weights,
        "peak_bytes": found.peaks[method],
        "estimated_bytes": found.estimated[method],
        "kept_bytes": trial.kept_bytes,
        "scores": asdict(trial.scores),
        "exact_interval": wilson(sum(trial.right), len(trial.right)),
        "perplexity_interval": perplexity_interval(trial.logprobs),
        "losses": trial.losses,
        "validation": trial.validation,
        **beside,
    }


def draw(found: Comparison, path: Path) -> None:
    """Memory with its estimate, speed, exact answers with their interval, and validation losses, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    memory, speed, exact, losses = figure.subplots(2, 2).flat
    names = [NAMES[method] for method in found.trials]
    colours = [COLOURS[method] for method in found.trials]
    trials = found.trials.values()
    memory.bar(names, [found.peaks[method] / 1e6 for method in found.trials], color=colours)
    memory.scatter(names, [found.estimated[m] / 1e6 for m in found.trials], marker="_", s=900, color="black")
    memory.set_title("peak memory, MB (line: estimated)")
    speed.bar(names, [trial.tokens_per_s for trial in trials], color=colours)
    speed.set_title("tokens a second")
    shares = [100 * trial.scores.exact for trial in trials]
    ends = [wilson(sum(trial.right), len(trial.right)) for trial in trials]
    errors = [
        [max(0.0, share - 100 * low) for share, (low, _) in zip(shares, ends, strict=True)],
        [max(0.0, 100 * high - share) for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    exact.bar(names, shares, color=colours, yerr=errors, capsize=6)
    exact.set_title(f"exactly right of {found.rows} held-out rows, %")
    exact.set_ylim(0, 100)
    for method, trial in found.trials.items():
        losses.plot(*zip(*trial.validation, strict=True), label=NAMES[method], color=COLOURS[method], marker="o")
    losses.set_title("validation loss by step")
    losses.set_ylim(bottom=0)
    losses.legend()
    for axes in (memory, speed, exact, losses):
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)
