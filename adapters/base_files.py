"""A base model's files, without the model in memory: its folder, its config, and the shapes of its projections."""

import json
import re
from pathlib import Path
from typing import Any

from adapters.base import check_family, quiet, read_base_manifest, why_not
from adapters.config import BaseManifest, config_hash
from adapters.errors import BaseModelError
from adapters.registry import projection_shapes

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ACCOMPANYING = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "LICENSE", "NOTICE.md",
)  # fmt: skip
"""What lies beside weights and config.json and belongs to the model, whoever loads it; no code is among it."""


def base_folder(base: str) -> Path:
    """The folder itself, or where the hub's library keeps that model's files, which it fetches if they are not there.

    Raises BaseModelError.
    """
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, allow_patterns=["model*.safetensors", INDEX, "config.json", *ACCOMPANYING]))
    except Exception as error:
        raise BaseModelError(why_not(base, False, error)) from error


def shard_names(folder: Path) -> list[str]:
    """The files of a checkpoint's weights, in order. Raises BaseModelError where one is missing."""
    index = folder / INDEX
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else [SINGLE]
    names = sorted(set(map(str, listed)))
    for name in names:
        if not re.fullmatch(r"model[\w.-]*\.safetensors", name) or not (folder / name).is_file():
            raise BaseModelError(f"{folder} holds no weights in {name!r}, which it should: fetch the model again.")
    return names


def base_shapes(base: str) -> tuple[BaseManifest, dict[str, tuple[int, int]]]:
    """What is known of a base by its config alone, and (out, in) of its projections by name.

    Raises BaseModelError for another family than Phi-3's.
    """
    import torch
    from transformers import AutoConfig, Phi3ForCausalLM

    manifest = read_base_manifest(base)
    local = Path(base).is_dir()
    with quiet():
        try:
            config: Any = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=local)
        except Exception as error:
            raise BaseModelError(why_not(base, local, error)) from error
        check_family(base, config.model_type)
        with torch.device("meta"):
            shapes = projection_shapes(Phi3ForCausalLM(config))
    if not manifest.config_hash:
        manifest = manifest.model_copy(update={"config_hash": config_hash(config.to_dict())})
    return manifest, shapes
