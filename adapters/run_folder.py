"""Where a training run keeps its checkpoints until its adapter is complete, so that a killed one goes on."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from adapters.errors import DatasetError

COMPLETE = ("trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt")
"""A checkpoint that was killed while it was written lacks one of these, or holds one that is empty."""

BUSY = "{} is being trained already: wait for it, or stop it first."


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Nobody else makes `output` meanwhile. Raises DatasetError where somebody does."""
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}-lock")
    with path.open("a") as lock:
        take_lock(lock, BUSY.format(output.name))
        # Whoever held it a moment ago may have removed it since it was opened here.
        if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
            raise DatasetError(BUSY.format(output.name))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def run_folder(output: Path, what: object) -> Iterator[Path]:
    """A folder for the run that writes `output`, which is gone once the run has ended well.

    `what` is all that decides the run's outcome: checkpoints of another one are thrown away. Raises DatasetError while
    another process trains the same adapter.
    """
    folder = output.with_name(f".{output.name}-run")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        take_lock(lock, BUSY.format(output.name))
        told = folder / "run.json"
        identity = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        if not told.is_file() or told.read_text(encoding="utf-8") != identity:
            for path in folder.glob("checkpoint-*"):
                shutil.rmtree(path)
            told.write_text(identity, encoding="utf-8")
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def take_lock(lock: TextIO | int, busy: str) -> None:
    """Holds the lock until it is closed. Raises DatasetError with the sentence `busy` where somebody else does."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(busy) from None


def newest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint; those that are not are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        if all((path / name).is_file() and (path / name).stat().st_size for name in COMPLETE):
            return path
        shutil.rmtree(path)
    return None
