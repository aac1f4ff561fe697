"""Both engines are asked alike and answer alike: the one in this process, and the same one behind its HTTP service."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapters_small import make_adapter, make_base, make_settings
from chat_server import KEY, free_port, running
from fakes import in_a_thread
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from pydantic import BaseModel

from adapters.answer import Sampling
from adapters.engine import Engine, Message
from adapters.errors import AdapterError, BusyError, EngineError
from adapters.service import build_service
from chains.chat_model import CONTEXT, to_message, token_logprobs
from chains.engines import AnyEngine, chat_model, open_engine
from chains.openai_text import harmless
from desk.settings import ServerSettings

QUESTION = [HumanMessage("My screen flickers")]
LONG = 100_000
ENDLESS = 1000
"""Tokens that the base writes to the question and more; a test that cancels it sees far fewer steps."""
KINDS = ("local", "server")


@dataclass
class Pair:
    """The engine, and what chains use: itself, or itself behind HTTP."""

    engine: Engine
    used: AnyEngine
    model: BaseChatModel

    def wanted(self, adapter: str | None, **sampling: Any) -> str:
        return "".join(self.engine.stream([Message("user", "My screen flickers")], adapter, Sampling(**sampling)))

    def check_idle(self, since: int) -> None:
        """Fails unless the engine soon has nothing to do, long before the endless answer would be written."""
        until = time.monotonic() + 20
        while True:
            before = self.engine.steps
            time.sleep(0.2)
            if self.engine.steps == before:
                break
            assert time.monotonic() < until, "what nobody waits for is decoded still"
        assert self.engine.steps - since < ENDLESS / 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_base(folder / "base", window=4096)
    for seed, name in enumerate(("red", "blue")):
        make_adapter(folder / "base", folder / "shipped" / name / "weights", name, seed, version=seed + 1)
        text = yaml.safe_dump({"title": name.title(), "domain": f"Things of {name}"})
        (folder / "shipped" / name / "adapter.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def both(root: Path) -> Iterator[dict[str, Pair]]:
    """The pairs by kind, over one engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWITCHBOARD_TEST_KEY", KEY)
        engine = Engine(make_settings(root, rows=2))
        port = free_port()
        with running(build_service(engine, KEY), port):
            assert engine.wait_ready(60)
            server = ServerSettings(f"http://127.0.0.1:{port}/v1", "", "SWITCHBOARD_TEST_KEY")
            served = open_engine(make_settings(root, server=server))
            assert served.failures == () and served.wait_ready(5)
            yield {
                "local": Pair(engine, engine, chat_model(engine, 60)),
                "server": Pair(engine, served, chat_model(served, 60)),
            }
            served.close()


@pytest.fixture(params=KINDS)
def pair(both: dict[str, Pair], request: pytest.FixtureRequest) -> Pair:
    return both[request.param]


def test_base_and_adapters_are_described_alike(both: dict[str, Pair]) -> None:
    local, served = both["local"].used, both["server"].used
    assert [(one.name, one.title, one.domain, one.version, one.capabilities) for one in served.adapters] == [
        (one.name, one.title, one.domain, one.version, one.capabilities) for one in local.adapters
    ]
    assert (served.base.name, served.base.can_read, served.base.can_chat) == (
        local.base.name, local.base.can_read, local.base.can_chat
    )  # fmt: skip


@pytest.mark.parametrize("adapter", ["red", "blue", None])
def test_invoked_and_streamed_answers_are_the_engines_own(pair: Pair, adapter: str | None) -> None:
    wanted = pair.wanted(adapter, max_tokens=12)
    model = pair.model.bind(adapter=adapter, max_tokens=12)
    message = model.invoke(QUESTION)
    chunks = list(model.stream(QUESTION))
    assert message.content == "".join(str(chunk.content) for chunk in chunks) == wanted
    assert isinstance(message, AIMessage) and message.usage_metadata is not None
    last = chunks[0]
    for chunk in chunks[1:]:
        last += chunk
    assert isinstance(last, AIMessageChunk) and last.usage_metadata == message.usage_metadata
    assert message.usage_metadata["output_tokens"] == len(token_logprobs(message)) > 0
    assert token_logprobs(last) == token_logprobs(message)
    assert message.response_metadata["finish_reason"] in ("stop", "length")


