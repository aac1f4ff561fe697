"""Files that are made to break a reader: each is written by a function, since most are large once they are unpacked.

Started as a script, it reads them one after the other in a process with little memory. Small files that once broke
something lie in tests/hostile/.
"""

import base64
import io
import json
import random
import re
import resource
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pptx

from index.chunk import cut
from index.sources import SourceFailure, load_sources

LAUGHS = "".join(
    f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' if level else '<!ENTITY l0 "ha">' for level in range(12)
)
"""Entities that come to two million million characters when they are written out."""
BILLION = f"<!DOCTYPE x [{LAUGHS}]>"


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def docx_bytes() -> bytes:
    file, document = io.BytesIO(), docx.Document()
    document.add_paragraph("A paragraph.")
    document.save(file)
    return file.getvalue()


def xlsx_bytes() -> bytes:
    file, book = io.BytesIO(), openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["a", "b"])
    sheet.append([1, 2])
    book.save(file)
    return file.getvalue()


def pptx_bytes() -> bytes:
    file, deck = io.BytesIO(), pptx.Presentation()
    deck.slides.add_slide(deck.slide_layouts[0]).shapes.title.text = "A title"
    deck.save(file)
    return file.getvalue()


def epub_bytes(page: bytes, package: bytes | None = None) -> bytes:
    container = b'<container><rootfiles><rootfile full-path="p.opf"/></rootfiles></container>'
    plain = (
        b'<package><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        b'<spine><itemref idref="a"/></spine></package>'
    )
    return zip_of({"META-INF/container.xml": container, "p.opf": package or plain, "a.xhtml": page})


def changed(archive: bytes, member: str, change: Callable[[bytes], bytes]) -> bytes:
    """An archive with one member changed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {item.filename: source.read(item) for item in source.infolist()}
    return zip_of(members | {member: change(members.get(member, b""))})


def padded(archive: bytes) -> bytes:
    """An archive with so much that cannot be packed in it that its ratio looks sane."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {item.filename: source.read(item) for item in source.infolist()}
    return zip_of(members | {"media.bin": random.Random(0).randbytes(1_000_000)})


def with_laughs(xml: bytes) -> bytes:
    """An XML file that opens with a billion laughs and uses them in its first text."""
    head, mark, rest = xml.partition(b"?>\n") if xml.startswith(b"<?xml") else (b"", b"", xml)
    if not mark and xml.startswith(b"<?xml"):
        head, mark, rest = xml.partition(b"?>")
    return head + mark + BILLION.encode() + rest.replace(b"A paragraph.", b"&l11;").replace(b"A title", b"&l11;")


def pdf_of(content: bytes, box: str = "0 0 600 800", pages: int = 1) -> bytes:
    """A PDF with one packed content stream that all its pages share."""
    stream = zlib.compress(content)
    kids = " ".join(f"{number} 0 R" for number in range(5, 5 + pages))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {pages}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    page = f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Contents 4 0 R/Resources<</Font<</F 3 0 R>>>>>>".encode()
    objects += [page] * pages
    file = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj%s endobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)
    return bytes(file)


