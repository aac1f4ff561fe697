"""The pages of a Confluence space, Cloud or Data Center, through the REST search that both have.

A page whose reading is restricted, itself or by a page above it, is left out: the account that reads may see
more than the people who will ask.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from desk.config import secret
from desk.connectors import ConfluenceFile
from index.connectors.fetch import Limits, fetch
from index.connectors.items import ConnectorError, Event, Failed, Found, Source
from index.connectors.page import html_page

_PAGE = 25
"""Pages per request. Cloud returns at most 50 with their bodies."""
_ANSWER_MB = 100
_EXPAND = "body.export_view,version,ancestors,restrictions.read.restrictions.user,restrictions.read.restrictions.group"
_RESTRICTIONS = "restrictions.read.restrictions.user,restrictions.read.restrictions.group"


def read_confluence(connector: ConfluenceFile, until: float) -> Iterator[Event]:
    """The open pages of the space, or of those the ones with the label.

    Raises ConnectorError if the server refuses or fails at any point: what it did not list may still be there.
    """
    site = _Site(connector, until)
    label = f' and label = "{connector.label}"' if connector.label else ""
    query = {
        "cql": f'space = "{connector.space}" and type = page{label} order by created',
        "expand": _EXPAND,
        "limit": str(_PAGE),
    }
    url: str | None = site.at("rest/api/content/search?" + urlencode(query))
    visited: set[str] = set()
    while url:
        visited.add(url)
        answer = site.ask(url)
        for page in _list(answer.get("results")):
            yield from _page(site, page)
        following = _dict(answer.get("_links")).get("next")
        url = site.next(str(following)) if following else None
        if url in visited:
            raise ConnectorError("the server's list of pages leads back to its start")


class _Refused(ConnectorError):
    """The account may not see what was asked for, or it is not there."""


class _Site:
    """A Confluence server as one connector sees it; remembers which pages are open to read."""

    def __init__(self, connector: ConfluenceFile, until: float) -> None:
        self._base = connector.url.rstrip("/") + "/"
        size = min(_PAGE * connector.max_mb, _ANSWER_MB) * 1_000_000
        self._limits = Limits(size, until, connector.allow_private, ca_file=connector.ca_file)
        self._headers = {"Accept": "application/json", **_authorization(connector)}
        self._open: dict[str, bool] = {}

    def at(self, path: str) -> str:
        return self._base + path.lstrip("/")

    def next(self, link: str) -> str:
        """The address of the next part of a list; `link` may or may not hold the base's own path."""
        context = urlsplit(self._base).path
        url = urljoin(self._base, link) if link.startswith(context) else self.at(link)
        if not url.startswith(self._base):
            raise ConnectorError("the server's list of pages leads to another server")
        return url

    def ask(self, url: str) -> Mapping[str, Any]:
        response = fetch(url, self._limits, self._headers, same_origin=True)
        if response.status in (401, 403, 404):
            raise _Refused(
                f"the server refuses (status {response.status}): check url, user_env, token_env and their rights"
            )
        if response.status != 200:
            raise ConnectorError(f"the server answered {response.status}")
        try:
            return _dict(json.loads(response.body))
        except (ValueError, RecursionError):
            raise ConnectorError("the server's answer is not JSON: check url (Cloud's ends in /wiki)") from None

    def is_open(self, page: Mapping[str, Any]) -> bool:
        """Whether neither the page nor a page above it is restricted. One that cannot be checked is not open."""
        if not isinstance(page.get("ancestors"), list):
            return False
        identity = str(page.get("id"))
        self._open[identity] = _is_unrestricted(page)
        above = [str(ancestor.get("id")) for ancestor in _list(page.get("ancestors"))]
        return self._open[identity] and all(self._is_open_by_id(identity) for identity in above)

    def _is_open_by_id(self, identity: str) -> bool:
        if identity not in self._open:
            if not identity.isdecimal():
                return False
            url = self.at(f"rest/api/content/{identity}?" + urlencode({"expand": _RESTRICTIONS}))
            try:
                self._open[identity] = _is_unrestricted(self.ask(url))
            except _Refused:
                self._open[identity] = False
        return self._open[identity]


def _authorization(connector: ConfluenceFile) -> dict[str, str]:
    """Cloud: the account's address and its API token. Data Center: a personal access token alone."""
    if connector.token_env is None:
        return {}
    token = secret(connector.token_env, connector.name)
    if connector.user_env is None:
        return {"Authorization": f"Bearer {token}"}
    pair = f"{secret(connector.user_env, connector.name)}:{token}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _page(site: _Site, page: Mapping[str, Any]) -> Iterator[Event]:
    identity, title = str(page.get("id")), str(page.get("title") or "")
    if not site.is_open(page):
        return
    body = _dict(_dict(page.get("body")).get("export_view")).get("value")
    if not isinstance(body, str):
        yield Failed(identity, "the server sent this page without its text")
        return
    shown = str(_dict(page.get("_links")).get("webui") or "")
    address = site.at(shown if shown.startswith("/") else f"pages/viewpage.action?pageId={identity}")
    when = str(_dict(page.get("version")).get("when") or "")[:10]
    yield Found(Source(identity, address, title, when or None), ".html", html_page(title, body))


def _is_unrestricted(page: Mapping[str, Any]) -> bool:
    """Whether the page says of itself that anyone may read it. One that says nothing is restricted."""
    rules = _dict(_dict(_dict(page.get("restrictions")).get("read")).get("restrictions"))
    groups = [_dict(rules.get(kind)) for kind in ("user", "group")]
    return all("results" in group and not group["results"] for group in groups)


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
