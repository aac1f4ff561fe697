"""A PDF's pages as PDFium sees them, asked of a process that is bounded in time and memory.

pdf_process.py is that process; a crash or a loop in it costs one file, never the server.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.blocks import clean, one_line
from index.errors import SourceError
from index.pdf_process import MAX_CHARACTERS, MAX_MEMORY_BYTES, MAX_PAGES, MAX_RUNS, Run

TIMEOUT_S = 150
"""By the clock; the process stops itself after 120 s of computing."""
_SCRIPT = Path(__file__).with_name("pdf_process.py")
LIGATURES = str.maketrans({"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"})
_LEAST_LETTERS = 11
"""A shorter beginning of a quote at a page's end may be there by chance."""


@dataclass(frozen=True, slots=True)
class PdfPages:
    """The runs of text on each page; `blank` and `broken` are numbers from 1, of pages that show something but hold
    no text, and of pages that cannot be loaded."""

    title: str
    pages: tuple[tuple[Run, ...], ...]
    blank: tuple[int, ...]
    broken: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """In PDF points (1/72 inch) from the page's bottom left corner."""

    left: float
    bottom: float
    right: float
    top: float


def read_pages(path: Path, name: str) -> PdfPages:
    """The pages of a PDF. Raises SourceError for one that is protected, damaged or over the limits."""
    found = _ask(name, "text", path)
    pages = tuple(tuple(_run(run) for run in page) for page in found["pages"])
    return PdfPages(clean(found["title"]), pages, tuple(found["blank"]), tuple(found["broken"]))


def draw_page(path: Path, page: int, image: Path) -> int:
    """The resolution in dots per inch in which page `page` (from 1) was drawn into `image`, a PGM file.

    Raises SourceError for a page without a sane size, or one that takes too long to draw.
    """
    return int(_ask(f"page {page}", "render", path, page, image)["dpi"])


def quote_boxes(path: Path, page: int, text: str) -> tuple[Rectangle, ...]:
    """Where `text`, a quote from page `page` (from 1), stands on it: one rectangle per line; none if not found.

    Points count from the bottom left of the page as it was before a /Rotate turns it. The quote is compared letter by
    letter, without white space, hyphens and marks, since the reader joins lines; of a table row ("Column: value; ...")
    the values count. A quote that goes on over the page's end is found up to there. Nothing is found on a scanned
    page. Raises SourceError if the file is no longer readable.
    """
    letters: list[str] = []
    places: list[Rectangle] = []
    for character, *corners in _ask(f"page {page}", "boxes", path, page)["characters"]:
        for letter in _letters(character):
            letters.append(letter)
            places.append(Rectangle(*corners))
    spans = _find("".join(letters), text)
    return tuple(line for start, end in spans for line in _by_line(places[start:end]))


def pages_named(numbers: Sequence[int]) -> str:
    """ "3" or "1, 2 and 7"; beyond the first ten their number only."""
    shown = [str(number) for number in numbers[:10]]
    if len(numbers) > 10:
        shown.append(f"{len(numbers) - 10} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _letters(text: str) -> str:
    """The letters and digits of a text in lower case, ligatures written out."""
    return "".join(letter for letter in text.translate(LIGATURES).lower() if letter.isalnum())


def _find(page: str, text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of a quote in a page's letters: as a whole, else its longest beginning that ends the page,
    else those of a table row's values, in order."""
    quote = _letters(text)
    start = page.find(quote) if quote else -1
    if start >= 0:
        return [(start, start + len(quote))]
    for length in range(min(len(quote) - 1, len(page)), _LEAST_LETTERS, -1):
        if page.endswith(quote[:length]):
            return [(len(page) - length, len(page))]
    spans: list[tuple[int, int]] = []
    at = 0
    for field in text.split("; "):
        value = _letters(field.partition(": ")[2]) or _letters(field)
        start = page.find(value, at) if value else -1
        if start >= 0:
            at = start + len(value)
            spans.append((start, at))
    return spans if text.count(": ") and spans else []


def _by_line(boxes: Sequence[Rectangle]) -> tuple[Rectangle, ...]:
    """Boxes joined where the next one goes on to the right at the same height."""
    lines: list[Rectangle] = []
    for box in boxes:
        last = lines[-1] if lines else None
        if last and box.left >= last.left and last.bottom < (box.bottom + box.top) / 2 < last.top:
            lines[-1] = Rectangle(
                last.left, min(last.bottom, box.bottom), max(last.right, box.right), max(last.top, box.top)
            )
        else:
            lines.append(box)
    return tuple(lines)


def _run(run: Sequence[Any]) -> Run:
    return (str(run[0]), float(run[1]), float(run[2]), float(run[3]), float(run[4]), bool(run[5]))


def _ask(name: str, *arguments: object) -> dict[str, Any]:
    """What pdf_process.py answers. Raises SourceError if it refuses, is stopped or crashes."""
    command = [sys.executable, "-I", str(_SCRIPT), *(str(part) for part in arguments)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        answer = json.loads(done.stdout) if done.returncode == 0 else {"refused": _cause(done)}
    except subprocess.TimeoutExpired:
        answer = {"refused": "time"}
    except ValueError:
        answer = {"refused": "damaged"}
    if "refused" in answer:
        raise SourceError(f"{name} {_reason(answer['refused'])}")
    return dict(answer)


def _cause(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Why the process failed: killed for its computing time, out of memory, or crashed on the file.

    PDFium ends its process with a trap or an abort when it gets no memory, as it does for some damaged files.
    """
    if done.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        return "time"
    return "memory" if done.returncode < 0 or b"MemoryError" in done.stderr else "damaged"


def _reason(refused: str) -> str:
    if refused.startswith("pages "):
        return f"has {int(refused.split()[1]):,} pages; the limit is {MAX_PAGES:,}: split it."
    reasons = {
        "password": "is protected by a password: save a copy without one and add that.",
        "characters": f"holds more than {MAX_CHARACTERS:,} characters of text: split it.",
        "lines": f"holds more than {MAX_RUNS:,} lines and cells of tables: split it.",
        "size": "has no size that can be drawn: export the PDF again.",
        "time": f"takes more than {TIMEOUT_S} seconds to read: export it again, or split it.",
        "memory": f"is damaged, or takes more than {MAX_MEMORY_BYTES / 1e9:.0f} GB of memory to read: export it again.",
    }
    return reasons.get(one_line(refused), "is not a readable PDF (it seems damaged): export or download it again.")
