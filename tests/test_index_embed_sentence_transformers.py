"""A tiny sentence-transformers model with random weights, saved and read again: its vectors, its prompts, its name."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from index.embed_sentence_transformers import SentenceTransformerEmbedder
from index.errors import EmbedderError

WORDS = [
    "query",
    "passage",
    ":",
    "the",
    "a",
    "of",
    "desk",
    "phone",
    "printer",
    "password",
    "reset",
    "holiday",
    "travel",
    ".",
    "?",
    ",",
    "##s",
    "##ing",
]
TEXTS = ["reset the password", "a printer of the desk ?", "holiday travel " * 40, "phones", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with prompts for queries and documents."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path_factory.mktemp("models")
    bert, saved = root / "bert", root / "tiny-bert"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), encoding="utf-8")
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    torch.manual_seed(7)
    shape = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(shape).save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=48)
    prompts = {"query": "query : ", "document": "passage : "}
    SentenceTransformer(modules=[transformer, Pooling(32)], prompts=prompts, device="cpu").save(str(saved))
    return saved


@pytest.fixture(scope="module")
def embedder(folder: Path) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(folder))


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    """The vectors by transformers alone: mean of the last states, scaled to length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            encoded = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
            mean = bert(**encoded).last_hidden_state[0].mean(dim=0)
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def test_passages_are_read_after_the_models_own_prompt(folder: Path, embedder: SentenceTransformerEmbedder) -> None:
    found = embedder.embed(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), embedder.dimension) == (5, 32)
    np.testing.assert_allclose(found, reference(folder, [f"passage : {text}" for text in TEXTS]), atol=1e-5)


def test_questions_are_read_after_theirs(folder: Path, embedder: SentenceTransformerEmbedder) -> None:
    found = embedder.embed_queries(TEXTS)
    np.testing.assert_allclose(found, reference(folder, [f"query : {text}" for text in TEXTS]), atol=1e-5)
    assert not np.allclose(found, embedder.embed(TEXTS), atol=1e-2)


def test_no_texts_give_no_vectors(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.embed([]).shape == embedder.embed_queries([]).shape == (0, 32)


def test_threads_get_their_own_vectors(embedder: SentenceTransformerEmbedder) -> None:
    expected = embedder.embed(TEXTS)
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(5):
            if not np.allclose(embedder.embed([TEXTS[number]])[0], expected[number], atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(TEXTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_name_follows_the_contents_not_the_place(
    folder: Path, embedder: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    assert embedder.name.startswith("tiny-bert@")
    assert SentenceTransformerEmbedder(str(copy)).name == embedder.name
    weights = load_file(copy / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 0.001
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    changed = SentenceTransformerEmbedder(str(copy)).name
    assert changed.startswith("tiny-bert@") and changed != embedder.name


def test_another_prompt_is_another_model(folder: Path, embedder: SentenceTransformerEmbedder, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    settings = copy / "config_sentence_transformers.json"
    raw = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**raw, "prompts": {"query": "", "document": ""}}), encoding="utf-8")
    assert SentenceTransformerEmbedder(str(copy)).name != embedder.name


def test_code_that_comes_with_a_model_does_not_run(folder: Path, tmp_path: Path) -> None:
    copy, trace = tmp_path / "hostile", tmp_path / "it-ran"
    shutil.copytree(folder, copy)
    (copy / "evil.py").write_text(
        f"open({str(trace)!r}, 'w').close()\nfrom sentence_transformers.models import Pooling as Evil\n",
        encoding="utf-8",
    )
    modules = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    modules[-1]["type"] = "evil.Evil"
    (copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(EmbedderError, match=r"hostile in .* cannot be read .* code of its own"):
        SentenceTransformerEmbedder(str(copy))
    assert not trace.exists()


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(EmbedderError, match="no weights in safetensors"):
        SentenceTransformerEmbedder(str(copy))


def test_damaged_weights_are_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(EmbedderError, match=r"damaged in .* cannot be read"):
        SentenceTransformerEmbedder(str(copy))


def test_weights_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "nan"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    spoilt = {name: np.full_like(rows, np.nan) for name, rows in weights.items()}
    save_file(spoilt, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedderError, match="no numbers"):
        SentenceTransformerEmbedder(str(copy)).embed(["a desk"])


def test_a_model_that_is_not_here_is_not_downloaded_unasked() -> None:
    with pytest.raises(
        EmbedderError, match=r"example/no-such-model is not on this machine: .*index\.embedder\.download"
    ):
        SentenceTransformerEmbedder("example/no-such-model")


def test_a_model_of_the_hub_is_read_from_this_machines_copy(
    folder: Path, embedder: SentenceTransformerEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    revision = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--example--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision, encoding="utf-8")
    shutil.copytree(folder, cached / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = SentenceTransformerEmbedder("example/tiny")
    assert found.name == f"example/tiny@{embedder.name.split('@')[1]}"
    np.testing.assert_allclose(found.embed(TEXTS), embedder.embed(TEXTS), atol=1e-6)
