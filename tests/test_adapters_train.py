"""The recipe trains exactly the four fused projections, writes a complete adapter, and pre-training repeats."""

import json
from pathlib import Path

import numpy as np
import pytest
from adapters_small import SHAPE, make_base, make_settings, quick_training

from adapters.answer import confidence
from adapters.base import load_base
from adapters.config import AdapterFile, AdapterManifest, TrainingSettings, read_adapter_file, read_manifest
from adapters.dataset import Example
from adapters.engine import Engine, Message, Sampling
from adapters.errors import DatasetError
from adapters.train import attach_lora, exact_share, next_version, run_sft, train_adapter
from tests.fakes import HashEmbedder

ROWS = [
    Example(question, answer)
    for answer, questions in {
        "Reseat the cable.": ("my screen flickers", "screen is flashing", "the screen blinks"),
        "Open the cover.": ("the printer jams", "paper is stuck in the printer", "printer eats paper"),
    }.items()
    for question in questions
]
FILE = AdapterFile(title="Small", domain="Two faults", training=quick_training(epochs=60, learning_rate=1e-2))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    make_base(folder / "base")
    return folder


@pytest.fixture(scope="module")
def manifest(root: Path) -> AdapterManifest:
    """Of the adapter `small`, trained on ROWS."""
    return train_adapter("small", FILE, ROWS, load_base(str(root / "base")), root / "trained" / "small", threads=1)


def test_lora_sits_on_the_four_fused_projections_and_nothing_else_learns(root: Path) -> None:
    model = attach_lora(load_base(str(root / "base")).model, TrainingSettings(r=4, lora_alpha=8))
    learning = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    modules = {name.split(".lora_")[0].split("layers.")[1] for name in learning}
    assert modules == {
        f"{layer}.{module}"
        for layer in range(2)
        for module in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    }
    hidden, inner, r = 32, 48, 4
    a_layer = r * ((hidden + 3 * hidden) + (hidden + hidden) + (hidden + 2 * inner) + (inner + hidden))
    assert sum(learning.values()) == 2 * a_layer


def test_training_leaves_every_weight_of_the_base_as_it_was(root: Path, tmp_path: Path) -> None:
    import torch

    loaded = load_base(str(root / "base"))
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    model = attach_lora(loaded.model, quick_training())
    run_sft(model, loaded.tokenizer, ROWS, quick_training(), tmp_path)
    after = {name.replace(".base_layer", ""): weight for name, weight in loaded.model.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_trained_adapter_is_complete_served_and_knows_its_answers(root: Path, manifest: AdapterManifest) -> None:
    output = root / "trained" / "small"
    assert manifest == read_manifest(output / "manifest.json", AdapterManifest)
    assert sorted(path.name for path in output.iterdir() if path.suffix in {".json", ".safetensors"}) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "losses.json",
        "manifest.json",
        "split.json",
    ]
    assert str(root) not in (output / "adapter_config.json").read_text()
    assert [path.name for path in output.parent.iterdir()] == ["small"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in output.iterdir()), "readable by a service's own user"
    engine = Engine(make_settings(root))
    engine.start()
    try:
        engine.wait_ready(60)
        asked = [Message("user", "my screen flickers")]
        assert "".join(engine.stream(asked, "small")) == "Reseat the cable."
        assert "".join(engine.stream(asked, None)) != "Reseat the cable."
    finally:
        engine.close()


def test_the_weights_are_stored_in_sixteen_bits(root: Path) -> None:
    import torch
    from safetensors.torch import load_file

    for path in (root / "base").glob("*.safetensors"):
        assert {weight.dtype for weight in load_file(path).values()} == {torch.bfloat16}


def test_the_same_seed_trains_the_same_loss_and_another_seed_another(root: Path, tmp_path: Path) -> None:
    def loss(seed: int, run: str) -> float:
        loaded = load_base(str(root / "base"))
        settings = quick_training(seed=seed)
        live = run_sft(attach_lora(loaded.model, settings), loaded.tokenizer, ROWS, settings, tmp_path / run)
        return live.training[-1][1]

    assert loss(1, "a") == loss(1, "b") != loss(2, "c")


def test_exact_share_counts_whole_answers(root: Path) -> None:
    loaded = load_base(str(root / "base"))
    engine = Engine(make_settings(root, trained=root / "none"))
    engine.start()
    try:
        engine.wait_ready(60)
        said = "".join(engine.stream([Message("user", "hello")], None, Sampling(max_tokens=8)))
    finally:
        engine.close()
    rows = [Example("hello", said), Example("hello", said + "."), Example("hello", said), Example("a longer one", "")]
    assert exact_share(loaded.model, loaded.tokenizer, rows, 8) == pytest.approx(2 / 4)


