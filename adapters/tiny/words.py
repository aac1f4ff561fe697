"""Invented names and values for the reading exercises: spelled from syllables and figures, so none is worth learning.

A name is held out or not by its own letters: training and held-out exercises never share one.
"""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import yaml

WORDS = Path(__file__).with_name("words.yaml")


@cache
def words(kind: str) -> tuple[str, ...]:
    """The words of a kind: a key of words.yaml."""
    raw = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    return tuple(word.strip() for word in raw[kind].split(","))


def _one(kind: str, chance: Random) -> str:
    return chance.choice(words(kind))


def held_out(name: str) -> bool:
    """Whether a name (or the last word of one) belongs to the held-out exercises: one in five does, by its letters."""
    return zlib.crc32(name.split()[-1].lower().encode()) % 5 == 0


def new_name(chance: Random, for_held_out: bool) -> str:
    """An invented word of two or three syllables, capitalised."""
    while True:
        syllables = [_syllable(chance, 0.2) for _ in range(1 if chance.random() < 0.6 else 2)]
        name = "".join([*syllables, _syllable(chance, 0.8)]).capitalize()
        if held_out(name) == for_held_out:
            return name


def _syllable(chance: Random, closed: float) -> str:
    coda = _one("codas", chance) if chance.random() < closed else ""
    return _one("onsets", chance) + _one("vowels", chance) + coda


def new_code(chance: Random) -> str:
    """Letters and figures, as on a form or a machine."""
    letters = "".join(chance.choices("ABCDEFGHKLMNPRSTUVWX", k=chance.randint(1, 3)))
    return f"{letters}{chance.choice(['-', '-', ' ', ''])}{chance.randint(1, 9999)}"


def new_value(kind: str, chance: Random, for_held_out: bool) -> str:
    """A value of the kind: a key of VALUES. People, places and companies bear names of their half."""
    return VALUES[kind](chance, for_held_out)


def _article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _perhaps(before: str, text: str, chance: Random) -> str:
    """Half of the time with a word of that kind before it."""
    return text if chance.random() < 0.5 else f"{_one(before, chance)} {text}"


def _person(chance: Random, half: bool) -> str:
    last = new_name(chance, half)
    first = _one("first_names", chance) if chance.random() < 0.8 else chance.choice(["Mr", "Mrs", "Dr"])
    return f"{first} {last}"


def _date(chance: Random, _: bool) -> str:
    month = _one("months", chance)
    text = f"{chance.randint(1, 30)} {month}"
    if chance.random() < 0.2:
        text = f"the {chance.choice(['first', 'second', 'last'])} {_one('days', chance)} in {month}"
    return f"{text} {chance.randint(1400, 2040)}" if chance.random() < 0.3 else text


def _weekday(chance: Random, _: bool) -> str:
    day = _one("days", chance)
    which = chance.choice(["first", "second", "third", "last"])
    return chance.choice([f"{day}s", f"the {which} {day} of the month", f"{day} mornings"])


def _money(chance: Random, _: bool) -> str:
    amount = chance.choice([chance.randint(2, 99), chance.randint(100, 999), 50 * chance.randint(2, 100)])
    cents = f"{amount % 90}.{chance.randint(10, 99)} euros"
    units = [f"{amount:,} euros", f"{amount:,} pounds", f"EUR {amount:,}", f"{amount:,} crowns", f"£{amount:,}"]
    return chance.choice([*units, cents])


def _duration(chance: Random, _: bool) -> str:
    number = str(chance.randint(2, 90)) if chance.random() < 0.6 else _one("numbers", chance)
    return f"{number} {_one('units', chance)}"


def _item(chance: Random, _: bool) -> str:
    text = _one("nouns", chance)
    for _step in range(chance.choice([0, 1, 1, 2])):
        text = f"{_one('adjectives', chance)} {text}"
    return chance.choice([_article(text), f"the {text}", f"{_one('numbers', chance)} {text}s"])


