"""The batch: LoRA of many adapters in one pass equals PEFT's; rows never touch each other; grammars are obeyed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_small import make_adapter, make_base

from adapters.answer import Sampling, Step
from adapters.base import load_base
from adapters.config import AdapterManifest, read_manifest
from adapters.decode import MIN_PREFILL, Decoder, Row, new_row
from adapters.errors import EngineError
from adapters.lora_batch import AdapterWeights
from adapters.prompts import Message, encode_chat
from adapters.registry import FoundAdapter
from adapters.residents import load_weights
from adapters.writing import Feed, Writing

RANKS = {"red": 4, "green": 2, "blue": 7}
QUESTIONS = ("My screen flickers", "The printer on the second floor jams again and again", "hello", "Which agreement?")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    make_base(folder / "base", hidden_size=64, intermediate_size=128)  # whole blocks of 64 weights, as nf4 needs
    for seed, (name, r) in enumerate(RANKS.items()):
        make_adapter(folder / "base", folder / "shipped" / name / "weights", name, seed, r=r, rslora=name == "green")
    return folder


def weights(root: Path, name: str, decoder: Decoder) -> AdapterWeights:
    folder = root / "shipped" / name / "weights"
    return load_weights(FoundAdapter(folder, read_manifest(folder / "manifest.json", AdapterManifest)), decoder)


def made(root: Path, quantization: Any = "auto") -> tuple[Decoder, dict[str, AdapterWeights]]:
    decoder = Decoder(load_base(str(root / "base"), quantization))
    return decoder, {name: weights(root, name, decoder) for name in RANKS}


@pytest.fixture(scope="module")
def batch(root: Path) -> tuple[Decoder, dict[str, AdapterWeights]]:
    return made(root)


class Writer:
    """A row and what it wrote."""

    def __init__(self, decoder: Decoder, question: str, adapter: AdapterWeights | None, **sampling: Any) -> None:
        self.steps: list[Step] = []
        wanted = sampling.pop("max_tokens", 16)
        messages = [Message("user", question)]
        self.row = decoder.answer(messages, adapter, wanted, Sampling(**sampling), self.steps.append)

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)


def alone(decoder: Decoder, question: str, adapter: AdapterWeights | None, **sampling: Any) -> Writer:
    writer = Writer(decoder, question, adapter, **sampling)
    decoder.run([writer.row], 1)
    return writer


def peft_scores(root: Path, name: str, ids: Sequence[int], quantization: Any) -> torch.Tensor:
    from peft import PeftModel

    base = load_base(str(root / "base"), quantization)
    model = PeftModel.from_pretrained(base.model, str(root / "shipped" / name / "weights")).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].float()


@pytest.mark.parametrize(("quantization", "tolerance"), [("fp32", 1e-4), ("bf16", 0.2), ("nf4", 0.2)])
def test_a_mixed_batch_gives_each_row_the_scores_that_peft_gives_it_alone(
    root: Path, quantization: Any, tolerance: float
) -> None:
    decoder, adapters = made(root, quantization)
    tokenizer = load_base(str(root / "base")).tokenizer
    seen: dict[str, torch.Tensor] = {}
    rows = []
    for name, question in zip(RANKS, QUESTIONS, strict=False):
        writer = Writer(decoder, question, adapters[name], max_tokens=1)
        rows.append((name, question, writer.row))
        decoder.join(writer.row)
    plain = Writer(decoder, QUESTIONS[0], None, max_tokens=1).row
    decoder.join(plain)
    hidden = decoder._hidden([row for _, _, row in rows] + [plain], [row.left for row in decoder.rows])
    for place, (name, question, row) in enumerate(rows):
        with torch.inference_mode():
            seen[name] = decoder._model.lm_head(hidden[place, row.left - 1]).float()
        ids = encode_chat(tokenizer, [Message("user", question)], open_reply=True)
        wanted = peft_scores(root, name, ids, quantization)
        spread = float(wanted.std())
        assert float((seen[name] - wanted).abs().max()) <= tolerance * spread, name
        other = peft_scores(root, next(one for one in RANKS if one != name), ids, quantization)
        assert float((seen[name] - other).abs().max()) > 2 * tolerance * spread, "a mix-up would not show"


def test_rows_that_join_and_leave_at_any_time_write_what_they_write_alone(
    batch: tuple[Decoder, dict[str, AdapterWeights]],
) -> None:
    decoder, adapters = batch
    chosen = [*adapters.values(), None]
    wanted = [
        alone(decoder, question + " again" * place, adapter, max_tokens=5 + 3 * place).text
        for place, question in enumerate(QUESTIONS)
        for adapter in chosen
    ]
    writers = [
        Writer(decoder, question + " again" * place, adapter, max_tokens=5 + 3 * place)
        for place, question in enumerate(QUESTIONS)
        for adapter in chosen
    ]
    coming = list(writers)
    while coming or decoder.rows:
        for _ in range(2):  # two join before each step
            if coming:
                decoder.join(coming.pop(0).row)
        decoder.step()
        for row in [row for row in decoder.rows if row.done]:
            decoder.leave(row)
    assert [writer.text for writer in writers] == wanted
    assert len(set(wanted)) > 12


def test_a_long_prompt_is_read_in_slices_while_others_are_answered(
    batch: tuple[Decoder, dict[str, AdapterWeights]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, adapters = batch
    wanted = alone(decoder, "paper " * 60, adapters["red"]).text
    monkeypatch.setattr("adapters.decode.PREFILL_S", 0.0)  # slices of MIN_PREFILL tokens
    other, long = (
        Writer(decoder, "hello", adapters["blue"], max_tokens=12),
        Writer(decoder, "paper " * 60, adapters["red"]),
    )
    decoder.join(other.row)
    decoder.step()
    decoder.join(long.row)
    before = len(other.steps)
    decoder.step()
    assert len(other.steps) == before + 1 and long.row.cached == MIN_PREFILL and not long.steps
    while not long.row.done:
        decoder.step()
    for row in list(decoder.rows):
        decoder.leave(row)
    assert long.text == wanted


def test_weights_that_turn_scores_into_no_numbers_cost_their_own_rows_alone(
    batch: tuple[Decoder, dict[str, AdapterWeights]],
) -> None:
    decoder, adapters = batch
    wanted = alone(decoder, "hello", adapters["red"]).text
    broken = AdapterWeights(
        "broken", 1, {name: (a, b * float("nan")) for name, (a, b) in adapters["blue"].pairs.items()}
    )
    good = [Writer(decoder, "hello", adapters["red"]) for _ in range(2)]
    bad = Writer(decoder, "hello", broken)
    for writer in (good[0], bad, good[1]):
        decoder.join(writer.row)
    after = Writer(decoder, "hello", adapters["red"])
    while decoder.rows:
        decoder.step()
        for row in [row for row in decoder.rows if row.done]:
            decoder.leave(row)
            if row is bad.row:
                decoder.join(after.row)  # in the place of the broken one
    assert isinstance(bad.row.error, EngineError) and "no numbers" in str(bad.row.error)
    assert [writer.text for writer in (*good, after)] == [wanted] * 3


def test_an_answer_ends_before_a_stop_string_even_across_tokens(
    batch: tuple[Decoder, dict[str, AdapterWeights]],
) -> None:
    decoder, adapters = batch
    whole = alone(decoder, "hello", adapters["red"], max_tokens=24)
    assert len(whole.text) > 12
    string = whole.text[5:9]
    cut = alone(decoder, "hello", adapters["red"], max_tokens=24, stop=(string, "never said"))
    assert (cut.text, cut.row.finish) == (whole.text[: whole.text.index(string)], "stop")
    assert len(cut.steps) < len(whole.steps)


def test_samples_repeat_by_their_seed_and_differ_without_a_trace_of_the_batch(
    batch: tuple[Decoder, dict[str, AdapterWeights]],
) -> None:
    decoder, adapters = batch
    one = alone(decoder, "hello", adapters["red"], temperature=1.5, seed=4).text
    writers = [Writer(decoder, "hello", adapters["red"], temperature=1.5, seed=seed) for seed in (4, 5, 4)]
    decoder.run([writer.row for writer in writers], 3)
    assert writers[0].text == writers[2].text == one != writers[1].text
    tight = alone(decoder, "hello", adapters["red"], temperature=1.5, top_p=1e-6, seed=9).text
    assert tight == alone(decoder, "hello", adapters["red"]).text


def object_of(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def test_rows_with_schemas_obey_them_beside_rows_without(batch: tuple[Decoder, dict[str, AdapterWeights]]) -> None:
    decoder, adapters = batch
    free = alone(decoder, "hello", adapters["blue"]).text
    small = object_of(ok={"type": "boolean"})
    tall = object_of(
        category={"enum": ["hardware", "software"]},
        count={"type": "integer", "minimum": 0, "maximum": 99},
        note={"type": "string", "maxLength": 8},
    )
    writers = [
        Writer(decoder, "hello", adapters["red"], max_tokens=60, schema=json.dumps(tall), temperature=1.0, seed=1),
        Writer(decoder, "hello", adapters["blue"]),
        Writer(decoder, "hello", None, max_tokens=60, schema=json.dumps(small)),
    ]
    decoder.run([writer.row for writer in writers], 3)
    filled = json.loads(writers[0].text)
    assert list(filled) == ["category", "count", "note"] and filled["category"] in ("hardware", "software")
    assert 0 <= filled["count"] <= 99 and len(filled["note"]) <= 8
    assert json.loads(writers[2].text) in ({"ok": True}, {"ok": False})
    assert writers[1].text == free and [writer.row.finish for writer in writers] == ["stop", "length", "stop"]


def test_a_string_without_a_length_is_bounded() -> None:
    from adapters.grammar import LONGEST_STRING, MOST_ITEMS, _bounded

    assert _bounded({"type": "array", "items": {"type": "string", "enum": ["x"]}}) == {
        "type": "array",
        "items": {"type": "string", "enum": ["x"]},
        "maxItems": MOST_ITEMS,
    }
    bounded = _bounded(object_of(note={"type": "string"}, short={"type": "string", "maxLength": 3}))
    assert [one["maxLength"] for one in bounded["properties"].values()] == [LONGEST_STRING, 3]


@pytest.mark.parametrize("schema", ["{", '{"type": 5}', '{"$ref": "#/nowhere"}', "[" * 100_000])
def test_a_schema_that_cannot_be_followed_is_its_senders_alone(
    batch: tuple[Decoder, dict[str, AdapterWeights]], schema: str
) -> None:
    with pytest.raises(EngineError, match=r"JSON schema (?:cannot|is longer)"):
        Writer(batch[0], "hello", None, schema=schema)


def test_a_pass_that_fails_for_one_row_goes_on_for_the_others(
    batch: tuple[Decoder, dict[str, AdapterWeights]],
) -> None:
    decoder, adapters = batch
    wanted = alone(decoder, "hello", adapters["red"]).text
    pairs = {name: (a[:, :-1], b) for name, (a, b) in adapters["blue"].pairs.items()}  # too narrow: the product raises
    good, bad = Writer(decoder, "hello", adapters["red"]), Writer(decoder, "hello", AdapterWeights("narrow", 1, pairs))
    rows: list[Row] = [good.row, bad.row]
    for row in rows:
        decoder.join(row)
    while not all(row.done for row in rows):
        decoder.step()
        if bad.row in decoder.rows and bad.row.done:
            decoder.leave(bad.row)
    decoder.leave(good.row)
    assert isinstance(bad.row.error, RuntimeError) and good.text == wanted


def test_a_sliding_window_and_long_positions_are_those_of_transformers(tmp_path: Path) -> None:
    """A window far shorter than the text, and position factors that change within it."""
    from transformers import Phi3ForCausalLM

    make_base(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 40,
            "short_factor": [1.0] * half, "long_factor": [1.0 + 3 * n for n in range(half)]}  # fmt: skip
    config |= {"sliding_window": 16, "rope_parameters": rope, "original_max_position_embeddings": 40}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    base = load_base(str(tmp_path / "base"))
    prompts = ["hello", "paper " * 5, "the printer jams " * 16]
    wanted = []
    model = Phi3ForCausalLM.from_pretrained(tmp_path / "base").eval()
    stop = [token for token, added in base.tokenizer.added_tokens_decoder.items() if added.special]
    lengths = []
    for prompt in prompts:
        ids = encode_chat(base.tokenizer, [Message("user", prompt)], open_reply=True)
        lengths.append(len(ids))
        ids_in = torch.tensor([ids])
        for _ in range(30):
            with torch.inference_mode():
                token = int(model(input_ids=ids_in, use_cache=False).logits[0, -1].argmax())
            if token in stop:
                break
            ids_in = torch.cat([ids_in, torch.tensor([[token]])], dim=1)
        wanted.append(base.tokenizer.decode(ids_in[0, len(ids) :]))
    assert min(lengths) < 16 and lengths[1] < 40 < lengths[1] + 30 and lengths[2] > 40
    decoder = Decoder(base)
    writers = [Writer(decoder, prompt, None, max_tokens=30) for prompt in prompts]
    decoder.run([writer.row for writer in writers], 3)
    assert [writer.text for writer in writers] == wanted


CLOSE = 0.05
"""Logits closer than this, in standard deviations of a row's logits, may change places in 4 bits: the kernels for one
row and for several round differently."""


class Noted:
    """A row that is decoded greedily, its tokens, and by how much each was ahead of the next."""

    def __init__(self, decoder: Decoder, question: str, adapter: AdapterWeights | None) -> None:
        self.tokens: list[int] = []
        self.margins: list[float] = []
        prompt = decoder.prompt([Message("user", question)], 20)
        self.row = new_row(self._writing(prompt), adapter, len(prompt) + 20)

    def _writing(self, prompt: Sequence[int]) -> Writing:
        feed = Feed(0, prompt)
        for written in range(20):
            scores = yield feed
            first, second = scores.logits.topk(2).values.tolist()
            self.tokens.append(scores.best)
            self.margins.append((first - second) / float(scores.logits.std()))
            feed = Feed(len(prompt) + written, [scores.best])
        return "length"


def test_a_mixed_batch_in_four_bits_writes_the_single_tokens_except_where_two_are_close(root: Path) -> None:
    decoder, adapters = made(root, "nf4")
    asked = [(QUESTIONS[n % 3] + " again" * n, [*adapters.values(), None][n % 4]) for n in range(12)]
    singly = [Noted(decoder, *one) for one in asked]
    for one in singly:
        decoder.run([one.row], 1)
    together = [Noted(decoder, *one) for one in asked]
    decoder.run([one.row for one in together], 12)
    same = 0
    for one, other in zip(singly, together, strict=True):
        pairs = zip(one.tokens, other.tokens, one.margins, strict=True)
        parted = next((margin for token, its, margin in pairs if token != its), None)
        assert parted is None or parted < CLOSE
        same += parted is None
    assert same >= 6, "the rule would excuse nearly everything"
