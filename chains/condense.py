"""A follow-up becomes a standalone question, without a language model.

Only the last question and its answer are used, and only as far as the message leans on them: routing on whole histories
is known to be worse, and an old topic must not leak into a new one. A small logistic regression weighs the words that
give a follow-up away, how short it is, how near it is to the last question, and how near by itself to what the desk
knows: its passages, and what people say to its adapters, its workflows and out of scope. Where it is unsure, both
readings count (`chains/context.py`).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from chains.turn import Exchange


@dataclass(frozen=True, slots=True)
class Closeness:
    """Cosines of a message: to the best passage that it finds by itself, to the nearest utterance that is no question
    to the documents, and to the question before it; and the router's probabilities that by itself it is out of scope,
    and that an adapter or a workflow handles it."""

    to_library: float
    to_utterances: float
    to_previous: float
    stray: float
    handled: float = 0.0


Compare = Callable[[str, str], Closeness]
"""(message, previous question) to their closeness."""

_OPENING = re.compile(
    r"^(?:(?:ok(?:ay)?|oh|hm+|ah|right|thanks|thank you|thx|cheers|a lot|very much|great|good|perfect|cool|nice|got it|"
    r"understood|lol|sure|wait|sorry|i mean|i meant|yes|no|and|or|but|so|also|then|what about|how about|what if|"
    r"same for)\b[\s,.!:]*)+",
    re.IGNORECASE,
)
_CONTINUES = re.compile(r"\b(?:and|or|but|so|also|then|about|if|for|ok(?:ay)?|thanks|hm+)\b", re.IGNORECASE)
_THIS = r"this(?! (?:morning|afternoon|evening|week|month|year|time))"
_LEANS = re.compile(
    rf"\b(?:it|its|they|them|their|that|those|these|{_THIS}|there|one|ones|same|instead|otherwise|else|again|too|"
    r"as well)\b",
    re.IGNORECASE,
)
_REFERS = re.compile(
    rf"\b(?:it|its|they|them|their|that|those|these|{_THIS}|there|ones?|same|mine|he|him|his|she|her|hers|such|instead|"
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
    r"^\W*(?:(?:now|and|about|to) )*something else\s*[,.:]|\babout something else\b|"
    r"\b(?:switch|chang)(?:e|ing) (?:the )?(?:topic|subject)s?\b",
    re.IGNORECASE,
)
_COLON = re.compile(r":(?!-?[)(DP])")
"""Not that of a smile."""
MOST_WORDS = 24
_PREPOSITION = r"(?:on|in|at|for|from|with|to|by|of|during|after|before|without|as)"
_PHRASE = re.compile(rf"^{_PREPOSITION}\b.*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][\w'-]*")
_SMALL = frozenset(
    """a an and any are at be but can could did do does for from had has have how i if in is it its many me much my no
    not of on or our should so that the their them then there these they this those to was we what when where which who
    why will with would you your please about ok okay also else long often""".split()  # noqa: SIM905
)


WEIGHTS = (-0.41, 1.27, 1.07, 2.44, -14.66, -2.65, 3.95, -4.73, -1.63, 9.09)
"""Of `features`, and the bias last; `python -m evaluation follow-ups` fits them on development turns. A small first
letter would catch more, but only because many development follow-ups were typed so."""
UNLIKELY, CERTAIN = 0.1, 0.6
"""Probabilities of a follow-up: up to the first the conversation is left out, from the second on it counts in full.
Between .05 and .2 for the one and .3 and .8 for the other, follow-ups that hold their fact change by five points and
messages that stand alone by three (docs/log.md, 2026-11-25)."""
HANDLED = 0.9
"""A message without a word that refers or continues stands alone if an adapter or a workflow is as likely as this. The
fitted rule alone takes "define backlog" after a question about leave for a follow-up; no development turn shows it."""
SHOWN = 0.5
"""From where on (of `Understood.follows`) a message is said to be understood as the condensed one."""
ANSWER_WORDS = 60
"""The words of the last answer that say where the conversation is: about its first quote."""
_JOINT = " - "
"""Between the last question and the new words. No colon: what stands before one may be taken for an order."""


@dataclass(frozen=True, slots=True)
class Understood:
    """A message, and how it reads after what was said before.

    `follows` in [0, 1] is how much the conversation counts, 0 for a message that stands alone. `condensed` is the
    message with the last question, `place` the last question with its answer: where in the documents the conversation
    is. `stray` is the probability that the message by itself is out of scope.
    """

    message: str
    condensed: str
    place: str
    follows: float
    stray: float = 0.0

    @property
    def standalone(self) -> str:
        """The question as it would be asked without the conversation."""
        return self.condensed if self.follows >= SHOWN else self.message


def condense(question: str, history: tuple[Exchange, ...], compare: Compare) -> Understood:
    """The message with what it needs of the conversation, which is nothing where it stands alone."""
    message = " ".join(question.split())
    if not history or not message or not can_follow(question):
        return Understood(question.strip(), question.strip(), "", 0.0)
    previous = _last_question(history, compare)
    closeness = compare(message, previous)
    follows = weight_of(likelihood(features(message, closeness)))
    if not follows or (closeness.handled >= HANDLED and not _REFERS.search(message) and not _continues(message)):
        return Understood(question.strip(), question.strip(), "", 0.0)
    answer = " ".join(history[-1].answer.split()[:ANSWER_WORDS])
    place = f"{previous} {answer}".strip()
    return Understood(question.strip(), _joined(previous, message), place, follows, closeness.stray)


def _last_question(history: tuple[Exchange, ...], compare: Compare) -> str:
    """The last question, itself condensed with the one before it where whoever keeps the history has not done so."""
    last = " ".join(history[-1].question.split())
    return last if _JOINT in last else condense(last, history[-2:-1], compare).standalone


def _joined(previous: str, message: str) -> str:
    """The new words put in place of their like in the last question, or after it."""
    tail = _OPENING.sub("", message).strip() or message
    phrase = tail.rstrip("?!. ")
    first, *later = previous.rstrip("?!. ").split(_JOINT)
    kept = _JOINT.join([first, *later[-1:]])
    return _swap_phrase(kept, phrase) or _swap_name(kept, phrase) or f"{kept}{_JOINT}{tail}"


def can_follow(question: str) -> bool:
    """Whether a message may be a follow-up at all: no ticket or list, no word of a new subject, more than thanks."""
    text = question.strip()
    tail = _OPENING.sub("", text)
    if not tail or "\n" in text or _COLON.search(tail) or _NEW_SUBJECT.search(text):
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
        closeness.stray,
        closeness.handled,
    )


def likelihood(values: tuple[float, ...]) -> float:
    """The probability that a message with these features is a follow-up."""
    return 1 / (1 + math.exp(-sum(weight * value for weight, value in zip(WEIGHTS, (*values, 1.0), strict=True))))


def weight_of(chance: float) -> float:
    """How much the conversation counts, in [0, 1], at a probability of a follow-up."""
    return min(1.0, max(0.0, (chance - UNLIKELY) / (CERTAIN - UNLIKELY)))


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
    return f"{previous[: last.start()]}{phrase}{previous[last.end() :]}".rstrip("?!. ") + "?"
