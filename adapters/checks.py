"""What is wrong with training data beyond its form, told by file and line before any time is spent on it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.prompts import encode_example
from adapters.rows import Example, Fault, Placed, placed_at

KINDS = {
    "form": "the row has none of the forms that can be read",
    "encoding": "not UTF-8",
    "roles": "the roles make no conversation",
    "empty": "no question, or no answer",
    "truncated": "the answer looks cut off",
    "duplicate": "the row stands there twice",
    "contradiction": "one question with different answers",
    "leakage": "a question of the evaluation rows is in training too",
    "control": "the text holds a chat template's control token",
    "personal": "the text looks like somebody's personal data, or a secret",
    "too long": "the row does not fit, and would be cut",
}
CONTROL = re.compile(r"<\|[a-z_]{2,20}\|>|</?s>|\[/?INST\]", re.IGNORECASE)
PERSONAL = {
    "an e-mail address": re.compile(r"\b[\w.+-]{1,64}@(?!(?:[\w-]+\.)*example\b)[\w-]+(?:\.[\w-]+)+\b"),
    "a card number": re.compile(r"\b(?:\d[ -]?){13,19}\b"),
    "a bank account": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "a telephone number": re.compile(r"(?<![\w+])\+\d{1,3}[ ./-]?(?:\(?\d{1,4}\)?[ ./-]?){2,5}\d{2,4}\b"),
    "a social security number": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "a key or token": re.compile(r"\b(?:sk|pk|ghp|gho|hf|xox[abp])[-_][A-Za-z0-9_-]{16,}\b|\bAKIA[A-Z0-9]{16}\b"),
}
SENTENCE_END = re.compile(r"[.!?…:;)\]}\"'”\u2019»`>*\d%€$£]\s*$")
BROKEN_END = re.compile(
    r"(?:,|-|\.\.\.|…|\b(?:and|or|the|a|an|of|to|in|with|for|that|which|is|are|if|by))\s*$", re.IGNORECASE
)
USUAL_END = 0.9
"""Where so large a share of the answers ends like a sentence, one that does not is taken for cut off."""
SHINGLE, ALIKE = 4, 0.8
"""Questions whose sets of four-letter sequences overlap (Jaccard) by so much count as one: a changed letter or an added
'please', not another wording."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of rows in tokens; `dropped` are those that the limit would cut."""

    rows: int
    answers: int
    tokens: int
    longest: int
    median: int
    dropped: int
    histogram: tuple[tuple[int, int], ...]
    """(upper bound of tokens, rows) of each class, doubling from 16."""


def check_rows(training: Sequence[Placed], held_out: Sequence[Placed] = ()) -> list[Fault]:
    """The faults of rows that were read, in the order of their places; each kind has its words in KINDS."""
    faults = [*_own_faults(training), *_own_faults(held_out), *_repeats(training), *_leaks(training, held_out)]
    return sorted(faults, key=lambda fault: (str(fault.path), fault.line))


def without(rows: Sequence[Placed], faults: Sequence[Fault]) -> list[Placed]:
    """The rows that have no severe fault and are no second copy; the others of their line stay."""
    out = {(fault.path, fault.line, fault.row) for fault in faults if fault.severe or fault.kind == "duplicate"}
    return [placed for placed in rows if (placed.path, placed.line, placed.row) not in out]


