"""The engine under load: exact texts, fair turns, cancels, adapters that change meanwhile, a loop that dies."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapters_small import edit_json, make_adapter, make_base, make_settings

from adapters.answer import Sampling
from adapters.base import load_base
from adapters.catalogue import Catalogue
from adapters.decode import Decoder
from adapters.engine import Engine, Message
from adapters.errors import AdapterError, BusyError, EngineError
from adapters.lora_batch import AdapterWeights
from adapters.registry import FoundAdapter
from adapters.request import Request
from adapters.serving import Serving
from adapters.waiting import Waiting

NAMES = ("red", "green", "blue", "grey")
QUESTIONS = tuple(f"{'the printer ' * (n % 5)}question {n}" for n in range(8))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    make_base(folder / "base", window=1024)  # so that a long answer takes hundreds of steps
    for seed, name in enumerate(NAMES):
        make_adapter(folder / "base", folder / "shipped" / name / "weights", name, seed, r=2 + seed)
    make_adapter(folder / "base", folder / "newer" / "red", "red", 77, version=2)
    return folder


def started(root: Path, **changes: Any) -> Engine:
    engine = Engine(make_settings(root, **changes))
    engine.start()
    assert engine.wait_ready(60)
    return engine


@pytest.fixture(scope="module")
def engine(made: Path) -> Iterator[Engine]:
    engine = started(made)
    yield engine
    engine.close()


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Iterator[Engine]:
    """An engine over folders of its own, that a test may change."""
    shutil.copytree(made, tmp_path / "own")
    engine = started(tmp_path / "own")
    yield engine
    engine.close()


def ask(engine: Engine, question: str, adapter: str | None, user: str = "", **sampling: Any) -> str:
    return "".join(engine.stream([Message("user", question)], adapter, Sampling(**sampling), user=user))


def until(holds: Any, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def random_load(engine: Engine, rounds: int) -> int:
    """Rounds of 32 requests, each with random lengths, arrivals and cancels; how many were finished.

    Every finished one is then asked again, alone, with its length: an answer that is cut within a character can end
    otherwise than the longer one goes on.
    """
    finished: dict[tuple[str | None, str, int], set[str]] = {}
    count = 0
    for seed in range(rounds):
        moments = random.Random(seed)
        plans = [
            (moments.choice((*NAMES, None)), moments.choice(QUESTIONS), moments.randint(1, 24), moments.random() * 0.2,
             moments.randint(1, 4) if moments.random() < 0.25 else None)
            for _ in range(32)
        ]  # fmt: skip

        def one(plan: tuple[str | None, str, int, float, int | None]) -> tuple[str | None, str, int, str] | None:
            adapter, question, tokens, delay_s, cancel_after = plan
            time.sleep(delay_s)
            stream = engine.stream([Message("user", question)], adapter, Sampling(max_tokens=tokens), user=str(adapter))
            text = ""
            for pieces, piece in enumerate(stream, 1):
                text += piece
                if pieces == cancel_after:
                    stream.close()
                    return None
            assert stream.usage is not None and stream.usage.completion_tokens <= tokens
            return adapter, question, tokens, text

        with ThreadPoolExecutor(32) as pool:
            for done in pool.map(one, plans):
                if done is not None:
                    count += 1
                    finished.setdefault(done[:3], set()).add(done[3])
    for (adapter, question, tokens), texts in finished.items():
        assert texts == {ask(engine, question, adapter, max_tokens=tokens)}
    return count


@pytest.fixture(scope="module")
def wanted(engine: Engine) -> dict[tuple[str | None, str], str]:
    """Each answer of 24 tokens, asked alone."""
    found = {(a, q): ask(engine, q, a, max_tokens=24) for a in (*NAMES, None) for q in QUESTIONS}
    assert len(set(found.values())) > 30
    return found


def test_thirty_two_at_once_get_exactly_their_single_answers(engine: Engine) -> None:
    assert random_load(engine, rounds=4) > 80


@pytest.mark.slow
def test_twenty_rounds_of_thirty_two_at_once_get_exactly_their_single_answers(engine: Engine) -> None:
    assert random_load(engine, rounds=20) > 400


def test_a_cancelled_row_is_free_after_one_turn_of_the_loop(made: Path) -> None:
    settings = make_settings(made, rows=2)
    waiting: Waiting[Request] = Waiting(9)
    decoder = Decoder(load_base(settings.base))
    serving = Serving(decoder, Catalogue([], []), waiting, settings, lambda: None)
    requests = [Request((Message("user", text),), None, "", Sampling(max_tokens=500)) for text in QUESTIONS[:3]]
    for request in requests:
        waiting.put(request)
    for _ in range(5):
        serving.turn()
    assert len(decoder.rows) == 2 and requests[2].joined == 0
    steps = decoder.steps
    requests[0].cancelled.set()
    serving.turn()
    assert requests[2].joined > 0 and decoder.steps == steps + 1, "the next one has its place in the same turn"
    serving.close()


def test_who_waits_past_the_deadline_is_told_so_while_others_are_answered(made: Path) -> None:
    settings = make_settings(made, rows=1)
    waiting: Waiting[Request] = Waiting(9)
    serving = Serving(Decoder(load_base(settings.base)), Catalogue([], []), waiting, settings, lambda: None)
    waiting.put(Request((Message("user", "hello"),), None, "", Sampling(max_tokens=500)))
    serving.turn()
    late = Request((Message("user", "hello"),), None, "", Sampling(deadline_s=1e-9))
    waiting.put(late)
    serving.turn()
    told = late.out.get_nowait()
    assert isinstance(told, EngineError) and "Nobody was free within" in str(told) and len(waiting) == 0
    serving.close()


def test_a_client_that_vanishes_frees_its_row(made: Path) -> None:
    engine = started(made, rows=1)
    try:
        stream = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=100_000))
        next(stream)
        at = engine.steps
        del stream
        ask(engine, "hello", "red", max_tokens=2)
        assert engine.steps - at < 100, "its answer was written to the end"
    finally:
        engine.close()


def test_users_take_turns_and_a_full_queue_says_its_place(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.engine.WAITING_REQUESTS", 5)
    engine = started(made, rows=1)
    try:
        blocker = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=100_000), user="z")
        next(blocker)
        order: list[str] = []

        def follow(user: str, stream: Any) -> None:
            list(stream)
            order.append(user)

        threads = []
        for user in ("greedy", "greedy", "greedy", "greedy", "late"):
            stream = engine.stream([Message("user", "hello")], "red", Sampling(max_tokens=3), user=user)
            threads.append(threading.Thread(target=follow, args=(user, stream)))
        with pytest.raises(BusyError, match="number 6 in the queue") as refused:
            engine.stream([Message("user", "hello")], None)
        assert refused.value.place == 6
        for thread in threads:
            thread.start()
        blocker.close()
        for thread in threads:
            thread.join()
        assert order.index("late") == 1, order
    finally:
        engine.close()


def test_an_answer_past_its_deadline_ends_with_what_it_has(engine: Engine) -> None:
    stream = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=90, deadline_s=0.05))
    text = "".join(stream)
    assert stream.usage is not None
    if stream.usage.finish != "deadline":
        pytest.skip("the machine wrote 90 tokens in 50 ms")
    assert stream.usage.completion_tokens < 90
    assert ask(engine, "Which agreement?", "blue", max_tokens=90).startswith(text.rstrip("\ufffd"))


def test_usage_counts_tokens_and_names_the_version(engine: Engine) -> None:
    stream = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=7))
    list(stream)
    usage = stream.usage
    assert usage is not None and (usage.adapter, usage.finish) == ("blue@1", "length")
    assert usage.completion_tokens == 7 == len(stream.logprobs) and usage.prompt_tokens > 2
    assert 0 <= usage.queued_s <= usage.first_token_s <= usage.total_s and usage.tokens_per_s > 0


def replace_red(root: Path, made: Path) -> None:
    shutil.rmtree(root / "trained" / "red", ignore_errors=True)
    shutil.copytree(made / "newer" / "red", root / "trained" / "red")


def test_a_new_version_serves_while_a_running_answer_keeps_its_own(own: Engine, made: Path, tmp_path: Path) -> None:
    old = ask(own, "hello", "red", max_tokens=80)
    running = own.stream([Message("user", "hello")], "red", Sampling(max_tokens=80))
    text = next(running)
    replace_red(tmp_path / "own", made)
    own.refresh()
    until(lambda: own.adapters[-1].version == 2)
    new = ask(own, "hello", "red", max_tokens=80)
    assert text + "".join(running) == old != new
    assert running.usage is not None and running.usage.adapter == "red@1"
    assert ask(own, "hello", "red@2", max_tokens=80) == new
    with pytest.raises(AdapterError, match="There is no red@1 any more: version 2"):
        own.stream([Message("user", "hello")], "red@1")


def test_a_refresh_waits_for_what_it_found(own: Engine, made: Path, tmp_path: Path) -> None:
    replace_red(tmp_path / "own", made)
    own.refresh(30)
    assert own.adapters[-1].version == 2
    own.refresh(30)
    assert own.adapters[-1].version == 2


def test_streams_go_on_while_an_adapter_is_read(
    own: Engine, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapters.serving

    may_end, read = threading.Event(), adapters.serving.read_adapter

    def slow(found: FoundAdapter, decoder: Decoder) -> AdapterWeights:
        assert may_end.wait(60)
        return read(found, decoder)

    monkeypatch.setattr(adapters.serving, "read_adapter", slow)
    replace_red(tmp_path / "own", made)
    own.refresh()
    assert ask(own, "hello", "blue", max_tokens=60)
    assert own.adapters[-1].version == 1
    at = own.steps
    may_end.set()
    own.refresh(30)
    assert own.adapters[-1].version == 2 and own.steps == at, "taking it in is no step of the batch"


def test_a_version_that_was_half_copied_serves_once_it_is_whole(own: Engine, made: Path, tmp_path: Path) -> None:
    replace_red(tmp_path / "own", made)
    weights = tmp_path / "own" / "trained" / "red" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    own.refresh(30)
    assert own.adapters[-1].version == 1 and own.failures
    weights.write_bytes(whole)
    own.refresh(30)
    assert own.adapters[-1].version == 2 and own.failures == ()


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "1" * 5000, "{"])
@pytest.mark.parametrize("name", ["manifest.json", "adapter_config.json"])
def test_a_folder_of_nonsense_costs_its_own_adapter_alone(
    own: Engine, made: Path, tmp_path: Path, name: str, content: str
) -> None:
    old = ask(own, "hello", "red")
    replace_red(tmp_path / "own", made)
    (tmp_path / "own" / "trained" / "red" / name).write_text(content)
    own.refresh(30)
    assert len(own.failures) == 1 and ask(own, "hello", "red") == old
    again = Engine(make_settings(tmp_path / "own"))
    assert [info.name for info in again.adapters] == ["blue", "green", "grey"]


def test_a_new_version_that_is_damaged_leaves_the_one_before_in_use(own: Engine, made: Path, tmp_path: Path) -> None:
    old = ask(own, "hello", "red")
    replace_red(tmp_path / "own", made)
    with (tmp_path / "own" / "trained" / "red" / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 8)
    own.refresh()
    until(lambda: own.failures)
    assert (
        "Adapter red is left out" in own.failures[0]
        and "is not the file that its manifest describes" in own.failures[0]
    )
    assert own.adapters[-1].version == 1 and ask(own, "hello", "red") == old
    replace_red(tmp_path / "own", made)
    edit_json(tmp_path / "own" / "trained" / "red" / "manifest.json", version=3)
    own.refresh()
    until(lambda: own.adapters[-1].version == 3)
    assert own.failures == ()


def test_an_adapter_that_changes_nothing_is_refused(own: Engine, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from adapters.config import files_hash

    folder = tmp_path / "own" / "trained" / "idle"
    shutil.copytree(tmp_path / "own" / "shipped" / "grey" / "weights", folder)
    path = folder / "adapter_model.safetensors"
    save_file({key: value * ("lora_A" in key) for key, value in load_file(path).items()}, path)
    edit_json(folder / "manifest.json", name="idle", weights_hash=files_hash([path]))
    own.refresh()
    until(lambda: own.failures)
    assert "change nothing in the model's scores" in own.failures[0]
    assert [info.name for info in own.adapters] == sorted(NAMES)


def test_a_removed_adapter_is_unknown_and_its_running_answer_ends_well(own: Engine, tmp_path: Path) -> None:
    whole = ask(own, "hello", "green", max_tokens=60)
    running = own.stream([Message("user", "hello")], "green", Sampling(max_tokens=60))
    text = next(running)
    shutil.rmtree(tmp_path / "own" / "shipped" / "green")
    own.refresh()
    until(lambda: len(own.adapters) == 3)
    assert text + "".join(running) == whole
    with pytest.raises(AdapterError, match="no adapter 'green'; known: blue, grey, red"):
        own.stream([Message("user", "hello")], "green")


def test_adapters_beyond_the_budget_take_turns_in_memory(
    made: Path, engine: Engine, wanted: dict[tuple[str | None, str], str]
) -> None:
    small = started(made, adapter_bytes=20_000)
    try:
        assert 1 <= len(small.resident) < len(NAMES)
        for name in NAMES * 2:
            assert ask(small, QUESTIONS[1], name, max_tokens=24) == wanted[name, QUESTIONS[1]]
            assert small.resident[-1] == name and len(small.resident) < len(NAMES)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda n: ask(small, QUESTIONS[2], NAMES[n % 4], max_tokens=24), range(16)))
        assert texts == [wanted[NAMES[n % 4], QUESTIONS[2]] for n in range(16)]
    finally:
        small.close()


def test_a_loop_that_dies_tells_everybody_and_is_started_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = started(made)
    try:
        wanted = ask(engine, "hello", "red")
        stream = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=100_000))
        next(stream)

        def die(self: Decoder) -> None:
            raise MemoryError("no memory left")

        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "step", die)
            with pytest.raises(EngineError, match="stopped and is being started again"):
                list(stream)
        assert ask(engine, "hello", "red") == wanted
        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "step", die)
            for _ in range(3):
                with pytest.raises(EngineError):
                    ask(engine, "hello", "red")
        with pytest.raises(EngineError, match="not available: no memory left"):
            ask(engine, "hello", "red")
    finally:
        engine.close()


def mixed_load(engine: Engine, wanted: dict[tuple[str | None, str], str], seconds: float) -> tuple[list[int], int]:
    """(resident bytes after each tenth of the time, answers); every answer is checked."""
    end, answers = time.monotonic() + seconds, 0
    stop = threading.Event()

    def one(seed: int) -> int:
        moments, count = random.Random(seed), 0
        while not stop.is_set():
            adapter, question = moments.choice((*NAMES, None)), moments.choice(QUESTIONS)
            assert (
                ask(engine, question, adapter, user=str(seed), max_tokens=24, deadline_s=60)
                == wanted[adapter, question]
            )
            count += 1
        return count

    sizes = []
    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(one, seed) for seed in range(12)]
        for part in range(1, 11):
            time.sleep(max(0.0, end - seconds * (1 - part / 10) - time.monotonic()))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * 4096)
        stop.set()
        answers = sum(future.result(timeout=60) for future in running)
    return sizes, answers


def test_memory_stays_flat_under_load(engine: Engine, wanted: dict[tuple[str | None, str], str]) -> None:
    mixed_load(engine, wanted, 4)
    sizes, answers = mixed_load(engine, wanted, 16)
    assert answers > 50 and max(sizes) <= 1.03 * sizes[0]


@pytest.mark.slow
def test_memory_stays_flat_for_ten_minutes(engine: Engine, wanted: dict[tuple[str | None, str], str]) -> None:
    mixed_load(engine, wanted, 10)
    sizes, answers = mixed_load(engine, wanted, 600)
    assert answers > 2000 and max(sizes) <= 1.03 * sizes[0]
