"""Files become plain text that reads well; what cannot be read is refused with one sentence."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pytest
from reportlab.lib import colors, pdfencrypt
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table, TableStyle

from index.document import DESK_COLLECTION, Document
from index.errors import SourceError
from index.sources import load_source, readable_title, says_outdated, stated_date


def load(path: Path, max_bytes: int = 10_000_000, collection: str = DESK_COLLECTION) -> Document:
    return load_source(path, name=path.name, collection=collection, max_bytes=max_bytes)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def blocks_of(document: Document) -> list[tuple[str, str]]:
    return [(block.kind, document.text[block.start : block.end]) for block in document.blocks]


def test_markdown_loses_its_marks_and_keeps_its_words(tmp_path: Path) -> None:
    source = (
        "# Badges\n\nLast reviewed: 4 March 2026\nOwner: **Reception**\n\n"
        "See [the _portal_](https://x.example) &amp; call\nextension `4000`.\n\n"
        "## Steps\n\nDo this:\n\n3. Open the *door*\n4. Close it\n   - gently\n\n   and lock\n\n"
        "| Door | Hours |\n|---|---|\n| North | 06:30-20:00 |\n| South | |\n\n```\na  =  1\n```\n"
    )
    document = load(written(tmp_path / "badges.md", source))
    assert blocks_of(document) == [
        ("heading", "Badges"),
        ("paragraph", "Last reviewed: 4 March 2026\nOwner: Reception"),
        ("paragraph", "See the portal & call extension 4000."),
        ("heading", "Steps"),
        ("paragraph", "Do this:"),
        ("list", "3. Open the door\n4. Close it\n   - gently\n   and lock"),
        ("row", "Door: North; Hours: 06:30-20:00"),
        ("row", "Door: South"),
        ("paragraph", "a = 1"),
    ]
    assert (document.title, document.updated, document.format) == ("Badges", "2026-03-04", "md")
    assert [block.level for block in document.blocks if block.kind == "heading"] == [1, 2]


def test_front_matter_gives_the_title_and_is_not_read_as_a_heading(tmp_path: Path) -> None:
    document = load(written(tmp_path / "a.md", "---\ntitle: Travel\nowner: People\n---\nBook early.\n"))
    assert document.title == "Travel"
    assert document.text == "owner: People\n\nBook early."


def test_html_drops_scripts_and_navigation_and_numbers_lists(tmp_path: Path) -> None:
    source = (
        "<html><head><title>Pay</title><style>p{}</style></head><body><nav>Home</nav><h1>Payslips &amp; pay</h1>"
        "<p>Payday is the <b>24th</b>.<br>Owner: Payroll</p><script>alert(1)</script><!-- hidden -->"
        "<ol start=2><li>Agree<ul><li>early</li></ul></li><li><p>Submit</p></li></ol>"
        "<div>Loose <span>words</span><p>Own paragraph</p></div>"
        "<table><tr><th>Day<th>What</tr><tr><td>10th<td>Forms; shifts</tr></table>"
        "<dl><dt>Net</dt><dd>after tax</dd></dl></body></html>"
    )
    document = load(written(tmp_path / "pay.html", source))
    assert blocks_of(document) == [
        ("heading", "Payslips & pay"),
        ("paragraph", "Payday is the 24th.\nOwner: Payroll"),
        ("list", "2. Agree\n   - early\n3. Submit"),
        ("paragraph", "Loose words"),
        ("paragraph", "Own paragraph"),
        ("row", "Day: 10th; What: Forms; shifts"),
        ("list", "- Net: after tax"),
    ]


def test_invisible_characters_go_and_control_tokens_stay(tmp_path: Path) -> None:
    source = "pay\u200bday \u202eis\u00ad the\x00 24th <|end|>\U000e0041\n\nna\u00efve caf\u00e9"
    document = load(written(tmp_path / "a.txt", source))
    assert document.text == "payday is the 24th <|end|>\n\nna\u00efve caf\u00e9"


def test_text_joins_wrapped_lines_but_not_a_list(tmp_path: Path) -> None:
    wrapped = "This line is long enough to have been wrapped by a program\nand it goes on here."
    document = load(written(tmp_path / "a.txt", f"{wrapped}\n\n- one\n- two\n"))
    assert blocks_of(document) == [
        ("paragraph", wrapped.replace("\n", " ")),
        ("list", "- one\n- two"),
    ]


def test_word_files_keep_headings_numbering_and_tables(tmp_path: Path) -> None:
    file = docx.Document()
    file.add_paragraph("Backup", style="Title")
    file.add_paragraph("Last updated: March 24, 2026")
    file.add_heading("Restoring", level=1)
    for step in ("Click the icon.", "Pick a day."):
        file.add_paragraph(step, style="List Number")
    file.add_paragraph("Then wait.")
    file.add_paragraph("A new list", style="List Number")
    file.add_paragraph("a bullet", style="List Bullet")
    table = file.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Saved", "Not saved", "Desktop", "Downloads"), strict=True):
        cell.text = text
    path = tmp_path / "backup.docx"
    file.save(str(path))
    document = load(path)
    assert blocks_of(document) == [
        ("heading", "Backup"),
        ("paragraph", "Last updated: March 24, 2026"),
        ("heading", "Restoring"),
        ("list", "1. Click the icon.\n2. Pick a day."),
        ("paragraph", "Then wait."),
        ("list", "1. A new list\n- a bullet"),
        ("row", "Saved: Desktop; Not saved: Downloads"),
    ]
    assert [block.level for block in document.blocks if block.kind == "heading"] == [1, 2]
    assert (document.title, document.updated) == ("Backup", "2026-03-24")


def test_spreadsheets_write_each_row_with_its_column_names(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Rates"
    for row in (
        ["Daily rates"],
        [None],
        ["Limits"],
        ["City", "Hotel", "Share"],
        ["Ghent", 150.0, 0.05],
        ["Rome"],
    ):
        sheet.append(row)
    sheet["C5"].number_format = "0%"
    book.create_sheet("Empty")
    path = tmp_path / "travel-rates.xlsx"
    book.save(path)
    document = load(path)
    assert blocks_of(document) == [
        ("heading", "Rates"),
        ("paragraph", "Daily rates"),
        ("heading", "Limits"),
        ("row", "City: Ghent; Hotel: 150; Share: 5%"),
        ("row", "City: Rome"),
    ]
    assert document.title == "Travel rates"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_separators_are_found(tmp_path: Path, separator: str) -> None:
    lines = [("room", "seats"), ("Mistral", "24"), ("Zephyr", "4")]
    path = written(tmp_path / "meeting-rooms.csv", "\ufeff" + "\n".join(separator.join(line) for line in lines))
    assert load(path).text == "room: Mistral; seats: 24\nroom: Zephyr; seats: 4"


def make_pdf(path: Path) -> Path:
    styles = getSampleStyleSheet()
    body, head = styles["BodyText"], styles["Heading1"]
    grid = TableStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    cells = [["Event", "Limit"], ["Lost device", "1 hour"], ["Stranger", "At once"]]
    long = "Report every loss to the security line as soon as you notice it, even when you are not sure at all. " * 3

    def running(canvas: Canvas, template: SimpleDocTemplate) -> None:
        canvas.drawString(40, 575, "Handbook of security")
        canvas.drawString(40, 20, f"Page {template.page} of 2")

    SimpleDocTemplate(str(path), pagesize=A5).build(
        [
            Paragraph("1. Reporting", head),
            Paragraph(long, body),
            Table(cells, style=grid),
            PageBreak(),
            Paragraph("2. Travel", head),
            Paragraph("1. Ask first.", body),
            Paragraph("2. Then go.", body),
        ],
        onFirstPage=running,
        onLaterPages=running,
    )
    return path


def test_pdf_text_is_joined_paged_and_free_of_running_titles(tmp_path: Path) -> None:
    document = load(make_pdf(tmp_path / "handbook.pdf"))
    sentence = "Report every loss to the security line as soon as you notice it, even when you are not sure at all."
    assert [(block.page, *pair) for block, pair in zip(document.blocks, blocks_of(document), strict=True)] == [
        (1, "heading", "1. Reporting"),
        (1, "paragraph", " ".join([sentence] * 3)),
        (1, "row", "Event: Lost device; Limit: 1 hour"),
        (1, "row", "Event: Stranger; Limit: At once"),
        (2, "heading", "2. Travel"),
        (2, "list", "1. Ask first.\n2. Then go."),
    ]
    assert document.title == "1. Reporting"


def test_pdf_words_broken_at_line_ends_are_whole_again(tmp_path: Path) -> None:
    canvas = Canvas(str(tmp_path / "a.pdf"))
    for number, line in enumerate(("Every depart-", "ment orders its own e-", "mail signature for self-", "service.")):
        canvas.drawString(72, 700 - 14 * number, line)
    canvas.save()
    assert load(tmp_path / "a.pdf").text == "Every department orders its own e-mail signature for self-service."


def empty_pdf(path: Path) -> None:
    canvas = Canvas(str(path))
    canvas.rect(10, 10, 100, 100)
    canvas.save()


def locked_pdf(path: Path) -> None:
    canvas = Canvas(str(path), encrypt=pdfencrypt.StandardEncryption("secret"))
    canvas.drawString(72, 700, "Nobody may read this.")
    canvas.save()


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(8_000_000))


def broken_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing.txt", "no workbook here")


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("a.md", lambda path: path.write_bytes(b""), "a.md is empty (0 bytes): save or upload it again."),
    ("zero.pdf", lambda path: path.write_bytes(b""), "zero.pdf is empty (0 bytes): save or upload it again."),
    (
        "a.exe",
        lambda path: path.write_bytes(b"MZ"),
        "a.exe has the unsupported format .exe: use one of .md, .markdown, .html, .htm, .pdf, .docx, .xlsx, .pptx, "
        ".csv, .txt, .json, .jsonl, .eml, .epub, .zip.",
    ),
    (
        "a.pdf",
        lambda path: path.write_bytes(b"%PDF-1.7 nothing else"),
        "a.pdf is not a readable PDF (it seems damaged): export or download it again.",
    ),
    ("b.pdf", locked_pdf, "b.pdf is protected by a password: save a copy without one and add that."),
    (
        "a.docx",
        lambda path: path.write_bytes(b"PK nothing"),
        "a.docx is damaged or not what its name says: open it in its program and save it again.",
    ),
    (
        "b.docx",
        lambda path: path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)),
        "b.docx is protected by a password or in the old Office format: save it without a password as .docx, "
        ".xlsx or .pptx and add it again.",
    ),
    (
        "c.docx",
        bomb,
        "c.docx unpacks to 8 MB, which is not safe to open: split it or save it as text or PDF.",
    ),
    (
        "a.xlsx",
        broken_zip,
        "a.xlsx cannot be read as xlsx and seems damaged (KeyError): open it in its own program and save it again.",
    ),
    (
        "a.txt",
        lambda path: path.write_bytes(b" \n \n"),
        "a.txt has no text in it: add a file that holds some.",
    ),
    (
        "b.txt",
        lambda path: path.write_bytes(bytes(range(256))),
        "b.txt is not text in a known encoding: save it as UTF-8.",
    ),
    (
        "big.txt",
        lambda path: path.write_bytes(b"x" * 2_000_000),
        "big.txt has 2.0 MB; the limit is 1.0 MB: split it, or raise limits.upload_mb in desk.yaml.",
    ),
]


@pytest.mark.parametrize(("name", "make", "sentence"), REFUSED, ids=[row[0] for row in REFUSED])
def test_unreadable_files_are_refused_in_one_sentence(
    tmp_path: Path, name: str, make: Callable[[Path], object], sentence: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(SourceError) as caught:
        load(tmp_path / name, max_bytes=1_000_000)
    assert str(caught.value) == sentence


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        load(tmp_path / "a.md")
    assert str(caught.value) == f"a.md does not exist: check the path ({tmp_path / 'a.md'})."
    (tmp_path / "b.md").mkdir()
    with pytest.raises(SourceError, match=r"b\.md is a folder, not a file"):
        load(tmp_path / "b.md")


def test_html_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nested too deeply"):
        load(written(tmp_path / "deep.html", "<div>" * 5000 + "x"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_encodings_are_recognised(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("Crème brûlée costs 5 EUR".encode(encoding))
    assert load(tmp_path / "a.txt").text == "Crème brûlée costs 5 EUR"


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Last reviewed: 4 March 2026", "2026-03-04"),
        ("Last updated on March 4th, 2026 by Ann", "2026-03-04"),
        ("Updated: 2026-03-04", "2026-03-04"),
        ("This policy applied until 31 December 2024.", "2024-12-31"),
        ("Applied until 31 December 2024\nLast reviewed: 8 Jan 2024", "2024-01-08"),
        ("Last reviewed: 31 February 2026", None),
        ("Opened on 4 March 2026", None),
    ],
)
def test_the_date_a_text_states_is_found(text: str, date: str | None) -> None:
    assert stated_date(text) == date


@pytest.mark.parametrize(
    ("title", "text", "outdated"),
    [
        ("Leave policy 2024 (superseded)", "25 days", True),
        ("GateKey", "Out of date. Superseded by Harbor Link.", True),
        ("Leave", "This policy applied until 31 December 2024.", True),
        ("Leave", "This page is no longer valid.", True),
        ("Harbor Link", "It replaced GateKey, which no longer connects and is out of date.", False),
        ("Meeting rooms", "Remove a recording when it is no longer needed.", False),
        ("Updates", "Replace a laptop that is out of date.", False),
    ],
)
def test_a_text_that_says_it_no_longer_applies_is_out_of_date(title: str, text: str, outdated: bool) -> None:
    assert says_outdated(title, text) is outdated


def test_desk_ids_follow_from_the_path_and_upload_ids_are_random(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "text")
    assert load(path).id == load(path).id
    first, second = (load(path, collection="user").id for _ in range(2))
    assert first != second
    assert len(bytes.fromhex(first)) == 16


def test_file_names_become_titles() -> None:
    assert readable_title("docs/meeting-rooms_2026.csv") == "Meeting rooms 2026"
