"""What goes wrong from outside is one sentence, registers nothing, and lets the version before serve on.

Writes really fail here: by a limit to the size of a file, or on a file system of 64 KB where the system allows one.
"""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from adapters_small import edit_json, make_adapter, make_base, make_settings
from test_adapters_new import table, tuned

import adapters.train
from adapters.config import read_adapter_file
from adapters.engine import Engine, Message
from adapters.errors import AdapterError, BaseModelError, DatasetError, UnwritableError
from adapters.folders import writing
from adapters.new import new_adapter, promote, train_and_judge
from adapters.run_folder import alone
from desk.config import ROOT
from desk.settings import AdapterSettings

PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from adapters.config import read_adapter_file
from adapters.errors import ModelError
from adapters.new import train_and_judge
from adapters_small import make_settings
settings = make_settings(Path({home!r}))
try:
    train_and_judge(settings, "faults", read_adapter_file(settings.shipped / "faults" / "adapter.yaml"))
except ModelError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def settings(tmp_path: Path) -> AdapterSettings:
    """A desk with pairs for `faults`, whose version 1 serves."""
    make_base(tmp_path / "base", vocab_size=560)
    found = make_settings(tmp_path)
    new_adapter(found, "faults", table(tmp_path / "pairs.csv"), None, None)
    tuned(found, "faults", epochs=2)
    make_adapter(tmp_path / "base", found.trained / "faults", "faults", 1)
    return found


def answer(settings: AdapterSettings) -> tuple[str, int]:
    engine = Engine(settings)
    engine.start()
    try:
        assert engine.wait_ready(60)
        return "".join(engine.stream([Message("user", "the screen")], "faults")), engine.adapters[0].version
    finally:
        engine.close()


@contextmanager
def file_limit(most: int) -> Iterator[None]:
    """No file may hold more bytes than that: a write beyond fails, as Python lets its signal be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_nothing_is_left(settings: AdapterSettings, before: tuple[str, int]) -> None:
    candidates = settings.trained.with_name("candidates")
    # The run may go on from its last whole checkpoint; a half-written folder of weights may not be there.
    assert {path.name for path in candidates.iterdir()} <= {".faults-run"}
    assert [path.name for path in settings.trained.iterdir()] == ["faults"]
    assert answer(settings) == before and before[1] == 1


@pytest.mark.parametrize(("most", "file"), [(10_000, "weights"), (25_000, "optimizer"), (5_000, "result")])
def test_what_cannot_be_written_is_one_sentence_and_the_version_before_serves_on(
    settings: AdapterSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],  # keeps what is printed out of files
    most: int,
    file: str,
) -> None:
    """A checkpoint's weights are 14,808 bytes, its optimizer 39,551; of the result 8,384."""
    before = answer(settings)
    with ExitStack() as stack:

        def late(*given: object) -> float:
            """The last before the result is written."""
            stack.enter_context(file_limit(most))
            return 0.0

        if file == "result":
            monkeypatch.setattr(adapters.train, "exact_share", late)
        else:
            stack.enter_context(file_limit(most))
        with pytest.raises(UnwritableError) as raised:
            train_and_judge(settings, "faults", read_adapter_file(settings.shipped / "faults" / "adapter.yaml"))
    reason = "the disk took a part only" if file == "optimizer" else "File too large"
    candidates = settings.trained.with_name("candidates")
    rest = "make space or check the rights, and run the command again."
    assert str(raised.value) == f"{candidates} cannot be written ({reason}): {rest}"
    check_nothing_is_left(settings, before)


