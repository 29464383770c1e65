"""Where a download may come from: hosts by name before connecting, addresses on the connected socket.

A result URL is what a provider tells us, and a provider may be wrong, taken over, or fooled.  So a URL is judged
twice (SEC-3): its scheme and host by :func:`refusal` before anything is resolved, and the address that the socket
is really connected to by :func:`is_global` before a byte is sent.  Resolving first and connecting afterwards
would leave a gap for a name that changes in between; the peer of a connected socket can't change.

Pure: no socket is opened here.
"""

import ipaddress
from typing import Literal, TypeAlias

import httpx

Peers: TypeAlias = Literal["any", "global", "loopback"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Special-purpose blocks (IANA registries, read 2026-11) that some patch releases of Python 3.11 call global.
_SPECIAL = tuple(
    ipaddress.ip_network(block)
    for block in ("192.0.0.0/24", "64:ff9b:1::/48", "100::/64", "2001::/23", "3fff::/20", "5f00::/16")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_V4_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1: deprecated, and still routed by some
MAX_URL_CHARS = 8192


def parse_address(host: str) -> _Address | None:
    """Read an address as sockets print it (with a scope, without brackets); None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Say whether a host means this machine, by name or address."""
    address = parse_address(host)
    if address is None:
        return host.rstrip(".").lower() == "localhost"
    return (_embedded(address) or address).is_loopback


def is_global(address: _Address) -> bool:
    """Say whether an address is a public unicast one, also when it wraps an IPv4 address.

    ``ipaddress`` calls multicast global and does not look into every wrapper, and what it calls private has
    changed between patch releases of Python: the checks overlap on purpose.
    """
    inner = _embedded(address)
    if inner is not None and not is_global(inner):
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or any(address in block for block in _SPECIAL)
        or (address.version == 6 and address.is_site_local)
        or (address.version == 4 and address.is_reserved)
    )


def peer_allowed(host: str, peers: Peers) -> bool:
    """Judge the address of a connected socket's other end."""
    if peers == "any":
        return True
    address = parse_address(host)
    if address is None:
        return False
    if peers == "loopback":
        return (_embedded(address) or address).is_loopback
    return is_global(address)


def host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Match a host against exact names and ``.suffix`` entries; a suffix does not match its own bare domain."""
    host = host.rstrip(".").lower()
    if host.startswith("."):
        return False
    return any(host.endswith(entry) if entry[:1] == "." else host == entry for entry in allowed)


def valid_port(url: httpx.URL) -> bool:
    return url.port is None or 0 < url.port < 65536


def refusal(url: httpx.URL, *, hosts: tuple[str, ...], loopback: bool) -> str | None:
    """Say why a download may not go to ``url``; None when it may.  The text never holds the URL itself (SEC-1)."""
    here = loopback and is_loopback(url.host)
    if url.scheme != "https" and not (here and url.scheme == "http"):
        return f"scheme {url.scheme[:16]!r} is not https"
    if url.userinfo:
        return "the URL carries credentials"
    if not valid_port(url):
        return "the port is not one"
    if len(str(url)) > MAX_URL_CHARS:
        return f"the URL is longer than {MAX_URL_CHARS} characters"
    if not (here or host_allowed(url.host, hosts)):
        return f"host {url.host[:100]!r} is not on the list of this provider's result hosts"
    return None


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    """Unwrap the IPv4 address inside an IPv6 one: mapped, 6to4, Teredo, NAT64, compatible."""
    if address.version == 4:
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 0xFFFF):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
