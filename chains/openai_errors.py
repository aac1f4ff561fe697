"""What a model server's faults are called: one sentence each, of what happened, where, and what to do. Never a key."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import openai

from adapters.errors import EngineError, ModelError
from chains.chat_model import too_late
from chains.errors import ServerError

_LOG = logging.getLogger("switchboard.engine")
_SHOWN = 200
"""Characters of a server's own words that an error quotes."""
_TOO_LONG = ("context length", "context_length_exceeded", "context window")
"""What servers say of a prompt that the model cannot hold."""


@dataclass(frozen=True, slots=True)
class Place:
    """A model server: its address, and the key it is sent, to be kept out of every sentence."""

    url: str
    key: str = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def fault(self, what: str, advice: str) -> ServerError:
        return ServerError(f"The model server {self.host} {what}: {advice}.")

    def quoted(self, text: str) -> str:
        """The start of what the server said, on one line, without the key, should it repeat it."""
        hidden = text.replace(self.key, "***") if self.key else text
        return repr(" ".join(hidden.split())[:_SHOWN])


@contextlib.contextmanager
def in_words(place: Place, model: str, limit_s: float | None) -> Iterator[None]:
    """Whatever the client raises, as an EngineError; `limit_s` is what the request could take."""
    try:
        yield
    except ModelError:
        raise
    except openai.APIStatusError as error:
        raise _refused(place, model, error) from None
    except openai.APITimeoutError as error:
        if _cause(error) == "ConnectTimeout":
            raise _away(place, "ConnectTimeout") from None
        raise too_late(limit_s) from None
    except openai.APIConnectionError as error:
        cause = _cause(error)
        if cause in ("RemoteProtocolError", "ReadError"):
            raise broken_off(place, cause) from None
        raise _away(place, cause) from None
    except openai.APIError as error:
        raise _told(place, error) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # The client reads what it gets without checking it: this is what comes of another form.
        _LOG.debug("no chat completion", exc_info=True)
        raise no_completion(place, type(error).__name__) from None


def _cause(error: openai.OpenAIError) -> str:
    """The name of what went wrong below the client; langchain-openai wraps the client's error once more."""
    cause: BaseException = error
    while isinstance(cause, openai.OpenAIError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return type(cause).__name__


def _away(place: Place, cause: str) -> ServerError:
    return place.fault(f"cannot be reached ({cause})", "start it, or correct models.url in desk.yaml")


def broken_off(place: Place, how: str) -> ServerError:
    """The error of an answer that has no end."""
    return place.fault(f"broke off its answer ({how})", "see its log, and ask again")


def no_completion(place: Place, how: str) -> ServerError:
    """The error of a reply in no form that the protocol has."""
    fault = f"answered what is no chat completion ({how})"
    return place.fault(fault, "check that models.url is the address before /chat/completions")


def _refused(place: Place, model: str, error: openai.APIStatusError) -> EngineError:
    """What a status other than 200 means."""
    status, said = error.status_code, place.quoted(error.response.text)
    if status in (401, 403):  # what it says may repeat the key
        if place.key:
            return place.fault(f"refused the key (status {status})", "check the variable that models.api_key_env names")
        return place.fault(f"asks for a key (status {status})", "name its variable in models.api_key_env")
    if status == 404:
        return place.fault(
            f"has no model {model!r} or no such address (status 404: {said})",
            "load the model there, or correct models.base and models.url",
        )
    if status == 429:
        return _busy()
    if status < 500 and any(words in error.response.text.lower() for words in _TOO_LONG):
        return EngineError(f"The message is too long for the model {model}: shorten it.")
    if status < 500:
        return place.fault(f"declined the request (status {status}: {said})", "check the group models of desk.yaml")
    return place.fault(f"is out of order (status {status}: {said})", "see its log, and ask again")


def _told(place: Place, error: openai.APIError) -> EngineError:
    """What an error in the midst of an answer means."""
    if error.code == "rate_limit_exceeded":
        return _busy()
    return place.fault(f"broke off its answer ({place.quoted(error.message)})", "see its log, and ask again")


def _busy() -> EngineError:
    return EngineError("Everybody is busy: the model takes no more requests just now. Try again in a moment.")
