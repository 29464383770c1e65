"""The real wire: provider calls and downloads over httpx's models and our transport.

Three rules rank above convenience here:

* One call is at most one request (MON-5).  httpx's client is left out on purpose: what it adds above a transport
  (redirects, cookies, ``.netrc``, environment) must not exist here.
* Whether a request was *sent* is read from the trace of the connection, never guessed from the class of an error.
  ``sent=False`` is a proof that lets a paid call be made again; when in doubt it is True.
* Downloads have connections of their own, without credentials, judged by :mod:`runtime.addresses`.

No error text holds a header value, a query or a body (SEC-1).
"""

import contextlib
import re
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from typing import Any

import httpcore
import httpx
import msgspec
import trio

from adapters.base import HttpCall, HttpReply
from runtime.addresses import Peers, is_loopback, refusal, valid_port
from runtime.egress import Egress, Network
from runtime.ports import Fetched, FetchRefused, FetchRules, WireError
from runtime.transport import Body, LifoTransport, TransportStatistics

# A server may hang up an idle connection while a request is on its way to it.  Nobody could tell then whether a
# paid request was read, so one that may cost money takes a connection used a moment ago, or a new one.
_FRESH_S = 2.0
_CONNECT_S = 15.0
_SLOWEST_BYTES_PER_S = 1024  # of a body that is streamed: a byte now and then would go on for ever
_USER_AGENT = "bydawn"
_RESULT = "GET result"  # the URL itself may be a bearer secret
_CREDENTIAL = re.compile(r"(?i)auth|^(?!idempot).*key|token|secret")
_KEY_CHARS = 8
_WORDS_BYTES = 1 << 20
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DOWNLOAD_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": _USER_AGENT}


class WireStatistics(msgspec.Struct, frozen=True):
    calls: TransportStatistics
    downloads: TransportStatistics
    loopback_downloads: TransportStatistics


