"""Git repositories, mailboxes and Slack exports become documents, whatever is in them."""

import json
import mailbox
import os
import socket
import subprocess
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from web_site import Reply, Site, make_certificate, serving

from desk.connectors import Connector, GitFile, MailboxFile, SlackFile
from index.connectors.git import read_repository
from index.connectors.items import ConnectorError
from index.connectors.mirror import read_sources
from index.connectors.sync import SyncReport, fingerprint, sync
from index.sources import load_source

AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@x.example", "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@x.example", "GIT_COMMITTER_DATE": "2026-03-04T12:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    """added, changed, removed, unchanged"""
    return report.added, report.changed, report.removed, report.unchanged


def texts(connector: Connector, folder: Path) -> dict[str, str]:
    """The mirrored documents as the library reads them, by key."""
    sources = read_sources(folder, fingerprint(connector))
    return {
        source.key: load_source(folder / name, name=name, collection="desk", max_bytes=10_000_000).text
        for name, source in sources.items()
    }


def addresses(connector: Connector, folder: Path) -> dict[str, str]:
    return {source.key: source.address for source in read_sources(folder, fingerprint(connector)).values()}


# Git


def git(where: Path, *arguments: str) -> str:
    environment = os.environ | AUTHOR
    command = ["git", "-C", where, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def commit(where: Path, **files: str) -> None:
    for name, content in files.items():
        path = where / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "-m", "Change")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "--quiet", "-b", "main")
    commit(path, docs__vpn_md="# VPN\n\nOpen the client.\n", guide_rst="Guide\n=====\n\nRead it.\n", code_py="x = 1\n")
    return path


def repository_file(repository: object, **values: object) -> GitFile:
    entry = {"name": "docs", "loader": "git", "repository": str(repository), "branch": "main"}
    return GitFile.model_validate(entry | values)


def test_the_text_files_of_a_branch_are_mirrored_as_committed(repository: Path, folder: Path) -> None:
    (repository / "docs" / "vpn.md").write_text("# VPN\n\nNot committed.\n")
    connector = repository_file(repository, address="https://code.example/docs/blob/main/{path}")
    assert counts(sync(connector, folder)) == (2, 0, 0, 0)
    assert texts(connector, folder) == {
        "docs/vpn.md": "VPN\n\nOpen the client.",
        "guide.rst": "Guide\n=====\n\nRead it.",
    }
    assert addresses(connector, folder)["docs/vpn.md"] == "https://code.example/docs/blob/main/docs/vpn.md"
    assert {source.date for source in read_sources(folder, fingerprint(connector)).values()} == {"2026-03-04"}
    git(repository, "rm", "--quiet", "--cached", "guide.rst")
    commit(repository, docs__vpn_md="# VPN\n\nOpen the new client.\n", docs__wifi_md="# Wi-Fi\n\nHarbour.\n")
    (repository / "guide.rst").unlink()
    commit(repository, readme_md="# Read me\n\nFirst.\n")
    assert counts(sync(connector, folder)) == (2, 1, 1, 0)
    git(repository, "branch", "draft")
    commit(repository, docs__wifi_md="# Wi-Fi\n\nChanged.\n")
    assert "Harbour" in texts(connector, folder)["docs/wifi.md"]
    draft = repository_file(repository, branch="draft", include=("docs/*",), exclude=("*vpn*",))
    sync(draft, folder.with_name("draft"))
    assert texts(draft, folder.with_name("draft")) == {"docs/wifi.md": "Wi-Fi\n\nHarbour."}


def test_nothing_in_a_repository_runs_and_links_and_submodules_are_left_out(
    repository: Path, folder: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "fsmonitor"):
        path = repository / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {marker}\n")
        path.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(repository / ".git" / "hooks" / "fsmonitor"))
    git(repository, "config", "filter.evil.smudge", f"touch {marker}")
    git(repository, "config", "filter.evil.clean", "cat")
    (repository / "passwd.md").symlink_to("/etc/passwd")
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet", "-b", "main")
    commit(inner, secret_md="# Inner\n\nOf another repository.\n")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "inner")
    marker.unlink(missing_ok=True)
    (repository / ".gitattributes").write_text("*.md filter=evil\n")
    (repository / "binary.txt").write_bytes(b"\0\1\2")
    (repository / "big.md").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "Traps")
    marker.unlink(missing_ok=True)
    connector = repository_file(repository)
    report = sync(connector, folder)
    assert set(texts(connector, folder)) == {"docs/vpn.md", "guide.rst"}
    assert report.complete and [why for _, why in report.failures] == [
        "its content is in Git LFS, which is not fetched"
    ]
    assert not marker.exists()


