"""A network that lies: names that change their mind, and sockets that claim to be connected to somewhere else."""

import socket
import ssl
from collections.abc import Iterable

import httpcore
import trio


class Resolver(trio.abc.HostnameResolver):
    """Answers each question with the next address, or addresses with a space between: a name that changes its mind."""

    def __init__(self, answers: Iterable[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]  # noqa: A002
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        return [one for address in self.answers.pop(0).split() for one in _numeric(address, port, type)]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise AssertionError("nobody asks for names")


def _numeric(address: str, port: int, kind: int) -> list[tuple[object, ...]]:
    return [*socket.getaddrinfo(address, port, type=kind, flags=socket.AI_NUMERICHOST)]


class Elsewhere(httpcore.AsyncNetworkBackend):
    """Dials a local server, whose socket then claims to be at ``addresses[host]``."""

    def __init__(self, port: int, addresses: dict[str, str]) -> None:
        self.port, self.addresses = port, addresses
        self.dialled: list[str] = []

    async def connect_tcp(self, host: str, *args: object, **kwargs: object) -> httpcore.AsyncNetworkStream:
        self.dialled.append(host)
        inner = await httpcore.TrioBackend().connect_tcp("127.0.0.1", self.port)
        return Claiming(inner, self.addresses[host])


class Claiming(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream, address: str) -> None:
        self.inner, self.address = inner, address

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self.inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self.inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return await self.inner.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> object:
        return (self.address, 443) if info == "server_addr" else self.inner.get_extra_info(info)
