"""A message as it is read: without what nobody can see."""

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but line breaks and tabs
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text around
    "\ufeff\U000e0000-\U000e007f"  # byte order mark, and tags, which can spell out hidden words
    "\ud800-\udfff]"  # halves of characters, which no database takes
)
_GAP = re.compile(r"\n[\n\t ]*\n[\n\t ]*\n")


def cleaned(message: str) -> str:
    """The message without unseen characters, its line breaks as one newline and at most two of them in a row.

    Letters that join, and the marks of right-to-left writing itself, stay.
    """
    lines = message.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _GAP.sub("\n\n", _UNSEEN.sub("", lines))
