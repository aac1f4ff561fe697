"""Which engine answers: the one in this process, or a server that speaks OpenAI's chat completions."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from langchain_core.language_models import BaseChatModel

from adapters.config import BaseManifest
from adapters.engine import Engine, Message
from adapters.registry import AdapterInfo
from chains.chat_model import PhiChatModel
from desk.settings import AdapterSettings


class AnyEngine(Protocol):
    """What chains and app use of an engine. `adapters` can be asked for; `failures` says why others cannot."""

    @property
    def base(self) -> BaseManifest: ...

    @property
    def adapters(self) -> tuple[AdapterInfo, ...]: ...

    @property
    def failures(self) -> tuple[str, ...]: ...

    def start(self) -> None:
        """Makes it ready to answer, in the background."""

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Whether it can answer within `timeout_s`. Raises ModelError where it will not."""

    def fill(
        self, messages: Sequence[Message], adapter: str, choices: Mapping[str, Sequence[str]], *, user: str = ""
    ) -> dict[str, str]:
        """A value for every field, in order, each one of the field's choices."""

    def refresh(self, wait_s: float = 0.0) -> None:
        """Takes up which adapters there are now; waits for it at most so long."""

    def close(self) -> None:
        """Ends it; whoever waits gets an EngineError."""


def open_engine(settings: AdapterSettings) -> AnyEngine:
    """The desk's engine, which does not answer before `start`. A server that is away is told of in `failures`."""
    if settings.server is None:
        return Engine(settings)
    from chains.openai_engine import OpenAIEngine  # its client takes over a second to import

    return OpenAIEngine(settings, settings.server)


def chat_model(engine: AnyEngine, answer_s: float | None = None) -> BaseChatModel:
    """The engine as a chat model, the same to ask whichever it is; an answer may take `answer_s`."""
    if isinstance(engine, Engine):
        return PhiChatModel(engine=engine, answer_s=answer_s)
    from chains.openai_chat import served_chat_model
    from chains.openai_engine import OpenAIEngine

    assert isinstance(engine, OpenAIEngine), f"no chat model for {type(engine).__name__}"
    return served_chat_model(engine, answer_s)
