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

from adapters.base import TINY_PARAMETERS, free_bytes, load_tokenizer, read_base_manifest
from adapters.config import AdapterFile
from adapters.dataset import Example, plain_rows, split
from adapters.errors import BaseModelError, DatasetError, DivergedError
from adapters.intervals import paired_difference
from adapters.memory import Method, Shape, Training, shape_of, training_memory
from adapters.new import desk_rows
from adapters.trial import Plan, Trial, peak_apart, run_apart
from desk.settings import AdapterSettings

RATE_SHARES = (0.1, 0.5, 1.0)
"""Learning rates tried for all weights, as shares of LoRA's. A tenth is what others found (Biderman et al. 2024,
arXiv:2405.09673); a base as small as the embedded one may bear more."""


class TooLarge(BaseModelError):
    """A method that this machine's memory is not for."""


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
        ratios = [a / b for a, b in zip(own, lora, strict=True)]
        # One step has no quartiles.
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return low, middle, high

    def gain(self, method: Method) -> tuple[float, float, float]:
        """Its exact share of the held-out rows less LoRA's: (difference, low, high)."""
        return paired_difference(self.trials[method].right, self.trials["lora"].right)


def compare(
    settings: AdapterSettings, name: str, file: AdapterFile, methods: Sequence[Method], steps: int | None, work: Path
) -> Comparison:
    """Trains with each method, `steps` steps at most, with files in `work` meanwhile. Raises ModelError.

    A method that does not fit, diverges, or whose process the system ends is left out: the others stand.
    """
    examples, held_out = desk_rows(settings.shipped / name, file)
    training, validation = split(examples, file.training.validation, file.training.seed)
    if not validation:
        raise DatasetError("No row is left for validation, by which rates are chosen: raise training.validation.")
    shape = shape_of(settings.base)
    longest = _longest([*training, *validation], settings.base, file.training.max_tokens)
    trials: dict[Method, Trial] = {}
    peaks: dict[Method, int] = {}
    estimated: dict[Method, int] = {}
    left_out: dict[Method, str] = {}
    rates: dict[float, float] = {}
    for method in methods:
        first = first_plan(settings, name, file, method, steps, shape)
        estimated[method] = estimate(first, shape, longest)
        try:
            check_fits(first, estimated[method], free_bytes())
            peaks[method] = peak_apart(first, training, work)
            trials[method], losses = best_of(first, examples, held_out, work)
            rates |= losses if method == "full" else {}
        except (BaseModelError, DivergedError) as error:
            left_out[method] = f"{method} is left out: {error}"
            print(left_out[method], file=sys.stderr)
    shutil.rmtree(work, ignore_errors=True)
    if not trials:
        raise BaseModelError(" ".join(left_out.values()))
    base = read_base_manifest(settings.base).name
    return Comparison(name, base, trials, peaks, estimated, left_out, rates, len(held_out))


def best_of(
    first: Plan, examples: Sequence[Example], held_out: Sequence[Example], work: Path
) -> tuple[Trial, dict[float, float]]:
    """The trial of the rate with the best validation loss, and that loss by rate; infinite where it diverged.

    Raises DivergedError where training diverged at every rate.
    """
    trials: list[Trial] = []
    losses: dict[float, float] = {}
    faults: list[DivergedError] = []
    for plan in tried(first):
        print(f"{plan.name}: {plan.method} at a learning rate of {plan.learning_rate:g}", file=sys.stderr)
        try:
            trials.append(run_apart(plan, examples, held_out, work))
        except DivergedError as error:
            losses[plan.learning_rate] = math.inf
            faults.append(error)
            continue
        losses[plan.learning_rate] = trials[-1].best_validation
        print(_told(trials[-1]), file=sys.stderr)
    if not trials:
        raise faults[-1]
    return min(trials, key=lambda trial: trial.best_validation), losses


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


def check_fits(plan: Plan, estimated: int, free: int | None) -> None:
    """Raises TooLarge where the estimate is more than what is free, if anybody knows."""
    if free is not None and estimated > free:
        raise TooLarge(
            f"by the estimate it takes {estimated / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
            f"`python -m adapters memory --method {plan.method}` says of what."
        )


def _longest(rows: Sequence[Example], base: str, most: int) -> int:
    """Tokens of the longest row."""
    tokenizer = load_tokenizer(base)
    return max((len(row.input_ids) for row in plain_rows(rows, tokenizer, most)), default=most)
