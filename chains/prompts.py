"""The words given to models that can read, and the words the assistant says itself."""

import secrets
from collections.abc import Sequence

from index.document import ScoredPassage

READER = (
    "You answer questions of a company help desk from the passages below and from nothing else. "
    "After each sentence give the code of its passage in square brackets. "
    "If the passages do not hold the answer, say: The documents do not say."
)
_CODE_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def passage_codes(hits: Sequence[ScoredPassage]) -> dict[str, int]:
    """A short opaque code for each hit's place: numbers invite a model to invent the next one."""
    codes: dict[str, int] = {}
    while len(codes) < len(hits):
        code = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(4))
        codes.setdefault(code, len(codes))
    return codes


def reader_prompt(question: str, hits: Sequence[ScoredPassage], codes: dict[str, int]) -> str:
    by_place = {place: code for code, place in codes.items()}
    shown = "\n\n".join(
        f"[{by_place[place]}] {hit.title}. {hit.passage.section}\n{hit.passage.text}" for place, hit in enumerate(hits)
    )
    return f"Passages:\n\n{shown}\n\nQuestion: {question}"


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


def not_in_documents(titles: Sequence[str], contact: str) -> str:
    """The refusal when nothing found answers; `titles` are the closest documents, at most three are named."""
    lines = ["I searched the documents and found no passage that answers this."]
    if titles:
        lines.append("Closest were: " + "; ".join(dict.fromkeys(titles[:3])) + ".")
    lines.append("You could rephrase the question, name the system it is about, or drop a document here.")
    if contact:
        lines.append(f"A person can help too: {contact}")
    return " ".join(lines)
