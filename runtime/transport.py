"""A lean last-in-first-out httpx transport over httpcore's HTTP/1.1 connection.

Why not the stock pool: it looks at every connection on each request that comes and goes and collapses above some
ten busy ones (encode/httpx#3215; figures in ``tests/bench/bench_http.py``).  Here a request takes the connection
that idled least, which is one ``pop``.  TLS, timeouts and HTTP itself stay httpcore's.

What it promises:

* No retry of any kind (MON-5).  A connection that saw an error or a cancellation is closed, never used again.
* A request names how stale a connection it accepts (``extensions["max_idle_s"]``).  A server may close an idle
  connection at the very moment we write to it, and then nobody knows whether it read a paid request.
* Whatever happens, a slot and a socket are given back: ``opened == closed + idle + active`` always.

It follows no redirect, keeps no cookie and reads no environment.
"""

import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Literal, TypeAlias

import httpcore
import httpx
import msgspec
import trio

_Key: TypeAlias = tuple[bytes, bytes, int]

_PORTS = {b"http": 80, b"https": 443}
_TRIM_EVERY_S = 5.0

# The most specific first; httpx users expect httpx's errors from a transport.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.TimeoutException, httpx.TimeoutException),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.ProxyError, httpx.ProxyError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.ProtocolError, httpx.ProtocolError),
)


class TransportStatistics(msgspec.Struct, frozen=True):
    """A snapshot, summed over all origins.  ``waiting`` requests have no slot yet."""

    origins: int
    active: int
    idle: int
    waiting: int
    opened: int
    reused: int
    closed: int


class _Idle(msgspec.Struct, frozen=True):
    connection: httpcore.AsyncHTTPConnection
    since: float


class _Origin:
    """One scheme, host and port: its free slots and the stack of idle connections (newest right)."""

    __slots__ = ("active", "idle", "key", "origin", "slots", "waiting")

    def __init__(self, key: _Key, max_connections: int) -> None:
        self.key = key
        self.origin = httpcore.Origin(*key)
        self.idle: deque[_Idle] = deque()
        self.slots = trio.Semaphore(max_connections)
        self.active = 0
        self.waiting = 0


