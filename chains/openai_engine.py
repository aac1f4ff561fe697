"""The engine that is a server which speaks OpenAI's chat completions: vLLM, `python -m adapters serve` and others.

An adapter is a model name there: its own, or NAME-vN for version N, of which the newest is asked. Which ones the server
has it is asked at the start and twice a minute from then on. Answers are openai_chat.py's, fields openai_fill.py's.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai

from adapters.base import read_base_manifest
from adapters.config import AdapterManifest, read_adapter_file, read_manifest
from adapters.engine import Message
from adapters.errors import AdapterError, DatasetError, EngineError
from adapters.registry import MANIFEST_FILE, AdapterInfo, weights_folder
from chains.errors import ServerError
from chains.openai_errors import Place, in_words
from chains.openai_fill import Filling
from desk.config import server_key
from desk.settings import AdapterSettings, ServerSettings

LOOK_S = 30.0
"""Seconds between two looks at what the server has."""
LOOK_TIMEOUT_S = 5.0
CONNECT_S = 5.0
_LOG = logging.getLogger("switchboard.engine")


@dataclass(frozen=True, slots=True)
class _Offer:
    """Adapters that can be asked for, with their models' names there, and why others, or all, cannot."""

    infos: tuple[AdapterInfo, ...]
    models: Mapping[str, str]
    failures: tuple[str, ...]
    error: ServerError | None = None


class OpenAIEngine:
    """Base and adapters of a desk on a server. Safe to use from many threads.

    Raises DeskError where the variable of its key holds none. A server that does not answer raises nothing here: it is
    told of in `failures`, and the desk's adapters are taken to be there.
    """

    def __init__(self, settings: AdapterSettings, server: ServerSettings) -> None:
        base = read_base_manifest(settings.base)
        self.model = server.base or base.name
        self.base = base.model_copy(update={"note": f"Served at {server.url}."})
        self.answer_tokens = settings.answer_tokens
        self.answer_s = settings.answer_s
        self.place = Place(server.url, server_key(server))
        self.client = openai.OpenAI(**_arguments(self.place, settings.answer_s))
        # A connection belongs to its event loop: none is kept for the next one.
        self.async_client = openai.AsyncOpenAI(**_arguments(self.place, settings.answer_s, Connection="close"))
        self._own, self._refused = _desk_adapters(settings, {self.model, self.base.name})
        self._filling = Filling(self.client, self.place, settings.answer_s)
        self._wake, self._closed = threading.Event(), threading.Event()
        self._looked, self._looks = threading.Condition(), 0
        self._thread: threading.Thread | None = None
        names = tuple(self._own)
        self._offer = _Offer(tuple(self._own.values()), dict(zip(names, names, strict=True)), self._refused)
        self._look()

    @property
    def adapters(self) -> tuple[AdapterInfo, ...]:
        """The desk's adapters that the server has, by name; while it is away, those that it had last."""
        return self._offer.infos

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each adapter that is left out, and one while the server does not answer."""
        return self._offer.failures

    def start(self) -> None:
        """Follows what the server has, from now on; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="engine", daemon=True)
            self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """True once the server has answered; it is asked now. Raises ServerError where it does not."""
        self._look(LOOK_TIMEOUT_S if timeout_s is None else min(timeout_s, LOOK_TIMEOUT_S))
        if self._offer.error is not None:
            raise self._offer.error
        return True

    def fill(
        self, messages: Sequence[Message], adapter: str, choices: Mapping[str, Sequence[str]], *, user: str = ""
    ) -> dict[str, str]:
        """A value for every field, in order, each one of the field's choices. Raises AdapterError, EngineError."""
        empty = [name for name, values in choices.items() if not values]
        if empty or not choices:
            raise EngineError(f"fill() needs choices for every field; none for {', '.join(empty) or 'any'}.")
        return self._filling.fill(messages, self.model_of(adapter), choices, sender(user))

    def refresh(self, wait_s: float = 0.0) -> None:
        """Has the server asked what it has, once started; waits for it at most so long."""
        if self._thread is None:
            return
        with self._looked:
            before = self._looks
            self._wake.set()
            self._looked.wait_for(lambda: self._looks > before, wait_s)

    def close(self) -> None:
        """Stops following, and ends all answers."""
        self._closed.set()
        self._wake.set()
        self.client.close()

    def model_of(self, adapter: str | None) -> str:
        """The model's name on the server; None is the base. Raises AdapterError for an adapter that is not there."""
        if self._closed.is_set():
            raise EngineError("The engine has stopped: restart the app.")
        if adapter is None:
            return self.model
        try:
            return self._offer.models[adapter]
        except KeyError:
            known = ", ".join(self._offer.models) or "none"
            raise AdapterError(f"There is no adapter {adapter!r} on the model server; known: {known}.") from None

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if not self._closed.is_set():
                try:
                    self._look()
                except Exception:
                    _LOG.exception("The model server %s could not be looked at; the next try follows.", self.place.host)

    def _look(self, timeout_s: float = LOOK_TIMEOUT_S) -> None:
        """Asks the server what it has, and tells the log where that has changed."""
        before = self._offer
        try:
            found = self._offered(self._listed(timeout_s))
        except ServerError as error:
            found = replace(before, failures=(*self._refused, str(error)), error=error)
        for sentence in found.failures:
            if sentence not in before.failures:
                _LOG.warning("%s", sentence)
        if before.error is not None and found.error is None:
            _LOG.info("The model server %s answers again.", self.place.host)
        with self._looked:
            self._offer = found
            self._looks += 1
            self._looked.notify_all()

    def _listed(self, timeout_s: float) -> dict[str, int]:
        """The models that the server lists, with their versions: 0 where it tells none. Raises ServerError."""
        try:
            with in_words(self.place, self.model, timeout_s):
                reply = self.client.models.with_raw_response.list(timeout=timeout_s)
                rows = reply.http_response.json()["data"]
                return {str(row["id"]): int(row.get("version", 0)) for row in rows}  # our own service tells it
        except ServerError:
            raise
        except EngineError:  # busy, or too late
            raise self.place.fault("does not say which models it has", "see its log") from None

    def _offered(self, listed: Mapping[str, int]) -> _Offer:
        """Of the desk's adapters, which the server lists."""
        models: dict[str, str] = {}
        infos, failures = list[AdapterInfo](), list(self._refused)
        if listed and self.model not in listed:
            failures.append(
                f"The model server {self.place.host} does not list the base {self.model}, but {', '.join(listed)}: "
                "correct models.base in desk.yaml if it does not answer."
            )
        for name, info in self._own.items():
            newest = _newest(name, [model for model in listed if model == name or model not in self._own])
            if newest is None:
                failures.append(
                    f"Adapter {name} is left out: the model server {self.place.host} does not list it. Load it there "
                    f"as {name} or {name}-v1."
                )
                continue
            models[name], version = newest
            infos.append(replace(info, version=version or listed[models[name]] or info.version))
        return _Offer(tuple(infos), models, tuple(failures))


