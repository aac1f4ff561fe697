"""The engine as an OpenAI-compatible HTTP service, so that several programs share one model.

An adapter is a model name; the base goes by its own name. What the protocol has and this service has not (tools,
several answers, penalties) is refused in words, never ignored.
"""

import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from adapters.answer import Sampling, Usage
from adapters.engine import Engine, Message, Stream
from adapters.errors import AdapterError, BusyError, EngineError, ModelError, UnavailableError

_Scope = dict[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]

MAX_BODY_BYTES = 4_000_000
MAX_MESSAGES = 1000
ANY_OBJECT = '{"type": "object"}'


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class _ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None

    def plain(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str
    description: str | None = None
    strict: bool | None = None
    body: dict[str, Any] = Field(alias="schema")


class _Format(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat completion as this service takes it; `temperature` is 0 where it is not given."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[_ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Literal[1] = 1
    user: str = ""
    logprobs: bool = False
    response_format: _Format | None = None

    def sampling(self, deadline_s: float | None) -> Sampling:
        """Raises EngineError for values that make no sense."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        schema = None
        if self.response_format and self.response_format.type == "json_object":
            schema = ANY_OBJECT
        elif self.response_format and self.response_format.type == "json_schema":
            if self.response_format.json_schema is None:
                raise EngineError("response_format names json_schema but holds none.")
            schema = json.dumps(self.response_format.json_schema.body)
        return Sampling(
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(stop),
            deadline_s=deadline_s,
            schema=schema,
        )


def build_service(engine: Engine, key: str = "", deadline_s: float | None = None) -> FastAPI:
    """The ASGI app; it starts and closes the engine. With a `key`, each request has to bring it as a bearer token.

    An answer is cut after `deadline_s`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    service = FastAPI(title="Switchboard models", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    def allowed(authorization: str = Header(default="")) -> None:
        if key and not secrets.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "The key is missing or wrong: send it as `Authorization: Bearer KEY`.")

    @service.get("/healthz")
    def healthz() -> dict[str, object]:
        return {"status": "ok" if _is_ready(engine) else "loading"}

    @service.get("/v1/models", dependencies=[Depends(allowed)])
    def models() -> dict[str, object]:
        engine.refresh()
        base = {"id": engine.base.name, "object": "model", "created": 0, "owned_by": "switchboard"}
        own = [
            {**base, "id": info.name, "parent": engine.base.name, "version": info.version} for info in engine.adapters
        ]
        return {"object": "list", "data": [{**base, "max_model_len": engine.base.window}, *own]}

    @service.post("/v1/chat/completions", dependencies=[Depends(allowed)])
    async def complete(asked: ChatRequest, http: Request) -> Response:
        adapter = None if asked.model == engine.base.name else asked.model
        messages = [message.plain() for message in asked.messages]
        stream = engine.stream(messages, adapter, asked.sampling(deadline_s), user=asked.user)
        reply = _Reply(asked, stream)
        if asked.stream:
            return StreamingResponse(reply.events(), media_type="text/event-stream")
        return JSONResponse(await reply.whole(http))

    service.add_middleware(_Bounded)
    _say_errors_as_openai_does(service)
    return service


class _Bounded:
    """Refuses bodies that are too large, or that do not say how large they are, before they are read."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            length = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
            if not length.isdecimal():
                refused = _error(411, "The request does not say how long it is.", "invalid_request_error")
                return await refused(scope, receive, send)
            if int(length) > MAX_BODY_BYTES:
                refused = _error(413, f"The request is larger than {MAX_BODY_BYTES:,} bytes.", "invalid_request_error")
                return await refused(scope, receive, send)
        await self._app(scope, receive, send)


def _is_ready(engine: Engine) -> bool:
    try:
        return engine.wait_ready(0)
    except ModelError:
        return False


class _Reply:
    """One answer in the protocol's two forms."""

    def __init__(self, asked: ChatRequest, stream: Stream) -> None:
        self._asked, self._stream = asked, stream
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": asked.model}

    async def whole(self, http: Request) -> dict[str, Any]:
        text = ""
        try:
            async for piece in self._stream:
                text += piece
                if await http.is_disconnected():
                    break
        finally:
            self._stream.close()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": self._logprobs(self._stream.logprobs),
            "finish_reason": _finish(self._stream.usage),
        }
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(self._stream.usage)}

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events. A client that goes away ends them, and the answer with them."""
        told = 0
        try:
            yield self._event({"role": "assistant", "content": ""})
            async for piece in self._stream:
                logprobs, told = self._stream.logprobs[told:], len(self._stream.logprobs)
                yield self._event({"content": piece}, logprobs)
            yield self._event({}, [], _finish(self._stream.usage))
            if self._asked.stream_options and self._asked.stream_options.include_usage:
                yield _line({**self._head, "object": _CHUNK, "choices": [], "usage": _usage(self._stream.usage)})
            yield "data: [DONE]\n\n"
        except ModelError as error:
            yield _line(_told(str(error), _kind(error)))
        finally:
            self._stream.close()

    def _event(self, delta: dict[str, str], logprobs: Sequence[float] = (), finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": self._logprobs(logprobs), "finish_reason": finish}
        return _line({**self._head, "object": _CHUNK, "choices": [choice]})

    def _logprobs(self, values: Sequence[float]) -> dict[str, Any] | None:
        """Without the tokens' texts: a token need not be whole characters, and nobody here needs them."""
        if not self._asked.logprobs:
            return None
        return {"content": [{"token": "", "logprob": value, "bytes": None, "top_logprobs": []} for value in values]}


_CHUNK = "chat.completion.chunk"


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _finish(usage: Usage | None) -> str:
    return "length" if usage is None or usage.finish != "stop" else "stop"


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "switchboard": {
            "adapter": usage.adapter,
            "finish": usage.finish,
            "queued_s": round(usage.queued_s, 4),
            "prefill_s": round(usage.prefill_s, 4),
            "first_token_s": round(usage.first_token_s, 4),
            "tokens_per_s": round(usage.tokens_per_s, 2),
        },
    }


def _told(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(_told(message, kind), status, headers)


def _kind(error: ModelError) -> str:
    return _KINDS[_status(error)]


def _status(error: ModelError) -> int:
    match error:
        case AdapterError():
            return 404
        case BusyError():
            return 429
        case UnavailableError():
            return 503
        case EngineError():
            return 400
        case _:
            return 500


_KINDS = {
    400: "invalid_request_error",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_error",
}


def _say_errors_as_openai_does(service: FastAPI) -> None:
    @service.exception_handler(ModelError)
    async def failed(_: Request, error: ModelError) -> Response:
        headers = {"Retry-After": "1"} if isinstance(error, BusyError | UnavailableError) else None
        return _error(_status(error), str(error), _kind(error), headers)

    @service.exception_handler(404)
    @service.exception_handler(405)
    async def nothing_here(_: Request, error: Exception) -> Response:
        detail = getattr(error, "detail", "There is nothing here.")
        return _error(getattr(error, "status_code", 404), str(detail), "invalid_request_error")

    @service.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), "invalid_request_error")

    @service.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        return _error(400, f"{faults}.", "invalid_request_error")
