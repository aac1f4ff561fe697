"""The door to a Milvus server, or to Milvus Lite in a file: collections of passages, and how they are searched.

It knows pymilvus, which nothing else imports and which is loaded with the first call, and no library: what stands in
the collections is `index.milvus`' business. Every call raises UnreachableError if Milvus does not answer, StoreError if
it refuses, both with the address, and DeskError if the token's variable is not set.
"""

import importlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from desk.config import milvus_token
from desk.index_file import MilvusSettings
from index.document import Filter
from index.errors import StoreError, UnreachableError
from index.lexical import FIELDS, day
from index.vectors import BUILD_EFFORT, LINKS

TIMEOUT_S = 10.0
"""How long an answer is waited for."""
LOAD_TIMEOUT_S = 120.0
"""How long a collection may take to be made, or to be read into memory."""
PAUSE_S = 1.0
"""For so long after it did not answer it is not asked again: who was waiting in line does not wait in turn."""
MOST_BYTES = 65_535
"""The longest text that a field of Milvus can hold."""
MOST_FOLDERS = 100
"""The innermost folders of a path beyond this depth cannot be searched in by name."""
K1, B = 1.2, 0.75
"""BM25's parameters, those of tantivy."""
_NOT_THERE = 2
"""The code of pymilvus' own error for a connection that it cannot make."""

Row = dict[str, Any]


