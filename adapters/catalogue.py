"""Which adapters can be asked for, and why others cannot. Read by every thread, changed by the serving one."""

from collections.abc import Sequence

from adapters.errors import AdapterError
from adapters.registry import AdapterInfo, FoundAdapter


class Catalogue:
    """The newest usable version of each adapter, by name."""

    def __init__(self, found: Sequence[FoundAdapter], refused: Sequence[str]) -> None:
        self._found = {one.manifest.name: one for one in found}
        self._without_folder = tuple(refused)
        self._refused: dict[str, str] = {}

    @property
    def infos(self) -> tuple[AdapterInfo, ...]:
        return tuple(found.info for _, found in sorted(self._found.items()))

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each adapter, or version of one, that is left out."""
        return (*self._without_folder, *self._refused.values())

    def all(self) -> list[FoundAdapter]:
        return list(self._found.values())

    def serves(self, found: FoundAdapter) -> bool:
        """Whether this version is the one in use."""
        return self._found.get(found.manifest.name) == found

    def named(self, adapter: str | None) -> FoundAdapter | None:
        """The adapter that a request names, as NAME or NAME@VERSION; None for the base alone.

        Raises AdapterError for an unknown one, or for another version than the one in use.
        """
        if adapter is None:
            return None
        name, at, version = adapter.partition("@")
        found = self._found.get(name)
        if found is None:
            known = ", ".join(sorted(self._found)) or "none"
            raise AdapterError(f"There is no adapter {name!r}; known: {known}.")
        if at and version != str(found.manifest.version):
            raise AdapterError(f"There is no {adapter} any more: version {found.manifest.version} is the one in use.")
        return found

    def accept(self, found: FoundAdapter) -> None:
        """This version serves from now on."""
        self._found = {**self._found, found.manifest.name: found}
        self._refused = {name: why for name, why in self._refused.items() if name != found.manifest.name}

    def refuse(self, found: FoundAdapter, error: Exception) -> None:
        """This version does not serve; one that served before goes on."""
        name = found.manifest.name
        self._refused = {**self._refused, name: f"Adapter {name} is left out: {error}"}
        if self._found.get(name) is found:
            self.remove(name)

    def remove(self, name: str) -> None:
        """Nobody can ask for it any more."""
        self._found = {other: found for other, found in self._found.items() if other != name}

    def report(self, refused: Sequence[str]) -> None:
        """The folders whose manifests are of no use, as they were seen last."""
        self._without_folder = tuple(refused)
