"""The chat page: a conversation, its cited passages beside it, and the controls of a turn."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import closing
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
    """One turn as the page shows it; `exchange` is set once it can serve as history, `writing` while it grows."""

    asked: str
    html: str = ""
    citations: tuple[Citation, ...] = ()
    exchange: Exchange | None = None
    writing: bool = False


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
            html = shown.html or '<div class="sb-wait">…</div>'
            rows.append({"role": "assistant", "content": render.writing(html) if shown.writing else html})
        return rows

    def settled(self) -> "Conversation":
        """The same with nothing growing any more: what was stopped stays as far as it came."""
        return Conversation(tuple(replace(shown, writing=False) for shown in self.turns))

    def panel(self) -> str:
        return render.sources_panel([(place, shown.asked, shown.citations) for place, shown in enumerate(self.turns)])


@dataclass(slots=True)
class Asked:
    """How many questions one browser tab has asked. The same object for all its events, so that they see it grow."""

    questions: int = 0


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
    ) -> Generator[Update, None, None]:
        """Shows the turn as its events come in. Closing the iterator cancels the turn."""
        conversation = conversation.settled()
        place = len(conversation.turns)
        shown = Shown(asked=question, writing=True)
        yield _update(conversation, shown)
        turn = Turn(
            question=question,
            history=conversation.history(),
            route=None if route == AUTO else Route(route),
            adapter=None if adapter == AUTO else adapter,
            collections=frozenset({DESK_COLLECTION, collection_of(user)} if user else {DESK_COLLECTION}),
            user=user,
        )
        head, text, understood = "", "", question
        for event in self.board.assistant.answer(turn):
            match event:
                case Routed(decision=decision, standalone=standalone):
                    head, understood = render.badge(decision, standalone, question), standalone
                case Filled(fields=fields):
                    head += render.fields_table(fields, self.titles)
                case Token(text=piece):
                    text += piece
                case Cited(citation=citation):
                    shown = replace(shown, citations=(*shown.citations, citation))
                case Failed(message=message):
                    shown = replace(shown, html=head + render.failure(message), exchange=None, writing=False)
                    yield _update(conversation, shown)
                    continue
                case Finished(answer=answer):
                    html = render.rendered(answer, question, place, self.titles)
                    shown = replace(shown, html=html, citations=answer.citations, writing=False)
                    yield _update(conversation, shown)
                    continue
            # A turn that is stopped half-way can still be followed up.
            exchange = Exchange(understood, text)
            shown = replace(shown, html=head + render.answer_text(text, shown.citations, place), exchange=exchange)
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

    def answer(
        self, asked: Asked, conversation: Conversation, question: str, route: str, adapter: str, user: str
    ) -> Iterator[tuple[Any, ...]]:
        """`respond` for the pending question, if there is one; the route control goes back to Auto.

        Ends when another question is asked: two answers must not write one conversation.
        """
        if not question.strip():
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        own = asked.questions
        with closing(self.respond(conversation, question, route, adapter, user)) as updates:
            for update in updates:
                if asked.questions != own:
                    return
                yield *update, AUTO

    def drop(self, conversation: Conversation, files: list[str] | None, user: str) -> tuple[Any, ...]:
        """`add_files`, and the emptied file box."""
        return *self.add_files(conversation, files, user), None

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


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of the page that events read or change. `pending` is the question about to be answered."""

    conversation: gr.State
    asked: gr.State
    pending: gr.State
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