class LifoTransport(httpx.AsyncBaseTransport):
    """The connections to all origins that share one network backend and one TLS context.

    Args:
        network: connects sockets; :class:`runtime.egress.Network`.
        tls: gives the shared TLS context, called at the first https origin (building one takes 25 ms).
        max_connections: per origin, busy and idle together; more requests wait for a slot.
        max_idle: idle connections over all origins.
        keep_idle_s: an idle connection is closed after that; also the default for ``max_idle_s``.
    """

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend,
        tls: Callable[[], ssl.SSLContext],
        *,
        max_connections: int = 128,
        max_idle: int = 256,
        keep_idle_s: float = 20.0,
    ) -> None:
        self._network = network
        self._tls = tls
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._keep_idle_s = keep_idle_s
        self._origins: dict[_Key, _Origin] = {}
        self._idle = 0
        self._opened = self._reused = self._closed = 0
        self._next_trim = 0.0
        self._shut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._shut:
            raise RuntimeError("the transport is closed")
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = request.url
        key = (url.raw_scheme, url.raw_host, url.port or _PORTS.get(url.raw_scheme, 0))
        if not key[2]:
            raise httpx.UnsupportedProtocol(f"scheme {url.scheme!r}")
        place = self._origins.get(key)
        if place is None:
            place = self._origins[key] = _Origin(key, self._max_connections)
        place.waiting += 1
        try:
            await place.slots.acquire()
        except BaseException:
            place.waiting -= 1
            self._forget_if_empty(place)
            raise
        place.waiting -= 1
        place.active += 1
        connection: httpcore.AsyncHTTPConnection | None = None
        try:
            connection = await self._take(place, request.extensions.get("max_idle_s", self._keep_idle_s))
            with _mapped():
                response = await connection.handle_async_request(
                    httpcore.Request(
                        request.method,
                        httpcore.URL(scheme=key[0], host=key[1], port=key[2], target=url.raw_path),
                        headers=request.headers.raw,
                        content=request.stream,
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            await self._release(place, connection, keep=False)
            raise

        give_back = partial(self._release, place, connection, keep=True)
        body = Body(response, connection, give_back)
        return httpx.Response(response.status, headers=response.headers, stream=body, extensions=response.extensions)

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(
            origins=len(self._origins),
            active=sum(place.active for place in self._origins.values()),
            idle=sum(len(place.idle) for place in self._origins.values()),
            waiting=sum(place.waiting for place in self._origins.values()),
            opened=self._opened,
            reused=self._reused,
            closed=self._closed,
        )

    async def aclose(self) -> None:
        """Close what is idle now, and what is busy when its response is closed."""
        self._shut = True
        for place in list(self._origins.values()):
            while place.idle:
                await self._close_oldest(place)

    # --- taking and giving back ---

    async def _take(self, place: _Origin, max_idle_s: float) -> httpcore.AsyncHTTPConnection:
        """Pop the freshest connection that is fresh enough and not hung up on, or make one (not yet connected)."""
        now = trio.current_time()
        while place.idle and now - place.idle[-1].since <= max_idle_s:
            connection = place.idle.pop().connection
            self._idle -= 1
            if connection.is_available() and not connection.has_expired():
                self._reused += 1
                return connection
            await self._close(connection)
        if place.active + len(place.idle) > self._max_connections:
            await self._close_oldest(place)  # too stale for this request, and no room for one more
        tls = self._tls() if place.origin.scheme == b"https" else None
        self._opened += 1
        return httpcore.AsyncHTTPConnection(place.origin, ssl_context=tls, network_backend=self._network)

    async def _release(self, place: _Origin, connection: httpcore.AsyncHTTPConnection | None, *, keep: bool) -> None:
        now = trio.current_time()
        try:
            if connection is None:
                pass
            elif keep and not self._shut and connection.is_idle():
                place.idle.append(_Idle(connection, now))
                self._idle += 1
            else:
                await self._close(connection)
        finally:
            place.active -= 1
            place.slots.release()
        if self._idle > self._max_idle or now >= self._next_trim:
            await self._trim(now)
        self._forget_if_empty(place)

    async def _trim(self, now: float) -> None:
        """Close what idled too long, everywhere, and the oldest ones when there are too many."""
        self._next_trim = now + _TRIM_EVERY_S
        for place in list(self._origins.values()):
            while place.idle and now - place.idle[0].since > self._keep_idle_s:
                await self._close_oldest(place)
        while self._idle > self._max_idle:
            crowded = (place for place in self._origins.values() if place.idle)
            await self._close_oldest(min(crowded, key=lambda place: place.idle[0].since))

    async def _close_oldest(self, place: _Origin) -> None:
        self._idle -= 1
        connection = place.idle.popleft().connection
        self._forget_if_empty(place)
        await self._close(connection)

    async def _close(self, connection: httpcore.AsyncHTTPConnection) -> None:
        self._closed += 1
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await connection.aclose()

    def _forget_if_empty(self, place: _Origin) -> None:
        # Result hosts may come with a subdomain per file: origins must not pile up over a night.
        if not (place.active or place.idle or place.waiting) and self._origins.get(place.key) is place:
            del self._origins[place.key]


class Body(httpx.AsyncByteStream):
    """The body of a response, read at the pace of its reader; closing it gives the connection back.

    Not an async generator, because httpcore's own are nested ones, and a generator dropped half-way is finished by
    the garbage collector, at some time, in some task.  Stopping early closes the socket and lets the generators run
    into the error that follows.
    """

    def __init__(
        self,
        response: httpcore.Response,
        connection: httpcore.AsyncHTTPConnection,
        give_back: Callable[[], Awaitable[None]],
    ) -> None:
        assert isinstance(response.stream, AsyncIterable)
        self._response = response
        self._connection = connection
        self._give_back = give_back
        self._chunks: AsyncIterator[bytes] = aiter(response.stream)
        self._state: Literal["new", "reading", "ended", "closed"] = "new"

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._state in ("ended", "closed"):
            raise StopAsyncIteration
        self._state = "reading"
        try:
            with _mapped():
                return await anext(self._chunks)
        except BaseException:
            self._state = "ended"
            raise

    async def aclose(self) -> None:
        state, self._state = self._state, "closed"
        if state == "closed":
            return
        try:
            with trio.CancelScope(shield=True):  # nothing in here waits for the network
                if state == "reading":
                    await self._connection.aclose()
                    with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError):
                        async for _ in self._chunks:
                            pass
                else:
                    await self._response.aclose()
        finally:
            await self._give_back()


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Translate httpcore's errors to httpx's, as every httpx transport does."""
    try:
        yield
    except Exception as exc:
        for ours, theirs in _ERRORS:
            if isinstance(exc, ours):
                raise theirs(str(exc)) from exc
        raise
