"""Run as a program: changes a library, and is killed while it does so. `test_index_crash.py` starts it.

`steps OPERATION STRIDE`: runs the operation again and again on fresh copies of a library, each time killed (SIGKILL)
before another line of the library's own code, and checks what is left. `run OPERATION`: runs it once, to be killed from
outside. `check`: checks what is left in a folder. Each check prints what is wrong; nothing means that all is well.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from fakes import HashEmbedder
from numpy.typing import NDArray

import index
from desk.settings import IndexSettings
from index.library import Library, restore_library

WRITERS = ("backup", "build", "derived", "lexical", "library", "locking", "store", "vectors")
WATCHED = frozenset(str(Path(index.__path__[0]) / f"{name}.py") for name in WRITERS)
"""The files whose lines are the steps at which an operation is killed: all that write to the disk."""
FILES = {"one.md": "lantern", "two.md": "quarry", "three.md": "meadow", "four.md": "harbour"}
"""The documents of the library: each has 30 passages that all hold its word."""
EXACT_ROWS = 60
"""Few enough for the library to have a graph, which every operation then has to follow or to build."""


class OtherEmbedder(HashEmbedder):
    """The same vectors, mirrored, under another name."""

    name = "mirrored-256"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return -super().embed(texts)


def text(word: str, version: int) -> str:
    return f"# {word} {version}\n\n" + "\n\n".join(f"## Part {part}\n\nThe {word} v{version}." for part in range(30))


def settings(folder: Path) -> IndexSettings:
    return IndexSettings(folder / "desk" / "documents", folder / "state", folder / "models", 60, 5, 1, 1)


def opened(folder: Path, embedder: HashEmbedder | None = None) -> Library:
    return Library.open(settings(folder), embedder or HashEmbedder(), EXACT_ROWS)


def prepare(folder: Path) -> None:
    """A built library of FILES, with an upload and a backup of an older state."""
    documents = folder / "desk" / "documents"
    documents.mkdir(parents=True)
    (folder / "up.md").write_text(text("upload", 1))
    for name, word in FILES.items():
        (documents / name).write_text(text(word, 1))
    library = opened(folder)
    library.build()
    library.add_file(folder / "up.md", name="up.md", collection="ann")
    library.back_up(folder / "backup.zip")
    library.close()
    # What a build has to do: a changed, a new, a moved and a deleted file.
    (documents / "one.md").write_text(text("lantern", 2))
    (documents / "five.md").write_text(text("ferry", 1))
    (documents / "two.md").rename(documents / "moved.md")
    (documents / "three.md").unlink()
    (folder / "up.md").write_text(text("upload", 2))


def build(folder: Path) -> None:
    opened(folder).build()


def add(folder: Path) -> None:
    opened(folder).add_file(folder / "up.md", name="up.md", collection="ann")


def remove(folder: Path) -> None:
    library = opened(folder)
    for info in library.documents(frozenset({"ann"})):
        library.remove(info.id)


def embed_anew(folder: Path) -> None:
    opened(folder, OtherEmbedder()).build()


def restore(folder: Path) -> None:
    restore_library(settings(folder), folder / "backup.zip")
    opened(folder)


def back_up(folder: Path) -> None:
    opened(folder).back_up(folder / "backup.zip")


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "build": build,
    "add": add,
    "remove": remove,
    "embed_anew": embed_anew,
    "restore": restore,
    "back_up": back_up,
}
READABLE = frozenset({"desk", "ann"})
ALLOWED: dict[str, tuple[tuple[str, ...], ...]] = {
    # Per operation, what may be found of each word: its versions, "" for none of it.
    "build": (("lantern", "1", "2"), ("quarry", "1"), ("meadow", "1", ""), ("ferry", "1", ""), ("upload", "1")),
    "add": (("lantern", "1"), ("upload", "1", "2")),
    "remove": (("lantern", "1"), ("upload", "1", "")),
    # What the new model's build has changed, the model before finds again once it has embedded it.
    "embed_anew": (("lantern", "1", ""), ("quarry", "1", ""), ("harbour", "1"), ("upload", "1")),
    "restore": (("lantern", "1"), ("quarry", "1"), ("meadow", "1"), ("upload", "1")),
    "back_up": (("lantern", "1"), ("quarry", "1"), ("upload", "1")),
}


def check(folder: Path, operation: str) -> list[str]:
    """What is wrong with a library after its operation was killed, and after it was then run to its end."""
    wrong = []
    library = opened(folder)
    wrong += [f"after the kill: {problem}" for problem in library.verify() if not _owed(problem)]
    for word, *versions in ALLOWED[operation]:
        if (found := versions_of(library, word)) not in [{version} - {""} for version in versions]:
            wrong.append(f"after the kill: {word} is found as {found or 'nothing'}")
    library.close()
    if operation != "back_up":
        OPERATIONS[operation](folder)
    build(folder)
    library = opened(folder)
    wrong += [f"at the end: {problem}" for problem in library.verify()]
    upload = {"add": {"2"}, "remove": set()}.get(operation, {"1"})
    expected = {"lantern": {"2"}, "quarry": {"1"}, "meadow": set(), "ferry": {"1"}, "harbour": {"1"}, "upload": upload}
    for word, versions in expected.items():
        if (found := versions_of(library, word)) != versions:
            wrong.append(f"at the end: {word} is found as {found or 'nothing'}, not {versions or 'nothing'}")
    library.close()
    restore_library(settings(folder), folder / "backup.zip")
    library = opened(folder)
    wrong += [f"from the backup: {problem}" for problem in library.verify() if not _owed(problem)]
    if versions_of(library, "quarry") != {"1"}:
        wrong.append("from the backup: quarry is not found")
    library.close()
    opened(folder).back_up(folder / "backup.zip")
    graphs = list((folder / "state" / "derived" / "vectors-1").glob("graph-*.faiss"))
    left = [path.name for path in folder.rglob("*.part*")] + [path.name for path in graphs[1:]]
    return wrong + ([f"left behind: {left}"] if left else [])


def _owed(problem: str) -> bool:
    """Whether the next build will see to it: the desk's files have changed since the library was built."""
    return problem.startswith(("The library is stale", "The original file of documents/"))


