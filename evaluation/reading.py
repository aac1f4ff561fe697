"""Whether a model reads: given passages and a question it copies the fact and names its passage, or says that they do
not say.

No set was seen in training. `generated`: exercises over other documents, with names that are held out; `reworded`: with
wordings of statements and questions that are held out too. `written`: the held-out questions of evaluation/reading, by
other authors, over passages of their own; the hard one. `xquad`: XQuAD-en, with the paragraph of every other question
taken away. In each the right passage stands among neighbours, in a seeded order, and the prompt is the assistant's own.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from adapters.base import LoadedBase
from adapters.greedy import greedy_replies
from adapters.prompts import Message, fit_chat
from adapters.reader import NOT_SAID, READER, asked, shown_passage
from adapters.tiny.exercises import Level, new_codes, new_exercise
from adapters.tiny.written import WrittenExercise, WrittenPassage, WrittenQuestion
from desk.errors import DeskError
from evaluation.answers import QuestionRow
from evaluation.beir import CorpusRow
from evaluation.judge import SETS, Group, read_groups, split
from evaluation.retrieval import SETS as PUBLIC
from evaluation.right import flat
from evaluation.share import Share

QUESTIONS = 300
SHOWN = 4
MOST_WORDS = 30
"""A longer reply copies no fact but a passage."""
MOST_TOKENS = 48
SEED = 20271
HELD_OUT_LEVEL = Level(
    (1, 4), (1, 3), (2, 4), referred=0.3, listed=0.12, steps=0.08, fillers=0.15, careless=0.2, unanswerable=0.3
)
"""As the last stage of training, with more questions that nothing answers."""
BAR = {"copied": 0.85, "abstained": 0.9}
_CODE = re.compile(r"\[([a-z0-9]{4})\]")


@dataclass(frozen=True, slots=True)
class Item:
    """A question and the passages it is asked of, by code; `right` is its passage's code, None where none answers."""

    question: str
    passages: tuple[tuple[str, str, str], ...]
    answers: tuple[str, ...]
    right: str | None

    def messages(self) -> list[Message]:
        shown = tuple(shown_passage(code, title, "", text) for code, title, text in self.passages)
        return [Message("system", READER), Message("user", asked(self.question), shown)]


@dataclass(frozen=True, slots=True)
class Read:
    """What a model replied to an item."""

    item: Item
    reply: str

    @property
    def abstained(self) -> bool:
        return flat(NOT_SAID.rstrip(".")) in flat(self.reply)

    @property
    def copied(self) -> bool:
        """Whether a right answer stands in the reply, as whole words, and little else."""
        said = _CODE.sub("", self.reply)
        if self.abstained or len(said.split()) > MOST_WORDS:
            return False
        return any(re.search(rf"(?<!\w){re.escape(flat(one))}(?!\w)", flat(said)) for one in self.item.answers)

    @property
    def named(self) -> bool:
        """Whether the first passage that it names is the right one."""
        found = _CODE.search(self.reply)
        return found is not None and found.group(1) == self.item.right


def shares(read: Sequence[Read]) -> dict[str, Share]:
    """The figures by name: of answerable questions but `abstained`, which is of the others."""
    gold = [one for one in read if one.item.right is not None]
    return {
        "copied": Share.of(one.copied for one in gold),
        "named": Share.of(one.named for one in gold),
        "copied_and_named": Share.of(one.copied and one.named for one in gold),
        "abstained": Share.of(one.abstained for one in read if one.item.right is None),
        "answerable_refused": Share.of(one.abstained for one in gold),
    }


def reaches_bar(read: Sequence[Read]) -> bool:
    """Whether a model with these replies may be said to read."""
    figures = shares(read)
    return all(figures[name].value >= least for name, least in BAR.items())


def read_items(base: LoadedBase, items: Sequence[Item]) -> list[Read]:
    """The greedy reply to each item; what does not fit the model's window is cut as in a chat."""
    room = base.manifest.window - MOST_TOKENS
    rows = [fit_chat(base.tokenizer, item.messages(), room) for item in items]
    replies = greedy_replies(base.model, base.tokenizer, rows, MOST_TOKENS)
    return [Read(item, reply.text) for item, reply in zip(items, replies, strict=True)]


