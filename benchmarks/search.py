"""How search grows: time, memory and recall at several library sizes, beside LangChain's FAISS store.

    python benchmarks/search.py [--sizes 10000 100000] [--texts FILE.json] [--keep FOLDER] [--plot FILE.png]

Passages have real text (the sample desk's, or that of a file in SQuAD's format) in random combination, and a synthetic
unit vector each, near one of many centres; questions are near a passage. Each size is built once, then opened in a
process of its own, which reports the seconds to open, the memory above that of an empty library, and the milliseconds
of a hybrid search. Recall@10 is that of the vector half against exact search. The peer holds the same vectors and
searches these alone. Prints a table and one JSON line per size.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from desk.config import load_desk  # noqa: E402
from desk.settings import IndexSettings  # noqa: E402
from index.document import DESK_COLLECTION, Document, Passage  # noqa: E402
from index.library import Library  # noqa: E402
from index.store import Store  # noqa: E402
from index.stored import Entry, Stored  # noqa: E402

DIMENSION = 384
PER_DOCUMENT = 100
WORDS = 120
QUESTIONS = 200
PEER_UP_TO = 200_000
"""The peer keeps its texts as Python objects, which take gigabytes beyond this."""
Vectors = NDArray[np.float32]


class Synthetic:
    """An embedding model without meaning: each text has a unit vector of its own, the same on every call."""

    name = "synthetic"
    dimension = DIMENSION

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.stack([np.random.default_rng(list(text.encode())).normal(size=DIMENSION) for text in texts])
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    embed_queries = embed


@cache
def centres_of(size: int) -> Vectors:
    return np.random.default_rng(1).normal(size=(max(10, size // 200), DIMENSION)).astype(np.float32)


def vectors(size: int, start: int, count: int) -> Vectors:
    """`count` unit vectors from number `start` on, each near one of the size's centres; the same on every call."""
    centres = centres_of(size)
    random_ = np.random.default_rng([2, start])
    rows = centres[random_.integers(0, len(centres), count)]
    rows = rows + 0.7 * random_.normal(size=rows.shape).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def words_of(source: Path | None) -> tuple[list[str], list[str]]:
    """(words of the texts, questions) to make passages and queries of."""
    if source is None:
        from index.sources import load_source

        texts = []
        for path in sorted(load_desk().index.documents.rglob("*.md")):
            texts.append(load_source(path, name=path.name, collection="desk", max_bytes=10**7).text)
        golden = (ROOT / "desks" / "helpdesk" / "evaluation" / "dev.jsonl").read_text(encoding="utf-8")
        return " ".join(texts).split(), [json.loads(line)["question"] for line in golden.splitlines()]
    paragraphs = [
        p for article in json.loads(source.read_text(encoding="utf-8"))["data"] for p in article["paragraphs"]
    ]
    questions = [row["question"] for paragraph in paragraphs for row in paragraph["qas"]]
    return " ".join(paragraph["context"] for paragraph in paragraphs).split(), questions