def statistics(rows: Sequence[Placed], tokenizer: Any, most: int) -> tuple[Statistics, list[Fault]]:
    """Lengths as the model will see them, and a fault for each row of more than `most` tokens."""
    lengths = [len(encode_example(tokenizer, one.row.prompt, one.row.completion, one.row.before)[0]) for one in rows]
    faults = [
        Fault(
            one.path,
            one.line,
            "too long",
            f"it has {length:,} tokens, and {most:,} are read: shorten it.",
            row=one.row,
        )
        for one, length in zip(rows, lengths, strict=True)
        if length > most
    ]
    bounds = [16 << step for step in range(20)]
    counted = Counter(next(bound for bound in bounds if length <= bound) for length in lengths)
    return Statistics(
        rows=len(rows),
        answers=len({one.row.completion for one in rows}),
        tokens=sum(lengths),
        longest=max(lengths, default=0),
        median=sorted(lengths)[len(lengths) // 2] if lengths else 0,
        dropped=len(faults),
        histogram=tuple((bound, counted[bound]) for bound in bounds if counted[bound]),
    ), faults


def groups_of(prompts: Sequence[str]) -> list[int]:
    """A group number for each question: near-duplicates, by the letters they share, have the same one.

    Exact Jaccard over shingles that are not too common; who shares one with nobody is alone.
    """
    sets = [_shingles(plain(prompt)) for prompt in prompts]
    parent = list(range(len(prompts)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    # Two sets that overlap by ALIKE share one of the first (1 - ALIKE) of their rarest members: prefix filtering
    # (Chaudhuri, Ganti and Kaushik 2006, "A primitive operator for similarity joins").
    frequency = Counter(shingle for own in sets for shingle in own)
    seen: dict[str, list[int]] = {}
    for place, own in enumerate(sets):
        ordered = sorted(own, key=lambda shingle: (frequency[shingle], shingle))
        prefix = ordered[: len(ordered) - int(ALIKE * len(ordered)) + 1]
        for other in {other for shingle in prefix for other in seen.get(shingle, ())}:
            if root(other) != root(place) and _jaccard(own, sets[other]) >= ALIKE:
                parent[root(place)] = root(other)
        for shingle in prefix:
            seen.setdefault(shingle, []).append(place)
    return [root(place) for place in range(len(prompts))]


def _own_faults(rows: Sequence[Placed]) -> Iterator[Fault]:
    ends = sum(bool(SENTENCE_END.search(one.row.completion)) for one in rows)
    usual = ends >= USUAL_END * len(rows)
    for one in rows:
        row = one.row
        for name, text in (("question", row.prompt), ("answer", row.completion)):
            if not text.strip():
                yield Fault(one.path, one.line, "empty", f"the {name} is empty.", row=one.row)
            if found := CONTROL.search(text):
                message = f"the {name} holds {found.group()!r}, which stays plain text: is it left from a chat log?"
                yield Fault(one.path, one.line, "control", message, severe=False, row=one.row)
            for what in personal_data(text):
                message = f"the {name} holds what looks like {what}: a model repeats what it was trained on."
                yield Fault(one.path, one.line, "personal", message, severe=False, row=one.row)
        answer = row.completion.rstrip()
        if BROKEN_END.search(answer) or (usual and answer and not SENTENCE_END.search(answer)):
            message = f"the answer ends with {answer[-20:]!r}, in the middle of a sentence."
            yield Fault(one.path, one.line, "truncated", message, severe=False, row=one.row)


def personal_data(text: str) -> list[str]:
    """What kinds of personal data, or secrets, the text seems to hold."""
    found = []
    for what, pattern in PERSONAL.items():
        for match in pattern.finditer(text):
            if what != "a card number" or _is_card(match.group()):
                found.append(what)
                break
    return found


def _is_card(text: str) -> bool:
    """Luhn's check sum (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _repeats(rows: Sequence[Placed]) -> Iterator[Fault]:
    first: dict[tuple[str, str], Placed] = {}
    answers: dict[str, Placed] = {}
    for one in rows:
        question, told = asked(one.row), plain(one.row.completion)
        earlier = first.setdefault((question, told), one)
        if earlier is not one:
            message = f"it says the same as {placed_at(earlier.path, earlier.line)}{_elsewhere(one, earlier)}."
            yield Fault(one.path, one.line, "duplicate", message, severe=False, row=one.row)
            continue
        other = answers.setdefault(question, one)
        if other is not one:
            where = f"{placed_at(other.path, other.line)}{_elsewhere(one, other)}"
            message = f"{where} answers the same question differently: keep one."
            yield Fault(one.path, one.line, "contradiction", message, row=one.row)


def _leaks(training: Sequence[Placed], held_out: Sequence[Placed]) -> Iterator[Fault]:
    if not held_out:
        return
    numbers = groups_of([one.row.prompt for one in (*training, *held_out)])
    trained = dict(zip(reversed(numbers[: len(training)]), reversed(training), strict=True))
    for one, number in zip(held_out, numbers[len(training) :], strict=True):
        if number in trained:
            near = trained[number]
            where = f"{near.path.name}, {placed_at(near.path, near.line)}"
            message = f"its question is nearly that of {where}: the score would flatter."
            yield Fault(one.path, one.line, "leakage", message, row=one.row)


def _elsewhere(one: Placed, other: Placed) -> str:
    return "" if one.path == other.path else f" of {other.path.name}"


def asked(row: Example) -> str:
    """What a row asks, with what was said before it; the same for questions that differ in case and marks alone."""
    return "\n".join([*(plain(message.content) for message in row.before), plain(row.prompt)])


def plain(text: str) -> str:
    """A text's words, without case and marks."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def _shingles(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[place : place + SHINGLE] for place in range(max(1, len(padded) - SHINGLE + 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
