"""A provider that was taken over tells us addresses: of results, of redirects, of where to put a file (SEC-3).

Nothing inside the network may be reached through us, and no key goes where it does not belong.  The sockets are real;
where a public address is needed, a local socket claims to be there.  Names, blocks and proxies have their tables in
tests/runtime/test_addresses.py.
"""

import msgspec
import pytest
import trio
from trio.testing import trio_test

from adapters.base import Context, FileBytes, HttpCall, HttpReply, MalformedReply, Secret, Uploads
from adapters.registry import codec
from runtime.egress import Egress
from runtime.ports import FetchRefused, FetchRules, WireError
from runtime.wire import HttpWire
from tests.runtime.elsewhere import Elsewhere, Resolver
from tests.runtime.servers import TLS, Seen, Server, http, serve

PUBLIC = "93.184.216.34"
METADATA = "169.254.169.254"
OURS = Egress(ca_file=str(TLS / "cert.pem"))
RULES = FetchRules(hosts=("cdn.example.com", "api.example.com"))
SIGNED = "https://cdn.example.com/a.png?signature=bearer"
PATIENCE_S = 120.0


async def nothing(chunk: bytes) -> None:
    raise AssertionError("nothing may come from there")


async def keep(chunk: bytes) -> None:
    """A sink for what is welcome."""


# --- where results are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["127.0.0.1", "::1", f"192.0.2.1 {'127.0.0.1'}", "127.0.0.1 192.0.2.1"])
@trio_test
async def test_a_name_with_a_private_address_among_others_gets_not_a_byte(first: str) -> None:
    """SEC-3: rebinding within one answer: whichever address the connection ends at is judged, not the first one."""
    got: list[bytes | bytearray] = []
    trio.socket.set_custom_hostname_resolver(Resolver([first]))
    host = "::1" if ":" in first else "127.0.0.1"
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)

        async def watch() -> None:
            while True:
                async with await listener.accept() as stream:
                    async for chunk in stream:
                        got.append(chunk)

        nursery.start_soon(watch)
        port = listener.socket.getsockname()[1]
        with trio.fail_after(PATIENCE_S), pytest.raises(FetchRefused, match="not a global address"):
            await HttpWire().fetch(f"https://cdn.example.com:{port}/a.png", nothing, RULES)
        nursery.cancel_scope.cancel()
    await listener.aclose()
    assert got == []


@trio_test
async def test_a_name_that_was_good_is_judged_again_when_it_moved() -> None:
    """SEC-3: rebinding between two downloads, and between a result and the place it redirects to."""

    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        again = seen.target.startswith("/again")
        await stream.send_all(http(302, location="/b.png", connection="close") if again else http(connection="close"))
        await stream.aclose()

    async with serve(answer, tls=True) as server:
        dial = Moving(server.port, {"cdn.example.com": [PUBLIC, "10.0.0.7", PUBLIC, METADATA]})
        wire = HttpWire(OURS, dial=dial)
        assert (await wire.fetch(SIGNED, keep, RULES)).status == 200
        with pytest.raises(FetchRefused, match=r"at 10\.0\.0\.7"):
            await wire.fetch(SIGNED, nothing, RULES)
        with pytest.raises(FetchRefused, match=METADATA):
            await wire.fetch("https://cdn.example.com/again", nothing, RULES)
        assert len(server.seen) == 2, "two of four connections were to be asked anything"
        await wire.aclose()


