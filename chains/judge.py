"""How well each sentence of the passages found answers the question, and whether any does.

A question's tokens look for their nearest tokens in each sentence (late interaction: Khattab and Zaharia 2020,
arXiv:2004.12832). These have read the whole passage: a sentence that says "it" is known by what "it" is, and "when"
finds dates. The vectors are all-MiniLM-L6-v2's, adapted by LoRA; the likeness is weighed with what the search says and
with the kind of answer that is asked for. `python -m evaluation judge` fitted it all, on this project's own questions.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from chains.classify import softmax
from chains.refusal import Found, RefusalHead, content_tokens, refusal_features
from index.chunk import embedded_text, sentences
from index.document import ScoredPassage, SearchResult
from index.lexical import stem, text_terms, words_of
from index.token_vectors import TokenReader

Floats = NDArray[np.float32]
WEIGHTS = Path(__file__).with_name("judge.safetensors")
REMEMBERED = 1500
"""Passages whose token vectors are kept, about 100 kB each: reading one takes 10 ms."""
_FACTOR = "lora."
_REFUSAL = "refusal."
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
    """Of each hit the probability of each of its sentences to be what answers; with `none`'s they sum to 1.

    `unanswered` is how likely nothing found answers, by what it lacks too (`chains/refusal.py`).
    """

    sentences: tuple[Floats, ...]
    none: float
    unanswered: float


@dataclass(frozen=True, slots=True)
class _Sentence:
    """What of a sentence is the same for every question: its terms, how many words, and which kinds it could answer."""

    terms: frozenset[str]
    words: int
    number: bool
    date: bool
    name: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """A passage's token vectors, (n, 384), and where each of its sentences begins among them, (sentences,).

    A sentence that was not read begins behind the end. `terms` are those of the passage, its title and its headings.
    """

    vectors: Floats
    begins: NDArray[np.int64]
    sentences: tuple[_Sentence, ...]
    terms: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Looked:
    """A question beside its hits: the weight of each of its tokens, where these begin, and per hit the cosine of the
    nearest token in each sentence, (tokens, sentences), and in what stands before the first, (tokens,)."""

    weights: Floats
    starts: NDArray[np.int64]
    passages: tuple[_Read, ...]
    nearest: tuple[Floats, ...]
    before: tuple[Floats, ...]


class Judge:
    """Judges sentences; safe to call from many threads."""

    def __init__(self, reader: TokenReader, head: Head, refusal: RefusalHead) -> None:
        self._reader = reader
        self._head = head
        self._refusal = refusal
        self._passages: OrderedDict[tuple[str, str, str], _Read] = OrderedDict()
        self._lock = threading.Lock()

    def judge(self, question: str, found: SearchResult) -> Judgement:
        """How likely each sentence of the hits is to answer, and how likely none is."""
        judgement, looked = self._judged(question, found)
        if looked is None:
            return judgement
        values = _lacks(question, found, judgement, looked)
        return replace(judgement, unanswered=self._refusal.chance(values))

    def features(self, question: str, found: SearchResult) -> Floats:
        """(sentences of all hits, FEATURES), float32."""
        return _features(question, found, self._look(question, found.hits))

    def lacks(self, question: str, found: SearchResult) -> Floats | None:
        """(REFUSAL_FEATURES,), float32; None where nothing was found."""
        judgement, looked = self._judged(question, found)
        return _lacks(question, found, judgement, looked) if looked else None

    def _judged(self, question: str, found: SearchResult) -> tuple[Judgement, _Looked | None]:
        """By the sentences alone; None where there are none."""
        looked = self._look(question, found.hits) if found.hits else None
        if looked is None or not any(read.sentences for read in looked.passages):
            return Judgement(tuple(np.zeros(0, dtype=np.float32) for _ in found.hits), 1.0, 1.0), None
        head = self._head
        rows = (_features(question, found, looked) - head.mean) / head.deviation
        odds = softmax(np.append(rows @ head.weights, head.none)).astype(np.float32)
        ends = np.cumsum([len(read.sentences) for read in looked.passages])
        none = float(odds[-1])
        return Judgement(tuple(np.split(odds[:-1], ends[:-1])), none, none), looked

    def _look(self, question: str, hits: Sequence[ScoredPassage]) -> _Looked:
        asked = self._reader.read([question])[0]
        weights = softmax(asked.vectors @ self._head.importance * SHARPNESS).astype(np.float32)
        passages = self._read(hits)
        cosines = [asked.vectors @ read.vectors.T for read in passages]
        pairs = list(zip(cosines, passages, strict=True))
        return _Looked(
            weights,
            asked.starts,
            tuple(passages),
            tuple(_nearest(cosine, read.begins) for cosine, read in pairs),
            tuple(
                cosine[:, : read.begins[0] if len(read.begins) else 0].max(1, initial=-1.0) for cosine, read in pairs
            ),
        )

    def _read(self, hits: Sequence[ScoredPassage]) -> list[_Read]:
        keys = [(hit.title, hit.passage.section, hit.passage.text) for hit in hits]
        with self._lock:
            known = {key: self._passages[key] for key in keys if key in self._passages}
            for key in known:
                self._passages.move_to_end(key)
        new = [key for key in dict.fromkeys(keys) if key not in known]
        texts = [embedded_text(*key) for key in new]
        for key, text, tokens in zip(new, texts, self._reader.read(texts, exact=False), strict=True):
            spans = sentences(text[len(text) - len(key[2]) :])
            begins = np.searchsorted(tokens.starts[1:-1], [len(text) - len(key[2]) + start for start, _ in spans])
            known[key] = _Read(
                tokens.vectors[1:-1].copy(),  # not a view of the whole batch
                begins,
                tuple(_sentence(key[2][start:end]) for start, end in spans),
                text_terms("\n".join(key)),
            )
        with self._lock:
            self._passages.update(known)
            while len(self._passages) > REMEMBERED:
                self._passages.popitem(last=False)
        return [known[key] for key in keys]


def open_judge(models: Path, threads: int, weights: Path = WEIGHTS) -> Judge:
    """The fitted judge. Raises EmbedderError where the embedding model's weights are missing."""
    stored = load_file(weights)
    factors = {
        name.removeprefix(_FACTOR): values.astype(np.float32)
        for name, values in stored.items()
        if name.startswith(_FACTOR)
    }
    head = Head(stored["importance"], stored["mean"], stored["deviation"], stored["weights"], float(stored["none"][0]))
    mean, deviation, refusing, bias = (stored[f"{_REFUSAL}{name}"] for name in ("mean", "deviation", "weights", "bias"))
    refusal = RefusalHead(mean, deviation, refusing, float(bias[0]))
    return Judge(TokenReader(models, factors, threads), head, refusal)


