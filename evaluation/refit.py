"""What the router would learn from feedback, and what that would change: shown before anything changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.assembly import Switchboard
from app.records import Feedback, Record
from chains.assistant import Assistant
from chains.citations import Embed
from chains.fitting import fit_router, grounds
from chains.golden import GoldenTurn, read_golden
from chains.learned import FILE, Learned, write_learned
from chains.turn import BASE_MODEL, Route, Routed, RouteOption, Turn
from chains.utterances import Label
from evaluation.right import flat, route_right
from index.document import NO_GROUPS

SAME = 0.8
"""Cosine from which two questions count as one. Of the pairs above it among 1,200 training questions each of it-support
and service-desk, by MiniLM, all 58 and all 125 have the same answer; from .7 on 95% of them."""
MOST_PER_LABEL = 50
"""So many utterances are learned for one label at most, those with most people behind them first: feedback leans on the
desk's own utterances, and does not outweigh them."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person thinks should answer a question (`label`), or should not (`against`)."""

    user: str
    question: str
    label: Label | None
    against: Label | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """`learned` with the number of people behind each; `dropped` are (question, reason)."""

    learned: tuple[tuple[Learned, int], ...]
    dropped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A golden turn that would be routed otherwise."""

    golden: GoldenTurn
    before: Label
    after: Label


@dataclass(frozen=True, slots=True)
class Refit:
    """`right_before` and `right_after` count the golden turns that go where they should, of `turns`."""

    records: int
    weighed: Weighed
    turns: int
    right_before: int
    right_after: int
    changed: tuple[Changed, ...]


def try_refit(board: Switchboard, least: int) -> Refit:
    """The router as it is, and as it would be; a label needs `least` people who agree. Writes nothing."""
    records = board.records.all()
    weighed = weigh(votes(records), board.embedder.embed_queries, least)
    learned = tuple(one for one, _ in weighed.learned)
    on = replace(grounds(board.desk.chains, board.engine), learned=learned)
    router = fit_router(board.desk.chains, board.library, board.embedder, on)
    candidate = Assistant(board.desk.chains, board.library, board.embedder, board.engine, router, board.assistant.judge)
    golden = read_golden(board.desk.chains.golden_dev) if board.desk.chains.golden_dev.exists() else []
    routed = [(turn, label_of(board.assistant, turn), label_of(candidate, turn)) for turn in golden]
    return Refit(
        records=len(records),
        weighed=weighed,
        turns=len(golden),
        right_before=sum(goes_right(turn, before) for turn, before, _ in routed),
        right_after=sum(goes_right(turn, after) for turn, _, after in routed),
        changed=tuple(Changed(*row) for row in routed if row[1] != row[2]),
    )


def apply_refit(board: Switchboard, refit: Refit) -> None:
    """Writes what was learned to where a running app, and the next start, read it."""
    write_learned(board.desk.chains.state / FILE, [one for one, _ in refit.weighed.learned])


def votes(records: Sequence[Record]) -> list[Vote]:
    """One vote per person and question: the last preference, else the last other way asked for, else the last thumb."""
    rank = {"preference": 2, "override": 1, "thumb": 0}
    last: dict[tuple[str, str], Feedback] = {}
    for record in records:
        one = record.feedback
        key = (one.user, flat(one.question))
        if key not in last or rank[one.kind] >= rank[last[key].kind]:
            last[key] = one
    return [vote for feedback in last.values() if (vote := _vote(feedback))]


def weigh(cast: Sequence[Vote], embed: Embed, least: int) -> Weighed:
    """What enough people agree on and nobody contradicts, over questions that mean the same."""
    if not cast:
        return Weighed((), ())
    vectors = embed([vote.question for vote in cast])
    near = vectors @ vectors.T >= SAME
    kept: dict[str, tuple[Learned, int]] = {}
    dropped: dict[str, str] = {}
    for place, vote in enumerate(cast):
        if vote.label is None or flat(vote.question) in kept:
            continue
        others = [cast[int(one)] for one in np.flatnonzero(near[place])]
        agreeing = {other.user for other in others if other.label == vote.label}
        if any(_opposes(other, vote.label) for other in others):
            dropped[flat(vote.question)] = "contradicted"
        elif len(agreeing) < least:
            dropped[flat(vote.question)] = f"{len(agreeing)} of the {least} people it takes"
        else:
            kept[flat(vote.question)] = Learned(vote.question, vote.label), len(agreeing)
    return _limited(list(kept.values()), dropped)


def label_of(assistant: Assistant, golden: GoldenTurn) -> Label:
    """Where a golden turn goes. Nothing is generated."""
    turn = Turn(golden.question, golden.exchanges, collections=assistant.library.readable(NO_GROUPS))
    for event in assistant.answer(turn):
        if isinstance(event, Routed):
            return Label(event.decision.route, event.decision.adapter or event.decision.workflow)
    return Label(Route.NONE, "failed")


def _vote(feedback: Feedback) -> Vote | None:
    chosen, decided = feedback.chosen, _label(feedback.decided)
    if feedback.kind == "thumb":
        if decided is None:
            return None
        if feedback.value == "up":
            return Vote(feedback.user, feedback.question, decided)
        return Vote(feedback.user, feedback.question, None, against=decided)
    label = _label(chosen) if chosen else None
    return Vote(feedback.user, feedback.question, label) if label else None


def _label(option: RouteOption) -> Label | None:
    """The router's label of a way to answer; None where it has none, as for the base model."""
    if option.route is Route.ADAPTER:
        return Label(Route.ADAPTER, option.adapter) if option.adapter not in (None, BASE_MODEL) else None
    if option.route is Route.BOTH:
        return Label(Route.BOTH, option.workflow) if option.workflow else None
    return Label(option.route)


