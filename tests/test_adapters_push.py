"""What goes to the hub is what a dry run lists: never rows of people unless asked for, and never the token."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from adapters_small import edit_json, make_adapter, make_base, make_settings
from hub_server import Hub, hub_server

from adapters.__main__ import main
from adapters.config import read_adapter_file
from adapters.errors import AdapterError, DatasetError, HubError
from adapters.merge import merge_adapter
from adapters.push import Push, adapter_push, merged_push, send
from desk.settings import AdapterSettings

PRIVATE_FILES = ("report.md", "report.html", "split.json", "train.jsonl", "eval.jsonl", "notes.txt", ".env")
PLAIN = ["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json", "losses.json", "curves.png"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the library takes for the real one, and a token that it knows."""
    from huggingface_hub import constants

    with hub_server() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        # The large-file protocol of before; hf_xet speaks to a store of its own.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", found.token)
        yield found


@pytest.fixture
def settings(tmp_path: Path) -> AdapterSettings:
    """Of a base with the trained adapter `red`, beside which lies what people wrote."""
    make_base(tmp_path / "base")
    folder = tmp_path / "trained" / "red"
    make_adapter(tmp_path / "base", folder, "red", 1, version=2)
    for name in PRIVATE_FILES:
        (folder / name).write_text("people's words")
    (folder / "README.md").write_text("# Red\n")
    (folder / "losses.json").write_text("{}")
    (folder / "curves.png").write_bytes(b"\x89PNG")
    (tmp_path / "shipped" / "red").mkdir(parents=True)
    (tmp_path / "shipped" / "red" / "adapter.yaml").write_text("title: Red\ndomain: Red things\nlicense: mit\n")
    (tmp_path / "shipped" / "red" / "eval.jsonl").write_text('{"prompt": "hello", "completion": "Yes."}\n')
    return make_settings(tmp_path)


def pushed(settings: AdapterSettings, *, private: bool = False, with_report: bool = False) -> Push:
    return adapter_push(settings, "red", "acme/red", private=private, with_report=with_report)


def facts(card: bytes) -> dict[str, object]:
    """A card's front matter."""
    return dict(yaml.safe_load(card.decode().split("---\n")[1]))


def test_the_hub_gets_the_files_that_are_named_and_nothing_of_what_people_wrote(
    settings: AdapterSettings, hub: Hub
) -> None:
    push = pushed(settings)
    assert [file.name for file in push.files] == PLAIN
    assert send(push) == f"{hub.address}/acme/red/commit/abc"
    files = hub.files["acme/red"]
    assert sorted(files) == sorted(PLAIN) and hub.private == {"acme/red": False}
    assert not [name for name, content in files.items() if b"people's words" in content]
    for name in PLAIN[1:]:
        assert files[name] == (settings.trained / "red" / name).read_bytes(), name
    assert push.size == sum(map(len, files.values())) and hub.messages == ["Red, version 2"]
    assert files["README.md"].endswith(b"---\n# Red\n")
    assert facts(files["README.md"]) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "mit",
        "tags": ["lora", "phi3"],
    }
    assert str(settings.base).encode() not in b"".join(files.values()), "a path of this machine"


def test_a_base_of_the_hub_is_named_and_no_license_is_made_up(settings: AdapterSettings) -> None:
    folder = settings.trained / "red"
    edit_json(folder / "manifest.json", base="microsoft/Phi-3-mini-4k-instruct")
    (settings.shipped / "red" / "adapter.yaml").write_text("title: Red\ndomain: Red things\n")
    (folder / "README.md").unlink()
    card = pushed(settings).files[0].content
    assert isinstance(card, bytes)
    found = facts(card)
    assert list(found) == ["base_model", "library_name", "pipeline_tag", "tags"]
    assert found["base_model"] == "microsoft/Phi-3-mini-4k-instruct" and b"# Red\n" in card


def test_a_front_matter_that_somebody_wrote_is_kept(settings: AdapterSettings) -> None:
    own = "---\nlicense: cc-by-4.0\n---\n# Red\n"
    (settings.trained / "red" / "README.md").write_text(own)
    assert pushed(settings).files[0].content == own.encode()


def test_reports_go_along_only_when_they_are_asked_for(settings: AdapterSettings, hub: Hub) -> None:
    send(pushed(settings, with_report=True))
    assert sorted(hub.files["acme/red"]) == sorted([*PLAIN, "report.md", "report.html"])


def test_a_private_repository_is_made_private_and_a_public_one_gets_nothing(
    settings: AdapterSettings, hub: Hub
) -> None:
    send(pushed(settings, private=True))
    assert hub.private == {"acme/red": True}
    send(pushed(settings, private=True))
    assert len(hub.messages) == 2
    hub.private["acme/red"] = False
    with pytest.raises(HubError, match="acme/red is there already and public"):
        send(pushed(settings, private=True))
    assert len(hub.messages) == 2