@pytest.mark.usefixtures("manifest")
def test_scoring_side_by_side_gives_what_serving_gives(root: Path) -> None:
    """With the adapter, prompts of several lengths, one far longer than the window."""
    from adapters.evaluate import load_adapter

    loaded = load_adapter(make_settings(root), "small")
    prompts = ["my screen flickers", "the printer jams again, and nobody on this floor knows why", "paper " * 400]
    together = loaded.decoder.replies(prompts, loaded.weights, 8, 32)
    engine = Engine(make_settings(root))
    engine.start()
    alone = []
    try:
        for prompt in prompts:
            stream = engine.stream([Message("user", prompt)], "small", Sampling(max_tokens=8))
            alone.append(("".join(stream), confidence(stream.logprobs)))
    finally:
        engine.close()
    assert [reply.text for reply in together] == [text for text, _ in alone]
    assert [reply.confidence for reply in together] == pytest.approx([sure for _, sure in alone], rel=1e-4)
    assert together[0].text == "Reseat the cable."
    assert all(0.0 < reply.confidence <= 1.0 for reply in together)


def test_an_adapter_that_cannot_be_scored_says_why(root: Path) -> None:
    from adapters.errors import AdapterError
    from adapters.evaluate import load_adapter

    with pytest.raises(AdapterError, match="absent is not trained yet"):
        load_adapter(make_settings(root), "absent")


