"""Pre-trains the embedded base from scratch: read it top to bottom.

Every step has two losses. One is plain next-token prediction over restatements as chats ("In other words: ..."),
dialogues, documents and the glossary. The other makes the state that opens a reply hold what the question means:
projected, it must resemble MiniLM's vector of the question more than that of any other question in the batch.
From that state an adapter must decide what to answer; left to the text alone, it hardly tells questions apart.

Same desk and seed: same tokenizer, same order of examples; weights equal up to the processor's rounding.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.augment import Noise, disturb
from adapters.prompts import Message, encode_chat, encode_text
from adapters.tiny.corpus import Corpus
from adapters.tiny.lessons import Lessons

RESTATE = "In other words: "

EMBEDDING_STD = 0.05
"""At the library's 0.02 the middle layers of a new model tell paraphrases apart no better than chance."""


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Shape and schedule. `questions` lessons and `texts` samples of `text_tokens` tokens make a step."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    layers: int = 4
    heads: int = 8
    window: int = 1024
    steps: int = 1800
    questions: int = 128
    question_tokens: int = 60
    lessons: int = 60_000
    texts: int = 6
    text_tokens: int = 128
    share_restatements: float = 0.4
    share_documents: float = 0.2
    word_drop: float = 0.04
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    dropout: float = 0.0
    temperature: float = 0.07
    seed: int = 20260


class Shape(Protocol):
    """What a recipe says of a model's shape."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def window(self) -> int: ...


def new_config(shape: Shape, tokenizer: Any, dropout: float = 0.0, rope: dict[str, Any] | None = None) -> Any:
    """Phi3Config of a model in that shape, with tied embeddings, for the tokenizer; `rope` where not Phi-3's own."""
    from transformers import Phi3Config

    return Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.window,
        original_max_position_embeddings=shape.window,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")],
        pad_token_id=tokenizer.pad_token_id,
        resid_pdrop=dropout,
        rope_parameters=rope,
    )


def new_model(recipe: BaseRecipe, tokenizer: Any) -> Any:
    """An untrained Phi3ForCausalLM in the recipe's shape."""
    from transformers import Phi3ForCausalLM

    model = Phi3ForCausalLM(new_config(recipe, tokenizer, recipe.dropout))
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
    """Endless seeded batches of token ids from a corpus and its lessons."""

    def __init__(self, corpus: Corpus, lessons: Lessons, tokenizer: Any, recipe: BaseRecipe) -> None:
        self._lessons, self._tokenizer, self._recipe = lessons, tokenizer, recipe
        self._chance = random.Random(recipe.seed)  # noqa: S311
        self._noise = Noise(
            drop=recipe.word_drop, slip=0.02, lower=0.3, bare=0.2, opening=0.08, closing=0.04, shuffle=0.0
        )
        self._pairs = [*corpus.restatements, *corpus.glossary]
        self._dialogues = corpus.dialogues
        self._documents = [encode_text(tokenizer, text) for text in corpus.documents]
        self._order: list[int] = []
        self._rest: list[int] = []

    def questions(self) -> tuple[list[list[int]], list[int]]:
        """Noisy questions as token ids, and the places of their lessons."""
        if len(self._order) < self._recipe.questions:
            self._order = list(range(len(self._lessons.texts)))
            self._chance.shuffle(self._order)
        places, self._order = self._order[: self._recipe.questions], self._order[self._recipe.questions :]
        rows = [encode_text(self._tokenizer, self._ask(self._lessons.texts[place]).content) for place in places]
        return [row[: self._recipe.question_tokens] for row in rows], places

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


def train_base(
    corpus: Corpus,
    lessons: Lessons,
    tokenizer: Any,
    recipe: BaseRecipe,
    report: Callable[[int, dict[str, float]], None],
) -> Any:
    """The trained model in fp32, in evaluation mode."""
    import torch

    torch.manual_seed(recipe.seed)
    model = new_model(recipe, tokenizer).train()
    targets = torch.from_numpy(lessons.targets)
    # Thrown away afterwards: the base keeps its own width.
    head = torch.nn.Linear(recipe.hidden_size, targets.shape[1])
    learning = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    sampler = Sampler(corpus, lessons, tokenizer, recipe)
    frame = [tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")]
    began = time.monotonic()
    for step in range(1, recipe.steps + 1):
        rows, places = sampler.questions()
        meaning = meaning_loss(head(opening_states(model, rows, frame)), targets[places], recipe.temperature)
        meaning.backward()
        text = text_loss(model, torch.tensor(sampler.windows()))
        text.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        report(step, {"meaning": meaning.item(), "text": text.item(), "elapsed_s": time.monotonic() - began})
    return model.eval()


def _rate(step: int, recipe: BaseRecipe) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to a hundredth."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, recipe.steps - warm))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def opening_states(model: Any, rows: list[list[int]], frame: list[int]) -> Any:
    """(rows, hidden): the last layer's state at `<|assistant|>` after each question."""
    import torch

    user, end, assistant = frame
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    size = -(-len(order) // 4)  # four passes of like length save padding
    parts = []
    for start in range(0, len(order), size):
        asked = [[user, *rows[position], end, assistant] for position in order[start : start + size]]
        width = max(len(ids) for ids in asked)
        # Causal attention: padding on the right cannot reach a real token, so no mask is needed.
        batch = torch.tensor([ids + [0] * (width - len(ids)) for ids in asked])
        states = model.model(input_ids=batch, use_cache=False).last_hidden_state
        parts.append(states[torch.arange(len(asked)), torch.tensor([len(ids) - 1 for ids in asked])])
    return torch.cat(parts)[torch.tensor(order).argsort()]


def meaning_loss(projected: Any, targets: Any, temperature: float) -> Any:
    """How far each row of `projected` (n, d) is from its own unit target, and how near to the others'."""
    import torch

    similar = torch.nn.functional.normalize(projected, dim=-1) @ targets.T
    own = torch.arange(len(targets))
    return torch.nn.functional.cross_entropy(similar / temperature, own) + 2 * (1 - similar[own, own]).mean()


def text_loss(model: Any, ids: Any) -> Any:
    """Mean cross-entropy of every next token; `ids` is (texts, text_tokens)."""
    import torch

    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
