"""Texts to a vector per token by all-MiniLM-L6-v2 with low-rank adaptations, on OpenVINO. Downloads nothing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.embed_minilm import (
    CONVERSION,
    FIRST_USE,
    MODEL_NAME,
    batches_by_length,
    compiled,
    converted,
    cut_to_fit,
    has_bfloat16,
    infer,
    load_bert,
    save_as_openvino,
    tokenizer,
)

LORA_SCALE = 2.0
"""What a product of two low-rank factors is multiplied by, in training and here."""
_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The tokens of a text: `vectors` (n, 384) float32 of length 1, and where each begins: `starts` (n,), code points.

    The first and the last mark start and end and begin at -1. What lies beyond 256 tokens is not read.
    """

    vectors: NDArray[np.float32]
    starts: NDArray[np.int64]


class TokenReader:
    """Reads texts token by token. Safe to use from many threads.

    `factors` are the adaptation by module name, "<module>.A" (in, r) and "<module>.B" (r, out). Passages are computed
    in bfloat16 where the processor has it, questions in float32. Raises EmbedderError where the weights are missing.
    """

    def __init__(self, models: Path, factors: Mapping[str, NDArray[np.float32]], threads: int = 2) -> None:
        digest = hashlib.sha256(b"".join(name.encode() + factors[name].tobytes() for name in sorted(factors)))
        name = f"tokens-{MODEL_NAME}-{digest.hexdigest()[:12]}-{CONVERSION}"
        path = converted(models, name, lambda target: _save(factors, target)) / "model.xml"
        self._tokenizer = tokenizer()
        self._exact = compiled(path, "f32", threads, streams=1)
        self._fast = compiled(path, "bf16", threads, streams=1) if has_bfloat16() else self._exact
        with FIRST_USE:
            self.read([""])

    def read(self, texts: Sequence[str], exact: bool = True) -> list[TokenVectors]:
        """Of each text its tokens, in order; `exact` is for questions."""
        encoded = self._tokenizer.encode_batch(list(texts))
        rows = [cut_to_fit(item.ids) for item in encoded]
        found: dict[int, TokenVectors] = {}
        for batch in batches_by_length(rows, _TOGETHER):
            states = infer([rows[place] for place in batch], self._exact if exact else self._fast)
            for place, vectors in zip(batch, states, strict=True):
                starts = np.array([start for start, _ in encoded[place].offsets[: len(rows[place])]], dtype=np.int64)
                starts[[0, -1]] = -1
                found[place] = TokenVectors(vectors[: len(starts)], starts)
        return [found[place] for place in range(len(texts))]


def _save(factors: Mapping[str, NDArray[np.float32]], target: Path) -> None:
    import torch

    bert = load_bert()
    for name in sorted({key.rpartition(".")[0] for key in factors}):
        module = bert.get_submodule(name)
        low, high = torch.tensor(factors[f"{name}.A"]), torch.tensor(factors[f"{name}.B"])
        with torch.no_grad():
            module.weight += (low @ high * LORA_SCALE).T

    class Tokens(torch.nn.Module):
        """The last layer's state of each token, scaled to length 1."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return torch.nn.functional.normalize(states, dim=-1)

    save_as_openvino(Tokens(), target)
