"""The Wire's contract, over every implementation, and what only real sockets can show.

A :class:`World` is a wire with a place that behaves as the path of the URL says.  The real one is a server on
loopback; the simulator's stands in process and passes the same suite.
"""

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, trio_test

from adapters.base import HttpCall, HttpReply
from runtime.egress import Egress
from runtime.ports import DiskFull, FetchRefused, FetchRules, Wire, WireError
from runtime.wire import HttpWire
from tests.runtime.servers import Seen, Server, http, serve
from tests.simulation.wire_world import SimWorld

LIMIT = 100_000  # the reply bound in these tests
HERE = FetchRules(hosts=(), loopback=True, max_bytes=LIMIT)


class World(Protocol):
    """Paths: /echo, /status/N, /redirect, /loop, /big, /cut, /reset, /silent, /nobody (no one listens there)."""

    @property
    def wire(self) -> Wire: ...

    def url(self, path: str) -> str: ...

    async def wait_seen(self, n: int) -> None:
        """Wait until ``n`` requests have arrived, in all."""
        ...

    def seen(self) -> int: ...


class HttpWorld:
    def __init__(self, server: Server, dead_url: str) -> None:
        self.wire = HttpWire(max_reply_bytes=LIMIT)
        self.server = server
        self.dead_url = dead_url

    def url(self, path: str) -> str:
        return (self.dead_url if path == "/nobody" else self.server.url) + path

    async def wait_seen(self, n: int) -> None:
        while len(self.server.seen) < n:
            await trio.lowlevel.checkpoint()

    def seen(self) -> int:
        return len(self.server.seen)


async def behave(seen: Seen, stream: trio.abc.Stream) -> None:
    path = seen.target.partition("?")[0]
    if path == "/echo":
        await stream.send_all(http(body=msgspec.json.encode(seen), x_request_id="r1"))
    elif path.startswith("/status/"):
        await stream.send_all(http(int(path[8:]), b"{}"))
    elif path == "/redirect":
        await stream.send_all(http(302, b"moved", location="/echo"))
    elif path == "/loop":
        await stream.send_all(http(302, location="/loop"))
    elif path == "/big":
        await stream.send_all(http(body=bytes(LIMIT + 1)))
    elif path == "/cut":
        await stream.send_all(http(body=b"0123456789")[:-5])
        await stream.aclose()
    elif path == "/reset":
        await stream.aclose()
    else:
        await trio.sleep_forever()


@contextlib.asynccontextmanager
async def http_world() -> AsyncIterator[World]:
    async with serve(behave) as gone:
        dead_url = gone.url
    async with serve(behave) as server:
        world = HttpWorld(server, dead_url)
        yield world
        await world.wire.aclose()
        statistics = world.wire.statistics()
        for pool in (statistics.calls, statistics.downloads, statistics.loopback_downloads):
            assert (pool.active, pool.idle, pool.waiting, pool.origins) == (0, 0, 0, 0)
            assert pool.opened == pool.closed


MakeWorld: TypeAlias = Callable[[], AbstractAsyncContextManager[World]]


@contextlib.asynccontextmanager
async def sim_world() -> AsyncIterator[World]:
    await trio.lowlevel.checkpoint()
    yield SimWorld(max_reply_bytes=LIMIT)


@pytest.fixture(params=[http_world, sim_world])
def make_world(request: pytest.FixtureRequest) -> MakeWorld:
    made: MakeWorld = request.param
    return made


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


class Sent:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def nothing(chunk: bytes) -> None:
    raise AssertionError("nothing should reach the sink")


# --- the contract: send -----------------------------------------------------------------------------------


