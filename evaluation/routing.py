"""How well texts are told apart and what belongs to none of their labels is rejected, on labelled sets.

Rows are {"text", "label"}; the label "none" means out of scope. The operating point comes from training and validation
rows alone: from their "none" rows where they have at least LEAST_STRAYS, otherwise from leaving whole labels out.
BANKING77 (Casanueva et al. 2020, arXiv:2003.04807) is measured whole, and with one label in ten held out as out of
scope, ten times over.
"""

import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from chains.classify import Classifier, fit_classifier
from desk.errors import DeskError
from desk.settings import IndexSettings
from evaluation.calibration import calibration_error
from index.embed import Embedder, open_embedder

OUTSIDE = "none"
LEAST_STRAYS = 30
"""Fewer known out-of-scope rows tell less about where to draw the line than labels that are left out."""
RECALL = 0.8
"""The share of what is out of scope that the operating point aims at. What labels are left out matters: rotations of
BANKING77's training rows reach .66 to .85 at it (docs/log.md)."""
ROTATIONS = 10
SEED = 5
TIMED = 300
"""So many texts of a test are decided one at a time, for the time that takes."""
_EMBED_TOGETHER = 512

Texts = Sequence[str]
Vectors = NDArray[np.float32]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with their unit vectors `(n, d)` and their labels."""

    texts: tuple[str, ...]
    vectors: Vectors
    labels: tuple[str, ...]

    def where(self, kept: NDArray[np.bool_]) -> "Labelled":
        texts, labels = (tuple(compress(row, kept)) for row in (self.texts, self.labels))
        return Labelled(texts, self.vectors[kept], labels)

    def __add__(self, other: "Labelled") -> "Labelled":
        vectors = np.concatenate([self.vectors, other.vectors])
        return Labelled(self.texts + other.texts, vectors, self.labels + other.labels)


@dataclass(frozen=True, slots=True)
class RoutingFigures:
    """Shares over the test rows; NaN where there are no rows to take them of.

    `in_scope_accuracy` counts a rejection as wrong, `joint_accuracy` is over all rows: the right label, or rightly
    rejected. `macro_f1` is over the test's labels after the decision, "none" included where rows have it. `ece` is that
    of the best label's probability on in-scope rows, before any rejection. Beside the embedding: `decision_ms`, p50
    of one text, `fit_s` of everything.
    """

    in_scope_accuracy: float
    accuracy_without_rejection: float
    oos_recall: float
    oos_precision: float
    auroc: float
    macro_f1: float
    ece: float
    joint_accuracy: float
    decision_ms: float
    fit_s: float

    def to_json(self) -> dict[str, float | None]:
        """NaN, which JSON lacks, becomes null."""
        return {key: None if np.isnan(value) else round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of each test row: its text and gold label, the best label and its probability, the log-odds of being
    in scope, and the final decision, OUTSIDE for a rejection."""

    texts: tuple[str, ...]
    gold: NDArray[np.str_]
    best: NDArray[np.str_]
    confidence: NDArray[np.float64]
    in_scope: NDArray[np.float64]
    given: NDArray[np.str_]


def read_labelled(path: Path) -> list[tuple[str, str]]:
    """(text, label) of each row. Raises DeskError naming file, line and fault."""
    if not path.is_file():
        raise DeskError(f'{path} is missing: give a file of rows {{"text": ..., "label": ...}}, one a line.')
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = _Row.model_validate(json.loads(line))
        except (json.JSONDecodeError, ValidationError) as error:
            first = str(error).replace("\n", " ")[:200]
            raise DeskError(f'{path}, line {number}: not a row {{"text", "label"}}: {first}') from None
        rows.append((row.text, row.label))
    if not rows:
        raise DeskError(f"{path} holds no rows.")
    return rows


def measure_files(
    files: tuple[Path, Path, Path], settings: IndexSettings, recall: float, embedder: Embedder | None = None
) -> tuple[RoutingFigures, Decided]:
    """Fitted on the first two files (training, validation), measured on the third. Raises DeskError for bad input."""
    model = embedder or open_embedder(settings)
    train, validation, test = (embed_rows(read_labelled(path), model) for path in files)
    return measure(train + validation, test, recall)


