"""Events and answers as HTML. Everything that comes from people, documents or models is escaped here."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from chains.turn import Answer, Citation, Route, RouteDecision
from index.document import Document
from index.related import RelatedDocument

ROUTE_WORDS: Mapping[Route, str] = {
    Route.RETRIEVAL: "Documents",
    Route.ADAPTER: "Adapter",
    Route.BOTH: "Both",
    Route.NONE: "Cannot help",
}


def badge(decision: RouteDecision, standalone: str, asked: str, unsure: bool = False) -> str:
    """The route and why, in words; and how a follow-up was understood. `unsure`: the sender is asked to choose."""
    kind, word = ("none", "Which one") if unsure else (decision.route.value, ROUTE_WORDS[decision.route])
    word = "About me" if decision.own else word
    html = f'<div class="sb-badge sb-{kind}"><b>{word}:</b> {escape(decision.reason)}</div>'
    if standalone.strip() != asked.strip():
        html += f'<div class="sb-understood">Understood as: {escape(standalone)}</div>'
    return html


def answer_text(
    text: str,
    citations: Sequence[Citation],
    turn: str,
    unsupported: Sequence[tuple[int, int]] = (),
    closest: Sequence[RelatedDocument] = (),
) -> str:
    """The answer with a chip after each cited span; unsupported spans are marked, titles of the closest documents are
    links."""
    inserts: list[tuple[int, str]] = [
        (citation.answer_end, _chip(turn, citation)) for citation in citations if citation.answer_end <= len(text)
    ]
    for start, end in unsupported:
        inserts += [
            (start, '<span class="sb-unsupported" title="No passage supports this">'),
            (end, "</span>"),
        ]
    inserts += _links(text, closest)
    html, position = "", 0
    for place, piece in sorted(inserts, key=lambda insert: insert[0]):
        html += _lines(text[position:place]) + piece
        position = place
    return f'<div class="sb-text">{html}{_lines(text[position:])}</div>'


def _links(text: str, documents: Sequence[RelatedDocument]) -> list[tuple[int, str]]:
    """Where the links of the documents' titles begin and end: the titles stand in the text in this order."""
    inserts, position = [], 0
    for document in documents:
        start = text.find(document.title, position)
        if start >= 0 and document.title:
            position = start + len(document.title)
            inserts += [(start, _opening(document)), (position, "</a>")]
    return inserts


def _opening(document: RelatedDocument) -> str:
    return f'<a class="sb-open" href="/source/{quote(document.document_id)}" target="_blank" rel="noopener">'


def section(heading: str, html: str) -> str:
    """The answer to one of several parts, under its heading."""
    return f'<section class="sb-section"><h3 class="sb-part">{_lines(heading)}</h3>{html}</section>'


def asked_part(heading: str, standalone: str) -> str:
    """What was typed of a part, where its heading quotes it."""
    return heading.strip("“”") if heading.startswith("“") else standalone


def fields_table(fields: Mapping[str, str], titles: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(titles.get(name, name))}</th><td>{escape(value)}</td></tr>" for name, value in fields.items()
    )
    return f'<table class="sb-fields"><tbody>{rows}</tbody></table>'


def plain(text: str) -> str:
    """Someone's own words, shown as typed."""
    return f'<div class="sb-text">{_lines(text)}</div>'


def writing(html: str) -> str:
    """A turn that still grows."""
    return f'<div class="sb-writing">{html}</div>'


def failure(message: str) -> str:
    return f'<div class="sb-failure">{_lines(message)}</div>'


def note(message: str) -> str:
    return f'<div class="sb-note">{_lines(message)}</div>'


def sources_panel(answers: Sequence[tuple[str, str, Sequence[Citation], Sequence[RelatedDocument]]]) -> str:
    """The cited passages per turn, newest first; only the newest turn is open.

    Rows, oldest first: (the turn's anchor, question, citations, related documents). The anchor of a second answer to a
    question is that of the first and a letter.
    """
    cited = [row for row in answers if row[2]]
    if not cited:
        return (
            f'<div class="sb-sources">{_PANEL_TITLE}<p class="sb-empty">Cited passages appear here, with the '
            "quoted sentence marked and a link into the document.</p></div>"
        )
    groups = []
    newest = answers[-1][0].rstrip("b")
    for turn, asked, citations, related in reversed(cited):
        cards = "".join(_card(turn, group) for group in _by_passage(citations)) + _see_also(related)
        state = " open" if turn.rstrip("b") == newest else ""
        groups.append(f"<details{state}><summary>{escape(_shorten(asked, 90))}</summary>{cards}</details>")
    return f'<div class="sb-sources">{_PANEL_TITLE}{"".join(groups)}</div>'


_PANEL_TITLE = '<h2 class="sb-title">Sources</h2>'


