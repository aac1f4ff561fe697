"""The library follows its files, loses nothing in a crash, and keeps what is whose apart."""

import os
import secrets
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import HashEmbedder
from numpy.typing import NDArray

from desk.config import ROOT
from desk.index_file import MilvusSettings
from desk.settings import CollectionSettings, IndexSettings
from index.build import BuildProgress
from index.document import DESK_COLLECTION, NO_GROUPS, Filter, ScoredPassage
from index.errors import SourceError, StoreError
from index.library import Library

ALL = frozenset({DESK_COLLECTION})


@pytest.fixture(params=["exact", "graph", "milvus"])
def index(request: pytest.FixtureRequest) -> str:
    """How passages are searched: the same holds everywhere. `local` below leaves Milvus out."""
    return str(request.param)


local = pytest.mark.parametrize("index", ["exact", "graph"], indirect=True)
"""For damage to files that a local index alone has; that to collections is in test_index_milvus.py."""
once = pytest.mark.parametrize("index", ["exact"], indirect=True)
"""For what happens before any index is asked."""


@pytest.fixture
def settings(tmp_path: Path, index: str, request: pytest.FixtureRequest) -> IndexSettings:
    """A desk of two files under the test's folder."""
    documents = tmp_path / "desk" / "documents"
    (documents / "it").mkdir(parents=True)
    (documents / "it" / "vpn.md").write_text("# VPN\n\nOpen the harbour client.\n\n## Phones\n\nEnrol first.\n")
    (documents / "rooms.csv").write_text("room,seats\nMistral,24\nZephyr,4\n")
    return IndexSettings(
        documents=documents,
        state=tmp_path / "state",
        models=tmp_path / "models",
        chunk_tokens=60,
        passages=5,
        upload_mb=1,
        threads=1,
        store="milvus" if index == "milvus" else "local",
        milvus=place(request.getfixturevalue("milvus").address) if index == "milvus" else None,
    )


def place(address: str) -> MilvusSettings:
    """Collections that no other test has."""
    return MilvusSettings(address, prefix=f"t{secrets.token_hex(4)}")


@pytest.fixture
def exact_rows(index: str) -> int:
    """With how many vectors a graph takes over."""
    return 2 if index == "graph" else 200_000


@pytest.fixture
def library(settings: IndexSettings, exact_rows: int) -> Iterator[Library]:
    opened = Library.open(settings, HashEmbedder(), exact_rows)
    opened.build()
    yield opened
    opened.close()


def hits(library: Library, query: str, collections: frozenset[str] = ALL, k: int = 10) -> tuple[ScoredPassage, ...]:
    return library.search(query, library.embedder.embed([query])[0], k, collections).hits


def best(library: Library, query: str, collections: frozenset[str] = ALL) -> str:
    return hits(library, query, collections)[0].passage.text


def paths(library: Library) -> list[str]:
    return [info.path for info in library.documents()]


def upload(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_build_takes_in_new_changed_and_deleted_files(library: Library, settings: IndexSettings) -> None:
    assert paths(library) == ["documents/it/vpn.md", "documents/rooms.csv"]
    assert best(library, "seats Mistral") == "room: Mistral; seats: 24"
    assert not library.is_stale()
    kept = library.documents()[0]
    (settings.documents / "rooms.csv").write_text("room,seats\nMistral,30\n")
    (settings.documents / "new.txt").write_text("Lockers are on floor two.")
    assert library.is_stale()
    seen: list[BuildProgress] = []
    report = library.build(seen.append)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 0, 1)
    assert [(step.done, step.total, step.path) for step in seen] == [
        (1, 3, "documents/it/vpn.md"),
        (2, 3, "documents/new.txt"),
        (3, 3, "documents/rooms.csv"),
    ]
    assert best(library, "seats Mistral") == "room: Mistral; seats: 30"
    assert kept in library.documents()
    (settings.documents / "rooms.csv").unlink()
    assert library.is_stale()
    assert library.build().removed == 1
    assert paths(library) == ["documents/it/vpn.md", "documents/new.txt"]
    assert all("Mistral" not in hit.passage.text for hit in hits(library, "seats Mistral"))
    assert library.verify() == []


