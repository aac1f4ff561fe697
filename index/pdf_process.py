"""What PDFium is asked, in a process of its own: it is native code that cannot be stopped from inside, and a
hostile file can make it loop, crash or take all memory.

Started by read_pdf.py as a script; imports nothing of this package. Prints one JSON value, or one line
{"refused": reason} for a file that is protected, damaged or over the limits.
"""

import contextlib
import ctypes
import json
import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

MAX_PAGES = 5_000
MAX_CHARACTERS = 20_000_000
MAX_RUNS = 500_000
"""Lines and cells of all pages."""
MAX_MEMORY_BYTES = 3_000_000_000
"""Address space, not resident memory: PDFium reserves more than it uses."""
MAX_BOXED = 200_000
"""Characters of a page whose places are asked for; a page of small print has 10,000."""
CPU_S = 120
DPI = 300
"""What Tesseract's authors advise for text of ordinary size."""
MAX_PIXELS = 12_000_000
"""An A4 page at 300 dpi has 8.7 million; a larger page is drawn smaller."""
MAX_SIDE_PIXELS = 10_000
MIN_DPI = 50

Run = tuple[str, float, float, float, float, bool]
"""Text on one line: its words, x0, x1, baseline y, font size (points from the page's bottom left), bold."""


class RefusedError(Exception):
    """The file cannot be read; the message is "password", "damaged", "pages N", "characters", "lines" or "size"."""


def text(path: Path) -> dict[str, Any]:
    """{"title", "pages": [[run, ...], ...], "blank", "broken"}: the last two are page numbers from 1, of pages that
    show something but hold no text, and of pages that cannot be loaded."""
    import pypdfium2.raw as raw

    pages: list[list[Run]] = []
    blank: list[int] = []
    broken: list[int] = []
    characters = lines = 0
    with _opened(path) as document:
        title = document.get_metadata_value("Title")
        for number in range(len(document)):
            pages.append([])
            try:
                page = _page(document, number)
            except RefusedError:
                broken.append(number + 1)
                continue
            with contextlib.closing(page), contextlib.closing(page.get_textpage()) as words:
                characters += raw.FPDFText_CountChars(words)
                if characters > MAX_CHARACTERS:
                    raise RefusedError("characters")
                pages[-1] = _runs(raw, words)
                lines += len(pages[-1])
                if lines > MAX_RUNS:
                    raise RefusedError("lines")
                shows = raw.FPDFPage_CountObjects(page) > 0
            if shows and not any(letter.isalnum() for run in pages[-1] for letter in run[0]):
                blank.append(number + 1)
    return {"title": title, "pages": pages, "blank": blank, "broken": broken}


def boxes(path: Path, number: int) -> dict[str, Any]:
    """{"characters": [[character, left, bottom, right, top], ...]} of page `number` (from 1), in the file's
    order: as high as the font's lines, as wide as the step to the next; none on a page of more than MAX_BOXED.
    """
    import pypdfium2.raw as raw

    box = raw.FS_RECTF()
    found: list[tuple[str, float, float, float, float]] = []
    with (
        _opened(path) as document,
        contextlib.closing(_page(document, number - 1)) as page,
        contextlib.closing(page.get_textpage()) as words,
    ):
        count = raw.FPDFText_CountChars(words)
        for index in range(count if count <= MAX_BOXED else 0):
            raw.FPDFText_GetLooseCharBox(words, index, box)
            found.append((_character(raw, words, index), box.left, box.bottom, box.right, box.top))
    return {"characters": found}


