"""An archive gives a document for each file that can be read and a reason for each that cannot."""

import io
import os
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from index.archive import member_file, member_names
from index.document import Document
from index.errors import SourceError
from index.sources import SourceFailure, document_id, load_source, load_sources


def sources(path: Path, max_bytes: int = 10_000_000) -> dict[str, str]:
    """Each source's text, or why it is none, by its path."""
    found = load_sources(path, name=path.name, collection="desk", max_bytes=max_bytes)
    return {item.path: item.text if isinstance(item, Document) else item.reason for item in found}


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.write_bytes(packed(members))
    return path


def test_a_file_that_is_no_archive_gives_its_one_document_or_failure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Text.")
    (tmp_path / "b.txt").write_text("")
    found = [*load_sources(tmp_path / "a.txt", name="a.txt", collection="desk", max_bytes=100)]
    assert found == [load_source(tmp_path / "a.txt", name="a.txt", collection="desk", max_bytes=100)]
    assert [*load_sources(tmp_path / "b.txt", name="b.txt", collection="desk", max_bytes=100)] == [
        SourceFailure("b.txt", "b.txt is empty (0 bytes): save or upload it again.")
    ]


def test_one_bad_member_costs_no_other(tmp_path: Path) -> None:
    members = {"it/a.md": b"# A\n\nOne.", "b.pdf": b"no pdf", "c.png": b"\x89PNG", "it/d.csv": b"k,v\nx,1\n"}
    found = sources(make_zip(tmp_path / "guides.zip", members))
    assert found == {
        "guides.zip/it/a.md": "A\n\nOne.",
        "guides.zip/b.pdf": "guides.zip/b.pdf is not a readable PDF (it seems damaged): export or download it again.",
        "guides.zip/c.png": found["guides.zip/c.png"],
        "guides.zip/it/d.csv": "k: x; v: 1",
    }
    assert found["guides.zip/c.png"].startswith("guides.zip/c.png has the unsupported format .png: use one of .md,")