class HttpWire:
    """Implements :class:`runtime.ports.Wire` over real sockets.

    Args:
        egress: proxy and certificates, decided once by the caller.
        max_reply_bytes: the bound of any reply body, after decoding; a call may set a lower one.
        max_connections: per origin.
        dial: opens sockets; another one than httpcore's only where a test plays the network.
    """

    def __init__(
        self,
        egress: Egress | None = None,
        *,
        max_reply_bytes: int = 128 << 20,
        max_connections: int = 128,
        dial: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._egress = egress or Egress()
        self._dial = dial
        self._max_reply_bytes = max_reply_bytes
        self._calls = self._transport("any", max_connections)
        self._downloads = self._transport("global", max_connections)
        self._loopback_downloads = self._transport("loopback", max_connections)

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        trace = _Trace(on_sent)
        request, where = _request(call, trace)
        with trio.move_on_after(call.timeout_s), _translated(where, trace):
            try:
                response = await self._transport_of(call, request.url).handle_async_request(request)
            except FetchRefused as exc:  # by the socket's other end, before a byte
                raise WireError(f"{where}: {exc}", sent=False) from exc
            try:
                body = await self._bounded(response, where, min(self._max_reply_bytes, call.max_reply_bytes))
            finally:
                await _stream(response).aclose()
            return _without_key(call, HttpReply(status=response.status_code, headers=_headers(response), body=body))
        raise WireError(f"{where}: no answer within {call.timeout_s:g} s", sent=trace.sent)

    async def stream(self, call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        trace = _Trace(None)
        request, where = _request(call, trace)
        with _bound(where, call.timeout_s, trace):
            response = await self._calls.handle_async_request(request)
        stream = _stream(response)
        try:
            if response.status_code != 200:
                with _bound(where, call.timeout_s, trace):
                    body = await self._bounded(response, where, min(self._max_reply_bytes, call.max_reply_bytes))
                return _without_key(call, HttpReply(status=response.status_code, headers=_headers(response), body=body))
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise WireError(f"{where}: the answer came compressed although identity was asked for", sent=True)
            size, waited_s = 0, 0.0  # for the other side; what the sink takes is our own time
            while True:
                asked = trio.current_time()
                left_s = call.timeout_s + size / _SLOWEST_BYTES_PER_S - waited_s
                with _bound(where, min(call.timeout_s, left_s), trace):
                    chunk = await anext(stream, None)
                waited_s += trio.current_time() - asked
                if chunk is None:
                    return HttpReply(status=200, headers=_headers(response), body=b"")
                size += len(chunk)
                if size > call.max_reply_bytes:
                    raise WireError(f"{where}: the reply is larger than {call.max_reply_bytes} bytes", sent=True)
                await sink(chunk)
        finally:
            await stream.aclose()

    async def fetch(self, url: str, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules) -> Fetched:
        trace = _Trace(None)
        with trio.move_on_after(rules.timeout_s):
            target = _judged(url, None, rules)
            for _ in range(rules.max_redirects + 1):
                answer = await self._hop(target, sink, rules, trace)
                if isinstance(answer, Fetched):
                    return answer
                target = _judged(answer, target, rules)
            raise FetchRefused(f"more than {rules.max_redirects} redirects")
        raise WireError(f"{_RESULT}: not complete within {rules.timeout_s:g} s", sent=trace.sent)

    def statistics(self) -> WireStatistics:
        return WireStatistics(
            calls=self._calls.statistics(),
            downloads=self._downloads.statistics(),
            loopback_downloads=self._loopback_downloads.statistics(),
        )

    async def aclose(self) -> None:
        for transport in (self._calls, self._downloads, self._loopback_downloads):
            await transport.aclose()

    def _transport_of(self, call: HttpCall, url: httpx.URL) -> LifoTransport:
        """Calls go where the user's settings lead.  Where an answer leads is judged on the socket, as for downloads; a
        codec takes plain HTTP from an answer only while the provider itself is on this machine."""
        if not call.told:
            return self._calls
        return self._loopback_downloads if url.scheme == "http" else self._downloads

    def _transport(self, peers: Peers, max_connections: int) -> LifoTransport:
        network = Network(self._egress, peers=peers, dial=self._dial)
        return LifoTransport(network, lambda: self._tls, max_connections=max_connections)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._egress.tls_context()

    async def _bounded(self, response: httpx.Response, where: str, limit: int) -> bytes:
        """Read a reply's whole body.  Compressed although we asked for identity: unpacked, under the same bound."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise WireError(f"{where}: the reply is encoded as {encoding[:20]!r}", sent=True)
        unpack = None if encoding in ("", "identity") else zlib.decompressobj(wbits=47)  # gzip or zlib, by its head
        body = bytearray()
        async for chunk in _stream(response):
            room = limit - len(body) + 1
            body += chunk[:room] if unpack is None else unpack.decompress(chunk, room)
            if len(body) > limit:
                raise WireError(f"{where}: the reply is larger than {limit} bytes", sent=True)
            if unpack is not None and unpack.unused_data:
                break  # zlib would keep whatever follows the end, without a bound
        if unpack is not None and not unpack.eof:
            raise WireError(f"{where}: the compressed reply is cut off", sent=True)
        return bytes(body)

    async def _hop(
        self, target: httpx.URL, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules, trace: "_Trace"
    ) -> Fetched | str:
        """Ask once; returns the Location of a redirect as a str.  Errors of ``sink`` pass through untouched."""
        here = rules.loopback and is_loopback(target.host)
        transport = self._loopback_downloads if here else self._downloads
        request = httpx.Request(
            "GET", target, headers=_DOWNLOAD_HEADERS, extensions={"trace": trace, "timeout": {"connect": _CONNECT_S}}
        )
        with _translated(_RESULT, trace):
            response = await transport.handle_async_request(request)
        stream = _stream(response)
        try:
            headers = _headers(response)
            if response.status_code in _REDIRECTS and "location" in headers:
                return headers["location"]
            if response.status_code != 200:
                return Fetched(status=response.status_code, headers=headers, size=0)
            if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise FetchRefused("the result came compressed although identity was asked for")
            declared = headers.get("content-length", "")
            if declared.isascii() and declared.isdigit() and int(declared) > rules.max_bytes:
                raise FetchRefused(f"the result has {declared} bytes, more than {rules.max_bytes}")
            size = 0
            while True:
                with _translated(_RESULT, trace):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return Fetched(status=200, headers=headers, size=size)
                size += len(chunk)
                if size > rules.max_bytes:
                    raise FetchRefused(f"the result is larger than {rules.max_bytes} bytes")
                await sink(chunk)
        finally:
            await stream.aclose()


class _Trace:
    """Told by httpcore what happens on the connection; knows whether a byte of the request may have left."""

    __slots__ = ("_on_sent", "sent")

    def __init__(self, on_sent: Callable[[], None] | None) -> None:
        self._on_sent = on_sent
        self.sent = False

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        if name == "http11.send_request_headers.started" and not self.sent:
            self.sent = True
            if self._on_sent is not None:
                self._on_sent()


@contextlib.contextmanager
def _translated(where: str, trace: _Trace) -> Iterator[None]:
    """The one place where httpx's errors end; every one becomes a WireError with the truth about ``sent``."""
    try:
        yield
    except httpx.LocalProtocolError:
        raise WireError(f"{where}: the request is not valid HTTP", sent=trace.sent) from None  # it quotes headers
    except (httpx.HTTPError, zlib.error, UnicodeError) as exc:
        raise WireError(f"{where}: {_reason(exc)}", sent=trace.sent) from exc


@contextlib.contextmanager
def _bound(where: str, seconds: float, trace: _Trace) -> Iterator[None]:
    """Wait so long and no longer, and translate what goes wrong."""
    with trio.move_on_after(seconds) as scope, _translated(where, trace):
        yield
    if scope.cancelled_caught:
        raise WireError(f"{where}: too little came for {max(seconds, 0):.3g} s", sent=trace.sent)


def _request(call: HttpCall, trace: _Trace) -> tuple[httpx.Request, str]:
    """Build the request of a call, and how errors name it."""
    url = _parse(call)
    extensions: dict[str, Any] = {"trace": trace, "timeout": {"connect": min(_CONNECT_S, call.timeout_s)}}
    if call.method in ("POST", "PUT"):
        extensions["max_idle_s"] = _FRESH_S
    # Names in one spelling: another one of "User-Agent" would be sent beside ours, not instead of it.
    own = {name.lower(): value for name, value in call.headers.items()}
    headers = {"accept-encoding": "identity", "user-agent": _USER_AGENT, **own}
    request = httpx.Request(call.method, url, headers=headers, content=call.body, extensions=extensions)
    return request, f"{call.method} {url.host}"


def _reason(exc: BaseException) -> str:
    """Say what broke.  Only errors before HTTP are quoted: later ones repeat what the peer sent."""
    name = type(exc).__name__
    if not isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return name
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, OSError):  # includes ssl.SSLError
        cause = cause.__cause__
    detail = str(exc) if cause is None else str(cause)
    return f"{name}: {detail}" if detail else name


def _parse(call: HttpCall) -> httpx.URL:
    """Check by ourselves what httpcore would only notice once it has begun to send."""
    try:
        url = httpx.URL(call.url)
    except httpx.InvalidURL:
        raise WireError(f"{call.method}: the address is not a URL", sent=False) from None
    if url.scheme not in ("http", "https") or not url.host or not valid_port(url):
        raise WireError(f"{call.method}: the address is not an http(s) URL", sent=False)
    for name, value in call.headers.items():
        if not _TOKEN.fullmatch(name):
            raise WireError(f"{call.method} {url.host}: a header name is not valid", sent=False)
        if value != value.strip() or not (value.isascii() and value.isprintable()):
            raise WireError(f"{call.method} {url.host}: the value of header {name!r} is not valid", sent=False)
    return url


def _judged(url: str, base: httpx.URL | None, rules: FetchRules) -> httpx.URL:
    try:
        target = httpx.URL(url) if base is None else base.join(url)
    except (httpx.InvalidURL, ValueError):
        raise FetchRefused("the result's address is not a URL") from None
    why = refusal(target, hosts=rules.hosts, loopback=rules.loopback)
    if why is not None:
        raise FetchRefused(why)
    return target


def _without_key(call: HttpCall, reply: HttpReply) -> HttpReply:
    """Blank our key wherever an answer repeats it: its words end up in records, messages and logs (SEC-1)."""
    if len(reply.body) > _WORDS_BYTES:
        return reply  # an image; nobody is told what stands in it
    headers, body = reply.headers, reply.body
    for name, value in call.headers.items():
        key = value.rpartition(" ")[2]  # without "Bearer"
        if _CREDENTIAL.search(name) is None or len(key) < _KEY_CHARS:
            continue
        blank = "-" * len(key)
        body = body.replace(key.encode("ascii"), blank.encode("ascii"))
        headers = {each: text.replace(key, blank) for each, text in headers.items()}
    return HttpReply(status=reply.status, headers=headers, body=body)


def _stream(response: httpx.Response) -> Body:
    assert isinstance(response.stream, Body)
    return response.stream


def _headers(response: httpx.Response) -> dict[str, str]:
    return dict(response.headers.items())
