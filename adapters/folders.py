"""Folders of weights: they appear when they are complete, or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import ModelError, UnwritableError
from desk.settings import AdapterSettings

CARD = "README.md"
REPORT = "report.md"
REPORT_PAGE = "report.html"
CURVES = "curves.png"
LOSSES = "losses.json"
"""What stands beside an adapter's weights for people to read; registry.py names what the program reads."""
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
}
_CODE = re.compile(r"(?:\[Errno |os error )(\d+)")


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
        try:
            scratch.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def replacing_file(output: Path) -> Iterator[Path]:
    """A file beside `output` that takes its place at the end, and where that is a link, the place that it points to."""
    output = output.resolve()
    beside = output.with_name(f".{os.getpid()}-{output.name}")  # its suffix says what it is
    try:
        yield beside
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises UnwritableError in a sentence where a file could not be written: no space, a quota, no rights.

    It names the file that the system names, else `folder`. What is a ModelError already stays what it is.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        place = _place(error) or folder
        # A file elsewhere is one that was read: the system says the same of both.
        what = "written" if place.is_relative_to(folder) or folder.is_relative_to(place) else "read or written"
        raise UnwritableError(
            f"{place} cannot be {what} ({reason}): make space or check the rights, and run the command again."
        ) from error


def _place(error: Exception) -> Path | None:
    """The file that an error is about, where it says so; of two, the one that something was to become."""
    name = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


def _reason(error: Exception) -> str | None:
    """Why a write failed, by whichever library did it; None where it was something else."""
    code = error.errno if isinstance(error, OSError) else None
    # safetensors and shutil.copytree say the system's code in words alone.
    if code is None and (told := _CODE.search(str(error))):
        code = int(told[1])
    if code in UNWRITABLE:
        return os.strerror(code)
    # torch.save keeps the code to itself.
    return "the disk took a part only" if "inline_container.cc" in str(error) else None


def trained_folder(settings: AdapterSettings, name: str, *, promoted: bool) -> Path:
    """Where trained weights lie: those that serve, or those that wait for somebody to let them."""
    return (settings.trained if promoted else settings.trained.with_name("candidates")) / name
