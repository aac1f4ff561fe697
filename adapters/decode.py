"""The batch: rows that join and leave between steps, each with its own adapter, over one copy of the base model.

One thread owns a Decoder: the engine's, or that of a command that scores. A step reads a slice of the prompts of rows
that have just joined, then takes every other row one token further, in one forward pass.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from adapters.answer import Finish, Sampling, Step, confidence
from adapters.base import LoadedBase, free_bytes
from adapters.errors import EngineError
from adapters.grammar import Grammars
from adapters.greedy import Reply
from adapters.lora_batch import AdapterWeights, Mixer, attach
from adapters.prompts import Message, fit_chat
from adapters.registry import projection_shapes
from adapters.row_cache import RowCache
from adapters.sampling import Scores
from adapters.writing import Emit, Writing, fill_fields, write_answer

MIN_PROMPT_SHARE = 0.5
"""At least this share of the window is the prompt's, whatever length of answer is asked for."""

PREFILL_TOKENS = 512
"""Prompt tokens that are read in one forward pass; more would only take more memory."""

PREFILL_S = 0.25
"""For so long, about, may the reading of a prompt hold up those who are being answered; at least MIN_PREFILL tokens."""
MIN_PREFILL = 64

CACHE_SHARE = 0.5
"""Of the memory that is free once the model is loaded: what keys and values of all rows may take."""

