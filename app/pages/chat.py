"""The chat page: a conversation, its cited passages beside it, and the controls of a turn."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import render
from app.assembly import Switchboard
from chains.turn import (
    BASE_MODEL,
    Citation,
    Cited,
    Exchange,
    Failed,
    Filled,
    Finished,
    Route,
    Routed,
    Token,
    Turn,
)
from index.document import DESK_COLLECTION
from index.errors import LibraryError

AUTO = "auto"
ROUTE_CHOICES = [("Auto", AUTO), ("Documents", "retrieval"), ("Adapter", "adapter"), ("Both", "both")]


@dataclass(frozen=True, slots=True)
class Shown:
    """One turn as the page shows it; `exchange` is set once it can serve as history."""

    asked: str
    html: str = ""
    citations: tuple[Citation, ...] = ()
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one browser tab has on screen. Lives in the tab's session and nowhere else."""

    turns: tuple[Shown, ...] = field(default=())

    def history(self) -> tuple[Exchange, ...]:
        return tuple(shown.exchange for shown in self.turns if shown.exchange)

    def messages(self) -> list[dict[str, str]]:
        rows = []
        for shown in self.turns:
            if shown.asked:
                rows.append({"role": "user", "content": render.plain(shown.asked)})
            rows.append({"role": "assistant", "content": shown.html or '<div class="sb-wait">…</div>'})
        return rows

    def panel(self) -> str:
        return render.sources_panel([(place, shown.asked, shown.citations) for place, shown in enumerate(self.turns)])


Update = tuple[Conversation, list[dict[str, str]], str]


class ChatPage:
    """The handlers of the page; the assistant decides, this class only shows."""

    def __init__(self, board: Switchboard) -> None:
        self.board = board
        self.titles = {
            name: part.title
            for workflow in board.desk.chains.workflows.values()
            for name, part in workflow.fields.items()
        }

    def respond(
        self, conversation: Conversation, question: str, route: str, adapter: str, user: str
    ) -> Iterator[Update]:
        """Shows the turn as its events come in. Closing the iterator cancels the turn."""
        place = len(conversation.turns)
        shown = Shown(asked=question)
        yield _update(conversation, shown)
        turn = Turn(
            question=question,
            history=conversation.history(),
            route=None if route == AUTO else Route(route),
            adapter=None if adapter == AUTO else adapter,
            collections=frozenset({DESK_COLLECTION, collection_of(user)} if user else {DESK_COLLECTION}),
            user=user,
        )
        head, text = "", ""
        for event in self.board.assistant.answer(turn):
            match event:
                case Routed(decision=decision, standalone=standalone):
                    head = render.badge(decision, standalone, question)
                case Filled(fields=fields):
                    head += render.fields_table(fields, self.titles)
                case Token(text=piece):
                    text += piece
                case Cited(citation=citation):
                    shown = replace(shown, citations=(*shown.citations, citation))
                case Failed(message=message):
                    shown = replace(shown, html=head + render.failure(message))
                    yield _update(conversation, shown)
                    continue
                case Finished(answer=answer):
                    exchange = Exchange(answer.standalone, answer.text)
                    html = render.rendered(answer, question, place, self.titles)
                    shown = replace(shown, html=html, citations=answer.citations, exchange=exchange)
                    yield _update(conversation, shown)
                    continue
            shown = replace(shown, html=head + render.answer_text(text, shown.citations, place))
            yield _update(conversation, shown)

    def add_files(self, conversation: Conversation, files: list[str] | None, user: str) -> Update:
        """Adds the files for this user alone; each one that cannot be read is named with the reason."""
        sentences = []
        if files and not user:
            # Without an id the file would belong to everyone who has none.
            sentences.append("Not added: the page was still loading. Drop the file again.")
        for file in (files or []) if user else []:
            path = Path(file)
            try:
                document = self.board.library.add_file(path, name=path.name, collection=collection_of(user))
                sentences.append(f"Added “{document.title}” ({path.name}). Ask about it now; only you can find it.")
            except LibraryError as error:
                sentences.append(f"Not added: {error}")
        if not sentences:
            return conversation, conversation.messages(), conversation.panel()
        return _update(conversation, Shown(asked="", html=render.note("\n".join(sentences))))

    def adapter_choices(self) -> list[tuple[str, str]]:
        base = self.board.engine.base
        label = "Base model (no adapter)" if base.can_chat else "Base model (no adapter; for comparison only)"
        return [
            ("Auto", AUTO),
            (label, BASE_MODEL),
            *((f"{info.name}: {info.domain}", info.name) for info in self.board.engine.adapters),
        ]


