"""How well each sentence of the passages found answers the question, and whether any does.

A question's tokens look for their nearest tokens in each sentence (late interaction: Khattab and Zaharia 2020,
arXiv:2004.12832). These have read the whole passage: a sentence that says "it" is known by what "it" is, and "when"
finds dates. The vectors are all-MiniLM-L6-v2's, adapted by LoRA; the likeness is weighed with what the search says and
with the kind of answer that is asked for. `python -m evaluation judge` fitted it all, on this project's own questions.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from chains.classify import softmax
from index.chunk import embedded_text, sentences
from index.document import ScoredPassage, SearchResult
from index.lexical import stem, words_of
from index.token_vectors import TokenReader

Floats = NDArray[np.float32]
WEIGHTS = Path(__file__).with_name("judge.safetensors")
REMEMBERED = 1500
"""Passages whose token vectors are kept, about 100 kB each: reading one takes 10 ms."""
_FACTOR = "lora."
SHARPNESS = 8.0
"""What a question token's importance is multiplied by before the softmax."""

_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|often|old|far|big|large|high|tall|soon|early|late)\b|"
    r"\b(?:percentage|percent|number|amount|age|rate|price|cost|limit|maximum|minimum)\b",
    re.IGNORECASE,
)
_ASKS_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which) (?:year|month|date|day|century|decade|time)\b|\bdeadline\b|\bby when\b", re.IGNORECASE
)
_ASKS_WHO = re.compile(r"\bwho(?:m|se)?\b|\b(?:what|which) (?:person|people|team|department|company)\b", re.IGNORECASE)
_ASKS_WHERE = re.compile(r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|room|building|site)\b", re.IGNORECASE)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|half|twice|once|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\b(?:1\d|20)\d\d\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|century|years?|days?|months?|weeks?|hours?|minutes?|noon|midnight)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[\w,;:] )[A-Z][\w'\u2019-]+")

FEATURES = (
    *("likeness", "likeness before", "likeness after", "cosine", "terms", "terms with before", "passage's terms"),
    *("score", "rank", "first", "words", "number", "date", "who", "where"),
)
"""What the last step weighs, per sentence; the score is that of the passage as a share of the best one's."""


@dataclass(frozen=True, slots=True)
class Head:
    """Fitted weights: of a question's tokens `importance` (384,), and of FEATURES, which are scaled by `mean` and
    `deviation`, (n,) each; `none` is the score that a sentence must beat to be likelier than none."""

    importance: Floats
    mean: Floats
    deviation: Floats
    weights: Floats
    none: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of each hit the probability of each of its sentences to be what answers; with `none`'s they sum to 1."""

    sentences: tuple[Floats, ...]
    none: float


@dataclass(frozen=True, slots=True)
class _Read:
    """A passage's token vectors, (n, 384), and where each of its sentences begins among them, (sentences,).

    A sentence that was not read begins behind the end.
    """

    vectors: Floats
    begins: NDArray[np.int64]


class Judge:
    """Judges sentences; safe to call from many threads."""

    def __init__(self, reader: TokenReader, head: Head) -> None:
        self._reader = reader
        self._head = head
        self._passages: OrderedDict[str, _Read] = OrderedDict()
        self._lock = threading.Lock()

    def judge(self, question: str, found: SearchResult) -> Judgement:
        """How likely each sentence of the hits is to answer."""
        if not found.hits:
            return Judgement((), 1.0)
        head = self._head
        rows = (self.features(question, found) - head.mean) / head.deviation
        odds = softmax(np.append(rows @ head.weights, head.none)).astype(np.float32)
        ends = np.cumsum([len(hit.sentences) for hit in found.hits])
        return Judgement(tuple(np.split(odds[:-1], ends[:-1])), float(odds[-1]))

    def features(self, question: str, found: SearchResult) -> Floats:
        """(sentences of all hits, FEATURES), float32."""
        asked = self._reader.read([question])[0].vectors
        weights = softmax(asked @ self._head.importance * SHARPNESS).astype(np.float32)
        kinds = _kinds_asked(question)
        best = found.hits[0].score
        blocks = [
            _features_of(hit, rank, best, _likeness(asked, weights, read), found.term_weights, kinds)
            for rank, (hit, read) in enumerate(zip(found.hits, self._read(found.hits), strict=True))
        ]
        return np.concatenate(blocks).astype(np.float32)

    def _read(self, hits: Sequence[ScoredPassage]) -> list[_Read]:
        texts = [embedded_text(hit.title, hit.passage.section, hit.passage.text) for hit in hits]
        with self._lock:
            known = {text: self._passages[text] for text in texts if text in self._passages}
            for text in known:
                self._passages.move_to_end(text)
        new = [place for place, text in enumerate(texts) if text not in known]
        for place, tokens in zip(new, self._reader.read([texts[place] for place in new], exact=False), strict=True):
            text, passage = texts[place], hits[place].passage
            spans = sentences(passage.text, len(text) - len(passage.text))
            begins = np.searchsorted(tokens.starts[1:-1], [start for start, _ in spans])
            known[text] = _Read(tokens.vectors[1:-1].copy(), begins)  # not a view of the whole batch
        with self._lock:
            self._passages.update(known)
            while len(self._passages) > REMEMBERED:
                self._passages.popitem(last=False)
        return [known[text] for text in texts]


