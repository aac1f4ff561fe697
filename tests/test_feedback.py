"""What the buttons under an answer do: with the real desk, its real records, and in a real browser."""

import re
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect

from app.assembly import Switchboard
from app.conversation import Conversation
from app.feedback import Press, better_answer, read_press
from app.pages.chat import ChatPage
from app.pages.feedback import FeedbackHandlers, ways_of
from app.records import Correction, Feedback
from chains.turn import BASE_MODEL, Route, RouteDecision, RouteOption

QUESTION = "How long does a Harbor Link connection last before it ends?"
DOCUMENTS, SUPPORT = RouteOption(Route.RETRIEVAL), RouteOption(Route.ADAPTER, "it-support")
USER = "someone"


def press(name: Any, value: Any) -> gr.EventData:
    return gr.EventData(None, {"name": name, "value": value})


def kept(board: Switchboard, before: int) -> list[Feedback]:
    return [record.feedback for record in board.records.all() if record.id > before]


@pytest.fixture
def before(board: Switchboard) -> int:
    """The last record so far."""
    return max((record.id for record in board.records.all()), default=0)


@pytest.fixture
def conversation(board: Switchboard) -> Conversation:
    """One finished turn, answered from the documents."""
    talk = Conversation(ways=ways_of(board))
    talk.ask(QUESTION)
    list(ChatPage(board).answer(talk, "retrieval", "auto", USER))
    return talk


@pytest.fixture
def handlers(board: Switchboard) -> FeedbackHandlers:
    return FeedbackHandlers(ChatPage(board))


@pytest.fixture
def compared(handlers: FeedbackHandlers, conversation: Conversation) -> Conversation:
    """The same, answered again by an adapter."""
    list(handlers.answer_again(conversation, USER, press("again", "0|adapter:it-support")))
    return conversation


def test_a_desk_offers_every_way_that_it_has(board: Switchboard) -> None:
    options = [way.option for way in ways_of(board)]
    adapters = ["it-support", "service-desk", BASE_MODEL]
    assert options == [
        DOCUMENTS,
        *(RouteOption(Route.ADAPTER, name) for name in adapters),
        RouteOption(Route.BOTH),
    ]


def test_an_answer_offers_the_ways_that_it_did_not_take(conversation: Conversation) -> None:
    html = conversation.messages()[1]["content"]
    assert 'value="0|adapter:it-support"' in html and 'value="0|both"' in html
    assert 'value="0|retrieval"' not in html


def test_a_thumb_is_shown_and_kept_once_and_can_be_turned(
    board: Switchboard, before: int, handlers: FeedbackHandlers, conversation: Conversation
) -> None:
    for value in ("up", "up", "down"):
        messages, _ = handlers.say(conversation, USER, press("thumb", f"0|{value}"))
        assert f"sb-{value} sb-on" in messages[1]["content"] and messages[1]["content"].count("sb-on") == 1
    assert kept(board, before) == [
        Feedback(USER, "thumb", "up", QUESTION, DOCUMENTS),
        Feedback(USER, "thumb", "down", QUESTION, DOCUMENTS),
    ]


def test_a_second_answer_stands_beside_the_first_with_its_own_badge_and_is_kept_as_an_override(
    board: Switchboard, before: int, compared: Conversation
) -> None:
    html = compared.messages()[1]["content"]
    assert html.count('class="sb-side"') == 2 and html.count("sb-badge") == 2
    assert "12 hours" in html and "You chose it-support" in html and "sb-writing" not in html
    assert kept(board, before) == [Feedback(USER, "override", "again", QUESTION, DOCUMENTS, SUPPORT)]


def test_the_two_answers_cite_into_panels_of_their_own(handlers: FeedbackHandlers, board: Switchboard) -> None:
    talk = Conversation(ways=ways_of(board))
    talk.ask(QUESTION)
    list(ChatPage(board).answer(talk, "adapter", "auto", USER))
    list(handlers.answer_again(talk, USER, press("again", "0|retrieval")))
    assert 'href="#sb-0b-1"' in talk.messages()[1]["content"] and 'id="sb-0b-1"' in talk.panel()
    assert talk.panel().count("<details open>") == 1


