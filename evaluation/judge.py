"""Fits the judge of sentences (chains/judge.py) on questions of this project's own making: evaluation/reading.

First LoRA on the embedding model: in each step two groups of three neighbouring passages, whose sentences all compete
for each of their questions, and "none" with them. Every fifth group is held out; what a search finds for its questions
then gives the weights of the features, since the likeness is as good there as on any text.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chains.judge import FEATURES, SHARPNESS, Floats, Head, Judge, write_judge
from chains.refusal import REFUSAL_FEATURES, RefusalHead, fit_refusal
from desk.settings import IndexSettings
from evaluation.answers import QuestionRow, holds_answer, read_questions
from evaluation.beir import CorpusRow, read_rows
from evaluation.corpus import COLLECTIONS, corpus_of, document_of
from index.chunk import embedded_text, sentences
from index.document import SearchResult
from index.embed import Embedder, open_embedder
from index.embed_minilm import load_bert, tokenizer
from index.search import search
from index.token_vectors import LORA_SCALE, TokenReader

READING = Path(__file__).with_name("reading")
SETS = ("general", "handbook")
TOGETHER = 3
"""Neighbouring passages of a group: they treat the same matter."""
HELD_OUT = 5
"""Every fifth group is held out from LoRA."""
GROUPS = 2
RANK = 16
DROPOUT = 0.2
LEARNING_RATE = 6e-4
EPOCHS = 3
"""Of the held-out questions, by the whole judge, the first sentence answers 71%, 72% and 71% after 2, 3 and 6 (the last
at another learning rate): with so few questions it overfits soon."""
PENALTY = 1e-3
FOLDS = 5
SEED = 0
PROJECTIONS = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)
"""What is adapted in each of the six layers."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring passages and their questions."""

    passages: tuple[CorpusRow, ...]
    questions: tuple[QuestionRow, ...]


def read_groups(name: str) -> list[Group]:
    """The groups of a set in evaluation/reading, in order; questions stand beside the passage they were asked of."""
    passages = list(read_rows(READING / f"{name}-corpus.jsonl", CorpusRow))
    questions = read_questions(READING / f"{name}-questions.jsonl")
    place = {row.id: number for number, row in enumerate(passages)}
    of: list[list[QuestionRow]] = [[] for _ in passages]
    last = 0
    for row in questions:  # an unanswerable one follows those of its passage
        last = place[row.passage_id] if row.passage_id else last
        of[last].append(row)
    return [
        Group(
            tuple(passages[first : first + TOGETHER]),
            tuple(row for rows in of[first : first + TOGETHER] for row in rows),
        )
        for first in range(0, len(passages), TOGETHER)
    ]


