"""Milvus finds what the local indexes find, and while it does not answer nothing is lost. Milvus Lite is the engine.

What holds for a library whatever its index is in test_index_library.py, which runs on Milvus as well.
"""

import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MilvusServer
from fakes import HashEmbedder

from desk.config import ROOT
from desk.errors import DeskError
from desk.index_file import MilvusSettings
from desk.settings import IndexSettings
from index.__main__ import main
from index.build import BuildProgress
from index.derived import Derived
from index.document import DESK_COLLECTION, NO_FILTER, Filter, SearchResult
from index.errors import StoreError, UnreachableError
from index.lexical import FIELDS, index_terms, query_terms, rarity
from index.library import Library, restore_library
from index.milvus import Mark, MilvusIndex, row_of
from index.milvus_service import MilvusService, condition
from index.stored import TextRow

ALL = frozenset({DESK_COLLECTION})
ANIMALS = ("zebra", "giraffe", "heron", "otter", "badger", "lynx", "marten")
PLACES = ("harbour", "quay", "pier", "dock", "jetty")
QUESTIONS = (
    "Where is the zebra at the harbour?",
    "giraffes on piers",
    "otter jetty badger",
    "nothing of the kind",
    "Note 17",
    "the and of",
)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """27 files in two folders: one to three short passages each, some with a date, one out of date."""
    folder = tmp_path / "desk" / "documents"
    for number in range(27):
        path = folder / ("north" if number % 2 else "south") / f"note-{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        animal, place = ANIMALS[number % 7], PLACES[number % 5]
        text = f"# Note {number} on {animal}s\n\nThe {animal} rests at the {place}. It came in week {number}.\n"
        if number % 3 == 0:
            text += f"\n## Its food\n\nThe {place} feeds it; {animal} and {ANIMALS[(number + 3) % 7]} share.\n"
        if number % 4 == 0:
            text += f"\nLast updated: 2025-0{1 + number % 9}-1{number % 10}\n"
        path.write_text(text)
    return folder


def local(documents: Path) -> IndexSettings:
    return IndexSettings(documents, documents.parents[1] / "state", documents.parents[1] / "models", 60, 5, 1, 1)


def remote(documents: Path, uri: str) -> IndexSettings:
    """The same library, searched in collections that no other test has."""
    return replace(local(documents), store="milvus", milvus=MilvusSettings(uri, prefix=f"t{secrets.token_hex(4)}"))


@pytest.fixture
def settings(documents: Path, milvus: MilvusServer) -> IndexSettings:
    return remote(documents, milvus.address)


def ask(library: Library, question: str, collections: frozenset[str] = ALL, only: Filter = NO_FILTER) -> SearchResult:
    return library.search(question, library.embedder.embed([question])[0], 50, collections, only)


def score_of(result: SearchResult) -> dict[str, float]:
    return {hit.passage.id: hit.score for hit in result.hits}


def texts(library: Library, question: str, collections: frozenset[str] = ALL) -> list[str]:
    return [hit.passage.text for hit in ask(library, question, collections).hits]


