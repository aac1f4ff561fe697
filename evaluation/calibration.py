"""How far stated probabilities can be trusted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.share import Share

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """The mean stated probability of what lies in a bin, and how much of it came true."""

    stated: float
    came_true: Share


def reliability(stated: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Bin]:
    """The bins of BINS of equal width that hold anything, in order."""
    places = np.minimum((stated * BINS).astype(np.int64), BINS - 1)
    return [
        Bin(float(stated[own].mean()), Share(int(right[own].sum()), int(own.sum())))
        for own in (places == one for one in range(BINS))
        if own.any()
    ]


def calibration_error(stated: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The expected calibration error over BINS bins of equal width; NaN without rows."""
    if not len(stated):
        return float("nan")
    bins = reliability(stated, right)
    return float(sum(one.came_true.total * abs(one.stated - one.came_true.value) for one in bins) / len(stated))
