"""A bar on standard error that shows how a build goes: counts, rate, remaining time."""

import sys
from typing import Any

from index.build import BuildProgress


class ProgressBar:
    """Draws what it is called with; opens with the first call, so that a build with nothing to do shows nothing."""

    def __init__(self, passages: str = "Embedding anew") -> None:
        """`passages` says what is done where passages are counted."""
        self._passages = passages
        self._bar: Any = None
        self._unit = ""

    def __call__(self, progress: BuildProgress) -> None:
        from tqdm import tqdm

        if self._bar is None or self._unit != progress.unit:
            self.close()
            self._unit = progress.unit
            doing = "Building the index" if progress.unit == "file" else self._passages
            self._bar = tqdm(total=progress.total, unit=progress.unit, desc=doing, file=sys.stderr)
        self._bar.update(progress.done - self._bar.n)
        if progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
