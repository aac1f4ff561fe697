"""Pages come from the addresses that the owner opened and from no others, within limits, and only when they changed."""

import base64
import gzip
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from web_site import Reply, Site, make_certificate, serving

from desk.connectors import ConfluenceFile, SitemapFile, WebFile
from index.connectors.addresses import is_refused, resolve
from index.connectors.fetch import Limits, fetch
from index.connectors.items import ConnectorError, Source
from index.connectors.mirror import read_sources
from index.connectors.sync import SyncReport, fingerprint, sync
from index.sources import load_source


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def limits(*, allow_private: bool = True, max_bytes: int = 10_000, timeout_s: float = 5.0) -> Limits:
    return Limits(max_bytes, time.monotonic() + 60, allow_private, timeout_s)


def sitemap(url: str, **values: object) -> SitemapFile:
    return SitemapFile.model_validate({"name": "web", "loader": "sitemap", "url": url, "allow_private": True} | values)


def web(*pages: str, **values: object) -> WebFile:
    return WebFile.model_validate({"name": "web", "loader": "web", "pages": pages, "allow_private": True} | values)


def counts(report: SyncReport) -> tuple[int, int, int, int]:
    """added, changed, removed, unchanged"""
    return report.added, report.changed, report.removed, report.unchanged


def stored(connector: SitemapFile | WebFile | ConfluenceFile, folder: Path) -> dict[str, tuple[Source, Path]]:
    sources = read_sources(folder, fingerprint(connector))
    return {source.key: (source, folder / name) for name, source in sources.items()}


def text(path: Path) -> str:
    return load_source(path, name=path.name, collection="desk", max_bytes=1_000_000).text


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.9.9.9", "100.64.0.1", "::1", "fc00::1",
        "fd12:3456::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1",
        "64:ff9b::10.0.0.1", "::ffff:0:192.168.0.1",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_unless_they_are_allowed(address: str) -> None:
    assert is_refused(ipaddress.ip_address(address), allow_private=False)
    assert not is_refused(ipaddress.ip_address(address), allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "fe80::1", "fec0::1", "ff02::1",
        "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::169.254.169.254", "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "64:ff9b:1::7f00:1", "4000::1", "::ffff:224.0.0.1",
    ],
)  # fmt: skip
def test_metadata_link_local_multicast_and_disguised_addresses_are_refused_always(address: str) -> None:
    assert is_refused(ipaddress.ip_address(address), allow_private=False)
    assert is_refused(ipaddress.ip_address(address), allow_private=True)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert not is_refused(ipaddress.ip_address(address), allow_private=False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.1",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "0", "0.0.0.0", "169.254.169.254",
        "127.0.0.1%00.example", "[fe80::1%25lo]",
    ],
)  # fmt: skip
def test_no_way_of_writing_loopback_reaches_a_server_on_it(site: Site, host: str) -> None:
    site.page("/", "internal")
    with pytest.raises(ConnectorError):
        fetch(f"http://{host}:{site.port}/", limits(allow_private=False))
    assert site.asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "//127.0.0.1/", "x"])
def test_only_http_and_https_are_spoken(url: str) -> None:
    with pytest.raises(ConnectorError, match="https:// or http://"):
        fetch(url, limits())


def test_a_host_is_refused_if_any_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: answers)
    with pytest.raises(ConnectorError, match="must not reach"):
        resolve("rebinding.example", 80, allow_private=False)


def test_the_address_that_was_checked_is_the_one_that_is_spoken_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is asked for a second time is asked for once."""
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, port: int, *args: int, **named: int) -> list[tuple[object, ...]]:
        if host != "rebinding.example":
            return list(real(host, port, *args, **named))
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "192.0.2.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    site.page("/", "the page")
    assert fetch(f"http://rebinding.example:{site.port}/", limits()).body == b"the page"
    assert asked == ["rebinding.example"] and site.asked[0][1]["host"] == f"rebinding.example:{site.port}"


def test_a_redirect_is_checked_like_a_first_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server passes as public; where it sends to must not."""
    from index.connectors import addresses

    real = addresses.is_refused
    public = ipaddress.ip_address("127.0.0.2")
    monkeypatch.setattr(addresses, "is_refused", lambda address, allowed: address != public and real(address, allowed))
    monkeypatch.setattr("socket.create_connection", _connect_to(site.port))
    for target in ("http://127.0.0.1:{0}/inner", "http://localhost:{0}/inner", "http://[::1]:{0}/inner", "file:///etc"):
        where = target.format(site.port)
        site.replies["/"] = Reply(status=302, headers={"Location": where})
        with pytest.raises(ConnectorError):
            fetch(f"http://127.0.0.2:{site.port}/", limits(allow_private=False))
    assert site.paths() == ["/"] * 4