def _opposes(vote: Vote, label: Label) -> bool:
    return vote.against == label or vote.label not in (None, label)


def _limited(kept: list[tuple[Learned, int]], dropped: dict[str, str]) -> Weighed:
    counts: dict[Label, int] = {}
    learned = []
    for one, people in sorted(kept, key=lambda pair: -pair[1]):
        counts[one.label] = counts.get(one.label, 0) + 1
        if counts[one.label] > MOST_PER_LABEL:
            dropped[flat(one.text)] = f"more than {MOST_PER_LABEL} for one way to answer"
        else:
            learned.append((one, people))
    return Weighed(tuple(learned), tuple(dropped.items()))


def goes_right(golden: GoldenTurn, label: Label) -> bool:
    """Whether a golden turn goes where it should, to the adapter or workflow that it names."""
    return route_right(golden, label.route, label.name) and golden.adapter in (None, label.name)


def words(label: Label) -> str:
    """A label as it is printed."""
    return label.route.value + (f" ({label.name})" if label.name else "")


def lines(refit: Refit) -> list[str]:
    """The report, a line each."""
    weighed = refit.weighed
    shown = [f"{refit.records} records, {len(weighed.learned)} questions to learn, {len(weighed.dropped)} left out"]
    shown += [f"  learn    {words(one.label):24} {people} people  {one.text}" for one, people in weighed.learned]
    shown += [f"  left out {reason:24} {question}" for question, reason in weighed.dropped]
    if refit.turns:
        share = [
            f"{right / refit.turns:.1%} ({right}/{refit.turns})" for right in (refit.right_before, refit.right_after)
        ]
        shown.append(f"routed right, development turns: {share[0]} now, {share[1]} then; {len(refit.changed)} change")
    for one in refit.changed:
        gain = goes_right(one.golden, one.after) - goes_right(one.golden, one.before)
        verdict = {1: "better", 0: "no better, no worse", -1: "worse"}[gain]
        shown.append(
            f"  {one.golden.id} {words(one.before)} -> {words(one.after)}: {verdict}  {one.golden.question[:80]}"
        )
    return shown
