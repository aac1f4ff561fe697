"""The serving engine: one thread owns the model, requests reach it through a bounded queue.

PEFT's active adapter is state on shared modules, so nothing else may touch the model. Every request is a job
that yields after each decoding step; jobs take turns of a few steps, so none starves another, and the adapter
is set at the start of each turn. Text leaves through the request's own queue.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.base import read_base_manifest
from adapters.config import BaseManifest
from adapters.decode import Decoder, Step
from adapters.errors import AdapterError, EngineError, ModelError
from adapters.prompts import Message
from adapters.registry import AdapterInfo, find_adapters
from desk.config import AdapterSettings

__all__ = ["AdapterInfo", "Engine", "Message", "Stream"]

TURN_STEPS = 8
"""Decoding steps of one request before the next has its turn."""

ACTIVE_JOBS = 8
"""Requests that take turns; each holds a KV cache."""

WAITING_JOBS = 256
"""Requests that may wait before new ones are refused."""


_Job = Generator[Step | str | None, None, None]


@dataclass(slots=True)
class _Request:
    """What a caller wants, and the queue through which it gets steps or values, an error or the end (None)."""

    messages: tuple[Message, ...]
    adapter: str | None
    max_new_tokens: int
    choices: Mapping[str, Sequence[str]] | None = None
    out: "queue.SimpleQueue[Step | str | Exception | None]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Stream(Iterator[str]):
    """Pieces of one answer. `logprobs` are those of the tokens so far; `close` cancels what is still to come."""

    def __init__(self, steps: Generator[Step | str, None, None]) -> None:
        self._steps = steps
        self.logprobs: list[float] = []

    def __next__(self) -> str:
        while True:
            step = next(self._steps)
            assert isinstance(step, Step), "fields are filled, not streamed"
            if step.logprob is not None:
                self.logprobs.append(step.logprob)
            if step.text:
                return step.text

    def close(self) -> None:
        self._steps.close()


class Engine:
    """Streams answers and fills fields. `adapters` and `failures` are known before any model is loaded."""

    base: BaseManifest
    adapters: tuple[AdapterInfo, ...]
    failures: tuple[str, ...]

    def __init__(self, settings: AdapterSettings) -> None:
        self._settings = settings
        self.base = read_base_manifest(settings.base)
        self._found, refused = find_adapters(settings.shipped, settings.trained, self.base)
        self.adapters = tuple(found.info for found in self._found)
        self.failures = tuple(refused)
        self.steps = 0
        self._requests: queue.Queue[_Request | None] = queue.Queue(WAITING_JOBS)
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the owner thread, which loads base and adapters; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._own, name="engine", daemon=True)
            self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Whether the model is ready within `timeout_s`. Raises what loading raised."""
        if self._thread is None:
            raise EngineError("The engine is not started: call start() first.")
        ready = self._ready.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return ready

    def stream(self, messages: Sequence[Message], adapter: str | None, *, max_new_tokens: int | None = None) -> Stream:
        """Pieces of the greedy answer; closing the iterator cancels. `adapter` None is the base alone.

        Raises AdapterError for an unknown adapter, EngineError when the engine is stopped or full.
        """
        limit = self._settings.answer_tokens if max_new_tokens is None else max_new_tokens
        request = _Request(tuple(messages), adapter, limit)
        self._submit(request)
        return Stream(self._pieces(request))

    def fill(self, messages: Sequence[Message], adapter: str, choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """A value for every field, in order, each one of the field's choices."""
        empty = [name for name, values in choices.items() if not values]
        if empty or not choices:
            raise EngineError(f"fill() needs choices for every field; none for {', '.join(empty) or 'any'}.")
        fields = {name: tuple(values) for name, values in choices.items()}
        request = _Request(tuple(messages), adapter, 1, fields)
        self._submit(request)
        values = map(str, self._pieces(request))
        return dict(zip(fields, values, strict=True))

    def close(self) -> None:
        """Stops the owner thread; waiting callers get an EngineError."""
        self._stopped.set()
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _submit(self, request: _Request) -> None:
        known = [info.name for info in self.adapters]
        if request.adapter is not None and request.adapter not in known:
            raise AdapterError(f"There is no adapter {request.adapter!r}; known: {', '.join(known) or 'none'}.")
        if not request.messages:
            raise EngineError("A request needs at least one message.")
        self._check_alive()
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            raise EngineError(f"{WAITING_JOBS} requests are waiting already: try again in a moment.") from None

    def _check_alive(self) -> None:
        if self._error is not None:
            raise EngineError(f"The model is not available: {self._error}") from self._error
        if self._thread is None:
            raise EngineError("The engine is not started: call start() first.")
        if self._stopped.is_set() or not self._thread.is_alive():
            raise EngineError("The engine has stopped: restart the app.")

    def _pieces(self, request: _Request) -> Generator[Step | str, None, None]:
        try:
            while True:
                try:
                    piece = request.out.get(timeout=0.5)
                except queue.Empty:
                    self._check_alive()
                    continue
                if piece is None:
                    return
                if isinstance(piece, ModelError):
                    raise piece
                if isinstance(piece, Exception):
                    raise EngineError(f"The answer failed: {type(piece).__name__}: {piece}") from piece
                yield piece
        finally:
            request.cancelled.set()

    def _own(self) -> None:
        """The owner thread: loads, then serves until closed. Whatever it raises reaches every caller."""
        jobs: deque[tuple[_Request, _Job]] = deque()
        try:
            decoder = Decoder(self._settings)
            refused = decoder.attach(self._found)
            self.base = decoder.manifest
            self.failures += tuple(refused)
            self.adapters = tuple(info for info in self.adapters if info.name in decoder.attached)
            self._ready.set()
            while not self._stopped.is_set():
                self._admit(decoder, jobs)
                if jobs:
                    self._turn(decoder, jobs)
        except Exception as error:
            self._error = error
        finally:
            self._stopped.set()
            self._ready.set()
            self._release(jobs)

    def _admit(self, decoder: Decoder, jobs: deque[tuple[_Request, _Job]]) -> None:
        """Takes waiting requests in; without any job it waits for one."""
        while len(jobs) < ACTIVE_JOBS:
            try:
                request = self._requests.get(block=not jobs)
            except queue.Empty:
                return
            if request is None:
                return
            job: _Job
            if request.choices is None:
                job = decoder.generate(request.messages, request.max_new_tokens)
            else:
                job = decoder.fill(request.messages, request.choices)
            jobs.append((request, job))

    def _turn(self, decoder: Decoder, jobs: deque[tuple[_Request, _Job]]) -> None:
        """A few steps of the first job, which then goes to the end of the row unless it is done."""
        request, job = jobs.popleft()
        try:
            with decoder.adapter(request.adapter):
                for _ in range(TURN_STEPS):
                    if request.cancelled.is_set():
                        return
                    piece = next(job)
                    self.steps += 1
                    if piece:
                        request.out.put(piece)
        except StopIteration:
            request.out.put(None)
        except Exception as error:
            request.out.put(error)
        else:
            jobs.append((request, job))

    def _release(self, jobs: deque[tuple[_Request, _Job]]) -> None:
        stopped = EngineError("The engine has stopped: restart the app.")
        for request, _ in jobs:
            request.out.put(stopped)
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._requests.get_nowait()
                if waiting is not None:
                    waiting.out.put(stopped)
