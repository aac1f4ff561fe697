"""Trains one LoRA adapter of a desk: read it top to bottom.

base (frozen, 16-bit rounded) -> LoRA on Phi-3's four fused projections -> TRL's SFTTrainer over noisy
questions, loss on the answer alone -> adapter weights and manifest in a folder that appears when complete.
"""

import contextlib
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.base import LoadedBase
from adapters.config import (
    TARGET_MODULES,
    AdapterFile,
    AdapterManifest,
    TrainingSettings,
    files_hash,
    read_manifest,
    write_manifest,
)
from adapters.dataset import Example, Split, dataset_hash, split, token_rows
from adapters.errors import AdapterError, DatasetError
from adapters.folders import replacing
from adapters.greedy import greedy_replies
from adapters.prompts import Message, encode_chat
from adapters.registry import SPLIT_FILE
from desk.config import AdapterSettings


def train_adapter(
    name: str,
    file: AdapterFile,
    examples: list[Example],
    base: LoadedBase,
    output: Path,
    *,
    version: int = 1,
    threads: int = 2,
) -> AdapterManifest:
    """The manifest of the adapter written to `output`, which is replaced only when training is complete."""
    import torch

    torch.set_num_threads(threads)
    settings = file.training
    model = attach_lora(base.model, settings)
    training, validation = split(examples, settings.validation, settings.seed)
    run_sft(model, base.tokenizer, training, settings)
    for parameter_name, value in model.named_parameters():
        if value.requires_grad and not torch.isfinite(value).all():
            raise DatasetError(f"training {name} diverged ({parameter_name} is not finite): lower learning_rate.")
    scores = {"training_rows": float(len(training)), "validation_rows": float(len(validation))}
    if validation:
        scores["validation_exact"] = exact_share(model.eval(), base.tokenizer, validation, settings.max_tokens)
    with replacing(output) as scratch:
        write_manifest(scratch / SPLIT_FILE, Split.of(settings.seed, settings.validation, validation))
        return save_adapter(scratch, model, name, file, examples, base, version, scores)


def attach_lora(model: Any, settings: TrainingSettings) -> Any:
    """The base wrapped in PEFT: only LoRA weights on the four fused projections take gradients."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=list(TARGET_MODULES),
            bias="none",
        ),
    )


def run_sft(model: Any, tokenizer: Any, examples: list[Example], settings: TrainingSettings) -> float:
    """The mean training loss, after `settings.epochs` passes."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([asdict(row) for row in token_rows(examples, tokenizer, settings)])
    steps = -(-len(rows) // settings.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=rows,
            args=SFTConfig(
                output_dir=scratch,
                num_train_epochs=1,
                per_device_train_batch_size=settings.batch_size,
                # The rows come in batches of like length already, in seeded order.
                train_sampling_strategy="sequential",
                learning_rate=settings.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=round(settings.warmup * steps),
                weight_decay=settings.weight_decay,
                max_length=settings.max_tokens,
                max_grad_norm=1.0,
                # A NaN in the loss must show, not be averaged away.
                logging_nan_inf_filter=False,
                logging_steps=50,
                save_strategy="no",
                report_to="none",
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=next(model.parameters()).device.type == "cpu",
                seed=settings.seed,
            ),
        )
        # The trainer prints its losses; standard output belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            return float(trainer.train().training_loss)


def exact_share(model: Any, tokenizer: Any, examples: list[Example], max_tokens: int) -> float:
    """Share of the examples whose greedy answer is exactly their completion."""
    prompts = [encode_chat(tokenizer, [*row.before, Message("user", row.prompt)], open_reply=True) for row in examples]
    replies = greedy_replies(model, tokenizer, prompts, max_tokens)
    return sum(reply.text == row.completion for reply, row in zip(replies, examples, strict=True)) / len(examples)


def save_adapter(
    folder: Path,
    model: Any,
    name: str,
    file: AdapterFile,
    examples: list[Example],
    base: LoadedBase,
    version: int,
    scores: dict[str, float] | None = None,
) -> AdapterManifest:
    """Writes adapter_model.safetensors (bf16), adapter_config.json without machine paths, and manifest.json."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model)
    weights = folder / "adapter_model.safetensors"
    save_file({key: value.detach().to("cpu", torch.bfloat16).contiguous() for key, value in state.items()}, weights)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.manifest.name
    config.inference_mode = True
    config.save_pretrained(folder)
    manifest = AdapterManifest(
        name=name,
        title=file.title,
        domain=file.domain,
        version=version,
        base=base.manifest.name,
        base_config_hash=base.manifest.config_hash,
        base_weights_hash=base.manifest.weights_hash,
        weights_hash=files_hash([weights]),
        target_modules=TARGET_MODULES,
        r=file.training.r,
        lora_alpha=file.training.lora_alpha,
        dataset_hash=dataset_hash(examples),
        capabilities=file.capabilities,
        scores=scores or {},
        settings=file.training.model_dump(),
    )
    write_manifest(folder / "manifest.json", manifest)
    return manifest


def next_version(name: str, settings: AdapterSettings) -> int:
    """One more than the newest weights of that name, trained or shipped; 1 when there are none."""
    newest = 0
    for folder in (settings.trained / name, settings.shipped / name / "weights"):
        with contextlib.suppress(AdapterError):
            newest = max(newest, read_manifest(folder / "manifest.json", AdapterManifest).version)
    return newest + 1
