"""Fits the router to a desk as it is now: routes, adapters' questions, golden turns, what was learned."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.dataset import read_examples
from adapters.errors import DatasetError
from chains.engines import AnyEngine
from chains.first_stage import RouterInput
from chains.golden import GoldenTurn, read_golden
from chains.learned import FILE, Learned, read_learned
from chains.router import GoldenRoute, Router
from chains.utterances import Utterances, Vectors, cached_vectors, gather_utterances
from chains.workflow import look_up
from desk.settings import ChainSettings
from index.document import NO_GROUPS
from index.embed import Embedder
from index.library import Library

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a router is fitted on that can change while the program runs: (adapter, version), and what was learned."""

    adapters: tuple[tuple[str, int], ...]
    learned: tuple[Learned, ...]


def grounds(settings: ChainSettings, engine: AnyEngine) -> Grounds:
    """The grounds as they are now. Raises DeskError where what was learned cannot be read."""
    adapters = tuple((info.name, info.version) for info in engine.adapters if "chat" in info.capabilities)
    return Grounds(adapters, read_learned(settings.state / FILE))


def fit_router(settings: ChainSettings, library: Library, embedder: Embedder, on: Grounds) -> Router:
    """A router for the desk, on these grounds.

    What no route, adapter or workflow of the desk bears any more is left out.
    """
    questions = {name: _questions(settings.adapter_folder / name / "train.jsonl") for name, _ in on.adapters}
    utterances = gather_utterances(settings, questions)
    vectors = cached_vectors(utterances.texts, embedder.embed_queries, embedder.name, settings.state)
    if more := [one for one in on.learned if one.label in utterances.labels]:
        texts, labels = tuple(one.text for one in more), tuple(one.label for one in more)
        utterances = Utterances(utterances.texts + texts, utterances.labels + labels)
        vectors = np.vstack([vectors, embedder.embed_queries(texts)])
    titles = {name: workflow.title for name, workflow in settings.workflows.items()}
    router = Router(utterances, vectors, titles, settings.routing, settings.state)
    readable = library.readable(NO_GROUPS)

    def given(text: str, vector: Vectors) -> RouterInput:
        return RouterInput(vector, *look_up(library, embedder.embed_queries, text, vector, settings.passages, readable))

    golden = fitting_turns(settings.golden_dev)
    asked = [turn.question.strip() for turn in golden]
    folder = settings.state / "golden"
    asked_vectors = cached_vectors(asked, embedder.embed_queries, embedder.name, folder) if golden else ()
    router.fit_evidence(
        [
            GoldenRoute(given(text, vector), turn.route)
            for turn, text, vector in zip(golden, asked, asked_vectors, strict=True)
        ],
        lambda place: given(utterances.texts[place], vectors[place]),
    )
    return router


def fitting_turns(path: Path) -> list[GoldenTurn]:
    """The golden turns that the router is fitted on: with one intent, and complete as they stand. [] without a file."""
    return [turn for turn in read_golden(path) if not turn.history and not turn.parts] if path.exists() else []


def _questions(path: Path) -> tuple[str, ...]:
    """An adapter's training questions; () where they cannot be read: it can then be chosen, and nothing goes to it."""
    try:
        return tuple(row.prompt for row in read_examples(path))
    except DatasetError as error:
        _LOG.warning("no message is routed to %s by itself: %s", path.parent.name, error)
        return ()