def _update(conversation: Conversation, shown: Shown) -> Update:
    now = Conversation((*conversation.turns, shown))
    return now, now.messages(), now.panel()


def collection_of(user: str) -> str:
    """The collection that only this user's turns search."""
    return f"user:{user}"


def take_last(conversation: Conversation) -> tuple[Conversation, str]:
    """The conversation without its last asked turn (and what came after it), and that turn's question."""
    for place in range(len(conversation.turns) - 1, -1, -1):
        if conversation.turns[place].asked:
            return Conversation(conversation.turns[:place]), conversation.turns[place].asked
    return conversation, ""


def build_page(board: Switchboard) -> gr.Blocks:
    """The Blocks of the chat page, at /."""
    page = ChatPage(board)
    app = board.desk.app
    with gr.Blocks(title=app.title, fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        conversation = gr.State(Conversation())
        pending = gr.State("")
        # The value is a random id that the browser keeps; the fixed key only lets it outlive a restart.
        user = gr.BrowserState("", storage_key="switchboard-user", secret="switchboard")  # noqa: S106
        gr.HTML(f'<header class="sb-head"><h1>{escape(app.title)}</h1><p>{escape(app.description)}</p></header>')
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
                with gr.Row(elem_classes="sb-controls"):
                    route = gr.Radio(
                        ROUTE_CHOICES,
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
            with gr.Column(scale=2, min_width=320):
                panel = gr.HTML(Conversation().panel(), elem_id="sb-panel")
                files = gr.File(
                    label=f"Add documents (up to {app.upload_mb} MB each)",
                    file_count="multiple",
                    elem_id="sb-files",
                    height=150,
                )
        shown = [conversation, chatbot, panel]
        demo.load(lambda known: known or secrets.token_hex(16), user, user, show_progress="hidden")

        def take(question: str) -> tuple[str, str]:
            return question, ""

        def answer(talk: Conversation, question: str, chosen: str, named: str, who: str) -> Iterator[tuple[Any, ...]]:
            if not question.strip():
                gr.Info("Type a question, or paste a ticket.")
                yield talk, talk.messages(), talk.panel(), gr.skip()
                return
            for update in page.respond(talk, question, chosen, named, who):
                yield *update, AUTO

        def again(talk: Conversation) -> tuple[Conversation, str]:
            return take_last(talk)

        def undo(talk: Conversation) -> tuple[Any, ...]:
            kept, question = take_last(talk)
            return kept, kept.messages(), kept.panel(), question

        def drop(talk: Conversation, paths: list[str] | None, who: str) -> tuple[Any, ...]:
            return *page.add_files(talk, paths, who), None

        def pick(chosen: gr.SelectData) -> str:
            return str(chosen.value["text"])

        empty = Conversation()
        inputs = [conversation, pending, route, adapter, user]
        outputs = [*shown, route]
        run: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": app.parallel_turns}
        turns = [
            trigger(take, box, [pending, box], queue=False, show_progress="hidden").then(answer, inputs, outputs, **run)
            for trigger in (box.submit, send.click)
        ]
        turns.append(
            chatbot.example_select(pick, None, pending, queue=False, show_progress="hidden").then(
                answer, inputs, outputs, **run
            )
        )
        turns.append(
            chatbot.retry(again, conversation, [conversation, pending], queue=False, show_progress="hidden").then(
                answer, inputs, outputs, **run
            )
        )
        chatbot.undo(undo, conversation, [*shown, box], show_progress="hidden", cancels=turns)
        stop.click(None, None, None, cancels=turns)
        for cleared in (chatbot.clear, clear.click):
            cleared(
                lambda: (empty, [], empty.panel(), "", AUTO),
                None,
                [*shown, box, route],
                show_progress="hidden",
                cancels=turns,
            )
        files.upload(drop, [conversation, files, user], [*shown, files], concurrency_limit=1)
    demo.queue(default_concurrency_limit=app.parallel_turns)
    return demo


def _welcome() -> str:
    return (
        "<div class='sb-welcome'><h2>How can I help?</h2><p>"
        "Facts come from the documents, with the passages quoted. Symptoms get first-line "
        "advice from a trained adapter. Tickets are sorted, and a reply is drafted.</p></div>"
    )
