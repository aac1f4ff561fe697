"""A real HTTP server for tests: what it answers can be changed while it runs, and it notes what it was asked."""

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[BaseHTTPRequestHandler], None]
"""Answers a request by itself, for servers that misbehave."""


@dataclass
class Site:
    """`replies` by path with query; a path that is not there is answered with 404."""

    port: int = 0
    scheme: str = "http"
    replies: dict[str, Reply | Handler] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def page(self, path: str, text: str, **headers: str) -> str:
        """Puts an HTML page up; returns its URL."""
        own = {"Content-Type": "text/html; charset=utf-8"} | {name.replace("_", "-"): v for name, v in headers.items()}
        self.replies[path] = Reply(text.encode(), headers=own)
        return self.address + path

    def sitemap(self, path: str, *urls: str, index: bool = False) -> str:
        """Puts a sitemap, or an index of sitemaps, up; returns its URL."""
        outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
        entries = "".join(f"<{inner}><loc> {url} </loc></{inner}>" for url in urls)
        body = f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{outer}>'
        self.replies[path] = Reply(body.encode(), headers={"Content-Type": "application/xml"})
        return self.address + path

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key, in one file.

    Skips the test with the reason where there is no openssl program; in CI it fails.
    """
    if shutil.which("openssl") is None:
        reason = "no openssl program on this machine: `apt-get install openssl` runs the tests of https"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    path = folder / "server.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-days", "2", *key, *name]
    made = subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + made.stdout)
    return path


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Site]:
    """A running server on a free port of this machine; with a certificate and its key in one file, by https."""
    site = Site(scheme="https" if certificate else "http")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            reply = site.replies.get(self.path, Reply(status=404))
            if not isinstance(reply, Reply):
                reply(self)
                return
            etag = reply.headers.get("ETag")
            unchanged = etag is not None and self.headers.get("If-None-Match") == etag
            self.send_response(304 if unchanged else reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            body = b"" if unchanged else reply.body
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join(timeout=5)
