"""The text files of a Git repository at the head of a branch: a folder on this machine, or an https address.

Objects are read from the repository itself. Nothing is checked out, so no hook, filter or link of the repository
does anything; submodules are not fetched. The git of this machine is used, without its owner's settings.
"""

import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from desk.config import secret
from desk.connectors import GitFile
from index.connectors.addresses import resolve
from index.connectors.folder import file_address, is_chosen
from index.connectors.items import ConnectorError, Event, Failed, Found, Source
from index.stated import readable_title

_SUFFIXES = {
    ".md": ".md",
    ".markdown": ".md",
    ".html": ".html",
    ".htm": ".html",
    ".csv": ".csv",
    ".txt": ".txt",
    ".text": ".txt",
    ".rst": ".txt",
    ".adoc": ".txt",
    ".asciidoc": ".txt",
    ".org": ".txt",
}
"""What counts as text, and as what it is stored. Markup that no reader knows is read as plain text."""
_PLAIN_FILE = (b"100644", b"100755")
"""Modes of files: links (120000) and submodules (160000) are left out."""
_MOST_ENTRIES = 1_000_000
"""Files of a branch, read or not. The largest public repositories have half a million."""
_PIECE = 65_536
_PRINTED = 1_000_000
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")
_HEAD = "refs/heads/mirror"
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_repository(connector: GitFile, cache: Path, until: float) -> Iterator[Event]:
    """The text files of the branch. A remote repository is kept in `cache`, its latest commit alone.

    Raises ConnectorError if there is no git, no such repository or no such branch.
    """
    if shutil.which("git") is None:
        raise ConnectorError("there is no git on this machine: install it (on Debian: apt-get install git)")
    if "://" in connector.repository:
        _fetch(connector, cache, until)
        folder, settings, branch = cache, dict[str, str](), _HEAD
    else:
        outer = Path(connector.repository)
        folder = outer / ".git" if (outer / ".git").exists() else outer
        if not folder.exists():
            raise ConnectorError(f"there is no repository at {outer}: check repository")
        # The owner of the desk names it, which is what git asks for where someone else owns the files.
        settings, branch = {"safe.directory": "*"}, connector.branch
    git = _Git(folder, settings, _left_s(until))
    commit = _run(git, ["rev-parse", "--verify", "--end-of-options", f"{branch}^{{commit}}"]).decode().strip()
    yield from _files(connector, git, commit)


@dataclass(frozen=True, slots=True)
class _Git:
    """A repository and the settings that git is run with: kept out of the command line, which others can see."""

    folder: Path
    settings: Mapping[str, str] = field(repr=False)
    timeout_s: float
    protocol: str = "none"

    def environment(self) -> dict[str, str]:
        settings = {"core.hooksPath": "/dev/null", "credential.helper": "", "core.fsmonitor": "false", **self.settings}
        numbered = {}
        for number, (key, value) in enumerate(settings.items()):
            numbered[f"GIT_CONFIG_KEY_{number}"] = key
            numbered[f"GIT_CONFIG_VALUE_{number}"] = value
        return {
            "PATH": f"{Path(shutil.which('git') or 'git').parent}:{os.defpath}",
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_DIR": str(self.folder),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_ALLOW_PROTOCOL": self.protocol,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            **numbered,
        }


def _left_s(until: float) -> float:
    return max(1.0, until - time.monotonic())


