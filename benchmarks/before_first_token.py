"""What does a turn cost before its first token? From the question to the routed event, on the sample desk:
condense, embed, search and route as the assistant runs them.

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

from app.assembly import Switchboard, assemble
from chains.golden import read_golden
from chains.turn import Part, Route, Routed, Token, Turn
from desk.config import load_desk
from index.embed import model_folder

ROUNDS = 3


def main() -> None:
    board = assemble(load_desk())
    golden = read_golden(board.desk.root / "evaluation" / "dev.jsonl")
    turns = [Turn(one.question, one.exchanges) for one in golden] * ROUNDS
    ours, quoting = measure_ours(board, turns)
    peer = measure_peer(board, [turn.question for turn in turns])
    print(f"{'':12}{'p50 ms':>10}{'p95 ms':>10}")
    for name, values in (("routed", ours), ("first token", quoting), ("peer", peer)):
        print(f"{name:12}{np.percentile(values, 50):10.2f}{np.percentile(values, 95):10.2f}")
    total, other = float(np.percentile(ours, 50)), float(np.percentile(peer, 50))
    figures = {
        "turns": len(turns),
        "total_p50_ms": round(total, 2),
        "total_p95_ms": round(float(np.percentile(ours, 95)), 2),
        "documents_first_token_p50_ms": round(float(np.percentile(quoting, 50)), 2),
        "documents_first_token_p95_ms": round(float(np.percentile(quoting, 95)), 2),
        "peer_p50_ms": round(other, 2),
        "ratio_to_peer": round(total / other, 3),
    }
    print(json.dumps(figures))
    board.close()


def measure_ours(board: Switchboard, turns: list[Turn]) -> tuple[list[float], list[float]]:
    """Milliseconds from the question to the routed event, one a turn; and to the first word of what goes to the
    documents."""
    routed, quoted = [], []
    for turn in turns:
        began = time.perf_counter()
        events = board.assistant.answer(turn)
        for event in events:
            spent = (time.perf_counter() - began) * 1000
            if isinstance(event, Routed):
                routed.append(spent)
                if event.decision.route is not Route.RETRIEVAL:
                    break
            elif isinstance(event, Token) and len(routed):
                quoted.append(spent)
                break
            elif isinstance(event, Part):
                break  # the parts of a message are routed before the first of them is told
        events.close()
    return routed, quoted


def measure_peer(board: Switchboard, questions: list[str]) -> list[float]:
    import faiss
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(2)
    model = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    library = board.library
    texts = [passage.text for info in library.documents() for passage in library.passages(info.id)]
    index = faiss.IndexFlatIP(384)
    index.add(model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
    spent = []
    for question in questions:
        began = time.perf_counter()
        index.search(model.encode([question], normalize_embeddings=True, show_progress_bar=False), 5)
        spent.append((time.perf_counter() - began) * 1000)
    return spent


if __name__ == "__main__":
    main()