def render(path: Path, number: int, image: Path) -> dict[str, Any]:
    """{"dpi"}: draws page `number` (from 1) in grey into `image`, a PGM file."""
    with _opened(path) as document, contextlib.closing(_page(document, number - 1)) as page:
        width, height = page.get_size()
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise RefusedError("size")
        scale = min(DPI / 72, math.sqrt(MAX_PIXELS / (width * height)), MAX_SIDE_PIXELS / max(width, height))
        if scale * 72 < MIN_DPI:
            raise RefusedError("size")
        bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
        rows = bytes(bitmap.buffer)
        body = b"".join(rows[at : at + bitmap.width] for at in range(0, len(rows), bitmap.stride))
        image.write_bytes(b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + body)
    return {"dpi": round(scale * 72)}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD or "password" in str(error).lower()
        raise RefusedError("password" if locked else "damaged") from None
    try:
        if len(document) > MAX_PAGES:
            raise RefusedError(f"pages {len(document)}")
        yield document
    finally:
        document.close()


def _page(document: Any, index: int) -> Any:
    import pypdfium2

    try:
        return document[index]
    except (pypdfium2.PdfiumError, IndexError):
        raise RefusedError("damaged") from None


def _character(raw: Any, words: Any, index: int) -> str:
    """The character, a soft hyphen for one that only parts a word at a line's end, or nothing."""
    code = raw.FPDFText_GetUnicode(words, index)
    if code in (0x2, 0xFFFE) or raw.FPDFText_IsHyphen(words, index) == 1:
        return "\u00ad"
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def _runs(raw: Any, words: Any) -> list[Run]:
    """The page's characters in the file's order, cut at line ends and at gaps wider than 1.2 em."""
    found: list[Run] = []
    current: list[tuple[str, float, float, float, float, bool]] = []
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    x, y = ctypes.c_double(), ctypes.c_double()

    def close() -> None:
        solid = [part for part in current if part[0].strip()]
        if solid:
            words = "".join(part[0] for part in current).strip()
            bold = sum(part[5] for part in solid) * 2 > len(solid)
            size = median(part[4] for part in solid)
            found.append((words, solid[0][1], max(p[2] for p in solid), solid[0][3], size, bold))
        current.clear()

    last: tuple[float, float, bool] | None = None
    for index in range(raw.FPDFText_CountChars(words)):
        char = _character(raw, words, index)
        if char in ("\r", "\n"):
            close()
            last = None
            continue
        raw.FPDFText_GetCharBox(words, index, left, right, bottom, top)
        raw.FPDFText_GetCharOrigin(words, index, x, y)
        size = _font_size(raw, words, index)
        solid = bool(char.strip())
        if solid and last and (left.value - last[0] > 1.2 * size or abs(y.value - last[1]) > 0.6 * size):
            close()
            last = None
        bold = raw.FPDFText_GetFontWeight(words, index) >= 600
        current.append((char, left.value, right.value, y.value, size, bold))
        if solid or last is None or not last[2]:
            last = (right.value, y.value, solid)
    close()
    return found


def _font_size(raw: Any, words: Any, index: int) -> float:
    """The size of a character as drawn: some producers set a font of size 1 and scale it by a matrix."""
    size = float(raw.FPDFText_GetFontSize(words, index))
    matrix = raw.FS_MATRIX()
    if raw.FPDFText_GetMatrix(words, index, matrix):
        scale = (matrix.c * matrix.c + matrix.d * matrix.d) ** 0.5
        return size * scale if scale else size
    return size


def _limit_this_process() -> None:
    limits = {resource.RLIMIT_AS: MAX_MEMORY_BYTES, resource.RLIMIT_CPU: CPU_S, resource.RLIMIT_CORE: 0}
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (allowed, allowed))


def _answer(arguments: list[str]) -> dict[str, Any]:
    command, path, *rest = arguments
    try:
        if command == "text":
            return text(Path(path))
        if command == "boxes":
            return boxes(Path(path), int(rest[0]))
        return render(Path(path), int(rest[0]), Path(rest[1]))
    except RefusedError as error:
        return {"refused": str(error)}


if __name__ == "__main__":
    _limit_this_process()
    json.dump(_answer(sys.argv[1:]), sys.stdout)