def _connect_to(port: int):  # type: ignore[no-untyped-def]
    real = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        return real(("127.0.0.1" if address[0] == "127.0.0.2" else address[0], port), timeout)

    return connect


def test_headers_with_secrets_do_not_follow_a_redirect_to_another_server(site: Site) -> None:
    with serving() as other:
        other.page("/target", "there")
        site.replies["/"] = Reply(status=302, headers={"Location": other.address + "/target"})
        assert fetch(site.address + "/", limits(), {"Authorization": "Bearer hunter2"}).body == b"there"
        assert "authorization" in site.asked[0][1] and "authorization" not in other.asked[0][1]
        with pytest.raises(ConnectorError, match="another server"):
            fetch(site.address + "/", limits(), {"Authorization": "Bearer hunter2"}, same_origin=True)


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://0/"])
def test_no_redirect_leads_to_metadata_even_where_private_addresses_are_allowed(site: Site, target: str) -> None:
    site.replies["/"] = Reply(status=307, headers={"Location": target})
    with pytest.raises(ConnectorError, match=r"must not reach|unusual form"):
        fetch(site.address + "/", limits())


def test_redirects_in_a_circle_end(site: Site) -> None:
    site.replies["/"] = Reply(status=302, headers={"Location": "/"})
    with pytest.raises(ConnectorError, match="more than 5 times"):
        fetch(site.address + "/", limits())
    assert len(site.asked) == 6


# Limits


def test_a_page_larger_than_the_limit_is_given_up_whether_it_says_so_or_not(site: Site) -> None:
    site.replies["/said"] = Reply(b"x" * 10_001)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with pytest.raises(OSError):
            for _ in range(10_000):
                handler.wfile.write(b"x" * 10_000)

    site.replies["/endless"] = endless
    site.replies["/bomb"] = Reply(gzip.compress(b"\0" * 50_000_000), headers={"Content-Encoding": "gzip"})
    for path in ("/said", "/endless"):
        with pytest.raises(ConnectorError, match="larger than the limit"):
            fetch(site.address + path, limits())
    with pytest.raises(ConnectorError, match="larger than the limit"):
        fetch(site.address + "/bomb", limits(max_bytes=100_000))
    assert len(fetch(site.address + "/said", limits(max_bytes=10_001)).body) == 10_001


def test_a_server_that_drips_is_cut_off(site: Site) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"x")

    def drip_headers(handler: BaseHTTPRequestHandler) -> None:
        while not stop.wait(0.02):
            handler.wfile.write(b"x")

    site.replies |= {"/body": drip, "/headers": drip_headers}
    try:
        for path in ("/body", "/headers"):
            with pytest.raises(ConnectorError, match="took longer than"):
                fetch(site.address + path, limits(timeout_s=0.5))
    finally:
        stop.set()


def test_a_body_that_is_cut_off_is_no_page(site: Site) -> None:
    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    site.replies["/"] = short
    with pytest.raises(ConnectorError, match="IncompleteRead"):
        fetch(site.address + "/", limits())


def test_a_run_whose_time_is_over_asks_for_nothing(site: Site) -> None:
    site.page("/", "page")
    with pytest.raises(ConnectorError, match="max_minutes"):
        fetch(site.address + "/", Limits(1000, time.monotonic() - 1, allow_private=True))
    assert site.asked == []


