"""Texts to unit vectors by any model that sentence-transformers reads. Runs no code that comes with a model."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embed_minilm import quiet
from index.errors import EmbedderError

_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""What of a model is downloaded and hashed: weights, settings, vocabulary. Pickled weights and code are none of it."""


class SentenceTransformerEmbedder:
    """A sentence-transformers model from a folder or the hub, with the prompts that it brings.

    The name holds a hash of the model's files: other weights are another model, whatever they are called.
    Raises EmbedderError if the model is not on this machine (and may not be downloaded) or cannot be read.
    """

    def __init__(self, model: str, download: bool = False) -> None:
        folder = _folder(model, download)
        if not any(folder.rglob("*.safetensors")):
            raise EmbedderError(
                f"The embedding model {model} has no weights in safetensors in {folder}, and pickled ones "
                "are not read: save it with a current sentence-transformers, or choose another (index.embedder.model)."
            )
        self._shown = model
        self._name = f"{_short(model)}@{_content_hash(folder)[:12]}"
        self._lock = threading.Lock()  # its tokenizer keeps the padding of the call in progress
        self._model = _load(model, folder)
        self._dimension = int(self._model.get_embedding_dimension() or 0)
        if not self._dimension:
            self._dimension = int(self._model.encode(["dimension"], show_progress_bar=False).shape[1])

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, rows of length 1; with the model's prompt for documents, where it has one."""
        return self._encode(self._model.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, rows of length 1; with the model's prompt for queries, where it has one."""
        return self._encode(self._model.encode_query, texts)

    def _encode(self, encode: Callable[..., Any], texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        with self._lock:
            rows = encode(list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        vectors = np.asarray(rows, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise EmbedderError(
                f"The embedding model {self._shown} gives vectors that are no numbers: its weights are damaged."
            )
        return vectors


def _folder(model: str, download: bool) -> Path:
    """The model's files: the folder itself, or the hub's copy on this machine."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [pattern for name in _FILES for pattern in (name, f"*/{name}")]
    try:
        return Path(snapshot_download(model, local_files_only=not download, allow_patterns=patterns))
    except LocalEntryNotFoundError:
        advice = "check the network" if download else "set index.embedder.download to true, or copy the model here"
        raise EmbedderError(
            f"The embedding model {model} is not on this machine: {advice} and give its folder (index.embedder.model)."
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EmbedderError(
            f"The embedding model {model} could not be downloaded ({type(error).__name__}): check its name "
            "(index.embedder.model) and the network."
        ) from None


def _load(model: str, folder: Path) -> Any:
    try:
        with quiet():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:
        raise EmbedderError(
            f"The embedding model {model} in {folder} cannot be read ({type(error).__name__}: {str(error)[:200]}). "
            "It must be a sentence-transformers model that needs no code of its own (index.embedder.model)."
        ) from None


def _short(model: str) -> str:
    """An id of the hub as it is, a folder by its last part: the same model elsewhere keeps its name."""
    return Path(model).name if Path(model).is_dir() else model


def _content_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the model's files."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in folder.rglob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()
