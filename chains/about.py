"""Questions about the assistant itself: which messages are, and what it says of itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chains.prompts import searched_words

_HELLO = r"(?:(?:hi|hello|hey|good (?:morning|afternoon|evening))(?: there)?[\s,.!]*)"
_ASKS = (
    r"what (?:all )?can you (?:do|answer|help(?: me)?(?: with)?|tell me)(?: for me)?",
    r"what (?:can|may|could|should) i ask(?: you)?(?: about)?",
    r"how can (?:you help(?: me)?|i use (?:you|this))",
    r"what (?:do|are) you (?:know|know about|do|cover|good at|for|here for|able to do)",
    r"(?:so )?(?:who|what) (?:are you|am i (?:talking|speaking|writing) (?:to|with))",
    r"what(?: is|'s) (?:this|your (?:name|job|purpose))",
    r"what is this (?:assistant|bot|chat|page|site|tool)(?: for)?",
    r"are you (?:a |an |the )?(?:real |actual )?"
    r"(?:ai|bot|chatbot|robot|human|person|machine|computer|program|chatgpt|gpt|llm|language model)(?: or .{1,40})?",
    r"am i (?:talking|speaking|chatting|writing) (?:to|with) (?:an? )?(?:real )?(?:person|human|bot|robot|machine|ai)",
    r"(?:which|what) (?:(?:ai|language|kind of|sort of|version of) ?)*(?:model|llm|ai|bot|version) "
    r"(?:are you(?: using| based on| running(?: on)?)?|is this|do you (?:use|run(?: on)?)|is behind (?:this|you))",
    r"(?:what|which) are your sources|what are you based on|where (?:are|do) your (?:answers|facts) (?:from|come from)",
    r"where do you (?:get|take|have) (?:your|the|these|those) (?:answers|facts|information|knowledge)(?: from)?",
    r"how do you work|how does this (?:work|assistant work|bot work|chat work)",
    r"(?:which|what) (?:documents|sources|files) (?:do you (?:know|have|search|use|read)|can you (?:read|search))",
    r"(?:which|what) languages (?:do|can) you (?:speak|understand|know|read)",
    r"help(?: me)?(?: please)?",
)
_ABOUT = re.compile(
    rf"(?:{_HELLO}|{_HELLO}?(?:{'|'.join(_ASKS)})(?:,? (?:here|please|exactly|actually|then|anyway))*)[\s.!?]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the assistant knows of itself. `documents` are counts by collection, for the sender's own eyes; `adapters`
    are (name, domain) pairs, `base` and `embedder` the models' names; `reads`: the base model reads passages."""

    title: str
    contact: str
    examples: Sequence[str]
    documents: Mapping[str, int]
    adapters: Sequence[tuple[str, str]]
    workflows: Sequence[str]
    base: str
    embedder: str
    reads: bool


def asks_about_the_assistant(message: str) -> bool:
    """Whether the message is a greeting, or asks about the assistant and about nothing else."""
    return len(message) <= 200 and _ABOUT.fullmatch(" ".join(message.replace("\u2019", "'").split())) is not None


def about(facts: Facts) -> str:
    """What can be asked, examples, where answers come from, and which models are at work."""
    how = "a model words the answer from them" if facts.reads else "I quote the sentences that answer"
    lines = [
        f"I am the assistant of the {facts.title}, a program and not a person. What I can do:",
        "",
        f"- Answer from documents: I search {searched_words(facts.documents)}; {how}, with a link to each source.",
    ]
    lines += [
        f"- {name}: {domain}. This comes from a trained model, without sources." for name, domain in facts.adapters
    ]
    lines += [
        f"- {title}: fields are filled and a reply is drafted, for a person to check." for title in facts.workflows
    ]
    if facts.examples:
        lines += ["", "You could ask, for example:", *(f"- {example}" for example in facts.examples[:4])]
    lines += [
        "",
        f"Models: {facts.base} (advice and fields), {facts.embedder.partition('@')[0]} (search). I look nothing up on "
        "the web, and say so when I do not find an answer.",
    ]
    if facts.contact:
        lines.append(f"A person can help too: {facts.contact}")
    return "\n".join(lines)
