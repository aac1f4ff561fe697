"""The second stage of pre-training: the place where a reply opens learns to hold what the question means.

After the first stage only the averaged word embeddings tell paraphrases apart; the state at `<|assistant|>`, from
which an adapter must decide what to answer, does not (a linear classifier on it found 40% of the right intents,
on the embeddings 81%). Here that state gets an InfoNCE loss of its own, next to both losses of the first stage.
Asked for from the start it never left its plateau; in a model that can read it falls within a hundred steps.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from adapters.tiny.corpus import Corpus
from adapters.tiny.pretrain import BaseRecipe, Sampler, contrast, embedding_contrast, text_loss

WARMUP_STEPS = 20

HEADS_SEED = 1
"""Seed of the two projection heads, which are thrown away; the sampler's seed is in the recipe."""


def refine_base(
    model: Any,
    corpus: Corpus,
    tokenizer: Any,
    recipe: BaseRecipe,
    report: Callable[[int, dict[str, float]], None],
) -> Any:
    """The model after `recipe.refine_steps` more steps, in evaluation mode."""
    import torch

    # The first stage's result as it would be stored: the second can start from a file or from memory.
    model = model.to(torch.bfloat16).to(torch.float32).train()
    torch.manual_seed(HEADS_SEED)
    words, opening = (torch.nn.Linear(recipe.hidden_size, 128, bias=False) for _ in range(2))
    learning = [*model.parameters(), *words.parameters(), *opening.parameters()]
    optimizer = torch.optim.AdamW(
        learning, lr=recipe.refine_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay / 2
    )
    sampler = Sampler(corpus, tokenizer, replace(recipe, texts=recipe.texts // 2, seed=recipe.refine_seed))
    frame = [tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")]
    for step in range(1, recipe.refine_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.refine_rate * _rate(step, recipe.refine_steps)
        rows = sampler.wordings()
        of_words = embedding_contrast(model, words, rows, recipe.temperature)
        of_opening = contrast(opening(_opening_states(model, rows, frame)), recipe.temperature)
        (of_words + of_opening).backward()
        text = text_loss(model, torch.tensor(sampler.windows()))
        text.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report(step, {"contrast": of_words.item(), "opening": of_opening.item(), "text": text.item()})
    return model.eval()


def _rate(step: int, steps: int) -> float:
    return min(1.0, step / WARMUP_STEPS) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _opening_states(model: Any, rows: list[list[int]], frame: list[int]) -> Any:
    """(rows, hidden): the last layer's state at `<|assistant|>`; four passes of like length save padding."""
    import torch

    user, end, assistant = frame
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    size = -(-len(order) // 4)
    parts = []
    for start in range(0, len(order), size):
        asked = [[user, *rows[position], end, assistant] for position in order[start : start + size]]
        width = max(len(ids) for ids in asked)
        # Causal attention: padding on the right cannot reach a real token, so no mask is needed.
        batch = torch.tensor([ids + [0] * (width - len(ids)) for ids in asked])
        states = model.model(input_ids=batch, use_cache=False).last_hidden_state
        parts.append(states[torch.arange(len(asked)), torch.tensor([len(ids) - 1 for ids in asked])])
    return torch.cat(parts)[torch.tensor(order).argsort()]