def test_a_file_that_was_only_touched_is_not_stale(library: Library, settings: IndexSettings) -> None:
    os.utime(settings.documents / "rooms.csv", (1, 1))
    assert not library.is_stale()
    assert library.build().unchanged == 2


def test_a_moved_file_keeps_its_id_and_is_not_embedded_again(library: Library, settings: IndexSettings) -> None:
    before = library.documents()[0]
    (settings.documents / "it" / "vpn.md").rename(settings.documents / "network.md")
    assert library.is_stale()
    counted = CountingEmbedder()
    other = Library.open(settings, counted)
    report = other.build()
    assert (report.moved, report.added, report.removed, report.unchanged) == (1, 0, 0, 1)
    assert counted.texts == []
    assert (before.id, "documents/network.md") in [(info.id, info.path) for info in other.documents()]
    assert best(library, "harbour client") == "Open the harbour client."
    (settings.documents / "it" / "vpn.md").write_text("# VPN\n\nAnother file at the old place.\n")
    other.build()
    ids = {info.path: info.id for info in other.documents()}
    assert ids["documents/network.md"] == before.id and len(set(ids.values())) == 3
    assert other.verify() == library.verify() == []
    other.close()


def test_of_a_changed_file_only_new_passages_are_embedded(library: Library, settings: IndexSettings) -> None:
    path = settings.documents / "it" / "vpn.md"
    path.write_text(path.read_text() + "\n## Laptops\n\nNothing to enrol.\n")
    counted = CountingEmbedder()
    other = Library.open(settings, counted)
    assert other.build().changed == 1
    assert counted.texts == ["VPN\nLaptops\nNothing to enrol."]
    assert other.verify() == []
    other.close()


def test_a_collection_is_found_by_members_of_its_groups_alone(settings: IndexSettings) -> None:
    pay = CollectionSettings("pay", "documents/pay", frozenset({"hr"}))
    open_to_all = CollectionSettings("rooms", "documents/pay/rooms", frozenset())
    (settings.documents / "pay" / "rooms").mkdir(parents=True)
    (settings.documents / "pay" / "scale.txt").write_text("The zebra scale has nine steps.")
    (settings.documents / "pay" / "rooms" / "list.txt").write_text("The zebra room has nine seats.")
    library = Library.open(replace(settings, collections=(pay, open_to_all)), HashEmbedder())
    library.build()
    everyone, hr = library.readable(NO_GROUPS), library.readable(frozenset({"hr", "it"}))
    assert (everyone, hr) == (frozenset({"desk", "rooms"}), frozenset({"desk", "rooms", "pay"}))
    found = [hit.passage.text for hit in hits(library, "zebra", everyone) if "zebra" in hit.passage.text]
    assert found == ["The zebra room has nine seats."]
    assert "The zebra scale has nine steps." in [hit.passage.text for hit in hits(library, "zebra", hr)]
    assert library.search("scale", library.embedder.embed(["scale"])[0], 5, everyone).known_terms == 0.0
    library.close()
    opened = Library.open(settings, HashEmbedder())
    assert opened.is_stale() and opened.build().changed == 2
    assert len([hit for hit in hits(opened, "zebra") if "zebra" in hit.passage.text]) == 2
    opened.close()


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (Filter(), {"old.md", "new.md", "rooms.csv", "vpn.md"}),
        (Filter(source="documents/it"), {"vpn.md", "old.md"}),
        (Filter(source="documents/rooms.csv"), {"rooms.csv"}),
        (Filter(source="documents/i"), set()),
        (Filter(formats=frozenset({"csv"})), {"rooms.csv"}),
        (Filter(since="2025-01-01"), {"new.md"}),
        (Filter(until="2024-03-04"), {"old.md"}),
        (Filter(since="2024-03-04", until="2026-12-31", formats=frozenset({"md"})), {"old.md", "new.md"}),
    ],
)
def test_a_filter_narrows_words_and_vectors_alike(
    settings: IndexSettings, only: Filter, expected: set[str], exact_rows: int
) -> None:
    (settings.documents / "it" / "old.md").write_text("# Rules\n\nharbour seats.\n\nLast updated: 2024-03-04\n")
    (settings.documents / "new.md").write_text("# Rules\n\nharbour seats.\n\nLast updated: 5 June 2026\n")
    library = Library.open(settings, HashEmbedder(), exact_rows)
    library.build()
    for query in ("harbour seats", "nothing of this"):
        found = library.search(query, library.embedder.embed([query])[0], 50, ALL, only).hits
        assert {Path(hit.path).name for hit in found} == expected
    assert library.search("harbour", library.embedder.embed(["harbour"])[0], 5, ALL, only).known_terms == 1.0
    library.close()


