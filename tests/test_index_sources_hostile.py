"""Whatever is in a file, what comes of it is a document or a SourceError, in bounded time and memory."""

import io
import json
import re
import subprocess
import sys
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from hostile_files import CASES, SLOW, changed, docx_bytes, epub_bytes, pdf_of, pptx_bytes, xlsx_bytes, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.chunk import cut, sentences
from index.document import Document
from index.sources import FORMATS, SourceFailure, load_sources

ROOT = Path(__file__).resolve().parent.parent
CORPUS = sorted(path for path in (ROOT / "tests" / "hostile").iterdir() if path.suffix in FORMATS)

TEXTS = {
    "laughs.epub": "Text &l11;",
    "laughs.html": "Text &l11;",
    "laughs-in-svg.html": "Text",
    "file-entity.docx": "Text",
    "padded-some-paragraphs.docx": "A paragraph.",
    "padded-lines.pptx": "A title",
    "one-slide.pptx": "A title",
    "spanning-cell.docx": "Wide",
    "wide.csv": "c0; c1; c2",
    "deep-but-parsed.json": "a\n\na",
    "deep-line.jsonl": "a: 1\na a",
    "big-number.json": "a: 9999",
    "brackets.md": "[[[[",
    "images.md": "![[]()",
    "table.md": "|a|b|\n|-|-|",
    "front-matter.md": "Text.",
    "front-matter-long.md": "---\nkey: value",
    "one-line.txt": "One sentence",
    "dots.txt": "....",
    "no-spaces.txt": "AAEC",
    "long-heading.md": "word word",
    "unseen.txt": "Text.",
    "scripts.html": "Text",
    "many-headers.eml": "s\n\nText.",
    "names-encoding.eml": "s\n\naaaaaaa",
    "wrong-headers.eml": "=?utf-9?b?!!!?=",
    "huge-page.pdf": "Text.",
    "one-long-line.pdf": "a a a",
    "list-of-one-number.pdf": "1. a\n2. b\n2. b",
    "nearly-a-table.pdf": "aa bb aa bb",
}
"""How the text of the cases opens that can be read; all others are refused."""
REASONS = {
    "bomb": "is not safe to open",
    "deep": "is nested too deeply|has too many parts",
    "laughs": "seems damaged|is damaged or no EPUB",
    "lies": "is damaged in the archive",
    "many": "unpacks to|has more than|holds more than|the limit is",
    "padded": "holds more than|seems damaged",
    "padded-package": "lists its pages in more than 5 MB",
    "padded-sheets": "has a sheet several times over",
    "endless": "seems damaged \\(in xl/worksheets/sheet1.xml\\)",
    "far": "has more than 3,000,000 cells",
    "wide": "has more than 3,000,000 cells",
    "one-line": "has a cell of more than 10,000,000 characters",
    "one-field": "has a cell of more than 10,000,000 characters",
    "quotes": "has no text in it",
    "repeated-name": "holds more than 20,000,000 characters of text",
    "long-names": "has names of more than 20,000 characters",
    "broken": "not text in a known encoding",
    "utf16": "not text in a known encoding",
    "nul": "not text in a known encoding",
    "binary": "not text in a known encoding",
    "long-header": "has a header line of more than 20,000 bytes",
    "no-size": "has no text in it",
    "flate": "has no text in it|seems damaged|to read",
    "text-bomb": "to read|characters|seems damaged",
}
"""What is said of the others, by how their names start."""


def read_in_a_small_process(folder: Path, names: list[str], timeout_s: int) -> dict[str, dict[str, object]]:
    """The outcome of each case, read one after the other in a process with 4 GB of address space."""
    command = [sys.executable, str(ROOT / "tests" / "hostile_files.py"), str(folder), *names]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == names, done.stderr[-2000:]
    return {row["name"]: row for row in rows}


def fault_of(name: str, found: dict[str, object]) -> str:
    """What is wrong with how a hostile file was taken; "" where it was read or refused as it should be."""
    if "escaped" in found:
        return f"an exception escaped: {found}"
    if name in TEXTS:
        return "" if str(found.get("text")).startswith(TEXTS[name]) else f"it does not read {TEXTS[name]!r}: {found}"
    pattern = next(REASONS[start] for start in sorted(REASONS, key=len, reverse=True) if name.startswith(start))
    reason = str(found.get("reason"))
    named = reason.startswith(name.partition(".")[0]) and re.search(pattern, reason)
    return "" if named else f"the reason is not {pattern!r}: {found}"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    names = [name for name in CASES if name not in SLOW]
    return read_in_a_small_process(tmp_path_factory.mktemp("hostile"), names, 300)


