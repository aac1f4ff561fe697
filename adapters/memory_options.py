"""`python -m adapters memory`: its options, and what it prints. The estimate itself is memory.py's."""

import argparse
import json
from dataclasses import asdict

from adapters.memory import (
    GPU_SIZES,
    KNOWN,
    Part,
    Serving,
    Shape,
    Training,
    gpus_needed,
    serving_memory,
    shape_of,
    told,
    training_memory,
)
from desk.config import EMBEDDED_BASE


def memory_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"a folder with config.json, a hub id, or one of {', '.join(KNOWN)} (default: the desk's own base)",
    )
    parser.add_argument("--model", dest="named", metavar="MODEL", help="the same")
    parser.add_argument("--method", choices=("lora", "qlora", "full"), default="lora", help="default lora")
    parser.add_argument("--rank", type=_size, default=16, help="LoRA's rank (default 16)")
    parser.add_argument("--length", type=_size, default=1024, help="tokens a row, with its answer (default 1024)")
    parser.add_argument("--batch", type=_size, default=1, help="rows at a time on each device (default 1)")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="keep blocks' inputs alone, compute again"
    )
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="what is computed in")
    parser.add_argument("--cpu", action="store_true", help="on the processor: no CUDA, and dropout's masks are numbers")
    parser.add_argument("--serve", action="store_true", help="serving instead of training")
    parser.add_argument("--rows", type=_size, default=8, help="with --serve: answers side by side (default 8)")
    parser.add_argument("--adapters", type=_size, default=4, help="with --serve: adapters in memory (default 4)")
    parser.add_argument(
        "--gpus", type=_size, nargs="+", default=GPU_SIZES, metavar="GB", help="sizes of cards (default 24 40 80 141)"
    )


def tell_memory(options: argparse.Namespace, base: str) -> None:
    """Prints the estimate, of the desk's own `base` where no model is named. Raises BaseModelError."""
    model = options.model or options.named or base
    shape = shape_of(str(EMBEDDED_BASE) if model == "embedded" else model)
    parts = _parts(shape, options)
    if not options.json:
        print(told(shape, parts, () if options.cpu else options.gpus))
        return
    rows = [{"name": part.name, "bytes": part.count, "words": part.words, "shared": part.shared} for part in parts]
    row = {
        "type": "memory",
        "model": shape.name,
        "shape": asdict(shape),
        "weights": shape.weights,
        "purpose": "serving" if options.serve else "training",
        "parts": rows,
        "total_bytes": sum(part.count for part in parts),
        "gpus": {} if options.cpu else {str(size): gpus_needed(parts, size) for size in options.gpus},
    }
    print(json.dumps(row))


def _parts(shape: Shape, options: argparse.Namespace) -> tuple[Part, ...]:
    if options.serve:
        plan = Serving(
            method=options.method,
            rank=options.rank,
            length=options.length,
            rows=options.rows,
            adapters=options.adapters,
            precision=options.precision,
            on_cpu=options.cpu,
        )
        return serving_memory(shape, plan)
    return training_memory(
        shape,
        Training(
            method=options.method,
            rank=options.rank,
            length=options.length,
            batch=options.batch,
            checkpointing=options.gradient_checkpointing,
            precision=options.precision,
            on_cpu=options.cpu,
        ),
    )


def _size(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return size