def test_unreadable_files_are_reported_once_and_keep_nobody_back(library: Library, settings: IndexSettings) -> None:
    (settings.documents / "a.pdf").write_bytes(b"")
    (settings.documents / "z.txt").write_text("Last file.")
    report = library.build()
    reason = "documents/a.pdf is empty (0 bytes): save or upload it again."
    assert report.failures == library.status().failures == (("documents/a.pdf", reason),)
    assert report.added == 1
    assert not library.is_stale()
    shutil.copyfile(settings.documents / "z.txt", settings.documents / "a.pdf")
    assert library.is_stale()


def test_a_file_that_became_unreadable_is_no_longer_found(library: Library, settings: IndexSettings) -> None:
    (settings.documents / "rooms.csv").write_bytes(b"")
    report = library.build()
    assert (report.removed, len(report.failures)) == (1, 1)
    assert paths(library) == ["documents/it/vpn.md"]
    assert not library.is_stale()


def test_an_upload_is_found_at_once_by_its_collection_alone(library: Library, tmp_path: Path) -> None:
    path = upload(tmp_path, "secret.txt", "The zebra budget is 7 EUR.")
    document = library.add_file(path, name="secret.txt", collection="ann").documents[0]
    path.unlink()
    assert best(library, "zebra budget", frozenset({"ann"})) == "The zebra budget is 7 EUR."
    assert best(library, "zebra budget", frozenset({"ann", DESK_COLLECTION})) == "The zebra budget is 7 EUR."
    for collections in (ALL, frozenset({"bob"}), frozenset[str]()):
        found = library.search("zebra budget", library.embedder.embed(["zebra budget"])[0], 50, collections)
        assert [hit for hit in found.hits if hit.passage.document_id == document.id] == []
        assert found.known_terms == 0.0
    assert [info.id for info in library.documents(frozenset({"ann"}))] == [document.id]
    assert document.id not in [info.id for info in library.documents(ALL)]
    copy = library.original(document.id)
    assert copy is not None
    assert copy.read_text() == "The zebra budget is 7 EUR."


def test_an_upload_replaces_the_one_of_the_same_name_and_owner(library: Library, tmp_path: Path) -> None:
    first = library.add_file(upload(tmp_path, "a.txt", "Old zebra."), name="a.txt", collection="ann").documents[0]
    same = library.add_file(tmp_path / "a.txt", name="a.txt", collection="ann").documents[0]
    other = library.add_file(tmp_path / "a.txt", name="a.txt", collection="bob").documents[0]
    second = library.add_file(upload(tmp_path, "a.txt", "New zebra."), name="a.txt", collection="ann").documents[0]
    assert same.id == first.id
    assert len({first.id, other.id, second.id}) == 3
    assert [hit.passage.text for hit in hits(library, "zebra", frozenset({"ann"}))] == ["New zebra."]
    assert [hit.passage.text for hit in hits(library, "zebra", frozenset({"bob"}))] == ["Old zebra."]
    assert library.original(first.id) is None
    assert sorted(folder.name for folder in (tmp_path / "state" / "uploads").iterdir()) == sorted([other.id, second.id])