def build_page(board: Switchboard) -> gr.Blocks:
    """The Blocks of the chat page, at /."""
    page = ChatPage(board)
    app = board.desk.app
    with gr.Blocks(title=app.title, fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        gr.HTML(f'<header class="sb-head"><h1>{escape(app.title)}</h1><p>{escape(app.description)}</p></header>')
        parts = _lay_out(page)
        _connect(page, parts)
        demo.load(lambda known: known or secrets.token_hex(16), parts.user, parts.user, show_progress="hidden")
    demo.queue(default_concurrency_limit=app.parallel_turns)
    return demo


def _lay_out(page: ChatPage) -> Parts:
    app = page.board.desk.app
    conversation, asked, pending = gr.State(Conversation()), gr.State(Asked()), gr.State("")
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
            box, send, stop, clear = _question_row()
            route, adapter = _control_row(page)
        with gr.Column(scale=2, min_width=320):
            panel = gr.HTML(Conversation().panel(), elem_id="sb-panel")
            files = gr.File(
                label=f"Add documents (up to {app.upload_mb} MB each)",
                file_count="multiple",
                elem_id="sb-files",
                height=150,
            )
    return Parts(conversation, asked, pending, user, chatbot, box, send, stop, clear, route, adapter, panel, files)


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
            ROUTE_CHOICES, value=AUTO, label="Route of the next turn", elem_id="sb-route", scale=3, min_width=400
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
    shown = [parts.conversation, parts.chatbot, parts.panel]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}

    def then_answer(taken: Any) -> Any:
        return taken.then(
            page.answer,
            [parts.asked, parts.conversation, parts.pending, parts.route, parts.adapter, parts.user],
            [*shown, parts.route],
            show_progress="hidden",
            # "once" would drop a question that is asked while the answer before it is still being written.
            trigger_mode="multiple",
            concurrency_limit=page.board.desk.app.parallel_turns,
        )

    typed = [parts.asked, parts.box], [parts.pending, parts.box]
    turns = [
        then_answer(parts.box.submit(take, *typed, **quick)),
        then_answer(parts.send.click(take, *typed, **quick)),
        then_answer(parts.chatbot.example_select(pick, parts.asked, parts.pending, **quick)),
        then_answer(
            parts.chatbot.retry(again, [parts.asked, parts.conversation], [parts.conversation, parts.pending], **quick)
        ),
    ]
    stopping: dict[str, Any] = {"show_progress": "hidden", "cancels": turns}
    parts.chatbot.undo(undo, parts.conversation, [*shown, parts.box, parts.pending], **stopping)
    parts.stop.click(settle, parts.conversation, shown, **stopping)
    for cleared in (parts.chatbot.clear, parts.clear.click):
        cleared(clear, None, [*shown, parts.box, parts.pending, parts.route], **stopping)
    parts.files.upload(
        page.drop, [parts.conversation, parts.files, parts.user], [*shown, parts.files], concurrency_limit=1
    )


def take(asked: Asked, question: str) -> tuple[str, str]:
    """The pending question and the emptied box."""
    if question.strip():
        asked.questions += 1
    else:
        gr.Info("Type a question, or paste a ticket.")
    return question, ""


def pick(asked: Asked, chosen: gr.SelectData) -> str:
    """The text of the example that was clicked."""
    asked.questions += 1
    return str(chosen.value["text"])


def again(asked: Asked, conversation: Conversation) -> tuple[Conversation, str]:
    """The conversation without its last turn, and that turn's question to be asked anew."""
    asked.questions += 1
    return take_last(conversation)


def settle(conversation: Conversation) -> Update:
    """The page as it is once the growing turn has been stopped."""
    now = conversation.settled()
    return now, now.messages(), now.panel()


def undo(conversation: Conversation) -> tuple[Any, ...]:
    """Without its last turn, whose question goes back to the box; a turn taken but not begun finds nothing pending."""
    kept, question = take_last(conversation)
    return kept, kept.messages(), kept.panel(), question, ""


def clear() -> tuple[Any, ...]:
    empty = Conversation()
    return empty, [], empty.panel(), "", "", AUTO


def _welcome() -> str:
    return (
        "<div class='sb-welcome'><h2>How can I help?</h2><p>"
        "Facts come from the documents, with the passages quoted. Symptoms get first-line "
        "advice from a trained adapter. Tickets are sorted, and a reply is drafted.</p></div>"
    )