@trio_test
async def test_a_call_arrives_as_it_was_built_and_its_reply_comes_back(make_world: MakeWorld) -> None:
    sent = Sent()
    async with make_world() as world:
        call = HttpCall("POST", world.url("/echo?a=1"), {"authorization": "Bearer sandbox", "x-a": "b"}, b'{"x":1}')
        reply = await world.wire.send(call, sent)
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "r1"
    seen = msgspec.json.decode(reply.body, type=Seen)
    assert (seen.method, seen.target, seen.body) == ("POST", "/echo?a=1", b'{"x":1}')
    assert seen.headers["authorization"] == "Bearer sandbox"
    assert seen.headers["x-a"] == "b"
    assert sent.times == 1


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@trio_test
async def test_every_method_is_spoken(make_world: MakeWorld, method: str) -> None:
    async with make_world() as world:
        reply = await world.wire.send(HttpCall(method, world.url("/echo"), {}))  # type: ignore[arg-type]
    assert msgspec.json.decode(reply.body, type=Seen).method == method


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404, 429, 500, 503])
@trio_test
async def test_every_status_is_just_a_reply(make_world: MakeWorld, status: int) -> None:
    async with make_world() as world:
        reply = await world.wire.send(HttpCall("POST", world.url(f"/status/{status}"), {}))
    assert reply.status == status


@trio_test
async def test_a_redirect_is_not_followed(make_world: MakeWorld) -> None:
    async with make_world() as world:
        reply = await world.wire.send(HttpCall("POST", world.url("/redirect"), {}))
        assert (reply.status, reply.headers["location"]) == (302, "/echo")
        assert world.seen() == 1


@trio_test
async def test_nobody_there_is_proof_that_nothing_was_sent(make_world: MakeWorld) -> None:
    sent = Sent()
    async with make_world() as world:
        with pytest.raises(WireError) as error:
            await world.wire.send(HttpCall("POST", world.url("/nobody"), {}), sent)
    assert not error.value.sent
    assert sent.times == 0


@pytest.mark.parametrize("path", ["/reset", "/cut", "/big"])
@trio_test
async def test_a_reply_that_breaks_is_sent_and_asked_for_once(make_world: MakeWorld, path: str) -> None:
    sent = Sent()
    async with make_world() as world:
        with pytest.raises(WireError) as error:
            await world.wire.send(HttpCall("POST", world.url(path), {}), sent)
        assert error.value.sent
        assert sent.times == 1
        assert world.seen() == 1  # MON-5


@trio_test
async def test_silence_ends_at_the_time_limit(make_world: MakeWorld, clock: MockClock) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        errors: list[WireError] = []

        async def call() -> None:
            try:
                await world.wire.send(HttpCall("POST", world.url("/silent"), {}, timeout_s=60.0))
            except WireError as exc:
                errors.append(exc)

        nursery.start_soon(call)
        await world.wait_seen(1)
        clock.jump(59.9)
        await trio.testing.wait_all_tasks_blocked()
        assert errors == []
        clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert [error.sent for error in errors] == [True]


@trio_test
async def test_a_cancelled_call_is_cancelled_and_not_an_error(make_world: MakeWorld) -> None:
    sent = Sent()
    async with make_world() as world:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.wire.send, HttpCall("POST", world.url("/silent"), {}), sent)
                await world.wait_seen(1)
                scope.cancel()
        assert scope.cancelled_caught
        assert sent.times == 1


@trio_test
async def test_many_calls_at_once_get_their_own_replies(make_world: MakeWorld) -> None:
    async with make_world() as world:
        answers: dict[int, str] = {}

        async def call(n: int) -> None:
            reply = await world.wire.send(HttpCall("GET", world.url(f"/echo?n={n}"), {}))
            answers[n] = msgspec.json.decode(reply.body, type=Seen).target

        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(call, n)
    assert answers == {n: f"/echo?n={n}" for n in range(200)}


# --- the contract: stream ---------------------------------------------------------------------------------


@trio_test
async def test_a_stream_has_credentials_and_reaches_the_sink(make_world: MakeWorld) -> None:
    sink = Sink()
    async with make_world() as world:
        call = HttpCall("GET", world.url("/echo?a=1"), {"authorization": "Bearer sandbox"})
        reply = await world.wire.stream(call, sink)
    assert (reply.status, reply.body, reply.headers["x-request-id"]) == (200, b"", "r1")
    seen = msgspec.json.decode(sink.data, type=Seen)
    assert (seen.target, seen.headers["authorization"]) == ("/echo?a=1", "Bearer sandbox")


