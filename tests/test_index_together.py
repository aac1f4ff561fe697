"""Several processes, several states: what one does the other sees whole, and nothing that people added is lost."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from crash_library import OtherEmbedder
from fakes import HashEmbedder

from desk.config import ROOT
from desk.settings import CollectionSettings, IndexSettings
from index.errors import SourceError, StoreError
from index.lexical import COUNTED
from index.library import Library

ALL = frozenset({"desk", "ann"})


def add(library: Library, folder: Path, text: str, name: str = "note.txt") -> str:
    (folder / "upload").write_text(text)
    return library.add_file(folder / "upload", name=name, collection="ann").documents[0].id


def found(library: Library, query: str) -> list[str]:
    return [hit.passage.text for hit in library.search(query, library.embedder.embed([query])[0], 50, ALL).hits]


class Interrupting(HashEmbedder):
    """Does something in the middle of a build."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def embed(self, texts):  # type: ignore[no-untyped-def]
        if texts:
            self.action()
        return super().embed(texts)


@pytest.mark.parametrize("removed", [False, True])
def test_a_file_that_is_read_anew_does_not_bring_back_what_its_owner_changed_meanwhile(
    library: Library, settings: IndexSettings, tmp_path: Path, removed: bool
) -> None:
    first = add(library, tmp_path, "Old zebra " + "herd " * 40)
    other = Library.open(replace(settings, chunk_tokens=40), HashEmbedder())
    done: list[object] = []

    def meanwhile() -> None:
        if not done:
            done.append(library.remove(first) if removed else add(library, tmp_path, "New zebra."))

    building = Library.open(replace(settings, chunk_tokens=40), Interrupting(meanwhile))
    building.build()
    assert done
    zebras = [text for text in found(other, "zebra") if "zebra" in text]
    assert zebras == ([] if removed else ["New zebra."])
    assert [problem for problem in other.verify() if "stale" not in problem] == []
    building.close()
    other.close()


