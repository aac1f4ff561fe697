"""The text files of a Git repository at the head of a branch: a folder on this machine, or an https address.

Objects are read from the repository itself. Nothing is checked out, so no hook, filter or link of the repository
does anything; submodules are not fetched. The git of this machine is used, without its owner's settings.
"""

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
_LOCAL_S = 120
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
        git, branch = _Git(cache, {}, _LOCAL_S), _HEAD
    else:
        folder = Path(connector.repository)
        inner = folder / ".git" if (folder / ".git").exists() else folder
        if not inner.exists():
            raise ConnectorError(f"there is no repository at {folder}: check repository")
        # The owner of the desk names it, which is what git asks for where someone else owns the files.
        git, branch = _Git(inner, {"safe.directory": "*"}, _LOCAL_S), connector.branch
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


def _fetch(connector: GitFile, cache: Path, until: float) -> None:
    """Brings the copy of a remote repository up to its branch."""
    settings = _network(connector) | _authorization(connector)
    git = _Git(cache, settings, max(1.0, until - time.monotonic()), "https")
    if not (cache / "HEAD").is_file():
        shutil.rmtree(cache, ignore_errors=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        _run(git, ["init", "--quiet", "--bare", "--template=", str(cache)])
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
    """What a git command printed. Raises ConnectorError with git's own last line if it failed."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            env=git.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=git.timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise ConnectorError(f"git {arguments[0]} took longer than {git.timeout_s:.0f} s") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = lines[-1][:300] if lines else f"exit status {done.returncode}"
        raise ConnectorError(f"git {arguments[0]} failed: {said}: check repository, branch and rights")
    return done.stdout


def _files(connector: GitFile, git: _Git, commit: str) -> Iterator[Event]:
    date = _date(_run(git, ["cat-file", "commit", commit]))
    listing = _run(git, ["ls-tree", "-r", "-z", "-l", "--full-tree", commit])
    with _objects(git) as (ask, answer):
        for entry in filter(None, listing.split(b"\0")):
            about, _, raw_path = entry.partition(b"\t")
            mode, _, identity, size = about.split()
            path = raw_path.decode("utf-8", "surrogateescape")
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