def _cause(chance: Random, _: bool) -> str:
    text = _perhaps("cause_words", _one("causes", chance), chance)
    return chance.choice([text, _article(text), f"the {text}", f"{text} and {_one('causes', chance)}"])


def _clock(chance: Random, _: bool) -> str:
    hour = chance.randint(5, 23)
    quarter = chance.choice(["00", "15", "30", "45"])
    return chance.choice([f"{hour}:{quarter}", f"{hour % 12 + 1} o'clock", f"half past {_one('numbers', chance)}"])


def _room(chance: Random, half: bool) -> str:
    return chance.choice(
        [
            f"room {chance.randint(1, 9)}.{chance.randint(10, 99)}",
            f"room {chance.randint(2, 400)}",
            f"hall {chance.choice('ABCDEFG')}",
            f"the {new_name(chance, half)} room",
            f"the {_one('adjectives', chance)} {_one('rooms', chance)}",
            f"building {chance.randint(1, 30)}",
        ]
    )


def _every(chance: Random, _: bool) -> str:
    number = chance.choice([*words("numbers"), str(chance.randint(2, 20))])
    return _one("every", chance).format(n=number, d=_one("days", chance))


def _subject(chance: Random, _: bool) -> str:
    text = _one("subjects", chance)
    return text if chance.random() < 0.5 else f"{text} and {_one('subjects', chance)}"


def _title(chance: Random, half: bool) -> str:
    noun = chance.choice([_one("nouns", chance).capitalize(), new_name(chance, half)])
    return f'"The {_one("adjectives", chance).capitalize()} {noun}"'


def _animal(chance: Random, _: bool) -> str:
    animal = _one("animals", chance)
    one = _article(_perhaps("colours", animal, chance))
    return one if chance.random() < 0.7 else f"{_one('numbers', chance)} {animal}s"


def _company(chance: Random, half: bool) -> str:
    return chance.choice(["{}", "{} Works", "{} and Sons", "{} Ltd"]).format(new_name(chance, half))


def _email(chance: Random, half: bool) -> str:
    return f"{new_name(chance, half)}@{new_name(chance, half)}.example".lower()


def _menu(chance: Random, _: bool) -> str:
    return " > ".join(_one("nouns", chance).capitalize() for _step in range(chance.randint(1, 3)))


def _street(chance: Random, half: bool) -> str:
    return f"{chance.randint(1, 199)} {new_name(chance, half)} {_one('streets', chance)}"


VALUES: dict[str, Callable[[Random, bool], str]] = {
    "clock": _clock,
    "street": _street,
    "phone": lambda chance, _: f"{chance.randint(100, 999)} {chance.randint(1000, 99999)}",
    "extension": lambda chance, _: str(chance.randint(1000, 9999)),
    "year": lambda chance, _: str(chance.randint(1200, 2040)),
    "person": _person,
    "count": lambda chance, _: f"{chance.choice([chance.randint(3, 99), chance.randint(100, 9000)]):,}",
    "money": _money,
    "weekday": _weekday,
    "material": lambda chance, _: _perhaps("adjectives", _one("materials", chance), chance),
    "cause": _cause,
    "place": new_name,
    "job": lambda chance, _: _article(_perhaps("adjectives", _one("jobs", chance), chance)),
    "room": _room,
    "subject": _subject,
    "title": _title,
    "animal": _animal,
    "date": _date,
    "item": _item,
    "weight": lambda chance, _: f"{chance.randint(2, 900)} {_one('weights', chance)}",
    "colour": lambda chance, _: _perhaps("shades", _one("colours", chance), chance),
    "duration": _duration,
    "company": _company,
    "code": lambda chance, _: new_code(chance),
    "role": lambda chance, _: f"the {_one('roles', chance)}",
    "action": lambda chance, half: f"{_one('verbs', chance)} {_item(chance, half)}",
    "every": _every,
    "volume": lambda chance, _: f"{chance.randint(2, 900)} {_one('measures', chance)}",
    "email": _email,
    "menu": _menu,
    "people": lambda chance, _: _one("people", chance),
}
