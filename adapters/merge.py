"""An adapter's products added into its base's own weights: a checkpoint that every program for Phi-3 loads.

What is added to is always what the base's files hold, in 16 bits or more, never weights that were in 4 bits before. An
adapter that was trained on nf4 thereby gets a slightly different base, so the outcome is measured beside what serves.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.base import TINY_PARAMETERS, Quantization, load_base, weights_hash
from adapters.base_files import ACCOMPANYING, INDEX, base_folder, base_shapes, shard_names
from adapters.card import plain
from adapters.config import BaseManifest, config_hash, read_manifest, settings_of, write_manifest
from adapters.dataset import Example, Split, read_examples
from adapters.decode import Decoder
from adapters.errors import AdapterError, BaseModelError, DatasetError, ModelError
from adapters.folders import CARD, replacing, writing
from adapters.registry import MANIFEST_FILE, SPLIT_FILE, FoundAdapter, find_adapter, read_weights
from adapters.residents import load_weights
from adapters.verdict import answer_logprobs, answered, perplexity
from desk.settings import AdapterSettings

MOST_LOST = 0.02
"""Of the held-out rows: so many more wrong answers than before are worth a warning."""
MOST_PERPLEXITY = 0.02
"""And so much more perplexity, as a share of what it was."""


@dataclass(frozen=True, slots=True)
class Measured:
    """On held-out rows, with the weights held in `kind`: share answered exactly right, and perplexity per token."""

    kind: str
    exact: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class Merged:
    """The model that was written, and its scores beside base and adapter's; `identical`: share of equal answers."""

    model: BaseManifest
    adapter: FoundAdapter
    rows: int
    before: Measured
    after: Measured
    identical: float

    @property
    def warning(self) -> str:
        """A sentence where merging cost more than rounding explains; else empty."""
        lost = self.before.exact - self.after.exact
        known = math.isfinite(self.before.perplexity)
        dearer = self.after.perplexity / self.before.perplexity - 1 if known else 0.0
        if lost <= MOST_LOST and dearer <= MOST_PERPLEXITY:
            return ""
        return (
            f"Merging costs {lost:.1%} of the right answers and {dearer:+.1%} of perplexity, and rounding explains "
            f"{MOST_LOST:.0%} of each at most: serve base and adapter apart, or train the adapter on the 16-bit base."
        )


def merge_adapter(settings: AdapterSettings, name: str, output: Path) -> Merged:
    """Writes the merged model to `output`, which appears when it is complete and measured. Raises ModelError.

    Shards are gone through one at a time; to be measured, the two models are in memory one after the other.
    """
    torch.set_num_threads(settings.threads)
    base, shapes = base_shapes(settings.base)
    found = find_adapter(settings, name, base)
    rows = held_out_rows(settings.shipped / name, found.folder)
    training = settings_of(found.manifest, found.folder / MANIFEST_FILE)
    most = training.max_tokens
    source = base_folder(settings.base)
    _check_output(output, source)
    with writing(output), replacing(output) as scratch:
        model = write_merged(source, base, found, shapes, scratch)
        # As the desk serves; what QLoRA trained is measured on nf4, as it was trained, whatever the desk serves in.
        served = "nf4" if training.method == "qlora" else settings.quantization
        before, own = _measure(settings.base, served, settings.cache, found, rows, most)
        sixteen: Quantization = "fp32" if model.parameters < TINY_PARAMETERS else "bf16"
        after, answers = _measure(str(scratch), sixteen, None, None, rows, most)
        identical = sum(one == other for one, other in zip(own, answers, strict=True)) / len(rows)
        merged = Merged(model, found, len(rows), before, after, identical)
        (scratch / CARD).write_text(merge_card(merged), encoding="utf-8")
    return merged


