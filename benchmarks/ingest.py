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
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from desk.config import IndexSettings, load_desk
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
    print(f"{'':12}{'passages':>10}{'sentences':>11}{'ours/s':>10}{'peer/s':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"desk": settings.documents}
        if options.data:
            folders["covidqa"] = _articles(options.data, Path(scratch) / "covidqa" / "documents")
        for name, folder in folders.items():
            chosen = replace(settings, documents=folder)
            passages, count, ours, other = _measure(chosen, embedder, peer, Path(scratch))
            ratio = ours / other
            print(f"{name:12}{passages:10}{count:11}{ours:10.1f}{other:10.1f}{ratio:8.2f}")
            figures |= {
                f"{name}_passages": passages,
                f"{name}_passages_per_s": round(ours, 1),
                f"{name}_peer_passages_per_s": round(other, 1),
                f"{name}_rate_to_peer": round(ratio, 2),
            }
    print(json.dumps(figures))


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


def _measure(settings: IndexSettings, embedder: Embedder, peer: Any, scratch: Path) -> tuple[int, int, float, float]:
    """(passages, sentences, ours and the peer's passages per second, medians of the rounds)."""
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document

    rounds: list[tuple[float, float]] = []
    documents: list[Document] = []
    count = 0
    for number in range(1 + ROUNDS):  # the first is not counted: it compiles and allocates
        state = scratch / f"state-{settings.documents.parent.name}-{number}"
        began = time.perf_counter()
        library = Library.open(replace(settings, state=state), embedder)
        library.build()
        ours = time.perf_counter() - began
        if not documents:
            for info in library.documents():
                documents += [
                    Document(passage.text, metadata={"id": passage.id}) for passage in library.passages(info.id)
                ]
            count = sum(len(sentences(document.page_content)) for document in documents)
        library.close()
        began = time.perf_counter()
        FAISS.from_documents(documents, peer)
        rounds.append((ours, time.perf_counter() - began))
    ours, other = (len(documents) / median(both[side] for both in rounds[1:]) for side in (0, 1))
    return len(documents), count, ours, other


if __name__ == "__main__":
    main()
