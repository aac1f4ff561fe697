"""Counted shares with their intervals, and how well refusing tells what has no answer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.intervals import RESAMPLES, SEED, wilson


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `total`, with the 95% Wilson interval."""

    right: int
    total: int

    @classmethod
    def of(cls, rights: Iterable[bool]) -> "Share":
        """How many of these are true."""
        counted = [bool(right) for right in rights]
        return cls(sum(counted), len(counted))

    @property
    def value(self) -> float:
        """NaN of nothing."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:6.1%}  ({self.right}/{self.total}, 95% {low:.0%} to {high:.0%})"

    def to_json(self) -> dict[str, Any]:
        """NaN, which JSON lacks, becomes null."""
        low, high = self.interval
        return {**rounded({"value": self.value, "low": low, "high": high}), "right": self.right, "total": self.total}


@dataclass(frozen=True, slots=True)
class Refusals:
    """Of `total` questions `refused` were refused, `wanted` have no answer, and `rightly` are both."""

    rightly: int
    refused: int
    wanted: int
    total: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> "Refusals":
        """Counts of (refused, should be refused)."""
        told = list(pairs)
        return cls(sum(a and b for a, b in told), sum(a for a, _ in told), sum(b for _, b in told), len(told))

    @property
    def precision(self) -> Share:
        return Share(self.rightly, self.refused)

    @property
    def recall(self) -> Share:
        return Share(self.rightly, self.wanted)

    @property
    def f1(self) -> float:
        """NaN where nothing should be refused: there is nothing to find."""
        return 2 * self.rightly / (self.refused + self.wanted) if self.wanted else math.nan

    @property
    def f1_interval(self) -> tuple[float, float]:
        """95%, by the bootstrap over the questions."""
        if not self.wanted:
            return math.nan, math.nan
        counts = [self.rightly, self.refused - self.rightly, self.wanted - self.rightly]
        shares = [one / self.total for one in counts]
        drawn = np.random.default_rng(SEED).multinomial(
            self.total, [*shares, max(0.0, 1 - sum(shares))], size=RESAMPLES
        )
        rightly, wrongly, missed, _ = drawn.T
        values = 2 * rightly / np.maximum(2 * rightly + wrongly + missed, 1)
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def to_json(self) -> dict[str, float | None]:
        low, high = self.f1_interval
        parts = {"precision": self.precision.value, "recall": self.recall.value}
        return rounded({**parts, "f1": self.f1, "low": low, "high": high})


def rounded(values: dict[str, float]) -> dict[str, float | None]:
    """To four digits, as JSON: what could not be counted is null."""
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
