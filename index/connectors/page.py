"""Rows, messages and pages from elsewhere as small HTML files, in which no text of theirs can pass for markup."""

import html
import re
from collections.abc import Sequence


def html_page(title: str, body: str) -> bytes:
    """An HTML file with `title` (plain text) as its title and heading above `body` (HTML)."""
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html><head><meta charset="utf-8"><title>{heading}</title></head>\n'
        f"<body>\n<h1>{heading}</h1>\n{body}\n</body></html>\n"
    ).encode("utf-8", "replace")


def paragraphs(text: str) -> str:
    """Plain text as HTML paragraphs: empty lines part them, single line ends are kept."""
    parts = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))]
    return "\n".join(f"<p>{html.escape(part).replace(chr(10), '<br>')}</p>" for part in parts if part.strip())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table whose first row holds the names of the columns."""
    lines = [_row("th", columns), *(_row("td", row) for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
