"""Nearest vectors: exact equals brute force, the graph is near it, and both keep to the passages that are asked for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.errors import StoreError
from index.vectors import SCAN_SHARE, ExactVectors, GraphVectors, Within, build_graph, graph_hash, middle

DIMENSION = 32


def unit_rows(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def passages(count: int) -> dict[int, NDArray[np.float32]]:
    """Numbers in no order, one to three sentences each."""
    numbers = np.random.default_rng(2).permutation(10 * count)[:count]
    return {int(number): unit_rows(1 + place % 3, seed=place) for place, number in enumerate(numbers)}


def test_exact_search_equals_brute_force() -> None:
    known = passages(300)
    index = ExactVectors(DIMENSION)
    index.add(list(known.items())[:100])
    index.add(list(known.items())[100:])
    query = unit_rows(1, seed=9)[0]
    cosines = [(number, float(row @ query)) for number, rows in known.items() for row in rows]
    cosines.sort(key=lambda pair: -pair[1])
    chosen = set(list(known)[::3])
    inside = [pair for pair in cosines if pair[0] in chosen]
    for expected, within in ((cosines, None), (inside, Within(np.array(sorted(chosen))))):
        found = index.search(query, 40, within)
        assert [number for number, _ in found] == [number for number, _ in expected[:40]]
        np.testing.assert_allclose([score for _, score in found], [score for _, score in expected[:40]], atol=1e-6)
    assert index.search(query, 5, Within(np.empty(0, np.int64))) == []
    assert ExactVectors(DIMENSION).search(query, 5) == []
    held = index.passages()
    assert held.keys() == known.keys() and all(np.array_equal(held[number], known[number]) for number in known)


def test_vectors_of_another_shape_are_refused() -> None:
    with pytest.raises(StoreError, match=f"Vectors of {DIMENSION} dimensions were expected"):
        ExactVectors(DIMENSION).add([(1, np.ones((2, 4), np.float32))])


def test_a_graph_finds_what_exact_search_finds_and_says_how_often(tmp_path: Path) -> None:
    known = passages(3000)
    path = tmp_path / "graph.faiss"
    effort, recall = build_graph(path, known.items(), len(known), DIMENSION, threads=1)
    assert recall >= 0.95
    graph = GraphVectors.load(path, DIMENSION, effort)
    assert sorted(graph.owners.tolist()) == sorted(known)
    middles = np.stack([middle(rows) for rows in known.values()])
    numbers = np.array(list(known))
    query = unit_rows(1, seed=7)[0]
    exact = numbers[np.argsort(-(middles @ query))]
    found = graph.search(query, 10)
    assert len(set(exact[:10].tolist()) & {number for number, _ in found}) >= 9
    for number, cosine in found:
        assert cosine == pytest.approx(float(middle(known[number]) @ query), abs=0.03)


@pytest.mark.parametrize("share", [SCAN_SHARE / 2, 0.5])
def test_a_graph_keeps_to_the_passages_that_are_asked_for(tmp_path: Path, share: float) -> None:
    known = passages(2000)
    path = tmp_path / "graph.faiss"
    effort, _ = build_graph(path, known.items(), len(known), DIMENSION, threads=1)
    graph = GraphVectors.load(path, DIMENSION, effort)
    chosen = np.array(sorted(list(known)[: int(share * len(known))]))
    query = unit_rows(1, seed=7)[0]
    scores = {int(number): float(middle(known[int(number)]) @ query) for number in chosen}
    exact = sorted(scores, key=lambda number: -scores[number])[:10]
    found = [number for number, _ in graph.search(query, 10, Within(chosen))]
    assert set(found) <= set(chosen.tolist()) and len(set(found) & set(exact)) >= 9
    assert len(graph.search(query, 50, Within(chosen[:7]))) == 7
    assert graph.search(query, 5, Within(np.empty(0, np.int64))) == []


def test_a_graph_that_is_damaged_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.faiss"
    effort, _ = build_graph(path, passages(100).items(), 100, DIMENSION, threads=1)
    before = graph_hash(path)
    with pytest.raises(StoreError, match="of another kind or dimension than 16"):
        GraphVectors.load(path, 16, effort)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert graph_hash(path) != before
    path.write_bytes(b"junk")
    with pytest.raises(StoreError, match="damaged or missing"):
        GraphVectors.load(path, DIMENSION, effort)
    path.unlink()
    with pytest.raises(StoreError, match="missing"):
        graph_hash(path)
