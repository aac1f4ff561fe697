"""Pre-trains the embedded base from scratch: read it top to bottom.

Every step makes two passes. The first takes restatements: the model reads one wording and writes another
("In other words: ..."), and the states at the point where the reply opens are pulled together for wordings
of one group and pushed apart for others (InfoNCE, Oord et al. 2018, arXiv:1807.03748). That point is where an
adapter later decides what to answer, so the base arrives there already knowing which words mean the same.
The second pass takes dialogues, documents and the glossary, as plain next-token prediction.

Same desk and seed: same tokenizer, same order of examples; weights equal up to the processor's rounding.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.augment import Noise, disturb
from adapters.prompts import Message, encode_chat, encode_text
from adapters.tiny.corpus import Corpus

RESTATE = "In other words: "


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Shape and schedule. `groups` x 2 restatements and `texts` other samples make a step."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    layers: int = 6
    heads: int = 8
    window: int = 1024
    steps: int = 1200
    groups: int = 48
    texts: int = 10
    text_tokens: int = 160
    learning_rate: float = 1.5e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    dropout: float = 0.1
    contrast: float = 1.0
    temperature: float = 0.07
    seed: int = 20260


def new_model(recipe: BaseRecipe, tokenizer: Any) -> Any:
    """An untrained Phi3ForCausalLM in the recipe's shape."""
    from transformers import Phi3Config, Phi3ForCausalLM

    end = tokenizer.convert_tokens_to_ids("<|end|>")
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.window,
        original_max_position_embeddings=recipe.window,
        resid_pdrop=recipe.dropout,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, end],
        pad_token_id=tokenizer.pad_token_id,
    )
    return Phi3ForCausalLM(config)


class Sampler:
    """Endless seeded batches of token ids from a corpus."""

    def __init__(self, corpus: Corpus, tokenizer: Any, recipe: BaseRecipe) -> None:
        self._tokenizer, self._recipe = tokenizer, recipe
        self._chance = random.Random(recipe.seed)  # noqa: S311
        self._noise = Noise()
        self._groups = [*corpus.restatements, *((term, meaning) for term, meaning in corpus.glossary)]
        self._dialogues = corpus.dialogues
        self._documents = [encode_text(tokenizer, text) for text in corpus.documents]
        self._order: list[int] = []

    def restatements(self) -> tuple[list[list[int]], list[int]]:
        """Rows in pairs of the same group (2i, 2i+1), and each row's index of its reply-opening token."""
        rows, opens = [], []
        for _ in range(self._recipe.groups):
            texts = list(self._groups[self._next_group()])
            self._chance.shuffle(texts)
            for first, second in ((texts[0], texts[-1]), (texts[1], texts[len(texts) // 2 - 1])):
                asked = [Message("user", disturb(first, self._noise, self._chance))]
                opened = encode_chat(self._tokenizer, asked, open_reply=True)
                answer = Message("assistant", RESTATE + second)
                rows.append(encode_chat(self._tokenizer, [*asked, answer], open_reply=False))
                opens.append(len(opened) - 1)
        return rows, opens

    def texts(self) -> list[list[int]]:
        """Dialogues (two of three) and document windows (one of three)."""
        limit = self._recipe.text_tokens
        rows = []
        for position in range(self._recipe.texts):
            if position % 3 < 2 or not self._documents:
                rows.append(self._dialogue()[:limit])
            else:
                document = self._chance.choices(self._documents, [len(ids) for ids in self._documents])[0]
                start = self._chance.randrange(max(1, len(document) - limit + 1))
                rows.append(document[start : start + limit])
        return rows

    def _dialogue(self) -> list[int]:
        """A dialogue from one of its user messages on, with noise on what the user wrote."""
        messages = self._chance.choice(self._dialogues)
        starts = [i for i, message in enumerate(messages) if message.role == "user"] or [0]
        chosen = messages[self._chance.choice(starts) :]
        noisy = [
            Message("user", disturb(m.content, self._noise, self._chance)) if m.role == "user" else m
            for m in chosen
        ]
        return encode_chat(self._tokenizer, noisy, open_reply=False)

    def _next_group(self) -> int:
        """Every group once before any comes again, so that a batch rarely holds one twice."""
        if not self._order:
            self._order = list(range(len(self._groups)))
            self._chance.shuffle(self._order)
        return self._order.pop()


def train_base(
    corpus: Corpus,
    tokenizer: Any,
    recipe: BaseRecipe,
    report: Callable[[int, dict[str, float]], None],
) -> Any:
    """The trained model in fp32, in evaluation mode."""
    import torch

    torch.manual_seed(recipe.seed)
    model = new_model(recipe, tokenizer).train()
    # Thrown away afterwards: keeps the contrast from deciding how the states themselves are laid out.
    head = torch.nn.Linear(recipe.hidden_size, 128, bias=False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": [*decayed, *head.parameters()], "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    sampler = Sampler(corpus, tokenizer, recipe)
    began = time.monotonic()
    for step in range(1, recipe.steps + 1):
        rows, opens = sampler.restatements()
        wording, contrast = _restatement_loss(model, head, rows, opens, recipe)
        (wording + recipe.contrast * contrast).backward()
        text = _text_loss(model, sampler.texts())
        text.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        report(
            step,
            {
                "restatement": wording.item(),
                "contrast": contrast.item(),
                "text": text.item(),
                "elapsed_s": time.monotonic() - began,
            },
        )
    return model.eval()


def _rate(step: int, recipe: BaseRecipe) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to a hundredth."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, recipe.steps - warm))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _pad(rows: list[list[int]], fill: int) -> Any:
    import torch

    width = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _next_token_loss(model: Any, states: Any, ids: Any, rows: list[list[int]]) -> Any:
    """Mean cross-entropy of every next token inside the rows; the head is applied to those places alone."""
    import torch

    inside = _pad([[1] * len(row) for row in rows], 0)[:, 1:].bool()
    logits = model.lm_head(states[:, :-1][inside])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][inside])


def _restatement_loss(model: Any, head: Any, rows: list[list[int]], opens: list[int], recipe: BaseRecipe) -> Any:
    import torch

    ids = _pad(rows, 0)
    # Causal attention: right padding cannot reach a real token, so no mask is needed.
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state
    wording = _next_token_loss(model, states, ids, rows)
    vectors = torch.nn.functional.normalize(head(states[torch.arange(len(rows)), torch.tensor(opens)]), dim=-1)
    similar = vectors @ vectors.T / recipe.temperature
    similar = similar.masked_fill(torch.eye(len(rows), dtype=torch.bool), -1e9)
    partner = torch.arange(len(rows)) ^ 1
    return wording, torch.nn.functional.cross_entropy(similar, partner)


def _text_loss(model: Any, rows: list[list[int]]) -> Any:
    ids = _pad(rows, 0)
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return _next_token_loss(model, states, ids, rows)


def recipe_settings(recipe: BaseRecipe) -> dict[str, Any]:
    """The recipe as plain values, for the manifest."""
    return asdict(recipe)


def corpus_of(desk: Path) -> Corpus:
    from adapters.tiny.corpus import read_corpus

    return read_corpus(desk)