@pytest.mark.parametrize("name", [name for name in CASES if name not in SLOW])
def test_a_hostile_file_is_read_or_refused(quick: dict[str, dict[str, object]], name: str) -> None:
    assert fault_of(name, quick[name]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_large_hostile_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    assert fault_of(name, read_in_a_small_process(tmp_path, [name], 120)[name]) == ""


def read(data: bytes, name: str, folder: Path) -> list[Document | SourceFailure]:
    """The sources in a file of these bytes; documents are cut into passages as well."""
    path = folder / f"fuzzed{Path(name).suffix}"
    path.write_bytes(data)
    found = list(load_sources(path, name=name, collection="desk", max_bytes=10_000_000))
    for item in found:
        if isinstance(item, Document):
            passages = cut(item, 60, lambda text: len(text.split()))
            assert all(item.text[passage.start : passage.end] == passage.text for passage in passages)
            assert sum(len(sentences(passage.text)) for passage in passages) >= len(passages)
        else:
            assert item.reason.startswith(item.path)
    return found


@pytest.mark.parametrize("path", CORPUS, ids=[path.name for path in CORPUS])
def test_what_once_broke_a_reader_no_longer_does(path: Path, tmp_path: Path) -> None:
    assert read(path.read_bytes(), path.name, tmp_path)


def message_bytes() -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["Date"] = "Caf\u00e9", "a@b.example", "Wed, 04 Mar 2026 23:10:00 +0100"
    message.set_content("Hello,\n\nworld.\n")
    message.add_alternative("<p>Hello</p>", subtype="html")
    message.add_attachment(b"a,b\n1,2\n", "text", "csv", filename="caf\u00e9.csv")
    return message.as_bytes()


HTML = (
    b"<!DOCTYPE html><html><head><title>T</title></head><body><h1>A</h1><ol start='3'><li>x<ul><li>y</ul></ol>"
    b"<table><tr><th colspan=2>h<th>i<tr><td>1<td>2</table><dl><dt>d<dd>e</dl><pre> p\n q</pre><svg><g/></svg>"
)
SEEDS: dict[str, bytes] = {
    "a.md": b"---\ntitle: T\nb: [1]\n---\n# A\n\n- x\n  1. y\n\n|a|b|\n|-|-|\n|1|2|\n\n```\nc\n```\n<b>d</b> [e](f)",
    "a.html": HTML,
    "a.csv": b'a;b\n"x;1";2\n;;\n\nnote\n\nc;d\n3;4\n5;6\n7;8\n',
    "a.txt": b"One. Two?\n\n- a\n- b\n\xe2\x80\xa8x \xf0\x9f\x98\x80",
    "a.json": b'{"title": "t", "a": [{"b": 1.5e3, "c": [null, true]}], "d": {"e": "\\ud800x"}, "f": ["g"]}',
    "a.jsonl": b'{"a": {"b": [1, {"c": 2}]}}\n"x"\n[1]\n',
    "a.eml": message_bytes(),
    "a.pdf": pdf_of(b"BT /F 12 Tf 72 700 Td (Some text.) Tj 0 -14 Td (1. More) Tj ET"),
    "a.docx": docx_bytes(),
    "a.xlsx": xlsx_bytes(),
    "a.pptx": pptx_bytes(),
    "a.epub": epub_bytes(HTML),
    "a.zip": zip_of({"a.md": b"# A\n\nb", "b/c.json": b'{"a": 1}', "d.zip": zip_of({"e.txt": b"e"})}),
}
Mutation = tuple[float, str, bytes]
MUTATIONS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]),
        st.one_of(
            st.binary(min_size=1, max_size=6),
            st.sampled_from(
                [b"<", b">", b'"', b"\0", b"\xff", b"</a>", b"&#0;", b"999999999999", b"-1", b"\r\n\r\n", b"[["]
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    for place, kind, piece in mutations:
        at = int(place * len(data))
        if kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 40] * 20 + data[at:]
        else:
            rest = at if kind == "insert" else at + len(piece)
            data = data[:at] + (b"" if kind == "delete" else piece) + data[rest:]
    return data


def mutated_inside(archive: bytes, which: float, mutations: list[Mutation]) -> bytes:
    """An archive of which one member is mutated and packed again, so that readers get to see it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        names = [item.filename for item in source.infolist() if item.file_size]
    return changed(archive, names[int(which * len(names))], lambda data: mutated(data, mutations))


def fuzz(name: str, examples: int, folder: Path) -> None:
    """Reads mutations of a small real file and plain random bytes; any error but a SourceFailure ends it."""
    seed = SEEDS[name]
    packed = seed.startswith(b"PK")

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(MUTATIONS, st.floats(0, 1, exclude_max=True), st.sampled_from(["outside", "inside", "random"]))
    def read_mutations(mutations: list[Mutation], which: float, where: str) -> None:
        if where == "random":
            data = b"".join(piece for _, _, piece in mutations)
        elif where == "inside" and packed:
            data = mutated_inside(seed, which, mutations)
        else:
            data = mutated(seed, mutations)
        read(data, name, folder)

    read_mutations()


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    assert any(isinstance(item, Document) for item in read(SEEDS[name], name, tmp_path))
    fuzz(name, 8 if name.endswith(".pdf") else 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_many_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzz(name, 300 if name.endswith(".pdf") else 3000, tmp_path)