def generated_items(count: int = QUESTIONS, *, reworded: bool = False) -> list[Item]:
    """A question each of so many exercises with held-out names, and perhaps held-out wordings."""
    chance = Random(SEED)  # noqa: S311
    items = []
    for _ in range(count):
        exercise = new_exercise(HELD_OUT_LEVEL, chance, 1, held_out=True, reworded=reworded)
        one = exercise.asked[0]
        right = None if one.place is None else exercise.passages[one.place].code
        shown = tuple((passage.code, passage.title, passage.text) for passage in exercise.passages)
        items.append(Item(one.question, shown, () if one.answer is None else (one.answer,), right))
    return items


def written_items(count: int | None = QUESTIONS) -> list[Item]:
    """Held-out questions of evaluation/reading, evenly chosen (None: all), among passages of their own group and the
    next."""
    items = []
    chance = Random(SEED)  # noqa: S311
    for name in SETS:
        _, held_out = split(read_groups(name))
        after = islice(cycle(held_out), 1, None)
        for group, following in zip(held_out, after, strict=False):
            passages = [*group.passages, *following.passages][:SHOWN]
            items += [_item(row, passages, chance) for row in group.questions]
    if count is None or count >= len(items):
        return items
    return [items[place * len(items) // count] for place in range(count)]


def xquad_items(data: Path, count: int | None = QUESTIONS) -> list[Item]:
    """XQuAD-en's questions, evenly chosen (None: all), each among three paragraphs of the same article; for every
    other one its own is taken away. Raises DeskError when the file is missing."""
    path = data / PUBLIC["xquad"]
    if not path.is_file():
        raise DeskError(f"{path} is missing: give the folder that holds {PUBLIC['xquad']} (--data DIR).")
    chance = Random(SEED)  # noqa: S311
    items: list[Item] = []
    for number, article in enumerate(json.loads(path.read_text(encoding="utf-8"))["data"]):
        passages = [
            CorpusRow.model_validate({"_id": f"{number}-{place}", "title": article["title"], "text": one["context"]})
            for place, one in enumerate(article["paragraphs"])
        ]
        for place, one in enumerate(article["paragraphs"]):
            around = [passages[(place + step) % len(passages)] for step in range(min(SHOWN + 1, len(passages)))]
            for row in one["qas"]:
                kept = len(items) % 2 == 0
                answers = tuple(dict.fromkeys(answer["text"] for answer in row["answers"])) if kept else ()
                asked_of = passages[place].id if kept else None
                question = QuestionRow(question=row["question"], answerable=kept, passage_id=asked_of, answers=answers)
                items.append(_item(question, around[:SHOWN] if kept else around[1:], chance))
    if count is None or count >= len(items):
        return items
    return [items[place * len(items) // count] for place in range(count)]


def _item(row: QuestionRow, passages: Sequence[CorpusRow], chance: Random) -> Item:
    order = chance.sample(list(passages), k=len(passages))
    codes = new_codes(len(order), chance)
    shown = tuple((code, one.title or "", one.text) for code, one in zip(codes, order, strict=True))
    right = next((code for code, one in zip(codes, order, strict=True) if one.id == row.passage_id), None)
    return Item(row.question, shown, row.answers, right)


def training_exercises() -> Iterator[WrittenExercise]:
    """The groups that are not held out, as exercises to train on; an answer must stand there word for word."""
    for name in SETS:
        for group in split(read_groups(name))[0]:
            yield _exercise(group)


def _exercise(group: Group) -> WrittenExercise:
    place = {row.id: number for number, row in enumerate(group.passages)}
    asked_of = []
    for row in group.questions:
        if not row.answerable or row.passage_id is None:
            asked_of.append(WrittenQuestion(question=row.question))
            continue
        number = place[row.passage_id]
        answer = next((one for one in row.answers if one in group.passages[number].text), None)
        if answer is not None:
            asked_of.append(WrittenQuestion(question=row.question, answer=answer, place=number))
    passages = tuple(WrittenPassage(title=one.title or "", text=one.text) for one in group.passages)
    return WrittenExercise(passages=passages, asked=tuple(asked_of))


def miss_row(one: Read) -> dict[str, Any]:
    """A reply as JSON."""
    return {
        "question": one.item.question,
        "answers": list(one.item.answers),
        "reply": one.reply,
        "named_right": one.named,
    }