@pytest.mark.parametrize(("path", "status"), [("/status/404", 404), ("/status/503", 503), ("/redirect", 302)])
@trio_test
async def test_a_stream_without_success_is_just_a_reply(make_world: MakeWorld, path: str, status: int) -> None:
    async with make_world() as world:
        reply = await world.wire.stream(HttpCall("GET", world.url(path), {}), nothing)
        assert world.seen() == 1
    assert reply.status == status
    assert reply.body


@pytest.mark.parametrize("path", ["/reset", "/cut", "/nobody"])
@trio_test
async def test_a_stream_that_breaks_says_so(make_world: MakeWorld, path: str) -> None:
    async with make_world() as world:
        with pytest.raises(WireError) as error:
            await world.wire.stream(HttpCall("GET", world.url(path), {}), Sink())
        assert error.value.sent == (path != "/nobody")


@trio_test
async def test_a_stream_may_be_larger_than_a_reply_but_not_than_its_own_bound(make_world: MakeWorld) -> None:
    sink = Sink()
    async with make_world() as world:
        reply = await world.wire.stream(HttpCall("GET", world.url("/big"), {}, max_reply_bytes=LIMIT + 1), sink)
        assert (reply.status, len(sink.data)) == (200, LIMIT + 1)
        with pytest.raises(WireError):
            await world.wire.stream(HttpCall("GET", world.url("/big"), {}, max_reply_bytes=LIMIT), Sink())


@trio_test
async def test_what_the_sink_of_a_stream_raises_passes(make_world: MakeWorld) -> None:
    async def full(chunk: bytes) -> None:
        raise DiskFull("no space")

    async with make_world() as world:
        with pytest.raises(DiskFull):
            await world.wire.stream(HttpCall("GET", world.url("/echo"), {}), full)


@trio_test
async def test_a_silent_stream_ends_at_the_time_limit(make_world: MakeWorld, clock: MockClock) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        errors: list[WireError] = []

        async def call() -> None:
            try:
                await world.wire.stream(HttpCall("GET", world.url("/silent"), {}, timeout_s=60.0), nothing)
            except WireError as exc:
                errors.append(exc)

        nursery.start_soon(call)
        await world.wait_seen(1)
        clock.jump(60.1)
        await trio.testing.wait_all_tasks_blocked()
        assert [error.sent for error in errors] == [True]


# --- the contract: fetch ----------------------------------------------------------------------------------


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def __call__(self, chunk: bytes) -> None:
        self.data += chunk


@trio_test
async def test_a_download_reaches_the_sink_without_credentials(make_world: MakeWorld) -> None:
    sink = Sink()
    async with make_world() as world:
        fetched = await world.wire.fetch(world.url("/echo?sig=s"), sink, HERE)
    assert (fetched.status, fetched.size) == (200, len(sink.data))
    seen = msgspec.json.decode(sink.data, type=Seen)
    assert seen.method == "GET"
    assert seen.target == "/echo?sig=s"
    assert seen.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "x-api-key"} & set(seen.headers)


@trio_test
async def test_a_download_follows_a_redirect(make_world: MakeWorld) -> None:
    sink = Sink()
    async with make_world() as world:
        fetched = await world.wire.fetch(world.url("/redirect"), sink, HERE)
        assert world.seen() == 2
    assert fetched.status == 200
    assert msgspec.json.decode(sink.data, type=Seen).target == "/echo"


@trio_test
async def test_a_download_follows_three_redirects_and_no_more(make_world: MakeWorld) -> None:
    async with make_world() as world:
        with pytest.raises(FetchRefused):
            await world.wire.fetch(world.url("/loop"), nothing, HERE)
        assert world.seen() == 4