def write_judge(factors: Mapping[str, Floats], head: Head, refusal: RefusalHead, weights: Path = WEIGHTS) -> None:
    """Puts fitted weights where `open_judge` reads them; the factors in half precision."""
    tensors = {f"{_FACTOR}{name}": values.astype(np.float16) for name, values in factors.items()}
    rows = {name: getattr(head, name).astype(np.float32) for name in ("importance", "mean", "deviation", "weights")}
    rows["none"] = np.array([head.none], dtype=np.float32)
    save_file({**tensors, **rows, **_rows(refusal)}, weights)


def write_refusal(refusal: RefusalHead, weights: Path = WEIGHTS) -> None:
    """Puts another refusal head beside the fitted weights that are there."""
    save_file({**load_file(weights), **_rows(refusal)}, weights)


def _rows(refusal: RefusalHead) -> dict[str, Floats]:
    rows = {name: getattr(refusal, name).astype(np.float32) for name in ("mean", "deviation", "weights")}
    rows["bias"] = np.array([refusal.bias], dtype=np.float32)
    return {f"{_REFUSAL}{name}": values for name, values in rows.items()}


def _nearest(cosine: Floats, begins: NDArray[np.int64]) -> Floats:
    """(tokens, sentences): of a question's tokens the cosine of the nearest token in each sentence, -1 if unread."""
    nearest = np.full((len(cosine), len(begins)), -1.0, dtype=np.float32)
    lengths = np.diff(np.append(begins, cosine.shape[1]))
    inside = np.flatnonzero(lengths > 0)
    if inside.size:
        nearest[:, inside] = np.maximum.reduceat(cosine, begins[inside], axis=1)
    return nearest


def _sentence(text: str) -> _Sentence:
    words = words_of(text)
    number, date, name = (bool(kind.search(text)) for kind in (_NUMBER, _DATE, _NAME))
    return _Sentence(frozenset(map(stem, words)), len(words), number, date, name)


def _lacks(question: str, found: SearchResult, judgement: Judgement, looked: _Looked) -> Floats:
    """(REFUSAL_FEATURES,) of the likeliest sentence."""
    number = int(np.argmax([odds.max(initial=0.0) for odds in judgement.sentences]))
    place = int(judgement.sentences[number].argmax())
    read, nearest = looked.passages[number], looked.nearest[number]
    beside = Found(
        sentence=nearest[:, place],
        passage=np.maximum(nearest.max(1), looked.before[number]),
        sentence_terms=read.sentences[place].terms,
        passage_terms=read.terms,
        anywhere=frozenset[str]().union(*(passage.terms for passage in looked.passages)),
    )
    content = content_tokens(question, looked.starts)
    return refusal_features(judgement.none, beside, looked.weights, content, found.term_weights)


def _features(question: str, found: SearchResult, looked: _Looked) -> Floats:
    kinds = tuple(bool(kind.search(question)) for kind in (_ASKS_NUMBER, _ASKS_DATE, _ASKS_WHO, _ASKS_WHERE))
    best = found.hits[0].score
    blocks = [
        _features_of(hit, rank, best, looked.weights @ nearest, read.sentences, found.term_weights, kinds)
        for rank, (hit, read, nearest) in enumerate(zip(found.hits, looked.passages, looked.nearest, strict=True))
    ]
    return np.concatenate(blocks).astype(np.float32)


def _features_of(
    hit: ScoredPassage,
    rank: int,
    best: float,
    likeness: Floats,
    spoken: Sequence[_Sentence],
    term_weights: Mapping[str, float],
    kinds: tuple[bool, ...],
) -> Floats:
    number, date, who, where = kinds
    total = sum(term_weights.values()) or 1.0
    rows = []
    before: Set[str] = frozenset()
    padded = np.concatenate([[0.0], likeness, [0.0]])
    for place, one in enumerate(spoken):
        terms = one.terms & term_weights.keys()
        rows.append(
            (
                *(padded[place + 1], padded[place], padded[place + 2], hit.sentences[place]),
                *(_weight(terms, term_weights) / total, _weight(terms | before, term_weights) / total, hit.coverage),
                *(hit.score / best if best > 0 else 0.0, rank, place == 0, np.log1p(one.words)),
                *(number and one.number, date and one.date, who and one.name, where and one.name),
            )
        )
        before = terms
    return np.array(rows, dtype=np.float32).reshape(-1, len(FEATURES))


def _weight(terms: Set[str], weights: Mapping[str, float]) -> float:
    return sum(weights[term] for term in terms)
