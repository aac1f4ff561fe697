"""How long each step of a turn takes."""

import time
from dataclasses import dataclass

PREPARING = ("condense", "embed", "search", "route")
"""The steps before an answer begins, by their names among the timings."""


@dataclass(slots=True)
class Clock:
    """Milliseconds per step since the turn began."""

    started: float
    last: float
    timings_ms: dict[str, float]

    @classmethod
    def start(cls) -> "Clock":
        now = time.perf_counter()
        return cls(now, now, {})

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.timings_ms[step] = (now - self.last) * 1000
        self.last = now

    def since_start(self, step: str) -> None:
        self.timings_ms[step] = (time.perf_counter() - self.started) * 1000

    def first_token(self) -> None:
        if "first_token" not in self.timings_ms:
            self.since_start("first_token")
