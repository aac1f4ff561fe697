"""The words given to models that can read, and the words the assistant says itself."""

import secrets
from collections.abc import Mapping, Sequence

from langchain_core.messages import HumanMessage

from adapters.reader import CODE_ALPHABET, asked, shown_passage
from chains.chat_model import CONTEXT
from desk.settings import UPLOADS
from index.document import DESK_COLLECTION, ScoredPassage

UNSURE_OPENING = "The documents may not answer this. The closest that they say:\n\n"
"""What stands before quotes that are no likelier to answer than not."""


def passage_codes(hits: Sequence[ScoredPassage]) -> dict[str, int]:
    """A short opaque code for each hit's place: numbers invite a model to invent the next one."""
    codes: dict[str, int] = {}
    while len(codes) < len(hits):
        code = "".join(secrets.choice(CODE_ALPHABET) for _ in range(4))
        codes.setdefault(code, len(codes))
    return codes


def reader_prompt(question: str, hits: Sequence[ScoredPassage], codes: dict[str, int]) -> HumanMessage:
    """The question with the passages as its context: where the window is short, the last ones are left out whole."""
    by_place = {place: code for code, place in codes.items()}
    shown = [
        shown_passage(by_place[place], hit.title, hit.passage.section, hit.passage.text)
        for place, hit in enumerate(hits)
    ]
    return HumanMessage(asked(question), additional_kwargs={CONTEXT: shown})


def searched_words(documents: Mapping[str, int]) -> str:
    """What was searched, in words: how many documents of which collections, the sender's own last."""
    own = sum(count for name, count in documents.items() if name.startswith(UPLOADS))
    named = {name: count for name, count in documents.items() if not name.startswith(UPLOADS)}
    parts = [f"{count:,} of {'the desk' if name == DESK_COLLECTION else name}" for name, count in named.items()]
    parts += [f"{own:,} that you added"] if own else []
    return f"the documents ({', '.join(parts) or 'there are none yet'})"


def cannot_help(title: str, examples: Sequence[str], contact: str) -> str:
    """The refusal of what is out of scope: kind, and with what can be done instead."""
    lines = [
        f"That is outside what I can help with. I am the assistant of the {title}, and answer from its "
        "documents, give first-line advice, and sort tickets.",
        "",
        "You could ask, for example:",
        *(f"- {example}" for example in examples[:3]),
    ]
    if contact:
        lines += ["", f"For anything else, a person can help: {contact}"]
    return "\n".join(lines)


def unsure_adapter(name: str) -> str:
    """What stands before an answer from the documents where an adapter was not sure enough of its own."""
    return f"{name} is not sure about this. From the documents:\n\n"


def unsure_and_nothing(name: str, contact: str) -> str:
    """The refusal where an adapter is not sure and no document is close."""
    text = f"{name} is not sure about this, and I found no document that helps. Could you describe it in other words?"
    return f"{text} A person can help too: {contact}" if contact else text


def not_in_documents(documents: Mapping[str, int], closest: Sequence[str], contact: str) -> str:
    """The refusal when nothing found answers; `documents` counts what was searched by collection, `closest` are the
    titles of the nearest documents."""
    lines = [f"I searched {searched_words(documents)} and found no passage that answers this."]
    if closest:
        lines.append("Closest were: " + "; ".join(closest) + ".")
    lines.append("You could rephrase the question, name the system it is about, or drop a document here.")
    if contact:
        lines.append(f"A person can help too: {contact}")
    return " ".join(lines)
