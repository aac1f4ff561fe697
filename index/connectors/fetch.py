"""Fetches pages by http and https with limits, from addresses that addresses.py lets pass, and from no other.

The address that was checked is the one that is connected to, on every redirect anew. Proxies of the environment
are not used: a proxy would resolve names by itself, behind the check.
"""

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from desk.connectors import web_address
from index.connectors.addresses import resolve
from index.connectors.items import ConnectorError

_REDIRECTS = 5
_ADDRESSES = 4
"""Of a host that are tried: two of IPv6 and two of IPv4, say."""
_PIECE = 65_536
_AGENT = "Switchboard (documents of a help desk)"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a fetch may do. `until` is a time of time.monotonic(); no request takes longer than `timeout_s`."""

    max_bytes: int
    until: float
    allow_private: bool = False
    timeout_s: float = 30.0
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `url` is the one after redirects, names in `headers` are in small letters."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch(url: str, limits: Limits, headers: Mapping[str, str] | None = None, same_origin: bool = False) -> Response:
    """The answer to a GET, redirects followed; `same_origin` refuses those that lead to another server.

    `headers` are sent to the first server only. Raises ConnectorError with a sentence about what went wrong;
    an answer with any status is an answer.
    """
    origin = _origin(_parts(url))
    for _ in range(_REDIRECTS + 1):
        parts = _parts(url)
        own = dict(headers or {}) if _origin(parts) == origin else {}
        response = _get(url, parts, own, limits)
        target = response.headers.get("location", "")
        if response.status not in (301, 302, 303, 307, 308) or not target:
            return response
        try:
            url = urljoin(url, target)
        except ValueError:
            raise ConnectorError("it redirects to what is no web address") from None
        following = _parts(url)
        if parts.scheme == "https" and following.scheme == "http":
            raise ConnectorError("it redirects from https to http")
        if same_origin and _origin(following) != origin:
            raise ConnectorError("it redirects to another server")
    raise ConnectorError(f"it redirects more than {_REDIRECTS} times")


def _parts(url: str) -> SplitResult:
    """A URL's parts. Raises ConnectorError for one that is not plain http or https."""
    try:
        parts = urlsplit(web_address(url))
        if parts.port == 0:
            raise ValueError("port 0 is none")
    except ValueError as error:
        raise ConnectorError(f"{error}") from None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _get(url: str, parts: SplitResult, headers: dict[str, str], limits: Limits) -> Response:
    timeout_s = min(limits.timeout_s, limits.until - time.monotonic())
    if timeout_s <= 0:
        raise ConnectorError("the time for this run is over (max_minutes)")
    _, host, port = _origin(parts)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + ("?" if parts.query else "")
    target += quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    try:
        with _connection(parts.scheme, host, port, timeout_s, limits) as connection:
            sent = {"Host": _host_header(parts), "User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
            connection.request("GET", target, headers=sent)
            answer = connection.getresponse()
            received = {name.lower(): value for name, value in answer.getheaders()}
            body = _decoded(_body(answer, limits.max_bytes), received.get("content-encoding", ""), limits.max_bytes)
            return Response(url, answer.status, received, body)
    except ssl.SSLCertVerificationError as error:
        hint = "name the authority's certificates with ca_file"
        raise ConnectorError(f"its certificate cannot be verified ({error.verify_message}): {hint}") from None
    except (OSError, http.client.HTTPException, zlib.error, ValueError) as error:
        raise ConnectorError(f"the server did not answer as it should ({type(error).__name__})") from None


def _host_header(parts: SplitResult) -> str:
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    return f"{name}:{parts.port}" if parts.port and parts.port != _PORTS[parts.scheme] else name


@contextmanager
def _connection(
    scheme: str, host: str, port: int, timeout_s: float, limits: Limits
) -> Iterator[http.client.HTTPConnection]:
    """A connection to a checked address of the host, cut off after `timeout_s` whatever the server does."""
    addresses = resolve(host, port, limits.allow_private)
    raw = _connected([str(address) for address in addresses], port, timeout_s)
    held = [raw]
    cut = threading.Event()

    def cut_off() -> None:
        cut.set()
        try:
            # The plain socket's method: the encrypted one's would let the other thread read on unencrypted.
            socket.socket.shutdown(held[0], socket.SHUT_RDWR)
        except OSError:
            held[0].close()

    timer = threading.Timer(timeout_s, cut_off)
    timer.daemon = True
    timer.start()
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    connection.auto_open = False
    try:
        if scheme == "https":
            encrypted = _trust(limits.ca_file).wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
            held[0] = encrypted
            encrypted.do_handshake()
        connection.sock = held[0]
        yield connection
        if cut.is_set():
            raise ConnectorError(f"the server took longer than {timeout_s:.0f} s")
    except (OSError, http.client.HTTPException):
        if cut.is_set():
            raise ConnectorError(f"the server took longer than {timeout_s:.0f} s") from None
        raise
    finally:
        timer.cancel()
        connection.close()
        held[0].close()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ValueError):
        raise ConnectorError(f"the certificates {ca_file} cannot be read: correct ca_file") from None


def _connected(addresses: list[str], port: int, timeout_s: float) -> socket.socket:
    """A socket to the first address that answers, of the first few: a name can have thousands that do not. Raises
    OSError if none does."""
    *others, last = addresses[:_ADDRESSES]
    for address in others:
        try:
            return socket.create_connection((address, port), min(timeout_s, 5.0))
        except OSError:
            continue
    return socket.create_connection((last, port), timeout_s)


def _body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body, whole. Raises ConnectorError for more than `max_bytes`, IncompleteRead for one that is cut off."""
    stated = answer.length
    if stated is not None and stated > max_bytes:
        raise _too_large(max_bytes)
    pieces, size = [], 0
    while piece := answer.read(_PIECE):
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
    if stated is not None and size < stated:
        raise http.client.IncompleteRead(b"", stated - size)
    return b"".join(pieces)


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its compression, which some servers use unasked."""
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise ConnectorError(f"the server sent an encoding that was not asked for ({encoding[:30]})")
    return unzipped(body, max_bytes)


def unzipped(data: bytes, max_bytes: int) -> bytes:
    """gzip data unpacked. Raises ConnectorError for more than `max_bytes`, zlib.error for damage."""
    unpacker = zlib.decompressobj(wbits=31)
    content = unpacker.decompress(data, max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof:
        raise zlib.error("cut off")
    return content


def _too_large(max_bytes: int) -> ConnectorError:
    return ConnectorError(f"it is larger than the limit of {max_bytes / 1e6:,.0f} MB (max_mb)")
