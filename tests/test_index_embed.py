"""The converted model gives the reference's vectors, and only from the published weights."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from index.embed import MODEL_NAME, MiniLM, check_weights, model_folder, token_counter
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
    found = model.embed(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)


def test_a_text_has_the_same_vector_alone_and_in_a_batch(model: MiniLM) -> None:
    many = model.embed(TEXTS * 7)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(many[number], model.embed([text])[0], atol=1e-5)


def test_no_texts_give_no_vectors(model: MiniLM) -> None:
    assert model.embed([]).shape == (0, 384)


def test_threads_get_their_own_vectors(model: MiniLM) -> None:
    texts = [f"question number {number} about topic {number * 7}" for number in range(8)]
    expected = model.embed(texts)
    wrong: list[str] = []

    def ask(number: int) -> None:
        for _ in range(5):
            if not np.allclose(model.embed([texts[number]])[0], expected[number], atol=1e-5):
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
    np.testing.assert_allclose(again.embed(TEXTS[:2]), model.embed(TEXTS[:2]), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    assert token_counter()("passwordless sign-in") == len(["password", "##less", "sign", "-", "in"])
