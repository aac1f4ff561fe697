import pytest

from chains.condense import condense
from chains.turn import Exchange


def after(previous: str, message: str) -> str:
    return condense(message, (Exchange(previous, "an answer"),))


@pytest.mark.parametrize(
    ("previous", "message", "standalone"),
    [
        (
            "How do I install Harbor Link on a tablet?",
            "and on a desktop?",
            "How do I install Harbor Link on a desktop?",
        ),
        ("When is lunch served in Rotterdam?", "And in Ghent?", "When is lunch served in Ghent?"),
        ("When is lunch served in Rotterdam?", "what about Ghent?", "When is lunch served in Ghent?"),
        ("Can I install it on a laptop at home?", "on a phone", "Can I install it on a phone at home?"),
        ("How much may a hotel in Paris cost", "for how long?", "How much may a hotel in Paris cost for how long?"),
    ],
)
def test_a_phrase_replaces_its_like_in_the_last_question(previous: str, message: str, standalone: str) -> None:
    assert after(previous, message) == standalone


@pytest.mark.parametrize("message", ["Can I carry them over?", "who approves that?", "It also happens at home"])
def test_a_message_that_points_back_takes_the_last_question_along(message: str) -> None:
    assert after("How many days of leave do I get?", message) == f"How many days of leave do I get: {message}"


@pytest.mark.parametrize(
    "message",
    [
        "How do I print at another office?",
        "My laptop is slow and it makes a strange noise",
        "Is there a contribution to a gym?",
        "Is it possible to get a second monitor?",
        "Sort this ticket: it does not start",
        "thanks",
        "Who won the match yesterday evening in the city where they always play?",
    ],
)
def test_a_message_that_stands_alone_is_left_alone(message: str) -> None:
    assert after("How many days of leave do I get?", message) == message


def test_without_history_nothing_is_added() -> None:
    assert condense("and in Ghent?", ()) == "and in Ghent?"


def test_a_chain_of_follow_ups_builds_on_the_question_as_it_was_understood() -> None:
    first = after("When is lunch served in Rotterdam?", "and in Ghent?")
    assert after(first, "and in Bristol?") == "When is lunch served in Bristol?"
