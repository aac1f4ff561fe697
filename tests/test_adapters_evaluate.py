"""Scores of an adapter: what was said before a question counts as it does in serving."""

import json

import pytest
from adapters_small import make_adapter, make_base, make_settings

from adapters import evaluate
from adapters.answer import Step
from adapters.dataset import Example
from adapters.evaluate import LoadedAdapter, answer_scores, calibrate, field_scores, load_adapter
from adapters.prompts import Message

SAID = (Message("user", "The printer on the second floor jams."), Message("assistant", "Open the cover."))
QUESTIONS = [f"and number {number}, after the lid?" for number in range(6)]
CHOICES = {"category": ["hardware", "software", "network", "access", "other"], "priority": ["P1", "P2", "P3", "P4"]}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedAdapter:
    root = tmp_path_factory.mktemp("evaluate")
    make_base(root / "base")
    make_adapter(root / "base", root / "trained" / "red", "red", 1)
    (root / "shipped" / "red").mkdir(parents=True)
    (root / "shipped" / "red" / "adapter.yaml").write_text("title: Red\ndomain: Red things\n")
    return load_adapter(make_settings(root), "red")


def test_answers_and_levels_are_those_of_the_whole_chat(loaded: LoadedAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = [[*SAID, Message("user", question)] for question in QUESTIONS]
    replies = loaded.decoder.chat_replies(chats, loaded.weights, 8, 32)
    bare = loaded.decoder.replies(QUESTIONS, loaded.weights, 8, 32)
    assert all(one.text != other.text for one, other in zip(replies, bare, strict=True)), "the history changes nothing"
    rows = [Example(one, reply.text, None, SAID) for one, reply in zip(QUESTIONS, replies, strict=True)]
    assert answer_scores(loaded, "red", rows, 8)["exact"] == 1.0
    monkeypatch.setattr(evaluate, "LEAST_ROWS", len(rows))
    found = calibrate(loaded, "red", rows, 8)
    assert found.level == pytest.approx(min(reply.confidence for reply in replies), abs=1e-4)


def test_fields_are_those_of_the_whole_chat(loaded: LoadedAdapter) -> None:
    def filled(before: tuple[Message, ...]) -> list[str]:
        found = []
        for question in QUESTIONS:
            steps: list[Step] = []
            chat = [*before, Message("user", question)]
            loaded.decoder.run([loaded.decoder.fields(chat, loaded.weights, CHOICES, steps.append)], 1)
            found.append(json.dumps(dict(zip(CHOICES, (step.text for step in steps), strict=True))))
        return found

    truth = filled(SAID)
    assert truth != filled(()), "the history changes nothing"
    rows = [Example(one, right, None, SAID) for one, right in zip(QUESTIONS, truth, strict=True)]
    scores = field_scores(loaded, "red", rows, CHOICES)
    assert [scores[name] for name in CHOICES] == [1.0, 1.0]
