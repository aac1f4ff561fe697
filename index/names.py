"""Names from outside as plain relative paths."""

import re
from pathlib import PurePosixPath

_MOST_BYTES = 150
"""A part of a name that is longer is cut before its suffix: file systems take 255 bytes."""
_MOST_FOLDERS = 20


def plain_name(stated: str) -> str:
    """No way up or out, no drive, no characters that nobody can see; "" where nothing is left."""
    parts = []
    for part in stated.replace("\\", "/").split("/"):
        plain = "".join(letter for letter in part if letter.isprintable()).strip()
        if plain.strip(".") and not re.fullmatch(r"[A-Za-z]:", plain):
            parts.append(_fitting(plain))
    return "/".join(parts[-_MOST_FOLDERS:])


def _fitting(part: str) -> str:
    if len(part.encode()) <= _MOST_BYTES:
        return part
    path = PurePosixPath(part)
    return path.stem.encode()[:_MOST_BYTES].decode("utf-8", "ignore") + path.suffix[:20]
