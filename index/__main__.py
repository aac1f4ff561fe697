"""The command line of the library: add, build, sync, status, search, remove, verify, backup, restore, migrate.

Results go to standard output (one JSON object per line with --json), progress and logs to standard error.
A command that fails says why in one sentence on standard error and exits with 2.
"""

import argparse
import dataclasses
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from desk.config import DEFAULT_DESK, load_desk
from desk.errors import DeskError
from desk.settings import IndexSettings
from index.build import BuildReport
from index.connectors.sync import SyncReport, sync_all
from index.document import DESK_COLLECTION, NO_GROUPS, DocumentInfo, Filter, ScoredPassage
from index.embed import open_embedder
from index.errors import LibraryError, SourceError
from index.library import Library, open_library, restore_library, supported
from index.progress import ProgressBar

Write = Callable[[dict[str, Any], str], None]
"""Prints one result: as JSON, or the sentence beside it."""
WATCH_S = 2.0
"""Seconds between two looks at the documents folder; a look costs the size and time of each file."""


def main(arguments: list[str] | None = None) -> int:
    """0 if all went well, 1 if `verify` found fault or a source was not read to its end, 2 if a thing was not done."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("index").setLevel(logging.INFO)

    def write(row: dict[str, Any], sentence: str) -> None:
        print(json.dumps(row, ensure_ascii=False) if options.json else sentence, flush=True)

    try:
        return int(options.run(options, load_desk(options.desk).index, write))
    except (LibraryError, DeskError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what was stored so far is kept.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--desk", type=Path, default=DEFAULT_DESK, metavar="DIR", help="the desk's folder")
    common.add_argument("--json", action="store_true", help="one JSON object per line on standard output")
    parser = argparse.ArgumentParser(
        prog="python -m index",
        description="The documents of a desk: make them searchable, search them, see what is stored. "
        "Files in the desk's documents folder are taken in by themselves; `add` copies others in.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(run=run)
        return added

    add = command("add", _add, "copy files, or the files of a folder, into the library")
    add.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    build = command("build", _build, "bring the library up to the desk's documents folder")
    build.add_argument("--watch", action="store_true", help="keep up with the folder until Ctrl+C")
    sync = command("sync", _sync, "fetch what the desk's connectors find, and build")
    sync.add_argument("name", nargs="?", metavar="NAME", help="one connector; without it, all of them")
    command("status", _status, "what the library holds, and which files could not be read")
    find = command("search", _search, "the passages that fit a question best")
    find.add_argument("query", metavar="QUERY")
    find.add_argument("-k", type=_positive, default=5, help="how many passages (default: 5)")
    find.add_argument("--groups", type=_names, default=NO_GROUPS, metavar="A,B", help="search what these may read")
    find.add_argument("--source", metavar="PATH", help="only this document, or those below this folder")
    find.add_argument("--formats", type=_names, metavar="A,B", help="only these formats, for example pdf,docx")
    find.add_argument("--since", type=_date, metavar="DATE", help="only documents that state this date or a later one")
    find.add_argument(
        "--until", type=_date, metavar="DATE", help="only documents that state this date or an earlier one"
    )
    near = command("related", _related, "the documents that are nearest to one")
    near.add_argument("id", metavar="ID")
    near.add_argument("-k", type=_positive, default=5, help="how many documents (default: 5)")
    near.add_argument("--groups", type=_names, default=NO_GROUPS, metavar="A,B", help="among what these may read")
    remove = command("remove", _remove, "remove a document that was added")
    remove.add_argument("id", metavar="ID")
    command("verify", _verify, "check that database, indexes and files agree; exit status 1 if they do not")
    backup = command("backup", _backup, "write the library and the files that people added to one file")
    backup.add_argument("file", type=Path, metavar="FILE")
    back = command("restore", _restore, "put a backup in the library's place, also while the app runs")
    back.add_argument("file", type=Path, metavar="FILE")
    migrate = command("migrate", _migrate, "make the index of the other store from the library")
    migrate.add_argument("--to", choices=("milvus", "local"), required=True, help="the store to move to")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _names(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-11-25") from None


@contextmanager
def _opened(settings: IndexSettings) -> Iterator[Library]:
    """The library, built if absent or stale."""
    library = open_library(settings, ProgressBar())
    try:
        for path, reason in library.status().failures:
            logging.getLogger(__name__).warning("%s was left out: %s", path, reason)
        yield library
    finally:
        library.close()


def _add(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    faults = 0
    with _opened(settings) as library:
        for path, name in _chosen(options.paths, settings):
            try:
                added = library.add_file(path, name=name)
            except SourceError as error:
                print(f"{error}", file=sys.stderr)
                faults += 1
                continue
            for document in added.documents:
                row = {"type": "added", "id": document.id, "path": document.path, "title": document.title}
                write(row | {"notes": list(document.notes)}, f"{document.id}  {document.path}  {document.title}")
                for note in document.notes:
                    print(f"{document.path}: {note}", file=sys.stderr)
            for _, reason in added.failures:
                print(reason, file=sys.stderr)
            faults += bool(added.failures)
    return 2 if faults else 0


def _chosen(paths: list[Path], settings: IndexSettings) -> Iterator[tuple[Path, str]]:
    """The files to add with their names. Those in the desk's folder are in the library already."""
    inside = settings.documents.resolve()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file() and supported(p)) if path.is_dir() else [path]
        for file in files:
            if file.resolve().is_relative_to(inside):
                print(f"{file} is part of the desk: it was taken in by the build.", file=sys.stderr)
            else:
                yield file, file.relative_to(path).as_posix() if path.is_dir() else file.name


