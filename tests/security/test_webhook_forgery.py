"""Attacks on the receiver, the one port that strangers may reach: over real sockets, byte by byte.

Who has no token learns nothing, leaves nothing and keeps nobody out; who has one can say no more than "look at this
job" (REC-7, SEC-4).
"""

import contextlib
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing

from adapters.base import Secret
from bydawn.listening import bound, serve_bounded
from bydawn.opening import keyed_by
from bydawn.receiver import Receiver
from bydawn.webhooks import Place
from ledger.decisions import Append, Decision
from ledger.events import AccountOpened
from ledger.journal import Ledger
from ledger.streams import account_stream
from runtime.callbacks import MAX_BODY, Addresses
from runtime.inbox import Hint, hints, inbox_of

HOOK = b'{"data":{"taskId":"job7"}}'
SILENT = b"HTTP/1.1 404 \r\ncontent-length: 0\r\ndate: *\r\nConnection: close\r\n\r\n"
PATIENCE_S = 120.0

Connect: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger with one account that calls back, in a folder of its own."""
    (tmp_path / "ours").mkdir()
    path = tmp_path / "ours" / "bydawn.db"
    with Ledger.create_or_open(path, create=True) as opened:
        opened.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=1)
        event = AccountOpened(name="kie", provider="kie", fingerprint="f")
        opened.commit([Decision(appends=(Append(account_stream(1), 0, (event,)),), at_us=1)])
    return path


def made(ledger: Path, **secrets: str) -> Receiver:
    given = {provider: (Secret(secret),) for provider, secret in secrets.items()}
    return Receiver(ledger, keyed=keyed_by(ledger), secrets=given)


def path_of(ledger: Path, n: int = 12, attempt: int = 3) -> str:
    return Addresses("", keyed_by(ledger)).url("kie", 1, n, attempt)


def post(path: str, body: bytes = HOOK, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: hooks.example", f"Content-Length: {len(body)}", *lines, "Connection: close"]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def kept(ledger: Path) -> list[Hint | None]:
    return [hint for _, hint in hints(inbox_of(ledger))]


def listening(
    receiver: Receiver,
    body: Callable[[Connect], Awaitable[None]],
    *,
    most: int = 64,
    longest_s: float = PATIENCE_S,
) -> None:
    """Run ``body`` with a way to connect, while the receiver listens at a port of its own."""

    async def go() -> None:
        listener = bound(Place("127.0.0.1", 0), where="--port")
        assert listener is not None
        connect = partial(trio.open_tcp_stream, "127.0.0.1", listener.getsockname()[1])
        serving = partial(serve_bounded, receiver.application(), listener, most=most, longest_s=longest_s)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(serving)
                await body(connect)
                nursery.cancel_scope.cancel()

    trio.run(go)


async def said(stream: trio.SocketStream) -> bytes:
    """What comes until the other side closes."""
    answer = b""
    with contextlib.suppress(trio.BrokenResourceError):  # closed while we were still sending
        async for chunk in stream:
            answer += chunk
    return answer


async def until_ok(stream: trio.SocketStream) -> None:
    answer = b""
    while not answer.endswith(b"ok\n"):
        chunk = await stream.receive_some()
        assert chunk, answer
        answer += chunk


def answers(receiver: Receiver, *requests: bytes) -> list[bytes]:
    """What each request gets, sent on a connection of its own; the date is blanked."""
    got: list[bytes] = []

    async def body(connect: Connect) -> None:
        for request in requests:
            async with await connect() as stream:
                with contextlib.suppress(trio.BrokenResourceError):  # it may be refused before all of it was sent
                    await stream.send_all(request)
                got.append(re.sub(rb"(?m)^date: .*?(?=\r)", b"date: *", await said(stream)))

    listening(receiver, body)
    return got


# --- forged -----------------------------------------------------------------------------------------------------


def test_no_trick_with_a_path_leads_anywhere(ledger: Path) -> None:
    """SEC-1, SEC-2: whatever stands around a token that is not ours, the answer is one and the same, and empty."""
    good = path_of(ledger)
    token = good.rpartition("/")[2]
    tricks = [
        good[:-1],
        good + "0",
        good + "/",
        good + "?x=1".replace("?", "%3f"),
        good.replace("/1-12-3/", "/1-12-4/"),
        good.replace("/1-12-3/", "/2-12-3/"),
        good.replace("/1-12-3/", "/01-12-3/x/../"),
        good.replace("/1-12-3/", "/1-12-%d9%a3/"),  # a digit to str.isdigit, none to us
        good.replace("/kie/", "/KIE/"),
        good.replace("/kie/", "/ki%65x/"),
        good.replace("/kie/", "/../../kie/"),
        good.replace("/kie/", "/..%2f..%2fetc%2fpasswd/"),
        good.replace("/kie/", "/kie%00/"),
        good.replace(token, token.upper() if token.upper() != token else "f" * 32),
        good.replace(token, "0" * 32),
        "/callback/" + "a" * 4000 + "/1-12-3/" + token,
        "/callback/kie/999999999-99999999999-999999/" + token,
        "/healthz/../../bydawn.db",
        "//callback//kie/1-12-3/" + token,
        "*",
        "http://[::1",
    ]
    got = answers(made(ledger), *map(post, tricks))
    assert set(got) == {SILENT}
    assert kept(ledger) == []
    assert not inbox_of(ledger).exists(), "nobody who has no token makes us write anything"


def test_a_hint_stays_in_its_folder_whatever_the_account_is_called(ledger: Path, tmp_path: Path) -> None:
    """SEC-2: file names come from numbers and digests, also with a token that is ours for such a name."""
    for name in ("../../../x", "..%2f..", "a/b", "\x00", "kie"):
        url = Addresses("", keyed_by(ledger)).url(name, 1, 2, 3)
        answers(made(ledger), post(url))
    assert [hint.account for hint in kept(ledger) if hint] == ["kie"]
    outside = [path for path in tmp_path.rglob("*") if inbox_of(ledger) not in (path, *path.parents)]
    assert {path.name for path in outside if not path.name.startswith("bydawn.db")} == {"ours"}
    assert all(re.fullmatch(r"1-2-3\.[0-9a-f]{16}\.json", path.name) for path, _ in hints(inbox_of(ledger)))


def test_a_token_is_good_for_its_own_attempt_only_and_a_repeated_call_is_one_hint(ledger: Path) -> None:
    """REC-7: replayed, and crossed between attempts."""
    first, second = path_of(ledger, n=1), path_of(ledger, n=2)
    crossed = second.rpartition("/")[0] + "/" + first.rpartition("/")[2]
    got = answers(made(ledger), *[post(first)] * 3, post(crossed), post(first, HOOK + b" "))
    assert [answer[9:12] for answer in got] == [b"200", b"200", b"200", b"404", b"200"]
    assert kept(ledger) == [Hint("kie", 1, 1, 3, "job7")]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"data":' * 50_000,
        b'{"data":{"taskId":"' + b"x" * 400_000 + b'"}}',
        b'{"data":{"taskId":"../../../etc/passwd"}}',
        b'{"data":{"taskId":"a\\u0000b"}}',
        b'{"data":{"taskId":"=1+1"}}',
        b'{"data":{"taskId":"\\u001b[2J"}}',
        b'{"data":{"taskId":1e400}}',
        b'{"data":{"taskId":' + b"9" * 100_000 + b"}}",
        b'\xff\xfe{"data"',
        b"",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_no_news_of_a_job_is_nothing(ledger: Path, body: bytes) -> None:
    """SEC-4: also with the right token: deep, long, out of range, or meant for whoever reads the record."""
    (got,) = answers(made(ledger), post(path_of(ledger), body))
    assert got == SILENT
    assert kept(ledger) == []


def test_with_a_secret_the_token_alone_is_not_enough(ledger: Path) -> None:
    signed = made(ledger, kie="right")
    lines = ("x-webhook-timestamp: 1", "x-webhook-signature: AAAA")
    got = answers(signed, post(path_of(ledger)), post(path_of(ledger), HOOK, *lines))
    assert {answer[9:12] for answer in got} == {b"404"}
    assert kept(ledger) == []


def test_two_requests_in_the_clothes_of_one_are_not_taken_apart_wrongly(ledger: Path) -> None:
    """Request smuggling: a proxy in front of us and we must not disagree on where a request ends."""
    inner = post(path_of(ledger))
    odd = [
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n" + inner,
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + inner,
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello" + inner,
        b"POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length : 5\r\n\r\nhello" + inner,
    ]
    got = answers(made(ledger), *odd)
    assert [answer.count(b"HTTP/1.1") for answer in got] == [1] * len(odd)
    assert {answer[9:12] for answer in got} <= {b"400", b"501"}
    assert kept(ledger) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 4000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 400,  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4000,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n"
        + b"\xff" * 99,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 4000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    ],
    ids=lambda garbage: repr(garbage[:30]),
)
def test_no_bytes_end_the_listening(ledger: Path, garbage: bytes) -> None:
    """LIVE-3: whoever sends them, the next callback is taken."""

    async def body(connect: Connect) -> None:
        async with await connect() as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(garbage)
                await stream.send_eof()
            assert b" 200 " not in await said(stream)
        async with await connect() as stream:
            await stream.send_all(post(path_of(ledger)))
            assert b" 200 " in await said(stream)

    listening(made(ledger), body)
    assert len(kept(ledger)) == 1


# --- too much, too slow -----------------------------------------------------------------------------------------


def test_connections_are_bounded_and_the_next_one_waits_its_turn(ledger: Path) -> None:
    """SEC-4, SEC-9: strangers who hold connections open cost us so many, and the callback behind them comes in."""
    receiver = made(ledger)

    async def body(connect: Connect) -> None:
        strangers = [await connect() for _ in range(4)]
        for stranger in strangers:
            await stranger.send_all(b"POST /slow HTTP/1.1\r\nHost: a\r\nX-")  # and no more of it
        async with await connect() as stream:
            await stream.send_all(post(path_of(ledger)))
            assert b" 200 " in await said(stream), "once those before it were hung up on"
        for stranger in strangers:
            await stranger.aclose()

    listening(receiver, body, most=2, longest_s=1.0)  # it is that long for the callback too
    assert len(kept(ledger)) == 1


def test_no_more_connections_are_served_at_once_than_the_bound(ledger: Path) -> None:
    """SEC-9."""

    async def body(connect: Connect) -> None:
        held = [await connect() for _ in range(2)]
        for stream in held:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            await until_ok(stream)
        async with await connect() as third:
            await third.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""

            async def listen() -> None:
                nonlocal answer
                answer = await said(third)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert answer == b"", "taken beyond the bound"
                await held[0].aclose()
            assert answer.endswith(b"ok\n")
        await held[1].aclose()

    listening(made(ledger), body, most=2)


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_an_oversized_body_is_refused_and_not_read(ledger: Path, told: bool) -> None:
    """SEC-4: a length that is told is enough; without one the bytes are counted as they come."""
    head = f"POST {path_of(ledger)} HTTP/1.1\r\nHost: a\r\n"
    if told:
        request = f"{head}Content-Length: {1 << 40}\r\n\r\n".encode() + b"x" * 1000
    else:
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        request = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * (MAX_BODY // 65_536 + 4)
    (got,) = answers(made(ledger), request)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert kept(ledger) == []


def test_a_body_that_drips_is_hung_up_on(ledger: Path) -> None:
    """SEC-4: with the right token, a byte at a time, for ever."""

    async def body(connect: Connect) -> None:
        async with await connect() as stream:
            await stream.send_all(post(path_of(ledger), b"")[:-40].replace(b"Length: 0", b"Length: 500000"))
            await stream.send_all(b"\r\n\r\n{")
            while True:
                try:
                    await stream.send_all(b" ")
                except trio.BrokenResourceError:
                    break
                await trio.lowlevel.checkpoint()

    listening(made(ledger), body, longest_s=0.2)
    assert kept(ledger) == []


def test_a_stranger_who_does_not_read_is_hung_up_on(ledger: Path) -> None:
    """Answers are tiny, but ten thousand requests on one connection have ten thousand of them."""

    async def body(connect: Connect) -> None:
        async with await connect() as stream:
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 1)
            many = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
            while True:
                try:
                    await stream.send_all(many)
                except trio.BrokenResourceError:
                    break

    listening(made(ledger), body, longest_s=0.5)