def test_a_merged_model_goes_with_its_shards_and_its_card(settings: AdapterSettings, hub: Hub, tmp_path: Path) -> None:
    merge_adapter(settings, "red", tmp_path / "merged" / "red")
    (tmp_path / "merged" / "red" / "notes.txt").write_text("people's words")
    push = merged_push(settings, "red", tmp_path / "merged" / "red", "acme/red-merged", private=True)
    send(push)
    files = hub.files["acme/red-merged"]
    assert sorted(files) == [
        "README.md",
        "base.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert files["model.safetensors"] == (tmp_path / "merged" / "red" / "model.safetensors").read_bytes()
    assert facts(files["README.md"])["library_name"] == "transformers"
    with pytest.raises(AdapterError, match="is no merged model of blue: `python -m adapters merge blue` makes one"):
        merged_push(settings, "blue", tmp_path / "merged" / "red", "acme/blue", private=False)
    with pytest.raises(AdapterError, match=r"base.json is missing"):
        merged_push(settings, "red", tmp_path / "nowhere", "acme/red", private=False)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know the token: log in anew"),
        (403, "The token may not write to acme/red"),
        (404, "has no acme/red that this token may see"),
        (400, r"refused acme/red with status 400 \(no Bearer \*\*\* here\)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(settings: AdapterSettings, hub: Hub, status: int, words: str) -> None:
    hub.refuse = status
    with pytest.raises(HubError, match=words) as caught:
        send(pushed(settings))
    assert "\n" not in str(caught.value) and hub.token not in str(caught.value)


def test_an_owner_who_is_not_ours_and_a_wrong_token_are_one_sentence(
    settings: AdapterSettings, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="The token may not write to other/red"):
        send(adapter_push(settings, "red", "other/red", private=False, with_report=False))
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match="does not know the token") as caught:
        send(pushed(settings))
    assert "hf_other" not in str(caught.value) and not hub.files


@pytest.mark.parametrize("repo", ["red", "acme/red/blue", "acme/re d", "acme/-red", "acme/red.git", "acme/re..d", ""])
def test_a_name_that_no_repository_has_is_refused_before_anything_else(settings: AdapterSettings, repo: str) -> None:
    with pytest.raises(HubError, match=r"[Ww]rite --repo OWNER/NAME") as caught:
        adapter_push(settings, "red", repo, private=False, with_report=False)
    assert repr(repo) in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_token_or_a_network_nothing_is_pushed(
    settings: AdapterSettings, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE keeps the hub's library off the network"):
        send(pushed(settings))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(HubError, match=f"The hub at http://127.0.0.1:{port} was not reached"):
        send(pushed(settings))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(HubError, match="There is no token for the hub: run `hf auth login`"):
        send(pushed(settings))
    assert not hub.asked


def test_weights_that_their_manifest_does_not_describe_stay_here(settings: AdapterSettings) -> None:
    with (settings.trained / "red" / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AdapterError, match="is not the file that its manifest describes"):
        pushed(settings)
    shutil.rmtree(settings.trained / "red")
    with pytest.raises(AdapterError, match="red is not trained yet"):
        pushed(settings)


def test_merged_weights_that_base_json_does_not_describe_stay_here(settings: AdapterSettings, tmp_path: Path) -> None:
    merged = tmp_path / "merged" / "red"
    merge_adapter(settings, "red", merged)
    assert merged_push(settings, "red", merged, "acme/red", private=True).files
    (merged / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(
        AdapterError, match=r"are not those that its base\.json describes: `python -m adapters merge red`"
    ):
        merged_push(settings, "red", merged, "acme/red", private=True)


def test_a_report_that_is_not_there_is_not_left_out_silently(settings: AdapterSettings) -> None:
    (settings.trained / "red" / "report.md").unlink()
    assert [file.name for file in pushed(settings, with_report=True).files] == [*PLAIN, "report.html"]
    (settings.trained / "red" / "report.html").unlink()
    with pytest.raises(HubError, match=r"There is no report in .*trained/red: leave out --with-report"):
        pushed(settings, with_report=True)
    assert [file.name for file in pushed(settings).files] == PLAIN


def test_a_license_is_a_word_that_the_hub_knows(tmp_path: Path) -> None:
    path = tmp_path / "adapter.yaml"
    path.write_text("title: A\ndomain: B\nlicense: cc-by-4.0\n")
    assert read_adapter_file(path).license == "cc-by-4.0"
    path.write_text("title: A\ndomain: B\nlicense: 'MIT\\ntags: x'\n")
    with pytest.raises(DatasetError, match="license: String should match"):
        read_adapter_file(path)


def test_a_dry_run_lists_what_would_be_sent_and_asks_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["push", "service-desk", "--repo", "acme/words", "--private", "--dry-run"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Would go to acme/words, made if it is not there: a private repository. Nothing was sent." in shown
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sent"], told["commit"], told["private"]) == (False, "", True)
    assert {file["name"] for file in told["files"]} == {"README.md", *PLAIN[1:4]}
    for file in told["files"]:
        assert f"{file['bytes']:14,}  {file['name']}\n" in shown
    assert f"{told['bytes']:14,}  bytes in 4 files, one commit: Service desk terms and wording, version 3" in shown
    assert not hub.asked and hub.token not in shown


def test_the_command_pushes_by_the_environment_alone_and_shows_no_token(tmp_path: Path) -> None:
    with hub_server() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-m", "adapters", "push", "service-desk", "--repo", "acme/words"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert f"Pushed to acme/words: {hub.address}/acme/words/commit/abc" in done.stdout
        assert set(hub.files["acme/words"]) == {"README.md", *PLAIN[1:4]}
        environment["HF_TOKEN"] = "hf_wrong"
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith(f"error: The hub at {hub.address} does not know the token")
        assert "hf_wrong" not in refused.stderr and hub.token not in done.stdout + done.stderr
