"""The extractive answer: the sentences of the passages that answer the question, quoted exactly.

Used wherever no model that can read is at hand. It chooses; it never rewrites.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chains.citations import Quote
from index.chunk import sentences
from index.document import ScoredPassage

Coverage = Callable[[str], float]
"""The share, weighted by rarity, of the question's terms that a text holds, in [0, 1]."""

MAX_QUOTES = 3
WEIGHT_SIMILARITY = 0.5
WEIGHT_COVERAGE = 0.3
WEIGHT_PASSAGE = 0.4
KEEP_WITHIN = 0.82
"""A further sentence is quoted when its score reaches this share of the best one's."""
NUMBER_BONUS = 0.08
"""For a unit with a number, when the question asks how many, when or how much."""
STEPS_BONUS = 0.12
"""For a run of steps, when the question asks how to."""

_HOW_TO = re.compile(
    r"\bhow (?:do|can|should|would|to|does one|must)\b|\bsteps?\b|\bset(?:ting)? up\b|\bprocedure\b|"
    r"\bwhat (?:do|should) i do\b",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"\bhow (?:many|much|long|often|big|large|old|far|soon|early|late)\b|\bwhen\b|\bwhat time\b|\bprice\b|\bcosts?\b|"
    r"\blimit\b|\bmaximum\b|\bminimum\b|\bdeadline\b|\brate\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d")
_STEP = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is quoted whole: a sentence, a list item, a row, or a run of numbered steps."""

    hit: ScoredPassage
    start: int
    end: int
    similarity: float

    @property
    def text(self) -> str:
        offset = self.hit.passage.start
        return self.hit.passage.text[self.start - offset : self.end - offset]


def choose_quotes(
    question: str, hits: Sequence[ScoredPassage], coverage: Coverage, most: int = MAX_QUOTES
) -> list[Quote]:
    """At most `most` quotes, best first; a numbered procedure counts as one."""
    wants_steps = bool(_HOW_TO.search(question))
    wants_number = bool(_QUANTITY.search(question))
    units = [unit for hit in hits for unit in _units(hit, wants_steps)]
    if not units:
        return []
    top = max(hit.score for hit in hits)
    quotes = []
    for unit in units:
        score = (
            WEIGHT_SIMILARITY * unit.similarity
            + WEIGHT_COVERAGE * coverage(f"{unit.hit.passage.section} {unit.text}")
            + WEIGHT_PASSAGE * (unit.hit.score / top if top > 0 else 0.0)
            + NUMBER_BONUS * (wants_number and bool(_NUMBER.search(unit.text)))
            + STEPS_BONUS * (wants_steps and len(_STEP.findall(unit.text)) > 1)
        )
        quotes.append(Quote(unit.hit, unit.start, unit.end, score))
    quotes.sort(key=lambda quote: -quote.score)
    return _without_repeats([quote for quote in quotes if quote.score >= KEEP_WITHIN * quotes[0].score])[:most]


def _units(hit: ScoredPassage, whole_steps: bool) -> list[_Unit]:
    """The passage's units that say something, in order; with `whole_steps`, consecutive numbered steps are one."""
    spans = sentences(hit.passage.text, hit.passage.start)
    units: list[_Unit] = []
    last_was_step = False
    for (start, end), similarity in zip(spans, hit.sentences, strict=True):
        unit = _Unit(hit, start, end, similarity)
        is_step = bool(_STEP.match(unit.text))
        if whole_steps and is_step and last_was_step:
            before = units.pop()
            unit = _Unit(hit, before.start, end, max(before.similarity, similarity))
        units.append(unit)
        last_was_step = is_step
    return [unit for unit in units if _says_something(unit.text)]


def _says_something(text: str) -> bool:
    return len(text.split()) >= 4 or bool(_NUMBER.search(text) and len(text.split()) >= 2)


def _without_repeats(quotes: Sequence[Quote]) -> list[Quote]:
    kept: list[Quote] = []
    for quote in quotes:
        words = set(re.findall(r"\w+", quote.text.lower()))
        if all(_overlap(words, set(re.findall(r"\w+", other.text.lower()))) < 0.8 for other in kept):
            kept.append(quote)
    return kept


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, min(len(a), len(b)))
