"""Does the estimate of training's memory hold? Trains small Phi-3 models for a few steps and reads their peak.

    python benchmarks/memory.py            the table, and one JSON line
    python benchmarks/memory.py CASE...    only these

On a CPU the peak is resident memory above what was there before the model was made, of a process of its own for each
case, with an allocator that gives back at once what is freed (MALLOC_MMAP_THRESHOLD_). On a GPU it is
`torch.cuda.max_memory_allocated`, which knows nothing of CUDA's context.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.memory import CUDA_BYTES, Shape, Training, training_memory

BATCHES = (1, 2)
"""Of each step of the optimizer. At the last one's peak AdamW's moments are there, and the gradients of the one before
it."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
DROPOUT = 0.1
"""That of the recipe for adapters."""
WARM = Shape("warm", 64, 64, 64, 1, 2, 2, 32, tied=True, fused=True)
"""Trained first, so that the code that torch loads when it is needed is there before a peak is read: 60 MB."""

SMALL = Shape("1.6M", 1024, 128, 352, 8, 4, 4, 32, tied=True, fused=True)
TINY = Shape("6.2M", 4096, 256, 704, 6, 8, 8, 32, tied=True, fused=True)
WIDE = Shape("17M", 4096, 384, 1024, 8, 8, 8, 48, tied=False, fused=True)
GROUPED = Shape("43M, grouped keys", 4096, 768, 2048, 6, 12, 4, 64, tied=False, fused=True)


@dataclass(frozen=True, slots=True)
class Case:
    shape: Shape
    plan: Training


CASES = {
    "small-lora": Case(SMALL, Training("lora", 16, 128, 16, precision="fp32")),
    "small-full": Case(SMALL, Training("full", 0, 128, 16, precision="fp32")),
    "tiny-lora": Case(TINY, Training("lora", 32, 128, 8, precision="fp32")),
    "tiny-lora-checkpointing": Case(TINY, Training("lora", 32, 128, 8, True, precision="fp32")),
    "tiny-qlora": Case(TINY, Training("qlora", 32, 128, 8)),
    "tiny-full": Case(TINY, Training("full", 0, 128, 8, precision="fp32")),
    "wide-lora": Case(WIDE, Training("lora", 16, 256, 2, precision="fp32")),
    "wide-lora-checkpointing": Case(WIDE, Training("lora", 16, 256, 2, True, precision="fp32")),
    "wide-lora-bf16": Case(WIDE, Training("lora", 16, 256, 2)),
    "wide-qlora": Case(WIDE, Training("qlora", 16, 256, 2)),
    "wide-qlora-checkpointing": Case(WIDE, Training("qlora", 16, 256, 2, True)),
    "wide-full": Case(WIDE, Training("full", 0, 256, 2, precision="fp32")),
    "wide-full-checkpointing": Case(WIDE, Training("full", 0, 256, 2, True, precision="fp32")),
    "grouped-lora": Case(GROUPED, Training("lora", 16, 256, 2, precision="fp32")),
    "grouped-qlora": Case(GROUPED, Training("qlora", 16, 256, 2)),
    "grouped-full": Case(GROUPED, Training("full", 0, 256, 2, precision="fp32")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of training, estimated and measured.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--cpu", action="store_true", help="on the processor, where there is a GPU too")
    options = parser.parse_args()
    wanted = options.cases or list(CASES)
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # glibc reads these before a program's first line.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        import_all()
    gpu = torch.cuda.is_available() and not options.cpu
    rows = []
    print(f"{'case':26}{'weights':>10}{'estimated':>12}{'measured':>12}   estimated / measured")
    for name in wanted:
        case = CASES[name]
        estimated = estimate(case, gpu)
        measured = peak_on_gpu(case) if gpu else peak_of_child(case)
        rows.append({"case": name, "estimated": estimated, "measured": measured})
        share = f"{estimated / measured:.2f}"
        sizes = f"{case.shape.weights / 1e6:9.1f}M{estimated / 1e6:9.1f} MB{measured / 1e6:9.1f} MB"
        print(f"{name:26}{sizes}   {share}", flush=True)
    print(json.dumps({"device": "cuda" if gpu else "cpu", "cases": rows}))


def import_all() -> None:
    """Everything that training imports, so that it is there before a peak is read."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch
    from transformers import Phi3ForCausalLM  # noqa: F401

    torch.set_num_threads(1)


def estimate(case: Case, gpu: bool) -> int:
    parts = training_memory(case.shape, replace(case.plan, on_cpu=not gpu))
    return sum(part.count for part in parts) - (CUDA_BYTES if gpu else 0)


def peak_of_child(case: Case) -> int:
    """Bytes by which a process forked from this one grows when it trains."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            warnings.simplefilter("ignore")
            train(replace(case, shape=WARM, plan=replace(case.plan, batch=1, length=8)), "cpu")
            before = resident()
            train(case, "cpu")
            # A child's maximum begins with what it shares with its parent.
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            os.write(writer, str(grown).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        grown_text = told.read()
    os.waitpid(child, 0)
    if not grown_text:
        raise SystemExit(f"Training {case.shape.name} failed: see above.")
    return int(grown_text)


def resident() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_on_gpu(case: Case) -> int:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(case, "cuda")
    return torch.cuda.max_memory_allocated() - before


def train(case: Case, device: str) -> None:
    """A few steps on random tokens, with a real Phi-3 of the case's shape."""
    import torch

    torch.manual_seed(1)
    plan = case.plan
    model = new_model(case, device)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    for batches in BATCHES:
        for _ in range(batches):
            ids = torch.randint(3, case.shape.vocab, (plan.batch, plan.length), device=device)
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def new_model(case: Case, device: str) -> Any:
    """The case's model in training mode: in nf4 where QLoRA trains it, with LoRA on every projection unless whole."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    shape, plan = case.shape, case.plan
    config = Phi3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=1024,
        original_max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.set_default_dtype(torch.float32 if plan.precision == "fp32" else torch.bfloat16)
    model = Phi3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if plan.method == "qlora":
        quantise(model, torch.bfloat16)
    model = model.to(device)
    if plan.method != "full":
        from peft import LoraConfig, get_peft_model

        from adapters.config import TARGET_MODULES

        model.requires_grad_(False)
        lora = LoraConfig(r=plan.rank, lora_dropout=DROPOUT, target_modules=list(TARGET_MODULES))
        model = get_peft_model(model, lora)
    if plan.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def quantise(model: Any, dtype: Any) -> None:
    """Puts nf4 with double quantisation in place of every projection, one at a time."""
    import bitsandbytes as bnb
    from torch import nn

    for parent in [module for module in model.model.layers.modules() if not isinstance(module, nn.Linear)]:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                packed = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, quant_type="nf4"
                )
                weight = layer.weight.data
                packed.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
                # Such weights are packed anew before a forward pass, and a backward pass reads them wrongly then.
                packed.support_avx512bf16_for_cpu = False
                setattr(parent, name, packed.to(weight.device))


if __name__ == "__main__":
    main()
