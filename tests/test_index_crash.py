"""A library that is killed in the middle of anything has every committed document, none by halves, and can go on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from desk.config import ROOT

PROGRAM = ROOT / "tests" / "crash_library.py"
OPERATIONS = ("build", "add", "remove", "embed_anew", "restore", "back_up")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "TOKENIZERS_PARALLELISM": "false",
}


def program(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to copy, whose desk has changed since it was built."""
    folder = tmp_path_factory.mktemp("crash") / "template"
    program("prepare", folder)
    return folder


def assert_nothing_is_lost(operation: str, stride: int, template: Path) -> int:
    """Kills the operation before every `stride`-th of the lines that it runs; how often it was killed."""
    *lines, last = program("steps", operation, stride, template).stdout.splitlines()
    assert [line for line in lines if not line.startswith("[")] == [], "\n".join(lines)
    return int(last.split()[1])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_some_lines_loses_nothing(operation: str, template: Path) -> None:
    assert assert_nothing_is_lost(operation, 71, template) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_any_line_loses_nothing(operation: str, template: Path) -> None:
    assert assert_nothing_is_lost(operation, 1, template) >= 200


def killed_after(delay_s: float, operation: str, folder: Path) -> bool:
    """Starts the operation and kills it from outside after a while; whether it was still at work."""
    command = [sys.executable, str(PROGRAM), "run", operation, str(folder)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
    return child.returncode == -signal.SIGKILL


def random_kills(template: Path, times: int, seed: int) -> int:
    """Kills operations at random moments, inside the libraries' own code too; how often one was still at work."""
    moments = random.Random(seed)
    caught = 0
    for turn in range(times):
        operation = moments.choice(OPERATIONS)
        folder = template.with_name(f"random-{turn}")
        shutil.copytree(template, folder)
        caught += killed_after(moments.uniform(0.0, 0.35), operation, folder)
        wrong = program("check", operation, folder).stdout.strip()
        assert wrong == "", f"{operation}, turn {turn} of seed {seed}: {wrong}"
        shutil.rmtree(folder)
    return caught


def test_a_kill_at_a_random_moment_loses_nothing(template: Path) -> None:
    assert random_kills(template, times=4, seed=7) >= 1


@pytest.mark.slow
def test_forty_kills_at_random_moments_lose_nothing(template: Path) -> None:
    assert random_kills(template, times=40, seed=20261125) >= 20
