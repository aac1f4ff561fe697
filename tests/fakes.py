"""Small real parts for tests: an embedder without a model, and hits made from plain text."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.chunk import sentences
from index.document import DESK_COLLECTION, Passage, ScoredPassage


class HashEmbedder:
    """Bag-of-words vectors by feature hashing: equal words give equal directions, on every machine."""

    name = "hash-256"
    dimension = 256

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.strip(".,?!:;()").encode()).digest()
                vectors[row, digest[0]] += 1.0 if digest[1] % 2 else -1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms == 0, 1, norms)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed(texts)


def hit(
    text: str, *, start: int = 0, page: int | None = None, path: str = "documents/a.md", similarity: float = 0.6
) -> ScoredPassage:
    """A search hit for a passage that stands at `start` in its document."""
    passage = Passage(
        id=f"{path}-{start}",
        document_id=f"id-{path}",
        ordinal=0,
        start=start,
        end=start + len(text),
        text=text,
        section="Section",
        page=page,
    )
    return ScoredPassage(
        passage=passage,
        path=path,
        title="A title",
        collection=DESK_COLLECTION,
        score=1.0,
        similarity=similarity,
        coverage=0.5,
        sentences=tuple(similarity for _ in sentences(text)),
    )
