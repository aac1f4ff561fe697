"""A mirror holds what its source holds, under safe names, and loses nothing that could not be checked."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from desk.config import DEFAULT_DESK, ROOT, load_desk, secret
from desk.connectors import LOADERS, ConnectorFile, FolderFile
from desk.errors import DeskError
from desk.settings import IndexSettings
from index.connectors.items import ConnectorError, Found, Source
from index.connectors.mirror import LastRun, Mirror, file_name, held, last_run, read_sources
from index.connectors.schedule import is_due
from index.connectors.sync import SyncReport, fingerprint, mirror_folder, mirrors, sync, sync_all, sync_due
from index.sources import load_source

NOON = datetime.datetime(2026, 3, 4, 12, 0, tzinfo=datetime.UTC)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder elsewhere with two readable files."""
    folder = tmp_path / "share"
    (folder / "it").mkdir(parents=True)
    (folder / "it" / "vpn.md").write_text("# VPN\n\nOpen the harbour client.\n")
    (folder / "rooms.csv").write_text("room,seats\nMistral,24\n")
    return folder


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "state" / "connectors" / "share"


def connector(share: Path, **values: object) -> FolderFile:
    return FolderFile.model_validate({"name": "share", "loader": "folder", "path": share} | values)


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    """added, changed, removed, unchanged"""
    return report.added, report.changed, report.removed, report.unchanged


def keys(connector_file: FolderFile, folder: Path) -> set[str]:
    """The keys of what is mirrored, by sources.json, each of which must have its file."""
    stored = json.loads((folder / "sources.json").read_text())["files"]
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {*stored, "sources.json"}
    return {entry["key"] for entry in stored.values()}


# A folder elsewhere, and what every mirror does


def test_a_mirror_holds_the_files_of_its_source_and_says_where_each_came_from(share: Path, mirror: Path) -> None:
    report = sync(connector(share, address="https://files.example/{path}"), mirror)
    assert counts(report) == (2, 0, 0, 0) and report.complete and report.failures == ()
    stored = json.loads((mirror / "sources.json").read_text())["files"]
    name = next(name for name, entry in stored.items() if entry["key"] == "it/vpn.md")
    assert (mirror / name).read_bytes() == (share / "it" / "vpn.md").read_bytes()
    assert stored[name]["address"] == "https://files.example/it/vpn.md"
    assert stored[name]["title"] == "Vpn" and datetime.date.fromisoformat(stored[name]["date"])
    assert load_source(mirror / name, name=name, collection="desk", max_bytes=10_000).title == "VPN"


def test_a_second_run_rewrites_only_what_changed_and_drops_what_is_gone(share: Path, mirror: Path) -> None:
    sync(connector(share), mirror)
    before = {path.name: path.stat().st_mtime_ns for path in mirror.glob("*.*") if path.name != "sources.json"}
    assert counts(sync(connector(share), mirror)) == (0, 0, 0, 2)
    (share / "rooms.csv").unlink()
    (share / "it" / "vpn.md").touch()
    (share / "it" / "mail.txt").write_text("Mail moves on Friday.")
    assert counts(sync(connector(share), mirror)) == (1, 0, 1, 1)
    assert keys(connector(share), mirror) == {"it/vpn.md", "it/mail.txt"}
    vpn = next(mirror.glob("vpn-*.md"))
    assert vpn.stat().st_mtime_ns == before[vpn.name]
    (share / "it" / "vpn.md").write_text("# VPN\n\nOpen the lighthouse client.\n")
    assert counts(sync(connector(share), mirror)) == (0, 1, 0, 1)
    assert "lighthouse" in vpn.read_text()


def test_a_source_that_is_not_there_takes_nothing_away(share: Path, mirror: Path) -> None:
    sync(connector(share), mirror)
    share.rename(share.with_name("unmounted"))
    report = sync(connector(share), mirror)
    assert not report.complete and counts(report) == (0, 0, 0, 0)
    assert "is not there" in report.failures[0][1]
    assert keys(connector(share), mirror) == {"it/vpn.md", "rooms.csv"}


