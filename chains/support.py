"""Whether a source states what a sentence states: its amounts, its dates, its names, and what it denies.

A cosine says that two sentences are about the same; this says where they differ in what matters. It knows no meaning:
an amount that was converted ("two weeks" for 14 days) is not in its source, and that is the side to err on.
"""

import re
from collections.abc import Iterator, Sequence, Set
from decimal import Decimal

from index.lexical import STOP_WORDS, query_terms, text_terms

Amount = tuple[str, str]
"""A number as written in digits, and its unit: a month for a day of it, "" for none that is known."""

LEANS = re.compile(
    r"\W*(?:(?:if|when|in|for|after|before|but|and|or|on|until|by|with|without|from)\s+)?"
    r"(?:it|its|they|them|their|this|that|these|those|he|she|his|her|such|otherwise|then|also|however)\b",
    re.IGNORECASE,
)
"""How a sentence begins that can only be understood with the one before it."""

_ONES = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_ORDINALS = (  # noqa: SIM905
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_WORDS = {
    **{word: Decimal(value) for value, word in enumerate(_ONES)},
    **{word: Decimal(20 + 10 * place) for place, word in enumerate(_TENS)},
    **{word: Decimal(value) for value, word in enumerate(_ORDINALS, 1)},
    **{"once": Decimal(1), "twice": Decimal(2), "half": Decimal("0.5"), "dozen": Decimal(12)},
}
_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
_DATES = {
    **{word: word[:3] for word in (*_MONTHS, *_WEEKDAYS)},
    **{word[:3]: word[:3] for word in (*_MONTHS, *_WEEKDAYS)},
    **{"sept": "sep", "tues": "tue", "thur": "thu", "thurs": "thu"},
}
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "second": "seconds sec secs",
        "minute": "minute minutes min mins",
        "hour": "hour hours hr hrs h",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years",
        "am": "am",
        "pm": "pm",
        "%": "% percent",
        "euro": "€ eur euro euros",
        "pound": "£ gbp pound pounds",
        "dollar": "$ usd dollar dollars",
        "cent": "cent cents",
        "penny": "pence penny p",
        "mm": "mm millimetre millimetres millimeter millimeters",
        "cm": "cm centimetre centimetres centimeter centimeters",
        "m": "m metre metres meter meters",
        "km": "km kilometre kilometres kilometer kilometers",
        "mile": "mile miles",
        "g": "g gram grams",
        "kg": "kg kilo kilos kilogram kilograms",
        "litre": "l litre litres liter liters",
        "mb": "mb megabyte megabytes",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "degree": "° degree degrees",
    }.items()
    for spelling in spellings.split()
}
_CURRENCIES = frozenset("€£$")
_TOKEN = re.compile(r"[€£$%°]|\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NO_AMOUNT = re.compile(
    r"\b(?:the|this|that|which|each|every|any|no|another|some|last) one\b|"
    r"\bone (?:another|of|who|that|can|may|must|should)\b|"
    r"\bat first\b|\bfirst(?: of all)?,|\b(?:next|past) second\b|\ba second\b(?! \w)",
    re.IGNORECASE,
)
"""Where "one", "first" and "second" count nothing."""

_DENIES = re.compile(
    r"\b(?:not|cannot|no|never|nobody|none|nothing|neither|nor|without|nowhere)\b|n['\u2019]t\b", re.IGNORECASE
)
_FORBIDS = re.compile(
    r"\b(?:forbidden|prohibited|banned|barred|refused|rejected|denied|excluded|impossible|unable|unavailable|unpaid|"
    r"unnecessary|invalid|void|illegal)\b",
    re.IGNORECASE,
)
_BOUNDS = re.compile(
    r"\b(?:no|not) (?:more|later|longer|less|fewer|earlier|sooner|older|younger|higher|lower|larger|smaller) than\b|"
    r"\bnot only\b|\bnot? matter\b|^\W*no,",
    re.IGNORECASE,
)
"""What only limits: "no later than noon" denies nothing."""
_CLAUSE = re.compile(
    r"[;:\n]|[.!?](?=\s|$)|\b(?:but|while|whereas|although|though|except|unless|because|since)\b|"
    r",\s+(?:and|or|so|which|who|if|when)\b",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"[^\W_][\w'\u2019-]*")


def supports(sentence: str, source: str, around: str = "", names: Set[str] = frozenset()) -> bool:
    """Whether the source has every amount, date and name of the sentence, and denies what that denies and nothing else.

    Names may also stand in `around`: the source's title and headings, and what it leans on. `names` are words in lower
    case that are names even where a sentence begins with one.
    """
    known = amounts(source) | {("1", "") for _ in re.finditer(r"\b(?:an?|single)\b", source, re.IGNORECASE)}
    if not all(_among(amount, known) for amount in amounts(sentence)):
        return False
    if not dates(sentence) <= dates(source):
        return False
    terms = text_terms(f"{source}\n{around}")
    if not all(text_terms(name) <= terms for name in proper_names(sentence, names)):
        return False
    return _deny_alike(sentence, source)


def amounts(text: str) -> set[Amount]:
    """The numbers of a text, in digits or words, each with its unit."""
    tokens = _TOKEN.findall(_NO_AMOUNT.sub(" ; ", re.sub(r"\bper cent\b", "percent", text)))
    found: set[Amount] = set()
    place = 0
    while place < len(tokens):
        value, end = _number(tokens, place)
        if value:
            found.add((value, _unit(tokens, place, end)))
        place = max(end, place + 1)
    return found


