"""The serving engine: one thread owns the model, and every request is a row of its batch.

Requests wait in a bounded queue that is fair between users; rows join and leave the batch between two steps, each with
its own adapter (decode.py). Adapters are read and checked on a second thread, and taken in between two steps
(serving.py). Text leaves through each request's own queue. docs/architecture.md walks through the loop.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adapters.answer import Sampling, Step, Usage
from adapters.base import load_base, read_base_manifest
from adapters.catalogue import Catalogue
from adapters.config import BaseManifest
from adapters.errors import EngineError, ModelError, UnavailableError
from adapters.prompts import Message
from adapters.registry import AdapterInfo, adapter_folders, find_adapters
from adapters.request import Request
from adapters.waiting import Waiting
from desk.settings import AdapterSettings

if TYPE_CHECKING:  # torch takes seconds to import, and pages open before the model is there
    from adapters.serving import Serving

__all__ = ["AdapterInfo", "Engine", "Message", "Sampling", "Stream", "Usage"]

WAITING_REQUESTS = 256
"""Requests that may wait before new ones are told that everybody is busy."""

POLL_S = 0.5
"""How often whoever waits for a piece looks whether the engine is still there."""

RESTARTS = 3
RESTARTS_S = 600
"""A serving loop that dies is started again, but not more often than so in so many seconds."""

_log = logging.getLogger("switchboard.engine")
_STOPPED = "The engine has stopped: restart the app."


class Stream(Iterator[str], AsyncIterator[str]):
    """Pieces of one answer, for one thread or one event loop.

    `logprobs` are those of the tokens so far, `usage` is known at the end. `close`, from any thread, cancels what is
    still to come; so does dropping the last reference.
    """

    def __init__(self, request: Request, check: Callable[[], None]) -> None:
        self._request, self._check = request, check
        self._arrived: asyncio.Event | None = None
        self.logprobs: list[float] = []
        self.usage: Usage | None = None

    def __next__(self) -> str:
        while not self._ended:
            try:
                piece = self._request.out.get(timeout=POLL_S)
            except queue.Empty:
                self._check()
                continue
            if text := self._text(piece):
                return text
        raise StopIteration

    async def __anext__(self) -> str:
        arrived = self._listen()
        while not self._ended:
            arrived.clear()
            try:
                piece = self._request.out.get_nowait()
            except queue.Empty:
                try:
                    await asyncio.wait_for(arrived.wait(), POLL_S)
                except TimeoutError:
                    self._check()
                continue
            if text := self._text(piece):
                return text
        raise StopAsyncIteration

    def __del__(self) -> None:
        self._request.cancelled.set()

    def close(self) -> None:
        self._request.cancelled.set()

    @property
    def _ended(self) -> bool:
        return self.usage is not None or self._request.gone

    def _text(self, piece: Step | Usage | Exception) -> str:
        """The text of what arrived. Raises what the answer failed of."""
        if isinstance(piece, Usage):
            self.usage = piece
            return ""
        if isinstance(piece, Step):
            if piece.logprob is not None:
                self.logprobs.append(piece.logprob)
            return piece.text
        self.close()
        if isinstance(piece, ModelError):
            raise piece
        raise EngineError(f"The answer failed: {type(piece).__name__}: {piece}") from piece

    def _listen(self) -> asyncio.Event:
        """An event of the running loop that is set whenever something arrives."""
        if self._arrived is None:
            arrived = self._arrived = asyncio.Event()
            loop, request = asyncio.get_running_loop(), self._request

            def tell() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                    loop.call_soon_threadsafe(arrived.set)

            request.notify = tell
        return self._arrived


class Engine:
    """Streams answers and fills fields. `base`, `adapters` and `failures` are known before any model is loaded."""

    base: BaseManifest

    def __init__(self, settings: AdapterSettings) -> None:
        self._settings = settings
        self.base = read_base_manifest(settings.base)
        self._catalogue = Catalogue(*find_adapters(settings.shipped, settings.trained, self.base))
        self._waiting: Waiting[Request] = Waiting(WAITING_REQUESTS)
        self._work = threading.Condition()
        self._serving: Serving | None = None
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def adapters(self) -> tuple[AdapterInfo, ...]:
        """The adapters that can be asked for, by name."""
        return self._catalogue.infos

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each adapter that is left out."""
        return self._catalogue.failures

    @property
    def resident(self) -> tuple[str, ...]:
        """The adapters whose weights are in memory, least recently used first."""
        return self._serving.resident if self._serving else ()

    @property
    def steps(self) -> int:
        """Steps of the batch so far."""
        return self._serving.decoder.steps if self._serving else 0

    # Callers, from any thread

    def start(self) -> None:
        """Starts the serving thread, which loads base and adapters; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._own, name="engine", daemon=True)
            self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Whether the model is ready within `timeout_s`. Raises what loading raised."""
        if self._thread is None:
            raise UnavailableError("The engine is not started: call start() first.")
        ready = self._ready.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return ready

    def stream(
        self, messages: Sequence[Message], adapter: str | None, sampling: Sampling | None = None, *, user: str = ""
    ) -> Stream:
        """Pieces of the answer; closing or dropping the iterator cancels.

        `adapter` is a name, or NAME@VERSION for no other version; None is the base alone. `user` is for whom: users
        take turns. Raises AdapterError for an unknown adapter, BusyError when the queue is full, EngineError when the
        engine has stopped.
        """
        request = Request(tuple(messages), adapter, user, sampling or Sampling())
        self._submit(request)
        return Stream(request, self._check_alive)

    def fill(
        self, messages: Sequence[Message], adapter: str, choices: Mapping[str, Sequence[str]], *, user: str = ""
    ) -> dict[str, str]:
        """A value for every field, in order, each one of the field's choices."""
        empty = [name for name, values in choices.items() if not values or not all(values)]
        if empty or not choices:
            raise EngineError(f"fill() needs choices for every field; none for {', '.join(empty) or 'any'}.")
        fields = {name: tuple(values) for name, values in choices.items()}
        request = Request(tuple(messages), adapter, user, Sampling(), fields)
        self._submit(request)
        values = list(Stream(request, self._check_alive))
        return dict(zip(fields, values, strict=True))

    def refresh(self, wait_s: float = 0.0) -> None:
        """Takes up what has changed in the adapters' folders, while others are served; waits for it at most so long.

        A new version serves once it is read and checked; until then, and if it cannot be used, the one before does.
        """
        serving = self._serving
        if serving is not None and not self._stopped.is_set():
            shipped, trained = self._settings.shipped, self._settings.trained
            found, refused = find_adapters(shipped, trained, self.base)
            folders = adapter_folders(shipped, trained).keys()
            done = threading.Event()
            serving.errands.put(partial(serving.compare, found, refused, folders, done))
            self._wake()
            done.wait(wait_s)

    def close(self) -> None:
        """Stops the serving thread; waiting callers get an EngineError."""
        self._stopped.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _submit(self, request: Request) -> None:
        if not request.messages:
            raise EngineError("A request needs at least one message.")
        self._catalogue.named(request.adapter)
        self._check_alive()
        self._waiting.put(request)
        self._wake()

    def _check_alive(self) -> None:
        if self._error is not None:
            raise UnavailableError(f"The model is not available: {self._error}") from self._error
        if self._thread is None:
            raise UnavailableError("The engine is not started: call start() first.")
        if self._stopped.is_set() or not self._thread.is_alive():
            raise UnavailableError(_STOPPED)

    def _wake(self) -> None:
        with self._work:
            self._work.notify_all()

    # The serving thread

    def _own(self) -> None:
        """Loads and serves until closed; starts again where it dies. Whatever it raises reaches every caller."""
        deaths: list[float] = []
        try:
            while not self._stopped.is_set():
                try:
                    self._load_and_serve()
                except Exception as error:
                    deaths = [at for at in deaths if time.monotonic() - at < RESTARTS_S] + [time.monotonic()]
                    if self._serving is None or len(deaths) > RESTARTS:
                        self._error = error
                        return
                    _log.exception("the serving loop died and is started again")
                    self._serving = None
        finally:
            self._stopped.set()
            self._ready.set()

    def _load_and_serve(self) -> None:
        import torch

        from adapters.decode import Decoder
        from adapters.serving import Serving

        torch.set_num_threads(self._settings.threads)
        decoder = Decoder(load_base(self._settings.base, self._settings.quantization, self._settings.cache))
        self.base = decoder.manifest
        serving = Serving(decoder, self._catalogue, self._waiting, self._settings, self._wake)
        why = _STOPPED
        try:
            serving.load_all()
            self._serving = serving
            self._ready.set()
            while not self._stopped.is_set():
                with self._work:
                    self._work.wait_for(lambda: self._stopped.is_set() or not serving.idle or len(self._waiting))
                serving.turn()
        except Exception as error:
            why = f"The model stopped and is being started again ({type(error).__name__}): ask again in a moment."
            raise
        finally:
            serving.tell_all(UnavailableError(why))
            serving.close()