def versions_of(library: Library, word: str) -> set[str]:
    """The versions that a search finds of a word, {"half"} if not all 30 passages of one are found."""
    query = f"The {word}"
    hits = library.search(query, library.embedder.embed([query])[0], 200, READABLE).hits
    found = [hit.passage.text.split("v")[-1].rstrip(".") for hit in hits if hit.passage.text.startswith(query)]
    return {"half"} if len(found) not in (0, 30) else set(found)


def killed_at(step: int, operation: str, folder: Path) -> bool:
    """Runs the operation in a child that kills itself at a step; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        OPERATIONS[operation](folder)
        sys.settrace(None)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def checked(folder: Path, operation: str) -> None:
    """Runs `check` in a child, so that this process has never opened a library."""
    child = os.fork()
    if child == 0:
        try:
            wrong = check(folder, operation)
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        print("\n".join(wrong), end="\n" if wrong else "", flush=True)
        os._exit(0)
    os.waitpid(child, 0)


def first_steps(operation: str, folder: Path) -> list[int]:
    """At which steps of an operation a line of the library's code runs for the first time."""
    seen: dict[tuple[str, int], int] = {}
    told, tell = os.pipe()
    if os.fork() == 0:
        step = 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal step
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                step += 1
                seen.setdefault((frame.f_code.co_filename, frame.f_lineno), step)
            return trace

        sys.settrace(trace)
        OPERATIONS[operation](folder)
        sys.settrace(None)
        with os.fdopen(tell, "w") as out:
            out.write(" ".join(map(str, sorted(seen.values()))))
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as found:
        steps = [int(word) for word in found.read().split()]
    os.wait()
    return steps


def steps(operation: str, stride: int, template: Path) -> None:
    """Kills the operation before every `stride`-th line that it runs, where it first does, and checks after each."""
    folder = template.with_name(f"{operation}-steps")
    shutil.copytree(template, folder)
    chosen = first_steps(operation, folder)
    shutil.rmtree(folder)
    killed = 0
    for step in chosen[::stride]:
        folder = template.with_name(f"{operation}-{step}")
        shutil.copytree(template, folder)
        killed += killed_at(step, operation, folder)
        sys.stdout.write(f"[{operation} step {step}]\n")
        sys.stdout.flush()
        checked(folder, operation)
        shutil.rmtree(folder)
    print(f"killed {killed} times of {len(chosen)} lines", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["steps", operation, stride, folder]:
            steps(operation, int(stride), Path(folder))
        case ["run", operation, folder]:
            print("ready", flush=True)
            OPERATIONS[operation](Path(folder))
        case ["check", operation, folder]:
            print("\n".join(check(Path(folder), operation)))
        case ["prepare", folder]:
            prepare(Path(folder))
