"""Reading exercises: what is asked is answered where it says, and the held-out half shares nothing with training's."""

import json
from pathlib import Path
from random import Random

import pytest

from adapters.errors import DatasetError
from adapters.prompts import Message, encode_chat
from adapters.reader import NOT_SAID, READER, asked, copied, shown_passage
from adapters.tiny.exercises import FACT, NOT_THERE, STEP, Asked, Exercise, Level, new_exercise, relations
from adapters.tiny.exercises import NOT_SAID as NOT_SAID_KIND
from adapters.tiny.reading import STAGES
from adapters.tiny.reading_rows import NOTHING, RowWriter, stack
from adapters.tiny.tokenizer import train_tokenizer
from adapters.tiny.words import VALUES, held_out, new_name, new_value
from adapters.tiny.written import WrittenExercise, drawn_exercise, read_written, write_written

LEVEL = Level((1, 4), (1, 3), (2, 5), referred=0.4, listed=0.3, steps=0.3, fillers=0.2, careless=0.3)


def exercises(count: int, *, held: bool = False, seed: int = 1) -> list[Exercise]:
    chance = Random(seed)
    return [new_exercise(LEVEL, chance, held_out=held, reworded=held) for _ in range(count)]


def test_a_seed_gives_the_same_exercises_and_another_one_others() -> None:
    assert exercises(20) == exercises(20)
    assert not set(exercises(20)) & set(exercises(20, seed=2))


@pytest.mark.parametrize("held", [False, True])
def test_every_answer_stands_in_the_passage_that_it_names_and_in_no_other(held: bool) -> None:
    told = 0
    for exercise in exercises(200, held=held):
        for one in exercise.asked:
            if one.answer is None or one.place is None:
                assert one.answer is one.place is None
                continue
            told += 1
            assert one.answer in exercise.passages[one.place].text
            if one.kind == FACT:
                assert [fact.place for fact in exercise.stated if fact.value == one.answer] == [one.place]
    assert told > 500


def test_what_nothing_answers_is_stated_nowhere() -> None:
    """No stated fact's subject and relation can be asked for in the words of such a question."""
    found = 0
    for exercise in exercises(300):
        stated = {
            ask.replace("{s}", name).lower().rstrip("?")
            for fact in exercise.stated
            for ask in fact.relation.asks
            for name in (fact.subject.full, fact.subject.short)
        }
        for one in exercise.asked:
            plain = one.question.lower().rstrip("?")
            if one.kind in {NOT_SAID_KIND, NOT_THERE}:
                found += 1
                assert one.answer is None and plain not in stated
            elif one.kind == FACT:
                assert plain in stated or _has_choices(exercise, one)
    assert found > 200


def _has_choices(exercise: Exercise, one: Asked) -> bool:
    """Whether the relation asked for words its question with choices, which the plain text above lacks."""
    return any("|" in ask for fact in exercise.stated if fact.value == one.answer for ask in fact.relation.asks)


def test_held_out_exercises_share_neither_names_nor_wordings_with_training() -> None:
    chance = Random(3)
    names = [{new_name(chance, half).lower() for _ in range(3000)} for half in (False, True)]
    assert not names[0] & names[1] and all(held_out(name) for name in names[1])
    for rows in relations().values():
        for relation in rows:
            for of, every in (("says", relation.says), ("asks", relation.asks)):
                assert len(set(every)) == len(every)
                trained = {relation.wording(of, 99, chance, False) for _ in range(60)}
                assert relation.wording(of, 99, chance, True) not in trained


def test_every_relation_has_a_value_and_says_both_of_what_it_is_about() -> None:
    for rows in relations().values():
        for relation in rows:
            assert relation.value in VALUES
            assert all("{s}" in text and "{v}" in text for text in relation.says), relation.label
            assert all("{s}" in text and "{v}" not in text for text in relation.asks), relation.label


def test_values_do_not_repeat_soon() -> None:
    for kind in ("phone", "person", "money", "date", "item", "code", "action", "email"):
        chance = Random(kind)
        assert len({new_value(kind, chance, False) for _ in range(200)}) > 150, kind


def test_a_level_without_unanswerable_questions_asks_none() -> None:
    chance = Random(5)
    level = Level((1, 1), (1, 1), (2, 3), unanswerable=0.0)
    asked_of = [one for _ in range(100) for one in new_exercise(level, chance).asked]
    assert {one.kind for one in asked_of} == {FACT}
    steps = Level((1, 1), (1, 1), (2, 3), unanswerable=0.0, steps=1.0)
    assert {one.kind for one in new_exercise(steps, chance).asked} == {STEP}


@pytest.fixture(scope="module")
def writer() -> RowWriter:
    return RowWriter(_tokenizer())


def _tokenizer() -> object:
    texts = [passage.text for one in exercises(300) for passage in one.passages]
    return train_tokenizer(
        [*texts, READER, NOT_SAID, *[asked(one.question) for one in exercises(50)[0].asked]], 700, True
    )


