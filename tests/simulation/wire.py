"""The network of a simulated night: calls the emulators in process, and loses what the weather says."""

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urljoin

import trio

from adapters.base import HttpCall, HttpReply
from adapters.sandbox.base import Reply
from runtime.ports import Fetched, FetchRefused, FetchRules, WireError

ORIGIN = "http://sandbox.test"
FILES = f"{ORIGIN}/files/"  # where results lie
_PIECE = 4096  # of a long answer


class Crash(BaseException):
    """The process died here."""


class Odds(Protocol):
    """How often a request goes wrong on its way."""

    @property
    def refused(self) -> float: ...

    @property
    def lost_request(self) -> float: ...

    @property
    def lost_reply(self) -> float: ...

    @property
    def late(self) -> float: ...

    @property
    def late_s(self) -> float: ...


class Dice(Protocol):
    """The part of :class:`random.Random` that is used."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...


class Net(Protocol):
    """What is at the other end."""

    @property
    def random(self) -> Dice: ...

    @property
    def weather(self) -> Odds: ...

    def alive(self) -> None:
        """Raise Crash when the process that calls is dead."""
        ...

    def sending(self) -> None:
        """A paid request is about to leave."""
        ...

    def serve(self, call: HttpCall) -> Reply: ...

    def arrive_later(self, call: HttpCall, after_s: float) -> None: ...


class SimWire:
    """Implements :class:`runtime.ports.Wire`."""

    def __init__(self, net: Net, *, max_reply_bytes: int = 4 << 20) -> None:
        self._net = net
        self._max_reply_bytes = max_reply_bytes

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        net, weather = self._net, self._net.weather
        net.alive()
        if on_sent is not None:
            net.sending()
        await trio.sleep(net.random.uniform(0.001, 0.05))
        net.alive()
        if not call.url.startswith(ORIGIN) or net.random.random() < weather.refused:
            raise WireError("connection refused", sent=False)
        if net.random.random() < weather.late:  # also when the process dies right after the first byte (W3)
            net.arrive_later(call, net.random.uniform(0.0, weather.late_s))
            if on_sent is not None:
                on_sent()
            net.alive()
            raise WireError("connection reset", sent=True)
        if on_sent is not None:
            on_sent()
        net.alive()
        if net.random.random() < weather.lost_request:
            await trio.sleep(call.timeout_s)
            raise WireError("no answer", sent=True)
        reply = net.serve(call)
        late = await _late(net.random.uniform(0.001, 0.05) + reply.delay_s, call.timeout_s)
        net.alive()
        most = min(self._max_reply_bytes, call.max_reply_bytes)
        broken = reply.transport or late or len(reply.body) > most
        if broken or net.random.random() < weather.lost_reply:
            raise WireError("connection reset", sent=True)
        return HttpReply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    async def stream(self, call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        net, weather = self._net, self._net.weather
        net.alive()
        await trio.sleep(net.random.uniform(0.001, 0.1))
        net.alive()
        if not call.url.startswith(ORIGIN) or net.random.random() < weather.refused:
            raise WireError("connection refused", sent=False)
        reply = net.serve(call)
        late = await _late(reply.delay_s, call.timeout_s)
        net.alive()
        headers = {name.lower(): value for name, value in reply.headers.items()}
        if reply.status != 200 and not reply.transport:
            return HttpReply(reply.status, headers, reply.body)
        if late or reply.transport == "reset":
            raise WireError("connection reset", sent=True)
        cut = reply.transport == "cut" or net.random.random() < weather.lost_reply
        body = reply.body[: len(reply.body) // 2] if cut else reply.body[: call.max_reply_bytes + 1]
        for start in range(0, len(body), _PIECE):
            await sink(body[start : start + _PIECE])
            net.alive()
        if cut or len(body) > call.max_reply_bytes:
            raise WireError("connection reset", sent=True)
        return HttpReply(200, headers, b"")

    async def fetch(self, url: str, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules) -> Fetched:
        net = self._net
        net.alive()
        if not rules.loopback:  # everything in this network is
            raise FetchRefused(url)
        reply = await self._get(url, rules.timeout_s)
        redirects = 0
        while (location := reply.headers.get("location")) is not None and 300 <= reply.status < 400:
            redirects += 1
            if redirects > rules.max_redirects:
                raise FetchRefused("too many redirects")
            reply = await self._get(urljoin(url, location), rules.timeout_s)
        if len(reply.body) > rules.max_bytes:
            raise FetchRefused(f"{len(reply.body)} bytes")
        if reply.status != 200:
            return Fetched(reply.status, reply.headers, 0)
        await sink(reply.body)
        return Fetched(200, reply.headers, len(reply.body))

    async def _get(self, url: str, timeout_s: float) -> Reply:
        net = self._net
        await trio.sleep(net.random.uniform(0.001, 0.1))
        net.alive()
        if not url.startswith(ORIGIN):
            raise WireError("connection refused", sent=False)
        reply = net.serve(HttpCall("GET", url, {"accept-encoding": "identity"}))
        late = await _late(reply.delay_s, timeout_s)
        net.alive()
        if late:
            raise WireError(f"no end within {timeout_s:.0f} s", sent=True)
        if reply.transport:
            raise WireError("connection reset", sent=True)
        return reply

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _late(delay_s: float, timeout_s: float) -> bool:
    """Wait for the answer, and say whether it comes too late."""
    await trio.sleep(min(delay_s, timeout_s))
    return delay_s > timeout_s
