"""Pairs that an adapter might learn from its readers: better answers they wrote, answers that were no help."""

import datetime
import hashlib
from dataclasses import dataclass, replace

from adapters.checks import groups_of, personal_data, plain
from app.records import Records
from chains.turn import Route, RouteOption

EVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair for somebody to look at. `answer` is "" where readers said only that what they got was no help."""

    adapter: str
    question: str
    answer: str
    people: int

    @property
    def key(self) -> str:
        """The same for the same question, but for case and marks, and the same answer, whoever said so how often."""
        said = "\n".join([self.adapter, plain(self.question), self.answer.strip()])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def why(self) -> str:
        """In words, with what looks like personal data."""
        said = "wrote this answer" if self.answer else "found the answer no help"
        found = dict.fromkeys(personal_data(self.question) + personal_data(self.answer))
        warning = f"; take out what looks like {', '.join(found)}" if found else ""
        return f"{self.people} {'person' if self.people == 1 else 'people'} {said}{warning}"


def candidates(records: Records, adapter: str) -> list[Candidate]:
    """What nobody has decided about yet, those with most people behind them first.

    Questions that are nearly the same are one, with the same answer or without any. A complaint counts that is newer
    than what was decided about it, for there may be a new version since. Raises DeskError where the records cannot be
    read.
    """
    said = [*_corrections(records, adapter), *_complaints(records, adapter)]
    questions = list(dict.fromkeys(one.question for one in said))  # to group the same one often takes long
    number = dict(zip(questions, groups_of(questions), strict=True))
    grouped: dict[tuple[int, str], list[_Said]] = {}
    for one in said:
        grouped.setdefault((number[one.question], one.answer), []).append(one)
    reviewed = records.reviewed()
    open_: list[_Said] = []
    found = []
    for same in grouped.values():
        decided = max((at for one in same if (at := reviewed.get(one.as_candidate(adapter).key))), default=None)
        waiting = [one for one in same if decided is None or (not one.answer and one.at > decided)]
        if waiting:
            open_ += waiting
            people = len({one.user for one in waiting})
            found.append(replace(waiting[0].as_candidate(adapter), people=people))
    better = {plain(one.question) for one in open_ if one.answer}
    told = [one for one in found if one.answer or plain(one.question) not in better]
    return sorted(told, key=lambda one: -one.people)


@dataclass(frozen=True, slots=True)
class _Said:
    user: str
    question: str
    answer: str
    at: datetime.datetime

    def as_candidate(self, adapter: str) -> Candidate:
        return Candidate(adapter, self.question, self.answer, 1)


def _corrections(records: Records, adapter: str) -> list[_Said]:
    """Each reader's last better answer to a question."""
    own = {(one.user, plain(one.question)): one for one in records.corrections() if one.adapter == adapter}
    return [_Said(one.user, one.question, one.answer.strip(), EVER) for one in own.values()]


def _complaints(records: Records, adapter: str) -> list[_Said]:
    """The questions whose last thumb by a reader, on this adapter's answer, is down."""
    last = {
        (one.feedback.user, plain(one.feedback.question)): one
        for one in records.all()
        if one.feedback.kind == "thumb" and one.feedback.decided == RouteOption(Route.ADAPTER, adapter)
    }
    down = [one for one in last.values() if one.feedback.value == "down"]
    return [_Said(one.feedback.user, one.feedback.question, "", one.at) for one in down]