def source_link(citation: Citation) -> str:
    """Where the source opens at the quote: the PDF's page, or the stored text with the quote marked."""
    address = f"/source/{quote(citation.document_id)}"
    if citation.page is not None and citation.document.lower().endswith(".pdf"):
        return f"{address}/original#page={citation.page}"
    return f"{address}?start={citation.start}&end={citation.end}#cited"


def source_page(document: Document, start: int, end: int) -> str:
    """A page of the document's stored text, with code points `start` to `end` marked."""
    start, end = max(0, min(start, len(document.text))), max(0, min(end, len(document.text)))
    before, cited, after = document.text[:start], document.text[start:end], document.text[end:]
    mark = f'<mark id="cited">{escape(cited)}</mark>' if cited else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{_SOURCE_STYLE}</style></head><body><main>"
        f"<p class=path>{_where_from(document)}</p><h1>{escape(document.title)}</h1>"
        f"<pre>{escape(before)}{mark}{escape(after)}</pre></main></body></html>"
    )


def _where_from(document: Document) -> str:
    """A document's path, or the address that a connector found it at, as a link where it is one."""
    address = document.address
    if address is None:
        return escape(document.path)
    if not address.lower().startswith(("https://", "http://")):
        return escape(address)
    return f'<a href="{escape(address, quote=True)}" rel="noopener noreferrer">{escape(address)}</a>'


_SOURCE_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;color:#1c2733;background:#f6f7f9;margin:0}"
    "main{max-width:46rem;margin:2rem auto;padding:1.5rem 2rem;background:#fff;border-radius:10px;"
    "box-shadow:0 1px 4px #0002}h1{font-size:1.4rem}pre{font:inherit;white-space:pre-wrap;overflow-wrap:anywhere}"
    ".path{color:#5b6b7b;font-size:.85rem;margin:0}mark{background:#ffe08a;padding:.1em 0;scroll-margin:30vh}"
)


def _chip(turn: str, citation: Citation) -> str:
    title = escape(f"{citation.title}: {_shorten(citation.quote, 160)}", quote=True)
    return f'<a class="sb-chip" href="#sb-{turn}-{citation.number}" title="{title}">{citation.number}</a>'


def _card(turn: str, group: Sequence[Citation]) -> str:
    first = group[0]
    where = " · ".join(
        part for part in (escape(first.section), f"page {first.page}" if first.page is not None else "") if part
    )
    return (
        f'<article class="sb-card" id="sb-{turn}-{first.number}">'
        f'<header><span class="sb-chip">{first.number}</span>'
        f"<b>{escape(first.title)}</b></header>"
        + (f'<div class="sb-where">{where}</div>' if where else "")
        + f"<blockquote>{_marked(group)}</blockquote>"
        f'<a class="sb-open" href="{escape(source_link(first), quote=True)}" target="_blank" rel="noopener">'
        f"Open {escape(first.document.rsplit('/', 1)[-1])}</a></article>"
    )


def _see_also(related: Sequence[RelatedDocument]) -> str:
    links = " · ".join(
        f'<a href="/source/{quote(one.document_id)}" target="_blank" rel="noopener">{escape(one.title)}</a>'
        for one in related
    )
    return f'<p class="sb-related">See also: {links}</p>' if links else ""


def _marked(group: Sequence[Citation]) -> str:
    text, offset = group[0].passage_text, group[0].passage_start
    html, position = "", 0
    for citation in sorted(group, key=lambda one: one.start):
        start, end = max(position, citation.start - offset), citation.end - offset
        html += f"{_lines(text[position:start])}<mark>{_lines(text[start:end])}</mark>"
        position = max(position, end)
    return html + _lines(text[position:])


def _by_passage(citations: Sequence[Citation]) -> list[list[Citation]]:
    groups: dict[str, list[Citation]] = {}
    for citation in citations:
        groups.setdefault(citation.passage, []).append(citation)
    return list(groups.values())


def _lines(text: str) -> str:
    """Escaped, with line breaks as elements: a bare newline would hand the rest to a Markdown parser."""
    return re.sub(r"\r?\n", "<br>", escape(text))


def _shorten(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1].rstrip() + "…"


def rendered(answer: Answer, asked: str, turn: str, titles: Mapping[str, str]) -> str:
    """A finished answer as it stands in the conversation; of several parts each has a heading and a badge."""
    if answer.parts:
        return "".join(
            section(part.heading, rendered(part, asked_part(part.heading, part.standalone), turn, titles))
            for part in answer.parts
        )
    html = badge(answer.decision, answer.standalone, asked, bool(answer.clarify))
    if answer.fields is not None:
        html += fields_table(answer.fields, titles)
    closest = answer.related if answer.refused else ()
    html += answer_text(answer.text, answer.citations, turn, answer.unsupported, closest)
    return html + (note(unsupported_words(len(answer.unsupported))) if answer.unsupported else "")


def unsupported_words(sentences: int) -> str:
    """What is said of so many marked sentences, one at least."""
    what = "1 sentence is" if sentences == 1 else f"{sentences} sentences are"
    return f"{what} marked: no passage found says so."
