"""Answers that stand one after the other in one text, each under its heading."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from chains.clock import PREPARING, Clock
from chains.prepared import Prepared
from chains.retrieval import say
from chains.turn import Answer, Citation, Cited, Event, Part


@dataclass(frozen=True, slots=True)
class Planned:
    """A part that is still to be answered; `clock` has its times so far."""

    heading: str
    prepared: Prepared
    clock: Clock


Respond = Callable[[Prepared, Clock], Generator[Event, None, Answer]]
"""The events of one part, and its answer."""


def in_parts(
    standalone: str, parts: Sequence[Planned], respond: Respond, clock: Clock
) -> Generator[Event, None, Answer]:
    """The parts' events one after the other, each part's text under its heading, and one answer of all."""
    length, numbers, answers = 0, dict[str, int](), list[Answer]()
    for number, part in enumerate(parts, 1):
        yield Part(number, len(parts), part.heading)
        head = _opening(part.heading, first=number == 1)
        clock.first_token()
        yield from say(head)
        length += len(head)
        answer = yield from _placed(respond(part.prepared, part.clock), length, numbers)
        citations = tuple(moved(citation, 0, _number(citation, numbers)) for citation in answer.citations)
        answers.append(replace(answer, citations=citations, heading=part.heading))
        length += len(answer.text)
    for step in PREPARING:
        if any(step in part.clock.timings_ms for part in parts):
            clock.timings_ms[step] = sum(part.clock.timings_ms.get(step, 0.0) for part in parts)
    clock.since_start("total")
    return _together(standalone, answers, clock.timings_ms)


def _number(citation: Citation, numbers: dict[str, int]) -> int:
    """The number of a citation's passage, which is the same in all parts."""
    return numbers.setdefault(citation.passage, len(numbers) + 1)


def _placed(
    response: Generator[Event, None, Answer], offset: int, numbers: dict[str, int]
) -> Generator[Event, None, Answer]:
    """The response with its citations moved to where its text stands."""
    try:
        while True:
            event = next(response)
            if isinstance(event, Cited):
                event = Cited(moved(event.citation, offset, _number(event.citation, numbers)))
            yield event
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        response.close()


def quoted(piece: str) -> str:
    """The heading of an answer to a piece of a message: that piece, as typed."""
    return f"“{' '.join(piece.split())}”"


def _opening(heading: str, first: bool) -> str:
    """What stands in the text before the answer to a part."""
    return f"{'' if first else _BETWEEN}{heading}{_BETWEEN}"


_BETWEEN = "\n\n"


def moved(citation: Citation, offset: int, number: int | None = None) -> Citation:
    """The citation in a text that its own begins `offset` code points into, with another number if one is given."""
    return replace(
        citation,
        number=citation.number if number is None else number,
        answer_start=citation.answer_start + offset,
        answer_end=citation.answer_end + offset,
    )


def _together(standalone: str, parts: Sequence[Answer], timings_ms: Mapping[str, float]) -> Answer:
    """One answer with the parts' texts under their headings. The route is that of the first part."""
    text = ""
    citations: list[Citation] = []
    unsupported: list[tuple[int, int]] = []
    for part in parts:
        text += _opening(part.heading, not text)
        citations += [moved(citation, len(text)) for citation in part.citations]
        unsupported += [(start + len(text), end + len(text)) for start, end in part.unsupported]
        text += part.text
    related = {one.document_id: one for part in parts for one in part.related}
    return Answer(
        standalone=standalone,
        decision=parts[0].decision,
        text=text,
        refused=all(part.refused for part in parts),
        citations=tuple(citations),
        fields=next((part.fields for part in parts if part.fields is not None), None),
        unsupported=tuple(unsupported),
        timings_ms=timings_ms,
        related=tuple(related.values()),
        parts=tuple(parts),
    )
