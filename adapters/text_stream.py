"""Tokens to text that is certain: whole characters, and nothing that a stop string may still take back."""

import re
from collections.abc import Sequence
from typing import Any

BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


class TextStream:
    """Text grows by whole characters: bytes wait until the run of byte tokens has ended.

    One bad byte makes the tokenizer write U+FFFD for every byte of its run, so a run is not certain before. Only the
    tokens since the last certain text are decoded again, beside the piece before them, which decides about spaces.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._before = self._shown = 0
        """Where the last shown piece begins and ends among the tokens."""

    def add(self, token: int) -> str:
        """The text that `token` made certain, which may be ""."""
        self._tokens.append(token)
        if BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))):
            return ""
        return self._show(certain=True)

    def rest(self) -> str:
        """What is still held back at the end."""
        return self._show(certain=False)

    def _show(self, *, certain: bool) -> str:
        before = self._decode(self._tokens[self._before : self._shown])
        text = self._decode(self._tokens[self._before :])
        if certain and (text.endswith("\ufffd") or len(text) <= len(before)):
            return ""
        self._before, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


class StopStrings:
    """Ends a text before the first of some strings, and holds back what may become one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.met = False

    def add(self, text: str) -> str:
        """The text that is certain now; sets `met` once a string has come."""
        if not self._strings:
            return text
        self._held += text
        found = [place for place in map(self._held.find, self._strings) if place >= 0]
        if found:
            self.met = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        longest = max(map(len, self._strings)) - 1
        keep = next(
            (
                size
                for size in range(min(longest, len(self._held)), 0, -1)
                if any(string.startswith(self._held[-size:]) for string in self._strings)
            ),
            0,
        )
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def rest(self) -> str:
        """What is still held back at the end."""
        held, self._held = self._held, ""
        return held
