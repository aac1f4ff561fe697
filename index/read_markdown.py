"""Markdown to blocks of plain text. Follows CommonMark with tables; drops emphasis, links' targets and HTML."""

import re
from collections.abc import Sequence

import yaml
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from index.blocks import TextAssembler
from index.read_html import html_text
from index.read_text import read_text

MAX_MARKS = 300_000
"""Characters that may mark something up. Each takes the parser up to 100 microseconds and 3 kilobytes; a book of 1,000
pages has 50,000. Above it, a source is read as plain text."""
_MARKS = "[]*_`|<!#\\"
_FRONT_MATTER_CHARACTERS = 20_000
"""YAML is read at about 50,000 characters a second."""
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD_LINE = re.compile(r"[A-Z][\w /'-]{0,40}: ")


def read_markdown(source: str, into: TextAssembler) -> str | None:
    """Appends `source` to `into`; returns the title that its front matter states, if any.

    A source with more than MAX_MARKS marks keeps them, and a note says so.
    """
    title = None
    front = _FRONT_MATTER.match(source)
    if front and front.end() <= _FRONT_MATTER_CHARACTERS:
        fields = _fields(front.group(1))
        if fields is not None:
            source = source[front.end() :]
            title = str(fields.get("title") or "") or None
            stated = [f"{key}: {value}" for key, value in fields.items() if key.lower() != "title" and value]
            if stated:
                into.add("paragraph", "\n".join(stated))
    if sum(source.count(mark) for mark in _MARKS) + source.count("\n") > MAX_MARKS:
        into.notes.append("It is too large to be read as Markdown and was read as plain text: split it.")
        read_text(source, into)
        return title
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for node in SyntaxTreeNode(parser.parse(source)).children:
        _block(node, into)
    return title


def _fields(text: str) -> dict[str, object] | None:
    """The flat fields of front matter; None if it is no YAML mapping (then it is part of the text)."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(fields, dict):
        return None
    return {str(key): value for key, value in fields.items() if not isinstance(value, dict | list)}


def _block(node: SyntaxTreeNode, into: TextAssembler) -> None:
    match node.type:
        case "heading":
            into.add("heading", _inline(node), level=int(node.tag[1]))
        case "bullet_list" | "ordered_list":
            into.add("list", "\n".join(_list(node, "")))
        case "table":
            into.table(_cells(node))
        case "fence" | "code_block":
            into.add("code", node.content)
        case "html_block":
            into.add("paragraph", html_text(node.content))
        case "blockquote":
            for child in node.children:
                _block(child, into)
        case "hr":
            pass
        case _:
            into.add("paragraph", _inline(node))


def _list(node: SyntaxTreeNode, indent: str) -> list[str]:
    """The lines of a list: "- " or "1. " before each item, nested lists and further paragraphs indented."""
    number = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    lines = []
    for item in node.children:
        mark = "- " if number is None else f"{number}. "
        inner = indent + " " * len(mark)
        body: list[str] = []
        for child in item.children:
            if child.type in ("bullet_list", "ordered_list"):
                body.extend(_list(child, inner))
            else:
                body.extend(inner + line for line in _plain(child).split("\n") if line.strip())
        if body:
            body[0] = indent + mark + body[0].strip()
            lines.extend(body)
        number = None if number is None else number + 1
    return lines


def _plain(node: SyntaxTreeNode) -> str:
    """The text of a block inside a list item."""
    if node.type in ("fence", "code_block"):
        return node.content
    if node.type == "html_block":
        return html_text(node.content)
    if node.type == "table":
        nested = TextAssembler()
        nested.table(_cells(node))
        return nested.text
    if node.type == "blockquote":
        return "\n".join(_plain(child) for child in node.children)
    return _inline(node)


def _cells(table: SyntaxTreeNode) -> list[list[str]]:
    return [[_inline(cell) for cell in row.children] for part in table.children for row in part.children]


def _inline(node: SyntaxTreeNode) -> str:
    """The words of a node without their markup; a soft line break is a space, except between field lines."""
    pieces: list[str] = []
    for child in node.children:
        _collect(child, pieces)
    lines = "".join(pieces).split("\v")
    text, opening = [lines[0]], _opening(lines[0])
    for line in lines[1:]:
        if _FIELD_LINE.match(line) and _FIELD_LINE.match(opening):
            text += ["\n", line]
            opening = _opening(line)
        else:
            text += [" ", line]
            opening = _opening(f"{opening} {line}")
    return "".join(text)


def _opening(text: str) -> str:
    """As much of a text's last line as shows whether it is a field's."""
    return text[text.rfind("\n") + 1 :][:60]


def _collect(node: SyntaxTreeNode, pieces: list[str]) -> None:
    if node.type in ("text", "code_inline"):
        pieces.append(node.content)
    elif node.type == "softbreak":
        pieces.append("\v")
    elif node.type == "hardbreak":
        pieces.append("\n")
    elif node.type == "html_inline":
        if re.match(r"<br\b", node.content, re.IGNORECASE):
            pieces.append("\n")
    elif node.type == "image":
        pieces.append(node.content or "")
    else:
        children: Sequence[SyntaxTreeNode] = node.children
        for child in children:
            _collect(child, pieces)