def test_a_run_that_reaches_a_limit_says_so_and_removes_nothing_it_did_not_see(share: Path, mirror: Path) -> None:
    sync(connector(share), mirror)
    (share / "aaa.txt").write_text("First of all.")
    (share / "rooms.csv").unlink()
    report = sync(connector(share, max_documents=1), mirror)
    assert not report.complete and report.removed == 0 and report.added == 1
    assert "max_documents" in report.failures[0][1]
    assert keys(connector(share), mirror) == {"aaa.txt", "it/vpn.md", "rooms.csv"}


def test_a_file_that_grew_too_large_is_reported_and_its_old_copy_stays(share: Path, mirror: Path) -> None:
    sync(connector(share, max_mb=1), mirror)
    (share / "rooms.csv").write_bytes(b"x" * 1_000_001)
    report = sync(connector(share, max_mb=1), mirror)
    assert counts(report) == (0, 0, 0, 1) and report.complete
    assert [why for _, why in report.failures] == ["has 1.0 MB; the limit is 1 MB (max_mb)"]
    assert b"Mistral" in next(mirror.glob("rooms-*.csv")).read_bytes()


def test_links_out_of_the_folder_hidden_files_and_pipes_are_not_read(share: Path, mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the vault code")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("the vault code")
    (share / "link.txt").symlink_to(tmp_path / "secret.txt")
    (share / "folder").symlink_to(tmp_path / "outside")
    (share / "inner.md").symlink_to(share / "it" / "vpn.md")
    (share / ".hidden.md").write_text("the vault code")
    (share / ".git").mkdir()
    (share / ".git" / "notes.md").write_text("the vault code")
    os.mkfifo(share / "pipe.txt")
    report = sync(connector(share), mirror)
    assert keys(connector(share), mirror) == {"it/vpn.md", "rooms.csv", "inner.md"}
    assert [address for address, _ in report.failures] == ["link.txt"]
    assert not any(b"vault" in path.read_bytes() for path in mirror.glob("*.*"))


def test_a_link_in_a_circle_costs_only_itself(share: Path, mirror: Path) -> None:
    before = sync(connector(share), mirror).added
    (share / "a-loop.md").symlink_to(share / "a-loop.md")
    (share / "zz-new.md").write_text("# New\n\nWords.\n")
    report = sync(connector(share), mirror)
    assert report.complete and (report.added, report.unchanged) == (1, before)
    assert [(key, why[:27]) for key, why in report.failures] == [("a-loop.md", "this file cannot be read (i")]


def test_patterns_choose_files(share: Path, mirror: Path) -> None:
    for name in ("a.txt", "old/b.txt", "it/c.txt"):
        (share / name).parent.mkdir(exist_ok=True)
        (share / name).write_text("words")
    chosen = connector(share, include=("*.txt",), exclude=("old/*",))
    sync(chosen, mirror)
    assert keys(chosen, mirror) == {"a.txt", "it/c.txt"}


def test_names_that_are_not_utf8_or_very_long_are_mirrored(share: Path, mirror: Path) -> None:
    (Path(os.fsdecode(os.fsencode(share) + b"/caf\xe9.txt"))).write_text("one")
    (share / ("n" * 250 + ".txt")).write_text("two")
    chosen = connector(share, address="https://files.example/{path}")
    report = sync(chosen, mirror)
    assert report.added == 4 and report.failures == ()
    stored = json.loads((mirror / "sources.json").read_text())["files"].values()
    assert "https://files.example/caf%E9.txt" in {entry["address"] for entry in stored}
    assert counts(sync(chosen, mirror)) == (0, 0, 0, 4)


# File names


@given(st.text(max_size=400))
def test_a_file_name_is_safe_whatever_the_key_is(key: str) -> None:
    name = file_name(key, ".md")
    assert len(name) <= 80 and Path(name).name == name and not name.startswith(".")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") and name.count(".") == 1


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "..\\..\\x", "a\0b", "/" * 50, "é" * 300, "CON", ".", "", "~$x.md"]
)
def test_hostile_keys_stay_in_the_mirror(tmp_path: Path, key: str) -> None:
    with held(tmp_path / "m"):
        mirror = Mirror(tmp_path / "m", "f")
        assert mirror.put(Found(Source(key, "here", "title"), ".md", b"words")) == "added"
        mirror.save()
    assert {path.name for path in tmp_path.iterdir()} == {"m"}
    assert [source.key for source in read_sources(tmp_path / "m", "f").values()] == [key]


