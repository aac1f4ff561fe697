"""Loading a base: the same path for fp32, bf16 and 4-bit nf4; every failure is one sentence."""

import json
import os
import shutil
from pathlib import Path

import pytest
from adapters_small import edit_json, make_base, make_settings

from adapters.base import load_base, read_base_manifest
from adapters.engine import Engine, Message, Sampling
from adapters.errors import BaseModelError

EMBEDDED = Path(__file__).resolve().parent.parent / "adapters" / "tiny" / "base"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    # nf4 packs blocks of 64 weights: widths of real models are multiples of it.
    make_base(folder, hidden_size=64, intermediate_size=128)
    return folder


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("kind", "dtype"), [("auto", "float32"), ("fp32", "float32"), ("bf16", "bfloat16")])
def test_a_small_base_loads_in_the_asked_precision(base: Path, kind: str, dtype: str) -> None:
    loaded = load_base(str(base), kind)  # type: ignore[arg-type]
    assert {str(weight.dtype) for weight in loaded.model.parameters()} == {f"torch.{dtype}"}
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


def test_nf4_quantises_the_four_projections_doubly_and_stays_near_the_full_model(base: Path) -> None:
    import torch

    loaded = load_base(str(base), "nf4")
    packed = {
        name.rsplit(".", 1)[-1]: module.weight.quant_state
        for name, module in loaded.model.named_modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert set(packed) == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    assert all(state.quant_type == "nf4" and state.nested for state in packed.values())
    full = load_base(str(base), "fp32").model
    ids = torch.tensor([loaded.tokenizer("the printer jams").input_ids])
    with torch.inference_mode():
        ours, exact = loaded.model(ids).logits.float().flatten(), full(ids).logits.flatten()
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=0) > 0.9


def test_an_nf4_base_is_served_by_the_same_engine(base: Path, tmp_path: Path) -> None:
    engine = Engine(make_settings(tmp_path, base=str(base), quantization="nf4"))
    engine.start()
    try:
        engine.wait_ready(60)
        asked = [Message("user", "My screen flickers")]
        first = "".join(engine.stream(asked, None, Sampling(max_tokens=8)))
        assert first == "".join(engine.stream(asked, None, Sampling(max_tokens=8)))
        assert first
    finally:
        engine.close()


def test_a_quantised_base_is_kept_and_read_again_until_the_base_changes(
    copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    def logits() -> torch.Tensor:
        loaded = load_base(str(copied), "nf4", tmp_path / "cache")
        ids = torch.tensor([loaded.tokenizer("the printer jams").input_ids])
        with torch.inference_mode():
            return loaded.model(ids).logits  # type: ignore[no-any-return]

    def kept() -> list[Path]:
        return sorted((tmp_path / "cache").iterdir())

    first = logits()
    (folder,) = kept()
    weights = next(folder.glob("*.safetensors"))
    written = weights.stat().st_mtime_ns
    assert torch.equal(logits(), first) and weights.stat().st_mtime_ns == written
    weights.write_bytes(weights.read_bytes()[:-100])
    assert torch.equal(logits(), first) and "cannot be read" in caplog.text
    assert kept() == [folder] and torch.equal(logits(), first)
    os.utime(copied / "config.json", (1, 1))
    assert torch.equal(logits(), first) and len(kept()) == 2


def test_a_full_disk_costs_the_kept_copy_alone(copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert load_base(str(copied), "nf4", tmp_path / "cache").quantization == "nf4"
    assert "the next start quantises it again" in caplog.text


def test_a_local_phi3_without_our_manifest_loads_and_is_described(copied: Path) -> None:
    (copied / "base.json").unlink()
    loaded = load_base(str(copied))
    assert loaded.manifest.window == 128
    assert loaded.manifest.parameters == sum(weight.numel() for weight in loaded.model.parameters())
    assert read_base_manifest(str(copied)).size == "not loaded yet"
    assert loaded.manifest.can_chat
    assert loaded.manifest.config_hash == read_base_manifest(str(copied)).config_hash


def test_loading_a_local_model_leaves_the_environment_as_it_was(base: Path) -> None:
    before = os.environ.get("HF_HUB_OFFLINE")
    load_base(str(base))
    assert os.environ.get("HF_HUB_OFFLINE") == before


def test_a_folder_without_a_model_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"config.json is missing.*python -m adapters pretrain"):
        load_base(str(tmp_path / "empty"))


def test_missing_weights_are_said_to_be_missing(copied: Path) -> None:
    for path in copied.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(BaseModelError, match="no weights"):
        load_base(str(copied))


def test_damaged_weights_are_one_sentence(copied: Path) -> None:
    for path in copied.glob("*.safetensors"):
        path.write_bytes(b"damaged")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(str(copied))


def test_another_architecture_is_refused(copied: Path) -> None:
    edit_json(copied / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(BaseModelError, match="is a llama model: the base must be of the Phi-3 family"):
        load_base(str(copied))


def test_a_base_larger_than_the_memory_is_refused_before_it_is_read(copied: Path) -> None:
    edit_json(copied / "config.json", num_hidden_layers=2_000_000_000)
    with pytest.raises(BaseModelError, match=r"needs about .* GB and .* GB are free"):
        load_base(str(copied))


def test_a_model_without_a_chat_template_is_refused(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(BaseModelError, match="no chat template"):
        load_base(str(copied))


def test_an_id_that_is_no_folder_is_explained_offline(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from adapters.base import load_base\nfrom adapters.errors import BaseModelError\n"
        "try: load_base('nobody/no-such-model')\nexcept BaseModelError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("The base model 'nobody/no-such-model' is neither a folder nor reachable on the hub")


def test_the_embedded_base_is_what_its_manifest_says() -> None:
    from adapters.base import weights_hash

    manifest = read_base_manifest(str(EMBEDDED))
    assert manifest.weights_hash == weights_hash(EMBEDDED)
    assert manifest.parameters <= 12_000_000
    assert not manifest.can_chat
    assert all(path.stat().st_size < 9_000_000 for path in EMBEDDED.iterdir())
    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "phi3"


def test_the_embedded_bases_card_is_that_of_its_manifest() -> None:
    from adapters.tiny.card import base_card

    manifest = read_base_manifest(str(EMBEDDED))
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert card == base_card(manifest)
    assert manifest.weights_hash in card and "It cannot read" in card and not manifest.can_read
