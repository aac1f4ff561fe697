"""The advice in words: one sentence a topic that a desk's owner understands, and one JSON line for programs."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chains.advise import (
    ANSWERED,
    CHANGING,
    ENOUGH_PAIRS,
    ENOUGH_PER_ANSWER,
    ENOUGH_WORDS,
    FACTS,
    FACTUAL,
    SPECIAL,
    Advice,
    Outcome,
    Signals,
    retrievable,
    trainable,
)

WIDTH = 110
"""Columns that a sentence is printed in."""
HEADINGS: dict[Outcome, str] = {
    "both": "Both",
    "fine-tuning": "Fine-tuning",
    "retrieval": "Retrieval",
    "unclear": "Not enough to tell",
}
OPENINGS = {
    "retrieval": "Let the documents answer: ",
    "fine-tuning": "Train an adapter: ",
    "both": "Documents for its facts, an adapter for its advice, and a workflow where one reply needs both: ",
    "workflow": "Make it a workflow, in which an adapter fills the fields and documents support the reply: ",
    "unclear": "There is not enough to tell: ",
}


def in_words(advices: Sequence[Advice]) -> str:
    """The topics under their outcomes, each with its sentence."""
    lines = []
    for outcome, heading in HEADINGS.items():
        own = [advice for advice in advices if advice.outcome == outcome]
        if own:
            lines += [f"{heading}: {len(own)} of {len(advices)} topics", ""]
            for advice in own:
                lines += [f"  {advice.topic}", _indented(explain(advice.outcome, advice.signals))]
            lines.append("")
    return "\n".join(lines).rstrip() or "The desk has neither documents nor question-answer pairs: add some first."


def to_json(advice: Advice) -> dict[str, Any]:
    """One line for programs: the topic, what it calls for, why, and every number behind it."""
    return {
        "type": "advice",
        "topic": advice.topic,
        "outcome": advice.outcome,
        "why": explain(advice.outcome, advice.signals),
        "members": list(advice.members),
        "signals": asdict(advice.signals),
    }


def explain(outcome: Outcome, signals: Signals) -> str:
    """One sentence that a desk's owner understands: what speaks for the outcome, and what against it."""
    documents, tuning = _for_documents(signals), _for_tuning(signals)
    no_documents, no_tuning = _against_documents(signals), _against_tuning(signals)
    match outcome:
        case "retrieval":
            said, against = documents, [*no_documents, *tuning]
        case "fine-tuning":
            said, against = [*tuning, *no_documents], [*no_tuning, *documents]
        case "both" if signals.fields:
            said, against = [*tuning, f"{_count(signals.library, 'document')} can support the reply", *documents], []
        case "both":
            said, against = [*documents, *tuning], [*no_documents, *no_tuning]
        case _:
            said, against = [*no_documents, *no_tuning], [*documents, *tuning]
    opening = OPENINGS["workflow" if outcome == "both" and signals.fields else outcome]
    but = f"; {'for it' if outcome == 'unclear' else 'against it'}, {', '.join(against)}" if against else ""
    return f"{opening}{', '.join(said)}{but}."


def _for_documents(signals: Signals) -> list[str]:
    said = []
    if signals.words >= ENOUGH_WORDS and signals.changing >= max(1.0, CHANGING * signals.documents):
        said.append(f"{_of_documents(signals.changing, signals.documents)} of a kind that changes")
    if signals.words >= ENOUGH_WORDS and signals.factual >= FACTUAL:
        said.append(f"{signals.factual:.0%} of the passages state figures")
    if signals.turns and signals.turns_answered >= ANSWERED * signals.turns:
        said.append(f"documents answer {signals.turns_answered} of {_count(signals.turns, 'golden question')}")
    if signals.asked and signals.answered >= ANSWERED * signals.asked:
        said.append(f"documents answer {signals.answered} of {signals.asked} of the pairs' questions")
    if signals.facts > FACTS:
        said.append(f"{signals.facts:.0%} of the pairs' answers hold what documents state and may change")
    return said


def _against_documents(signals: Signals) -> list[str]:
    said = []
    if signals.words < ENOUGH_WORDS:
        said.append("no document is about it" if not signals.documents else "its documents say next to nothing")
    elif not retrievable(signals):
        said.append("its documents neither change nor state figures nor answer what is asked")
    if signals.turns and signals.turns_answered < ANSWERED * signals.turns:
        said.append(
            f"documents answer {signals.turns_answered or 'none'} of {_count(signals.turns, 'golden question')}"
        )
    if signals.asked and signals.answered < ANSWERED * signals.asked:
        said.append(f"documents answer {signals.answered or 'none'} of {signals.asked} of the pairs' questions")
    return said


def _for_tuning(signals: Signals) -> list[str]:
    said = []
    if signals.fields and signals.questions:
        said.append(f"{_count(signals.questions, 'pair')} fill a form's fields")
    elif trainable(signals):
        each = signals.questions / max(1, signals.answers)
        said.append(f"{_count(signals.questions, 'clean question')} with {each:,.0f} wordings of each answer")
    if signals.pairs and signals.facts <= FACTS and not signals.fields:
        part = f"{1 - signals.facts:.0%} of the answers hold none" if signals.facts else "no answer holds any"
        said.append(f"{part} of the documents' facts")
    if len(signals.special) >= SPECIAL:
        said.append(f"the base model does not know words such as {', '.join(signals.special[:3])}")
    return said


def _against_tuning(signals: Signals) -> list[str]:
    if not signals.pairs:
        return ["there are no question-answer pairs"]
    if signals.questions < ENOUGH_PAIRS:
        return [f"there are {_count(signals.questions, 'clean question')}, and training needs {ENOUGH_PAIRS}"]
    if not trainable(signals):
        return [f"{signals.answers} answers have fewer than {ENOUGH_PER_ANSWER} wordings of the question each"]
    return []


def _indented(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _of_documents(number: int, total: int) -> str:
    if number == total:
        return "its document is" if total == 1 else f"its {total:,} documents are"
    return f"{number:,} of its {total:,} documents {'is' if number == 1 else 'are'}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