class Moving(Elsewhere):
    """Is at the next address each time."""

    def __init__(self, port: int, addresses: dict[str, list[str]]) -> None:
        super().__init__(port, {})
        self._each = {host: iter(each) for host, each in addresses.items()}

    async def connect_tcp(self, host: str, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        self.addresses[host] = next(self._each[host])
        return await super().connect_tcp(host, *args, **kwargs)


@pytest.mark.parametrize(
    "place",
    [
        f"http://{METADATA}/latest/meta-data/iam/",
        f"https://{METADATA}/latest/meta-data/iam/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://0251.0376.0251.0376/",
        "https://metadata.google.internal/",
        "http://127.0.0.1:6379/",
        "https://localhost/",
        "https://localhost./",
        "file:///etc/passwd",
        "ftp://cdn.example.com/a",
        "gopher://cdn.example.com/_x",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://cdn.example.com/a.png",
        "//evil.example/a.png",
        "https://cdn.example.com@evil.example/",
        "https://user:pass@cdn.example.com/",
        "https://cdn.example.com.evil.example/",
        "https://cdn.example.com%2eevil.example/",
        "https://cdn.example.com\\@evil.example/",
        "https://cdn.example.com\u3002evil.example/",
        "https://evil.example#@cdn.example.com/",
        "https://cdn.example.com:0/",
        "https://cdn.example.com:-1/",
        "https:///a.png",
        "https://",
        "\x00",
        "https://cdn.example.com/" + "a" * 9000,
    ],
)
@trio_test
async def test_no_address_leads_elsewhere_neither_as_a_result_nor_by_redirect(place: str) -> None:
    """SEC-3: the same table for what a provider says and for what its host says."""

    async def redirect(seen: Seen, stream: trio.abc.Stream) -> None:
        location = place.encode("utf-8", "surrogatepass").replace(b"\0", b"%00").decode("latin-1")
        await stream.send_all(http(302, location=location))

    async with serve(redirect, tls=True) as server:
        where = {"cdn.example.com": PUBLIC}
        wire = HttpWire(OURS, dial=Elsewhere(server.port, where))
        with pytest.raises(FetchRefused) as refused:
            await wire.fetch(place, nothing, RULES)
        assert place not in str(refused.value), "an address can be a bearer secret (SEC-1)"
        assert server.connections == 0
        with pytest.raises((FetchRefused, WireError)):
            await wire.fetch(SIGNED, nothing, RULES)
        assert len(server.seen) in (1, 1 + RULES.max_redirects), "asked nobody but the listed host itself"
        assert {seen.headers["host"] for seen in server.seen} == {"cdn.example.com"}
        await wire.aclose()


@trio_test
async def test_nothing_of_ours_travels_along_a_redirect() -> None:
    """SEC-3: neither what a host has set, nor where we came from, nor anything else that could name us."""

    async def answer(seen: Seen, stream: trio.abc.Stream) -> None:
        if seen.headers["host"] == "cdn.example.com":
            elsewhere = "https://api.example.com/b.png"
            await stream.send_all(http(307, location=elsewhere, set_cookie="id=1; Path=/; Domain=example.com"))
        else:
            await stream.send_all(http())

    async with serve(answer, tls=True) as server:
        wire = HttpWire(OURS, dial=Elsewhere(server.port, {"cdn.example.com": PUBLIC, "api.example.com": PUBLIC}))
        await wire.fetch(SIGNED, keep, RULES)
        first, second = server.seen
        assert set(first.headers) == set(second.headers) == {"host", "accept", "accept-encoding", "user-agent"}
        assert "signature" not in second.target
        await wire.aclose()


# --- where calls go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@trio_test
async def test_a_call_with_a_key_follows_nobody(status: int) -> None:
    """SEC-3, MON-5: a redirect is an answer like another; the key and the paid request stay where they were sent."""

    async def thief(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http())

    async with serve(thief) as elsewhere:

        async def redirect(seen: Seen, stream: trio.abc.Stream) -> None:
            await stream.send_all(http(status, location=elsewhere.url + "/steal"))

        async with serve(redirect) as server:
            wire = HttpWire()
            headers = {"authorization": "Bearer secret"}
            for method in ("GET", "POST"):
                reply = await wire.send(HttpCall(method, server.url, headers, b"x"))
                assert reply.status == status
            assert len(server.seen) == 2
            assert elsewhere.connections == 0
            await wire.aclose()


PICTURE = FileBytes("a.png", "image/png", b"bytes of a customer")
KEY = Secret("key-of-the-account")


def ticket(url: str, **headers: str) -> HttpReply:
    """WaveSpeed's answer to who wants to upload: here the provider says where to send what to whom."""
    told = {"upload": {"url": url, "method": "PUT", "headers": headers}, "download_url": "https://x.example/a.png"}
    return HttpReply(status=200, headers={}, body=msgspec.json.encode({"code": 200, "message": "", "data": told}))


def second_call(reply: HttpReply, *, base_url: str = "") -> HttpCall:
    one = codec("wavespeed")
    assert isinstance(one, Uploads)
    steps = one.upload(PICTURE, Context(key=KEY, base_url=base_url))
    next(steps)
    return steps.send(reply)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", METADATA, "::1", "fd00::1"])
@trio_test
async def test_a_file_is_put_nowhere_inside_the_network(address: str) -> None:
    """SEC-3: whatever an answer says, a customer's picture goes to a public address, judged on the socket."""
    call = second_call(ticket("https://cdn.example.com/put?sig=1"))
    assert call.told
    async with serve(welcome, tls=True) as server:
        wire = HttpWire(OURS, dial=Elsewhere(server.port, {"cdn.example.com": address}))
        with pytest.raises(WireError, match="not a global address") as error:
            await wire.send(call)
        assert not error.value.sent
        assert server.seen == []
        await wire.aclose()


async def welcome(seen: Seen, stream: trio.abc.Stream) -> None:
    await stream.send_all(http())


@trio_test
async def test_a_file_is_put_at_a_public_address_without_the_key() -> None:
    call = second_call(ticket("https://cdn.example.com/put?sig=1", **{"x-amz-acl": "private"}))
    async with serve(welcome, tls=True) as server:
        wire = HttpWire(OURS, dial=Elsewhere(server.port, {"cdn.example.com": PUBLIC}))
        assert (await wire.send(call)).status == 200
        (seen,) = server.seen
        assert (seen.method, seen.body, seen.headers["x-amz-acl"]) == ("PUT", PICTURE.data, "private")
        assert KEY.reveal() not in repr(seen)
        await wire.aclose()


@pytest.mark.parametrize("base_url", ["", "https://gateway.example/ws"])
def test_plain_http_is_told_only_where_the_provider_is_on_this_machine(base_url: str) -> None:
    """SEC-3: behind a gateway of the user's own an answer names no service of this machine either."""
    with pytest.raises(MalformedReply):
        second_call(ticket("http://127.0.0.1:6379/"), base_url=base_url)


@trio_test
async def test_plain_http_is_for_this_machine_alone() -> None:
    """And behind an override that is on this machine, the plain address must be there too."""
    call = second_call(ticket("http://cdn.example.com/put"), base_url="http://127.0.0.1:9999/wavespeed")
    async with serve(welcome) as server:
        wire = HttpWire(dial=Elsewhere(server.port, {"cdn.example.com": "10.0.0.1", "127.0.0.1": "127.0.0.1"}))
        with pytest.raises(WireError, match="not a loopback address"):
            await wire.send(call)
        assert await put_here(wire, server) == 200
        await wire.aclose()


async def put_here(wire: HttpWire, server: Server) -> int:
    call = second_call(ticket(f"http://127.0.0.1:{server.port}/put"), base_url="http://127.0.0.1:9999/wavespeed")
    return (await wire.send(call)).status


def test_a_gateway_of_the_users_own_may_be_anywhere() -> None:
    """The user chose it, as for every other call: what it tells of itself is where the calls go anyway."""
    gateway = "https://gateway.internal:8443/ws"
    assert not second_call(ticket("https://gateway.internal:8443/put"), base_url=gateway).told
    for elsewhere in (
        "https://gateway.internal/put",
        "https://gateway.internal:8443.evil.example/",
        "https://x.example/",
    ):
        assert second_call(ticket(elsewhere), base_url=gateway).told


@pytest.mark.parametrize(
    "url",
    ["", "file:///etc/passwd", "ftp://x/", "//x/", "https://", "https:///x", "https://x y/", "https://x/\r\nHost: y"],
)
def test_what_is_no_address_is_a_malformed_reply(url: str) -> None:
    with pytest.raises(MalformedReply):
        second_call(ticket(url))


@pytest.mark.parametrize(
    "headers",
    [{"a b": "x"}, {"a": "x\r\nb: y"}, {"a\r\nb": "x"}, {"a": "\x00"}, {"": "x"}, {"a:": "x"}],
)
def test_headers_that_an_answer_asks_for_hold_no_others(headers: dict[str, str]) -> None:
    """Header injection; and those that shape the message itself are ours whatever is told."""
    with pytest.raises(MalformedReply):
        second_call(ticket("https://cdn.example.com/put", **headers))
    shaping = {"Host": "evil", "Content-Length": "0", "Transfer-Encoding": "chunked", "Connection": "upgrade"}
    assert not {name.lower() for name in second_call(ticket("https://cdn.example.com/put", **shaping)).headers} & {
        name.lower() for name in shaping
    }