def renamed(archive: bytes, part: str, name: str) -> bytes:
    """An Office file with one part under another name, by which its own lists call it too."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {item.filename: source.read(item) for item in source.infolist()}
    for lists in [member for member in members if member.endswith((".rels", "[Content_Types].xml"))]:
        members[lists] = members[lists].replace(part.encode(), name.encode())
    return zip_of({name if member == part else member: data for member, data in members.items()})


def sheet_with(cells: str) -> bytes:
    return changed(
        xlsx_bytes(),
        "xl/worksheets/sheet1.xml",
        lambda _: (
            '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
            f"{cells}</sheetData></worksheet>"
        ).encode(),
    )


def strings_with(xml: bytes) -> bytes:
    """A workbook whose shared strings are `xml`."""
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = b'<Override PartName="/xl/sharedStrings.xml" ContentType="%s"/></Types>' % kind
    named = changed(xlsx_bytes(), "[Content_Types].xml", lambda types: types.replace(b"</Types>", part))
    return changed(named, "xl/sharedStrings.xml", lambda _: xml)


def nested_message(levels: int) -> bytes:
    head = b"Subject: x\n" + b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level) for level in range(levels)
    )
    return head + b"Content-Type: text/plain\n\nInside.\n" + b"line\n" * 1000


CASES: dict[str, Callable[[], bytes]] = {
    # Archives
    "bomb.zip": lambda: zip_of({f"{number}.txt": bytes(9_000_000) for number in range(20)}),
    "bomb-in-bomb.zip": lambda: zip_of({"a.zip": zip_of({"b.zip": zip_of({"c.txt": bytes(50_000_000)})})}),
    "bomb.docx": lambda: zip_of({"word/document.xml": bytes(90_000_000)}),
    "bomb.xlsx": lambda: zip_of({"xl/workbook.xml": bytes(90_000_000)}),
    "bomb.pptx": lambda: zip_of({"ppt/presentation.xml": bytes(90_000_000)}),
    "bomb.epub": lambda: epub_bytes(bytes(90_000_000)),
    "lies-about-its-size.zip": lambda: zip_of({"a.txt": b"text " * 1000}).replace(
        (5000).to_bytes(4, "little"), (50).to_bytes(4, "little")
    ),
    # XML
    "laughs.docx": lambda: changed(docx_bytes(), "word/document.xml", with_laughs),
    "laughs.pptx": lambda: changed(pptx_bytes(), "ppt/slides/slide1.xml", with_laughs),
    "laughs.xlsx": lambda: changed(
        xlsx_bytes(),
        "xl/worksheets/sheet1.xml",
        lambda _: (
            f'{BILLION}<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
            '<row r="1"><c r="A1" t="inlineStr"><is><t>&l11;</t></is></c></row></sheetData></worksheet>'
        ).encode(),
    ),
    "laughs-in-strings.xlsx": lambda: strings_with(
        f'{BILLION}<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>&l11;</t></si></sst>'.encode()
    ),
    "laughs-in-styles.xlsx": lambda: changed(xlsx_bytes(), "xl/styles.xml", lambda xml: BILLION.encode() + xml),
    "laughs.epub": lambda: epub_bytes(f"{BILLION}<html><body><p>Text &l11;</p></body></html>".encode()),
    "laughs-in-package.epub": lambda: epub_bytes(b"<p>x", f"{BILLION}<package>&l11;</package>".encode()),
    "laughs.html": lambda: f"{BILLION}<html><body><p>Text &l11;</p></body></html>".encode(),
    "laughs-in-svg.html": lambda: f"<p>Text<svg>{BILLION}<text>&l11;</text></svg>".encode(),
    "file-entity.docx": lambda: changed(
        docx_bytes(),
        "word/document.xml",
        lambda xml: xml.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]>', 1).replace(
            b"A paragraph.", b"Text &f;"
        ),
    ),
    "many-styles.xlsx": lambda: changed(
        xlsx_bytes(), "xl/styles.xml", lambda xml: xml.replace(b"</cellXfs>", b"<xf/>" * 2_000_000 + b"</cellXfs>")
    ),
    "padded-styles.xlsx": lambda: padded(
        changed(
            xlsx_bytes(), "xl/styles.xml", lambda xml: xml.replace(b"</cellXfs>", b"<xf/>" * 1_900_000 + b"</cellXfs>")
        )
    ),
    "padded-strings.xlsx": lambda: padded(
        strings_with(
            b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
            + b"<si><t/></si>" * 3_000_000
            + b"</sst>"
        )
    ),
    "padded-paragraphs.docx": lambda: padded(
        changed(
            docx_bytes(), "word/document.xml", lambda xml: xml.replace(b"<w:body>", b"<w:body>" + b"<w:p/>" * 6_000_000)
        )
    ),
    "padded-tree-by-another-name.docx": lambda: renamed(
        padded(
            changed(
                docx_bytes(),
                "word/document.xml",
                lambda xml: xml.replace(b"<w:body>", b"<w:body>" + b"<w:p/>" * 25_000_000),
            )
        ),
        "word/document.xml",
        "word/document.png",
    ),
    "padded-tree-as-a-sheet.docx": lambda: renamed(
        padded(
            changed(
                docx_bytes(),
                "word/document.xml",
                lambda xml: xml.replace(b"<w:body>", b"<w:body>" + b"<w:p/>" * 7_500_000),
            )
        ),
        "word/document.xml",
        "xl/worksheets/sheet.xml",
    ),
    "padded-strings-by-another-name.xlsx": lambda: renamed(
        padded(
            strings_with(
                b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
                + b"<si><t/></si>" * 2_000_000
                + b"</sst>"
            )
        ),
        "xl/sharedStrings.xml",
        "xl/strings.bin",
    ),
    "padded-package.epub": lambda: padded(epub_bytes(b"<p>x", b"<package>" + b"<a/>" * 9_000_000 + b"</package>")),
    "spanning-cell.docx": lambda: changed(
        docx_bytes(),
        "word/document.xml",
        lambda xml: xml.replace(
            b"<w:body>",
            b'<w:body><w:tbl><w:tblPr/><w:tblGrid/><w:tr><w:tc><w:tcPr><w:gridSpan w:val="2000000000"/></w:tcPr><w:p>'
            b"<w:r><w:t>Wide</w:t></w:r></w:p></w:tc></w:tr></w:tbl>",
        ),
    ),
    "endless-comment.xlsx": lambda: padded(sheet_with("<!--" + "<>" * 80_000_000 + "-->")),
    "endless-tag.xlsx": lambda: padded(sheet_with('<row a="' + ">" * 160_000_000 + '"/>')),
    "padded-sheets.xlsx": lambda: padded(
        changed(
            sheet_with("<x/>" * 7_000_000),
            "xl/workbook.xml",
            lambda xml: re.sub(
                rb"<sheet .*?/>",
                lambda sheet: b"".join(sheet[0].replace(b'"Sheet"', b'"s%d"' % number) for number in range(2000)),
                xml,
            ),
        )
    ),
    "one-slide.pptx": lambda: changed(
        changed(
            pptx_bytes(), "ppt/slides/slide1.xml", lambda xml: xml.replace(b"<a:p>", b"<a:p/>" * 50_000 + b"<a:p>")
        ),
        "ppt/presentation.xml",
        lambda xml: re.sub(
            rb"<p:sldId .*?/>",
            lambda slide: b"".join(slide[0].replace(b'"256"', b'"%d"' % (256 + number)) for number in range(2000)),
            xml,
        ),
    ),
    "padded-some-paragraphs.docx": lambda: padded(
        changed(
            docx_bytes(), "word/document.xml", lambda xml: xml.replace(b"<w:body>", b"<w:body>" + b"<w:p/>" * 190_000)
        )
    ),
    "padded-shapes.pptx": lambda: padded(
        changed(
            pptx_bytes(),
            "ppt/slides/slide1.xml",
            lambda xml: xml.replace(b"</p:spTree>", b"<p:sp/>" * 5_000_000 + b"</p:spTree>"),
        )
    ),
    "padded-lines.pptx": lambda: padded(
        changed(
            pptx_bytes(), "ppt/slides/slide1.xml", lambda xml: xml.replace(b"<a:p>", b"<a:p/>" * 300_000 + b"<a:p>")
        )
    ),
    # Rows and columns
    "padded-rows.xlsx": lambda: padded(sheet_with("<row/>" * 25_000_000)),
    "far-row.xlsx": lambda: sheet_with('<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>'),
    "wide-rows.xlsx": lambda: sheet_with(
        "".join(f'<row r="{r}"><c r="XFD{r}"><v>1</v></c></row>' for r in range(1, 900))
    ),
    "wide.csv": lambda: "\n".join(",".join(f"c{column}" for column in range(10_000)) for _ in range(30)).encode(),
    "wider.csv": lambda: b"\n".join([b"," * 100_000] * 60),
    "one-line.csv": lambda: b"word " * 10_000_000,
    "one-field.csv": lambda: b'"' + b"word " * 4_000_000 + b'"',
    # Depth
    "deep.html": lambda: b"<div>" * 100_000 + b"x",
    "deep-wrong-ends.html": lambda: b"<div>" * 50_000 + b"</p>" * 50_000,
    "deep-spans.html": lambda: b"<span>" * 100_000 + b"x",
    "deep-lists.html": lambda: b"<ul><li>" * 50_000 + b"x",
    "deep-tables.html": lambda: b"<table><tr><td>" * 30_000 + b"x",
    "many-tags.html": lambda: b"<b>x</b>" * 400_000,
    "deep.json": lambda: b"[" * 100_000 + b"]" * 100_000,
    "deep-objects.json": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep-but-parsed.json": lambda: b'{"a":' * 900 + b"1" + b"}" * 900,
    "many-values.json": lambda: b"[" + b"[]," * 3_000_000 + b"1]",
    "deep-line.jsonl": lambda: b'{"a": 1}\n' + b"[" * 100_000 + b"\n" + b'{"a":' * 900 + b"1" + b"}" * 900,
    "repeated-name.json": lambda: (
        b'[{"' + b"k" * 15_000 + b'": {' + b",".join(b'"x%d": 1' % number for number in range(400_000)) + b"}}]"
    ),
    "long-names.json": lambda: b'[{"' + (b"k" * 20_000 + b'": {"') * 800 + b'a": 1' + b"}" * 801 + b"]",
    "big-number.json": lambda: b'{"a": ' + b"9" * 1_000_000 + b"}",
    "deep.eml": lambda: nested_message(3000),
    "quotes.md": lambda: b"> " * 100_000 + b"x",
    "brackets.md": lambda: b"[" * 200_000,
    "images.md": lambda: b"![[]()" * 100_000,
    "table.md": lambda: b"|a|b|\n|-|-|\n" * 200_000,
    "front-matter.md": lambda: (
        b"---\n"
        + b"".join(b"k%d: &k%d [%s]\n" % (n, n, b",".join([b"*k%d" % (n - 1)] * 10) if n else b"x") for n in range(12))
        + b"title: *k11\n---\nText."
    ),
    "front-matter-long.md": lambda: b"---\n" + b"key: value\n" * 300_000 + b"---\nText.",
    # Encodings and text
    "broken-utf8.txt": lambda: b"Caf\xc3 \xff\xfe \x81\x8d text",
    "utf16-half.txt": lambda: b"\xff\xfeT\0e\0x\0t\0\0\xd8.",
    "nul.md": lambda: b"# Title\0\n\nText \0\0.",
    "binary.csv": lambda: bytes(range(256)) * 100,
    "one-line.txt": lambda: b"One sentence follows the next. " * 100_000,
    "dots.txt": lambda: b"." * 2_000_000,
    "no-spaces.txt": lambda: base64.b64encode(bytes(range(256)) * 8_000),
    "long-heading.md": lambda: b"# " + b"word " * 1_000_000,
    "unseen.txt": lambda: "\u202e\u200b".encode() * 100_000 + b"Text.",
    "scripts.html": lambda: b"<p onclick='x()'>Text<script>" + b"alert(1);" * 200_000 + b"</script><style>a{}</style>",
    "long-header.eml": lambda: b"Content-Type: text/plain; " + b'a="b";' * 100_000 + b"\nSubject: x\n\nText.",
    "long-header-other-ends.eml": lambda: (
        b"Subject: x\rContent-Type: text/plain; " + b'a="b";' * 300_000 + b"\r\rText."
    ),
    "names-encoding.eml": lambda: (
        b"Subject: s\nContent-Type: text/plain; charset=punycode\n\n" + b"a" * 900_000 + b"-" + b"9a" * 900_000
    ),
    "many-headers.eml": lambda: b"".join(b"X-%d: y\n" % number for number in range(200_000)) + b"Subject: s\n\nText.",
    "wrong-headers.eml": lambda: (
        b"Subject: =?utf-9?b?!!!?= =?x?q?=\nDate: yesterday\nFrom: \xff\xfe <\n"
        b"Content-Type: text/plain; charset=none\nContent-Transfer-Encoding: base64\n\n!!!Text"
    ),
    # PDF
    "many-pages.pdf": lambda: pdf_of(b"BT /F 12 Tf 72 700 Td (Text.) Tj ET", pages=10_000),
    "huge-page.pdf": lambda: pdf_of(b"BT /F 12 Tf 72 700 Td (Text.) Tj ET", box="0 0 1e12 1e12"),
    "no-size.pdf": lambda: pdf_of(b"0 0 9 9 re f", box="0 0 0 0"),
    "flate-bomb.pdf": lambda: pdf_of(b"q Q " * 60_000_000),
    "text-bomb.pdf": lambda: pdf_of(b"BT /F 1 Tf " + b"(aaaaaaaaaaaaaaaaaaaaaaaaaaaa) Tj " * 2_000_000 + b"ET"),
    "list-of-one-number.pdf": lambda: pdf_of(
        b"BT /F 12 Tf 72 700 Td (1. a) Tj 0 -14 Td " + b"(2. b) Tj 0 -14 Td " * 50_000 + b"ET"
    ),
    "nearly-a-table.pdf": lambda: pdf_of(
        b"BT /F 12 Tf 72 700 Td " + b"(aa) Tj 200 0 Td (bb) Tj -200 -14 Td " * 20_000 + b"0 -14 Td (c) Tj ET"
    ),
    "one-long-line.pdf": lambda: pdf_of(b"BT /F 1 Tf " + b"(a) Tj 9 0 Td " * 100_000 + b"ET"),
}
"""Name (its suffix is the format) to content."""


SLOW = frozenset(
    (
        *("padded-shapes.pptx", "padded-lines.pptx", "padded-some-paragraphs.docx", "padded-strings.xlsx"),
        *("padded-tree-by-another-name.docx", "padded-tree-as-a-sheet.docx", "padded-strings-by-another-name.xlsx"),
        *("padded-package.epub", "padded-sheets.xlsx", "endless-comment.xlsx", "endless-tag.xlsx"),
        *("padded-rows.xlsx", "far-row.xlsx", "wide-rows.xlsx", "wider.csv", "one-line.csv", "one-field.csv"),
        *(
            "repeated-name.json",
            "brackets.md",
            "long-heading.md",
            "table.md",
            "front-matter-long.md",
            "many-headers.eml",
        ),
        *("flate-bomb.pdf", "text-bomb.pdf", "one-long-line.pdf", "list-of-one-number.pdf", "nearly-a-table.pdf"),
    )
)
"""Cases that take a second or more."""
MAX_MEMORY_BYTES = 4_000_000_000
"""Address space: libraries reserve about 2 GB of it before anything is read."""


def outcome(path: Path, name: str) -> dict[str, object]:
    """{"text", "notes", "passages"} or {"reason"} of the first source in a file; the error's own name for any other."""
    first = next(iter(load_sources(path, name=name, collection="desk", max_bytes=100_000_000)))
    if isinstance(first, SourceFailure):
        return {"reason": first.reason}
    passages = cut(first, 180, lambda text: len(text) // 4)
    return {"text": first.text[:100], "notes": first.notes, "passages": len(passages)}


def main(folder: Path, names: list[str]) -> None:
    """Reads the cases with little memory and prints a line of JSON for each: what the test looks at."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    for name in names:
        path = folder / name
        path.write_bytes(CASES[name]())
        try:
            found = outcome(path, name)
        except BaseException as error:
            found = {"escaped": repr(error)[:300]}
        path.unlink()
        print(json.dumps({"name": name} | found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