def write_merged(
    source: Path, base: BaseManifest, found: FoundAdapter, shapes: Mapping[str, tuple[int, int]], output: Path
) -> BaseManifest:
    """Writes a checkpoint in bf16 to the folder `output`, with all that belongs to the base, and its base.json."""
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise BaseModelError(f"{base.name} is a quantised model: set models.base in desk.yaml to its 16-bit original.")
    state, scale = read_weights(found, shapes)
    parameters = write_shards(source, output, shapes.keys(), state, scale)
    for name in ACCOMPANYING:
        if (source / name).is_file():
            shutil.copy(source / name, output / name)
    # Code that a checkpoint brings is not copied, so nothing may point to it.
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "_name_or_path")}
    kept["torch_dtype" if "torch_dtype" in config else "dtype"] = "bfloat16"
    (output / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    adapter = found.manifest
    title = f"{base.name.rpartition('/')[2]}-{adapter.name}-v{adapter.version}"
    manifest = BaseManifest(
        name=title,
        parameters=parameters,
        can_chat=base.can_chat or "chat" in adapter.capabilities,
        can_read=base.can_read,
        window=int(config["max_position_embeddings"]),
        config_hash=config_hash(config),
        weights_hash=weights_hash(output),
        note=f"{base.name} with version {adapter.version} of the adapter {adapter.name} merged into it.",
        created={
            "base": base.name,
            "base_config_hash": base.config_hash,
            "base_weights_hash": base.weights_hash,
            "adapter": adapter.name,
            "adapter_version": adapter.version,
            "adapter_weights_hash": adapter.weights_hash,
        },
    )
    write_manifest(output / "base.json", manifest)
    return manifest


def write_shards(
    source: Path, output: Path, projections: Iterable[str], state: Mapping[str, torch.Tensor], scale: float
) -> int:
    """How many weights the shards hold that were written: the same files with the same names, all of it in bf16.

    A projection becomes W + scale B A, computed in fp32 and rounded once. Raises BaseModelError for weights of other
    types than floating-point ones of 16 bits or more.
    """
    from safetensors.torch import save_file

    left = {f"{name}.weight": f"base_model.model.{name}" for name in projections}
    parameters = 0
    for shard in shard_names(source):
        weights = _merged_weights(source / shard, left, state, scale)
        parameters += sum(weight.numel() for weight in weights.values())
        save_file(weights, output / shard, metadata={"format": "pt"})
    if left:
        raise BaseModelError(f"{source} holds no weights named {min(left)}: fetch the model again.")
    if (source / INDEX).is_file():
        index = json.loads((source / INDEX).read_text(encoding="utf-8"))
        index["metadata"] = {"total_parameters": parameters, "total_size": 2 * parameters}
        (output / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return parameters


def _merged_weights(
    shard: Path, left: dict[str, str], state: Mapping[str, torch.Tensor], scale: float
) -> dict[str, torch.Tensor]:
    """A shard's weights in bf16, the adapter's products added; projections that it has are taken out of `left`."""
    from safetensors import SafetensorError, safe_open

    weights: dict[str, torch.Tensor] = {}
    try:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # a file is no dict
                weight = file.get_tensor(name)
                if weight.dtype not in (torch.bfloat16, torch.float16, torch.float32):
                    raise BaseModelError(
                        f"{shard} holds {name} in {weight.dtype}: merging needs the model's 16-bit weights."
                    )
                if name in left:
                    lora = left.pop(name)
                    a, b = state[f"{lora}.lora_A.weight"].float(), state[f"{lora}.lora_B.weight"].float()
                    weight = weight.float() + scale * (b @ a)
                weights[name] = weight.to(torch.bfloat16).contiguous()
    except SafetensorError as error:
        raise BaseModelError(f"{shard} is damaged ({error}): fetch the model again.") from None
    return weights


def held_out_rows(folder: Path, weights: Path) -> list[Example]:
    """The rows of eval.jsonl in an adapter's `folder`, or those of train.jsonl that the training of `weights` left out.

    Raises DatasetError where there are none.
    """
    if (folder / "eval.jsonl").is_file():
        return read_examples(folder / "eval.jsonl")
    rows: list[Example] = []
    if (folder / "train.jsonl").is_file() and (weights / SPLIT_FILE).is_file():
        rows = read_manifest(weights / SPLIT_FILE, Split).left_out(read_examples(folder / "train.jsonl"))
    if not rows:
        raise DatasetError(
            f"No row is held out in {folder}, so nothing could say what merging costs: add an eval.jsonl with rows "
            "that the adapter was not trained on."
        )
    return rows


def merge_card(merged: Merged) -> str:
    """What somebody has to know who is given the model."""
    adapter, before, after = merged.adapter.manifest, merged.before, merged.after
    warning = f"\n**{merged.warning}**\n" if merged.warning else ""
    return f"""# {plain(merged.model.name)}

`{plain(adapter.base)}` with the LoRA adapter {adapter.name}, version {adapter.version}, merged into its weights:
{plain(adapter.domain)}.
{warning}
| on {merged.rows:,} rows that training left out | base and adapter, {before.kind} | merged, {after.kind} |
|---|---|---|
| answers exactly right | {before.exact:.1%} | {after.exact:.1%} |
| perplexity of the right answers | {before.perplexity:.3f} | {after.perplexity:.3f} |
| the same answer as before | | {merged.identical:.1%} |

| | |
|---|---|
| weights | {merged.model.parameters:,}, stored in bf16 |
| weights (SHA-256) | `{merged.model.weights_hash}` |
| adapter's weights (SHA-256) | `{plain(adapter.weights_hash)}` |
| base's weights (SHA-256) | `{plain(adapter.base_weights_hash) or "not known"}` |
| data (SHA-256) | `{plain(adapter.dataset_hash)}` |

The product of the adapter's matrices was added to the weights of the base's own files in 32-bit arithmetic and rounded
once. It answers as the adapter does, and cannot be turned back into the base.
"""


def _measure(
    base: str,
    kind: Quantization,
    cache: Path | None,
    adapter: FoundAdapter | None,
    rows: list[Example],
    most: int,
) -> tuple[Measured, tuple[str, ...]]:
    """The scores of a base, with the adapter if any, and its answers."""
    loaded = load_base(base, kind, cache)
    decoder = Decoder(loaded)
    weights = load_weights(adapter, decoder) if adapter else None
    answers = answered(rows, weights, decoder, most)
    exact = sum(answer == row.completion for answer, row in zip(answers, rows, strict=True)) / len(rows)
    return Measured(loaded.quantization, exact, perplexity(answer_logprobs(rows, weights, decoder))), answers


def _check_output(output: Path, source: Path) -> None:
    """Raises AdapterError for a place that holds anything but a model that was merged here before, and for the base's
    own folder `source`, or one around it: that may be a merged model too."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        earlier = output.is_dir() and "adapter" in read_manifest(output / "base.json", BaseManifest).created
    except ModelError:
        earlier = False
    if not earlier:
        raise AdapterError(f"{output} holds something else than a merged model: name another folder with --output.")
    if source.resolve().is_relative_to(output.resolve()):
        raise AdapterError(f"{output} holds the base that is merged into: name another folder with --output.")
