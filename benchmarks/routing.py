"""Which text goes where, and which goes nowhere: the router's classifier beside aurelio's semantic-router.

    python benchmarks/routing.py --data DIR --peer PEER/bin/python

DIR holds banking77/train.csv and test.csv. One label in ten is held out as out of scope, ten times over; both get the
same rows of the same rotations with the same vectors, and each fits its own threshold without a look at the test.
`joint_accuracy` is the share of the test's texts given the right label, or rightly rejected. --every 4 gives both each
fourth row of training and test, where the peer would take too long. Then both decide among 150 labels of 100 made-up
vectors each. Times are beside the embedding, p50 of the first texts of the test, one at a time.

The peer is IndexedRouter of semantic-router 1.1.1 (PyPI) with its defaults and a confidence of .5 once calibrated by
its own `fit`: on texts that are no utterances of it (`fitted`), and once more the way ours is, with a quarter of the
labels left out and their texts given as matching nothing (`fitted with strays`). Its requirements reach far, so it runs
in an environment of its own:

    python -m venv PEER && PEER/bin/pip install semantic-router==1.1.1

Prints a table and one JSON line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
LABELS, EACH, DIMENSION = 150, 100, 384
HELD = 0.15
CONFIDENCE = 0.5
NOISE = 2.5
"""Enough that some of the made-up vectors are nearer to another label: the peer cannot fit where all are right."""
KEYS = (
    *("joint_accuracy", "in_scope_accuracy", "accuracy_without_rejection", "oos_recall", "auroc"),
    *("decision_ms", "fit_s"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="The router's classifier beside semantic-router.")
    parser.add_argument("--data", type=Path, help="folder with banking77/train.csv and test.csv")
    parser.add_argument("--peer", type=Path, default=None, help="the Python of an environment with semantic-router")
    parser.add_argument("--rotations", type=int, default=10, help="how many of the ten rotations (default all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th row alone, for both (default all)")
    parser.add_argument("--as-peer", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        print(json.dumps(run_peer(options.as_peer)))
        return 0
    if options.data is None:
        parser.error("give --data, the folder that holds banking77/")
    sys.path.insert(0, str(ROOT))
    fault = peer_fault(options.peer)
    if fault:
        print(f"The peer is left out: {fault}.", file=sys.stderr)
    compare(options.data, None if fault else options.peer, options.rotations, options.every)
    return 0


def peer_fault(python: Path | None) -> str | None:
    """Why the peer cannot run; None if it can."""
    how = "`python -m venv PEER && PEER/bin/pip install semantic-router==1.1.1`, then --peer PEER/bin/python"
    if python is None:
        return f"no Python with semantic-router is named ({how})"
    if not python.exists():
        return f"there is no {python} ({how})"
    found = subprocess.run([python, "-c", "import semantic_router"], capture_output=True, timeout=120)
    return f"semantic-router is not installed for {python} ({how})" if found.returncode else None


def compare(data: Path, peer: Path | None, turns: int, every: int) -> None:
    from desk.config import load_desk
    from evaluation.routing import OUTSIDE, RECALL, embed_rows, measure, read_banking, rotate, rotation
    from index.embed import open_embedder

    embedder = open_embedder(load_desk().index)
    train, test = (embed_rows(part[::every], embedder) for part in read_banking(data))
    print(f"{len(train.labels):,} rows of training, {len(test.labels):,} of test", file=sys.stderr, flush=True)
    rows: dict[str, list[dict[str, float]]] = {}
    for number, away in enumerate(rotate(train.labels)[:turns], 1):
        known, asked = rotation(train, test, away)
        rows.setdefault("switchboard", []).append(dict(measure(known, asked, RECALL)[0].to_json()))
        if peer:
            gold = [None if label == OUTSIDE else label for label in asked.labels]
            for name, figures in ask_peer(peer, known.vectors, known.labels, asked.vectors, gold).items():
                rows.setdefault(name, []).append(figures)
        told = {name: {key: figures[-1][key] for key in KEYS} for name, figures in rows.items()}
        print(f"rotation {number} of {turns}: {json.dumps(told)}", file=sys.stderr, flush=True)
    report = {name: mean_of(figures) for name, figures in rows.items()}
    print(f"\nBANKING77, mean of {turns} rotations")
    print_table(report, KEYS)
    scale = measure_scale(peer)
    print(f"\n{LABELS} labels of {EACH} texts")
    print_table(scale, ("decision_ms", "fit_s"))
    print(json.dumps({"banking77": report, "scale": scale}))


def measure_scale(peer: Path | None) -> dict[str, dict[str, float]]:
    """Times among many labels of made-up vectors; what is decided says nothing here."""
    from evaluation.routing import RECALL, Labelled, measure

    chance = np.random.default_rng(SEED)
    centres = chance.normal(size=(LABELS, DIMENSION)) / np.sqrt(DIMENSION)

    def draw(each: int) -> Labelled:
        rows = np.repeat(centres, each, axis=0) + chance.normal(scale=NOISE, size=(LABELS * each, DIMENSION)) / 20
        unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        labels = tuple(f"label {number}" for number in np.repeat(np.arange(LABELS), each))
        return Labelled(labels, unit, labels)

    known, asked = draw(EACH), draw(4)
    times = {"switchboard": dict(measure(known, asked, RECALL)[0].to_json())}
    if peer:
        times |= ask_peer(peer, known.vectors, known.labels, asked.vectors, list(asked.labels))
    return times


def ask_peer(
    python: Path, known: np.ndarray, labels: tuple[str, ...], asked: np.ndarray, gold: list[str | None]
) -> dict[str, dict[str, float]]:
    """The peer's figures, by its name; in a process of its own, since it has its own requirements."""
    from evaluation.routing import TIMED

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npz"
        given = np.array([one or "" for one in gold])
        np.savez(path, known=known, labels=np.array(labels), asked=asked, gold=given, timed=TIMED)
        done = subprocess.run([python, __file__, "--as-peer", path], capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"The peer stopped with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_peer(path: Path) -> dict[str, dict[str, float]]:
    """Runs in the peer's environment: nothing of this project is there."""
    from semantic_router import IndexedRouter, Route
    from semantic_router.encoders import DenseEncoder

    with np.load(path, allow_pickle=False) as stored:
        known, labels, asked, timed = stored["known"], stored["labels"], stored["asked"], int(stored["timed"])
        gold = [str(one) or None for one in stored["gold"]]
    vectors = {f"known {number}": row.tolist() for number, row in enumerate(known)}
    vectors |= {f"asked {number}": row.tolist() for number, row in enumerate(asked)}

    class Looked(DenseEncoder):
        """Texts are names of vectors that are already there."""

        def __call__(self, docs: list[str]) -> list[list[float]]:
            return [vectors[name] for name in docs]

    def routed(places: np.ndarray, calibrator: object = None) -> IndexedRouter:
        named = sorted(set(labels[places].tolist()))
        own = {label: [f"known {number}" for number in places[labels[places] == label]] for label in named}
        routes = [Route(name=label, utterances=own[label]) for label in named]
        return IndexedRouter(Looked(name="looked up"), routes, calibrator=calibrator)

    chance = np.random.default_rng(SEED)
    held = chance.random(len(labels)) < HELD
    everything = np.arange(len(labels))
    away = set(chance.permutation(sorted(set(labels.tolist())))[::4].tolist())
    strange = np.array([label in away for label in labels])
    figures = {}
    for name, left_out in (("fitted", np.zeros(len(labels), dtype=bool)), ("fitted with strays", strange)):
        started = time.perf_counter()
        trial = routed(np.flatnonzero(~held & ~left_out))
        judged = np.flatnonzero(held)
        trial.fit([f"known {one}" for one in judged], [None if left_out[one] else str(labels[one]) for one in judged])
        router = routed(everything, trial.calibrator)
        fit_s = time.perf_counter() - started
        names = [f"asked {number}" for number in range(len(asked))]
        taken, choices = [], []
        for text in names:
            started = time.perf_counter()
            choices.append(router(text))
            taken.append((time.perf_counter() - started) * 1000)
        best = [choice.name for choice in choices]
        stated = np.array([choice.confidence for choice in choices], dtype=np.float64)
        figures[f"semantic-router, {name}"] = {
            **counted(gold, best, stated, CONFIDENCE),
            "decision_ms": float(np.median(taken[:timed])),
            "fit_s": fit_s,
        }
    return figures


def counted(gold: list[str | None], best: list[str], stated: np.ndarray, least: float) -> dict[str, float | None]:
    """Shares as `evaluation.routing` counts them, of the best labels and their confidences; None is out of scope."""
    outside = np.array([one is None for one in gold])
    matched = np.array([one == other for one, other in zip(best, gold, strict=True)])
    rejected = stated < least
    right = np.where(outside, rejected, matched & ~rejected)
    inner, outer = np.sort(stated[~outside]), stated[outside]
    below = np.searchsorted(inner, outer, "left"), np.searchsorted(inner, outer, "right")
    return {
        "joint_accuracy": float(right.mean()),
        "in_scope_accuracy": float(right[~outside].mean()),
        "accuracy_without_rejection": float(matched[~outside].mean()),
        "oos_recall": float(rejected[outside].mean()) if outside.any() else None,
        "auroc": float(1 - np.mean(below) / len(inner)) if outside.any() else None,
    }


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def print_table(report: dict[str, dict[str, float]], keys: tuple[str, ...]) -> None:
    print(f"{'':38}" + "".join(f"{key:>28}" for key in keys))
    for name, row in report.items():
        print(f"{name:38}" + "".join(f"{row[key]:28.3f}" for key in keys))


if __name__ == "__main__":
    raise SystemExit(main())
