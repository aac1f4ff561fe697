"""The engine as a LangChain chat model: streaming, cancel by closing the stream, `.bind(adapter=...)`.

Each chunk has the log-probabilities of its tokens in `response_metadata["logprobs"]`.
"""

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict

from adapters.engine import Engine, Message, Sampling


class PhiChatModel(BaseChatModel):
    """Chat with the base model, or with one of its adapters: `model.bind(adapter="it-support")`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    engine: Engine

    @property
    def _llm_type(self) -> str:
        return "switchboard-phi"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = "".join(str(chunk.message.content) for chunk in self._stream(messages, stop, run_manager, **kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        adapter: str | None = None,
        max_tokens: int | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if stop or kwargs:
            raise ValueError(f"Not supported here: {', '.join(['stop'] * bool(stop) + sorted(kwargs))}.")
        told = 0
        pieces = self.engine.stream([to_message(m) for m in messages], adapter, Sampling(max_tokens=max_tokens))
        try:
            for piece in pieces:
                if run_manager:
                    run_manager.on_llm_new_token(piece)
                new, told = pieces.logprobs[told:], len(pieces.logprobs)
                metadata = {"logprobs": new}
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece, response_metadata=metadata))
        finally:
            pieces.close()  # frees the engine


def to_message(message: BaseMessage) -> Message:
    """The engine's form of a LangChain message. Raises ValueError for content that is not text."""
    if not isinstance(message.content, str):
        raise ValueError("Only text messages are supported.")
    if isinstance(message, SystemMessage):
        return Message("system", message.content)
    if isinstance(message, HumanMessage):
        return Message("user", message.content)
    return Message("assistant", message.content)