def test_log_probabilities_and_usage_are_the_same_over_http(both: dict[str, Pair]) -> None:
    there, here = (both[kind].model.invoke(QUESTION, adapter="red", max_tokens=12) for kind in KINDS)
    assert token_logprobs(there) == pytest.approx(token_logprobs(here), abs=1e-5)
    assert isinstance(there, AIMessage) and isinstance(here, AIMessage) and there.usage_metadata and here.usage_metadata
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert there.usage_metadata[name] == here.usage_metadata[name]  # type: ignore[literal-required]


def test_stop_strings_temperature_and_seed_are_handed_on(pair: Pair) -> None:
    plain = pair.wanted("red", max_tokens=20)
    stop = plain[4:7]
    assert pair.model.invoke(QUESTION, adapter="red", max_tokens=20, stop=[stop]).content == plain.split(stop)[0]
    hot = {"temperature": 1.5, "top_p": 0.9, "seed": 11, "max_tokens": 20}
    assert pair.model.invoke(QUESTION, adapter="red", **hot).content == pair.wanted("red", **hot) != plain


def test_a_system_message_counts(pair: Pair) -> None:
    messages = [Message("system", "Be brief."), Message("user", "My screen flickers")]
    wanted = "".join(pair.engine.stream(messages, "red", Sampling(max_tokens=12)))
    found = pair.model.invoke([SystemMessage("Be brief."), *QUESTION], adapter="red", max_tokens=12)
    assert found.content == wanted != pair.wanted("red", max_tokens=12)


def test_the_base_goes_on_and_on(pair: Pair) -> None:
    """What the tests of cancelling rely on."""
    stream = pair.engine.stream([Message("user", "My screen flickers")], None, Sampling(max_tokens=ENDLESS))
    assert "".join(stream) and stream.usage is not None and stream.usage.finish == "length"


def test_no_control_token_of_the_base_comes_through(both: dict[str, Pair], root: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "base", local_files_only=True)
    tokens = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    assert "<|end|>" in tokens
    for token, number in tokens.items():
        assert number in tokenizer(token, add_special_tokens=False).input_ids
        assert not set(tokens.values()) & set(tokenizer(harmless(f"a{token}b"), add_special_tokens=False).input_ids)


def test_an_answer_in_the_making_is_cancelled_by_closing_its_stream(pair: Pair) -> None:
    at = pair.engine.steps
    stream = pair.model.stream(QUESTION, max_tokens=LONG)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    pair.check_idle(at)