FATAL = 3
"""After so many forward passes in a row that failed for every row, the fault is not the rows'."""


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making. When it is done, `finish` says why, or `error` what went wrong."""

    writing: Writing
    adapter: AdapterWeights | None
    most: int
    """Positions it may come to take."""
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    finish: Finish | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.finish is not None or self.error is not None

    @property
    def left(self) -> int:
        """Tokens to read before the next one can be chosen."""
        return len(self.tokens) - self.cached


class Decoder:
    """Base model, batched adapters, and the rows."""

    def __init__(self, base: LoadedBase) -> None:
        self.manifest = base.manifest
        self.rows: list[Row] = []
        self.steps = 0
        self._model, self.tokenizer = base.model, base.tokenizer
        embedding = base.model.get_input_embeddings().weight
        self._device = embedding.device
        self._dtype = embedding.dtype
        cpu = self._device.type == "cpu"
        self.like = torch.empty(0, device=self._device, dtype=torch.float32 if cpu else embedding.dtype)
        """Of the type and device that adapters take: a CPU multiplies few rows far faster in 32 bits than in 16."""
        self.shapes = projection_shapes(base.model)
        self._mixer = Mixer(self._device)
        attach(base.model, self._mixer)
        config = base.model.config
        self._cache = RowCache(config, embedding.dtype, self._device)
        self._window: int | None = config.sliding_window
        rope = config.rope_parameters or {}
        long = rope.get("rope_type") == "longrope"
        self._switch: int | None = rope.get("original_max_position_embeddings") if long else None
        special = base.tokenizer.added_tokens_decoder
        self._stop = {token for token, added in special.items() if added.special}
        self._grammars = Grammars(base.tokenizer, config.vocab_size, self._stop)
        free = free_bytes()
        self._budget = int(free * CACHE_SHARE) if free else None
        self._read_per_s = PREFILL_TOKENS / PREFILL_S
        self._failures = 0

    # What a row is to write

    def answer(
        self, messages: Sequence[Message], adapter: AdapterWeights | None, wanted: int, sampling: Sampling, emit: Emit
    ) -> Row:
        """A row for the answer to a chat. Raises EngineError for a schema that cannot be followed."""
        grammar = self._grammars.grammar(sampling.schema) if sampling.schema else None
        prompt = self.prompt(messages, wanted)
        most = min(wanted, self.manifest.window - len(prompt))
        writing = write_answer(self.tokenizer, prompt, most, self._stop, sampling, grammar, emit)
        return new_row(writing, adapter, len(prompt) + most)

    def fields(
        self,
        messages: Sequence[Message],
        adapter: AdapterWeights | None,
        choices: Mapping[str, Sequence[str]],
        emit: Emit,
    ) -> Row:
        """A row that fills fields, each with one of its choices; emits the values in order."""
        writing = fill_fields(self.tokenizer, lambda room: self.prompt(messages, room), choices, emit)
        return new_row(writing, adapter, self.manifest.window)

    def prompt(self, messages: Sequence[Message], wanted: int) -> list[int]:
        """The chat's ids, cut so that the answer fits the window too."""
        window = self.manifest.window
        return fit_chat(self.tokenizer, messages, max(window - wanted, int(window * MIN_PROMPT_SHARE)))

    # Who is in the batch

    def fits(self, row: Row) -> bool:
        """Whether the row can join now without more memory than is meant for it."""
        if not self.rows or self._budget is None:
            return True
        longest = max([row.most, *(other.most for other in self.rows)])
        return self._cache.bytes_for(len(self.rows) + 1, longest) <= self._budget

    def join(self, row: Row) -> None:
        self.rows.append(row)

    def leave(self, row: Row) -> None:
        """The row is out of the batch at once, whatever it was doing."""
        row.writing.close()
        slot, last = self.rows.index(row), len(self.rows) - 1
        self._cache.leave(slot, last, self.rows[last].cached)
        self.rows[slot] = self.rows[last]
        self.rows.pop()
        if not self.rows:
            self._cache.release()
            self._mixer.clear()

    def forget(self, adapter: AdapterWeights) -> None:
        """Lets go of what is kept for an adapter; rows that have it go on."""
        self._mixer.forget(adapter)

    # Steps

    def step(self) -> None:
        """Takes every row further; rows that are `done` then stay until they are made to leave.

        Raises what the model raises again and again whatever the rows are.
        """
        self.steps += 1
        reading = [row for row in self.rows if not row.done and row.left > 1]
        if reading:
            self._read(reading, alone=len(reading) == len(self.rows))
        ready = [row for row in self.rows if not row.done and row.left == 1]
        for group in ([row for row in ready if not self._is_long(row)], [row for row in ready if self._is_long(row)]):
            if group:
                self._forward(group, [1] * len(group))

    def run(self, rows: Sequence[Row], at_once: int) -> None:
        """Finishes these rows, so many side by side. Raises the first one's error."""
        waiting = list(reversed(rows))
        while waiting or self.rows:
            while waiting and len(self.rows) < at_once and self.fits(waiting[-1]):
                self.join(waiting.pop())
            self.step()
            for row in [row for row in self.rows if row.done]:
                self.leave(row)
                if row.error:
                    raise row.error

    def replies(self, prompts: Sequence[str], adapter: AdapterWeights | None, wanted: int, at_once: int) -> list[Reply]:
        """The whole greedy answer to each prompt."""
        return self.chat_replies([[Message("user", prompt)] for prompt in prompts], adapter, wanted, at_once)

    def chat_replies(
        self, chats: Sequence[Sequence[Message]], adapter: AdapterWeights | None, wanted: int, at_once: int
    ) -> list[Reply]:
        """The whole greedy answer to each chat."""
        steps: list[list[Step]] = [[] for _ in chats]
        rows = [
            self.answer(chat, adapter, wanted, Sampling(), kept.append) for chat, kept in zip(chats, steps, strict=True)
        ]
        self.run(rows, at_once)
        return [
            Reply(
                "".join(step.text for step in kept),
                confidence([step.logprob for step in kept if step.logprob is not None]),
            )
            for kept in steps
        ]

    def changes_answers(self, adapter: AdapterWeights) -> bool | None:
        """Whether the adapter changes the scores of a short prompt at all; None where it makes them no numbers."""
        ids = torch.tensor([self.prompt([Message("user", "?")], 1)] * 2, device=self._device)
        with torch.inference_mode():
            self._mixer.choose([None, adapter])
            base, own = self._model(input_ids=ids, use_cache=False).logits[:, -1].float()
        self._mixer.forget(adapter)
        return None if not torch.isfinite(own).all() else not torch.equal(base, own)

    def _is_long(self, row: Row) -> bool:
        """Whether the row is past the length from which a longrope model turns positions by its long factors."""
        return self._switch is not None and len(row.tokens) > self._switch

    def _read(self, reading: Sequence[Row], *, alone: bool) -> None:
        """One forward pass over the prompts of those who joined first: all that fit, or a slice of time's worth."""
        budget = PREFILL_TOKENS if alone else int(self._read_per_s * PREFILL_S)
        budget = min(PREFILL_TOKENS, max(MIN_PREFILL, budget))
        first = reading[0]
        if self._switch is not None:
            # The factors go by the longest position of a pass: a long prompt is read in one pass, by itself.
            group, counts = [first], [first.left if self._is_long(first) else min(first.left, budget)]
        else:
            counts = [min(first.left, budget)]
            for row in reading[1:]:
                if (len(counts) + 1) * max(*counts, row.left) > budget:
                    break
                counts.append(row.left)
            group = list(reading[: len(counts)])
        began = time.perf_counter()
        self._forward(group, counts)
        rate = sum(counts) / max(time.perf_counter() - began, 1e-6)
        self._read_per_s += 0.3 * (rate - self._read_per_s)

    def _forward(self, rows: Sequence[Row], counts: Sequence[int]) -> None:
        """Reads so many tokens of each row; those that have read all get their scores. One row's fault is its own."""
        try:
            hidden = self._hidden(rows, counts)
        except Exception as error:
            if len(rows) > 1:
                for row, count in zip(rows, counts, strict=True):
                    self._forward([row], [count])
                return
            rows[0].error = error
            self._failures += 1
            if self._failures >= FATAL:
                raise
            return
        self._failures = 0
        for row, count in zip(rows, counts, strict=True):
            row.cached += count
        ends = [(place, row) for place, row in enumerate(rows) if not row.left]
        if not ends:
            return
        with torch.inference_mode():
            last = hidden[[place for place, _ in ends], [counts[place] - 1 for place, _ in ends]]
            logits = self._model.lm_head(last).float()
            logprobs, best = logits.log_softmax(-1).max(-1)
        for (_, row), token, logprob, scores in zip(ends, best.tolist(), logprobs.tolist(), logits, strict=True):
            if math.isnan(logprob):
                row.error = EngineError("The model gave no numbers for this answer: its adapter may be damaged.")
                continue
            _go_on(row, Scores(token, logprob, scores))
            if self._switch is not None and row.cached <= self._switch < len(row.tokens):
                row.cached = 0  # what was read by the short factors is read again by the long ones

    def _hidden(self, rows: Sequence[Row], counts: Sequence[int]) -> torch.Tensor:
        """(rows, most tokens, hidden) the last layer's states; short rows are filled up with nonsense at their end."""
        longest = max(counts)
        seen = max(row.cached + count for row, count in zip(rows, counts, strict=True))
        slots = [self.rows.index(row) for row in rows]
        self._cache.reserve(len(self.rows), max(row.cached for row in rows) + longest)
        ids = [row.tokens[row.cached : row.cached + count] for row, count in zip(rows, counts, strict=True)]
        batch = torch.tensor([one + [0] * (longest - len(one)) for one in ids], device=self._device)
        starts = torch.tensor([row.cached for row in rows], device=self._device)
        positions = starts[:, None] + torch.arange(longest, device=self._device)
        keys = torch.arange(seen, device=self._device)
        mask = keys <= positions[:, :, None]
        if self._window is not None:
            mask &= keys > positions[:, :, None] - self._window
        # Added to the scores: a mask of booleans would be turned into this in every layer.
        bias = torch.zeros(mask.shape, dtype=self._dtype, device=self._device).masked_fill_(~mask, -math.inf)
        with torch.inference_mode():
            self._cache.begin(slots, positions, seen)
            self._mixer.choose([row.adapter for row in rows])
            output = self._model.model(
                input_ids=batch,
                attention_mask=bias[:, None],
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            )
        states: torch.Tensor = output.last_hidden_state
        return states


def new_row(writing: Writing, adapter: AdapterWeights | None, most: int) -> Row:
    """A row with the tokens that its writing wants to read first. Raises what the writing raises."""
    row = Row(writing, adapter, most)
    _go_on(row, None)
    if row.error:
        raise row.error
    return row


def _go_on(row: Row, scores: Scores | None) -> None:
    """Lets the row's writing go on to its next feed, its end or its error."""
    try:
        feed = next(row.writing) if scores is None else row.writing.send(scores)
    except StopIteration as end:
        row.finish = end.value
    except Exception as error:
        row.error = error
    else:
        row.tokens[feed.keep :] = feed.tokens
        row.cached = min(row.cached, feed.keep)
