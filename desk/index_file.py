"""The group `index` of desk.yaml: how passages are cut, what embeds them, where they are searched; and its settings.

Read by desk/config.py alone, which knows the desk's folder and the environment.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from desk.connectors import Variable, web_address
from desk.edge import Edge

StoreName = Literal["local", "milvus"]
EmbedderKind = Literal["minilm", "sentence-transformers", "openai"]
_EMBEDDER_KEYS: dict[EmbedderKind, frozenset[str]] = {
    "minilm": frozenset(),
    "sentence-transformers": frozenset({"model", "download"}),
    "openai": frozenset({"model", "url", "key", "dimensions", "batch", "tokens", "query_task", "passage_task"}),
}
"""What may be set beside each kind of embedder."""


class EmbedderFile(Edge):
    """Which model makes the vectors. `key` names an environment variable: no secret is written into a file."""

    kind: EmbedderKind = "minilm"
    model: str = ""
    download: bool = False
    url: str = ""
    key: str = Field(default="", pattern=r"^([A-Z][A-Z0-9_]*)?$")
    dimensions: int = Field(default=0, ge=0, le=65536)
    batch: int = Field(default=32, ge=1, le=2048)
    tokens: int = Field(default=8191, ge=16, le=1_000_000)
    query_task: str = ""
    passage_task: str = ""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        accepted = _EMBEDDER_KEYS[self.kind]
        unfit = sorted(self.model_fields_set - accepted - {"kind"})
        if unfit:
            raise ValueError(f"{', '.join(unfit)} cannot be set with kind {self.kind}")
        missing = [name for name in ("model", "url") if name in accepted and not getattr(self, name).strip()]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        if self.url and not is_plain_address(self.url):
            raise ValueError("url must be http(s)://HOST[:PORT][/PATH], without user, password, query or fragment")
        return self


def is_plain_address(url: str) -> bool:
    """Whether an address holds nothing that could be a secret."""
    try:
        _ = urlsplit(web_address(url)).port
    except ValueError:
        return False
    return not re.search(r"[\s?#]", url)


def _milvus_uri(value: str) -> str:
    """A web address without credentials, the path of a file for Milvus Lite, or nothing. Raises ValueError."""
    if not value or (value.endswith(".db") and "://" not in value):
        return value
    try:
        return web_address(value)
    except ValueError as error:
        raise ValueError(f"{error}; or a file whose name ends in .db, for Milvus Lite") from None


class MilvusFile(Edge):
    """Where Milvus is. `token_env` names the environment variable that holds the token (user:password)."""

    uri: Annotated[str, AfterValidator(_milvus_uri)] = ""
    token_env: Variable | Literal[""] = ""
    prefix: str = Field(default="switchboard", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}$")


class IndexFile(Edge):
    chunk_tokens: int = Field(default=180, ge=40, le=250)
    passages: int = Field(default=5, ge=1, le=20)
    embedder: EmbedderFile = EmbedderFile()
    reranker: str = ""
    store: StoreName = "local"
    milvus: MilvusFile = MilvusFile()

    @model_validator(mode="after")
    def _milvus_has_a_place(self) -> "IndexFile":
        if self.store == "milvus" and not self.milvus.uri:
            raise ValueError("store: milvus needs milvus: {uri: ...} beside it")
        return self


@dataclass(frozen=True, slots=True)
class SentenceTransformersSettings:
    """`model` is a folder, or an id of the hub."""

    model: str
    download: bool


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """A service at `url`. `dimensions` 0: as many as the model gives; `batch` in texts, `tokens` of one text."""

    url: str
    model: str
    key: str = field(repr=False)
    dimensions: int
    batch: int
    tokens: int
    query_task: str
    passage_task: str


@dataclass(frozen=True, slots=True)
class MilvusSettings:
    """Where passages are searched instead of on this machine. `uri` is an address, or a file for Milvus Lite;
    the names of the desk's collections there begin with `prefix`."""

    uri: str
    token_env: str = ""
    prefix: str = "switchboard"