def dates(text: str) -> set[str]:
    """The months and days of the week that a text names, by their first three letters."""
    return {_DATES[token.lower()] for token in _TOKEN.findall(text) if _is_date(token)}


def proper_names(text: str, names: Set[str] = frozenset()) -> Iterator[str]:
    """The words of a text that name something: capitals inside a sentence, codes, and known `names` anywhere."""
    words = list(_CAPITAL.finditer(text))
    for place, found in enumerate(words):
        word = found.group()
        plain = re.sub(r"['\u2019]s?$", "", word)
        if plain == plain.lower() or plain.lower() in STOP_WORDS or _is_date(plain):
            continue
        inside = re.search(r"[^\W_][,'\u2019\")\]]*[ -]$", text[: found.start()]) is not None
        code = any(letter.isupper() or letter.isdigit() for letter in plain[1:])
        joined = place + 1 < len(words) and re.match(r"[^\W\d_]", word) and _begins_name(text, words[place + 1])
        if inside or code or plain.lower() in names or joined:
            yield plain


def known_names(texts: Sequence[str]) -> frozenset[str]:
    """The words, in lower case, that stand with a capital inside sentences of these texts."""
    found = (match.group(1) for text in texts for match in re.finditer(r"(?<=[a-z,] )([A-Z][\w-]*)", text))
    return frozenset(word.lower() for word in found) - STOP_WORDS


def _begins_name(text: str, word: re.Match[str]) -> bool:
    return text[word.start() - 1] == " " and word.group()[0].isupper() and word.group().lower() not in STOP_WORDS


def _number(tokens: Sequence[str], start: int) -> tuple[str, int]:
    """The number that begins at a token, "" where none does, and the token after it."""
    total, current, place = Decimal(0), None, start
    while place < len(tokens):
        word = tokens[place].lower()
        if word[0].isdigit():
            if current is not None:
                break
            plain = word.replace(",", "") if _THOUSANDS.fullmatch(word) else word.replace(",", ".")
            if plain.count(".") > 1 or ":" in plain:
                return plain, place + 1  # a time, a version
            current = Decimal(plain)
        elif word in _WORDS and (current is None or _adds(word, current)):
            current = (current or 0) + _WORDS[word]
        elif word in _SCALES and current is not None:
            current *= _SCALES[word]
            if _SCALES[word] > 100:
                total, current = total + current, Decimal(0)
        elif word != "and" or current is None or current % 100 or not _continues(tokens, place + 1):
            break
        place += 1
    if current is None:
        return "", start
    return f"{(total + current).normalize():f}", place


def _adds(word: str, value: Decimal) -> bool:
    """Whether a number's word adds to those before it: "five" to "twenty", and to "two hundred"."""
    return (word in _ONES and value % 100 in range(20, 100, 10)) or (
        word in (*_ONES, *_TENS) and value > 0 and value % 100 == 0
    )


def _continues(tokens: Sequence[str], place: int) -> bool:
    """Whether a number goes on behind "and": "two hundred and five"."""
    return tokens[place : place + 1] != [] and tokens[place].lower() in (*_ONES, *_TENS)


def _unit(tokens: Sequence[str], start: int, end: int) -> str:
    """The unit of the number in `tokens[start:end]`: its currency, the month it is a day of, or a word behind it."""
    if start and tokens[start - 1] in _CURRENCIES:
        return _UNITS[tokens[start - 1]]
    behind = [token for token in tokens[end : end + 4] if token.lower() not in ("st", "nd", "rd", "th", "of")]
    for token, after in zip(behind[:2], [*behind[1:3], ""], strict=False):
        if token[0].isdigit() or token.lower() in _WORDS or (token in _CURRENCIES and after[:1].isdigit()):
            break
        if token.lower() in _UNITS:
            return _UNITS[token.lower()]
        if _is_date(token):
            return _DATES[token.lower()]
    if start and _is_date(tokens[start - 1]) and _DATES[tokens[start - 1].lower()] in {month[:3] for month in _MONTHS}:
        return _DATES[tokens[start - 1].lower()]
    return ""


def _is_date(token: str) -> bool:
    """ "may", "march", "sun" and "mon" are words of their own where they are written small."""
    return token.lower() in _DATES and (token[0].isupper() or (len(token) > 4 and token.lower() != "march"))


def _among(amount: Amount, known: Set[Amount]) -> bool:
    """An amount without a unit may be any of that number."""
    number, unit = amount
    return any(number == other and (unit == its or "" in (unit, its)) for other, its in known)


def _deny_alike(sentence: str, source: str) -> bool:
    """Whether each clause denies something exactly where the source's clauses that are most like it do."""
    theirs = [(set(query_terms(clause)), _denies(clause)) for clause in _clauses(source)]
    for clause in _clauses(sentence):
        own, denied = set(query_terms(clause)), _denies(clause)
        most = max((len(own & terms) for terms, _ in theirs), default=0)
        alike = {denies for terms, denies in theirs if most and len(own & terms) == most}
        if denied not in alike and (denied or alike):
            return False
    return True


def _clauses(text: str) -> list[str]:
    return [clause for clause in _CLAUSE.split(_BOUNDS.sub(" ", text)) if query_terms(clause)]


def _denies(clause: str) -> bool:
    """Two ways to deny make none: "not forbidden"."""
    return bool(_DENIES.search(clause)) != bool(_FORBIDS.search(clause))
