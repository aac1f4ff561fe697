"""Messages become token ids here, and nowhere else: training and serving see the same ids.

The chat template is rendered with a placeholder for every message's text. Only the template's own parts may
become control tokens; what a person or a document wrote is tokenised with special tokens switched off, so
"<|end|>" in a question stays six ordinary characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

ROLES = ("system", "user", "assistant")
_SLOT = re.compile("\ue000(\\d+)\ue001")
_PRIVATE = re.compile("[\ue000\ue001]")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as written. `context` are passages before its text, the most important first."""

    role: Literal["system", "user", "assistant"]
    content: str
    context: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n\n".join((*self.context, self.content))


def encode_chat(tokenizer: Any, messages: Sequence[Message], *, open_reply: bool) -> list[int]:
    """The chat's token ids. With `open_reply` they end where the assistant's answer begins."""
    return [token for piece in _encode_pieces(tokenizer, messages, open_reply) for token in piece]


def encode_example(
    tokenizer: Any, prompt: str, completion: str, before: Sequence[Message] = ()
) -> tuple[list[int], list[int]]:
    """Ids of one training row and its mask, 1 from the completion's first token to the end of the text.

    `before` is what was said before the prompt.
    """
    question = [*before, Message("user", prompt)]
    opened = encode_chat(tokenizer, question, open_reply=True)
    whole = encode_chat(tokenizer, [*question, Message("assistant", completion)], open_reply=False)
    assert whole[: len(opened)] == opened, "the chat template does not open its reply as it writes one"
    return whole, [0] * len(opened) + [1] * (len(whole) - len(opened))


def fit_chat(tokenizer: Any, messages: Sequence[Message], room: int) -> list[int]:
    """The chat's ids, at most `room` of them, ready for the reply.

    What does not fit is cut by one rule: first the oldest messages go, never a leading system message nor the last one;
    then the last message's context goes, passage by passage from its end, never half of one; and only a message that is
    too long by itself loses its end.
    """
    system = list(messages[:1]) if len(messages) > 1 and messages[0].role == "system" else []
    turns = list(messages[len(system) :])
    sizes = [_size(tokenizer, turn.content) for turn in turns]
    contexts = [[_size(tokenizer, passage) for passage in turn.context] for turn in turns]
    fixed = sum(_size(tokenizer, message.text) for message in system)
    # A first guess by the texts alone, each counted once; what the template adds is then taken off step by step.
    while len(turns) > 1 and fixed + sum(sizes) + sum(map(sum, contexts)) > room:
        turns, sizes, contexts = turns[1:], sizes[1:], contexts[1:]
    ids = encode_chat(tokenizer, [*system, *turns], open_reply=True)
    while len(ids) > room and (len(turns) > 1 or turns[-1].context):
        turns = turns[1:] if len(turns) > 1 else [replace(turns[0], context=turns[0].context[:-1])]
        ids = encode_chat(tokenizer, [*system, *turns], open_reply=True)
    if len(ids) <= room:
        return ids
    pieces = _encode_pieces(tokenizer, [*system, *turns], True)
    last = max((index for index in range(1, len(pieces), 2)), default=0)
    excess = len(ids) - room
    pieces[last] = pieces[last][: max(0, len(pieces[last]) - excess)]
    ids = [token for piece in pieces for token in piece]
    return ids[-room:]


def _size(tokenizer: Any, text: str) -> int:
    return len(encode_text(tokenizer, text))


def _encode_pieces(tokenizer: Any, messages: Sequence[Message], open_reply: bool) -> list[list[int]]:
    """Template and message ids in turn: the odd entries are the messages' own text."""
    text = _rendered(tokenizer, messages, open_reply)
    if messages[0].role == "system" and "\ue0000\ue001" not in text and len(messages) > 1:
        # Phi-3's first templates leave system messages out without a word: the next message then begins with it.
        told = replace(messages[1], context=(messages[0].content, *messages[1].context))
        messages = [told, *messages[2:]]
        text = _rendered(tokenizer, messages, open_reply)
    pieces = []
    for position, part in enumerate(_SLOT.split(text)):
        if position % 2:
            pieces.append(encode_text(tokenizer, messages[int(part)].text))
        else:
            pieces.append(_ids(tokenizer, part, split_special=False))
    return pieces


def _rendered(tokenizer: Any, messages: Sequence[Message], open_reply: bool) -> str:
    """The chat template's text with a placeholder for each message's."""
    slots = [{"role": message.role, "content": f"\ue000{i}\ue001"} for i, message in enumerate(messages)]
    text: str = tokenizer.apply_chat_template(slots, tokenize=False, add_generation_prompt=open_reply)
    return text


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of plain text; no control token can come out of it."""
    return _ids(tokenizer, _PRIVATE.sub("", text), split_special=True)


def _ids(tokenizer: Any, text: str, *, split_special: bool) -> list[int]:
    if not text:
        return []
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=split_special).input_ids
    return ids
