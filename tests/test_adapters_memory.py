"""Estimated memory: known shapes, formulas against small models' own counts, and real training's measured peak."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from adapters_small import make_base

from adapters.__main__ import main
from adapters.base import load_base, read_base_manifest
from adapters.config import TrainingSettings
from adapters.errors import BaseModelError
from adapters.memory import KNOWN, Part, Serving, Training, gpus_needed, serving_memory, shape_of, training_memory
from adapters.train import attach_lora
from desk.config import EMBEDDED_BASE

ROOT = Path(__file__).resolve().parent.parent
FACTOR = 1.2
"""The estimate lies within it of what is measured, either way."""


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Phi-3-mini", 3_821_079_552),
        ("Phi-3-medium", 13_960_238_080),
        ("Phi-4-mini", 3_836_021_760),
        ("Llama-3-8B", 8_030_261_248),
        ("Llama-3-70B", 70_553_706_496),
    ],
)
def test_a_known_shape_has_as_many_weights_as_its_published_model(name: str, weights: int) -> None:
    assert KNOWN[name].weights == weights


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("microsoft/Phi-3-mini-4k-instruct", "Phi-3-mini"),
        ("microsoft/Phi-3.5-mini-instruct", "Phi-3.5-mini"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "Llama-3-70B"),
        ("phi-3-medium", "Phi-3-medium"),
    ],
)
def test_a_hub_id_finds_its_known_shape_without_a_download(model: str, name: str) -> None:
    assert shape_of(model) is KNOWN[name]


def test_a_folders_shape_counts_what_the_loaded_model_has(tmp_path: Path) -> None:
    make_base(tmp_path, hidden_size=48, layers=3)
    model = load_base(str(tmp_path)).model
    shape = shape_of(str(tmp_path))
    assert shape.weights == sum(weight.numel() for weight in model.parameters())
    adapted = attach_lora(model, TrainingSettings(r=4))
    learning = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert shape.adapter_weights(4) == learning


def test_a_model_without_a_shape_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"config\.json is missing"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(BaseModelError, match="num_attention_heads"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BaseModelError, match="no object"):
        shape_of(str(tmp_path))


def test_full_training_takes_sixteen_bytes_a_weight_beside_activations() -> None:
    shape = KNOWN["Llama-3-8B"]
    for precision in ("bf16", "fp32"):
        parts = {part.name: part for part in training_memory(shape, Training("full", precision=precision))}
        states = sum(parts[name].count for name in ("weights", "gradients", "optimizer states"))
        assert states == 16 * shape.weights
        assert "adapter weights" not in parts


def test_seventy_billion_weights_take_several_cards_with_lora_and_one_or_two_with_qlora() -> None:
    shape = KNOWN["Llama-3-70B"]
    for checkpointing, lora, qlora in ((True, 2, 1), (False, 6, 2)):
        plans = [Training(method, 16, 1024, 1, checkpointing) for method in ("lora", "qlora")]
        assert [gpus_needed(training_memory(shape, plan), 80) for plan in plans] == [lora, qlora]


def test_checkpointing_takes_less_and_twice_the_batch_twice_the_activations() -> None:
    def activations(batch: int, checkpointing: bool) -> int:
        parts = training_memory(KNOWN["Phi-3-mini"], Training("lora", 16, 512, batch, checkpointing))
        return next(part.count for part in parts if part.name == "activations")

    assert activations(4, True) < activations(4, False) / 8
    assert activations(8, False) == 2 * activations(4, False)


def test_the_cache_of_a_row_is_keys_and_values_of_every_layer() -> None:
    # Phi-3-medium: 40 layers, 10 key heads of 128, keys and values, two bytes each.
    parts = serving_memory(KNOWN["Phi-3-medium"], Serving("lora", length=1000, rows=3))
    assert next(part.count for part in parts if part.name == "key-value cache") == 40 * 10 * 128 * 2 * 2 * 1000 * 3


def test_cards_share_what_can_be_shared_and_each_holds_the_rest() -> None:
    room = 0.97 * 80 * 2**30
    states, own = Part("states", int(room * 1.5), "", True), Part("own", int(room * 0.3), "", False)
    assert gpus_needed([states], 80) == 2
    assert gpus_needed([states, own], 80) == 3
    assert gpus_needed([own], 80) == 1
    assert gpus_needed([states, own], 24) is None


def test_the_estimate_is_near_the_measured_peak_of_real_training() -> None:
    cases = ["small-lora", "tiny-full", "wide-qlora"]
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--cpu", *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["cases"]
    shares = {row["case"]: row["estimated"] / row["measured"] for row in rows}
    assert list(shares) == cases
    assert all(1 / FACTOR < share < FACTOR for share in shares.values()), shares


def test_the_command_line_says_parts_cards_and_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["memory", "Phi-3-mini", "--method", "qlora", "--rank", "16", "--length", "512", "--batch", "2", "--json"]
    assert main(asked) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["weights"] == 3_821_079_552
    assert row["total_bytes"] == sum(part["bytes"] for part in row["parts"])
    assert row["gpus"] == {"24": 1, "40": 1, "80": 1, "141": 1}
    assert main(["memory", "Phi-3-mini", "--serve", "--rows", "2", "--gpus", "24"]) == 0
    said = capsys.readouterr().out
    assert "key-value cache" in said and "1 x 24 GB" in said and "80 GB" not in said


def test_without_a_name_the_desks_own_base_is_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for asked in (["memory", "--json"], ["memory", "embedded", "--json"], ["memory", "--model", "embedded", "--json"]):
        assert main(asked) == 0
        found.append(json.loads(capsys.readouterr().out)["weights"])
    assert found == [read_base_manifest(str(EMBEDDED_BASE)).parameters] * 3


def test_the_command_line_refuses_what_is_no_model_or_no_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["memory", str(tmp_path)]) == 1
    assert "config.json is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["memory", "Phi-3-mini", "--batch", "0"])
    assert "at least 1" in capsys.readouterr().err
