"""What the teacher is asked about: texts of the corpus, pieces of them and mixtures, each with its vector.

The tiny model sees far too few questions to learn from them alone which words mean the same. The teacher does not
mind nonsense, so mixtures of pieces give as many lessons as wanted from the corpus alone. Distilling a sentence
embedder into a smaller model: Reimers and Gurevych 2020, arXiv:2004.09813.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.tiny.corpus import Corpus
from adapters.tiny.teacher import Teach

MOST_WORDS = 40
"""Longer texts are cut into sentences: a user's message is rarely longer."""
SHARE_RESTATEMENTS = 0.35
SHARE_WHOLE = 0.25
SHARE_PIECES = 0.15
"""What is not a restatement, a whole text or a piece of one is a mixture of two pieces."""
FOREIGN_WORDS = 0.15
"""In one lesson in five this share of the words is exchanged for any word of the corpus."""
OWN_SHARE = 0.5
"""A restatement's target is this much its own vector and for the rest the mean of its group."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Lessons:
    """`targets[i]`, a unit vector, is what the state that opens the reply to `texts[i]` learns to hold."""

    texts: tuple[str, ...]
    targets: NDArray[np.float32]


def write_lessons(corpus: Corpus, teach: Teach, count: int, seed: int) -> Lessons:
    """`count` seeded lessons. Targets are centred: what all texts share tells none from another."""
    chance = random.Random(seed)  # noqa: S311
    restated = [text for group in corpus.restatements for text in group]
    own = teach(restated)
    blended, at = np.empty_like(own), 0
    for group in corpus.restatements:
        rows = own[at : at + len(group)]
        blended[at : at + len(group)] = OWN_SHARE * rows + (1 - OWN_SHARE) * rows.mean(axis=0)
        at += len(group)
    picked = [chance.randrange(len(restated)) for _ in range(round(SHARE_RESTATEMENTS * count))]
    sentences = _sentences(corpus.texts)
    others = [_variant(sentences, chance) for _ in range(count - len(picked))]
    targets: Any = np.concatenate([blended[picked], teach(others)]).astype(np.float32)
    targets -= targets.mean(axis=0)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return Lessons((*(restated[i] for i in picked), *others), targets)


def _sentences(texts: Sequence[str]) -> list[list[str]]:
    """Every sentence of at most MOST_WORDS words once, as its words."""
    parts = (part.strip() for text in texts for part in (text, *_SENTENCE_END.split(text)))
    return [part.split() for part in dict.fromkeys(parts) if 2 <= len(part.split()) <= MOST_WORDS]


def _variant(sentences: list[list[str]], chance: random.Random) -> str:
    kind = chance.random() * (1 - SHARE_RESTATEMENTS)
    words = chance.choice(sentences)
    if kind >= SHARE_WHOLE + SHARE_PIECES:
        words = _piece(words, 10, chance) + _piece(chance.choice(sentences), 10, chance)
    elif kind >= SHARE_WHOLE:
        words = _piece(words, 12, chance)
    if chance.random() < 0.2:
        words = [chance.choice(chance.choice(sentences)) if chance.random() < FOREIGN_WORDS else word for word in words]
    return " ".join(words)


def _piece(words: list[str], most: int, chance: random.Random) -> list[str]:
    length = chance.randint(1, min(most, len(words)))
    start = chance.randrange(len(words) - length + 1)
    return words[start : start + length]
