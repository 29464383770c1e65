"""Attacks on downloads: names, addresses, rebinding, redirects (SEC-3)."""

import ipaddress
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from adapters.base import HttpCall
from runtime.addresses import host_allowed, is_global, is_loopback, peer_allowed, refusal
from runtime.egress import Egress
from runtime.ports import FetchRefused, FetchRules, WireError
from runtime.wire import HttpWire
from tests.runtime.elsewhere import Elsewhere, Resolver
from tests.runtime.servers import TLS, Seen, http, serve

HOSTS = ("files.example.com", ".cdn.example.com")
RULES = FetchRules(hosts=(*HOSTS, "cdn.example.com"))

NOT_GLOBAL = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.9.10",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.5",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_GLOBAL)
def test_an_address_that_is_not_public_is_never_a_global_peer(address: str) -> None:
    assert not peer_allowed(address, "global")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are(address: str) -> None:
    assert peer_allowed(address, "global")
    assert not peer_allowed(address, "loopback")


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_never_makes_it_public(address: ipaddress.IPv4Address) -> None:
    n = int(address)
    if not is_global(address):
        for wrapped in (0xFFFF << 32 | n, 0x2002 << 112 | n << 80 | 1, 0x0064_FF9B << 96 | n):
            assert not is_global(ipaddress.IPv6Address(wrapped))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"])
def test_loopback_by_any_name(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("localhost.example.com")


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("files.example.com", True),
        ("FILES.example.com.", True),
        ("a.cdn.example.com", True),
        ("b.a.cdn.example.com", True),
        ("cdn.example.com", False),
        (".cdn.example.com", False),
        ("evilcdn.example.com", False),
        ("files.example.com.evil.net", False),
        ("evil-files.example.com", False),
        ("", False),
    ],
)
def test_hosts_match_whole_labels(host: str, fine: bool) -> None:
    assert host_allowed(host, HOSTS) is fine


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.com/a.png",
        "ftp://files.example.com/a.png",
        "file:///etc/passwd",
        "//files.example.com/a.png",
        "a.png",
        "https:///a.png",
        "https://user:pass@files.example.com/a.png",
        "https://files.example.com@evil.net/a.png",
        "https://evil.net\\@files.example.com/a.png",
        "https://evil.net#files.example.com",
        "https://evil.net?files.example.com",
        "https://2130706433/a.png",
        "https://0x7f.0.0.1/a.png",
        "https://0177.0.0.1/a.png",
        "https://127.1/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://127.0.0.1/a.png",
        "https://localhost/a.png",
        "http://localhost/a.png",
        "https://ﬁles.example.com.evil.net/a.png",
        "https://files.example.com/" + "a" * 9000,
    ],
)
@trio_test
async def test_hostile_urls_are_refused_before_anything_is_resolved(url: str) -> None:
    refuse_to_resolve = Resolver([])
    trio.socket.set_custom_hostname_resolver(refuse_to_resolve)
    wire = HttpWire()
    with pytest.raises(FetchRefused):
        await wire.fetch(url, _nothing, RULES)
    assert refuse_to_resolve.asked == []


def test_plain_http_is_for_loopback_alone() -> None:
    assert refusal(httpx.URL("http://127.0.0.1:8000/a"), hosts=(), loopback=True) is None
    assert refusal(httpx.URL("http://files.example.com/a"), hosts=HOSTS, loopback=True) is not None
    assert refusal(httpx.URL("http://127.0.0.1:8000/a"), hosts=HOSTS, loopback=False) is not None


# --- the connected socket ---------------------------------------------------------------------------------


async def _nothing(chunk: bytes) -> None:
    raise AssertionError("nothing should reach the sink")


@pytest.mark.parametrize("rules", [RULES, FetchRules(hosts=RULES.hosts, loopback=True)])
@trio_test
async def test_a_name_that_resolves_to_loopback_gets_not_a_byte(rules: FetchRules) -> None:
    """DNS rebinding: the name is on the list, its address is ours."""
    got: list[bytes | bytearray] = []
    trio.socket.set_custom_hostname_resolver(Resolver(["127.0.0.1"]))
    wire = HttpWire()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def watch() -> None:
            stream = await listener.accept()
            async with stream:
                async for chunk in stream:
                    got.append(chunk)

        nursery.start_soon(watch)
        port = listener.socket.getsockname()[1]
        with pytest.raises(FetchRefused, match="not a global address"):
            await wire.fetch(f"https://cdn.example.com:{port}/a.png", _nothing, rules)
    await listener.aclose()
    assert got == []  # not even a TLS hello
    assert wire.statistics().downloads.origins == 0


@trio_test
async def test_a_localhost_that_is_elsewhere_gets_not_a_byte() -> None:
    async def ok(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"x"))

    async with serve(ok) as server:
        wire = HttpWire(dial=Elsewhere(server.port, {"localhost": "93.184.216.34"}))
        with pytest.raises(FetchRefused, match="not a loopback address"):
            await wire.fetch("http://localhost/a.png", _nothing, FetchRules(hosts=(), loopback=True))
        assert server.seen == []


OURS = Egress(ca_file=str(TLS / "cert.pem"))


class _Sink:
    def __init__(self) -> None:
        self.data = b""

    async def __call__(self, chunk: bytes) -> None:
        self.data += chunk