@pytest.mark.parametrize("status", [204, 206, 403, 404, 410, 500])
@trio_test
async def test_another_status_sinks_nothing(make_world: MakeWorld, status: int) -> None:
    async with make_world() as world:
        fetched = await world.wire.fetch(world.url(f"/status/{status}"), nothing, HERE)
    assert (fetched.status, fetched.size) == (status, 0)


@trio_test
async def test_a_download_that_is_too_large_is_refused(make_world: MakeWorld) -> None:
    """SEC-4."""
    async with make_world() as world:
        with pytest.raises(FetchRefused):
            await world.wire.fetch(world.url("/big"), Sink(), HERE)


@pytest.mark.parametrize("path", ["/reset", "/cut", "/nobody"])
@trio_test
async def test_a_download_that_breaks_is_a_wire_error(make_world: MakeWorld, path: str) -> None:
    async with make_world() as world:
        with pytest.raises(WireError):
            await world.wire.fetch(world.url(path), Sink(), HERE)


@trio_test
async def test_loopback_is_refused_unless_it_is_allowed(make_world: MakeWorld) -> None:
    """SEC-3."""
    async with make_world() as world:
        with pytest.raises(FetchRefused):
            await world.wire.fetch(world.url("/echo"), nothing, FetchRules(hosts=("127.0.0.1",)))
        assert world.seen() == 0


@trio_test
async def test_what_the_sink_raises_passes_through(make_world: MakeWorld) -> None:
    async def full(chunk: bytes) -> None:
        raise UnicodeError("no room in this sink")

    async with make_world() as world:
        with pytest.raises(UnicodeError, match="no room"):
            await world.wire.fetch(world.url("/echo"), full, HERE)


@trio_test
async def test_a_download_ends_at_the_time_limit(make_world: MakeWorld, clock: MockClock) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(_expect_wire_error, world)
        await world.wait_seen(1)
        clock.jump(121)


async def _expect_wire_error(world: World) -> None:
    with pytest.raises(WireError, match="120 s"):
        await world.wire.fetch(world.url("/silent"), nothing, HERE)


# --- real sockets only ------------------------------------------------------------------------------------


