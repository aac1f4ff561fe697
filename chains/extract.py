"""The extractive answer: the sentences of the passages that answer the question, quoted exactly.

Used wherever no model that can read is at hand. It chooses among what the judge finds likely; it never rewrites.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chains.citations import Quote
from chains.judge import Floats, Judge, Judgement
from chains.support import LEANS
from index.chunk import sentences
from index.document import ScoredPassage, SearchResult

MAX_QUOTES = 3
ENOUGH = 0.9
"""Of all the odds that the sentences found have to answer, the share that the quotes reach together. On the development
turns .7, .8, .9 and .95 of them hold the gold fact in 80%, 83%, 86% and 87%, in 43, 50, 58 and 63 words."""
QUOTE_WORDS = 35
"""A short quote goes on to the next sentences up to this length: the fact often stands next to what resembles the
question. With 25, 35, 45 and 60 the development facts are held in 83%, 86%, 86% and 88%, in 47, 58, 67 and 77 words."""
LEANT_ON_WORDS = 15
"""A sentence that leans on the one before it ("If that is a Sunday, ...") brings it along if that is no longer: what
answers should not wait behind a long one."""
ANSWER_WORDS = 110
"""No quote but the first makes an answer longer than this."""
MOST_UNANSWERED = 0.75
"""Where it is likelier than this that nothing found answers, nothing is quoted. Of the development turns, out of fold,
that takes 5% of those that documents answer, and 53% of those that none does, and costs 1.5 points of facts; .7 costs
2.4, .8 costs .3 and takes 3% and 40%."""
UNSURE = 0.55
"""From here on the answer says that it may be none: 8% of the answerable turns and 20% of the others."""

_HOW_TO = re.compile(
    r"\bhow (?:do|can|should|would|to|does one|must)\b|\bsteps?\b|\bset(?:ting)? up\b|\bprocedure\b|"
    r"\bwhat (?:do|should) i do\b",
    re.IGNORECASE,
)
_ROW = re.compile(r"[^:;\n]{1,60}: [^\n]*; [^:;\n]{1,60}: ")
"""A table's row with its column names, which says all that it has to say."""
_NUMBER = re.compile(r"\d")
_STEP = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_ABOUT_ITSELF = re.compile(
    r"\s*(?:last )?(?:reviewed|updated|changed|modified|revised|owner|author)\s*:", re.IGNORECASE
)
"""A line about its own document, which answers nothing but a question about that."""
_ASKS_ABOUT_IT = re.compile(
    r"\b(?:review|updat|chang|modif|revis|own(?:s|er)|author|responsible|maintain|wrote)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is quoted whole: a sentence, a list item, a row, or a run of numbered steps; `odds` are that it answers."""

    hit: ScoredPassage
    start: int
    end: int
    odds: float

    @property
    def text(self) -> str:
        offset = self.hit.passage.start
        return self.hit.passage.text[self.start - offset : self.end - offset]

    @property
    def words(self) -> int:
        return len(self.text.split())


def answers(judgement: Judgement) -> bool:
    """Whether any sentence is likely enough to answer to be quoted at all."""
    return bool(judgement.sentences) and judgement.unanswered <= MOST_UNANSWERED


def unsure(judgement: Judgement) -> bool:
    """Whether what is quoted is no likelier to answer than not."""
    return judgement.unanswered > UNSURE


def answer_quotes(question: str, found: SearchResult, judge: Judge, most: int = MAX_QUOTES) -> list[Quote]:
    """The quotes that answer, best first; none where no sentence is likely to."""
    judgement = judge.judge(question, found)
    return choose_quotes(question, found.hits, judgement, most) if answers(judgement) else []


def choose_quotes(
    question: str, hits: Sequence[ScoredPassage], judgement: Judgement, most: int = MAX_QUOTES
) -> list[Quote]:
    """At most `most` quotes, likeliest first: the fewest sentences, list items, rows or procedures that together are as
    likely as ENOUGH to answer, each with what follows it as far as that is short."""
    passages = [
        _units(hit, odds, bool(_HOW_TO.search(question))) for hit, odds in zip(hits, judgement.sentences, strict=True)
    ]
    places = sorted(
        (-unit.odds, number, place)
        for number, units in enumerate(passages)
        for place, unit in enumerate(units)
        if _says_something(unit.text) and not _is_about_itself(unit.text, question)
    )
    enough = -ENOUGH * sum(less for less, _, _ in places)
    taken: set[tuple[int, int]] = set()
    quotes: list[Quote] = []
    words, reached = 0, 0.0
    for less, number, place in places:
        if len(quotes) == most or (quotes and reached >= enough):
            break
        units = passages[number]
        if (number, place) in taken or (quotes and words + units[place].words > ANSWER_WORDS):
            continue
        closed = {at for owner, at in taken if owner == number}
        limit = min(QUOTE_WORDS, ANSWER_WORDS - words)
        first, last = _grown(units, place, closed, question, limit)
        taken.update((number, at) for at in range(first, last + 1))
        reached += sum(units[at].odds for at in range(first, last + 1))
        quote = Quote(hits[number], units[first].start, units[last].end, -less)
        if not any(_repeats(quote.text, other.text) for other in quotes):
            quotes.append(quote)
            words += len(quote.text.split())
    return quotes


def _grown(units: Sequence[_Unit], place: int, taken: set[int], question: str, limit: int) -> tuple[int, int]:
    """First and last unit of the quote around `place`: while it has no more than `limit` words, what it leans on joins,
    and then what follows."""
    words = units[place].words
    first = last = place

    def joins(at: int) -> bool:
        free = 0 <= at < len(units) and at not in taken and not _is_about_itself(units[at].text, question)
        return free and words + units[at].words <= limit

    while LEANS.match(units[first].text) and joins(first - 1) and units[first - 1].words <= LEANT_ON_WORDS:
        first -= 1
        words += units[first].words
    while not _ROW.match(units[place].text) and joins(last + 1):
        last += 1
        words += units[last].words
    return first, last


def _units(hit: ScoredPassage, odds: Floats, whole_steps: bool) -> list[_Unit]:
    """The passage's units in order; with `whole_steps`, consecutive numbered steps are one."""
    units: list[_Unit] = []
    last_was_step = False
    for (start, end), own in zip(sentences(hit.passage.text, hit.passage.start), odds, strict=True):
        unit = _Unit(hit, start, end, float(own))
        is_step = bool(_STEP.match(unit.text))
        if whole_steps and is_step and last_was_step:
            before = units.pop()
            unit = _Unit(hit, before.start, end, before.odds + unit.odds)
        units.append(unit)
        last_was_step = is_step
    return units


def _says_something(text: str) -> bool:
    return len(text.split()) >= 4 or bool(_NUMBER.search(text) and len(text.split()) >= 2)


def _is_about_itself(text: str, question: str) -> bool:
    return _ABOUT_ITSELF.match(text) is not None and not _ASKS_ABOUT_IT.search(question)


def _repeats(text: str, other: str) -> bool:
    """Whether one of two quotes says little that the other does not say: 80% of its words are there."""
    a, b = set(re.findall(r"\w+", text.lower())), set(re.findall(r"\w+", other.lower()))
    return len(a & b) >= 0.8 * max(1, min(len(a), len(b)))
