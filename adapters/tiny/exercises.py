"""Endless seeded reading exercises: passages of invented facts, and questions with the answer that stands in them.

Exercises for training never have the names nor the wordings that are held out (words.py, relations.yaml).
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

import yaml
from pydantic import BaseModel, ConfigDict, Field

from adapters.reader import CODE_ALPHABET
from adapters.tiny.words import new_code, new_name, new_value, words

RELATIONS = Path(__file__).with_name("relations.yaml")
FACT, STEP, NOT_SAID, NOT_THERE = "fact", "step", "not said", "not there"
"""Kinds of questions: of a fact or of a step that is stated; of one that is not, or whose subject is not there."""
_CHOICE = re.compile(r"\(([^()]*)\)")
_FILLERS = (
    "Please read this with care.",
    "More is said further below.",
    "Many people ask about this.",
    "This page was checked last year.",
    "Some of it may sound strange at first.",
    "Thank you for your help.",
    "Nobody knows exactly why.",
    "The details follow.",
)


class Relation(BaseModel):
    """How a relation is stated and asked for; the last of `says` and of `asks` are held out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    group: str
    value: str
    says: tuple[str, ...] = Field(min_length=2)
    asks: tuple[str, ...] = Field(min_length=2)

    def wording(self, of: str, most: int, chance: Random, reworded: bool) -> str:
        """One of the first `most` of `says` or `asks`, or the held-out one; its choices made."""
        every = self.says if of == "says" else self.asks
        text = every[-1] if reworded else chance.choice(every[:-1][:most])
        return _CHOICE.sub(lambda found: chance.choice(found.group(1).split("|")), text)


@cache
def relations() -> dict[str, tuple[Relation, ...]]:
    """By kind of subject."""
    raw = yaml.safe_load(RELATIONS.read_text(encoding="utf-8"))
    return {kind: tuple(Relation.model_validate(one) for one in rows) for kind, rows in raw.items()}


@dataclass(frozen=True, slots=True)
class Level:
    """What an exercise may contain. Counts are (least, most); `wordings`: of each relation; the rest are shares."""

    passages: tuple[int, int]
    subjects: tuple[int, int]
    facts: tuple[int, int]
    unanswerable: float = 0.25
    referred: float = 0.0
    listed: float = 0.0
    steps: float = 0.0
    fillers: float = 0.0
    careless: float = 0.0
    wordings: int = 99


@dataclass(frozen=True, slots=True)
class Subject:
    """What facts are about: `full` at first mention, `short` elsewhere, `pronoun` right after."""

    kind: str
    full: str
    short: str
    pronoun: str


@dataclass(frozen=True, slots=True)
class Fact:
    """`value` as it stands in the passage at `place`."""

    subject: Subject
    relation: Relation
    value: str
    place: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; `answer` stands in the passage at `place`, both are None where no passage says. `kind` names it."""

    question: str
    answer: str | None
    place: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage as a reader is shown it."""

    code: str
    title: str
    text: str


_AIMS = ("use", "renew", "get", "return")
_HELD_OUT_AIMS = ("replace", "order")
_STEP_ASKS = (
    "What is step {n} to {aim}?",
    "Step {n} to {aim}?",
    'What comes after "{before}"?',
    "After I {before}, what is next?",
)
_HELD_OUT_STEP_ASKS = ("Which is number {n} of the steps to {aim}?", "What do I do once I {before}?")


@dataclass(frozen=True, slots=True)
class Exercise:
    passages: tuple[Shown, ...]
    asked: tuple[Asked, ...]
    stated: tuple[Fact, ...] = ()


def new_exercise(
    level: Level, chance: Random, questions: int = 8, *, held_out: bool = False, reworded: bool = False
) -> Exercise:
    """Passages of the level, and `questions` questions about them: with the names that are held out from training, and
    with the wordings that are, if so wanted."""
    world = _World(level, chance, held_out, reworded)
    shown = tuple(world.passage(place) for place in range(chance.randint(*level.passages)))
    asked = tuple(world.ask() for _ in range(questions))
    return Exercise(shown, asked, tuple(world.stated))


def new_codes(count: int, chance: Random) -> list[str]:
    """Different short opaque codes, as the assistant gives them to passages."""
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes.setdefault("".join(chance.choices(CODE_ALPHABET, k=4)))
    return list(codes)


