"""Text recognition (OCR) of PDF pages that are pictures, with the Tesseract program where it is installed."""

import csv
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from index.errors import SourceError
from index.pdf_pages import draw_page, pages_named

MAX_PAGES = 200
"""A page takes one to four seconds on one core."""
PAGE_TIMEOUT_S = 60
LEAST_CONFIDENCE = 40
"""Of 100. Below it Tesseract's words are mostly specks and lines of a form taken for letters."""


@cache
def tesseract() -> tuple[str, str] | None:
    """The Tesseract program and its installed languages ("eng+nld"); None where it is not installed."""
    program = shutil.which("tesseract")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    languages = [line.strip() for line in done.stdout.splitlines()[1:] if line.strip() not in ("", "osd", "equ")]
    return (program, "+".join(languages)) if languages else None


def recognise_pages(path: Path, pages: Sequence[int], notes: list[str]) -> dict[int, list[str]]:
    """The paragraphs of each of these pages (numbers from 1) of a PDF; `notes` gains what must be said about them."""
    if not pages:
        return {}
    if tesseract() is None:
        notes.append(
            f"Scanned pages were left out, since no text recognition is installed: {pages_named(pages)}. Install "
            "Tesseract (on Debian: apt-get install tesseract-ocr) and add the file again."
        )
        return {}
    found: dict[int, list[str]] = {}
    failed: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for page in pages[:MAX_PAGES]:
            try:
                found[page] = recognise_image(path, page, Path(folder) / "page.pgm")
            except (SourceError, OSError, subprocess.SubprocessError):
                failed.append(page)
    read = [page for page, paragraphs in found.items() if paragraphs]
    if read:
        notes.append(f"Words may be wrong on pages that were read by text recognition: {pages_named(read)}.")
    if failed:
        notes.append(f"Scanned pages that could not be recognised were left out: {pages_named(failed)}.")
    if len(pages) > MAX_PAGES:
        notes.append(f"Text was recognised on the first {MAX_PAGES} scanned pages; {len(pages) - MAX_PAGES} were not.")
    return found


def recognise_image(path: Path, page: int, image: Path) -> list[str]:
    """The paragraphs on page `page` of a PDF, drawn into `image` on the way."""
    found = tesseract()
    if found is None:
        return []
    program, languages = found
    dpi = draw_page(path, page, image)
    # One thread: Tesseract's own ones make a page slower on a busy machine, not faster.
    command = ["env", "OMP_THREAD_LIMIT=1", program, str(image), "-", "-l", languages, "--dpi", str(dpi), "tsv"]
    done = subprocess.run(command, capture_output=True, timeout=PAGE_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL)
    return list(_paragraphs(done.stdout.decode("utf-8", "replace")))


def _paragraphs(tsv: str) -> Iterator[str]:
    """Paragraphs of Tesseract's table of words; a word broken at a line's end is joined again."""
    rows = [
        row
        for row in csv.DictReader(io.StringIO(tsv), delimiter="\t", quoting=csv.QUOTE_NONE)
        if row["level"] == "5" and float(row["conf"]) >= LEAST_CONFIDENCE and (row["text"] or "").strip()
    ]
    for _, words in groupby(rows, key=lambda row: (row["block_num"], row["par_num"])):
        text = ""
        for _, line in groupby(words, key=lambda row: row["line_num"]):
            part = " ".join(word["text"].strip() for word in line)
            broken = text[-1:] == "-" and text[-2:-1].isalpha() and part[:1].islower()
            text = text[:-1] + part if broken else f"{text} {part}".strip()
        if any(letter.isalnum() for letter in text):
            yield text
