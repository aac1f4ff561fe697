"""`python -m app`: the web app; `ask "QUESTION"`: one turn; `candidates NAME`: what readers would teach an adapter."""

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    # A Hugging Face Space starts this file by its path, with the checkout not on the module path.
    sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from app.assembly import Switchboard

INTRUDER = (
    "The package {name!r} was imported from {where}, not from {root}. Another package of that name is "
    "installed: start with `python -m app` from the checkout, in its own environment."
)


def check_neighbours() -> None:
    """Stops with the intruder's place when a foreign package shadows ours (PyPI has an `adapters`)."""
    import importlib.util

    for name in ("adapters", "chains", "index", "desk"):
        spec = importlib.util.find_spec(name)
        where = Path(spec.origin).resolve() if spec and spec.origin else None
        if where is None or where.parent != ROOT / name:
            raise SystemExit(INTRUDER.format(name=name, where=where, root=ROOT / name))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description="The Switchboard help-desk assistant.")
    parser.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    commands = parser.add_subparsers(dest="command", title="commands")
    ask = commands.add_parser("ask", help="answer one question and print the answer")
    ask.add_argument("question", help="the message, as it would be typed in the chat")
    ask.add_argument("--route", choices=["auto", "retrieval", "adapter", "both"], default="auto")
    ask.add_argument("--adapter", default=None, metavar="NAME", help="an adapter's name, or `base`")
    ask.add_argument("--workflow", default=None, metavar="NAME", help="a workflow's name")
    ask.add_argument("--groups", default="", metavar="A,B", help="answer as for a member of these groups")
    ask.add_argument("--json", action="store_true", help="print the turn's events, one JSON object per line")
    ask.add_argument("--desk", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    review = commands.add_parser("candidates", help="decide what an adapter learns of what its readers said")
    review.add_argument("name", metavar="NAME", help="the adapter")
    review.add_argument("--file", type=Path, metavar="FILE.xlsx", help="the workbook to write (NAME-candidates.xlsx)")
    review.add_argument("--take", type=Path, metavar="FILE.xlsx", help="a workbook with yes or no in its first column")
    review.add_argument("--desk", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    check_neighbours()
    _quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for talker in ("httpx", "httpx2", "faiss", "faiss.loader"):
        logging.getLogger(talker).setLevel(logging.WARNING)
    from adapters.errors import ModelError
    from chains.errors import TurnError
    from desk.errors import DeskError
    from index.errors import LibraryError

    try:
        return {"ask": _ask, "candidates": _candidates}.get(options.command, _serve)(options)
    except (DeskError, LibraryError, ModelError, TurnError) as error:
        print(f"switchboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _quiet() -> None:
    """A newcomer's console shows what matters; nothing asks a model hub for anything unless it has to."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(gradio|torch|bitsandbytes).*")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def _assemble(options: argparse.Namespace) -> "Switchboard":
    from app.assembly import assemble
    from desk.config import DEFAULT_DESK, load_desk
    from index.progress import ProgressBar

    return assemble(load_desk(options.desk or DEFAULT_DESK), ProgressBar())


def _ask(options: argparse.Namespace) -> int:
    from chains.turn import Failed, Finished, Noted, Route, Turn

    logging.getLogger().setLevel(logging.WARNING)
    board = _assemble(options)
    turn = Turn(
        question=options.question,
        collections=board.library.readable(frozenset(filter(None, map(str.strip, options.groups.split(","))))),
        route=None if options.route == "auto" else Route(options.route),
        adapter=options.adapter,
        workflow=options.workflow,
    )
    code = 0
    board.start()
    try:
        for event in board.assistant.answer(turn):
            if options.json:
                print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)
            elif isinstance(event, Noted):
                print(f"[{event.message}]")
            elif isinstance(event, Failed):
                print(f"switchboard: {event.message}", file=sys.stderr)
            elif isinstance(event, Finished):
                _print_answer(event)
            code = 1 if isinstance(event, Failed) else code
    finally:
        board.close()
    return code


def _candidates(options: argparse.Namespace) -> int:
    from app.review import lines, take_review, write_review

    logging.getLogger().setLevel(logging.WARNING)
    board = _assemble(options)
    try:
        if options.take:
            print("\n".join(lines(options.name, *take_review(board, options.name, options.take))))
            return 0
        path = options.file or Path(f"{options.name}-candidates.xlsx")
        count, more = write_review(board, options.name, path)
    finally:
        board.close()
    if not count:
        print(f"Readers have said nothing new about {options.name}.")
        return 0
    if more:
        print(f"{more} more wait until these are decided.")
    print(f"{count} candidates are in {path}: write yes or no before each, mend questions and answers, save it, then")
    print(f"`python -m app candidates {options.name} --take {path}` puts those with a yes into the training data.")
    return 0


def _print_answer(event: "object") -> None:
    from chains.clarify import options
    from chains.turn import Finished

    assert isinstance(event, Finished)
    answer = event.answer
    for part in answer.parts or (answer,):
        if part.heading:
            print(f"{part.heading}\n")
        print(f"[{part.decision.route.value}: {part.decision.reason}]\n")
        if part.fields:
            print("\n".join(f"{name}: {value}" for name, value in part.fields.items()) + "\n")
        print(part.text + "\n" * bool(answer.parts))
        for start, end in part.unsupported:
            print(f"  [no passage found says so] {' '.join(part.text[start:end].split())}")
    for word, option in zip(answer.clarify, options(answer.decision), strict=True) if answer.clarify else ():
        chosen = f" --adapter {option.adapter}" if option.adapter else ""
        chosen += f" --workflow {option.workflow}" if option.workflow else ""
        print(f"  {word}: ask again with --route {option.route.value}{chosen}")
    lines = []
    for citation in answer.citations:
        page = f", page {citation.page}" if citation.page is not None else ""
        lines.append(f"  [{citation.number}] {citation.document}, {citation.section}{page}")
    # A passage that is quoted twice has one number.
    for line in dict.fromkeys(lines):
        print(line)


def _serve(options: argparse.Namespace) -> int:
    import uvicorn

    from app.assembly import describe
    from app.server import build_server

    board = _assemble(options)
    for line in describe(board):
        print(line, file=sys.stderr)
    app = board.desk.app
    print(
        f"\nSwitchboard is at http://{_shown(app.host)}:{app.port}  (Ctrl+C stops it)",
        file=sys.stderr,
        flush=True,
    )
    try:
        uvicorn.run(
            build_server(board),
            host=app.host,
            port=app.port,
            log_level="warning",
            # An open page keeps a connection for ever: without a limit, Ctrl+C would wait for it.
            timeout_graceful_shutdown=3,
        )
    finally:
        board.close()
    return 0


def _shown(host: str) -> str:
    return "localhost" if host in {"0.0.0.0", "127.0.0.1", "::"} else host  # noqa: S104


if __name__ == "__main__":
    raise SystemExit(main())
