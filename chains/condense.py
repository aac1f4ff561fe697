"""A follow-up becomes a standalone question, without a language model.

Only the last question is used, and only when the message leans on it: routing on whole histories is known
to be worse, and an old topic must not leak into a new one.
"""

import re

from chains.turn import Exchange

_OPENING = re.compile(
    r"^(?:(?:ok(?:ay)?|oh|hm+|ah|right|thanks|thank you|great|good|sure|yes|no|and|or|but|so|also|then|what about|"
    r"how about|what if|same for)\b[\s,.!:]*)+",
    re.IGNORECASE,
)
_CONTINUES = re.compile(r"\b(?:and|or|but|so|also|then|about|if|for|ok(?:ay)?|thanks|hm+)\b", re.IGNORECASE)
_LEANS = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|there|one|ones|same|instead|otherwise|else|again|too|"
    r"as well)\b",
    re.IGNORECASE,
)
_POINTS_INWARD = re.compile(
    r"\b(?:this|these|that|it) (?:ticket|is a|email|message|case|incident)\b|\b(?:is|it'?s) there\b|"
    r"\bthere (?:is|are|was)\b|\bis it (?:possible|ok|okay|allowed|true|normal|safe)\b|^it (?:says|takes|keeps)\b",
    re.IGNORECASE,
)
_PREPOSITION = r"(?:on|in|at|for|from|with|to|by|of|during|after|before|without|as)"
_PHRASE = re.compile(rf"^{_PREPOSITION}\b.*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][\w'-]*")
_SMALL = frozenset(
    """a an and any are at be but can could did do does for from had has have how i if in is it its many me much my no
    not of on or our should so that the their them then there these they this those to was we what when where which who
    why will with would you your please about ok okay also else long often""".split()  # noqa: SIM905
)


def condense(question: str, history: tuple[Exchange, ...]) -> str:
    """The question as it would be asked without the conversation; itself when it needs nothing."""
    message = " ".join(question.split())
    if not history or not message or not needs_history(message):
        return question.strip()
    previous = history[-1].question.strip()
    tail = _OPENING.sub("", message).strip()
    phrase = tail.rstrip("?!. ")
    swapped = _swap_phrase(previous, phrase) or _swap_name(previous, phrase)
    if swapped:
        return swapped
    return f"{previous.rstrip('?!. ')}: {tail or message}"


def needs_history(message: str) -> bool:
    """Whether a message cannot be understood alone: it opens as a continuation, or points back and is short."""
    words = _WORD.findall(message)
    content = [word for word in words if word.lower() not in _SMALL]
    if len(words) > 18 or "\n" in message or ":" in message:
        return False
    opening = _OPENING.match(message)
    if opening and _CONTINUES.search(opening.group()) and opening.end() < len(message) and len(content) <= 7:
        return True
    if _POINTS_INWARD.search(message):
        return False
    leaning = _LEANS.search(message)
    if leaning and len(content) <= 4:
        # "My laptop is slow and it makes noise" names what "it" is; "Can I carry them over?" does not.
        named = [word for word in _WORD.findall(message[: leaning.start()]) if word.lower() not in _SMALL]
        return len(named) < 2
    return bool(words) and len(words) <= 3 and bool(_PHRASE.match(message))


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
