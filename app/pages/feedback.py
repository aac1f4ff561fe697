"""What happens when a button under an answer is pressed: it is kept, asked for again, or one of two is chosen."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.conversation import Conversation, Shown
from app.feedback import MOST_WRITTEN, Press, Side, Way, is_correctable, is_side, is_thumb, read_press
from app.records import Correction, Feedback, Kind
from chains.clarify import with_choice
from chains.turn import BASE_MODEL, Route, RouteOption, Turn

if TYPE_CHECKING:
    from app.assembly import Switchboard
    from app.pages.chat import ChatPage

View = tuple[list[dict[str, str]], str]
"""What the page shows of a conversation: the chat's messages and the panel beside it."""

BRIDGE = """
document.addEventListener("click", (event) => {
  const button = event.target.closest("#sb-chat button.sb-act");
  const events = { again: "click", correct: "edit" };
  if (button) trigger(events[button.name] || "like", { name: button.name, value: button.value });
});
"""
"""The chat shows plain HTML, whose buttons Gradio does not know: a press becomes an event of an empty element."""


def ways_of(board: "Switchboard") -> tuple[Way, ...]:
    """Every way to answer that this desk has."""
    adapters = [info for info in board.engine.adapters if "chat" in info.capabilities]
    return (
        Way(RouteOption(Route.RETRIEVAL), "Documents"),
        *(Way(RouteOption(Route.ADAPTER, info.name), info.name) for info in adapters),
        Way(RouteOption(Route.ADAPTER, BASE_MODEL), "Base model"),
        *workflow_ways(board),
    )


def workflow_ways(board: "Switchboard") -> list[Way]:
    """The desk's workflows as ways to answer; where there is one alone, it needs no name."""
    workflows = board.desk.chains.workflows
    if len(workflows) == 1:
        return [Way(RouteOption(Route.BOTH), one.title) for one in workflows.values()]
    return [Way(RouteOption(Route.BOTH, workflow=name), one.title) for name, one in workflows.items()]


