"""The desk's choice of an embedder; the embedded one gives the reference's vectors, from the published weights only."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from desk.config import load_desk
from desk.errors import DeskError
from desk.index_file import OpenAISettings, SentenceTransformersSettings
from index.embed import MODEL_NAME, MiniLM, check_weights, model_folder, open_embedder, token_counter
from index.errors import EmbedderError

TEXTS = [
    "How can I reset my password?",
    "A.",
    "The offices are closed from 24 to 31 December. " * 60,
    "na\u00efve caf\u00e9 \u65e5\u672c\u8a9e",
    "VPN with Harbor Link\nSet-up\n1. Open Stowage.",
    "",
]


@pytest.fixture(scope="module")
def model(state_folder: Path) -> MiniLM:
    return MiniLM(state_folder / "models", threads=2)


def test_vectors_equal_the_torch_reference(model: MiniLM) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder(), local_files_only=True)
    bert = AutoModel.from_pretrained(model_folder(), local_files_only=True).eval()
    expected = []
    for text in TEXTS:
        encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = bert(**encoded).last_hidden_state[0]
        mean = states.mean(dim=0)
        expected.append((mean / mean.norm()).numpy())
    found = model.embed_queries(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
    passages = model.embed(TEXTS)
    assert passages.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-5)
    assert ((passages * np.stack(expected)).sum(axis=1) > 0.9999).all()


def test_a_text_has_the_same_vector_alone_and_in_a_batch(model: MiniLM) -> None:
    many = model.embed_queries(TEXTS * 7)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(many[number], model.embed_queries([text])[0], atol=1e-5)


def test_passages_keep_their_order_over_many_batches(model: MiniLM) -> None:
    """Within what bfloat16 may change, and far from any other text's vector."""
    texts = [f"{number} {text}" for number in range(9) for text in TEXTS]
    similarity = model.embed(texts) @ model.embed_queries(texts).T
    assert (similarity.argmax(axis=1) == np.arange(len(texts))).all()
    assert (similarity.diagonal() > 0.9999).all()


def test_no_texts_give_no_vectors(model: MiniLM) -> None:
    assert model.embed([]).shape == model.embed_queries([]).shape == (0, 384)