def test_a_disk_without_space_is_one_sentence(settings: AdapterSettings, tmp_path: Path) -> None:
    candidates = settings.trained.with_name("candidates")
    candidates.mkdir()
    small = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", small, str(candidates)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    program = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"), home=str(tmp_path))
    before = answer(settings)
    done = subprocess.run([*command, sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"UnwritableError {candidates} cannot be written (No space left on device): make space"
    )
    check_nothing_is_left(settings, before)


def test_a_promotion_that_cannot_be_written_keeps_both_versions(settings: AdapterSettings) -> None:
    before = answer(settings)
    candidate = settings.trained.with_name("candidates") / "faults"
    make_adapter(Path(settings.base), candidate, "faults", 2, version=2)
    with file_limit(5_000), pytest.raises(UnwritableError, match=r"trained cannot be written \(File too large\)"):
        promote(settings, "faults")
    assert [path.name for path in settings.trained.iterdir()] == ["faults"]
    assert answer(settings) == before
    assert promote(settings, "faults") == 2
    assert answer(settings)[1] == 2


def test_a_second_run_of_an_adapter_does_not_begin(settings: AdapterSettings) -> None:
    candidate = settings.trained.with_name("candidates") / "faults"
    file = read_adapter_file(settings.shipped / "faults" / "adapter.yaml")
    with alone(candidate):
        for begin in (lambda: train_and_judge(settings, "faults", file), lambda: promote(settings, "faults")):
            with pytest.raises(DatasetError, match="faults is being trained already: wait for it, or stop it first"):
                begin()
    assert list(candidate.parent.iterdir()) == []
    with alone(candidate), alone(candidate.with_name("others")):
        pass  # another adapter is trained beside it


def test_a_base_of_another_family_is_one_sentence(settings: AdapterSettings, tmp_path: Path) -> None:
    before = answer(settings)
    other = tmp_path / "llama"
    shutil.copytree(settings.base, other)
    (other / "base.json").unlink()
    file = read_adapter_file(settings.shipped / "faults" / "adapter.yaml")
    for family in ("llama", "no-such-family", None):
        edit_json(other / "config.json", model_type=family)
        with pytest.raises(BaseModelError, match=f"llama is a {family} model: the base must be of the Phi-3 family"):
            train_and_judge(replace(settings, base=str(other)), "faults", file)
    (other / "config.json").write_text("[]")
    with pytest.raises(BaseModelError, match="it holds no object"):
        train_and_judge(replace(settings, base=str(other)), "faults", file)
    check_nothing_is_left(settings, before)


def test_only_failed_writes_become_that_sentence(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("inline")
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "absent").read_text()
    with pytest.raises(UnwritableError, match="No space left on device"), writing(tmp_path):
        Path("/dev/full").write_text("x")


def test_the_sentence_names_the_file_that_the_system_names(tmp_path: Path) -> None:
    rest = "make space or check the rights, and run the command again."
    (tmp_path / "file").write_text("")
    (tmp_path / "out").mkdir()
    inside = tmp_path / "out" / "folder"
    inside.mkdir()
    with pytest.raises(UnwritableError) as caught, writing(tmp_path / "out"):
        inside.write_text("x")
    assert str(caught.value) == f"{inside} cannot be written (Is a directory): {rest}"
    with pytest.raises(UnwritableError) as caught, writing(tmp_path / "file" / "out"):
        (tmp_path / "file").mkdir()
    assert str(caught.value) == f"{tmp_path / 'file'} cannot be written (File exists): {rest}"
    with pytest.raises(UnwritableError) as caught, writing(tmp_path / "out"):
        tmp_path.read_text()
    assert str(caught.value) == f"{tmp_path} cannot be written (Is a directory): {rest}"
    with pytest.raises(UnwritableError) as caught, writing(tmp_path / "out"):
        (tmp_path / "file").rename(inside)
    assert str(caught.value) == f"{inside} cannot be written (Is a directory): {rest}"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UnwritableError) as caught, writing(tmp_path / "out"):
        (tmp_path / "elsewhere").read_text()
    assert str(caught.value) == f"{tmp_path / 'elsewhere'} cannot be read or written (Is a directory): {rest}"


def test_what_is_a_sentence_already_stays_as_it_is(tmp_path: Path) -> None:
    told = AdapterError("split.json is not readable JSON: [Errno 13] Permission denied: 'split.json'")
    with pytest.raises(AdapterError) as caught, writing(tmp_path):
        raise told
    assert caught.value is told


def test_rows_that_cannot_be_read_are_not_blamed_on_the_candidates(settings: AdapterSettings) -> None:
    rows = settings.shipped / "faults" / "train.jsonl"
    file = read_adapter_file(settings.shipped / "faults" / "adapter.yaml")
    rows.unlink()
    rows.symlink_to("/proc/self/mem")  # reading its beginning fails, also for who may read everything
    with pytest.raises(DatasetError) as caught:
        train_and_judge(settings, "faults", file)
    assert str(caught.value) == f"{rows} cannot be read (Input/output error): check who may read it."
