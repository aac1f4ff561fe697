"""How texts were told apart and rejected, as measures and as a page: what is confused, how far probabilities can be
trusted, which texts went wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from desk.page import Html
from evaluation.calibration import reliability
from evaluation.measures import Measure, Unit, of_shares
from evaluation.page import Miss, measure_table, misses_of, page_of, section, table
from evaluation.plots import Axes, Line, bars, diagonal, matrix
from evaluation.routing import OUTSIDE, Decided, RoutingFigures
from evaluation.share import Share

CONFUSED = 25
TITLES = {
    "route": "Route right",
    "adapter": "Right adapter (of adapter turns)",
    "out_of_scope_declined": "Out of scope declined",
    "in_scope_declined": "In scope but declined",
    "ambiguous": "Called ambiguous",
    "wrong_and_ambiguous": "Of those routed wrong, called ambiguous",
    "in_scope_accuracy": "In scope, given their label",
    "accuracy_without_rejection": "In scope, likeliest label right",
    "oos_recall": "Out of scope, rejected",
    "oos_precision": "Rejected, out of scope",
    "joint_accuracy": "All: right label or rightly rejected",
    "auroc": "AUROC of being in scope",
    "macro_f1": "Macro F1",
    "ece": "Expected calibration error",
    "decision_ms": "A decision, p50, beside the embedding",
    "fit_s": "The whole fit, beside the embedding",
}
_UNITS: Mapping[str, Unit] = {
    **{"auroc": "number", "macro_f1": "number", "ece": "number"},
    **{"decision_ms": "ms", "fit_s": "s"},
}


def measures_of(figures: RoutingFigures, decided: Decided) -> list[Measure]:
    """The figures in their order; what is counted has an interval."""
    inside, rejected = decided.gold != OUTSIDE, decided.given == OUTSIDE
    right = decided.given == decided.gold
    shares = {
        "in_scope_accuracy": Share.of(right[inside]),
        "accuracy_without_rejection": Share.of((decided.best == decided.gold)[inside]),
        "oos_recall": Share.of(rejected[~inside]),
        "oos_precision": Share.of(~inside[rejected]) if (~inside).any() else Share(0, 0),
        "joint_accuracy": Share.of(right),
    }
    counted = {one.name: one for one in of_shares(shares, TITLES)}
    return [
        counted[name] if name in counted else Measure(name, TITLES[name], value, _UNITS[name])
        for name, value in asdict(figures).items()
    ]


def turn_measures(shares: Mapping[str, Share], error: float, goals: Mapping[str, float]) -> list[Measure]:
    """Those of the desk's own turns, each decided by a router that never saw it."""
    calibration = Measure("ece", TITLES["ece"], error, "number", goal=goals.get("ece"))
    return [*of_shares(shares, TITLES, goals), calibration]


def rotations_of(rotations: Sequence[RoutingFigures]) -> Html:
    """A row per rotation, and their mean."""
    names = ["joint_accuracy", "in_scope_accuracy", "accuracy_without_rejection", "oos_recall", "auroc", "ece"]
    values = [[float(asdict(one)[name]) for name in names] for one in rotations]
    named = [*map(str, range(1, len(values) + 1)), "mean"]
    rows = [[name, *row] for name, row in zip(named, [*values, np.mean(values, axis=0).tolist()], strict=True)]
    return section(
        "A tenth of the labels held out as out of scope, in turn",
        "Their texts are never trained on; a decision is right when it rejects them.",
        table(["rotation", *(TITLES[name] for name in names)], rows),
    )


def routing_page(command: str, about: str, measures: Sequence[Measure], decided: Decided, *more: Html) -> Html:
    """The page; `more` are sections that stand behind the measures."""
    names = [[_name(label) for label in row] for row in (decided.gold.tolist(), decided.given.tolist())]
    how = (
        "A row per gold label, a column per given one. Darker cells hold more of their row; off the diagonal is wrong."
    )
    return page_of(
        "Routing",
        command,
        about,
        [
            section("Measures", "", measure_table(measures), bars(measures)),
            *more,
            section("Given label over gold label", how, matrix(*names)),
            section("Confused most", "", _confused(*names)),
            section(
                "Share right over stated probability",
                "Of the likeliest label, over what is in scope, before anything is rejected. On the dashed line "
                "probabilities are what they say; whiskers are 95% intervals.",
                _reliability(decided),
            ),
            section("Misses", "", misses_of(misses(decided))),
        ],
    )


def misses(decided: Decided) -> dict[str, list[Miss]]:
    """The texts that went wrong, by kind."""
    kinds: dict[str, list[Miss]] = {"Wrong label": [], "In scope but rejected": [], "Out of scope but not rejected": []}
    rows = zip(decided.texts, decided.gold.tolist(), decided.given.tolist(), decided.best.tolist(), strict=True)
    for text, gold, given, best in rows:
        if gold == given:
            continue
        if given == OUTSIDE:
            kinds["In scope but rejected"].append((text, gold, f"rejected; likeliest was {_name(best)}"))
        else:
            kind = "Out of scope but not rejected" if gold == OUTSIDE else "Wrong label"
            kinds[kind].append((text, _name(gold), given))
    return kinds


def _reliability(decided: Decided) -> Html:
    """Per bin of the best label's probability, how many in-scope texts had it right."""
    inside = decided.gold != OUTSIDE
    bins = reliability(decided.confidence[inside], (decided.best == decided.gold)[inside])
    points = [(one.stated, one.came_true.value) for one in bins]
    line = Line("likeliest label", points, [one.came_true.interval for one in bins], dots=True)
    return diagonal("reliability", Axes("stated probability", "share right"), [line])


def _confused(gold: Sequence[str], given: Sequence[str]) -> Html:
    """The pairs of labels that were confused most."""
    wrong = [pair for pair in zip(gold, given, strict=True) if pair[0] != pair[1]]
    if not wrong:
        return table(["gold", "given", "texts"], [])
    pairs, counts = np.unique(np.array(wrong), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSED]
    return table(["gold", "given", "texts"], [(*pairs[place].tolist(), int(counts[place])) for place in order])


def _name(label: str) -> str:
    return "out of scope" if label == OUTSIDE else label