def open_judge(models: Path, threads: int, weights: Path = WEIGHTS) -> Judge:
    """The fitted judge. Raises EmbedderError where the embedding model's weights are missing."""
    stored = load_file(weights)
    factors = {
        name.removeprefix(_FACTOR): values.astype(np.float32)
        for name, values in stored.items()
        if name.startswith(_FACTOR)
    }
    head = Head(stored["importance"], stored["mean"], stored["deviation"], stored["weights"], float(stored["none"][0]))
    return Judge(TokenReader(models, factors, threads), head)


def write_judge(factors: Mapping[str, Floats], head: Head, weights: Path = WEIGHTS) -> None:
    """Puts fitted weights where `open_judge` reads them; the factors in half precision."""
    tensors = {f"{_FACTOR}{name}": values.astype(np.float16) for name, values in factors.items()}
    rows = {name: getattr(head, name).astype(np.float32) for name in ("importance", "mean", "deviation", "weights")}
    save_file({**tensors, **rows, "none": np.array([head.none], dtype=np.float32)}, weights)


def _likeness(asked: Floats, weights: Floats, read: _Read) -> Floats:
    """(sentences,): the weighed mean over the question's tokens of the cosine of the nearest token in each sentence."""
    likeness = np.full(len(read.begins), -1.0, dtype=np.float32)
    lengths = np.diff(np.append(read.begins, len(read.vectors)))
    inside = np.flatnonzero(lengths > 0)
    if inside.size:
        nearest = np.maximum.reduceat(asked @ read.vectors.T, read.begins[inside], axis=1)
        likeness[inside] = weights @ nearest
    return likeness


def _kinds_asked(question: str) -> tuple[bool, ...]:
    return tuple(bool(kind.search(question)) for kind in (_ASKS_NUMBER, _ASKS_DATE, _ASKS_WHO, _ASKS_WHERE))


def _features_of(
    hit: ScoredPassage,
    rank: int,
    best: float,
    likeness: Floats,
    term_weights: Mapping[str, float],
    kinds: tuple[bool, ...],
) -> Floats:
    number, date, who, where = kinds
    total = sum(term_weights.values()) or 1.0
    rows = []
    before: set[str] = set()
    padded = np.concatenate([[0.0], likeness, [0.0]])
    for place, (start, end) in enumerate(sentences(hit.passage.text)):
        text = hit.passage.text[start:end]
        words = words_of(text)
        terms = {term for term in map(stem, words) if term in term_weights}
        names = bool(_NAME.search(text))
        rows.append(
            (
                *(padded[place + 1], padded[place], padded[place + 2], hit.sentences[place]),
                *(_weight(terms, term_weights) / total, _weight(terms | before, term_weights) / total, hit.coverage),
                *(hit.score / best if best > 0 else 0.0, rank, place == 0, np.log1p(len(words))),
                *(
                    number and bool(_NUMBER.search(text)),
                    date and bool(_DATE.search(text)),
                    who and names,
                    where and names,
                ),
            )
        )
        before = terms
    return np.array(rows, dtype=np.float32).reshape(-1, len(FEATURES))


def _weight(terms: set[str], weights: Mapping[str, float]) -> float:
    return sum(weights[term] for term in terms)
