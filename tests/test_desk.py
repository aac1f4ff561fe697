"""What an owner may write, and what they are told when it is wrong."""

from pathlib import Path

import pytest
import yaml

from desk.config import load_desk, state_root
from desk.errors import DeskError
from desk.index_file import MilvusSettings


def change(path: Path, **values: object) -> None:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**raw, **values}), encoding="utf-8")


def fault(root: Path) -> str:
    with pytest.raises(DeskError) as caught:
        load_desk(root)
    return str(caught.value)


def test_the_sample_desk_loads_with_all_its_parts() -> None:
    desk = load_desk()
    assert desk.name == "helpdesk" and desk.index.documents.is_dir()
    assert set(desk.chains.workflows) == {"triage"}
    assert len(desk.chains.routes.retrieval) >= 25
    assert len(desk.chains.routes.workflows["triage"]) >= 25
    assert len(desk.chains.routes.out_of_scope) >= 25


def test_an_unknown_key_is_named_with_the_accepted_ones(desk: Path) -> None:
    change(desk / "desk.yaml", colour="red")
    message = fault(desk)
    assert "desk.yaml" in message and "'colour'" in message and "title" in message


def test_an_unknown_inner_key_names_its_neighbours(desk: Path) -> None:
    change(desk / "desk.yaml", limits={"upload_gb": 1})
    message = fault(desk)
    assert "'limits.upload_gb'" in message and "upload_mb" in message


def test_a_bad_value_is_shown_with_its_key(desk: Path) -> None:
    change(desk / "desk.yaml", index={"chunk_tokens": 9000})
    message = fault(desk)
    assert "'index.chunk_tokens'" in message and "9000" in message and "250" in message


@pytest.mark.parametrize("text", ["title: [", "- a list", "", "\x00"])
def test_a_file_that_is_no_mapping_is_named(desk: Path, text: str) -> None:
    (desk / "desk.yaml").write_text(text, encoding="utf-8")
    assert "desk.yaml" in fault(desk)


def test_a_missing_folder_or_file_says_which(desk: Path, tmp_path: Path) -> None:
    assert "There is no desk" in fault(tmp_path / "nowhere")
    (desk / "routes.yaml").unlink()
    assert "routes.yaml is missing" in fault(desk)


def test_routes_for_a_workflow_that_is_not_there_are_refused(desk: Path) -> None:
    (desk / "workflows" / "triage.yaml").unlink()
    assert "workflows.triage" in fault(desk)


def test_a_workflows_schema_lists_every_field_and_choice() -> None:
    workflow = load_desk().chains.workflows["triage"]
    schema = workflow.output_schema
    assert schema["required"] == list(workflow.fields) == list(schema["properties"])
    assert schema["properties"]["priority"]["enum"] == ["P1", "P2", "P3", "P4"]
    assert schema["additionalProperties"] is False


def test_state_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWITCHBOARD_HOME", str(tmp_path / "elsewhere"))
    assert state_root() == tmp_path / "elsewhere"
    assert load_desk().state == tmp_path / "elsewhere" / "helpdesk"


@pytest.mark.parametrize("port", ["abc", "70000", "-1", "80 80"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("SWITCHBOARD_PORT", port)
    with pytest.raises(DeskError, match="SWITCHBOARD_PORT"):
        load_desk()


def test_a_base_in_the_desk_folder_is_found_and_an_id_is_left_as_it_is(desk: Path) -> None:
    (desk / "models" / "tiny").mkdir(parents=True)
    change(desk / "desk.yaml", models={"base": "models/tiny"})
    assert load_desk(desk).adapters.base == str((desk / "models" / "tiny").resolve())
    change(desk / "desk.yaml", models={"base": "microsoft/Phi-3-mini-4k-instruct"})
    assert load_desk(desk).adapters.base == "microsoft/Phi-3-mini-4k-instruct"
    change(desk / "desk.yaml", models={"base": "./models/absent"})
    with pytest.raises(DeskError, match=r"models\.base is '\./models/absent', but there is no folder"):
        load_desk(desk)


def test_the_app_listens_for_this_machine_alone_unless_told_otherwise(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWITCHBOARD_HOST", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    assert load_desk(desk).app.host == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "someone/switchboard")
    assert load_desk(desk).app.host == "0.0.0.0"
    monkeypatch.setenv("SWITCHBOARD_HOST", "192.0.2.7")
    assert load_desk(desk).app.host == "192.0.2.7"


def test_a_desk_is_searched_locally_unless_it_says_where_milvus_is(desk: Path) -> None:
    settings = load_desk(desk).index
    assert (settings.store, settings.milvus) == ("local", None)
    change(desk / "desk.yaml", index={"store": "milvus"})
    assert "store: milvus needs milvus: {uri: ...} beside it" in fault(desk)
    change(desk / "desk.yaml", index={"milvus": {"uri": "https://milvus.example:19530", "token_env": "OUR_TOKEN"}})
    settings = load_desk(desk).index
    expected = MilvusSettings("https://milvus.example:19530", "OUR_TOKEN", "switchboard")
    assert (settings.store, settings.milvus) == ("local", expected)
    change(desk / "desk.yaml", index={"store": "milvus", "milvus": {"uri": "inside/passages.db", "prefix": "mine"}})
    settings = load_desk(desk).index
    assert settings.milvus == MilvusSettings(str(settings.state / "inside" / "passages.db"), "", "mine")


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"uri": "https://ann:sesame@milvus.example"}, "must not hold a user or a password"),
        ({"uri": "milvus.example:19530/sesame"}, "a file whose name ends in .db"),
        ({"uri": "a.db", "token_env": "ann:sesame"}, "milvus.token_env"),
        ({"uri": "a.db", "prefix": "1-sesame"}, "milvus.prefix"),
        ({"uri": "a.db", "colour": "red"}, "accepted there: prefix, token_env, uri"),
    ],
)
def test_what_is_wrong_about_milvus_is_said_without_the_value(desk: Path, group: dict[str, str], reason: str) -> None:
    change(desk / "desk.yaml", index={"store": "milvus", "milvus": group})
    message = fault(desk)
    assert reason in message and "sesame" not in message