def test_paths_that_try_to_leave_stay_in_the_mirror(repository: Path, folder: Path, tmp_path: Path) -> None:
    """A tree may hold any name; git's own commands would refuse to write this one."""
    blob = subprocess.run(
        ["git", "-C", repository, "hash-object", "-w", "--stdin"], input=b"# Out\n\nEscaped.\n", stdout=-1, check=True
    ).stdout.strip()
    entry = b"100644 blob " + blob + b"\t../../escaped.md\0"
    made = subprocess.run(["git", "-C", repository, "mktree", "-z"], input=entry, stdout=-1, stderr=-1)
    tree = made.stdout.strip().decode()
    if made.returncode:
        raw = b"100644 ../../escaped.md\0" + bytes.fromhex(blob.decode())
        write = ["git", "-C", repository, "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
        tree = subprocess.run(write, input=raw, stdout=-1, check=True).stdout.strip().decode()
    git(repository, "update-ref", "refs/heads/trap", git(repository, "commit-tree", tree, "-m", "Trap"))
    sync(repository_file(repository, branch="trap"), folder)
    assert [path.name[:7] for path in folder.glob("*.md")] == ["escaped"]
    assert not (tmp_path / "escaped.md").exists() and not (tmp_path.parent / "escaped.md").exists()


def test_a_branch_of_billions_of_files_is_refused(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.connectors.git._MOST_ENTRIES", 20_000)
    sync(repository_file(repository), folder)
    blob = git(repository, "hash-object", "-w", "code.py")
    entry = f"100644 blob {blob}\t%d.py"
    for _ in range(10):
        lines = "\n".join(entry % number for number in range(10))
        made = subprocess.run(
            ["git", "-C", repository, "mktree"], input=lines, capture_output=True, text=True, check=True
        )
        entry = f"040000 tree {made.stdout.strip()}\t%d"
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", "-m", "x", made.stdout.strip()))
    report = sync(repository_file(repository), folder)
    assert "holds more than 20,000 files" in report.failures[0][1]
    assert counts(report) == (0, 0, 0, 0) and not report.complete


@pytest.mark.parametrize("change", [{"branch": "absent"}, {"repository": "/nowhere/at/all"}])
def test_a_repository_or_branch_that_is_not_there_removes_nothing(
    repository: Path, folder: Path, change: dict[str, str]
) -> None:
    report = sync(repository_file(change.get("repository", repository), branch=change.get("branch", "main")), folder)
    assert not report.complete and counts(report) == (0, 0, 0, 0)
    assert "check repository" in report.failures[0][1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def remote(repository: Path, certificate: Path) -> Iterator[Site]:
    """The repository at /docs.git of an https server, served by git's own CGI program."""
    backend = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()

    class Everything(dict[str, object]):
        def get(self, path: str, default: object = None) -> object:
            return serve if path.startswith("/docs.git") else default

    def serve(handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        size = int(handler.headers.get("Content-Length") or 0)
        environment = AUTHOR | {
            "GIT_PROJECT_ROOT": str(repository / ".git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path.removeprefix("/docs.git"),
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(size),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "PATH": os.defpath,
        }
        done = subprocess.run(
            [f"{backend}/git-http-backend"], env=environment, input=handler.rfile.read(size), capture_output=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        handler.send_response(int(dict(lines).get("Status", "200").split()[0]))
        for name, value in lines:
            if name != "Status":
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(certificate) as site:
        site.replies = Everything()  # type: ignore[assignment]
        yield site


def test_a_repository_behind_https_is_fetched_and_followed(
    repository: Path, remote: Site, certificate: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCS_TOKEN", "hunter2")
    entry = {"allow_private": True, "ca_file": certificate, "token_env": "DOCS_TOKEN"}
    connector = repository_file(f"{remote.address}/docs.git", **entry)
    report = sync(connector, folder)
    assert report.failures == () and counts(report) == (2, 0, 0, 0)
    assert remote.asked[0][1]["authorization"] == "Basic Z2l0Omh1bnRlcjI="
    stored = [path for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert stored == [] and "hunter2" not in repr(connector) + repr(report)
    commit(repository, docs__vpn_md="# VPN\n\nOpen the new client.\n")
    assert counts(sync(connector, folder)) == (0, 1, 0, 1)
    assert texts(connector, folder)["docs/vpn.md"] == "VPN\n\nOpen the new client."
    (folder / ".repository" / "shallow.lock").touch()  # as a run leaves it that is killed
    commit(repository, docs__vpn_md="# VPN\n\nOpen the newest client.\n")
    assert counts(sync(connector, folder)) == (0, 1, 0, 1)
    remote.replies = {}
    report = sync(connector, folder)
    assert not report.complete and set(texts(connector, folder)) == {"docs/vpn.md", "guide.rst"}


def test_a_fetch_whose_time_is_over_ends_with_all_that_git_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connector = repository_file(f"https://127.0.0.1:{silent.getsockname()[1]}/docs.git", allow_private=True)
        with pytest.raises(ConnectorError, match="git fetch took longer than"):
            list(read_repository(connector, tmp_path / "cache", time.monotonic() + 2))
        running = [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if str(tmp_path) in read_or(path)]
        assert running == []


def read_or(path: Path) -> str:
    """What is in a file; nothing where it is gone or somebody else's."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_a_repository_on_a_private_address_or_behind_a_redirect_is_refused(
    remote: Site, certificate: Path, folder: Path
) -> None:
    url = f"{remote.address}/docs.git"
    report = sync(repository_file(url, ca_file=certificate), folder)
    assert "allow_private" in report.failures[0][1] and remote.asked == []
    report = sync(repository_file(url, allow_private=True), folder)
    assert "git fetch failed" in report.failures[0][1] and remote.asked == []
    remote.replies = {}
    moved = Reply(status=301, headers={"Location": "https://localhost:9/docs.git/info/refs?service=git-upload-pack"})
    remote.replies["/docs.git/info/refs?service=git-upload-pack"] = moved
    report = sync(repository_file(url, allow_private=True, ca_file=certificate), folder)
    assert not report.complete and "301" in report.failures[0][1]


@pytest.mark.parametrize("host", ["127.0.0.1.", "straße.example", "①②⑦.⓪.⓪.①", "a\\b.example", "2130706433"])
def test_a_host_that_git_might_read_differently_is_refused(folder: Path, host: str) -> None:
    report = sync(repository_file(f"https://{host}/docs.git", allow_private=True), folder)
    assert not report.complete and ("ASCII" in report.failures[0][1] or "unusual form" in report.failures[0][1])


# Mailboxes


def letter(subject: str, text: str, **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Ada Lind <ada@x.example>"
    message["Date"] = "Wed, 04 Mar 2026 10:00:00 +0100"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def write_mailbox(path: Path, *messages: EmailMessage | bytes) -> MailboxFile:
    path.unlink(missing_ok=True)
    box = mailbox.mbox(path)
    for message in messages:
        box.add(message)
    box.close()
    return MailboxFile(name="mail", loader="mbox", path=path)


def test_each_message_is_a_document_with_its_subject_sender_date_and_text(tmp_path: Path, folder: Path) -> None:
    rich = letter("Größe", "ignored", Message_ID="<2@x>")
    rich.clear_content()
    rich.set_content("<p>Only <b>this</b></p><script>evil()</script>", subtype="html")
    rich.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="../../x.exe")
    plain = letter("VPN <down>", "It is back.\n\nFrom now on use <b>gate 2</b>.\n\n# Not a heading", Message_ID="<1@x>")
    connector = write_mailbox(tmp_path / "box", plain, rich, plain)
    report = sync(connector, folder)
    assert counts(report) == (2, 0, 0, 0) and report.failures == ()
    found = texts(connector, folder)
    opening = "From: Ada Lind; Date: 2026-03-04"
    words = "It is back.\n\nFrom now on use <b>gate 2</b>.\n\n# Not a heading"
    assert found["<1@x>"].replace(">From", "From") == f"VPN <down>\n\n{opening}\n\n{words}"
    assert found["<2@x>"] == f"Größe\n\n{opening}\n\nOnly this"
    assert addresses(connector, folder)["<1@x>"] == "mail: VPN <down> (2026-03-04)"
    assert counts(sync(write_mailbox(tmp_path / "box", plain), folder)) == (0, 0, 1, 1)


def test_hostile_and_broken_messages_cost_only_themselves(tmp_path: Path, folder: Path) -> None:
    bad = [
        b"Subject: =?x-nothing?B?////?=\nContent-Type: text/plain; charset=no-such\n\nwords one\n",
        b'Message-ID: <../../../../tmp/evil>\nFrom: "\0" <>\nSubject: a\0b\n\nwords two\n',
        b"Content-Type: multipart/mixed; boundary=\n\n--\nwords three\n",
        b"Message-ID: " + b"<" * 5000 + b"\nDate: Thu, 99 Foo 99999 99:99:99\n\nwords four\n",
        b"Content-Type: application/pgp-encrypted\n\nxyz\n",
        b"\n",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n!!!!\n",
    ]
    connector = write_mailbox(tmp_path / "box", letter("Good", "Fine words.", Message_ID="<g@x>"), *bad)
    report = sync(connector, folder)
    assert report.complete and "Fine words." in texts(connector, folder)["<g@x>"]
    assert report.added + len(report.failures) == len(bad) + 1 and report.added >= 4
    assert {path.name for path in tmp_path.iterdir()} == {"box", "mirror"}


def test_messages_that_would_take_a_parser_minutes_are_refused(tmp_path: Path, folder: Path) -> None:
    head = b"Subject: s\nContent-Type: text/plain; "
    bad = [head + b'a="b";' * 50_000 + b"\n\nwords\n", (head + b'a="b";' * 50_000).replace(b"\n", b"\r") + b"\r\rwords"]
    names = head + b"charset=punycode\n\n" + b"a" * 400_000 + b"-" + b"9a" * 400_000
    report = sync(write_mailbox(tmp_path / "box", *bad, names), folder)
    assert report.complete and [counts(report)[0], len(report.failures)] == [1, 2]
    assert all("header line of more than 20,000 bytes" in reason for _, reason in report.failures)


def test_a_message_that_is_far_too_large_is_not_read_into_memory(tmp_path: Path, folder: Path) -> None:
    connector = write_mailbox(tmp_path / "box", letter("Good", "Fine words.", Message_ID="<g@x>"))
    with (tmp_path / "box").open("ab") as box:
        box.write(b"From x Thu Jan  1 00:00:00 2026\nSubject: large\n\n" + b"many words\n" * 1_200_000)
    tracemalloc.start()
    report = sync(connector.model_copy(update={"max_mb": 1}), folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [reason for _, reason in report.failures] == ["is larger than ten times the limit of 1 MB (max_mb)"]
    assert counts(report)[0] == 1 and report.complete and peak < 5_000_000


def test_a_file_that_is_no_mailbox_is_refused_and_the_mailbox_is_not_written_to(tmp_path: Path, folder: Path) -> None:
    connector = write_mailbox(tmp_path / "box", letter("Good", "Fine words."))
    (tmp_path / "box").chmod(0o400)
    before = (tmp_path / "box").read_bytes()
    sync(connector, folder)
    assert (tmp_path / "box").read_bytes() == before
    (tmp_path / "box").unlink()
    for content in (b"%PDF-1.7", b"\x1f\x8b"):
        (tmp_path / "box").write_bytes(content)
        report = sync(connector, folder)
        assert not report.complete and "no mbox file" in report.failures[0][1] and report.removed == 0
    (tmp_path / "box").unlink()
    assert "cannot be read" in sync(connector, folder).failures[0][1]


# Slack


def said(stamp: str, text: str, user: str = "U1", **more: object) -> dict[str, object]:
    return {"type": "message", "ts": stamp, "user": user, "text": text} | more


def export(path: Path, days: dict[str, object], raw: dict[str, bytes] | None = None) -> None:
    channels = [{"id": "C01", "name": "it-help"}, {"id": "C02", "name": "general"}]
    users = [
        {"id": "U1", "name": "ada", "profile": {"display_name": "Ada", "real_name": "Ada Lind"}},
        {"id": "U2", "name": "bo", "profile": {"display_name": "", "real_name": "Bo <Berg>"}},
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in {"channels.json": channels, "users.json": users, **days}.items():
            archive.writestr(name, json.dumps(value))
        for name, content in (raw or {}).items():
            archive.writestr(name, content)


def slack(path: Path, **values: object) -> SlackFile:
    return SlackFile.model_validate({"name": "chat", "loader": "slack", "path": path} | values)


DAY1, DAY2 = "it-help/2026-03-04.json", "it-help/2026-03-05.json"
T1, T2, T3, T4 = "1772618400.000100", "1772618460.000200", "1772618520.000300", "1772704800.000400"


def test_a_thread_is_one_document_and_what_stands_alone_is_one_per_day(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    export(
        path,
        {
            DAY1: [
                said(T1, "VPN is down, <@U2>? See <https://status.example|the page> &amp; <#C02|general>"),
                said(T2, "Good morning", "U9"),
                said(T3, "joined", subtype="channel_join"),
            ],
            DAY2: [said(T4, "Fixed.\n\nRestart it.", "U2", thread_ts=T1)],
        },
    )
    connector = slack(path, workspace="https://corvane.slack.example")
    report = sync(connector, folder)
    assert report.failures == () and report.complete
    assert texts(connector, folder) == {
        f"it-help/{T1}": "#it-help: VPN is down, @Bo <Berg>? See the page (https://status.example) & #general\n\n"
        "Ada: VPN is down, @Bo <Berg>? See the page (https://status.example) & #general\n\n"
        "Bo <Berg>: Fixed.\n\nRestart it.",
        "it-help/2026-03-04": "#it-help, 2026-03-04\n\nsomebody: Good morning",
    }
    assert addresses(connector, folder)[f"it-help/{T1}"] == (
        "https://corvane.slack.example/archives/C01/p1772618400000100"
    )


def test_direct_messages_and_private_channels_are_left_out_unless_they_are_named(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    export(
        path,
        {
            "general/2026-03-04.json": [said(T1, "open")],
            "board/2026-03-04.json": [said(T1, "closed")],
            "D024BE91L/2026-03-04.json": [said(T1, "direct")],
            "mpdm-ada--bo-1/2026-03-04.json": [said(T1, "direct")],
            "general/canvas_in_the_conversation.json": [{"x": 1}],
            "../../general/2026-03-05.json": [said(T2, "elsewhere")],
        },
    )
    sync(slack(path), folder)
    assert set(texts(slack(path), folder)) == {"general/2026-03-04"}
    named = slack(path, channels=("board", "absent"))
    report = sync(named, folder.with_name("named"))
    assert set(texts(named, folder.with_name("named"))) == {"board/2026-03-04"}
    assert not report.complete and report.failures[0][0] == "absent"


def test_a_damaged_day_leaves_its_channel_as_it_was(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    other = {"general/2026-03-04.json": [said(T1, "open")]}
    export(path, {DAY1: [said(T1, "first")], DAY2: [said(T4, "second")]} | other)
    connector = slack(path)
    assert counts(sync(connector, folder)) == (3, 0, 0, 0)
    for damage in (b"{", b"[" * 100_000, b'"text"', b"\xff\xfe\x00"):
        export(path, {DAY1: [said(T1, "changed")], "general/2026-03-04.json": []}, {DAY2: damage})
        report = sync(connector, folder)
        assert not report.complete and counts(report) == (0, 0, 0, 0) and report.failures[0][0] == "it-help"
    assert len(texts(connector, folder)) == 3


def test_odd_messages_are_passed_over(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    odd = [
        None, 7, [], {}, {"type": "message"}, said("x", "no time"), said("9" * 300, "far away"), said(T1, ""),
        said("999999999999.0", "no year"),
        {"type": "message", "ts": T1, "text": None}, said(T2, "no thread", thread_ts=5), said(T3, "fine", user=["U1"]),
    ]  # fmt: skip
    export(path, {DAY1: odd})
    report = sync(slack(path), folder)
    assert report.complete and texts(slack(path), folder) == {
        "it-help/2026-03-04": "#it-help, 2026-03-04\n\nsomebody: fine"
    }


def test_a_channel_that_unpacks_to_too_much_leaves_the_others_alone(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    bomb = b"[" + b" " * 19_000_000 + b"]"
    days = {f"general/2026-01-{day:02}.json": bomb for day in range(1, 12)}
    export(path, {DAY1: [said(T1, "Good morning")]}, days)
    report = sync(slack(path), folder)
    (where, reason), *others = report.failures
    assert where == "general" and "has more than 200 MB" in reason and others == []
    assert not report.complete and counts(report)[0] == 1


def test_a_file_that_is_no_export_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "export.zip"
    assert "cannot be read" in sync(slack(path), folder).failures[0][1]
    path.write_bytes(b"PK\3\4 nothing more")
    assert "no zip file" in sync(slack(path), folder).failures[0][1]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no Slack export" in sync(slack(path), folder).failures[0][1]
