"""Figures of a ranking against graded judgements, and their intervals. Knows nothing of how it was found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters.intervals import RESAMPLES, SEED

_AT_ONCE = 200
"""Resamples drawn together: at 100,000 queries they take 160 MB."""

Judged = Mapping[str, float]
"""The grades of a query's relevant items, all above 0."""
Figure = Callable[[Sequence[str], Judged], float]
"""Of a ranking (each item once, best first) and what is relevant; in [0, 1]."""


def recall(depth: int) -> Figure:
    """The share of the relevant items among the first `depth`."""
    return lambda ranked, judged: sum(item in judged for item in ranked[:depth]) / len(judged)


def reciprocal_rank(depth: int) -> Figure:
    """One over the rank of the first relevant item; 0 if none is among the first `depth`."""
    return lambda ranked, judged: next(
        (1.0 / rank for rank, item in enumerate(ranked[:depth], 1) if item in judged), 0.0
    )


def ndcg(depth: int) -> Figure:
    """Gains of the grades themselves over log2(rank + 1), as a share of the best order's: trec_eval's ndcg_cut."""

    def figure(ranked: Sequence[str], judged: Judged) -> float:
        best = _discounted(sorted(judged.values(), reverse=True)[:depth])
        return _discounted([judged.get(item, 0.0) for item in ranked[:depth]]) / best

    return figure


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


DEPTH = 10
"""How many ranks the deepest figure looks at."""
FIGURES: Mapping[str, Figure] = {
    "recall@1": recall(1),
    "recall@5": recall(5),
    "recall@10": recall(10),
    "mrr@10": reciprocal_rank(10),
    "ndcg@10": ndcg(10),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, its 95% interval, and that of "hybrid minus this"; both by the paired bootstrap."""

    value: float
    interval: tuple[float, float]
    behind: tuple[float, float]


def compare(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Measured:
    """Of `theirs`, over the same resampled queries for both; both (queries,) in the same order."""
    random = np.random.default_rng(SEED)
    pairs = np.stack([theirs, ours - theirs])
    means = np.concatenate(
        [
            pairs[:, random.integers(0, len(ours), (_AT_ONCE, len(ours)))].mean(axis=2)
            for _ in range(RESAMPLES // _AT_ONCE)
        ],
        axis=1,
    )
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return Measured(float(theirs.mean()), (float(low[0]), float(high[0])), (float(low[1]), float(high[1])))
