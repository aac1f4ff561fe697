"""`python -m evaluation reading`: what is asked, and how replies are counted."""

import json
from pathlib import Path

import pytest

from adapters.reader import NOT_SAID
from adapters.tiny.written import read_written
from desk.errors import DeskError
from evaluation.arguments import parse
from evaluation.judge import SETS, read_groups, split
from evaluation.reading import (
    SHOWN,
    Item,
    Read,
    generated_items,
    reaches_bar,
    shares,
    training_exercises,
    written_items,
    xquad_items,
)
from evaluation.reading_report import record, write_exercises

SHOWN_HERE = (("ab2c", "Keys", "Keys hang in room 4 or 14."), ("de3f", "", "Vans stand at Gate 2."))
ANSWERED = Item("Where are keys?", SHOWN_HERE, ("room 4",), "ab2c")
UNANSWERED = Item("Who has the keys?", SHOWN_HERE, (), None)


@pytest.mark.parametrize(
    ("reply", "copied", "named", "abstained"),
    [
        ("room 4 [ab2c]", True, True, False),
        ("Room  4 [de3f]", True, False, False),
        ("room 4", True, False, False),
        ("[de3f] room 4 [ab2c]", True, False, False),
        ("room 44 [ab2c]", False, True, False),
        ("bedroom 4 [ab2c]", False, True, False),
        (NOT_SAID, False, False, True),
        (f"room 4 [ab2c] {NOT_SAID}", False, True, True),
        ("word " * 40 + "room 4 [ab2c]", False, True, False),
    ],
)
def test_a_reply_is_right_where_it_copies_little_else(reply: str, copied: bool, named: bool, abstained: bool) -> None:
    read = Read(ANSWERED, reply)
    assert (read.copied, read.named, read.abstained) == (copied, named, abstained)


def test_figures_are_of_the_questions_that_they_are_about() -> None:
    read = [
        Read(ANSWERED, "room 4 [ab2c]"),
        Read(ANSWERED, "room 4 [de3f]"),
        Read(ANSWERED, NOT_SAID),
        Read(UNANSWERED, NOT_SAID),
        Read(UNANSWERED, "room 4 [ab2c]"),
    ]
    told = {name: (share.right, share.total) for name, share in shares(read).items()}
    assert told == {
        "copied": (2, 3),
        "named": (1, 3),
        "copied_and_named": (1, 3),
        "abstained": (1, 2),
        "answerable_refused": (1, 3),
    }


def test_the_bar_takes_both_copying_and_abstaining() -> None:
    right, wrong = Read(ANSWERED, "room 4 [ab2c]"), Read(ANSWERED, "Gate 2 [de3f]")
    silent, loud = Read(UNANSWERED, NOT_SAID), Read(UNANSWERED, "room 4 [ab2c]")
    assert reaches_bar([right] * 17 + [wrong] * 3 + [silent] * 9 + [loud])
    assert not reaches_bar([right] * 16 + [wrong] * 4 + [silent] * 10)
    assert not reaches_bar([right] * 20 + [silent] * 8 + [loud] * 2)


def test_held_out_items_are_the_held_out_groups_and_show_the_right_passage() -> None:
    fitted = {row.text for name in SETS for group in split(read_groups(name))[0] for row in group.passages}
    items = written_items(None)
    assert len(items) > 500 and written_items(300) == written_items(300) and len(written_items(300)) == 300
    for item in items:
        codes = [code for code, _, _ in item.passages]
        assert len(set(codes)) == len(codes) == SHOWN
        assert not fitted & {text for _, _, text in item.passages}
        if item.right is not None:
            shown = next(text for code, _, text in item.passages if code == item.right)
            assert any(answer.casefold() in shown.casefold() for answer in item.answers), item.question
    where = [[code for code, _, _ in item.passages].index(item.right) for item in items if item.right is not None]
    assert all(where.count(place) > 50 for place in range(SHOWN)), "the right passage stands anywhere"


def test_what_is_trained_on_is_not_held_out(tmp_path: Path) -> None:
    path = tmp_path / "exercises.jsonl"
    assert write_exercises(path) == len(read_written(path))
    held = {text for item in written_items(None) for _, _, text in item.passages}
    exercises = list(training_exercises())
    assert exercises == read_written(path)
    assert not held & {passage.text for one in exercises for passage in one.passages}
    assert sum(len(one.asked) for one in exercises) > 2000


def test_generated_items_are_seeded_and_some_have_no_answer() -> None:
    items = generated_items(100)
    assert items == generated_items(100) != generated_items(100, reworded=True)
    assert 15 < sum(item.right is None for item in items) < 60
    for item in items:
        if item.right is not None:
            assert item.answers[0] in next(text for code, _, text in item.passages if code == item.right)


def test_every_other_xquad_question_loses_its_paragraph(tmp_path: Path) -> None:
    paragraphs = [
        {
            "context": f"In town {n} the bell has number {n}{n}.",
            "qas": [{"question": f"Bell {n}?", "answers": [{"text": f"{n}{n}"}]}] * 2,
        }
        for n in range(6)
    ]
    folder = tmp_path / "xquad"
    folder.mkdir()
    (folder / "xquad.en.json").write_text(json.dumps({"data": [{"title": "Bells", "paragraphs": paragraphs}]}))
    items = xquad_items(tmp_path, None)
    assert len(items) == 12
    for place, item in enumerate(items):
        number = item.question.split()[1].rstrip("?")
        there = [code for code, _, text in item.passages if f"number {number}{number}." in text]
        assert len(item.passages) == SHOWN
        assert there == ([item.right] if place % 2 == 0 else []) and (item.right is None) == (place % 2 == 1)
    assert xquad_items(tmp_path, 4) == [items[0], items[3], items[6], items[9]]
    with pytest.raises(DeskError, match="--data"):
        xquad_items(tmp_path / "none")


def test_figures_are_recorded_in_card_and_manifest(tmp_path: Path) -> None:
    with pytest.raises(DeskError, match="pretrain --reading"):
        record(tmp_path, {}, "command")
    fields = {"name": "r", "parameters": 1, "can_chat": False, "can_read": False, "window": 8, "config_hash": "x"}
    (tmp_path / "base.json").write_text(json.dumps(fields), encoding="utf-8")
    (tmp_path / "README.md").write_text("# r\n\n## Figures\n\nNot measured yet.\n", encoding="utf-8")
    good = [Read(ANSWERED, "room 4 [ab2c]"), Read(UNANSWERED, NOT_SAID)] * 50
    bad = [Read(ANSWERED, NOT_SAID), Read(UNANSWERED, NOT_SAID)] * 50
    own = {"generated": good, "reworded": good, "written": good}
    for read, can in (
        ({**own, "xquad": bad}, True),
        ({**own, "written": bad}, False),
        ({**own, "reworded": good[:99]}, False),
        ({"generated": good, "written": good}, False),
    ):
        assert record(tmp_path, read, "the command") is can
        manifest = json.loads((tmp_path / "base.json").read_text(encoding="utf-8"))
        assert manifest["can_read"] is can and manifest["created"]["reading"]["generated"]["copied"]["total"] == 50
        card = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "the command" in card and "Not measured" not in card and card.count("## Figures") == 1
        assert ("may answer" in card) is can
        few = len(read.get("reworded", [])) < 100
        assert ("at least 100 questions of each set are needed, also of reworded." in card) is few


@pytest.mark.parametrize(
    ("given", "told"), [(["--set", "xquad"], "needs --data"), (["--set", "written", "--record"], "leave out --set")]
)
def test_options_that_do_not_go_together_are_told(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["reading", *given])
    assert told in capsys.readouterr().err
