"""A follow-up becomes a standalone question, without a language model.

Only the last question is used, and only when the message leans on it: routing on whole histories is known
to be worse, and an old topic must not leak into a new one. Words that give a follow-up away decide at once; for the
rest a small logistic regression weighs how short the message is, how near it is to the last question, and how near by
itself to what the desk knows: its passages, and what people say to its adapters, its workflows and out of scope.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from chains.turn import Exchange


@dataclass(frozen=True, slots=True)
class Closeness:
    """Cosines of a message: to the best passage that it finds by itself, to the nearest utterance that is no question
    to the documents, and to the question before it."""

    to_library: float
    to_utterances: float
    to_previous: float


Compare = Callable[[str, str], Closeness]
"""(message, previous question) to their closeness."""

_OPENING = re.compile(
    r"^(?:(?:ok(?:ay)?|oh|hm+|ah|right|thanks|thank you|thx|cheers|a lot|very much|great|good|perfect|cool|nice|got it|"
    r"understood|lol|sure|yes|no|and|or|but|so|also|then|what about|how about|what if|same for)\b[\s,.!:]*)+",
    re.IGNORECASE,
)
_CONTINUES = re.compile(r"\b(?:and|or|but|so|also|then|about|if|for|ok(?:ay)?|thanks|hm+)\b", re.IGNORECASE)
_LEANS = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|there|one|ones|same|instead|otherwise|else|again|too|"
    r"as well)\b",
    re.IGNORECASE,
)
_REFERS = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|there|ones?|same|mine|he|him|his|she|her|hers|such|instead|"
    r"otherwise|else|either|neither|again|too|as well|though|tho|still|then)\b",
    re.IGNORECASE,
)
_POINTS_INWARD = re.compile(
    r"\b(?:this|these|that|it) (?:ticket|is a|email|message|case|incident)\b|\b(?:is|it'?s) there\b|"
    r"\bthere (?:is|are|was)\b|\bis it (?:possible|ok|okay|allowed|true|normal|safe)\b|^it (?:says|takes|keeps)\b",
    re.IGNORECASE,
)
_NEW_SUBJECT = re.compile(
    r"\b(?:next|another|new|different|other|separate|unrelated) (?:thing|question|topic|subject|matter)\b|"
    r"^\W*(?:(?:now|and|about|to) )*something else\s*[,.:]|\babout something else\b",
    re.IGNORECASE,
)
MOST_WORDS = 24
_PREPOSITION = r"(?:on|in|at|for|from|with|to|by|of|during|after|before|without|as)"
_PHRASE = re.compile(rf"^{_PREPOSITION}\b.*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][\w'-]*")
_SMALL = frozenset(
    """a an and any are at be but can could did do does for from had has have how i if in is it its many me much my no
    not of on or our should so that the their them then there these they this those to was we what when where which who
    why will with would you your please about ok okay also else long often""".split()  # noqa: SIM905
)


WEIGHTS = (-0.34, 0.87, 0.84, 3.55, -8.42, -7.33, 5.0, 7.06)
"""Of `features`, and the bias last; `python -m evaluation follow-ups` fits them on development turns."""
LIKELY = 0.43
"""From this probability on a message is a follow-up: out of fold 73% of them are caught (46% by words alone) and 5% of
the messages that stand alone mistaken. A small first letter would catch more, but only because the development
follow-ups were typed so: with it, every short lower-case message went to the last question."""


def condense(question: str, history: tuple[Exchange, ...], compare: Compare) -> str:
    """The question as it would be asked without the conversation; itself when it needs nothing."""
    message = " ".join(question.split())
    if not history or not message or not can_follow(question):
        return question.strip()
    previous = history[-1].question.strip()
    if not needs_history(message) and likelihood(features(message, compare(message, previous))) < LIKELY:
        return question.strip()
    tail = _OPENING.sub("", message).strip()
    phrase = tail.rstrip("?!. ")
    swapped = _swap_phrase(previous, phrase) or _swap_name(previous, phrase)
    if swapped:
        return swapped
    return f"{previous.rstrip('?!. ')}: {tail or message}"


def can_follow(question: str) -> bool:
    """Whether a message may be a follow-up at all: no ticket or list, no word of a new subject, more than thanks."""
    text = question.strip()
    if "\n" in text or ":" in text or _NEW_SUBJECT.search(text) or not _OPENING.sub("", text):
        return False
    return len(_WORD.findall(text)) <= MOST_WORDS


def features(message: str, closeness: Closeness) -> tuple[float, ...]:
    """What `likelihood` weighs: words, words that refer, points back, opens as a continuation, and the closeness."""
    return (
        float(len(_WORD.findall(message))),
        float(len(_REFERS.findall(message))),
        float(_points_back(message)),
        float(_continues(message)),
        closeness.to_library,
        closeness.to_utterances,
        closeness.to_previous,
    )


def likelihood(values: tuple[float, ...]) -> float:
    """The probability that a message with these features is a follow-up."""
    return 1 / (1 + math.exp(-sum(weight * value for weight, value in zip(WEIGHTS, (*values, 1.0), strict=True))))


def needs_history(message: str) -> bool:
    """Whether its words alone show that a message cannot be understood by itself: it opens as a continuation, or points
    back and is short."""
    content = _content(message)
    if _continues(message) and len(content) <= 7:
        return True
    if _points_back(message) and len(content) <= 4:
        return True
    return len(_WORD.findall(message)) <= 3 and bool(_PHRASE.match(message))


def _continues(message: str) -> bool:
    opening = _OPENING.match(message)
    return bool(opening and _CONTINUES.search(opening.group()) and opening.end() < len(message))


def _points_back(message: str) -> bool:
    """ "My laptop is slow and it makes noise" names what "it" is; "Can I carry them over?" does not."""
    leaning = _LEANS.search(message)
    return bool(leaning and not _POINTS_INWARD.search(message) and len(_content(message[: leaning.start()])) < 2)


def _content(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word.lower() not in _SMALL]


def _swap_phrase(previous: str, phrase: str) -> str | None:
    """`previous` with its last phrase of the same preposition replaced: "set it up on A?" + "on B"."""
    if not _PHRASE.match(phrase) or len(phrase.split()) > 6:
        return None
    preposition = phrase.split()[0]
    pattern = re.compile(rf"\b{re.escape(preposition)}\b(?!.*\b{re.escape(preposition)}\b)", re.IGNORECASE)
    found = pattern.search(previous)
    if not found:
        return f"{previous.rstrip('?!. ')} {phrase}?"
    rest = previous[found.end() :]
    after = re.search(rf"\s(?={_PREPOSITION}\b)", rest[1:])
    kept = rest[1 + after.start() :] if after else ""
    return f"{previous[: found.start()]}{phrase}{kept}".rstrip("?!. ") + "?"


_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z']+(?: [A-Z][a-z']+)*")


def _swap_name(previous: str, phrase: str) -> str | None:
    """`previous` with its last proper name replaced: "... open in A?" + "B"."""
    found = list(_NAME.finditer(previous))
    if not found or not re.fullmatch(r"[A-Z][a-z']+(?: [A-Z][a-z']+)?", phrase):
        return None
    last = found[-1]
    return f"{previous[: last.start()]}{phrase}{previous[last.end() :]}"
