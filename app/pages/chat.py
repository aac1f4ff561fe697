"""The chat page: a conversation, its cited passages beside it, and the controls of a turn."""

import contextlib
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import render
from app.assembly import Switchboard
from app.conversation import Conversation, Shown
from app.growing import Growing
from app.pages.feedback import Form, View, connect_feedback, lay_out_form, ways_of, workflow_ways
from app.records import Feedback
from chains.clarify import options, with_choice
from chains.turn import BASE_MODEL, Answer, Cited, Exchange, Failed, Finished, Noted, Route, Turn
from desk.settings import UPLOADS
from index.document import NO_GROUPS
from index.errors import LibraryError, UnreachableError
from index.library import Added

AUTO = "auto"
TAKING_UP_S = 3.0
"""A page waits at most so long for adapters that have just been trained."""


class ChatPage:
    """The handlers of the page; the assistant decides, this class only shows."""

    def __init__(self, board: Switchboard) -> None:
        self.board = board
        self.titles = {
            name: part.title
            for workflow in board.desk.chains.workflows.values()
            for name, part in workflow.fields.items()
        }

    def write(self, shown: Shown, anchor: str, turn: Turn) -> Generator[None, None, None]:
        """Writes the turn as its events come in, and yields after each. Closing the iterator cancels it."""
        growing = Growing(anchor, turn.question, self.titles)
        for event in self.board.assistant.answer(turn):
            growing.take(event)
            match event:
                case Cited(citation=citation):
                    shown.citations = (*shown.citations, citation)
                case Noted(message=message):
                    shown.notice = message
                case Failed(message=message):
                    shown.html, shown.finished = growing.html() + render.failure(message), True
                    shown.exchange = Exchange(growing.understood, growing.text) if growing.text else None
                    yield
                    continue
                case Finished(answer=answer):
                    shown.citations, shown.related, shown.answer = answer.citations, answer.related, answer
                    shown.html, shown.finished = render.rendered(answer, turn.question, anchor, self.titles), True
                    shown.offered = answer.clarify
                    shown.exchange = Exchange(
                        answer.standalone, answer.text, options(answer.decision) if answer.clarify else ()
                    )
                    yield
                    continue
                case _:
                    pass
            # A turn that is stopped half-way can still be followed up.
            shown.exchange = Exchange(growing.understood, growing.text)
            shown.html = growing.html()
            yield

    def add_files(
        self,
        files: list[str] | None,
        before: str,
        user: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio finds it
    ) -> tuple[str, None]:
        """Adds the files for this user alone and says so above `before`, what was said of earlier ones; each one that
        cannot be read is named with the reason. The file box is emptied."""
        sentences = []
        if files and not user:
            # Without an id the file would belong to everyone who has none.
            sentences.append("Not added: the page was still loading. Drop the file again.")
        for file in progress.tqdm(files or [], desc="Reading", unit="file") if user else []:
            path = Path(file)
            try:
                added = self.board.library.add_file(path, name=path.name, collection=collection_of(user))
                sentences.append(_said(added, path.name))
            except UnreachableError as error:
                sentences.append(str(error))
            except LibraryError as error:
                sentences.append(f"Not added: {error}")
        return (render.note("\n".join(sentences)) if sentences else "") + before, None

    def answer(self, conversation: Conversation, route: str, adapter: str, user: str) -> Iterator[tuple[Any, ...]]:
        """Shows the answer to the next question that waits, as it grows; the route control goes back to Auto.

        Ends where it is when the page is stopped or cleared, or another question is asked.
        """
        if not conversation.waiting:
            yield (gr.skip(),) * 3  # stopped before it began
            return
        history = conversation.history(before=len(conversation.turns))
        shown = conversation.begin()
        if shown is None:
            gr.Info("Type a question, or paste a ticket.")
            yield (gr.skip(),) * 3
            return
        yield *_view(conversation), AUTO
        turn = Turn(
            question=shown.asked,
            history=history,
            route=None if route == AUTO else Route(route.partition(":")[0]),
            adapter=None if adapter == AUTO else adapter,
            workflow=route.partition(":")[2] or None,
            may_ask=shown.may_ask,
            collections=self.collections(user),
            user=user,
        )
        if shown.option is not None:
            turn = with_choice(turn, shown.option)
        with contextlib.closing(self.write(shown, shown.anchor, turn)) as steps:
            for _ in steps:
                if conversation.growing is not shown:
                    break
                yield *_view(conversation), gr.skip()
        if route != AUTO and shown.option is None and shown.answer is not None:
            self._keep_override(user, shown.answer)
        yield *_view(conversation), gr.skip()

    def _keep_override(self, user: str, answer: Answer) -> None:
        """Keeps that the route control was set to another way than the router's."""
        instead, chosen = answer.decision.instead, answer.decision.option
        if instead is not None and instead != chosen and not answer.parts:
            self.board.records.keep(Feedback(user, "override", "control", answer.standalone, instead, chosen))

    def collections(self, user: str) -> frozenset[str]:
        """What this user's turns search."""
        return self.board.library.readable(NO_GROUPS) | ({collection_of(user)} if user else set())

    def route_choices(self) -> list[tuple[str, str]]:
        """What the route control offers; several workflows by their titles."""
        workflows = [(way.words, way.key) for way in workflow_ways(self.board)]
        both = workflows if len(workflows) > 1 else [("Both", Route.BOTH.value)]
        return [("Auto", AUTO), ("Documents", Route.RETRIEVAL.value), ("Adapter", Route.ADAPTER.value), *both]

    def adapters_now(self, conversation: Conversation) -> Any:
        """The dropdown, and the ways to answer again, with what was trained since the app started."""
        self.board.engine.refresh(TAKING_UP_S)
        conversation.ways = ways_of(self.board)
        return gr.update(choices=self.adapter_choices())

    def adapter_choices(self) -> list[tuple[str, str]]:
        base = self.board.engine.base
        label = "Base model (no adapter)" if base.can_chat else "Base model (no adapter; for comparison only)"
        return [
            ("Auto", AUTO),
            (label, BASE_MODEL),
            *((f"{info.name}: {info.domain}", info.name) for info in self.board.engine.adapters),
        ]


