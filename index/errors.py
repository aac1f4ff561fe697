"""
Errors of the library:

LibraryError
├── SourceError      a file cannot be read: which, why, what to do
│   └── LimitError   a reader's own limit, which load_source puts the file's name in front of
├── EmbedderError    the embedding model is missing or not the expected one
└── StoreError       the stored library and the program do not fit together
    ├── DamagedError     the database is damaged; a backup brings it back
    └── UnreachableError the service that searches does not answer; the library itself is safe
"""


class LibraryError(Exception):
    """Anything the library can report; the message is one clear sentence or two."""


class SourceError(LibraryError):
    """One source cannot be read; the rest of a batch goes on."""


class LimitError(SourceError):
    """A source is too large in some way. The message goes on after its name: "holds more than ...: split it." """


class EmbedderError(LibraryError):
    """The embedding model is missing, damaged or not the one the index was built with."""


class StoreError(LibraryError):
    """The database or an index file is damaged or was written by another version."""


class DamagedError(StoreError):
    """The database itself is damaged: what is derived from it cannot help."""


class UnreachableError(StoreError):
    """The service that passages are searched in does not answer. What is in the database is safe all the while."""
