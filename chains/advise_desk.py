"""The advice on a whole desk: opens what `advise` needs."""

import logging

from adapters.base import quiet
from chains.advise import Advice, Pieces, advise
from chains.golden import read_golden
from chains.judge import open_judge
from chains.topics import gather_topics
from desk.settings import Desk
from index.document import NO_GROUPS
from index.library import open_library

_LOG = logging.getLogger(__name__)


def advise_desk(desk: Desk) -> list[Advice]:
    """The advice on each of the desk's topics. Raises DeskError, LibraryError or ModelError in one sentence."""
    library = open_library(desk.index)
    try:
        collections = library.readable(NO_GROUPS)
        golden = read_golden(desk.chains.golden_dev) if desk.chains.golden_dev.is_file() else []
        topics = gather_topics(library, collections, desk.chains.adapter_folder, library.embedder.embed)
        judge = open_judge(desk.index.models, desk.index.threads)
        return advise(topics, library, collections, judge, golden, _pieces(desk.adapters.base), desk.chains.passages)
    finally:
        library.close()


def _pieces(base: str) -> Pieces | None:
    """Counts a word's tokens as the base reads it within a text; None where its tokenizer cannot be had."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        _LOG.warning("The base's tokenizer cannot be read, so no word counts as special: %s", str(error)[:200])
        return None
    return lambda word: (
        len(tokenizer.encode(f"the {word}", add_special_tokens=False))
        - len(tokenizer.encode("the", add_special_tokens=False))
    )
