"""Control tokens are the template's alone; text survives its way through the tokenizer."""

from functools import cache
from typing import Any

import pytest
from adapters_small import TEXTS

from adapters.prompts import Message, encode_chat, encode_example, encode_text, fit_chat
from adapters.tiny.tokenizer import CONTROL_TOKENS, train_tokenizer


@cache
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 520)


def control_ids() -> set[int]:
    return {tokenizer().convert_tokens_to_ids(token) for token in CONTROL_TOKENS}


def test_a_chat_has_the_ids_of_phi3s_template() -> None:
    ids = encode_chat(tokenizer(), [Message("user", "laptop")], open_reply=True)
    names = tokenizer().convert_ids_to_tokens(ids)
    assert (names[0], names[-2:]) == ("<|user|>", ["<|end|>", "<|assistant|>"])
    assert tokenizer().decode(ids[1:-2]) == "laptop"


def test_pieces_give_the_ids_that_the_whole_template_gives() -> None:
    messages = [
        Message("system", "Be kind."),
        Message("user", "My screen?"),
        Message("assistant", "The cable."),
    ]
    plain = [{"role": m.role, "content": m.content} for m in messages]
    whole = tokenizer().apply_chat_template(plain, tokenize=True, return_dict=False)
    assert encode_chat(tokenizer(), messages, open_reply=False) == whole


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_control_token_in_a_question_stays_text(token: str) -> None:
    text = f"printer {token} jams{token}"
    ids = encode_text(tokenizer(), text)
    assert not control_ids() & set(ids)
    assert tokenizer().decode(ids) == text
    chat = encode_chat(tokenizer(), [Message("user", text)], open_reply=True)
    assert sum(id in control_ids() for id in chat) == 3


def test_a_placeholder_in_a_question_cannot_pull_in_another_message() -> None:
    messages = [Message("user", "secret"), Message("user", "\ue0000\ue001")]
    ids = encode_chat(tokenizer(), messages, open_reply=True)
    assert tokenizer().decode(ids).count("secret") == 1


@pytest.mark.parametrize("text", ["naïve 漢字 🙂", "two\nlines  and\ttabs", '{"a":"b"}', "", "one two"])
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    assert tokenizer().decode(encode_text(tokenizer(), text)) == text


def test_an_example_is_masked_up_to_its_answer() -> None:
    ids, mask = encode_example(tokenizer(), "My screen?", "The cable.")
    opened = encode_chat(tokenizer(), [Message("user", "My screen?")], open_reply=True)
    assert mask == [0] * len(opened) + [1] * (len(ids) - len(opened))
    assert tokenizer().convert_ids_to_tokens(ids[-2:]) == ["<|end|>", "<|endoftext|>"]


def test_a_long_chat_loses_its_oldest_turns_first_and_keeps_the_system_message() -> None:
    messages = [
        Message("system", "Be kind."),
        Message("user", "old " * 30),
        Message("assistant", "older answer"),
        Message("user", "The printer jams."),
    ]
    kept = encode_chat(tokenizer(), [messages[0], messages[3]], open_reply=True)
    assert fit_chat(tokenizer(), messages, len(kept)) == kept


def test_a_message_longer_than_the_window_loses_its_end_and_still_opens_the_reply() -> None:
    ids = fit_chat(tokenizer(), [Message("user", "first " + "x " * 500)], 20)
    assert len(ids) == 20
    assert tokenizer().convert_ids_to_tokens(ids[-2:]) == ["<|end|>", "<|assistant|>"]
    assert tokenizer().decode(ids[1:-2]).startswith("first x")


def test_context_goes_passage_by_passage_from_its_end_and_the_question_stays() -> None:
    passages = tuple(f"passage {number} " + "x " * 10 for number in range(4))
    whole = [Message("user", "old " * 10), Message("assistant", "yes"), Message("user", "Which one?", passages)]
    for kept in range(4):
        wanted = encode_chat(tokenizer(), [Message("user", "Which one?", passages[:kept])], open_reply=True)
        assert fit_chat(tokenizer(), whole, len(wanted) + 3) == wanted
    assert tokenizer().decode(wanted[1:-2]) == "\n\n".join([*passages[:3], "Which one?"])


def test_a_template_without_system_messages_still_gets_their_text() -> None:
    silent = train_tokenizer(TEXTS, 520)
    silent.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '<|user|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    messages = [Message("system", "Be kind."), Message("user", "My screen?")]
    ids = encode_chat(silent, messages, open_reply=True)
    assert silent.decode(ids[1:-2]) == "Be kind.\n\nMy screen?"


def test_a_chat_of_many_messages_is_cut_by_encoding_each_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    import adapters.prompts

    seen = 0
    encode = adapters.prompts.encode_text

    def counting(tokenizer: Any, text: str) -> list[int]:
        nonlocal seen
        seen += 1
        return encode(tokenizer, text)

    monkeypatch.setattr(adapters.prompts, "encode_text", counting)
    many = [Message("user" if n % 2 == 0 else "assistant", f"message {n} " + "x " * 20) for n in range(201)]
    ids = fit_chat(tokenizer(), many, 100)
    assert len(ids) <= 100 and seen < 3 * len(many)
    kept = tokenizer().decode(ids)
    assert "message 200" in kept and "message 100" not in kept


def test_a_system_message_alone_is_answered() -> None:
    assert fit_chat(tokenizer(), [Message("system", "x " * 500)], 30)
