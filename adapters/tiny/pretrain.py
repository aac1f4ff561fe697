"""Pre-trains the embedded base from scratch: read it top to bottom.

Every step has two losses. The first pulls the averaged word embeddings of restatements together and pushes others
apart (InfoNCE, Oord et al. 2018, arXiv:1807.03748), so that the base knows which words mean the same before an
adapter learns what to answer. The second is plain next-token prediction over restatements as chats ("In other
words: ..."), dialogues, documents and the glossary.

adapters/tiny/refine.py is the second stage. Same desk and seed: same tokenizer, same order of examples; weights equal
up to the processor's rounding.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.augment import Noise, disturb
from adapters.prompts import Message, encode_chat, encode_text
from adapters.tiny.corpus import Corpus

RESTATE = "In other words: "

EMBEDDING_STD = 0.05
"""At the library's 0.02 the middle layers of a new model tell paraphrases apart no better than chance."""


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Shape and schedule. `groups` x 2 restatements and `texts` other samples make a step."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    layers: int = 4
    heads: int = 8
    window: int = 1024
    steps: int = 1000
    groups: int = 64
    texts: int = 12
    text_tokens: int = 128
    share_restatements: float = 0.4
    share_documents: float = 0.2
    word_drop: float = 0.04
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    dropout: float = 0.0
    contrast: float = 1.0
    temperature: float = 0.1
    seed: int = 20260
    refine_steps: int = 240
    refine_rate: float = 1e-3
    refine_seed: int = 99


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
    model = Phi3ForCausalLM(config)
    _initialise(model, recipe)
    return model


def _initialise(model: Any, recipe: BaseRecipe) -> None:
    """Lets the words through at first: strong embeddings, weak layers (GPT-2's rule for what ends a layer)."""
    import torch

    torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(weight, std=0.02 / math.sqrt(2 * recipe.layers))


class Sampler:
    """Endless seeded batches of token ids from a corpus."""

    def __init__(self, corpus: Corpus, tokenizer: Any, recipe: BaseRecipe) -> None:
        self._tokenizer, self._recipe = tokenizer, recipe
        self._chance = random.Random(recipe.seed)  # noqa: S311
        self._noise = Noise(
            drop=recipe.word_drop, slip=0.02, lower=0.3, bare=0.2, opening=0.08, closing=0.04, shuffle=0.0
        )
        self._groups = corpus.restatements
        self._pairs = [*corpus.restatements, *corpus.glossary]
        self._dialogues = corpus.dialogues
        self._documents = [encode_text(tokenizer, text) for text in corpus.documents]
        self._order: list[int] = []
        self._rest: list[int] = []

    def wordings(self) -> list[list[int]]:
        """Questions in pairs of the same meaning (rows 2i and 2i+1)."""
        rows = []
        for _ in range(self._recipe.groups):
            for text in self._chance.sample(self._groups[self._next_group()], 2):
                rows.append(encode_text(self._tokenizer, self._ask(text).content))
        return rows

    def windows(self) -> Any:
        """`texts` x `text_tokens` ids: restatements, dialogues and documents, written one after the other."""
        size = self._recipe.texts * self._recipe.text_tokens
        while len(self._rest) < size:
            self._rest += self._next_text()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return [taken[i : i + self._recipe.text_tokens] for i in range(0, size, self._recipe.text_tokens)]

    def _next_text(self) -> list[int]:
        kind = self._chance.random()
        if kind < self._recipe.share_restatements:
            asked, other = self._chance.sample(self._chance.choice(self._pairs), 2)
            answer = Message("assistant", RESTATE + other)
            return encode_chat(self._tokenizer, [self._ask(asked), answer], open_reply=False)
        if kind < self._recipe.share_restatements + self._recipe.share_documents and self._documents:
            document = self._chance.choices(self._documents, [len(ids) for ids in self._documents])[0]
            start = self._chance.randrange(max(1, len(document) - self._recipe.text_tokens + 1))
            return document[start : start + self._recipe.text_tokens]
        messages = self._chance.choice(self._dialogues)
        starts = [i for i, message in enumerate(messages) if message.role == "user"] or [0]
        chosen = messages[self._chance.choice(starts) :]
        noisy = [self._ask(message.content) if message.role == "user" else message for message in chosen]
        return encode_chat(self._tokenizer, noisy, open_reply=False)

    def _ask(self, text: str) -> Message:
        return Message("user", disturb(text, self._noise, self._chance))

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
        meaning = embedding_contrast(model, head, sampler.wordings(), recipe.temperature)
        (recipe.contrast * meaning).backward()
        text = text_loss(model, torch.tensor(sampler.windows()))
        text.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        report(
            step,
            {
                "contrast": meaning.item(),
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


def embedding_contrast(model: Any, head: Any, rows: list[list[int]], temperature: float) -> Any:
    """InfoNCE of the rows' averaged word embeddings, which learn paraphrases fast from few of them.

    Wieting et al. 2016, arXiv:1511.08198.
    """
    import torch

    lengths = torch.tensor([len(row) for row in rows])
    at = torch.arange(int(lengths.max()))
    ids = torch.tensor([row + [0] * (len(at) - len(row)) for row in rows])
    inside = (at < lengths[:, None]).unsqueeze(-1)
    return contrast(head((model.model.embed_tokens(ids) * inside).sum(dim=1) / lengths[:, None]), temperature)


def contrast(projected: Any, temperature: float) -> Any:
    """InfoNCE between rows 2i and 2i+1 of `projected` (rows, d), every other row a negative."""
    import torch

    # Centred on the batch: what all questions share would leave every pair equally similar.
    vectors = torch.nn.functional.normalize(projected - projected.mean(dim=0), dim=-1)
    similar = (vectors @ vectors.T / temperature).masked_fill(torch.eye(len(vectors), dtype=torch.bool), -1e9)
    return torch.nn.functional.cross_entropy(similar, torch.arange(len(vectors)) ^ 1)


def text_loss(model: Any, ids: Any) -> Any:
    """Mean cross-entropy of every next token; `ids` is (texts, text_tokens)."""
    import torch

    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
