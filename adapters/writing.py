"""What one row of the batch writes: an answer, or the fields of a workflow.

Each is a generator that says which tokens the model is to read next (`Feed`), gets the scores of the token after them,
emits what became certain, and returns why it ended. It knows nothing of the other rows.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.answer import Finish, Sampling, Step
from adapters.errors import EngineError
from adapters.grammar import Grammar
from adapters.prompts import encode_text
from adapters.sampling import Chooser, Scores
from adapters.text_stream import StopStrings, TextStream


@dataclass(frozen=True, slots=True)
class Feed:
    """The row's tokens from now on: the first `keep` that it has, then these."""

    keep: int
    tokens: Sequence[int]


Emit = Callable[[Step], None]
Writing = Generator[Feed, Scores, Finish]


def write_answer(
    tokenizer: Any,
    prompt: Sequence[int],
    most: int,
    stop: set[int],
    sampling: Sampling,
    grammar: Grammar | None,
    emit: Emit,
) -> Writing:
    """At most `most` tokens after the prompt, up to a stop token, a stop string or the end of the grammar."""
    chooser, text, strings = Chooser(sampling), TextStream(tokenizer), StopStrings(sampling.stop)
    feed = Feed(0, prompt)
    finish: Finish = "length"
    for written in range(most):
        scores = yield feed
        token, logprob = chooser.choose(scores, grammar.allowed() if grammar else None)
        if token in stop:
            finish = "stop"
            break
        if grammar:
            grammar.accept(token)
        emit(Step(strings.add(text.add(token)), logprob))
        if strings.met or (grammar and grammar.ended):
            finish = "stop"
            break
        feed = Feed(len(prompt) + written, [token])
    if not strings.met:
        emit(Step(strings.add(text.rest()) + strings.rest()))
    return finish


def fill_fields(
    tokenizer: Any, prompt: Callable[[int], list[int]], choices: Mapping[str, Sequence[str]], emit: Emit
) -> Writing:
    """Emits each field's value when it is decided. `prompt` gives the ids of a prompt that leaves so much room.

    The answer is compact JSON. For each field the candidates are the whole texts that each choice would make; where
    their tokens part, the likelier one is followed, so nothing but a choice can come out.
    """
    names = list(choices)
    written = "{"
    fed: list[int] = []
    for position, name in enumerate(names):
        opening = f"{written}{json.dumps(name)}:"
        end = "}" if position == len(names) - 1 else ","
        candidates = {value: f"{opening}{json.dumps(value, ensure_ascii=False)}{end}" for value in choices[name]}
        tokens = {value: encode_text(tokenizer, text) for value, text in candidates.items()}
        room = max(len(ids) for ids in tokens.values()) + 1
        value = yield from _follow(prompt(room), tokens, fed)
        written = candidates[value]
        emit(Step(value))
    return "stop"


def read_answer(prompt: Sequence[int], answer: Sequence[int], note: Callable[[float], None]) -> Writing:
    """Writes nothing: notes the log-probability of each token of an answer that is given."""
    feed = Feed(0, prompt)
    for place, token in enumerate(answer):
        scores = yield feed
        note(float(scores.logits.log_softmax(-1)[token]))
        feed = Feed(len(prompt) + place, [token])
    return "stop"


def _follow(prompt: list[int], tokens: Mapping[str, list[int]], fed: list[int]) -> Generator[Feed, Scores, str]:
    """The choice whose tokens win wherever they part; equal tokens would be equal choices. `fed` is kept up to date."""
    left = dict(tokens)
    whole, depth = list(prompt), 0
    while len(left) > 1:
        options = {ids[depth] if depth < len(ids) else -1 for ids in left.values()}
        if len(options) == 1:
            chosen = options.pop()
            if chosen == -1:
                raise EngineError(f"The choices {', '.join(left)} cannot be told apart by this model's tokens.")
        else:
            keep = min(_shared(fed, whole), len(whole) - 1)
            scores = yield Feed(keep, whole[keep:])
            fed[:] = whole
            logits = scores.logits
            chosen = max((token for token in options if token >= 0), key=lambda token: float(logits[token]))
        left = {value: ids for value, ids in left.items() if depth < len(ids) and ids[depth] == chosen}
        whole.append(chosen)
        depth += 1
    return next(iter(left))


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return next(
        (place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )
