"""How long does an adapter take to be read, checked and taken in, and what does a stream beside it notice?

    python benchmarks/hot_load.py

The embedded base serves one adapter without a pause; ten times another of rank 16 is put into its folder anew and
refreshed. Prints milliseconds from the call to the new version in use, and the longest wait between two pieces of the
stream meanwhile, beside its usual one, and one JSON line.
"""

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.answer import Sampling
from adapters.config import files_hash
from adapters.engine import Engine, Message
from desk.config import load_desk

RANK, TIMES = 16, 10
QUESTION = "My screen flickers when I move the lid"


def main() -> None:
    desk = load_desk()
    with tempfile.TemporaryDirectory() as scratch:
        trained = Path(scratch) / "trained"
        engine = Engine(replace(desk.adapters, trained=trained))
        engine.start()
        engine.wait_ready()
        loads, usual, longest = [], [], []
        for version in range(100, 100 + TIMES):
            put(desk.adapters.shipped / "it-support" / "weights", trained / "it-support", version)
            stop = threading.Event()
            stamps: list[float] = []
            stream = threading.Thread(target=lambda: stamps.extend(times(engine, stop)))  # noqa: B023
            stream.start()
            time.sleep(0.5)
            began = time.perf_counter()
            engine.refresh(10)
            ended = time.perf_counter()
            stop.set()
            stream.join()
            assert next(info.version for info in engine.adapters if info.name == "it-support") == version
            loads.append((ended - began) * 1000)
            gaps = list(pairwise(stamps))
            usual.append(median(after - before for before, after in gaps) * 1000)
            longest.append(max(b - a for a, b in gaps if a < ended and b > began) * 1000)
        engine.close()
    print(f"in use after {median(loads):.0f} ms (at most {max(loads):.0f})")
    print(f"between two pieces of a stream {median(usual):.1f} ms, meanwhile at most {max(longest):.1f} ms")
    print(json.dumps({"load_ms": median(loads), "usual_gap_ms": median(usual), "longest_gap_ms": max(longest)}))


def times(engine: Engine, stop: threading.Event) -> Iterator[float]:
    """When each piece of answers comes, one answer after the other."""
    while not stop.is_set():
        for _ in engine.stream([Message("user", QUESTION)], "service-desk", Sampling(max_tokens=200)):
            yield time.perf_counter()


def put(source: Path, target: Path, version: int) -> None:
    """A version of the adapter in `source`, cut to RANK, in place of what is at `target`."""
    from safetensors.torch import load_file, save_file

    beside = target.with_name(f".{target.name}")
    shutil.copytree(source, beside)
    weights = beside / "adapter_model.safetensors"
    state = load_file(weights)
    save_file({k: (v[:RANK] if "lora_A" in k else v[:, :RANK]).contiguous() for k, v in state.items()}, weights)
    changes = {
        "manifest.json": {"version": version, "r": RANK, "weights_hash": files_hash([weights])},
        "adapter_config.json": {"r": RANK},
    }
    for name, change in changes.items():
        path = beside / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)


if __name__ == "__main__":
    main()
