"""How much memory training or serving a model takes, estimated part by part from its shape alone; loads no weights.

What a backward pass keeps was counted from transformers' Phi-3 with `scaled_dot_product_attention` and PEFT's LoRA, as
Korthikanti et al. 2022 (arXiv:2205.05198, section 4) count it for GPT. `benchmarks/memory.py` checks it by measuring.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.errors import BaseModelError

Method = Literal["lora", "qlora", "full"]
Precision = Literal["bf16", "fp32"]

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in nf4 with double quantisation: 4 bits, for 64 weights a constant of 8 bits, and for 256 of those
one of 32 (Dettmers et al. 2023, arXiv:2305.14314, section 3)."""
ADAM_BYTES = 8
"""AdamW's two moments in fp32. With bf16 weights an fp32 copy of them joins (Rajbhandari et al. 2020, arXiv:1910.02054,
section 3.1: 16 bytes a weight in all)."""
CUDA_BYTES = 800_000_000
"""CUDA's context with the kernels and work space of cuBLAS, which are there before the first tensor: 0.5 to 1 GB."""
GPU_SIZES = (24, 40, 80, 141)
"""What cards are sold with: RTX 4090, A100 40, A100 and H100 80, H200."""
USABLE = 0.97
"""Of a card's GiB the share that programs get: 39.4 of an A100's 40, 79.1 of an H100's 80."""
MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its memory. `head` is the width of one attention head; `fused` says that query, key and
    value are one projection, and gate and up one (Phi-3), which makes LoRA on them smaller than on five (Llama)."""

    name: str
    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    tied: bool
    fused: bool

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each linear layer of a block."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        output, down = (query, self.hidden), (self.inner, self.hidden)
        if self.fused:
            return (self.hidden, query + 2 * key), output, (self.hidden, 2 * self.inner), down
        attention = ((self.hidden, query), (self.hidden, key), (self.hidden, key), output)
        return *attention, (self.hidden, self.inner), (self.hidden, self.inner), down

    @property
    def linear_weights(self) -> int:
        """Weights of all blocks' projections: those that nf4 quantises."""
        return self.layers * sum(a * b for a, b in self.projections)

    @property
    def other_weights(self) -> int:
        """Embeddings, the head unless it is the embeddings, and norms: these stay in 16 or 32 bits."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def weights(self) -> int:
        return self.linear_weights + self.other_weights

    def adapter_weights(self, rank: int) -> int:
        """Of LoRA on every projection: A is (rank, in), B is (out, rank) (Hu et al. 2021, arXiv:2106.09685)."""
        return self.layers * rank * sum(a + b for a, b in self.projections)


def _shape(name: str, sizes: tuple[int, int, int, int, int, int, int], tied: bool, fused: bool) -> Shape:
    return Shape(name, *sizes, tied, fused)


KNOWN = {
    shape.name: shape
    for shape in (
        _shape("Phi-3-mini", (32_064, 3072, 8192, 32, 32, 32, 96), tied=False, fused=True),
        _shape("Phi-3-medium", (32_064, 5120, 17_920, 40, 40, 10, 128), tied=False, fused=True),
        _shape("Phi-3.5-mini", (32_064, 3072, 8192, 32, 32, 32, 96), tied=False, fused=True),
        _shape("Phi-4-mini", (200_064, 3072, 8192, 32, 24, 8, 128), tied=True, fused=True),
        _shape("Llama-3-8B", (128_256, 4096, 14_336, 32, 32, 8, 128), tied=False, fused=False),
        _shape("Llama-3-70B", (128_256, 8192, 28_672, 80, 64, 8, 128), tied=False, fused=False),
    )
}
"""Shapes by the models' public config.json, so that they can be asked about without a download."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is to be trained: `batch` rows of `length` tokens at a time on each device.

    `precision` is that of the base's weights and of what is computed (of nf4: of what is not quantised); LoRA's own
    weights are fp32, as PEFT makes them. `on_cpu` counts what torch does without CUDA.
    """

    method: Method
    rank: int = 32
    length: int = 256
    batch: int = 32
    checkpointing: bool = False
    precision: Precision = "bf16"
    on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is to be served: `rows` answers side by side, each up to `length` tokens with its prompt."""

    method: Method
    rank: int = 32
    length: int = 4096
    rows: int = 8
    adapters: int = 4
    precision: Precision = "bf16"
    on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """`count` bytes of one kind and what they are, in words. What is `shared` is divided among several GPUs (fully
    sharded, as by FSDP or ZeRO-3); every GPU holds the rest itself, a batch of its own with it."""

    name: str
    count: int
    words: str
    shared: bool


