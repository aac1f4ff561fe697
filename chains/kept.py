"""Arrays that took long to make, kept in a folder under the hash of what they were made from. Never pickled."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def kept(folder: Path, kind: str, made_from: bytes, make: Callable[[], Arrays]) -> Arrays:
    """What `make` returns, or once returned for the same bytes. Of a kind only the latest is kept."""
    path = folder / f"{kind}-{hashlib.sha256(made_from).hexdigest()[:32]}.npz"
    if (found := _read(path)) is not None:
        return found
    arrays = make()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{kind}-*.np[yz]"):
        old.unlink(missing_ok=True)
    beside = folder / f"{secrets.token_hex(4)}.part.npz"  # of its own: several processes may start at once
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)
    return arrays


def kept_before(folder: Path, kind: str) -> Arrays:
    """The latest of a kind, whatever it was made from; nothing where there is none."""
    for path in folder.glob(f"{kind}-*.npz"):
        if (found := _read(path)) is not None:
            return found
    return {}


def _read(path: Path) -> Arrays | None:
    """What a file holds; None where it is not there (another process may have put a newer one in its place) or torn."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
