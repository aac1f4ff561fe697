"""The recipe's mathematics and its safety: losses equal a plain loop's, killed runs go on, bad ones end in words."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_small import make_base, quick_training
from test_adapters_train import ROWS

from adapters.base import keep_layout, load_base
from adapters.config import AdapterFile, TrainingSettings
from adapters.dataset import Example, plain_rows, token_rows
from adapters.errors import BaseModelError, DatasetError, UnwritableError
from adapters.live import draw
from adapters.run_folder import newest_checkpoint, run_folder
from adapters.train import attach_lora, run_sft, train_adapter
from desk.config import ROOT


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe") / "base"
    make_base(folder, hidden_size=64, intermediate_size=128)
    return folder


def plain_loop(base: Path, settings: TrainingSettings, quantization: Any) -> list[float]:
    """The mean loss of each batch, by AdamW over the same batches, written from the papers alone."""
    loaded = load_base(str(base), quantization)
    model = attach_lora(loaded.model, settings).train()
    rows = token_rows(ROWS, loaded.tokenizer, settings)
    batches = [rows[at : at + settings.batch_size] for at in range(0, len(rows), settings.batch_size)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    losses = []
    for step, batch in enumerate(batches):
        warm = round(settings.warmup * len(batches))
        share = step / max(1, warm)
        if step >= warm:
            share = 0.5 * (1 + math.cos(math.pi * (step - warm) / (len(batches) - warm)))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * share
        width = max(len(row.input_ids) for row in batch)
        ids = torch.tensor([row.input_ids + [0] * (width - len(row.input_ids)) for row in batch])
        labels = torch.tensor([row.labels + [-100] * (width - len(row.labels)) for row in batch])
        mask = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in batch])
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize(("method", "quantization", "tolerance"), [("lora", "fp32", 1e-3), ("qlora", "nf4", 1e-2)])
def test_the_loss_curve_equals_a_plain_loops(
    base: Path, tmp_path: Path, method: Any, quantization: Any, tolerance: float
) -> None:
    settings = quick_training(method=method, epochs=6, lora_dropout=0.0, evaluations=6)
    loaded = load_base(str(base), quantization)
    model = attach_lora(loaded.model, settings)
    # Evaluated in between: that must change nothing.
    live = run_sft(model, loaded.tokenizer, ROWS, settings, tmp_path / "run", ROWS[:2])
    wanted = plain_loop(base, settings, quantization)
    assert len(live.training) == len(wanted) >= 9 and len(live.validation) >= 6
    assert [loss for _, loss in live.training] == pytest.approx(wanted, rel=tolerance)
    assert wanted[-1] < 0.9 * wanted[0], "nothing was learned"


def gradients(base: Path, *, keep: bool) -> dict[str, torch.Tensor]:
    """Of one backward pass on a 4-bit base, after a forward pass in evaluation mode."""
    loaded = load_base(str(base), "nf4")
    settings = quick_training(lora_dropout=0.0)
    model = attach_lora(loaded.model, settings)
    if not keep:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = True
    rows = plain_rows(ROWS[:1], loaded.tokenizer, 64)
    ids, labels = torch.tensor([rows[0].input_ids]), torch.tensor([rows[0].labels])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        model.eval()(input_ids=ids)
    model.train()(input_ids=ids, labels=labels).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_evaluating_a_four_bit_base_leaves_its_gradients_right(base: Path) -> None:
    from bitsandbytes.nn.modules import has_avx512bf16

    kept = gradients(base, keep=True)
    full = load_base(str(base), "nf4")
    model = attach_lora(full.model, quick_training(lora_dropout=0.0))
    keep_layout(model)
    rows = plain_rows(ROWS[:1], full.tokenizer, 64)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    ids, labels = torch.tensor([rows[0].input_ids]), torch.tensor([rows[0].labels])
    model.train()(input_ids=ids, labels=labels).loss.backward()
    wanted = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    def cosine(found: dict[str, torch.Tensor]) -> float:
        one, other = (torch.cat([part[name].flatten() for name in sorted(wanted)]) for part in (found, wanted))
        return float(torch.nn.functional.cosine_similarity(one, other, dim=0))

    assert cosine(kept) > 0.99
    if has_avx512bf16():  # only there does the layout change
        assert cosine(gradients(base, keep=False)) < 0.9


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from adapters.base import load_base
from adapters.config import AdapterFile
from adapters.train import train_adapter
from adapters_small import quick_training
from test_adapters_train import ROWS
training = quick_training(epochs=80, evaluations=20, validation=0.34)
file = AdapterFile(title="Small", domain="Two faults", training=training)
train_adapter("small", file, ROWS * 2, load_base({base!r}), Path(sys.argv[1]), threads=1)
"""


