"""Seeded noise on questions, so that a small model does not hang on single words: dropped words, typing slips,
case, lost punctuation, polite openings. Answers are never touched.
"""

import random
import re
from dataclasses import dataclass

_OPENINGS = (
    "hi, ", "hello, ", "hey ", "good morning, ", "please help: ", "quick question: ", "hi team, ", "hello there, ",
    "could you help me? ", "sorry to bother you, ", "can someone help, ", "i have a question, ", "help please, ",
    "hi there, ", "just wondering, ", "question: ",
)  # fmt: skip
_CLOSINGS = (
    " thanks", " thank you", " please advise", " any ideas?", " what should i do?", " can you help?", " cheers",
    " please", " it is urgent", " since this morning", " again", " today",
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Noise:
    """How often each change happens. `drop` and `slip` are per word, the others per question."""

    drop: float = 0.12
    slip: float = 0.03
    lower: float = 0.35
    bare: float = 0.2
    opening: float = 0.12
    closing: float = 0.08
    shuffle: float = 0.05


def disturb(text: str, noise: Noise, chance: random.Random) -> str:
    """`text` with some of the changes; at least half of its words stay, and at least two."""
    words = text.split(" ")
    rate = noise.drop * 2 * chance.random()
    kept = [word for word in words if chance.random() >= rate]
    if len(kept) >= max(2, len(words) // 2):
        words = kept
    if chance.random() < noise.shuffle and len(words) > 3:
        cut = chance.randrange(1, len(words))
        words = words[cut:] + words[:cut]
    words = [_slip(word, chance) if chance.random() < noise.slip else word for word in words]
    result = " ".join(words)
    if chance.random() < noise.opening:
        result = chance.choice(_OPENINGS) + result
    if chance.random() < noise.closing:
        result = result + chance.choice(_CLOSINGS)
    if chance.random() < noise.lower:
        result = result.lower()
    if chance.random() < noise.bare:
        result = re.sub(r"[.,!?;:]", "", result)
    return result


def _slip(word: str, chance: random.Random) -> str:
    """`word` with one letter doubled, dropped or exchanged with the next; short words stay."""
    if not _WORD.search(word):
        return word
    at = chance.randrange(1, len(word) - 1)
    kind = chance.randrange(3)
    if kind == 0:
        return word[:at] + word[at] + word[at:]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
