"""A merged model is its base plus its adapter, rounded once, whatever loads it; nothing else may be merged or lost."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters_small import edit_json, make_adapter, make_base, make_settings
from safetensors.torch import load_file, save_file

from adapters.__main__ import main
from adapters.base import load_base, read_base_manifest, weights_hash
from adapters.base_files import base_shapes, shard_names
from adapters.config import BaseManifest, read_manifest
from adapters.dataset import Example, Split, read_examples
from adapters.decode import Decoder
from adapters.errors import AdapterError, BaseModelError, DatasetError, UnwritableError
from adapters.merge import Measured, held_out_rows, merge_adapter, merge_card, write_merged
from adapters.prompts import Message
from adapters.registry import TARGET_MODULES, find_adapter
from adapters.residents import load_weights
from adapters.verdict import answered
from desk.config import load_desk
from desk.settings import AdapterSettings

PROMPTS = ["My screen flickers", "The printer jams again", "Which agreement covers second line?", "hello"]


@pytest.fixture
def settings(tmp_path: Path) -> AdapterSettings:
    """Of a base with one plain adapter, `red`, one with rsLoRA's scale, `blue`, and two held-out rows each."""
    # nf4 packs blocks of 64 weights.
    make_base(tmp_path / "base", hidden_size=64, intermediate_size=128)
    for name, seed in (("red", 1), ("blue", 2)):
        make_adapter(tmp_path / "base", tmp_path / "trained" / name, name, seed, rslora=name == "blue")
        rows = [{"prompt": prompt, "completion": "Reseat it."} for prompt in PROMPTS]
        folder = tmp_path / "shipped" / name
        folder.mkdir(parents=True)
        (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_settings(tmp_path)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint by name."""
    return {key: value for shard in shard_names(folder) for key, value in load_file(folder / shard).items()}


def expected(settings: AdapterSettings, name: str, alpha: float, root: float) -> dict[str, torch.Tensor]:
    """The base's weights plus alpha / root times B A, in 64-bit arithmetic, rounded to bf16."""
    weights = tensors(Path(settings.base))
    lora = load_file(settings.trained / name / "adapter_model.safetensors")
    found = {}
    for key, weight in weights.items():
        layer = f"base_model.model.{key.removesuffix('.weight')}"
        total = weight.double()
        if f"{layer}.lora_A.weight" in lora:
            a, b = (lora[f"{layer}.lora_{side}.weight"].double() for side in "AB")
            total = total + alpha / root * (b @ a)
        found[key] = total.to(torch.bfloat16)
    return found


@pytest.mark.parametrize(("name", "root"), [("red", 4.0), ("blue", math.sqrt(4))])
def test_every_projection_is_base_plus_scaled_product_rounded_once_and_the_rest_is_untouched(
    settings: AdapterSettings, tmp_path: Path, name: str, root: float
) -> None:
    merged = merge_adapter(settings, name, tmp_path / "out")
    wanted = expected(settings, name, 8, root)
    got = tensors(tmp_path / "out")
    assert got.keys() == wanted.keys() and {weight.dtype for weight in got.values()} == {torch.bfloat16}
    changed = 0
    for key, weight in got.items():
        if any(module in key for module in TARGET_MODULES):
            # fp32 and fp64 round to different neighbours where a sum lies between two: never further apart.
            assert torch.allclose(weight.float(), wanted[key].float(), rtol=2**-7, atol=1e-6), key
            assert (weight != wanted[key]).float().mean() < 1e-3, key
            changed += 1
        else:
            assert torch.equal(weight, wanted[key]), key
    assert changed == 8 and merged.model.parameters == sum(weight.numel() for weight in got.values())


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two tensors lie apart, as a share of the second's length."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["red", "blue"])
def test_the_merged_model_gives_the_logits_of_base_and_adapter_in_plain_transformers_too(
    settings: AdapterSettings, tmp_path: Path, name: str
) -> None:
    """Which knows nothing of base.json. The weights are PEFT's own sums, rounded once."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = merge_adapter(settings, name, tmp_path / "out")
    base = load_base(settings.base, "fp32")
    ours = load_base(str(tmp_path / "out"), "fp32")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == base.tokenizer.chat_template
    assert tokenizer.get_vocab() == base.tokenizer.get_vocab()
    ids = [torch.tensor([tokenizer(prompt).input_ids]) for prompt in PROMPTS]
    with torch.inference_mode():
        bare = [base.model(one).logits for one in ids]
        adapted = PeftModel.from_pretrained(base.model, settings.trained / name).eval()
        unmerged = [adapted(one).logits for one in ids]
        for one, far, before in zip(ids, bare, unmerged, strict=True):
            after = plain(one).logits
            assert torch.equal(after, ours.model(one).logits)
            # Rounding moves each weight by 0.1%, which wide random weights multiply; the adapter moves far more.
            assert apart(after, before) < 0.05 and apart(far, before) > 0.5
    exact = adapted.merge_and_unload().to(torch.bfloat16).float().state_dict()
    for key, weight in plain.state_dict().items():
        # A sum halfway between two neighbours may round to the other one.
        assert (weight != exact[key]).float().mean() < 1e-3, key
    assert ours.manifest.name == f"switchboard-tiny-{name}-v1" == merged.model.name
    assert ours.manifest.weights_hash == weights_hash(tmp_path / "out")


@pytest.mark.parametrize("name", ["service-desk", "triage"])
def test_a_shipped_adapter_says_the_same_when_it_is_merged(name: str, tmp_path: Path) -> None:
    settings = load_desk().adapters
    base, shapes = base_shapes(settings.base)
    found = find_adapter(settings, name, base)
    write_merged(Path(settings.base), base, found, shapes, tmp_path)
    rows = read_examples(settings.shipped / name / "train.jsonl")
    left_out = read_manifest(found.folder / "split.json", Split).left_out(rows)[::10][:16]
    decoder = Decoder(load_base(settings.base))
    one = answered(left_out, load_weights(found, decoder), decoder, 64)
    other = answered(left_out, None, Decoder(load_base(str(tmp_path))), 64)
    assert one == other and len(set(one)) > 9


def test_what_nf4_trained_is_merged_into_the_base_s_own_weights(settings: AdapterSettings, tmp_path: Path) -> None:
    plain = merge_adapter(settings, "red", tmp_path / "plain")
    edit_json(settings.trained / "red" / "manifest.json", settings={"method": "qlora"})
    merged = merge_adapter(settings, "red", tmp_path / "out")
    assert (merged.before.kind, merged.after.kind) == ("nf4", "fp32")
    assert merged.model.weights_hash == plain.model.weights_hash and plain.before.kind == "fp32"
    assert merged.before.perplexity != plain.before.perplexity and merged.after == plain.after
    assert merged.identical < 1 and "merged, fp32 |" in merge_card(merged) and "adapter, nf4 |" in merge_card(merged)


def test_the_card_has_what_was_measured(settings: AdapterSettings, tmp_path: Path) -> None:
    merged = merge_adapter(settings, "red", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"right answers | {merged.before.perplexity:.3f} | {merged.after.perplexity:.3f} |" in card
    assert card == merge_card(merged) and f"on {len(PROMPTS)} rows" in card and merged.model.weights_hash in card
    assert merged.after.perplexity == pytest.approx(merged.before.perplexity, rel=0.02)
    created = read_manifest(tmp_path / "out" / "base.json", BaseManifest).created
    assert (created["adapter"], created["base"]) == ("red", "switchboard-tiny")
    assert merged.model.can_chat and not merged.model.can_read


def test_only_what_costs_more_than_the_bound_brings_a_warning(settings: AdapterSettings, tmp_path: Path) -> None:
    merged = merge_adapter(settings, "red", tmp_path / "out")
    even = replace(merged, before=Measured("fp32", 0.5, 2.0), after=Measured("fp32", 0.485, 2.03))
    assert even.warning == "" and "**" not in merge_card(even)
    worse = replace(even, after=Measured("fp32", 0.4, 2.0))
    assert worse.warning.startswith("Merging costs 10.0% of the right answers and +0.0% of perplexity")
    assert worse.warning in merge_card(worse)
    unknown = Measured("fp32", 0.5, math.inf)  # no row fits into the window
    assert replace(even, before=unknown, after=unknown).warning == ""
    assert "+5.0% of perplexity" in replace(even, after=Measured("fp32", 0.6, 2.1)).warning


def test_an_adapter_of_another_base_is_not_merged(settings: AdapterSettings, tmp_path: Path) -> None:
    make_base(tmp_path / "other", seed=6, hidden_size=64, intermediate_size=128)
    with pytest.raises(AdapterError, match="made for other weights of the base"):
        merge_adapter(replace(settings, base=str(tmp_path / "other")), "red", tmp_path / "out")
    with pytest.raises(AdapterError, match="green is not trained yet; trained are: blue, red"):
        merge_adapter(settings, "green", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_model_takes_no_adapter_that_was_made_for_its_base(settings: AdapterSettings, tmp_path: Path) -> None:
    merge_adapter(settings, "red", tmp_path / "out")
    with pytest.raises(AdapterError, match="made for other weights of the base"):
        find_adapter(settings, "blue", read_base_manifest(str(tmp_path / "out")))


def test_damaged_weights_and_quantised_or_incomplete_bases_leave_no_folder(
    settings: AdapterSettings, tmp_path: Path
) -> None:
    base, out = Path(settings.base), tmp_path / "out"
    path = settings.trained / "blue" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(AdapterError, match="is not the file that its manifest describes"):
        merge_adapter(settings, "blue", out)
    (shard,) = shard_names(base)
    weights = load_file(base / shard)
    name = "model.layers.1.mlp.down_proj.weight"
    save_file(weights | {name: weights[name].to(torch.uint8)}, base / shard)
    with pytest.raises(BaseModelError, match=r"down_proj.weight in torch.uint8: merging needs"):
        merge_adapter(settings, "red", out)
    save_file({key: value for key, value in weights.items() if key != name}, base / shard)
    with pytest.raises(BaseModelError, match=f"holds no weights named {name}"):
        merge_adapter(settings, "red", out)
    (base / shard).write_bytes(b"damaged")
    with pytest.raises(BaseModelError, match=rf"{shard} is damaged \(.*fetch the model again"):
        merge_adapter(settings, "red", out)
    edit_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(BaseModelError, match="is a quantised model"):
        merge_adapter(settings, "red", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "shipped", "trained"]


def test_shards_keep_their_names_and_a_name_that_leads_elsewhere_is_refused(
    settings: AdapterSettings, tmp_path: Path
) -> None:
    base = Path(settings.base)
    whole = merge_adapter(settings, "red", tmp_path / "whole")
    weights = load_file(base / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for part, own in parts.items():
        save_file({name: weights[name] for name in own}, base / part, metadata={"format": "pt"})
    (base / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: part for part, own in parts.items() for name in own}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "tokenizer.model").write_text("as it is")
    edit_json(base / "config.json", auto_map={"AutoModel": "modeling.Phi3"}, torch_dtype="float16")
    merge_adapter(settings, "red", tmp_path / "parts")
    written = {part: load_file(tmp_path / "parts" / part) for part in shard_names(tmp_path / "parts")}
    assert {part: sorted(own) for part, own in written.items()} == parts
    one = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(one[name], weight) for own in written.values() for name, weight in own.items())
    total = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert total == 2 * whole.model.parameters
    config = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert "auto_map" not in config and config["torch_dtype"] == "bfloat16"
    assert (tmp_path / "parts" / "tokenizer.model").read_text() == "as it is"
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {names[0]: "../model.safetensors"}}))
    with pytest.raises(BaseModelError, match=r"holds no weights in '../model.safetensors'"):
        shard_names(base)


def test_only_a_merged_model_is_ever_replaced(settings: AdapterSettings, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("years")
    for taken in (keep, Path(settings.base), keep / "thesis.txt"):
        with pytest.raises(AdapterError, match="holds something else than a merged model"):
            merge_adapter(settings, "red", taken)
    assert (keep / "thesis.txt").read_text() == "years" and read_base_manifest(settings.base).name == "switchboard-tiny"
    with pytest.raises(UnwritableError, match=r"thesis\.txt cannot be written \(File exists"):
        merge_adapter(settings, "red", keep / "thesis.txt" / "out")
    first = merge_adapter(settings, "red", tmp_path / "out")
    assert merge_adapter(settings, "blue", tmp_path / "out").model.name != first.model.name


def test_the_base_in_use_is_not_replaced_by_its_own_merged_model(settings: AdapterSettings, tmp_path: Path) -> None:
    merged = tmp_path / "merged" / "red"
    merge_adapter(settings, "red", merged)
    make_adapter(merged, tmp_path / "next" / "red", "red", 3, version=2)
    before = (merged / "base.json").read_bytes()
    (tmp_path / "link").symlink_to(merged)
    again = replace(settings, base=str(merged), trained=tmp_path / "next")
    for output in (merged, tmp_path / "link", merged / ".." / "red"):
        with pytest.raises(AdapterError, match="holds the base that is merged into: name another folder"):
            merge_adapter(again, "red", output)
    assert (merged / "base.json").read_bytes() == before


def test_settings_of_another_program_are_one_sentence(settings: AdapterSettings, tmp_path: Path) -> None:
    manifest = settings.trained / "red" / "manifest.json"
    edit_json(manifest, settings={"r": 4, "optimizer": "adamw"})
    with pytest.raises(AdapterError) as caught:
        merge_adapter(settings, "red", tmp_path / "out")
    assert str(caught.value) == (
        f"{manifest}: optimizer: Extra inputs are not permitted. These settings are not this program's: train red "
        "here, or correct them."
    )
    assert not (tmp_path / "out").exists()


def test_rows_that_training_left_out_stand_in_for_an_evaluation_file(settings: AdapterSettings, tmp_path: Path) -> None:
    folder, weights = settings.shipped / "red", settings.trained / "red"
    rows = [Example(prompt, "Reseat it.") for prompt in PROMPTS]
    assert held_out_rows(folder, weights) == rows
    (folder / "eval.jsonl").rename(folder / "train.jsonl")
    with pytest.raises(DatasetError, match="No row is held out"):
        merge_adapter(settings, "red", tmp_path / "out")
    (weights / "split.json").write_text(Split.of(1, 0.5, rows[1:3]).model_dump_json())
    assert held_out_rows(folder, weights) == rows[1:3]
    shutil.rmtree(folder)
    with pytest.raises(DatasetError, match="No row is held out"):
        held_out_rows(folder, weights)


def test_shapes_are_known_from_the_config_alone(settings: AdapterSettings) -> None:
    manifest, shapes = base_shapes(settings.base)
    assert shapes == Decoder(load_base(settings.base)).shapes and len(shapes) == 8
    assert manifest == read_base_manifest(settings.base)
    edit_json(Path(settings.base) / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(BaseModelError, match="is a llama model"):
        base_shapes(settings.base)


def test_the_merged_model_answers_in_the_engine_as_a_base(settings: AdapterSettings, tmp_path: Path) -> None:
    from adapters.engine import Engine, Sampling

    merge_adapter(settings, "red", tmp_path / "out")
    engine = Engine(replace(settings, base=str(tmp_path / "out"), trained=tmp_path / "none", shipped=tmp_path / "none"))
    engine.start()
    try:
        assert engine.wait_ready(60) and engine.base.name == "switchboard-tiny-red-v1"
        said = "".join(engine.stream([Message("user", PROMPTS[0])], None, Sampling(max_tokens=6)))
    finally:
        engine.close()
    assert said == Decoder(load_base(str(tmp_path / "out"))).replies(PROMPTS[:1], None, 6, 1)[0].text != ""


def test_the_commands_write_into_the_state_and_say_what_came_out(
    settings: AdapterSettings,
    desk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWITCHBOARD_HOME", str(tmp_path / "home"))
    (desk / "desk.yaml").write_text("title: Mine\ndescription: Ours\nmodels: {base: ../base, threads: 1}\n")
    shutil.move(settings.shipped, desk / "adapters")
    shutil.move(settings.trained, tmp_path / "home" / "mine" / "adapters")
    asked = ["--desk", str(desk)]
    assert main(["merge", "red", *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = tmp_path / "home" / "mine" / "merged" / "red"
    assert told["output"] == str(folder) and load_base(str(folder)).manifest.name == told["model"]["name"]
    assert (told["rows"], told["warning"]) == (4, "")
    assert main(["merge", "red", *asked, "--output", str(tmp_path / "own")]) == 0
    shown = capsys.readouterr().out
    assert f"switchboard-tiny-red-v1: {read_base_manifest(str(folder)).size} in {tmp_path / 'own'}\n" in shown
    assert f"the same answer to {told['identical']:.1%}." in shown
    assert f"perplexity {told['before']['perplexity']:.3f} and {told['after']['perplexity']:.3f}" in shown
    assert main(["export", "red", "blue", *asked]) == 0
    shown = capsys.readouterr().out
    exported = tmp_path / "home" / "mine" / "exported"
    assert f"red-v1: rank 4, in {exported / 'red-v1'}\n" in shown and "\nvllm serve " in shown
    assert main(["push", "red", *asked, "--repo", "acme/red", "--merged", "--dry-run"]) == 1
    assert "adapter.yaml is missing" in capsys.readouterr().err
    (desk / "adapters" / "red" / "adapter.yaml").write_text("title: Red\ndomain: Red things\n")
    assert main(["push", "red", *asked, "--repo", "acme/red", "--merged", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "a public repository, unless its owner's default is private" in shown and "  model.safetensors\n" in shown
    assert main(["merge", "green", *asked]) == 1
    assert "error: green is not trained yet; trained are: blue, red." in capsys.readouterr().err


def test_a_base_of_the_hub_is_merged_from_where_its_library_keeps_it(settings: AdapterSettings, tmp_path: Path) -> None:
    """In a process of its own, which is told of another cache and may reach no network."""
    base = Path(settings.base)
    (base / "base.json").unlink()
    (base / "modeling.py").write_text("raise SystemExit('code of a model was run')")
    edit_json(base / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Phi3ForCausalLM"})
    edit_json(settings.trained / "red" / "manifest.json", base="acme/phi", base_weights_hash="")
    kept = tmp_path / "hub" / "models--acme--phi"
    shutil.copytree(base, kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    code = (
        "import sys\nfrom pathlib import Path\nsys.path[:0] = ['tests', '.']\n"
        "from adapters_small import make_settings\nfrom adapters.merge import merge_adapter\n"
        "root = Path(sys.argv[1])\nmerged = merge_adapter(make_settings(root, base='acme/phi'), 'red', root / 'out')\n"
        "print(merged.model.name)\nmerge_adapter(make_settings(root, base='acme/lost'), 'red', root / 'lost')"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "phi-red-v1\n", done.stderr
    assert "BaseModelError: The base model 'acme/lost' is neither a folder nor reachable on the hub" in done.stderr
    assert not (tmp_path / "lost").exists()
    merge_adapter(settings, "red", tmp_path / "local")
    (name,) = shard_names(tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not (tmp_path / "out" / "modeling.py").exists()
