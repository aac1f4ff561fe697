"""What people and training write beside a model: adapter.yaml, base.json and manifest.json. Reads no weights."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.errors import AdapterError, DatasetError, ModelError

TARGET_MODULES = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
"""Phi-3's projections, fused. The widely copied llama names would leave out qkv and gate_up in silence."""

NAME_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
"""Adapter names; a dot would be a KeyError deep inside PEFT."""

Capability = Literal["chat", "read", "fields"]


class _Edge(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(_Edge):
    """The recipe's values; `training:` in adapter.yaml overrides single ones (docs/training.md says what each does).

    The loss on validation rows is taken `evaluations` times; after `patience` times without improvement training ends
    (0: never), and the best weights are kept.
    """

    r: int = Field(default=32, ge=1, le=256)
    lora_alpha: int = Field(default=64, ge=1, le=1024)
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    epochs: int = Field(default=8, ge=1, le=1000)
    validation: float = Field(default=0.05, ge=0, le=0.5)
    batch_size: int = Field(default=32, ge=1, le=1024)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    max_tokens: int = Field(default=256, ge=16, le=131_072)
    noise: float = Field(default=1.0, ge=0, le=3)
    full_answers: float = Field(default=0.25, gt=0, le=1)
    opening_tokens: int = Field(default=10, ge=1, le=1024)
    seed: int = 20261
    method: Literal["lora", "qlora"] = "lora"
    rslora: bool = False
    gradient_checkpointing: bool = False
    packing: bool = False
    evaluations: int = Field(default=8, ge=1, le=1000)
    patience: int = Field(default=0, ge=0, le=100)


class AdapterFile(_Edge):
    """adapter.yaml: what the owner of a desk writes about an adapter. `license` is the hub's word for one, as `mit`."""

    title: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    description: str = ""
    task: Literal["answers", "fields"] = "answers"
    workflow: str | None = None
    license: str = Field(default="", pattern=r"^[a-z0-9.+-]*$")
    training: TrainingSettings = TrainingSettings()

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return ("chat",) if self.task == "answers" else ("fields",)


class BaseManifest(_Edge):
    """base.json: what a base model is and can do."""

    name: str
    family: Literal["phi3"] = "phi3"
    parameters: int
    can_chat: bool
    can_read: bool
    window: int
    config_hash: str
    weights_hash: str = ""
    note: str = ""
    created: dict[str, Any] = {}

    @property
    def size(self) -> str:
        """In words; a model that is not ours is counted once it is loaded."""
        return f"{self.parameters / 1e6:,.1f}M weights" if self.parameters else "not loaded yet"


class AdapterManifest(_Edge):
    """manifest.json beside an adapter's weights: the contract that the registry checks.

    An answer of less confidence than `least_confidence` is better not given (`python -m adapters calibrate`).
    """

    name: str = Field(pattern=rf"^{NAME_PATTERN}$")
    title: str
    domain: str
    version: int = Field(ge=1)
    base: str
    base_config_hash: str
    base_weights_hash: str
    weights_hash: str
    target_modules: tuple[str, ...]
    r: int
    lora_alpha: int
    dataset_hash: str
    capabilities: tuple[Capability, ...]
    scores: dict[str, float] = {}
    least_confidence: float | None = Field(default=None, ge=0, le=1)
    settings: dict[str, Any] = {}


EdgeModel = TypeVar("EdgeModel", bound=BaseModel)


def read_adapter_file(path: Path) -> AdapterFile:
    """adapter.yaml at `path`. Raises DatasetError naming the key at fault."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: an adapter needs adapter.yaml with title and domain.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not readable YAML in UTF-8: {error}") from None
    return _checked(raw, AdapterFile, path, DatasetError)


def read_manifest(path: Path, model: type[EdgeModel]) -> EdgeModel:
    """A manifest at `path`. Raises AdapterError naming the key at fault."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path} is missing: the folder is no complete set of weights.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not readable JSON: {str(error)[:200]}") from None
    return _checked(raw, model, path, AdapterError)


def settings_of(manifest: AdapterManifest, path: Path) -> TrainingSettings:
    """What the adapter of the manifest at `path` was trained with. Raises AdapterError where this program knows no such
    settings."""
    try:
        return _checked(manifest.settings, TrainingSettings, path, AdapterError)
    except AdapterError as error:
        raise AdapterError(
            f"{error} These settings are not this program's: train {manifest.name} here, or correct them."
        ) from None


def write_manifest(path: Path, manifest: BaseModel) -> None:
    path.write_text(json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _checked(raw: object, model: type[EdgeModel], path: Path, kind: type[ModelError]) -> EdgeModel:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}" for fault in error.errors()
        )
        raise kind(f"{path}: {faults}.") from None


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 of the parts of a model's config.json that decide its shape; others may change with versions."""
    keys = (
        "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings",
        "hidden_act", "sliding_window",
    )  # fmt: skip
    chosen = {key: config.get(key) for key in keys}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def files_hash(paths: list[Path]) -> str:
    """SHA-256 over the files' bytes, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda item: item.name):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
