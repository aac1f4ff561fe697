"""Reads go on while one writes: no error, and every committed document is found, whole."""

import threading
import time
from pathlib import Path

import pytest
from fakes import HashEmbedder

from desk.settings import IndexSettings
from index.library import Library

READERS = 8
ALL = frozenset({"desk", "ann"})


def herd(name: str, turn: int, extra: int) -> str:
    rows = "\n".join(f"{name},{turn}" for _ in range(10 + extra))
    return f"animal,turn\n{rows}\n"


def read_and_write(folder: Path, seconds: float, exact_rows: int) -> tuple[int, int, list[str]]:
    """(reads, writes, what went wrong) of eight readers and a writer that adds, replaces, removes and builds.

    Each document has 10 to 12 rows that hold its name; "steady" is never touched.
    """
    documents = folder / "desk" / "documents"
    documents.mkdir(parents=True)
    (documents / "steady.csv").write_text(herd("steady", 0, 0))
    settings = IndexSettings(documents, folder / "state", folder / "models", 60, 5, 1, 1)
    library = Library.open(settings, HashEmbedder(), exact_rows)
    library.build()
    until = time.monotonic() + seconds
    wrong: list[str] = []
    reads = [0] * READERS
    committed: dict[str, int] = {}
    """Documents that stay: their name, and since which turn."""

    def read(reader: int) -> None:
        try:
            while time.monotonic() < until and not wrong:
                for name, since in [("steady", 0), *list(committed.items())[-3:]]:
                    query = f"animal: {name}; turn"
                    hits = library.search(query, library.embedder.embed([query])[0], 400, ALL).hits
                    turns = [
                        hit.passage.text.rpartition(" ")[2] for hit in hits if f"animal: {name};" in hit.passage.text
                    ]
                    if len(turns) not in (10, 11, 12) or len(set(turns)) != 1 or int(turns[0]) < since:
                        wrong.append(f"{name} is found as {turns}, committed in turn {since}")
                    reads[reader] += 1
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(READERS)]
    for thread in threads:
        thread.start()
    turn = 0
    while time.monotonic() < until and not wrong:
        turn += 1
        name = f"animal{turn % 7}"
        (folder / "herd.csv").write_text(herd(name, turn, turn % 3))
        library.add_file(folder / "herd.csv", name=f"{name}.csv", collection="ann")
        committed[name] = turn
        (folder / "passing.txt").write_text(f"A passing remark {turn}.")
        library.remove(library.add_file(folder / "passing.txt", name="passing.txt", collection="ann").documents[0].id)
        if turn % 5 == 0:
            (documents / "growing.csv").write_text(herd("growing", turn, 0))
            library.build()
            committed["growing"] = turn
    for thread in threads:
        thread.join()
    wrong += library.verify() if not wrong else []
    library.close()
    return sum(reads), turn, wrong


@pytest.mark.parametrize("exact_rows", [200_000, 40], ids=["exact", "graph"])
def test_readers_and_a_writer_for_some_seconds(tmp_path: Path, exact_rows: int) -> None:
    reads, writes, wrong = read_and_write(tmp_path, 2.5, exact_rows)
    assert wrong == [] and reads > READERS and writes > 1


@pytest.mark.slow
@pytest.mark.parametrize("exact_rows", [200_000, 40], ids=["exact", "graph"])
def test_readers_and_a_writer_for_a_minute(tmp_path: Path, exact_rows: int) -> None:
    reads, writes, wrong = read_and_write(tmp_path, 60, exact_rows)
    assert wrong == [] and reads > 100 * READERS and writes > 20
