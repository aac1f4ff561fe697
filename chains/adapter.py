"""The adapter chain: prompt | model.bind(adapter=...), streamed once the model is sure enough of what it says."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage

from adapters.answer import OPENING_TOKENS, confidence
from chains.chat_model import token_logprobs
from chains.errors import TurnError
from chains.extract import answers
from chains.judge import Judge, Judgement
from chains.parts import moved
from chains.prepared import Draft, Prepared
from chains.prompts import unsure_adapter, unsure_and_nothing
from chains.retrieval import say
from chains.turn import BASE_MODEL, Cited, Event, Route, Routed, Token
from chains.workflow import DRAFT_EVIDENCE

Documents = Callable[[Prepared, Judgement], Iterator[Event | Draft]]


def answer_from_adapter(
    prepared: Prepared,
    model: BaseChatModel,
    least: float | None,
    documents: Documents,
    judge: Judge,
    contact: str,
) -> Iterator[Event | Draft]:
    """Tokens, and last a Draft without citations: an adapter speaks from its weights.

    Nothing is shown before the first tokens say which answer it will be. Where the model is less sure of them than
    `least`, it is stopped there and the documents answer; None, and a choice of the sender's, means never.
    """
    name = prepared.decision.adapter
    bound = model.bind(adapter=None if name == BASE_MODEL else name, user=prepared.turn.user)
    needed = 0.0 if least is None or prepared.decision.forced else least
    said = False
    pieces = _once_sure(bound.stream([HumanMessage(prepared.standalone)]), needed)
    for piece in pieces:
        if piece is None:
            yield from _documents_instead(prepared, str(name), documents, judge, contact)
            return
        said = True
        yield Token(piece)
    if not said:
        raise TurnError(f"The model {name!r} gave no answer. Try again, or choose Documents.")
    yield Draft()


def _once_sure(chunks: Iterator[AIMessage], needed: float) -> Iterator[str | None]:
    """The text from when its first tokens are known to be sure enough; None, and nothing else, where they are not.

    A server that tells no log-probabilities is taken at its word.
    """
    held, logprobs, sure = "", list[float](), needed == 0
    try:
        for chunk in chunks:
            held += str(chunk.content)
            logprobs += token_logprobs(chunk)
            if not sure and len(logprobs) < OPENING_TOKENS and (logprobs or not held):
                continue
            if not sure and logprobs and confidence(logprobs) < needed:
                break
            sure = True
            if held:
                yield held
                held = ""
    finally:
        chunks.close()  # type: ignore[attr-defined]  # a generator: closing it frees the engine
    if not sure and logprobs and confidence(logprobs) < needed:
        yield None
    elif held:
        yield held


def _documents_instead(
    prepared: Prepared, name: str, documents: Documents, judge: Judge, contact: str
) -> Iterator[Event | Draft]:
    """What the documents say where the adapter is not sure; a refusal where they hold nothing close."""
    strong = tuple(hit for hit in prepared.found.hits if hit.evidence >= DRAFT_EVIDENCE)
    reason = f"{name} was not sure enough of its answer"
    decision = replace(prepared.decision, route=Route.RETRIEVAL, adapter=None, reason=reason)
    yield Routed(decision, prepared.standalone)
    about = replace(prepared, decision=decision, found=replace(prepared.found, hits=strong))
    judgement = judge.judge(about.standalone, about.found)
    if not answers(judgement):
        yield from say(unsure_and_nothing(name, contact))
        yield Draft(refused=True)
        return
    opening = unsure_adapter(name)
    yield from say(opening)
    for event in documents(about, judgement):
        match event:
            case Cited(citation=citation):
                yield Cited(moved(citation, len(opening)))
            case Draft(citations=citations, unsupported=unsupported):
                spans = tuple((start + len(opening), end + len(opening)) for start, end in unsupported)
                placed = tuple(moved(citation, len(opening)) for citation in citations)
                yield replace(event, citations=placed, unsupported=spans)
            case _:
                yield event
