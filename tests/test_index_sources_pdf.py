"""Where a quote stands on a PDF page, and what becomes of pages that are pictures."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pypdfium2
import pytest
from hostile_files import pdf_of
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import SimpleDocTemplate, Table, TableStyle

from index import recognise
from index.document import DESK_COLLECTION, Document
from index.errors import SourceError
from index.pdf_pages import Rectangle, pages_named, quote_boxes
from index.sources import load_source

ROOT = Path(__file__).resolve().parent.parent
LINES = ("The service desk answers the phone between eight and six.", "Outside these hours, call exten-", "sion 4000.")
TOPS = (700, 680, 660)
SIZE = 12


def load(path: Path) -> Document:
    return load_source(path, name=path.name, collection=DESK_COLLECTION, max_bytes=10_000_000)


def draw_lines(canvas: Canvas, lines: tuple[str, ...] = LINES) -> None:
    canvas.setFont("Helvetica", SIZE)
    for line, y in zip(lines, TOPS, strict=False):
        canvas.drawString(72, y, line)


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pages: three lines at known places, then one that goes on with a sentence."""
    path = tmp_path_factory.mktemp("pdf") / "lettered.pdf"
    canvas = Canvas(str(path))
    draw_lines(canvas)
    canvas.showPage()
    draw_lines(canvas, ("on the second page it ends.",))
    canvas.save()
    return path


def expected(line: int, quote: str) -> tuple[float, float]:
    """The left and right ends of a quote in one of the lines, in points."""
    left = 72 + stringWidth(LINES[line][: LINES[line].index(quote)], "Helvetica", SIZE)
    return left, left + stringWidth(quote, "Helvetica", SIZE)


def test_a_quote_on_one_line_has_the_box_that_its_letters_were_drawn_in(lettered: Path) -> None:
    (box,) = quote_boxes(lettered, 1, "phone between eight")
    assert (box.left, box.right) == pytest.approx(expected(0, "phone between eight"), abs=0.05)
    assert TOPS[0] - 0.35 * SIZE < box.bottom < TOPS[0] < TOPS[0] + 0.7 * SIZE < box.top < TOPS[0] + 1.1 * SIZE


def test_a_quote_over_lines_has_a_box_for_each_and_a_broken_word_is_found(lettered: Path) -> None:
    boxes = quote_boxes(lettered, 1, "eight and six. Outside these hours, call extension 4000.")
    ends = [expected(0, "eight and six"), expected(1, "Outside these hours, call exten"), expected(2, "sion 4000")]
    assert [(box.left, box.right) for box in boxes] == [pytest.approx(pair, abs=0.05) for pair in ends]
    assert [box.bottom < y < box.top for box, y in zip(boxes, TOPS, strict=True)] == [True] * 3


def test_a_quote_that_goes_on_over_the_page_is_found_up_to_its_end(lettered: Path) -> None:
    boxes = quote_boxes(lettered, 1, "call extension 4000. On the second page it ends.")
    assert [round(box.left) for box in boxes] == [round(expected(1, "call exten")[0]), 72]


def test_a_quote_that_is_not_on_the_page_has_no_boxes(lettered: Path) -> None:
    assert quote_boxes(lettered, 1, "The service desk never answers.") == ()
    assert quote_boxes(lettered, 2, "phone between eight") == ()
    assert quote_boxes(lettered, 1, "...") == ()


def test_a_page_that_does_not_exist_is_refused(lettered: Path) -> None:
    with pytest.raises(SourceError, match="page 3"):
        quote_boxes(lettered, 3, "phone")


def test_a_table_row_has_the_boxes_of_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "table.pdf"
    cells = [["Event", "Limit"], ["Lost device", "1 hour"], ["Stranger", "At once"], ["Fire", "1 minute"]]
    grid = TableStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    SimpleDocTemplate(str(path)).build([Table(cells, colWidths=[150, 100], style=grid)])
    document = load(path)
    row = "Event: Stranger; Limit: At once"
    assert row in document.text.split("\n")
    first, second = quote_boxes(path, 1, row)
    assert second.left - first.left == pytest.approx(150, abs=0.05)
    assert first.bottom == pytest.approx(second.bottom)
    assert first.right - first.left == pytest.approx(stringWidth("Stranger", "Helvetica", 10), abs=0.05)


def test_boxes_on_one_line_are_joined_and_others_are_not() -> None:
    from index.pdf_pages import _by_line

    letters = [Rectangle(0, 0, 5, 10), Rectangle(5, 0, 10, 11), Rectangle(0, -12, 5, -2), Rectangle(300, -12, 305, -2)]
    assert _by_line(letters) == (Rectangle(0, 0, 10, 11), Rectangle(0, -12, 305, -2))


