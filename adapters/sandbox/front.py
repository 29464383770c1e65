"""The TCP front of the sandbox: passes bytes both ways and performs what HTTP cannot say, a connection reset.

An ASGI server can close a connection early but not reset it, and what a client library does on a reset is one of
the things to practise.  The server behind marks an answer with a header; the front, which sees every answer's
head first, then resets instead of passing it on.
"""

import contextlib
import socket
import struct

import trio

MARK_HEADER = "x-sandbox-transport"
_MARK = f"\r\n{MARK_HEADER}: reset\r\n".encode()
_CHUNK = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)  # close() then sends RST and drops what is unsent


async def serve_front(listeners: list[trio.SocketListener], behind: tuple[str, int]) -> None:
    """Pass every connection on to the server at ``behind``, for ever."""

    async def handle(client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream(*behind)
        except OSError:  # shutting down
            return
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_requests, client, server)
            await _pass_answers(server, client)
            nursery.cancel_scope.cancel()

    await trio.serve_listeners(handle, listeners)


async def _pass_requests(client: trio.SocketStream, server: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await client.receive_some(_CHUNK):
            await server.send_all(data)
    # A client that is done is taken to have left: no HTTP client closes its half and still waits for an answer, and
    # the server behind would keep the connection for its idle time.  Closing ends the other direction too.
    await server.aclose()


async def _pass_answers(server: trio.SocketStream, client: trio.SocketStream) -> None:
    # Broken or closed: the client left, or _pass_requests noticed it first.
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await server.receive_some(_CHUNK):
            # Clients of the sandbox do not pipeline: an answer's head is always the first thing in a chunk.
            if data.startswith(b"HTTP/1.1 ") and _MARK in data.partition(b"\r\n\r\n")[0] + b"\r\n":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                return
            await client.send_all(data)
