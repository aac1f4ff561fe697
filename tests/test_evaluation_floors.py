"""A figure fails when it lies beyond its floor by more than its interval, and not before."""

from pathlib import Path

import pytest

from desk.errors import DeskError
from evaluation.floors import Floors, lost, read_floors
from evaluation.share import Share

REPORT = {"turns": {"route": Share(80, 100), "answerable_refused": Share(10, 100)}}


def floors(**figures: float) -> Floors:
    return Floors(recorded="today", parts={"turns": figures})


def test_a_figure_within_its_interval_of_the_floor_is_not_lost() -> None:
    low, high = REPORT["turns"]["route"].interval
    assert lost(REPORT, floors(route=0.7)) == lost(REPORT, floors(route=high - 0.001)) == []
    assert "route is 80.0%" in lost(REPORT, floors(route=high + 0.001))[0]
    assert low < 0.8 < high


def test_of_what_should_be_small_more_is_worse() -> None:
    low, _ = REPORT["turns"]["answerable_refused"].interval
    assert lost(REPORT, floors(answerable_refused=low + 0.001)) == []
    assert "above" in lost(REPORT, floors(answerable_refused=low - 0.001))[0]


def test_a_figure_that_is_not_measured_any_more_is_lost() -> None:
    assert "was not measured" in lost(REPORT, floors(gone=0.5))[0]
    assert "was not measured" in lost({"turns": {"route": Share(0, 0)}}, floors(route=0.5))[0]


def test_floors_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match="cannot be read"):
        read_floors(tmp_path / "floors.json")
    (tmp_path / "floors.json").write_text('{"parts": 3}', encoding="utf-8")
    with pytest.raises(DeskError, match="holds no floors"):
        read_floors(tmp_path / "floors.json")


def test_the_sample_desk_has_floors_under_figures_that_are_measured() -> None:
    recorded = read_floors(Path("desks/helpdesk/evaluation/floors.json"))
    assert set(recorded.parts) == {"turns"} and recorded.parts["turns"]
    assert all(0 < floor < 1 for floor in recorded.parts["turns"].values())