def sender(user: str) -> str:
    """What a server is told of who asks: the same for the same user, and of no use to find their uploads."""
    return hashlib.sha256(user.encode()).hexdigest()[:32] if user else ""


def _arguments(place: Place, answer_s: float, **headers: str) -> dict[str, Any]:
    """The client's: only what the desk says, nothing that the environment says for OpenAI's own service.

    Nothing is sent twice: whoever chats tries again, and two tries would double the longest wait.
    """
    return {
        "base_url": place.url,
        "api_key": place.key or "none",  # the client insists on one
        "admin_api_key": "",
        "timeout": openai.Timeout(answer_s, connect=min(CONNECT_S, answer_s)),
        "max_retries": 0,
        "default_headers": {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit(), **headers},
    }


def _newest(name: str, listed: Sequence[str]) -> tuple[str, int] | None:
    """The model that is this adapter's newest version, and which one that is: 0 where its name does not say."""
    versions = {model: re.fullmatch(rf"{re.escape(name)}(?:-v(\d{{1,9}}))?", model) for model in listed}
    found = [(int(match[1] or 0), model) for model, match in versions.items() if match]
    if not found:
        return None
    version, model = max(found)
    return model, version


def _desk_adapters(settings: AdapterSettings, bases: set[str]) -> tuple[dict[str, AdapterInfo], tuple[str, ...]]:
    """What the desk says of its adapters, by name, and one sentence for each whose file is of no use."""
    infos: dict[str, AdapterInfo] = {}
    refused = []
    folders = [path for path in settings.shipped.iterdir() if path.is_dir()] if settings.shipped.is_dir() else []
    for folder in sorted(folder for folder in folders if not folder.name.startswith(".")):
        try:
            file = read_adapter_file(folder / "adapter.yaml")
        except DatasetError as error:
            refused.append(f"Adapter {folder.name} is left out: {error}")
            continue
        manifest = _manifest(weights_folder(settings, folder.name), bases)
        infos[folder.name] = AdapterInfo(
            name=folder.name,
            title=file.title,
            domain=file.domain,
            version=manifest.version if manifest else 0,
            capabilities=frozenset(file.capabilities),
            least_confidence=manifest.least_confidence if manifest else None,
        )
    return infos, tuple(refused)


def _manifest(folder: Path, bases: set[str]) -> AdapterManifest | None:
    """That of the weights in `folder`, if they are of this base: another's say nothing of what the server has."""
    try:
        manifest = read_manifest(folder / MANIFEST_FILE, AdapterManifest)
    except AdapterError:
        return None
    return manifest if manifest.base in bases else None
