"""LoRA, QLoRA and all weights see the same rows, are measured apart, and leave the desk as it was."""

import json
import math
import multiprocessing
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters_small import make_base, make_settings, quick_training
from test_adapters_new import ANSWERS, PAIRS

from adapters import compare as comparing
from adapters.base import load_base
from adapters.compare import Comparison, TooLarge, best_of, check_fits, compare, first_plan, tried
from adapters.compare_options import check_output
from adapters.compare_report import figures, report, sayings, write_comparison
from adapters.config import AdapterFile
from adapters.dataset import Example, split
from adapters.errors import BaseModelError, DatasetError, DivergedError
from adapters.intervals import paired_difference, perplexity_interval, wilson
from adapters.memory import Shape, shape_of
from adapters.trial import Plan, Trial, peak_apart, run_apart, run_trial, shortened
from desk.settings import AdapterSettings

ROWS = [Example(question, answer) for question, answer in PAIRS]
TRAINING = quick_training(epochs=30, validation=0.25, evaluations=12, learning_rate=1e-2)
FILE = AdapterFile(title="Faults", domain="Faults", training=TRAINING)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> AdapterSettings:
    root = tmp_path_factory.mktemp("compare")
    make_base(root / "base", vocab_size=560, hidden_size=64, intermediate_size=128)  # what nf4 can be laid out for
    folder = root / "shipped" / "faults"
    folder.mkdir(parents=True)
    lines = [json.dumps({"prompt": row.prompt, "completion": row.completion}) for row in ROWS]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return make_settings(root)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def found(settings: AdapterSettings, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """All methods, in this process: what is imported already need not be again. Memory is measured elsewhere."""
    before = files(settings.shipped.parent)
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "run_apart", run_trial)
        patch.setattr(comparing, "peak_apart", lambda plan, *_: comparing.estimate(plan, shape_of(plan.base), 64))
        result = compare(settings, "faults", FILE, ("lora", "qlora", "full"), 36, work / "trials")
    assert files(settings.shipped.parent) == before, "the desk or its state changed"
    assert list(work.iterdir()) == []
    return result


def test_every_method_takes_the_same_steps_on_the_same_rows(found: Comparison) -> None:
    assert list(found.trials) == ["lora", "qlora", "full"]
    assert {(trial.steps, trial.tokens) for trial in found.trials.values()} == {(36, found.trials["lora"].tokens)}
    # LoRA begins as the bare base: the first batch's loss is that of all weights before they learn.
    first = {method: trial.losses[0] for method, trial in found.trials.items()}
    assert first["lora"][0] == first["full"][0] == 1
    assert first["lora"][1] == pytest.approx(first["full"][1], rel=1e-4)
    assert first["qlora"][1] == pytest.approx(first["lora"][1], rel=0.1)


def test_every_method_learns_and_keeps_what_it_should(found: Comparison, settings: AdapterSettings) -> None:
    base = load_base(settings.base)
    weights = sum(weight.numel() for weight in base.model.parameters())
    shape, lora, full = shape_of(settings.base), found.trials["lora"], found.trials["full"]
    assert lora.trained_weights == found.trials["qlora"].trained_weights == shape.adapter_weights(4)
    assert full.trained_weights == weights == shape.weights
    for trial in found.trials.values():
        assert 0 <= trial.kept_bytes - 2 * trial.trained_weights < 8000, "16 bits a weight, and a header"
        assert trial.losses[-1][1] < 0.5 * trial.losses[0][1]
        assert trial.scores.rows == len(trial.right) == found.rows
        assert trial.scores.exact == sum(trial.right) / found.rows
        total, number = (sum(column) for column in zip(*trial.logprobs, strict=True))
        assert trial.scores.perplexity == pytest.approx(math.exp(-total / number))


def test_all_weights_take_the_rate_that_validation_likes_best(found: Comparison) -> None:
    assert list(found.rates) == pytest.approx([1e-3, 5e-3, 1e-2])
    full = found.trials["full"]
    assert full.best_validation == min(found.rates.values()) == found.rates[full.plan.learning_rate]


