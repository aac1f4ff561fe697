"""The measuring code on small data with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.assembly import Switchboard
from chains.golden import GoldenTurn
from desk.config import load_desk
from desk.errors import DeskError
from evaluation.desk import Asked, measure_turns
from evaluation.follow_ups import measure_follow_ups
from evaluation.retrieval import FIGURES, measure_retrieval

PEARS = "Pears grow on trees in the garden.\n\nThey are picked in September, when the nights get cold. " * 3
SHIPS = "The ferry to the island sails at seven in the morning.   A ticket for it costs nine crowns on weekdays."


def squad(folder: Path) -> Path:
    def row(question: str, context: str, answer: str) -> dict[str, object]:
        return {"question": question, "answers": [{"text": answer, "answer_start": context.index(answer)}]}

    paragraphs = [
        {"context": PEARS, "qas": [row("When are pears picked?", PEARS, "September")]},
        {"context": SHIPS, "qas": [row("What does a ticket for the ferry cost?", SHIPS, "nine crowns")]},
    ]
    for name in ("xquad/xquad.en.json", "covidqa/200423_covidQA.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["xquad", "covidqa"])
def test_retrieval_is_measured_beside_its_halves(tmp_path: Path, name: str) -> None:
    questions, passages, report = measure_retrieval(squad(tmp_path), name, load_desk().index)
    assert (questions, passages) == (2, 2)
    assert set(report) == {"hybrid", "vectors", "bm25"}
    for figures in report.values():
        assert {key: one.value for key, one in figures.items()} == dict.fromkeys(FIGURES, 1.0)
        assert all(one.interval == (1.0, 1.0) and one.behind == (0.0, 0.0) for one in figures.values())


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match=r"xquad\.en\.json is missing"):
        measure_retrieval(tmp_path, "xquad", load_desk().index)


def test_ranks_count_as_they_should() -> None:
    third = np.array([False, False, True, False])
    assert FIGURES["recall@1"](third) == 0 and FIGURES["recall@5"](third) == 1
    assert FIGURES["nDCG@10"](third) == pytest.approx(0.5)
    assert FIGURES["nDCG@10"](np.array([], dtype=np.bool_)) == 0


def test_only_turns_that_need_their_history_count_as_follow_ups() -> None:
    def turn(follow_up: bool) -> Asked:
        row = {
            "id": "a",
            "question": "until when?",
            "history": [{"question": "How long?", "answer": "A week."}],
            "follow_up": follow_up,
            "route": "retrieval",
            "passages": [{"document": "a.md", "quote": "June"}],
            "facts": [["June"]],
        }
        return Asked(GoldenTurn.model_validate(row), (), None, None)

    assert measure_turns([turn(True), turn(False), turn(True)])["follow_up_fact"].total == 2


def test_the_follow_up_rule_is_fitted_on_the_desk_and_beats_words_alone(board: Switchboard) -> None:
    report = measure_follow_ups(board)
    assert report.follow_ups >= 40 and report.others > report.follow_ups
    assert report.caught > report.by_words[0] + 0.1
    assert report.mistaken < 0.1
