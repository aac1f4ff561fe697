"""The desk's golden turns, asked for real: routes, passages, answers, refusals; and its adapters' held-out rows."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.assembly import Switchboard
from chains.assistant import Assistant
from chains.golden import GoldenTurn, read_golden
from chains.turn import Answer, Failed, Finished, Retrieved, Route, Routed, RouteDecision, Turn
from evaluation.calibration import calibration_error
from evaluation.held_out import measure_adapter, measure_fields
from evaluation.measures import AT_MOST
from evaluation.right import cites_gold, holds_facts, holds_gold, route_right, shows_older
from evaluation.share import Refusals, Share
from index.document import NO_GROUPS, ScoredPassage


@dataclass(frozen=True, slots=True)
class Asked:
    """A golden turn and what came of it, as routed and with Documents chosen.

    `routed` is what the router decided: an answer's own decision may have left an unsure adapter for the documents.
    """

    golden: GoldenTurn
    hits: tuple[ScoredPassage, ...]
    answer: Answer | None
    from_documents: Answer | None
    routed: RouteDecision | None = None


def ask(assistant: Assistant, turn: Turn) -> tuple[tuple[ScoredPassage, ...], Answer | None, RouteDecision | None]:
    """The hits, the answer (None for a turn that failed) and the router's decision, of several parts the first's."""
    hits: tuple[ScoredPassage, ...] = ()
    answer = routed = None
    for event in assistant.answer(turn):
        match event:
            case Routed(decision=decision):
                routed = routed or decision
            case Retrieved(hits=found):
                hits += found  # of a message with several intents, each part brings its own
            case Finished(answer=finished):
                answer = finished
            case Failed(message=message):
                print(f"failed: {turn.question[:80]!r}: {message}", file=sys.stderr)
            case _:
                pass
    return hits, answer, routed


def ask_golden(assistant: Assistant, turns: Sequence[GoldenTurn]) -> list[Asked]:
    asked = []
    readable = assistant.library.readable(NO_GROUPS)
    for golden in turns:
        turn = Turn(golden.question, golden.exchanges, collections=readable)
        hits, answer, routed = ask(assistant, turn)
        forced = None
        if golden.route is Route.RETRIEVAL:
            forced = ask(assistant, replace(turn, route=Route.RETRIEVAL))[1]
        asked.append(Asked(golden, hits, answer, forced, routed))
    return asked


def measure_turns(asked: Sequence[Asked]) -> dict[str, Share]:
    """Shares over the golden turns; a failed turn is wrong in all of them."""
    return {
        name: Share.of(judge(one) for one in asked if counts(one.golden)) for name, (counts, judge) in MEASURED.items()
    }


def confusion(asked: Sequence[Asked]) -> Counter[tuple[str, str]]:
    return Counter((one.golden.route.value, one.routed.route.value if one.routed else "failed") for one in asked)


def refusals(asked: Sequence[Asked]) -> Refusals:
    """How refusing, with Documents chosen, tells what no document answers; messages with parts left out."""
    return Refusals.of(
        (one.from_documents.refused, one.golden.refused) for one in asked if one.from_documents and not one.golden.parts
    )


def calibration(asked: Sequence[Asked]) -> float:
    """The expected calibration error of the likeliest route's probability, 15 bins of equal width; parts left out."""
    decisions = [
        (max(one.routed.probabilities.values()), _route_right(one))
        for one in asked
        if one.routed and not one.golden.parts and not one.routed.own
    ]
    if not decisions:
        return math.nan
    stated, right = np.array(decisions, dtype=np.float64).T
    return calibration_error(stated, right.astype(np.bool_))


def measure_desk(
    board: Switchboard, split: str, only: Sequence[str] = ()
) -> tuple[list[Asked], dict[str, dict[str, Share]]]:
    """The desk's golden turns of `split` ("dev" or "test") and its adapters' held-out rows.

    `only` names the parts to measure, "turns" or adapters; none means all.
    """
    report: dict[str, dict[str, Share]] = {}
    asked: list[Asked] = []
    if not only or "turns" in only:
        board.start()
        board.engine.wait_ready()
        asked = ask_golden(board.assistant, read_golden(board.desk.root / "evaluation" / f"{split}.jsonl"))
        report["turns"] = measure_turns(asked)
    # The adapters are scored on a base of their own: two at once may not fit.
    board.engine.close()
    if board.desk.adapters.server is not None:
        return asked, report  # what the server has may be other weights than those that lie here
    by_adapter = {workflow.adapter: workflow for workflow in board.desk.chains.workflows.values()}
    for info in board.engine.adapters:
        folder = board.desk.chains.adapter_folder / info.name
        if not (folder / "eval.jsonl").exists() or (only and info.name not in only):
            continue
        report[info.name] = (
            measure_fields(board, info.name, by_adapter[info.name])
            if info.name in by_adapter
            else measure_adapter(board, info.name)
        )
    return asked, report


