"""The transport: reuse, staleness, slots, and no leak wherever a request is cancelled."""

import gc
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock, trio_test

from runtime.egress import Egress, Network
from runtime.transport import LifoTransport
from tests.runtime.servers import TLS, Seen, http, serve


def transport(**options: float) -> LifoTransport:
    def tls() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(TLS / "cert.pem"))

    return LifoTransport(Network(Egress()), tls, **options)  # type: ignore[arg-type]


async def ok(seen: Seen, stream: trio.abc.Stream) -> None:
    await stream.send_all(http(body=b"fine"))


async def get(pool: LifoTransport, url: str, **extensions: object) -> bytes:
    response = await pool.handle_async_request(httpx.Request("GET", url, extensions=extensions))
    try:
        return b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr]
    finally:
        await response.aclose()


def balanced(pool: LifoTransport) -> bool:
    s = pool.statistics()
    return s.opened == s.closed + s.idle + s.active and s.active == 0 and s.waiting == 0


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@trio_test
async def test_requests_one_after_another_share_a_connection() -> None:
    pool = transport()
    async with serve(ok) as server:
        for _ in range(3):
            assert await get(pool, server.url) == b"fine"
        assert server.connections == 1
        assert pool.statistics().reused == 2
        await pool.aclose()
    assert balanced(pool)
    assert pool.statistics().origins == 0


@trio_test
async def test_the_connection_that_idled_least_is_taken() -> None:
    pool = transport()
    gate = trio.Event()

    async def handler(seen: Seen, stream: trio.abc.Stream) -> None:
        if seen.target == "/wait":
            await gate.wait()
        await stream.send_all(http(body=b"fine"))

    async with serve(handler) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, pool, server.url + "/wait")
            await trio.testing.wait_all_tasks_blocked()
            while not server.seen:
                await trio.lowlevel.checkpoint()
            await get(pool, server.url + "/second")
            gate.set()
        await get(pool, server.url + "/third")
        assert [seen.connection for seen in server.seen] == [1, 2, 1]
        await pool.aclose()


@trio_test
async def test_a_stale_connection_is_left_for_those_who_accept_it(clock: MockClock) -> None:
    pool = transport()
    async with serve(ok) as server:
        await get(pool, server.url)
        clock.jump(3)
        await get(pool, server.url, max_idle_s=2.0)
        assert server.connections == 2
        clock.jump(3)
        await get(pool, server.url)
        assert server.connections == 2
        assert server.seen[-1].connection == 2
        await pool.aclose()


@trio_test
async def test_a_connection_that_idled_too_long_is_closed(clock: MockClock) -> None:
    pool = transport(keep_idle_s=20)
    async with serve(ok) as server:
        await get(pool, server.url)
        clock.jump(21)
        await get(pool, server.url)
        assert server.connections == 2
        assert pool.statistics().idle == 1
        assert pool.statistics().closed == 1
        await pool.aclose()


@trio_test
async def test_a_connection_that_the_server_hung_up_is_not_used() -> None:
    pool = transport()

    async def once(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"fine"))
        await stream.aclose()

    async with serve(once) as server:
        await get(pool, server.url)
        while server.open:
            await trio.lowlevel.checkpoint()
        assert await get(pool, server.url) == b"fine"
        assert server.connections == 2
        await pool.aclose()
    assert balanced(pool)


@trio_test
async def test_more_requests_than_slots_wait_their_turn() -> None:
    pool = transport(max_connections=2)
    gate = trio.Event()

    async def handler(seen: Seen, stream: trio.abc.Stream) -> None:
        await gate.wait()
        await stream.send_all(http(body=b"fine"))

    async with serve(handler) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(get, pool, server.url)
            while len(server.seen) < 2:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().active == 2
            assert pool.statistics().waiting == 3
            gate.set()
        assert server.connections == 2
        await pool.aclose()
    assert balanced(pool)


