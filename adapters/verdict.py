"""Whether a new adapter may serve: measured on rows that it never saw, beside the base and the version before.

A candidate is promoted only if it beats both. What decides is the share of answers that are exactly right where answers
repeat (a help desk's ready texts), else ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").
"""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.config import AdapterManifest, read_manifest
from adapters.dataset import Example, Split
from adapters.decode import Decoder, new_row
from adapters.errors import AdapterError
from adapters.greedy import ROWS_AT_ONCE
from adapters.lora_batch import AdapterWeights
from adapters.prompts import encode_example
from adapters.registry import MANIFEST_FILE, SPLIT_FILE, FoundAdapter
from adapters.residents import load_weights
from adapters.writing import read_answer

TERMS = 60
"""So many terms of the domain are looked for in answers."""
LEAST_UNSEEN = 10
"""Fewer rows that neither version saw tell nothing: then all held-out rows count, which flatters the one before."""
REPEATED = 0.5
"""From this share of held-out answers on that training has too, exactness decides."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of held-out rows: shares from 0 to 1, and the perplexity of the right answers, per token."""

    rows: int
    exact: float
    rouge_l: float
    terms: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`promoted` says whether the candidate may serve, `reason` why; `answers` are, by row, those of each contender."""

    promoted: bool
    reason: str
    measure: str
    scores: dict[str, Scores]
    rows: tuple[Example, ...]
    answers: dict[str, tuple[str, ...]]


def judge(
    candidate: Path,
    serving: Path,
    held_out: Sequence[Example],
    training: Sequence[Example],
    decoder: Decoder,
    most: int,
) -> Verdict:
    """Scores the adapter in `candidate` beside the base and the one in `serving`, if that one is of this base too."""
    contenders: dict[str, AdapterWeights | None] = {"base": None}
    before = _version_of(serving, decoder)
    if before is not None:
        with contextlib.suppress(AdapterError):  # one that is damaged serves nobody
            contenders["before"] = load_weights(before, decoder)
            held_out = _unseen(held_out, serving)
    new = load_weights(FoundAdapter(candidate, read_manifest(candidate / MANIFEST_FILE, AdapterManifest)), decoder)
    contenders["candidate"] = new
    terms = domain_terms([row.completion for row in training])
    answers = {name: answered(held_out, weights, decoder, most) for name, weights in contenders.items()}
    scores = {
        name: scored(held_out, answers[name], terms, perplexity(answer_logprobs(held_out, weights, decoder)))
        for name, weights in contenders.items()
    }
    known = {row.completion for row in training}
    repeated = sum(row.completion in known for row in held_out) >= REPEATED * len(held_out)
    measure = "exact" if repeated else "rouge_l"
    promoted, reason = decide(scores, measure)
    return Verdict(promoted, reason, measure, scores, tuple(held_out), answers)


def decide(scores: dict[str, Scores], measure: str) -> tuple[bool, str]:
    """Whether the candidate beats all others by that measure, and a sentence that says it with the numbers."""
    own = getattr(scores["candidate"], measure)
    words = "answers exactly right" if measure == "exact" else "ROUGE-L"
    told = {"base": "the bare base", "before": "the version before"}
    lost = [told[name] for name, other in scores.items() if name != "candidate" and getattr(other, measure) >= own]
    beside = ", ".join(f"{told[name]} {getattr(scores[name], measure):.1%}" for name in scores if name != "candidate")
    figures = f"{words} {own:.1%} of {scores['candidate'].rows} held-out rows; {beside}"
    if lost:
        return False, f"It does not beat {' and '.join(lost)}: {figures}."
    return True, f"It beats {' and '.join(told[name] for name in scores if name != 'candidate')}: {figures}."


def answered(rows: Sequence[Example], weights: AdapterWeights | None, decoder: Decoder, most: int) -> tuple[str, ...]:
    """The greedy answer to each row."""
    chats = [row.chat for row in rows]
    return tuple(reply.text for reply in decoder.chat_replies(chats, weights, most, ROWS_AT_ONCE))


def perplexity(logprobs: Sequence[Sequence[float]]) -> float:
    """Per token, of all rows' right answers together."""
    every = [one for row in logprobs for one in row]
    return math.exp(-sum(every) / len(every)) if every else math.inf


def answer_logprobs(
    rows: Sequence[Example], weights: AdapterWeights | None, decoder: Decoder
) -> tuple[list[float], ...]:
    """Of each row's right answer, token by token, its end included; rows longer than the window are left out."""
    found, reading = [], []
    for row in rows:
        ids, mask = encode_example(decoder.tokenizer, row.prompt, row.completion, row.before)
        opened = mask.index(1)
        if len(ids) <= decoder.manifest.window:
            own: list[float] = []
            found.append(own)
            reading.append(new_row(read_answer(ids[:opened], ids[opened:], own.append), weights, len(ids)))
    decoder.run(reading, ROWS_AT_ONCE)
    return tuple(found)


def scored(rows: Sequence[Example], answers: Sequence[str], terms: frozenset[str], perplexity_: float) -> Scores:
    pairs = [(row.completion, answer) for row, answer in zip(rows, answers, strict=True)]
    wanted = found = 0
    for gold, answer in pairs:
        own = terms & set(_words(gold))
        wanted += len(own)
        found += len(own & set(_words(answer)))
    return Scores(
        rows=len(pairs),
        exact=sum(gold == answer for gold, answer in pairs) / len(pairs),
        rouge_l=sum(rouge_l(gold, answer) for gold, answer in pairs) / len(pairs),
        terms=found / wanted if wanted else 1.0,
        perplexity=perplexity_,
    )


def rouge_l(gold: str, answer: str) -> float:
    """F1 of the longest common subsequence of words."""
    one, other = _words(gold), _words(answer)
    if not one or not other:
        return float(one == other)
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, 1):
            above = row[place]
            row[place] = before + 1 if word == against else max(above, row[place - 1])
            before = above
    common = row[-1]
    return 2 * common / (len(one) + len(other))


def domain_terms(answers: Sequence[str]) -> frozenset[str]:
    """The words that tell this domain's answers apart: in several of them, in few of all, by tf-idf."""
    texts = sorted(set(answers))
    frequency = Counter(word for text in texts for word in set(_words(text)) if len(word) > 3)
    counts = Counter(word for text in texts for word in _words(text))
    weights = {
        word: counts[word] * math.log(len(texts) / number)
        for word, number in frequency.items()
        if number >= min(2, len(texts)) and number <= 0.3 * len(texts)
    }
    return frozenset(sorted(weights, key=lambda word: (-weights[word], word))[:TERMS])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _version_of(serving: Path, decoder: Decoder) -> FoundAdapter | None:
    """The adapter that serves now; None where there is none, or one of another base."""
    try:
        manifest = read_manifest(serving / MANIFEST_FILE, AdapterManifest)
    except AdapterError:
        return None
    base = decoder.manifest
    same = (manifest.base_config_hash, manifest.base_weights_hash) == (base.config_hash, base.weights_hash)
    return FoundAdapter(serving, manifest) if same else None


def split_of(weights: Path) -> Split | None:
    """What the training of these weights had and left out; None where nothing says so."""
    try:
        return read_manifest(weights / SPLIT_FILE, Split)
    except AdapterError:
        return None


def _unseen(held_out: Sequence[Example], serving: Path) -> Sequence[Example]:
    """Those that the version before did not train on either, where its split says so and enough are left."""
    before = split_of(serving)
    left = before.unseen(held_out) if before else []
    return left if len(left) >= LEAST_UNSEEN else held_out
