"""A message with several intents becomes parts that are prepared each by itself. Needs no model that can read."""

from collections.abc import Callable
from dataclasses import replace

from chains.clock import Clock
from chains.intents import MOST_ALIKE, MOST_PARTS, Piece, asks, joined, names_a_subject, pieces, stands_alone
from chains.parts import Planned, quoted
from chains.prepared import Prepared
from chains.turn import Route, Turn

CLEARLY_OUTSIDE = 0.8
"""Probability from which a piece that is out of scope is refused by itself, beside one that is answered."""


def split(turn: Turn, prepare: Callable[[Turn], tuple[Prepared, Clock]]) -> list[Planned]:
    """The parts of a message with several intents; [] for a message with one.

    Two neighbours are parted when the second can be understood alone, both can be answered, and they are about
    different things. A chosen adapter gets the whole message; chosen documents are asked for each part.
    """
    chosen = turn.adapter or turn.workflow
    cut = pieces(turn.question) if chosen is None and turn.route in (None, Route.RETRIEVAL) else ()
    if not cut:
        return []
    known: dict[Piece, tuple[Prepared, Clock]] = {}

    def prepared(piece: Piece) -> Prepared:
        if piece not in known:
            # What opens the message may lean on the conversation; what follows stands alone.
            history = turn.history if piece.start == cut[0].start else ()
            known[piece] = prepare(replace(turn, question=piece.text, history=history))
        return known[piece][0]

    parts = [cut[0]]
    for piece in cut[1:]:
        first = parts[-1]
        if (
            names_a_subject(first.text)
            and stands_alone(piece.text)
            and _differ(prepared(first), prepared(piece), piece.added)
        ):
            parts.append(piece)
        else:
            parts[-1] = joined(turn.question, first, piece)
    if not 1 < len(parts) <= MOST_PARTS or all(prepared(part).decision.route is Route.NONE for part in parts):
        return []
    return [Planned(quoted(part.text), prepared(part), known[part][1]) for part in parts]


def _differ(first: Prepared, second: Prepared, added: bool) -> bool:
    """Whether two pieces can be answered each by itself, are about different things and find different documents."""
    if not (_stands(first, added) and _stands(second, added)):
        return False
    if float(first.vector @ second.vector) >= MOST_ALIKE:
        return False
    if first.decision.route is second.decision.route is Route.RETRIEVAL:
        return first.found.hits[0].passage.document_id != second.found.hits[0].passage.document_id
    # Two faults told in a row are mostly signs of one.
    same = first.decision.adapter == second.decision.adapter
    return added or not same or (asks(first.turn.question) and asks(second.turn.question))


def _stands(part: Prepared, added: bool) -> bool:
    """Whether a piece has a route of its own: a question, a fault that an adapter knows, or clearly nothing of ours."""
    decision = part.decision
    if decision.route is Route.RETRIEVAL:
        return bool(part.found.hits) and (added or asks(part.turn.question))
    if decision.route is Route.NONE:
        return decision.probabilities[Route.NONE] >= CLEARLY_OUTSIDE and asks(part.turn.question)
    return decision.route is Route.ADAPTER