# Encryption


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_https_is_verified_against_the_owners_authority_and_never_left(certificate: Path, folder: Path) -> None:
    with serving(certificate) as secure, serving() as plain:
        url = secure.page("/", "<title>Safe</title><p>words</p>")
        report = sync(web(url), folder)
        assert counts(report) == (0, 0, 0, 0) and "ca_file" in report.failures[0][1]
        trusting = web(url, ca_file=certificate)
        assert counts(sync(trusting, folder)) == (1, 0, 0, 0)
        wrong_name = web(url.replace("127.0.0.1", "localhost"), ca_file=certificate)
        assert "certificate cannot be verified" in sync(wrong_name, folder.with_name("other")).failures[0][1]
        absent = web(url, ca_file=folder / "absent.pem")
        assert "absent.pem cannot be read" in sync(absent, folder.with_name("third")).failures[0][1]
        secure.replies["/"] = Reply(status=302, headers={"Location": plain.address + "/"})
        assert sync(trusting, folder).failures[0][1] == "it redirects from https to http"
        assert plain.asked == []


# Sitemaps and pages


def test_the_pages_of_a_sitemap_are_mirrored_with_title_date_and_address(site: Site, folder: Path) -> None:
    modified = "Wed, 04 Mar 2026 10:00:00 GMT"
    one = site.page("/docs/vpn", "<title>VPN &amp; more</title><p>Open the client.</p>", Last_Modified=modified)
    two = site.page("/docs/mail", "<p>Mail</p>")
    elsewhere = "http://other.example/x"
    inner = site.sitemap("/inner.xml", two, one)
    packed = site.sitemap("/packed.xml", one)
    site.replies["/packed.xml.gz"] = Reply(gzip.compress(site.replies["/packed.xml"].body))  # type: ignore[union-attr]
    connector = sitemap(site.sitemap("/map.xml", inner, packed + ".gz", index=True))
    report = sync(connector, folder)
    assert counts(report) == (2, 0, 0, 0) and report.complete and report.failures == ()
    source, path = stored(connector, folder)[one]
    assert (source.address, source.title, source.date) == (one, "VPN & more", "2026-03-04")
    assert text(path) == "Open the client." and path.name.startswith("vpn-") and path.suffix == ".html"
    site.sitemap("/inner.xml", two, one, elsewhere)
    report = sync(connector, folder)
    assert report.complete and report.failures == ((elsewhere, "it is on another host: name that under hosts"),)


def test_an_unchanged_page_is_not_sent_again(site: Site, folder: Path) -> None:
    tagged = site.page("/a", "one", ETag='"v1"')
    plain = site.page("/b", "two")
    connector = web(tagged, plain)
    assert counts(sync(connector, folder)) == (2, 0, 0, 0)
    assert counts(sync(connector, folder)) == (0, 0, 0, 2)
    assert site.asked[2][1]["if-none-match"] == '"v1"' and "if-none-match" not in site.asked[3][1]
    site.page("/a", "three", ETag='"v2"')
    assert counts(sync(connector, folder)) == (0, 1, 0, 1)
    stored(connector, folder)[tagged][1].unlink()
    assert counts(sync(connector, folder)) == (1, 0, 0, 1)


def test_a_page_that_is_gone_is_removed_and_one_that_fails_stays(site: Site, folder: Path) -> None:
    urls = [site.page(f"/{name}", name) for name in ("gone", "broken", "left-out", "kept")]
    connector = sitemap(site.sitemap("/map.xml", *urls))
    assert counts(sync(connector, folder)) == (4, 0, 0, 0)
    site.replies["/gone"] = Reply(status=410)
    site.replies["/broken"] = Reply(status=500)
    site.sitemap("/map.xml", urls[0], urls[1], urls[3], site.address + "/never-there")
    report = sync(connector, folder)
    assert counts(report) == (0, 0, 2, 1) and report.complete
    assert report.failures == (
        (urls[1], "the server answered 500"),
        (site.address + "/never-there", "the server answered 404"),
    )
    assert set(stored(connector, folder)) == {urls[1], urls[3]}


def test_a_part_of_the_list_that_cannot_be_read_removes_nothing(site: Site, folder: Path) -> None:
    one, two = site.page("/one", "one"), site.page("/two", "two")
    parts = site.sitemap("/1.xml", one), site.sitemap("/2.xml", two)
    connector = sitemap(site.sitemap("/map.xml", *parts, index=True))
    sync(connector, folder)
    site.sitemap("/1.xml")
    site.replies["/2.xml"] = Reply(status=503)
    report = sync(connector, folder)
    assert not report.complete and counts(report) == (0, 0, 0, 0)
    assert set(stored(connector, folder)) == {one, two}
    site.replies["/map.xml"] = Reply(status=503)
    assert not sync(connector, folder).complete
    assert set(stored(connector, folder)) == {one, two}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>not a sitemap",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>',
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>&a;</loc></url></urlset>',
        gzip.compress(b"<urlset/>")[:-9],
        b"",
    ],
)
def test_a_sitemap_that_is_damaged_or_hostile_is_refused(site: Site, folder: Path, body: bytes) -> None:
    site.replies["/map.xml"] = Reply(body)
    report = sync(sitemap(site.address + "/map.xml"), folder)
    assert not report.complete and "cannot be read" in report.failures[0][1]


