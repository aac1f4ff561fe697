"""What is exported is PEFT's own form and what vLLM accepts; the command names the base, the ranks and the folders."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from adapters_small import edit_json, make_adapter, make_base, make_settings

from adapters.base import load_base
from adapters.errors import AdapterError, UnwritableError
from adapters.export import Exported, check_for_vllm, export_adapters, serve_command
from adapters.lora_batch import Mixer, adapter_weights, attach
from adapters.registry import find_adapter, projection_shapes, read_weights
from desk.settings import AdapterSettings


@pytest.fixture
def settings(tmp_path: Path) -> AdapterSettings:
    """Of a base with the adapters `red`, and `blue` with rsLoRA's scale, another rank and version 3."""
    make_base(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "trained" / "red", "red", 1)
    make_adapter(tmp_path / "base", tmp_path / "trained" / "blue", "blue", 2, r=12, rslora=True, version=3)
    return make_settings(tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("red", "red-v1"), ("blue", "blue-v3")])
def test_peft_loads_what_is_exported_and_gives_the_logits_that_are_served(
    settings: AdapterSettings, tmp_path: Path, name: str, folder: str
) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel

    (exported,) = export_adapters(settings, [name], tmp_path / "out")
    assert exported.folder == tmp_path / "out" / folder
    loaded = load_base(settings.base)
    ids = torch.tensor([loaded.tokenizer("The printer jams again").input_ids])
    served = load_base(settings.base)
    found = find_adapter(settings, name, served.manifest)
    state, scale = read_weights(found, projection_shapes(served.model))
    mixer = Mixer(torch.device("cpu"))
    attach(served.model, mixer)
    mixer.choose([adapter_weights(name, 1, state, scale, torch.empty(0))])
    with torch.inference_mode():
        ours = served.model(ids).logits
        bare = loaded.model(ids).logits
        peft = PeftModel.from_pretrained(loaded.model, exported.folder).eval()(ids).logits
        # The base is found by what the folder says of it.
        auto = AutoPeftModelForCausalLM.from_pretrained(exported.folder, dtype=torch.float32).eval()(ids).logits
    assert torch.allclose(peft, ours, atol=1e-4) and torch.allclose(auto, peft, atol=1e-5)
    assert (bare - peft).abs().max() > 0.1


def test_the_command_serves_all_exported_adapters_in_one_batch(settings: AdapterSettings, tmp_path: Path) -> None:
    output = tmp_path / "of mine"
    command = shlex.split(serve_command(settings.base, export_adapters(settings, ["red", "blue", "red"], output)))
    assert command == [
        "vllm", "serve", str(tmp_path / "base"), "--served-model-name", "switchboard-tiny", "--enable-lora",
        "--max-lora-rank", "16", "--max-loras", "2", "--lora-modules",
        f"red-v1={output}/red-v1", f"blue-v3={output}/blue-v3",
    ]  # fmt: skip
    names = {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert {path.name for path in (output / "red-v1").iterdir()} == names


@pytest.mark.parametrize(("rank", "accepted"), [(1, 8), (8, 8), (9, 16), (33, 64), (257, 320), (512, 512)])
def test_a_model_of_the_hub_goes_by_its_name_and_a_rank_is_rounded_up_to_one_of_vllms(rank: int, accepted: int) -> None:
    command = serve_command("microsoft/Phi-3-mini-4k-instruct", [Exported("a-v1", Path("/x/a-v1"), rank)])
    assert command == (
        f"vllm serve microsoft/Phi-3-mini-4k-instruct --enable-lora --max-lora-rank {accepted} --max-loras 1 "
        "--lora-modules a-v1=/x/a-v1"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "uses DoRA, which vLLM does not serve"),
        ({"modules_to_save": ["lm_head"]}, r"brings whole layers \(modules_to_save\)"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"r": 513}, "has rank 513, and vLLM serves ranks from 1 to 512"),
        ({"r": 0}, "has rank 0"),
    ],
)
def test_what_vllm_rejects_is_one_sentence(changes: dict[str, object], words: str) -> None:
    check_for_vllm("red", {"r": 8, "bias": "none"})
    with pytest.raises(AdapterError, match=f"Adapter red {words}"):
        check_for_vllm("red", {"r": 8, "bias": "none"} | changes)


def test_nothing_is_written_where_one_of_them_cannot_be_exported(settings: AdapterSettings, tmp_path: Path) -> None:
    edit_json(settings.trained / "blue" / "adapter_config.json", bias="all")
    with pytest.raises(AdapterError, match="blue trained biases"):
        export_adapters(settings, ["red", "blue"], tmp_path / "out")
    edit_json(settings.trained / "blue" / "adapter_config.json", bias="none", use_dora=True)
    with pytest.raises(AdapterError, match="it uses use_dora"):
        export_adapters(settings, ["red", "blue"], tmp_path / "out")
    weights = settings.trained / "red" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(AdapterError, match="is not the file that its manifest describes"):
        export_adapters(settings, ["red"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_where_one_place_is_taken(settings: AdapterSettings, tmp_path: Path) -> None:
    taken = tmp_path / "out" / "blue-v3"
    taken.mkdir(parents=True)
    (taken / "thesis.txt").write_text("years")
    with pytest.raises(AdapterError, match="blue-v3 holds something else than an adapter"):
        export_adapters(settings, ["red", "blue"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [taken]


def test_only_an_adapter_is_replaced_and_no_report_goes_along(settings: AdapterSettings, tmp_path: Path) -> None:
    for name in ("README.md", "report.md", "report.html", "split.json"):
        (settings.trained / "red" / name).write_text("people's words")
    taken = tmp_path / "out" / "red-v1"
    taken.mkdir(parents=True)
    (taken / "thesis.txt").write_text("years")
    with pytest.raises(AdapterError, match="holds something else than an adapter"):
        export_adapters(settings, ["red"], tmp_path / "out")
    with pytest.raises(UnwritableError, match=r"red-v1/thesis\.txt cannot be written \(File exists"):
        export_adapters(settings, ["red"], taken / "thesis.txt")
    (taken / "thesis.txt").rename(taken / "adapter_config.json")
    export_adapters(settings, ["red"], tmp_path / "out")
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert sorted(path.name for path in taken.iterdir()) == names
    assert json.loads((taken / "adapter_config.json").read_text())["base_model_name_or_path"] == settings.base
