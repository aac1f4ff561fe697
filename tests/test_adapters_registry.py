"""What the registry refuses, and that one bad adapter never costs another."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from adapters_small import edit_json, make_adapter, make_base, make_settings

from adapters.config import files_hash
from adapters.engine import Engine, Message, Sampling
from adapters.registry import find_adapters


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    make_base(folder / "base")
    for seed, name in enumerate(("good", "bad")):
        make_adapter(folder / "base", folder / "shipped" / name / "weights", name, seed)
    make_base(folder / "deeper", layers=3)
    make_adapter(folder / "deeper", folder / "elsewhere" / "deeper", "bad", 3)
    make_base(folder / "sibling", seed=6)
    make_adapter(folder / "sibling", folder / "elsewhere" / "sibling", "bad", 3)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "desk")
    return tmp_path / "desk"


def rewrite_weights(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Changes the tensors and makes the manifest agree with the new file."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    edit_json(folder / "manifest.json", weights_hash=files_hash([path]))


def refused_at_listing(root: Path, sentence: str) -> None:
    engine = Engine(make_settings(root))
    assert [info.name for info in engine.adapters] == ["good"]
    assert len(engine.failures) == 1
    assert engine.failures[0].startswith("Adapter bad is left out: ")
    assert sentence in engine.failures[0]


def refused_at_loading(root: Path, sentence: str) -> None:
    engine = Engine(make_settings(root))
    engine.start()
    try:
        engine.wait_ready(60)
        assert [info.name for info in engine.adapters] == ["good"]
        assert len(engine.failures) == 1
        assert sentence in engine.failures[0]
        assert "".join(engine.stream([Message("user", "screen")], "good", Sampling(max_tokens=3)))
    finally:
        engine.close()


def replace_bad(root: Path, other: str) -> Path:
    weights = root / "shipped" / "bad" / "weights"
    shutil.rmtree(weights)
    shutil.copytree(root / "elsewhere" / other, weights)
    return weights


def test_an_adapter_of_a_base_with_another_shape_is_refused(root: Path) -> None:
    replace_bad(root, "deeper")
    refused_at_listing(root, "whose shape is not that of")


def test_an_adapter_of_a_base_with_other_weights_is_refused(root: Path) -> None:
    replace_bad(root, "sibling")
    refused_at_listing(root, "made for other weights of the base")


def test_llama_target_names_are_refused(root: Path) -> None:
    config = root / "shipped" / "bad" / "weights" / "adapter_config.json"
    edit_json(config, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    refused_at_listing(root, "Phi-3's projections are fused: qkv_proj, o_proj, gate_up_proj, down_proj")


def test_a_missing_weights_file_is_refused(root: Path) -> None:
    (root / "shipped" / "bad" / "weights" / "adapter_model.safetensors").unlink()
    refused_at_listing(root, "adapter_model.safetensors is missing")


def test_a_manifest_with_an_unknown_key_is_refused(root: Path) -> None:
    edit_json(root / "shipped" / "bad" / "weights" / "manifest.json", colour="red")
    refused_at_listing(root, "colour: Extra inputs are not permitted")


def test_a_name_with_a_dot_is_refused(root: Path) -> None:
    (root / "shipped" / "bad").rename(root / "shipped" / "bad.v2")
    engine = Engine(make_settings(root))
    assert [info.name for info in engine.adapters] == ["good"]
    assert "the name 'bad.v2' is not allowed" in engine.failures[0]


def test_weights_that_are_not_finite_are_refused(root: Path) -> None:
    def poison(state: dict[str, object]) -> None:
        next(iter(state.values()))[0, 0] = float("nan")  # type: ignore[index]

    rewrite_weights(root / "shipped" / "bad" / "weights", poison)
    refused_at_loading(root, "not finite numbers")


def test_a_projection_without_weights_is_refused(root: Path) -> None:
    def drop(state: dict[str, object]) -> None:
        del state[min(state)]

    rewrite_weights(root / "shipped" / "bad" / "weights", drop)
    refused_at_loading(root, "it has no weights for base_model.model.model.layers.0.mlp.down_proj.lora_A.weight")


def test_weights_of_another_rank_are_refused(root: Path) -> None:
    edit_json(root / "shipped" / "bad" / "weights" / "manifest.json", r=8)
    refused_at_loading(root, "the base needs (8, ")


def test_weights_that_differ_from_their_manifest_are_refused(root: Path) -> None:
    path = root / "shipped" / "bad" / "weights" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    refused_at_loading(root, "is not the file that its manifest describes")


def test_a_trained_adapter_wins_over_the_shipped_one(root: Path) -> None:
    shutil.copytree(root / "shipped" / "good" / "weights", root / "trained" / "good")
    edit_json(root / "trained" / "good" / "manifest.json", version=2)
    engine = Engine(make_settings(root))
    assert {info.name: info.version for info in engine.adapters} == {"bad": 1, "good": 2}


def test_half_finished_training_is_not_seen(root: Path) -> None:
    shutil.copytree(root / "shipped" / "good" / "weights", root / "trained" / ".good-1")
    engine = Engine(make_settings(root))
    assert [info.version for info in engine.adapters] == [1, 1]
    assert engine.failures == ()


def test_a_desk_without_adapters_has_none(root: Path) -> None:
    engine = Engine(make_settings(root))
    assert find_adapters(root / "nowhere", root / "nothing", engine.base) == ([], [])


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from adapters.engine import Engine; from desk.config import load_desk;"
        "Engine(load_desk().adapters);"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
