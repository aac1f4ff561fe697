"""Whether what came of a golden turn is right: its route, its passages, its facts."""

from collections.abc import Sequence

from chains.golden import GoldenPart, GoldenPassage, GoldenTurn
from chains.turn import Answer, Route
from index.document import ScoredPassage


def flat(text: str) -> str:
    """The text as it is compared: whatever its case and white space."""
    return " ".join(text.split()).casefold()


def route_right(golden: GoldenTurn, route: Route, workflow: str | None) -> bool:
    """Whether a turn went the gold route, to the workflow that it names. Which adapter is a measure of its own."""
    return route is golden.route and golden.workflow in (None, workflow)


def holds_gold(hits: Sequence[ScoredPassage], golden: GoldenTurn) -> bool:
    """Whether one of the hits is a gold passage: its document, and the gold words in its text."""
    return any(_is_place(hit.path, hit.passage.text, golden.passages) for hit in hits)


def holds_facts(answer: Answer | None, golden: GoldenTurn | GoldenPart) -> bool:
    """Whether the answer has one alternative of every fact group."""
    if answer is None or answer.refused:
        return False
    text = flat(answer.text)
    return all(any(flat(alternative) in text for alternative in group) for group in golden.facts)


def cites_gold(answer: Answer | None, golden: GoldenTurn) -> bool:
    """Whether a gold passage is cited."""
    return answer is not None and _cites(answer, golden.passages)


def shows_older(answer: Answer | None, golden: GoldenTurn) -> bool:
    """Whether what holds is told, and what an older document says instead is cited beside it."""
    return answer is not None and holds_facts(answer, golden) and _cites(answer, golden.older)


def _cites(answer: Answer, places: Sequence[GoldenPassage]) -> bool:
    return any(_is_place(citation.document, citation.passage_text, places) for citation in answer.citations)


def _is_place(document: str, text: str, places: Sequence[GoldenPassage]) -> bool:
    return any(document == place.document and flat(place.quote) in flat(text) for place in places)
