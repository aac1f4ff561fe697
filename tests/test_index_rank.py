"""Repeats, out-of-date passages and older editions are put back, and nothing else moves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import hit
from numpy.typing import NDArray

from index.document import ScoredPassage
from index.rank import DIVERSITY, NEAR, OUTDATED_FACTOR, in_force_first, newer_first, put_back_repeats
from index.vectors import middle


def scored(
    name: str, score: float, *, text: str = "text", updated: str | None = None, outdated: bool = False
) -> ScoredPassage:
    return replace(hit(text, path=name), score=score, updated=updated, outdated=outdated)


def at_angles(hits: Sequence[ScoredPassage], degrees: Sequence[float]) -> dict[str, NDArray[np.float32]]:
    """A vector in the plane for each hit: the cosine of two is that of the angle between them."""
    return {
        one.passage.id: np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], dtype=np.float32)
        for one, angle in zip(hits, degrees, strict=True)
    }


def names(hits: Sequence[ScoredPassage]) -> str:
    return "".join(one.path for one in hits)


def assert_falls(hits: Sequence[ScoredPassage]) -> None:
    assert [one.score for one in hits] == sorted((one.score for one in hits), reverse=True)


def test_a_repeat_goes_behind_what_is_not_much_worse() -> None:
    hits = [scored("a", 1.0), scored("b", 0.95), scored("c", 0.9), scored("d", 0.5)]
    ranked = put_back_repeats(hits, at_angles(hits, [0, 5, 90, 180]))
    assert names(ranked) == "acbd"
    assert ranked[2].score == 0.9
    assert_falls(ranked)
    far = [scored("a", 1.0), scored("b", 0.95), scored("d", 0.5)]
    assert put_back_repeats(far, at_angles(far, [0, 5, 180])) == far


def test_a_row_that_is_alike_but_says_something_else_is_no_repeat() -> None:
    hits = [
        scored("a", 1.0, text="Name: Reader; Edition: free; Price: 0 euros"),
        scored("b", 0.95, text="Name: Reader; Edition: full; Price: 120 euros"),
        scored("c", 0.9, text="Something else"),
    ]
    assert put_back_repeats(hits, at_angles(hits, [0, 1, 90])) == hits


def test_what_is_merely_alike_stays_where_it_is() -> None:
    hits = [scored("a", 1.0), scored("b", 0.95), scored("c", 0.94)]
    assert put_back_repeats(hits, at_angles(hits, [0, 25, 90])) == hits
    assert put_back_repeats([], {}) == []


def test_the_order_is_that_of_maximal_marginal_relevance() -> None:
    random = np.random.default_rng(6)
    for _ in range(20):
        hits = [scored(chr(97 + n), score) for n, score in enumerate(sorted(random.random(9), reverse=True))]
        angles = random.integers(0, 4, 9) * 60 + random.random(9)
        vectors = at_angles(hits, angles.tolist())
        expected: list[int] = []
        while len(expected) < len(hits):
            values = {}
            for at, one in enumerate(hits):
                if at not in expected:
                    likeness = [float(np.cos(np.radians(angles[at] - angles[other]))) for other in expected]
                    nearest = max([value for value in likeness if value >= 0.95], default=0.0)
                    values[at] = DIVERSITY * one.score - (1 - DIVERSITY) * nearest
            expected.append(max(values, key=lambda at: values[at]))
        assert names(put_back_repeats(hits, vectors)) == "".join(hits[at].path for at in expected)


def test_an_out_of_date_hit_is_lowered_only_near_a_current_one() -> None:
    hits = [scored("o", 1.0, outdated=True), scored("c", 0.9)]
    ranked = in_force_first(hits)
    assert names(ranked) == "co"
    assert ranked[1].score == pytest.approx(OUTDATED_FACTOR)
    alone = [scored("o", 1.0, outdated=True), scored("c", NEAR - 0.01)]
    assert in_force_first(alone) == alone
    assert names(in_force_first([scored("a", 0.1), scored("b", 0.2), scored("c", 0.2)])) == "bca"


OLD = "The allowance for meals is 25 euros a day, receipts are kept for a year."
NEW = "The allowance for meals is 31 euros a day, receipts are kept for a year."


def test_of_two_that_say_the_same_the_newer_goes_first() -> None:
    hits = [
        scored("x", 1.2, text="Something else."),
        scored("o", 1.0, text=OLD, updated="2024-03-01"),
        scored("y", 0.8, text="Another thing."),
        scored("n", 0.7, text=NEW, updated="2026-01-15"),
        scored("m", 0.6, text=NEW, updated="2025-01-15"),
    ]
    vectors = at_angles(hits, [200, 0, 100, 10, 10])
    ranked = newer_first(hits, vectors)
    assert names(ranked) == "xnmoy"
    assert_falls(ranked)
    assert newer_first(ranked, vectors) == ranked


@pytest.mark.parametrize(
    ("text", "updated", "angle"),
    [
        (NEW, None, 10),  # no date stated
        (NEW, "2023-01-01", 10),  # older
        (NEW, "2026-01-01", 40),  # far apart
        ("The allowance for hotels and for trains is set by each team's lead.", "2026-01-01", 10),  # other words
    ],
)
def test_anything_less_leaves_the_order_alone(text: str, updated: str | None, angle: float) -> None:
    hits = [scored("o", 1.0, text=OLD, updated="2024-03-01"), scored("n", 0.9, text=text, updated=updated)]
    assert newer_first(hits, at_angles(hits, [0, angle])) == hits


def test_an_out_of_date_text_goes_before_none_by_its_date() -> None:
    hits = [
        scored("c", 1.0, text=OLD, updated="2024-03-01"),
        scored("o", 0.9, text=NEW, updated="2026-01-01", outdated=True),
    ]
    assert newer_first(hits, at_angles(hits, [0, 10])) == hits


def test_passages_of_one_document_are_no_editions_of_each_other() -> None:
    hits = [scored("o", 1.0, text=OLD, updated="2024-03-01"), scored("n", 0.9, text=NEW, updated="2026-01-01")]
    same = replace(hits[1], passage=replace(hits[1].passage, document_id=hits[0].passage.document_id))
    vectors = at_angles(hits, [0, 10])
    assert newer_first([hits[0], same], vectors) == [hits[0], same]
    assert names(newer_first(hits, vectors)) == "no"


def test_a_mean_vector_is_midway_and_of_length_one() -> None:
    rows = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(middle(rows), [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    assert not middle(np.array([[1, 0], [-1, 0]], dtype=np.float32)).any()
