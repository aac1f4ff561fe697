from dataclasses import replace

import pytest

from chains.condense import (
    ANSWER_WORDS,
    CERTAIN,
    SHOWN,
    UNLIKELY,
    Closeness,
    Understood,
    can_follow,
    condense,
    weight_of,
)
from chains.turn import Exchange

KNOWN = Closeness(to_library=0.65, to_utterances=0.5, to_previous=0.15, stray=0.05)
"""What a complete question about something else looks like."""
FRAGMENT = Closeness(to_library=0.4, to_utterances=0.35, to_previous=0.35, stray=0.1)
"""What a few words about the last question look like by themselves."""


def after(previous: str, message: str, closeness: Closeness = FRAGMENT) -> Understood:
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
    assert after(previous, message).standalone == standalone


@pytest.mark.parametrize(
    "message",
    ["Do I need anything else for it?", "Is there something else I can do about it?", "now how do I undo it?"],
)
def test_words_that_only_sound_like_a_new_subject_do_not_make_one(message: str) -> None:
    unknown = Closeness(to_library=0.3, to_utterances=0.3, to_previous=0.3, stray=0.1)
    assert after("How do I book a desk?", message, unknown).standalone != message


@pytest.mark.parametrize("message", ["Can I carry them over?", "who approves that?", "It also happens at home"])
def test_a_message_that_points_back_takes_the_last_question_along(message: str) -> None:
    understood = after("How many days of leave do I get?", message)
    assert understood.standalone == f"How many days of leave do I get - {message}"


@pytest.mark.parametrize(
    "message",
    [
        "How do I print at another office?",
        "My laptop is slow and it makes a strange noise",
        "My touchpad is dead since this morning",
        "Is there a contribution to a gym?",
        "Is it possible to get a second monitor?",
        "Sort this ticket: it does not start",
        "thanks",
        "Who won the match yesterday evening in the city where they always play?",
    ],
)
def test_a_message_that_stands_alone_is_left_alone(message: str) -> None:
    assert after("How many days of leave do I get?", message, KNOWN).standalone == message


def test_without_history_nothing_is_added() -> None:
    assert condense("and in Ghent?", (), lambda *_: FRAGMENT) == Understood("and in Ghent?", "and in Ghent?", "", 0.0)


@pytest.mark.parametrize("message", ["until when?", "part-timers?", "can she refuse without a reason?"])
def test_a_short_message_that_the_library_does_not_know_by_itself_follows_up(message: str) -> None:
    previous = "How many days of leave may be carried over?"
    unknown = Closeness(to_library=0.3, to_utterances=0.3, to_previous=0.3, stray=0.2)
    assert after(previous, message, unknown).standalone.startswith(previous.rstrip("?"))


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
    closeness = Closeness(to_library=0.2, to_utterances=0.6, to_previous=0.05, stray=0.99)
    assert after("How many days of leave may be carried over?", message, closeness).standalone == message


def test_a_message_counts_as_a_follow_up_the_less_the_more_it_is_out_of_scope_by_itself() -> None:
    weights = [after("How long?", "Who says so?", Closeness(0.4, 0.5, 0.1, stray)).follows for stray in (0.0, 0.5, 1.0)]
    assert weights[0] > weights[1] > weights[2]


def test_a_whole_question_about_the_same_subject_stays_as_it_is() -> None:
    message = "How do I install Harbor Link on a tablet that belongs to me?"
    closeness = Closeness(to_library=0.75, to_utterances=0.5, to_previous=0.8, stray=0.01)
    assert after("How do I install Harbor Link on a phone?", message, closeness).standalone == message


@pytest.mark.parametrize(
    "question", ["How long is it?", "How do I request a monitor?", "Triage is what?", "Where is my ticket, please"]
)
def test_what_stands_before_the_new_words_is_not_taken_for_an_order_with_a_ticket(question: str) -> None:
    assert ":" not in after(question, "who approves that?").standalone


def test_a_chain_of_follow_ups_builds_on_the_question_as_it_was_understood() -> None:
    first = after("When is lunch served in Rotterdam?", "and in Ghent?").standalone
    assert after(first, "and in Bristol?").standalone == "When is lunch served in Bristol?"


def test_a_chain_whose_history_was_kept_as_typed_is_understood_alike() -> None:
    history = (Exchange("When is lunch served in Rotterdam?", "11:45"), Exchange("and in Ghent?", "12:00"))
    assert condense("and in Bristol?", history, lambda *_: FRAGMENT).standalone == "When is lunch served in Bristol?"


def test_a_long_chain_keeps_its_first_question_and_its_last_words() -> None:
    question = "How do I get a badge?"
    for message in ("who signs that?", "why him?", "is there another?"):
        question = after(question, message).standalone
    assert question == "How do I get a badge - why him - is there another?"


def test_the_place_is_the_last_question_with_the_beginning_of_its_answer() -> None:
    history = (Exchange("How long?", "A week. " * 100),)
    place = condense("and in Ghent?", history, lambda *_: FRAGMENT).place
    assert place.split() == ["How", "long?", *(["A", "week."] * (ANSWER_WORDS // 2))]


@pytest.mark.parametrize("message", ["no, I meant: does it come by itself", "it's twins :)", "and on it? :-D"])
def test_a_colon_of_a_correction_or_a_smile_makes_no_ticket(message: str) -> None:
    assert can_follow(message)


def test_the_conversation_counts_from_nothing_to_everything_as_a_follow_up_gets_likelier() -> None:
    assert [weight_of(chance) for chance in (0.0, UNLIKELY, CERTAIN, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert weight_of((UNLIKELY + CERTAIN) / 2) == pytest.approx(SHOWN)


def test_a_message_that_an_adapter_surely_handles_stands_alone_unless_it_refers_back() -> None:
    surely = replace(FRAGMENT, handled=0.99)
    assert after("Which languages?", "define backlog", FRAGMENT).follows > 0
    assert after("Which languages?", "define backlog", surely).follows == 0
    assert after("Which languages?", "and backlog?", surely).follows > 0
