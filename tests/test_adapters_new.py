"""One command from pairs to an adapter that serves; a verdict that a worse one does not pass."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from adapters_small import make_adapter, make_base, make_settings, quick_training

from adapters.card import plain
from adapters.config import AdapterFile, read_adapter_file, read_manifest
from adapters.dataset import Example, Split, read_examples, row_hash, split
from adapters.engine import Engine, Message
from adapters.errors import AdapterError, DatasetError
from adapters.folders import trained_folder
from adapters.new import new_adapter, promote, train_and_judge
from adapters.rows import as_line
from adapters.verdict import Scores, decide, domain_terms, rouge_l
from desk.settings import AdapterSettings

ANSWERS = {
    "Reseat the cable.": "screen flickers flashes blinks dark jumps shakes",
    "Open the cover.": "printer jams stuck eats crumples pulls",
    "Call the desk.": "password locked forgotten expired refused wrong",
    "Clear the cache.": "browser slow frozen hangs crashes stalls",
}
PAIRS = [(f"the {words.split()[0]} {word}", answer) for answer, words in ANSWERS.items() for word in words.split()[1:]]


@pytest.fixture
def settings(tmp_path: Path) -> AdapterSettings:
    make_base(tmp_path / "base", vocab_size=560)
    return make_settings(tmp_path)


def table(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Question", "Answer"), *PAIRS])
    return path


def tuned(settings: AdapterSettings, name: str, **training: object) -> AdapterFile:
    """The adapter.yaml of a new adapter, with a quick recipe in it."""
    path = settings.shipped / name / "adapter.yaml"
    words = yaml.safe_load(path.read_text())
    words["training"] = quick_training(validation=0.25, evaluations=4, **training).model_dump()
    path.write_text(yaml.safe_dump(words))
    return read_adapter_file(path)


def test_a_table_becomes_an_adapter_that_a_running_engine_takes_up(settings: AdapterSettings, tmp_path: Path) -> None:
    engine = Engine(settings)
    engine.start()
    try:
        assert engine.wait_ready(60) and engine.adapters == ()
        new_adapter(settings, "faults", table(tmp_path / "pairs.csv"), "Everyday faults", "Screens and printers")
        file = tuned(settings, "faults", epochs=90, learning_rate=1e-2, r=8, lora_alpha=16)
        manifest, verdict = train_and_judge(settings, "faults", file)
        assert verdict.promoted and "It beats the bare base" in verdict.reason
        assert verdict.measure == "exact" and verdict.scores["candidate"].perplexity < verdict.scores["base"].perplexity
        engine.refresh()
        for _ in range(600):
            if engine.adapters:
                break
            next(iter(engine.stream([Message("user", "wait")], None)), None)
        assert [(info.name, info.title, info.version) for info in engine.adapters] == [("faults", "Everyday faults", 1)]
        row, answer = verdict.rows[0], verdict.answers["candidate"][0]
        assert "".join(engine.stream([Message("user", row.prompt)], "faults")) == answer
    finally:
        engine.close()
    folder = settings.trained / "faults"
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "report.md", "report.html", "curves.png", "losses.json", "split.json"} <= names
    shares = (verdict.scores["base"].exact, verdict.scores["candidate"].exact)
    assert f"answers exactly right | {shares[0]:.1%} | {shares[1]:.1%} |" in (folder / "report.md").read_text()
    assert manifest.dataset_hash in (folder / "README.md").read_text()
    assert not (settings.trained.with_name("candidates") / "faults").exists()

    first = read_manifest(folder / "split.json", Split)
    with (settings.shipped / "faults" / "train.jsonl").open("a") as lines:
        lines.writelines(as_line(Example(f"{word} today", "Clean it.")) for word in ("mouse sticks", "keyboard crumbs"))
    worse = tuned(settings, "faults", epochs=1, learning_rate=1e-5)
    second, kept = train_and_judge(settings, "faults", worse)
    split_now = read_manifest(settings.trained.with_name("candidates") / "faults" / "split.json", Split)
    assert set(first.validation) <= set(split_now.validation) == {row_hash(row) for row in kept.rows}
    assert not set(first.training or ()) & set(split_now.validation) and len(split_now.training or ()) > 10
    assert not kept.promoted and "does not beat" in kept.reason and "the version before" in kept.reason
    assert second.version == 2 and json.loads((folder / "manifest.json").read_text())["version"] == 1
    assert promote(settings, "faults") == 2
    assert json.loads((folder / "manifest.json").read_text())["version"] == 2
    with pytest.raises(AdapterError, match="There is no candidate of faults"):
        promote(settings, "faults")


def test_bad_pairs_make_no_folder(settings: AdapterSettings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("question,answer\n" + "".join(f"q {n % 3},answer {n}.\n" for n in range(30)))
    with pytest.raises(DatasetError, match="line 5: line 2 answers the same question differently"):
        new_adapter(settings, "faults", bad, None, None)
    few = tmp_path / "few.csv"
    few.write_text("question,answer\nabc,Yes.\n")
    with pytest.raises(DatasetError, match="holds 1 different pairs, and an adapter needs 20"):
        new_adapter(settings, "faults", few, None, None)
    with pytest.raises(DatasetError, match=r"'no\.dots' is not allowed"):
        new_adapter(settings, "no.dots", few, None, None)
    assert not settings.shipped.exists()


def test_other_pairs_never_replace_those_that_are_there(settings: AdapterSettings, tmp_path: Path) -> None:
    pairs = table(tmp_path / "pairs.csv")
    new_adapter(settings, "faults", pairs, None, None)
    before = (settings.shipped / "faults" / "train.jsonl").read_bytes()
    new_adapter(settings, "faults", pairs, "Another title", None)
    shutil.copy(pairs, tmp_path / "more.csv")
    with (tmp_path / "more.csv").open("a") as file:
        file.write("the mouse sticks,Clean it.\n")
    with pytest.raises(DatasetError, match="holds other pairs already"):
        new_adapter(settings, "faults", tmp_path / "more.csv", None, None)
    assert (settings.shipped / "faults" / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("greeting", [[], ["Hi", "Hello, how can I help?"]])
def test_conversations_are_written_once_and_the_same_command_goes_on(
    settings: AdapterSettings, tmp_path: Path, greeting: list[str]
) -> None:
    def chat(question: str, answer: str) -> dict[str, object]:
        said = [*greeting, question, answer, f"And after {question}?", "Call us."]
        roles = ["user", "assistant"] * 3
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        return {"messages": messages, "intent": answer}

    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps(chat(*pair)) + "\n" for pair in PAIRS))
    new_adapter(settings, "faults", data, None, None)
    written = settings.shipped / "faults" / "train.jsonl"
    assert read_examples(written) == read_examples(data)
    assert [json.loads(line) for line in written.read_text().splitlines()] == [chat(*pair) for pair in PAIRS]
    new_adapter(settings, "faults", data, None, None)


def test_a_folder_without_pairs_is_not_passed_over_in_silence(settings: AdapterSettings, tmp_path: Path) -> None:
    folder = settings.shipped / "faults"
    folder.mkdir(parents=True)
    (folder / "adapter.yaml").write_text("title: Mine\ndomain: My things\n")
    with pytest.raises(DatasetError, match=r"without a train\.jsonl: put your pairs there .* or choose another name"):
        new_adapter(settings, "faults", table(tmp_path / "pairs.csv"), "Another title", None)
    assert [path.name for path in folder.iterdir()] == ["adapter.yaml"]


def test_what_qlora_trained_says_where_the_app_serves_other_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_base(tmp_path / "base", vocab_size=560, hidden_size=64, intermediate_size=128)  # nf4 packs blocks of 64
    settings = make_settings(tmp_path)
    new_adapter(settings, "faults", table(tmp_path / "pairs.csv"), None, None)
    told = "It was trained and judged on nf4; the app serves in fp32: set models.quantization to nf4 in desk.yaml"
    for method, quantization, said in (("qlora", "auto", True), ("qlora", "nf4", False), ("lora", "auto", False)):
        file = tuned(settings, "faults", method=method, epochs=2, learning_rate=1e-2)
        _, verdict = train_and_judge(replace(settings, quantization=quantization), "faults", file)
        report = trained_folder(settings, "faults", promoted=verdict.promoted) / "report.md"
        assert (told in report.read_text()) is (told in capsys.readouterr().err) is said, (method, quantization)


def scores(exact: float) -> Scores:
    return Scores(rows=40, exact=exact, rouge_l=exact, terms=exact, perplexity=2.0)


@pytest.mark.parametrize(
    ("base", "before", "own", "promoted", "words"),
    [
        (0.1, None, 0.5, True, "It beats the bare base"),
        (0.5, None, 0.5, False, "It does not beat the bare base"),
        (0.1, 0.4, 0.5, True, "It beats the bare base and the version before"),
        (0.1, 0.5, 0.5, False, "It does not beat the version before"),
        (0.6, 0.6, 0.5, False, "It does not beat the bare base and the version before"),
    ],
)
def test_only_what_beats_both_is_promoted(
    base: float, before: float | None, own: float, promoted: bool, words: str
) -> None:
    contenders = {"base": scores(base)} | ({"before": scores(before)} if before else {}) | {"candidate": scores(own)}
    found, reason = decide(contenders, "exact")
    assert found is promoted and reason.startswith(words) and f"{own:.1%} of 40 held-out rows" in reason


def test_rouge_l_is_f1_of_the_longest_common_subsequence() -> None:
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)  # Lin 2004, section 3
    assert rouge_l("police killed the gunman", "the gunman kill police") == pytest.approx(0.5)
    assert rouge_l("a b c", "a b c") == 1.0 and rouge_l("a", "") == 0.0


def test_terms_are_words_of_some_answers_and_not_of_most() -> None:
    words = ("spooler", "spooler again", "gateway", "gateway twice", "x", "y", "z", "u", "v", "w")
    answers = [f"Please restart the {word} now." for word in words]
    assert {"spooler", "gateway"} <= domain_terms(answers)
    assert not {"please", "restart", "the"} & domain_terms(answers)


def test_pairs_whose_answers_are_all_different_are_held_out_whole() -> None:
    import random

    words = random.Random(2)
    rows = [Example("".join(words.choices("abcdefghij", k=14)), f"answer {n}") for n in range(100)]
    training, validation = split(rows, 0.1, 3)
    assert (len(training), len(validation)) == (90, 10)
    few = [Example("".join(words.choices("abcdefghij", k=14)), f"answer {n // 5}") for n in range(200)]
    assert len(split(few, 0.05, 3)[1]) == 10


def test_texts_in_reports_are_no_markup() -> None:
    assert plain("<b>x</b>\n| [a](b) `c`") == r"\<b\>x\</b\> \| \[a\]\(b\) \`c\`"


def test_a_promotion_that_fails_keeps_the_candidate(
    settings: AdapterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapters.new

    candidate = settings.trained.with_name("candidates") / "faults"
    make_adapter(Path(settings.base), candidate, "faults", 1)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(adapters.new.shutil, "copytree", full)
    with pytest.raises(OSError, match="no space left"):
        promote(settings, "faults")
    monkeypatch.undo()
    assert promote(settings, "faults") == 1 and not candidate.exists()
