"""What was measured of a desk, as measures and as a page: beside goals and floors, with what went wrong."""

from collections.abc import Iterable, Mapping, Sequence

from chains.golden import GoldenTurn
from chains.turn import Route
from desk.page import Html
from evaluation.desk import Asked, calibration, confusion, missed, refusals
from evaluation.floors import Floors
from evaluation.measures import AT_MOST, Measure, of_shares
from evaluation.page import Miss, measure_table, misses_of, page_of, section
from evaluation.plots import bars, matrix
from evaluation.share import Share

TITLES = {
    "route": "Route right",
    "adapter": "Right adapter (of adapter turns)",
    "adapter_sure": "An adapter's turn that it answers itself",
    "passage_in_5": "Gold passage in the first 5",
    "passage_first": "Gold passage first",
    "fact_in_answer": "Extractive answer holds the gold fact",
    "fact_as_routed": "The same, as routed",
    "citation_right": "A gold passage is cited",
    "follow_up_fact": "Follow-ups answered with the gold fact",
    "out_of_scope_refused": "Out of scope refused",
    "unanswerable_refused": "Unanswerable from the documents refused",
    "answerable_refused": "Answerable but refused",
    "contradiction_shown": "What an older document says is shown",
    "several_parted": "Several intents parted",
    "several_right": "Several intents, every part right",
    "one_parted": "One intent, but parted",
    "with_adapter": "Right answer, adapter on",
    "adapter_off": "Right answer, adapter off",
    "nearest_neighbour": "MiniLM nearest neighbour",
    "refusal_f1": "Refusal, F1 over the unanswerable",
    "calibration_error": "Calibration error of the route",
}


def measures_of(
    asked: Sequence[Asked], report: Mapping[str, Mapping[str, Share]], split: str, floors: Floors | None
) -> dict[str, list[Measure]]:
    """The measures of each part of the desk; the test half alone has floors."""
    goals = floors.goals if floors else {}
    least = floors.parts if floors and split == "test" else {}
    measures = {
        part: of_shares(shares, _titles(shares), goals.get(part), least.get(part)) for part, shares in report.items()
    }
    if "turns" in measures:
        told, goal = refusals(asked), goals.get("turns", {})
        name = "refusal_f1"
        measures["turns"] += [
            Measure(name, TITLES[name], told.f1, "number", told.f1_interval, goal=goal.get(name)),
            Measure(
                *("calibration_error", TITLES["calibration_error"], calibration(asked), "number"),
                goal=goal.get("calibration_error"),
            ),
        ]
    return measures


def _titles(names: Iterable[str]) -> dict[str, str]:
    """TITLES, and those of what a workflow's fields, which the desk names, are compared with."""
    beside = {"_majority": "most frequent value", "_nearest": "MiniLM's nearest ticket"}
    compared = [(name, end) for name in names for end in beside if name.endswith(end)]
    return TITLES | {name: f"{name.removesuffix(end)}, {beside[end]}" for name, end in compared}


def desk_page(command: str, split: str, asked: Sequence[Asked], measures: Mapping[str, Sequence[Measure]]) -> Html:
    """The page."""
    turns = f"{len(asked):,} golden turns of the {'development' if split == 'dev' else 'test'} half"
    parts = [
        section(
            "Golden turns" if part == "turns" else f"Adapter {part}, held-out rows",
            "",
            measure_table(rows),
            bars(rows),
        )
        for part, rows in measures.items()
    ]
    if asked:
        pairs = list(confusion(asked).elements())
        routes = matrix([gold for gold, _ in pairs], [given for _, given in pairs])
        parts += [
            section("Given route over gold route", "A row per gold route, a column per given one.", routes),
            section("Misses", "A turn stands under each thing that went wrong.", misses_of(_by_kind(asked))),
        ]
    others = ", ".join(part for part in measures if part != "turns")
    about = "; ".join(
        words for words in (turns if asked else "", f"held-out rows of {others}" if others else "") if words
    )
    return page_of("The desk", command, about, parts)


def _by_kind(asked: Sequence[Asked]) -> dict[str, list[Miss]]:
    kinds: dict[str, list[Miss]] = {}
    for one, faults in missed(asked):
        for fault in faults:
            expected, got = _beside(fault, one)
            kind = TITLES[fault] if fault in AT_MOST else f"Not so: {TITLES[fault]}"
            kinds.setdefault(kind, []).append((_question(one.golden), expected, got))
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def _question(golden: GoldenTurn) -> str:
    """With the question before it, without which a follow-up says little."""
    before = f" (after: {golden.history[-1].question})" if golden.history else ""
    return f"{golden.id}: {golden.question}{before}"


def _beside(fault: str, one: Asked) -> tuple[str, str]:
    """What was expected of a turn in a measure, and what it got."""
    golden = one.golden
    documents = one.from_documents.text if one.from_documents else "failed"
    facts = "; ".join(" or ".join(group) for group in golden.facts)
    match fault:
        case "route" | "adapter":
            return _way(golden.route, golden.adapter, golden.workflow), _routed(one)
        case "passage_in_5":
            found = "\n".join(f"{hit.path} # {hit.passage.section}" for hit in one.hits[:5])
            return "; ".join(f"{place.document}: {place.quote}" for place in golden.passages), found or "nothing"
        case "fact_in_answer" | "answerable_refused":
            return facts, documents
        case "unanswerable_refused":
            return "a refusal", documents
        case "contradiction_shown":
            return "; ".join(f"{place.document}: {place.quote}" for place in golden.older), documents
        case "several_right":
            wanted = [_way(part.route, part.adapter, part.workflow) for part in golden.parts]
            return f"{'; '.join(wanted)} ({facts})", _answered(one)
        case "one_parted":
            return "one intent", _answered(one)
        case _:
            return "a refusal", _answered(one)


def _answered(one: Asked) -> str:
    """What was said, of several parts from where each."""
    if one.answer is None:
        return "failed"
    said = [_way(part.decision.route, part.decision.adapter, part.decision.workflow) for part in one.answer.parts]
    return f"{'; '.join(said)} ({one.answer.text})" if said else one.answer.text


def _routed(one: Asked) -> str:
    if one.routed is None:
        return "failed"
    return f"{_way(one.routed.route, one.routed.adapter, one.routed.workflow)}: {one.routed.reason}"


def _way(route: Route, adapter: str | None, workflow: str | None) -> str:
    return f"{route.value} {adapter or workflow or ''}".strip()
