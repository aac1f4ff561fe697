"""`python -m evaluation desk`: how good the desk is on its own golden turns and held-out rows."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.assembly import Switchboard
    from desk.config import Desk, IndexSettings
    from evaluation.ranking import Measured

TITLES = {
    "route": "Route right",
    "adapter": "Right adapter (of adapter turns)",
    "adapter_sure": "An adapter's turn that it answers itself",
    "passage_in_5": "Gold passage in the first 5",
    "passage_first": "Gold passage first",
    "fact_in_answer": "Extractive answer holds the gold fact",
    "fact_as_routed": "The same, as routed",
    "citation_right": "A gold passage is cited",
    "follow_up_fact": "Follow-ups answered with the gold fact",
    "out_of_scope_refused": "Out of scope refused",
    "unanswerable_refused": "Unanswerable from the documents refused",
    "answerable_refused": "Answerable but refused (lower is better)",
    "contradiction_shown": "What an older document says is shown",
    "several_parted": "Several intents parted",
    "several_right": "Several intents, every part right",
    "one_parted": "One intent, but parted (lower is better)",
    "with_adapter": "Right answer, adapter on",
    "adapter_off": "Right answer, adapter off",
    "nearest_neighbour": "MiniLM nearest neighbour",
}
ROUTED = {
    "route": "Route right",
    "adapter": "Right adapter (of adapter turns)",
    "out_of_scope_declined": "Out of scope declined",
    "in_scope_declined": "In scope but declined (lower is better)",
    "ambiguous": "Called ambiguous",
    "wrong_and_ambiguous": "Of those routed wrong, called ambiguous",
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
    desk.add_argument("--floors", action="store_true", help="fail where a figure is below evaluation/floors.json")
    follow_ups = commands.add_parser("follow-ups", help="fit and measure the follow-up rule on the development turns")
    follow_ups.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    refit = commands.add_parser(
        "refit",
        help="what users' feedback would change in the router",
        description="Shows what the router would learn from thumbs, other ways asked for and preferences, and which "
        "development turns it would then route otherwise. Nothing changes without --apply.",
    )
    refit.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    refit.add_argument("--least", type=_people, default=2, metavar="N", help="people who must agree (default 2)")
    which = refit.add_mutually_exclusive_group()
    which.add_argument("--apply", action="store_true", help="learn it, from the next start on")
    which.add_argument("--forget", action="store_true", help="forget all that was learned, from the next start on")
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
    routing = commands.add_parser(
        "routing",
        help="texts given their label, or rejected as out of scope, by the router's classifier",
        description="Fits the classifier of the router on labelled rows and measures it on others. Give your own set "
        "(--train, --val, --test; the last line is one JSON object), or --data for BANKING77. Without either, the "
        "desk's router on its development turns, each judged by a router that was fitted without it.",
    )
    routing.add_argument("--train", type=Path, metavar="JSONL", help='rows {"text", "label"}; "none": out of scope')
    routing.add_argument("--val", type=Path, metavar="JSONL", help="the same, for the operating point")
    routing.add_argument("--test", type=Path, metavar="JSONL", help="the same, to measure on")
    routing.add_argument("--data", type=Path, metavar="DIR", help="folder with banking77/train.csv and test.csv")
    routing.add_argument("--recall", type=float, default=0.8, help="share of out of scope to reject (default 0.8)")
    routing.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML page with figures (or into a folder)"
    )
    routing.add_argument("--desk", type=Path, default=None, help="desk whose embedding model to use")
    answers = commands.add_parser(
        "answers",
        help="answers from documents: the sentence quoted, the passage cited, the unanswerable refused",
        description="Asks questions over a corpus as the chat does with Documents chosen. Give your own set (--corpus, "
        "--questions; the last line is one JSON object), or --data for XQuAD-en, whole and with each question's own "
        "paragraph taken away for every other question.",
    )
    answers.add_argument("--corpus", type=Path, metavar="JSONL", help='rows {"_id", "title", "text"}')
    answers.add_argument(
        "--questions", type=Path, metavar="JSONL", help='rows {"question", "answerable", "passage_id", "answers"}'
    )
    answers.add_argument("--data", type=Path, metavar="DIR", help="folder with XQuAD-en's file")
    answers.add_argument("--misses", type=Path, default=None, metavar="FILE", help="write each miss as a JSON line")
    answers.add_argument("--desk", type=Path, default=None, help="desk whose index settings to use")
    judge = commands.add_parser("judge", help="fit the judge of sentences anew and write its weights (an hour)")
    judge.add_argument("--out", type=Path, default=None, metavar="FILE", help="instead of the one that is used")
    judge.add_argument("--desk", type=Path, default=None, help="desk whose index settings to use")
    refusal = commands.add_parser("refusal", help="fit anew when answers are refused, on the development turns too")
    refusal.add_argument("--desk", type=Path, default=None, help="folder with desk.yaml (default desks/helpdesk)")
    options = parser.parse_args(arguments)
    if options.command == "answers":
        own = [options.corpus, options.questions]
        if (options.data is None) != all(own) or (options.data and any(own)):
            answers.error("give --corpus and --questions, or --data alone")
    if options.command == "routing":
        _check_routing(routing, options)
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
        if options.command == "routing" and (options.data or options.train):
            _routing(settings.index, options)
            return 0
        if options.command == "answers":
            _answers(settings.index, options)
            return 0
        if options.command == "judge":
            from chains.judge import WEIGHTS
            from evaluation.judge import fit_judge

            print(fit_judge(settings.index, options.out or WEIGHTS))
            return 0
        if options.command == "refit" and options.forget:
            _forget(settings)
            return 0
        from app.assembly import assemble

        board = assemble(settings)
        try:
            if options.command == "desk":
                return _desk(board, options)
            if options.command == "routing":
                _route_turns(board, options.report)
            elif options.command == "refit":
                _refit(board, options)
            elif options.command == "refusal":
                _refusal(board)
            else:
                _follow_ups(board)
        finally:
            board.close()
    except (DeskError, LibraryError, ModelError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 2
    return 0


def _follow_ups(board: "Switchboard") -> None:
    from chains.golden import read_golden
    from evaluation.follow_ups import measure_rule, measure_stages

    for kind, stages in measure_stages(board.assistant, read_golden(board.desk.chains.golden_dev)).items():
        print(f"\n{kind} on the development turns that documents answer")
        for stage, share in stages.items():
            print(f"  {stage:32} {share}")
    report = measure_rule(board)
    print("\nthe rule, out of fold")
    print(f"  {'follow-ups caught':32} {report.caught}")
    print(f"  {'others mistaken for one':32} {report.mistaken}")
    print(f"  {'others that it is unsure of':32} {report.touched}")
    print(f"WEIGHTS = {report.weights}")


def _refusal(board: "Switchboard") -> None:
    from chains.judge import write_refusal
    from evaluation.refusal import measure_refusal

    report = measure_refusal(board)
    write_refusal(report.head)
    print(f"{report.turns} development turns, {report.unanswerable} unanswerable, out of fold")
    for name in ("area", "precision", "recall", "f1", "answerable_refused"):
        print(f"  {name.replace('_', ' '):20} {getattr(report, name):.3f}")


def _people(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _refit(board: "Switchboard", options: argparse.Namespace) -> None:
    from evaluation.refit import apply_refit, lines, try_refit

    refit = try_refit(board, options.least)
    print("\n".join(lines(refit)))
    if options.apply:
        apply_refit(board, refit)
        print("Applied: the next start routes with it. `python -m evaluation refit --forget` undoes it.")
    else:
        print("Nothing was changed. `python -m evaluation refit --apply` learns it.")


def _forget(desk: "Desk") -> None:
    from chains.learned import FILE

    path = desk.chains.state / FILE
    there = path.exists()
    path.unlink(missing_ok=True)
    print("Forgotten: the next start routes without it." if there else "Nothing had been learned.")


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


def _answers(settings: "IndexSettings", options: argparse.Namespace) -> None:
    from evaluation.answers import figures, measure_answers, measure_xquad, missed

    if options.data is None:
        outcomes = measure_answers(options.corpus, options.questions, settings)
    else:
        outcomes, parted = measure_xquad(options.data, settings)
        print(f"with every other question's paragraph taken away: {json.dumps(_rounded(figures(parted)))}")
    if options.misses:
        rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in missed(outcomes)]
        options.misses.write_text("".join(rows), encoding="utf-8")
    print(json.dumps(_rounded(figures(outcomes))))


def _rounded(values: "Mapping[str, float]") -> dict[str, float | None]:
    """JSON has no NaN: what could not be counted is null."""
    return {name: None if value != value else round(value, 4) for name, value in values.items()}


def _check_routing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    own = [options.train, options.val, options.test]
    if (any(own) and not all(own)) or (options.data and any(own)):
        parser.error("give --train, --val and --test, or --data alone")
    if not 0 < options.recall < 1:
        parser.error(f"--recall is {options.recall}: give a share between 0 and 1, for example 0.8")


def _routing(settings: "IndexSettings", options: argparse.Namespace) -> None:
    from evaluation.routing import mean_figures, measure_banking, measure_files

    if options.data is None:
        figures, decided = measure_files((options.train, options.val, options.test), settings, options.recall)
        last = figures.to_json()
    else:
        whole, rotations, decided = measure_banking(options.data, settings, options.recall)
        print(f"all labels: {json.dumps(whole.to_json())}")
        for number, one in enumerate(rotations, 1):
            print(f"rotation {number}: {json.dumps(one.to_json())}")
        last = mean_figures(rotations)
        figures = whole
    if options.report:
        from evaluation.routing_report import write_report

        print(f"report: {write_report(options.report, figures.to_json(), decided)}", file=sys.stderr)
    print(json.dumps(last))


def _route_turns(board: "Switchboard", report: Path | None) -> None:
    from evaluation.route_turns import decided_turns, measure_unseen, route_unseen

    routed = route_unseen(board)
    shares, error = measure_unseen(routed)
    for name, share in shares.items():
        print(f"  {ROUTED.get(name, name):42} {share}")
    print(f"  {'Expected calibration error':42} {error:.3f}")
    if report:
        from evaluation.routing_report import write_report

        figures = {**{name: share.value for name, share in shares.items()}, "ece": error}
        print(f"report: {write_report(report, figures, decided_turns(routed))}", file=sys.stderr)


def _print_figures(report: "Mapping[str, Mapping[str, Measured]]") -> None:
    print("  95% intervals, and those of hybrid minus this")
    for method, figures in report.items():
        for key, one in figures.items():
            beside = "" if method == "hybrid" else f"  {one.behind[0]:+.3f} to {one.behind[1]:+.3f}"
            print(f"  {method:8} {key:9} {one.value:.3f} ({one.interval[0]:.3f} to {one.interval[1]:.3f}){beside}")


def _desk(board: "Switchboard", options: argparse.Namespace) -> int:
    """0, or 1 where a figure lies beyond its floor."""
    from evaluation.desk import calibration, confusion, measure_desk, misses, refusal
    from evaluation.floors import NAME, lost, read_floors

    floors = read_floors(board.desk.root / "evaluation" / NAME) if options.floors else None
    asked, report = measure_desk(board, options.split, options.only)
    if options.misses:
        rows = misses(asked)
        options.misses.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    told: dict[str, Any] = {part: {k: v.to_json() for k, v in rows.items()} for part, rows in report.items()}
    if asked:
        told["refusal"] = _rounded(refusal(asked))
        told["calibration_error"] = round(calibration(asked), 4)
    if options.json:
        print(json.dumps(told))
    else:
        for part, shares in report.items():
            print(f"\n{part}" + (f" ({options.split})" if part == "turns" else ""))
            for name, share in shares.items():
                print(f"  {TITLES.get(name, name):42} {share}")
        if asked:
            print(f"  {'Refusal, F1 over the unanswerable':42} {told['refusal']['f1']}  {told['refusal']}")
            print(f"  {'Expected calibration error':42} {told['calibration_error']}")
            routes = ", ".join(f"{a}->{b} {n}" for (a, b), n in sorted(confusion(asked).items()))
            print(f"\nroutes (gold -> given): {routes}")
    below = lost(report, floors) if floors else []
    for sentence in below:
        print(sentence, file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    raise SystemExit(main())
