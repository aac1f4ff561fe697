"""The desk's golden turns, asked for real: routes, passages, answers, refusals; and its adapters' held-out rows."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adapters.config import read_adapter_file
from adapters.dataset import Example, read_examples
from adapters.evaluate import answer_scores, field_scores, load_adapter
from app.assembly import Switchboard
from chains.assistant import Assistant
from chains.golden import GoldenPart, GoldenTurn, read_golden
from chains.turn import Answer, Failed, Finished, Retrieved, Route, Routed, RouteDecision, Turn
from desk.config import WorkflowFile
from evaluation.routing import calibration_error
from index.document import NO_GROUPS, ScoredPassage
from index.embed import Embedder


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `total`, with the 95% Wilson interval."""

    right: int
    total: int

    @property
    def value(self) -> float:
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.total:
            return math.nan, math.nan
        z, n, p = 1.96, self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:6.1%}  ({self.right}/{self.total}, 95% {low:.0%} to {high:.0%})"

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"value": round(self.value, 4), "right": self.right, "total": self.total, "low": low, "high": high}


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
                print(f"failed: {turn.question[:80]!r}: {message}")
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
    several = [one for one in asked if one.golden.parts]
    single = [one for one in asked if not one.golden.parts]
    documents = [one for one in single if one.golden.passages]
    adapters = [one for one in single if one.golden.adapter]
    outside = [one for one in single if one.golden.route is Route.NONE]
    unanswerable = [one for one in asked if one.golden.route is Route.RETRIEVAL and one.golden.refused]
    contradicted = [one for one in documents if one.golden.older]
    follow_ups = [one for one in documents if one.golden.history and one.golden.follow_up]
    return {
        "route": _share(single, _route_right),
        "adapter": _share(adapters, lambda one: bool(one.routed and one.routed.adapter == one.golden.adapter)),
        "adapter_sure": _share(adapters, lambda one: bool(one.answer and one.answer.decision.adapter)),
        "passage_in_5": _share(documents, lambda one: holds_gold(one.hits[:5], one.golden)),
        "passage_first": _share(documents, lambda one: holds_gold(one.hits[:1], one.golden)),
        "fact_in_answer": _share(documents, lambda one: holds_facts(one.from_documents, one.golden)),
        "fact_as_routed": _share(documents, lambda one: holds_facts(one.answer, one.golden)),
        "citation_right": _share(documents, lambda one: cites_gold(one.from_documents, one.golden)),
        "follow_up_fact": _share(follow_ups, lambda one: holds_facts(one.answer, one.golden)),
        "out_of_scope_refused": _share(outside, lambda one: bool(one.answer and one.answer.refused)),
        "unanswerable_refused": _share(
            unanswerable, lambda one: bool(one.from_documents and one.from_documents.refused)
        ),
        "answerable_refused": _share(documents, lambda one: bool(one.from_documents and one.from_documents.refused)),
        "contradiction_shown": _share(contradicted, lambda one: shows_older(one.from_documents, one.golden)),
        "several_parted": _share(several, lambda one: _parts(one) == len(one.golden.parts)),
        "several_right": _share(several, _parts_right),
        "one_parted": _share(single, lambda one: _parts(one) > 0),
    }


def confusion(asked: Sequence[Asked]) -> Counter[tuple[str, str]]:
    return Counter((one.golden.route.value, one.routed.route.value if one.routed else "failed") for one in asked)


def holds_gold(hits: Sequence[ScoredPassage], golden: GoldenTurn) -> bool:
    """Whether one of the hits is a gold passage: its document, and the gold words in its text."""
    return any(
        hit.path == gold.document and _flat(gold.quote) in _flat(hit.passage.text)
        for hit in hits
        for gold in golden.passages
    )


def holds_facts(answer: Answer | None, golden: GoldenTurn | GoldenPart) -> bool:
    """Whether the answer has one alternative of every fact group."""
    if answer is None or answer.refused:
        return False
    text = _flat(answer.text)
    return all(any(_flat(alternative) in text for alternative in group) for group in golden.facts)


def shows_older(answer: Answer | None, golden: GoldenTurn) -> bool:
    """Whether what holds is told, and what an older document says instead is cited beside it."""
    if answer is None or not holds_facts(answer, golden):
        return False
    return any(
        citation.document == older.document and _flat(older.quote) in _flat(citation.passage_text)
        for citation in answer.citations
        for older in golden.older
    )


