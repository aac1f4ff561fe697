"""Answers that obey a JSON schema: the tokens that may come next, by llguidance."""

import json
import threading
from typing import Any

import numpy as np
import torch

from adapters.errors import EngineError

LONGEST_STRING = 512
"""Characters of a string whose schema states no length: a weak model would fill it up to the token limit."""
MOST_ITEMS = 64
"""Items of an array whose schema states no number, for the same reason."""


class Grammars:
    """Makes grammars for one tokenizer. Safe to use from many threads."""

    def __init__(self, tokenizer: Any, vocabulary: int, stop: set[int]) -> None:
        self._tokenizer, self._vocabulary, self._stop = tokenizer, vocabulary, sorted(stop)
        self._lock = threading.Lock()
        self._made: Any = None

    def grammar(self, schema: str) -> "Grammar":
        """Raises EngineError for a schema that is none or that cannot be followed."""
        from llguidance import LLMatcher

        try:
            bounded = json.dumps(_bounded(json.loads(schema)))
            text = LLMatcher.grammar_from_json_schema(bounded, overrides={"whitespace_flexible": False})
        except (ValueError, RecursionError) as error:
            raise EngineError(f"The JSON schema cannot be read: {str(error)[:300]}") from None
        matcher = LLMatcher(self._prepared(), text)
        if matcher.is_error():
            raise EngineError(f"The JSON schema cannot be followed: {matcher.get_error()[:300]}")
        return Grammar(matcher, self._vocabulary)

    def _prepared(self) -> Any:
        from llguidance.hf import from_tokenizer

        with self._lock:
            if self._made is None:
                self._made = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._stop)
            return self._made


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> torch.Tensor:
        """(vocabulary,) True for each token that may come next; a stop token may where the answer may end."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[: self._vocabulary].astype(bool)
        if self._matcher.is_error() or not bits.any():
            raise EngineError(f"The answer cannot go on by its JSON schema: {self._matcher.get_error()[:300]}")
        return torch.from_numpy(bits)

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise EngineError(f"The answer left its JSON schema: {self._matcher.get_error()[:300]}")

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())


def _bounded(schema: Any) -> Any:
    """The schema with a length for each plain string and a number for each plain array that states none."""
    if isinstance(schema, list):
        return [_bounded(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value if key in ("enum", "const") else _bounded(value) for key, value in schema.items()}
    if found.get("type") == "string" and not {"enum", "const", "pattern", "format", "maxLength"} & found.keys():
        found["maxLength"] = max(LONGEST_STRING, _number(found.get("minLength")))
    if found.get("type") == "array" and "maxItems" not in found:
        found["maxItems"] = max(MOST_ITEMS, _number(found.get("minItems")))
    return found


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
