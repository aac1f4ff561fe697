"""What does a turn cost before its first token? Condense + embed + search + route, on the sample desk.

Peer, in the same run: sentence-transformers with the same weights and an exact FAISS search over the same passages,
which is the usual LangChain pairing, without BM25, fusion or router.

    python benchmarks/before_first_token.py
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from adapters.engine import Engine
from chains.assistant import fit_router
from chains.condense import condense
from chains.golden import read_golden
from chains.router import RouterInput
from chains.workflow import look_up
from desk.config import load_desk
from index.document import DESK_COLLECTION
from index.embed import model_folder
from index.library import open_library

ROUNDS = 3


def main() -> None:
    desk = load_desk()
    library = open_library(desk.index)
    router = fit_router(desk.chains, library, library.embedder, Engine(desk.adapters))
    decide = router.as_runnable()
    readable = frozenset({DESK_COLLECTION})
    turns = read_golden(desk.root / "evaluation" / "dev.jsonl")
    steps: dict[str, list[float]] = {"condense": [], "embed": [], "search": [], "route": [], "total": []}
    for turn in turns * ROUNDS:
        marks = [time.perf_counter()]
        standalone = condense(turn.question, turn.exchanges)
        marks.append(time.perf_counter())
        vector = library.embedder.embed([standalone])[0]
        marks.append(time.perf_counter())
        found, ordered = look_up(library, standalone, vector, desk.chains.passages, readable)
        marks.append(time.perf_counter())
        decide.invoke(RouterInput(vector, found, ordered))
        marks.append(time.perf_counter())
        for name, a, b in zip(steps, marks, marks[1:], strict=False):
            steps[name].append((b - a) * 1000)
        steps["total"].append((marks[-1] - marks[0]) * 1000)
    peer = measure_peer([turn.question for turn in turns], library)
    print(f"{'step':10}{'p50 ms':>10}{'p95 ms':>10}")
    for name, values in [*steps.items(), ("peer", peer)]:
        print(f"{name:10}{np.percentile(values, 50):10.2f}{np.percentile(values, 95):10.2f}")
    total, other = float(np.percentile(steps["total"], 50)), float(np.percentile(peer, 50))
    print(
        json.dumps(
            {
                "total_p50_ms": round(total, 2),
                "total_p95_ms": round(float(np.percentile(steps["total"], 95)), 2),
                "peer_p50_ms": round(other, 2),
                "ratio_to_peer": round(total / other, 3),
            }
        )
    )


def measure_peer(questions: list[str], library: "object") -> list[float]:
    import faiss
    import torch
    from sentence_transformers import SentenceTransformer

    from index.library import Library

    assert isinstance(library, Library)
    torch.set_num_threads(2)
    model = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    texts = [passage.text for info in library.documents() for passage in library.passages(info.id)]
    index = faiss.IndexFlatIP(384)
    index.add(model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
    spent = []
    for question in questions * ROUNDS:
        began = time.perf_counter()
        index.search(model.encode([question], normalize_embeddings=True, show_progress_bar=False), 5)
        spent.append((time.perf_counter() - began) * 1000)
    return spent


if __name__ == "__main__":
    main()
