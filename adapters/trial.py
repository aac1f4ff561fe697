"""One method trained and measured in a process of its own, so that its peak of memory is its own.

The training is train.py's: `run_sft` on the same rows in the same order, whatever learns.
"""

import contextlib
import ctypes
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from adapters.base import LoadedBase, load_base, load_tokenizer, quiet
from adapters.config import AdapterFile, AdapterManifest, TrainingSettings, read_manifest
from adapters.dataset import Example, split
from adapters.decode import Decoder
from adapters.errors import BaseModelError
from adapters.memory import Method, Precision
from adapters.registry import MANIFEST_FILE, FoundAdapter
from adapters.residents import load_weights
from adapters.train import attach_lora, run_sft, save_adapter
from adapters.verdict import Scores, answer_logprobs, answered, domain_terms, perplexity, scored

Given = ParamSpec("Given")
Found = TypeVar("Found")

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""What mallopt(3) calls M_MMAP_THRESHOLD and M_TRIM_THRESHOLD."""
GIVEN_BACK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained: `method` at `learning_rate`, `steps` at most.

    `precision` is that of the base's weights, of QLoRA's those that are not quantised.
    """

    name: str
    base: str
    file: AdapterFile
    method: Method
    precision: Precision
    learning_rate: float
    steps: int | None
    threads: int

    @property
    def kind(self) -> Literal["nf4", "bf16", "fp32"]:
        return "nf4" if self.method == "qlora" else self.precision

    @property
    def training(self) -> TrainingSettings:
        """The recipe's values with this plan's rate, and none that ends a run early: all take the same steps."""
        return self.file.training.model_copy(update={"learning_rate": self.learning_rate, "patience": 0})


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a plan; `step_s` leaves out what is evaluated and saved between steps.

    `right` and `logprobs` (their sum and number) are those of each held-out row.
    """

    plan: Plan
    steps: int
    tokens: int
    step_s: tuple[float, ...]
    kept_bytes: int
    trained_weights: int
    losses: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    scores: Scores
    right: tuple[bool, ...]
    logprobs: tuple[tuple[float, int], ...]

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / sum(self.step_s)

    @property
    def best_validation(self) -> float:
        return min(loss for _, loss in self.validation)


def run_apart(plan: Plan, examples: Sequence[Example], held_out: Sequence[Example], scratch: Path) -> Trial:
    """`run_trial` in a new process. Raises BaseModelError where the system ended it."""
    return _apart(plan, run_trial, plan, list(examples), list(held_out), scratch)


def peak_apart(plan: Plan, examples: Sequence[Example], scratch: Path) -> int:
    """`run_peak` in a new process. Raises BaseModelError where the system ended it."""
    return _apart(plan, run_peak, plan, list(examples), scratch)


def _apart(plan: Plan, work: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_quietly, partial(work, *given, **named)).result()
        except BrokenProcessPool:
            raise BaseModelError(
                f"The process that trained {plan.name} with {plan.method} was ended by the system, most likely for "
                "want of memory: leave the method out with --methods, or set training.gradient_checkpointing."
            ) from None


def _quietly(work: Callable[[], Found]) -> Found:
    """The new process has the console of this one, with the bar and nothing of what libraries note."""
    with quiet():
        return work()


def run_peak(plan: Plan, examples: list[Example], scratch: Path) -> int:
    """Bytes at the peak of two steps on the longest rows, beyond what was there before the base was loaded.

    On a CPU with an allocator that gives back at once what is freed: what glibc keeps for later grows by the run.
    """
    import torch

    torch.set_num_threads(plan.threads)
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, GIVEN_BACK_BYTES)
        libc.mallopt(TRIM_THRESHOLD, GIVEN_BACK_BYTES)
    settings = plan.training.model_copy(update={"epochs": 1, "evaluations": 1, "noise": 0.0, "full_answers": 1.0})
    size = settings.batch_size
    rows = sorted(examples, key=lambda row: len(row.prompt) + len(row.completion), reverse=True)
    with scratch_in(scratch) as folder:
        warm_up(plan, rows[:1], folder / "warm")
        before = _memory_now()
        loaded = load_base(plan.base, plan.kind)
        run_sft(learner(plan, loaded), loaded.tokenizer, rows[: 2 * size], settings, folder / "run", rows[:size])
        return _memory_peak() - before


def run_trial(plan: Plan, examples: list[Example], held_out: list[Example], scratch: Path) -> Trial:
    """Trains, keeps and scores, with files in `scratch` that are gone afterwards."""
    import torch

    torch.set_num_threads(plan.threads)
    settings = plan.training
    training, validation = split(examples, settings.validation, settings.seed)
    training, settings = shortened(training, settings, plan.steps)
    with scratch_in(scratch) as folder:
        loaded = load_base(plan.base, plan.kind)
        model = learner(plan, loaded)
        learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        live = run_sft(model, loaded.tokenizer, training, settings, folder / "run", validation)
        kept = keep(plan, model, examples, loaded, folder / "kept")
        size = sum(path.stat().st_size for path in kept.glob("*.safetensors"))
        del model, loaded
        scores, right, logprobs = measured(plan, kept, examples, held_out)
    return Trial(
        plan=plan,
        steps=len(live.step_s),
        tokens=live.tokens,
        step_s=tuple(live.step_s),
        kept_bytes=size,
        trained_weights=learning,
        losses=tuple(live.training),
        validation=tuple(live.validation),
        scores=scores,
        right=right,
        logprobs=logprobs,
    )


def measured(
    plan: Plan, kept: Path, examples: Sequence[Example], held_out: Sequence[Example]
) -> tuple[Scores, tuple[bool, ...], tuple[tuple[float, int], ...]]:
    """The verdict's scores of what was kept, read from its files, and each row's part in them (`Trial`)."""
    decoder = Decoder(load_base(str(kept) if plan.method == "full" else plan.base, plan.kind))
    weights = None
    if plan.method != "full":
        weights = load_weights(FoundAdapter(kept, read_manifest(kept / MANIFEST_FILE, AdapterManifest)), decoder)
    answers = answered(held_out, weights, decoder, plan.training.max_tokens)
    logprobs = answer_logprobs(held_out, weights, decoder)
    terms = domain_terms([row.completion for row in examples])
    scores = scored(held_out, answers, terms, perplexity(logprobs))
    right = tuple(answer == row.completion for answer, row in zip(answers, held_out, strict=True))
    return scores, right, tuple((sum(row), len(row)) for row in logprobs)


def learner(plan: Plan, loaded: LoadedBase) -> Any:
    """The model with what learns in it: all weights, or LoRA's."""
    return loaded.model.requires_grad_(True) if plan.method == "full" else attach_lora(loaded.model, plan.training)


