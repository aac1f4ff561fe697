"""What the router learns from: the desk's utterances, and their vectors."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chains.kept import kept
from chains.turn import Route
from desk.config import ChainSettings

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

MOST_QUESTIONS = 1000
"""About how many of an adapter's training questions are examples, evenly over the file: each is embedded once."""


@dataclass(frozen=True, slots=True)
class Label:
    """What an utterance is an example of."""

    route: Route
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Utterances:
    texts: tuple[str, ...]
    labels: tuple[Label, ...]


def gather_utterances(settings: ChainSettings, questions: dict[str, tuple[str, ...]]) -> Utterances:
    """The desk's utterances; `questions` are each adapter's own training questions."""
    texts: list[str] = []
    labels: list[Label] = []

    def add(label: Label, rows: Sequence[str]) -> None:
        texts.extend(rows)
        labels.extend([label] * len(rows))

    add(Label(Route.RETRIEVAL), settings.routes.retrieval)
    for name, own in questions.items():
        step = max(1, len(own) // MOST_QUESTIONS)
        add(Label(Route.ADAPTER, name), (*settings.routes.adapters.get(name, ()), *own[::step]))
    for name, rows in settings.routes.workflows.items():
        add(Label(Route.BOTH, name), rows)
    add(Label(Route.NONE), settings.routes.out_of_scope)
    return Utterances(tuple(texts), tuple(labels))


def cached_vectors(texts: Sequence[str], embed: Embed, embedder: str, folder: Path) -> Vectors:
    """`(n, d)` unit vectors of the utterances; kept in `folder` under the hash of texts and embedder."""
    made_from = json.dumps([embedder, list(texts)]).encode()
    vectors: Vectors = kept(folder, "utterances", made_from, lambda: {"vectors": embed(texts)})["vectors"]
    return vectors
