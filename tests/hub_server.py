"""A small hub for the tests: the endpoints that huggingface_hub asks to create a repository and add one commit."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".png")
"""What goes to the large-file store first, as on the hub."""


@dataclass
class Hub:
    """Its repositories by name: visibility, and the files of the last commit. `refuse`: a status for every request."""

    address: str
    token: str = "hf_hunter2"
    refuse: int = 0
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{method} {self.path}")
        status, reply = self._reply(method, body)
        raw = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _reply(self, method: str, body: bytes) -> tuple[int, Any]:
        hub, path = self.hub, self.path
        if path.startswith("/large/"):
            hub.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if hub.refuse:
            return hub.refuse, {"error": f"no {self.headers['Authorization']} here"}
        if self.headers["Authorization"] != f"Bearer {hub.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        repo = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2]).removesuffix(".git")
        if repo not in hub.private:
            return 404, {"error": "Repository not found"}
        if method == "GET":
            return 200, {"id": repo, "private": hub.private[repo], "siblings": []}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular"} for name in names]
            return 200, {"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]}
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{hub.address}/large/{one['oid']}"}} for one in wanted]
            return 200, {
                "transfer": "basic",
                "objects": [one | {"actions": own} for one, own in zip(wanted, actions, strict=True)],
            }
        if path.endswith("/commit/main"):
            return self._commit(repo, [json.loads(line) for line in body.decode().splitlines()])
        return 404, {"error": f"no {path} here"}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{wanted['organization']}/{wanted['name']}"
        reply = {"url": f"{self.hub.address}/{repo}"}
        if repo in self.hub.private:
            return 409, reply | {"error": "You already created this model repo"}
        if wanted["organization"] != "acme":
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        self.hub.private[repo] = wanted.get("visibility") == "private"
        return 200, reply

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                content = self.hub.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
        self.hub.files[repo] = files
        address = f"{self.hub.address}/{repo}/commit/abc"
        return 200, {"success": True, "commitOid": "abc", "commitUrl": address, "hookOutput": ""}


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub of its own, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
