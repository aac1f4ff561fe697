"""LoRA for a batch whose rows have different adapters, or none, in one forward pass.

Rows are grouped by adapter: each group is one matrix of the batched products x A^T and (x A^T) B^T, so weights are read
once per adapter and not once per row; rows without an adapter take no part. That is Punica's and S-LoRA's idea
(arXiv:2310.18547, 2311.03285) with plain `torch.bmm`, which works on any device and over any base layer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from adapters.config import TARGET_MODULES

KEPT_STACKS = 4
"""Sets of adapters whose stacked weights are kept: reading prompts and decoding alternate between a few."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""A (r, in) and B turned round (r, out), the scale in it."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterWeights:
    """One version of an adapter in memory: a pair for each of the base's projections, by the projection's name."""

    name: str
    version: int
    pairs: Mapping[str, Pair]

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for pair in self.pairs.values() for tensor in pair)


def adapter_weights(
    name: str, version: int, state: Mapping[str, torch.Tensor], scale: float, like: torch.Tensor
) -> AdapterWeights:
    """From PEFT's own file (`base_model.model.LAYER.lora_A.weight`), in the type and on the device of `like`."""
    pairs: dict[str, Pair] = {}
    opening, ending = "base_model.model.", ".lora_A.weight"
    for key in state:
        if key.endswith(ending):
            layer = key.removeprefix(opening).removesuffix(ending)
            a, b = state[key], state[f"{opening}{layer}.lora_B.weight"]
            pairs[layer] = (
                a.to(device=like.device, dtype=like.dtype).contiguous(),
                (b.float() * scale).T.to(device=like.device, dtype=like.dtype).contiguous(),
            )
    return AdapterWeights(name, version, pairs)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Which rows of a batch have which adapters; `stacks` are those of exactly these adapters, by layer."""

    used: tuple[AdapterWeights, ...]
    grouped: torch.Tensor | None
    """(adapters x most rows of one,) row numbers, group after group, short groups filled up; None where all rows have
    the one adapter."""
    places: torch.Tensor | None
    """(rows with an adapter,) where each stands in `grouped`."""
    rows: torch.Tensor | None
    """(rows with an adapter,) their numbers; None where all rows have one."""
    stacks: dict[str, Pair] = field(default_factory=dict)

    def stack(self, layer: str) -> Pair:
        """A (adapters, r, in) and B (adapters, r, out), small ranks padded with zeros."""
        found = self.stacks.get(layer)
        if found is None:
            pairs = [adapter.pairs[layer] for adapter in self.used]
            rank = max(a.shape[0] for a, _ in pairs)
            a = [nn.functional.pad(a, (0, 0, 0, rank - a.shape[0])) for a, _ in pairs]
            b = [nn.functional.pad(b, (0, 0, 0, rank - b.shape[0])) for _, b in pairs]
            # One adapter's own tensors are seen, not copied.
            one = len(pairs) == 1
            found = (a[0][None], b[0][None]) if one else (torch.stack(a), torch.stack(b))
            self.stacks[layer] = found
        return found


class Mixer:
    """The mixture of the forward pass at hand, shared by all layers."""

    def __init__(self, device: torch.device) -> None:
        self.mixture: Mixture | None = None
        self._device = device
        self._stacks: OrderedDict[tuple[int, ...], tuple[tuple[AdapterWeights, ...], dict[str, Pair]]] = OrderedDict()
        self._last: tuple[tuple[int, ...], Mixture | None] = ((), None)

    def choose(self, adapters: Sequence[AdapterWeights | None]) -> None:
        """The adapter of each row of the next forward pass."""
        key = tuple(map(id, adapters))
        # Rows keep their adapters for many steps, and the mixture keeps those alive, so that ids stay theirs.
        if key != self._last[0] or self._last[1] is None:
            self._last = (key, self._mixture(adapters))
        self.mixture = self._last[1]

    def clear(self) -> None:
        """Lets go of all that was stacked."""
        self._last, self.mixture = ((), None), None
        self._stacks.clear()

    def forget(self, adapter: AdapterWeights) -> None:
        """Lets go of what was stacked of an adapter that is not to serve any more."""
        self._last, self.mixture = ((), None), None
        for key in [key for key in self._stacks if id(adapter) in key]:
            del self._stacks[key]

    def _mixture(self, adapters: Sequence[AdapterWeights | None]) -> Mixture | None:
        of: dict[int, list[int]] = {}
        used: dict[int, AdapterWeights] = {}
        for row, adapter in enumerate(adapters):
            if adapter is not None:
                used.setdefault(id(adapter), adapter)
                of.setdefault(id(adapter), []).append(row)
        if not used:
            return None
        key = tuple(sorted(used))
        kept = self._stacks.setdefault(key, (tuple(used[one] for one in key), {}))
        self._stacks.move_to_end(key)
        while len(self._stacks) > KEPT_STACKS:
            self._stacks.popitem(last=False)
        if len(key) == 1 and len(of[key[0]]) == len(adapters):
            return Mixture(kept[0], None, None, None, kept[1])
        most = max(map(len, of.values()))
        grouped = [row for one in key for row in (of[one] + [of[one][0]] * (most - len(of[one])))]
        where = {row: group * most + place for group, one in enumerate(key) for place, row in enumerate(of[one])}
        rows = sorted(where)
        everyone = len(rows) == len(adapters)
        return Mixture(
            kept[0],
            torch.tensor(grouped, device=self._device),
            torch.tensor([where[row] for row in rows], device=self._device),
            None if everyone else torch.tensor(rows, device=self._device),
            kept[1],
        )


class LoraLinear(nn.Module):
    """A base layer, whatever it is (plain, bf16, 4-bit), and the low-rank products of the rows' own adapters."""

    def __init__(self, base: nn.Module, layer: str, mixer: Mixer) -> None:
        super().__init__()
        self.base = base
        self._layer = layer
        self._mixer = mixer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, in) to (rows, tokens, out)."""
        y: torch.Tensor = self.base(x)
        mixture = self._mixer.mixture
        if mixture is None:
            return y
        a, b = mixture.stack(self._layer)
        rows, tokens, width = x.shape
        if mixture.grouped is None:
            change = _low_rank(x.reshape(1, rows * tokens, width), a, b)
            return y + change.view(rows, tokens, -1).to(y.dtype)
        grouped = x.index_select(0, mixture.grouped).view(len(mixture.used), -1, width)
        assert mixture.places is not None
        each = _low_rank(grouped, a, b).view(-1, tokens, y.shape[-1])
        change = each.index_select(0, mixture.places).to(y.dtype)
        if mixture.rows is None:
            return y + change
        return y.index_add(0, mixture.rows, change)


def _low_rank(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.bmm(torch.bmm(x.to(a.dtype), a.transpose(1, 2)), b)


def attach(model: Any, mixer: Mixer) -> None:
    """Puts a LoraLinear around every target projection of the model."""
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in TARGET_MODULES:
            setattr(model.get_submodule(parent), last, LoraLinear(module, name, mixer))