def test_keys_that_read_alike_get_files_of_their_own(tmp_path: Path) -> None:
    keys = ["a/b.md", "a-b.md", "A/b.md", "a/b.md?x=1", "b.md", "B.md"]
    assert len({file_name(key, ".md").lower() for key in keys}) == len(keys)
    assert file_name("a/b.md", ".md") == file_name("a/b.md", ".md")


# Runs that are cut off


KILLED_AT_THE_25TH_FILE = """
import os, signal, sys
from pathlib import Path
from desk.connectors import LOADERS, ConnectorFile, FolderFile
from index.connectors.sync import sync
rename, files = Path.replace, []
def replace(self, target):
    files.append(target)
    if len([file for file in files if file.suffix == ".txt"]) == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.replace = replace
sync(FolderFile(name="share", loader="folder", path=Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_run_leaves_whole_files_and_the_next_one_completes_them(tmp_path: Path) -> None:
    share, folder = tmp_path / "share", tmp_path / "mirror"
    share.mkdir()
    for number in range(40):
        (share / f"{number:03}.txt").write_text(f"document {number}\n" * 2000)
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_THE_25TH_FILE, share, folder], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = list(folder.glob("[0-9]*.txt"))
    assert len(left) == 24 and len(list(folder.glob(".partial-*"))) == 1
    assert all(path.read_text() == f"document {int(path.name[:3])}\n" * 2000 for path in left)
    unfinished = last_run(folder, fingerprint(connector(share)))
    assert unfinished is not None and unfinished.finished is None and not unfinished.complete
    report = sync(connector(share), folder)
    assert report.complete and len(keys(connector(share), folder)) == 40 and not list(folder.glob(".partial-*"))
    finished = last_run(folder, fingerprint(connector(share)))
    assert finished is not None and finished.complete and finished.finished is not None


def test_what_a_killed_run_left_without_an_entry_is_cleared_away(share: Path, mirror: Path) -> None:
    sync(connector(share), mirror)
    (mirror / "stranger.md").write_text("left over")
    (mirror / ".partial-1-x.md").write_text("half")
    assert counts(sync(connector(share), mirror)) == (0, 0, 0, 2)
    assert not (mirror / "stranger.md").exists() and not (mirror / ".partial-1-x.md").exists()


def test_a_folder_that_is_no_mirror_is_refused_untouched(share: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConnectorError, match="mirrors nothing"):
        sync(connector(share), tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_damaged_list_of_sources_is_made_again(share: Path, mirror: Path) -> None:
    sync(connector(share), mirror)
    for damage in ("", "[]", '{"version": 1}', '{"version": 1, "fingerprint": "x", "files": {"a": 1}}', "\xff"):
        (mirror / "sources.json").write_text(damage, encoding="latin-1")
        assert counts(sync(connector(share), mirror)) == (2, 0, 0, 0)
    assert keys(connector(share), mirror) == {"it/vpn.md", "rooms.csv"}


def test_two_runs_cannot_have_a_mirror_at_once(share: Path, mirror: Path) -> None:
    with held(mirror), pytest.raises(ConnectorError, match="another process"):
        sync(connector(share), mirror)
    assert sync(connector(share), mirror).complete


# When a connector is due


def run(minutes_ago: float, failed: int = 0) -> LastRun:
    started = (NOON - datetime.timedelta(minutes=minutes_ago)).isoformat()
    return LastRun(started, "mark", complete=not failed, failed_runs=failed)


@pytest.mark.parametrize(
    ("every_s", "last", "due"),
    [
        (None, None, False),
        (None, run(10_000), False),
        (3600, None, True),
        (3600, run(59.9), False),
        (3600, run(60), True),
        (3600, run(14.9, failed=1), False),
        (3600, run(15, failed=1), True),
        (86_400, run(59, failed=3), False),
        (86_400, run(60, failed=3), True),
        (86_400, run(1439, failed=1000), False),
        (86_400, run(1440, failed=1000), True),
        (300, run(5, failed=9), True),
        (3600, run(-1), True),
    ],
)
def test_a_connector_is_due_after_its_interval(every_s: int | None, last: LastRun | None, due: bool) -> None:
    assert is_due(every_s, last, NOON) is due


# The desk


@pytest.fixture
def settings(share: Path, tmp_path: Path) -> IndexSettings:
    connectors = (connector(share, every="1h", collection="staff"), connector(share / "it", name="it"))
    return IndexSettings(tmp_path, tmp_path / "state", tmp_path / "models", 60, 5, 1, 1, connectors=connectors)


def test_only_due_connectors_run_and_a_broken_one_keeps_nobody_back(settings: IndexSettings, share: Path) -> None:
    assert [report.connector for report in sync_due(settings)] == ["share"]
    now = datetime.datetime.now(datetime.UTC)
    assert sync_due(settings, now + datetime.timedelta(minutes=59)) == []
    assert len(sync_due(settings, now + datetime.timedelta(minutes=61))) == 1
    (share / "it" / "vpn.md").unlink()
    (share / "it").rmdir()
    seen: list[SyncReport] = []
    reports = sync_all(settings, on_report=seen.append)
    assert [(report.connector, report.complete) for report in reports] == [("share", True), ("it", False)]
    assert seen == reports
    with pytest.raises(ConnectorError, match="known connectors: share, it"):
        sync_all(settings, "nobody")


def test_runs_that_fail_are_counted_until_one_is_complete(settings: IndexSettings, share: Path) -> None:
    away = share.with_name("away")
    share.rename(away)
    for failed in (1, 2, 3):
        sync_all(settings, "share")
        last = mirrors(settings)[0].last
        assert last is not None and last.failed_runs == failed and not last.complete
    away.rename(share)
    sync_all(settings, "share")
    last = mirrors(settings)[0].last
    assert last is not None and last.failed_runs == 0 and last.complete


def test_the_library_is_told_each_mirrors_files_and_collection(settings: IndexSettings) -> None:
    assert [(mirror.collection, dict(mirror.sources)) for mirror in mirrors(settings)] == [("staff", {}), ("desk", {})]
    sync_all(settings)
    share, it = mirrors(settings)
    assert {source.key for source in share.sources.values()} == {"it/vpn.md", "rooms.csv"}
    assert {source.address for source in it.sources.values()} == {"it: vpn.md"}
    assert all((share.folder / name).is_file() for name in share.sources)
    assert share.last is not None and share.last.complete and share.last.added == 2


def test_a_connector_that_now_means_another_source_shows_nothing_of_the_old_one(
    settings: IndexSettings, tmp_path: Path
) -> None:
    sync_all(settings)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "canteen.txt").write_text("Soup on Monday.")
    moved = replace(settings, connectors=(connector(tmp_path / "public", every="1h"),))
    assert dict(mirrors(moved)[0].sources) == {} and mirrors(moved)[0].last is None
    assert counts(sync_due(moved)[0]) == (1, 0, 0, 0)
    assert [path.name[:7] for path in mirror_folder(moved, "share").glob("[a-z]*.txt")] == ["canteen"]
    assert not list(mirror_folder(moved, "share").glob("*.md"))


def test_the_mirror_of_a_connector_that_was_taken_out_is_deleted(settings: IndexSettings) -> None:
    sync_all(settings)
    assert mirror_folder(settings, "it").is_dir()
    sync_all(replace(settings, connectors=settings.connectors[:1]))
    assert not mirror_folder(settings, "it").exists() and mirror_folder(settings, "share").is_dir()


# desk.yaml


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    (root / "workflows").mkdir(parents=True)
    for name in ("desk.yaml", "routes.yaml", "workflows/triage.yaml"):
        (root / name).write_text((DEFAULT_DESK / name).read_text())
    return root


def connect(desk: Path, *entries: dict[str, object]) -> tuple[object, ...]:
    raw = yaml.safe_load((DEFAULT_DESK / "desk.yaml").read_text())
    (desk / "desk.yaml").write_text(yaml.safe_dump({**raw, "connectors": list(entries)}))
    return load_desk(desk).index.connectors


def test_relative_paths_start_at_the_desk(desk: Path) -> None:
    folder, git, remote = connect(
        desk,
        {"name": "a", "loader": "folder", "path": "../share"},
        {"name": "b", "loader": "git", "repository": "notes"},
        {"name": "c", "loader": "git", "repository": "https://code.example/docs.git"},
    )
    assert getattr(folder, "path", None) == desk.parent / "share"
    assert getattr(git, "repository", None) == str(desk / "notes")
    assert getattr(remote, "repository", None) == "https://code.example/docs.git"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"loader": "nonsense"}, "'sitemap'"),
        ({"loader": "folder", "path": "x", "every": "1 week"}, "such as 30m, 6h or 1d"),
        ({"loader": "folder", "path": "x", "colour": "red"}, "accepted there: address, collection, every"),
        ({"loader": "folder", "path": "x", "name": "../x"}, "name"),
        ({"loader": "folder", "path": "x", "address": "https://x.example/"}, "{path}"),
        ({"loader": "web", "pages": ["ftp://x.example/"]}, "https:// or http://"),
        ({"loader": "web", "pages": ["https://me:hunter2@x.example/"]}, "must not hold a user or a password"),
        ({"loader": "git", "repository": "http://x.example/r.git"}, "https:// address"),
        ({"loader": "git", "repository": "ssh://x.example/r.git"}, "https:// or http://"),
        ({"loader": "git", "repository": "r", "branch": "--upload-pack=hunter2"}, "branch"),
        ({"loader": "database", "url": "postgresql://me:hunter2@db/x", "query": "q", "key": "id"}, "url_env"),
        ({"loader": "database", "url_env": "postgresql://me:hunter2@db/x", "query": "q", "key": "id"}, "url_env"),
        ({"loader": "confluence", "url": "https://x.example", "space": "IT", "user_env": "USER_NAME"}, "token_env"),
        ({"loader": "confluence", "url": "https://x.example", "space": 'IT" or space = "HR'}, "space"),
    ],
)
def test_a_wrong_connector_is_explained_without_repeating_what_may_be_secret(
    desk: Path, entry: dict[str, object], said: str
) -> None:
    with pytest.raises(DeskError) as caught:
        connect(desk, {"name": "x"} | entry)
    assert said in str(caught.value) and "connectors.0" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_two_connectors_with_one_name_are_refused(desk: Path) -> None:
    with pytest.raises(DeskError, match="two connectors have the name x"):
        connect(desk, *[{"name": "x", "loader": "folder", "path": path} for path in ("a", "b")])


def test_a_secret_is_read_when_it_is_used_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKI_TOKEN", "hunter2")
    assert secret("WIKI_TOKEN", "wiki") == "hunter2"
    monkeypatch.setenv("WIKI_TOKEN", " ")
    with pytest.raises(DeskError, match="connector wiki needs the environment variable WIKI_TOKEN"):
        secret("WIKI_TOKEN", "wiki")


# docs/connectors.md

DOCUMENTED = (ROOT / "docs" / "connectors.md").read_text(encoding="utf-8")


def test_the_documented_example_is_accepted(desk: Path) -> None:
    example = yaml.safe_load(DOCUMENTED.split("```yaml\n")[1].split("```")[0])
    assert [getattr(entry, "name", "") for entry in connect(desk, *example["connectors"])] == ["handbook", "articles"]


@pytest.mark.parametrize("loader", LOADERS)
def test_every_key_of_a_loader_is_documented_and_no_other(loader: str) -> None:
    sections = {part.split("\n")[0]: part for part in DOCUMENTED.split("\n### ")[1:]}
    section = next(text for heading, text in sections.items() if loader in heading.split(", "))
    common = set(ConnectorFile.model_fields) | {"loader"}
    own = set(LOADERS[loader].model_fields) - common
    first = section.split("\n\n")[1]
    named = set(re.findall(r"`(\w+)`", first))
    assert first.startswith("Key") and named == own
    table = set(re.findall(r"^\| `(\w+)` \|", DOCUMENTED, re.MULTILINE))
    assert common <= table
