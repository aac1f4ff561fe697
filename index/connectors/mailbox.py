"""The messages of an mbox file, each a document: its subject, sender, date and text. Attachments are left out."""

import hashlib
import mailbox
import os
from collections.abc import Iterator
from email.utils import parseaddr
from html import escape

from desk.connectors import MailboxFile
from index.blocks import one_line
from index.connectors.items import ConnectorError, Event, Failed, Found, Source
from index.connectors.page import html_page, paragraphs
from index.errors import LimitError
from index.read_email import body_text, header, parse_message, sent_on


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
            place = f"message {int(number) + 1}"
            with box.get_file(number) as message:
                message.seek(0, os.SEEK_END)
                size = message.tell()
            if size > 10 * connector.max_mb * 1_000_000:
                yield Failed(place, f"is larger than ten times the limit of {connector.max_mb} MB (max_mb)")
                continue
            event = _message(connector, box.get_bytes(number), place)
            key = event.source.key if isinstance(event, Found) else event.key
            if key not in seen:
                seen.add(key)
                yield event
    finally:
        box.close()


def _message(connector: MailboxFile, raw: bytes, place: str) -> Found | Failed:
    """One message. Headers from outside can break the parser in many ways: each costs that message alone."""
    key = hashlib.sha256(raw).hexdigest()
    try:
        message = parse_message(raw)
        # As it is written: parsers of message ids fail on ids that occur.
        key = one_line(str(message.get("Message-ID") or "")) or key
        subject = header(message, "Subject") or "(no subject)"
        text = body_text(message)
        name, sender = parseaddr(header(message, "From"))
        date = sent_on(message)
    except LimitError as error:
        return Failed(key, f"{place} {error}")
    except Exception as error:
        return Failed(key, f"{place} cannot be read ({type(error).__name__})")
    if not text.strip():
        return Failed(key, f"{place} ({subject[:80]}) has no text: it may be encrypted, or only attachments")
    sender = one_line(name or sender)
    about = "; ".join(part for part in (f"From: {sender}" if sender else "", f"Date: {date}" if date else "") if part)
    body = (f"<p>{escape(about)}</p>\n" if about else "") + paragraphs(text)
    address = f"{connector.name}: {subject}" + (f" ({date})" if date else "")
    return Found(Source(key, address, subject, date), ".html", html_page(subject, body))
