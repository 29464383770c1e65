"""Listening at an address of this machine: a bounded number of connections, each for a bounded time.

A port is asked by more than those it is for.  Hypercorn speaks HTTP and gives up on a request whose head does not come
within its idle time; it takes as many connections as there come, though, for as long as they move, and each costs
memory and a file descriptor of the process that also buys.  So connections are taken here: ``most`` at once, the rest
wait in the kernel's queue until one ends, and none lasts longer than ``LONGEST_S``.

Hypercorn's own ``serve`` has no place for that, so its connection is used below it, which is not documented: a release
that moves it is found by every test of the receiver.
"""

import errno
import logging
import socket
from functools import partial
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from bydawn.errors import UserError
from bydawn.webhooks import Place

_log = logging.getLogger(__name__)

MOST = 128
LONGEST_S = 30.0
_IDLE_S = 5.0  # before a request, and between the first byte of its head and the last
_HEAD_BYTES = 16 << 10
_PAUSE_S = 0.1  # when the process is out of file descriptors


def bound(place: Place, *, where: str) -> socket.socket | None:
    """A listening socket; None while another process has the address.  ``where`` names the option in errors.

    Raises:
        UserError: the address cannot be had at all.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
        listener.listen(100)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            return None
        raise UserError(
            "BD-112",
            f"bydawn cannot listen at {place.text}",
            where=where,
            why=exc.strerror or str(exc),
            fix="another HOST:PORT of this machine; ports below 1024 are not for everybody",
        ) from exc
    return listener


async def serve_bounded(
    app: ASGIApp,
    listener: socket.socket,
    *,
    most: int = MOST,
    longest_s: float = LONGEST_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until cancelled.  Started means: the next connection is taken."""
    config = _config()
    framework = cast(ASGIFramework, app)  # the two libraries type ASGI differently
    wrapped = wrap_app(framework, config.wsgi_max_body_size, "asgi")
    serving = partial(_Connection, wrapped, config, WorkerContext(None), ConnectionState({}))
    slots = trio.Semaphore(most)

    async def connection(stream: trio.SocketStream) -> None:
        try:
            await _for_a_while(serving, stream, longest_s)
        except Exception:
            # A stranger who finds a fault of a library ends this connection, not the listening.
            _log.exception("a connection was given up")
        finally:
            slots.release()

    async with trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as taking, trio.open_nursery() as nursery:
        task_status.started()
        while True:
            await slots.acquire()
            stream = await _taken(taking)
            nursery.start_soon(connection, stream)


class _Connection(TCPServer):
    """One that has ended is over: hypercorn's own waits out the idle time first, and would hold the place so long."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


async def _for_a_while(serving: "partial[_Connection]", stream: trio.SocketStream, longest_s: float) -> None:
    async def hang_up() -> None:
        await trio.sleep(longest_s)
        # Closed and not cancelled: what hypercorn sends is shielded, and would wait for a peer that does not read.
        await stream.aclose()

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        await serving(stream)
        nursery.cancel_scope.cancel()


async def _taken(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            _log.error("no connection can be taken: %s", exc.strerror)
            await trio.sleep(_PAUSE_S)


def _config() -> Config:
    config = Config()
    config.accesslog = None  # paths hold tokens (SEC-1)
    config.loglevel = "ERROR"
    config.include_server_header = False
    config.keep_alive_timeout = _IDLE_S
    config.h11_max_incomplete_size = _HEAD_BYTES
    config.h2_max_concurrent_streams = 4  # who upgrades is one connection all the same
    return config
