"""A backup is one moment of a library, and brings it back whatever happened to it."""

import shutil
import sqlite3
import threading
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from fakes import HashEmbedder

from desk.settings import IndexSettings
from index.document import DESK_COLLECTION
from index.errors import DamagedError, StoreError
from index.library import Library, restore_library

ALL = frozenset({DESK_COLLECTION, "ann"})


@pytest.fixture
def library(library: Library, tmp_path: Path) -> Library:
    """With one added file."""
    add(library, tmp_path, "zebra.txt", "The zebra budget is 7 EUR.")
    return library


def add(library: Library, folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return library.add_file(folder / name, name=name, collection="ann").documents[0].id


def found(library: Library, query: str) -> list[str]:
    return [hit.passage.text for hit in library.search(query, library.embedder.embed([query])[0], 9, ALL).hits]


def test_a_backup_is_restored_while_the_library_is_in_use(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    contents = library.back_up(tmp_path / "copies" / "backup.zip")
    assert (contents.documents, len(contents.files)) == (2, 2)
    library.remove(library.documents(frozenset({"ann"}))[0].id)
    add(library, tmp_path, "later.txt", "A later giraffe.")
    assert found(library, "zebra budget") == ["Open the harbour client.", "A later giraffe."] or found(
        library, "zebra budget"
    ) == ["A later giraffe.", "Open the harbour client."]
    restored = restore_library(settings, tmp_path / "copies" / "backup.zip")
    assert restored == contents
    assert found(library, "zebra budget")[0] == "The zebra budget is 7 EUR."
    assert "A later giraffe." not in found(library, "giraffe")
    upload = library.original(library.documents(frozenset({"ann"}))[0].id)
    assert upload is not None and upload.read_text() == "The zebra budget is 7 EUR."
    assert library.verify() == []
    again = Library.open(settings, HashEmbedder())
    assert again.verify() == [] and found(again, "zebra budget") == found(library, "zebra budget")
    again.close()


def test_a_backup_that_is_made_while_others_write_holds_whole_documents(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            rows = "\n".join(f"giraffe,{turn}" for _ in range(20))
            add(library, tmp_path, "herd.csv", f"animal,turn\n{rows}\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(5):
            library.back_up(tmp_path / f"{turn}.zip")
    finally:
        done.set()
        writer.join()
    for turn in range(5):
        state = IndexSettings(settings.documents, tmp_path / f"state{turn}", settings.models, 60, 5, 1, 1)
        restore_library(state, tmp_path / f"{turn}.zip")
        copy = Library.open(state, HashEmbedder())
        herd = [text for text in found(copy, "animal: giraffe") if "giraffe" in text]
        assert len(herd) in (0, 9) and len(set(herd)) <= 1
        assert [problem for problem in copy.verify() if "is gone" not in problem] == []
        copy.close()


def pages(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


def test_a_damaged_page_is_reported_with_the_way_back(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    library.back_up(tmp_path / "backup.zip")
    library.close()
    database = settings.state / "library.sqlite"
    count = pages(database)
    content = database.read_bytes()
    size = len(content) // count
    for page in range(count):
        database.write_bytes(content[: page * size] + b"\xa5" * size + content[(page + 1) * size :])
        with pytest.raises(DamagedError, match=r"is damaged .*python -m index restore FILE"):
            Library.open(settings, HashEmbedder())
        for suffix in ("-wal", "-shm"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
    restore_library(settings, tmp_path / "backup.zip")
    again = Library.open(settings, HashEmbedder())
    assert found(again, "zebra budget")[0] == "The zebra budget is 7 EUR." and again.verify() == []
    assert len(list(settings.state.glob("library.sqlite.damaged-*"))) >= 1
    again.close()


def test_a_missing_library_comes_back_from_its_backup(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    library.back_up(tmp_path / "backup.zip")
    library.close()
    shutil.rmtree(settings.state)
    restore_library(settings, tmp_path / "backup.zip")
    again = Library.open(settings, HashEmbedder())
    assert found(again, "zebra budget")[0] == "The zebra budget is 7 EUR." and again.verify() == []
    again.close()


def rewritten(source: Path, target: Path, name: str, content: bytes | None) -> Path:
    """A copy of a backup with one file of it replaced, or left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info.filename, old.read(info))
            elif content is not None:
                new.writestr(name, content)
        if name not in old.namelist() and content is not None:
            new.writestr(name, content)
    return target


def test_a_backup_that_is_none_or_damaged_changes_nothing(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    whole = tmp_path / "backup.zip"
    library.back_up(whole)
    before = library.documents()
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "half.zip").write_bytes(whole.read_bytes()[:-200])
    upload = next(name for name in zipfile.ZipFile(whole).namelist() if name.startswith("uploads/"))
    contents = zipfile.ZipFile(whole).read("contents.json").decode()
    escape = contents.replace(f'"{upload}"', '"uploads/../../evil.txt"')
    bad = {
        "There is no backup at": tmp_path / "none.zip",
        "is no backup of a library, or is damaged": tmp_path / "text.zip",
        "is no backup of a library": tmp_path / "half.zip",
        "library.sqlite.* has changed": rewritten(whole, tmp_path / "a.zip", "library.sqlite", b"x"),
        "zebra.txt.* has changed": rewritten(whole, tmp_path / "b.zip", upload, b"other"),
        "choose another file": rewritten(whole, tmp_path / "c.zip", "contents.json", None),
        "written in format 2": rewritten(
            whole, tmp_path / "d.zip", "contents.json", b'{"schema_version": 2, "documents": 1, "files": {}}'
        ),
        "evil.txt.* has changed": rewritten(whole, tmp_path / "e.zip", "contents.json", escape.encode()),
    }
    for reason, path in bad.items():
        with pytest.raises(StoreError, match=reason):
            restore_library(settings, path)
    assert library.documents() == before and library.verify() == []
    assert not (tmp_path / "evil.txt").exists() and not list(settings.state.glob("*.part*"))