def test_the_route_control_is_kept_as_an_override_where_the_router_would_have_gone_elsewhere(
    board: Switchboard, before: int
) -> None:
    talk = Conversation(ways=ways_of(board))
    for route, adapter in (("retrieval", "auto"), ("adapter", "it-support"), ("auto", "it-support")):
        talk.ask(QUESTION)
        list(ChatPage(board).answer(talk, route, adapter, USER))
    assert [shown.answer is not None for shown in talk.turns] == [True] * 3
    assert kept(board, before) == [Feedback(USER, "override", "control", QUESTION, DOCUMENTS, SUPPORT)]


def test_an_answer_that_was_stopped_says_nothing_of_the_route_control(board: Switchboard, before: int) -> None:
    talk = Conversation(ways=ways_of(board))
    talk.ask(QUESTION)
    answer = ChatPage(board).answer(talk, "adapter", "it-support", USER)
    next(answer)
    talk.stop()
    list(answer)
    assert talk.turns[0].answer is None and kept(board, before) == []


@pytest.mark.parametrize(("side", "words"), [("first", "12 hours"), ("second", "You chose it-support")])
def test_the_preferred_answer_stays_and_becomes_the_history(
    board: Switchboard, before: int, handlers: FeedbackHandlers, compared: Conversation, side: str, words: str
) -> None:
    first, second = compared.turns[0].exchange, compared.turns[0].second
    assert second is not None
    assert compared.history(before=1) == (first,)
    messages, _ = handlers.say(compared, USER, press("prefer", f"0|{side}"))
    assert words in messages[1]["content"] and "sb-side" not in messages[1]["content"]
    assert compared.history(before=1) == ((first,) if side == "first" else (second.exchange,))
    chosen = DOCUMENTS if side == "first" else SUPPORT
    assert kept(board, before)[-1] == Feedback(USER, "preference", side, QUESTION, DOCUMENTS, chosen)


def test_without_a_preference_the_first_answer_stays_and_nothing_is_kept(
    board: Switchboard, handlers: FeedbackHandlers, compared: Conversation
) -> None:
    records = board.records.all()
    messages, _ = handlers.say(compared, USER, press("prefer", "0|neither"))
    assert "12 hours" in messages[1]["content"] and "sb-side" not in messages[1]["content"]
    assert board.records.all() == records


def test_a_second_answer_that_was_stopped_cannot_be_preferred(
    board: Switchboard, handlers: FeedbackHandlers, conversation: Conversation
) -> None:
    answer = handlers.answer_again(conversation, USER, press("again", "0|adapter:it-support"))
    next(answer)
    conversation.stop()
    list(answer)
    records = board.records.all()
    html = conversation.messages()[1]["content"]
    assert "Stopped." in html and "0|second" not in html and "0|neither" in html
    handlers.say(conversation, USER, press("prefer", "0|second"))
    assert conversation.turns[0].second is not None and board.records.all() == records


def test_a_second_answer_knows_what_came_before_the_turn_and_not_what_came_after(
    board: Switchboard, handlers: FeedbackHandlers
) -> None:
    talk = Conversation(ways=ways_of(board))
    for question in ("When is lunch served in Rotterdam?", "and in Ghent?", "On which day is salary paid?"):
        talk.ask(question)
        list(ChatPage(board).answer(talk, "auto", "auto", USER))
    list(handlers.answer_again(talk, USER, press("again", "1|adapter:it-support")))
    second = talk.turns[1].second
    assert second is not None and second.answer is not None
    assert second.answer.standalone == "When is lunch served in Ghent?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thumb", "0|sideways"),
        ("thumb", "9|up"),
        ("thumb", "-1|up"),
        ("prefer", "0|first"),
        ("again", "0|adapter:../secret"),
        ("again", "0|none"),
        ("again", None),
        (None, ["0|up"]),
        ("drop", "0|up"),
        ("thumb", "²|up"),
    ],
)
def test_what_no_button_sends_changes_nothing(
    board: Switchboard, handlers: FeedbackHandlers, conversation: Conversation, name: Any, value: Any
) -> None:
    records, html = board.records.all(), conversation.messages()
    handlers.say(conversation, USER, press(name, value))
    list(handlers.answer_again(conversation, USER, press(name, value)))
    assert board.records.all() == records and conversation.messages() == html


def test_a_press_is_read_as_place_name_and_value() -> None:
    assert read_press("again", "12|adapter:a|b") == Press(12, "again", "adapter:a|b")
    assert read_press("thumb", "9999999|up") is None


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("localStorage.getItem('switchboard-user')")
    yield page
    context.close()


