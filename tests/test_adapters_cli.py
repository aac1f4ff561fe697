"""The command line: names what exists, fails in one sentence, and scores the shipped adapters' fields."""

import json
import subprocess
import sys

import pytest

from adapters.__main__ import main
from adapters.base import read_base_manifest
from adapters.config import TrainingSettings, read_adapter_file
from adapters.dataset import dataset_hash, read_examples
from adapters.registry import find_adapters
from desk.config import load_desk


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_names_the_base_and_the_sample_desks_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    shown = lines(capsys)
    assert shown[0]["type"] == "base"
    assert [row["name"] for row in shown if row["type"] == "adapter"] == [
        "it-support",
        "service-desk",
        "triage",
    ]
    assert not [row for row in shown if row["type"] == "failure"]


def test_help_leaves_the_heavy_packages_alone() -> None:
    code = "import sys, adapters.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_adapter_is_one_sentence_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "pears"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: There is no adapter folder")
    assert "known: it-support, service-desk, triage" in error


def test_an_adapter_that_fills_fields_has_no_confidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "triage"]) == 1
    assert "only adapters that answer have a confidence" in capsys.readouterr().err


def test_a_missing_desk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--desk", "nowhere"]) == 1
    assert "There is no desk at" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["it-support", "service-desk", "triage"])
def test_shipped_weights_were_trained_on_the_rows_beside_them(name: str) -> None:
    desk = load_desk()
    folder = desk.adapters.shipped / name
    found, _ = find_adapters(desk.adapters.shipped, desk.adapters.trained, read_base_manifest(desk.adapters.base))
    manifest = next(one.manifest for one in found if one.manifest.name == name)
    assert manifest.dataset_hash == dataset_hash(read_examples(folder / "train.jsonl"))
    assert TrainingSettings.model_validate(manifest.settings) == read_adapter_file(folder / "adapter.yaml").training


@pytest.mark.parametrize("name", ["it-support", "service-desk", "triage"])
def test_no_held_out_question_is_among_the_training_questions(name: str) -> None:
    folder = load_desk().adapters.shipped / name
    trained = {row.prompt.lower().strip() for row in read_examples(folder / "train.jsonl")}
    assert not trained & {row.prompt.lower().strip() for row in read_examples(folder / "eval.jsonl")}
