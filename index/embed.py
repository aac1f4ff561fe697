"""What turns texts into vectors: the contract, and the choice that desk.yaml makes. Each kind is a file of its own."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from desk.index_file import SentenceTransformersSettings
from desk.settings import IndexSettings
from index.embed_minilm import MODEL_NAME, MiniLM, check_weights, model_folder, token_counter


class Embedder(Protocol):
    """Anything that turns texts into unit vectors. Safe to use from many threads.

    A library holds vectors of one `name` only: it changes with whatever changes the vectors.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, rows of length 1, in the order of `texts`: what documents say.

        Raises EmbedderError where the model cannot be had.
        """
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for what people ask: some models put another prompt before a question than before a passage."""
        ...


def open_embedder(settings: IndexSettings) -> Embedder:
    """The embedder that the desk chose. Raises EmbedderError where it is missing or does not answer."""
    chosen = settings.embedder
    if chosen is None:
        return MiniLM(settings.models, settings.threads)
    if isinstance(chosen, SentenceTransformersSettings):
        from index.embed_sentence_transformers import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(chosen.model, chosen.download)
    from index.embed_openai import OpenAIEmbedder

    return OpenAIEmbedder(
        url=chosen.url,
        model=chosen.model,
        key=chosen.key,
        dimensions=chosen.dimensions,
        batch=chosen.batch,
        tokens=chosen.tokens,
        query_task=chosen.query_task,
        passage_task=chosen.passage_task,
    )


__all__ = ["MODEL_NAME", "Embedder", "MiniLM", "check_weights", "model_folder", "open_embedder", "token_counter"]