@contextlib.contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """A folder for a trial's files, which are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        yield Path(own)


def shortened(
    training: list[Example], settings: TrainingSettings, steps: int | None
) -> tuple[list[Example], TrainingSettings]:
    """Rows and settings that make so many steps at most, of whole batches; the recipe's own without a number."""
    size = settings.batch_size
    whole = -(-len(training) // size)
    if steps is None or steps >= settings.epochs * whole:
        return training, settings
    epochs = -(-steps // whole)
    return training[: steps // epochs * size], settings.model_copy(update={"epochs": epochs})


def warm_up(plan: Plan, rows: Sequence[Example], folder: Path) -> None:
    """A step of a Phi-3 of a few thousand weights: what torch and TRL load when they first need it is there then."""
    from dataclasses import replace

    from adapters.tiny.pretrain import BaseRecipe, new_model

    tokenizer = load_tokenizer(plan.base)
    model = new_model(replace(BaseRecipe(), hidden_size=8, intermediate_size=8, layers=1, heads=1), tokenizer)
    settings = plan.training.model_copy(update={"epochs": 1, "batch_size": 1, "evaluations": 1})
    run_sft(attach_lora(model.requires_grad_(False), settings), tokenizer, rows, settings, folder, rows)


def keep(plan: Plan, model: Any, examples: list[Example], loaded: LoadedBase, folder: Path) -> Path:
    """The folder, with what would be kept in it, in 16 bits."""
    import torch

    folder.mkdir()
    if plan.method == "full":
        model.to(torch.bfloat16).save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    else:
        save_adapter(folder, model, plan.name, plan.file, examples, loaded, version=1)
    return folder


def _memory_now() -> int:
    """Bytes that this process, or the GPU for it, holds now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    return _resident("VmRSS")


def _memory_peak() -> int:
    """The most bytes that were held so far."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _resident("VmHWM")


def _resident(key: str) -> int:
    """A line of Linux's status of this process, in bytes; elsewhere the most that it ever held."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