def refusal(asked: Sequence[Asked]) -> dict[str, float]:
    """Precision, recall and F1 of refusing, with Documents chosen, what no document answers; NaN without any."""
    told = [one for one in asked if one.from_documents and not one.golden.parts]
    refused = [one for one in told if one.from_documents and one.from_documents.refused]
    rightly = sum(one.golden.refused for one in refused)
    wanted = sum(one.golden.refused for one in told)
    precision = rightly / len(refused) if refused else math.nan
    recall = rightly / wanted if wanted else math.nan
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0,
    }


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


def cites_gold(answer: Answer | None, golden: GoldenTurn) -> bool:
    if answer is None:
        return False
    return any(
        citation.document == gold.document and _flat(gold.quote) in _flat(citation.passage_text)
        for citation in answer.citations
        for gold in golden.passages
    )


def measure_adapter(board: Switchboard, name: str) -> dict[str, Share]:
    """Exact answers on held-out phrasings: with the adapter, with it off, and MiniLM's nearest training question."""
    folder = board.desk.chains.adapter_folder / name
    held_out = read_examples(folder / "eval.jsonl")
    decoder = load_adapter(board.desk.adapters, name)
    most = read_adapter_file(folder / "adapter.yaml").training.max_tokens

    def exact(adapter: str | None) -> Share:
        return _of(answer_scores(decoder, adapter, held_out, most)["exact"], len(held_out))

    nearest = _nearest_examples(board.embedder, folder, held_out)
    near = sum(one.completion == row.completion for one, row in zip(nearest, held_out, strict=True))
    return {
        "with_adapter": exact(name),
        "adapter_off": exact(None),
        "nearest_neighbour": Share(near, len(held_out)),
    }


def measure_fields(board: Switchboard, name: str, workflow: WorkflowFile) -> dict[str, Share]:
    """Per field, the share filled right on tickets written apart, beside the tickets' own majority class and the
    value of MiniLM's nearest training ticket."""
    folder = board.desk.chains.adapter_folder / name
    held_out = read_examples(folder / "eval.jsonl")
    choices = {field: part.choices for field, part in workflow.fields.items()}
    scores = field_scores(load_adapter(board.desk.adapters, name), name, held_out, choices)
    nearest = _nearest_examples(board.embedder, folder, held_out)
    pairs = [
        (json.loads(one.completion), json.loads(row.completion)) for one, row in zip(nearest, held_out, strict=True)
    ]
    total = len(held_out)
    report = {}
    for field in workflow.fields:
        report[field] = _of(scores[field], total)
        report[f"{field}_majority"] = _of(scores[f"{field}_majority"], total)
        report[f"{field}_nearest"] = Share(sum(got[field] == right[field] for got, right in pairs), total)
    return report


def _nearest_examples(embedder: Embedder, folder: Path, asked: Sequence[Example]) -> list[Example]:
    """For each row the training example whose prompt is nearest by the embedding model."""
    train = read_examples(folder / "train.jsonl")
    similar = (
        embedder.embed_queries([row.prompt for row in asked]) @ embedder.embed_queries([row.prompt for row in train]).T
    )
    return [train[int(place)] for place in np.argmax(similar, axis=1)]


def _of(value: float, total: int) -> Share:
    return Share(round(value * total), total)


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


def misses(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """One row per golden turn with a wrong route, a missing passage or a missing fact."""
    rows = []
    for one in asked:
        golden = one.golden
        faults = []
        if not _route_right(one):
            faults.append("route")
        if golden.passages and not holds_gold(one.hits[:5], golden):
            faults.append("passage")
        if golden.passages and not holds_facts(one.from_documents, golden):
            faults.append("fact")
        if golden.refused and not (one.answer and one.answer.refused):
            faults.append("not refused")
        if faults:
            shown = one.from_documents or one.answer
            rows.append(
                {
                    "id": golden.id,
                    "faults": faults,
                    "question": golden.question,
                    "gold": golden.model_dump(mode="json", include={"route", "adapter", "passages", "facts"}),
                    "routed": one.routed.route.value if one.routed else None,
                    "reason": one.routed.reason if one.routed else None,
                    "answer": shown.text[:400] if shown else None,
                    "hits": [f"{hit.path}#{hit.passage.section}" for hit in one.hits[:5]],
                }
            )
    return rows


def _route_right(one: Asked) -> bool:
    if one.routed is None:
        return False
    if one.golden.workflow and one.routed.workflow != one.golden.workflow:
        return False
    return one.routed.route is one.golden.route


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


def _share(rows: Sequence[Asked], right: Any) -> Share:
    return Share(sum(bool(right(one)) for one in rows), len(rows))


def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()
