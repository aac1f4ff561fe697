"""A desk's adapters on rows that training never saw, beside simpler ways to answer them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adapters.config import read_adapter_file
from adapters.dataset import Example, read_examples
from adapters.evaluate import answer_scores, field_scores, load_adapter
from app.assembly import Switchboard
from desk.desk_file import WorkflowFile
from evaluation.share import Share
from index.embed import Embedder


def measure_adapter(board: Switchboard, name: str) -> dict[str, Share]:
    """Exact answers on held-out phrasings: with the adapter, with it off, and MiniLM's nearest training question."""
    folder = board.desk.chains.adapter_folder / name
    held_out = read_examples(folder / "eval.jsonl")
    decoder = load_adapter(board.desk.adapters, name)
    most = read_adapter_file(folder / "adapter.yaml").training.max_tokens

    def exact(adapter: str | None) -> Share:
        return _of(answer_scores(decoder, adapter, held_out, most)["exact"], len(held_out))

    nearest = _nearest_examples(board.embedder, folder, held_out)
    near = sum(one.completion == row.completion for one, row in zip(nearest, held_out, strict=True))
    return {
        "with_adapter": exact(name),
        "adapter_off": exact(None),
        "nearest_neighbour": Share(near, len(held_out)),
    }


def measure_fields(board: Switchboard, name: str, workflow: WorkflowFile) -> dict[str, Share]:
    """Per field, the share filled right on tickets written apart, beside the tickets' own majority class and the
    value of MiniLM's nearest training ticket."""
    folder = board.desk.chains.adapter_folder / name
    held_out = read_examples(folder / "eval.jsonl")
    choices = {field: part.choices for field, part in workflow.fields.items()}
    scores = field_scores(load_adapter(board.desk.adapters, name), name, held_out, choices)
    nearest = _nearest_examples(board.embedder, folder, held_out)
    pairs = [
        (json.loads(one.completion), json.loads(row.completion)) for one, row in zip(nearest, held_out, strict=True)
    ]
    total = len(held_out)
    report = {}
    for field in workflow.fields:
        report[field] = _of(scores[field], total)
        report[f"{field}_majority"] = _of(scores[f"{field}_majority"], total)
        report[f"{field}_nearest"] = Share(sum(got[field] == right[field] for got, right in pairs), total)
    return report


def _nearest_examples(embedder: Embedder, folder: Path, asked: Sequence[Example]) -> list[Example]:
    """For each row the training example whose prompt is nearest by the embedding model."""
    train = read_examples(folder / "train.jsonl")
    similar = (
        embedder.embed_queries([row.prompt for row in asked]) @ embedder.embed_queries([row.prompt for row in train]).T
    )
    return [train[int(place)] for place in np.argmax(similar, axis=1)]


def _of(value: float, total: int) -> Share:
    return Share(round(value * total), total)
