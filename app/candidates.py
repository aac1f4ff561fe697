"""Pairs that an adapter might learn from its readers: better answers they wrote, answers that were no help."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapters.checks import groups_of, personal_data, plain
from app.records import Correction, Records
from chains.turn import Route


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair for somebody to look at. `answer` is "" where readers said only that what they got was no help."""

    adapter: str
    question: str
    answer: str
    people: int

    @property
    def key(self) -> str:
        """The same for the same words, whoever said them how often."""
        said = "\n".join([self.adapter, plain(self.question), plain(self.answer)])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def why(self) -> str:
        """In words, with what looks like personal data."""
        said = "wrote this answer" if self.answer else "found the answer no help"
        found = dict.fromkeys(personal_data(self.question) + personal_data(self.answer))
        warning = f"; take out what looks like {', '.join(found)}" if found else ""
        return f"{self.people} {'person' if self.people == 1 else 'people'} {said}{warning}"


def candidates(records: Records, adapter: str) -> list[Candidate]:
    """What nobody has decided about yet, those with most people behind them first; near-duplicate questions are one.

    Raises DeskError where the records cannot be read.
    """
    said = [*_corrections(records, adapter), *_complaints(records, adapter)]
    grouped: dict[int, list[Correction]] = {}
    for number, one in zip(groups_of([one.question for one in said]), said, strict=True):
        grouped.setdefault(number, []).append(one)
    reviewed = records.reviewed()
    found = [one for group in grouped.values() for one in _of_group(adapter, group) if one.key not in reviewed]
    return sorted(found, key=lambda one: -one.people)


def _corrections(records: Records, adapter: str) -> Iterable[Correction]:
    """Each reader's last better answer to a question."""
    own = [one for one in records.corrections() if one.adapter == adapter]
    return {(one.user, plain(one.question)): one for one in own}.values()


def _complaints(records: Records, adapter: str) -> list[Correction]:
    """The questions whose last thumb by a reader, on this adapter's answer, is down; without an answer."""
    last = {
        (one.user, plain(one.question)): one
        for one in (record.feedback for record in records.all())
        if one.kind == "thumb" and one.decided.route is Route.ADAPTER and one.decided.adapter == adapter
    }
    return [Correction(one.user, adapter, one.question, "") for one in last.values() if one.value == "down"]


def _of_group(adapter: str, group: Sequence[Correction]) -> list[Candidate]:
    """One for each answer that was written; where none was, one without."""
    answers: dict[str, list[Correction]] = {}
    for one in group:
        answers.setdefault(plain(one.answer), []).append(one)
    if len(answers) > 1:
        answers.pop("", None)
    return [
        Candidate(adapter, same[0].question, same[0].answer, len({one.user for one in same}))
        for same in answers.values()
    ]
