"""The command line of `python -m evaluation`: what each command takes, and which arguments belong together."""

import argparse
from pathlib import Path
from typing import Any


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; `command` is one of the commands' names. Exits with a sentence for arguments that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Measure a desk.")
    commands = parser.add_subparsers(dest="command", required=True, title="commands")
    _desk(commands)
    _routing(commands)
    _retrieval(commands)
    _answers(commands)
    _follow_ups(commands)
    _judge(commands)
    _refusal(commands)
    _refit(commands)
    _reading(commands)
    options = parser.parse_args(arguments)
    fault = _CHECKS[options.command](options) if options.command in _CHECKS else None
    if fault:
        commands.choices[options.command].error(fault)
    return options


def _desk(commands: Any) -> None:
    desk = commands.add_parser(
        "desk",
        help="everything, on the desk's golden turns and held-out rows",
        description="Asks the desk's golden turns, and its adapters their held-out rows. The last line of output is "
        "one JSON object.",
    )
    desk.add_argument("--split", choices=["dev", "test"], default="test")
    desk.add_argument("--only", action="append", default=[], metavar="PART", help="`turns` or an adapter; repeatable")
    desk.add_argument("--misses", type=Path, default=None, metavar="FILE", help="write each miss as a JSON line")
    desk.add_argument("--floors", action="store_true", help="fail where a figure is below evaluation/floors.json")
    _report(desk)
    _of_desk(desk)


def _routing(commands: Any) -> None:
    routing = commands.add_parser(
        "routing",
        help="texts given their label, or rejected as out of scope, by the router's classifier",
        description="Fits the classifier of the router on labelled rows and measures it on others. Give your own set "
        "(--train, --val, --test), or --data for BANKING77. Without either, the desk's router on its development "
        "turns, each judged by a router that was fitted without it. The last line of output is one JSON object.",
    )
    routing.add_argument("--train", type=Path, metavar="JSONL", help='rows {"text", "label"}; "none": out of scope')
    routing.add_argument("--val", type=Path, metavar="JSONL", help="the same, for the operating point")
    routing.add_argument("--test", type=Path, metavar="JSONL", help="the same, to measure on")
    routing.add_argument("--data", type=Path, metavar="DIR", help="folder with banking77/train.csv and test.csv")
    routing.add_argument("--recall", type=float, default=0.8, help="share of out of scope to reject (default 0.8)")
    _report(routing)
    _of_desk(routing)


def _retrieval(commands: Any) -> None:
    retrieval = commands.add_parser(
        "retrieval",
        help="documents found for judged queries, by the search and by each of its halves",
        description="Ranks a corpus for judged queries by BM25, by vectors and by both. Give your own set in BEIR's "
        "layout (--corpus, --queries, --qrels), or --data for the public ones. The last line of output is one JSON "
        "object.",
    )
    retrieval.add_argument("--corpus", type=Path, metavar="JSONL", help='rows {"_id", "title", "text"}')
    retrieval.add_argument("--queries", type=Path, metavar="JSONL", help='rows {"_id", "text"}')
    retrieval.add_argument("--qrels", type=Path, metavar="TSV", help="header query-id, corpus-id, score")
    retrieval.add_argument("--data", type=Path, metavar="DIR", help="folder with XQuAD-en's and COVID-QA's files")
    retrieval.add_argument("--set", action="append", choices=["xquad", "covidqa"], help="with --data (default: both)")
    _report(retrieval)
    _of_desk(retrieval)


def _answers(commands: Any) -> None:
    answers = commands.add_parser(
        "answers",
        help="answers from documents: the sentence quoted, the passage cited, the unanswerable refused",
        description="Asks questions over a corpus as the chat does with Documents chosen. Give your own set (--corpus, "
        "--questions), or --data for XQuAD-en, whole and with each question's own paragraph taken away for every other "
        "question. The last line of output is one JSON object.",
    )
    answers.add_argument("--corpus", type=Path, metavar="JSONL", help='rows {"_id", "title", "text"}')
    answers.add_argument(
        "--questions", type=Path, metavar="JSONL", help='rows {"question", "answerable", "passage_id", "answers"}'
    )
    answers.add_argument("--data", type=Path, metavar="DIR", help="folder with XQuAD-en's file")
    answers.add_argument("--misses", type=Path, default=None, metavar="FILE", help="write each miss as a JSON line")
    _report(answers)
    _of_desk(answers)