async def answer_with(raw: bytes, path: str = "/") -> HttpReply | WireError:
    """Send one call to a server that answers ``raw`` and hangs up."""

    async def handler(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(raw)
        await stream.aclose()

    wire = HttpWire(max_reply_bytes=LIMIT)
    async with serve(handler) as server:
        try:
            return await wire.send(HttpCall("POST", server.url + path, {}))
        except WireError as exc:
            return exc
        finally:
            await wire.aclose()
            assert wire.statistics().calls.origins == 0


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@trio_test
async def test_a_reply_compressed_unasked_is_unpacked(pack: Callable[[bytes], bytes]) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    reply = await answer_with(http(body=pack(b"x" * 1000), content_encoding=encoding))
    assert isinstance(reply, HttpReply)
    assert reply.body == b"x" * 1000


@pytest.mark.parametrize(
    "raw",
    [
        http(body=gzip.compress(bytes(50_000_000), mtime=0), content_encoding="gzip"),  # a bomb of 48 kB
        http(body=gzip.compress(b"x" * 1000, mtime=0)[:-9], content_encoding="gzip"),
        http(body=b"not gzip", content_encoding="gzip"),
        http(body=b"?", content_encoding="br"),
        b"HTTP/1.1 200 X\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 X\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01",
        b"",
    ],
)
@trio_test
async def test_an_unreadable_reply_was_sent(raw: bytes) -> None:
    error = await answer_with(raw)
    assert isinstance(error, WireError)
    assert error.sent


@trio_test
async def test_a_compressed_bomb_is_not_unpacked_past_the_bound() -> None:
    """SEC-4."""
    bomb = http(body=gzip.compress(bytes(100_000_000)), content_encoding="gzip")
    tracemalloc.start()
    error = await answer_with(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(error, WireError)
    assert peak < 5_000_000


@trio_test
async def test_an_endless_chunked_reply_ends_at_the_bound() -> None:
    """SEC-4."""

    async def endless(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"3e8\r\n" + bytes(1000) + b"\r\n")

    wire = HttpWire(max_reply_bytes=LIMIT)
    async with serve(endless) as server:
        with pytest.raises(WireError, match="larger than") as error:
            await wire.send(HttpCall("GET", server.url, {}))
        assert error.value.sent
        with pytest.raises(FetchRefused, match="larger than"):
            await wire.fetch(server.url, Sink(), HERE)
    assert wire.statistics().calls.active == wire.statistics().loopback_downloads.active == 0


@trio_test
async def test_a_paid_post_never_rides_a_connection_that_idled_more_than_two_seconds(clock: MockClock) -> None:
    wire = HttpWire()
    async with serve(behave) as server:
        for method, idled_s, connection in [
            ("GET", 0.0, 1),
            ("POST", 1.9, 1),
            ("POST", 2.1, 2),
            ("GET", 5.0, 2),
            ("PUT", 2.1, 3),
        ]:
            clock.jump(idled_s)
            await wire.send(HttpCall(method, server.url + "/echo", {}))  # type: ignore[arg-type]
            assert server.seen[-1].connection == connection
        await wire.aclose()


@trio_test
async def test_cookies_are_not_kept() -> None:
    async def bake(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"x", set_cookie="a=b; Path=/"))

    wire = HttpWire()
    async with serve(bake) as server:
        for _ in range(2):
            await wire.send(HttpCall("GET", server.url, {}))
        assert "cookie" not in server.seen[-1].headers
        await wire.aclose()


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1/", {"authorization": "Bearer secret-0123\n"}),
        ("http://127.0.0.1:1/", {"authorization": " Bearer secret-0123"}),
        ("http://127.0.0.1:1/", {"authorization": "Bearer secret-0123\u2028"}),
        ("http://127.0.0.1:1/", {"author ization": "Bearer secret-0123"}),
        ("http://[::1/", {}),
        ("http://127.0.0.1:99999/", {}),
        ("ftp://secret-0123/", {}),
        ("http://", {}),
        ("/relative", {}),
        ("http://" + "a" * 70 + ".example/", {}),
    ],
)
@trio_test
async def test_a_call_that_cannot_be_spoken_is_unsent_and_tells_no_secret(url: str, headers: dict[str, str]) -> None:
    """SEC-1, MON-5."""
    sent = Sent()
    wire = HttpWire()
    with pytest.raises(WireError) as error:
        await wire.send(HttpCall("POST", url, headers), sent)
    assert not error.value.sent
    assert sent.times == 0
    assert "secret-0123" not in str(error.value)


@trio_test
async def test_error_texts_hold_no_query_and_no_reply() -> None:
    """SEC-1."""
    error = await answer_with(b"HTTP/1.1 200 X\r\nbroken header echo-of-key\r\n\r\n", "/a?token=secret")
    assert isinstance(error, WireError)
    assert "secret" not in str(error)
    assert "echo-of-key" not in str(error)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_reply_or_a_wire_error(garbage: bytes, with_head: bool) -> None:
    outcome = trio.run(answer_with, (b"HTTP/1.1 200 X\r\n" if with_head else b"") + garbage)
    assert isinstance(outcome, HttpReply) or outcome.sent


@trio_test
async def test_a_proxy_that_refuses_is_proof_that_nothing_was_sent() -> None:
    async def refuse(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(403, b"no"))

    sent = Sent()
    async with serve(refuse) as proxy:
        wire = HttpWire(Egress.from_environment({"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}))
        with pytest.raises(WireError, match="proxy refused: 403") as error:
            await wire.send(HttpCall("POST", "https://api.example.com/v1?k=v", {"authorization": "Bearer k"}), sent)
        assert [(seen.method, seen.target) for seen in proxy.seen] == [("CONNECT", "api.example.com:443")]
        assert "authorization" not in proxy.seen[0].headers
    assert not error.value.sent
    assert sent.times == 0
