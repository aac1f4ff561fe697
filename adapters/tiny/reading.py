"""Trains a small Phi-3 from scratch to read: read it top to bottom.

A curriculum of generated exercises, from one subject and one wording to several passages, questions that nothing
answers, and last what people wrote. Each answer has two losses: its tokens, and where the heads of POINTING_LAYER look
while they are written, since the exercise knows where every token is copied from. Without the second a model of this
size learns for long only that some value is to be copied, not which.

Same seed, recipe and number of processes: same exercises in the same order.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from adapters.tiny.exercises import Level, new_exercise
from adapters.tiny.reading_model import POINTING_LAYER, new_reader
from adapters.tiny.reading_rows import NOTHING, Rows, RowWriter, exact, stack
from adapters.tiny.written import WrittenExercise, drawn_exercise


@dataclass(frozen=True, slots=True)
class Stage:
    """`share` of the steps on rows of `row_tokens` ids and `questions` questions at most; `told` of them bear the
    assistant's instructions, and `written` of them are exercises that people wrote, where there are any."""

    share: float
    row_tokens: int
    level: Level
    told: float = 0.0
    written: float = 0.0
    questions: int = 12


def _varied(passages: tuple[int, int], subjects: tuple[int, int], facts: tuple[int, int]) -> Level:
    """With pronouns, tables, procedures, sentences that say nothing, and questions typed in haste."""
    return Level(passages, subjects, facts, referred=0.3, listed=0.12, steps=0.08, fillers=0.15, careless=0.2)


STAGES = (
    Stage(0.06, 128, Level((1, 1), (1, 1), (2, 4), unanswerable=0.0, wordings=1)),
    Stage(0.13, 128, Level((1, 1), (1, 2), (2, 4), unanswerable=0.1, wordings=2)),
    Stage(0.33, 192, Level((1, 2), (1, 3), (1, 3), careless=0.1)),
    Stage(0.28, 256, _varied((1, 3), (1, 3), (1, 4)), told=0.1),
    Stage(0.13, 384, _varied((1, 4), (1, 3), (2, 4)), told=0.5),
    Stage(0.07, 1024, _varied((3, 4), (1, 4), (2, 5)), told=0.8, written=0.6, questions=30),
)


@dataclass(frozen=True, slots=True)
class ReadingRecipe:
    """Shape and schedule; a step learns from about `step_tokens` ids, which `workers` processes write (0: this one)."""

    vocab_size: int = 4096
    hidden_size: int = 192
    intermediate_size: int = 384
    layers: int = 5
    heads: int = 4
    window: int = 2048
    steps: int = 2700
    step_tokens: int = 2048
    stages: tuple[Stage, ...] = STAGES
    text_share: float = 0.05
    pointing: float = 0.5
    learning_rate: float = 1.2e-3
    warmup: int = 50
    decay: float = 0.25
    weight_decay: float = 0.05
    workers: int = 0
    seed: int = 20270


ON_GPU = ReadingRecipe(
    hidden_size=384,
    intermediate_size=1024,
    layers=6,
    heads=6,
    steps=6000,
    step_tokens=65_536,
    learning_rate=1.2e-3,
    warmup=200,
    workers=12,
)
"""About 12.2M weights and 390M ids: what 20 minutes of one large GPU should run. Not measured: we had none."""


@dataclass(slots=True)
class Progress:
    """What was learned since the last report: means of the losses, and exact answers by kind."""

    losses: list[float] = field(default_factory=list)
    pointing: list[float] = field(default_factory=list)
    right: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)

    def add(self, loss: float, pointing: float, answers: Iterator[tuple[str, bool]]) -> None:
        self.losses.append(loss)
        self.pointing.append(pointing)
        for kind, right in answers:
            self.total[kind] += 1
            self.right[kind] += right

    def clear(self) -> None:
        for one in (self.losses, self.pointing, self.right, self.total):
            one.clear()

    def shares(self) -> dict[str, float]:
        """`loss` and `pointing` (of answers' first tokens), and the share of exact answers of each kind."""
        told = {"loss": sum(self.losses) / len(self.losses), "pointing": sum(self.pointing) / len(self.pointing)}
        return told | {kind: self.right[kind] / count for kind, count in sorted(self.total.items())}


