"""A tiny cross-encoder with random weights reorders hits by exactly what its model says."""

from pathlib import Path

import numpy as np
import pytest
from fakes import HashEmbedder, hit

from desk.settings import IndexSettings
from index.errors import EmbedderError
from index.library import Library
from index.rerank import CrossEncoderReranker, rerank

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pear", "ship", "when", "sail", "grow", "tree", "title", "a"]


def save_cross_encoder(folder: Path, outputs: int) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=outputs,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def test_scores_equal_the_models_own_and_order_the_hits(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save_cross_encoder(tmp_path / "model", outputs=1)
    reranker = CrossEncoderReranker(str(folder))
    texts = ["pear tree", "ship sail when", "grow a tree", "a a sail", "when pear"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        batch = tokenizer(["when grow"] * 5, texts, padding=True, return_tensors="pt")
        exact = torch.sigmoid(model(**batch).logits[:, 0]).numpy()
    assert len(set(exact.round(4))) == 5
    np.testing.assert_allclose(reranker.score("when grow", texts), exact, atol=1e-5)
    assert reranker.score("when grow", []).shape == (0,)

    hits = [hit(text, path=f"{number}.md") for number, text in enumerate(texts)]
    wanted = [f"{one.title}\n{one.passage.section}\n{one.passage.text}" for one in hits]
    values = reranker.score("when grow", wanted)
    ranked = rerank(hits, "when grow", reranker)
    assert [one.path for one in ranked] == [f"{number}.md" for number in np.argsort(-values, kind="stable")]
    assert [one.score for one in ranked] == pytest.approx(sorted(values.tolist(), reverse=True))
    head = rerank(hits, "when grow", reranker, n=2)
    assert {one.path for one in head[:2]} == {"0.md", "1.md"}
    assert [one.path for one in head[2:]] == ["2.md", "3.md", "4.md"]
    assert head[1].score >= head[2].score
    assert rerank([], "when grow", reranker) == []


def test_a_model_that_is_not_here_or_judges_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match="no cross-encoder"):
        CrossEncoderReranker(str(tmp_path / "nothing"))
    with pytest.raises(EmbedderError, match="has 3 outputs"):
        CrossEncoderReranker(str(save_cross_encoder(tmp_path / "three", outputs=3)))


def test_a_library_with_a_reranker_orders_its_best_hits_by_it(tmp_path: Path) -> None:
    documents = tmp_path / "desk" / "documents"
    documents.mkdir(parents=True)
    for number, text in enumerate(("pear tree", "ship sail when", "grow a tree", "when pear")):
        (documents / f"{number}.txt").write_text(text)
    model = str(save_cross_encoder(tmp_path / "model", outputs=1))
    settings = IndexSettings(documents, tmp_path / "state", tmp_path / "models", 60, 5, 1, 1, reranker=model)
    library = Library.open(settings, HashEmbedder())
    library.build()
    question = "when grow"
    vector = library.embedder.embed_queries([question])[0]
    found = library.search(question, vector, 3, frozenset({"desk"})).hits
    read = [f"{info.title}\n\n{(documents / Path(info.path).name).read_text()}" for info in library.documents()]
    exact = sorted(CrossEncoderReranker(model).score(question, read), reverse=True)
    assert [hit.score for hit in found] == pytest.approx(exact[:3], abs=1e-5)
    library.close()