def split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Those to fit on, and those held out."""
    return (
        [group for place, group in enumerate(groups) if place % HELD_OUT],
        [group for place, group in enumerate(groups) if not place % HELD_OUT],
    )


class LateInteraction:
    """The embedding model with low-rank factors to train, and the importance of a question's tokens (torch)."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(SEED)
        self.bert = load_bert()
        for parameter in self.bert.parameters():
            parameter.requires_grad_(False)
        self.factors: dict[str, Any] = {}
        for layer in range(len(self.bert.encoder.layer)):
            for projection in PROJECTIONS:
                name = f"encoder.layer.{layer}.{projection}"
                self._adapt(name, self.bert.get_submodule(name))
        self.importance = torch.nn.Parameter(torch.zeros(self.bert.config.hidden_size))
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        self.none = torch.nn.Parameter(torch.tensor(10.0))

    def _adapt(self, name: str, module: Any) -> None:
        import torch

        low = torch.nn.Parameter(torch.randn(module.in_features, RANK) * module.in_features**-0.5)
        high = torch.nn.Parameter(torch.zeros(RANK, module.out_features))
        self.factors[f"{name}.A"], self.factors[f"{name}.B"] = low, high

        def adapted(module: Any, inputs: Any, output: Any) -> Any:
            dropped = torch.nn.functional.dropout(inputs[0], DROPOUT, self.bert.training)
            return output + dropped @ low @ high * LORA_SCALE

        module.register_forward_hook(adapted)

    def encode(self, texts: Sequence[str]) -> tuple[list[Any], Any, Any]:
        """Encodings, mask `(n, width)` and unit vectors `(n, width, d)`."""
        import torch

        encodings = tokenizer().encode_batch(list(texts))
        width = max(len(one.ids) for one in encodings)
        ids = torch.zeros(len(encodings), width, dtype=torch.long)
        mask = torch.zeros(len(encodings), width, dtype=torch.long)
        for place, one in enumerate(encodings):
            ids[place, : len(one.ids)] = torch.tensor(one.ids)
            mask[place, : len(one.ids)] = 1
        with torch.autocast("cpu", torch.bfloat16):
            states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return encodings, mask, torch.nn.functional.normalize(states.float(), dim=-1)

    def scores(self, groups: Sequence[Group]) -> tuple[Any, Any]:
        """`(questions, sentences + 1)` logits, the last for none, and which of them are right (bool)."""
        import torch

        passages = [row for group in groups for row in group.passages]
        questions = [row for group in groups for row in group.questions]
        texts = [embedded_text(row.title or "", "", row.text) for row in passages]
        encodings, _, states = self.encode(texts)
        owner = torch.full(states.shape[:2], -1, dtype=torch.long)
        spoken: list[tuple[str, str]] = []
        for place, (row, text) in enumerate(zip(passages, texts, strict=True)):
            starts = np.array([start for start, _ in encodings[place].offsets[:-1]])
            spans = sentences(row.text, len(text) - len(row.text))
            begins = [*np.searchsorted(starts[1:], [start for start, _ in spans]) + 1, len(starts)]
            for number, (start, end) in enumerate(spans):
                owner[place, begins[number] : begins[number + 1]] = len(spoken)
                spoken.append((row.id, text[start:end]))
        inside = owner.flatten() >= 0
        tokens, owners = states.flatten(0, 1)[inside], owner.flatten()[inside]
        _, mask, asked = self.encode([row.question for row in questions])
        weights = torch.softmax(asked @ self.importance * SHARPNESS + (mask - 1) * 1e4, -1)
        cosine = asked @ tokens.T
        lowest = torch.full((*cosine.shape[:2], len(spoken)), -1.0)
        nearest = lowest.scatter_reduce(2, owners.expand(cosine.shape), cosine, "amax")
        logits = (weights[:, :, None] * nearest).sum(1) * self.scale
        right = [
            [*(row.passage_id == passage and holds_answer(row, text) for passage, text in spoken), not row.answerable]
            for row in questions
        ]
        return torch.cat([logits, self.none.expand(len(questions), 1)], 1), torch.tensor(right)


def fit_lora(groups: Sequence[Group], held_out: Sequence[Group] = ()) -> LateInteraction:
    """Trains on the groups; tells standard error how many first sentences of `held_out` are right after each round."""
    import torch

    model = LateInteraction()
    order = np.random.default_rng(SEED)
    steps = math.ceil(len(groups) / GROUPS)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.factors.values()), "lr": LEARNING_RATE, "weight_decay": 0.01},
            {"params": [model.importance], "lr": 2 * LEARNING_RATE},
            {"params": [model.scale, model.none], "lr": 50 * LEARNING_RATE},
        ]
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 15) * max(0.02, 1 - step / (EPOCHS * steps))
    )
    for epoch in range(EPOCHS):
        model.bert.train()
        shuffled = [groups[place] for place in order.permutation(len(groups))]
        losses = []
        for first in range(0, len(shuffled), GROUPS):
            logits, right = model.scores(shuffled[first : first + GROUPS])
            known = right.any(1)
            chances = torch.log_softmax(logits[known], 1).masked_fill(~right[known], -math.inf)
            loss = -torch.logsumexp(chances, 1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(list(model.factors.values()), 1.0)
            optimizer.step()
            rate.step()
            losses.append(loss.item())
        told = f"; held out: {first_right(model, held_out):.1%} right at once" if held_out else ""
        print(f"round {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.3f}{told}", file=sys.stderr, flush=True)
    model.bert.eval()
    return model


def first_right(model: LateInteraction, groups: Sequence[Group]) -> float:
    """The share of the groups' answerable questions whose likeliest sentence answers, by likeness alone."""
    import torch

    model.bert.eval()
    hits = []
    with torch.no_grad():
        for first in range(0, len(groups), GROUPS):
            logits, right = model.scores(groups[first : first + GROUPS])
            asked = right[:, :-1].any(1)
            best = logits[:, :-1].argmax(1, keepdim=True)
            hits += right.gather(1, best)[asked, 0].tolist()
    return float(np.mean(hits))


@dataclass(frozen=True, slots=True)
class Searched:
    """A question with what a search finds for it, and which sentences of the hits, in order, answer it."""

    row: QuestionRow
    found: SearchResult
    right: NDArray[np.bool_]


def search_all(
    name: str, embedder: Embedder, settings: IndexSettings, asked: Sequence[QuestionRow]
) -> Iterator[Searched]:
    """What the desk's search finds for each question in a corpus of all the set's passages."""
    rows = read_rows(READING / f"{name}-corpus.jsonl", CorpusRow)
    documents = [document_of(row.id, row.title or "", row.text) for row in rows]
    with corpus_of(documents, embedder, settings) as made:
        vectors = embedder.embed_queries([row.question for row in asked])
        for row, vector in zip(asked, vectors, strict=True):
            found = search(made.indexes, row.question, vector, settings.passages, COLLECTIONS)
            yield Searched(row, found, _right(row, found))


def _right(row: QuestionRow, found: SearchResult) -> NDArray[np.bool_]:
    return np.array(
        [
            hit.passage.document_id == row.passage_id and holds_answer(row, hit.passage.text[start:end])
            for hit in found.hits
            for start, end in sentences(hit.passage.text)
        ],
        dtype=np.bool_,
    )


def fit_weights(features: Sequence[NDArray[np.float32]], right: Sequence[NDArray[np.bool_]]) -> Head:
    """The weights under which what answers is likeliest among the sentences and none; `importance` is left zero.

    A conditional logit (McFadden 1974) with an L2 penalty. `right` without any true means that none answers.
    """
    import torch

    rows = np.concatenate(list(features))
    mean, deviation = rows.mean(0), rows.std(0) + 1e-6
    scaled = [torch.tensor((one - mean) / deviation) for one in features]
    answers = [torch.tensor([*one, not one.any()]) for one in right]
    weights = torch.zeros(len(FEATURES), requires_grad=True)
    none = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, none], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        total = PENALTY * len(scaled) * (weights**2).sum()
        for one, answer in zip(scaled, answers, strict=True):
            chances = torch.log_softmax(torch.cat([one @ weights, none]), 0)
            total = total - torch.logsumexp(chances[answer], 0)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = weights.detach().numpy()
    return Head(np.zeros(384, dtype=np.float32), mean, deviation, fitted, float(none.detach()))