def test_a_refused_upload_leaves_nothing_behind(library: Library, tmp_path: Path) -> None:
    before = library.status()
    with pytest.raises(SourceError, match="unsupported format"):
        library.add_file(upload(tmp_path, "a.exe", "x"), name="a.exe", collection="ann")
    with pytest.raises(SourceError, match=r"limit is 1\.0 MB"):
        library.add_file(upload(tmp_path, "a.txt", "x" * 1_000_001), name="a.txt", collection="ann")
    assert library.status() == before
    assert library.verify() == []


@once
@pytest.mark.parametrize("name", ["../../../evil.txt", "/etc/evil.txt", "..\\..\\evil.txt", "a/b/../evil.txt"])
def test_an_upload_cannot_leave_its_folder(library: Library, tmp_path: Path, name: str) -> None:
    document = library.add_file(upload(tmp_path, "x.txt", "text"), name=name, collection="ann").documents[0]
    copy = library.original(document.id)
    assert copy is not None
    assert copy.name == "evil.txt" and copy.is_relative_to(tmp_path / "state" / "uploads" / document.id)


def test_an_archive_is_one_file_with_documents_of_its_own(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    def archive(path: Path, **members: str) -> Path:
        with zipfile.ZipFile(path, "w") as packed:
            for name, text in members.items():
                packed.writestr(f"herds/{name}.txt", text)
        return path

    archive(settings.documents / "herds.zip", zebra="The zebra herd.", lion="The lion pride.", bad="")
    report = library.build()
    assert (report.added, report.unchanged) == (1, 2)
    assert [path for path, _ in report.failures] == ["documents/herds.zip/herds/bad.txt"]
    assert not library.is_stale() and library.verify() == []
    zebra = hits(library, "zebra herd")[0]
    assert zebra.path == "documents/herds.zip/herds/zebra.txt"
    original = library.original(zebra.passage.document_id)
    assert original is not None and original.read_text() == "The zebra herd."
    archive(settings.documents / "herds.zip", zebra="The zebra herd.", giraffe="A tower of giraffes.")
    counted = CountingEmbedder()
    other = Library.open(settings, counted)
    assert other.build().changed == 1
    assert all("zebra" not in text.lower() for text in counted.texts)
    assert hits(library, "zebra herd")[0].passage.document_id == zebra.passage.document_id
    assert "The lion pride." not in [hit.passage.text for hit in hits(library, "lion pride")]
    (settings.documents / "herds.zip").rename(settings.documents / "moved.zip")
    assert other.build().moved == 1
    assert hits(library, "zebra herd")[0].passage.document_id == zebra.passage.document_id
    (settings.documents / "moved.zip").unlink()
    assert other.build().removed == 1 and len(library.documents()) == 2
    other.close()


def test_related_documents_are_those_of_readable_collections(library: Library, tmp_path: Path) -> None:
    library.add_file(upload(tmp_path, "a.txt", "The harbour client for phones."), name="a.txt", collection="ann")
    library.add_file(upload(tmp_path, "b.txt", "A zebra."), name="b.txt", collection="ann")
    vpn = next(info for info in library.documents() if info.path.endswith("vpn.md"))
    found = library.related(library.passages(vpn.id), 5, frozenset({"ann", DESK_COLLECTION}))
    assert next(one.path for one in found) == "a.txt" and vpn.id not in [one.document_id for one in found]
    assert [one.path for one in library.related(library.passages(vpn.id), 5, ALL)] == ["documents/rooms.csv"]
    assert library.related([], 5, ALL) == []


def test_a_hit_brings_its_section_from_the_library(library: Library, settings: IndexSettings) -> None:
    steps = "\n\n".join(f"Step {number} takes the harbour client {'further ' * 20}." for number in range(6))
    (settings.documents / "long.md").write_text(f"# Guide\n\n## Steps\n\n{steps}\n\n## After\n\nDone.\n")
    library.build()
    hit = next(hit for hit in hits(library, "Step 3 harbour client") if hit.path.endswith("long.md"))
    around = library.around(hit, 120)
    assert hit.passage in around and len(around) > 1
    assert {passage.section for passage in around} == {"Steps"}


def test_an_added_archive_says_what_it_holds_and_what_not(library: Library, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("one.txt", "The first zebra.")
        packed.writestr("two.txt", "The second zebra.")
        packed.writestr("three.exe", "x")
    added = library.add_file(tmp_path / "a.zip", name="a.zip", collection="ann")
    assert [document.path for document in added.documents] == ["a.zip/one.txt", "a.zip/two.txt"]
    assert [path for path, _ in added.failures] == ["a.zip/three.exe"]
    assert len(hits(library, "zebra", frozenset({"ann"}))) == 2
    again = library.add_file(tmp_path / "a.zip", name="a.zip", collection="ann")
    assert [document.path for document in again.documents] == [document.path for document in added.documents]
    assert len(hits(library, "zebra", frozenset({"ann"}))) == 2
    library.remove(again.documents[0].id)
    assert [hit.passage.text for hit in hits(library, "zebra", frozenset({"ann"}))] == ["The second zebra."]
    assert library.verify() == []


def test_removing_takes_an_upload_but_not_a_file_of_the_desk(library: Library, tmp_path: Path) -> None:
    document = library.add_file(upload(tmp_path, "a.txt", "Zebra."), name="a.txt", collection="ann").documents[0]
    library.remove(document.id)
    assert hits(library, "zebra", frozenset({"ann"})) == ()
    assert library.document(document.id) is None
    assert list((tmp_path / "state" / "uploads").iterdir()) == []
    with pytest.raises(SourceError, match="There is no document"):
        library.remove(document.id)
    with pytest.raises(SourceError, match=r"belongs to the desk: delete the file .*rooms\.csv"):
        library.remove(library.documents()[1].id)


def test_a_library_is_the_same_after_it_is_opened_again(library: Library, settings: IndexSettings) -> None:
    def state(one: Library) -> object:
        found = [(hit.passage, hit.score, hit.similarity) for hit in hits(one, "harbour client phones")]
        return one.status(), one.documents(), found

    def written() -> dict[Path, int]:
        files = (settings.state / "derived").rglob("*")
        return {path: path.stat().st_mtime_ns for path in files if path.is_file() and path.suffix != ".lock"}

    before = written()
    again = Library.open(settings, HashEmbedder())
    assert state(again) == state(library)
    assert written() == before
    again.close()


@local
@pytest.mark.parametrize("damage", ["words", "words gone", "manifest", "graph", "owners", "all gone"])
def test_damaged_indexes_are_made_again_from_the_database(
    library: Library, settings: IndexSettings, damage: str, exact_rows: int
) -> None:
    expected, before = hits(library, "harbour client"), library.status().index
    library.close()
    derived = settings.state / "derived"
    match damage:
        case "words":
            for path in (derived / "lexical").iterdir():
                path.write_bytes(b"junk")
        case "words gone":
            shutil.rmtree(derived / "lexical")
        case "manifest":
            next(derived.glob("vectors-*/manifest.json")).write_text("{}")
        case "graph" | "owners":
            for path in derived.glob("vectors-*/*.faiss" if damage == "graph" else "vectors-*/*.npy"):
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 0xFF
                path.write_bytes(content)
        case "all gone":
            shutil.rmtree(derived)
    again = Library.open(settings, HashEmbedder(), exact_rows)
    assert again.verify() == []
    assert hits(again, "harbour client") == expected
    again.build()
    assert again.status().index == before and again.verify() == []
    again.close()


@once
def test_a_lexical_index_that_cannot_be_written_is_made_again(library: Library, settings: IndexSettings) -> None:
    words = settings.state / "derived" / "lexical"
    before = {name: (words / name).read_bytes() for name in ("meta.json", "switchboard-mark")}
    changed = next(settings.documents.rglob("*.md"))
    changed.write_text("# Anew\n\nThe pelican stands alone.\n")
    library.build()
    library.close()
    # An older state whose next write would make files that are there, and a list of files that does not name them.
    for name, content in before.items():
        (words / name).write_bytes(content)
    (words / ".managed.json").write_text("[]")
    again = Library.open(settings, HashEmbedder())
    assert again.verify() == [] and len(hits(again, "pelican")) > 0
    again.close()


@once
def test_a_database_that_is_none_is_refused(settings: IndexSettings) -> None:
    settings.state.mkdir(parents=True)
    (settings.state / "library.sqlite").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match=r"is damaged .* put a backup in its place"):
        Library.open(settings, HashEmbedder())


KILLED = """
import os, sys
from pathlib import Path
from fakes import HashEmbedder
from desk.settings import IndexSettings
from desk.index_file import MilvusSettings
from index.library import Library

folder, stage, address, prefix = Path(sys.argv[1]), *sys.argv[2:]
store = {"store": "milvus", "milvus": MilvusSettings(address, prefix=prefix)} if address else {}
settings = IndexSettings(folder / "desk" / "documents", folder / "state", folder / "models", 60, 5, 1, 1, **store)
library = Library.open(settings, HashEmbedder())
library.add_file(folder / "new.txt", name="up.txt", collection="ann",
                 on_stage=lambda now: os._exit(9) if now == stage else None)
"""


@pytest.mark.parametrize(
    ("stage", "stored"),
    [("reading", False), ("embedding", False), ("storing", False), ("stored", True), ("indexed", True)],
)
def test_a_crash_in_the_middle_of_an_upload_leaves_all_or_nothing(
    library: Library, settings: IndexSettings, tmp_path: Path, stage: str, stored: bool
) -> None:
    before = library.add_file(upload(tmp_path, "up.txt", "Old zebra."), name="up.txt", collection="ann").documents[0]
    library.close()
    upload(tmp_path, "new.txt", "New zebra.")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    where = [settings.milvus.uri, settings.milvus.prefix] if settings.milvus else ["", ""]
    command = [sys.executable, "-c", KILLED, str(tmp_path), stage, *where]
    assert subprocess.run(command, env=environment, cwd=tmp_path, check=False).returncode == 9
    again = Library.open(settings, HashEmbedder())
    found = [hit.passage.text for hit in hits(again, "zebra", frozenset({"ann"}))]
    assert found == (["New zebra."] if stored else ["Old zebra."])
    assert again.verify() == []
    kept = {info.id for info in again.documents(frozenset({"ann"}))}
    assert (before.id in kept) is not stored
    assert {folder.name for folder in (settings.state / "uploads").iterdir()} == kept
    again.close()


class CountingEmbedder(HashEmbedder):
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return super().embed(texts)


class OtherEmbedder(HashEmbedder):
    """The same vectors, mirrored, under another name."""

    name = "mirrored-256"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return -super().embed(texts)


def test_another_embedding_model_embeds_every_passage_beside_the_one_before(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    added = library.add_file(upload(tmp_path, "a.txt", "Zebra crossing."), name="a.txt", collection="ann").documents[0]
    other = Library.open(settings, OtherEmbedder())
    assert other.is_stale()
    assert hits(other, "harbour client") == ()
    seen: list[BuildProgress] = []
    report = other.build(seen.append)
    assert (report.changed, report.unchanged) == (0, 2) and (seen[0].done, seen[0].total) == (5, 5)
    assert not other.is_stale() and not library.is_stale()
    assert other.verify() == library.verify() == []
    for one in (library, other):
        found = hits(one, "A\nZebra crossing.", frozenset({"ann"}))
        assert [hit.passage.document_id for hit in found] == [added.id]
        assert found[0].similarity == pytest.approx(1.0)
    other.build()
    with pytest.raises(StoreError, match="embedded with another model meanwhile: start the program again"):
        hits(library, "harbour client")
    other.close()


def test_other_passage_lengths_make_a_library_stale(library: Library, settings: IndexSettings) -> None:
    library.close()
    other = Library.open(replace(settings, chunk_tokens=120), HashEmbedder())
    assert other.is_stale()
    assert other.build().changed == 2
    assert other.verify() == []
    other.close()


def test_readers_see_whole_documents_while_another_thread_writes(library: Library, tmp_path: Path) -> None:
    """Each version of a document has twenty passages that name it: a reader finds all of one or of the other."""
    versions = []
    for name in ("north", "south"):
        rows = "\n".join(f"{name} zebra,{number}" for number in range(20))
        versions.append(upload(tmp_path, f"{name}.csv", f"wind,number\n{rows}\n"))
    library.add_file(versions[0], name="wind.csv", collection="ann")
    done = threading.Event()
    seen: list[set[str]] = []
    wrong: list[str] = []

    def read() -> None:
        vector = library.embedder.embed(["zebra"])[0]
        while not done.is_set():
            hits = library.search("zebra", vector, 50, frozenset({"ann"})).hits
            found = [hit for hit in hits if hit.passage.text.startswith("wind: ")]
            winds = {hit.passage.text.split()[1] for hit in found}
            seen.append(winds)
            if len(found) != 20 or len(winds) != 1:
                wrong.append(f"{len(found)} passages of {sorted(winds)}")
            for hit in found[:1]:
                document = library.document(hit.passage.document_id)
                if document and document.text[hit.passage.start : hit.passage.end] != hit.passage.text:
                    wrong.append(hit.passage.text)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(1, 9):
        library.add_file(versions[turn % 2], name="wind.csv", collection="ann")
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert seen[-1] == {"north"}
    assert {"south"} in seen


def test_another_process_writes_and_both_go_on(library: Library, settings: IndexSettings, tmp_path: Path) -> None:
    other = Library.open(settings, HashEmbedder())
    added = other.add_file(upload(tmp_path, "a.txt", "Zebra crossing."), name="a.txt", collection="ann").documents[0]
    assert best(library, "zebra", frozenset({"ann"})) == "Zebra crossing."
    library.add_file(upload(tmp_path, "b.txt", "Zebra herd."), name="b.txt", collection="ann")
    library.remove(added.id)
    for one in (other, library):
        assert [hit.passage.text for hit in hits(one, "zebra", frozenset({"ann"}))] == ["Zebra herd."]
        assert one.verify() == []
    other.close()


def test_verify_names_what_is_wrong(library: Library, settings: IndexSettings, tmp_path: Path) -> None:
    added = library.add_file(upload(tmp_path, "a.txt", "Zebra."), name="a.txt", collection="ann").documents[0]
    shutil.rmtree(settings.state / "uploads" / added.id)
    (settings.documents / "new.txt").write_text("More.")
    assert library.verify() == [
        f"The original file of a.txt ({added.id}) is gone.",
        "The library is stale: run `python -m index build`.",
    ]


def test_document_ids_of_the_desk_survive_a_rebuild_from_nothing(library: Library, settings: IndexSettings) -> None:
    ids = {info.path: info.id for info in library.documents()}
    beside = settings.milvus and place(settings.milvus.uri)
    elsewhere = replace(settings, state=settings.state.parent / "elsewhere", milvus=beside)
    other = Library.open(elsewhere, HashEmbedder())
    other.build()
    assert {info.path: info.id for info in other.documents()} == ids
    other.close()
