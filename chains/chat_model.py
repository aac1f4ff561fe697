"""The engine as a LangChain chat model: streaming, cancel by closing the stream, `.bind(adapter=...)`.

Each chunk has the log-probabilities of its tokens in `response_metadata["logprobs"]`; the last tells what it all took.
What a call may ask for (`Wanted`) is the same for an engine that is a server (openai_chat.py).
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict

from adapters.engine import Engine, Message, Sampling, Stream, Usage
from adapters.errors import EngineError

Schema = dict[str, Any] | type
"""A JSON schema, or a pydantic model."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one call asks for, and for whom."""

    adapter: str | None
    user: str
    sampling: Sampling


def wanted(stop: list[str] | None, given: Mapping[str, Any], answer_s: float | None) -> Wanted:
    """What a call's keywords ask for. Raises ValueError for keywords that are not known, EngineError for bad values."""
    known = {"adapter", "user", "max_tokens", "temperature", "top_p", "seed", "deadline_s", "schema"}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"Not supported here: {', '.join(unknown)}. Known keywords: stop, {', '.join(sorted(known))}.")
    schema = given.get("schema")
    return Wanted(
        adapter=given.get("adapter"),
        user=given.get("user", ""),
        sampling=Sampling(
            max_tokens=given.get("max_tokens"),
            temperature=given.get("temperature", 0.0),
            top_p=given.get("top_p", 1.0),
            seed=given.get("seed"),
            stop=tuple(stop or ()),
            deadline_s=given.get("deadline_s", answer_s),
            schema=None if schema is None else json.dumps(schema),
        ),
    )


def too_late(limit_s: float | None) -> EngineError:
    """The error of an answer that is cut at its deadline."""
    return EngineError(f"The answer took longer than {limit_s:g} s and ends here: ask again, or ask for less.")


class StreamedChatModel(BaseChatModel):
    """What both engines' chat models share: whole answers are streamed ones, and schemas are the only tools."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def with_structured_output(
        self, schema: Schema, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        return structured(self, schema, include_raw, kwargs)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        raise NotImplementedError("Tools are not supported here: ask for fields with with_structured_output(schema).")


class PhiChatModel(StreamedChatModel):
    """Chat with the base model, or with one of its adapters: `model.bind(adapter="it-support")`.

    An answer may take `answer_s` unless a call says otherwise; one that takes longer raises EngineError.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    engine: Engine
    answer_s: float | None = None

    @property
    def _llm_type(self) -> str:
        return "switchboard-phi"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = wanted(stop, kwargs, self.answer_s)
        pieces, told = self._ask(messages, asked), 0
        try:
            for piece in pieces:
                chunk, told = _chunk(piece, pieces, told)
                if run_manager:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield _last(pieces, told, asked)
        finally:
            pieces.close()  # frees the engine

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = wanted(stop, kwargs, self.answer_s)
        pieces, told = self._ask(messages, asked), 0
        try:
            async for piece in pieces:
                chunk, told = _chunk(piece, pieces, told)
                if run_manager:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
            yield _last(pieces, told, asked)
        finally:
            pieces.close()  # frees the engine, also when the task is cancelled while it waits

    def _ask(self, messages: list[BaseMessage], asked: Wanted) -> Stream:
        return self.engine.stream([to_message(m) for m in messages], asked.adapter, asked.sampling, user=asked.user)


def _chunk(piece: str, pieces: Stream, told: int) -> tuple[ChatGenerationChunk, int]:
    """The piece with the log-probabilities that are not told yet, and how many are told then."""
    metadata = {"logprobs": pieces.logprobs[told:]}
    return ChatGenerationChunk(message=AIMessageChunk(content=piece, response_metadata=metadata)), len(pieces.logprobs)


def _last(pieces: Stream, told: int, asked: Wanted) -> ChatGenerationChunk:
    """What the answer took. Raises EngineError for one that was cut at its deadline."""
    usage = pieces.usage
    if usage is None:
        raise EngineError("The answer ended early: the engine has let it go.")
    if usage.finish == "deadline":
        raise too_late(asked.sampling.deadline_s)
    metadata = {"logprobs": pieces.logprobs[told:], "finish_reason": usage.finish, "adapter": usage.adapter}
    return ChatGenerationChunk(
        message=AIMessageChunk(content="", response_metadata=metadata, usage_metadata=_tokens(usage))
    )


def _tokens(usage: Usage) -> Any:
    total = usage.prompt_tokens + usage.completion_tokens
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens, "total_tokens": total}


def token_logprobs(message: BaseMessage) -> list[float]:
    """The log-probabilities of a message's tokens, in our form or in OpenAI's; [] where none are told."""
    told = message.response_metadata.get("logprobs")
    if isinstance(told, dict):
        told = [token.get("logprob") for token in told.get("content") or ()]
    return [float(value) for value in told or () if value is not None]


def structured(
    model: BaseChatModel, schema: Schema, include_raw: bool, more: Mapping[str, Any]
) -> Runnable[LanguageModelInput, Any]:
    """The model, held to a schema and read by it: dictionaries for a JSON schema, else objects of the class."""
    if include_raw or more:
        raise ValueError(f"Not supported here: {', '.join(['include_raw'] * include_raw + sorted(more))}.")
    if isinstance(schema, dict):
        return model.bind(schema=schema) | JsonOutputParser()
    if not issubclass(schema, BaseModel):
        raise ValueError(f"{schema.__name__} is no schema: give a JSON schema, or a pydantic model.")
    return model.bind(schema=schema.model_json_schema()) | PydanticOutputParser(pydantic_object=schema)


CONTEXT = "context"


def to_message(message: BaseMessage) -> Message:
    """The engine's form of a LangChain message; its `additional_kwargs[CONTEXT]` are passages that stand before it.

    Raises ValueError for content that is not text.
    """
    if not isinstance(message.content, str):
        raise ValueError("Only text messages are supported.")
    if isinstance(message, SystemMessage):
        return Message("system", message.content)
    if isinstance(message, HumanMessage):
        return Message("user", message.content, tuple(message.additional_kwargs.get(CONTEXT, ())))
    return Message("assistant", message.content)
