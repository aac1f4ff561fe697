"""What the router learns from: the desk's utterances, and their vectors."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chains.kept import Arrays, kept, kept_before
from chains.turn import Route
from desk.settings import ChainSettings

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

KIND = "utterances"
"""What the kept vectors are called."""
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
    """`(n, d)` unit vectors of the utterances; kept in `folder` under the hash of texts and embedder.

    When texts change, those that are new alone are embedded.
    """
    hashes = [hashlib.sha256(f"{embedder}\0{text}".encode()).hexdigest()[:32] for text in texts]

    def make() -> Arrays:
        before = kept_before(folder, KIND)
        known = dict(zip(before["hashes"].tolist(), before["vectors"], strict=True)) if "hashes" in before else {}
        new = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
        if new:
            known |= zip(new, embed(list(new.values())), strict=True)
        return {"vectors": np.stack([known[key] for key in hashes]), "hashes": np.array(hashes)}

    vectors: Vectors = kept(folder, KIND, "\n".join(hashes).encode(), make)["vectors"]
    return vectors
