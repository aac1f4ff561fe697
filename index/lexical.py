"""Passages by their words: BM25 in tantivy, and the terms of a text. Derived from the store."""

import math
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.document import NO_FILTER, Filter
from index.errors import StoreError
from index.stored import TextRow

_ANALYZER = "switchboard_en"
LEXICAL_VERSION = 2
"""Raised when texts are analysed differently: the index on disk is then made again."""
FIELDS = {"body": 1.0, "title": 0.6, "section": 0.8}
"""Weights of the fields: body text first; chosen on the sample desk, where titles repeat common words."""
COUNTED = 1000
"""A term in more passages than this is common: its passages are not counted one by one."""
HALF = 0.5
"""With at least this share of all passages readable, most of the best ones are, and counts go by the share."""
_MAX_TERMS = 64
"""A query's first terms: a pasted page must not become a thousand-term query."""
_WRITER_BYTES = 32_000_000

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about after again all also am an and any anybody anyone anything are as at be because been before being
below between both but by came can cannot come could did do does doing done down during each else ever every
few for from further get gets getting give given go goes going gone got had happen happens has have having he
hello help her here hers hi him his how i if in into is it its itself just know let like make many me might
mine more most much must my myself need needs no nor not now of off on once one only onto or other our ours
out over own please same shall she should since so some somebody someone something such sure take tell than
thank thanks that the their theirs them then there these they thing things this those through to too under
until up upon us use used using very want wants was way we were what when where whether which while who whom
whose why will with without would yes yet you your yours
don doesn didn isn aren wasn weren hasn haven hadn won wouldn couldn shouldn ll re ve s t d m""",
    )
)
"""Words that say nothing about the topic, those of asking included."""

_COMPOUND = re.compile(r"\b([^\W_]+)-([^\W_]+)\b")


@cache
def _analyzer() -> Any:
    """Words in lower case without accents, stemmed: what the index stores and queries are made of."""
    import tantivy

    chain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in (
        tantivy.Filter.remove_long(60),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stemmer("english"),
    ):
        chain = chain.filter(step)
    return chain.build()


_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case; a joined spelling follows a short compound's parts."""
    return _WORD.findall(_with_joined(text).lower())


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The term that a single word is stored under; empty for one that is too long to be stored."""
    terms = _analyzer().analyze(word)
    return str(terms[0]) if terms else ""


def text_terms(text: str) -> frozenset[str]:
    """The stemmed terms of a stored text, stop words included."""
    return frozenset(stem(word) for word in words_of(text)) - {""}


def index_terms(text: str) -> list[str]:
    """The stemmed terms of a stored text in order, each as often as it stands there: what an index counts."""
    return list(_analyzer().analyze(_with_joined(text)))


def query_terms(text: str) -> list[str]:
    """The stemmed terms of a query that are no stop words, each once, in order; 64 at most.

    A compound whose first part is a letter or two is one term: e-mail is email, Wi-Fi is wifi.
    """
    joined = _COMPOUND.sub(lambda found: "".join(found.groups()) if _is_short(found) else found.group(), text)
    plain = joined.replace("\u2019", "'")
    seen: dict[str, None] = {}
    for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", plain):
        if word.lower() in STOP_WORDS or word.lower().split("'")[0] in STOP_WORDS:
            continue
        for term in _analyzer().analyze(word.split("'")[0] if word.lower().endswith("'s") else word):
            seen.setdefault(term)
    return list(seen)[:_MAX_TERMS]


def _with_joined(text: str) -> str:
    """`text` with "email" after "e-mail", so that both spellings find it."""
    if "-" not in text:
        return text
    return _COMPOUND.sub(
        lambda found: f"{found.group()} {''.join(found.groups())}" if _is_short(found) else found.group(),
        text,
    )


def _is_short(found: re.Match[str]) -> bool:
    return min(len(found.group(1)), len(found.group(2))) <= 2 and not any(map(str.isdecimal, found.groups()))


def rarity(frequency: int, total: int) -> float:
    """The weight of a term that stands in `frequency` of `total` passages: BM25's idf, always above 0."""
    return math.log(1.0 + (max(total, frequency) - frequency + 0.5) / (frequency + 0.5))


