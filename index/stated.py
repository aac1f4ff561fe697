"""What a source says of itself: a title from its name, the date it states, whether it no longer applies."""

import datetime
import re
from pathlib import Path

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = (
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\s+(?P<month>[A-Za-z]{3,9})\.?,?\s+(?P<year>\d{4})"
    r"|(?P<month2>[A-Za-z]{3,9})\.?\s+(?P<day2>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year2>\d{4})"
    r"|(?P<iso>\d{4}-\d{2}-\d{2})"
)
_STATED = (
    r"(?:last\s+)?(?:reviewed|updated|modified|changed|revised)(?:\s+on)?\s*:?\s*",
    r"(?:applied|valid|in force)\s+until\s*:?\s*",
)
_OUTDATED = re.compile(
    r"^(?:note:\s*)?(?:out of date|outdated|superseded|obsolete|archived|withdrawn|expired|"
    r"no longer (?:valid|in force))\b"
    r"|\b(?:this|the present)\s+(?:\w+\s+){1,3}?(?:applied until|(?:has been|is|was|have been|are)\s+"
    r"(?:\w+\s+)?(?:superseded|replaced|withdrawn|obsolete|archived|out of date|outdated|"
    r"no longer (?:valid|in force|current|in use|maintained))|no longer applies|does not apply any ?more)",
    re.IGNORECASE | re.MULTILINE,
)
_OUTDATED_TITLE = re.compile(r"\b(?:superseded|obsolete|outdated|archived|withdrawn|out of date)\b", re.IGNORECASE)
_HEAD_CHARACTERS = 800
"""How much of a text counts as its head: what stands further down is about something else."""


def readable_title(name: str) -> str:
    """A title from a file's name: "meeting-rooms_2026.csv" becomes "Meeting rooms 2026"."""
    words = " ".join(re.split(r"[-_\s]+", Path(name).stem)).strip()
    return words[:1].upper() + words[1:] if words else name


def stated_date(text: str) -> str | None:
    """The ISO date of the line that says when a text was last reviewed, or until when it applied."""
    for opening in _STATED:
        for found in re.finditer(rf"\b{opening}(?:{_DATE})", text, re.IGNORECASE):
            date = _date(found)
            if date is not None:
                return date
    return None


def _date(found: re.Match[str]) -> str | None:
    parts = found.groupdict()
    try:
        if parts["iso"]:
            return datetime.date.fromisoformat(parts["iso"]).isoformat()
        month = (parts["month"] or parts["month2"]).lower()
        number = _MONTHS.index(month[:3]) + 1
        return datetime.date(
            int(parts["year"] or parts["year2"]), number, int(parts["day"] or parts["day2"])
        ).isoformat()
    except ValueError:
        return None


def says_outdated(title: str, text: str) -> bool:
    """Whether a text says in its title or at its head that it no longer applies."""
    return bool(_OUTDATED_TITLE.search(title) or _OUTDATED.search(text[:_HEAD_CHARACTERS]))
