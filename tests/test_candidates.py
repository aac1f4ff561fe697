"""What readers say of an adapter's answers becomes rows of its data, once somebody has decided: and only then."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import openpyxl
import pytest
from small_desk import ANSWER, QUESTIONS, add_parking, parking_rows, small_desk
from test_adapters_interrupted import file_limit

from adapters.checks import check_rows
from adapters.dataset import read_examples
from adapters.errors import DatasetError, UnwritableError
from adapters.extend import extend
from adapters.rows import Example, Fault, Placed
from app.__main__ import main
from app.assembly import Switchboard
from app.candidates import Candidate, candidates
from app.records import Correction, Feedback, Records, open_records
from app.review import COLUMNS, lines, read_review, take_review, write_review
from chains.turn import Route, RouteOption

PARKING = RouteOption(Route.ADAPTER, "parking")
BETTER = "Ask the porter at gate 2."


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = open_records("", tmp_path / "records.db")
    yield opened
    opened.close()


def down(user: str, question: str, value: str = "down", decided: RouteOption = PARKING) -> Feedback:
    return Feedback(user, "thumb", value, question, decided)


def said(records: Records) -> list[tuple[str, str, int]]:
    return [(one.question, one.answer, one.people) for one in candidates(records, "parking")]


def test_a_better_answer_and_an_answer_of_no_help_are_candidates(records: Records) -> None:
    records.keep(down("u", "where do I park?"))
    records.correct(Correction("v", "parking", "who opens the barrier?", BETTER))
    records.keep(down("w", "where do I park", decided=RouteOption(Route.RETRIEVAL)))
    records.keep(down("w", "where do I park", decided=RouteOption(Route.ADAPTER, "other")))
    records.correct(Correction("v", "other", "who?", "They."))
    assert sorted(said(records)) == [("where do I park?", "", 1), ("who opens the barrier?", BETTER, 1)]


def test_near_duplicates_are_one_candidate_with_the_people_behind_it(records: Records) -> None:
    for user, question in (("u", "Where do I park?"), ("v", "where do i park"), ("u", "where do I park !")):
        records.keep(down(user, question))
    assert said(records) == [("where do I park !", "", 2)]
    records.correct(Correction("x", "parking", "Where do I park?", BETTER))
    assert ("Where do I park?", BETTER, 1) in said(records)
    records.correct(Correction("y", "parking", "where do I park", "Nowhere."))
    assert said(records) == [("Where do I park?", BETTER, 1), ("where do I park", "Nowhere.", 1)]


def test_what_a_reader_said_last_counts(records: Records) -> None:
    records.keep(down("u", "where do I park?"))
    records.keep(down("u", "where do I park?", "up"))
    records.correct(Correction("v", "parking", "who opens the barrier?", "First."))
    records.correct(Correction("v", "parking", "who opens the barrier?", "Second."))
    assert said(records) == [("who opens the barrier?", "Second.", 1)]


def test_those_with_most_people_come_first_and_personal_data_is_pointed_out(records: Records) -> None:
    records.correct(Correction("v", "parking", "who opens?", "Write to ann.lee@corp.test for it."))
    for user in "uvw":
        records.keep(down(user, "where do I park?"))
    first, second = candidates(records, "parking")
    assert first.why == "3 people found the answer no help"
    assert second.why == "1 person wrote this answer; take out what looks like an e-mail address"


def test_what_was_decided_is_not_put_forward_again(records: Records) -> None:
    records.keep(down("u", "where do I park?"))
    records.keep(down("v", "where do I parkk?"))
    records.correct(Correction("w", "parking", "who opens?", BETTER))
    assert records.review([one.key for one in candidates(records, "parking")]) and said(records) == []
    records.correct(Correction("x", "parking", "Who opens", BETTER))
    assert said(records) == []
    records.correct(Correction("x", "parking", "who opens?", f"{BETTER}!"))
    assert said(records) == [("who opens?", f"{BETTER}!", 1)]


def test_who_complains_after_the_decision_is_heard_anew(records: Records) -> None:
    for user in "uv":
        records.keep(down(user, "where do I park?"))
    records.review([one.key for one in candidates(records, "parking")])
    for user in "wxy":
        records.keep(down(user, "Where do I park"))
    assert said(records) == [("Where do I park", "", 3)]


def test_a_better_answer_stands_for_the_complaints_about_its_own_question_alone_and_only_while_it_waits(
    records: Records,
) -> None:
    for user in "uv":
        records.keep(down(user, "how do I enable the barrier?"))
        records.keep(down(user, "how do I disable the barrier?"))
    records.correct(Correction("w", "parking", "how do I disable the barrier!", "Buzz!"))
    assert sorted(said(records)) == [
        ("how do I disable the barrier!", "Buzz!", 1),
        ("how do I enable the barrier?", "", 2),
    ]
    records.review([one.key for one in candidates(records, "parking") if one.answer])
    assert {(answer, people) for _, answer, people in said(records)} == {("", 2)}


def placed(*pairs: tuple[str, str]) -> list[Placed]:
    return [Placed(Example(*pair), Path("review.xlsx"), line) for line, pair in enumerate(pairs, 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chat = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello."))]
    more = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}]
    rows = [
        {"prompt": "Where do I park?", "completion": "In the yard.", "intent": "yard"},
        {"messages": chat + more},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "eval.jsonl").write_text(json.dumps({"prompt": "Is there a bicycle cellar?", "completion": "Yes."}))
    return tmp_path


def test_sound_rows_are_added_with_the_topic_of_their_answer(folder: Path) -> None:
    done = extend(folder, placed(("Can I leave my car?", "In the yard."), ("Who sweeps?", "Nobody does.")))
    assert (done.added[0].intent, done.added[1].intent, done.replaced, done.faults) == ("yard", None, 0, ())
    rows = read_examples(folder / "train.jsonl")
    assert [row.prompt for row in rows] == [
        "Where do I park?",
        "Hi",
        "Where is it?",
        "Can I leave my car?",
        "Who sweeps?",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["eval.jsonl", "train.jsonl"]


def test_another_answer_takes_the_old_ones_place_and_the_same_is_not_written_twice(folder: Path) -> None:
    done = extend(folder, placed(("where do I park", "In the cellar."), ("Hi!", "Hello.")))
    assert (len(done.added), done.replaced, done.known) == (1, 1, 1)
    rows = read_examples(folder / "train.jsonl")
    assert [(row.prompt, row.completion) for row in rows if "park" in row.prompt] == [
        ("where do I park", "In the cellar.")
    ]
    assert [row.prompt for row in rows][:2] == ["Hi", "Where is it?"]


def test_one_bad_row_costs_no_other_its_place(folder: Path) -> None:
    rows = placed(
        ("Who sweeps?", "Nobody does."),
        ("Who cooks?", ""),
        ("is there a bicycle cellar", "No."),
        ("who sweeps", "Somebody does."),
    )
    done = extend(folder, rows)
    assert [row.prompt for row in done.added] == ["Who sweeps?"]
    assert [(fault.line, fault.kind) for fault in done.faults] == [(3, "empty"), (5, "contradiction"), (4, "leakage")]
    whole = [Placed(row, folder / "train.jsonl", 1) for row in read_examples(folder / "train.jsonl")]
    assert not [fault for fault in check_rows(whole) if fault.severe]


def test_marks_and_case_of_an_answer_count(folder: Path) -> None:
    done = extend(folder, placed(("where do I park", "in the yard!")))
    assert (len(done.added), done.replaced, done.known) == (1, 1, 0)
    assert read_examples(folder / "train.jsonl")[-1].completion == "in the yard!"


def test_a_question_within_a_conversation_is_named_and_left(folder: Path) -> None:
    before = (folder / "train.jsonl").read_bytes()
    done = extend(folder, placed(("hi", "Good day.")))
    assert (done.added, [(fault.line, fault.kind) for fault in done.faults]) == ((), [(2, "contradiction")])
    assert "line 2 of train.jsonl answers it within a conversation" in str(done.faults[0])
    assert (folder / "train.jsonl").read_bytes() == before


def test_lines_are_those_that_were_read_whatever_ends_them(folder: Path) -> None:
    rows = [json.dumps({"prompt": f"{word}?", "completion": f"Answer {word}."}) for word in ("one", "two", "three")]
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\r\n".join(rows).encode())
    extend(folder, placed(("Three?", "Another.")))
    pairs = [(row.prompt, row.completion) for row in read_examples(folder / "train.jsonl")]
    assert pairs == [("one?", "Answer one."), ("two?", "Answer two."), ("Three?", "Another.")]


def test_two_at_once_and_a_disk_that_takes_nothing_leave_the_rows_as_they_were(folder: Path) -> None:
    before = (folder / "train.jsonl").read_bytes()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(DatasetError, match="Somebody else is adding rows"):
        extend(folder, placed(("Who sweeps?", "Nobody does.")))
    os.close(handle)
    with file_limit(100), pytest.raises(UnwritableError, match="cannot be written"):
        extend(folder, placed(("Who sweeps?", "Nobody does.")))
    assert (folder / "train.jsonl").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["eval.jsonl", "train.jsonl"]


def test_a_row_that_is_added_meanwhile_is_not_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "train.jsonl"

    def slow(rows: Sequence[Placed], held_out: Sequence[Placed] = ()) -> list[Fault]:
        if not held_out:
            path.write_text(json.dumps({"prompt": "new", "completion": "Row."}) + "\n" + path.read_text())
        return []

    monkeypatch.setattr("adapters.extend.check_rows", slow)
    with pytest.raises(DatasetError, match="was changed meanwhile"):
        extend(folder, placed(("Who sweeps?", "Nobody does.")))
    assert read_examples(path)[0].prompt == "new"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Switchboard]:
    with small_desk(tmp_path / tmp_path.name) as board:
        add_parking(board, parking_rows())
        yield board


def decide(path: Path, *decisions: tuple[str, str | None]) -> None:
    """Writes into the first column, and another answer where one is given."""
    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    for line, (take, answer) in enumerate(decisions, 2):
        sheet.cell(line, 1).value = take
        if answer is not None:
            sheet.cell(line, 3).value = answer
    book.save(path)


def test_from_a_readers_words_to_a_row_of_the_data(own: Switchboard, tmp_path: Path) -> None:
    hostile = '=HYPERLINK("http://x.test","open")\x07\uffff'
    for user in "uv":
        own.records.keep(down(user, "where can I get my parking permit now"))
    own.records.correct(Correction("u", "parking", hostile, BETTER))
    own.records.correct(Correction("w", "parking", "who repairs the barrier?", "+49 is its code"))
    path = tmp_path / "review.xlsx"
    assert write_review(own, "parking", path) == (3, 0)
    sheet = openpyxl.load_workbook(path).worksheets[0]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[0] == list(COLUMNS) and rows[1][:3] == [None, "where can I get my parking permit now", None]
    assert all(cell.data_type != "f" and cell.hyperlink is None for row in sheet.iter_rows() for cell in row)
    assert rows[1][4] and rows[1][5] in QUESTIONS and rows[1][6] == ANSWER
    assert rows[2][1] == hostile[:-2]
    with pytest.raises(DatasetError, match="is there already"):
        write_review(own, "parking", path)

    decide(path, ("Yes", ANSWER), ("no", None), ("", None))
    reviewed, extended = take_review(own, "parking", path)
    assert lines("parking", reviewed, extended) == [
        "1 rows added, 0 in the place of another answer; 1 refused; 1 left for later",
        "`python -m adapters train parking` makes the next version.",
    ]
    last = read_examples(own.desk.adapters.shipped / "parking" / "train.jsonl")[-1]
    assert (last.prompt, last.completion) == ("where can I get my parking permit now", ANSWER)
    assert [one.question for one in candidates(own.records, "parking")] == ["who repairs the barrier?"]


def test_a_row_with_a_fault_stays_undecided(own: Switchboard, tmp_path: Path) -> None:
    own.records.keep(down("u", "who waters the plants of the garage"))
    path = tmp_path / "review.xlsx"
    write_review(own, "parking", path)
    decide(path, ("yes", None))
    reviewed, extended = take_review(own, "parking", path)
    told = lines("parking", reviewed, extended)
    assert told[0].startswith("0 rows added") and re.search(
        "not taken: .*review.xlsx, line 2: the answer is empty", told[1]
    )
    assert len(candidates(own.records, "parking")) == 1
    assert len(read_examples(own.desk.adapters.shipped / "parking" / "train.jsonl")) == len(QUESTIONS)


def test_what_is_no_workbook_of_ours_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("no workbook")
    with pytest.raises(DatasetError, match="cannot be read as a workbook"):
        read_review(tmp_path / "a.xlsx", "parking")
    openpyxl.Workbook().save(tmp_path / "b.xlsx")
    with pytest.raises(DatasetError, match="lacks the columns take, question, answer, id"):
        read_review(tmp_path / "b.xlsx", "parking")


def test_a_workbook_of_another_adapter_is_refused(own: Switchboard, tmp_path: Path) -> None:
    own.records.correct(Correction("u", "parking", "who repairs the barrier?", BETTER))
    write_review(own, "parking", tmp_path / "a.xlsx")
    with pytest.raises(DatasetError, match="is not a workbook of cars: its sheet is called 'parking'"):
        read_review(tmp_path / "a.xlsx", "cars")
    for bad, told in (("a.csv", r"ends with \.xlsx"), ("absent/a.xlsx", "There is no folder")):
        with pytest.raises(DatasetError, match=told):
            write_review(own, "parking", tmp_path / bad)


def test_a_workbook_holds_so_many_and_says_how_many_wait(
    own: Switchboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.review.MOST", 1)
    for question in ("who repairs the barrier?", "is there any snow in spring"):
        own.records.correct(Correction("u", "parking", question, BETTER))
    assert write_review(own, "parking", tmp_path / "a.xlsx") == (1, 1)


def test_the_command_line_says_what_there_is(
    own: Switchboard, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = ["--desk", str(own.desk.root)]
    assert main(["candidates", "parking", *desk]) == 0
    assert "Readers have said nothing new about parking." in capsys.readouterr().out
    assert main(["candidates", "cars", *desk]) == 2
    assert "no adapter 'cars' that answers in words; known: parking" in capsys.readouterr().err
    own.records.correct(Correction("u", "parking", "who repairs the barrier?", BETTER))
    assert main(["candidates", "parking", *desk]) == 0
    assert (tmp_path / "parking-candidates.xlsx").is_file()
    decide(tmp_path / "parking-candidates.xlsx", ("yes", None))
    assert main(["candidates", "parking", "--take", "parking-candidates.xlsx", *desk]) == 0
    assert "1 rows added" in capsys.readouterr().out


def test_a_candidates_key_is_that_of_its_words() -> None:
    one = Candidate("parking", "Where do I park?", BETTER, 1)
    assert one.key == Candidate("parking", "where do I park", BETTER, 5).key
    assert (
        len({one.key, Candidate("other", one.question, BETTER, 1).key, Candidate("parking", one.question, "", 1).key})
        == 3
    )
