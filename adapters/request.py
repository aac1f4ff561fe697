"""One request on its way through the engine, from its caller's thread to the serving one and back."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.answer import Finish, Sampling, Step, Usage
from adapters.prompts import Message


@dataclass(slots=True, eq=False)
class Request:
    """What a caller wants, and the queue through which it gets steps, and at the end a Usage or an error.

    With `choices` the fields of a form are filled; else an answer is written. Times are those of `time.monotonic`.
    """

    messages: tuple[Message, ...]
    adapter: str | None
    user: str
    sampling: Sampling
    choices: Mapping[str, Sequence[str]] | None = None
    out: "queue.SimpleQueue[Step | Usage | Exception]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)
    joined: float = 0.0
    first: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    notify: Callable[[], None] | None = None
    """Called, in the serving thread, after something was put in `out`."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled.is_set()

    @property
    def late(self) -> bool:
        """Whether its deadline is over."""
        limit = self.sampling.deadline_s
        return limit is not None and time.monotonic() - self.began > limit

    def emit(self, step: Step) -> None:
        """Hands a step to the caller."""
        if not self.first:
            self.first = time.monotonic()
        if step.logprob is not None:
            self.tokens += 1
        self._put(step)

    def end(self, adapter: str | None, finish: Finish) -> None:
        """Tells the caller that the answer is complete, and what it took."""
        now = time.monotonic()
        self._put(
            Usage(
                adapter=adapter,
                finish=finish,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.tokens,
                queued_s=self.joined - self.began,
                first_token_s=(self.first or now) - self.began,
                total_s=now - self.began,
            )
        )

    def fail(self, error: Exception) -> None:
        """Tells the caller that there will be no answer, or no more of it."""
        self._put(error)

    def _put(self, piece: Step | Usage | Exception) -> None:
        self.out.put(piece)
        if self.notify:
            self.notify()
