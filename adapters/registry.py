"""Finds a desk's adapters and says which can be used: manifests first (no torch), weights before attaching.

A folder of weights is trained state (`trained/<name>`) or ships with the desk (`shipped/<name>/weights`); the
trained one wins. PEFT by itself accepts another base, missing projections and NaN weights in silence, so all
of that is checked here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.config import (
    NAME_PATTERN,
    TARGET_MODULES,
    AdapterManifest,
    BaseManifest,
    files_hash,
    read_manifest,
)
from adapters.errors import AdapterError
from desk.settings import AdapterSettings

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
SPLIT_FILE = "split.json"
"""Which rows training left out (adapters/dataset.py: Split)."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a page shows of an adapter and a router needs."""

    name: str
    title: str
    domain: str
    version: int
    capabilities: frozenset[str]
    least_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter whose manifest fits the base; its weights are not yet read."""

    folder: Path
    manifest: AdapterManifest

    @property
    def info(self) -> AdapterInfo:
        manifest = self.manifest
        return AdapterInfo(
            name=manifest.name,
            title=manifest.title,
            domain=manifest.domain,
            version=manifest.version,
            capabilities=frozenset(manifest.capabilities),
            least_confidence=manifest.least_confidence,
        )


def weights_folder(settings: AdapterSettings, name: str) -> Path:
    """Where the weights of that adapter are that serve: trained ones win over those that ship."""
    trained = settings.trained / name
    return trained if trained.is_dir() else settings.shipped / name / "weights"


def find_adapters(shipped: Path, trained: Path, base: BaseManifest) -> tuple[list[FoundAdapter], list[str]]:
    """(adapters that fit `base` by their manifest, sorted by name; one sentence for each refused folder)."""
    found, refused = [], []
    for name, folder in sorted(adapter_folders(shipped, trained).items()):
        try:
            found.append(FoundAdapter(folder, check_manifest(name, folder, base)))
        except AdapterError as error:
            refused.append(f"Adapter {name} is left out: {error}")
    return found, refused


def find_adapter(settings: AdapterSettings, name: str, base: BaseManifest) -> FoundAdapter:
    """The version that serves. Raises AdapterError with the reason where none can be used with `base`."""
    found, refused = find_adapters(settings.shipped, settings.trained, base)
    for one in found:
        if one.manifest.name == name:
            return one
    own = [sentence for sentence in refused if f"Adapter {name} " in sentence]
    known = ", ".join(one.manifest.name for one in found) or "none"
    raise AdapterError(" ".join(own) or f"{name} is not trained yet; trained are: {known}.")


def adapter_folders(shipped: Path, trained: Path) -> dict[str, Path]:
    """Where each adapter's weights lie, sound or not; trained ones win over those that ship."""
    folders = {path.name: path / "weights" for path in _folders(shipped) if (path / "weights").is_dir()}
    return folders | {path.name: path for path in _folders(trained)}


def _folders(root: Path) -> list[Path]:
    """Folders in `root`; hidden ones are unfinished training."""
    if not root.is_dir():
        return []
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def check_manifest(name: str, folder: Path, base: BaseManifest) -> AdapterManifest:
    """The manifest in `folder`, if name, base and files agree with it. Raises AdapterError otherwise."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise AdapterError(
            f"the name {name!r} is not allowed: use small letters, digits, - and _ (a dot cannot be loaded)."
        )
    manifest = read_manifest(folder / MANIFEST_FILE, AdapterManifest)
    if manifest.name != name:
        raise AdapterError(f"its manifest is that of {manifest.name!r}: keep folder and name the same.")
    if base.config_hash and manifest.base_config_hash != base.config_hash:
        raise AdapterError(
            f"it was made for the base {manifest.base}, whose shape is not that of {base.name}: train it again "
            f"with `python -m adapters train {name}`."
        )
    if manifest.base_weights_hash != base.weights_hash:
        raise AdapterError(
            f"it was made for other weights of the base {manifest.base} than the ones in use: train it again with "
            f"`python -m adapters train {name}`."
        )
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise AdapterError(f"{folder / file} is missing: train it again or restore the file.")
    _check_config(folder / CONFIG_FILE)
    return manifest


def _check_config(path: Path) -> None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not readable JSON: {str(error)[:200]}") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{path} holds no JSON object: train it again.")
    targets = config.get("target_modules")
    if not isinstance(targets, list) or sorted(map(str, targets)) != sorted(TARGET_MODULES):
        raise AdapterError(f"it targets {targets!r}, but Phi-3's projections are fused: {', '.join(TARGET_MODULES)}.")
    for key in ("use_dora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out"):
        if config.get(key):
            raise AdapterError(f"it uses {key}, which is not supported: train it as a plain LoRA adapter.")


def read_weights(found: FoundAdapter, shapes: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Any], float]:
    """The tensors by their names in PEFT's file, and the scale of their products. Raises AdapterError.

    Every projection in `shapes` (`projection_shapes`) must have its A (r, in) and B (out, r), finite, and nothing else
    may occur.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path, manifest = found.folder / WEIGHTS_FILE, found.manifest
    if files_hash([path]) != manifest.weights_hash:
        raise AdapterError(f"{path} is not the file that its manifest describes: restore it or train again.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} is damaged ({error}): restore it or train again.") from None
    expected = {}
    for name, (height, width) in shapes.items():
        expected[f"base_model.model.{name}.lora_A.weight"] = (manifest.r, width)
        expected[f"base_model.model.{name}.lora_B.weight"] = (height, manifest.r)
    for key in sorted(expected.keys() | state.keys()):
        if key not in state:
            raise AdapterError(f"it has no weights for {key}: train it again on this base.")
        if key not in expected:
            raise AdapterError(f"its weights {key} belong to no projection of this base.")
        if tuple(state[key].shape) != expected[key]:
            raise AdapterError(
                f"its weights {key} have shape {tuple(state[key].shape)}, the base needs {expected[key]}."
            )
        if not torch.isfinite(state[key]).all():
            raise AdapterError(f"its weights {key} hold values that are not finite numbers: train it again.")
    return state, _scale(found.folder / CONFIG_FILE)


def _scale(path: Path) -> float:
    """What PEFT multiplies the products with: alpha / r, or alpha / sqrt(r) for rank-stabilised adapters."""
    config = json.loads(path.read_text(encoding="utf-8"))
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or not isinstance(alpha, int | float) or r < 1:
        raise AdapterError(f"{path} does not say r and lora_alpha: train it again.")
    return float(alpha / (math.sqrt(r) if config.get("use_rslora") else r))


def projection_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """(out, in) of each of Phi-3's projections in a base model, by its name."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in TARGET_MODULES
    }
