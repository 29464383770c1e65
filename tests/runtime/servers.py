"""A tiny HTTP/1.1 server over real sockets for the wire's tests: every byte it sends is in the test's hands."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import trio

TLS = Path(__file__).parent.parent / "data" / "tls"  # self-signed, for api.example.com, cdn.example.com, localhost


class Seen(msgspec.Struct, frozen=True):
    """One request as the server read it; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int  # 1 for the first connection of this server


Handler = Callable[[Seen, trio.abc.Stream], Awaitable[None]]


class Server:
    """What a test sees of a running server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.connections = 0
        self.open = 0
        self.seen: list[Seen] = []


@contextlib.asynccontextmanager
async def serve(handler: Handler, *, tls: bool = False) -> AsyncIterator[Server]:
    """Serve until the block ends.  A handler that closes the stream ends the connection."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Server(listeners[0].socket.getsockname()[1])

        async def talk(stream: trio.SocketStream) -> None:
            server.connections += 1
            server.open += 1
            number = server.connections
            try:
                peer: trio.abc.Stream = stream
                if tls:
                    peer = trio.SSLStream(stream, server_tls(), server_side=True, https_compatible=True)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while (request := await _read_request(peer, number)) is not None:
                        server.seen.append(request)
                        await handler(request, peer)
            finally:
                server.open -= 1
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

        nursery.start_soon(trio.serve_listeners, talk, listeners)
        yield server
        nursery.cancel_scope.cancel()


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return context


def http(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Spell a whole response; underscores in header names become dashes."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _read_request(stream: trio.abc.Stream, connection: int) -> Seen | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some(65536)
    return Seen(method=method, target=target, headers=headers, body=body, connection=connection)
