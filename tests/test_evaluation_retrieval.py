"""The retrieval figures against others worked out here, and bad input named by file and line."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEmbedder

from desk.config import load_desk
from desk.errors import DeskError
from evaluation.__main__ import main
from evaluation.beir import CorpusRow, QueryRow, read_qrels, read_rows
from evaluation.corpus import COLLECTIONS, corpus_of, document_of
from evaluation.ranking import FIGURES, compare
from evaluation.retrieval import METHODS, measure, rank_beir, rank_public, rankings
from index.library import Library
from index.search import search

PEARS = "Pears grow on trees in the garden.\n\nThey are picked in September, when the nights get cold. " * 3
SHIPS = "The ferry to the island sails at seven in the morning.   A ticket for it costs nine crowns on weekdays."
SETTINGS = load_desk().index


def write_set(
    folder: Path, corpus: Sequence[Mapping[str, object]], queries: Sequence[Mapping[str, object]], qrels: Sequence[str]
) -> tuple[Path, Path, Path]:
    paths = folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels.tsv"
    for path, rows in zip(paths, (corpus, queries), strict=False):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths[2].write_text("".join(line + "\n" for line in ("query-id\tcorpus-id\tscore", *qrels)), encoding="utf-8")
    return paths


def word_set(seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]], list[str]]:
    """60 documents of one sentence each, 25 queries, grades of 0 to 3."""
    random = np.random.default_rng(seed)
    # Stems that the stemmer leaves alone, so that words and terms are the same here.
    vocabulary = [first + middle + last for first in "bdgklm" for middle in "aou" for last in "bgkp"]

    def words(count: int) -> str:
        return " ".join(random.choice(vocabulary, count))

    corpus = [{"_id": f"d{n}", "title": "", "text": words(int(random.integers(3, 15)))} for n in range(60)]
    queries = [{"_id": f"q{n}", "text": words(3)} for n in range(25)]
    qrels = [f"q{n}\td{d}\t{random.integers(0, 4)}" for n in range(24) for d in random.permutation(60)[:5]]
    return corpus, queries, qrels


def exact_orders(corpus: list[dict[str, object]], query: str) -> dict[str, dict[str, float]]:
    """By numpy and the published formula: cosine of each document, and BM25 (k1 1.2, b .75) of those with a term."""
    embedder = HashEmbedder()
    texts = [str(row["text"]) for row in corpus]
    names = [str(row["_id"]) for row in corpus]
    cosines = embedder.embed(texts) @ embedder.embed([query])[0]
    counts = [Counter(text.split()) for text in texts]
    mean = sum(sum(count.values()) for count in counts) / len(counts)
    bm25: dict[str, float] = {}
    for term in set(query.split()):
        holding = sum(term in count for count in counts)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for name, count in zip(names, counts, strict=True):
            if count[term]:
                norm = 1.2 * (0.25 + 0.75 * sum(count.values()) / mean)
                bm25[name] = bm25.get(name, 0.0) + idf * 2.2 * count[term] / (count[term] + norm)
    return {"dense": dict(zip(names, cosines.tolist(), strict=True)), "bm25": bm25}


def test_each_half_ranks_the_whole_corpus_exactly() -> None:
    corpus, queries, _ = word_set(seed=1)
    embedder = HashEmbedder()
    documents = [document_of(str(row["_id"]), "", str(row["text"])) for row in corpus]
    with corpus_of(documents, embedder, SETTINGS) as made:
        for row in queries:
            text = str(row["text"])
            ranked = rankings(made, text, embedder.embed([text])[0], lambda place: place[0])
            assert list(ranked) == list(METHODS)
            for method, exact in exact_orders(corpus, text).items():
                got = [exact[name] for name in ranked[method]]
                assert got == pytest.approx(sorted(exact.values(), reverse=True)[:10], abs=1e-5)
                assert len(set(ranked[method])) == len(ranked[method])


def test_the_measured_search_is_the_librarys_own(tmp_path: Path) -> None:
    corpus, queries, _ = word_set(seed=5)
    embedder = HashEmbedder()
    folder = tmp_path / "documents"
    folder.mkdir()
    texts = {f"{row['_id']}.md": f"{row['text']}.\n\nA second paragraph about {row['_id']}." for row in corpus}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    library = Library.open(replace(SETTINGS, documents=folder, state=tmp_path / "state"), embedder)
    library.build()
    titles = {info.path: info.title for info in library.documents()}
    documents = [document_of(f"documents/{name}", titles[f"documents/{name}"], text) for name, text in texts.items()]
    with corpus_of(documents, embedder, SETTINGS) as made:
        for row in queries:
            text = str(row["text"])
            vector = embedder.embed([text])[0]
            ours = search(made.indexes, text, vector, 10, COLLECTIONS).hits
            theirs = library.search(text, vector, 10, COLLECTIONS).hits
            assert {hit.path: hit.score for hit in ours} == pytest.approx({hit.path: hit.score for hit in theirs})
    library.close()


def test_figures_equal_an_independent_count(tmp_path: Path) -> None:
    corpus, queries, qrels = word_set(seed=2)
    report = measure(rank_beir(*write_set(tmp_path, corpus, queries, qrels), SETTINGS, HashEmbedder()).ranked)
    grades: dict[str, dict[str, int]] = {}
    for line in qrels:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = int(grade)
    embedder = HashEmbedder()
    rows: list[dict[str, float]] = []
    with corpus_of([document_of(str(r["_id"]), "", str(r["text"])) for r in corpus], embedder, SETTINGS) as made:
        for row in queries:
            judged = grades.get(str(row["_id"]), {})
            if not any(judged.values()):
                continue
            text = str(row["text"])
            hits = search(made.indexes, text, embedder.embed([text])[0], 50, COLLECTIONS).hits
            gains = [judged.get(hit.passage.document_id, 0) for hit in hits]
            ideal = sorted(judged.values(), reverse=True)
            relevant = sum(grade > 0 for grade in ideal)
            ranks = [rank for rank, gain in enumerate(gains, 1) if gain and rank <= 10]
            scores = {f"recall@{k}": sum(rank <= k for rank in ranks) / relevant for k in (1, 5, 10)}
            scores["mrr@10"] = 1 / ranks[0] if ranks else 0.0
            discount = 1 / np.log2(np.arange(2, 12))
            best = np.pad(ideal, (0, 10))[:10] @ discount
            scores["ndcg@10"] = float(np.pad(gains, (0, 10))[:10] @ discount / best)
            rows.append(scores)
    assert 20 <= len(rows) < len(queries)
    for figure in FIGURES:
        assert report["hybrid"][figure].value == pytest.approx(float(np.mean([row[figure] for row in rows])))
    assert 0.05 < report["hybrid"]["ndcg@10"].value < 0.95
    assert set(report) == {"bm25", "dense", "hybrid"}


def test_graded_figures_by_hand() -> None:
    ranked, judged = ["x", "a", "y", "b"], {"a": 1.0, "b": 3.0, "c": 2.0}
    values = {name: figure(ranked, judged) for name, figure in FIGURES.items()}
    best = 3 + 2 / math.log2(3) + 1 / 2
    expected = (1 / math.log2(3) + 3 / math.log2(5)) / best
    assert values == pytest.approx(
        {"recall@1": 0, "recall@5": 2 / 3, "recall@10": 2 / 3, "mrr@10": 0.5, "ndcg@10": expected}
    )
    assert {figure([], judged) for figure in FIGURES.values()} == {0.0}


def test_a_paired_interval_is_narrower_than_the_difference_of_two_apart() -> None:
    random = np.random.default_rng(3)
    theirs = random.integers(0, 2, 400).astype(float)
    ours = np.maximum(theirs, random.random(400) < 0.1)
    measured = compare(ours, theirs)
    apart = compare(ours[random.permutation(400)], theirs)
    assert measured.value == theirs.mean()
    assert measured.behind[0] <= (ours - theirs).mean() <= measured.behind[1]
    assert measured.behind[1] - measured.behind[0] < 0.6 * (apart.behind[1] - apart.behind[0])
    normal = 1.96 * theirs.std() / math.sqrt(400)
    assert measured.interval == pytest.approx((measured.value - normal, measured.value + normal), abs=0.006)
    assert compare(theirs, theirs).behind == (0.0, 0.0)


def test_a_document_counts_once_at_its_best_passage(tmp_path: Path) -> None:
    long = "\n\n".join(
        f"The harbour of town {n} is deep. " + "Sand lies on its beach all year. " * 12 for n in range(12)
    )
    corpus = [
        {"_id": "long", "title": "Harbours", "text": long},
        {"_id": "short", "title": "", "text": "A bakery sells bread."},
        {"_id": "named", "title": "Lighthouse", "text": ""},
        {"_id": "empty", "title": "", "text": ""},
    ]
    queries = [{"_id": 1, "text": "bread of the harbour bakery"}, {"_id": "2", "text": "lighthouse"}]
    paths = write_set(tmp_path, corpus, queries, ["1\tshort\t1", "1\tgone\t1", "2\tnamed\t2"])
    report = measure(rank_beir(*paths, SETTINGS, HashEmbedder()).ranked)
    for method in ("bm25", "hybrid"):
        assert report[method]["recall@5"].value == pytest.approx((0.5 + 1) / 2)
        assert report[method]["mrr@10"].value >= 0.75


def test_the_command_ends_with_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = [{"_id": "p", "title": "Pears", "text": PEARS, "metadata": {}}, {"_id": "s", "title": None, "text": SHIPS}]
    queries = [{"_id": "1", "text": "When are pears picked?"}, {"_id": "2", "text": "ferry ticket price"}]
    paths = [str(path) for path in write_set(tmp_path, corpus, queries, ["1\tp\t1", "2\ts\t1"])]
    assert main(["retrieval", "--corpus", paths[0], "--queries", paths[1], "--qrels", paths[2]]) == 0
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last == {method: dict.fromkeys(FIGURES, 1.0) for method in METHODS}
    assert main(["retrieval", "--corpus", paths[0], "--queries", paths[0], "--qrels", paths[1]]) == 2
    assert "queries.jsonl, line 1: the header" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["retrieval", "--corpus", paths[0]])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "b", "text": 3', "corpus.jsonl, line 2: not JSON"),
        ('{"_id": "b"}', "line 2: text: Field required"),
        ('{"text": "b"}', "line 2: _id: Field required"),
        ('{"_id": "a", "text": "b"}', "line 2: the _id 'a' stands twice"),
        ('["a"]', "line 2: the row"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a", "text": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DeskError, match=message):
        list(read_rows(path, CorpusRow))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ta\t1\n", "line 1: the header"),
        ("", "line 1: the header"),
        ("query-id\tcorpus-id\tscore\n\n1\ta\n", "line 3: not a query-id"),
        ("query-id\tcorpus-id\tscore\n1\ta\tnan\n", "line 2: not a query-id"),
        ("query-id\tcorpus-id\tscore\n1\ta\t1\n1\ta\t2\n", "line 3: '1' and 'a' are judged twice"),
    ],
)
def test_a_bad_judgement_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DeskError, match=message):
        read_qrels(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match=r"none\.jsonl cannot be read"):
        list(read_rows(tmp_path / "none.jsonl", QueryRow))
    (tmp_path / "latin.jsonl").write_bytes(b'{"_id": "1", "text": "caf\xe9"}\n')
    with pytest.raises(DeskError, match="not UTF-8"):
        list(read_rows(tmp_path / "latin.jsonl", QueryRow))


def test_judgements_without_a_query_or_a_grade_above_zero_are_refused_when_nothing_is_left(tmp_path: Path) -> None:
    paths = write_set(tmp_path, [{"_id": "a", "text": "b"}], [{"_id": "1", "text": "b"}], ["1\ta\t0", "2\ta\t1"])
    with pytest.raises(DeskError, match="No query of"):
        rank_beir(*paths, SETTINGS, HashEmbedder())


def squad(folder: Path) -> Path:
    def row(question: str, context: str, answer: str) -> dict[str, object]:
        return {"question": question, "answers": [{"text": answer, "answer_start": context.index(answer)}]}

    paragraphs = [
        {"context": PEARS, "qas": [row("When are pears picked?", PEARS, "September")]},
        {"context": SHIPS, "qas": [row("What does a ticket for the ferry cost?", SHIPS, "nine crowns")]},
    ]
    for name in ("xquad/xquad.en.json", "covidqa/200423_covidQA.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["xquad", "covidqa"])
def test_public_sets_are_measured_beside_the_halves(tmp_path: Path, name: str) -> None:
    found = rank_public(squad(tmp_path), name, SETTINGS)
    assert (len(found.ranked), found.passages) == (2, 2)
    report = measure(found.ranked)
    for method in METHODS:
        assert {key: one.value for key, one in report[method].items()} == dict.fromkeys(FIGURES, 1.0)
        assert all(one.interval == (1.0, 1.0) and one.behind == (0.0, 0.0) for one in report[method].values())


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match=r"xquad\.en\.json is missing"):
        rank_public(tmp_path, "xquad", SETTINGS)
