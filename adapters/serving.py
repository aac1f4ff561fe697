"""The loop of the serving thread: who joins the batch, one step of it, who leaves.

Each turn does what came in meanwhile (adapters that were read, folders that changed), lets cancelled and late rows go,
fills free places from the queue, and takes the batch one step further.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from adapters.answer import Finish
from adapters.catalogue import Catalogue
from adapters.decode import Decoder, Row
from adapters.errors import AdapterError, EngineError, ModelError
from adapters.lora_batch import AdapterWeights
from adapters.registry import FoundAdapter
from adapters.request import Request
from adapters.residents import Residents, check_effect, load_weights, read_adapter
from adapters.waiting import Waiting
from desk.settings import AdapterSettings

MOST_PARKED = 64
"""So many requests may wait for adapters that are being read; more of them stay in the queue, which is bounded."""


class Serving:
    """Everything that the serving thread owns. Only `errands` may be used by others."""

    def __init__(
        self,
        decoder: Decoder,
        catalogue: Catalogue,
        waiting: Waiting[Request],
        settings: AdapterSettings,
        wake: Callable[[], None],
    ) -> None:
        self.decoder = decoder
        self.errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """What is to be done between two steps."""
        self._catalogue, self._waiting, self._wake = catalogue, waiting, wake
        self._places = settings.rows
        self._answer_tokens = settings.answer_tokens
        self._residents = Residents(settings.adapter_bytes)
        self._running: list[tuple[Request, Row]] = []
        self._next: tuple[Request, Row] | None = None
        """Joins as soon as there is memory for it."""
        self._wanted: dict[str, FoundAdapter] = {}
        """What is being read, the newest version of each adapter."""
        self._parked: dict[str, list[Request]] = {}
        """Those who wait until their adapter is read, by its name."""
        self._read: list[Request] = []
        """Those whose adapter has been read: they go before the queue."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters whose weights are in memory, least recently used first."""
        return self._residents.names

    @property
    def idle(self) -> bool:
        """Whether nothing can be done before somebody asks, or an adapter has been read."""
        return not self._running and not self._read and self._next is None and self.errands.empty()

    def load_all(self) -> None:
        """Checks every adapter; those that were used last stay in memory, as far as the budget goes."""
        for found in self._catalogue.all():
            try:
                self._residents.put(load_weights(found, self.decoder), (), self.decoder)
            except Exception as error:  # one adapter, whatever is wrong with it, never costs the others
                self._refuse(found, error)

    def turn(self) -> None:
        """One turn of the loop. Raises what the model raises whatever the rows are."""
        while not self.errands.empty():
            self.errands.get()()
        self._drop()
        self._admit()
        if self._running:
            self.decoder.step()
            self._collect()

    def tell_all(self, error: EngineError) -> None:
        """Everybody who waits or is being answered gets this error."""
        requests = [request for request, _ in self._running] + self._read + self._waiting.clear()
        requests += [request for parked in self._parked.values() for request in parked]
        requests += [self._next[0]] if self._next else []
        for request in requests:
            request.fail(error)
        self._running, self._read, self._parked, self._next = [], [], {}, None

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _drop(self) -> None:
        """Frees the rows of those who cancelled or whose deadline is over."""
        for request, row in list(self._running):
            if request.gone or request.late:
                self._leave(request, row)
                if not request.gone:
                    request.end(_label(row.adapter), "deadline")
        for request in self._waiting.sweep(lambda request: request.late):
            request.fail(_too_late(request))

    def _collect(self) -> None:
        for request, row in list(self._running):
            if row.done:
                self._leave(request, row)
                if row.error:
                    request.fail(row.error)
                else:
                    finish: Finish = row.finish or "stop"
                    request.end(_label(row.adapter), finish)

    def _leave(self, request: Request, row: Row) -> None:
        self._running.remove((request, row))
        self.decoder.leave(row)

    def _admit(self) -> None:
        """Fills the free places, as far as memory allows."""
        while len(self._running) < self._places and sum(map(len, self._parked.values())) < MOST_PARKED:
            joining = self._next or self._taken()
            if joining is None:
                return
            request, row = joining
            self._next = None
            if request.gone:
                continue
            if not self.decoder.fits(row):
                self._next = joining
                return
            request.joined = time.monotonic()
            self.decoder.join(row)
            self._running.append(joining)

    def _taken(self) -> tuple[Request, Row] | None:
        """The next request and its row; those that cannot have one are told why."""
        while True:
            served = Counter(request.user for request, _ in self._running)
            request = self._read.pop(0) if self._read else self._waiting.take(served)
            if request is None:
                return None
            if request.gone:
                continue
            try:
                row = self._row(request)
            except Exception as error:  # a prompt or a schema that cannot be used is its sender's alone
                request.fail(error)
            else:
                if row is not None:
                    return request, row

    def _row(self, request: Request) -> Row | None:
        """The request's row; None if its adapter has to be read first. Raises ModelError."""
        if request.late:
            raise _too_late(request)
        found = self._catalogue.named(request.adapter)
        weights = None
        if found is not None:
            weights = self._residents.get(found.manifest.name)
            if weights is None:
                self._parked.setdefault(found.manifest.name, []).append(request)
                if found.manifest.name not in self._wanted:
                    self._start_reading(found)
                return None
        if request.choices is not None:
            row = self.decoder.fields(request.messages, weights, request.choices, request.emit)
        else:
            wanted = request.sampling.max_tokens or self._answer_tokens
            row = self.decoder.answer(request.messages, weights, wanted, request.sampling, request.emit)
        request.prompt_tokens = len(row.tokens)
        return row

    # Adapters

    def compare(
        self, found: Sequence[FoundAdapter], refused: Sequence[str], folders: Set[str], done: threading.Event
    ) -> None:
        """Reads what is new in the adapters' folders, and forgets what is no longer there; `done` once all is read.

        What has a folder that is of no use now goes on as it was.
        """
        self._catalogue.report(refused)
        for one in found:
            if not self._catalogue.serves(one):
                self._start_reading(one)
        self._reader.submit(self._hand_over, done.set)  # after what is read now, in the order of asking
        for gone in {one.manifest.name for one in self._catalogue.all()} - folders:
            self._catalogue.remove(gone)
            self._residents.drop(gone, self.decoder)

    def _start_reading(self, found: FoundAdapter) -> None:
        """Reads an adapter beside the serving thread, unless that very version is being read already."""
        name = found.manifest.name
        if self._wanted.get(name) == found:
            return
        self._wanted[name] = found

        def read() -> None:
            try:
                arrived: AdapterWeights | Exception = read_adapter(found, self.decoder)
            except Exception as error:
                arrived = error
            self._hand_over(partial(self._arrived, found, arrived))

        self._reader.submit(read)

    def _refuse(self, found: FoundAdapter, error: Exception) -> None:
        if not isinstance(error, ModelError):
            error = AdapterError(f"it cannot be read ({type(error).__name__}: {error}).")
        self._catalogue.refuse(found, error)

    def _hand_over(self, errand: Callable[[], None]) -> None:
        self.errands.put(errand)
        self._wake()

    def _arrived(self, found: FoundAdapter, arrived: AdapterWeights | Exception) -> None:
        """Takes in what was read, once it is seen to change answers; whoever waited for it goes on."""
        name = found.manifest.name
        if self._wanted.get(name) != found:
            return  # a newer version is on its way
        del self._wanted[name]
        try:
            if isinstance(arrived, Exception):
                raise arrived
            check_effect(arrived, self.decoder)
        except Exception as error:
            self._refuse(found, error)
        else:
            self._residents.put(arrived, (row.adapter for row in self.decoder.rows), self.decoder)
            self._catalogue.accept(found)
        self._read += self._parked.pop(name, [])


def _too_late(request: Request) -> EngineError:
    return EngineError(f"Nobody was free within {request.sampling.deadline_s} s: try again in a moment.")


def _label(adapter: AdapterWeights | None) -> str | None:
    return None if adapter is None else f"{adapter.name}@{adapter.version}"
