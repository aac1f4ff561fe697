"""What goes into the store and comes out of it: documents with passages and vectors, and what is noted of files."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.document import Document, Passage

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class State:
    """Which library, and how far it has come.

    `library` is random and changes when a backup is restored; `embedded` rises when a model has embedded what others
    had before it, `revision` with every change of documents.
    """

    library: str
    embedded: int
    revision: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of a document's file, to see whether it changed. `file` is the file's path, which is the
    document's own unless the file is an archive; `stamp` is its size and time of change; `recipe` says how it was
    read and cut."""

    id: str
    path: str
    file: str
    origin: str
    collection: str
    file_hash: str
    stamp: str
    recipe: str

    @property
    def name(self) -> str:
        """The file's path as people know it: that of an added one without the folder that its copy is kept in."""
        return self.file if self.origin == "desk" else self.file.partition("/")[2]

    @property
    def inner(self) -> str:
        """The document's place in its file: "" unless that is an archive."""
        return self.path.removeprefix(self.name)


@dataclass(frozen=True, slots=True)
class Entry:
    """A document to store: its passages, and for each of them one row per sentence, (s, d) float32."""

    document: Document
    passages: tuple[Passage, ...]
    vectors: tuple[Vectors, ...]
    stored: Stored


@dataclass(frozen=True, slots=True)
class Failure:
    """A file, or a member of an archive, that could not be read when the file last changed, and why."""

    path: str
    file: str
    stamp: str
    hash: str
    reason: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The passages that came and went up to `revision`: (number, document key) and numbers."""

    revision: int
    added: NDArray[np.int64]
    gone: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextRow:
    """What the lexical index keeps of a passage."""

    number: int
    title: str
    section: str
    text: str
    collection: str
    path: str
    format: str
    updated: str | None


@dataclass(frozen=True, slots=True)
class PassageRow:
    """A passage with its number and what search needs of it; `vectors` has a row per sentence, none if not embedded."""

    number: int
    passage: Passage
    path: str
    title: str
    collection: str
    updated: str | None
    outdated: bool
    vectors: Vectors
