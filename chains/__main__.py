"""`python -m chains route`: where each message on standard input would go."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from desk.config import Desk


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chains", description="Try the router.")
    commands = parser.add_subparsers(dest="command", required=True, title="commands")
    route = commands.add_parser("route", help="route messages from standard input, one a line")
    route.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    route.add_argument("--json", action="store_true", help="print one JSON object per message")
    options = parser.parse_args(arguments)
    from adapters.errors import ModelError
    from desk.config import DEFAULT_DESK, load_desk
    from desk.errors import DeskError
    from index.errors import LibraryError

    try:
        return _route(load_desk(options.desk or DEFAULT_DESK), options.json)
    except (DeskError, LibraryError, ModelError) as error:
        print(f"chains: {error}", file=sys.stderr)
        return 2


def _route(desk: "Desk", as_json: bool) -> int:
    from adapters.engine import Engine
    from chains.assistant import fit_router
    from chains.router import RouterInput
    from chains.turn import Routed
    from chains.workflow import look_up
    from index.document import NO_GROUPS
    from index.library import open_library

    library = open_library(desk.index)
    embedder = library.embedder
    router = fit_router(desk.chains, library, embedder, Engine(desk.adapters))
    for line in sys.stdin:
        message = line.strip()
        if not message:
            continue
        vector = embedder.embed_queries([message])[0]
        found, ordered = look_up(
            library, embedder.embed_queries, message, vector, desk.chains.passages, library.readable(NO_GROUPS)
        )
        decision = router.decide(RouterInput(vector, found, ordered))
        if as_json:
            print(json.dumps({"text": message, **Routed(decision, message).to_json()}, ensure_ascii=False), flush=True)
        else:
            name = decision.adapter or decision.workflow or ""
            print(f"{decision.route.value:10} {name:14} {decision.probabilities[decision.route]:.2f}  {message}")
    library.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
