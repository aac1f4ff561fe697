"""Several intents in one message: where its words allow a cut, and whether a piece leans on the one before it.

Words alone say only what may be parted: never a ticket, a message with an order in front, or a question with its
circumstances. Whether two pieces are about different things is decided where they can be embedded and searched.
"""

import re
from dataclasses import dataclass

from chains.workflow import ticket_text

MOST_PARTS = 3
MOST_CHARS = 600
"""Longer messages are tickets and forwarded mails."""

MOST_ALIKE = 0.45
"""Cosine from which two pieces are about the same thing. Between parts of development messages it is .34 at most; it
tells little by itself, since "who has to approve it" is near to nothing."""

_WORD = re.compile(r"\w[\w'-]*", re.IGNORECASE)
_SMALL = frozenset(
    """a again all along am an and any are as at be because been being both but by can come comes could did do does
    doing each every for from get got go going had has have having hi hello hey hm how i i'd i'm if in into is
    isn't its just least less many may me might mine more most much must my need no not now of off on ones or
    our out over per please really same shall should so some still than thank thanks that the their them then
    there these they this those through till to too until up us via was we were what what's when where which
    while who whom whose why will with would yes you your about after also before during under within down
    exactly long often one since""".split()  # noqa: SIM905
)
_GENERAL = frozenset(
    """able act agree agrees allow allowed anyone anything apply approve approves ask asking away back before bring
    buy call contact cost costs day days decide decides early else ever expire far fast find first fix fixes
    form further give gives given happen happens happened hear help hour hours keep kind know last late later
    left let likely limit look make manager managers maximum mean meet minimum minute minutes month months
    must needs next old open own paid part pay pays people person place possible price put question quickly
    request required right rule rules say see send show sign signs somebody someone soon start step steps stop
    stuff take takes tell thing things time times try use used usually want way week weeks work works worth
    year years""".split()  # noqa: SIM905
)
"""Words that say something of a subject and name none."""
_LEANS = re.compile(
    r"\b(?:it|it's|its|they|them|their|same|he|him|she|instead|otherwise|else)\b|"
    r"(?<!is )(?<!was )(?<!are )\bthere\b(?!'s| (?:is|are|was|were))|"
    # Not "this screen", nor the "that" of "code that somebody wrote".
    r"\b(?:that|this|those|these)\b(?=\W*$| (?:is|are|was|were|be|mean|one|same)\b|'s)|"
    r"\b(?:with|about|for|on|of|to|in|do|did|does) (?:that|this|those|these)\b(?! (?:morning|week|month|year))",
    re.IGNORECASE,
)
_ENDS_ON_ONE = re.compile(r"\b(?:ones?|same|both)\W*$", re.IGNORECASE)
_WH = r"(?:how|what|what'?s|wat|when|where|who|whom|whose|why|which|how'?s|where'?s|who'?s|when'?s)"
_ASKED = rf"(?:(?:(?:until|till|by|on|in|at|from|to|up to|for|with|since|under|after|before|within|during) )?{_WH})"
_AUXILIARY = (
    r"(?:am i|(?:can|could|do|does|did|may|might|must|should|shall|will|would|have|has)(?:n't)? [a-z][\w'-]*|"
    r"(?:is|are|was|were)(?:n't)? (?:(?:i|we|you|they|he|she|it|the|a|an|my|our|your|there|this|that|any\w*|some\w*)|"
    # "and is furious." says something, "and are visitors allowed?" asks.
    r"[a-z][\w'-]*(?=[^.!?]*(?:\?|$))))"
)
_WISH = (
    r"(?:(?:i(?:'d| would)?(?: also| just)? )?(?:need|want|like|wish)(?: also)? to "
    r"(?:know|ask|find out|hear|understand)|"
    r"i(?: also)? have (?:a|another|one more) question)"
)
_ORDER = (
    r"(?:(?:please |pls |kindly )?(?:tell me|show me|explain|reset|give me|help me|let me know|remind me|list|describe|"
    r"write|draft|suggest|recommend|propose|check|fix|create|make|add|remove|delete|arrange|request|report|"
    r"unlock|order|book|cancel|define|find|send me|change|renew|register|install|set up))"
)
_ASKING = rf"(?:{_ASKED}|{_AUXILIARY}|{_WISH}|{_ORDER})(?![\w'])"
_ASKS = re.compile(rf"(?:^|[,:;.!?)]\s+){_ASKING}", re.IGNORECASE)
_ADDING = (
    r"(?:(?:and|also|plus|but|then|so|besides|additionally|furthermore|oh|ok|btw|by the way|apart from that|"
    r"(?:my )?(?:first|second|third|another|next|other|last) (?:question|thing|one)|one more (?:thing|question)|"
    r"something else|on another note|on top of (?:that|this|it)|secondly|finally|lastly|as well as|&)(?![\w'])"
    r"[\s,:\u2013-]*)+"
)
_FAULT = r"(?:(?:my|our|the) [a-z][\w'-]*)"
_MARK = r"[\s,;:\u2013-]*(?:\(?\d[.)]\s*|[-*•]\s+)?"
_ADDS = re.compile(rf"{_MARK}{_ADDING}", re.IGNORECASE)
_APART = re.compile(
    r"\b(?:also|plus|besides|additionally|furthermore|btw|by the way|apart|question|thing|else|note|on top|secondly|"
    r"finally|lastly)\b|\d[.)]|[-*\u2022]\s",
    re.IGNORECASE,
)
"""What joins a piece and says that it is something else; a mere "and" often joins two signs of one fault."""
_GREETING = r"(?:(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|dear \w+|thanks|thank you)(?![\w'])[\s,.!:]*)"
_LEADING = re.compile(rf"{_MARK}{_GREETING}?(?:{_ADDING})?", re.IGNORECASE)
_ADDED_COLON = re.compile(rf"(?<![\w']){_ADDING}(?<=:)", re.IGNORECASE)
_JOINS = r"(?:and|also|plus|as well as|&|btw|by the way|besides|on top of (?:that|this|it)|then|please)[\s,]+"
_CUT = re.compile(
    r"(?<=[?!.;\u2026])\s+|\n+|(?<=;)|"
    # A run of blanks is begun once, at its start: a message of nothing else would take seconds.
    rf"(?<![\s,])[\s,]+(?=(?:{_JOINS})+(?:{_ASKING}|{_FAULT}))|,\s+(?={_ASKED}(?![\w']))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a message, as typed. `added`: it says of itself that it is something else ("also", "by the way")."""

    start: int
    end: int
    text: str
    added: bool = False


def pieces(message: str) -> tuple[Piece, ...]:
    """The message cut wherever a new intent may begin, without what joins the pieces; () where nowhere.

    Circumstances go with the question that they lead to, or else with the one before.
    """
    if len(message) > MOST_CHARS or _is_ticket(message.strip()) or not _short_lines(message):
        return ()
    spans = _spans(message)
    found: list[tuple[int, int, bool]] = []
    since: tuple[int, bool] | None = None
    for place, (start, core, end) in enumerate(spans):
        joins = place > 0 and _ADDS.match(message[start:core])
        next_joins = place + 1 < len(spans) and _ADDS.match(message[spans[place + 1][0] :])
        begin, added = since or (core, bool(place > 0 and _APART.search(message[start:core])))
        if asks(message[core:end]) or joins or next_joins:
            found.append((begin, end, added))
            since = None
        else:
            since = (begin, added)
    if since is not None and found:
        found[-1] = (found[-1][0], spans[-1][2], found[-1][2])
    return tuple(_piece(message, *one) for one in found) if len(found) > 1 else ()


def joined(message: str, first: Piece, second: Piece) -> Piece:
    """Two neighbours and what stands between them."""
    return _piece(message, first.start, second.end, first.added)


def names_a_subject(piece: str) -> bool:
    """Whether a word of it says what it is about."""
    return bool(_subjects(piece))


def stands_alone(piece: str) -> bool:
    """Whether a piece can be understood without the one before it: "and who approves it", "and until when" cannot.

    A subject and something that is said or asked of it are two words at least; a pronoun late in a piece may stand for
    what the piece itself names.
    """
    leaning = _LEANS.search(piece)
    if _ENDS_ON_ONE.search(piece):
        return False
    subjects = _subjects(piece)
    if leaning and len(_subjects(piece[: leaning.start()])) < 2 and len(subjects) < 4:
        return False
    return len(_content(piece)) > 1 and bool(subjects)


def asks(piece: str) -> bool:
    """Whether it is a question or a wish by its words, not only the description of a fault."""
    return bool(_ASKS.search(piece)) or piece.rstrip().endswith("?")


def _piece(message: str, start: int, end: int, added: bool) -> Piece:
    return Piece(start, end, message[start:end].strip(" \n,;"), added)


def _spans(text: str) -> list[tuple[int, int, int]]:
    """(start, start without what joins it, end) of each span; one that says nothing belongs to a neighbour."""
    spans: list[tuple[int, int, int]] = []
    start = begin = 0
    for end, after in [*((cut.start(), cut.end()) for cut in _CUT.finditer(text)), (len(text), len(text))]:
        core = begin + _leading(text[begin:end])
        announces = text[core:end].rstrip().endswith(":")
        if _content(text[core:end]) and not announces:
            spans.append((start, core, end))
            start = after
        elif spans and not announces and text[core:end].strip():  # "how much?"
            spans[-1] = (*spans[-1][:2], end)
            start = after
        begin = after
    return spans


def _content(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _SMALL]


def _subjects(text: str) -> list[str]:
    return [word for word in _content(text) if word not in _GENERAL]


def _leading(piece: str) -> int:
    found = _LEADING.match(piece)
    return found.end() if found else 0


def _is_ticket(text: str) -> bool:
    """Whether an order stands in front; the colon of "another question:" makes none."""
    plain = _ADDED_COLON.sub(",", text)
    return ticket_text(plain) != plain


def _short_lines(text: str) -> bool:
    """Whether it is one line, or a question on each, under a line that announces them at most."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    return len(lines) == 1 or (len(lines) <= MOST_PARTS and all(asks(line[_leading(line) :]) for line in lines))
