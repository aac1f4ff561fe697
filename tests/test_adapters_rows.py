"""Training data in any form becomes rows with places; what is wrong with it is told by file and line."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import openpyxl
import pytest
from adapters_small import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.__main__ import main
from adapters.checks import (
    ALIKE,
    _jaccard,
    _shingles,
    check_rows,
    groups_of,
    personal_data,
    plain,
    statistics,
    without,
)
from adapters.dataset import Split, row_hash, split
from adapters.errors import DatasetError
from adapters.prompts import Message
from adapters.rows import Example, Placed, as_lines, from_line, read_rows
from adapters.tiny.tokenizer import train_tokenizer

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "My screen?"},
    {"role": "assistant", "content": "The cable."},
    {"role": "user", "content": "Which?"},
    {"role": "assistant", "content": "The blue one."},
]
CHAT_ROWS = [
    Example("My screen?", "The cable.", None, (Message("system", "Be kind."),)),
    Example(
        "Which?",
        "The blue one.",
        None,
        (Message("system", "Be kind."), Message("user", "My screen?"), Message("assistant", "The cable.")),
    ),
]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_every_form_of_json_gives_the_same_rows(tmp_path: Path) -> None:
    share = [{"from": "system", "value": "Be kind."}] + [
        {"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]} for turn in CHAT[1:]
    ]
    path = lines(
        tmp_path / "train.jsonl",
        {"messages": CHAT},
        {"conversations": share, "id": 7},
        {"instruction": "My screen?", "output": "The cable.", "system": "Be kind."},
        {"instruction": "Sort this.", "input": "A ticket", "output": "P1"},
        {"prompt": "My screen?", "completion": "The cable.", "intent": "screen"},
    )
    placed, faults = read_rows(path)
    assert faults == []
    assert [one.row for one in placed] == [
        *CHAT_ROWS,
        *CHAT_ROWS,
        CHAT_ROWS[0],
        Example("Sort this.\nA ticket", "P1"),
        Example("My screen?", "The cable.", "screen"),
    ]
    assert [one.line for one in placed] == [1, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", "semicolon.csv"])
def test_tables_name_their_columns_in_any_case(tmp_path: Path, suffix: str) -> None:
    table = [
        ("Question", "Topic", "Answer"),
        ("My, screen?", "screen", "The cable;\nboth ends."),
        ("Mail?", "", "Wait."),
    ]
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in table:
            book.active.append(row)
        book.save(path)
    else:
        mark = ";" if "semicolon" in suffix else ","
        text = "\r\n".join(mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in table)
        path.write_text("\ufeff" + text + "\r\n", encoding="utf-8", newline="")
    placed, faults = read_rows(path)
    assert faults == []
    assert [one.row for one in placed] == [
        Example("My, screen?", "The cable;\nboth ends.", "screen"),
        Example("Mail?", "Wait."),
    ]


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("not json", "form", "no JSON object"),
        ("[" * 100_000, "form", "no JSON object"),
        ({"prompt": "a"}, "form", "completion: Field required"),
        ({"prompt": "a", "completion": "b", "answer": "c"}, "form", "answer: Extra inputs"),
        ({"messages": CHAT[:2]}, "roles", "the last message has to be the assistant's"),
        ({"messages": [CHAT[1], CHAT[1], CHAT[2]]}, "roles", "message 2 is of 'user', where 'assistant' has to speak"),
        ({"messages": [CHAT[1], {"role": "tool", "content": "x"}]}, "roles", "message 2 is of 'tool'"),
        (
            {"messages": [CHAT[1], {"role": "assistant", "content": " "}]},
            "roles",
            "message 2, of 'assistant', is empty",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]},
            "roles",
            "message 1 is of",
        ),
    ],
)
def test_a_bad_row_is_named_and_costs_no_other(tmp_path: Path, row: object, kind: str, words: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    placed, faults = read_rows(lines(tmp_path / "train.jsonl", good, row, good))
    assert [one.line for one in placed] == [1, 3]
    (fault,) = faults
    assert (fault.kind, fault.line, fault.severe) == (kind, 2, True) and words in str(fault)
    assert str(fault).startswith(f"{tmp_path / 'train.jsonl'}, line 2: ")


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff", "completion": "b"}\n')
    placed, faults = read_rows(path)
    assert len(placed) == 1 and "line 2: it is not UTF-8 text" in str(faults[0])
    (tmp_path / "a.csv").write_bytes(b"question,answer\n\xff,b\n")
    with pytest.raises(DatasetError, match="save it as CSV UTF-8"):
        read_rows(tmp_path / "a.csv")


def test_a_list_of_rows_is_read_and_a_fault_in_it_is_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"messages": CHAT}, {"prompt": "", "completion": "a"}, 7, {"instruction": "Sort this.", "output": "P1"}]
    path.write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    placed, faults = read_rows(path)
    assert [(one.row.prompt, one.line) for one in placed] == [("My screen?", 1), ("Which?", 1), ("Sort this.", 4)]
    assert [(fault.line, fault.kind) for fault in faults] == [(2, "form"), (3, "form")]
    assert "rows.json, row 2: prompt: " in str(faults[0])
    path.write_text(json.dumps({"rows": rows}))
    with pytest.raises(DatasetError, match="holds no list"):
        read_rows(path)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.xlsx", "a.txt", "none.jsonl", "empty.jsonl"])
def test_a_file_of_no_use_is_one_sentence(tmp_path: Path, name: str) -> None:
    if name != "none.jsonl":
        (tmp_path / name).write_text("" if name == "empty.jsonl" else "one,two\n1,2\n")
    with pytest.raises(DatasetError, match=name):
        read_rows(tmp_path / name)


def placed(*pairs: tuple[str, str], name: str = "train.jsonl") -> list[Placed]:
    return [Placed(Example(*pair), Path(name), line) for line, pair in enumerate(pairs, 1)]


def kinds(rows: Sequence[Placed], held_out: Sequence[Placed] = ()) -> list[tuple[int, str]]:
    return [(fault.line, fault.kind) for fault in check_rows(rows, held_out)]


def test_repeats_and_contradictions_are_told_whatever_case_and_marks() -> None:
    rows = placed(
        ("My screen flickers!", "Check the cable."),
        ("my  screen flickers", "Check the cable."),
        ("My screen flickers?", "Buy another one."),
        ("The printer jams", "Check the cable."),
    )
    assert kinds(rows) == [(2, "duplicate"), (3, "contradiction")]
    assert "line 1 answers the same question differently" in check_rows(rows)[1].message
    assert [one.line for one in without(rows, check_rows(rows))] == [1, 4]


def test_the_same_question_after_another_history_is_no_contradiction() -> None:
    first = Example("Which?", "The blue one.", None, (Message("user", "Cable?"),))
    second = Example("Which?", "The red one.", None, (Message("user", "Bin?"),))
    assert kinds([Placed(first, Path("a"), 1), Placed(second, Path("a"), 2)]) == []


def test_a_second_copy_in_a_conversation_costs_its_other_answers_nothing(tmp_path: Path) -> None:
    greeting = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    asked = [
        [{"role": "user", "content": f"Where is {thing}?"}, {"role": "assistant", "content": "Upstairs."}]
        for thing in ("the bin", "the yard")
    ]
    placed, _ = read_rows(lines(tmp_path / "train.jsonl", *({"messages": greeting + turns} for turns in asked)))
    faults = check_rows(placed)
    assert [(fault.line, fault.kind, fault.row) for fault in faults] == [(2, "duplicate", placed[2].row)]
    assert without(placed, faults) == [*placed[:2], placed[3]]


def test_another_row_of_a_json_list_is_named_as_such() -> None:
    rows = placed(("Where?", "Here."), ("Where?", "Here."), ("Where?", "There."), name="pairs.json")
    same, other = check_rows(rows)
    assert str(same) == "pairs.json, row 2: it says the same as row 1."
    assert str(other) == "pairs.json, row 3: row 1 answers the same question differently: keep one."
    leak = check_rows(rows[:1], placed(("Where?", "Here."), name="eval.jsonl"))[0]
    assert "nearly that of pairs.json, row 1:" in leak.message


@pytest.mark.parametrize(("intent", "system"), [(None, 1), ("screen", 0)])
def test_a_conversation_is_written_as_one_line_and_read_as_the_same_rows(
    tmp_path: Path, intent: str | None, system: int
) -> None:
    chat: dict[str, object] = {"messages": CHAT[1 - system :]} | ({"intent": intent} if intent else {})
    single = {"prompt": "My screen?", "completion": "The cable.", "intent": "screen"}
    rows = [one.row for one in read_rows(lines(tmp_path / "one.jsonl", single, chat, chat, single))[0]]
    assert len(rows) == 6
    written = as_lines(rows)
    assert [json.loads(line) for line in written] == [single, chat, chat, single]
    (tmp_path / "two.jsonl").write_text("".join(written), encoding="utf-8")
    assert [one.row for one in read_rows(tmp_path / "two.jsonl")[0]] == rows
    assert [row for line in written for row in from_line(line)] == rows


def test_a_held_out_question_that_training_nearly_holds_is_a_leak() -> None:
    rows = placed(("My laptop screen flickers when I move the lid", "Cable."), ("The printer jams", "Paper."))
    held = placed(
        ("my laptop screen flickers when I move the lids", "Cable."), ("Nothing prints", "Paper."), name="eval"
    )
    assert kinds(rows, held) == [(1, "leakage")]
    assert "nearly that of train.jsonl, line 1" in check_rows(rows, held)[0].message


def test_cut_answers_control_tokens_and_empty_texts_are_told() -> None:
    whole = [(f"question {n}", f"Answer {n} is here.") for n in range(10)]
    rows = placed(*whole, ("a", "First open the"), ("b", "Then wait and"), ("c", "It is <|end|> done."), ("d", " "))
    assert kinds(rows) == [(11, "truncated"), (12, "truncated"), (13, "control"), (14, "empty")]
    assert kinds(placed(("Which category?", "hardware"), ("Which priority?", "P1"))) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("write to ann.lee@corvane.com today", ["an e-mail address"]),
        ("write to service-desk@corvane.example today", []),
        ("card 4111 1111 1111 1111 is mine", ["a card number"]),
        ("ticket 4111 1111 1111 1112 is mine", []),
        ("pay to DE89 3704 0044 0532 0130 00 please", ["a bank account"]),
        ("call +44 20 7946 0958 now", ["a telephone number"]),
        ("call extension 4400 before 17:30 on 2024-05-01", []),
        ("his number is 078-05-1120", ["a social security number"]),
        ("the key is ghp_0123456789abcdefABCDEF", ["a key or token"]),
    ],
)
def test_personal_data_is_told_by_its_kind(text: str, what: list[str]) -> None:
    assert personal_data(text) == what


@given(st.lists(st.text("ab ", min_size=1, max_size=12), min_size=1, max_size=14))
@settings(max_examples=150, deadline=None)
def test_groups_are_those_that_comparing_every_pair_gives(prompts: list[str]) -> None:
    sets = [_shingles(plain(prompt)) for prompt in prompts]
    numbers = list(range(len(prompts)))
    for one in range(len(prompts)):
        for other in range(one):
            if _jaccard(sets[one], sets[other]) >= ALIKE:
                old, new = numbers[one], numbers[other]
                numbers = [new if number == old else number for number in numbers]
    found = groups_of(prompts)
    pairs = [(one, other) for one in range(len(prompts)) for other in range(one)]
    assert [found[a] == found[b] for a, b in pairs] == [numbers[a] == numbers[b] for a, b in pairs]


def test_near_duplicates_stay_on_one_side_of_the_split() -> None:
    words = random.Random(1)
    questions = ["".join(words.choices("abcdefghijklmnop", k=12)) for _ in range(40)]
    rows = [Example(f"{question}{end}", f"answer {n % 4}") for n, question in enumerate(questions) for end in ("", "!")]
    training, validation = split(rows, 0.25, 3)
    assert {row.prompt.rstrip("!") for row in training} & {row.prompt.rstrip("!") for row in validation} == set()
    assert 14 <= len(validation) <= 26 and len(training) + len(validation) == 80
    assert {row.completion for row in training} == {f"answer {n}" for n in range(4)}
    kept = Split.of(3, 0.25, validation)
    assert sorted(map(row_hash, kept.left_out(rows))) == sorted(map(row_hash, validation))
    assert split(list(reversed(rows)), 0.25, 3) == (training, validation)


def test_statistics_count_tokens_as_training_sees_them() -> None:
    tokenizer = train_tokenizer(TEXTS, 520)
    rows = placed(("My screen?", "The cable."), ("My screen?", "The cable. " * 40))
    found, faults = statistics(rows, tokenizer, 64)
    assert (found.rows, found.answers, found.dropped) == (2, 2, 1) and found.longest > 64
    assert sum(count for _, count in found.histogram) == 2
    assert [(fault.line, fault.kind) for fault in faults] == [(2, "too long")]


def test_the_command_tells_faults_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = lines(tmp_path / "good.jsonl", {"messages": CHAT})
    assert main(["check", str(good)]) == 0
    assert "2  rows to train on" in capsys.readouterr().out
    bad = lines(tmp_path / "bad.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "A", "completion": "c"}, "x")
    assert main(["check", str(bad)]) == 1
    shown = capsys.readouterr()
    assert "one question with different answers" in shown.out and "line 3: no JSON object" in shown.out
    assert "2 rows cannot be trained on as they are" in shown.err


@pytest.mark.parametrize("name", ["it-support", "service-desk", "triage"])
def test_the_sample_desks_rows_have_no_severe_fault(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", name, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["kind"] for row in found if row["type"] == "fault"} <= {"duplicate"}
