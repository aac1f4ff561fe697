"""A page that is one file: it asks for nothing from outside and runs nothing, whatever its words are.

What is put into it has to be escaped already. The policy forbids scripts and foreign content besides.
"""

from html import escape
from typing import NewType

Html = NewType("Html", str)
"""Markup whose words are escaped already."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def closed_page(title: str, style: str, body: str) -> Html:
    """The whole page. Pictures may stand in it as data: addresses."""
    return Html(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body>{body}</body></html>\n"
    )
