"""Which token comes next, from the model's scores."""

import math
from dataclasses import dataclass

import torch

from adapters.answer import Sampling


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of one row's next token: the likeliest, its log-probability, and (vocabulary,) logits."""

    best: int
    logprob: float
    logits: torch.Tensor


class Chooser:
    """Chooses one row's tokens, with a random stream of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, scores: Scores, allowed: torch.Tensor | None = None) -> tuple[int, float]:
        """The token and its log-probability. `allowed` (vocabulary,) is False for what a grammar forbids."""
        if not self._temperature and allowed is None:
            return scores.best, scores.logprob
        logits = scores.logits.float().cpu()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -math.inf)
        token = self._drawn(logits) if self._temperature else int(logits.argmax())
        return token, float(logits.log_softmax(-1)[token])

    def _drawn(self, logits: torch.Tensor) -> int:
        """A token of the nucleus (arXiv:1904.09751): the likeliest ones that together have `top_p`."""
        shares, order = (logits / self._temperature).softmax(-1).sort(descending=True)
        if self._top_p < 1:
            shares = shares.masked_fill(shares.cumsum(-1) - shares >= self._top_p, 0.0)
        return int(order[torch.multinomial(shares, 1, generator=self._random)])
