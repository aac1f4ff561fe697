"""A second look at the best hits by a model that reads question and passage together. Optional; downloads nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.document import ScoredPassage
from index.errors import EmbedderError
from index.rank import falling

RERANKED = 20
"""How many hits are read anew: a cross-encoder reads each with the question, so this is what it costs."""


class Reranker(Protocol):
    """Anything that judges how well texts answer a question."""

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) float32 in [0, 1], higher is better, in the order of `texts`."""
        ...


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder with one output, from a folder or the local cache.

    Raises EmbedderError if there is none of that name here, or one with several outputs.
    """

    def __init__(self, name: str) -> None:
        from sentence_transformers import CrossEncoder

        try:
            self._model: Any = CrossEncoder(name, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise EmbedderError(
                f"There is no cross-encoder {name} on this machine ({str(error)[:120]}): fetch it once, or give "
                "its folder."
            ) from None
        outputs = int(self._model.num_labels)
        if outputs != 1:
            raise EmbedderError(f"{name} has {outputs} outputs: a reranker has one, how well the passage answers.")

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        if not texts:
            return np.empty(0, dtype=np.float32)
        values = self._model.predict(
            [(question, text) for text in texts], activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
        )
        return np.asarray(values, dtype=np.float32)


def rerank(hits: Sequence[ScoredPassage], question: str, reranker: Reranker, n: int = RERANKED) -> list[ScoredPassage]:
    """The first `n` hits in the reranker's order and with its scores, then the others; scores always fall."""
    read = hits[:n]
    values = reranker.score(question, [f"{hit.title}\n{hit.passage.section}\n{hit.passage.text}" for hit in read])
    scored = [replace(hit, score=float(value)) for hit, value in zip(read, values, strict=True)]
    return falling([*sorted(scored, key=lambda hit: -hit.score), *hits[n:]])