def test_an_added_file_that_cannot_be_read_anew_is_kept_and_named(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    kept = add(library, tmp_path, "The zebra herd. " * 200)
    stricter = Library.open(replace(settings, chunk_tokens=40, upload_mb=0), HashEmbedder())
    shutil.copyfile(settings.documents / "vpn.md", tmp_path / "vpn.md")
    report = stricter.build()
    assert any("note.txt" in path for path, _ in report.failures)
    assert stricter.document(kept) is not None and stricter.original(kept) is not None
    stricter.close()
    again = Library.open(settings, HashEmbedder())
    assert "zebra" in found(again, "zebra herd")[0]
    again.close()


def test_a_process_that_was_open_loads_what_another_has_embedded(library: Library, settings: IndexSettings) -> None:
    early = Library.open(settings, OtherEmbedder())
    assert found(early, "harbour client") == []
    late = Library.open(settings, OtherEmbedder())
    late.build()
    assert found(early, "harbour client") == found(late, "harbour client") != []
    library.build()
    assert not late.is_stale() and late.verify() == []
    early.close()
    late.close()


def test_names_that_look_like_parts_are_kept(library: Library, settings: IndexSettings, tmp_path: Path) -> None:
    add(library, tmp_path, "The zebra herd.", "vol.part/note.txt")
    again = Library.open(settings, HashEmbedder())
    assert again.verify() == []
    again.close()


def test_an_added_file_cannot_take_the_place_of_one_of_the_desk(library: Library, tmp_path: Path) -> None:
    (tmp_path / "vpn.md").write_text("Other.")
    with pytest.raises(SourceError, match="has the path of a file of the desk"):
        library.add_file(tmp_path / "vpn.md", name="documents/vpn.md")
    assert library.verify() == []


def test_a_removed_member_of_an_archive_stays_removed_until_the_archive_is_added_again(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("one.txt", "The first zebra.")
        packed.writestr("two.txt", "The second zebra.")
    added = library.add_file(tmp_path / "a.zip", name="a.zip", collection="ann").documents
    library.remove(added[0].id)
    other = Library.open(replace(settings, chunk_tokens=50), HashEmbedder())
    other.build()
    assert [text for text in found(other, "zebra") if "zebra" in text] == ["The second zebra."]
    assert len(other.add_file(tmp_path / "a.zip", name="a.zip", collection="ann").documents) == 2
    assert len([text for text in found(other, "zebra") if "zebra" in text]) == 2
    other.close()


def test_a_documents_folder_that_is_not_there_costs_no_document(library: Library, settings: IndexSettings) -> None:
    moved = settings.documents.with_name("elsewhere")
    settings.documents.rename(moved)
    with pytest.raises(SourceError, match="is not there"):
        library.build()
    assert found(library, "harbour client") == ["Open the harbour client."]
    moved.rename(settings.documents)
    assert library.build().unchanged == 1


def test_a_name_that_is_not_utf8_keeps_nobody_back(library: Library, settings: IndexSettings) -> None:
    Path(os.fsdecode(os.fsencode(settings.documents) + b"/caf\xe9.txt")).write_text("Coffee.")
    (settings.documents / "z.txt").write_text("Last file.")
    report = library.build()
    assert report.added == 1 and [reason for _, reason in report.failures] == [
        "The name of documents/caf?.txt is not UTF-8: rename the file."
    ]
    assert not library.is_stale()


def test_a_word_of_restricted_documents_alone_is_not_known(settings: IndexSettings) -> None:
    (settings.documents / "pay").mkdir()
    rows = "\n".join(f"zebra,{number}" for number in range(COUNTED + 200))
    (settings.documents / "pay" / "scale.csv").write_text(f"animal,number\n{rows}\n")
    rows = "\n".join(f"lion,{number}" for number in range(2 * COUNTED))
    (settings.documents / "open.csv").write_text(f"animal,number\n{rows}\n")
    pay = CollectionSettings("pay", "documents/pay", frozenset({"hr"}))
    library = Library.open(replace(settings, collections=(pay,)), HashEmbedder())
    library.build()
    vector = library.embedder.embed(["zebra"])[0]
    assert library.search("zebra", vector, 5, frozenset({"desk"})).known_terms == 0.0
    assert library.search("zebra", vector, 5, frozenset({"desk", "pay"})).known_terms == 1.0
    assert library.search("lion", vector, 5, frozenset({"desk"})).known_terms == 1.0
    library.close()


def test_failures_of_an_unchanged_archive_are_remembered(library: Library, settings: IndexSettings) -> None:
    with zipfile.ZipFile(settings.documents / "a.zip", "w") as packed:
        packed.writestr("one.txt", "The first zebra.")
        packed.writestr("bad.exe", "x")
    first = library.build()
    assert len(first.failures) == 1 and library.build().failures == first.failures == library.status().failures


def test_a_backup_inside_the_library_is_refused(library: Library, settings: IndexSettings) -> None:
    with pytest.raises(StoreError, match="inside the library's own folder"):
        library.back_up(settings.state / "backup.zip")


REPLACING = """
import sys
from pathlib import Path
from fakes import HashEmbedder
from desk.settings import IndexSettings
from index.library import Library

folder = Path(sys.argv[1])
settings = IndexSettings(folder / "desk" / "documents", folder / "state", folder / "models", 60, 5, 1, 1)
library = Library.open(settings, HashEmbedder())
print("ready", flush=True)
for turn in range(25):
    rows = "\\n".join(f"giraffe,{turn}" for _ in range(10))
    (folder / "herd.csv").write_text(f"animal,turn\\n{rows}\\n")
    library.add_file(folder / "herd.csv", name="herd.csv", collection="ann")
"""


def test_a_document_that_another_process_replaces_is_found_whole_all_the_time(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    (tmp_path / "herd.csv").write_text("animal,turn\n" + "giraffe,-1\n" * 10)
    library.add_file(tmp_path / "herd.csv", name="herd.csv", collection="ann")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", REPLACING, str(tmp_path)]
    seen: set[tuple[int, int]] = set()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None:
            texts = [text for text in found(library, "animal: giraffe; turn") if text.startswith("animal: giraffe")]
            seen.add((len(texts), len(set(texts))))
    assert writer.returncode == 0 and seen == {(10, 1)}
    written = len(list((settings.state / "derived" / "lexical").iterdir()))
    add(library, tmp_path, "One more.")
    assert len(list((settings.state / "derived" / "lexical").iterdir())) <= written + 12