def test_async_answers_are_the_same_and_cancelling_their_task_cancels_them(pair: Pair) -> None:
    async def whole() -> str:
        return "".join([str(c.content) async for c in pair.model.astream(QUESTION, adapter="red", max_tokens=12)])

    assert in_a_thread(whole()) == pair.wanted("red", max_tokens=12)
    begun, at = asyncio.Event(), pair.engine.steps

    async def endless() -> None:
        async for _ in pair.model.astream(QUESTION, max_tokens=LONG):
            begun.set()

    async def cancel() -> None:
        task = asyncio.create_task(endless())
        await asyncio.wait_for(begun.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_a_thread(cancel())
    pair.check_idle(at)


def test_a_task_that_waits_for_a_place_is_cancelled_too(pair: Pair) -> None:
    message = [Message("user", "My screen flickers")]
    blockers = [pair.engine.stream(message, None, Sampling(max_tokens=LONG)) for _ in range(2)]
    for blocker in blockers:
        next(blocker)

    async def cancel() -> None:
        task = asyncio.create_task(pair.model.ainvoke(QUESTION, max_tokens=LONG))
        while not len(pair.engine._waiting):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while len(pair.engine._waiting):
            await asyncio.sleep(0.01)
        for blocker in blockers:
            blocker.close()

    in_a_thread(asyncio.wait_for(cancel(), 20))
    pair.check_idle(pair.engine.steps)


def test_an_answer_obeys_a_schema(pair: Pair) -> None:
    levels = {"enum": ["P1", "P2"]}
    schema = {
        "type": "object", "properties": {"level": levels}, "required": ["level"], "additionalProperties": False
    }  # fmt: skip
    model = pair.model
    assert model.with_structured_output(schema).invoke(QUESTION)["level"] in levels["enum"]
    assert model.invoke(QUESTION, schema=schema).content == pair.wanted(None, schema=json.dumps(schema))
    with pytest.raises(ValueError, match="include_raw"):
        model.with_structured_output(schema, include_raw=True)
    with pytest.raises(ValueError, match="int is no schema"):
        model.with_structured_output(int)
    with pytest.raises(NotImplementedError, match="Tools"):
        model.bind_tools([])


def test_a_pydantic_class_gives_its_objects(pair: Pair) -> None:
    class Level(BaseModel, extra="forbid"):
        urgent: bool

    found = pair.model.with_structured_output(Level).invoke(QUESTION)
    assert isinstance(found, Level)


def test_what_is_not_known_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="Not supported here: tools, top_k"):
        pair.model.invoke(QUESTION, tools=[], top_k=1)
    with pytest.raises(ValueError, match="Only text"):
        pair.model.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])])
    with pytest.raises(EngineError, match="temperature"):
        pair.model.invoke(QUESTION, temperature=-1)
    with pytest.raises(AdapterError, match="no adapter 'green'"):
        pair.model.invoke(QUESTION, adapter="green")


def test_fields_are_of_the_choices(pair: Pair) -> None:
    choices = {"level": ("P1", "P2"), "team": ("Network Team", "Facilities")}
    filled = pair.used.fill([Message("user", "Sort this.")], "red", choices, user="u")
    assert list(filled) == list(choices) and all(value in choices[name] for name, value in filled.items())


def test_an_answer_past_its_deadline_ends_with_its_own_sentence(pair: Pair) -> None:
    text = ""
    with pytest.raises(EngineError, match=r"took longer than 0\.3 s and ends here: ask again, or ask for less\."):
        for chunk in pair.model.stream(QUESTION, max_tokens=LONG, deadline_s=0.3):
            text += str(chunk.content)
    assert text
    pair.check_idle(pair.engine.steps)


def test_a_full_queue_is_told_to_whoever_asks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> int:
        raise BusyError(5)

    monkeypatch.setattr(pair.engine._waiting, "put", full)
    with pytest.raises(EngineError, match=r"Everybody is busy: .*Try again in a moment"):
        pair.model.invoke(QUESTION)


@pytest.mark.parametrize("kind", KINDS)
def test_users_are_told_apart_in_the_queue(both: dict[str, Pair], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = both[kind]
    seen = []
    put = pair.engine._waiting.put

    def noted(request: Any) -> int:
        seen.append(request.user)
        return put(request)

    monkeypatch.setattr(pair.engine._waiting, "put", noted)
    for user in ("ann", "bob", "ann"):
        pair.model.invoke(QUESTION, user=user, max_tokens=1)
    pair.used.fill([Message("user", "x")], "red", {"level": ("A", "B")}, user="ann")
    assert seen[0] == seen[2] == seen[3] != seen[1]


def test_passages_of_a_question_reach_the_engine_as_its_context() -> None:
    asked = HumanMessage("Which one?", additional_kwargs={CONTEXT: ["[ab12] One.", "[cd34] Two."]})
    assert to_message(asked) == Message("user", "Which one?", ("[ab12] One.", "[cd34] Two."))
    assert to_message(asked).text == "[ab12] One.\n\n[cd34] Two.\n\nWhich one?"
