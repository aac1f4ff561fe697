import pytest

from chains.condense import Closeness, condense
from chains.turn import Exchange

KNOWN = Closeness(to_library=0.65, to_utterances=0.5, to_previous=0.15)
"""What a complete question about something else looks like."""


def after(previous: str, message: str, closeness: Closeness = KNOWN) -> str:
    return condense(message, (Exchange(previous, "an answer"),), lambda *_: closeness)


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


@pytest.mark.parametrize(
    "message",
    ["Do I need anything else for it?", "Is there something else I can do about it?", "now how do I undo it?"],
)
def test_words_that_only_sound_like_a_new_subject_do_not_make_one(message: str) -> None:
    unknown = Closeness(to_library=0.3, to_utterances=0.3, to_previous=0.3)
    assert after("How do I book a desk?", message, unknown) != message


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
    assert condense("and in Ghent?", (), lambda *_: KNOWN) == "and in Ghent?"


@pytest.mark.parametrize("message", ["until when?", "part-timers?", "can she refuse without a reason?"])
def test_a_short_message_that_the_library_does_not_know_by_itself_follows_up(message: str) -> None:
    previous = "How many days of leave may be carried over?"
    assert after(previous, message, Closeness(to_library=0.3, to_utterances=0.3, to_previous=0.3)).startswith(
        previous.rstrip("?")
    )


@pytest.mark.parametrize(
    "message",
    [
        "Another question: on which day is it?",
        "now something else, what about it?",
        "thanks a lot",
        "perfect, got it",
        "Can you write a long poem for the birthday of my sister?",
    ],
)
def test_a_new_subject_is_no_follow_up_though_the_library_does_not_know_it(message: str) -> None:
    closeness = Closeness(to_library=0.2, to_utterances=0.6, to_previous=0.05)
    assert after("How many days of leave may be carried over?", message, closeness) == message


def test_a_whole_question_about_the_same_subject_stays_as_it_is() -> None:
    message = "How do I install Harbor Link on a tablet that belongs to me?"
    closeness = Closeness(to_library=0.75, to_utterances=0.5, to_previous=0.8)
    assert after("How do I install Harbor Link on a phone?", message, closeness) == message


def test_a_chain_of_follow_ups_builds_on_the_question_as_it_was_understood() -> None:
    first = after("When is lunch served in Rotterdam?", "and in Ghent?")
    assert after(first, "and in Bristol?") == "When is lunch served in Bristol?"
