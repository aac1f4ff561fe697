"""`python -m adapters compare`: its options, and where it writes. The comparison itself is compare.py's."""

import argparse
import json
from pathlib import Path

from adapters.config import AdapterFile
from adapters.errors import DatasetError
from desk.settings import AdapterSettings

METHODS = ("lora", "qlora", "full")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("name", metavar="NAME", help="the adapter's folder in the desk")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all three")
    parser.add_argument("--steps", type=int, metavar="N", help="fewer than the recipe's (default: all of them)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the report (default comparison-NAME)")


def run_compare(settings: AdapterSettings, file: AdapterFile, options: argparse.Namespace) -> None:
    """Trains, writes report.md, report.json and comparison.png, and prints the table or the figures."""
    output = options.output or Path(f"comparison-{options.name}")
    if options.steps is not None and options.steps < 1:
        raise DatasetError(f"--steps {options.steps} trains nothing: give a number of at least 1.")
    check_output(output)
    from adapters.compare import compare
    from adapters.compare_report import FIGURES, REPORT, report, write_comparison
    from adapters.folders import replacing, writing

    with writing(output.parent), replacing(output) as folder:
        methods = tuple(dict.fromkeys(options.methods))
        found = compare(settings, options.name, file, methods, options.steps, folder / "work")
        write_comparison(folder, found)
    if options.json:
        print(json.dumps({"type": "comparison", **json.loads((output / FIGURES).read_text(encoding="utf-8"))}))
        return
    print(report(found))
    print(f"Written to {output / REPORT}.")


def check_output(output: Path) -> None:
    """Raises DatasetError for a folder that holds anything but an earlier comparison: it would be replaced."""
    known = {"report.md", "report.json", "comparison.png"}
    if output.exists() and (not output.is_dir() or not {path.name for path in output.iterdir()} <= known):
        raise DatasetError(f"{output} holds something else than a comparison: name another folder with --output.")
