"""Texts to unit vectors by a service that speaks OpenAI's embeddings API: OpenAI, Jina, vLLM and others.

The one client for all of them: Jina takes a `task` besides, which others must not be sent. The key goes into the
request's header and nowhere else.
"""

import email.utils
import logging
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from index.errors import EmbedderError

_LOG = logging.getLogger(__name__)
_BYTES_PER_TOKEN = 2
"""Texts are cut to this many UTF-8 bytes per token of the model's limit. English has about 4, Chinese 2 to 3, base64
under 2: only such text could still be too long."""
_REQUEST_CHARACTERS = 200_000
"""The most characters in one request: OpenAI takes 300,000 tokens."""
_QUERY_PATIENCE_S = 15.0
"""How long somebody who waits for an answer is kept by an overloaded service."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
"""Waits where the service names none: doubled from the first to the longest, less a random part of up to half."""
_SHOWN = 200
"""Characters of a service's own words that an error quotes."""


class _Again(Exception):
    """A fault that may pass: what happened, and the seconds that the service asks to wait."""

    def __init__(self, fault: str, wait_s: float | None = None) -> None:
        super().__init__(fault)
        self.wait_s = wait_s


class OpenAIEmbedder:
    """A model behind an OpenAI-compatible address. Safe to use from many threads.

    Without `dimensions` the service is asked once, at once, how many its vectors have. Raises EmbedderError where it
    cannot be reached, refuses, or answers what the contract does not allow.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key: str = "",
        dimensions: int = 0,
        batch: int = 32,
        tokens: int = 8191,
        query_task: str = "",
        passage_task: str = "",
        timeout_s: float = 30.0,
        patience_s: float = 120.0,
    ) -> None:
        self._url = url.rstrip("/") + "/embeddings"
        self._host = urlsplit(url).netloc
        self._model = model
        self._key = key
        self._wanted = dimensions
        self._batch = batch
        self._most_bytes = tokens * _BYTES_PER_TOKEN
        self._query_task = query_task
        self._passage_task = passage_task
        self._patience_s = patience_s
        if not key.isascii():
            raise self._error("cannot take a key with other letters than ASCII", "check the variable that it is in")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout_s)
        self._dimension = dimensions or len(self._request(["dimension"], passage_task, _QUERY_PATIENCE_S)[0])

    @property
    def name(self) -> str:
        task = f" {self._passage_task}" if self._passage_task else ""
        return f"{self._model} ({self._dimension}{task}) at {self._host}"

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, rows of length 1, in the order of `texts`; what is beyond the limit is not read."""
        return self._embed(texts, self._passage_task, self._patience_s)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) float32, rows of length 1. Gives up on an overloaded service sooner than `embed`."""
        return self._embed(texts, self._query_task, min(self._patience_s, _QUERY_PATIENCE_S))

    def _embed(self, texts: Sequence[str], task: str, patience_s: float) -> NDArray[np.float32]:
        rows = [np.empty((0, self._dimension), dtype=np.float32)]
        for batch in _batches([self._cut(text) for text in texts], self._batch):
            found = self._request(batch, task, patience_s)
            if found.shape[1] != self._dimension:
                raise self._error(
                    f"gave vectors of {found.shape[1]} dimensions where {self._dimension} were expected",
                    "correct index.embedder.dimensions, or leave it out if the model has one size only",
                )
            rows.append(found)
        return np.concatenate(rows)

    def _cut(self, text: str) -> str:
        """The part that the model reads; a blank where there is none, since an empty text is refused."""
        whole = text.encode("utf-8", errors="replace")
        return whole[: self._most_bytes].decode("utf-8", errors="ignore") or " "

    def _request(self, texts: Sequence[str], task: str, patience_s: float) -> NDArray[np.float32]:
        """(n, d) unit vectors of one batch. Tries again for `patience_s` while the service is overloaded or away."""
        body: dict[str, Any] = {"model": self._model, "input": list(texts)}
        if self._wanted:
            body["dimensions"] = self._wanted
        if task:
            body["task"] = task
        until = time.monotonic() + patience_s
        longest = _FIRST_WAIT_S
        while True:
            try:
                return self._vectors(self._post(body), len(texts))
            except _Again as fault:
                # Not sooner than without its word: some ask to wait 0 s, again and again.
                wait_s = max(longest * random.uniform(0.5, 1), fault.wait_s or 0.0)  # noqa: S311
                if time.monotonic() + wait_s > until:
                    asked = "" if fault.wait_s is None else f", and asks to wait {fault.wait_s:.0f} s"
                    raise self._error(f"{fault}{asked}", "try again later, or correct index.embedder.url") from None
                _LOG.info("The embedding service %s %s: trying again in %.1f s", self._host, fault, wait_s)
                time.sleep(wait_s)
                longest = min(2 * longest, _LONGEST_WAIT_S)

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        """A reply of status 200. Raises _Again for what may pass and EmbedderError for what will not."""
        try:
            reply = self._client.post(self._url, json=body)
        except httpx.TimeoutException:
            raise _Again(f"did not answer within {self._client.timeout.read:g} s") from None
        except httpx.RequestError as error:
            raise _Again(f"cannot be reached ({type(error).__name__})") from None
        status = reply.status_code
        if status == 200:
            return reply
        if status == 429 or status >= 500:
            raise _Again(f"is overloaded or out of order (status {status})", _retry_after(reply))
        if status in (401, 403):  # what it says may repeat the key
            fault = "refused the key" if self._key else "asks for a key"
            raise self._error(f"{fault} (status {status})", "check the variable that index.embedder.key names")
        if status == 404:
            raise self._error(f"has no {self._url} or no such model (404)", "check index.embedder.url and .model")
        if status < 400:
            raise self._error(f"answered with status {status}", "give its final address in index.embedder.url")
        raise self._error(f"declined the request (status {status}: {self._quoted(reply)})", "check index.embedder")

    def _vectors(self, reply: httpx.Response, count: int) -> NDArray[np.float32]:
        """(count, d) unit vectors of a reply, in the order of the texts, whatever order it lists them in."""
        try:
            rows = {int(item["index"]): item["embedding"] for item in reply.json()["data"]}
            numbers = sorted(rows)
            vectors = np.array([rows[number] for number in numbers], dtype=np.float32)
        except (ValueError, TypeError, KeyError, OverflowError):
            fault = f"answered what is no list of vectors: {self._quoted(reply)}"
            raise self._error(fault, "check that index.embedder.url is the address before /embeddings") from None
        if numbers != list(range(count)):
            raise self._error(f"gave {len(rows)} vectors for {count} texts", "try a smaller index.embedder.batch")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if vectors.ndim == 2 else np.zeros((1, 1))
        if not np.isfinite(lengths).all() or not lengths.all():
            raise self._error("gave vectors that have no direction (zero, or no numbers)", "choose another model")
        unit: NDArray[np.float32] = vectors / lengths
        return unit

    def _quoted(self, reply: httpx.Response) -> str:
        """The start of a reply on one line, without the key, should the service repeat it."""
        text = reply.text.replace(self._key, "***") if self._key else reply.text
        return repr(" ".join(text.split())[:_SHOWN])

    def _error(self, fault: str, advice: str) -> EmbedderError:
        return EmbedderError(f"The embedding service {self._host} (model {self._model}) {fault}: {advice}.")


def _batches(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """Runs of texts in order, each of at most `most` texts and about 200,000 characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == most or characters + len(text) > _REQUEST_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _retry_after(reply: httpx.Response) -> float | None:
    """The seconds that Retry-After asks to wait (RFC 9110: a number, or a date); None where it does not say."""
    value = reply.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
