"""`python -m index` as a person or a script uses it: a small desk, the real embedding model."""

import json
from pathlib import Path

import pytest

from index.__main__ import main

DESK = "title: Tiny\ndescription: A desk for tests.\n"
ROUTES = "retrieval: [where is it]\nout_of_scope: [tell me a joke]\n"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A desk whose folder name, and with it its state, is this test's own."""
    folder = tmp_path / tmp_path.name
    (folder / "documents").mkdir(parents=True)
    (folder / "desk.yaml").write_text(DESK)
    (folder / "routes.yaml").write_text(ROUTES)
    (folder / "documents" / "lockers.md").write_text(
        "# Lockers\n\n## Where they are\n\nEvery floor has lockers beside the lifts. Codes come from reception.\n"
    )
    return folder


def run(capsys: pytest.CaptureFixture[str], desk: Path, *arguments: str) -> tuple[int, list[dict[str, object]], str]:
    """Exit status, the JSON rows on standard output, and standard error."""
    status = main([*arguments, "--desk", str(desk), "--json"])
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_the_library_from_first_search_to_removal(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows, progress = run(capsys, desk, "search", "where can I leave my bag", "-k", "3")
    assert status == 0
    assert "Building the index" in progress
    assert [(row["type"], row["rank"], row["path"]) for row in rows] == [("hit", 1, "documents/lockers.md")]
    assert rows[0]["passage"]["section"] == "Where they are"  # type: ignore[index]

    note = tmp_path / "bikes.txt"
    note.write_text("Bicycles stand in the basement.")
    status, rows, progress = run(capsys, desk, "add", str(note), str(tmp_path / "none.txt"))
    assert status == 2
    assert [(row["type"], row["path"]) for row in rows] == [("added", "bikes.txt")]
    assert progress == f"none.txt does not exist: check the path ({tmp_path / 'none.txt'}).\n"
    added = str(rows[0]["id"])

    status, rows, _ = run(capsys, desk, "search", "basement for a bicycle", "-k", "1")
    assert [row["path"] for row in rows] == ["bikes.txt"]

    status, rows, _ = run(capsys, desk, "status")
    assert (rows[0]["type"], rows[0]["documents"], rows[0]["stale"]) == ("status", 2, False)
    assert [row["path"] for row in rows[1:]] == ["bikes.txt", "documents/lockers.md"]

    assert run(capsys, desk, "verify") == (0, [{"type": "verified"}], "")
    assert run(capsys, desk, "remove", added) == (0, [{"type": "removed", "id": added}], "")
    status, rows, errors = run(capsys, desk, "remove", added)
    assert (status, rows) == (2, [])
    assert errors == f"There is no document {added}: `python -m index status` lists them.\n"

    status, rows, _ = run(capsys, desk, "build")
    assert (status, rows[0]["type"], rows[0]["unchanged"], rows[0]["added"]) == (0, "built", 1, 0)


def test_a_person_reads_sentences(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "lockers", "--desk", str(desk)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1. Lockers - Where they are (documents/lockers.md; score ")
    assert out.endswith("\n   Every floor has lockers beside the lifts. Codes come from reception.\n")


def test_a_missing_desk_is_one_sentence_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--desk", str(tmp_path / "none")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "There is no desk at" in captured.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n    {name} " in out for name in ("add", "build", "status", "search", "remove", "verify"))
