"""The client of an embedding service against a real server on this machine that speaks the OpenAI contract."""

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index.embed_openai import OpenAIEmbedder
from index.errors import EmbedderError

KEY = "sk-very-secret-0123456789"
DIMENSION = 16
Reply = tuple[int, dict[str, str], str]


def vector(text: str, dimension: int = DIMENSION, task: str = "") -> NDArray[np.float32]:
    """What the server computes for a text: not of length 1, as some services' are not."""
    digest = hashlib.sha256(f"{task}|{text}".encode()).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32)[:dimension] + 1


def unit(texts: Sequence[str], dimension: int = DIMENSION, task: str = "") -> NDArray[np.float32]:
    rows = np.stack([vector(text, dimension, task) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def answer(body: dict[str, Any]) -> Reply:
    """A right reply, its rows in reverse: the contract numbers them and promises no order."""
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector(text, body.get("dimensions", DIMENSION), body.get("task", "")).tolist(),
        }
        for index, text in enumerate(body["input"])
    ]
    return 200, {}, json.dumps({"object": "list", "data": rows[::-1], "model": body["model"]})


@dataclass
class Service:
    """The server's address, what it was asked, and how it answers the next requests before it answers rightly."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    script: list[Callable[[dict[str, Any]], Reply]] = field(default_factory=list)

    def embedder(self, **options: Any) -> OpenAIEmbedder:
        given = {"url": self.url, "model": "small-1", "key": KEY, "dimensions": DIMENSION, "patience_s": 2.0}
        return OpenAIEmbedder(**(given | options))


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.times.append(time.monotonic())
            found.keys.append(self.headers["Authorization"])
            found.bodies.append(body)
            reply = found.script.pop(0) if found.script else answer
            status, headers, text = (404, {}, "") if self.path != "/v1/embeddings" else reply(body)
            raw = text.encode()
            with contextlib.suppress(ConnectionError):  # a client that gave up has gone
                self.reply(status, headers, raw)

        def reply(self, status: int, headers: dict[str, str], raw: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Service(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def says(status: int, text: str = "{}", **headers: str) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: (status, {name.replace("_", "-"): value for name, value in headers.items()}, text)


def rows_of(*vectors: object) -> Callable[[dict[str, Any]], Reply]:
    return says(200, json.dumps({"data": [{"index": i, "embedding": row} for i, row in enumerate(vectors)]}))


def fault(embedder: OpenAIEmbedder, texts: Sequence[str] = ("one", "two")) -> str:
    with pytest.raises(EmbedderError) as caught:
        embedder.embed(texts)
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_vectors_are_the_servers_at_length_one_in_the_order_of_the_texts(service: Service) -> None:
    texts = [f"text number {number}" for number in range(23)]
    found = service.embedder(batch=5).embed(texts)
    assert found.dtype == np.float32 and found.shape == (23, DIMENSION)
    np.testing.assert_allclose(found, unit(texts), atol=1e-6)
    assert [len(body["input"]) for body in service.bodies] == [5, 5, 5, 5, 3]
    assert [text for body in service.bodies for text in body["input"]] == texts
    assert set(service.keys) == {f"Bearer {KEY}"}


def test_only_what_was_set_is_sent(service: Service) -> None:
    service.embedder(key="", dimensions=0).embed(["plain"])
    assert all(body.keys() == {"model", "input"} for body in service.bodies)
    assert set(service.keys) == {None}


def test_no_texts_make_no_request(service: Service) -> None:
    embedder = service.embedder()
    assert embedder.embed([]).shape == embedder.embed_queries([]).shape == (0, DIMENSION)
    assert service.bodies == []


def test_questions_and_passages_carry_their_own_tasks(service: Service) -> None:
    embedder = service.embedder(query_task="retrieval.query", passage_task="retrieval.passage")
    np.testing.assert_allclose(embedder.embed(["x"]), unit(["x"], task="retrieval.passage"), atol=1e-6)
    np.testing.assert_allclose(embedder.embed_queries(["x"]), unit(["x"], task="retrieval.query"), atol=1e-6)


def test_dimensions_are_asked_for_or_found_out(service: Service) -> None:
    chosen = service.embedder(dimensions=8)
    np.testing.assert_allclose(chosen.embed(["x"]), unit(["x"], 8), atol=1e-6)
    assert service.bodies[-1]["dimensions"] == 8
    assert service.embedder(dimensions=0).dimension == DIMENSION


def test_the_name_tells_apart_what_gives_other_vectors(service: Service) -> None:
    names = {
        service.embedder().name,
        service.embedder(model="small-2").name,
        service.embedder(dimensions=8).name,
        service.embedder(passage_task="retrieval.passage").name,
        service.embedder(url=service.url.replace("127.0.0.1", "localhost")).name,
    }
    assert len(names) == 5 and all(KEY not in name for name in names)


def test_a_text_is_cut_to_the_models_limit_between_characters(service: Service) -> None:
    service.embedder(tokens=16).embed(["a" * 40, "\u20ac" * 40, ""])
    assert service.bodies[-1]["input"] == ["a" * 32, "\u20ac" * 10, " "]


def test_a_request_holds_a_bounded_number_of_characters(service: Service) -> None:
    texts = [f"{number:06d}" * 2500 for number in range(30)]
    np.testing.assert_allclose(service.embedder(tokens=100_000).embed(texts), unit(texts), atol=1e-6)
    assert [len(body["input"]) for body in service.bodies] == [13, 13, 4]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_service_is_asked_again(service: Service, status: int) -> None:
    service.script = [says(status), says(status)]
    np.testing.assert_allclose(service.embedder(patience_s=10).embed(["x"]), unit(["x"]), atol=1e-6)
    assert [body["input"] for body in service.bodies] == [["x"]] * 3


def test_the_service_says_how_long_to_wait(service: Service) -> None:
    service.script = [says(429, Retry_After="1")]
    service.embedder().embed(["x"])
    assert service.times[1] - service.times[0] >= 1
    service.script = [says(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")]
    np.testing.assert_allclose(service.embedder().embed(["x"]), unit(["x"]), atol=1e-6)


def test_a_wait_beyond_ones_patience_is_not_begun(service: Service) -> None:
    service.script = [says(429, Retry_After="3600")]
    message = fault(service.embedder())
    assert "status 429" in message and "asks to wait 3600 s" in message and "try again later" in message
    assert len(service.bodies) == 1


@pytest.mark.parametrize("reply", [says(500), says(429, Retry_After="0"), says(503, Retry_After="nan")])
def test_patience_ends(service: Service, reply: Callable[[dict[str, Any]], Reply]) -> None:
    service.script = [reply] * 500
    message = fault(service.embedder(patience_s=1.0))
    assert "127.0.0.1" in message and "small-1" in message and "is overloaded or out of order" in message
    assert 2 <= len(service.bodies) < 10


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown() -> None:
    with pytest.raises(EmbedderError, match="key with other letters than ASCII") as caught:
        OpenAIEmbedder(url="https://models.example/v1", model="small-1", key="geheim\u201c", dimensions=3)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_repeated_and_not_tried_again(service: Service, status: int) -> None:
    service.script = [says(status, json.dumps({"error": f"Incorrect API key provided: {KEY}"}))]
    message = fault(service.embedder())
    assert f"refused the key (status {status})" in message and "index.embedder.key" in message
    assert len(service.bodies) == 1
    service.script = [says(status)]
    assert "asks for a key" in fault(service.embedder(key=""))


def test_what_the_service_says_of_a_bad_request_is_passed_on_without_the_key(service: Service) -> None:
    service.script = [says(400, f"input too long\nfor {KEY}")]
    message = fault(service.embedder())
    assert "status 400: 'input too long for ***'" in message
    assert len(service.bodies) == 1


def test_a_wrong_address_is_told_from_a_wrong_model(service: Service) -> None:
    assert "index.embedder.url" in fault(service.embedder(url=service.url + "/v2"))
    service.script = [says(301, Location="http://127.0.0.1:9/")]
    assert "final address" in fault(service.embedder())


NO_VECTORS = [
    "<html>",
    "",
    "[]",
    "null",
    "{" * 50,
    '{"data": 1}',
    '{"data": [{"index": 0}]}',
    '{"data": [{"embedding": [1]}]}',
    '{"data": [{"index": Infinity, "embedding": [1]}]}',
    '{"data": [{"index": 0, "embedding": ["a"]}]}',
]


@pytest.mark.parametrize("text", NO_VECTORS)
def test_a_reply_that_is_no_list_of_vectors_is_shown(service: Service, text: str) -> None:
    service.script = [says(200, text)]
    message = fault(service.embedder(), ["one"])
    assert "no list of vectors" in message and text[:10].replace("'", "") in message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_vectors_is_refused(service: Service, count: int) -> None:
    service.script = [rows_of(*[[1.0] * DIMENSION] * count)]
    assert f"gave {count} vectors for 2 texts" in fault(service.embedder())


def test_the_same_number_twice_is_a_vector_that_is_missing(service: Service) -> None:
    row = {"index": 0, "embedding": [1.0] * DIMENSION}
    service.script = [says(200, json.dumps({"data": [row, row]}))]
    assert "gave 1 vectors for 2 texts" in fault(service.embedder())


def test_vectors_of_another_dimension_are_refused(service: Service) -> None:
    service.script = [rows_of([1.0] * 8, [1.0] * 8)]
    assert "8 dimensions where 16 were expected" in fault(service.embedder())
    service.script = [rows_of([1.0] * 16, [1.0] * 8)]
    assert "no list of vectors" in fault(service.embedder())


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e300])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_vectors_without_a_direction_are_refused(service: Service, value: float) -> None:
    service.script = [rows_of([1.0] * DIMENSION, [value] * DIMENSION)]
    assert "no direction" in fault(service.embedder())


def test_a_service_that_is_too_slow_is_given_up(service: Service) -> None:
    release = threading.Event()

    def slow(body: dict[str, Any]) -> Reply:
        release.wait(20)
        return answer(body)

    service.script = [slow] * 10
    message = fault(service.embedder(timeout_s=0.2, patience_s=0.5))
    release.set()
    assert "did not answer within 0.2 s" in message


def test_a_service_that_is_away_is_named() -> None:
    with pytest.raises(EmbedderError, match=r"127\.0\.0\.1:9 .*cannot be reached \(ConnectError\)"):
        OpenAIEmbedder(url="http://127.0.0.1:9/v1", model="m", patience_s=0.1, dimensions=4).embed(["x"])


def test_neither_key_nor_texts_are_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.script = [says(429, Retry_After="0")]
    with caplog.at_level(logging.DEBUG):
        service.embedder().embed(["a confidential text"])
    assert "trying again" in caplog.text
    assert KEY not in caplog.text and "confidential" not in caplog.text


def test_threads_get_their_own_vectors(service: Service) -> None:
    embedder = service.embedder(batch=2)
    wrong: list[int] = []

    def ask(number: int) -> None:
        texts = [f"{number} {row}" for row in range(7)]
        if not np.allclose(embedder.embed(texts), unit(texts), atol=1e-6):
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
