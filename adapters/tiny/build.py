"""The whole making of the embedded base: corpus -> tokenizer -> weights -> a folder that appears when complete."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.base import count_weights, weights_hash
from adapters.config import BaseManifest, config_hash, write_manifest
from adapters.folders import CARD, replacing
from adapters.tiny.card import base_card
from adapters.tiny.corpus import read_corpus
from adapters.tiny.lessons import write_lessons
from adapters.tiny.pretrain import BaseRecipe, train_base
from adapters.tiny.teacher import Teach, load_teacher
from adapters.tiny.tokenizer import train_tokenizer

SHARD_SIZE = "6MB"
"""Largest shard: small enough for plain git."""

NOTE = (
    "A small model of Phi-3's architecture, trained from scratch on this desk's texts, with MiniLM as the teacher of "
    "which questions mean the same. It cannot read a passage or chat about the world; its adapters answer what they "
    "were trained to answer."
)


def build_base(desk: Path, output: Path, recipe: BaseRecipe, threads: int, teach: Teach | None = None) -> BaseManifest:
    """Pre-trains on the desk in folder `desk` and writes model, tokenizer and base.json to `output`.

    `teach` is MiniLM unless given. Raises DatasetError when the desk has no corpus.
    """
    import torch
    from tqdm import tqdm

    torch.set_num_threads(threads)
    corpus = read_corpus(desk)
    tokenizer = train_tokenizer(corpus.texts, recipe.vocab_size)
    lessons = write_lessons(corpus, teach or load_teacher(), recipe.lessons, recipe.seed)
    with tqdm(total=recipe.steps, desc="pre-training", unit="step", file=sys.stderr) as bar:

        def report(step: int, figures: dict[str, float]) -> None:
            bar.update()
            if step % 10 == 0:
                bar.set_postfix({name: f"{value:.2f}" for name, value in figures.items()})

        model = train_base(corpus, lessons, tokenizer, recipe, report)
    return save_base(output, model, tokenizer, recipe, corpus.fingerprint)


def save_base(output: Path, model: Any, tokenizer: Any, recipe: BaseRecipe, corpus_hash: str) -> BaseManifest:
    """Writes the model in bf16; the folder `output` is replaced only when everything is written."""
    with replacing(output) as scratch:
        shape, weights = save_weights(scratch, model, tokenizer)
        manifest = BaseManifest(
            name="switchboard-tiny",
            parameters=count_weights(model),
            can_chat=False,
            can_read=False,
            window=recipe.window,
            config_hash=shape,
            weights_hash=weights,
            note=NOTE,
            created={"corpus_hash": corpus_hash, **asdict(recipe)},
        )
        write_manifest(scratch / "base.json", manifest)
        (scratch / CARD).write_text(base_card(manifest), encoding="utf-8")
        return manifest


def save_weights(folder: Path, model: Any, tokenizer: Any) -> tuple[str, str]:
    """Writes model and tokenizer to `folder`, in bf16; the hashes of their shape and of their weights."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config_hash(config), weights_hash(folder)