def test_an_address_that_is_none_costs_only_its_page(site: Site, folder: Path) -> None:
    site.replies["/moved"] = Reply(status=301, headers={"Location": "http://["})
    good, moved = site.page("/good", "<p>Good</p>"), site.address + "/moved"
    inner = site.sitemap("/inner.xml", "http://[", "http://exam\u2100ple.com/x", moved, good)
    report = sync(sitemap(site.sitemap("/index.xml", "http://[x", inner, index=True)), folder)
    assert counts(report) == (1, 0, 0, 0)
    reasons = dict(report.failures)
    assert reasons["http://["] == reasons["http://exam\u2100ple.com/x"] == "this is not a web address"
    assert reasons[moved] == "it redirects to what is no web address"
    assert not report.complete and "http://[x" in reasons


def test_a_page_that_opens_its_title_again_and_again_is_read(site: Site, folder: Path) -> None:
    page = site.page("/many", "<p>Words</p>" + "<title>" * 140_000 + "<title " * 140_000)
    connector = web(page)
    report = sync(connector, folder)
    assert report.failures == () and [source.title for source, _ in stored(connector, folder).values()] == [page]


def test_sitemaps_that_name_each_other_are_read_once(site: Site, folder: Path) -> None:
    first = site.sitemap("/a.xml", site.address + "/b.xml", index=True)
    site.sitemap("/b.xml", first, site.address + "/b.xml", index=True)
    assert sync(sitemap(first), folder).complete
    assert sorted(set(site.paths())) == ["/a.xml", "/b.xml"] and len(site.paths()) <= 3


def test_patterns_choose_pages_by_their_path(site: Site, folder: Path) -> None:
    urls = [site.page(path, "words") for path in ("/docs/a", "/docs/old/b", "/blog/c")]
    connector = sitemap(site.sitemap("/map.xml", *urls), include=("/docs/*",), exclude=("*/old/*",))
    sync(connector, folder)
    assert set(stored(connector, folder)) == {urls[0]}


def test_pages_keep_their_words_in_any_charset_and_other_types_are_named(site: Site, folder: Path) -> None:
    japanese, old = "日本語のページ", "Größe über alles"
    site.replies["/jp"] = Reply(japanese.encode("shift_jis"), headers={"Content-Type": "text/html; charset=Shift_JIS"})
    meta = '<meta charset="iso-8859-15"><p>' + old + " €"
    site.replies["/de"] = Reply(meta.encode("iso-8859-15"), headers={"Content-Type": "text/html"})
    site.replies["/bad"] = Reply("für".encode(), headers={"Content-Type": "text/plain; charset=no-such"})
    site.replies["/img"] = Reply(b"\x89PNG", headers={"Content-Type": "image/png"})
    site.replies["/sheet"] = Reply(b"a,b\n1,2\n", headers={"Content-Type": "text/csv"})
    urls = [site.address + path for path in ("/jp", "/de", "/bad", "/img", "/sheet")]
    connector = web(*urls)
    report = sync(connector, folder)
    assert report.failures == ((urls[3], "its content type is image/png, which cannot be read"),)
    found = stored(connector, folder)
    assert [text(found[url][1]) for url in urls[:3]] == [japanese, old + " €", "für"]
    assert found[urls[4]][1].suffix == ".csv"


def test_a_page_that_moves_to_another_host_needs_that_host_named(site: Site, folder: Path) -> None:
    site.page("/new", "moved")
    site.replies["/old"] = Reply(status=301, headers={"Location": f"http://localhost:{site.port}/new"})
    report = sync(web(site.address + "/old"), folder)
    assert report.failures[0][1] == "it redirects to localhost: name that under hosts"
    assert counts(sync(web(site.address + "/old", hosts=("localhost",)), folder)) == (1, 0, 0, 0)


