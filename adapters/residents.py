"""Which adapters' weights are in memory: read and checked beside the serving thread, the least recently used let go."""

from collections import OrderedDict
from collections.abc import Iterable

from adapters.decode import Decoder
from adapters.errors import AdapterError
from adapters.lora_batch import AdapterWeights, adapter_weights
from adapters.registry import FoundAdapter, read_weights


def read_adapter(found: FoundAdapter, decoder: Decoder) -> AdapterWeights:
    """The checked weights, as the batch takes them; for any thread. Raises AdapterError."""
    state, scale = read_weights(found, decoder.shapes)
    return adapter_weights(found.manifest.name, found.manifest.version, state, scale, decoder.like)


def check_effect(weights: AdapterWeights, decoder: Decoder) -> None:
    """One forward pass of two rows, by the thread that owns the batch. Raises AdapterError for weights of no use."""
    changes = decoder.changes_answers(weights)
    if changes is None:
        raise AdapterError("its weights make the model's scores no numbers: train it again with a lower learning rate.")
    if not changes:
        raise AdapterError("its weights change nothing in the model's scores: it was saved before it was trained.")


def load_weights(found: FoundAdapter, decoder: Decoder) -> AdapterWeights:
    """Both, for a thread that owns the batch. Raises AdapterError."""
    weights = read_adapter(found, decoder)
    check_effect(weights, decoder)
    return weights


class Residents:
    """The newest version of each adapter that is in memory. The thread that owns the batch owns this too."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._weights: OrderedDict[str, AdapterWeights] = OrderedDict()

    def get(self, name: str) -> AdapterWeights | None:
        """The weights, which count as used just now."""
        if name in self._weights:
            self._weights.move_to_end(name)
        return self._weights.get(name)

    def put(self, weights: AdapterWeights, serving: Iterable[AdapterWeights | None], decoder: Decoder) -> None:
        """Takes a version in; lets go of the one before, and of the least recently used beyond the budget.

        Rows that have an adapter keep its weights alive until they end, whatever is let go here.
        """
        self.drop(weights.name, decoder)
        self._weights[weights.name] = weights
        in_use = {id(one) for one in serving} | {id(weights)}
        for name, other in list(self._weights.items()):
            if sum(one.bytes for one in self._weights.values()) <= self._budget:
                break
            if id(other) not in in_use:
                self.drop(name, decoder)

    def drop(self, name: str, decoder: Decoder) -> None:
        """Lets go of an adapter."""
        gone = self._weights.pop(name, None)
        if gone is not None:
            decoder.forget(gone)

    @property
    def names(self) -> tuple[str, ...]:
        """Least recently used first."""
        return tuple(self._weights)