class LexicalIndex:
    """A tantivy index in a folder. Many threads may search; the caller lets one write at a time.

    What `write` puts in is found after `refresh`. Each write ends by noting a mark: the state of the library that it
    brings the index to. After a crash the index may be ahead of its mark, never behind. Raises StoreError for a folder
    that cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("number", stored=True, indexed=True, fast=True)
        builder.add_integer_field("updated", indexed=True, fast=True)
        for field in ("collection", "format", "source"):
            builder.add_text_field(field, tokenizer_name="raw", index_option="basic")
        for field in FIELDS:
            builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option="freq")
        self._schema = builder.build()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._searcher: Any = None
        self._mark_path = folder / "switchboard-mark"
        self._open()

    def _open(self) -> None:
        import tantivy

        try:
            self._index = tantivy.Index(self._schema, path=str(self._folder))
            self._index.register_tokenizer(_ANALYZER, _analyzer())
            self._index.config_reader(reload_policy="manual")
            self.refresh()
        except (ValueError, OSError) as error:
            raise StoreError(f"The lexical index {self._folder} is damaged ({str(error)[:120]}).") from None

    @classmethod
    def create(cls, folder: Path, rows: Iterable[TextRow], mark: str) -> "LexicalIndex":
        """A new index in `folder` in place of what was there."""
        beside = folder.with_name(folder.name + ".part")
        shutil.rmtree(beside, ignore_errors=True)
        cls(beside).write(rows, [], mark)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        return cls(folder)

    def write(self, rows: Iterable[TextRow], gone: Sequence[int] | NDArray[np.int64], mark: str) -> None:
        """Drops the passages numbered `gone`, then stores new ones, in one commit. Raises StoreError."""
        # An index that was opened before another process wrote would forget that one's files, and never delete them.
        searcher = self._searcher
        self._open()
        self._searcher = searcher
        try:
            writer = self._index.writer(heap_size=_WRITER_BYTES, num_threads=1)
            # A write that was killed before its commit has left files whose names this one will want.
            writer.garbage_collect_files()
            for number in gone:
                writer.delete_documents_by_term("number", int(number))
            for row in rows:
                writer.add_document(_entry(row))
            writer.commit()
            writer.wait_merging_threads()
        except (ValueError, OSError) as error:
            raise StoreError(f"The lexical index {self._folder} cannot be written ({str(error)[:120]}).") from None
        beside = self._mark_path.with_suffix(".part")
        beside.write_text(mark, encoding="utf-8")
        beside.replace(self._mark_path)

    @property
    def mark(self) -> str:
        """What the last write noted; "" for an index that nothing was written to."""
        try:
            return self._mark_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def refresh(self) -> None:
        """Lets searches see what was written."""
        self._index.reload()
        self._searcher = self._index.searcher()

    def __len__(self) -> int:
        """How many passages are in it."""
        return int(self._searcher.num_docs)

    def search(
        self, terms: Sequence[str], n: int, collections: frozenset[str], only: Filter = NO_FILTER
    ) -> list[tuple[int, float]]:
        """At most n (number, BM25 score) pairs, best first, of passages in `collections` with any term.

        The terms are matched as they are: nothing in them is query syntax.
        """
        import tantivy

        if not terms or not collections:
            return []
        query = tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Must, self._any(terms)),
                (tantivy.Occur.Must, self._inside(collections)),
                *((tantivy.Occur.Must, part) for part in self._narrowed(only)),
            ]
        )
        return self._best(query, n)

    def search_all(self, terms: Sequence[str], n: int) -> list[tuple[int, float]]:
        """`search` in all collections, in about a third of the time: tantivy skips what cannot be among the best."""
        return self._best(self._any(terms), n) if terms else []

    def _any(self, terms: Sequence[str]) -> Any:
        import tantivy

        return tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Should, tantivy.Query.boost_query(self._term(field, term), weight))
                for term in terms
                for field, weight in FIELDS.items()
            ]
        )

    def _best(self, query: Any, n: int) -> list[tuple[int, float]]:
        if n < 1:
            return []
        searcher = self._searcher
        hits = searcher.search(query, limit=n, count=False).hits
        addresses = [address for _, address in hits]
        numbers = searcher.fast_field_values("number", addresses) if addresses else []
        return [(int(number), float(score)) for number, (score, _) in zip(numbers, hits, strict=True)]

    def frequencies(
        self, terms: Sequence[str], collections: frozenset[str], total: int, share: float
    ) -> dict[str, int]:
        """In how many passages of `collections`, which hold `total` and this share of all passages, each term stands.

        Counted where it is rare or where much is left out. A common term's count is taken for the whole index's, times
        the share: to count a million postings takes longer than the search, and what is common weighs little.
        """
        found = {}
        for term in terms:
            known = max(self._searcher.doc_freq(field, term) for field in FIELDS)
            # Of what may not be read, not even that a word occurs in it may show.
            if known > COUNTED and share >= HALF and (share == 1 or self._occurs(term, collections)):
                found[term] = min(total, round(known * share))
            else:
                found[term] = self._count(term, collections) if known and collections else 0
        return found

    def _count(self, term: str, collections: frozenset[str]) -> int:
        query = self._anywhere(term, collections)
        return int(self._searcher.search(query, limit=1, count=True).count or 0)

    def _occurs(self, term: str, collections: frozenset[str]) -> bool:
        return bool(self._searcher.search(self._anywhere(term, collections), limit=1, count=False).hits)

    def _anywhere(self, term: str, collections: frozenset[str]) -> Any:
        import tantivy

        fields = tantivy.Query.boolean_query([(tantivy.Occur.Should, self._term(field, term)) for field in FIELDS])
        both = [(tantivy.Occur.Must, fields), (tantivy.Occur.Must, self._inside(collections))]
        return tantivy.Query.boolean_query(both)

    def _term(self, field: str, term: str) -> Any:
        import tantivy

        return tantivy.Query.term_query(self._schema, field, term, index_option="freq")

    def _inside(self, collections: frozenset[str]) -> Any:
        import tantivy

        members = tantivy.Query.term_set_query(self._schema, "collection", sorted(collections))
        return tantivy.Query.const_score_query(members, 0.0)

    def _narrowed(self, only: Filter) -> Iterator[Any]:
        """A filter as queries that must all match and add nothing to the score."""
        import tantivy

        if only.source is not None:
            yield tantivy.Query.const_score_query(
                tantivy.Query.term_query(self._schema, "source", only.source.strip("/")), 0.0
            )
        if only.formats is not None:
            formats = tantivy.Query.term_set_query(self._schema, "format", sorted(only.formats))
            yield tantivy.Query.const_score_query(formats, 0.0)
        if only.since is not None or only.until is not None:
            first = day(only.since) if only.since else 1
            last = day(only.until) if only.until else 99991231
            days = tantivy.Query.range_query(self._schema, "updated", tantivy.FieldType.Integer, first, last)
            yield tantivy.Query.const_score_query(days, 0.0)


def _entry(row: TextRow) -> Any:
    import tantivy

    entry = tantivy.Document()
    entry.add_integer("number", row.number)
    entry.add_integer("updated", day(row.updated) if row.updated else 0)
    entry.add_text("collection", row.collection)
    entry.add_text("format", row.format)
    for source in (*folders_of(row.path), row.path):
        entry.add_text("source", source)
    entry.add_text("title", _with_joined(row.title))
    entry.add_text("section", _with_joined(row.section))
    entry.add_text("body", _with_joined(row.text))
    return entry


def day(date: str) -> int:
    """An ISO date as a number: 20261125."""
    return int(date.replace("-", ""))


def folders_of(path: str) -> list[str]:
    """The folders that a document is in, the outermost first: what a search may be narrowed to, beside its path."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
