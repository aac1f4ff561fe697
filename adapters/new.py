"""From a file of pairs to an adapter that serves: one command, and a verdict at its end."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from adapters.base import Quantization, chosen_kind, load_base
from adapters.checks import check_rows, without
from adapters.config import NAME_PATTERN, AdapterFile, AdapterManifest, TrainingSettings, read_manifest
from adapters.dataset import Example, Split, read_examples, split, told
from adapters.decode import Decoder
from adapters.errors import AdapterError, DatasetError
from adapters.folders import replacing, trained_folder, writing
from adapters.registry import MANIFEST_FILE, weights_folder
from adapters.report import write_report
from adapters.rows import Placed, as_lines, from_line, read_rows
from adapters.run_folder import alone
from adapters.tracking import Package, tracker_of
from adapters.train import next_version, train_adapter
from adapters.verdict import Verdict, judge, split_of
from desk.settings import AdapterSettings

STEPS, MOST_EPOCHS = 300, 60
"""A small set is gone through so often that the recipe takes about so many steps: of 20 ready answers with ten
questions each, 48 steps taught none (docs/log.md)."""
HELD_OUT = 0.15
"""Of a small set; it has to leave enough rows for a verdict."""
LEAST_ROWS = 20
"""With fewer there is nothing to hold out, and nothing to learn that an example in the prompt would not do."""


def new_adapter(settings: AdapterSettings, name: str, data: Path, title: str | None, domain: str | None) -> None:
    """Writes the desk's folder of an adapter: its pairs, checked, and adapter.yaml. Raises DatasetError."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise DatasetError(f"The name {name!r} is not allowed: use small letters, digits, - and _.")
    folder = settings.shipped / name
    placed, faults = read_rows(data)
    faults += check_rows(placed)
    if severe := [fault for fault in faults if fault.severe]:
        raise DatasetError(told(severe))
    different = [one.row for one in without(placed, faults)]
    if len(different) < LEAST_ROWS:
        raise DatasetError(
            f"{data} holds {len(different)} different pairs, and an adapter needs {LEAST_ROWS}: write more."
        )
    lines = as_lines(different)
    rows = [row for line in lines for row in from_line(line)]
    if (folder / "train.jsonl").is_file():
        if read_examples(folder / "train.jsonl") == rows:
            return
        raise DatasetError(f"{folder} holds other pairs already: add yours to its train.jsonl, or choose another name.")
    if folder.is_dir():
        raise DatasetError(
            f"{folder} is there already, without a train.jsonl: put your pairs there under that name and leave out "
            "--data, --title and --domain, or choose another name."
        )
    plain = TrainingSettings()
    epochs = min(MOST_EPOCHS, max(plain.epochs, round(STEPS * plain.batch_size / len(rows))))
    words: dict[str, object] = {"title": title or name, "domain": domain or title or name}
    words["training"] = {"epochs": epochs, "validation": HELD_OUT if len(rows) < 1000 else plain.validation}
    AdapterFile.model_validate(words)
    with replacing(folder) as scratch:
        (scratch / "train.jsonl").write_text("".join(lines), encoding="utf-8")
        text = yaml.safe_dump(words, allow_unicode=True, sort_keys=False)
        (scratch / "adapter.yaml").write_text(text, encoding="utf-8")


def desk_rows(folder: Path, file: AdapterFile, before: Split | None = None) -> tuple[list[Example], list[Example]]:
    """(rows to train on, rows to measure with) of a desk's adapter, checked; `before` is the split of the version that
    serves. Raises DatasetError."""
    placed, faults = read_rows(folder / "train.jsonl")
    held_out, more = read_rows(folder / "eval.jsonl") if (folder / "eval.jsonl").is_file() else ([], [])
    faults += [*more, *check_rows(placed, held_out)]
    if severe := [fault for fault in faults if fault.severe]:
        raise DatasetError(told(severe))
    examples = [one.row for one in placed]
    return examples, _held_out(examples, held_out, file, before)


def train_and_judge(
    settings: AdapterSettings, name: str, file: AdapterFile, package: Package | None = None
) -> tuple[AdapterManifest, Verdict]:
    """Trains the adapter of a desk's folder, and lets it serve if it beats the base and the version before.

    Raises ModelError; the version before then serves on, whatever went wrong.
    """
    candidate = trained_folder(settings, name, promoted=False)
    serving = weights_folder(settings, name)
    before = split_of(serving)
    examples, rows = desk_rows(settings.shipped / name, file, before)
    with writing(candidate.parent), alone(candidate):
        kind = "nf4" if file.training.method == "qlora" else settings.quantization
        base = load_base(settings.base, kind, settings.cache)
        note = served_otherwise(file.training.method, settings.quantization, base.model.config)
        version = next_version(name, settings)
        if tracker := tracker_of(settings, package, name, version):
            print(f"To watch it train: {tracker.command}", file=sys.stderr)
        manifest = train_adapter(
            name,
            file,
            examples,
            base,
            candidate,
            version=version,
            threads=settings.threads,
            tracker=tracker,
            before=before,
        )
        del base
        torch.set_num_threads(settings.threads)
        decoder = Decoder(load_base(settings.base, kind, settings.cache))
        verdict = judge(candidate, serving, rows, examples, decoder, file.training.max_tokens)
        write_report(candidate, manifest, verdict, note)
        if note:
            print(note, file=sys.stderr)
        if verdict.promoted:
            _let_serve(settings, name)
        return manifest, verdict


def served_otherwise(method: str, quantization: Quantization, config: Any) -> str:
    """A sentence where an adapter that `method` trained is served on other weights than it was judged on; else empty.

    `quantization` is that of the desk, `config` the base's.
    """
    served = chosen_kind(quantization, config)
    if method != "qlora" or served == "nf4":
        return ""
    return (
        f"It was trained and judged on nf4; the app serves in {served}: set models.quantization to nf4 in desk.yaml to "
        "serve what was judged."
    )


def promote(settings: AdapterSettings, name: str) -> int:
    """Lets a candidate serve; its version. A running app takes it up by itself. Raises ModelError."""
    candidate = trained_folder(settings, name, promoted=False)
    with writing(settings.trained), alone(candidate):
        return _let_serve(settings, name)


def _let_serve(settings: AdapterSettings, name: str) -> int:
    candidate = trained_folder(settings, name, promoted=False)
    if not (candidate / MANIFEST_FILE).is_file():
        raise AdapterError(f"There is no candidate of {name}: `python -m adapters train {name}` makes one.")
    manifest = read_manifest(candidate / MANIFEST_FILE, AdapterManifest)
    output = trained_folder(settings, name, promoted=True)
    with replacing(output) as scratch:
        shutil.copytree(candidate, scratch, dirs_exist_ok=True)
    shutil.rmtree(candidate)
    return manifest.version


def _held_out(
    examples: list[Example], held_out: list[Placed], file: AdapterFile, before: Split | None
) -> list[Example]:
    """The evaluation rows; where there are none, the rows that training will leave out."""
    rows = [one.row for one in held_out] or split(examples, file.training.validation, file.training.seed, before)[1]
    if not rows:
        raise DatasetError(
            "No row is held out, so nothing could say whether the adapter is any good: raise training.validation in "
            "adapter.yaml, write several questions for each answer, or add an eval.jsonl."
        )
    return rows
