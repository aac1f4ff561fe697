"""What desk.yaml may say of documents that live elsewhere: one model per loader, none of which holds a secret.

A credential is the name of an environment variable (a key that ends in `_env`); `desk.config.secret` reads its
value when a connector runs. How each loader works is index/connectors/'s business.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


def _interval(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,3}[mhd]", value):
        raise ValueError("write a number and m, h or d (minutes, hours, days), such as 30m, 6h or 1d")
    return value


def web_address(value: str) -> str:
    """`value` if it is an http or https address without a user or password in it. Raises ValueError."""
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        raise ValueError("this is not a web address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("write a whole address that starts with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("an address must not hold a user or a password: name environment variables instead")
    return value


def _template(value: str) -> str:
    """A web address with one {} or {path} or {key} in it."""
    web_address(value)
    if len(re.findall(r"\{(?:path|key)\}", value)) != 1:
        raise ValueError("write an address with {path} (of a file) or {key} (of a row) in it, once")
    return value


def _repository(value: str) -> str:
    return web_address(value) if "://" in value else value


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
"""Small letters, digits and hyphens: it becomes a folder's name."""
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]
"""The name of an environment variable that holds a secret."""
WebAddress = Annotated[str, AfterValidator(web_address)]
Template = Annotated[str, AfterValidator(_template)]
Patterns = tuple[str, ...]
"""Shell patterns for whole paths; * also matches a slash."""


class ConnectorFile(BaseModel):
    """What every connector says. `every` is None for one that runs by command alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name
    collection: Name = "desk"
    every: Annotated[str, AfterValidator(_interval)] | None = None
    max_documents: int = Field(default=5000, ge=1, le=1_000_000)
    max_mb: int = Field(default=20, ge=1, le=1000)
    max_minutes: int = Field(default=30, ge=1, le=1440)

    @property
    def every_s(self) -> int | None:
        """Seconds from the start of one run to the next."""
        return int(self.every[:-1]) * _UNITS_S[self.every[-1]] if self.every else None


class NetworkFile(ConnectorFile):
    """One that speaks to a server: private addresses are refused unless the owner allows them."""

    allow_private: bool = False
    ca_file: Path | None = None


class DatabaseFile(ConnectorFile):
    """A query's rows, each a document of its own or all of them one table."""

    loader: Literal["database"]
    url_env: Variable
    query: str = Field(min_length=1)
    key: str
    document: Literal["row", "table"] = "row"
    title: str = ""
    date: str = ""
    address: Template | None = None


class SitemapFile(NetworkFile):
    loader: Literal["sitemap"]
    url: WebAddress
    hosts: tuple[str, ...] = ()
    include: Patterns = ()
    exclude: Patterns = ()


class WebFile(NetworkFile):
    loader: Literal["web"]
    pages: tuple[WebAddress, ...] = Field(min_length=1)
    hosts: tuple[str, ...] = ()


class ConfluenceFile(NetworkFile):
    loader: Literal["confluence"]
    url: WebAddress
    space: str = Field(pattern=r"^[A-Za-z0-9_.~-]{1,255}$")
    label: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,255}$")
    user_env: Variable | None = None
    token_env: Variable | None = None

    @model_validator(mode="after")
    def _user_needs_token(self) -> "ConfluenceFile":
        if self.user_env and not self.token_env:
            raise ValueError("user_env needs token_env beside it")
        return self


class GitFile(NetworkFile):
    loader: Literal["git"]
    repository: Annotated[str, AfterValidator(_repository)]
    branch: str = Field(default="HEAD", pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,200}$")
    include: Patterns = ()
    exclude: Patterns = ()
    address: Template | None = None
    user_env: Variable | None = None
    token_env: Variable | None = None

    @model_validator(mode="after")
    def _remote_is_encrypted(self) -> "GitFile":
        if self.repository.startswith("http://"):
            raise ValueError("a repository is a folder or an https:// address")
        return self


class MailboxFile(ConnectorFile):
    loader: Literal["mbox"]
    path: Path


class SlackFile(ConnectorFile):
    loader: Literal["slack"]
    path: Path
    channels: tuple[str, ...] = ()
    workspace: WebAddress | None = None


class FolderFile(ConnectorFile):
    loader: Literal["folder"]
    path: Path
    include: Patterns = ()
    exclude: Patterns = ()
    address: Template | None = None


Connector = DatabaseFile | SitemapFile | WebFile | ConfluenceFile | GitFile | MailboxFile | SlackFile | FolderFile
AnyConnector = Annotated[Connector, Field(discriminator="loader")]

LOADERS: dict[str, type[ConnectorFile]] = {
    "confluence": ConfluenceFile,
    "database": DatabaseFile,
    "folder": FolderFile,
    "git": GitFile,
    "mbox": MailboxFile,
    "sitemap": SitemapFile,
    "slack": SlackFile,
    "web": WebFile,
}
"""The allow-list: what may stand behind `loader`."""


def at_home(connector: Connector, root: Path) -> Connector:
    """The connector with its paths made absolute; relative ones start at the desk's folder `root`."""
    moved: dict[str, Any] = {}
    for key in ("path", "ca_file"):
        value = getattr(connector, key, None)
        if isinstance(value, Path):
            moved[key] = (root / value.expanduser()).resolve()
    if isinstance(connector, GitFile) and "://" not in connector.repository:
        moved["repository"] = str((root / Path(connector.repository).expanduser()).resolve())
    return connector.model_copy(update=moved)
