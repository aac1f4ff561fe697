"""Which network addresses a connector may speak to. Names are resolved once, here, and only the result is used."""

import ipaddress
import re
import socket

from index.connectors.items import ConnectorError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NEVER = _networks(
    "0.0.0.0/8",  # "this host": Linux connects to loopback
    "169.254.0.0/16",  # link-local, the metadata service of most clouds
    "100.100.100.200/32",  # metadata, Alibaba
    "168.63.129.16/32",  # Azure's host, a public address
    "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, broadcast
    "::/128",
    "64:ff9b:1::/48",  # local translation to IPv4
    "100::/64",  # discard
    "2001::/23",  # Teredo and other protocol assignments
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: an IPv4 address in disguise
    "3fff::/20",  # documentation
    "5f00::/16",  # segment routing
    "fd00:ec2::/32",  # metadata, AWS
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, given up
    "ff00::/8",  # multicast
)
"""Refused always. From the IANA special-purpose registries (RFC 6890 and its updates) and the clouds' manuals."""
_PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"
)
"""Refused unless the owner allows private addresses."""
_IPV4_INSIDE = _networks("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")
"""IPv6 prefixes that carry an IPv4 address in their last 32 bits: mapped, translated (two forms), compatible."""
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|\d+)\.?", re.IGNORECASE)


def is_refused(address: IPAddress, allow_private: bool) -> bool:
    """Whether a connector must not speak to this address."""
    if any(address in network for network in _NEVER):
        return True
    if any(address in network for network in _PRIVATE):
        return not allow_private
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _IPV4_INSIDE):
            return is_refused(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), allow_private)
        return address not in _GLOBAL_V6
    return False


def resolve(host: str, port: int, allow_private: bool) -> list[IPAddress]:
    """The addresses of a host, in the system's order, every one of which may be spoken to.

    Raises ConnectorError if one of them may not, if the host does not exist, or if it is an IPv4 address that
    is not written as four decimal numbers (127.1, 2130706433, 0x7f000001 and 0177.0.0.1 are all loopback).
    """
    if "%" in host or "\x00" in host or not host:
        raise ConnectorError(f"{host!r} is no host name")
    if _NUMBER.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]) and not _is_dotted(host):
        raise ConnectorError(f"{host!r} is an address in an unusual form: write four decimal numbers")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConnectorError(f"the host {host} cannot be found: check the address and this machine's network") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        if is_refused(address, allow_private):
            hint = "" if allow_private else " (allow_private: true in desk.yaml opens private ones)"
            raise ConnectorError(f"the host {host} has an address that connectors must not reach{hint}")
    return list(dict.fromkeys(addresses))


def _is_dotted(host: str) -> bool:
    """Whether it is an IPv4 address in the usual form (or an IPv6 one, which has one reading only)."""
    try:
        return ":" in host or str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False
