"""The models' HTTP service, asked by OpenAI's own client."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from adapters_small import make_adapter, make_base, make_settings
from fakes import in_a_thread

from adapters.__main__ import main
from adapters.answer import Sampling
from adapters.engine import Engine, Message
from adapters.service import build_service

KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root = tmp_path_factory.mktemp("service")
    make_base(root / "base", window=2048)
    for seed, name in enumerate(("red", "blue")):
        make_adapter(root / "base", root / "shipped" / name / "weights", name, seed)
    return Engine(make_settings(root, rows=2))


@pytest.fixture(scope="module")
def address(engine: Engine) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_service(engine, KEY), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    assert engine.wait_ready(60)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=30)


def asked(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


def direct(engine: Engine, question: str, adapter: str | None, **sampling: Any) -> str:
    return "".join(engine.stream([Message("user", question)], adapter, Sampling(**sampling)))


def test_the_models_are_the_base_and_its_adapters(engine: Engine, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [engine.base.name, "blue", "red"]


@pytest.mark.parametrize("name", ["red", "blue", None])
def test_whole_and_streamed_answers_are_the_engines_own(
    engine: Engine, client: openai.OpenAI, name: str | None
) -> None:
    wanted = direct(engine, "My screen flickers", name, max_tokens=12)
    model = name or engine.base.name
    whole = client.chat.completions.create(
        model=model, messages=asked("My screen flickers"), max_tokens=12, logprobs=True
    )
    assert whole.choices[0].message.content == wanted and whole.usage is not None
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.content)  # type: ignore[union-attr, arg-type]
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=asked("My screen flickers"),
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == wanted
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_messages_in_parts_a_system_message_and_stop_strings_are_understood(
    engine: Engine, client: openai.OpenAI
) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "My "}, {"type": "text", "text": "screen"}]},
    ]
    plain = [Message("system", "Be brief."), Message("user", "My screen")]
    wanted = "".join(engine.stream(plain, "red", Sampling(max_tokens=20)))
    got = client.chat.completions.create(model="red", messages=messages, max_completion_tokens=20)
    assert got.choices[0].message.content == wanted
    cut = client.chat.completions.create(model="red", messages=messages, max_tokens=20, stop=[wanted[3:6]])
    assert cut.choices[0].message.content == wanted[: wanted.index(wanted[3:6])]


def test_a_schema_is_obeyed_over_http(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"level": {"enum": ["P1", "P2"]}}, "required": ["level"],
              "additionalProperties": False}  # fmt: skip
    got = client.chat.completions.create(
        model="red",
        messages=asked("ticket"),
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "ticket", "schema": schema}},  # type: ignore[misc]
    )
    assert json.loads(got.choices[0].message.content or "")["level"] in ("P1", "P2")


def test_faults_are_told_as_the_client_expects_them(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no adapter 'pink'; known: blue, red"):
        client.chat.completions.create(model="pink", messages=asked("hello"))
    with pytest.raises(openai.BadRequestError, match="temperature is 9"):
        client.chat.completions.create(model="red", messages=asked("hello"), temperature=9)
    with pytest.raises(openai.BadRequestError, match="tools: Extra inputs are not permitted"):
        client.chat.completions.create(model="red", messages=asked("hello"), tools=[])
    with pytest.raises(openai.BadRequestError, match="n: Input should be 1"):
        client.chat.completions.create(model="red", messages=asked("hello"), n=2)
    with pytest.raises(openai.BadRequestError, match="JSON schema cannot be"):
        client.chat.completions.create(
            model="red",
            messages=asked("hello"),
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}},  # type: ignore[typeddict-item]
        )
    with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
        openai.OpenAI(base_url=f"{address}/v1", api_key="other").models.list()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    for body in (b"{", b"[]", b'{"model": "red", "messages": []}', b"\xff\xfe"):
        answer = httpx.post(f"{address}/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    chunked = httpx.post(f"{address}/v1/chat/completions", content=iter([b"{}"]), headers=headers)
    assert chunked.status_code == 411
    assert httpx.post(f"{address}/v1/chat/completions", content=b" " * 4_000_001, headers=headers).status_code == 413


def test_a_client_that_goes_away_frees_its_row(engine: Engine, client: openai.OpenAI) -> None:
    kept = [
        client.chat.completions.create(model="blue", messages=asked("Which agreement?"), max_tokens=5000, stream=True)
        for _ in range(2)
    ]  # both places are taken
    for stream in kept:
        next(iter(stream))
    at = engine.steps
    waiting = threading.Thread(target=lambda: direct(engine, "hello", "red", max_tokens=2, deadline_s=20))
    waiting.start()
    kept[0].close()
    waiting.join(60)
    assert not waiting.is_alive() and engine.steps - at < 300, "it waited for an answer that nobody reads"
    kept[1].close()
    end = time.monotonic() + 20
    while True:
        before = engine.steps
        time.sleep(0.3)
        if engine.steps == before:
            break
        assert time.monotonic() < end, "the vanished clients' rows are decoded still"


def test_many_clients_share_the_model_and_get_their_own_adapters(engine: Engine, address: str) -> None:
    import asyncio

    questions = [f"question {n}" for n in range(6)]
    wanted = {(q, a): direct(engine, q, a, max_tokens=10) for q in questions for a in ("red", "blue")}

    async def ask(client: openai.AsyncOpenAI, question: str, adapter: str) -> None:
        got = await client.chat.completions.create(model=adapter, messages=asked(question), max_tokens=10)
        assert got.choices[0].message.content == wanted[question, adapter]

    async def all_at_once() -> None:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as many:
            await asyncio.gather(*(ask(many, question, adapter) for question, adapter in wanted))

    in_a_thread(all_at_once())


def test_an_open_address_without_a_key_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWITCHBOARD_MODELS_KEY", raising=False)
    assert main(["serve", "--host", "0.0.0.0"]) == 1
    assert "put a key into SWITCHBOARD_MODELS_KEY" in capsys.readouterr().err
