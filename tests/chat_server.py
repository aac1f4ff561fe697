"""A real server that speaks OpenAI's chat completions, whose next replies a test chooses; and a way to run any app."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

KEY = "sk-very-secret-0123456789"
Reply = Callable[[dict[str, Any]], Response]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(app: Any, port: int) -> Iterator[None]:
    """The app, served at that port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    assert server.started, "the server did not start within 30 s"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@dataclass
class ChatServer:
    """What it lists, what it was asked, how it replies next (`script`), and whether a client left before the end."""

    port: int = field(default_factory=free_port)
    models: list[str] = field(default_factory=list)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    key: str = KEY
    texts: dict[str, str] = field(default_factory=dict)
    logprob: float = -0.01
    listing: Response | None = None
    script: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextlib.contextmanager
    def up(self) -> Iterator["ChatServer"]:
        with running(self.app(), self.port):
            yield self

    def app(self) -> FastAPI:
        app = FastAPI()

        def refused(request: Request) -> Response | None:
            self.headers.append(dict(request.headers))
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return says(401, f"wrong key: {request.headers.get('authorization')}")({})
            return None

        @app.get("/v1/models")
        def models(request: Request) -> Response:
            rows = [{"id": name, "object": "model", **self.told.get(name, {})} for name in self.models]
            return refused(request) or self.listing or JSONResponse({"object": "list", "data": rows})

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            if no := refused(request):
                return no
            self.bodies.append(body)
            if self.script:
                return self.script.pop(0)(body)
            if body["model"] not in self.models:
                return says(404, f"The model {body['model']} does not exist.")(body)
            return self.answer(body)

        return app

    def answer(self, body: dict[str, Any]) -> Response:
        """A right reply: the text that the model has, word by word, each a token."""
        text = self.texts.get(body["model"], "Nothing.")
        if not body.get("stream"):
            return whole(text)(body)
        return self.streamed(words(text, self.logprob if body.get("logprobs") else None))

    def streamed(self, lines: list[str], pause_s: float = 0.0) -> StreamingResponse:
        """Events one after the other; `left` is set where the client goes before the last."""

        async def events() -> AsyncIterator[str]:
            done = False
            try:
                for line in lines:
                    yield line
                    await asyncio.sleep(pause_s)
                done = True
            finally:
                if not done:
                    self.left.set()

        return StreamingResponse(events(), media_type="text/event-stream")


def says(status: int, text: str, kind: str = "application/json") -> Reply:
    """A reply of that status, with an error in OpenAI's form, or of another kind as it is."""
    body = json.dumps({"error": {"message": text, "type": "x", "code": None}}) if kind == "application/json" else text
    return lambda _: Response(body, status, media_type=kind)


def whole(text: str | None) -> Reply:
    """A completion that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return lambda body: JSONResponse(
        {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    )


def event(delta: dict[str, Any], finish: str | None = None, logprob: float | None = None) -> str:
    told = {"content": [{"token": "", "logprob": logprob, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None if logprob is None else told}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


def words(text: str, logprob: float | None = None) -> list[str]:
    """The events of a streamed answer, with its usage."""
    pieces = [word + " " for word in text.split(" ")]
    pieces[-1] = pieces[-1][:-1]
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
    end = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": piece}, logprob=logprob) for piece in pieces),
        event({}, "stop"),
        f"data: {json.dumps(end)}\n\n",
        "data: [DONE]\n\n",
    ]
