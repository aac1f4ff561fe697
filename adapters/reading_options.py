"""`python -m adapters pretrain --reading`: its options, and what it does. The training itself is tiny/reading.py's."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from adapters.errors import DatasetError
from desk.settings import Desk


def reading_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of --reading to pretrain's parser."""
    parser.add_argument(
        "--reading", action="store_true", help="instead train a model that reads passages (needs --output)"
    )
    parser.add_argument(
        "--exercises", type=Path, metavar="FILE", help="with --reading: written exercises for its last part (JSONL)"
    )
    parser.add_argument("--steps", type=_steps, metavar="N", help="with --reading: instead of the recipe's")


def check_reading(options: argparse.Namespace) -> None:
    """Raises DatasetError where --reading's own options are given without it: the embedded base would be retrained."""
    given = [name for name, value in (("--exercises", options.exercises), ("--steps", options.steps)) if value]
    if given and not options.reading:
        raise DatasetError(f"{' and '.join(given)} would do nothing without --reading: add it, or leave them out.")


def pretrain_reader(desk: Desk, options: argparse.Namespace) -> None:
    """Trains by the recipe for a GPU where there is one. Raises DatasetError without --output or for bad exercises."""
    import torch

    from adapters.tiny.reading import ON_GPU, ReadingRecipe
    from adapters.tiny.reading_build import build_reader
    from adapters.tiny.written import read_written

    if options.output is None:
        raise DatasetError("A model that reads has no place of its own yet: name a folder with --output.")
    written = read_written(options.exercises) if options.exercises else []
    recipe = ON_GPU if torch.cuda.is_available() else ReadingRecipe()
    if options.steps:
        recipe = replace(recipe, steps=options.steps)
    manifest = build_reader(desk.root, options.output, recipe, written, desk.adapters.threads)
    if options.json:
        print(json.dumps({"type": "pretrained", "output": str(options.output), **manifest.model_dump()}))
    else:
        print(f"{manifest.name}: {manifest.size} in {options.output}")


def _steps(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
