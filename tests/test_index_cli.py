"""`python -m index` as a person or a script uses it: a small desk, the real embedding model."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from desk.config import ROOT
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


def test_a_backup_brings_back_what_was_removed(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = tmp_path / "bikes.txt"
    note.write_text("Bicycles stand in the basement.")
    _, rows, _ = run(capsys, desk, "add", str(note))
    added, backup = str(rows[0]["id"]), tmp_path / "library.zip"
    assert run(capsys, desk, "backup", str(backup))[1] == [
        {"type": "backup", "file": str(backup), "documents": 2, "added": 1}
    ]
    run(capsys, desk, "remove", added)
    status, rows, _ = run(capsys, desk, "restore", str(backup))
    assert (status, rows) == (0, [{"type": "restored", "restored": 2, "documents": 2}])
    _, rows, _ = run(capsys, desk, "search", "basement for a bicycle", "-k", "1")
    assert [row["path"] for row in rows] == ["bikes.txt"]
    assert run(capsys, desk, "verify")[0] == 0
    assert run(capsys, desk, "restore", str(note)) == (
        2,
        [],
        f"{note} is no backup of a library, or is damaged (File is not a zip file).\n",
    )


def test_a_search_keeps_to_groups_and_filters(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "documents" / "pay").mkdir()
    (desk / "documents" / "pay" / "scale.txt").write_text("The pay scale has lockers too.\n\nLast updated: 2026-03-01")
    (desk / "desk.yaml").write_text(DESK + "collections:\n  pay:\n    folder: documents/pay\n    groups: [hr]\n")

    def found(*options: str) -> list[object]:
        status, rows, _ = run(capsys, desk, "search", "lockers", *options)
        assert status == 0
        return [row["path"] for row in rows]

    assert found() == ["documents/lockers.md"]
    assert sorted(map(str, found("--groups", "it,hr"))) == ["documents/lockers.md", "documents/pay/scale.txt"]
    assert found("--groups", "hr", "--formats", "txt") == ["documents/pay/scale.txt"]
    assert found("--groups", "hr", "--since", "2026-01-01") == ["documents/pay/scale.txt"]
    assert found("--groups", "hr", "--source", "documents/pay/") == ["documents/pay/scale.txt"]
    assert found("--source", "documents/pay") == []
    with pytest.raises(SystemExit):
        run(capsys, desk, "search", "lockers", "--since", "yesterday")


def test_a_watched_folder_is_followed_until_it_is_stopped(desk: Path, state_folder: Path) -> None:
    command = [sys.executable, "-m", "index", "build", "--watch", "--json", "--desk", str(desk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["added"] == 1
        (desk / "documents" / "bikes.txt").write_text("Bicycles stand in the basement.")
        assert json.loads(watch.stdout.readline())["added"] == 1
        (desk / "documents" / "bikes.txt").unlink()
        assert json.loads(watch.stdout.readline())["removed"] == 1
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=60) == 130


def test_what_a_connector_finds_is_searched_with_its_address(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = desk.parent / "shared"
    (shared / "rules").mkdir(parents=True)
    (shared / "rules" / "bikes.txt").write_text("Bicycles stand in the basement.")
    (desk / "desk.yaml").write_text(
        DESK + "connectors:\n  - name: drive\n    loader: folder\n    every: 1h\n"
        f"    path: {shared}\n    collection: drive\ncollections:\n  drive:\n    groups: [staff]\n"
    )
    status, rows, _ = run(capsys, desk, "sync")
    assert (status, [row["type"] for row in rows], rows[0]["added"], rows[1]["added"]) == (0, ["synced", "built"], 1, 2)
    assert run(capsys, desk, "search", "bicycle")[1][0]["path"] == "documents/lockers.md"
    _, rows, _ = run(capsys, desk, "search", "bicycle", "--groups", "staff", "-k", "1")
    assert str(rows[0]["path"]).startswith("connectors/drive/")
    assert run(capsys, desk, "verify") == (0, [{"type": "verified"}], "")
    (shared / "rules" / "bikes.txt").unlink()
    (shared / "cars.txt").write_text("Cars stand outside.")
    _, rows, _ = run(capsys, desk, "sync", "drive")
    assert (rows[1]["added"], rows[1]["removed"]) == (1, 1)
    assert run(capsys, desk, "sync", "nothing")[0] == 2
