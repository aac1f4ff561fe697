"""The embedded model's own BPE tokenizer, in Phi-3's form: "▁" for a space, bytes for unknown characters,
Phi-3's control tokens and chat template. Learns from the texts it is given; knows no model.
"""

from collections.abc import Iterable
from typing import Any

CONTROL_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content']"
    " + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
"""Phi-3-mini's template, character for character."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, lines_apart: bool = False) -> Any:
    """A `PreTrainedTokenizerFast` of `vocab_size` tokens. The same texts give the same tokenizer.

    With `lines_apart` no token holds a line's end and something else, so that texts joined by one keep their tokens.
    """
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    reserved = ["<unk>", "<s>", *CONTROL_TOKENS, *bytes_]
    vocabulary, merges = _learn(texts, vocab_size - len(reserved), lines_apart)
    ids = {token: position for position, token in enumerate([*reserved, *vocabulary])}
    tokenizer = Tokenizer(
        models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)  # noqa: S106
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(lines_apart)
    tokenizer.decoder = _decoder()
    # rstrip: the newline that the template writes after a control token is part of it, as in Phi-3.
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, rstrip=True, normalized=False) for token in CONTROL_TOKENS]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="<|endoftext|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _learn(texts: Iterable[str], size: int, lines_apart: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges, most frequent first. Merges whose parts fell away cannot occur: BPE keeps both."""
    import json

    from tokenizers import Tokenizer, models, trainers

    learner = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106
    learner.pre_tokenizer = _pre_tokenizer(lines_apart)
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=[]))
    model = json.loads(learner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [(left, right) for left, right in model["merges"]]


def _pre_tokenizer(lines_apart: bool) -> Any:
    from tokenizers import Regex, pre_tokenizers

    lines = [pre_tokenizers.Split(Regex("\\n+"), "isolated")] if lines_apart else []

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("isolated"),
            *lines,
        ]
    )


def _decoder() -> Any:
    from tokenizers import decoders

    return decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
