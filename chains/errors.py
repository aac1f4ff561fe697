"""TurnError: a turn cannot be answered; the message is for the person who chats."""


class TurnError(Exception):
    """The turn ends with this sentence; the conversation goes on."""
