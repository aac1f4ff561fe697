"""`python -m adapters COMMAND`: the models' command line. `python -m adapters --help` names the commands."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.compare_options import compare_options, run_compare
from adapters.config import AdapterFile, read_adapter_file
from adapters.errors import DatasetError, EngineError, ModelError
from adapters.folders import trained_folder
from adapters.memory_options import memory_options, tell_memory
from adapters.reading_options import check_reading, pretrain_reader, reading_options
from adapters.sharing_options import SHARING, sharing_options
from adapters.tracking import check_installed
from desk.config import DEFAULT_DESK, EMBEDDED_BASE, load_desk, service_key
from desk.errors import DeskError
from desk.settings import Desk

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after one clear sentence on standard error."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    commands: dict[str, Callable[[Desk, argparse.Namespace], None]] = {
        "list": _list,
        "serve": _serve,
        "check": _check,
        "train": _train,
        "promote": _promote,
        "pretrain": _pretrain,
        "evaluate": _evaluate,
        "calibrate": _calibrate,
        "compare": lambda desk, options: run_compare(desk.adapters, _adapter_file(desk, options.name), options),
        "memory": lambda desk, options: tell_memory(options, desk.adapters.base),
        **SHARING,
    }
    try:
        commands[options.command](load_desk(options.desk), options)
    except (ModelError, DeskError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adapters", description="The models: the base and the adapters of a desk."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(
            "--desk",
            type=Path,
            default=DEFAULT_DESK,
            help="folder that holds desk.yaml (default: the sample desk)",
        )
        added.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
        return added

    command("list", "Show the base model and the desk's adapters.")
    serve = command("serve", "Serve base and adapters over HTTP, as OpenAI's chat completions.")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    serve.add_argument("--deadline", type=float, help="seconds after which an answer is cut (default: none)")
    check = command("check", "Say what is wrong with training data, and how long its rows are.")
    check.add_argument(
        "data", metavar="NAME|FILE", help="an adapter's folder in the desk, or a .jsonl, .json, .csv or .xlsx file"
    )
    train = command("train", "Train one adapter from its train.jsonl.")
    train.add_argument("name", metavar="NAME", help="the adapter's folder in the desk")
    train.add_argument("--data", type=Path, metavar="FILE", help="a new adapter's pairs: .jsonl, .json, .csv or .xlsx")
    train.add_argument("--title", help="of a new adapter, as people read it (default: its name)")
    train.add_argument("--domain", help="of a new adapter: what it is for, in a few words")
    train.add_argument("--tracker", choices=("tensorboard", "trackio"), help="shows curves live, where it is installed")
    promote = command("promote", "Let a candidate serve that its verdict kept back.")
    promote.add_argument("name", metavar="NAME")
    pretrain = command("pretrain", "Train the embedded base model from scratch on the desk's texts.")
    pretrain.add_argument("--output", type=Path, help="folder for the model (default: the embedded one's)")
    reading_options(pretrain)
    evaluate = command("evaluate", "Score an adapter on its eval.jsonl, which it never saw.")
    evaluate.add_argument("name", metavar="NAME")
    evaluate.add_argument("--no-adapter", action="store_true", help="ask the bare base instead")
    calibrate = command("calibrate", "Choose below which confidence an adapter's answers are not given.")
    calibrate.add_argument("name", metavar="NAME")
    compare_options(command("compare", "Train with LoRA, QLoRA and all weights, and say what each takes and gives."))
    memory_options(
        command("memory", "Estimate the memory that training or serving a model takes, and on how many GPUs.")
    )
    sharing_options(command)
    return parser


def _list(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.engine import Engine

    engine = Engine(desk.adapters)
    if options.json:
        print(json.dumps({"type": "base", **engine.base.model_dump(exclude={"created"})}))
        for info in engine.adapters:
            print(json.dumps({"type": "adapter", **_plain(info)}))
        for sentence in engine.failures:
            print(json.dumps({"type": "failure", "message": sentence}))
        return
    print(f"base      {engine.base.name}: {engine.base.size}. {engine.base.note}")
    for info in engine.adapters:
        print(f"adapter   {info.name} v{info.version} ({', '.join(sorted(info.capabilities))}): {info.domain}")
    for sentence in engine.failures:
        print(f"refused   {sentence}")


def _serve(desk: Desk, options: argparse.Namespace) -> None:
    import uvicorn

    from adapters.engine import Engine
    from adapters.service import build_service

    key = service_key()
    if not key and options.host not in LOOPBACK:
        raise EngineError(
            f"Whoever reaches {options.host} could use the model: put a key into SWITCHBOARD_MODELS_KEY, or leave "
            "out --host."
        )
    engine = Engine(desk.adapters)
    for sentence in engine.failures:
        print(f"refused   {sentence}", file=sys.stderr)
    service = build_service(engine, key, options.deadline)
    uvicorn.run(service, host=options.host, port=options.port, log_level="warning")


def _plain(info: Any) -> dict[str, Any]:
    return {
        "name": info.name,
        "title": info.title,
        "domain": info.domain,
        "version": info.version,
        "capabilities": sorted(info.capabilities),
    }


def _adapter_file(desk: Desk, name: str) -> AdapterFile:
    folder = desk.adapters.shipped / name
    if not folder.is_dir():
        known = sorted(path.name for path in desk.adapters.shipped.iterdir() if path.is_dir())
        raise DatasetError(f"There is no adapter folder {folder}; known: {', '.join(known) or 'none'}.")
    return read_adapter_file(folder / "adapter.yaml")


def _check(desk: Desk, options: argparse.Namespace) -> None:
    """Of an adapter its train.jsonl, beside its eval.jsonl. Raises DatasetError where rows cannot be trained on."""
    from collections import Counter

    from adapters.base import load_tokenizer
    from adapters.checks import KINDS, check_rows, statistics, without
    from adapters.config import TrainingSettings
    from adapters.dataset import MOST_TOLD
    from adapters.rows import read_rows

    folder = desk.adapters.shipped / options.data
    own = folder.is_dir()
    rows, faults = read_rows(folder / "train.jsonl" if own else Path(options.data))
    held_out, more = read_rows(folder / "eval.jsonl") if own and (folder / "eval.jsonl").is_file() else ([], [])
    faults += more
    training = _adapter_file(desk, options.data).training if own else TrainingSettings()
    faults += check_rows(rows, held_out)
    tokenizer = load_tokenizer(desk.adapters.base)
    kept, too_long = statistics(without(rows, faults), tokenizer, training.max_tokens)
    faults += too_long
    if options.json:
        for fault in faults:
            print(json.dumps({"type": "fault", **{**asdict(fault), "path": str(fault.path)}}))
        print(json.dumps({"type": "statistics", **asdict(kept)}))
    else:
        for kind, count in Counter(fault.kind for fault in faults).most_common():
            print(f"{count:6,}  {KINDS[kind]}")
            for fault in [fault for fault in faults if fault.kind == kind][:MOST_TOLD]:
                print(f"        {fault}")
        print(f"{kept.rows:6,}  rows to train on, {kept.answers:,} different answers, {kept.tokens:,} tokens")
        print(f"        {kept.median} tokens in the middle, {kept.longest} at most, {training.max_tokens} are read")
        for bound, count in kept.histogram:
            print(f"        up to {bound:6,} tokens  {'#' * max(1, round(40 * count / kept.rows))} {count:,}")
    severe = sum(fault.severe for fault in faults)
    if severe:
        raise DatasetError(f"{severe:,} rows cannot be trained on as they are: see above.")


def _train(desk: Desk, options: argparse.Namespace) -> None:
    check_installed(options.tracker)
    from adapters.new import new_adapter, train_and_judge

    if options.data:
        new_adapter(desk.adapters, options.name, options.data, options.title, options.domain)
    file = _adapter_file(desk, options.name)
    manifest, verdict = train_and_judge(desk.adapters, options.name, file, options.tracker)
    folder = trained_folder(desk.adapters, options.name, promoted=verdict.promoted)
    if options.json:
        told = {"promoted": verdict.promoted, "reason": verdict.reason, "folder": str(folder)}
        scores = {name: asdict(score) for name, score in verdict.scores.items()}
        print(json.dumps({"type": "trained", **told, "scores": scores, **manifest.model_dump(exclude={"scores"})}))
        return
    state = "promoted: it serves from now on" if verdict.promoted else "kept as a candidate"
    print(f"{options.name} version {manifest.version} is {state}. {verdict.reason}")
    print(f"Report, curves and card are in {folder}.")
    if not verdict.promoted:
        print(f"`python -m adapters promote {options.name}` lets it serve all the same.")


def _promote(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.new import promote

    print(f"{options.name} version {promote(desk.adapters, options.name)} serves from now on.")


def _pretrain(desk: Desk, options: argparse.Namespace) -> None:
    check_reading(options)
    if options.reading:
        return pretrain_reader(desk, options)
    from adapters.tiny.build import build_base
    from adapters.tiny.pretrain import BaseRecipe

    output = options.output or EMBEDDED_BASE
    manifest = build_base(desk.root, output, BaseRecipe(), desk.adapters.threads)
    if options.json:
        print(json.dumps({"type": "pretrained", "output": str(output), **manifest.model_dump()}))
    else:
        print(f"{manifest.name}: {manifest.size} in {output}")


def _evaluate(desk: Desk, options: argparse.Namespace) -> None:
    from adapters.dataset import read_examples
    from adapters.evaluate import answer_scores, field_scores, load_adapter

    file = _adapter_file(desk, options.name)
    examples = read_examples(desk.adapters.shipped / options.name / "eval.jsonl")
    decoder = load_adapter(desk.adapters, options.name)
    if file.task == "fields" and not options.no_adapter:
        workflow = desk.chains.workflows.get(file.workflow or "")
        if workflow is None:
            raise DatasetError(f"adapter.yaml of {options.name} names no workflow of the desk.")
        choices = {name: field.choices for name, field in workflow.fields.items()}
        scores = field_scores(decoder, options.name, examples, choices)
    else:
        adapter = None if options.no_adapter else options.name
        scores = answer_scores(decoder, adapter, examples, file.training.max_tokens)
    if options.json:
        print(json.dumps({"type": "scores", "adapter": options.name, "on": not options.no_adapter, **scores}))
        return
    for name, value in scores.items():
        print(f"{name:20} {value:.3f}" if not value.is_integer() or value <= 1 else f"{name:20} {value:.0f}")


def _calibrate(desk: Desk, options: argparse.Namespace) -> None:
    """On the validation rows of train.jsonl, which training leaves out; the level is written into the manifest."""
    from adapters.config import AdapterManifest, read_manifest, settings_of, write_manifest
    from adapters.dataset import Split, dataset_hash, read_examples
    from adapters.evaluate import calibrate, load_adapter
    from adapters.registry import MANIFEST_FILE, SPLIT_FILE, weights_folder

    if _adapter_file(desk, options.name).task != "answers":
        raise DatasetError(f"{options.name} fills fields: only adapters that answer have a confidence.")
    examples = read_examples(desk.adapters.shipped / options.name / "train.jsonl")
    decoder = load_adapter(desk.adapters, options.name)
    path = weights_folder(desk.adapters, options.name) / MANIFEST_FILE
    manifest = read_manifest(path, AdapterManifest)
    if manifest.dataset_hash != dataset_hash(examples):
        raise DatasetError(f"train.jsonl of {options.name} has changed since it was trained: train it again first.")
    training = settings_of(manifest, path)
    validation = read_manifest(path.with_name(SPLIT_FILE), Split).left_out(examples)
    found = calibrate(decoder, options.name, validation, training.max_tokens)
    write_manifest(path, manifest.model_copy(update={"least_confidence": found.level}))
    if options.json:
        print(json.dumps({"type": "calibrated", "adapter": options.name, "rows": len(validation), **asdict(found)}))
        return
    print(
        f"{options.name}: an answer needs a confidence of {found.level:.3f}; of {len(validation)} validation rows "
        f"{found.wrong_below:.0%} of the wrong answers and {found.right_below:.0%} of the right ones are below."
    )


if __name__ == "__main__":
    raise SystemExit(main())
