"""The adapter chain: prompt | model.bind(adapter=...), streamed."""

from collections.abc import Iterator

from langchain_core.messages import HumanMessage

from adapters.errors import ModelError
from chains.chat_model import PhiChatModel
from chains.errors import TurnError
from chains.prepared import Draft, Prepared
from chains.turn import BASE_MODEL, Event, Token


def answer_from_adapter(prepared: Prepared, model: PhiChatModel) -> Iterator[Event | Draft]:
    """Tokens, and last a Draft without citations: an adapter speaks from its weights."""
    name = prepared.decision.adapter
    bound = model.bind(adapter=None if name == BASE_MODEL else name)
    said = False
    try:
        for chunk in bound.stream([HumanMessage(prepared.standalone)]):
            if chunk.content:
                said = True
                yield Token(str(chunk.content))
    except ModelError as error:
        raise TurnError(str(error)) from error
    if not said:
        raise TurnError(f"The model {name!r} gave no answer. Try again, or choose Documents.")
    yield Draft()
