"""What tests share: the sample desk assembled once, a running server, and a browser."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from app.assembly import Switchboard
    from chains.judge import Judge
    from desk.settings import IndexSettings
    from index.library import Library

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
POSTGRES_PASSWORD = "hunter2/+%é"


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All state of the run, in a folder of its own."""
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get("SWITCHBOARD_HOME")
    os.environ["SWITCHBOARD_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SWITCHBOARD_HOME"]
    else:
        os.environ["SWITCHBOARD_HOME"] = before


class MilvusServer:
    """Milvus Lite as a server of its own, which can be stopped and started again with what it holds."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._folder = folder
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        where = ["--data-dir", str(self._folder), "--host", "127.0.0.1", "--port", str(self._port)]
        with self._folder.with_suffix(".log").open("a") as log:
            command = [sys.executable, "-m", "milvus_lite", "server", *where]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(0.05)
        pytest.fail(f"Milvus Lite did not start: {self._folder.with_suffix('.log').read_text()[-500:]}")

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        self._process.kill()
        self._process.wait(timeout=30)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A server for all tests of the run: each has collections under a prefix of its own."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus") / "data")
    yield server
    server.stop()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of our own, with a password, without its database's name.

    Skipped with the reason where there is none, unless the run requires one. The server refuses to run as root,
    so there it runs as `postgres` or `nobody`.
    """
    folder = postgres_programs()
    if folder is None:
        reason = "no PostgreSQL server on this machine: `apt-get install postgresql` runs the database tests"
        if os.environ.get("SWITCHBOARD_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    user = None if os.getuid() else next(name for name in ("postgres", "nobody") if name in _users())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not under tmp_path: the other user may not enter it.
    with tempfile.TemporaryDirectory(prefix="pg-") as scratch:
        data, password = Path(scratch, "data"), Path(scratch, "password")
        password.write_text(POSTGRES_PASSWORD)
        if user:
            for path in (Path(scratch), password):
                shutil.chown(path, user)
        start = ["-w", "-t", "30", "-D", data, "-l", f"{scratch}/log"]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={scratch} -c fsync=off"
        initdb = [folder / "initdb", "-D", data, "-U", "owner", "-A", "scram-sha-256", "--pwfile", password, "-N"]
        _run_as(user, [*initdb, "-E", "UTF8", "--locale=C"])
        _run_as(user, [folder / "pg_ctl", "start", *start, "-o", options])
        try:
            quoted = "hunter2%2F%2B%25%C3%A9"
            yield f"postgresql://owner:{quoted}@127.0.0.1:{port}/"
        finally:
            _run_as(user, [folder / "pg_ctl", "stop", "-m", "immediate", "-D", data])


def _users() -> set[str]:
    return {entry.pw_name for entry in pwd.getpwall()}


def _run_as(user: str | None, command: list[object]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.fixture
def settings(tmp_path: Path) -> "IndexSettings":
    """Those of a desk with one short document."""
    from desk.settings import IndexSettings

    documents = tmp_path / "desk" / "documents"
    documents.mkdir(parents=True)
    (documents / "vpn.md").write_text("# VPN\n\nOpen the harbour client.\n")
    return IndexSettings(documents, tmp_path / "state", tmp_path / "models", 60, 5, 1, 1)


@pytest.fixture
def library(settings: "IndexSettings") -> "Iterator[Library]":
    """The built library of the test's settings, embedded without a model."""
    from fakes import HashEmbedder

    from index.library import Library

    opened = Library.open(settings, HashEmbedder())
    opened.build()
    yield opened
    opened.close()


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A desk of the sample's settings, without its documents."""
    from desk.config import DEFAULT_DESK

    root = tmp_path / "mine"
    (root / "workflows").mkdir(parents=True)
    for name in ("desk.yaml", "routes.yaml", "workflows/triage.yaml"):
        shutil.copy(DEFAULT_DESK / name, root / name)
    return root


@pytest.fixture(scope="session")
def judge(state_folder: Path) -> "Judge":
    """The shipped judge of sentences."""
    from chains.judge import open_judge

    return open_judge(state_folder / "models", 2)


@pytest.fixture(scope="session")
def board(state_folder: Path) -> "Iterator[Switchboard]":
    """The sample desk, for real: its index, its base model, its adapters."""
    from app.assembly import assemble
    from desk.config import load_desk

    assembled = assemble(load_desk())
    assembled.start()
    yield assembled
    assembled.close()


@pytest.fixture(scope="session")
def address(board: "Switchboard") -> Iterator[str]:
    """The address of a server that runs the sample desk."""
    with serving(board) as where:
        yield where


@contextlib.contextmanager
def serving(board: "Switchboard") -> Iterator[str]:
    """The address of a server that runs this desk."""
    import uvicorn

    from app.server import build_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_server(board), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.started, "the server did not start within 60 s"
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A real Chromium; skipped with the reason where there is none, unless the run requires one."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "no Chromium on this machine: `apt-get install chromium` runs the browser tests"
        if os.environ.get("SWITCHBOARD_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()
