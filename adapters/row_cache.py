"""Keys and values of rows of different lengths that come and go: what the model's attention has read so far.

Row n of the batch is slot n. Each row writes at its own positions, so rows need no common length, and none is copied
when another joins; the last row moves into the place of one that leaves.
"""

from collections.abc import Sequence
from typing import Any

import torch

BLOCK = 256
"""Positions by which the room of all slots grows at a time."""


class RowCache:
    """What transformers' Phi-3 takes as `past_key_values`: it calls `update` once a layer.

    Before each forward pass `begin` says whose rows it holds. Positions that nothing was written to hold zeros:
    attention gives them no weight, but no weight times NaN would still be NaN.
    """

    def __init__(self, config: Any, dtype: torch.dtype, device: torch.device) -> None:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._shape = (config.num_key_value_heads, head)
        self._dtype, self._device = dtype, device
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._layers = config.num_hidden_layers
        self._slots = self._room = 0
        self._rows: torch.Tensor | slice = slice(0)
        self._at: tuple[torch.Tensor, torch.Tensor] | None = None
        self._seen = 0

    @property
    def bytes_per_position(self) -> int:
        """Of one row, all layers."""
        heads, head = self._shape
        return int(2 * self._layers * heads * head * self._dtype.itemsize)

    def bytes_for(self, slots: int, room: int) -> int:
        """What the tensors take once `reserve` has made place for so many rows of so many positions."""
        return self._shape_for(slots, room)[0] * self._shape_for(slots, room)[1] * self.bytes_per_position

    def reserve(self, slots: int, room: int) -> None:
        """Makes place for so many rows of so many positions. What fails leaves everything as it was."""
        slots, room = self._shape_for(slots, room)
        if (slots, room) == (self._slots, self._room):
            return
        heads, head = self._shape
        made = []
        for old in (self._keys, self._values):
            new = [
                torch.zeros(slots, heads, room, head, dtype=self._dtype, device=self._device)
                for _ in range(self._layers)
            ]
            for before, after in zip(old, new, strict=False):
                after[: self._slots, :, : self._room] = before
            made.append(new)
        self._keys, self._values = made
        self._slots, self._room = slots, room

    def _shape_for(self, slots: int, room: int) -> tuple[int, int]:
        """Slots grow by doubling, room by blocks; neither shrinks while a row is held."""
        return max(self._slots, 1 << (slots - 1).bit_length()), max(self._room, -(-room // BLOCK) * BLOCK)

    def release(self) -> None:
        """Gives the memory back; no row may be held."""
        self._keys, self._values = [], []
        self._slots = self._room = 0

    def leave(self, slot: int, last: int, length: int) -> None:
        """Row `slot` is gone, and row `last`, of so many positions, takes its place."""
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                if slot != last:
                    tensor[slot, :, :length] = tensor[last, :, :length]
                    tensor[slot, :, length:] = 0
                tensor[last] = 0

    def begin(self, slots: Sequence[int], positions: torch.Tensor, seen: int) -> None:
        """The forward pass to come: its rows' slots, (rows, tokens) positions, and how far its attention looks."""
        first, count = slots[0], len(slots)
        together = list(slots) == list(range(first, first + count))
        self._rows = slice(first, first + count) if together else torch.tensor(slots, device=self._device)
        self._at = (torch.tensor(slots, device=self._device)[:, None], positions)
        self._seen = seen

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores (rows, heads, tokens, head) of one layer; gives all that its rows hold, (rows, heads, seen, head)."""
        assert self._at is not None, "begin() comes before a forward pass"
        slots, positions = self._at
        self._keys[layer][slots, :, positions] = keys.transpose(1, 2)
        self._values[layer][slots, :, positions] = values.transpose(1, 2)
        return self._keys[layer][self._rows, :, : self._seen], self._values[layer][self._rows, :, : self._seen]

    def get_seq_length(self, layer: int = 0) -> int:
        """Asked for by the model; positions are given to it, so that it does not matter."""
        return self._seen
