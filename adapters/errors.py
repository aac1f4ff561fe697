"""
Errors of the models:

ModelError
├── BaseModelError   the base model is missing, of the wrong kind, or does not fit in memory
├── AdapterError     an adapter folder cannot be used with this base
├── DatasetError     training data: file, line and fault
│   └── DivergedError    the loss or the weights became no numbers
├── UnwritableError  a folder or file could not be written: no space, no rights, something in its way
├── HubError         what was to be pushed did not get to the hub
└── EngineError      a request failed or the engine stopped
    ├── BusyError         too many wait already
    └── UnavailableError  the model is not there: not started, stopped, or it could not be loaded
"""


class ModelError(Exception):
    """Anything the models can report; the message says what, where and what to do."""


class BaseModelError(ModelError):
    """The base model cannot be loaded."""


class AdapterError(ModelError):
    """An adapter cannot be attached; nothing of it stays behind."""


class DatasetError(ModelError):
    """Training data cannot be used."""


class UnwritableError(ModelError):
    """What was to be written was not, and what was there before stays."""


class HubError(ModelError):
    """The hub was not reached, or did not take what was pushed."""


class DivergedError(DatasetError):
    """Training went astray: the learning rate is too high, or the rows are wrong."""


class EngineError(ModelError):
    """A generation failed, was refused, or the engine has stopped."""


class BusyError(EngineError):
    """The queue is full; `place` is the one that the request would have had."""

    def __init__(self, place: int) -> None:
        super().__init__(f"Everybody is busy: you would be number {place} in the queue. Try again in a moment.")
        self.place = place


class UnavailableError(EngineError):
    """There is no model to answer."""
