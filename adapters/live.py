"""What somebody who trains sees meanwhile, and what is kept of it: progress, curves, an end where the loss is none."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from adapters.errors import DivergedError
from adapters.folders import CURVES, LOSSES

LOG_S = 30
"""Seconds between two states of the bar where nobody looks on, and they pile up in a file."""


class Live(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """A bar with loss, tokens per second, time left and memory; (step, loss) of training and validation."""

    def __init__(self, tokens: int) -> None:
        self.training: list[tuple[int, float]] = []
        self.validation: list[tuple[int, float]] = []
        self.tokens = tokens
        self.step_s: list[float] = []
        """Of each step alone: what is evaluated and saved between them does not count."""
        self._step_began = 0.0
        self._bar: Any = None
        self._began = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        pause = 0.1 if sys.stderr.isatty() else LOG_S
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="step", file=sys.stderr, mininterval=pause
        )
        self._began = (state.global_step, time.perf_counter())
        for entry in state.log_history:  # of a run that goes on
            self._take(int(entry["step"]), entry)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_s.append(time.perf_counter() - self._step_began)
        self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Raises DivergedError where the loss is no number any more: what follows would be lost time."""
        self._take(state.global_step, logs or {})
        for name, losses in (("loss", self.training), ("validation loss", self.validation)):
            if losses and not math.isfinite(losses[-1][1]):
                raise DivergedError(
                    f"Training diverged: at step {losses[-1][0]} the {name} is {losses[-1][1]}. Lower "
                    "training.learning_rate in adapter.yaml, and look at the rows with `python -m adapters check`."
                )
        steps, seconds = state.global_step - self._began[0], time.perf_counter() - self._began[1]
        rate = self.tokens * steps / max(1, state.max_steps) / max(seconds, 1e-6)
        shown = {"tokens/s": f"{rate:,.0f}", "MB": f"{_memory_mb():,.0f}"}
        if self.training:
            shown["loss"] = f"{self.training[-1][1]:.3f}"
        if self.validation:
            shown["validation"] = f"{self.validation[-1][1]:.3f}"
        self._bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()

    def save(self, folder: Path) -> None:
        """Writes the losses, and a picture of them."""
        losses = {"training": self.training, "validation": self.validation}
        (folder / LOSSES).write_text(json.dumps(losses) + "\n", encoding="utf-8")
        draw(losses, folder / CURVES)

    def _take(self, step: int, logs: dict[str, float]) -> None:
        for key, losses in (("loss", self.training), ("eval_loss", self.validation)):
            if key in logs:
                losses.append((step, float(logs[key])))


def draw(losses: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """The curves as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in (("training", "#0f766e"), ("validation", "#b45309")):
        if losses[name]:
            steps, values = zip(*losses[name], strict=True)
            axes.plot(steps, values, label=name, color=colour, marker="o" if len(steps) < 30 else None, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _memory_mb() -> float:
    """The most that this process has had, or the GPU's."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
