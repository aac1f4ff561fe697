"""Fields by a model server: held to a JSON schema, or else as an adapter that was trained to fill them writes them.

A server gives no probabilities of whole values, as the engine in this process does; so the model writes. A field that
what it wrote has no choice for is a request of its own, whose answer is read as the nearest choice.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import openai

from adapters.engine import Message
from chains.openai_errors import Place, in_words, no_completion
from chains.openai_text import harmless

_MOST_TOKENS = 512
"""Fields and values are short; a model that goes on has lost its way."""
_ALONE_TOKENS = 64


class _SchemaError(Exception):
    """The server takes no schemas."""


class Filling:
    """Remembers whether the server refuses schemas. Safe to use from many threads."""

    def __init__(self, client: openai.OpenAI, place: Place, limit_s: float) -> None:
        self._client, self._place, self._limit_s = client, place, limit_s
        self._takes_schemas = True

    def fill(
        self, messages: Sequence[Message], model: str, choices: Mapping[str, Sequence[str]], user: str
    ) -> dict[str, str]:
        """A value for every field, in order, each one of its choices. Raises EngineError."""
        plain = [{"role": message.role, "content": harmless(message.text)} for message in messages]
        told = _object(self._all(plain, model, choices, user))
        found = {}
        for name, values in choices.items():
            value = told.get(name)
            if value not in values:
                alone = _alone(plain, name, values)
                value = nearest(self._ask(alone, model, user, _ALONE_TOKENS), name, values)
            found[name] = str(value)
        return found

    def _all(self, messages: list[dict[str, str]], model: str, choices: Mapping[str, Sequence[str]], user: str) -> str:
        """What the model writes when it is asked for all fields at once."""
        if self._takes_schemas:
            try:
                return self._ask(messages, model, user, _MOST_TOKENS, _format(choices))
            except _SchemaError:
                self._takes_schemas = False
        return self._ask(messages, model, user, _MOST_TOKENS)

    def _ask(
        self,
        messages: list[dict[str, str]],
        model: str,
        user: str,
        most_tokens: int,
        response_format: dict[str, Any] | None = None,
    ) -> str:
        """What the model writes. Raises _SchemaError for a refused `response_format`, else EngineError."""
        more: dict[str, Any] = {"response_format": response_format} if response_format else {}
        if user:
            more["user"] = user
        with in_words(self._place, model, self._limit_s):
            try:
                reply = self._client.chat.completions.create(
                    model=model,
                    messages=messages,  # type: ignore[arg-type]  # its own kind of dict
                    temperature=0,
                    max_tokens=most_tokens,
                    **more,
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if response_format is None:
                    raise
                raise _SchemaError from None
            content = reply.choices[0].message.content
        if not isinstance(content, str | None):
            raise no_completion(self._place, type(content).__name__)
        return content or ""


def _format(choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "enum": list(values)} for name, values in choices.items()},
        "required": list(choices),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "fields", "strict": True, "schema": schema}}


def _alone(messages: list[dict[str, str]], name: str, values: Sequence[str]) -> list[dict[str, str]]:
    """The messages, with the question for one field at their end."""
    question = f"{name}: answer with one of these and nothing else: {'; '.join(values)}"
    return [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{question}"}]


def _object(text: str) -> Mapping[str, Any]:
    """The JSON object that a text is, or holds; {} where there is none."""
    try:
        value = json.loads(text[text.find("{") : text.rfind("}") + 1])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def nearest(text: str, name: str, choices: Sequence[str]) -> str:
    """The choice that a text means: the one that it is, the first that it names, or else the most alike.

    Where the text is a JSON object, what it says of the field `name` counts.
    """
    said = str(_object(text).get(name, text)).casefold().strip(" \t\r\n.\"'`*")
    for choice in choices:
        if choice.casefold() == said:
            return choice
    named = []
    for choice in choices:
        match = re.search(rf"(?<!\w){re.escape(choice.casefold())}(?!\w)", said)
        if match:
            named.append((match.start(), -len(choice), choice))
    if named:
        return min(named)[2]
    return max(choices, key=lambda choice: difflib.SequenceMatcher(None, choice.casefold(), said).ratio())
