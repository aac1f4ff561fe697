"""Golden turns: what a desk's owner says is right. Read here; scored in `evaluation`."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from chains.turn import Exchange, Route
from desk.errors import DeskError


class _Edge(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GoldenExchange(_Edge):
    question: str
    answer: str


class GoldenPassage(_Edge):
    """A place that answers: the document's path in the desk, and words that stand there."""

    document: str
    quote: str


class GoldenPart(_Edge):
    """One intent of a message with several: what answers it, in the order of the message."""

    route: Route
    adapter: str | None = None
    workflow: str | None = None
    passages: tuple[GoldenPassage, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()
    refused: bool = False


class GoldenTurn(_Edge):
    """`facts` is a list of groups; of each group one alternative must occur in a right answer.

    `follow_up` says of a turn with a history whether it can only be understood with it. A message with several intents
    has `parts`; `route`, `adapter` and `workflow` are then those of the first, `passages` and `facts` all of them.
    `older` are places that contradict `passages` and no longer hold: a right answer shows the contradiction.
    """

    id: str
    question: str
    history: tuple[GoldenExchange, ...] = ()
    follow_up: bool = True
    route: Route
    adapter: str | None = None
    workflow: str | None = None
    passages: tuple[GoldenPassage, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()
    refused: bool = False
    parts: tuple[GoldenPart, ...] = ()
    older: tuple[GoldenPassage, ...] = ()

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        return tuple(Exchange(past.question, past.answer) for past in self.history)


def read_golden(path: Path) -> list[GoldenTurn]:
    """The golden turns of a file. Raises DeskError naming file, line and fault."""
    turns = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            turns.append(GoldenTurn.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            first = str(error).replace("\n", " ")[:300]
            raise DeskError(f"{path}, line {number}: not a golden turn: {first}") from None
    return turns
