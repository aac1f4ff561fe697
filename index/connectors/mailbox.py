"""The messages of an mbox file, each a document: its subject, sender, date and text. Attachments are left out."""

import email
import email.policy
import hashlib
import mailbox
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import parseaddr, parsedate_to_datetime
from html import escape

from desk.connectors import MailboxFile
from index.blocks import one_line
from index.connectors.items import ConnectorError, Event, Failed, Found, Source
from index.connectors.page import html_page, paragraphs
from index.read_html import html_text


def read_mailbox(connector: MailboxFile) -> Iterator[Event]:
    """A document per message. The same message id a second time (a copy under another label) is left out.

    Raises ConnectorError if the file is not there or holds something else.
    """
    path = connector.path
    try:
        with path.open("rb") as file:
            opening = file.read(5)
    except OSError as error:
        raise ConnectorError(f"the mailbox {path} cannot be read ({error.strerror}): check path") from None
    if opening not in (b"", b"From "):
        raise ConnectorError(f"{path} is no mbox file: it does not start with 'From '")
    box = mailbox.mbox(path, create=False)
    seen: set[str] = set()
    try:
        for number in box.iterkeys():
            raw = box.get_bytes(number)
            event = _message(connector, raw, f"message {int(number) + 1}")
            key = event.source.key if isinstance(event, Found) else event.key
            if key not in seen:
                seen.add(key)
                yield event
    finally:
        box.close()


def _message(connector: MailboxFile, raw: bytes, place: str) -> Found | Failed:
    """One message. Headers from outside can break the parser in many ways: each costs that message alone."""
    key = hashlib.sha256(raw).hexdigest()
    if len(raw) > 10 * connector.max_mb * 1_000_000:
        return Failed(key, f"{place} is larger than ten times the limit of {connector.max_mb} MB (max_mb)")
    try:
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage), "the default policy makes EmailMessage"
        key = _raw_header(message, "message-id") or key
        subject = one_line(str(message.get("Subject") or "")) or "(no subject)"
        text = _text(message)
        sender = _sender(message)
        date = _date(message)
    except Exception as error:
        return Failed(key, f"{place} cannot be read ({type(error).__name__})")
    if not text.strip():
        return Failed(key, f"{place} ({subject[:80]}) has no text: it may be encrypted, or only attachments")
    about = "; ".join(part for part in (f"From: {sender}" if sender else "", f"Date: {date}" if date else "") if part)
    body = (f"<p>{escape(about)}</p>\n" if about else "") + paragraphs(text)
    address = f"{connector.name}: {subject}" + (f" ({date})" if date else "")
    return Found(Source(key, address, subject, date), ".html", html_page(subject, body))


def _raw_header(message: EmailMessage, name: str) -> str:
    """A header as it is written: the parser of message ids fails on ids that occur."""
    return next((one_line(str(value)) for key, value in message.raw_items() if key.lower() == name), "")


def _text(message: EmailMessage) -> str:
    """The message's plain text; that of its HTML if there is no other. Empty if there is neither."""
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        content = payload.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeError):
        content = payload.decode("cp1252", "replace")
    return html_text(content) if part.get_content_subtype() == "html" else content


def _sender(message: EmailMessage) -> str:
    """The sender's name, or the address if there is none."""
    name, address = parseaddr(str(message.get("From") or ""))
    return one_line(name or address)


def _date(message: EmailMessage) -> str | None:
    try:
        return parsedate_to_datetime(str(message.get("Date") or "")).date().isoformat()
    except (ValueError, TypeError, IndexError):
        return None
