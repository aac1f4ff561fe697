"""Slides, JSON, e-mail and e-books become plain text that reads well, and tables are summed up."""

import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
from pptx.util import Inches

from index.chunk import cut
from index.document import DESK_COLLECTION, Document
from index.read_office import _docx_rows
from index.sources import load_source


def load(path: Path) -> Document:
    return load_source(path, name=path.name, collection=DESK_COLLECTION, max_bytes=10_000_000)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def blocks_of(document: Document) -> list[tuple[str, str]]:
    return [(block.kind, document.text[block.start : block.end]) for block in document.blocks]


def make_pptx(path: Path) -> Path:
    deck = pptx.Presentation()
    opening = deck.slides.add_slide(deck.slide_layouts[0])
    opening.shapes.title.text = "Fire drill"
    opening.placeholders[1].text = "Facilities, spring"
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "What to do"
    body = slide.placeholders[1].text_frame
    body.text = "Leave by the stairs"
    item = body.add_paragraph()
    item.text, item.level = "not by the lift", 1
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "Meet at the gate."
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(1)).table
    for place, text in enumerate(("Floor", "Warden", "3", "Ann")):
        table.cell(place // 2, place % 2).text = text
    slide.notes_slide.notes_text_frame.text = "Ask who cannot use stairs.\nWait for answers."
    hidden = deck.slides.add_slide(deck.slide_layouts[1])
    hidden.shapes.title.text = "Draft"
    hidden._element.set("show", "0")
    deck.save(str(path))
    return path


def test_a_slide_is_a_page_with_its_title_tables_and_notes(tmp_path: Path) -> None:
    document = load(make_pptx(tmp_path / "drill.pptx"))
    assert [(block.page, *pair) for block, pair in zip(document.blocks, blocks_of(document), strict=True)] == [
        (1, "heading", "Fire drill"),
        (1, "paragraph", "Facilities, spring"),
        (2, "heading", "What to do"),
        (2, "list", "- Leave by the stairs\n  - not by the lift"),
        (2, "paragraph", "Meet at the gate."),
        (2, "row", "Floor: 3; Warden: Ann"),
        (2, "paragraph", "Speaker notes: Ask who cannot use stairs.\nWait for answers."),
    ]
    assert document.title == "Fire drill"
    assert document.notes == ("1 hidden slide was left out.",)


def test_a_list_of_objects_is_read_record_by_record_with_flat_names(tmp_path: Path) -> None:
    records = [
        {"site_name": "North", "address": {"city": "Ghent", "lines": ["Quay 1", "Dock 2"]}, "open": True, "fax": None},
        {"site_name": "South", "rooms": [{"id": 1.50}, {"id": 2}], "openHours": "9-17"},
    ]
    document = load(written(tmp_path / "sites.json", json.dumps(records)))
    assert blocks_of(document) == [
        ("row", "site name: North; address city: Ghent; address lines: Quay 1, Dock 2; open: Yes"),
        ("row", "site name: South; rooms id: 1.5; rooms id: 2; open hours: 9-17"),
    ]
    assert document.title == "Sites"


def test_a_settings_file_reads_as_an_outline(tmp_path: Path) -> None:
    settings = {
        "title": "Print service",
        "queue_limit": 20,
        "mirror": {"enabled": False, "hosts": ["a", "b"]},
        "trays": [{"tray": 1, "paper": "A4"}, {"tray": 2, "paper": "A3"}],
        "empty": {},
    }
    document = load(written(tmp_path / "print.json", json.dumps(settings)))
    assert blocks_of(document) == [
        ("paragraph", "title: Print service\nqueue limit: 20"),
        ("heading", "mirror"),
        ("paragraph", "enabled: No\nhosts: a, b"),
        ("heading", "trays"),
        ("row", "tray: 1; paper: A4"),
        ("row", "tray: 2; paper: A3"),
    ]
    assert document.title == "Print service"


def test_a_long_record_keeps_its_fields_on_lines_of_their_own(tmp_path: Path) -> None:
    answer = "Hold the button for ten seconds. " * 20
    document = load(written(tmp_path / "faq.json", json.dumps([{"question": "Reset?", "answer": answer}])))
    assert blocks_of(document) == [("row", f"question: Reset?\nanswer: {answer.strip()}")]


def test_json_lines_are_records_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    document = load(written(tmp_path / "log.jsonl", '{"a": 1}\n\n{"a": 2\n"plain"\n[1, {"b": 2}]\n'))
    assert blocks_of(document) == [("row", "a: 1"), ("row", "plain"), ("row", "1; b: 2")]
    assert document.notes == ("Lines that are not JSON were left out: 3.",)


def make_message() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Überfällig: parking permit"
    message["From"] = "Ann Lee <ann@corvane.example>"
    message["To"] = "desk@corvane.example"
    message["Date"] = "Wed, 04 Mar 2026 23:10:00 +0100"
    message.set_content("Hello,\n\nmy permit ended.\n")
    message.add_alternative("<p>Hello, <b>HTML</b></p>", subtype="html")
    return message


def test_a_message_keeps_its_head_body_and_readable_attachments(tmp_path: Path) -> None:
    message = make_message()
    message.add_attachment(b"# Permits\n\nThey last a year.\n", "text", "markdown", filename="../permits.md")
    message.add_attachment(b"\x89PNG", "image", "png", filename="photo.png")
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Earlier", "bob@corvane.example"
    inner.set_content("As I said.")
    message.add_attachment(inner)
    path = tmp_path / "permit.eml"
    path.write_bytes(message.as_bytes())
    document = load(path)
    head = "From: Ann Lee <ann@corvane.example>\nTo: desk@corvane.example\nDate: Wed, 04 Mar 2026 23:10:00 +0100"
    assert blocks_of(document) == [
        ("heading", "Überfällig: parking permit"),
        ("paragraph", head),
        ("paragraph", "Hello,"),
        ("paragraph", "my permit ended."),
        ("heading", "Attachment: permits.md"),
        ("heading", "Permits"),
        ("paragraph", "They last a year."),
        ("heading", "Attachment: message.eml"),
        ("heading", "Earlier"),
        ("paragraph", "From: bob@corvane.example"),
        ("paragraph", "As I said."),
        ("paragraph", "Attachments that are not read: photo.png."),
    ]
    assert [block.level for block in document.blocks if block.kind == "heading"] == [1, 2, 3, 2, 3]
    assert (document.title, document.updated) == ("Überfällig: parking permit", "2026-03-04")


def test_a_message_in_html_alone_is_read_without_its_marks(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Lift"
    message.set_content("<h2>Lift</h2><p>It is <i>out of order</i>.</p><script>x()</script>", subtype="html")
    path = tmp_path / "lift.eml"
    path.write_bytes(message.as_bytes())
    assert load(path).text == "Lift\n\nLift\n\nIt is out of order."


def make_epub(path: Path, pages: dict[str, str], spine: list[str]) -> Path:
    items = "".join(
        f'<item id="{page.split(".")[0]}" href="{page}" media-type="application/xhtml+xml"/>' for page in pages
    )
    order = "".join(f'<itemref idref="{page.split(".")[0]}"/>' for page in spine)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OEBPS/content.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
            f"<dc:title>Manual</dc:title></metadata><manifest>{items}</manifest><spine>{order}</spine></package>",
        )
        for page, body in pages.items():
            archive.writestr(f"OEBPS/{page}", f"<?xml version='1.0'?><html><body>{body}</body></html>")
    return path


def test_a_book_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    pages = {"b.xhtml": "<h1>Two</h1><p>Then this.</p>", "a.xhtml": "<h1>One</h1><p>First caf\u00e9.</p>"}
    document = load(make_epub(tmp_path / "manual.epub", pages | {"unused.xhtml": "<p>No.</p>"}, ["a.xhtml", "b.xhtml"]))
    assert blocks_of(document) == [
        ("heading", "One"),
        ("paragraph", "First caf\u00e9."),
        ("heading", "Two"),
        ("paragraph", "Then this."),
    ]
    assert document.title == "Manual"


def test_each_sheet_is_summed_up_behind_its_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Loans"
    rows = [
        ("thing", "days_lent", "state", "since"),
        ("saw", 9, "new", "2026-01-02"),
        ("drill", 10, "old", "2025-03-04"),
    ]
    for row in (*rows, ("lamp", 2, "new", "2026-02-01"), ("rope", 30, "old", "2026-01-01")):
        sheet.append(row)
    other = book.create_sheet("Terms")
    for row in (("word", "meaning"), ("a", "first"), ("b", "second"), ("c", "third")):
        other.append(row)
    path = tmp_path / "loans.xlsx"
    book.save(path)
    assert [pair for pair in blocks_of(load(path)) if pair[0] != "row"] == [
        ("heading", "Loans"),
        (
            "paragraph",
            "Loans has 4 rows and 4 columns: thing, days lent, state, since.\n"
            "Values of the columns: days lent from 2 to 30; state is new or old; since from 2025-03-04 to 2026-02-01.",
        ),
        ("heading", "Terms"),
    ]


def test_a_csv_file_is_summed_up_under_its_name(tmp_path: Path) -> None:
    lines = ["name,share", *(f"n{number},{number * 10}%" for number in range(1, 12))]
    document = load(written(tmp_path / "shares_2026.csv", "\n".join(lines)))
    assert blocks_of(document)[-1] == (
        "paragraph",
        "Shares 2026 has 11 rows and 2 columns: name, share.\nValues of the columns: share from 10% to 110%.",
    )


def test_a_heading_too_long_to_be_one_is_a_paragraph(tmp_path: Path) -> None:
    document = load(written(tmp_path / "long.md", f"# {'word ' * 100}\n\nText.\n"))
    assert [kind for kind, _ in blocks_of(document)] == ["paragraph", "paragraph"]
    assert document.title == "Long"


def test_list_levels_of_a_word_file_are_as_deep_as_words_own_at_most(tmp_path: Path) -> None:
    file = docx.Document()
    for text, level in (("item", 0), ("deep", 99_999_999)):
        properties = file.add_paragraph(text)._p.get_or_add_pPr().get_or_add_numPr()
        properties.get_or_add_numId().val = 1
        properties.get_or_add_ilvl().val = level
    file.save(str(tmp_path / "deep.docx"))
    assert load(tmp_path / "deep.docx").text == f"- item\n{' ' * 16}- deep"


def test_each_record_and_each_row_is_a_passage_of_its_own(tmp_path: Path) -> None:
    records = [{"room": f"R{number}", "seats": number} for number in range(3)]
    files = {
        "a.json": json.dumps(records),
        "a.jsonl": "\n".join(map(json.dumps, records)),
        "a.csv": "room,seats\n" + "\n".join(f"R{number},{number}" for number in range(3)),
    }
    rows = [f"room: R{number}; seats: {number}" for number in range(3)]
    for name, text in files.items():
        passages = cut(load(written(tmp_path / name, text)), 180, len)
        assert [passage.text for passage in passages][:3] == rows, name


def test_merged_cells_of_word_read_as_python_docx_sees_them_however_many_rows_they_span(tmp_path: Path) -> None:
    document = docx.Document()
    table = document.add_table(rows=6, cols=5)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"c{number}"
    for (top, left), (bottom, right) in [((0, 0), (0, 2)), ((1, 1), (3, 1)), ((1, 3), (2, 4)), ((4, 0), (5, 4))]:
        table.cell(top, left).merge(table.cell(bottom, right))
    expected = [
        ["" if place and row.cells[place - 1]._tc is cell._tc else cell.text for place, cell in enumerate(row.cells)]
        for row in table.rows
    ]
    assert list(_docx_rows(table)) == expected
    long = document.add_table(rows=1200, cols=2)
    for number, row in enumerate(long.rows):
        row._tr.tc_lst[0].vMerge = "continue" if number else "restart"
        row._tr.tc_lst[1].p_lst[0].add_r().text = f"row {number}"
    long.cell(0, 0).text = "Group"
    path = tmp_path / "long.docx"
    document.save(str(path))
    text = load_source(path, name="long.docx", collection="desk", max_bytes=10_000_000).text
    assert text.endswith("Group; row 0: row 1199")