def test_the_files_say_what_was_measured(found: Comparison, tmp_path: Path) -> None:
    write_comparison(tmp_path, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.png", "report.json", "report.md"]
    check_output(tmp_path)  # it may be replaced by the next one
    told = json.loads((tmp_path / "report.json").read_text())
    lora = found.trials["lora"]
    assert told["methods"]["lora"]["tokens_per_s"] == pytest.approx(lora.tokens / sum(lora.step_s))
    assert told["methods"]["full"]["exact_gain"] == pytest.approx(list(found.gain("full")))
    text = (tmp_path / "report.md").read_text()
    low, high = wilson(sum(lora.right), found.rows)
    assert f"| answers exactly right | {lora.scores.exact:.1%} ({low:.1%} to {high:.1%}) |" in text
    assert f"a step takes {found.step_ratio('qlora')[1]:.2f} times LoRA's time" in text
    assert "Memory is the peak of two steps on\nthe longest rows, in a process of its own" in text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_one_step_has_a_ratio_too(found: Comparison) -> None:
    short = replace(found, trials={name: replace(one, step_s=one.step_s[:1]) for name, one in found.trials.items()})
    ratio = found.trials["qlora"].step_s[0] / found.trials["lora"].step_s[0]
    assert short.step_ratio("qlora") == (ratio, ratio, ratio)
    assert f"a step takes {ratio:.2f} times LoRA's time" in report(short)


def test_a_method_that_the_system_ended_leaves_the_finished_ones(
    settings: AdapterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Comparison
) -> None:
    def run(plan: Plan, *_: object) -> Trial:
        if plan.method == "qlora":
            raise BaseModelError("The process was ended by the system.")
        return found.trials[plan.method]

    monkeypatch.setattr(comparing, "run_apart", run)
    monkeypatch.setattr(comparing, "peak_apart", lambda *_: 1)
    left = compare(settings, "faults", FILE, ("lora", "qlora", "full"), 36, tmp_path / "work")
    assert left.trials == {"lora": found.trials["lora"], "full": found.trials["full"]}
    assert left.left_out == {"qlora": "qlora is left out: The process was ended by the system."}
    assert "- qlora is left out: The process was ended by the system." in report(left)


def test_without_lora_nothing_is_said_beside_it(found: Comparison) -> None:
    alone = Comparison(
        "faults", "b", {"full": found.trials["full"]}, found.peaks, found.estimated, {"lora": "Too big."}, {}, 7
    )
    assert sayings(alone) == [] and "- Too big." in report(alone)


@pytest.mark.parametrize(
    ("steps", "epochs", "rows"), [(None, 30, 18), (1000, 30, 18), (9, 2, 16), (4, 1, 16), (1, 1, 4)]
)
def test_fewer_steps_are_whole_batches_of_the_same_rows(steps: int | None, epochs: int, rows: int) -> None:
    training, validation = split(ROWS, 0.25, 1)
    training = [*training, *validation][:18]
    short, settings = shortened(training, TRAINING, steps)
    assert short == training[:rows] and settings.epochs == epochs
    assert settings.epochs * -(-len(short) // settings.batch_size) <= (steps or 150)


def test_a_process_of_its_own_has_its_own_peak(settings: AdapterSettings, tmp_path: Path) -> None:
    plan = first_plan(settings, "faults", FILE, "lora", 4, shape_of(settings.base))
    ballast = torch.ones(80_000_000)  # 320 MB that the other process must not count
    peak = peak_apart(plan, ROWS, tmp_path / "work")
    assert len(ballast) and 4 * shape_of(settings.base).weights < peak < 200_000_000
    assert list((tmp_path / "work").iterdir()) == []


def test_a_process_that_the_system_ends_is_one_sentence(settings: AdapterSettings, tmp_path: Path) -> None:
    plan = first_plan(settings, "faults", FILE, "full", 4, shape_of(settings.base))

    def kill() -> None:
        end = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < end:
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BaseModelError, match="trained faults with full was ended by the system"):
        run_apart(plan, ROWS, ROWS[:4], tmp_path / "work")
    killer.join()


def test_what_does_not_fit_is_left_out_with_the_sentence_why(
    settings: AdapterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = Shape("big", 32_064, 3072, 8192, 32, 32, 32, 96, tied=False, fused=True)
    plans: dict[str, Plan] = {
        method: first_plan(settings, "faults", FILE, method, None, big) for method in ("lora", "qlora", "full")
    }
    assert [plan.kind for plan in plans.values()] == ["bf16", "nf4", "fp32"]
    bytes_needed = {method: comparing.estimate(plan, big, 256) for method, plan in plans.items()}
    assert bytes_needed["qlora"] < bytes_needed["lora"] < bytes_needed["full"]
    assert bytes_needed["full"] > 16 * big.weights
    check_fits(plans["full"], 80_000_000_000, None)
    check_fits(plans["full"], 80_000_000_000, 80_000_000_000)
    with pytest.raises(TooLarge, match=r"by the estimate it takes 80\.0 GB, and 24\.0 GB are free"):
        check_fits(plans["full"], 80_000_000_000, 24_000_000_000)
    monkeypatch.setattr(comparing, "free_bytes", lambda: 1000)
    with pytest.raises(BaseModelError, match=r"lora is left out.* full is left out"):
        compare(settings, "faults", FILE, ("lora", "full"), None, tmp_path)


def test_a_rate_at_which_training_diverges_is_not_taken(
    settings: AdapterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Comparison
) -> None:
    def run(plan: Plan, *_: object) -> Trial:
        if plan.learning_rate > rate:
            raise DivergedError("Training diverged.")
        return replace(found.trials["full"], plan=plan)

    monkeypatch.setattr(comparing, "run_apart", run)
    first = first_plan(settings, "faults", FILE, "full", 4, shape_of(settings.base))
    rate = 5.1e-3
    trial, losses = best_of(first, ROWS, ROWS, tmp_path)
    assert trial.plan.learning_rate == pytest.approx(1e-3)
    assert list(losses.values()) == [trial.best_validation, trial.best_validation, math.inf]
    told = figures(replace(found, rates=losses))["rates"]
    assert told[2]["validation_loss"] is None and "none at 0.01" in report(replace(found, rates=losses))
    rate = 1e-9
    with pytest.raises(DivergedError, match="Training diverged"):
        best_of(first, ROWS, ROWS, tmp_path)


def test_lora_has_the_recipes_rate_alone(settings: AdapterSettings) -> None:
    shape = shape_of(settings.base)
    rates = {
        method: [plan.learning_rate for plan in tried(first_plan(settings, "faults", FILE, method, None, shape))]
        for method in ("lora", "qlora", "full")
    }
    assert rates["lora"] == rates["qlora"] == [1e-2] and len(rates["full"]) == 3


def test_no_folder_with_anything_else_in_it_is_replaced(tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    (tmp_path / "report.md").write_text("an earlier one")
    check_output(tmp_path)
    (tmp_path / "thesis.md").write_text("mine")
    with pytest.raises(DatasetError, match="holds something else than a comparison"):
        check_output(tmp_path)
    with pytest.raises(DatasetError, match="holds something else than a comparison"):
        check_output(tmp_path / "thesis.md")


def test_intervals_are_those_of_the_books() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    one, other = [True] * 600 + [False] * 400, [True] * 500 + [False] * 500
    value, low, high = paired_difference(one, other)
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.0095, 0.1 + 1.96 * 0.0095), abs=0.002)
    assert paired_difference(one, one) == (0.0, 0.0, 0.0)
    chance = random.Random(3)
    rows = [(-chance.expovariate(1.0) * 10, 10) for _ in range(400)]
    mean = -sum(total for total, _ in rows) / 4000
    low, high = perplexity_interval(rows)
    assert (low, high) == pytest.approx((math.exp(mean - 0.098), math.exp(mean + 0.098)), rel=0.03)
    assert len(ANSWERS) == 4