def test_threads_get_their_own_vectors(model: MiniLM) -> None:
    texts = [f"question number {number} about topic {number * 7}" for number in range(8)]
    expected = model.embed_queries(texts)
    wrong: list[str] = []

    def ask(number: int) -> None:
        for _ in range(5):
            if not np.allclose(model.embed_queries([texts[number]])[0], expected[number], atol=1e-5):
                wrong.append(texts[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_weights_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    with pytest.raises(EmbedderError, match=f"weights of {MODEL_NAME} are missing at .*reinstall"):
        check_weights(weights)
    shutil.copyfile(model_folder() / "model.safetensors", weights)
    check_weights(weights)
    with weights.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\0")
    with pytest.raises(EmbedderError, match=r"does not hold the published weights .* reinstall"):
        check_weights(weights)


@pytest.mark.slow
def test_a_damaged_converted_model_is_made_again(model: MiniLM, state_folder: Path, tmp_path: Path) -> None:
    folder = next((state_folder / "models").glob(f"{MODEL_NAME}-*"))
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    with (copy / "model.bin").open("r+b") as file:
        file.seek(1_000_000)
        file.write(bytes(1000))
    again = MiniLM(tmp_path)
    np.testing.assert_allclose(again.embed_queries(TEXTS[:2]), model.embed_queries(TEXTS[:2]), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    assert token_counter()("passwordless sign-in") == len(["password", "##less", "sign", "-", "in"])


# The choice in desk.yaml


def choose(root: Path, **embedder: object) -> None:
    raw = yaml.safe_load((root / "desk.yaml").read_text(encoding="utf-8"))
    raw["index"] = {"embedder": embedder}
    (root / "desk.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


SERVICE = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "small-1", "dimensions": 16}


def test_minilm_is_what_a_desk_gets_that_says_nothing(desk: Path, state_folder: Path) -> None:
    settings = replace(load_desk(desk).index, models=state_folder / "models")
    assert settings.embedder is None
    assert open_embedder(settings).name == f"{MODEL_NAME}@53aa51172d14"
    choose(desk, kind="minilm")
    assert load_desk(desk).index.embedder is None


def test_a_model_of_sentence_transformers_is_a_folder_of_the_desk_or_an_id(desk: Path) -> None:
    choose(desk, kind="sentence-transformers", model="models/tiny", download=True)
    (desk / "models" / "tiny").mkdir(parents=True)
    settings = load_desk(desk).index
    assert settings.embedder == SentenceTransformersSettings(str((desk / "models" / "tiny").resolve()), True)
    with pytest.raises(EmbedderError, match="no weights in safetensors"):
        open_embedder(settings)
    choose(desk, kind="sentence-transformers", model="example/no-such-model")
    assert load_desk(desk).index.embedder == SentenceTransformersSettings("example/no-such-model", False)
    choose(desk, kind="sentence-transformers", model="./models/absent")
    with pytest.raises(DeskError, match=r"index\.embedder\.model is '\./models/absent', but there is no folder"):
        load_desk(desk)


def test_a_service_is_asked_as_the_desk_says(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_EMBEDDING_KEY", " sk-very-secret ")
    choose(desk, **SERVICE, key="MY_EMBEDDING_KEY", batch=7, tokens=512, query_task="q", passage_task="p")
    settings = load_desk(desk).index
    expected = OpenAISettings("http://127.0.0.1:9/v1", "small-1", "sk-very-secret", 16, 7, 512, "q", "p")
    assert settings.embedder == expected
    assert "sk-very-secret" not in repr(load_desk(desk))
    assert open_embedder(settings).name == "small-1 (16 p) at 127.0.0.1:9"


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "na\u00efve"])
def test_a_key_that_is_none_stops_the_start_unseen(desk: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MY_EMBEDDING_KEY", value)
    choose(desk, **SERVICE, key="MY_EMBEDDING_KEY")
    with pytest.raises(DeskError, match="environment variable MY_EMBEDDING_KEY, which") as caught:
        load_desk(desk)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("embedder", "words"),
    [
        ({"kind": "word2vec"}, "'index.embedder.kind'"),
        ({"kind": "minilm", "model": "a/b"}, "model cannot be set with kind minilm"),
        ({"kind": "openai", "url": "https://example.org/v1"}, "kind openai needs model"),
        ({"kind": "openai", "model": "m", "url": " "}, "kind openai needs url"),
        ({"kind": "sentence-transformers"}, "kind sentence-transformers needs model"),
        ({**SERVICE, "download": True}, "download cannot be set with kind openai"),
        ({**SERVICE, "batch": 0}, "'index.embedder.batch'"),
        ({**SERVICE, "url": "example.org/v1"}, "url must be http(s)://HOST"),
        ({**SERVICE, "url": "ftp://example.org/v1"}, "url must be http(s)://HOST"),
        ({**SERVICE, "url": "https://example.org:port/v1"}, "url must be http(s)://HOST"),
        ({**SERVICE, "url": "https://me:hidden@example.org/v1"}, "url must be http(s)://HOST"),
        ({**SERVICE, "url": "https://example.org/v1?key=hidden"}, "url must be http(s)://HOST"),
        ({**SERVICE, "key": "sk-hidden"}, "'index.embedder.key'"),
        ({**SERVICE, "key": "jina_hidden"}, "'index.embedder.key'"),
    ],
)
def test_a_choice_that_does_not_fit_is_explained(desk: Path, embedder: dict[str, object], words: str) -> None:
    choose(desk, **embedder)
    with pytest.raises(DeskError) as caught:
        load_desk(desk)
    assert words in str(caught.value) and "hidden" not in str(caught.value)
