"""How many tokens a second do several chats with several adapters get together?

    python benchmarks/serving.py            a Phi-3 of 16 million weights in fp32: eight chats over four adapters
    python benchmarks/serving.py --phi3     Phi-3-mini's own shape with random weights in nf4 (--bf16: in bf16)

Peers of the first, in the same run and in turns with ours, on the same weights: transformers' `generate` one chat after
the other with PEFT's `set_adapter`, and one batch with PEFT's `adapter_names`. Every answer is greedy, has the same
number of tokens, and is checked against the peer's. Prints a table and one JSON line.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from adapters.answer import Sampling, Step
from adapters.base import LoadedBase, quiet
from adapters.config import TARGET_MODULES, BaseManifest
from adapters.decode import Decoder, Row, new_row
from adapters.lora_batch import AdapterWeights, adapter_weights
from adapters.writing import write_answer

ROUNDS = 5
CHATS, ADAPTERS, TOKENS = 8, 4, 48
RANK = 16
SEED = 0
SMALL = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8,
         "num_key_value_heads": 8, "vocab_size": 4096, "max_position_embeddings": 1024}  # fmt: skip
MINI = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32064, "max_position_embeddings": 4096,
        "sliding_window": 2047}  # fmt: skip
"""Phi-3-mini-4k-instruct, by its config.json."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second of several chats with several adapters.")
    parser.add_argument("--phi3", action="store_true", help="Phi-3-mini's shape with random weights in nf4")
    parser.add_argument("--bf16", action="store_true", help="with --phi3: the weights in bf16")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet():
        found = real_shape(device, options.bf16) if options.phi3 else small_shape(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(json.dumps({"device": name, "threads": options.threads, **found}))


# What is measured


def small_shape(device: torch.device) -> dict[str, float]:
    """Ours and the peers on the small model."""
    model = new_model(SMALL, device, torch.float32)
    states = [lora_state(model, seed) for seed in range(ADAPTERS)]
    prompts = [torch.randint(10, SMALL["vocab_size"], (12 + 3 * chat,)).tolist() for chat in range(CHATS)]
    peft = with_peft(model, states)
    peers: dict[str, Callable[[], list[list[int]]]] = {
        "transformers, base": lambda: generate_batch(peft, prompts, None),
        "PEFT, one adapter": lambda: generate_batch(peft, prompts, ["a0"] * CHATS),
        "PEFT adapter_names": lambda: generate_batch(peft, prompts, [f"a{chat % ADAPTERS}" for chat in range(CHATS)]),
        "set_adapter one by one": lambda: one_by_one(peft, prompts),
    }
    wanted = {name: peer() for name, peer in peers.items()}
    decoder, adapters = ours(new_model(SMALL, device, torch.float32, model), states)
    own: dict[str, Callable[[], list[list[int]]]] = {
        "switchboard, base": lambda: batch(decoder, prompts, [None]),
        "switchboard, one adapter": lambda: batch(decoder, prompts, adapters[:1]),
        "switchboard, four adapters": lambda: batch(decoder, prompts, adapters),
    }
    for name, peer in zip(own, ("transformers, base", "PEFT, one adapter", "PEFT adapter_names"), strict=True):
        assert own[name]() == wanted[peer], f"{name} writes something else than {peer}"
    assert wanted["set_adapter one by one"] == wanted["PEFT adapter_names"]
    seconds = in_turns(own | peers, ROUNDS)
    for name, value in seconds.items():
        print(f"{name:28}{CHATS * TOKENS / value:10.0f} tokens/s")
    four = seconds["switchboard, four adapters"]
    return {
        "speedup_over_set_adapter": seconds["set_adapter one by one"] / four,
        "four_adapters_to_one": four / seconds["switchboard, one adapter"],
        "one_adapter_to_base": seconds["switchboard, one adapter"] / seconds["switchboard, base"],
        "peft_adapter_names_to_ours": seconds["PEFT adapter_names"] / four,
        "transformers_base_to_ours": seconds["transformers, base"] / seconds["switchboard, base"],
        **choice(decoder, adapters),
        **{name: CHATS * TOKENS / value for name, value in seconds.items()},
    }


def choice(decoder: Decoder, adapters: Sequence[AdapterWeights]) -> dict[str, float]:
    """Milliseconds to choose adapters for a batch anew, and to take a new one in beside a batch."""
    mixer = decoder._mixer
    chosen, taken = [], []
    for turn in range(50):
        rows = [adapters[(row + turn) % ADAPTERS] for row in range(CHATS)]
        began = time.perf_counter()
        mixer.choose(rows)
        chosen.append(time.perf_counter() - began)
    for _ in range(20):
        began = time.perf_counter()
        decoder.changes_answers(adapters[0])
        taken.append(time.perf_counter() - began)
    return {"choose_ms": median(chosen) * 1000, "take_in_ms": median(taken) * 1000}


def real_shape(device: torch.device, sixteen_bit: bool) -> dict[str, float]:
    """Decoding of one and four chats, base and mixed, and the first token after 1,000 tokens of prompt."""
    began = time.perf_counter()
    model = new_model(MINI, device, torch.bfloat16) if sixteen_bit else four_bit(MINI, device)
    print(f"made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    decoder, adapters = ours(model, [lora_state(model, seed) for seed in range(ADAPTERS)])
    short = [torch.randint(10, 30_000, (32,)).tolist() for _ in range(ADAPTERS)]
    long = torch.randint(10, 30_000, (1000,)).tolist()
    found: dict[str, float] = {}
    for name, count, chosen in (
        ("b1 base", 1, [None]),
        ("b1 adapter", 1, adapters[:1]),
        ("b4 base", 4, [None]),
        ("b4 one adapter", 4, adapters[:1]),
        ("b4 four adapters", 4, adapters),
    ):
        found[f"{name}, tokens/s"] = decode_rate(decoder, short[:count], chosen)
        print(f"{name:28}{found[f'{name}, tokens/s']:10.2f} tokens/s")
    began = time.perf_counter()
    batch(decoder, [long], adapters[:1], tokens=1)
    found["first token after 1,000, s"] = time.perf_counter() - began
    found["peak memory, GB"] = (
        torch.cuda.max_memory_allocated() / 1e9
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    )
    print(f"{'first token after 1,000':28}{found['first token after 1,000, s']:10.2f} s")
    return found


def decode_rate(decoder: Decoder, prompts: Sequence[list[int]], adapters: Sequence[AdapterWeights | None]) -> float:
    """Tokens a second of all rows together, once their prompts are read."""
    rows, _ = started(decoder, prompts, adapters, TOKENS)
    while any(len(row.tokens) <= len(prompt) for row, prompt in zip(rows, prompts, strict=True)):
        decoder.step()
    steps, began = 16, time.perf_counter()
    for _ in range(steps):
        decoder.step()
    rate = steps * len(rows) / (time.perf_counter() - began)
    for row in rows:
        decoder.leave(row)
    return rate


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; each has its turn in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}


# Ours


class Letters:
    """A tokenizer for random weights: they have no words, and what is measured is not how text is put together."""

    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        return "x"

    def __call__(self, *_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[11])

    def convert_ids_to_tokens(self, token: int) -> str:
        return str(token)

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(f"{token} " for token in tokens)


def ours(model: Any, states: Sequence[dict[str, torch.Tensor]]) -> tuple[Decoder, list[AdapterWeights]]:
    manifest = BaseManifest(name="random", parameters=0, can_chat=True, can_read=True, window=1 << 20, config_hash="")
    decoder = Decoder(LoadedBase(model, Letters(), manifest, "fp32"))
    return decoder, [adapter_weights(f"a{number}", 1, state, 2.0, decoder.like) for number, state in enumerate(states)]


def started(
    decoder: Decoder, prompts: Sequence[list[int]], adapters: Sequence[AdapterWeights | None], tokens: int
) -> tuple[list[Row], list[list[Step]]]:
    """Rows of the batch, and the lists that their steps go to."""
    rows, kept = [], []
    for number, prompt in enumerate(prompts):
        steps: list[Step] = []
        writing = write_answer(Letters(), prompt, tokens, set(), Sampling(), None, steps.append)
        row = new_row(writing, adapters[number % len(adapters)], len(prompt) + tokens)
        rows.append(row)
        kept.append(steps)
        decoder.join(row)
    return rows, kept


def batch(
    decoder: Decoder, prompts: Sequence[list[int]], adapters: Sequence[AdapterWeights | None], tokens: int = TOKENS
) -> list[list[int]]:
    """The tokens that each row writes."""
    rows, kept = started(decoder, prompts, adapters, tokens)
    decoder.run([], len(rows))
    return [[int(word) for step in steps for word in step.text.split()] for steps in kept]


# Models, adapters and the peers


def new_model(shape: dict[str, int], device: torch.device, dtype: torch.dtype, like: Any = None) -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(**shape, pad_token_id=0, bos_token_id=1, eos_token_id=None, tie_word_embeddings=shape is SMALL)
    model = Phi3ForCausalLM(config).to(device, dtype).eval().requires_grad_(False)
    if like is None:
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.05 if "embed" in name else 1.5 / weight.shape[1] ** 0.5)
    else:
        state = like.state_dict().items()
        model.load_state_dict({name.replace("base_layer.", ""): value for name, value in state if "lora_" not in name})
    return model


