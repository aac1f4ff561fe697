"""Adapters as PEFT's own folders outside the state, which are also what vLLM loads, and the command that starts vLLM.

vLLM knows Phi-3's fused projections by their own names, so nothing is taken apart (docs/training.md has the sources).
"""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.base import read_base_manifest
from adapters.base_files import base_shapes
from adapters.errors import AdapterError
from adapters.folders import CARD, replacing, writing
from adapters.registry import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, find_adapter, read_weights
from desk.settings import AdapterSettings

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be (MaxLoRARanks in vllm/config/lora.py, which has 1 too since the end of 2025)."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder and its rank; `name` is NAME-vN, since vLLM keeps the beginnings of answers by the adapter's name."""

    name: str
    folder: Path
    rank: int


def export_adapters(settings: AdapterSettings, names: Sequence[str], output: Path) -> list[Exported]:
    """Writes OUTPUT/NAME-vN for each adapter, checked as for serving. Raises ModelError, before any is written
    unless the disk is at fault."""
    base, shapes = base_shapes(settings.base)
    found = [find_adapter(settings, name, base) for name in dict.fromkeys(names)]
    configs = []
    for one in found:
        read_weights(one, shapes)
        config = json.loads((one.folder / CONFIG_FILE).read_text(encoding="utf-8"))
        check_for_vllm(one.manifest.name, config)
        configs.append(config | {"base_model_name_or_path": settings.base})
    folders = [output.expanduser().resolve() / f"{one.manifest.name}-v{one.manifest.version}" for one in found]
    for folder in folders:
        if folder.exists() and not (folder / CONFIG_FILE).is_file():
            raise AdapterError(f"{folder} holds something else than an adapter: name another folder with --output.")
    exported = []
    for one, config, folder in zip(found, configs, folders, strict=True):
        with writing(folder), replacing(folder) as scratch:
            (scratch / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            for file in (WEIGHTS_FILE, MANIFEST_FILE, CARD):
                if (one.folder / file).is_file():
                    shutil.copy(one.folder / file, scratch / file)
        exported.append(Exported(folder.name, folder, int(config["r"])))
    return exported


def check_for_vllm(name: str, config: dict[str, object]) -> None:
    """Raises AdapterError for what vLLM refuses when it starts (vllm/lora/peft_helper.py)."""
    if config.get("use_dora"):
        raise AdapterError(f"Adapter {name} uses DoRA, which vLLM does not serve: merge it, or train it as plain LoRA.")
    if config.get("modules_to_save"):
        raise AdapterError(
            f"Adapter {name} brings whole layers (modules_to_save), which vLLM does not serve: merge it, or train it "
            "as plain LoRA."
        )
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise AdapterError(f"Adapter {name} trained biases, which vLLM does not serve: train it with bias: none.")
    _vllm_rank(name, int(str(config.get("r", 0))))


def serve_command(base: str, exported: Sequence[Exported]) -> str:
    """What starts vLLM with the base and all of these adapters in one batch."""
    rank = max(_vllm_rank(one.name, one.rank) for one in exported)
    modules = " ".join(shlex.quote(f"{one.name}={one.folder}") for one in exported)
    named = f" --served-model-name {shlex.quote(read_base_manifest(base).name)}" if Path(base).is_dir() else ""
    return (
        f"vllm serve {shlex.quote(base)}{named} --enable-lora --max-lora-rank {rank} --max-loras {len(exported)} "
        f"--lora-modules {modules}"
    )


def _vllm_rank(name: str, rank: int) -> int:
    """The least rank that vLLM can be started with for this one."""
    for accepted in VLLM_RANKS:
        if 0 < rank <= accepted:
            return accepted
    raise AdapterError(f"Adapter {name} has rank {rank}, and vLLM serves ranks from 1 to {VLLM_RANKS[-1]}.")
