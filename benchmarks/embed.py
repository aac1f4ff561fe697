"""How fast are texts turned into vectors? One question at a time, and passages by the hundred.

Peer, in the same run and in turns with ours: sentence-transformers with its defaults and the same weights. Both get the
golden questions of the sample desk's development half and the passages of its documents.

    python benchmarks/embed.py
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from chains.golden import read_golden
from desk.config import load_desk
from desk.settings import IndexSettings
from index.chunk import cut, embedded_text
from index.embed import MiniLM, model_folder, token_counter
from index.sources import FORMATS, load_source

ROUNDS = 3
Encode = Callable[[Sequence[str]], Any]


def main() -> None:
    from sentence_transformers import SentenceTransformer

    desk = load_desk()
    ours = MiniLM(desk.index.models, desk.index.threads)
    peer = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    questions = [turn.question for turn in read_golden(desk.root / "evaluation" / "dev.jsonl")]
    passages = desk_passages(desk.index)

    def encode(texts: Sequence[str]) -> Any:
        return peer.encode(list(texts), show_progress_bar=False)

    query = in_turns(lambda one: each(one, questions), ours.embed_queries, encode)
    ingest = in_turns(lambda one: whole(one, passages, time.perf_counter), ours.embed, encode)
    cpu = in_turns(lambda one: whole(one, passages, time.process_time), ours.embed, encode)
    cosine = (ours.embed(passages) * ours.embed_queries(passages)).sum(axis=1).min()
    rate, peer_rate = (len(passages) / seconds for seconds in ingest)
    print(f"{'':24}{'query ms, p50':>16}{'passages/s':>14}")
    print(f"{'switchboard':24}{query[0]:16.2f}{rate:14.1f}")
    print(f"{'sentence-transformers':24}{query[1]:16.2f}{peer_rate:14.1f}")
    figures = {
        "questions": len(questions),
        "passages": len(passages),
        "rounds": ROUNDS,
        "query_p50_ms": round(query[0], 2),
        "peer_query_p50_ms": round(query[1], 2),
        "query_ratio_to_peer": round(query[0] / query[1], 3),
        "passages_per_s": round(rate, 1),
        "peer_passages_per_s": round(peer_rate, 1),
        "passage_rate_to_peer": round(rate / peer_rate, 2),
        "passage_rate_to_peer_by_cpu_time": round(cpu[1] / cpu[0], 2),
        "least_cosine_to_float32": round(float(cosine), 6),
    }
    print(json.dumps(figures))


def desk_passages(settings: IndexSettings) -> list[str]:
    """The passages of the sample desk's documents, each below its title and section."""
    count = token_counter()
    texts = []
    for path in sorted(settings.documents.rglob("*")):
        if path.is_file() and path.suffix.lower() in FORMATS:
            document = load_source(path, name=path.name, collection="desk", max_bytes=100_000_000)
            for passage in cut(document, settings.chunk_tokens, count):
                texts.append(embedded_text(document.title, passage.section, passage.text))
    return texts


def in_turns(measure: Callable[[Encode], float], ours: Encode, peer: Encode) -> tuple[float, float]:
    """The medians of both over the rounds, which follow one another, so that a busy minute meets both alike."""
    measure(ours), measure(peer)  # the first of each compiles and allocates
    rounds = [(measure(ours), measure(peer)) for _ in range(ROUNDS)]
    return median(one for one, _ in rounds), median(other for _, other in rounds)


def each(encode: Encode, texts: Sequence[str]) -> float:
    """The median milliseconds for one text alone."""
    spent = []
    for text in texts:
        began = time.perf_counter()
        encode([text])
        spent.append((time.perf_counter() - began) * 1000)
    return float(np.median(spent))


def whole(encode: Encode, texts: Sequence[str], clock: Callable[[], float]) -> float:
    """The seconds for all texts in one call, by the wall's clock or the processors'."""
    began = clock()
    encode(texts)
    return clock() - began


if __name__ == "__main__":
    main()