def _build(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with closing(Library.open(settings, open_embedder(settings))) as library:
        _build_once(library, write)
        while options.watch:
            time.sleep(WATCH_S)
            if library.is_stale():
                time.sleep(WATCH_S)  # a file that is being copied is not read half
                _build_once(library, write)
    return 0


def _build_once(library: Library, write: Write) -> None:
    report = library.build(ProgressBar())
    for path, reason in report.failures:
        print(f"{path} was left out: {reason}", file=sys.stderr)
    write({"type": "built"} | dataclasses.asdict(report), _report(report))


def _sync(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    incomplete = 0

    def tell(report: SyncReport) -> None:
        nonlocal incomplete
        incomplete += not report.complete
        for address, reason in report.failures:
            print(f"{report.connector}: {address}: {reason}", file=sys.stderr)
        sentence = f"{report.connector}: {report.added} added, {report.changed} changed, {report.removed} removed, "
        sentence += f"{report.unchanged} unchanged{'' if report.complete else '; not read to its end'}."
        write({"type": "synced"} | dataclasses.asdict(report), sentence)

    sync_all(settings, options.name, tell)
    with closing(Library.open(settings, open_embedder(settings))) as library:
        _build_once(library, write)
    return 1 if incomplete else 0


def _report(report: BuildReport) -> str:
    return (
        f"{report.added} added, {report.changed} changed, {report.moved} moved, "
        f"{report.removed} removed, {report.unchanged} unchanged, "
        f"{len(report.failures)} not readable, in {report.seconds:.1f} s."
    )


def _status(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        status = library.status()
        formats = ", ".join(f"{count} {name}" for name, count in status.formats.items())
        write(
            {"type": "status"} | dataclasses.asdict(status),
            f"{status.documents} documents ({formats}), {status.passages} passages of at most "
            f"{status.chunk_tokens} tokens\nembedded by {status.embedding_model} "
            f"(search: {status.index})\nstored in {status.state}",
        )
        for info in library.documents():
            write({"type": "document"} | dataclasses.asdict(info), _listed(info))
    return 0


def _listed(info: DocumentInfo) -> str:
    notes = [f"{info.passages} passages", f"updated {info.updated}" if info.updated else ""]
    notes += ["out of date" if info.outdated else "", "upload" if info.collection != DESK_COLLECTION else ""]
    return f"{info.id}  {info.path}  {info.title} ({', '.join(note for note in notes if note)})"


def _search(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        vector = library.embedder.embed_queries([options.query])[0]
        only = Filter(options.source, options.formats, options.since, options.until)
        result = library.search(options.query, vector, options.k, library.readable(options.groups), only)
        for rank, hit in enumerate(result.hits, 1):
            write({"type": "hit", "rank": rank} | dataclasses.asdict(hit), _found(rank, hit))
    return 0


def _related(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        if library.document(options.id) is None:
            raise SourceError(f"There is no document {options.id}: `python -m index status` lists them.")
        found = library.related(library.passages(options.id), options.k, library.readable(options.groups))
    for one in found:
        sentence = f"{one.document_id}  {one.path}  {one.title} (similarity {one.similarity:.2f})"
        write({"type": "related"} | dataclasses.asdict(one), sentence)
    return 0


def _found(rank: int, hit: ScoredPassage) -> str:
    page = f", page {hit.passage.page}" if hit.passage.page else ""
    section = f" - {hit.passage.section}" if hit.passage.section else ""
    head = f"{rank}. {hit.title}{section} ({hit.path}{page}; score {hit.score:.2f})"
    return "\n   ".join([head, *hit.passage.text.split("\n")])


def _remove(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        library.remove(options.id)
        write({"type": "removed", "id": options.id}, f"{options.id} is removed.")
    return 0


def _verify(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        problems = library.verify()
    for problem in problems:
        write({"type": "problem", "problem": problem}, problem)
    if not problems:
        write({"type": "verified"}, "Database, indexes and files agree.")
    return 1 if problems else 0


def _backup(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    with _opened(settings) as library:
        contents = library.back_up(options.file)
    added = len(contents.files) - 1
    sentence = f"{options.file} holds {contents.documents} documents and {added} added files."
    write({"type": "backup", "file": str(options.file), "documents": contents.documents, "added": added}, sentence)
    return 0


def _restore(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    contents = restore_library(settings, options.file)
    with _opened(settings) as library:
        documents = library.status().documents
    sentence = (
        f"{contents.documents} documents are back from {options.file}; with the desk's files it is {documents} now."
    )
    write({"type": "restored", "restored": contents.documents, "documents": documents}, sentence)
    return 0


def _migrate(options: argparse.Namespace, settings: IndexSettings, write: Write) -> int:
    bar = ProgressBar(f"Writing to {options.to}")
    with _opened(settings) as library:
        try:
            passages = library.migrate(options.to, bar)
        finally:
            bar.close()
    sentence = (
        f"The index in {options.to} holds all {passages} passages. To search there, set `store: {options.to}` below "
    )
    sentence += "`index:` in desk.yaml and start the program again."
    write({"type": "migrated", "to": options.to, "passages": passages}, sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
