"""The extractive answer: the sentences of the passages that answer the question, quoted exactly.

Used wherever no model that can read is at hand. It chooses; it never rewrites.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chains.citations import Quote
from index.chunk import sentences
from index.document import ScoredPassage

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Coverage = Callable[[str], float]
"""The share, weighted by rarity, of the question's terms that a text holds, in [0, 1]."""

MAX_QUOTES = 3
WEIGHT_SIMILARITY = 0.5
WEIGHT_COVERAGE = 0.3
WEIGHT_PASSAGE = 0.4
KEEP_WITHIN = 0.82
"""A further sentence is quoted when its score reaches this share of the best one's."""

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
class _Candidate:
    quote: Quote
    order: int


def choose_quotes(
    question: str,
    vector: NDArray[np.float32],
    hits: Sequence[ScoredPassage],
    embed: Embed,
    coverage: Coverage,
    most: int = MAX_QUOTES,
) -> list[Quote]:
    """At most `most` quotes, best first; a numbered procedure counts as one."""
    spans = [(hit, start, end) for hit in hits for start, end in _units(question, hit)]
    if not spans:
        return []
    texts = [Quote(hit, start, end, 0.0).text for hit, start, end in spans]
    similarity = embed([_in_context(hit, text) for (hit, _, _), text in zip(spans, texts, strict=True)]) @ vector
    top = max(hit.score for hit in hits)
    wants_number = bool(_QUANTITY.search(question))
    wants_steps = bool(_HOW_TO.search(question))
    scored = []
    for (hit, start, end), text, near in zip(spans, texts, similarity, strict=True):
        score = (
            WEIGHT_SIMILARITY * float(near)
            + WEIGHT_COVERAGE * coverage(f"{hit.passage.section} {text}")
            + WEIGHT_PASSAGE * (hit.score / top if top > 0 else 0.0)
        )
        score += 0.08 * (wants_number and bool(_NUMBER.search(text)))
        score += 0.12 * (wants_steps and len(_STEP.findall(text)) > 1)
        scored.append(Quote(hit, start, end, score))
    scored.sort(key=lambda quote: -quote.score)
    best = scored[0]
    kept = [quote for quote in scored if quote.score >= KEEP_WITHIN * best.score][:most]
    return _without_repeats(kept)


def _units(question: str, hit: ScoredPassage) -> list[tuple[int, int]]:
    """Sentences, list items and rows of the passage; consecutive numbered steps become one unit for a how-to."""
    passage = hit.passage
    spans = sentences(passage.text, passage.start)
    if not _HOW_TO.search(question):
        return [span for span in spans if _says_something(Quote(hit, *span, 0.0).text)]
    merged: list[tuple[int, int]] = []
    last_was_step = False
    for start, end in spans:
        text = Quote(hit, start, end, 0.0).text
        is_step = bool(re.match(r"\s*\d+[.)]\s", text))
        if is_step and last_was_step:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
        last_was_step = is_step
    return [span for span in merged if _says_something(Quote(hit, *span, 0.0).text)]


def _says_something(text: str) -> bool:
    return len(text.split()) >= 4 or bool(_NUMBER.search(text) and len(text.split()) >= 2)


def _in_context(hit: ScoredPassage, text: str) -> str:
    """A sentence means more under its heading: "At most 5 days." says nothing of leave by itself."""
    heading = hit.passage.section.split(" > ")[-1] or hit.title
    return f"{heading}: {text}"


def _without_repeats(quotes: Sequence[Quote]) -> list[Quote]:
    kept: list[Quote] = []
    for quote in quotes:
        words = set(re.findall(r"\w+", quote.text.lower()))
        if all(_overlap(words, set(re.findall(r"\w+", other.text.lower()))) < 0.8 for other in kept):
            kept.append(quote)
    return kept


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, min(len(a), len(b)))
