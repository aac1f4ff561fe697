"""`python -m chains route|advise`: where messages would go, and what each topic of the desk calls for."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chains.turn import RouteDecision
    from desk.settings import Desk


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chains", description="Try the router; get advice on the desk.")
    commands = parser.add_subparsers(dest="command", required=True, title="commands")
    route = commands.add_parser("route", help="route messages from standard input, one a line")
    route.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    route.add_argument("--json", action="store_true", help="print one JSON object per message")
    advice = commands.add_parser("advise", help="say which topics call for retrieval, for fine-tuning, or for both")
    advice.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    advice.add_argument("--json", action="store_true", help="print one JSON object per topic")
    options = parser.parse_args(arguments)
    from adapters.errors import ModelError
    from desk.config import DEFAULT_DESK, load_desk
    from desk.errors import DeskError
    from index.errors import LibraryError

    try:
        desk = load_desk(options.desk or DEFAULT_DESK)
        return _advise(desk, options.json) if options.command == "advise" else _route(desk, options.json)
    except (DeskError, LibraryError, ModelError) as error:
        print(f"chains: {error}", file=sys.stderr)
        return 2


def _route(desk: "Desk", as_json: bool) -> int:
    from chains.engines import open_engine
    from chains.first_stage import RouterInput
    from chains.fitting import fit_router, grounds
    from chains.workflow import look_up
    from index.document import NO_GROUPS
    from index.library import open_library

    library = open_library(desk.index)
    embedder = library.embedder
    router = fit_router(desk.chains, library, embedder, grounds(desk.chains, open_engine(desk.adapters)))
    for line in sys.stdin:
        message = line.strip()
        if not message:
            continue
        started = time.perf_counter()
        vector = embedder.embed_queries([message])[0]
        found, ordered = look_up(
            library, embedder.embed_queries, message, vector, desk.chains.passages, library.readable(NO_GROUPS)
        )
        searched = time.perf_counter()
        decision = router.decide(RouterInput(vector, found, ordered))
        decided = time.perf_counter()
        times = {"decide": (decided - searched) * 1000, "total": (decided - started) * 1000}
        if as_json:
            print(json.dumps(_row(message, decision, times), ensure_ascii=False), flush=True)
        else:
            print(_line(message, decision, times), flush=True)
    library.close()
    return 0


def _advise(desk: "Desk", as_json: bool) -> int:
    from chains.advise_desk import advise_desk
    from chains.advise_words import in_words, to_json

    advices = advise_desk(desk)
    if as_json:
        for advice in advices:
            print(json.dumps(to_json(advice), ensure_ascii=False))
    else:
        print(in_words(advices))
    return 0


def _row(message: str, decision: "RouteDecision", times: dict[str, float]) -> dict[str, Any]:
    """What a decision says, for programs. `options` are all ways to answer, likeliest first; `ms` is the time it took
    to decide, and in all with embedding and search."""
    from chains.turn import Routed

    options = [
        {"route": option.route.value, "name": option.adapter or option.workflow, "probability": round(probability, 4)}
        for option, probability in decision.options
    ]
    second = decision.alternative
    named = {"route": second.route.value, "name": second.adapter or second.workflow} if second else None
    return {
        "text": message,
        **Routed(decision, message).to_json(),
        "options": options,
        "alternative": named,
        "ms": {step: round(ms, 2) for step, ms in times.items()},
    }


def _line(message: str, decision: "RouteDecision", times: dict[str, float]) -> str:
    name = decision.adapter or decision.workflow or ""
    shares = " ".join(f"{route.value} {share:.2f}" for route, share in decision.probabilities.items())
    doubt = " (ambiguous)" if decision.alternative else ""
    return (
        f"{decision.route.value:10}{name:14} {shares}  {times['decide']:.1f} ms  {decision.reason}{doubt}  <- {message}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