def entries(size: int, words: list[str]) -> Iterator[Entry]:
    random_ = random.Random(3)
    for start in range(0, size, PER_DOCUMENT):
        count = min(PER_DOCUMENT, size - start)
        key = f"{start:016x}"
        parts = []
        for _ in range(count):
            halves = (random_.randrange(len(words) - WORDS) for _ in range(2))
            parts.append(" ".join(word for at in halves for word in words[at : at + WORDS // 2]))
        text, passages, at = "\n\n".join(parts), [], 0
        for ordinal, part in enumerate(parts):
            passages.append(Passage(f"{key}:{ordinal}", key, ordinal, at, at + len(part), part, "", None))
            at += len(part) + 2
        path = f"documents/{start // 100_000}/{start}.txt"
        document = Document(key, path, f"Document {start}", "txt", text, key)
        rows = tuple(row[None] for row in vectors(size, start, count))
        yield Entry(document, tuple(passages), rows, Stored(key, path, path, "desk", DESK_COLLECTION, key, "", "1"))


def settings(folder: Path) -> IndexSettings:
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    return IndexSettings(folder / "documents", folder / "state", folder / "models", 180, 5, 20, 2)


def build(folder: Path, size: int, source: Path | None) -> float:
    """Seconds that it takes to make the indexes of a library that is in its database."""
    store = Store(settings(folder).state / "library.sqlite")
    model = store.model(Synthetic.name, DIMENSION)
    for entry in entries(size, words_of(source)[0]):
        store.put([entry], [], model)
    store.close()
    started = time.perf_counter()
    Library.open(settings(folder), Synthetic()).close()
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of memory that this process holds, mapped files that were read included."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def measure(folder: Path, size: int, source: Path | None) -> dict[str, Any]:
    """What a fresh process sees of a library: run in one."""
    empty = Library.open(settings(folder / "empty"), Synthetic())
    asked = words_of(source)[1]
    random.Random(4).shuffle(asked)
    step = max(1, size // PER_DOCUMENT // QUESTIONS)
    near = np.stack([vectors(size, start, PER_DOCUMENT)[0] for start in range(0, size, step * PER_DOCUMENT)])
    noise = np.random.default_rng(5).normal(size=near.shape).astype(np.float32)
    near = near + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    everyone = frozenset({DESK_COLLECTION})
    empty.search(asked[0], near[0], 5, everyone)
    before, started = resident(), time.perf_counter()
    library = Library.open(settings(folder), Synthetic())
    opened = time.perf_counter() - started
    times = []
    for number in range(QUESTIONS):
        question, vector = asked[number % len(asked)], near[number % len(near)]
        started = time.perf_counter()
        library.search(question, vector, 5, everyone)
        times.append(1000 * (time.perf_counter() - started))
    memory = resident() - before
    hits = [nearest(library, vector) for vector in near[:100]]
    exact = exact_neighbours(size, near[:100])
    recall = float(np.mean([len(set(ours) & set(true)) / 10 for ours, true in zip(hits, exact, strict=True)]))
    return {
        "size": size,
        "open_s": opened,
        "p50_ms": float(np.median(times)),
        "p95_ms": float(np.quantile(times, 0.95)),
        "bytes_per_passage": memory / size,
        "recall_at_10": recall,
        "index": library.status().index,
    }


def nearest(library: Library, vector: Vectors) -> list[int]:
    """The positions of the ten passages that a search without words finds."""
    hits = library.search("", vector, 10, frozenset({DESK_COLLECTION})).hits
    return [int(hit.passage.document_id, 16) + hit.passage.ordinal for hit in hits]


def exact_neighbours(size: int, asked: Vectors) -> list[list[int]]:
    best = np.full((len(asked), 10), -2.0, np.float32)
    places = np.zeros((len(asked), 10), np.int64)
    for start in range(0, size, PER_DOCUMENT):
        count = min(PER_DOCUMENT, size - start)
        scores = np.concatenate([best, asked @ vectors(size, start, count).T], axis=1)
        numbers = np.concatenate([places, np.tile(np.arange(start, start + count), (len(asked), 1))], axis=1)
        top = np.argsort(-scores, axis=1)[:, :10]
        best, places = np.take_along_axis(scores, top, 1), np.take_along_axis(numbers, top, 1)
    found: list[list[int]] = places.tolist()
    return found


def peer(size: int) -> dict[str, float]:
    """LangChain's FAISS store with its defaults (exact), the same vectors and as many texts."""
    from langchain_community.vectorstores import FAISS
    from langchain_core.embeddings import FakeEmbeddings

    rows = np.concatenate(
        [vectors(size, start, min(PER_DOCUMENT, size - start)) for start in range(0, size, PER_DOCUMENT)]
    )
    before = resident()
    pairs = [(" ".join([f"w{number}"] * WORDS), row.tolist()) for number, row in enumerate(rows)]
    store = FAISS.from_embeddings(pairs, FakeEmbeddings(size=DIMENSION))
    del pairs
    times = []
    for number in range(50):
        started = time.perf_counter()
        store.similarity_search_by_vector(rows[number].tolist(), k=50)
        times.append(1000 * (time.perf_counter() - started))
    return {
        "peer_p50_ms": float(np.median(times)),
        "peer_p95_ms": float(np.quantile(times, 0.95)),
        "peer_bytes_per_passage": (resident() - before) / size,
    }


def in_process(part: str, folder: Path, size: int, source: Path | None) -> Any:
    command = [sys.executable, __file__, "--part", part, "--keep", str(folder), "--sizes", str(size)]
    command += ["--texts", str(source)] if source else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    """The growth of time and memory, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = [row["size"] for row in rows]
    for key, label in (("p50_ms", "hybrid search, p50"), ("p95_ms", "hybrid search, p95")):
        axes[0].plot(sizes, [row[key] for row in rows], marker="o", label=label)
    known = [row for row in rows if "peer_p50_ms" in row]
    axes[0].plot(
        [row["size"] for row in known], [row["peer_p50_ms"] for row in known], "k--", marker="x", label="peer, p50"
    )
    axes[0].set(xscale="log", yscale="log", xlabel="passages", ylabel="milliseconds")
    axes[1].plot(sizes, [row["bytes_per_passage"] for row in rows], marker="o", label="memory")
    axes[1].axhline(700, color="grey", linestyle=":", label="goal")
    axes[1].set(xscale="log", ylim=(0, None), xlabel="passages", ylabel="bytes per passage")
    for axis in axes:
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--texts", type=Path, help="a file in SQuAD's format to take texts and questions from")
    parser.add_argument("--keep", type=Path, help="a folder to build in, and to find built libraries in")
    parser.add_argument("--plot", type=Path, help="where to draw the growth")
    parser.add_argument("--part", choices=["measure", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        size = options.sizes[0]
        part = measure(options.keep, size, options.texts) if options.part == "measure" else peer(size)
        print(json.dumps(part))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            folder = (options.keep or Path(scratch)) / str(size)
            built = None if (folder / "state").exists() else build(folder, size, options.texts)
            row = in_process("measure", folder, size, options.texts) | {"index_s": built}
            if size <= PEER_UP_TO:
                row |= in_process("peer", folder, size, options.texts)
                row["ratio"] = row["p50_ms"] / row["peer_p50_ms"]
            rows.append(row)
            print(json.dumps(row), flush=True)
    columns = {
        "open s": ("open_s", ".2f"),
        "p50 ms": ("p50_ms", ".1f"),
        "p95 ms": ("p95_ms", ".1f"),
        "B/passage": ("bytes_per_passage", ".0f"),
        "recall@10": ("recall_at_10", ".3f"),
        "peer p50": ("peer_p50_ms", ".1f"),
        "peer B": ("peer_bytes_per_passage", ".0f"),
    }
    print("\n" + f"{'passages':>10}" + "".join(f"{name:>11}" for name in columns))
    for row in rows:
        cells = (f"{row[key]:{form}}" if key in row else "-" for key, form in columns.values())
        print(f"{row['size']:>10,}" + "".join(f"{cell:>11}" for cell in cells))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
