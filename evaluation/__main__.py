"""`python -m evaluation`: how good the desk is, part by part. One function per command; what each takes is in
`arguments`.

Tables and, as the last line, one JSON object go to standard output; progress and a report's path to standard error.
"""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.arguments import parse

if TYPE_CHECKING:
    from pathlib import Path

    from app.assembly import Switchboard
    from desk.page import Html
    from desk.settings import Desk
    from evaluation.measures import Measure


def main(arguments: list[str] | None = None) -> int:
    """0; 1 where a figure lies below its floor, 2 for what the operator must mend."""
    options = parse(arguments)
    options.line = shlex.join(["python", "-m", "evaluation", *(sys.argv[1:] if arguments is None else arguments)])
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    from adapters.errors import ModelError
    from desk.config import DEFAULT_DESK, load_desk
    from desk.errors import DeskError
    from index.errors import LibraryError

    try:
        return _COMMANDS[options.command](load_desk(options.desk or DEFAULT_DESK), options)
    except (DeskError, LibraryError, ModelError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 2


def desk(settings: "Desk", options: argparse.Namespace) -> int:
    """1 where a figure lies beyond its floor."""
    from evaluation.desk import calibration, measure_desk, miss_row, missed, refusals
    from evaluation.desk_report import desk_page, measures_of
    from evaluation.floors import NAME, lost, read_floors
    from evaluation.share import rounded

    path = settings.root / "evaluation" / NAME
    floors = read_floors(path) if options.floors or path.is_file() else None
    asked, report = _with_board(settings, lambda board: measure_desk(board, options.split, options.only))
    measures = measures_of(asked, report, options.split, floors)
    for part, rows in measures.items():
        _print_table(f"{part} ({options.split})" if part == "turns" else part, rows)
    _write_misses(options.misses, [miss_row(*one) for one in missed(asked)])
    if options.report:
        _write_report(options, desk_page(options.line, options.split, asked, measures))
    told: dict[str, Any] = {part: {k: v.to_json() for k, v in rows.items()} for part, rows in report.items()}
    if asked:
        told["refusal"] = refusals(asked).to_json()
        told |= rounded({"calibration_error": calibration(asked)})
    print(json.dumps(told))
    below = lost(report, floors) if floors and options.floors else []
    for sentence in below:
        print(sentence, file=sys.stderr)
    return 1 if below else 0


def routing(settings: "Desk", options: argparse.Namespace) -> int:
    if options.data:
        return _banking(settings, options)
    if not options.train:
        return _route_turns(settings, options)
    from evaluation.routing import measure_files
    from evaluation.routing_report import measures_of, routing_page

    figures, decided = measure_files((options.train, options.val, options.test), settings.index, options.recall)
    measures = measures_of(figures, decided)
    _print_table(str(options.test), measures)
    if options.report:
        about = f"{len(decided.texts):,} texts of {options.test}"
        _write_report(options, routing_page(options.line, about, measures, decided))
    print(json.dumps(figures.to_json()))
    return 0


def _banking(settings: "Desk", options: argparse.Namespace) -> int:
    from evaluation.routing import mean_figures, measure_banking
    from evaluation.routing_report import measures_of, rotations_of, routing_page

    whole, rotations, decided = measure_banking(options.data, settings.index, options.recall)
    measures = measures_of(whole, decided)
    _print_table("all labels", measures)
    for number, one in enumerate(rotations, 1):
        print(f"rotation {number}: {json.dumps(one.to_json())}")
    if options.report:
        about = f"{len(decided.texts):,} test texts of BANKING77, all labels known"
        _write_report(options, routing_page(options.line, about, measures, decided, rotations_of(rotations)))
    print(json.dumps(mean_figures(rotations)))
    return 0


def _route_turns(settings: "Desk", options: argparse.Namespace) -> int:
    from evaluation.floors import goals_of
    from evaluation.route_turns import decided_turns, measure_unseen, route_unseen
    from evaluation.routing_report import routing_page, turn_measures
    from evaluation.share import rounded

    routed = _with_board(settings, route_unseen)
    shares, error = measure_unseen(routed)
    measures = turn_measures(shares, error, goals_of(settings.root, "routing"))
    _print_table("development turns, each judged by a router that never saw it", measures)
    if options.report:
        about = f"{len(routed):,} development turns of {settings.root.name}, each judged by a router that never saw it"
        _write_report(options, routing_page(options.line, about, measures, decided_turns(routed)))
    print(json.dumps({name: share.to_json() for name, share in shares.items()} | rounded({"ece": error})))
    return 0


def retrieval(settings: "Desk", options: argparse.Namespace) -> int:
    from evaluation.retrieval import SETS, measure, rank_beir, rank_public
    from evaluation.retrieval_report import lines, retrieval_page

    if options.data is None:
        found = {options.queries.name: rank_beir(options.corpus, options.queries, options.qrels, settings.index)}
    else:
        found = {name: rank_public(options.data, name, settings.index) for name in options.set or SETS}
    sets = {name: (one, measure(one.ranked)) for name, one in found.items()}
    for name, (one, report) in sets.items():
        print(f"\n{name}: {len(one.ranked):,} queries, {one.passages:,} passages")
        print("\n".join(lines(report)))
    if options.report:
        _write_report(options, retrieval_page(options.line, sets))
    values = {
        name: {method: {key: round(figure.value, 4) for key, figure in row.items()} for method, row in report.items()}
        for name, (_, report) in sets.items()
    }
    print(json.dumps(values if options.data else values[options.queries.name]))
    return 0


def answers(settings: "Desk", options: argparse.Namespace) -> int:
    from evaluation.answers import figures, measure_answers, measure_xquad, miss_row, missed
    from evaluation.answers_report import XQUAD_GOALS, answers_page, measures_of
    from evaluation.share import rounded

    parted = None
    if options.data is None:
        outcomes = measure_answers(options.corpus, options.questions, settings.index)
        measures, about = measures_of(outcomes, {}), f"{len(outcomes):,} questions of {options.questions}"
    else:
        outcomes, parted = measure_xquad(options.data, settings.index)
        measures = measures_of(outcomes, XQUAD_GOALS, parted)
        about = (
            f"{len(outcomes):,} questions of XQuAD-en; what concerns refusing with every other question's paragraph "
            "taken away"
        )
    _print_table(about, measures)
    _write_misses(options.misses, [miss_row(one) for one in missed(outcomes)])
    if options.report:
        _write_report(options, answers_page(options.line, about, measures, outcomes, parted))
    told: dict[str, Any] = rounded(figures(outcomes))
    print(json.dumps(told | ({"parted": rounded(figures(parted))} if parted else {})))
    return 0


def follow_ups(settings: "Desk", _: argparse.Namespace) -> int:
    from chains.golden import read_golden
    from evaluation.follow_ups import measure_rule, measure_stages

    def measured(board: "Switchboard") -> Any:
        turns = read_golden(board.desk.chains.golden_dev)
        return measure_stages(board.assistant, turns), measure_rule(board)

    kinds, report = _with_board(settings, measured)
    for kind, stages in kinds.items():
        print(f"\n{kind} on the development turns that documents answer")
        for stage, share in stages.items():
            print(f"  {stage:32} {share}")
    print("\nthe rule, out of fold")
    print(f"  {'follow-ups caught':32} {report.caught}")
    print(f"  {'others mistaken for one':32} {report.mistaken}")
    print(f"  {'others that it is unsure of':32} {report.touched}")
    print(f"WEIGHTS = {report.weights}")
    return 0


def refusal(settings: "Desk", _: argparse.Namespace) -> int:
    from chains.judge import write_refusal
    from evaluation.refusal import measure_refusal

    report = _with_board(settings, measure_refusal)
    write_refusal(report.head)
    print(f"{report.turns} development turns, {report.unanswerable} unanswerable, out of fold")
    for name in ("area", "precision", "recall", "f1", "answerable_refused"):
        print(f"  {name.replace('_', ' '):20} {getattr(report, name):.3f}")
    return 0


def judge(settings: "Desk", options: argparse.Namespace) -> int:
    from chains.judge import WEIGHTS
    from evaluation.judge import fit_judge

    print(fit_judge(settings.index, options.out or WEIGHTS))
    return 0


def refit(settings: "Desk", options: argparse.Namespace) -> int:
    from chains.learned import FILE
    from evaluation.refit import apply_refit, lines, try_refit

    def learn(board: "Switchboard") -> None:
        tried = try_refit(board, options.least)
        print("\n".join(lines(tried)))
        if options.apply:
            apply_refit(board, tried)

    if options.forget:
        path = settings.chains.state / FILE
        there = path.exists()
        path.unlink(missing_ok=True)
        print("Forgotten: a running app routes without it in a moment." if there else "Nothing had been learned.")
        return 0
    _with_board(settings, learn)
    if options.apply:
        print("Applied: a running app routes with it in a moment. `python -m evaluation refit --forget` undoes it.")
    else:
        print("Nothing was changed. `python -m evaluation refit --apply` learns it.")
    return 0


def reading(settings: "Desk", options: argparse.Namespace) -> int:
    from pathlib import Path

    from evaluation.reading import shares
    from evaluation.reading_report import ask_sets, measures_of, misses_of, record, write_exercises

    if options.exercises:
        print(f"{write_exercises(options.exercises):,} exercises in {options.exercises}")
        return 0
    model = options.model or settings.adapters.base
    read = ask_sets(model, options.data, options.count, options.set or ())
    for name, rows in read.items():
        _print_table(name, measures_of(rows))
    _write_misses(options.misses, misses_of(read))
    if options.record:
        can = record(Path(model), read, options.line)
        print(f"\nrecorded in {model}: it {'can' if can else 'cannot'} read")
    print(json.dumps({name: {key: one.to_json() for key, one in shares(rows).items()} for name, rows in read.items()}))
    return 0


def _with_board(settings: "Desk", run: Callable[["Switchboard"], Any]) -> Any:
    """What `run` makes of the desk, assembled for it alone."""
    from app.assembly import assemble

    board = assemble(settings)
    try:
        return run(board)
    finally:
        board.close()


def _print_table(title: str, measures: "Sequence[Measure]") -> None:
    from evaluation.measures import lines

    print(f"\n{title}", *lines(measures), sep="\n")


def _write_misses(path: "Path | None", rows: Sequence[dict[str, Any]]) -> None:
    if path:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _write_report(options: argparse.Namespace, page: "Html") -> None:
    from evaluation.page import write_page

    print(f"report: {write_page(options.report, options.command, page)}", file=sys.stderr)


_COMMANDS = {
    **{"desk": desk, "routing": routing, "retrieval": retrieval, "answers": answers},
    **{"follow-ups": follow_ups, "judge": judge, "refusal": refusal, "refit": refit, "reading": reading},
}

if __name__ == "__main__":
    raise SystemExit(main())
