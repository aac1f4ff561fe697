"""Token vectors: the embedding model's own, adapted, each at its place in the text."""

from pathlib import Path

import numpy as np
import pytest

from index.embed_minilm import MiniLM, load_bert
from index.token_vectors import LORA_SCALE, TokenReader

TEXT = "The clinic opens at eight. It closes at noon."


@pytest.fixture(scope="module")
def reader(state_folder: Path) -> TokenReader:
    return TokenReader(state_folder / "models", {})


def test_without_factors_the_mean_of_all_tokens_points_where_the_embedding_does(
    reader: TokenReader, state_folder: Path
) -> None:
    texts = [TEXT, "short", ""]
    embedded = MiniLM(state_folder / "models").embed_queries(texts)
    import torch

    bert = load_bert()
    for text, expected, read in zip(texts, embedded, reader.read(texts), strict=True):
        from index.embed_minilm import tokenizer

        ids = torch.tensor([tokenizer().encode(text).ids])
        with torch.no_grad():
            states = bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
        mean = states.mean(0)
        assert mean / np.linalg.norm(mean) @ expected == pytest.approx(1, abs=1e-5)
        directions = states / np.linalg.norm(states, axis=1, keepdims=True)
        assert read.vectors == pytest.approx(directions, abs=1e-4)


def test_starts_are_those_of_the_words(reader: TokenReader) -> None:
    starts = reader.read([TEXT])[0].starts
    assert starts[0] == starts[-1] == -1
    words = {start for start in starts[1:-1].tolist() if start == 0 or TEXT[start - 1] == " "}
    assert words == {0, *(place + 1 for place, letter in enumerate(TEXT) if letter == " ")}


def test_a_long_text_is_read_up_to_256_tokens_and_keeps_its_order(reader: TokenReader) -> None:
    long, short = reader.read(["word " * 400, "word"])
    assert len(long.vectors) == len(long.starts) == 256
    assert long.starts[1:-1].tolist() == [5 * place for place in range(254)]
    assert len(short.vectors) == 3


def test_factors_change_the_projection_that_they_name(state_folder: Path, tmp_path: Path) -> None:
    import torch

    from index.embed_minilm import tokenizer

    random = np.random.default_rng(3)
    name = "encoder.layer.5.output.dense"
    factors = {
        f"{name}.A": random.normal(size=(1536, 4), scale=0.02).astype(np.float32),
        f"{name}.B": random.normal(size=(4, 384), scale=0.02).astype(np.float32),
    }
    read = TokenReader(tmp_path, factors).read([TEXT])[0]
    bert = load_bert()
    with torch.no_grad():
        change = torch.tensor(factors[f"{name}.A"]) @ torch.tensor(factors[f"{name}.B"]) * LORA_SCALE
        bert.get_submodule(name).weight += change.T
        ids = torch.tensor([tokenizer().encode(TEXT).ids])
        states = bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
    assert read.vectors == pytest.approx(states / np.linalg.norm(states, axis=1, keepdims=True), abs=1e-4)