def test_a_members_id_follows_from_its_path_and_its_hash_from_its_bytes(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x.txt": b"Same."})
    (tmp_path / "x.txt").write_bytes(b"Same.")
    (document,) = load_sources(path, name="documents/a.zip", collection="desk", max_bytes=1000)
    alone = load_source(tmp_path / "x.txt", name="x.txt", collection="desk", max_bytes=1000)
    assert isinstance(document, Document)
    assert document.id == document_id("documents/a.zip/x.txt", "desk")
    assert document.content_hash == alone.content_hash


def test_hostile_names_stay_inside_and_equal_ones_apart(tmp_path: Path) -> None:
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(
            ("../../etc/x.txt", "etc/x.txt", "C:\\etc\\x.txt", "/abs.txt", "a\u202eb.txt", f"{'long' * 100}.txt")
        ):
            archive.writestr(name, f"Text {number}.")
        archive.writestr("nul.txt", "Text 6.")
    raw = path.read_bytes().replace(b"nul.txt", b"n\0l.txt")
    path.write_bytes(raw)
    before = set(tmp_path.parent.rglob("*"))
    assert sources(path) == {
        "n.zip/etc/x.txt": "Text 0.",
        "n.zip/etc/x (2).txt": "Text 1.",
        "n.zip/etc/x (3).txt": "Text 2.",
        "n.zip/abs.txt": "Text 3.",
        "n.zip/ab.txt": "Text 4.",
        f"n.zip/{('long' * 100)[:150]}.txt": "Text 5.",
        "n.zip/n": "n.zip/n has the unsupported format (none): use one of "
        ".md, .markdown, .html, .htm, .pdf, .docx, .xlsx, .pptx, .csv, .txt, .json, .jsonl, .eml, .epub, .zip.",
    }
    assert set(tmp_path.parent.rglob("*")) == before


def test_hidden_files_and_folders_are_no_sources(tmp_path: Path) -> None:
    members = {"__MACOSX/a.txt": b"x", ".git/b.txt": b"x", "~$c.docx": b"x", "d/": b"", "e.txt": b"Seen."}
    assert sources(make_zip(tmp_path / "h.zip", members)) == {"h.zip/e.txt": "Seen."}


def test_archives_in_archives_are_opened_down_to_a_limit(tmp_path: Path) -> None:
    inner = packed({"deep.txt": b"Deep."})
    for level in range(4):
        inner = packed({f"{level}.zip": inner, f"{level}.txt": f"Level {level}.".encode()})
    (tmp_path / "a.zip").write_bytes(inner)
    found = sources(tmp_path / "a.zip")
    assert found == {
        "a.zip/3.txt": "Level 3.",
        "a.zip/3.zip/2.txt": "Level 2.",
        "a.zip/3.zip/2.zip/1.txt": "Level 1.",
        "a.zip/3.zip/2.zip/1.zip/0.txt": "Level 0.",
        "a.zip/3.zip/2.zip/1.zip/0.zip": "a.zip/3.zip/2.zip/1.zip/0.zip is an archive more than 3 archives deep: "
        "unpack it and add that.",
    }


def test_a_damaged_member_a_locked_one_and_a_link_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("damaged.txt", b"DAMAGED-CONTENT")
        archive.writestr("locked.txt", b"locked")
        archive.writestr(link, b"/etc/passwd")
        archive.writestr("fine.txt", b"Fine.")
    data = bytearray(path.read_bytes().replace(b"DAMAGED-CONTENT", b"DAMAGED-c0NTENT"))
    central = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[central + 8] |= 1  # the flag of encryption, in the central directory's entry of locked.txt
    path.write_bytes(data)
    assert sources(path) == {
        "d.zip/damaged.txt": "d.zip/damaged.txt is damaged in the archive: pack it again.",
        "d.zip/locked.txt": "d.zip/locked.txt is protected by a password: pack it without one.",
        "d.zip/link.txt": "d.zip/link.txt is a link to another file: pack that one instead.",
        "d.zip/fine.txt": "Fine.",
    }


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": bytes(8_000_000)}, "z.zip unpacks to 8 MB, which is not safe to open: split it or save it as text"),
        (
            {f"{number}.txt": b"" for number in range(10_001)},
            "z.zip holds 10,001 files; the limit is 10,000: split it.",
        ),
        ({}, "z.zip holds no files: add an archive that holds some."),
    ],
    ids=["ratio", "entries", "empty"],
)
def test_an_archive_over_a_limit_is_refused_as_a_whole(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    ((path, said),) = sources(make_zip(tmp_path / "z.zip", members)).items()
    assert path == "z.zip"
    assert said.startswith(reason)


def test_a_member_over_the_upload_limit_is_left_out_unread(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"big.txt": os.urandom(3000).hex().encode(), "small.txt": b"Small."})
    found = sources(path, max_bytes=5000)
    assert found["z.zip/small.txt"] == "Small."
    assert found["z.zip/big.txt"].startswith("z.zip/big.txt has 0.0 MB; the limit is 0.0 MB")


def test_bytes_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(b"PK\3\4 nothing")
    assert sources(tmp_path / "z.zip") == {"z.zip": "z.zip is damaged or no zip archive: pack it again."}
    with pytest.raises(SourceError, match=r"z\.zip holds documents of its own: unpack it and add them\."):
        load_source(tmp_path / "z.zip", name="z.zip", collection="desk", max_bytes=100)


def test_the_original_of_a_member_is_found_again(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x.txt": b"1", "../x.txt": b"2", "in.zip": packed({"y.md": b"3"})})
    (tmp_path / "out").mkdir()
    contents = [
        member_file(path, inner, tmp_path / "out").read_bytes() for inner in ("x.txt", "x (2).txt", "in.zip/y.md")
    ]
    assert contents == [b"1", b"2", b"3"]
    with pytest.raises(SourceError, match=r"a\.zip no longer holds z\.txt"):
        member_file(path, "z.txt", tmp_path / "out")


def test_thousands_of_files_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "same.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ["a (3).txt", *["a.txt"] * 8000]:
            archive.writestr(name, name)
    with zipfile.ZipFile(path) as archive:
        numbers = [2, *range(4, 8002)]
        assert list(member_names(archive)) == [
            "a (3).txt",
            "a.txt",
            *(f"a ({number}).txt" for number in numbers[:7999]),
        ]