@trio_test
async def test_idle_and_busy_together_stay_within_the_slots(clock: MockClock) -> None:
    pool = transport(max_connections=1)
    async with serve(ok) as server:
        await get(pool, server.url)
        clock.jump(3)
        await get(pool, server.url, max_idle_s=2.0)
        assert pool.statistics().idle == 1
        assert pool.statistics().closed == 1
        await pool.aclose()


@trio_test
async def test_idle_connections_over_all_origins_are_bounded() -> None:
    pool = transport(max_idle=2)
    async with serve(ok) as a, serve(ok) as b, serve(ok) as c:
        for server in (a, b, c):
            await get(pool, server.url)
        assert pool.statistics().idle == 2
        assert pool.statistics().origins == 2
        await get(pool, b.url)
        assert b.connections == 1
        await pool.aclose()
    assert balanced(pool)


@trio_test
async def test_a_body_that_is_not_read_to_the_end_costs_its_connection_and_nothing_else() -> None:
    pool = transport()

    async def endless(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"5\r\nabcde\r\n")

    async with serve(endless) as server:
        response = await pool.handle_async_request(httpx.Request("GET", server.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = aiter(response.stream)
        assert (await anext(body)).startswith(b"abcde")
        assert pool.statistics().active == 1
        await response.aclose()
        await response.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        assert pool.statistics().idle == 0
    assert balanced(pool)


@trio_test
async def test_a_connection_refused_gives_its_slot_back() -> None:
    pool = transport(max_connections=1)
    async with serve(ok) as server:
        url = server.url
    for _ in range(2):
        with pytest.raises(httpx.ConnectError):
            await get(pool, url)
    assert balanced(pool)
    assert pool.statistics().origins == 0


@trio_test
async def test_a_closed_transport_takes_nothing_and_keeps_nothing() -> None:
    pool = transport()
    async with serve(ok) as server:
        response = await pool.handle_async_request(httpx.Request("GET", server.url))
        await pool.aclose()
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert [chunk async for chunk in response.stream] == [b"fine"]
        await response.aclose()
        with pytest.raises(RuntimeError):
            await get(pool, server.url)
    assert balanced(pool)


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before one task's n-th step, that is at each of its awaits in turn."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope, self.left, self.task = scope, step, trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run ``work`` and cancel it at its ``step``-th await; False when it ended before."""
    with trio.CancelScope() as scope:
        instrument = _CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@trio_test
async def test_a_request_may_be_cancelled_at_each_await(tls: bool, warm: bool) -> None:
    async with serve(ok, tls=tls) as server:
        url = f"https://localhost:{server.port}" if tls else server.url
        for step in range(1, 100):
            pool = transport(max_connections=1)
            if warm:
                await get(pool, url)
            cancelled = await cancelled_at(step, partial(get, pool, url))
            assert balanced(pool)
            assert await get(pool, url) == b"fine"  # the only slot is free, and no answer is mixed up
            await pool.aclose()
            assert balanced(pool)
            while server.open:  # no socket is left behind on our side
                await trio.lowlevel.checkpoint()
            if not cancelled:
                break
        else:
            pytest.fail("the request never ended by itself")
        assert step > 4
        gc.collect()  # a socket left to the collector warns, and warnings are errors


@trio_test
async def test_a_response_read_to_its_end_gives_its_connection_back_also_under_cancellation() -> None:
    pool = transport()
    async with serve(ok) as server:
        response = await pool.handle_async_request(httpx.Request("GET", server.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        assert [chunk async for chunk in response.stream] == [b"fine"]
        with trio.CancelScope() as scope:
            scope.cancel()
            await response.stream.aclose()
        assert pool.statistics().idle == 1
        await pool.aclose()
    assert balanced(pool)


@trio_test
async def test_a_request_may_be_cancelled_while_it_waits_for_a_slot() -> None:
    pool = transport(max_connections=1)

    async def silent(seen: Seen, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serve(silent) as server, trio.open_nursery() as nursery:
        nursery.start_soon(get, pool, server.url)
        while not server.seen:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(get, pool, server.url)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().waiting == 1
        nursery.cancel_scope.cancel()
    assert balanced(pool)
    assert pool.statistics().origins == 0
