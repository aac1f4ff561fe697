"""LoRA, QLoRA and all weights, trained on the same rows on this machine: memory, speed and quality side by side.

Changes nothing of the desk: what is trained is measured and thrown away.
"""

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles

from adapters.base import TINY_PARAMETERS, free_bytes, read_base_manifest
from adapters.config import AdapterFile
from adapters.dataset import Example, plain_rows, split
from adapters.errors import BaseModelError, DatasetError, DivergedError
from adapters.intervals import paired_difference
from adapters.memory import Method, Shape, Training, shape_of, training_memory
from adapters.new import desk_rows
from adapters.trial import Plan, Trial, peak_apart, run_apart
from desk.config import AdapterSettings

RATE_SHARES = (0.1, 0.3, 1.0)
"""Learning rates tried for all weights, as shares of LoRA's. A tenth is what others found (Biderman et al. 2024,
arXiv:2405.09673); a base as small as the embedded one may bear more."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The trials by method, the memory that each takes at its peak and was estimated to, what was left out and why;
    measured on `rows` rows.

    `rates` are the best validation losses of all weights by the learning rates that were tried, infinite where
    training diverged.
    """

    name: str
    base: str
    trials: dict[Method, Trial]
    peaks: dict[Method, int]
    estimated: dict[Method, int]
    left_out: dict[Method, str]
    rates: dict[float, float]
    rows: int

    def step_ratio(self, method: Method) -> tuple[float, float, float]:
        """How many times as long a step takes as LoRA's: (lower quartile, median, upper quartile) over the steps."""
        own, lora = self.trials[method].step_s, self.trials["lora"].step_s
        low, middle, high = quantiles([a / b for a, b in zip(own, lora, strict=True)], n=4)
        return low, middle, high

    def gain(self, method: Method) -> tuple[float, float, float]:
        """Its exact share of the held-out rows less LoRA's: (difference, low, high)."""
        return paired_difference(self.trials[method].right, self.trials["lora"].right)


def compare(
    settings: AdapterSettings, name: str, file: AdapterFile, methods: Sequence[Method], steps: int | None, work: Path
) -> Comparison:
    """Trains with each method, `steps` steps at most, with files in `work` meanwhile. Raises ModelError."""
    examples, held_out = desk_rows(settings.shipped / name, file)
    training, validation = split(examples, file.training.validation, file.training.seed)
    if not validation:
        raise DatasetError("No row is left for validation, by which rates are chosen: raise training.validation.")
    shape = shape_of(settings.base)
    longest = _longest([*training, *validation], settings.base, file.training.max_tokens)
    plans = [first_plan(settings, name, file, method, steps, shape) for method in methods]
    estimated = {plan.method: estimate(plan, shape, longest) for plan in plans}
    trials: dict[Method, Trial] = {}
    peaks: dict[Method, int] = {}
    left_out: dict[Method, str] = {}
    rates: dict[float, float] = {}
    for first in plans:
        if sentence := too_large(first, estimated[first.method], free_bytes()):
            left_out[first.method] = sentence
            print(sentence, file=sys.stderr)
            continue
        peaks[first.method] = peak_apart(first, training, work)
        for plan in tried(first):
            print(f"{name}: {plan.method} at a learning rate of {plan.learning_rate:g}", file=sys.stderr)
            try:
                trial = run_apart(plan, examples, held_out, work)
            except DivergedError as error:
                left_out[plan.method] = f"{plan.method} is left out: {error}"
                rates |= {plan.learning_rate: math.inf} if plan.method == "full" else {}
                continue
            print(_told(trial), file=sys.stderr)
            rates |= {plan.learning_rate: trial.best_validation} if plan.method == "full" else {}
            best = trials.get(plan.method)
            if best is None or trial.best_validation < best.best_validation:
                trials[plan.method] = trial
    left_out = {method: sentence for method, sentence in left_out.items() if method not in trials}
    shutil.rmtree(work, ignore_errors=True)
    if not trials:
        raise BaseModelError(" ".join(left_out.values()))
    return Comparison(
        name, read_base_manifest(settings.base).name, trials, peaks, estimated, left_out, rates, len(held_out)
    )


def _told(trial: Trial) -> str:
    return (
        f"{trial.plan.method}: validation loss {trial.best_validation:.3f}, {trial.scores.exact:.1%} of "
        f"{trial.scores.rows} held-out rows exactly right, {trial.tokens_per_s:,.0f} tokens/s"
    )


def first_plan(
    settings: AdapterSettings, name: str, file: AdapterFile, method: Method, steps: int | None, shape: Shape
) -> Plan:
    """The method at the recipe's rate. All weights are trained in fp32; so is LoRA on a base too small to quantise."""
    precise = method == "full" or (method == "lora" and shape.weights < TINY_PARAMETERS)
    return Plan(
        name=name,
        base=settings.base,
        file=file,
        method=method,
        precision="fp32" if precise else "bf16",
        learning_rate=file.training.learning_rate,
        steps=steps,
        threads=settings.threads,
    )


def tried(plan: Plan) -> list[Plan]:
    """The plan at each rate that is tried: LoRA's own is the recipe's, chosen before."""
    if plan.method != "full":
        return [plan]
    return [replace(plan, learning_rate=share * plan.learning_rate) for share in RATE_SHARES]


def estimate(plan: Plan, shape: Shape, longest: int) -> int:
    """Bytes at the peak, by memory.py, for batches of rows of `longest` tokens."""
    import torch

    settings = plan.training
    parts = training_memory(
        shape,
        Training(
            method=plan.method,
            rank=settings.r,
            length=longest,
            batch=settings.batch_size,
            checkpointing=settings.gradient_checkpointing,
            precision=plan.precision,
            on_cpu=not torch.cuda.is_available(),
        ),
    )
    return sum(part.count for part in parts)


def too_large(plan: Plan, estimated: int, free: int | None) -> str | None:
    """The sentence that leaves a method out; None where it fits, or nobody knows what is free."""
    if free is None or estimated <= free:
        return None
    return (
        f"{plan.method} is left out: by the estimate it takes {estimated / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
        f"free; `python -m adapters memory --method {plan.method}` says of what."
    )


def _longest(rows: Sequence[Example], base: str, most: int) -> int:
    """Tokens of the longest row."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=Path(base).is_dir())
    return max((len(row.input_ids) for row in plain_rows(rows, tokenizer, most)), default=most)