@trio_test
async def test_a_public_host_with_a_good_certificate_is_fetched() -> None:
    async def ok(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"image"))

    async with serve(ok, tls=True) as server:
        wire = HttpWire(OURS, dial=Elsewhere(server.port, {"cdn.example.com": "93.184.216.34"}))
        sink = _Sink()
        fetched = await wire.fetch("https://cdn.example.com/a.png?sig=1", sink, RULES)
        assert (fetched.status, sink.data) == (200, b"image")
        assert server.seen[0].headers["host"] == "cdn.example.com"
        await wire.aclose()


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("https://files.example.com/b.png", "169.254.169.254"),
        ("https://files.example.com/b.png", "::ffff:169.254.169.254"),
        ("https://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ("https://2852039166/latest/meta-data/", "169.254.169.254"),
        ("http://cdn.example.com/a.png", "93.184.216.34"),
        ("//evil.net/a.png", "93.184.216.34"),
        ("https://cdn.example.com:99999/", "93.184.216.34"),
        ("http://127.0.0.1/", "127.0.0.1"),
    ],
)
@trio_test
async def test_a_redirect_is_judged_like_the_first_url(location: str, address: str) -> None:
    async def redirect(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(302, location=location))

    async with serve(redirect, tls=True) as server:
        where = {"cdn.example.com": "93.184.216.34", "files.example.com": address}
        wire = HttpWire(OURS, dial=Elsewhere(server.port, where))
        with pytest.raises(FetchRefused):
            await wire.fetch("https://cdn.example.com/a.png", _nothing, RULES)
        assert len(server.seen) == 1
        await wire.aclose()


@trio_test
async def test_through_a_proxy_hosts_and_certificates_still_count() -> None:
    """The proxy plays a man in the middle: it tunnels to whatever it likes."""

    async def ok(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"image"))

    async with trio.open_nursery() as nursery, serve(ok, tls=True) as server:
        asked: list[bytes | bytearray] = []

        async def tunnel(client: trio.SocketStream) -> None:
            async with client, await trio.open_tcp_stream("127.0.0.1", server.port) as upstream:
                asked.append(await client.receive_some(4096))
                await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with trio.open_nursery() as pumps:
                    pumps.start_soon(_pump, client, upstream)
                    await _pump(upstream, client)
                    pumps.cancel_scope.cancel()

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, tunnel, [listener])
        proxy = f"http://us%65r:p%40ss@127.0.0.1:{listener.socket.getsockname()[1]}"
        environ = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(TLS / "cert.pem"), "NO_PROXY": "other.example.com"}
        wire = HttpWire(Egress.from_environment(environ))
        sink = _Sink()
        await wire.fetch("https://cdn.example.com/a.png", sink, RULES)
        assert sink.data == b"image"
        assert asked == [
            b"CONNECT cdn.example.com:443 HTTP/1.1\r\nHost: cdn.example.com:443\r\n"
            b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
        ]
        with pytest.raises(FetchRefused, match="not a public one"):
            await wire.fetch("https://169.254.169.254/", _nothing, FetchRules(hosts=("169.254.169.254",)))
        await wire.aclose()
        nursery.cancel_scope.cancel()


async def _pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
    async for chunk in source:
        await target.send_all(chunk)


@trio_test
async def test_a_certificate_nobody_vouches_for_is_proof_that_nothing_was_sent() -> None:
    async def ok(seen: Seen, stream: trio.abc.Stream) -> None:
        await stream.send_all(http(body=b"x"))

    async with serve(ok, tls=True) as server:
        dial = Elsewhere(server.port, {"api.example.com": "93.184.216.34", "api.example.net": "93.184.216.34"})
        for egress, host in ((Egress(), "api.example.com"), (OURS, "api.example.net")):
            wire = HttpWire(egress, dial=dial)
            with pytest.raises(WireError, match="certificate") as error:
                await wire.send(HttpCall("POST", f"https://{host}/", {"authorization": "Bearer k"}))
            assert not error.value.sent
        assert server.seen == []


# --- the environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("api.example.com", "", False),
        ("api.example.com", "*", True),
        ("api.example.com", "example.com", True),
        ("api.example.com", ".example.com", True),
        ("api.example.com", "API.example.com, other", True),
        ("notexample.com", "example.com", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("10.1.2.3", "example.com", False),
        ("localhost", "", True),
        ("127.0.0.1", "", True),
    ],
)
def test_no_proxy_reads_as_curl_reads_it(host: str, no_proxy: str, direct: bool) -> None:
    egress = Egress.from_environment({"https_proxy": "proxy.example.net:3128", "no_proxy": no_proxy})
    assert (egress.proxy_for(host) is None) is direct


def test_without_a_proxy_everything_is_direct() -> None:
    assert Egress.from_environment({}).proxy_for("api.example.com") is None


def test_a_proxy_url_is_read_with_its_defaults_and_hides_its_password() -> None:
    egress = Egress.from_environment({"HTTPS_PROXY": "https://u:hush-hush@proxy.example.net"})
    assert egress.proxy is not None
    assert (egress.proxy.scheme, egress.proxy.host, egress.proxy.port) == ("https", "proxy.example.net", 443)
    assert "hush" not in repr(egress)
    assert "aHVzaC" not in repr(egress)


def test_certificates_that_cannot_be_loaded_are_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate here")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ValueError, match="SSL_CERT_FILE"):
            Egress.from_environment({"SSL_CERT_FILE": str(tmp_path / name)})


@pytest.mark.parametrize("proxy", ["socks5://u:hush-hush@p:1080", "http://", "http://[u:hush-hush"])
def test_another_kind_of_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY") as error:
        Egress.from_environment({"HTTPS_PROXY": proxy})
    assert "hush" not in str(error.value)
