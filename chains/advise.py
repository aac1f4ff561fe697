"""Retrieval, fine-tuning or both: what each topic of a desk calls for, with the numbers that say so.

Facts that change and must be traceable come from documents; stable expert language comes from fine-tuning; a process
that fills fields and replies from documents needs both. `decide` is that rule, and the levels are named here.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adapters.checks import groups_of
from adapters.dataset import Example
from chains.citations import Quote
from chains.extract import answers, choose_quotes, unsure
from chains.golden import GoldenTurn
from chains.judge import Judge
from chains.retrieval import search_in_force
from chains.topics import Topic, evenly
from chains.turn import Route
from index.chunk import TABLE_FORMATS
from index.document import DocumentInfo
from index.library import Library

Outcome = Literal["retrieval", "fine-tuning", "both", "unclear"]
Pieces = Callable[[str], int]
"""How many tokens the base's tokenizer makes of a word."""

ENOUGH_WORDS = 40
"""Words of documents from which there is something to retrieve; a stub has fewer."""
ENOUGH_PAIRS = 20
ENOUGH_PER_ANSWER = 4
"""Differently worded questions that training needs, in all and of each answer. With ten of each of 20 answers, an
adapter of the embedded base is exactly right on 70% of unseen ones (docs/log.md); fewer than four were not tried."""
CHANGING = 0.5
"""Share of a topic's documents from which it counts as changing."""
FACTUAL = 0.5
"""Share of passages that hold a number from which documents are taken for facts."""
ANSWERED = 0.5
"""Share of the questions from which the documents count as answering them."""
SAME = 0.5
"""Cosine from which a quote says what a pair's answer says. Of 340 questions of the sample desk's pairs 22 have such a
quote, about passwords, printing and the like, where documents do say it; the judge alone is sure of 179."""
FACTS = 0.5
"""Share of the pairs' answers that may hold what the documents state, such as a limit or a name: what is trained in
cannot be corrected by editing a document."""
SPECIAL = 5
"""Recurring special words from which a topic has a language of its own."""
PIECES, RECURS = 3, 3
"""A word counts as special if the tokenizer splits it into so many pieces and it stands so often in the topic."""
ASKED = 10
"""Questions of the pairs, and as many golden turns, that the judge is asked for each topic: about 50 ms each."""

_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]{3,}")
_AMOUNT = re.compile(r"[€$£]\s?\d[\d.,:]*|\d[\d.,:/]*\d?\s?(?:%|[A-Za-z]{1,12}\b)|\d{2,}[\d.,:/-]*\d")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}[A-Za-z]*\b(?!-)(?: [A-Z][a-z]+)*|\b[\w.+-]+@[\w.-]+\w")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True, slots=True)
class Signals:
    """What was counted of a topic. `changing` documents state when they were reviewed, or were superseded, are tables,
    or came or changed since the library began; `factual` is the share of passages with a number.

    `questions` are clean pairs' distinct ones, `facts` the share of answers with what the documents state too.
    `answered` of `asked` are the pairs' questions that documents answer as the pair does, `turns_answered` of `turns`
    the golden ones that they answer from a passage which the owner named; `library` is the desk's documents.
    """

    documents: int = 0
    words: int = 0
    changing: int = 0
    factual: float = 0.0
    pairs: int = 0
    questions: int = 0
    answers: int = 0
    facts: float = 0.0
    special: tuple[str, ...] = ()
    asked: int = 0
    answered: int = 0
    turns: int = 0
    turns_answered: int = 0
    fields: bool = False
    library: int = 0


@dataclass(frozen=True, slots=True)
class Advice:
    """What a topic calls for, the names of its parts, and what was counted of it."""

    topic: str
    outcome: Outcome
    members: tuple[str, ...]
    signals: Signals


def advise(
    topics: Sequence[Topic],
    library: Library,
    collections: frozenset[str],
    judge: Judge,
    golden: Sequence[GoldenTurn],
    pieces: Pieces | None,
    passages: int,
) -> list[Advice]:
    """The advice on each topic, the largest first. `pieces` None: no tokenizer is at hand, no word is special."""
    stated = _stated(library, topics)
    began = min((info.added_at for topic in topics for info in topic.documents), default="")

    asker = Asker(library, collections, judge, passages)
    advices = []
    for topic, own in zip(topics, _turns_of(topics, golden, library), strict=True):
        pairs, turns = evenly(topic.pairs, ASKED), evenly(own, ASKED)
        texts = [passage.text for info in topic.documents for passage in library.passages(info.id)]
        signals = Signals(
            documents=len(topic.documents),
            words=sum(len(text.split()) for text in texts),
            changing=sum(changes(info, began) for info in topic.documents),
            factual=_share(bool(_AMOUNT.search(text)) for text in texts),
            pairs=len(topic.pairs),
            questions=len(set(groups_of([pair.prompt for pair in topic.pairs]))),
            answers=len({pair.completion for pair in topic.pairs}),
            facts=0.0 if topic.fields else facts_share(topic.pairs, stated),
            special=special_words([*texts, *{pair.completion for pair in topic.pairs}], pieces) if pieces else (),
            asked=len(pairs),
            answered=sum(asker.says_the_same(pair, topic.fields) for pair in pairs),
            turns=len(turns),
            turns_answered=sum(asker.finds(turn) for turn in turns),
            fields=topic.fields,
            library=library.count(),
        )
        advices.append(Advice(topic.name, decide(signals), tuple(unit.name for unit in topic.units), signals))
    return sorted(advices, key=lambda advice: -(advice.signals.documents + advice.signals.answers))


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks the desk's documents."""

    library: Library
    collections: frozenset[str]
    judge: Judge
    passages: int

    def says_the_same(self, pair: Example, fields: bool) -> bool:
        """Whether documents answer a pair's question as the pair does; of a form's fields, whether they answer at all.

        An order in front ("Triage this ticket.") is no part of what is asked.
        """
        quotes = self._quotes(pair.prompt.partition("\n")[2] or pair.prompt)
        if not quotes or fields:
            return bool(quotes)
        told, *said = self.library.embedder.embed([pair.completion, *(quote.text for quote in quotes)])
        return max(float(told @ one) for one in said) >= SAME

    def finds(self, turn: GoldenTurn) -> bool:
        """Whether documents answer a golden turn out of one that it names; a turn that names none is not for them."""
        named = {passage.document for passage in turn.passages}
        return bool(named) and any(quote.hit.path in named for quote in self._quotes(turn.question))

    def _quotes(self, question: str) -> list[Quote]:
        """What would be quoted, if the judge is sure that something answers."""
        vector = self.library.embedder.embed_queries([question])[0]
        found = search_in_force(self.library, question, vector, self.passages, self.collections)
        judgement = self.judge.judge(question, found)
        sure = answers(judgement) and not unsure(judgement)
        return choose_quotes(question, found.hits, judgement) if sure else []