class FeedbackHandlers:
    """The handlers of the buttons under answers."""

    def __init__(self, page: "ChatPage") -> None:
        self._page = page
        self._board = page.board

    def say(self, conversation: Conversation, user: str, event: gr.EventData) -> View:
        """Keeps a thumb, or which of two answers is preferred; the preferred one goes on in the conversation."""
        press = _pressed(event)
        shown = conversation.turn(press.place) if press else None
        if press is not None and shown is not None and shown.answer is not None:
            if press.name == "thumb" and is_thumb(press.value) and press.value != shown.thumb:
                shown.thumb = "up" if press.value == "up" else "down"
                self._keep(user, shown, "thumb", press.value, None)
            elif press.name == "prefer" and is_side(press.value):
                self._prefer(conversation, user, press, shown)
        return conversation.messages(), conversation.panel()

    def answer_again(self, conversation: Conversation, user: str, event: gr.EventData) -> Iterator[tuple[Any, Any]]:
        """Shows another way's answer beside a finished one, as it grows. Ends as every answer of the page does."""
        press = _pressed(event)
        first = conversation.turn(press.place) if press else None
        way = next((one for one in ways_of(self._board) if press and one.key == press.value), None)
        if press is None or first is None or first.answer is None or first.second is not None or way is None:
            yield gr.skip(), gr.skip()
            return
        second = conversation.begin_second(first, way.option)
        yield conversation.messages(), conversation.panel()
        turn = Turn(
            question=first.asked,
            history=conversation.history(before=press.place),
            collections=self._page.collections(user),
            user=user,
        )
        turn = with_choice(turn, way.option)
        with contextlib.closing(self._page.write(second, second.anchor, turn)) as steps:
            for _ in steps:
                if conversation.growing is not second:
                    break
                yield conversation.messages(), conversation.panel()
        chosen = second.answer.decision.option if second.answer else way.option
        self._keep(user, first, "override", "again", chosen)
        yield conversation.messages(), conversation.panel()

    def _prefer(self, conversation: Conversation, user: str, press: Press, first: Shown) -> None:
        side: Side = "first" if press.value == "first" else "second" if press.value == "second" else "neither"
        second = first.second
        if second is None:
            return
        if side != "neither":
            if first.answer is None or second.answer is None:
                return
            chosen = (first if side == "first" else second).answer
            assert chosen is not None, "both have an answer"
            self._keep(user, first, "preference", side, chosen.decision.option)
        conversation.settle(press.place, keep_second=side == "second")

    def open_form(self, conversation: Conversation, event: gr.EventData) -> tuple[Any, Any]:
        """The form below the chat, with the answer that is to be bettered."""
        press = _pressed(event)
        shown = conversation.turn(press.place) if press else None
        if shown is None or shown.answer is None or shown.corrected or not is_correctable(shown.answer.decision):
            return gr.skip(), gr.skip()
        conversation.correcting = shown
        return gr.update(visible=True), shown.answer.text

    def correct(self, conversation: Conversation, user: str, written: str) -> tuple[Any, ...]:
        """Keeps what was written in the form, and closes it; it stays open for what is no better answer."""
        shown, written = conversation.correcting, written.strip()
        if told := self._not_kept(user, shown, written):
            gr.Warning(told)
            return gr.skip(), gr.skip(), gr.skip()
        assert shown is not None, "something was kept of it"
        shown.corrected, conversation.correcting = True, None
        return conversation.messages(), conversation.panel(), gr.update(visible=False)

    def _not_kept(self, user: str, shown: Shown | None, written: str) -> str:
        """Why what was written was not kept; "" where it was."""
        answer = shown.answer if shown else None
        if answer is None or answer.decision.adapter is None:
            return "This page has lost its answer: copy your text, ask again, and send it there."
        if not written or written == answer.text.strip():
            return "Change the text first: what should the answer have been?"
        if len(written) > MOST_WRITTEN:
            return f"At most {MOST_WRITTEN:,} characters are kept, and this has {len(written):,}: shorten it."
        kept = self._board.records.correct(Correction(user, answer.decision.adapter, answer.standalone, written))
        return "" if kept else "It could not be kept just now. Please try again later."

    def _keep(self, user: str, shown: Shown, kind: Kind, value: str, chosen: RouteOption | None) -> None:
        answer = shown.answer
        assert answer is not None, "an opinion is about a finished answer"
        self._board.records.keep(
            Feedback(user, kind, value, answer.standalone, answer.decision.option, chosen),
        )


@dataclass(frozen=True, slots=True)
class Form:
    """Where a better answer is written."""

    group: gr.Group
    box: gr.Textbox
    send: gr.Button
    cancel: gr.Button


def lay_out_form() -> Form:
    """The form, hidden. Call it where it is to stand."""
    with gr.Group(visible=False, elem_id="sb-better") as group:
        box = gr.Textbox(
            label="What should the answer have been?",
            info="It is kept with your question. The adapter may be trained on it once somebody has looked at it.",
            lines=4,
            max_lines=12,
            max_length=MOST_WRITTEN,
        )
        with gr.Row():
            cancel = gr.Button("Cancel", size="md", min_width=80)
            send = gr.Button("Send for review", variant="primary", size="md", min_width=120)
    return Form(group, box, send, cancel)


def connect_feedback(
    page: "ChatPage", conversation: gr.State, user: gr.BrowserState, shown: list[Any], form: Form
) -> None:
    """Adds the bridge from the chat's buttons to the handlers. Call it inside the Blocks."""
    handlers = FeedbackHandlers(page)
    bridge = gr.HTML("", elem_id="sb-bridge", js_on_load=BRIDGE)
    given = [conversation, user]
    bridge.like(handlers.say, given, shown, queue=False, show_progress="hidden")
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    bridge.edit(handlers.open_form, conversation, [form.group, form.box], **quick)
    form.send.click(handlers.correct, [conversation, user, form.box], [*shown, form.group], **quick)
    form.cancel.click(lambda: gr.update(visible=False), None, form.group, **quick)
    bridge.click(
        handlers.answer_again,
        given,
        shown,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_id="answer",
        concurrency_limit=page.board.desk.app.parallel_turns,
    )


def _pressed(event: gr.EventData) -> Press | None:
    data = event._data if isinstance(event._data, dict) else {}
    return read_press(data.get("name"), data.get("value"))