def _follow_ups(commands: Any) -> None:
    _of_desk(commands.add_parser("follow-ups", help="fit and measure the follow-up rule on the development turns"))


def _judge(commands: Any) -> None:
    judge = commands.add_parser("judge", help="fit the judge of sentences anew and write its weights (minutes)")
    judge.add_argument("--out", type=Path, default=None, metavar="FILE", help="instead of the one that is used")
    _of_desk(judge)


def _refusal(commands: Any) -> None:
    refusal = commands.add_parser("refusal", help="fit anew when answers are refused, on the development turns too")
    _of_desk(refusal)


def _refit(commands: Any) -> None:
    refit = commands.add_parser(
        "refit",
        help="what users' feedback would change in the router",
        description="Shows what the router would learn from thumbs, other ways asked for and preferences, and which "
        "development turns it would then route otherwise. Nothing changes without --apply.",
    )
    refit.add_argument("--least", type=_at_least_one, default=2, metavar="N", help="people who must agree (default 2)")
    which = refit.add_mutually_exclusive_group()
    which.add_argument("--apply", action="store_true", help="learn it, from the next start on")
    which.add_argument("--forget", action="store_true", help="forget all that was learned, from the next start on")
    _of_desk(refit)


def _reading(commands: Any) -> None:
    reading = commands.add_parser(
        "reading",
        help="whether a model copies facts from passages, names them, and says when they do not say",
        description="Asks a model held-out questions of passages that its training never saw: generated exercises, and "
        "written ones (evaluation/reading); with --data XQuAD-en too. The last line of output is one JSON object.",
    )
    reading.add_argument("--model", metavar="FOLDER|ID", help="the model to ask (default: the desk's own base)")
    reading.add_argument("--data", type=Path, metavar="DIR", help="folder with XQuAD-en's file")
    reading.add_argument(
        "--set",
        action="append",
        choices=["generated", "reworded", "written", "xquad"],
        help="repeatable (default: all, xquad with --data)",
    )
    reading.add_argument(
        "--count", type=_at_least_one, default=300, metavar="N", help="questions of each set (default 300)"
    )
    reading.add_argument("--misses", type=Path, default=None, metavar="FILE", help="write each miss as a JSON line")
    reading.add_argument(
        "--exercises",
        type=Path,
        metavar="FILE",
        help="ask nothing; write the questions that are not held out, to train on",
    )
    reading.add_argument("--record", action="store_true", help="write the figures into the model's folder")
    _of_desk(reading)


def _of_desk(parser: argparse.ArgumentParser) -> None:
    what = "folder with desk.yaml, whose models and settings to use (default desks/helpdesk)"
    parser.add_argument("--desk", type=Path, default=None, metavar="DIR", help=what)


def _report(parser: argparse.ArgumentParser) -> None:
    what = "write an HTML page with pictures and misses (or into a folder)"
    parser.add_argument("--report", type=Path, default=None, metavar="FILE", help=what)


def _at_least_one(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _check_routing(options: argparse.Namespace) -> str | None:
    own = [options.train, options.val, options.test]
    if (any(own) and not all(own)) or (options.data and any(own)):
        return "give --train, --val and --test, or --data alone"
    if not 0 < options.recall < 1:
        return f"--recall is {options.recall}: give a share between 0 and 1, for example 0.8"
    return None


def _check_retrieval(options: argparse.Namespace) -> str | None:
    own = [options.corpus, options.queries, options.qrels]
    wrong = (options.data is None) != all(own) or (options.data and any(own))
    return "give --corpus, --queries and --qrels, or --data alone" if wrong else None


def _check_answers(options: argparse.Namespace) -> str | None:
    own = [options.corpus, options.questions]
    wrong = (options.data is None) != all(own) or (options.data and any(own))
    return "give --corpus and --questions, or --data alone" if wrong else None


def _check_reading(options: argparse.Namespace) -> str | None:
    if "xquad" in (options.set or []) and not options.data:
        return "--set xquad needs --data, the folder with XQuAD-en's file"
    if options.record and options.set:
        return "--record is of all sets: leave out --set"
    return None


_CHECKS = {
    "routing": _check_routing,
    "retrieval": _check_retrieval,
    "answers": _check_answers,
    "reading": _check_reading,
}