def trained(base: Path, output: Path) -> "subprocess.Popen[bytes]":
    program = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"), base=str(base))
    return subprocess.Popen([sys.executable, "-c", program, str(output)], stderr=subprocess.PIPE)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(base: Path, tmp_path: Path) -> None:
    whole = trained(base, tmp_path / "whole")
    assert whole.wait(120) == 0, whole.stderr.read() if whole.stderr else ""
    run = tmp_path / ".killed-run"
    child = trained(base, tmp_path / "killed")
    end = time.monotonic() + 120
    while len(list(run.glob("checkpoint-*/trainer_state.json"))) < 2:
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed").exists()
    (run / "checkpoint-99999").mkdir()  # half written
    (run / "checkpoint-99999" / "trainer_state.json").write_text("")
    again = trained(base, tmp_path / "killed")
    assert again.wait(120) == 0, again.stderr.read() if again.stderr else ""
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other
    assert json.loads((tmp_path / "killed" / "losses.json").read_text()) == json.loads(
        (tmp_path / "whole" / "losses.json").read_text()
    )
    assert not run.exists()


def test_only_complete_checkpoints_of_the_same_run_are_taken(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_folder(tmp_path / "small", ["one"]) as folder:
        for number in (5, 10):
            (folder / f"checkpoint-{number}").mkdir()
            for name in ("trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"):
                (folder / f"checkpoint-{number}" / name).write_text(
                    "" if (number, name) == (10, "optimizer.pt") else "x"
                )
        raise KeyError
    with pytest.raises(KeyError), run_folder(tmp_path / "small", ["one"]) as folder:
        assert newest_checkpoint(folder) == folder / "checkpoint-5"
        assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-5"]
        raise KeyError
    with run_folder(tmp_path / "small", ["another"]) as folder:
        assert newest_checkpoint(folder) is None
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_of_one_adapter_are_not_begun(base: Path, tmp_path: Path) -> None:
    file = AdapterFile(title="Small", domain="Two faults", training=quick_training())
    with (
        run_folder(tmp_path / "small", ["other"]),
        pytest.raises(DatasetError, match="small is being trained already"),
    ):
        train_adapter("small", file, ROWS, load_base(str(base)), tmp_path / "small", threads=1)
    assert not (tmp_path / "small").exists()


def test_training_that_stops_improving_ends_early_with_its_best_weights(base: Path, tmp_path: Path) -> None:
    # Validation rows that contradict the training rows: their loss only rises.
    other = [Example(row.prompt, "Paper is out.") for row in ROWS]
    settings = quick_training(epochs=120, evaluations=30, patience=2, learning_rate=1e-2)
    loaded = load_base(str(base))
    model = attach_lora(loaded.model, settings)
    live = run_sft(model, loaded.tokenizer, ROWS, settings, tmp_path / "run", other)
    losses = [loss for _, loss in live.validation]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    rows = plain_rows(other, loaded.tokenizer, 64)
    with torch.inference_mode():
        found = [
            float(model.eval()(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss)
            for row in rows
        ]
    assert sum(found) / len(found) == pytest.approx(min(losses), rel=0.02)


def test_a_loss_that_is_no_number_ends_training_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    file = AdapterFile(title="Small", domain="x", training=quick_training(epochs=60, learning_rate=1.0, rslora=True))
    loaded = load_base(str(base))
    with torch.no_grad():
        loaded.model.model.layers[0].self_attn.o_proj.weight[0, 0] = float("inf")
    with pytest.raises(DatasetError, match=r"Training diverged: at step \d the loss is nan\. Lower training"):
        train_adapter("small", file, ROWS, loaded, tmp_path / "small", threads=1)
    assert not (tmp_path / "small").exists()


def test_qlora_wants_a_four_bit_base_and_packing_a_gpu(base: Path, tmp_path: Path) -> None:
    file = AdapterFile(title="Small", domain="x", training=quick_training(method="qlora"))
    with pytest.raises(BaseModelError, match="QLoRA trains on a base in nf4"):
        train_adapter("small", file, ROWS, load_base(str(base)), tmp_path / "small", threads=1)
    if not torch.cuda.is_available():
        packed = file.model_copy(update={"training": quick_training(packing=True)})
        with pytest.raises(DatasetError, match="packing needs FlashAttention"):
            train_adapter("small", packed, ROWS, load_base(str(base)), tmp_path / "small", threads=1)


def test_a_full_disk_is_one_sentence_and_registers_nothing(base: Path, tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained").chmod(0o500)
    file = AdapterFile(title="Small", domain="x", training=quick_training())
    if os.access(tmp_path / "trained", os.W_OK):
        shutil.rmtree(tmp_path / "trained")
        (tmp_path / "trained").write_text("no folder")  # root may write anywhere
    with pytest.raises(UnwritableError, match="cannot be written"):
        train_adapter("small", file, ROWS, load_base(str(base)), tmp_path / "trained" / "small", threads=1)


def test_curves_are_a_picture(tmp_path: Path) -> None:
    draw({"training": [(1, 2.0), (2, 1.0)], "validation": []}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