def _said(added: Added, name: str) -> str:
    """What is told of an added file: its documents, what was left out of them, and what could not be read."""
    first = added.documents[0]
    what = f"“{first.title}” ({name})" if len(added.documents) == 1 else f"{len(added.documents)} documents of {name}"
    lines = [f"Added {what}. Ask about it now; only you can find it."]
    lines += [f"{document.path}: {note}" for document in added.documents for note in document.notes]
    lines += [f"Left out: {reason}" for _, reason in added.failures]
    return "\n".join(lines)


def _view(conversation: Conversation) -> View:
    return conversation.messages(), conversation.panel()


def collection_of(user: str) -> str:
    """The collection that only this user's turns search."""
    return f"{UPLOADS}{user}"


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of the page that events read or change."""

    conversation: gr.State
    user: gr.BrowserState
    chatbot: gr.Chatbot
    box: gr.Textbox
    send: gr.Button
    stop: gr.Button
    clear: gr.Button
    route: gr.Radio
    adapter: gr.Dropdown
    panel: gr.HTML
    files: gr.File
    added: gr.HTML
    form: Form


def build_page(board: Switchboard) -> gr.Blocks:
    """The Blocks of the chat page, at /."""
    page = ChatPage(board)
    app = board.desk.app
    with gr.Blocks(title=app.title, fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        gr.HTML(f'<header class="sb-head"><h1>{escape(app.title)}</h1><p>{escape(app.description)}</p></header>')
        parts = _lay_out(page)
        _connect(page, parts)
        connect_feedback(page, parts.conversation, parts.user, [parts.chatbot, parts.panel], parts.form)
        demo.load(page.adapters_now, parts.conversation, parts.adapter, show_progress="hidden")
        demo.load(
            lambda known: known or secrets.token_hex(16), parts.user, parts.user, queue=False, show_progress="hidden"
        )
    demo.queue(default_concurrency_limit=app.parallel_turns)
    return demo


def _lay_out(page: ChatPage) -> Parts:
    app = page.board.desk.app
    conversation = gr.State(Conversation(ways=ways_of(page.board)))
    # The value is a random id that the browser keeps; the fixed key only lets it outlive a restart.
    user = gr.BrowserState("", storage_key="switchboard-user", secret="switchboard")  # noqa: S106
    with gr.Row(elem_classes="sb-main"):
        with gr.Column(scale=3, min_width=420):
            chatbot = gr.Chatbot(
                show_label=False,
                height="62vh",
                latex_delimiters=[],
                buttons=[],
                elem_id="sb-chat",
                placeholder=_welcome(),
                examples=[{"text": text} for text in app.examples],
                group_consecutive_messages=False,
            )
            form = lay_out_form()
            box, send, stop, clear = _question_row()
            route, adapter = _control_row(page)
        with gr.Column(scale=2, min_width=320):
            panel = gr.HTML(Conversation().panel(), elem_id="sb-panel")
            gr.HTML(f'<h2 class="sb-title">Add documents <small>(up to {app.upload_mb} MB each)</small></h2>')
            files = gr.File(
                label="Add documents",
                show_label=False,
                file_count="multiple",
                elem_id="sb-files",
                height=120,
            )
            added = gr.HTML("", elem_id="sb-added")
    return Parts(conversation, user, chatbot, box, send, stop, clear, route, adapter, panel, files, added, form)


def _question_row() -> tuple[gr.Textbox, gr.Button, gr.Button, gr.Button]:
    with gr.Row(elem_classes="sb-ask"):
        box = gr.Textbox(
            show_label=False,
            placeholder="Ask a question, or paste a ticket",
            lines=1,
            max_lines=8,
            scale=7,
            autofocus=True,
            elem_id="sb-question",
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="sb-send")
        stop = gr.Button("Stop", scale=1, min_width=80, elem_id="sb-stop")
        clear = gr.Button("New chat", scale=1, min_width=120, elem_id="sb-clear")
    return box, send, stop, clear


def _control_row(page: ChatPage) -> tuple[gr.Radio, gr.Dropdown]:
    with gr.Row(elem_classes="sb-controls"):
        route = gr.Radio(
            page.route_choices(),
            value=AUTO,
            label="Route of the next turn",
            elem_id="sb-route",
            scale=3,
            min_width=400,
        )
        adapter = gr.Dropdown(
            page.adapter_choices(),
            value=AUTO,
            label="Adapter, from the next turn on",
            elem_id="sb-adapter",
            filterable=False,
            scale=2,
            min_width=240,
        )
    return route, adapter


def _connect(page: ChatPage, parts: Parts) -> None:
    """What each event does: the question is taken first, so that the box is free while the answer streams."""
    shown = [parts.chatbot, parts.panel]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}

    def then_answer(taken: Any) -> None:
        taken.then(
            page.answer,
            [parts.conversation, parts.route, parts.adapter, parts.user],
            [*shown, parts.route],
            show_progress="hidden",
            # "once" would drop a question that is asked while the answer before it is still being written.
            trigger_mode="multiple",
            # Gradio counts per event otherwise, and there are five.
            concurrency_id="answer",
            concurrency_limit=page.board.desk.app.parallel_turns,
        )

    typed: list[Any] = [take, [parts.conversation, parts.box], parts.box]
    then_answer(parts.box.submit(*typed, **quick))
    then_answer(parts.send.click(*typed, **quick))
    then_answer(parts.chatbot.example_select(pick, parts.conversation, None, **quick))
    then_answer(parts.chatbot.option_select(choose, parts.conversation, shown, **quick))
    then_answer(parts.chatbot.retry(again, parts.conversation, shown, **quick))
    # None of these uses Gradio's `cancels`: the browser would drop the answer's last word on how the page stands.
    parts.stop.click(stop, parts.conversation, shown, **quick)
    parts.chatbot.undo(undo, parts.conversation, [*shown, parts.box], **quick)
    for cleared in (parts.chatbot.clear, parts.clear.click):
        cleared(clear, parts.conversation, [*shown, parts.box, parts.route], **quick)
    parts.files.upload(
        page.add_files, [parts.files, parts.added, parts.user], [parts.added, parts.files], concurrency_limit=1
    )


def take(conversation: Conversation, question: str) -> str:
    """The emptied box; the question waits for its answer."""
    conversation.ask(question)
    return ""


def pick(conversation: Conversation, chosen: gr.SelectData) -> None:
    """An example that was clicked."""
    conversation.ask(str(chosen.value["text"]))


def again(conversation: Conversation) -> View:
    """The page without its last turn, whose question waits anew."""
    conversation.ask_again()
    return _view(conversation)


def choose(conversation: Conversation, chosen: gr.SelectData) -> View:
    """The page without the clarifying question; what was asked waits anew, with the option that was clicked."""
    conversation.choose(int(chosen.value))
    return _view(conversation)


def stop(conversation: Conversation) -> View:
    """The page with nothing growing any more."""
    conversation.stop()
    return _view(conversation)


def undo(conversation: Conversation) -> tuple[Any, ...]:
    """The page without its last turn, whose question goes back to the box."""
    question = conversation.take_last()
    return *_view(conversation), question


def clear(conversation: Conversation) -> tuple[Any, ...]:
    conversation.clear()
    return *_view(conversation), "", AUTO


def _welcome() -> str:
    return (
        "<div class='sb-welcome'><h2>How can I help?</h2><p>"
        "Facts come from the documents, with the passages quoted. Symptoms get first-line "
        "advice from a trained adapter. Tickets are sorted, and a reply is drafted.</p></div>"
    )