def embed_rows(rows: Sequence[tuple[str, str]], embedder: Embedder) -> Labelled:
    """The rows with a vector each; says on standard error how far it is."""
    parts = []
    for start in range(0, len(rows), _EMBED_TOGETHER):
        parts.append(embedder.embed_queries([text for text, _ in rows[start : start + _EMBED_TOGETHER]]))
        done = min(start + _EMBED_TOGETHER, len(rows))
        print(f"\r{done:,} of {len(rows):,} texts embedded", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Labelled(tuple(text for text, _ in rows), np.concatenate(parts), tuple(label for _, label in rows))


def measure(known: Labelled, test: Labelled, recall: float) -> tuple[RoutingFigures, Decided]:
    """Fitted on `known` (its "none" rows are strays), measured on `test`."""
    outside = np.array(known.labels) == OUTSIDE
    inside = known.where(~outside)
    if len(set(inside.labels)) < 2:
        raise DeskError("The training rows hold fewer than two labels beside none: there is nothing to tell apart.")
    strays = known.vectors[outside] if outside.sum() >= LEAST_STRAYS else known.vectors[:0]
    started = time.perf_counter()
    classifier = fit_classifier(inside.vectors, inside.labels, strays, recall)
    fit_s = time.perf_counter() - started
    decided = decide(classifier, test)
    return _figures(decided, _decision_ms(classifier, test.vectors), fit_s), decided


def decide(classifier: Classifier, test: Labelled) -> Decided:
    scores = classifier.kernel.score(test.vectors)
    chances = classifier.probabilities(scores)
    best = np.array(classifier.labels)[chances.argmax(axis=1)]
    in_scope = classifier.in_scope(scores)
    given = np.where(in_scope >= classifier.level, best, OUTSIDE)
    return Decided(test.texts, np.array(test.labels), best, chances.max(axis=1), in_scope, given)


def measure_banking(
    data: Path, settings: IndexSettings, recall: float, embedder: Embedder | None = None
) -> tuple[RoutingFigures, list[RoutingFigures], Decided]:
    """BANKING77 whole, then with a tenth of its labels held out in turn; and what was decided in the first.

    `data` is the folder that holds banking77/. Raises DeskError when its files are not there.
    """
    model = embedder or open_embedder(settings)
    train, test = (embed_rows(rows, model) for rows in read_banking(data))
    whole, decided = measure(train, test, recall)
    rotations = []
    for away in rotate(train.labels):
        known, asked = rotation(train, test, away)
        rotations.append(measure(known, asked, recall)[0])
        print(f"rotation {len(rotations)} of {ROTATIONS}: {rotations[-1].to_json()}", file=sys.stderr, flush=True)
    return whole, rotations, decided


def mean_figures(rotations: Sequence[RoutingFigures]) -> dict[str, float | None]:
    """Each figure's mean over the rotations."""
    rows = [asdict(one) for one in rotations]
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def read_banking(data: Path) -> list[list[tuple[str, str]]]:
    """(text, label) of its training and of its test rows. Raises DeskError when a file is missing."""
    parts = []
    for name in ("train", "test"):
        path = data / "banking77" / f"{name}.csv"
        if not path.is_file():
            raise DeskError(
                f"{path} is missing: give the folder that holds banking77/train.csv and test.csv (--data DIR)."
            )
        with path.open(encoding="utf-8", newline="") as file:
            parts.append([(row["text"], row["category"]) for row in csv.DictReader(file)])
    return parts


def rotate(labels: Sequence[str]) -> list[frozenset[str]]:
    """The labels that each rotation holds out: together all of them, in an order drawn once."""
    order = np.random.default_rng(SEED).permutation(sorted(set(labels)))
    return [frozenset(order[turn::ROTATIONS].tolist()) for turn in range(ROTATIONS)]


def rotation(train: Labelled, test: Labelled, away: frozenset[str]) -> tuple[Labelled, Labelled]:
    """Training rows of the other labels, and all test rows, those of `away` as out of scope."""
    kept = np.array([label not in away for label in train.labels])
    labels = tuple(OUTSIDE if one in away else one for one in test.labels)
    return train.where(kept), replace(test, labels=labels)


def _figures(decided: Decided, decision_ms: float, fit_s: float) -> RoutingFigures:
    from sklearn.metrics import f1_score, roc_auc_score

    outside = decided.gold == OUTSIDE
    inside = ~outside
    rejected = decided.given == OUTSIDE
    right = decided.given == decided.gold
    both = outside.any() and inside.any()
    return RoutingFigures(
        in_scope_accuracy=_mean(right[inside]),
        accuracy_without_rejection=_mean(decided.best[inside] == decided.gold[inside]),
        oos_recall=_mean(rejected[outside]),
        oos_precision=_mean(outside[rejected]) if outside.any() else float("nan"),
        auroc=float(roc_auc_score(inside, decided.in_scope)) if both else float("nan"),
        macro_f1=float(f1_score(decided.gold, decided.given, labels=sorted(set(decided.gold)), average="macro")),
        ece=calibration_error(decided.confidence[inside], decided.best[inside] == decided.gold[inside]),
        joint_accuracy=_mean(right),
        decision_ms=decision_ms,
        fit_s=fit_s,
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _decision_ms(classifier: Classifier, vectors: Vectors) -> float:
    """p50 of one text's decision, from its vector."""
    taken = []
    for row in vectors[:TIMED]:
        started = time.perf_counter()
        scores = classifier.kernel.score(row[None])
        classifier.probabilities(scores).argmax()
        classifier.in_scope(scores)
        taken.append((time.perf_counter() - started) * 1000)
    return float(np.median(taken))
