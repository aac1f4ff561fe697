"""Reading exercises that people wrote, as a JSONL file: real language for the end of a reading training.

A row is {"passages": [{"title", "text"}], "asked": [{"question", "answer", "place"}]}: `answer` stands word for word in
the passage number `place`; both are null where no passage of the row says. `python -m evaluation reading --exercises
FILE` writes such a file from the project's own questions.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters.errors import DatasetError
from adapters.tiny.exercises import Asked, Exercise, Shown, new_codes

MOST_PASSAGES = 4
WRITTEN = "written"


class _Edge(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WrittenPassage(_Edge):
    title: str = ""
    text: str = Field(min_length=1)


class WrittenQuestion(_Edge):
    question: str = Field(min_length=1)
    answer: str | None = None
    place: int | None = None


class WrittenExercise(_Edge):
    """Passages and all that is asked about them."""

    passages: tuple[WrittenPassage, ...] = Field(min_length=1)
    asked: tuple[WrittenQuestion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _answers_stand_there(self) -> "WrittenExercise":
        for one in self.asked:
            if (one.answer is None) != (one.place is None):
                raise ValueError(f"{one.question!r} has only one of answer and place: give both or neither")
            if one.answer is None or one.place is None:
                continue
            if not 0 <= one.place < len(self.passages):
                raise ValueError(f"{one.question!r} is placed in passage {one.place}: there are {len(self.passages)}")
            if not one.answer or one.answer not in self.passages[one.place].text:
                raise ValueError(f"{one.answer!r} does not stand in passage {one.place}: copy it from there")
        return self


def read_written(path: Path) -> list[WrittenExercise]:
    """The rows of a file. Raises DatasetError with file and line for a bad one, and when there is none."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): give a JSONL file of exercises.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(WrittenExercise.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.msg
            raise DatasetError(f"{path}, line {number}: {reason}.") from None
    if not rows:
        raise DatasetError(f"{path} holds no exercise: write one JSON object a line.")
    return rows


def write_written(path: Path, exercises: Iterable[WrittenExercise]) -> None:
    text = "".join(json.dumps(one.model_dump(), ensure_ascii=False) + "\n" for one in exercises)
    path.write_text(text, encoding="utf-8")


def drawn_exercise(exercises: Sequence[WrittenExercise], chance: Random) -> Exercise:
    """One of them anew: some of its passages in any order, perhaps one of another beside them, all with new codes.

    What is asked of a passage that was left out has no answer then.
    """
    row = chance.choice(exercises)
    kept = chance.sample(range(len(row.passages)), k=chance.randint(1, min(len(row.passages), MOST_PASSAGES)))
    passages = [row.passages[place] for place in kept]
    if len(passages) < MOST_PASSAGES and chance.random() < 0.5:
        place, other = chance.randint(0, len(passages)), chance.choice(chance.choice(exercises).passages)
        if other not in passages:
            passages.insert(place, other)
    codes = new_codes(len(passages), chance)
    shown = tuple(Shown(code, one.title, one.text) for code, one in zip(codes, passages, strict=True))
    asked = [_placed(one, row, passages) for one in row.asked]
    chance.shuffle(asked)
    return Exercise(shown, tuple(asked))


def _placed(one: WrittenQuestion, row: WrittenExercise, passages: Sequence[WrittenPassage]) -> Asked:
    """Where its passage lies now."""
    there = row.passages[one.place] if one.place is not None else None
    place = next((number for number, passage in enumerate(passages) if passage == there), None)
    if place is None:
        return Asked(one.question, None, None, f"{WRITTEN}, not said")
    return Asked(one.question, one.answer, place, WRITTEN)