class Batches(IterableDataset[Rows]):
    """Seeded batches of rows, one a step, stage by stage; of several processes each writes every so many."""

    def __init__(self, tokenizer: Any, recipe: ReadingRecipe, written: Sequence[WrittenExercise]) -> None:
        self._tokenizer, self._recipe, self._written = tokenizer, recipe, written

    def __iter__(self) -> Iterator[Rows]:
        process = get_worker_info()
        first, apart = (process.id, process.num_workers) if process else (0, 1)
        chance = Random(f"{self._recipe.seed}-{first}-{apart}")  # noqa: S311
        writer = RowWriter(self._tokenizer)
        for step in range(first, self._recipe.steps, apart):
            yield self._batch(stage_at(self._recipe, step), writer, chance)

    def _batch(self, stage: Stage, writer: RowWriter, chance: Random) -> Rows:
        rows: list[Any] = []
        while len(rows) < max(1, self._recipe.step_tokens // stage.row_tokens):
            if self._written and chance.random() < stage.written:
                exercise = drawn_exercise(self._written, chance)
            else:
                exercise = new_exercise(stage.level, chance, questions=stage.questions)
            row = writer.write(exercise, stage.row_tokens, told=chance.random() < stage.told)
            if row.blocks:
                rows.append(row)
        return stack(rows, self._tokenizer.pad_token_id, self._recipe.text_share, chance)


def stage_at(recipe: ReadingRecipe, step: int) -> Stage:
    """The stage that a step belongs to."""
    done = 0.0
    for stage in recipe.stages:
        done += stage.share
        if step < done * recipe.steps:
            return stage
    return recipe.stages[-1]


def rate_at(recipe: ReadingRecipe, step: int) -> float:
    """Share of the peak rate: up, level, and in the last part down to a thirtieth."""
    left = (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / recipe.warmup, max(0.03, left))


def train_reader(
    tokenizer: Any,
    recipe: ReadingRecipe,
    written: Sequence[WrittenExercise],
    report: Callable[[int, int, float, Progress], None],
) -> Any:
    """The trained model in fp32, in evaluation mode, on the GPU if there is one.

    `report` is told after each step how many there were, the ids and seconds so far, and what to add to.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = new_reader(recipe, tokenizer).to(device).train()
    learning = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(recipe, step))
    tokens, began, progress = 0, time.monotonic(), Progress()
    for step, written_rows in enumerate(loaded(Batches(tokenizer, recipe, written), recipe.workers), 1):
        rows = written_rows.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, (following, opening), learned, right = reading_loss(model, rows)
        (loss + recipe.pointing * (following + 2 * opening)).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += rows.ids.numel()
        progress.add(loss.item(), opening.item(), exact(rows, learned, right))
        report(step, tokens, time.monotonic() - began, progress)
    return model.eval()


def loaded(batches: Batches, workers: int) -> Iterable[Rows]:
    """The batches, written ahead by so many processes."""
    if not workers:
        return batches
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4, multiprocessing_context="spawn")


def reading_loss(model: Any, rows: Rows) -> tuple[Any, tuple[Any, Any], Any, Any]:
    """Mean cross-entropy of the labelled places; the pointing losses; the mask of those places, and at which of them
    the likeliest token is right."""
    import torch

    layer = model.model.layers[POINTING_LAYER].self_attn
    kept: list[Any] = []
    hook = layer.qkv_proj.register_forward_hook(lambda module, inputs, output: kept.append(output))
    seen = rows.seen()
    states = model.model(input_ids=rows.ids, attention_mask=seen, position_ids=rows.places, use_cache=False)
    hook.remove()
    learned = rows.labels != NOTHING
    logits = model.lm_head(states.last_hidden_state[learned]).float()
    wanted = rows.labels[learned]
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    return loss, pointing_loss(model, kept[0], rows, seen), learned, logits.argmax(-1) == wanted


def pointing_loss(model: Any, projected: Any, rows: Rows, seen: Any) -> tuple[Any, Any]:
    """Mean cross-entropy of where the heads look that projected `(rows, tokens, 3 x hidden)`: for all tokens of answers
    but the first, and for the first, which decides what is copied."""
    import torch
    from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

    count, width = projected.shape[:2]
    heads = model.config.num_attention_heads
    hidden = model.config.hidden_size
    parts = projected[..., : 2 * hidden].view(count, width, 2, heads, hidden // heads).permute(2, 0, 3, 1, 4)
    query, key = apply_rotary_pos_emb(parts[0], parts[1], *model.model.rotary_emb(projected, rows.places))
    scores = (query @ key.transpose(-1, -2)).float() * (hidden // heads) ** -0.5
    scores = scores.masked_fill(~seen, -1e9).transpose(1, 2)
    told = rows.sources != NOTHING
    wanted = rows.sources[told][:, None].expand(-1, heads)
    losses = torch.nn.functional.cross_entropy(scores[told].flatten(0, 1), wanted.flatten(), reduction="none")
    losses = losses.view(-1, heads).mean(-1)
    opening = (rows.answer != rows.answer.roll(1, dims=1))[told]
    return losses[~opening].mean(), losses[opening].mean()
