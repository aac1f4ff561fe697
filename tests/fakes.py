"""Small real parts for tests: an embedder and a reader without a model, and hits made from plain text."""

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from numpy.typing import NDArray

from chains.chat_model import to_message
from index.chunk import sentences
from index.document import DESK_COLLECTION, Passage, ScoredPassage

ResultT = TypeVar("ResultT")


class HashEmbedder:
    """Bag-of-words vectors by feature hashing: equal words give equal directions, on every machine."""

    name = "hash-256"
    dimension = 256

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.strip(".,?!:;()").encode()).digest()
                vectors[row, digest[0]] += 1.0 if digest[1] % 2 else -1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms == 0, 1, norms)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed(texts)


class CopyingReader(BaseChatModel):
    """Says a script in which {code} stands for the first passage's code, a few characters at a time."""

    script: str

    @property
    def _llm_type(self) -> str:
        return "copying-reader"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self._said(messages)))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for piece in re.findall(r".{1,3}", self._said(messages), re.DOTALL):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))

    def _said(self, messages: list[BaseMessage]) -> str:
        code = re.search(r"\[([a-z0-9]{4})\]", to_message(messages[-1]).text)
        assert code is not None
        return self.script.replace("{code}", code.group(1))


def hit(
    text: str, *, start: int = 0, page: int | None = None, path: str = "documents/a.md", similarity: float = 0.6
) -> ScoredPassage:
    """A search hit for a passage that stands at `start` in its document."""
    passage = Passage(
        id=f"{path}-{start}",
        document_id=f"id-{path}",
        ordinal=0,
        start=start,
        end=start + len(text),
        text=text,
        section="Section",
        page=page,
    )
    return ScoredPassage(
        passage=passage,
        path=path,
        title="A title",
        collection=DESK_COLLECTION,
        score=1.0,
        similarity=similarity,
        coverage=0.5,
        sentences=tuple(similarity for _ in sentences(text)),
    )


def in_a_thread(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What a coroutine gives, from a loop of its own: the browser tests leave one running in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
