"""A tracker shows the run's own curves, and says where they are; one that is not installed ends the command first."""

import json
import sys
from pathlib import Path

import pytest
from adapters_small import make_base, make_settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_adapters_new import table, tuned

from adapters.__main__ import main
from adapters.new import new_adapter, train_and_judge
from adapters.tracking import tracker_of
from desk.config import DEFAULT_DESK


def test_tensorboard_shows_the_losses_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_base(tmp_path / "base", vocab_size=560)
    settings = make_settings(tmp_path)
    new_adapter(settings, "faults", table(tmp_path / "pairs.csv"), None, None)
    manifest, verdict = train_and_judge(settings, "faults", tuned(settings, "faults", epochs=4), "tensorboard")
    assert f"To watch it train: tensorboard --logdir {tmp_path / 'tensorboard'}" in capsys.readouterr().err
    folder = (settings.trained if verdict.promoted else tmp_path / "candidates") / "faults"
    losses = json.loads((folder / "losses.json").read_text())
    events = EventAccumulator(str(tmp_path / "tensorboard" / f"faults-{manifest.version}")).Reload()
    for tag, name in (("train/loss", "training"), ("eval/loss", "validation")):
        shown = [(one.step, one.value) for one in events.Scalars(tag)]
        assert [step for step, _ in shown] == [step for step, _ in losses[name]] and len(shown) >= 4
        assert [value for _, value in shown] == pytest.approx([value for _, value in losses[name]], rel=1e-6)


@pytest.mark.parametrize("package", ["tensorboard", "trackio"])
def test_a_tracker_that_is_not_installed_ends_the_command_before_anything_is_done(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    monkeypatch.setenv("SWITCHBOARD_HOME", str(tmp_path / "var"))
    pairs = table(tmp_path / "pairs.csv")
    assert main(["train", "tracked", "--data", str(pairs), "--tracker", package]) == 1
    assert capsys.readouterr().err == (
        f"error: The tracker {package} is not installed: `python -m pip install {package}`, or leave --tracker out "
        "(curves.png is drawn without one).\n"
    )
    assert not (DEFAULT_DESK / "adapters" / "tracked").exists() and not (tmp_path / "var").exists()


def test_nobody_is_told_where_nothing_was_asked_for(tmp_path: Path) -> None:
    assert tracker_of(make_settings(tmp_path), None, "faults", 1) is None
    trackio = tracker_of(make_settings(tmp_path), "trackio", "faults", 3)
    assert trackio and trackio.run == "faults-3" and trackio.command == "trackio show --project switchboard"
