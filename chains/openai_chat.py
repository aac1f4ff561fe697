"""A model server as a LangChain chat model: the same to ask as the engine in this process (chat_model.py).

langchain-openai's client for servers that speak OpenAI's protocol (`BaseChatOpenAI`, which asks for `max_tokens`; its
child ChatOpenAI asks for what OpenAI alone understands), with our keywords and our errors.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import ConfigDict, Field, SecretStr

from chains.chat_model import StreamedChatModel, Wanted, to_message, too_late, wanted
from chains.openai_engine import CONNECT_S, OpenAIEngine, sender
from chains.openai_errors import broken_off, in_words, no_completion
from chains.openai_text import harmless


def served_chat_model(engine: OpenAIEngine, answer_s: float | None) -> "ServedChatModel":
    """The chat model of an engine, over the engine's own connections."""
    return ServedChatModel(
        engine=engine,
        answer_s=answer_s,
        model=engine.model,
        api_key=SecretStr("none"),  # the clients below have the key
        base_url=engine.place.url,
        root_client=engine.client,
        client=engine.client.chat.completions,
        root_async_client=engine.async_client,
        async_client=engine.async_client.chat.completions,
        logprobs=True,
        stream_usage=True,
        use_responses_api=False,
        openai_proxy=None,
        stream_chunk_timeout=None,  # the client's own counts
    )


class ServedChatModel(StreamedChatModel, BaseChatOpenAI):  # type: ignore[misc]  # a schema is the only method here
    """Chat with the server's base model, or with one of its adapters: `model.bind(adapter="it-support")`.

    Closing a stream closes its connection, which ends the answer on the server. An answer may take `answer_s` unless a
    call says otherwise.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    engine: OpenAIEngine = Field(exclude=True)
    answer_s: float | None = None

    @property
    def _llm_type(self) -> str:
        return "switchboard-server"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = _Answer(self, messages, wanted(stop, kwargs, self.answer_s))
        with (
            in_words(self.engine.place, answer.model, answer.limit_s),
            closing(super()._stream(answer.messages, stop, run_manager, **answer.payload)) as chunks,  # type: ignore[type-var]
        ):
            for chunk in chunks:
                answer.take(chunk)
                yield chunk
            answer.check_end()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        answer = _Answer(self, messages, wanted(stop, kwargs, self.answer_s))
        with in_words(self.engine.place, answer.model, answer.limit_s):
            async with aclosing(super()._astream(answer.messages, stop, run_manager, **answer.payload)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    answer.take(chunk)
                    yield chunk
                answer.check_end()


class _Answer:
    """One answer on its way: what the server is asked, how long it may take, whether its end has come."""

    def __init__(self, chat: ServedChatModel, messages: list[BaseMessage], asked: Wanted) -> None:
        self.messages = [m.model_copy(update={"content": harmless(to_message(m).text)}) for m in messages]
        self._place = chat.engine.place
        self._began = time.monotonic()
        self._begun = self._ended = False
        self.model = chat.engine.model_of(asked.adapter)
        self.limit_s = asked.sampling.deadline_s
        self.payload = _payload(chat.engine, self.model, asked)

    def take(self, chunk: ChatGenerationChunk) -> None:
        """Notes a piece. Raises EngineError for one that comes too late."""
        self._begun = True
        self._ended |= bool((chunk.generation_info or {}).get("finish_reason"))
        if not self._ended and self.limit_s is not None and time.monotonic() - self._began > self.limit_s:
            raise too_late(self.limit_s)

    def check_end(self) -> None:
        """Raises ServerError if the answer has no end, or was none."""
        if not self._begun:
            raise no_completion(self._place, "no event")
        if not self._ended:
            raise broken_off(self._place, "its end is missing")


def _payload(engine: OpenAIEngine, model: str, asked: Wanted) -> dict[str, Any]:
    """The protocol's words for what a call asks for."""
    sampling = asked.sampling
    payload: dict[str, Any] = {
        "model": model,
        "max_tokens": sampling.max_tokens or engine.answer_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p < 1:
        payload["top_p"] = sampling.top_p
    if sampling.seed is not None:
        payload["seed"] = sampling.seed
    if asked.user:
        payload["user"] = sender(asked.user)
    if sampling.deadline_s is not None:
        payload["timeout"] = openai.Timeout(sampling.deadline_s, connect=min(CONNECT_S, sampling.deadline_s))
    if sampling.schema is not None:
        # In the body alone: given by its name, the client would parse the stream by itself.
        named = {"name": "answer", "strict": True, "schema": json.loads(sampling.schema)}
        payload["extra_body"] = {"response_format": {"type": "json_schema", "json_schema": named}}
    return payload
