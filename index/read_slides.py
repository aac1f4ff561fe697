"""PowerPoint files to blocks of plain text, a slide as a page. Reads no pictures, charts or SmartArt."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from index.blocks import TextAssembler, one_line
from index.errors import LimitError

MAX_SLIDES = 2_000
MAX_SHAPES = 100_000
_DEFAULT_TITLE = "PowerPoint Presentation"
_MAX_GROUP_DEPTH = 20


def read_pptx(path: Path, into: TextAssembler) -> str | None:
    """Appends every visible slide to `into`: title as heading, text, tables, speaker notes.

    Returns the title property, if someone set it. Raises LimitError for more than MAX_SLIDES slides or MAX_SHAPES
    shapes.
    """
    import pptx

    deck = pptx.Presentation(str(path))
    if len(deck.slides._sldIdLst) > MAX_SLIDES:
        raise LimitError(f"has {len(deck.slides._sldIdLst):,} slides; the limit is {MAX_SLIDES:,}: split it.")
    hidden = shapes = 0
    seen: set[str] = set()
    for number, slide in enumerate(deck.slides, 1):
        if slide._element.get("show") == "0":
            hidden += 1
            continue
        if slide.part.partname in seen:
            continue  # a damaged or hostile file: one slide can be named thousands of times
        seen.add(slide.part.partname)
        title = slide.shapes.title
        into.add("heading", _text(title.text_frame) if title is not None else "", number, level=2)
        for shape in _flat(slide.shapes, 0):
            shapes += 1
            if shapes > MAX_SHAPES:
                raise LimitError(f"has more than {MAX_SHAPES:,} shapes: split it.")
            if title is None or shape.shape_id != title.shape_id:
                _shape(shape, number, into)
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None and notes.text.strip():
            into.add("paragraph", f"Speaker notes: {notes.text}", number)
    if hidden:
        into.notes.append(f"{hidden} hidden slide{'s were' if hidden > 1 else ' was'} left out.")
    stated = one_line(deck.core_properties.title or "")
    return stated if stated and stated != _DEFAULT_TITLE else None


def _flat(shapes: Iterable[Any], depth: int) -> Iterator[Any]:
    """The shapes in the file's order, groups taken apart."""
    if depth > _MAX_GROUP_DEPTH:
        return
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _flat(shape.shapes, depth + 1)
        else:
            yield shape


def _shape(shape: Any, page: int, into: TextAssembler) -> None:
    if getattr(shape, "has_table", False):
        into.table([[cell.text for cell in row.cells] for row in shape.table.rows], page)
        return
    if not getattr(shape, "has_text_frame", False) or not shape.text_frame.text.strip():
        return
    paragraphs = [paragraph for paragraph in shape.text_frame.paragraphs if _line(paragraph)]
    if len(paragraphs) > 1 and shape.is_placeholder:
        into.add("list", "\n".join(f"{'  ' * min(item.level, 8)}- {_line(item)}" for item in paragraphs), page)
    else:
        into.add("paragraph", "\n".join(_line(paragraph) for paragraph in paragraphs), page)


def _text(frame: Any) -> str:
    return " ".join(_line(paragraph) for paragraph in frame.paragraphs)


def _line(paragraph: Any) -> str:
    return one_line(str(paragraph.text).replace("\v", " "))
