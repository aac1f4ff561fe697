"""The whole making of a model that reads: texts -> tokenizer -> weights -> a folder that appears when complete."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from adapters.base import count_weights
from adapters.config import BaseManifest, write_manifest
from adapters.folders import replacing
from adapters.reader import NOT_SAID, READER, asked, shown_passage
from adapters.tiny.build import save_weights
from adapters.tiny.corpus import Corpus, read_corpus
from adapters.tiny.exercises import Exercise, new_exercise
from adapters.tiny.reading import Progress, ReadingRecipe, train_reader
from adapters.tiny.tokenizer import train_tokenizer
from adapters.tiny.written import WrittenExercise, drawn_exercise

REPORT_EVERY = 100
TOKENIZER_EXERCISES = 3000
WRITTEN_TIMES = 3
"""The tokenizer sees so many generated exercises, and every written one about so many times."""
NOTE = (
    "A small model of Phi-3's architecture, trained from scratch on generated exercises and this project's own texts "
    "to copy a fact from passages and name its passage. It knows nothing else and cannot chat."
)
CARD = """# {name}

A model of Phi-3's architecture with {parameters:,} weights (bf16), trained from scratch by
`python -m adapters pretrain --reading`. It is shown passages and a question, and replies with a value copied from
one of them and that passage's code, or that the documents do not say.

## Data

Generated exercises over invented names and figures (`adapters/tiny/relations.yaml`, `words.yaml`, `exercises.py`),
the desk's own texts for the tokenizer, and {written:,} written exercises of this project ({questions:,} questions).
No public data set.

## Recipe

{steps:,} steps, {tokens:,} ids, {seconds:,.0f} seconds on {device}. The rest is in base.json under `created`.
At the end of training, on the exercises of the last {every} steps as they came, none seen before: {shares}.

## What it can and cannot do

{note}
Answers are single values: it neither sums up nor reasons. base.json says with `can_read` whether it may answer in
the chat; that is set by measured figures alone.

## Figures

Not measured yet: `python -m evaluation reading --model FOLDER --record` measures it and writes them here.
"""


def build_reader(
    desk: Path, output: Path, recipe: ReadingRecipe, written: Sequence[WrittenExercise], threads: int
) -> BaseManifest:
    """Trains a reader with the desk in folder `desk` and writes model, tokenizer, base.json and README.md to `output`.

    Standard error is told every REPORT_EVERY steps how it goes, a JSON object a line. Raises DatasetError when the desk
    has no corpus.
    """
    import torch

    torch.set_num_threads(threads)
    corpus = read_corpus(desk)
    tokenizer = train_tokenizer(tokenizer_texts(corpus, recipe, written), recipe.vocab_size, lines_apart=True)
    made: dict[str, Any] = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor"}

    def report(step: int, tokens: int, seconds: float, progress: Progress) -> None:
        if step % REPORT_EVERY and step != recipe.steps:
            return
        shares = {name: round(value, 3) for name, value in progress.shares().items()}
        made.update(steps=step, tokens=tokens, seconds=round(seconds), shares=shares)
        told = {"step": step, "tokens": tokens, "seconds": round(seconds), "shares": shares}
        print(json.dumps(told), file=sys.stderr, flush=True)
        progress.clear()

    model = train_reader(tokenizer, recipe, written, report)
    return save_reader(output, model, tokenizer, recipe, written, {"corpus_hash": corpus.fingerprint, **made})


def tokenizer_texts(corpus: Corpus, recipe: ReadingRecipe, written: Sequence[WrittenExercise]) -> list[str]:
    """The corpus, and exercises as the model is shown them."""
    chance = Random(recipe.seed)  # noqa: S311
    exercises = [new_exercise(recipe.stages[-1].level, chance) for _ in range(TOKENIZER_EXERCISES)]
    exercises += [drawn_exercise(written, chance) for _ in range(WRITTEN_TIMES * len(written))]
    return [*corpus.texts, READER, NOT_SAID, *(text for one in exercises for text in _texts(one))]


def _texts(exercise: Exercise) -> Iterator[str]:
    yield "\n\n".join(shown_passage(one.code, one.title, "", one.text) for one in exercise.passages)
    yield from (asked(one.question) for one in exercise.asked)


def save_reader(
    output: Path,
    model: Any,
    tokenizer: Any,
    recipe: ReadingRecipe,
    written: Sequence[WrittenExercise],
    made: dict[str, Any],
) -> BaseManifest:
    """Writes the model in bf16; the folder `output` is replaced only when everything is written.

    `made`: `steps`, `tokens`, `seconds`, `device` and `shares` of the training, and what else base.json is to tell.
    """
    with replacing(output) as scratch:
        shape, weights = save_weights(scratch, model, tokenizer)
        manifest = BaseManifest(
            name="switchboard-reader",
            parameters=count_weights(model),
            can_chat=False,
            can_read=False,
            window=recipe.window,
            config_hash=shape,
            weights_hash=weights,
            note=NOTE,
            created={**asdict(recipe), **made},
        )
        write_manifest(scratch / "base.json", manifest)
        card = CARD.format(
            name=manifest.name,
            parameters=manifest.parameters,
            written=len(written),
            questions=sum(len(one.asked) for one in written),
            note=NOTE,
            every=REPORT_EVERY,
            **{**made, "shares": ", ".join(f"{name} {value}" for name, value in made["shares"].items())},
        )
        (scratch / "README.md").write_text(card, encoding="utf-8")
        return manifest