@pytest.mark.browser
def test_in_a_browser_two_answers_stand_side_by_side_and_one_is_preferred(
    page: Page, board: Switchboard, before: int
) -> None:
    expect.set_options(timeout=60_000)
    page.locator("#sb-question textarea").fill(QUESTION)
    page.locator("#sb-send").click()
    page.locator("button.sb-up").click()
    expect(page.locator("button.sb-up.sb-on")).to_have_count(1)
    page.locator(".sb-ways summary").click()
    page.get_by_role("button", name="it-support").click()
    sides = page.locator(".sb-side")
    expect(sides.last.get_by_role("button", name="Prefer this answer")).to_be_visible()
    wide = [side.bounding_box() for side in sides.all()]
    assert wide[0] and wide[1] and wide[0]["y"] == wide[1]["y"] and wide[0]["x"] < wide[1]["x"]
    page.set_viewport_size({"width": 390, "height": 844})
    narrow = [side.bounding_box() for side in sides.all()]
    assert narrow[0] and narrow[1] and narrow[0]["x"] == narrow[1]["x"] and narrow[0]["y"] < narrow[1]["y"]
    sides.last.get_by_role("button", name="Prefer this answer").click()
    expect(sides).to_have_count(0)
    expect(page.locator("#sb-chat .bot .sb-badge")).to_contain_text("You chose it-support")
    assert [(one.kind, one.value) for one in kept(board, before)] == [
        ("thumb", "up"),
        ("override", "again"),
        ("preference", "second"),
    ]


def asked_of_an_adapter(board: Switchboard) -> Conversation:
    talk = Conversation(ways=ways_of(board))
    talk.ask("my screen flickers when I move the lid")
    list(ChatPage(board).answer(talk, "adapter", "it-support", USER))
    return talk


def test_a_better_answer_is_kept_once_and_only_of_an_adapters_words(
    board: Switchboard, handlers: FeedbackHandlers, conversation: Conversation
) -> None:
    handlers.open_form(conversation, press("correct", "0|"))
    assert conversation.correcting is None and 'name="correct"' not in conversation.messages()[1]["content"]
    talk = asked_of_an_adapter(board)
    assert 'name="correct"' in talk.messages()[1]["content"]
    text = talk.turns[0].answer.text if talk.turns[0].answer else ""
    shown, filled = handlers.open_form(talk, press("correct", "0|"))
    assert shown["visible"] is True and filled == text
    for unfit in ("", "  ", f" {text}\n", "x" * 4001):
        assert "visible" not in handlers.correct(talk, USER, unfit)[2]
    assert board.records.corrections() == () and talk.correcting is talk.turns[0]
    messages, _, closed = handlers.correct(talk, USER, "Turn it off | and on.\n")
    handlers.open_form(talk, press("correct", "0|"))
    assert "visible" not in handlers.correct(talk, USER, "Again")[2]  # the form stays, with the text in it
    expected = Correction(USER, "it-support", "my screen flickers when I move the lid", "Turn it off | and on.")
    assert board.records.corrections() == (expected,)
    assert "kept for review" in messages[1]["content"] and closed["visible"] is False


def test_a_turn_that_is_gone_can_still_be_bettered_and_the_base_model_never(
    board: Switchboard, handlers: FeedbackHandlers
) -> None:
    talk, before = asked_of_an_adapter(board), len(board.records.corrections())
    handlers.open_form(talk, press("correct", "0|"))
    talk.clear()
    handlers.correct(talk, USER, "Look at the cable.")
    assert [one.answer for one in board.records.corrections()[before:]] == ["Look at the cable."]
    assert better_answer(0, RouteDecision(Route.ADAPTER, BASE_MODEL, None, {}, ""), written=False) == ""


@pytest.mark.browser
def test_in_a_browser_a_better_answer_is_written(page: Page, board: Switchboard) -> None:
    expect.set_options(timeout=60_000)
    before = len(board.records.corrections())
    page.locator("#sb-route").get_by_label("Adapter").check()
    page.locator("#sb-question textarea").fill("my screen flickers when I move the lid")
    page.locator("#sb-send").click()
    page.get_by_role("button", name="Write a better answer").click()
    box = page.locator("#sb-better textarea")
    expect(box).to_have_value(re.compile("."))
    box.fill("First: press the lid button.\nThen call us.")
    page.get_by_role("button", name="Send for review").click()
    expect(page.locator(".sb-thanks")).to_be_visible()
    expect(page.locator("#sb-better")).to_have_count(0)
    (kept,) = board.records.corrections()[before:]
    assert kept.answer == "First: press the lid button.\nThen call us." and kept.user
