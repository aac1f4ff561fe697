"""Web pages, listed one by one or by a sitemap. Pages stay on the hosts that the owner names.

A page is asked for with what the server said of the last copy (ETag, Last-Modified), so that an unchanged one
costs one short answer. Links on pages are not followed, and scripts are not run.
"""

import html
import re
import zlib
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit
from xml.parsers import expat

from bs4 import UnicodeDammit

from desk.connectors import SitemapFile, WebFile
from index.blocks import one_line
from index.connectors.fetch import Limits, Response, fetch, unzipped
from index.connectors.folder import is_chosen
from index.connectors.items import ConnectorError, Event, Failed, Found, Same, Source, Unlisted
from index.read_text import decode_stated

_SITEMAPS = 500
_SITEMAP_BYTES = 52_428_800
"""The sitemap protocol's own limit for one file, 50 MiB."""
_URL_CHARACTERS = 2000
_SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
_TITLE_START = re.compile(r"<title[^<>]*>", re.IGNORECASE)
_TITLE_END = re.compile(r"</title", re.IGNORECASE)


def read_pages(connector: WebFile, known: Mapping[str, Source], until: float) -> Iterator[Event]:
    """The pages that the owner lists."""
    limits = _limits(connector, until)
    hosts = {*(_host(url) for url in connector.pages), *(host.lower() for host in connector.hosts)}
    for url in dict.fromkeys(connector.pages):
        yield from _page(url, known, limits, hosts)


def read_sitemap(connector: SitemapFile, known: Mapping[str, Source], until: float) -> Iterator[Event]:
    """The pages of a sitemap, or of an index of sitemaps, that are on its host or on `hosts`.

    Raises ConnectorError if the first sitemap cannot be read.
    """
    limits = _limits(connector, until)
    hosts = {_host(connector.url), *(host.lower() for host in connector.hosts)}
    pending, done, seen = [connector.url], 0, set[str]()
    while pending:
        sitemap = pending.pop(0)
        try:
            pages, further = _locations(_sitemap(sitemap, limits, hosts))
        except ConnectorError as error:
            if not done:
                raise ConnectorError(f"the sitemap {sitemap} cannot be read: {error}") from None
            yield Unlisted(sitemap, f"this sitemap cannot be read: {error}")
            continue
        finally:
            done += 1
        pending += [url for url in further if url not in seen]
        seen.update(further)
        if done + len(pending) > _SITEMAPS:
            yield Unlisted(connector.url, f"this sitemap leads to more than {_SITEMAPS} others: name one of them")
            return
        for url in pages:
            if url in seen or not is_chosen(_split(url).path, connector.include, connector.exclude):
                continue
            seen.add(url)
            yield from _page(url, known, limits, hosts)


def _limits(connector: WebFile | SitemapFile, until: float) -> Limits:
    return Limits(connector.max_mb * 1_000_000, until, connector.allow_private, ca_file=connector.ca_file)


def _host(url: str) -> str:
    return (_split(url).hostname or "").lower()


def _split(url: str) -> SplitResult:
    """A URL's parts, all empty for what is none ("http://["): others write these, and one must not end a run."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _sitemap(url: str, limits: Limits, hosts: set[str]) -> bytes:
    if _host(url) not in hosts:
        raise ConnectorError("it is on another host: name that under hosts")
    response = fetch(url, Limits(_SITEMAP_BYTES, limits.until, limits.allow_private, ca_file=limits.ca_file))
    if _host(response.url) not in hosts:
        raise ConnectorError("it redirects to another host: name that under hosts")
    if response.status != 200:
        raise ConnectorError(f"the server answered {response.status}")
    if not response.body.startswith(b"\x1f\x8b"):
        return response.body
    try:
        return unzipped(response.body, _SITEMAP_BYTES)
    except zlib.error:
        raise ConnectorError("it is damaged gzip data") from None


def _locations(sitemap: bytes) -> tuple[list[str], list[str]]:
    """The pages and the further sitemaps that a sitemap names. Raises ConnectorError if it is none.

    expat, with every declared entity refused: a sitemap needs none, and entities can grow without bound.
    """
    found: dict[str, list[str]] = {"url": [], "sitemap": []}
    path: list[str] = []
    text: list[str] = []

    def start(name: str, _: dict[str, str]) -> None:
        path.append(name.rsplit(":", 1)[-1])
        text.clear()

    def end(name: str) -> None:
        if len(path) == 3 and path[2] == "loc" and path[1] in found:
            url = "".join(text).strip()
            if len(url) <= _URL_CHARACTERS:
                found[path[1]].append(url)
        path.pop()

    def refuse(*_: object) -> None:
        raise ConnectorError("it declares entities, which a sitemap has no use for")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(sitemap, True)
    except expat.ExpatError as error:
        raise ConnectorError(f"it is not XML ({error})") from None
    return found["url"], found["sitemap"]


def _page(url: str, known: Mapping[str, Source], limits: Limits, hosts: set[str]) -> Iterator[Event]:
    """One page's event: none if the server says that a page that was mirrored is gone."""
    before = known.get(url)
    asked = {}
    if before and before.etag:
        asked["If-None-Match"] = before.etag
    if before and before.modified:
        asked["If-Modified-Since"] = before.modified
    if _host(url) not in hosts:
        other = "it is on another host: name that under hosts" if _host(url) else "this is not a web address"
        yield Failed(url, other)
        return
    try:
        response = fetch(url, limits, asked)
    except ConnectorError as error:
        yield Failed(url, str(error))
        return
    if response.status == 304 and before:
        yield Same(url)
    elif response.status in (404, 410) and before:
        return
    elif response.status != 200:
        yield Failed(url, f"the server answered {response.status}")
    elif _host(response.url) not in hosts:
        yield Failed(url, f"it redirects to {_host(response.url)}: name that under hosts")
    else:
        yield _found(url, response)


def _found(url: str, response: Response) -> Event:
    content_type = response.headers.get("content-type", "").lower()
    suffix = _SUFFIXES.get(content_type.split(";")[0].strip())
    if suffix is None:
        return Failed(url, f"its content type is {content_type[:60] or 'not stated'}, which cannot be read")
    body, title = response.body, ""
    if suffix in (".html", ".txt", ".md", ".csv"):
        text = _text(body, content_type, suffix == ".html")
        body = text.encode("utf-8", "replace")
        title = _title(text) if suffix == ".html" else ""
    etag, modified = response.headers.get("etag", ""), response.headers.get("last-modified", "")
    source = Source(url, url, title or url, _date(modified), etag[:500], modified[:100])
    return Found(source, suffix, body)


def _title(page: str) -> str:
    """What stands in the first <title>; one search for each end, since a page can open thousands and close none."""
    start = _TITLE_START.search(page)
    end = _TITLE_END.search(page, start.end()) if start else None
    return one_line(html.unescape(page[start.end() : end.start()])) if start and end else ""


def _text(body: bytes, content_type: str, is_html: bool) -> str:
    """The text in the charset that the server states, else in the one that the page states or seems to have."""
    charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", content_type)
    text = decode_stated(body, charset.group(1) if charset else "utf-8-sig")
    if text is None:
        text = UnicodeDammit(body, is_html=is_html).unicode_markup or body.decode("utf-8", "replace")
    return text


def _date(modified: str) -> str | None:
    try:
        return parsedate_to_datetime(modified).date().isoformat()
    except (ValueError, TypeError, IndexError):
        return None