def test_versions_count_up(root: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert next_version("small", settings) == 1
    output = settings.trained / "small"
    quick = FILE.model_copy(update={"training": quick_training(epochs=1)})
    train_adapter("small", quick, ROWS, load_base(str(root / "base")), output, version=4, threads=1)
    assert next_version("small", settings) == 5


def test_an_adapter_file_with_a_wrong_key_names_it(tmp_path: Path) -> None:
    path = tmp_path / "adapter.yaml"
    path.write_text("title: A\ndomain: B\ncolour: red\n")
    with pytest.raises(DatasetError, match="colour: Extra inputs are not permitted"):
        read_adapter_file(path)
    path.write_text("title: A\ndomain: B\ntraining: {r: 0}\n")
    with pytest.raises(DatasetError, match=r"training.r: Input should be greater than or equal to 1"):
        read_adapter_file(path)


def make_corpus(desk: Path) -> None:
    (desk / "documents").mkdir(parents=True)
    (desk / "pretraining").mkdir()
    (desk / "documents" / "a.md").write_text("# Screens\n\nReseat the **cable** first.\n")
    (desk / "documents" / "b.html").write_text("<style>p{}</style><h1>Paper</h1><p>Open the cover.</p>")
    (desk / "documents" / "c.csv").write_text("item,price\ndock,219\n")
    groups = [["my screen flickers", "display flashing", "monitor blinks"], ["paper stuck", "printer jam"]]
    (desk / "pretraining" / "restatements.jsonl").write_text("".join(json.dumps({"texts": g}) + "\n" for g in groups))
    chat = [{"role": "user", "content": "Hello, my dock?"}, {"role": "assistant", "content": "Which dock?"}]
    (desk / "pretraining" / "dialogues.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    (desk / "pretraining" / "glossary.txt").write_text("dock: a box that joins a laptop to screens\n")


def test_the_corpus_is_the_desks_texts_without_markup_and_never_an_adapters_rows(tmp_path: Path) -> None:
    from adapters.tiny.corpus import read_corpus

    make_corpus(tmp_path)
    (tmp_path / "adapters" / "x").mkdir(parents=True)
    (tmp_path / "adapters" / "x" / "train.jsonl").write_text('{"prompt": "pear", "completion": "plum"}\n')
    corpus = read_corpus(tmp_path)
    assert corpus.documents == (
        "Screens\nReseat the cable first.",
        "Paper\nOpen the cover.",
        "item: dock, price: 219",
    )
    assert corpus.glossary == (("dock", "a box that joins a laptop to screens"),)
    assert [len(group) for group in corpus.restatements] == [3, 2]
    assert not any("pear" in text or "plum" in text for text in corpus.texts)


def test_a_bad_pretraining_row_is_named(tmp_path: Path) -> None:
    from adapters.tiny.corpus import read_corpus

    make_corpus(tmp_path)
    path = tmp_path / "pretraining" / "restatements.jsonl"
    path.write_text(path.read_text() + '{"texts": ["alone"]}\n')
    with pytest.raises(DatasetError, match=r"restatements.jsonl, line 3"):
        read_corpus(tmp_path)


def test_pretraining_repeats_and_its_loss_falls(tmp_path: Path) -> None:
    from dataclasses import replace

    from adapters.tiny.corpus import read_corpus
    from adapters.tiny.lessons import write_lessons
    from adapters.tiny.pretrain import train_base
    from adapters.tiny.tokenizer import train_tokenizer

    make_corpus(tmp_path)
    corpus = read_corpus(tmp_path)
    recipe = replace(SHAPE, vocab_size=420, steps=60, questions=8, lessons=30, texts=4, text_tokens=24)
    tokenizer = train_tokenizer(corpus.texts, recipe.vocab_size)
    lessons = write_lessons(corpus, HashEmbedder().embed, recipe.lessons, recipe.seed)

    def losses() -> dict[str, list[float]]:
        seen: dict[str, list[float]] = {"text": [], "meaning": []}

        def keep(step: int, figures: dict[str, float]) -> None:
            for name, values in seen.items():
                values.append(figures[name])

        train_base(corpus, lessons, tokenizer, recipe, keep)
        return seen

    first = losses()
    assert losses() == first
    for name, values in first.items():
        assert sum(values[-5:]) < 0.8 * sum(values[:5]), name


def test_lessons_are_seeded_unit_vectors_and_restatements_lean_towards_their_group(tmp_path: Path) -> None:
    from adapters.tiny.corpus import read_corpus
    from adapters.tiny.lessons import write_lessons

    make_corpus(tmp_path)
    corpus = read_corpus(tmp_path)
    lessons = write_lessons(corpus, HashEmbedder().embed, 200, 1)
    again = write_lessons(corpus, HashEmbedder().embed, 200, 1)
    assert len(lessons.texts) == 200 and lessons.texts == again.texts
    assert np.array_equal(lessons.targets, again.targets)
    assert np.allclose(np.linalg.norm(lessons.targets, axis=1), 1, atol=1e-5)
    assert write_lessons(corpus, HashEmbedder().embed, 200, 2).texts != lessons.texts
    targets = dict(zip(lessons.texts, lessons.targets, strict=True))
    first, second = ([text for text in group if text in targets] for group in corpus.restatements[:2])
    inside = float(targets[first[0]] @ targets[first[1]])
    assert inside > float(targets[first[0]] @ targets[second[0]])


def test_the_base_is_built_from_a_desk_and_repeats(tmp_path: Path) -> None:
    from dataclasses import replace

    from adapters.tiny.build import build_base
    from adapters.tiny.corpus import read_corpus

    make_corpus(tmp_path / "desk")
    recipe = replace(SHAPE, vocab_size=420, steps=3, questions=4, lessons=20, texts=4, text_tokens=24)
    first = build_base(tmp_path / "desk", tmp_path / "one", recipe, 1)
    again = build_base(tmp_path / "desk", tmp_path / "two", recipe, 1)
    assert first == again
    other = build_base(tmp_path / "desk", tmp_path / "three", recipe, 1, HashEmbedder().embed)
    assert first.weights_hash != other.weights_hash, "the teacher does not reach the weights"
    assert first.created["corpus_hash"] == read_corpus(tmp_path / "desk").fingerprint
    assert load_base(str(tmp_path / "one")).manifest == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["desk", "one", "three", "two"]


@pytest.mark.usefixtures("manifest")
def test_the_level_gives_up_a_twentieth_of_the_right_answers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters import evaluate

    loaded = evaluate.load_adapter(make_settings(root), "small")
    prompts = [f"my screen flickers, number {number}" for number in range(24)]
    replies = loaded.decoder.replies(prompts, loaded.weights, 8, 32)
    rows = [Example(prompt, reply.text) for prompt, reply in zip(prompts, replies, strict=True)]
    rows[3] = Example(rows[3].prompt, "something else")
    with pytest.raises(DatasetError, match="Only 23 of 24 validation rows of small are answered right"):
        evaluate.calibrate(loaded, "small", rows, 8)
    monkeypatch.setattr(evaluate, "LEAST_ROWS", 20)
    found = evaluate.calibrate(loaded, "small", rows, 8)
    right = sorted(reply.confidence for place, reply in enumerate(replies) if place != 3)
    assert found.level == pytest.approx(right[1], abs=1e-4)
    assert found.right_below <= 2 / 23
    assert found.wrong_below == float(replies[3].confidence < found.level)