@pytest.fixture
def tesseract() -> None:
    """Skips where there is no Tesseract, unless the run requires one."""
    if shutil.which("tesseract") is None:
        reason = "no Tesseract on this machine: `apt-get install tesseract-ocr` runs the tests of text recognition"
        if os.environ.get("SWITCHBOARD_REQUIRE_TESSERACT"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def scanned(lettered: Path) -> Path:
    """Three pages: a picture of text at 200 dpi, a page of text, an empty page."""
    picture = lettered.with_name("page.png")
    document = pypdfium2.PdfDocument(lettered)
    document[0].render(scale=200 / 72, grayscale=True).to_pil().save(picture)
    document.close()
    path = lettered.with_name("scanned.pdf")
    canvas = Canvas(str(path))
    canvas.drawImage(str(picture), 0, 0, *canvas._pagesize)
    canvas.showPage()
    draw_lines(canvas, ("A page with letters.",))
    canvas.showPage()
    canvas.showPage()
    canvas.save()
    return path


@pytest.mark.usefixtures("tesseract")
def test_a_scanned_page_is_read_in_its_place_and_said_to_be(scanned: Path) -> None:
    document = load(scanned)
    assert document.text == (
        "The service desk answers the phone between eight and six. Outside these hours, call extension 4000.\n\n"
        "A page with letters."
    )
    assert [block.page for block in document.blocks] == [1, 2]
    assert document.notes == ("Words may be wrong on pages that were read by text recognition: 1.",)


def test_without_recognition_a_scanned_page_is_named_and_the_rest_is_read(
    scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    recognise.tesseract.cache_clear()
    try:
        document = load(scanned)
    finally:
        recognise.tesseract.cache_clear()
    assert document.text == "A page with letters."
    assert document.notes == (
        "Scanned pages were left out, since no text recognition is installed: 1. Install Tesseract (on Debian: "
        "apt-get install tesseract-ocr) and add the file again.",
    )


@pytest.mark.usefixtures("tesseract")
def test_a_drawing_without_words_is_refused(tmp_path: Path) -> None:
    canvas = Canvas(str(tmp_path / "c.pdf"))
    canvas.rect(10, 10, 100, 100)
    canvas.save()
    with pytest.raises(SourceError) as caught:
        load(tmp_path / "c.pdf")
    assert str(caught.value) == "c.pdf has no text in it, nor could any be recognised: add a file that holds some."


@pytest.mark.usefixtures("tesseract")
def test_pages_of_absurd_size_are_drawn_small_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "huge.pdf"
    canvas = Canvas(str(path), pagesize=(14_400, 14_400))
    canvas.rect(10, 10, 100, 100)
    canvas.showPage()
    canvas.setPageSize((2_000_000, 2_000_000))
    canvas.rect(10, 10, 100, 100)
    canvas.showPage()
    canvas.setPageSize((600, 800))
    canvas.drawString(72, 700, "Readable.")
    canvas.save()
    document = load(path)
    assert document.text == "Readable."
    assert document.notes == ("Scanned pages that could not be recognised were left out: 1 and 2.",)


def test_the_process_that_reads_a_pdf_is_stopped_in_time(lettered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from index import pdf_pages

    monkeypatch.setattr(pdf_pages, "TIMEOUT_S", 0.001)
    with pytest.raises(SourceError, match=r"lettered\.pdf takes more than 0\.001 seconds to read"):
        load(lettered)


def test_the_process_that_reads_a_pdf_has_little_memory(lettered: Path) -> None:
    command = "import index.pdf_process as p; p._limit_this_process(); x = bytearray(p.MAX_MEMORY_BYTES)"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, timeout=20, check=False, cwd=ROOT
    )
    assert "MemoryError" in done.stderr


def test_pages_are_named_in_words() -> None:
    assert [pages_named(numbers) for numbers in ([3], [1, 2, 7], range(1, 14))] == [
        "3",
        "1, 2 and 7",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more",
    ]


def test_a_page_with_far_too_many_characters_has_no_boxes(tmp_path: Path) -> None:
    for number, boxes in ((1_000, 1), (90_000, 0)):
        path = tmp_path / f"{number}.pdf"
        lines = b"(First words.) Tj 0 -9 Td " + b"(abc) Tj 0 -9 Td " * number
        path.write_bytes(pdf_of(b"BT /F 9 Tf 72 700 Td " + lines + b"ET"))
        assert len(quote_boxes(path, 1, "First words.")) == boxes
