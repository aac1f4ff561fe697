"""Training a reader: its layout, its losses, what it learns, and the folder that comes out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.__main__ import main
from adapters.base import load_base
from adapters.tiny.exercises import Level
from adapters.tiny.reading import (
    ON_GPU,
    STAGES,
    Batches,
    Progress,
    ReadingRecipe,
    Stage,
    loaded,
    rate_at,
    reading_loss,
    stage_at,
    train_reader,
)
from adapters.tiny.reading_build import save_reader
from adapters.tiny.reading_model import POINTING_LAYER, new_reader
from adapters.tiny.reading_rows import NOTHING
from adapters.tiny.tokenizer import train_tokenizer
from desk.config import DEFAULT_DESK

EASY = Stage(1.0, 128, Level((1, 1), (1, 1), (2, 3), unanswerable=0.0, wordings=1))
SMALL = ReadingRecipe(
    vocab_size=800,
    hidden_size=128,
    intermediate_size=128,
    layers=4,
    steps=40,
    warmup=5,
    learning_rate=2e-3,
    step_tokens=1024,
    stages=(EASY,),
    window=256,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from random import Random

    from adapters.reader import NOT_SAID, asked
    from adapters.tiny.exercises import new_exercise

    chance = Random(1)
    texts = [NOT_SAID]
    for _ in range(400):
        exercise = new_exercise(EASY.level, chance)
        texts += [exercise.passages[0].text, *[asked(one.question) for one in exercise.asked]]
    return train_tokenizer(texts, SMALL.vocab_size, lines_apart=True)


def first(tokenizer: Any, recipe: ReadingRecipe) -> Any:
    return next(iter(Batches(tokenizer, recipe, [])))


def test_heads_look_where_they_are_laid_out_to(tokenizer: Any) -> None:
    """Before training: one and two places back in the first layer, and behind the same two tokens in the second."""
    model = new_reader(replace(SMALL, hidden_size=192), tokenizer).eval()
    model.set_attn_implementation("eager")
    ids = torch.randperm(SMALL.vocab_size - 300)[:40] + 300
    twice = torch.cat([ids, ids])[None]
    with torch.no_grad():
        attentions = model(input_ids=twice, output_attentions=True).attentions
    at = torch.arange(10, 80)
    assert float(attentions[0][0, 0, at, at - 1].mean()) > 0.9
    assert float(attentions[0][0, 1, at, at - 2].mean()) > 0.9
    again = torch.arange(45, 79)
    for head in range(2):
        assert float(attentions[1][0, head, again, again - 39].mean()) > 0.7
    for head in (2, 3):
        assert float(attentions[POINTING_LAYER][0, head, again, again - 39].mean()) > 0.2, "chance is below 0.02"


def test_the_loss_equals_one_over_whole_chats(tokenizer: Any) -> None:
    """Of every question by itself, as plain causal attention sees it."""
    recipe = replace(SMALL, step_tokens=256, text_share=0.0)
    model = new_reader(recipe, tokenizer).eval()
    rows = first(tokenizer, recipe)
    with torch.no_grad():
        loss, _, learned, _ = reading_loss(model, rows)
        parts = []
        for row in range(len(rows.ids)):
            for block in range(1, int(rows.block[row].max()) + 1):
                kept = (rows.block[row] == 0) | (rows.block[row] == block)
                logits = model(input_ids=rows.ids[row, kept][None]).logits[0]
                labels = rows.labels[row, kept]
                wanted = labels != NOTHING
                parts.append(torch.nn.functional.cross_entropy(logits[wanted], labels[wanted], reduction="sum"))
    assert float(loss) == pytest.approx(float(sum(parts)) / int(learned.sum()), rel=1e-4)


def test_the_pointing_loss_is_that_of_the_attention_itself(tokenizer: Any) -> None:
    recipe = replace(SMALL, step_tokens=256)
    model = new_reader(recipe, tokenizer).eval()
    rows = first(tokenizer, recipe)
    with torch.no_grad():
        _, (following, opening), _, _ = reading_loss(model, rows)
        model.set_attn_implementation("eager")
        mask = torch.where(rows.seen(), 0.0, torch.finfo(torch.float32).min)
        seen = model(
            input_ids=rows.ids, attention_mask=mask, position_ids=rows.places, output_attentions=True
        ).attentions[POINTING_LAYER]
    losses: dict[bool, list[float]] = {True: [], False: []}
    for row, at in (rows.sources != NOTHING).nonzero().tolist():
        looked = seen[row, :, at, int(rows.sources[row, at])]
        begins = int(rows.answer[row, at]) != int(rows.answer[row, at - 1])
        losses[begins].append(float(-looked.log().mean()))
    for found, wanted in ((opening, losses[True]), (following, losses[False])):
        assert float(found) == pytest.approx(sum(wanted) / len(wanted), rel=1e-3)


def test_a_tiny_reader_learns_where_to_look(tokenizer: Any) -> None:
    """In 40 steps it looks at what is to be copied much more than elsewhere: by chance, among 70 tokens, it is 4.2."""
    told: list[dict[str, float]] = []

    def report(step: int, tokens: int, seconds: float, progress: Progress) -> None:
        if step % 10 == 0:
            told.append(progress.shares())
            progress.clear()

    pairs = replace(EASY, level=replace(EASY.level, facts=(2, 2)))
    train_reader(tokenizer, replace(SMALL, stages=(pairs,)), [], report)
    assert told[-1]["pointing"] < 2.0 and told[-1]["pointing"] < 0.5 * told[0]["pointing"], told
    assert told[-1]["loss"] < 0.85 * told[0]["loss"], told


def test_a_seed_gives_the_same_batches(tokenizer: Any) -> None:
    one, same, other = (first(tokenizer, replace(SMALL, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.ids, same.ids) and one.kinds == same.kinds
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)


@pytest.mark.slow
def test_a_process_apart_writes_the_same_batches_and_two_share_the_steps(tokenizer: Any) -> None:
    recipe = replace(SMALL, steps=4)
    here = list(Batches(tokenizer, recipe, []))
    apart = list(loaded(Batches(tokenizer, recipe, []), 1))
    assert len(here) == len(apart) == 4
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(here, apart, strict=True))
    assert len(list(loaded(Batches(tokenizer, recipe, []), 2))) == 4


def test_stages_follow_one_another_and_the_rate_rises_and_falls() -> None:
    recipe = replace(ReadingRecipe(), steps=1000)
    order = [recipe.stages.index(stage_at(recipe, step)) for step in range(1000)]
    assert order == sorted(order) and set(order) == set(range(len(STAGES)))
    assert order.count(0) == 60
    rates = [rate_at(recipe, step) for step in range(1000)]
    assert rates[0] < rates[25] < rates[49] == rates[700] == 1 > rates[900] > rates[999] > 0


@pytest.mark.parametrize("recipe", [ReadingRecipe(), ON_GPU])
def test_a_recipes_model_is_within_32m_weights_and_64_mb(recipe: ReadingRecipe) -> None:
    attention, inner = 4 * recipe.hidden_size**2, 3 * recipe.hidden_size * recipe.intermediate_size
    weights = recipe.vocab_size * recipe.hidden_size + recipe.layers * (attention + inner)
    assert weights < 32e6 and 2 * weights < 64e6
    assert recipe.hidden_size % recipe.heads == 0


def test_a_saved_reader_loads_as_a_base_that_cannot_read_yet(tokenizer: Any, tmp_path: Path) -> None:
    model = new_reader(SMALL, tokenizer)
    made = {"steps": 1, "tokens": 2, "seconds": 3, "device": "the processor", "shares": {"fact": 0.25}}
    manifest = save_reader(tmp_path / "reader", model, tokenizer, SMALL, [], made)
    base = load_base(str(tmp_path / "reader"))
    assert base.manifest.model_dump(mode="json") == manifest.model_dump(mode="json")
    assert not manifest.can_read and not manifest.can_chat
    assert manifest.parameters == sum(p.numel() for p in model.parameters())
    assert manifest.created["stages"][0]["row_tokens"] == 128
    saved, loaded = model.float().state_dict(), base.model.state_dict()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    card = (tmp_path / "reader" / "README.md").read_text(encoding="utf-8")
    assert "fact 0.25" in card and "Not measured yet" in card


def test_the_command_needs_a_folder_and_good_exercises(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["pretrain", "--reading"]) == 1
    assert "--output" in capsys.readouterr().err
    path = tmp_path / "none.jsonl"
    path.write_text("\n", encoding="utf-8")
    told = ["pretrain", "--reading", "--output", str(tmp_path / "out"), "--exercises", str(path)]
    assert main(told) == 1
    assert "holds no exercise" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--steps", "5"], "--steps would"),
        (["--exercises", "f"], "--exercises would"),
        (["--exercises", "f", "--steps", "5"], "--exercises and --steps would"),
    ],
)
def test_options_of_reading_alone_train_nothing(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the embedded base would be trained anew, into its own place."""
    monkeypatch.setattr("adapters.tiny.build.build_base", lambda *_: pytest.fail("the embedded base is retrained"))
    assert main(["pretrain", *given]) == 1
    assert f"error: {told} do nothing without --reading" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command_makes_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = ["pretrain", "--reading", "--output", str(tmp_path / "out"), "--steps", "12", "--json"]
    assert main([*told, "--desk", str(DEFAULT_DESK)]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["name"] == "switchboard-reader" and made["created"]["steps"] == 12
