"""How sure a figure is that was counted on a few hundred rows: 95% intervals."""

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
SEED = 20265


def wilson(right: int, total: int) -> tuple[float, float]:
    """Of a share (Wilson 1927, "Probable Inference, the Law of Succession"); NaN of nothing."""
    if not total:
        return math.nan, math.nan
    z, share = 1.96, right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(one: Sequence[bool], other: Sequence[bool]) -> tuple[float, float, float]:
    """(share of `one` less that of `other`, low, high): both were asked the same rows, which the bootstrap draws."""
    gains = np.asarray(one, float) - np.asarray(other, float)
    drawn = gains[_draws(len(gains))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(gains.mean()), float(low), float(high)


def perplexity_interval(rows: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Of the perplexity per token of rows with (sum of log-probabilities, tokens), by the bootstrap over the rows."""
    sums, tokens = np.asarray(rows, float).T
    drawn = _draws(len(rows))
    low, high = np.quantile(np.exp(-sums[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)), [0.025, 0.975])
    return float(low), float(high)


def _draws(rows: int) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return np.random.default_rng(SEED).integers(0, rows, size=(RESAMPLES, rows))
