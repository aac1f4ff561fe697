"""Whole greedy answers of a model as transformers generates them, in batches: for scoring a model in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.answer import confidence

ROWS_AT_ONCE = 32
"""Prompts that are decoded side by side."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer and how sure the model was of it (`confidence`)."""

    text: str
    confidence: float


def greedy_replies(model: Any, tokenizer: Any, rows: Sequence[list[int]], max_new_tokens: int) -> list[Reply]:
    """The whole greedy answer to each prompt (token ids that end where the reply opens), in batches: for scoring, where
    nobody waits for a first word."""
    import torch
    from transformers import LogitsProcessorList

    stop = [token for token, added in tokenizer.added_tokens_decoder.items() if added.special]
    replies = [Reply("", 0.0)] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        places = by_length[start : start + ROWS_AT_ONCE]
        batch = [rows[place] for place in places]
        width = max(len(ids) for ids in batch)
        # Padded on the left, so that every row goes on where its prompt ends.
        padded = torch.tensor([[stop[0]] * (width - len(ids)) + ids for ids in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=model.device)
        best: list[list[float]] = []

        def note(_: Any, scores: Any, best: list[list[float]] = best) -> Any:
            best.append(scores.float().log_softmax(-1).amax(-1).tolist())
            return scores

        with torch.inference_mode():
            output = model.generate(
                input_ids=padded,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=stop[0],
                logits_processor=LogitsProcessorList([note]),
            )
        for row, (place, ids) in enumerate(zip(places, output[:, width:].tolist(), strict=True)):
            end = next((at for at, token in enumerate(ids) if token in stop), len(ids))
            logprobs = [step[row] for step in best[:end]]
            replies[place] = Reply(tokenizer.decode(ids[:end]), confidence(logprobs))
    return replies