def _fetch(connector: GitFile, cache: Path, until: float) -> None:
    """Brings the copy of a remote repository up to its branch."""
    settings = _network(connector) | _authorization(connector)
    git = _Git(cache, settings, _left_s(until), "https")
    if not (cache / "HEAD").is_file():
        shutil.rmtree(cache, ignore_errors=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        _run(git, ["init", "--quiet", "--bare", "--template=", str(cache)])
    # Nobody else is at it: a lock is what a run left that was killed.
    for lock in cache.rglob("*.lock"):
        lock.unlink(missing_ok=True)
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph"]
    _run(git, [*fetch, "--end-of-options", connector.repository, f"+{connector.branch}:{_HEAD}"])


def _network(connector: GitFile) -> dict[str, str]:
    """Settings that bind git to the addresses of the host, resolved and checked here, once."""
    parts = urlsplit(connector.repository)
    host, port = parts.hostname or "", parts.port or 443
    if not _HOST.fullmatch(host):
        # git must read the same host out of the address as the check does.
        raise ConnectorError(f"the host {host!r} must be written in ASCII (xn--...), without a dot at its end")
    addresses = resolve(host, port, connector.allow_private)
    written = [f"[{address}]" if address.version == 6 else str(address) for address in addresses]
    settings = {
        "http.curloptResolve": f"{host}:{port}:{','.join(written)}",
        "http.followRedirects": "false",
        "http.proxy": "",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "fetch.fsckObjects": "true",
        "gc.autoDetach": "false",
    }
    return settings | ({"http.sslCAInfo": str(connector.ca_file)} if connector.ca_file else {})


def _authorization(connector: GitFile) -> dict[str, str]:
    if connector.token_env is None:
        return {}
    user = secret(connector.user_env, connector.name) if connector.user_env else "git"
    pair = f"{user}:{secret(connector.token_env, connector.name)}".encode()
    return {"http.extraHeader": "Authorization: Basic " + base64.b64encode(pair).decode()}


def _run(git: _Git, arguments: list[str]) -> bytes:
    """What a git command printed, up to a megabyte. Raises ConnectorError with git's own last line if it failed."""
    said = b""
    with tempfile.TemporaryFile() as printed, _running(git, arguments, stdout=printed) as process:
        assert process.stderr is not None, "it is a pipe"
        while piece := process.stderr.read1(_PIECE):  # type: ignore[attr-defined]
            said = (said + piece)[-_PIECE:]  # a server may send messages without end
        status = process.wait()
        printed.seek(0)
        found = printed.read(_PRINTED)
    if status:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        last = lines[-1][:300] if lines else f"exit status {status}"
        raise ConnectorError(f"git {arguments[0]} failed: {last}: check repository, branch and rights")
    return found


@contextmanager
def _running(git: _Git, arguments: list[str], stdout: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """A git command that is ended with all that it started: at the end of the block, and when its time is over.

    Raises ConnectorError in the second case.
    """
    process = subprocess.Popen(
        ["git", *arguments],
        env=git.environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE if stdout != subprocess.PIPE else subprocess.DEVNULL,
        start_new_session=True,
    )
    late = threading.Event()

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def end_late() -> None:
        late.set()
        end()

    timer = threading.Timer(git.timeout_s, end_late)
    timer.daemon = True
    timer.start()
    try:
        yield process
    except ConnectorError:
        if not late.is_set():
            raise
    finally:
        timer.cancel()
        if process.returncode is None:
            end()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
    if late.is_set():
        raise ConnectorError(f"git {arguments[0]} took longer than {git.timeout_s:.0f} s")


def _entries(git: _Git, commit: str) -> Generator[tuple[bytes, bytes, bytes, str]]:
    """Mode, object id, size and path of every file of a commit, as git lists them.

    Raises ConnectorError for more than _MOST_ENTRIES: a few kilobytes of folders in folders can hold billions.
    """
    listing = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit]
    count, rest = 0, b""
    with _running(git, listing, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None, "it is a pipe"
        while piece := process.stdout.read1(_PIECE):  # type: ignore[attr-defined]
            *entries, rest = (rest + piece).split(b"\0")
            for entry in entries:
                count += 1
                if count > _MOST_ENTRIES:
                    raise ConnectorError(f"the branch holds more than {_MOST_ENTRIES:,} files: name another repository")
                about, _, path = entry.partition(b"\t")
                mode, _, identity, size = about.split()
                yield mode, identity, size, path.decode("utf-8", "surrogateescape")
        if process.wait():
            raise ConnectorError("git ls-tree failed: check the repository with git fsck")


def _files(connector: GitFile, git: _Git, commit: str) -> Iterator[Event]:
    date = _date(_run(git, ["cat-file", "commit", commit]))
    with _objects(git) as (ask, answer), closing(_entries(git, commit)) as entries:
        for mode, identity, size, path in entries:
            suffix = _SUFFIXES.get(Path(path).suffix.lower())
            if mode not in _PLAIN_FILE or suffix is None or not is_chosen(path, connector.include, connector.exclude):
                continue
            if int(size) > connector.max_mb * 1_000_000:
                yield Failed(path, f"has {int(size) / 1e6:,.1f} MB; the limit is {connector.max_mb} MB (max_mb)")
                continue
            content = _object(ask, answer, identity)
            if content.startswith(_POINTER):
                yield Failed(path, "its content is in Git LFS, which is not fetched")
            elif b"\0" not in content[:8192] or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
                address = file_address(connector.address, connector.name, path)
                yield Found(Source(path, address, readable_title(path), date), suffix, content)


@contextmanager
def _objects(git: _Git) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A running `git cat-file --batch`: where object ids are written to, and where contents are read from."""
    process = subprocess.Popen(
        ["git", "cat-file", "--batch"],
        env=git.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    try:
        yield process.stdin, process.stdout
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def _object(ask: IO[bytes], answer: IO[bytes], identity: bytes) -> bytes:
    try:
        ask.write(identity + b"\n")
        ask.flush()
        head = answer.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise ConnectorError(f"the repository lacks object {identity.decode()[:12]}: check it with git fsck")
        content = answer.read(int(head[2]))
        answer.read(1)
    except OSError:
        raise ConnectorError("git cat-file stopped: check the repository with git fsck") from None
    return content


def _date(commit: bytes) -> str | None:
    """The ISO date of a commit object: "committer NAME <MAIL> SECONDS ZONE"."""
    for line in commit.split(b"\n\n", 1)[0].split(b"\n"):
        if line.startswith(b"committer "):
            try:
                return datetime.fromtimestamp(int(line.split()[-2]), UTC).date().isoformat()
            except (ValueError, OverflowError, IndexError, OSError):
                return None
    return None