def shape_of(model: str) -> Shape:
    """The shape of a known model, of a folder with config.json, or of a model on the hub.

    Raises BaseModelError in a sentence where there is none.
    """
    wanted = model.rpartition("/")[2].casefold()
    for name in sorted(KNOWN, key=len, reverse=True):
        # A hub id says more than the shape's name: Phi-3-mini-4k-instruct, Meta-Llama-3-8B-Instruct.
        if not Path(model).is_dir() and wanted.removeprefix("meta-").startswith(name.casefold()):
            return KNOWN[name]
    folder = Path(model)
    if folder.is_dir():
        return _from_config(model, _read(folder / "config.json"))
    from transformers import AutoConfig

    try:
        return _from_config(model, AutoConfig.from_pretrained(model, trust_remote_code=False).to_dict())
    except BaseModelError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BaseModelError(
            f"{model} is no folder and its config.json cannot be had from the hub ({reason}): name a folder with "
            f"config.json, or one of {', '.join(KNOWN)}."
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(f"{path.parent} holds no model: config.json is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BaseModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} is no model's config.json: it holds no object.")
    return config


def _from_config(name: str, config: dict[str, Any]) -> Shape:
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        shape = Shape(
            name=name,
            vocab=int(config["vocab_size"]),
            hidden=hidden,
            inner=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or hidden // heads),
            tied=bool(config.get("tie_word_embeddings")),
            fused=config.get("model_type") == "phi3",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BaseModelError(
            f"config.json of {name} says too little of its shape ({error!r}): this estimates models built like Phi-3 "
            "and Llama."
        ) from None
    if min(shape.vocab, hidden, shape.inner, shape.layers, heads, shape.kv_heads, shape.head) < 1:
        raise BaseModelError(f"config.json of {name} has a size below 1: fetch the model again.")
    return shape


def training_memory(shape: Shape, plan: Training) -> tuple[Part, ...]:
    """The parts of the peak, which is when a pass forward has just been scored.

    Gradients count as if they were all there by then, which they are where they are summed over several batches.
    """
    width = _bytes(plan.precision)
    adapter = 0 if plan.method == "full" else shape.adapter_weights(plan.rank)
    learning = shape.weights if plan.method == "full" else adapter
    # Weights that are trained in bf16 have an fp32 copy, and gradients in bf16; LoRA's are fp32 throughout.
    mixed = plan.method == "full" and plan.precision == "bf16"
    tokens = plan.batch * plan.length
    a_layer = _kept_of_a_layer(shape, plan)
    kept = shape.layers * width * shape.hidden + a_layer if plan.checkpointing else shape.layers * a_layer
    how = "the input of every block, and one block whole" if plan.checkpointing else "what every block keeps"
    parts = [
        _base_part(shape, plan.method, plan.precision),
        Part("adapter weights", 4 * adapter, f"LoRA of rank {plan.rank} on every projection, in fp32", True),
        Part("gradients", (2 if mixed else 4) * learning, f"of {_millions(learning)} trained weights", True),
        Part(
            "optimizer states",
            (ADAM_BYTES + (4 if mixed else 0)) * learning,
            "AdamW's two moments in fp32" + (" and an fp32 copy of the weights" if mixed else ""),
            True,
        ),
        Part("activations", tokens * kept, f"{how} of {plan.batch} x {plan.length:,} tokens for the way back", False),
        Part(
            "logits",
            # Scores as computed, an fp32 copy unless they are, and the log-softmax; on the way back its gradient.
            tokens * shape.vocab * (8 if plan.precision == "fp32" else 10),
            f"a score for each of {shape.vocab:,} tokens at every place, and their log-softmax",
            False,
        ),
        _overhead(shape, plan, tokens * 2 * width * shape.inner),
    ]
    return tuple(part for part in parts if part.count)


def serving_memory(shape: Shape, plan: Serving) -> tuple[Part, ...]:
    """The parts of serving at its fullest: all rows at their whole length, all adapters in memory.

    Keys and values are 2 x layers x key heads x head width for each token (Kwon et al. 2023, arXiv:2309.06180, section
    3); a sliding window is not taken off, since rows are kept whole.
    """
    width = _bytes(plan.precision)
    cache = 2 * shape.layers * shape.kv_heads * shape.head * width * plan.rows * plan.length
    adapters = plan.adapters * shape.adapter_weights(plan.rank) * width
    parts = [
        _base_part(shape, plan.method, plan.precision),
        Part("adapters", adapters, f"{plan.adapters} LoRA adapters of rank {plan.rank} in {plan.precision}", True),
        Part("key-value cache", cache, f"{plan.rows} rows of {plan.length:,} tokens", True),
        Part("logits", plan.rows * shape.vocab * (width + 4), "the scores of each row's next token", False),
        _overhead(shape, plan, plan.length * width * (2 * shape.inner + 3 * shape.hidden)),
    ]
    return tuple(part for part in parts if part.count)


def gpus_needed(parts: Sequence[Part], size_gb: int) -> int | None:
    """How many cards of `size_gb` it takes; None where what each must hold alone does not fit on one."""
    room = USABLE * size_gb * 2**30
    shared = sum(part.count for part in parts if part.shared)
    own = sum(part.count for part in parts if not part.shared)
    if own >= room:
        return None
    needed = max(1, math.ceil(shared / (room - own)))
    return needed if needed <= MOST_GPUS else None


def told(shape: Shape, parts: Sequence[Part], sizes: Sequence[int]) -> str:
    """The estimate as a table, and the cards it takes in words."""
    total = sum(part.count for part in parts)
    lines = [f"{shape.name}: {_millions(shape.weights)} weights"]
    lines += [f"{part.count / 1e9:10,.3f} GB  {part.name:17} {part.words}" for part in parts]
    lines.append(f"{total / 1e9:10,.3f} GB  together, at the peak")
    for size in sizes:
        number = gpus_needed(parts, size)
        cards = f"{number} x {size} GB" if number else f"none of {size} GB: "
        more = "" if number else "batch or length has to be smaller, or --gradient-checkpointing set"
        lines.append(f"GPUs: {cards}{more}")
    return "\n".join(lines)


def _kept_of_a_layer(shape: Shape, plan: Training) -> int:
    """Bytes that one block keeps of each token for the way back.

    Always: both norms' inputs (fp32), the projected query, key and value as one tensor, query and key after rotation,
    the attention's output, gate, up and the gate's SiLU. Trained whole, a norm also keeps what it scales, and a
    projection its input. LoRA keeps the fp32 input of each A after dropout, the dropout's mask (a byte each on a GPU, a
    number each without), and A's output. Under autocast A's input is bf16, so that this counts too much then.
    """
    width = _bytes(plan.precision)
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    always = 4 * 2 * shape.hidden + width * ((query + 2 * key) + (query + key) + query + 3 * shape.inner)
    if plan.method == "full":
        return always + width * (2 * shape.hidden + 2 * shape.hidden + shape.inner)
    inputs = sum(into for into, _ in shape.projections)
    mask = 4 if plan.on_cpu else 1
    return always + (4 + mask) * inputs + 4 * plan.rank * len(shape.projections)


def _base_part(shape: Shape, method: Method, precision: Precision) -> Part:
    width = _bytes(precision)
    if method != "qlora":
        return Part("weights", width * shape.weights, f"{_millions(shape.weights)} in {precision}", True)
    count = round(NF4_BYTES * shape.linear_weights) + width * shape.other_weights
    words = f"{_millions(shape.linear_weights)} in nf4, {_millions(shape.other_weights)} in {precision}"
    return Part("weights", count, words, True)


def _overhead(shape: Shape, plan: Training | Serving, passing: int) -> Part:
    """What is there for a moment, and CUDA's own; with nf4 the largest matrix as the pass takes it apart."""
    largest = max(a * b for a, b in shape.projections) * _bytes(plan.precision) if plan.method == "qlora" else 0
    context = 0 if plan.on_cpu else CUDA_BYTES
    words = "what passes through one block" + ("" if plan.on_cpu else ", CUDA's context")
    return Part("overhead", passing + largest + context, words, False)


def _bytes(precision: Precision) -> int:
    return 4 if precision == "fp32" else 2


def _millions(count: int) -> str:
    return f"{count / 1e9:,.2f}B" if count >= 1e9 else f"{count / 1e6:,.2f}M"
