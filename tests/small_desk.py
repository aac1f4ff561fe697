"""A desk of one document without an adapter, running for real, to which an adapter is added while it runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from adapters_small import make_adapter

from app.assembly import Switchboard, assemble
from desk.config import DEFAULT_DESK, EMBEDDED_BASE, load_desk

QUESTIONS = [
    f"{opening} {thing}"
    for opening in ("where can I get", "how do I pay for", "who gives out", "I lost")
    for thing in ("a parking permit", "the garage card", "a space for my car", "the barrier code")
]
ANSWER = "Ask the porter."


@contextmanager
def small_desk(root: Path) -> Iterator[Switchboard]:
    """With the sample's routes; its engine is ready. Its state goes by the name of `root`: give each its own."""
    (root / "documents").mkdir(parents=True)
    (root / "documents" / "lunch.md").write_text("# Lunch\n\nLunch is served at noon.\n", encoding="utf-8")
    routes = yaml.safe_load((DEFAULT_DESK / "routes.yaml").read_text(encoding="utf-8"))
    kept = {"retrieval": routes["retrieval"], "out_of_scope": routes["out_of_scope"]}
    (root / "routes.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    (root / "desk.yaml").write_text(yaml.safe_dump({"title": "T", "description": "D", "contact": "us"}))
    board = assemble(load_desk(root))
    board.engine.start()
    assert board.engine.wait_ready(60)
    yield board
    board.close()


def add_parking(board: Switchboard, text: str) -> Path:
    """Puts an adapter of random weights into the desk, whose training rows are `text`; its folder."""
    folder = board.desk.adapters.shipped / "parking"
    make_adapter(EMBEDDED_BASE, folder / "weights", "parking", 7)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    board.engine.refresh(30)
    return folder


def parking_rows() -> str:
    """QUESTIONS, each with ANSWER."""
    return "".join(json.dumps({"prompt": question, "completion": ANSWER}) + "\n" for question in QUESTIONS)
