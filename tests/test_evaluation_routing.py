"""`python -m evaluation routing` on small sets with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from desk.errors import DeskError
from desk.settings import IndexSettings
from evaluation.__main__ import main
from evaluation.calibration import calibration_error
from evaluation.routing import (
    Labelled,
    measure,
    measure_files,
    read_labelled,
    rotate,
    rotation,
)
from tests.fakes import HashEmbedder

WORDS = {
    "printer": ["printer", "paper", "toner", "jam", "tray", "print"],
    "mail": ["mail", "inbox", "outlook", "attachment", "sender", "calendar"],
    "vpn": ["vpn", "tunnel", "remote", "gateway", "client", "network"],
    "leave": ["leave", "holiday", "vacation", "days", "absence", "balance"],
    "badge": ["badge", "door", "access", "card", "gate", "lost"],
    "payroll": ["salary", "payslip", "bonus", "tax", "bank", "month"],
}
STRANGE = ["soup", "football", "poem", "weather", "joke", "moon"]
KEYS = {
    *("in_scope_accuracy", "accuracy_without_rejection", "oos_recall", "oos_precision", "auroc", "macro_f1", "ece"),
    *("decision_ms", "fit_s", "joint_accuracy"),
}


def rows(seed: int, each: int, strays: int) -> list[dict[str, str]]:
    chance = np.random.default_rng(seed)
    made = [
        {"text": " ".join(chance.choice(words, 3)), "label": label}
        for label, words in WORDS.items()
        for _ in range(each)
    ]
    return made + [{"text": " ".join(chance.choice(STRANGE, 3)), "label": "none"} for _ in range(strays)]


def write(path: Path, made: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def labelled(made: list[dict[str, str]]) -> Labelled:
    texts = tuple(row["text"] for row in made)
    return Labelled(texts, HashEmbedder().embed(texts), tuple(row["label"] for row in made))


@pytest.mark.parametrize("strays", [0, 40])
def test_labels_are_told_apart_and_strangers_rejected(tmp_path: Path, settings: IndexSettings, strays: int) -> None:
    """With known strays and with whole labels left out in their place."""
    files = (
        write(tmp_path / "t.jsonl", rows(0, 40, strays)),
        write(tmp_path / "v.jsonl", rows(1, 10, 0)),
        write(tmp_path / "s.jsonl", rows(2, 20, 40)),
    )
    figures, decided = measure_files(files, settings, 0.9, HashEmbedder())
    assert figures.accuracy_without_rejection > 0.95 and figures.auroc > 0.95
    assert figures.oos_recall > 0.8 and figures.in_scope_accuracy > 0.8
    assert set(figures.to_json()) == KEYS
    assert figures.joint_accuracy == pytest.approx((decided.given == decided.gold).mean())


def test_figures_are_those_of_their_definitions() -> None:
    known, test = labelled(rows(0, 30, 0)), labelled(rows(3, 15, 30))
    figures, decided = measure(known, test, 0.8)
    inside = decided.gold != "none"
    rejected = decided.given == "none"
    assert figures.oos_recall == pytest.approx((rejected & ~inside).sum() / (~inside).sum())
    assert figures.oos_precision == pytest.approx((rejected & ~inside).sum() / rejected.sum())
    assert figures.in_scope_accuracy == pytest.approx(((decided.given == decided.gold) & inside).sum() / inside.sum())
    pairs = [(a > b) + 0.5 * (a == b) for a in decided.in_scope[inside] for b in decided.in_scope[~inside]]
    assert figures.auroc == pytest.approx(np.mean(pairs))


def test_without_strays_in_the_test_there_is_nothing_to_say_of_them() -> None:
    figures = measure(labelled(rows(0, 30, 0)), labelled(rows(3, 5, 0)), 0.8)[0].to_json()
    assert figures["oos_recall"] is None and figures["auroc"] is None
    assert json.loads(json.dumps(figures)) == figures


def test_calibration_error_is_the_weighted_gap_of_each_bin() -> None:
    confidence, right = np.array([0.9, 0.9, 0.9, 0.9, 0.5]), np.array([True, True, True, False, True])
    assert calibration_error(confidence, right) == pytest.approx(0.8 * 0.15 + 0.2 * 0.5)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_rotations_hold_out_every_label_once() -> None:
    labels = [f"label {number}" for number in range(77)]
    parts = rotate(labels)
    assert sorted(one for part in parts for one in part) == sorted(labels)
    train, test = rotation(labelled(rows(0, 2, 0)), labelled(rows(1, 2, 0)), frozenset({"mail"}))
    assert set(train.labels) == WORDS.keys() - {"mail"}
    assert set(test.labels) == (WORDS.keys() - {"mail"}) | {"none"} and len(test.labels) == len(WORDS) * 2


def test_a_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n\n{"text": "a"}\n')
    with pytest.raises(DeskError, match=r"rows\.jsonl, line 3"):
        read_labelled(path)
    with pytest.raises(DeskError, match="is missing"):
        read_labelled(tmp_path / "absent.jsonl")


def test_one_label_alone_is_refused() -> None:
    only = [row for row in rows(0, 3, 3) if row["label"] in ("mail", "none")]
    with pytest.raises(DeskError, match="fewer than two labels"):
        measure(labelled(only), labelled(only), 0.8)


def test_files_and_data_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--train", "a"], ["--data", "d", "--test", "c"], ["--data", "d", "--recall", "1.5"]):
        with pytest.raises(SystemExit):
            main(["routing", *wrong])
    assert "give --train, --val and --test, or --data alone" in capsys.readouterr().err