def add(library: Library, folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return library.add_file(path, name=name, collection="ann").documents[0].id


def index_of(library: Library) -> MilvusIndex:
    index = library._derived
    assert isinstance(index, MilvusIndex)
    return index


def service_of(settings: IndexSettings) -> tuple[MilvusService, str]:
    """A second connection, and the name of the collection."""
    assert settings.milvus is not None
    return MilvusService(settings.milvus), f"{settings.milvus.prefix}_passages_1"


@pytest.mark.parametrize("only", [NO_FILTER, Filter(source="documents/north"), Filter(since="2025-03-01")])
def test_milvus_and_the_local_indexes_find_the_same(library: Library, documents: Path, only: Filter) -> None:
    beside = Library.open(local(documents), HashEmbedder())
    for question in QUESTIONS:
        here, there = ask(beside, question, only=only), ask(library, question, only=only)
        assert dict(here.term_weights) == dict(there.term_weights) and here.known_terms == there.known_terms
        similar, scores = ({hit.passage.id: hit.similarity for hit in there.hits}, score_of(there))
        assert similar.keys() == {hit.passage.id for hit in here.hits} != set()
        for hit in here.hits:
            assert similar[hit.passage.id] == pytest.approx(hit.similarity, abs=1e-4)
        if only == NO_FILTER:  # Milvus Lite weighs words by the passages that pass a filter, a cluster by all
            assert scores == pytest.approx(score_of(here), abs=1e-4)
    beside.close()


def test_both_halves_put_the_same_passages_forward(library: Library, documents: Path) -> None:
    beside = Library.open(local(documents), HashEmbedder())
    here, there = beside._derived, index_of(library)
    assert isinstance(here, Derived)
    for question in QUESTIONS:
        vector, terms = library.embedder.embed([question])[0], query_terms(question)
        assert dict(there.nearest(vector, 50, ALL)) == pytest.approx(dict(here.nearest(vector, 50, ALL)), abs=1e-4)
        assert here.frequencies(terms, ALL) == there.frequencies(terms, ALL)
        mine, theirs = dict(here.words(terms, 50, ALL)), dict(there.words(terms, 50, ALL))
        assert mine.keys() == theirs.keys()
        for number, score in mine.items():
            assert theirs[number] == pytest.approx(score, rel=1e-4)
    beside.close()


def test_the_nearest_are_those_of_an_exact_search(library: Library) -> None:
    index = index_of(library)
    for question in QUESTIONS[:4]:
        vector = library.embedder.embed([question])[0]
        nearest = {number: float((rows @ vector).max()) for number, rows in library._store.vectors(index.model)}
        found = index.nearest(vector, 3, ALL)
        assert [cosine for _, cosine in found] == pytest.approx(sorted(nearest.values(), reverse=True)[:3], abs=1e-6)
        assert all(nearest[number] == pytest.approx(cosine, abs=1e-6) for number, cosine in found)


def test_bm25_scores_equal_the_formula(library: Library) -> None:
    rows = {row.number: index_terms(row.text) for row in library._store.texts()}
    index = index_of(library)
    found = dict(index._service.words(index._passages, "body", ["harbour"], 100, condition(ALL, NO_FILTER)))
    standing = {number: Counter(words)["harbour"] for number, words in rows.items()}
    assert found.keys() == {number for number, count in standing.items() if count}
    mean = sum(map(len, rows.values())) / len(rows)
    for number, score in found.items():
        norm = 1.2 * (1 - 0.75 + 0.75 * len(rows[number]) / mean)
        count = standing[number]
        assert score == pytest.approx(rarity(len(found), len(rows)) * count * 2.2 / (count + norm), rel=1e-4)
    terms = ["harbour", "note"]
    parts = [dict(index._service.words(index._passages, field, terms, 100, "")) for field in FIELDS]
    for number, score in index.words(terms, 25, ALL):
        summed = sum(weight * part.get(number, 0.0) for weight, part in zip(FIELDS.values(), parts, strict=True))
        assert score == pytest.approx(summed)


def test_counts_that_are_kept_do_not_grow_without_end(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.milvus.MOST_COUNTS", 4)
    index = index_of(library)
    first = index.frequencies(["harbour", "note"], ALL)
    for person in range(6):
        index.frequencies(["harbour", "note"], frozenset({f"person {person}"}))
        assert len(index._counts) <= 4 + 3
    assert index.frequencies(["harbour", "note"], ALL) == first


@pytest.mark.parametrize("name", ['a"] or true or collection in ["', "back\\slash", "new\nline", "é{x}%_'"])
def test_names_of_any_form_are_values_alone(library: Library, tmp_path: Path, name: str) -> None:
    (tmp_path / "own.txt").write_text("Zebra of its own.")
    library.add_file(tmp_path / "own.txt", name="own.txt", collection=name)
    vector = library.embedder.embed(["zebra"])[0]
    index = index_of(library)
    assert len(index.nearest(vector, 50, frozenset({name}))) == 1
    assert len(index.words(["zebra"], 50, frozenset({name}))) == 1
    assert index.frequencies(["zebra"], frozenset({name})) == ({"zebra": 1}, 1)
    assert index.nearest(vector, 50, ALL, Filter(source=name)) == []
    assert index.nearest(vector, 50, ALL, Filter(formats=frozenset({name}))) == []


def test_a_text_longer_than_a_field_is_found_by_its_first_words(settings: IndexSettings) -> None:
    service, name = service_of(settings)
    service.create_passages(name, 2)
    long = "quagga " + " ".join(f"ωμέγα{number}" for number in range(9000)) + " okapi"
    text = TextRow(7, "Title", "", long, "ann", "/".join(["deep"] * 300), "txt", None)
    service.write(name, [row_of(text, np.eye(2, dtype=np.float32), 2)])
    (stored,) = service.read(name, [7], ["body", "vector", "sources"])
    assert 65_000 < len(stored["body"].encode()) <= 65_535 and index_terms(long).count(stored["body"].split()[-1]) == 1
    assert stored["vector"] == pytest.approx([0.5**0.5] * 2)
    found = {term: service.words(name, "body", [term], 5, "") for term in ("quagga", "okapi")}
    assert ([number for number, _ in found["quagga"]], found["okapi"]) == ([7], [])
    assert stored["sources"][0] == "deep" and stored["sources"][-1] == text.path


def test_what_is_added_while_milvus_is_down_is_safe_and_found_later(documents: Path, tmp_path: Path) -> None:
    server = MilvusServer(tmp_path / "own")
    settings = remote(documents, server.address)
    library = Library.open(settings, HashEmbedder())
    library.build()
    kept = add(library, tmp_path, "kept.txt", "Quagga kept.")
    gone = add(library, tmp_path, "gone.txt", "Quagga gone.")
    server.stop()
    try:
        for name in ("first", "second"):
            with pytest.raises(
                UnreachableError, match=rf"{name}\.txt is stored, but cannot be found yet: .* start it, or correct"
            ):
                add(library, tmp_path, f"{name}.txt", f"Quagga {name}.")
        library.remove(gone)
        with pytest.raises(UnreachableError, match=f"Milvus at {server.address} does not answer"):
            ask(library, "quagga", frozenset({"ann"}))
        again = Library.open(settings, HashEmbedder())  # another start of the program, during the outage
        stored = {info.path for info in again.documents(frozenset({"ann"}))}
        assert stored == {"kept.txt", "first.txt", "second.txt"}
        assert again.original(kept) is not None
        assert again.back_up(tmp_path / "backup.zip").documents == 30
    finally:
        server.start()
    try:
        for one in (library, again):
            found = later(one, "quagga", frozenset({"ann"}))
            assert sorted(found) == ["Quagga first.", "Quagga kept.", "Quagga second."]
            assert one.verify() == []
            one.close()
    finally:
        server.stop()


def later(library: Library, question: str, collections: frozenset[str]) -> list[str]:
    """What is found as soon as Milvus is asked again."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return texts(library, question, collections)
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_change_that_is_taken_in_twice_does_no_harm(library: Library, settings: IndexSettings) -> None:
    before = texts(library, "zebra harbour")
    (settings.documents / "south" / "note-0.md").unlink()
    library.build()
    service, name = service_of(settings)
    marks = name.replace("passages_1", "marks")
    mark = Mark.model_validate_json(service.read(marks, [name], ["text"])[0]["text"])
    late = mark.model_copy(update={"revision": mark.revision - 1})
    service.write(marks, [{"name": name, "text": late.model_dump_json(), "unused": [0.0, 0.0]}])
    again = Library.open(settings, HashEmbedder())
    assert again.verify() == [] and texts(again, "zebra harbour") == texts(library, "zebra harbour") != before
    again.close()


@pytest.mark.parametrize("damage", ["dropped", "emptied", "half made", "older format", "mark gone"])
def test_a_damaged_collection_is_made_again_from_the_database(
    library: Library, settings: IndexSettings, damage: str
) -> None:
    expected = texts(library, "zebra harbour")
    service, name = service_of(settings)
    marks = name.replace("passages_1", "marks")
    mark = Mark.model_validate_json(service.read(marks, [name], ["text"])[0]["text"])
    changed = {"half made": {"revision": -1}, "older format": {"format": "0.0"}}.get(damage, {})
    text = mark.model_copy(update=changed).model_dump_json()
    match damage:
        case "dropped":
            service.drop(name)
        case "emptied":
            service.delete(name, list(range(1, 10)))
        case "mark gone":
            service.drop(name)
            service.delete(marks, [name])
        case _:
            service.write(marks, [{"name": name, "text": text, "unused": [0.0, 0.0]}])
    again = Library.open(settings, HashEmbedder())
    assert again.verify() == [] and texts(again, "zebra harbour") == expected
    again.close()


def test_verify_names_what_differs_in_milvus(library: Library, settings: IndexSettings) -> None:
    service, name = service_of(settings)
    service.delete(name, [1])
    (row,) = service.read(name, [2], ["*"])
    row = {key: value for key, value in row.items() if not key.endswith("_bm25")}
    service.write(name, [row | {"vector": np.roll(row["vector"], 1).tolist()}])
    held = len(library._store.changes(-1).added)
    where = f"Milvus at {settings.milvus and settings.milvus.uri}, collection {name}"
    assert library.verify() == [
        f"{where} holds {held - 1} passages, the library {held}.",
        f"{where} lacks 1 passages and holds 1 that differ.",
    ]


def test_a_collection_of_another_library_is_refused_and_left_alone(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    other = replace(settings, state=tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"belongs to another library: give this desk an index\.milvus\.prefix"):
        Library.open(other, HashEmbedder())
    assert library.verify() == []


def test_after_a_restored_backup_the_collection_is_made_anew(
    library: Library, settings: IndexSettings, tmp_path: Path
) -> None:
    add(library, tmp_path, "a.txt", "Quagga before.")
    library.back_up(tmp_path / "backup.zip")
    add(library, tmp_path, "b.txt", "Quagga after.")
    restore_library(settings, tmp_path / "backup.zip")
    again = Library.open(settings, HashEmbedder())
    for one in (again, library):
        assert texts(one, "quagga", frozenset({"ann"})) == ["Quagga before."]
        assert one.verify() == []
    again.close()


def test_a_file_holds_milvus_lite_for_one_process(documents: Path, tmp_path: Path) -> None:
    settings = remote(documents, str(tmp_path / "inside" / "desk.db"))
    library = Library.open(settings, HashEmbedder())
    library.build()
    assert library.verify() == [] and len(texts(library, "zebra harbour")) > 27
    script = (
        "import sys; from desk.index_file import MilvusSettings; from index.milvus_service import MilvusService\n"
        "MilvusService(MilvusSettings(sys.argv[1])).collections()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "inside" / "desk.db")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 1
    assert "cannot be opened: Milvus Lite lets one process in at a time" in refused.stderr.splitlines()[-1]
    library.close()


def test_a_desk_that_is_searched_locally_never_loads_pymilvus(documents: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from fakes import HashEmbedder; from desk.config import IndexSettings\n"
        "from index.library import Library\n"
        "state = Path(sys.argv[1])\n"
        "library = Library.open(IndexSettings(state / 'desk' / 'documents', state / 'state', state, 60, 5, 1, 1),"
        " HashEmbedder())\n"
        "library.build()\n"
        "assert library.search('zebra', library.embedder.embed(['zebra'])[0], 5, frozenset({'desk'})).hits\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('pymilvus', 'milvus_lite', 'grpc')])"
    )
    command = [sys.executable, "-c", script, str(documents.parents[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_token_is_read_from_its_variable_and_never_shown(
    documents: Path, milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = remote(documents, milvus.address)
    assert settings.milvus is not None
    settings = replace(settings, milvus=replace(settings.milvus, token_env="MILVUS_TOKEN"))
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    with pytest.raises(DeskError, match="needs the environment variable MILVUS_TOKEN, which is not set"):
        Library.open(settings, HashEmbedder())
    monkeypatch.setenv("MILVUS_TOKEN", "root:open sesame")
    library = Library.open(settings, HashEmbedder())
    library.build()
    assert "sesame" not in f"{settings} {library.status()}"
    library.close()


def test_a_library_moves_to_milvus_and_back(settings: IndexSettings, documents: Path) -> None:
    library = Library.open(replace(settings, store="local"), HashEmbedder())
    library.build()
    seen: list[BuildProgress] = []
    expected = score_of(ask(library, "zebra harbour"))
    count = library.migrate("milvus", seen.append)
    assert count == len(library._store.changes(-1).added) == seen[-1].done == seen[-1].total
    assert [step.done for step in seen] == sorted(step.done for step in seen) and seen[0].done == 0
    moved = Library.open(settings, HashEmbedder())
    assert moved.verify() == [] and score_of(ask(moved, "zebra harbour")) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(StoreError, match=r"index is milvus already: index\.store in desk\.yaml says so"):
        moved.migrate("milvus")
    library.close()
    (documents / "south" / "note-0.md").unlink()
    moved.build()
    assert moved.migrate("local") < count
    moved.close()
    back = Library.open(replace(settings, store="local"), HashEmbedder())
    assert back.verify() == []
    back.close()


def test_a_desk_is_told_what_to_change_and_keeps_what_it_had_if_moving_fails(
    documents: Path, milvus: MilvusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = documents.parent.rename(documents.parents[1] / f"desk-{secrets.token_hex(4)}")
    text = "title: Tiny\ndescription: For tests.\nindex:\n  store: {}\n  milvus: {{uri: '{}', prefix: t{}}}\n"
    prefix = secrets.token_hex(4)

    def run(store: str, uri: str, *arguments: str) -> tuple[int, list[dict[str, object]], str]:
        (desk / "desk.yaml").write_text(text.format(store, uri, prefix))
        status = main([*arguments, "--desk", str(desk), "--json"])
        captured = capsys.readouterr()
        return status, [json.loads(line) for line in captured.out.splitlines()], captured.err

    (desk / "routes.yaml").write_text("retrieval: [where is it]\nout_of_scope: [tell me a joke]\n")
    status, rows, errors = run("local", "http://127.0.0.1:9", "migrate", "--to", "milvus")
    assert (status, rows) == (2, []) and "Milvus at http://127.0.0.1:9 does not answer" in errors
    _, before, _ = run("local", milvus.address, "search", "zebra at the harbour")
    status, rows, errors = run("local", milvus.address, "migrate", "--to", "milvus")
    passages = rows[0]["passages"]
    assert (status, rows) == (0, [{"type": "migrated", "to": "milvus", "passages": passages}])
    assert "Writing to milvus: 100%" in errors and f"{passages}/{passages}" in errors
    status, rows, _ = run("milvus", milvus.address, "search", "zebra at the harbour")
    assert (status, [row["path"] for row in rows]) == (0, [row["path"] for row in before])


def test_moving_without_an_address_says_what_to_add(documents: Path) -> None:
    library = Library.open(local(documents), HashEmbedder())
    with pytest.raises(StoreError, match=r"does not say where Milvus is: add index\.milvus\.uri"):
        library.migrate("milvus")
    library.close()