def four_bit(shape: dict[str, int], device: torch.device) -> Any:
    """Random weights in nf4 with double quantisation, made layer by layer: the whole in 16 bits need not fit."""
    import bitsandbytes as bnb
    from transformers import Phi3Config, Phi3ForCausalLM
    from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer

    config = Phi3Config(**shape, pad_token_id=0, bos_token_id=1, eos_token_id=None, tie_word_embeddings=False)
    layers, config.num_hidden_layers = config.num_hidden_layers, 0
    model = Phi3ForCausalLM(config).to(device, torch.bfloat16).eval()
    config.num_hidden_layers = layers
    for number in range(layers):
        layer = Phi3DecoderLayer(config, number).to(torch.bfloat16)
        for name, module in list(layer.named_modules()):
            parent, _, last = name.rpartition(".")
            if last in TARGET_MODULES:
                kind: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
                size = (module.in_features, module.out_features)
                linear = bnb.nn.Linear4bit(*size, bias=False, compute_dtype=torch.bfloat16, **kind)
                linear.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, **kind)
                setattr(layer.get_submodule(parent), last, linear.to(device))
        model.model.layers.append(layer.to(device).eval())
    return model.requires_grad_(False)


def lora_state(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """An adapter as PEFT would store it, with random weights large enough to change what is written."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in TARGET_MODULES:
            opening = f"base_model.model.{name}"
            a = torch.randn(RANK, module.in_features, generator=random)
            b = torch.randn(module.out_features, RANK, generator=random)
            state[f"{opening}.lora_A.weight"] = a / module.in_features**0.5
            state[f"{opening}.lora_B.weight"] = b * 0.1
    return state


def with_peft(model: Any, states: Sequence[dict[str, torch.Tensor]]) -> Any:
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=list(TARGET_MODULES), inference_mode=True
    )
    wrapped = PeftModel(model, config, adapter_name="a0")
    for number, state in enumerate(states):
        if number:
            wrapped.add_adapter(f"a{number}", config)
        set_peft_model_state_dict(wrapped, state, adapter_name=f"a{number}")
    return wrapped.eval()


def generate_batch(model: Any, prompts: Sequence[list[int]], names: Sequence[str] | None) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    arguments: dict[str, Any] = {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        if names is None:
            with model.disable_adapter():
                output = model.generate(input_ids=ids, attention_mask=mask, **arguments)
        elif len(set(names)) == 1:
            model.set_adapter(names[0])
            output = model.generate(input_ids=ids, attention_mask=mask, **arguments)
        else:
            output = model.generate(input_ids=ids, attention_mask=mask, adapter_names=list(names), **arguments)
    written: list[list[int]] = output[:, width:].tolist()
    return written


def one_by_one(model: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
    return [generate_batch(model, [prompt], [f"a{number % ADAPTERS}"])[0] for number, prompt in enumerate(prompts)]


if __name__ == "__main__":
    main()
