"""Trains one LoRA adapter of a desk: read it top to bottom.

base (frozen; 16-bit, or nf4 for QLoRA) -> LoRA on Phi-3's four fused projections -> TRL's SFTTrainer over noisy
questions, loss on the answer alone, the best weights by validation loss -> adapter weights and manifest in a folder
that appears when complete.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.base import LoadedBase, keep_layout
from adapters.config import (
    TARGET_MODULES,
    AdapterFile,
    AdapterManifest,
    TrainingSettings,
    files_hash,
    read_manifest,
    write_manifest,
)
from adapters.dataset import Example, Split, TokenRow, dataset_hash, plain_rows, split, token_rows
from adapters.errors import AdapterError, BaseModelError, DatasetError, DivergedError
from adapters.folders import replacing, trained_folder, writing
from adapters.greedy import greedy_replies
from adapters.live import Live
from adapters.prompts import encode_chat
from adapters.registry import SPLIT_FILE
from adapters.run_folder import newest_checkpoint, run_folder
from adapters.tracking import PROJECT, Tracker
from desk.settings import AdapterSettings


def train_adapter(
    name: str,
    file: AdapterFile,
    examples: list[Example],
    base: LoadedBase,
    output: Path,
    *,
    version: int = 1,
    threads: int = 2,
    tracker: Tracker | None = None,
    before: Split | None = None,
) -> AdapterManifest:
    """The manifest of the adapter written to `output`, which is replaced only when training is complete.

    What the version `before` left out is left out again. A run that was killed goes on where its newest complete
    checkpoint stands. Raises DatasetError.
    """
    import torch

    torch.set_num_threads(threads)
    settings = file.training
    if settings.method == "qlora" and base.quantization != "nf4":
        raise BaseModelError(f"QLoRA trains on a base in nf4, and {base.manifest.name} is held in {base.quantization}.")
    training, validation = split(examples, settings.validation, settings.seed, before)
    weights = [base.manifest.config_hash, base.manifest.weights_hash, base.quantization]
    what = [settings.model_dump(), dataset_hash(examples), weights, version, before and before.model_dump()]
    with writing(output.parent), run_folder(output, what) as folder:
        model = attach_lora(base.model, settings)
        live = run_sft(model, base.tokenizer, training, settings, folder, validation, tracker)
        scores = {"training_rows": float(len(training)), "validation_rows": float(len(validation))}
        if validation:
            scores["validation_exact"] = exact_share(model.eval(), base.tokenizer, validation, settings.max_tokens)
        with replacing(output) as scratch:
            live.save(scratch)
            write_manifest(scratch / SPLIT_FILE, Split.of(settings.seed, settings.validation, validation, training))
            return save_adapter(scratch, model, name, file, examples, base, version, scores)


def attach_lora(model: Any, settings: TrainingSettings) -> Any:
    """The base wrapped in PEFT: only LoRA weights on the four fused projections take gradients."""
    import torch
    from peft import LoraConfig, get_peft_model

    keep_layout(model)
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
            use_rslora=settings.rslora,
        ),
    )


def run_sft(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    settings: TrainingSettings,
    folder: Path,
    validation: Sequence[Example] = (),
    tracker: Tracker | None = None,
) -> Live:
    """The losses of `settings.epochs` passes over the rows; the model then has its best weights.

    Checkpoints are kept in `folder`, one for each evaluation, and a run goes on from the newest complete one.
    """
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    cpu = next(model.parameters()).device.type == "cpu"
    if settings.packing and cpu:
        raise DatasetError("training.packing needs FlashAttention on a GPU: else packed rows would read each other.")
    rows = token_rows(examples, tokenizer, settings)
    steps = -(-len(rows) // settings.batch_size)
    every = max(1, steps // settings.evaluations)
    held = plain_rows(validation, tokenizer, settings.max_tokens)
    live = Live(sum(len(row.input_ids) for row in rows))
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_dataset(Dataset, rows),
        eval_dataset=_dataset(Dataset, held) if held else None,
        callbacks=[
            live,
            *([EarlyStoppingCallback(settings.patience)] if settings.patience and held else []),
            *([tracker.callback()] if tracker else []),
        ],
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
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
            logging_steps=max(1, min(50, every // 2)),
            eval_strategy="steps" if held else "no",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=bool(held),
            metric_for_best_model="eval_loss" if held else None,
            packing=settings.packing,
            report_to="none",
            project=PROJECT,
            run_name=tracker.run if tracker else None,
            disable_tqdm=True,
            gradient_checkpointing=settings.gradient_checkpointing,
            bf16=not cpu,
            use_cpu=cpu,
            seed=settings.seed,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_checkpoint(folder)
    with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to --json
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    for name, value in model.named_parameters():
        if value.requires_grad and not torch.isfinite(value).all():
            raise DivergedError(f"Training diverged ({name} is not finite): lower training.learning_rate.")
    return live


def _dataset(kind: Any, rows: Sequence[TokenRow]) -> Any:
    return kind.from_list([asdict(row) for row in rows])


def exact_share(model: Any, tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> float:
    """Share of the examples whose greedy answer is exactly their completion."""
    prompts = [encode_chat(tokenizer, row.chat, open_reply=True) for row in examples]
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
    """One more than the newest weights of that name, shipped, trained or a candidate; 1 when there are none."""
    newest = 0
    trained = [trained_folder(settings, name, promoted=promoted) for promoted in (True, False)]
    for folder in (*trained, settings.shipped / name / "weights"):
        with contextlib.suppress(AdapterError):
            newest = max(newest, read_manifest(folder / "manifest.json", AdapterManifest).version)
    return newest + 1