class MilvusService:
    """One Milvus. Many threads may search; the caller lets one write at a time."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._connected: Any = None
        self._silent_since = -PAUSE_S
        self._why = ""

    @property
    def place(self) -> str:
        return f"Milvus at {self._settings.uri}"

    def collections(self) -> list[str]:
        """The names of all collections."""
        with self._asking() as client:
            return [str(name) for name in client.list_collections(timeout=TIMEOUT_S)]

    def create_passages(self, name: str, dimension: int) -> None:
        """Makes an empty collection of passages and holds it ready for searches."""
        with self._asking() as client:
            milvus = importlib.import_module("pymilvus")
            schema = _passages_schema(milvus, dimension)
            indexes = client.prepare_index_params()
            # The inner product: vectors have length 1, or 0 where a model has not embedded a passage yet.
            # Parameters are sent as one value, as servers have always taken them: pymilvus 3 would send them one by
            # one, which Milvus Lite 3.2 does not see.
            graph = {"params": {"M": LINKS, "efConstruction": BUILD_EFFORT}}
            indexes.add_index("vector", index_type="HNSW", metric_type="IP", params=graph)
            for field in FIELDS:
                words = {"params": {"bm25_k1": K1, "bm25_b": B}}
                indexes.add_index(f"{field}_bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=words)
            for field in ("collection", "format", "updated"):
                indexes.add_index(field, index_type="INVERTED")
            _create(client, name, schema, indexes)

    def create_marks(self, name: str) -> None:
        """Makes an empty collection of texts by their names. Milvus has none without vectors: this one's are unused."""
        with self._asking() as client:
            milvus = importlib.import_module("pymilvus")
            kinds = milvus.DataType
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("name", kinds.VARCHAR, is_primary=True, max_length=512)
            schema.add_field("text", kinds.VARCHAR, max_length=MOST_BYTES)
            schema.add_field("unused", kinds.FLOAT_VECTOR, dim=2)
            indexes = client.prepare_index_params()
            indexes.add_index("unused", index_type="FLAT", metric_type="IP")
            _create(client, name, schema, indexes)

    def load(self, name: str) -> None:
        """Holds a collection ready for searches, as after a restart of the server."""
        with self._asking() as client:
            client.load_collection(name, timeout=LOAD_TIMEOUT_S)

    def drop(self, name: str) -> None:
        with self._asking() as client:
            client.drop_collection(name, timeout=LOAD_TIMEOUT_S)

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Stores rows in place of those with the same keys."""
        with self._asking() as client:
            client.upsert(name, list(rows), timeout=LOAD_TIMEOUT_S)

    def delete(self, name: str, keys: Sequence[int] | Sequence[str]) -> None:
        with self._asking() as client:
            client.delete(name, ids=list(keys), timeout=LOAD_TIMEOUT_S)

    def read(self, name: str, keys: Sequence[int] | Sequence[str], fields: Sequence[str]) -> list[Row]:
        """The rows with some keys, in no order."""
        with self._asking() as client:
            found = client.get(name, ids=list(keys), output_fields=list(fields), timeout=TIMEOUT_S)
            return [dict(row) for row in found]

    def count(self, name: str, where: str = "") -> int:
        """How many rows meet a condition."""
        with self._asking() as client:
            found = client.query(name, filter=where, output_fields=["count(*)"], timeout=TIMEOUT_S)
            return int(found[0]["count(*)"])

    def nearest(self, name: str, vector: NDArray[np.float32], n: int, where: str) -> list[int]:
        """The numbers of about the n passages whose vectors have the largest inner product with this one, in order."""
        effort = {"metric_type": "IP", "params": {"ef": n}}
        return [number for number, _ in self._search(name, "vector", vector.tolist(), n, where, effort)]

    def words(self, name: str, field: str, terms: Sequence[str], n: int, where: str) -> list[tuple[int, float]]:
        """At most n (number, BM25 score of one field) pairs, best first."""
        found = self._search(name, f"{field}_bm25", " ".join(terms), n, where, {"metric_type": "BM25", "params": {}})
        # A cluster counts upwards, Milvus Lite 3.2 downwards from 0.
        return [(number, abs(score)) for number, score in found]

    def _search(
        self, name: str, field: str, wanted: object, n: int, where: str, how: Mapping[str, object]
    ) -> list[tuple[int, float]]:
        with self._asking() as client:
            found = client.search(
                name,
                data=[wanted],
                anns_field=field,
                limit=n,
                filter=where,
                search_params=dict(how),
                output_fields=["number"],
                timeout=TIMEOUT_S,
            )
            return [(int(hit["entity"]["number"]), float(hit["distance"])) for hit in found[0]]

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """The connection, made if there is none; what goes wrong with it becomes a sentence."""
        try:
            milvus = importlib.import_module("pymilvus")
            grpc = importlib.import_module("grpc")
            if self._is_file:
                importlib.import_module("milvus_lite")
        except ImportError as error:
            raise StoreError(f"{self.place} needs the package {error.name}: install requirements.txt.") from None
        # pymilvus logs what it raises, with the whole trace.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        if time.monotonic() - self._silent_since < PAUSE_S:
            raise self._unreachable()
        try:
            if self._connected is None:
                token = milvus_token(self._settings)
                self._make_folder()
                self._connected = milvus.MilvusClient(self._settings.uri, token=token, timeout=TIMEOUT_S)
            yield self._connected
        except grpc.RpcError as error:
            self._note_silence(error.details() or "no answer")
            raise self._unreachable() from None
        except milvus.MilvusException as error:
            if error.code == _NOT_THERE or isinstance(error.code, grpc.StatusCode):
                self._note_silence(error.message)
                raise self._unreachable() from None
            if isinstance(error, milvus.exceptions.ConnectionConfigException) and self._is_file:
                raise StoreError(
                    f"{self.place} cannot be opened: Milvus Lite lets one process in at a time. Stop the other one, or "
                    "move the file away if there is none."
                ) from None
            raise StoreError(f"{self.place} refused ({_short(error.message)}).") from None

    @property
    def _is_file(self) -> bool:
        return "://" not in self._settings.uri

    def _make_folder(self) -> None:
        if self._is_file:
            Path(self._settings.uri).parent.mkdir(parents=True, exist_ok=True)

    def _note_silence(self, why: str) -> None:
        self._silent_since, self._why = time.monotonic(), _short(why)

    def _unreachable(self) -> UnreachableError:
        return UnreachableError(
            f"{self.place} does not answer ({self._why}): start it, or correct index.milvus in desk.yaml. Nothing of "
            "the library is lost."
        )


def _create(client: Any, name: str, schema: Any, indexes: Any) -> None:
    """Makes a collection that shows every write to the next search; its indexes are not waited for."""
    client.create_collection(name, schema=schema, consistency_level="Strong", timeout=LOAD_TIMEOUT_S)
    client.create_index(name, indexes, sync=False, timeout=LOAD_TIMEOUT_S)
    client.load_collection(name, timeout=LOAD_TIMEOUT_S)


def _passages_schema(milvus: Any, dimension: int) -> Any:
    """A passage: its number, the middle of its sentences' vectors, its terms by field, and what filters look at.

    The texts are terms already, stemmed as everywhere else here; Milvus has only to split them at the spaces.
    """
    kinds = milvus.DataType
    schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("number", kinds.INT64, is_primary=True)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimension)
    schema.add_field("collection", kinds.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("format", kinds.VARCHAR, max_length=256)
    schema.add_field("updated", kinds.INT64)
    schema.add_field(
        *("sources", kinds.ARRAY), element_type=kinds.VARCHAR, max_capacity=MOST_FOLDERS + 1, max_length=MOST_BYTES
    )
    split = {"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard"}}
    schema.add_field("words", kinds.VARCHAR, max_length=MOST_BYTES, enable_match=True, **split)
    for field in FIELDS:
        schema.add_field(field, kinds.VARCHAR, max_length=MOST_BYTES, **split)
        schema.add_field(f"{field}_bm25", kinds.SPARSE_FLOAT_VECTOR)
        function = milvus.Function(
            name=f"{field}_terms",
            function_type=milvus.FunctionType.BM25,
            input_field_names=[field],
            output_field_names=[f"{field}_bm25"],
        )
        schema.add_function(function)
    return schema


def condition(collections: frozenset[str], only: Filter) -> str:
    """What the rows that a search may return have in common, in Milvus' language; every value is quoted."""
    parts = [f"collection in {json.dumps(sorted(collections), ensure_ascii=False)}"]
    if only.source is not None:
        parts.append(f"array_contains(sources, {json.dumps(only.source.strip('/'), ensure_ascii=False)})")
    if only.formats is not None:
        parts.append(f"format in {json.dumps(sorted(only.formats), ensure_ascii=False)}")
    if only.since is not None or only.until is not None:
        parts.append(f"updated >= {day(only.since) if only.since else 1}")
    if only.until is not None:
        parts.append(f"updated <= {day(only.until)}")
    return " and ".join(parts)


def has_term(term: str) -> str:
    return f"text_match(words, {json.dumps(term, ensure_ascii=False)})"


def _short(message: str) -> str:
    return " ".join(message.split())[:200]
