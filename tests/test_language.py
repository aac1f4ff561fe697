"""Foreign messages are told from English ones, and English ones are let be."""

import json
from pathlib import Path

import pytest
import yaml

from adapters.dataset import read_examples
from app.assembly import Switchboard
from chains.golden import read_golden
from chains.language import LANGUAGES, foreign_language, notice
from chains.turn import Exchange, Routed, Turn
from desk.config import DEFAULT_DESK, load_desk

FOREIGN = {
    "Hoe vraag ik verlof aan?": "Dutch",
    "De printer op de tweede verdieping doet het niet": "Dutch",
    "wachtwoord vergeten": "Dutch",
    "Comment puis-je demander un congé ?": "French",
    "Mon ordinateur ne démarre plus": "French",
    "Wie viele Urlaubstage habe ich im Jahr?": "German",
    "Passwort vergessen, was nun?": "German",
    "¿Cuántos días de vacaciones tengo al año?": "Spanish",
    "La stampante al secondo piano non funziona": "Italian",
    "Como posso pedir férias?": "Portuguese",
    "Mój laptop się nie uruchamia": "Polish",
    "Nasıl izin talep edebilirim?": "Turkish",  # noqa: RUF001
    "Как мне попросить отпуск?": "Russian",
    "我怎么申请休假？": "Chinese",  # noqa: RUF001
    "休暇を申請するにはどうすればいいですか？": "Japanese",  # noqa: RUF001
    "كيف يمكنني طلب إجازة؟": "Arabic",
    "איך אני מבקש חופשה?": "Hebrew",
}
ENGLISH = [
    "",
    "?",
    "lol",
    "ok thx",
    "VPN kaput",
    "pasword forgoten",
    "pritner jam on 2nd flor",
    "who is Jan de Vries?",
    "Is Marie-Claire Dubois in the Ghent office?",
    "Where is Van der Meer's desk?",
    "café opening hours",
    'What does "Feierabend" mean in the calendar?',
    "def f(x): return x + 1",
    "SELECT * FROM users WHERE id = 1;",
    "ERROR 0x80070005 java.lang.NullPointerException at com.corvane.App.main(App.java:12)",
    "😀😀😀",
    "1234 5678",
    "\x00\x01",
    "a" * 20_000,
    "https://intranet.corvane.example/de/urlaub",
]


@pytest.mark.parametrize("message", FOREIGN)
def test_a_message_in_another_language_is_told_with_its_name(message: str) -> None:
    assert foreign_language(message) == FOREIGN[message]


@pytest.mark.parametrize("message", ENGLISH)
def test_short_misspelt_and_technical_messages_are_not_foreign(message: str) -> None:
    assert foreign_language(message) is None


def test_the_desks_own_english_is_not_foreign() -> None:
    """At most three of a thousand development questions, training questions and utterances."""
    routes = yaml.safe_load((DEFAULT_DESK / "routes.yaml").read_text(encoding="utf-8"))
    messages = {turn.question for turn in read_golden(DEFAULT_DESK / "evaluation" / "dev.jsonl")}
    messages |= {*routes["retrieval"], *routes["out_of_scope"]}
    for path in DEFAULT_DESK.glob("adapters/*/train.jsonl"):
        messages |= {row.prompt for row in read_examples(path)}
    mistaken = [message for message in messages if foreign_language(message)]
    assert len(messages) > 10_000 and len(mistaken) <= 0.003 * len(messages), mistaken


def test_every_language_that_is_told_is_known_to_the_library() -> None:
    assert foreign_language("Hoe vraag ik verlof aan?") in LANGUAGES.values()
    assert "Dutch" in notice("Dutch") and "English" in notice("Dutch")


def test_a_desk_with_another_embedder_makes_no_statement(desk: Path) -> None:
    assert load_desk(desk).chains.english_only
    text = (
        (desk / "desk.yaml")
        .read_text()
        .replace(
            "index:\n", "index:\n  embedder: " + json.dumps({"kind": "openai", "url": "http://x", "model": "m"}) + "\n"
        )
    )
    (desk / "desk.yaml").write_text(text)
    assert not load_desk(desk).chains.english_only


def test_a_message_in_another_language_does_not_take_the_last_question_along(board: Switchboard) -> None:
    past = Exchange("How many days of leave may be carried over?", "At most 5 unused days move to the next year.")
    seen = list(board.assistant.answer(Turn("Wie lange dauert eine Verbindung von zu Hause?", (past,))))
    routed = next(event for event in seen if isinstance(event, Routed))
    assert routed.standalone == "Wie lange dauert eine Verbindung von zu Hause?"
