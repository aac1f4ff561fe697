"""Loading a Phi-3 base: the embedded one, a local folder or a hub id; fp32, bf16 or 4-bit nf4.

Remote code is never run. A local model is read with `local_files_only`, so it never makes a request to a hub.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.config import TARGET_MODULES, BaseManifest, config_hash, files_hash, read_manifest
from adapters.errors import BaseModelError, ModelError
from adapters.folders import replacing

_log = logging.getLogger("switchboard.models")

TINY_PARAMETERS = 200_000_000
"""Below this, "auto" loads fp32: quantising a tiny model costs quality and saves nothing."""

Quantization = Literal["auto", "nf4", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in memory, in evaluation mode, with its tokenizer and manifest."""

    model: Any
    tokenizer: Any
    manifest: BaseManifest
    quantization: Literal["nf4", "bf16", "fp32"]


def read_base_manifest(base: str) -> BaseManifest:
    """What is known of `base` without loading it; a hub id's shape is known only after its download.

    Raises BaseModelError for a folder that holds no Phi-3 model.
    """
    folder = Path(base)
    if not folder.is_dir():
        return BaseManifest(
            name=base,
            parameters=0,
            can_chat=True,
            can_read=True,
            window=4096,
            config_hash="",
            note="A model from the hub, downloaded at first use.",
        )
    if (folder / "base.json").is_file():
        try:
            return read_manifest(folder / "base.json", BaseManifest)
        except ModelError as error:
            raise BaseModelError(str(error)) from None
    config = _read_config(folder)
    return BaseManifest(
        name=folder.name,
        parameters=0,
        can_chat=True,
        can_read=True,
        window=int(config.get("max_position_embeddings", 4096)),
        config_hash=config_hash(config),
        note="A local Phi-3 model.",
    )


def load_base(base: str, quantization: Quantization = "auto", cache: Path | None = None) -> LoadedBase:
    """The base, ready to generate. Raises BaseModelError in one sentence when that cannot be.

    Quantising a real Phi-3 takes more than a minute on a CPU: with `cache`, the result is kept there and read again.
    """
    local = Path(base).is_dir()
    with quiet():
        try:
            return _load(base, local, quantization, cache)
        except ModelError:
            raise
        except MemoryError:
            raise BaseModelError(
                f"{base} does not fit in memory: set models.quantization to nf4 or choose a smaller base."
            ) from None
        except Exception as error:
            raise BaseModelError(why_not(base, local, error)) from error


