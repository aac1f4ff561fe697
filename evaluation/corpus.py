"""A question set's documents as a library of their own: cut, embedded, stored and indexed as a desk's are."""

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from desk.settings import IndexSettings
from index.blocks import TextAssembler, one_line
from index.chunk import cut
from index.derived import Derived
from index.document import DESK_COLLECTION, Document
from index.embed import Embedder, token_counter
from index.intake import embed_parts
from index.search import Indexes
from index.store import Store
from index.stored import Entry, Stored
from index.vectors import batched

Place = tuple[str, int, int]
"""A passage's document, start and end."""
COLLECTIONS = frozenset({DESK_COLLECTION})
_TOGETHER = 64
"""Documents that are embedded at once: enough to sort by length, few enough to stay small in memory."""
_TELL_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents ready to be searched; `passages` are their places by number in the indexes."""

    indexes: Indexes
    passages: dict[int, Place]


def document_of(key: str, title: str, text: str) -> Document:
    """A document called `key`, with the paragraphs of `text` as its blocks; one without text has its title as text."""
    into = TextAssembler()
    for part in re.split(r"\n[ \t]*\n", text if text.strip() else title):
        into.add("paragraph", part)
    return Document(key, key, one_line(title), "txt", into.text, "", blocks=tuple(into.blocks))


@contextmanager
def corpus_of(documents: Iterable[Document], embedder: Embedder, settings: IndexSettings) -> Iterator[Corpus]:
    """The documents' corpus, in a scratch folder that is gone afterwards; tells standard error how far it is."""
    count = token_counter()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "library.sqlite")
        try:
            model = store.model(embedder.name, embedder.dimension)
            done = total = 0
            for group in batched(documents, _TOGETHER):
                cuts = [cut(document, settings.chunk_tokens, count) for document in group]
                vectors = iter(
                    embed_parts(
                        embedder,
                        [
                            (document.title, passage.section, passage.text)
                            for document, own in zip(group, cuts, strict=True)
                            for passage in own
                        ],
                    )
                )
                entries = [
                    Entry(document, own, tuple(islice(vectors, len(own))), _stored(document))
                    for document, own in zip(group, cuts, strict=True)
                ]
                store.put(entries, [], model)
                done, total = done + len(group), total + sum(map(len, cuts))
                if done % _TELL_EVERY < len(group):
                    print(f"{done:,} documents, {total:,} passages read", file=sys.stderr, flush=True)
            index = Derived(store, Path(scratch) / "derived", embedder.name, embedder.dimension, settings.threads)
            yield Corpus(Indexes(store, index), store.places())
        finally:
            store.close()


def _stored(document: Document) -> Stored:
    return Stored(document.id, document.path, document.path, "desk", document.collection, "", "", "")
