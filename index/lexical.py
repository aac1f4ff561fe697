"""Passages by their words: BM25 in tantivy, and the terms of a text. Derived from the store."""

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from index.errors import StoreError

_ANALYZER = "switchboard_en"
LEXICAL_VERSION = 1
"""Raised when texts are analysed differently: the index on disk is then made again."""
_FIELDS = {"body": 1.0, "title": 0.6, "section": 0.8}
"""Weights of the fields: body text first; chosen on the sample desk, where titles repeat common words."""
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

    What `write` puts in is found after `refresh`. Raises StoreError for a folder that cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("number", stored=True, indexed=True, fast=True)
        builder.add_text_field("collection", tokenizer_name="raw", index_option="basic")
        for field in _FIELDS:
            builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option="freq")
        self._schema = builder.build()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._index = tantivy.Index(self._schema, path=str(folder))
            self._index.register_tokenizer(_ANALYZER, _analyzer())
            self._index.config_reader(reload_policy="manual")
            self.refresh()
        except (ValueError, OSError) as error:
            raise StoreError(f"The lexical index {folder} is damaged ({str(error)[:120]}).") from None

    @classmethod
    def create(cls, folder: Path, rows: Iterable[tuple[int, str, str, str, str]]) -> "LexicalIndex":
        """A new index in `folder` (what was there goes) of (number, title, section, text, collection) rows."""
        beside = folder.with_name(folder.name + ".part")
        shutil.rmtree(beside, ignore_errors=True)
        cls(beside).write(rows, [])
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        return cls(folder)

    def write(self, rows: Iterable[tuple[int, str, str, str, str]], gone: Sequence[int]) -> None:
        """Stores new passages and drops those numbered `gone`, in one commit."""
        import tantivy

        writer = self._index.writer(heap_size=_WRITER_BYTES, num_threads=1)
        for number in gone:
            writer.delete_documents_by_term("number", int(number))
        for number, title, section, text, collection in rows:
            entry = tantivy.Document()
            entry.add_integer("number", number)
            entry.add_text("collection", collection)
            entry.add_text("title", _with_joined(title))
            entry.add_text("section", _with_joined(section))
            entry.add_text("body", _with_joined(text))
            writer.add_document(entry)
        writer.commit()
        writer.wait_merging_threads()

    def refresh(self) -> None:
        """Lets searches see what was written."""
        self._index.reload()
        self._searcher = self._index.searcher()

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def search(self, terms: Sequence[str], n: int, collections: frozenset[str]) -> list[tuple[int, float]]:
        """At most n (number, BM25 score) pairs, best first, of passages in `collections` with any term.

        The terms are matched as they are: nothing in them is query syntax.
        """
        import tantivy

        if not terms or not collections or n < 1:
            return []
        should = [
            (tantivy.Occur.Should, tantivy.Query.boost_query(self._term(field, term), weight))
            for term in terms
            for field, weight in _FIELDS.items()
        ]
        query = tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Must, tantivy.Query.boolean_query(should)),
                (tantivy.Occur.Must, self._inside(collections)),
            ]
        )
        searcher = self._searcher
        hits = searcher.search(query, limit=n, count=False).hits
        addresses = [address for _, address in hits]
        numbers = searcher.fast_field_values("number", addresses) if addresses else []
        return [(int(number), float(score)) for number, (score, _) in zip(numbers, hits, strict=True)]

    def frequencies(self, terms: Sequence[str], collections: frozenset[str]) -> tuple[dict[str, int], int]:
        """In how many passages of `collections` each term stands (anywhere), and how many there are."""
        import tantivy

        if not collections:
            return dict.fromkeys(terms, 0), 0
        searcher = self._searcher
        inside = self._inside(collections)
        found = {}
        for term in terms:
            anywhere = tantivy.Query.boolean_query(
                [(tantivy.Occur.Should, self._term(field, term)) for field in _FIELDS]
            )
            both = tantivy.Query.boolean_query([(tantivy.Occur.Must, anywhere), (tantivy.Occur.Must, inside)])
            found[term] = int(searcher.search(both, limit=1, count=True).count or 0)
        return found, int(searcher.search(inside, limit=1, count=True).count or 0)

    def _term(self, field: str, term: str) -> Any:
        import tantivy

        return tantivy.Query.term_query(self._schema, field, term, index_option="freq")

    def _inside(self, collections: frozenset[str]) -> Any:
        import tantivy

        members = tantivy.Query.term_set_query(self._schema, "collection", sorted(collections))
        return tantivy.Query.const_score_query(members, 0.0)
