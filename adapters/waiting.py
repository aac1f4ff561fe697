"""The queue before the batch: bounded, and fair between the people who wait in it."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from adapters.errors import BusyError


class Waiter(Protocol):
    """What waits: for whom, and whether still."""

    user: str

    @property
    def gone(self) -> bool: ...


WaiterT = TypeVar("WaiterT", bound=Waiter)


class Waiting(Generic[WaiterT]):
    """At most `limit` waiters. Safe for many threads that put and one that takes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._of: OrderedDict[str, deque[WaiterT]] = OrderedDict()
        """Each user's own in order; the users in the order in which their first one came or was last served."""

    def __len__(self) -> int:
        with self._lock:
            return self._count()

    def put(self, waiter: WaiterT) -> int:
        """Its place, from 1. Raises BusyError when the queue is full."""
        with self._lock:
            place = self._count() + 1
            if place > self._limit:
                raise BusyError(place)
            self._of.setdefault(waiter.user, deque()).append(waiter)
            return place

    def take(self, served: Counter[str]) -> WaiterT | None:
        """The next one: of the users who have the fewest answers in the making (`served`), the longest unserved."""
        with self._lock:
            self._count()
            if not self._of:
                return None
            user = min(self._of, key=lambda name: served[name])  # the first of several
            found = self._of[user].popleft()
            self._of.move_to_end(user)
            if not self._of[user]:
                del self._of[user]
            return found

    def sweep(self, out: Callable[[WaiterT], bool]) -> list[WaiterT]:
        """Takes those out of whom that is true, and gives them back."""
        with self._lock:
            found = [waiter for own in self._of.values() for waiter in own if out(waiter)]
            for user, own in list(self._of.items()):
                self._of[user] = deque(waiter for waiter in own if not any(waiter is one for one in found))
            self._count()
            return found

    def clear(self) -> list[WaiterT]:
        """All that wait, who then do no more."""
        with self._lock:
            found = [waiter for own in self._of.values() for waiter in own]
            self._of.clear()
            return found

    def _count(self) -> int:
        """How many wait, once those are out who wait no more; the lock is held."""
        for user, own in list(self._of.items()):
            if any(waiter.gone for waiter in own):
                self._of[user] = deque(waiter for waiter in own if not waiter.gone)
            if not self._of[user]:
                del self._of[user]
        return sum(map(len, self._of.values()))
