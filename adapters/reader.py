"""The words between the assistant and a model that reads passages: training and serving use the same."""

READER = (
    "You answer questions of a company help desk from the passages below and from nothing else. "
    "After each sentence give the code of its passage in square brackets. "
    "If the passages do not hold the answer, say: The documents do not say."
)
NOT_SAID = "The documents do not say."
CODE_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of passages' codes: nothing that looks like another."""


def shown_passage(code: str, title: str, section: str, text: str) -> str:
    """A passage as the model is shown it, its code first."""
    return f"[{code}] {title}. {section}\n{text}"


def asked(question: str) -> str:
    """The question as it stands after the passages."""
    return f"Question: {question}"


def copied(answer: str, code: str) -> str:
    """A reply that copies a fact and names its passage."""
    return f"{answer} [{code}]"