def fit_judge(settings: IndexSettings, weights: Path) -> str:
    """Fits and writes the judge; how good it is on what LoRA never saw, in words.

    Its refusal head knows only these questions yet: `python -m evaluation refusal` fits it with a desk's turns.
    """
    parts = {name: split(read_groups(name)) for name in SETS}
    model = fit_lora(
        [group for fitted, _ in parts.values() for group in fitted],
        [group for _, held_out in parts.values() for group in held_out],
    )
    factors = {name: values.detach().numpy() for name, values in model.factors.items()}
    importance = model.importance.detach().numpy()
    searched = search_held_out(settings)
    blank = np.zeros(len(FEATURES), dtype=np.float32)
    reader = TokenReader(settings.models, factors, settings.threads)
    plain = Judge(reader, Head(importance, blank, blank + 1, blank, 0.0), BLANK)
    features = [plain.features(one.row.question, one.found) for one in searched]
    head = replace(fit_weights(features, [one.right for one in searched]), importance=importance)
    lacking = lacks(Judge(reader, head, BLANK), searched)
    refusal = fit_refusal([[row for row, _ in lacking]], [[refused for _, refused in lacking]])
    write_judge(factors, head, refusal, weights)
    return _quality(features, searched)


_NOTHING = np.zeros(len(REFUSAL_FEATURES), dtype=np.float32)
BLANK = RefusalHead(_NOTHING, _NOTHING + 1, _NOTHING, 0.0)
"""The refusal head of a judge that is not fitted yet."""


def search_held_out(settings: IndexSettings) -> list[Searched]:
    """What a search finds for the questions that LoRA never saw."""
    embedder = open_embedder(settings)
    return [
        one
        for name in SETS
        for one in search_all(
            name, embedder, settings, [row for group in split(read_groups(name))[1] for row in group.questions]
        )
    ]


def lacks(judge: Judge, searched: Sequence[Searched]) -> list[tuple[Floats, bool]]:
    """What the refusal head weighs of each question for which something was found, and whether none answers it."""
    rows = [(judge.lacks(one.row.question, one.found), not one.row.answerable) for one in searched]
    return [(row, refused) for row, refused in rows if row is not None]


def _quality(features: Sequence[NDArray[np.float32]], searched: Sequence[Searched]) -> str:
    """Figures out of fold: each part of the questions is judged by weights fitted on the others."""
    first = two = asked = 0
    for part in range(FOLDS):
        others = [place for place in range(len(searched)) if place % FOLDS != part]
        head = fit_weights([features[place] for place in others], [searched[place].right for place in others])
        for place in range(part, len(searched), FOLDS):
            if not searched[place].row.answerable:
                continue
            values = (features[place] - head.mean) / head.deviation @ head.weights
            best = searched[place].right[np.argsort(-values, kind="stable")[:2]]
            asked, first, two = asked + 1, first + int(best[0]), two + int(best.any())
    return f"{asked} questions held out: the first sentence answers {first / asked:.1%}, one of two {two / asked:.1%}"
