"""The web server: the chat page, the source documents it links to, and a health check."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from app.assembly import Switchboard
from app.pages.chat import build_page
from app.render import source_page
from desk.settings import UPLOADS
from index.document import NO_GROUPS, Document

THEME = Path(__file__).parent / "theme"

_LOCKED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
}


def build_server(board: Switchboard) -> FastAPI:
    """The ASGI app, which starts the board as soon as it serves. An upload's id is 128 random bits: whoever holds
    the link may read it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        board.start()
        yield

    server = FastAPI(title=board.desk.app.title, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @server.get("/healthz")
    def healthz() -> dict[str, object]:
        return {"status": "ok", "documents": board.library.count()}

    def open_document(document_id: str) -> Document | None:
        """A document that may be read by whoever has the link."""
        document = board.library.document(document_id)
        if document is None or document.collection.startswith(UPLOADS):
            return document
        return document if document.collection in board.library.readable(NO_GROUPS) else None

    @server.get("/source/{document_id}")
    def source(document_id: str, start: int = 0, end: int = 0) -> HTMLResponse:
        document = open_document(document_id)
        if document is None:
            raise HTTPException(404, "This document is no longer in the library.")
        return HTMLResponse(source_page(document, start, end), headers=_LOCKED)

    @server.get("/source/{document_id}/original")
    def original(document_id: str) -> Response:
        document = open_document(document_id)
        path = board.library.original(document_id) if document is not None else None
        if path is None or document is None:
            raise HTTPException(404, "The original of this document is no longer there.")
        name = Path(document.path).name
        if document.format == "pdf":
            # Only PDF is shown in the browser: anything that could carry a script is downloaded.
            return FileResponse(
                path,
                media_type="application/pdf",
                headers={"X-Content-Type-Options": "nosniff"},
                filename=name,
                content_disposition_type="inline",
            )
        return FileResponse(path, media_type="application/octet-stream", filename=name, headers=_LOCKED)

    mounted: FastAPI = gr.mount_gradio_app(
        server,
        build_page(board),
        path="/",
        ssr_mode=False,
        show_error=True,
        max_file_size=board.desk.app.upload_mb * 1_000_000,
        theme=gr.themes.Soft(
            primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ).set(
            block_label_background_fill="transparent",
            block_label_text_color="*neutral_600",
            block_title_background_fill="transparent",
            block_title_text_color="*neutral_600",
            block_title_padding="0",
            block_title_text_weight="500",
            block_label_shadow="none",
        ),
        css_paths=THEME / "switchboard.css",
        head=f"<script>{(THEME / 'switchboard.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
    )
    return mounted