def decide(signals: Signals) -> Outcome:
    """The rule, on the levels above."""
    if signals.fields and trainable(signals):
        return "both" if signals.library else "fine-tuning"
    known = signals.asked > 0 and signals.answered >= ANSWERED * signals.asked
    tune = trainable(signals) and signals.facts <= FACTS and not known and not signals.fields
    retrieve = retrievable(signals) or (trainable(signals) and (known or signals.facts > FACTS))
    if retrieve and tune:
        return "both"
    return "retrieval" if retrieve else "fine-tuning" if tune else "unclear"


def retrievable(signals: Signals) -> bool:
    """Whether there are documents with something to say that changes, states facts, or answers what is asked."""
    changing = signals.documents > 0 and signals.changing >= CHANGING * signals.documents
    turns = signals.turns > 0 and signals.turns_answered >= ANSWERED * signals.turns
    asked = signals.asked > 0 and signals.answered >= ANSWERED * signals.asked
    return signals.words >= ENOUGH_WORDS and (changing or turns or asked or signals.factual >= FACTUAL)


def trainable(signals: Signals) -> bool:
    """Whether there are enough differently worded pairs; a form's fields recur in any combination."""
    each = signals.fields or signals.questions >= ENOUGH_PER_ANSWER * signals.answers
    return signals.questions >= ENOUGH_PAIRS and each


def changes(info: DocumentInfo, began: str) -> bool:
    """Whether a document is of a kind that changes. A file's own time is no sign: copying a desk sets it anew."""
    since = bool(began) and info.added_at[:10] > began[:10]
    return bool(info.updated) or info.outdated or since or info.format in TABLE_FORMATS


def facts_share(pairs: Sequence[Example], stated: frozenset[str]) -> float:
    """The share of different answers that hold an amount, a date or a name which documents state too."""
    return _share(bool(facts_in(text) & stated) for text in sorted({pair.completion for pair in pairs}))


def facts_in(text: str) -> frozenset[str]:
    """Amounts with what they count, dates, e-mail addresses, and names within sentences; in small letters."""
    found = [match.group() for pattern in (_AMOUNT, _NAME, _YEAR) for match in pattern.finditer(text)]
    return frozenset(" ".join(fact.lower().split()) for fact in found)


def special_words(texts: Sequence[str], pieces: Pieces) -> tuple[str, ...]:
    """Words that recur in the texts and that the base's tokenizer splits into many pieces, most frequent first."""
    counted = Counter(word for text in texts for word in _WORD.findall(text))
    # A word that is always capitalised is a name, which is a fact and no language.
    often = [word for word, count in counted.most_common() if count >= RECURS and word.islower()]
    return tuple(word for word in often if pieces(word) >= PIECES)


def _stated(library: Library, topics: Sequence[Topic]) -> frozenset[str]:
    """What all documents state."""
    texts = (passage.text for topic in topics for info in topic.documents for passage in library.passages(info.id))
    return frozenset(fact for text in texts for fact in facts_in(text))


def _turns_of(topics: Sequence[Topic], golden: Sequence[GoldenTurn], library: Library) -> list[list[GoldenTurn]]:
    """The golden questions of each topic: by the document that answers them, else by their nearness."""
    owner = {info.path: number for number, topic in enumerate(topics) for info in topic.documents}
    turns = [turn for turn in golden if turn.route is not Route.NONE and not turn.history and not turn.parts]
    asked: list[list[GoldenTurn]] = [[] for _ in topics]
    near = [turn for turn in turns if not any(passage.document in owner for passage in turn.passages)]
    for turn in turns:
        for number in [owner[passage.document] for passage in turn.passages if passage.document in owner][:1]:
            asked[number].append(turn)
    if near and topics:
        vectors = library.embedder.embed_queries([turn.question for turn in near])
        places = (vectors @ np.stack([topic.centre for topic in topics]).T).argmax(axis=1)
        for turn, number in zip(near, places, strict=True):
            asked[int(number)].append(turn)
    return asked


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