def missed(asked: Sequence[Asked]) -> list[tuple[Asked, list[str]]]:
    """The turns that went wrong, each with the measures of MISSES in which it did."""
    rows = []
    for one in asked:
        told = [(name, *MEASURED[name]) for name in MISSES]
        faults = [name for name, counts, judge in told if counts(one.golden) and judge(one) is (name in AT_MOST)]
        if faults:
            rows.append((one, faults))
    return rows


def miss_row(one: Asked, faults: Sequence[str]) -> dict[str, Any]:
    """A turn that went wrong, as JSON."""
    golden, shown = one.golden, one.from_documents or one.answer
    return {
        "id": golden.id,
        "faults": list(faults),
        "question": golden.question,
        "gold": golden.model_dump(mode="json", include={"route", "adapter", "passages", "facts"}),
        "routed": one.routed.route.value if one.routed else None,
        "reason": one.routed.reason if one.routed else None,
        "answer": shown.text[:400] if shown else None,
        "hits": [f"{hit.path}#{hit.passage.section}" for hit in one.hits[:5]],
    }


def _route_right(one: Asked) -> bool:
    return one.routed is not None and route_right(one.golden, one.routed.route, one.routed.workflow)


def _adapter_right(one: Asked) -> bool:
    return one.routed is not None and one.routed.adapter == one.golden.adapter


def _refused(answer: Answer | None) -> bool:
    return answer is not None and answer.refused


def _single(golden: GoldenTurn) -> bool:
    return not golden.parts


def _several(golden: GoldenTurn) -> bool:
    return bool(golden.parts)


def _adapters(golden: GoldenTurn) -> bool:
    return _single(golden) and bool(golden.adapter)


def _documents(golden: GoldenTurn) -> bool:
    return _single(golden) and bool(golden.passages)


def _follow_ups(golden: GoldenTurn) -> bool:
    return _documents(golden) and bool(golden.history) and golden.follow_up


def _contradicted(golden: GoldenTurn) -> bool:
    return _documents(golden) and bool(golden.older)


def _outside(golden: GoldenTurn) -> bool:
    return _single(golden) and golden.route is Route.NONE


def _unanswerable(golden: GoldenTurn) -> bool:
    return golden.route is Route.RETRIEVAL and golden.refused


def _parts(one: Asked) -> int:
    return len(one.answer.parts) if one.answer else 0


def _parts_right(one: Asked) -> bool:
    """Whether every intent has its part, from the right place, with its facts or refused as it should be."""
    parts = one.answer.parts if one.answer else ()
    if len(parts) != len(one.golden.parts):
        return False
    return all(
        part.decision.route is golden.route
        and part.decision.adapter == golden.adapter
        and (part.refused if golden.refused else holds_facts(part, golden))
        for part, golden in zip(parts, one.golden.parts, strict=True)
    )


MEASURED: Mapping[str, tuple[Callable[[GoldenTurn], bool], Callable[[Asked], bool]]] = {
    "route": (_single, _route_right),
    "adapter": (_adapters, _adapter_right),
    "adapter_sure": (_adapters, lambda one: bool(one.answer and one.answer.decision.adapter)),
    "passage_in_5": (_documents, lambda one: holds_gold(one.hits[:5], one.golden)),
    "passage_first": (_documents, lambda one: holds_gold(one.hits[:1], one.golden)),
    "fact_in_answer": (_documents, lambda one: holds_facts(one.from_documents, one.golden)),
    "fact_as_routed": (_documents, lambda one: holds_facts(one.answer, one.golden)),
    "citation_right": (_documents, lambda one: cites_gold(one.from_documents, one.golden)),
    "follow_up_fact": (_follow_ups, lambda one: holds_facts(one.answer, one.golden)),
    "out_of_scope_refused": (_outside, lambda one: _refused(one.answer)),
    "unanswerable_refused": (_unanswerable, lambda one: _refused(one.from_documents)),
    "answerable_refused": (_documents, lambda one: _refused(one.from_documents)),
    "contradiction_shown": (_contradicted, lambda one: shows_older(one.from_documents, one.golden)),
    "several_parted": (_several, lambda one: _parts(one) == len(one.golden.parts)),
    "several_right": (_several, _parts_right),
    "one_parted": (_single, lambda one: _parts(one) > 0),
}
"""Which turns a measure counts, and what is right (of AT_MOST: wrong) with one."""
MISSES = (
    *("route", "adapter", "passage_in_5", "fact_in_answer", "out_of_scope_refused", "unanswerable_refused"),
    *("answerable_refused", "contradiction_shown", "several_right", "one_parted"),
)
"""What a turn is listed for when it goes wrong; the other measures are stages of these."""
