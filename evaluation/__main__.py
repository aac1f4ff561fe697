"""`python -m evaluation desk`: how good the desk is on its own golden turns and held-out rows."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.assembly import Switchboard
    from desk.config import IndexSettings
    from evaluation.ranking import Measured

TITLES = {
    "route": "Route right",
    "adapter": "Right adapter (of adapter turns)",
    "passage_in_5": "Gold passage in the first 5",
    "passage_first": "Gold passage first",
    "fact_in_answer": "Extractive answer holds the gold fact",
    "fact_as_routed": "The same, as routed",
    "citation_right": "A gold passage is cited",
    "follow_up_fact": "Follow-ups answered with the gold fact",
    "out_of_scope_refused": "Out of scope refused",
    "unanswerable_refused": "Unanswerable from the documents refused",
    "answerable_refused": "Answerable but refused (lower is better)",
    "several_parted": "Several intents parted",
    "several_right": "Several intents, every part right",
    "one_parted": "One intent, but parted (lower is better)",
    "with_adapter": "Right answer, adapter on",
    "adapter_off": "Right answer, adapter off",
    "nearest_neighbour": "MiniLM nearest neighbour",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Measure a desk.")
    commands = parser.add_subparsers(dest="command", required=True, title="commands")
    desk = commands.add_parser("desk", help="everything, on the desk's golden turns and held-out rows")
    desk.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    desk.add_argument("--split", choices=["dev", "test"], default="test")
    desk.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    desk.add_argument("--only", action="append", default=[], metavar="PART", help="`turns` or an adapter; repeatable")
    desk.add_argument("--misses", type=Path, default=None, metavar="FILE", help="write each miss as a JSON line")
    follow_ups = commands.add_parser("follow-ups", help="fit and measure the follow-up rule on the development turns")
    follow_ups.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    retrieval = commands.add_parser(
        "retrieval",
        help="documents found for judged queries, by the search and by each of its halves",
        description="Ranks a corpus for judged queries by BM25, by vectors and by both. Give your own set in BEIR's "
        "layout (--corpus, --queries, --qrels; the last line is one JSON object), or --data for the public ones.",
    )
    retrieval.add_argument("--corpus", type=Path, metavar="JSONL", help='rows {"_id", "title", "text"}')
    retrieval.add_argument("--queries", type=Path, metavar="JSONL", help='rows {"_id", "text"}')
    retrieval.add_argument("--qrels", type=Path, metavar="TSV", help="header query-id, corpus-id, score")
    retrieval.add_argument("--data", type=Path, metavar="DIR", help="folder with XQuAD-en's and COVID-QA's files")
    retrieval.add_argument("--set", action="append", choices=["xquad", "covidqa"], help="with --data (default: both)")
    retrieval.add_argument("--desk", type=Path, default=None, help="desk whose index settings to use")
    options = parser.parse_args(arguments)
    if options.command == "retrieval":
        own = [options.corpus, options.queries, options.qrels]
        if (options.data is None) != all(own) or (options.data and any(own)):
            retrieval.error("give --corpus, --queries and --qrels, or --data alone")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    from adapters.errors import ModelError
    from desk.config import DEFAULT_DESK, load_desk
    from desk.errors import DeskError
    from index.errors import LibraryError

    try:
        settings = load_desk(options.desk or DEFAULT_DESK)
        if options.command == "retrieval":
            _retrieval(settings.index, options)
            return 0
        from app.assembly import assemble

        board = assemble(settings)
        try:
            if options.command == "desk":
                _desk(board, options)
            else:
                _follow_ups(board)
        finally:
            board.close()
    except (DeskError, LibraryError, ModelError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 2
    return 0


def _follow_ups(board: "Switchboard") -> None:
    from evaluation.follow_ups import measure_follow_ups

    report = measure_follow_ups(board)
    print(f"{report.follow_ups} follow-ups, {report.others} other messages; out of fold")
    print(f"  words alone: {report.by_words[0]:.1%} caught, {report.by_words[1]:.1%} of the others mistaken")
    print(f"  the rule:    {report.caught:.1%} caught, {report.mistaken:.1%} of the others mistaken")
    print(f"WEIGHTS = {report.weights}\nLIKELY = {report.level}")


def _retrieval(settings: "IndexSettings", options: argparse.Namespace) -> None:
    from evaluation.retrieval import SETS, measure_beir, measure_public

    if options.data is None:
        report = measure_beir(options.corpus, options.queries, options.qrels, settings)
        _print_figures(report)
        print(json.dumps({method: {key: one.value for key, one in row.items()} for method, row in report.items()}))
        return
    for name in options.set or SETS:
        questions, passages, report = measure_public(options.data, name, settings)
        print(f"\n{name}: {questions} questions, {passages} passages")
        _print_figures(report)


def _print_figures(report: "Mapping[str, Mapping[str, Measured]]") -> None:
    print("  95% intervals, and those of hybrid minus this")
    for method, figures in report.items():
        for key, one in figures.items():
            beside = "" if method == "hybrid" else f"  {one.behind[0]:+.3f} to {one.behind[1]:+.3f}"
            print(f"  {method:8} {key:9} {one.value:.3f} ({one.interval[0]:.3f} to {one.interval[1]:.3f}){beside}")


def _desk(board: "Switchboard", options: argparse.Namespace) -> None:
    from evaluation.desk import confusion, measure_desk, misses

    asked, report = measure_desk(board, options.split, options.only)
    if options.misses:
        rows = misses(asked)
        options.misses.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if options.json:
        print(json.dumps({part: {k: v.to_json() for k, v in rows.items()} for part, rows in report.items()}))
        return
    for part, shares in report.items():
        print(f"\n{part}" + (f" ({options.split})" if part == "turns" else ""))
        for name, share in shares.items():
            print(f"  {TITLES.get(name, name):42} {share}")
    if asked:
        print(
            "\nroutes (gold -> given): " + ", ".join(f"{a}->{b} {n}" for (a, b), n in sorted(confusion(asked).items()))
        )


if __name__ == "__main__":
    raise SystemExit(main())