def test_private_pages_are_refused_by_default(site: Site, folder: Path) -> None:
    url = site.page("/", "internal")
    report = sync(web(url, allow_private=False), folder)
    assert counts(report) == (0, 0, 0, 0) and "allow_private" in report.failures[0][1]
    report = sync(sitemap(site.sitemap("/map.xml", url), allow_private=False), folder.with_name("other"))
    assert not report.complete and site.asked == []


# Confluence


class Wiki:
    """The two endpoints of Confluence that the connector uses, on a Site: search with paging, and one page."""

    def __init__(self, site: Site, context: str) -> None:
        self.site, self.context = site, context
        self.pages: dict[str, dict[str, object]] = {}
        self.fail_at: str | None = None

    def page(self, identity: str, title: str, body: str, above: tuple[str, ...] = (), readers: int = 0) -> None:
        group = {"results": [{"name": "staff"}] * readers, "size": readers}
        self.pages[identity] = {
            "id": identity,
            "title": title,
            "body": {"export_view": {"value": body}},
            "version": {"number": 3, "when": "2026-02-03T10:11:12.000Z"},
            "ancestors": [{"id": other} for other in above],
            "restrictions": {"read": {"restrictions": {"user": {"results": []}, "group": group}}},
            "_links": {"webui": f"/spaces/IT/pages/{identity}"},
        }

    def publish(self, listed: list[str], per_answer: int = 2) -> None:
        """Answers searches for the listed pages, a few per answer, and requests for any page."""
        query = self.first_query()
        path = f"{self.context}/rest/api/content/search"
        for start in range(0, max(len(listed), 1), per_answer):
            part = [self.pages[identity] for identity in listed[start : start + per_answer]]
            links = {"base": self.site.address + self.context}
            if start + per_answer < len(listed):
                links["next"] = f"/rest/api/content/search?cursor={start + per_answer}"
            answer = Reply(json.dumps({"results": part, "_links": links}).encode())
            self.site.replies[f"{path}?{query}" if start == 0 else f"{path}?cursor={start}"] = answer
        for identity, page in self.pages.items():
            about = "expand=restrictions.read.restrictions.user%2Crestrictions.read.restrictions.group"
            url = f"{self.context}/rest/api/content/{identity}?{about}"
            self.site.replies[url] = Reply(json.dumps(page).encode())

    def first_query(self) -> str:
        """The query of the first search, by asking for it: its words are checked in a test of their own."""
        connector = confluence(self.site, self.context)
        from index.connectors.confluence import read_confluence

        with pytest.raises(ConnectorError):
            self.site.replies = {}
            next(iter(read_confluence(connector, time.monotonic() + 10)))
        return urlsplit(self.site.paths()[-1]).query


def confluence(site: Site, context: str = "/wiki", **values: object) -> ConfluenceFile:
    base = {"name": "wiki", "loader": "confluence", "url": site.address + context, "space": "IT", "allow_private": True}
    return ConfluenceFile.model_validate(base | values)


@pytest.mark.parametrize("context", ["/wiki", ""])
def test_all_pages_of_a_space_are_mirrored_across_answers(site: Site, folder: Path, context: str) -> None:
    wiki = Wiki(site, context)
    for number in range(5):
        wiki.page(str(number), f"Page <{number}>", f"<h2>Steps</h2><p>Words of {number}.</p><script>x()</script>")
    wiki.publish(["0", "1", "2", "3", "4"])
    connector = confluence(site, context)
    report = sync(connector, folder)
    assert counts(report) == (5, 0, 0, 0) and report.complete and report.failures == ()
    source, path = stored(connector, folder)["3"]
    assert source.address == f"{site.address}{context}/spaces/IT/pages/3"
    assert (source.title, source.date) == ("Page <3>", "2026-02-03")
    assert text(path) == "Page <3>\n\nSteps\n\nWords of 3."
    wiki.publish(["0", "1", "2", "4"])
    assert counts(sync(connector, folder)) == (0, 0, 1, 4)


