"""How fast is the recipe beside plain TRL? LoRA on the same rows of very different lengths, each in its own process.

    python benchmarks/training.py            the embedded base, on the processor or the GPU
    python benchmarks/training.py --phi3     Phi-3-mini's shape with random weights in nf4: for a GPU
    python benchmarks/training.py --ours packing=true gradient_checkpointing=true     with values of the recipe changed

Both take each row once, whole, in batches of 8 (TRL's default). Tokens per second count tokens of rows, not padding.
The peers: SFTTrainer as it comes (checkpointing, bf16 autocast, random batches), and the same with our precision and
without checkpointing, which leaves the order of rows alone as the difference. Adapters and optimizer are the same.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from serving import MINI, four_bit

from adapters.base import load_base
from adapters.config import TrainingSettings
from adapters.dataset import token_rows
from adapters.rows import Example
from adapters.train import attach_lora, run_sft
from desk.config import DEFAULT_DESK, EMBEDDED_BASE

ROWS, BATCH = 256, 8
CASES = ("ours", "trl", "trl, our precision")


def main() -> None:
    parser = argparse.ArgumentParser(description="The recipe's speed beside plain TRL.")
    parser.add_argument("--phi3", action="store_true", help="Phi-3-mini's shape, random weights, nf4")
    parser.add_argument("--layers", type=int, help="with --phi3: so many of its 32 layers, for a first try")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows to train on (default {ROWS})")
    parser.add_argument("--ours", nargs="*", default=[], metavar="KEY=VALUE", help="other values of the recipe")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    found = {}
    for case in CASES:
        child = [sys.executable, __file__, *sys.argv[1:], "--case", case]
        out = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ}).stdout
        found[case] = json.loads(out.splitlines()[-1])
        print(f"{case:20} {found[case]['tokens_per_s']:9,.0f} tokens/s  {found[case]['peak_mb']:9,.0f} MB", flush=True)
    ratios = {f"ours / {case}": found["ours"]["tokens_per_s"] / found[case]["tokens_per_s"] for case in CASES[1:]}
    print(json.dumps({**found, **{name: round(ratio, 2) for name, ratio in ratios.items()}}))


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second, without the start, and the process's peak memory in MB (on a GPU: the allocator's)."""
    import torch

    base = load_base(str(EMBEDDED_BASE))
    if options.phi3:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shape = {**MINI, "num_hidden_layers": options.layers or MINI["num_hidden_layers"]}
        base = replace(base, model=four_bit(shape, device), quantization="nf4")
    changed = dict(one.split("=", 1) for one in options.ours) if case == "ours" else {}
    plain = {"epochs": 1, "noise": 0, "full_answers": 1, "validation": 0, "max_tokens": 1024}
    settings = TrainingSettings.model_validate({**plain, "batch_size": BATCH, "r": 16, **changed})
    examples = rows(options.rows)
    model = attach_lora(base.model, settings)
    tokens = sum(len(one.input_ids) for one in token_rows(examples, base.tokenizer, settings))
    with tempfile.TemporaryDirectory() as folder:
        if case == "ours":
            seconds = ours(model, base.tokenizer, examples, settings, Path(folder))
        else:
            seconds = trl(model, base.tokenizer, examples, folder, plain=case == "trl")
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e6
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"tokens": tokens, "seconds": round(seconds, 2), "tokens_per_s": tokens / seconds, "peak_mb": peak}


def ours(model: Any, tokenizer: Any, examples: Sequence[Example], settings: TrainingSettings, folder: Path) -> float:
    run_sft(model, tokenizer, examples[:BATCH], settings, folder / "warm")
    began = time.perf_counter()
    run_sft(model, tokenizer, examples, settings, folder / "run")
    return time.perf_counter() - began


def trl(model: Any, tokenizer: Any, examples: Sequence[Example], folder: str, *, plain: bool) -> float:
    import torch
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    cpu = not torch.cuda.is_available()
    own = {} if plain else {"gradient_checkpointing": False, "bf16": not cpu}
    args = SFTConfig(
        output_dir=folder,
        num_train_epochs=1,
        learning_rate=3e-3,
        report_to="none",
        disable_tqdm=True,
        use_cpu=cpu,
        save_strategy="no",
        **own,
    )
    pairs = [
        {
            "prompt": [{"role": "user", "content": one.prompt}],
            "completion": [{"role": "assistant", "content": one.completion}],
        }
        for one in examples
    ]
    trainer = [
        SFTTrainer(model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(own), args=args)
        for own in (pairs[:BATCH], pairs)
    ]
    trainer[0].train()
    began = time.perf_counter()
    trainer[1].train()
    return time.perf_counter() - began


def rows(count: int) -> list[Example]:
    """Questions with answers of 1 to 24 sentences of the sample desk's documents, short ones most."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((DEFAULT_DESK / "documents").rglob("*.md"))]
    sentences = [
        one for text in texts for one in re.split(r"(?<=[.!?])\s+", re.sub(r"[#*|`]", "", text)) if one.strip()
    ]
    chance = random.Random(7)
    found = []
    for number in range(count):
        length = min(24, 1 + int(chance.expovariate(1 / 5)))
        at = chance.randrange(len(sentences) - length)
        found.append(Example(f"{number}: {sentences[at][:60]}?", " ".join(sentences[at : at + length])))
    return found


if __name__ == "__main__":
    main()
