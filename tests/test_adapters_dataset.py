"""Rows are read or refused by line; splits and noise are seeded; labels cover the answer alone."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from adapters_small import TEXTS, quick_training

from adapters.augment import Noise, disturb
from adapters.checks import groups_of
from adapters.dataset import Example, Split, dataset_hash, disturb_prompt, read_examples, split, token_rows
from adapters.errors import DatasetError
from adapters.tiny.tokenizer import train_tokenizer

ROWS = [Example(f"question {n} of answer {n % 3}", f"answer {n % 3}") for n in range(30)]
SILENT = Noise(drop=0, slip=0, lower=0, bare=0, opening=0, closing=0, shuffle=0)


@cache
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 520)


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "c", "completion": "d", "intent": "e"}\n')
    assert read_examples(path) == [Example("a", "b"), Example("c", "d", "e")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("not json", "no JSON object"),
        ('{"prompt": "a"}', "completion: Field required"),
        ('{"prompt": "", "completion": "b"}', "prompt: String should have at least 1 character"),
        ('{"prompt": "a", "completion": "b", "answer": "c"}', "answer: Extra inputs are not permitted"),
        ('{"prompt": 3, "completion": "b"}', "prompt: Input should be a valid string"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_fault(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' + line + "\n")
    with pytest.raises(DatasetError) as caught:
        read_examples(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert fault in str(caught.value)


def test_a_missing_and_an_empty_file_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing"):
        read_examples(tmp_path / "train.jsonl")
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DatasetError, match="holds no rows"):
        read_examples(tmp_path / "train.jsonl")


def test_a_split_takes_its_share_of_every_answer_and_is_the_same_for_the_same_seed() -> None:
    training, validation = split(ROWS, 0.2, 7)
    assert [sum(row.completion == f"answer {n}" for row in validation) for n in range(3)] == [2, 2, 2]
    assert sorted(row.prompt for row in training + validation) == sorted(row.prompt for row in ROWS)
    assert split(list(reversed(ROWS)), 0.2, 7) == (training, validation)
    assert split(ROWS, 0.2, 8)[1] != validation


def test_an_answer_with_one_row_is_not_held_out() -> None:
    assert split([Example("a", "b")], 0.5, 1) == ([Example("a", "b")], [])


def words(chance: random.Random) -> str:
    return "".join(chance.choices("abcdefghij", k=14))


@pytest.mark.parametrize("answers", [20, 200])
def test_rows_keep_their_side_when_others_come_and_new_ones_fill_the_share_up(answers: int) -> None:
    """With ten questions of an answer, and with one."""
    chance = random.Random(2)
    rows = [Example(words(chance), f"answer {number % answers}") for number in range(200)]
    training, validation = split(rows, 0.15, 3)
    before = Split.of(3, 0.15, validation, training)
    new = [Example(words(chance), f"answer {number if answers == 200 else number % 7}") for number in range(200, 240)]
    gone = {*validation[:2], *training[:3]}
    kept = [row for row in rows if row not in gone]
    second, held = split([*kept, *new], 0.15, 3, before)
    assert set(validation[2:]) <= set(held) and set(training[3:]) <= set(second)
    assert len(held) == int(0.15 * (len(kept) + len(new))) and set(held) & set(new)
    assert before.unseen(held) == held and set(before.unseen(second)) == set(second) & set(new)
    assert set(split([*kept, *new], 0.15, 3)[1]) & set(training), "drawn anew, the old version has seen some"
    assert split([*kept, *new], 0.15, 4, before) == split([*kept, *new], 0.15, 4), "another seed draws anew"
    assert split(kept, 0.15, 3, Split.of(3, 0.15, validation)) == split(kept, 0.15, 3), "nothing says what it had"


def test_a_new_question_near_one_that_was_held_out_is_held_out_with_it() -> None:
    old = [Example(f"{word} is broken since the storm", "Call us.") for word in ("lamp", "elevator", "doorbell")]
    before = Split.of(1, 0.4, old[:1], old[1:])
    near = Example("Lamp is broken since the storms!", "Call us.")
    assert groups_of([old[0].prompt, near.prompt]) in ([0, 0], [1, 1])
    assert set(split([*old, near], 0.4, 1, before)[1]) == {old[0], near}


def test_the_dataset_hash_ignores_order_and_sees_every_word() -> None:
    assert dataset_hash(ROWS) == dataset_hash(ROWS[::-1])
    assert dataset_hash(ROWS) != dataset_hash([*ROWS[1:], Example("question 0 of answer 1", "answer 0")])


def test_labels_are_the_completion_and_the_end_alone() -> None:
    row = token_rows([Example("My screen?", "The cable.")], tokenizer(), quick_training(epochs=1))[0]
    taken = [label for label in row.labels if label != -100]
    assert tokenizer().decode(taken) == "The cable.<|end|><|endoftext|>"
    assert row.input_ids[-len(taken) :] == taken


def test_most_rows_stop_after_the_first_tokens_of_the_answer() -> None:
    settings = quick_training(epochs=200, full_answers=0.25, opening_tokens=2)
    rows = token_rows([Example("My screen?", "Reseat the video cable.")], tokenizer(), settings)
    lengths = [sum(label != -100 for label in row.labels) for row in rows]
    full = max(lengths)
    assert set(lengths) == {2, full}
    assert 30 <= lengths.count(full) <= 70


def test_rows_of_the_same_seed_are_the_same_and_of_another_are_not() -> None:
    one = token_rows(ROWS, tokenizer(), quick_training(noise=1.0))
    assert one == token_rows(ROWS, tokenizer(), quick_training(noise=1.0))
    assert one != token_rows(ROWS, tokenizer(), quick_training(noise=1.0, seed=1))


def test_a_row_too_long_for_the_recipe_is_refused() -> None:
    with pytest.raises(DatasetError, match="longer than max_tokens=16"):
        token_rows([Example("word " * 50, "answer")], tokenizer(), quick_training(max_tokens=16))


def test_without_noise_a_text_is_unchanged() -> None:
    text = "Two  lines,\nand Commas!"
    assert disturb(text, SILENT, random.Random(1)) == text


def test_noise_keeps_at_least_half_of_the_words() -> None:
    chance = random.Random(1)
    noise = Noise(drop=1.0, slip=0, lower=0, bare=0, opening=0, closing=0, shuffle=0)
    words = [f"w{n}" for n in range(10)]
    for _ in range(50):
        assert len(disturb(" ".join(words), noise, chance).split()) >= 5


def test_the_instruction_line_of_a_prompt_is_never_disturbed() -> None:
    chance = random.Random(1)
    loud = Noise(drop=0.5, slip=1, lower=1, bare=1, opening=1, closing=1, shuffle=1)
    for _ in range(20):
        assert disturb_prompt("Triage this ticket.\nThe Printer jams, again.", loud, chance).startswith(
            "Triage this ticket.\n"
        )
