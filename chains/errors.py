"""
TurnError     a turn cannot be answered; the message is for the person who chats
ServerError   (an EngineError) the model server cannot be used; the message is for whoever runs the program
"""

from adapters.errors import EngineError


class TurnError(Exception):
    """The turn ends with this sentence; the conversation goes on."""


class ServerError(EngineError):
    """The server does not answer, refuses, or answers what it should not: what, where, what to do."""
