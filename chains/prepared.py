"""Between route and answer: what a chain gets (Prepared) and what it hands back beside events (Draft)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chains.turn import Citation, RouteDecision, Turn
from index.document import SearchResult
from index.related import RelatedDocument


@dataclass(frozen=True, slots=True)
class Prepared:
    """A routed turn. `vector` is what was searched with, `(d,)` unit length."""

    turn: Turn
    standalone: str
    vector: NDArray[np.float32]
    found: SearchResult
    decision: RouteDecision


@dataclass(frozen=True, slots=True)
class Draft:
    """What a chain ends with; the text is what it streamed. `closest` are the nearest documents of a refusal."""

    refused: bool = False
    citations: tuple[Citation, ...] = ()
    fields: Mapping[str, str] | None = None
    unsupported: tuple[tuple[int, int], ...] = ()
    closest: tuple[RelatedDocument, ...] = ()
