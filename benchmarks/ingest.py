"""How fast do documents become searchable? Passages per second of the library's whole path: files read, cut, embedded
(a vector per sentence), stored in SQLite, indexed in FAISS and tantivy, saved.

Peer, in the same run and in turns with ours: langchain-community's FAISS.from_documents with sentence-transformers'
embeddings, the same weights, both with their defaults. It gets the library's passages ready cut, in memory, and saves
nothing.

    python benchmarks/ingest.py                        the sample desk's documents
    python benchmarks/ingest.py --data DIR             COVID-QA's articles besides, from DIR/covidqa
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from desk.config import load_desk
from desk.settings import IndexSettings
from index.chunk import sentences
from index.embed import Embedder, MiniLM, model_folder
from index.library import Library

ROUNDS = 3
ARTICLES = 10
"""COVID-QA's first articles: about as many passages as the sample desk has."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder that holds covidqa/")
    options = parser.parse_args()
    settings = load_desk().index
    embedder = MiniLM(settings.models, settings.threads)
    peer = _peer()
    figures: dict[str, object] = {"rounds": ROUNDS}
    print(f"{'per second':20}{'passages':>10}{'sentences':>11}{'ours':>8}{'peer':>8}{'ratio':>8}{'by CPU':>13}")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"desk": settings.documents}
        if options.data:
            folders["covidqa"] = _articles(options.data, Path(scratch) / "covidqa" / "documents")
        for name, folder in folders.items():
            found = _measure(replace(settings, documents=folder), embedder, peer, Path(scratch) / name)
            ours, other = found.passages / found.ours.wall_s, found.passages / found.peer.wall_s
            cpu = found.peer.cpu_s / found.ours.cpu_s
            print(
                f"{name:20}{found.passages:10}{found.sentences:11}{ours:8.1f}{other:8.1f}{ours / other:8.2f}{cpu:13.2f}"
            )
            figures |= {
                f"{name}_passages": found.passages,
                f"{name}_passages_per_s": round(ours, 1),
                f"{name}_peer_passages_per_s": round(other, 1),
                f"{name}_rate_to_peer": round(ours / other, 2),
                f"{name}_rate_to_peer_by_cpu_time": round(cpu, 2),
            }
    print(json.dumps(figures))


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the clock, and of all processors: the second hardly changes with what else the machine does."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds."""

    passages: int
    sentences: int
    ours: Spent
    peer: Spent


def _peer() -> Any:
    from langchain_community.embeddings import HuggingFaceEmbeddings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class has a successor in a package that this project does not need
        return HuggingFaceEmbeddings(model_name=str(model_folder()), model_kwargs={"device": "cpu"})


def _articles(data: Path, folder: Path) -> Path:
    """COVID-QA's first articles as text files."""
    folder.mkdir(parents=True)
    rows = json.loads((data / "covidqa" / "200423_covidQA.json").read_text(encoding="utf-8"))["data"]
    for number, row in enumerate(rows[:ARTICLES]):
        (folder / f"{number:04d}.txt").write_text(row["paragraphs"][0]["context"], encoding="utf-8")
    return folder


def _measure(settings: IndexSettings, embedder: Embedder, peer: Any, scratch: Path) -> Measured:
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document

    rounds: list[tuple[Spent, Spent]] = []
    texts: list[str] = []
    for number in range(1 + ROUNDS):  # the first is not counted: it imports, compiles and allocates
        with _opened(replace(settings, state=scratch / f"state-{number}"), embedder) as library:
            ours = _timed(library.build)
            if not texts:
                texts = [passage.text for info in library.documents() for passage in library.passages(info.id)]
        documents = [Document(text) for text in texts]
        rounds.append((ours, _timed(partial(FAISS.from_documents, documents, peer))))
    ours, other = (
        Spent(median(both[side].wall_s for both in rounds[1:]), median(both[side].cpu_s for both in rounds[1:]))
        for side in (0, 1)
    )
    return Measured(len(texts), sum(len(sentences(text)) for text in texts), ours, other)


@contextmanager
def _opened(settings: IndexSettings, embedder: Embedder) -> Iterator[Library]:
    library = Library.open(settings, embedder)
    try:
        yield library
    finally:
        library.close()


def _timed(work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main()
