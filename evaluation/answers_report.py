"""How answers from documents held up, as measures and as a page: the judge's probabilities, where refusing begins, what
went wrong."""

from collections.abc import Mapping, Sequence

import numpy as np

from chains.extract import MOST_UNANSWERED
from desk.page import Html
from evaluation.answers import Outcome, missed, quoted_sentences, refusals, shares
from evaluation.calibration import reliability
from evaluation.measures import Measure, of_shares
from evaluation.page import Miss, measure_table, misses_of, page_of, section
from evaluation.plots import Axes, Line, bars, curves, diagonal
from evaluation.share import Refusals, Share

TITLES = {
    "first_sentence_hit": "A gold answer in the first quoted sentence",
    "quoted_hit": "A gold answer in a quoted sentence",
    "citation_precision": "Citation precision",
    "citation_recall": "Citation recall",
    "uncited_share": "Answers without a citation",
    "mean_quoted_sentences": "Sentences quoted, mean",
    "answerable_refused": "Answerable but refused",
    "refusal_precision": "Refusal precision",
    "refusal_recall": "Refusal recall",
    "refusal_f1": "Refusal F1",
}
XQUAD_GOALS = {
    **{"first_sentence_hit": 0.86, "quoted_hit": 0.93, "citation_precision": 0.88, "citation_recall": 0.88},
    **{"uncited_share": 0.0, "refusal_f1": 0.85},
}
"""What is aimed at on XQuAD-en; a set of one's own has none."""
_LEVELS = [step / 50 for step in range(51)]


def measures_of(
    outcomes: Sequence[Outcome], goals: Mapping[str, float], parted: Sequence[Outcome] | None = None
) -> list[Measure]:
    """The measures of the answers; those of refusing are of `parted`, the run with unanswerable questions, if given."""
    told = refusals(parted or outcomes)
    f1 = Measure("refusal_f1", TITLES["refusal_f1"], told.f1, "number", told.f1_interval, goal=goals.get("refusal_f1"))
    refusing = {
        "answerable_refused": Share(told.refused - told.rightly, told.total - told.wanted),
        "refusal_precision": told.precision,
        "refusal_recall": told.recall,
    }
    return [
        *of_shares(shares(outcomes), TITLES, goals),
        Measure("mean_quoted_sentences", TITLES["mean_quoted_sentences"], quoted_sentences(outcomes), "number"),
        *of_shares(refusing, TITLES, goals),
        f1,
    ]


def answers_page(
    command: str,
    about: str,
    measures: Sequence[Measure],
    outcomes: Sequence[Outcome],
    parted: Sequence[Outcome] | None = None,
) -> Html:
    """The page; `parted` as above."""
    judged = parted or outcomes
    return page_of(
        "Answers from documents",
        command,
        about,
        [
            section("Measures", "", measure_table(measures), bars(measures)),
            section(
                "How far the judge can be trusted",
                "How often it came true, over what the judge said: that the likeliest sentence holds a gold answer, "
                "and that no passage answers. On the dashed line probabilities are what they say; whiskers are 95% "
                "intervals.",
                _reliability(judged),
            ),
            section(
                "Where refusing begins",
                "What refusing would be worth if it began at another probability that none answers. Left of the mark "
                "more is refused, right of it less.",
                _refusing(judged),
            ),
            section("Misses", "", misses_of(_by_kind(outcomes, parted or ()))),
        ],
    )


def at_level(outcomes: Sequence[Outcome], level: float) -> Refusals:
    """What refusing would be worth if it began above this probability that none answers."""
    return Refusals.of((one.stated.unanswered > level, not one.row.answerable) for one in outcomes)


def _refusing(outcomes: Sequence[Outcome]) -> Html:
    told = [(level, at_level(outcomes, level)) for level in _LEVELS]
    drawn = [
        Line("precision", [(level, one.precision.value) for level, one in told]),
        Line("recall", [(level, one.recall.value) for level, one in told]),
        Line("F1", [(level, one.f1) for level, one in told]),
        Line(
            "answerable but refused",
            [(level, Share(one.refused - one.rightly, one.total - one.wanted).value) for level, one in told],
        ),
    ]
    axes = Axes("probability of no answer from which a question is refused", "share")
    return curves("refusing", axes, drawn, at=(MOST_UNANSWERED, f"in use: {MOST_UNANSWERED:g}"))


def _reliability(outcomes: Sequence[Outcome]) -> Html:
    pairs = {
        "the likeliest sentence answers": [(one.stated.best, one.stated.best_right) for one in outcomes],
        "none answers": [(one.stated.unanswered, not one.row.answerable) for one in outcomes],
    }
    drawn = []
    for name, rows in pairs.items():
        stated, right = np.array([a for a, _ in rows], dtype=np.float64), np.array([b for _, b in rows], dtype=np.bool_)
        bins = reliability(stated, right)
        points = [(one.stated, one.came_true.value) for one in bins]
        drawn.append(Line(name, points, [one.came_true.interval for one in bins], dots=True))
    return diagonal("reliability", Axes("stated probability", "share that came true"), drawn)


def _by_kind(outcomes: Sequence[Outcome], parted: Sequence[Outcome]) -> dict[str, list[Miss]]:
    kinds: dict[str, list[Miss]] = {
        "Quoted, but without a gold answer": [],
        "Answerable but refused": [],
        "Answered though no passage does": [],
    }
    for one in [*missed(outcomes), *(other for other in missed(parted) if not other.row.answerable)]:
        kinds[_kind(one)].append((one.row.question, " or ".join(one.row.answers) or "a refusal", _got(one)))
    return kinds


def _kind(one: Outcome) -> str:
    if not one.row.answerable:
        return "Answered though no passage does"
    return "Answerable but refused" if one.refused else "Quoted, but without a gold answer"


def _got(one: Outcome) -> str:
    return f"none answers: {one.stated.unanswered:.0%}. {' / '.join(one.quotes) or 'a refusal'}"
