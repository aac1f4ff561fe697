"""How often an adapter's greedy answer is exactly the right one, with the adapter and without it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from adapters.dataset import Example
from adapters.engine import Engine, Message


def answer_scores(
    engine: Engine, adapter: str | None, examples: list[Example], advance: Callable[[], None]
) -> dict[str, float]:
    """`exact`: share of answers equal to the completion; `known`: share equal to any completion of the rows."""
    known = {row.completion for row in examples}
    answers = []
    for row in examples:
        answers.append(_until_unknown(engine.stream([Message("user", row.prompt)], adapter), known))
        advance()
    right = sum(answer == row.completion for answer, row in zip(answers, examples, strict=True))
    return {
        "questions": float(len(examples)),
        "exact": right / len(examples),
        "known": sum(answer in known for answer in answers) / len(examples),
    }


def _until_unknown(pieces: Iterator[str], known: set[str]) -> str:
    """The answer, or as much of it as shows that it is none of the known ones: the base alone rambles."""
    text = ""
    for piece in pieces:
        text += piece
        if not any(answer.startswith(text) for answer in known):
            break
    return text


def field_scores(
    engine: Engine,
    adapter: str,
    examples: list[Example],
    choices: Mapping[str, Sequence[str]],
    advance: Callable[[], None],
) -> dict[str, float]:
    """Share of right values per field, and the share that the rows' most frequent value would get."""
    truth = [json.loads(row.completion) for row in examples]
    filled = []
    for row in examples:
        filled.append(engine.fill([Message("user", row.prompt)], adapter, choices))
        advance()
    scores = {"tickets": float(len(examples))}
    for name in choices:
        values = [row[name] for row in truth]
        scores[name] = sum(got[name] == value for got, value in zip(filled, values, strict=True)) / len(values)
        scores[f"{name}_majority"] = Counter(values).most_common(1)[0][1] / len(values)
    return scores