def _load(base: str, local: bool, quantization: Quantization, cache: Path | None) -> LoadedBase:
    import torch
    from transformers import AutoConfig

    if local:
        _read_config(Path(base))
    config = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=local)
    check_family(base, config.model_type)
    manifest = read_base_manifest(base)
    kind = chosen_kind(quantization, config)
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    arguments: dict[str, Any] = {"dtype": dtype, "local_files_only": local, "trust_remote_code": False}
    if torch.cuda.is_available():
        arguments["device_map"] = {"": 0}
    _check_memory(base, config, kind)
    model = _quantised(base, config, arguments, cache) if kind == "nf4" else _from_files(base, arguments)
    missing = set(TARGET_MODULES) - {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing:
        raise BaseModelError(f"{base} lacks Phi-3's fused projections: {', '.join(sorted(missing))}.")
    model.requires_grad_(False)
    tokenizer = load_tokenizer(base)
    if not tokenizer.chat_template:
        raise BaseModelError(f"{base} has no chat template: choose an instruct model, not a bare one.")
    if not manifest.parameters:
        manifest = manifest.model_copy(
            update={
                "config_hash": manifest.config_hash or config_hash(config.to_dict()),
                "window": int(config.max_position_embeddings),
                "parameters": count_weights(model),
            }
        )
    return LoadedBase(model, tokenizer, manifest, kind)


def _from_files(base: str, arguments: dict[str, Any]) -> Any:
    from transformers import Phi3ForCausalLM

    return Phi3ForCausalLM.from_pretrained(base, **arguments).eval()


def _quantised(base: str, config: Any, arguments: dict[str, Any], cache: Path | None) -> Any:
    """The base in nf4: as it was kept in `cache`, else from its own files, and then kept there if there is room.

    It is kept before its first forward pass, in which bitsandbytes lays 4-bit weights out anew on some CPUs.
    """
    folder = cache / f"nf4-{_source_hash(base, config)}" if cache else None
    if folder is not None and folder.is_dir():
        try:
            return _from_files(str(folder), {**arguments, "local_files_only": True})
        except Exception as error:
            _log.warning("The quantised base in %s cannot be read (%s): it is made again.", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
    model = _from_files(base, {**arguments, "quantization_config": _nf4(arguments["dtype"])})
    if folder is not None:
        try:
            with replacing(folder) as scratch:
                model.save_pretrained(scratch)
        except OSError as error:
            _log.warning("The quantised base is not kept (%s): the next start quantises it again.", error)
    return model


def keep_layout(model: Any) -> None:
    """Has 4-bit layers keep their weights as they are stored: before the first forward pass of a process that trains.

    On CPUs with AVX-512 BF16, bitsandbytes 0.50 lays them out anew in the first pass without gradients, in place; later
    backward passes then read them wrongly, and training goes on with wrong gradients, in silence.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _source_hash(base: str, config: Any) -> str:
    """Tells bases apart, and versions of one: by its files' names, sizes and times, or by its commit on the hub."""
    folder = Path(base)
    if folder.is_dir():
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
        parts = [str((str(folder.resolve()), name, stat.st_size, stat.st_mtime_ns)) for name, stat in stats]
    else:
        parts = [base, str(getattr(config, "_commit_hash", None))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def weights_hash(folder: Path) -> str:
    """SHA-256 of the model's safetensors shards in `folder`."""
    return files_hash(list(folder.glob("model*.safetensors")))


def count_weights(model: Any) -> int:
    """Weights of the model, tied ones once; a 4-bit tensor counts its unpacked weights."""
    return sum(
        int(parameter.numel() * (2 if parameter.__class__.__name__ == "Params4bit" else 1))
        for parameter in model.parameters()
    )


def chosen_kind(quantization: Quantization, config: Any) -> Literal["nf4", "bf16", "fp32"]:
    """The form in which a base of that config is held."""
    if quantization != "auto":
        return quantization
    return "fp32" if _estimate(config) < TINY_PARAMETERS else "nf4"


def _estimate(config: Any) -> int:
    """Weights by the shape alone: embeddings, attention and the gated MLP of every layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = hidden // config.num_attention_heads
    attention = hidden * (2 * hidden + 2 * config.num_key_value_heads * head)
    layers = config.num_hidden_layers * (attention + 3 * hidden * inner)
    embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return int(layers + embeddings)


def _check_memory(base: str, config: Any, kind: str) -> None:
    """Raises BaseModelError when the weights alone exceed what the machine has free."""
    free = free_bytes()
    if free is None:
        return
    need = int(_estimate(config) * {"fp32": 4.0, "bf16": 2.0, "nf4": 0.65}[kind])
    if need > free:
        raise BaseModelError(
            f"{base} in {kind} needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "set models.quantization to nf4, free memory or choose a smaller base."
        )


def free_bytes() -> int | None:
    """Memory the next load can use: the GPU's free memory, or the machine's available one; None if unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _nf4(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json of a local model. Raises BaseModelError when there is none or no weights lie beside it."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(
            f"{folder} holds no model: config.json is missing. For the embedded model run "
            "`python -m adapters pretrain`; else set models.base in desk.yaml."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BaseModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} is no model's config.json: it holds no object.")
    check_family(str(folder), config.get("model_type"))
    if not list(folder.glob("*.safetensors")):
        raise BaseModelError(f"{folder} holds config.json but no weights (*.safetensors): fetch the model again.")
    return config


def load_tokenizer(base: str) -> Any:
    """The base's tokenizer, as transformers has it; of a folder without a request to a hub."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=Path(base).is_dir(), trust_remote_code=False)


def check_family(base: str, family: object) -> None:
    """Raises BaseModelError for another family than Phi-3's."""
    if family != "phi3":
        raise BaseModelError(f"{base} is a {family} model: the base must be of the Phi-3 family (model_type phi3).")


def why_not(base: str, local: bool, error: Exception) -> str:
    """Why that base cannot be loaded, and what to do, in a sentence."""
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if isinstance(error, RuntimeError) and "memory" in str(error).lower():
        return f"{base} does not fit in memory ({reason}): set models.quantization to nf4."
    if local:
        return f"The base model in {base} cannot be loaded ({reason}): fetch its files again."
    return (
        f"The base model {base!r} is neither a folder nor reachable on the hub ({reason}): check models.base in "
        "desk.yaml and the connection, or set it to embedded."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps loading bars and the notes of bitsandbytes and transformers off the console."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "transformers", "peft", "kernels")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
