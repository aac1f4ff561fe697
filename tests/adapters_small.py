"""Small real models for the tests: a Phi-3 of two layers with its own tokenizer, and LoRA adapters on it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.config import AdapterFile, BaseManifest, TrainingSettings
from adapters.dataset import Example
from adapters.tiny.build import save_base
from adapters.tiny.pretrain import BaseRecipe, new_model
from adapters.tiny.tokenizer import train_tokenizer
from desk.settings import AdapterSettings

TEXTS = [
    "My screen keeps flickering when I move the lid of my laptop.",
    "Reseat the video cable at both ends and update the driver.",
    "The printer on the second floor jams again and again.",
    "Open the cover, pull the sheet slowly and close every door.",
    'Triage this ticket. {"category":"hardware","priority":"P1","team":"Endpoint Team"}',
    "Which agreement covers what second line promises to first line?",
] * 3

SHAPE = BaseRecipe(vocab_size=520, hidden_size=32, intermediate_size=48, layers=2, heads=4, window=128, steps=1, seed=5)


def make_base(folder: Path, seed: int = 5, **shape: int) -> BaseManifest:
    """Writes an untrained base of the embedded model's kind to `folder`."""
    import torch

    recipe = replace(SHAPE, seed=seed, **shape)
    tokenizer = train_tokenizer(TEXTS, recipe.vocab_size)
    torch.manual_seed(seed)
    model = new_model(recipe, tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            # Wide weights make an untrained model's greedy text varied, so that a mix-up shows.
            if weight.ndim > 1:
                weight.normal_(std=0.25)
    return save_base(folder, model.eval(), tokenizer, recipe, "no corpus")


def make_adapter(
    base: Path,
    folder: Path,
    name: str,
    seed: int,
    task: str = "answers",
    *,
    r: int = 4,
    rslora: bool = False,
    version: int = 1,
) -> None:
    """Writes an adapter with random weights, complete with its manifest, to `folder`."""
    import torch

    from adapters.base import load_base
    from adapters.train import attach_lora, save_adapter

    file = AdapterFile.model_validate(
        {
            "title": name.title(),
            "domain": f"Things of {name}",
            "task": task,
            "training": {"r": r, "lora_alpha": 8},
        }
    )
    loaded = load_base(str(base))
    model = attach_lora(loaded.model, file.training)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, weight in model.named_parameters():
            if "lora_" in parameter_name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    folder.mkdir(parents=True)
    save_adapter(folder, model, name, file, [Example("a", "b")], loaded, version)
    if rslora:
        edit_json(folder / "adapter_config.json", use_rslora=True)


def make_settings(root: Path, **changes: Any) -> AdapterSettings:
    """Settings over `root`/base, `root`/shipped and `root`/trained."""
    plain = AdapterSettings(
        base=str(root / "base"),
        quantization="auto",
        shipped=root / "shipped",
        trained=root / "trained",
        threads=1,
        answer_tokens=24,
        cache=root / "cache",
    )
    return replace(plain, **changes)


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | changes), encoding="utf-8")


def quick_training(**changes: Any) -> TrainingSettings:
    plain = {"r": 4, "lora_alpha": 8, "epochs": 2, "batch_size": 4, "noise": 0.0, "full_answers": 1.0}
    return TrainingSettings.model_validate(plain | changes)