def test_a_space_that_fails_on_a_later_answer_loses_nothing(site: Site, folder: Path) -> None:
    wiki = Wiki(site, "/wiki")
    for number in range(4):
        wiki.page(str(number), f"Page {number}", "<p>words</p>")
    wiki.publish(["0", "1", "2", "3"])
    connector = confluence(site)
    sync(connector, folder)
    wiki.page("1", "Page 1", "<p>new words</p>")
    wiki.publish(["1", "2", "3"])
    site.replies["/wiki/rest/api/content/search?cursor=2"] = Reply(status=502)
    report = sync(connector, folder)
    assert not report.complete and counts(report) == (0, 1, 0, 1)
    assert set(stored(connector, folder)) == {"0", "1", "2", "3"}


def test_restricted_pages_and_those_below_them_are_left_out(site: Site, folder: Path) -> None:
    wiki = Wiki(site, "/wiki")
    wiki.page("1", "Open", "<p>words</p>", above=("9",))
    wiki.page("2", "Closed", "<p>words</p>", readers=1)
    wiki.page("3", "Below closed", "<p>words</p>", above=("9", "2"))
    wiki.page("4", "Below one that is not listed", "<p>words</p>", above=("8",))
    wiki.page("5", "Below one that may not be seen", "<p>words</p>", above=("7",))
    wiki.page("8", "Closed, without the label", "<p>words</p>", readers=2)
    wiki.page("9", "Home", "<p>words</p>")
    wiki.page("6", "Says nothing", "<p>words</p>")
    del wiki.pages["6"]["restrictions"]
    wiki.page("0", "Says nothing of what it lies below", "<p>words</p>")
    del wiki.pages["0"]["ancestors"]
    wiki.publish(["0", "3", "1", "2", "4", "5", "6"])
    connector = confluence(site)
    report = sync(connector, folder)
    assert set(stored(connector, folder)) == {"1"} and report.complete
    wiki.page("1", "Open", "<p>words</p>", readers=1)
    wiki.publish(["3", "1", "2", "4", "5", "6"])
    assert counts(sync(connector, folder)) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("named", "sent"),
    [
        ({"token_env": "WIKI_TOKEN"}, "Bearer hunter2"),
        (
            {"token_env": "WIKI_TOKEN", "user_env": "WIKI_USER"},
            "Basic " + base64.b64encode(b"me@x.example:hunter2").decode(),
        ),
    ],
)
def test_a_token_goes_to_the_server_and_nowhere_else(
    site: Site,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    named: dict[str, str],
    sent: str,
) -> None:
    monkeypatch.setenv("WIKI_TOKEN", "hunter2")
    monkeypatch.setenv("WIKI_USER", "me@x.example")
    connector = confluence(site, label="help", **named)
    with caplog.at_level("DEBUG"):
        report = sync(connector, folder)
    assert site.asked[0][1]["authorization"] == sent
    asked = parse_qs(urlsplit(site.paths()[0]).query)
    assert asked["cql"] == ['space = "IT" and type = page and label = "help" order by created']
    assert not report.complete and "token_env" in report.failures[0][1]
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in ("hunter2", sent.split()[1]):
        assert secret not in repr(connector) + repr(report) + caplog.text and secret.encode() not in written


def test_a_missing_token_is_named(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WIKI_TOKEN", raising=False)
    report = sync(confluence(site, token_env="WIKI_TOKEN"), folder)
    assert not report.complete and "environment variable WIKI_TOKEN" in report.failures[0][1] and site.asked == []


@pytest.mark.parametrize("context", ["/wiki", ""])
@pytest.mark.parametrize("following", ["http://localhost:{0}/x", "//localhost:{0}/x", "/../../x?y", "@localhost:{0}/"])
def test_a_list_that_leads_to_another_server_is_not_followed(
    site: Site, folder: Path, following: str, context: str
) -> None:
    wiki = Wiki(site, context)
    following = following.format(site.port)
    wiki.page("1", "Page", "<p>words</p>")
    wiki.publish(["1"])
    query = next(path for path in site.replies if "cql" in path)
    page = wiki.pages["1"]
    site.replies[query] = Reply(json.dumps({"results": [page], "_links": {"next": following}}).encode())
    report = sync(confluence(site, context), folder)
    assert not report.complete and counts(report) == (1, 0, 0, 0)
    assert all(headers["host"] == f"127.0.0.1:{site.port}" for _, headers in site.asked)