class _World:
    """What is stated in an exercise so far."""

    def __init__(self, level: Level, chance: Random, held_out: bool, reworded: bool) -> None:
        self._level, self._chance, self._half, self._reworded = level, chance, held_out, reworded
        self._codes = new_codes(level.passages[1], chance)
        self._names: set[str] = set()
        self._values: set[str] = set()
        self.stated: list[Fact] = []
        self._steps: list[Asked] = []
        self._kinds = chance.sample(sorted(relations()), k=chance.choice([1, 1, 2, 3]))

    def passage(self, place: int) -> Shown:
        chance, level = self._chance, self._level
        kind = chance.choice(self._kinds)
        subjects = [self._subject(kind) for _ in range(chance.randint(*level.subjects))]
        form = chance.random()
        if form < level.steps:
            return self._procedure(place)
        listed = form < level.steps + level.listed
        wanted = chance.randint(*level.facts)
        text = (self._rows if listed else self._sentences)(place, kind, subjects, wanted)
        title = (
            subjects[0].full
            if len(subjects) == 1 and chance.random() < 0.6
            else chance.choice(["", "", "Notes", f"About every {kind}", new_name(chance, self._half)])
        )
        return Shown(self._codes[place], _capitalised(title), text)

    def ask(self) -> Asked:
        chance = self._chance
        if chance.random() < self._level.unanswerable:
            return self._unanswerable()
        if self._steps and (not self.stated or chance.random() < 0.4):
            return chance.choice(self._steps)
        if not self.stated:
            return self._unanswerable()
        fact = chance.choice(self.stated)
        return Asked(self._question(fact.subject, fact.relation), fact.value, fact.place, FACT)

    def _question(self, subject: Subject, relation: Relation) -> str:
        text = relation.wording("asks", self._level.wordings, self._chance, self._reworded)
        return self._said(
            text.replace("{s}", self._chance.choice([subject.full, subject.full, subject.short])), self._level.careless
        )

    def _said(self, text: str, careless: float) -> str:
        """Capitalised; or as people type in haste."""
        if self._chance.random() >= careless:
            return _capitalised(text)
        return self._chance.choice([text.lower(), text.rstrip("?"), text.lower().rstrip("?")])

    def _unanswerable(self) -> Asked:
        """Of a subject that is there, what is not said of it; or what is said of others, of one that is not there."""
        chance = self._chance
        if self.stated and chance.random() < 0.6:
            subject = chance.choice(self.stated).subject
            told = {fact.relation.group for fact in self.stated if fact.subject == subject}
            free = [relation for relation in relations()[subject.kind] if relation.group not in told]
            if free:
                others = {fact.relation.label for fact in self.stated}
                near = [relation for relation in free if relation.label in others]
                relation = chance.choice(near) if near and chance.random() < 0.5 else chance.choice(free)
                return Asked(self._question(subject, relation), None, None, NOT_SAID)
        kind = chance.choice(self.stated).subject.kind if self.stated else self._kinds[0]
        stated = [fact.relation for fact in self.stated if fact.subject.kind == kind]
        relation = chance.choice(stated or list(relations()[kind]))
        return Asked(self._question(self._subject(kind), relation), None, None, NOT_THERE)

    def _subject(self, kind: str) -> Subject:
        """A new one."""
        while True:
            name = new_name(self._chance, self._half)
            if name not in self._names:
                break
        self._names.add(name)
        chance = self._chance
        if kind == "person":
            person = new_value("person", chance, self._half)
            short = person.split()[-1] if chance.random() < 0.5 else person
            return Subject(kind, person, short, chance.choice(["she", "he"]))
        if kind == "paper" and chance.random() < 0.5:
            full = f"form {new_code(chance)}"
            return Subject(kind, full, full, "it")
        noun = chance.choice(words(kind))
        form = chance.random()
        if form < 0.25:
            return Subject(kind, name, name, "it")
        full = f"the {name} {noun}" if form < 0.8 else f"the {noun} of {name}"
        return Subject(kind, full, name if chance.random() < 0.3 else full, "it")

    def _fact(self, subject: Subject, relation: Relation, place: int) -> Fact:
        """A value that nothing else has, as answers must point to one place."""
        while True:
            value = new_value(relation.value, self._chance, self._half)
            if value.lower() not in self._values:
                break
        self._values.add(value.lower())
        return Fact(subject, relation, value, place)

    def _drawn(self, kind: str, wanted: int) -> list[Relation]:
        """Relations that do not answer one another."""
        chosen: dict[str, Relation] = {}
        for relation in self._chance.sample(relations()[kind], k=len(relations()[kind])):
            chosen.setdefault(relation.group, relation)
        return list(chosen.values())[:wanted]

    def _sentences(self, place: int, kind: str, subjects: list[Subject], wanted: int) -> str:
        chance, level = self._chance, self._level
        facts = [
            self._fact(subject, relation, place)
            for subject in subjects
            for relation in self._drawn(kind, -(-wanted // len(subjects)))
        ]
        if chance.random() < 0.3:
            chance.shuffle(facts)
        parts, before = [], None
        for fact in facts:
            if chance.random() < level.fillers:
                parts.append(chance.choice(_FILLERS))
            named = fact.subject.full if before is None or before != fact.subject else fact.subject.short
            if before == fact.subject and chance.random() < level.referred:
                named = fact.subject.pronoun
            text = fact.relation.wording("says", level.wordings, chance, self._reworded)
            parts.append(self._state(fact, text, named) + ".")
            before = fact.subject
        return " ".join(parts)

    def _state(self, fact: Fact, wording: str, named: str) -> str:
        """The statement, capitalised; the value is noted as it stands there."""
        if wording.startswith("{v}"):
            fact = replace(fact, value=_capitalised(fact.value))
        self.stated.append(fact)
        if named == fact.subject.pronoun and not wording.startswith("{s}"):
            named = fact.subject.short
        return _capitalised(wording.replace("{s}", named).replace("{v}", fact.value))

    def _rows(self, place: int, kind: str, subjects: list[Subject], wanted: int) -> str:
        """A table, a row for each subject, or a list of its properties."""
        chance = self._chance
        columns = self._drawn(kind, max(1, -(-wanted // len(subjects))))
        rows = [[self._fact(subject, relation, place) for relation in columns] for subject in subjects]
        self.stated += [fact for row in rows for fact in row]
        if chance.random() < 0.4:
            head = "| " + " | ".join(["name", *(relation.label for relation in columns)]) + " |\n"
            return head + "\n".join(
                "| " + " | ".join([row[0].subject.full, *(fact.value for fact in row)]) + " |" for row in rows
            )
        if chance.random() < 0.5:
            return "\n".join(
                ", ".join([row[0].subject.full, *(f"{fact.relation.label}: {fact.value}" for fact in row)]) + "."
                for row in rows
            )
        return "\n".join(
            "\n".join([f"{row[0].subject.full}:", *(f"- {fact.relation.label}: {fact.value}" for fact in row)])
            for row in rows
        )

    def _procedure(self, place: int) -> Shown:
        """Numbered steps, which are asked for by number and by the step before."""
        chance = self._chance
        subject = self._subject(chance.choice(["paper", "thing"]))
        aim = f"{chance.choice(_HELD_OUT_AIMS if self._reworded else _AIMS)} {subject.full}"
        steps: list[str] = []
        wanted = chance.randint(3, 5)
        while len(steps) < wanted:
            step = new_value("action", chance, self._half)
            if step not in self._values:
                self._values.add(step)
                steps.append(_capitalised(step))
        for number, step in enumerate(steps):
            asks = _HELD_OUT_STEP_ASKS if self._reworded else _STEP_ASKS
            before = steps[number - 1].lower() if number else ""
            texts = [
                ask.format(n=number + 1, aim=aim, before=before) for ask in asks if number or "{before}" not in ask
            ]
            self._steps += [Asked(self._said(text, self._level.careless), step, place, STEP) for text in texts]
        opening = f"Steps to {aim}:" if self._reworded else f"To {aim}:"
        lines = [opening, *(f"{number}. {step}." for number, step in enumerate(steps, 1))]
        return Shown(self._codes[place], chance.choice(["", f"How to {aim}"]), "\n".join(lines))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