def test_a_row_holds_exactly_the_ids_of_a_chat_with_one_question(writer: RowWriter) -> None:
    tokenizer = _tokenizer()
    compared = 0
    for exercise in exercises(40, seed=8):
        row = writer.write(exercise, 10_000, told=True)
        shown = tuple(shown_passage(one.code, one.title, "", one.text) for one in exercise.passages)
        for one, block in zip(dict.fromkeys(exercise.asked), row.blocks, strict=True):
            reply = NOT_SAID
            if one.answer is not None and one.place is not None:
                reply = copied(one.answer, exercise.passages[one.place].code)
            messages = [Message("system", READER), Message("user", asked(one.question), shown)]
            whole = encode_chat(tokenizer, [*messages, Message("assistant", reply)], open_reply=False)
            opened = encode_chat(tokenizer, messages, open_reply=True)
            assert row.prefix + block.question == opened
            assert whole[: len(opened) + len(block.answer)] == opened + block.answer
            compared += 1
    assert compared > 200


def test_sources_point_at_the_tokens_that_are_copied(writer: RowWriter) -> None:
    pointed = total = 0
    for exercise in exercises(60, seed=9):
        row = writer.write(exercise, 10_000, told=False)
        for block in row.blocks:
            if block.kind not in {FACT, STEP}:
                assert block.sources[0] == 0 and set(block.sources[1:]) == {NOTHING}
                continue
            pairs = [
                (token, place) for token, place in zip(block.answer, block.sources, strict=True) if place != NOTHING
            ]
            assert all(row.prefix[place] == token for token, place in pairs)
            assert block.sources[-3] == block.sources[-2] - 1, "the code's end is copied"
            total += 1
            pointed += block.sources[0] != NOTHING
    assert pointed > 0.9 * total > 100


def test_questions_of_a_row_see_the_passages_and_themselves_alone(writer: RowWriter) -> None:
    chance = Random(4)
    written = [writer.write(one, 10_000, told=False) for one in exercises(3, seed=4)]
    rows = stack(written, 2, 0.0, chance)
    seen, block = rows.seen()[:, 0], rows.block
    for row in range(len(block)):
        for at in range(0, block.shape[1], 41):
            told = [int(block[row, other]) for other in seen[row, at].nonzero().flatten()]
            own = int(block[row, at])
            assert set(told) <= {0, own} and own in told
            assert int(seen[row, at].nonzero().max()) == at
    learned = rows.labels != NOTHING
    assert bool((rows.answer[learned] >= 0).all()), "with no share of the texts, answers alone are learned"
    assert int(learned.sum()) == sum(
        len(b.answer) for one in exercises(3, seed=4) for b in writer.write(one, 10_000, told=False).blocks
    )


def test_a_row_ends_before_its_room_does(writer: RowWriter) -> None:
    exercise = exercises(1, seed=6)[0]
    whole = writer.write(exercise, 10_000, told=False)
    less = writer.write(exercise, len(whole) - 1, told=False)
    assert len(less.blocks) == len(whole.blocks) - 1 and len(less) < len(whole)
    assert writer.write(exercise, 10, told=False).blocks == []


WRITTEN = {
    "passages": [
        {"title": "Keys", "text": "Keys hang in room 4."},
        {"title": "", "text": "The van is parked at Gate 2."},
    ],
    "asked": [
        {"question": "Where do keys hang?", "answer": "room 4", "place": 0},
        {"question": "Where is the van?", "answer": "Gate 2", "place": 1},
        {"question": "Who drives the van?", "answer": None, "place": None},
    ],
}


def test_what_people_wrote_comes_back_and_a_left_out_passage_answers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "written.jsonl"
    rows = [WrittenExercise.model_validate(WRITTEN)]
    write_written(path, rows)
    assert read_written(path) == rows
    chance = Random(1)
    counts = set()
    for _ in range(40):
        drawn = drawn_exercise(rows, chance)
        texts = [one.text for one in drawn.passages]
        for one in drawn.asked:
            if one.place is not None:
                assert one.answer is not None and one.answer in drawn.passages[one.place].text
        counts.add((len(set(texts)), sum(one.place is not None for one in drawn.asked)))
    assert {(1, 1), (2, 2)} <= counts


def test_no_passage_is_drawn_twice_and_one_that_is_there_is_asked_of() -> None:
    """Two rows share a passage: the one drawn beside may be it."""
    keys, vans = {"title": "Keys", "text": "Keys hang in room 4."}, {"title": "Vans", "text": "Vans stand at Gate 2."}
    question = {"question": "Where are keys?", "answer": "room 4", "place": 0}
    rows = [
        WrittenExercise.model_validate({"passages": [keys, vans], "asked": [question]}),
        WrittenExercise.model_validate({"passages": [keys], "asked": [question]}),
    ]
    chance, seen = Random(3), set()
    for _ in range(300):
        drawn = drawn_exercise(rows, chance)
        texts = [one.text for one in drawn.passages]
        assert len(set(texts)) == len(texts)
        assert drawn.asked[0].place == (texts.index(keys["text"]) if keys["text"] in texts else None)
        seen.add(tuple(texts))
    assert len(seen) == 4, "either one alone, and both in any order"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer": "room 5"}, "does not stand in passage 0"),
        ({"place": 7}, "placed in passage 7"),
        ({"place": None}, "only one of answer and place"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_bad_written_row_is_told_with_its_line(tmp_path: Path, change: dict[str, object], told: str) -> None:
    path = tmp_path / "bad.jsonl"
    bad = {**WRITTEN, "asked": [{**WRITTEN["asked"][0], **change}]}  # type: ignore[dict-item]
    path.write_text(json.dumps(WRITTEN) + "\n" + json.dumps(bad) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"line 2: .*{told}"):
        read_written(path)


def test_the_stages_are_the_whole_of_a_training() -> None:
    assert sum(stage.share for stage in STAGES) == pytest.approx(1)
