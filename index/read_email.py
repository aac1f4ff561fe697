"""E-mail messages (EML) to blocks of plain text: who wrote what when, and what is attached."""

import binascii
import email.header
import email.policy
import email.utils
import re
from collections.abc import Callable, Iterator
from email.message import Message

from index.blocks import TextAssembler, one_line
from index.errors import LimitError, SourceError
from index.read_html import read_html
from index.read_text import decode, decode_stated, read_text

MAX_PARTS = 500
_MAX_DEPTH = 20
_MAX_HEADER_CHARACTERS = 2_000
_MAX_HEADER_BYTES = 20_000
MAX_COMPARISONS = 30_000_000
_SHOWN_HEADERS = ("From", "To", "Cc", "Date")

ReadAttached = Callable[[bytes, str], TextAssembler]
"""Reads an attachment, given its bytes and its name; raises SourceError if it cannot be read."""


def read_email(data: bytes, name: str, into: TextAssembler, read_attached: ReadAttached) -> str | None:
    """Appends a message to `into`: subject, sender, receivers, date, body, attachments; returns its subject.

    An attachment that can be read follows under its name as heading; the others are named in a line. Raises
    SourceError for a file that is no message.
    """
    message = parse_message(data)
    shown = [f"{key}: {header(message, key)}" for key in _SHOWN_HEADERS if header(message, key)]
    if not shown and not message.get("Subject"):
        raise SourceError(f"{name} is no e-mail message (it has no sender, date or subject): save it as EML again.")
    subject = header(message, "Subject")
    into.add("heading", subject, level=1)
    into.add("paragraph", "\n".join(shown))
    into.dated = sent_on(message)
    attachments: list[Message] = []
    _body(message, into, attachments, 0)
    unread: list[str] = []
    for number, part in enumerate(attachments, 1):
        label = _file_name(part) or f"attachment {number}"
        try:
            attached = read_attached(_content(part), label)
        except SourceError:
            unread.append(label)
            continue
        into.add("heading", f"Attachment: {label}", level=2)
        into.append(attached, 2)
    if unread:
        into.add("paragraph", f"Attachments that are not read: {', '.join(unread)}.")
    return subject or None


def parse_message(data: bytes) -> Message:
    """The message with its parts. Raises LimitError for one that would take Python's parser minutes."""
    # The parser takes a lone carriage return for the end of a line, too.
    _check(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    # Not the newer policy: its parser of header values takes minutes for some headers of a few kilobytes.
    return email.message_from_bytes(data, policy=email.policy.compat32)


def body_text(message: Message) -> str:
    """A message's own words, without headers and attachments. Raises LimitError for one that is nested too deeply."""
    into = TextAssembler()
    _body(message, into, [], 0)
    return into.text


def _check(data: bytes) -> None:
    """Raises LimitError for a message that would take Python's parser minutes: it compares each line with the ends of
    all the parts around it, and its time for a header grows with the square of the length."""
    nested = len(re.findall(rb"multipart/", data, re.IGNORECASE))
    if nested * data.count(b"\n") > MAX_COMPARISONS:
        raise LimitError("has too many parts for its length: save its parts apart.")
    headers = re.finditer(rb"^content-[\w-]+:.*(?:\n[ \t].*)*", data, re.IGNORECASE | re.MULTILINE)
    if any(len(header.group()) > _MAX_HEADER_BYTES for header in headers):
        raise LimitError(f"has a header line of more than {_MAX_HEADER_BYTES:,} bytes: save it again.")


def _body(part: Message, into: TextAssembler, attachments: list[Message], depth: int) -> None:
    """Appends the readable text of a part and of those in it, and collects the attachments on the way."""
    if depth > _MAX_DEPTH or len(attachments) >= MAX_PARTS:
        raise LimitError("is nested too deeply or has too many parts: save its parts apart.")
    kind = part.get_content_type()
    if part.get_content_disposition() == "attachment" or (_file_name(part) and kind != "text/plain"):
        attachments.append(part)
    elif kind == "multipart/alternative":
        _body(_preferred(part), into, attachments, depth + 1)
    elif part.is_multipart():
        for child in list(_children(part))[:MAX_PARTS]:
            _body(child, into, attachments, depth + 1)
    elif kind == "text/html":
        read_html(_text(part), into)
    elif kind == "text/plain":
        read_text(_text(part), into)
    else:
        attachments.append(part)


def _children(part: Message) -> Iterator[Message]:
    payload = part.get_payload()
    for child in payload if isinstance(payload, list) else []:
        if isinstance(child, Message):
            yield child


def _preferred(part: Message) -> Message:
    """The plain text of several forms of one text, if there is any in it; else the last form, which is the best."""
    forms = list(_children(part))
    plain = [form for form in forms if form.get_content_type() == "text/plain" and _text(form).strip()]
    if plain:
        return plain[0]
    return forms[-1] if forms else Message()


def _content(part: Message) -> bytes:
    """A part's bytes, whatever it was wrapped in for the way; for an attached message, the message itself."""
    inner = list(_children(part))
    if inner and part.get_content_type() == "message/rfc822":
        return inner[0].as_bytes()
    try:
        content = part.get_payload(decode=True)
    except (ValueError, LookupError, binascii.Error):
        return b""
    return content if isinstance(content, bytes) else b""


def _text(part: Message) -> str:
    """A part as text, in the encoding that it states or else in one that fits."""
    content = _content(part)
    charset = part.get_content_charset()
    stated = decode_stated(content, charset) if charset else None
    if stated is not None:
        return stated
    try:
        return decode(content, "")
    except SourceError:
        return content.decode("cp1252", "replace")


def _file_name(part: Message) -> str:
    """The name that an attachment states, as one plain word: no folders, nothing that cannot be seen."""
    try:
        stated = part.get_filename() or ""
    except (ValueError, LookupError, TypeError):
        return ""
    if part.get_content_type() == "message/rfc822" and not stated:
        stated = "message.eml"
    return re.split(r"[/\\]", _decoded(stated))[-1].strip()[:200]


def header(message: Message, key: str) -> str:
    """A header's value as people read it, on one line; "" where the message has none."""
    return _decoded(str(message.get(key) or ""))


def _decoded(value: str) -> str:
    """A header as people read it ("=?utf-8?q?caf=C3=A9?=" is "café"); as it stands if it is wrongly encoded."""
    value = value[:_MAX_HEADER_CHARACTERS]
    try:
        return one_line(str(email.header.make_header(email.header.decode_header(value))))
    except (ValueError, LookupError, email.errors.MessageError, binascii.Error):
        return one_line(value)


def sent_on(message: Message) -> str | None:
    """The ISO date of a message's Date line, in the sender's time."""
    try:
        return email.utils.parsedate_to_datetime(header(message, "Date")).date().isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
