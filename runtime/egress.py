"""How bytes leave this machine: proxy and certificates from the environment, and the socket-level backend.

The environment is read once, by the caller, into an :class:`Egress`; nothing below looks at it again.

Proxies are done here, below httpcore's connection class, and not with httpcore's own proxy classes: there the
``CONNECT`` goes through the same trace as the request, so a proxy that refuses would look like a request that was
sent, and a paid call could no longer be proven unsent.
"""

import base64
import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Self

import httpcore
import httpx
import msgspec
import trio

from adapters.base import Secret
from runtime.addresses import Peers, is_loopback, parse_address, peer_allowed
from runtime.ports import FetchRefused

_MAX_CONNECT_REPLY = 16 * 1024


class Proxy(msgspec.Struct, frozen=True):
    scheme: str
    host: str
    port: int
    authorization: Secret | None = None


class Egress(msgspec.Struct, frozen=True):
    """The user's network settings.  Plain http is used towards loopback only, so ``HTTP_PROXY`` has no say."""

    proxy: Proxy | None = None
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read ``HTTPS_PROXY``, ``NO_PROXY`` (either case, lower first) and ``SSL_CERT_FILE``.

        Raises:
            ValueError: the proxy is not an http:// or https:// URL, or the certificates cannot be loaded.  The text
                names no password.
        """
        proxy = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
        no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        egress = cls(
            proxy=_parse_proxy(proxy) if proxy else None,
            no_proxy=tuple(entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()),
            ca_file=environ.get("SSL_CERT_FILE", ""),
        )
        if egress.ca_file:
            try:
                egress.tls_context()  # found out now, at the start, and not at the first call of the night
            except OSError as exc:  # includes ssl.SSLError
                raise ValueError(f"SSL_CERT_FILE {egress.ca_file}: {exc.strerror or exc}") from exc
        return egress

    def proxy_for(self, host: str) -> Proxy | None:
        return None if self.proxy is None or is_loopback(host) or _bypassed(host, self.no_proxy) else self.proxy

    def tls_context(self) -> ssl.SSLContext:
        """Build the TLS context; costs some 25 ms, so it is made once and shared."""
        if self.ca_file:
            return ssl.create_default_context(cafile=self.ca_file)
        return httpx.create_ssl_context(trust_env=False)


class Network(httpcore.AsyncNetworkBackend):
    """Connects, judges the peer before anyone can write to it, and never leaks a socket on cancellation.

    Through a proxy the peer is the proxy, which the user chose, and the address behind it can't be seen.  What
    guards a download there is the list of hosts, https, and the certificate that must carry such a host's name.
    """

    def __init__(
        self, egress: Egress, *, peers: Peers = "any", dial: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._egress = egress
        self._peers = peers
        self._dial = dial or httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        proxy = self._egress.proxy_for(host)
        if proxy is not None:
            literal = parse_address(host)
            if literal is not None and not peer_allowed(host, self._peers):
                raise FetchRefused(f"address {literal} is not a public one")
            return await self._through(proxy, host, port, timeout)
        stream = _Stream(await self._dial.connect_tcp(host, port, timeout, local_address, socket_options))
        if self._peers != "any":
            peer = str(stream.get_extra_info("server_addr")[0])
            if not peer_allowed(peer, self._peers):
                await stream.abort()
                raise FetchRefused(f"host {host[:100]!r} is at {peer}, which is not a {self._peers} address")
        return stream

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        # The interface of httpcore asks for it; nothing of ours names a socket file.
        raise httpcore.ConnectError("bydawn speaks TCP only")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @cached_property
    def _proxy_tls(self) -> ssl.SSLContext:
        return self._egress.tls_context()

    async def _through(self, proxy: Proxy, host: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
        """Open a tunnel with ``CONNECT`` (RFC 9110, 9.3.6); not one byte of the request is in it."""
        stream = _Stream(await self._dial.connect_tcp(proxy.host, proxy.port, timeout, None, None))
        try:
            if proxy.scheme == "https":
                secured = await stream.start_tls(self._proxy_tls, proxy.host, timeout)
                stream = _Stream(secured)
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
            if proxy.authorization is not None:
                head += f"Proxy-Authorization: {proxy.authorization.reveal()}\r\n"
            await stream.write(head.encode("ascii") + b"\r\n", timeout)
            reply = b""
            while b"\r\n\r\n" not in reply:
                chunk = await stream.read(4096, timeout)
                reply += chunk
                if not chunk or len(reply) > _MAX_CONNECT_REPLY:
                    raise httpcore.ProxyError("the proxy broke off its answer to CONNECT")
            version, _, rest = reply.partition(b" ")
            if not version.startswith(b"HTTP/1.") or rest[:1] != b"2" or not reply.endswith(b"\r\n\r\n"):
                raise httpcore.ProxyError(f"the proxy refused: {rest[:3].decode('ascii', 'replace')}")
        except BaseException:
            await stream.abort()
            raise
        return stream


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that closes its socket when a TLS handshake is cancelled, which httpcore's own does not."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def abort(self) -> None:
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self.abort()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _parse_proxy(text: str) -> Proxy:
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        raise ValueError("HTTPS_PROXY is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"HTTPS_PROXY: a {url.scheme}:// proxy is not supported, only http:// and https://")
    authorization = None
    if url.userinfo:
        pair = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
        authorization = Secret(f"Basic {pair}")
    port = url.port or (443 if url.scheme == "https" else 80)
    return Proxy(scheme=url.scheme, host=url.host, port=port, authorization=authorization)


def _bypassed(host: str, no_proxy: tuple[str, ...]) -> bool:
    """Match ``NO_PROXY`` as curl does: ``*``, a domain with its subdomains, an address, a network."""
    host = host.rstrip(".").lower()
    address = parse_address(host)
    for entry in no_proxy:
        if entry == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                continue
        elif host == entry.lstrip(".") or host.endswith("." + entry.lstrip(".")):
            return True
    return False
