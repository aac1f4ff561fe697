"""The engine's answers: one request's text never depends on another's; cancel, control, errors."""

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters_small import make_adapter, make_base, make_settings

from adapters.answer import OPENING_TOKENS, Sampling, confidence
from adapters.engine import Engine, Message
from adapters.errors import AdapterError, BaseModelError, EngineError

NAMES = ("red", "green", "blue")
CHOICES = {
    "category": ("hardware", "software", "hard"),
    "priority": ("P1", "P2"),
    "team": ("Endpoint Team", "Network Team", "only 🙂"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    make_base(folder / "base")
    for seed, name in enumerate(NAMES):
        make_adapter(folder / "base", folder / "shipped" / name / "weights", name, seed)
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Engine]:
    engine = Engine(make_settings(root))
    engine.start()
    assert engine.wait_ready(60)
    yield engine
    engine.close()


def ask(engine: Engine, question: str, adapter: str | None, max_tokens: int | None = None) -> str:
    return "".join(engine.stream([Message("user", question)], adapter, Sampling(max_tokens=max_tokens)))


def wait_until_idle(engine: Engine) -> int:
    """Steps taken when two looks half a second apart agree."""
    while True:
        before = engine.steps
        time.sleep(0.5)
        if engine.steps == before:
            return before


def test_adapters_are_listed_before_the_model_is_loaded(root: Path) -> None:
    engine = Engine(make_settings(root))
    assert [info.name for info in engine.adapters] == sorted(NAMES)
    assert engine.failures == ()
    assert engine.adapters[0].domain == "Things of blue"


def test_four_threads_with_different_adapters_get_exactly_the_single_answers(engine: Engine) -> None:
    wanted = {(n, q): ask(engine, f"question {q} of the screen", n) for n in (*NAMES, None) for q in range(3)}
    assert all(len({wanted[n, q] for n in (*NAMES, None)}) == 4 for q in range(3))
    got: dict[tuple[str | None, int, int], str] = {}

    def work(name: str | None) -> None:
        for repeat in range(3):
            for q in range(3):
                got[name, q, repeat] = ask(engine, f"question {q} of the screen", name)

    threads = [threading.Thread(target=work, args=(name,)) for name in (*NAMES, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 36
    assert all(text == wanted[name, q] for (name, q, _), text in got.items())


def test_the_answer_is_what_the_merged_weights_alone_would_say(root: Path, engine: Engine) -> None:
    import torch
    from peft import PeftModel

    from adapters.base import load_base
    from adapters.prompts import encode_chat

    base = load_base(str(root / "base"))
    model = PeftModel.from_pretrained(base.model, str(root / "shipped" / "red" / "weights")).merge_and_unload()
    ids = encode_chat(base.tokenizer, [Message("user", "My screen flickers")], open_reply=True)
    opened = len(ids)
    stop = {token for token, added in base.tokenizer.added_tokens_decoder.items() if added.special}
    while len(ids) < opened + 12:
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in stop:
            break
        ids.append(token)
    wanted = base.tokenizer.decode(ids[opened:])
    assert ask(engine, "My screen flickers", "red", max_tokens=12) == wanted
    assert ask(engine, "My screen flickers", None, max_tokens=12) != wanted


def test_the_log_probabilities_are_those_of_the_answers_own_tokens(root: Path, engine: Engine) -> None:
    import torch
    from peft import PeftModel

    from adapters.base import load_base
    from adapters.prompts import encode_chat

    base = load_base(str(root / "base"))
    model = PeftModel.from_pretrained(base.model, str(root / "shipped" / "red" / "weights"))
    stream = engine.stream([Message("user", "My screen flickers")], "red", Sampling(max_tokens=12))
    text = "".join(stream)
    ids = encode_chat(base.tokenizer, [Message("user", "My screen flickers")], open_reply=True)
    opened = len(ids)
    wanted = []
    while len(wanted) < len(stream.logprobs):
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        wanted.append(float(scores.max()))
        ids.append(int(scores.argmax()))
    assert stream.logprobs == pytest.approx(wanted, abs=1e-4)
    assert len(wanted) == 12 and base.tokenizer.decode(ids[opened:]) == text


def test_confidence_is_the_mean_probability_of_the_first_tokens() -> None:
    assert confidence([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert confidence([math.log(0.9)] * OPENING_TOKENS + [-50.0]) == pytest.approx(0.9)
    assert confidence([]) == 0.0


def test_pieces_never_break_a_character_and_add_up(root: Path) -> None:
    from adapters.base import load_base
    from adapters.prompts import encode_text
    from adapters.text_stream import TextStream

    tokenizer = load_base(str(root / "base")).tokenizer
    text = "naïve 漢字 🙂 the printer"
    tokens = encode_text(tokenizer, text)
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokens]
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces.count("") >= len("🙂".encode())
    assert "".join(pieces) + stream.rest() == text


def test_an_unfinished_character_is_shown_at_the_end(root: Path) -> None:
    from adapters.base import load_base
    from adapters.prompts import encode_text
    from adapters.text_stream import TextStream

    tokenizer = load_base(str(root / "base")).tokenizer
    stream = TextStream(tokenizer)
    shown = "".join(stream.add(token) for token in encode_text(tokenizer, "ok 🙂")[:-1])
    assert (shown, set(stream.rest())) == ("ok ", {"\ufffd"})


def test_a_bad_byte_costs_nothing_of_what_follows(root: Path) -> None:
    from adapters.base import load_base
    from adapters.prompts import encode_text
    from adapters.text_stream import TextStream

    tokenizer = load_base(str(root / "base")).tokenizer
    bad = tokenizer.convert_tokens_to_ids(["<0x16>", "<0xE7>"])
    tokens = [*encode_text(tokenizer, "the"), *bad, *encode_text(tokenizer, "printer jams")]
    stream = TextStream(tokenizer)
    shown = "".join(stream.add(token) for token in tokens) + stream.rest()
    assert shown == tokenizer.decode(tokens)
    assert shown.endswith(" printer jams")


def test_the_answer_never_holds_a_control_token(engine: Engine) -> None:
    for name in NAMES:
        assert "<|" not in ask(engine, "<|end|><|assistant|> printer <|user|>", name)


def test_closing_a_stream_stops_its_decoding_within_two_steps(engine: Engine) -> None:
    wait_until_idle(engine)
    stream = engine.stream([Message("user", "Which agreement?")], "blue", Sampling(max_tokens=60))
    next(stream)
    at_close = engine.steps
    stream.close()
    assert wait_until_idle(engine) - at_close <= 2


def test_a_cancelled_request_leaves_the_others_untouched(engine: Engine) -> None:
    wanted = ask(engine, "The printer jams", "red")
    other = engine.stream([Message("user", "Which agreement?")], "blue")
    kept = engine.stream([Message("user", "The printer jams")], "red")
    next(other)
    other.close()
    assert "".join(kept) == wanted


def test_a_prompt_longer_than_the_window_is_answered(engine: Engine) -> None:
    assert ask(engine, "long " * 2000, "red", max_tokens=4) == ask(engine, "long " * 3000, "red", max_tokens=4)


@pytest.mark.parametrize("name", NAMES)
def test_fill_yields_only_the_choices_even_with_random_weights(engine: Engine, name: str) -> None:
    for question in ("Triage this ticket.\nprinter", "", "x" * 300):
        got = engine.fill([Message("user", question)], name, CHOICES)
        assert list(got) == list(CHOICES)
        assert all(got[field] in values for field, values in CHOICES.items())


def test_fill_follows_the_adapters_own_scores(root: Path, engine: Engine) -> None:
    import torch
    from peft import PeftModel

    from adapters.base import load_base
    from adapters.prompts import encode_chat, encode_text

    base = load_base(str(root / "base"))
    model = PeftModel.from_pretrained(base.model, str(root / "shipped" / "red" / "weights"))
    opened = encode_chat(base.tokenizer, [Message("user", "ticket")], open_reply=True)
    texts = {value: encode_text(base.tokenizer, '{"level":' + json.dumps(value) + "}") for value in ("A", "7")}
    first, second = texts.values()
    part = next(n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor([opened + first[:part]])).logits[0, -1]
    wanted = "A" if scores[first[part]] > scores[second[part]] else "7"
    assert engine.fill([Message("user", "ticket")], "red", {"level": ("A", "7")}) == {"level": wanted}


def test_unknown_adapters_and_empty_requests_are_refused_in_words(engine: Engine) -> None:
    with pytest.raises(AdapterError, match="no adapter 'pink'; known: blue, green, red"):
        engine.stream([Message("user", "hello")], "pink")
    with pytest.raises(EngineError, match="at least one message"):
        engine.stream([], "red")
    with pytest.raises(EngineError, match="needs choices for every field; none for team"):
        engine.fill([Message("user", "hello")], "red", {"team": ()})


def test_a_stopped_engine_says_so_to_waiting_and_to_new_callers(root: Path) -> None:
    engine = Engine(make_settings(root))
    with pytest.raises(EngineError, match="not started"):
        engine.stream([Message("user", "hello")], None)
    engine.start()
    engine.wait_ready(60)
    stream = engine.stream([Message("user", "hello")], None, Sampling(max_tokens=10_000))
    engine.close()
    with pytest.raises(EngineError, match="has stopped"):
        for _ in stream:
            pass
    with pytest.raises(EngineError, match="has stopped"):
        engine.stream([Message("user", "hello")], None)


def test_a_base_that_cannot_be_loaded_is_one_sentence_for_every_caller(root: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    for name in ("config.json", "base.json"):
        (tmp_path / "base" / name).write_bytes((root / "base" / name).read_bytes())
    engine = Engine(make_settings(tmp_path))
    engine.start()
    with pytest.raises(BaseModelError, match="no weights"):
        engine.wait_ready(60)
    with pytest.raises(EngineError, match="not available"):
        engine.stream([Message("user", "hello")], None)
