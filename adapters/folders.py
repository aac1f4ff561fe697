"""Folders of weights: they appear when they are complete, or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import AdapterError
from desk.config import AdapterSettings

CARD = "README.md"
REPORT = "report.md"
REPORT_PAGE = "report.html"
CURVES = "curves.png"
LOSSES = "losses.json"
"""What stands beside an adapter's weights for people to read; registry.py names what the program reads."""


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of `output` at the end; what raises within leaves `output` as it was."""
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        for path in (path for path in scratch.rglob("*") if path.is_file()):
            # safetensors writes for its owner alone; a service often runs as someone else.
            path.chmod(0o644)
        old = scratch.with_name(f"{scratch.name}-old")
        if output.exists():
            output.rename(old)
        scratch.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Says in a sentence why what is written within does not get to `output`. Raises AdapterError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{output} cannot be written ({error}): check the path, its rights and the space.") from None


def trained_folder(settings: AdapterSettings, name: str, *, promoted: bool) -> Path:
    """Where trained weights lie: those that serve, or those that wait for somebody to let them."""
    return (settings.trained if promoted else settings.trained.with_name("candidates")) / name
