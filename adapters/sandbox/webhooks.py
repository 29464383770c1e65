"""Delivers callbacks: a POST over a fresh connection, as a provider's sender would.

Written on bare streams: the sandbox needs one request of one form and its status, which is no reason for an HTTP
client.  A callback counts as taken when the receiver answers 2xx in time.
"""

import ssl
import time
from urllib.parse import urlsplit

import trio

from adapters.sandbox.base import Webhook
from adapters.sandbox.house import House

_PAUSE_S = 0.1
_TIMEOUT_S = 15.0
_AT_ONCE = 20
_MAX_HEAD = 4096


async def deliver_callbacks(house: House) -> None:
    """Send what is due, for ever."""
    while True:
        hooks = house.due_webhooks(now_us(), _AT_ONCE)
        async with trio.open_nursery() as nursery:
            for hook in hooks:
                nursery.start_soon(_deliver, house, hook)
        if len(hooks) < _AT_ONCE:
            await trio.sleep(_PAUSE_S)


async def _deliver(house: House, hook: Webhook) -> None:
    taken = False
    with trio.move_on_after(_TIMEOUT_S):
        taken = 200 <= await post(hook) < 300
    if not hook.extra:
        house.webhook_sent(hook, now_us(), taken=taken)


async def post(hook: Webhook) -> int:
    """POST one callback; returns the status, 0 when there was no readable answer."""
    try:
        head, host, port, tls = _request_head(hook)
        plain = await trio.open_tcp_stream(host, port)
        stream = _secured(plain, host) if tls else plain
        async with stream:
            await stream.send_all(head + hook.body)
            answer = b""
            while b"\r\n" not in answer and len(answer) < _MAX_HEAD:
                chunk = await stream.receive_some(_MAX_HEAD)
                if not chunk:
                    break
                answer += chunk
            return int(answer.split(b" ", 2)[1])
    except (OSError, ValueError, IndexError, trio.BrokenResourceError):
        return 0


def _secured(stream: trio.SocketStream, host: str) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


def now_us() -> int:
    """The sandbox lives by the wall clock: its jobs go on while it is dead."""
    return time.time_ns() // 1_000


def _request_head(hook: Webhook) -> tuple[bytes, str, int, bool]:
    parts = urlsplit(hook.url)
    tls = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "host": parts.netloc,
        **hook.headers,
        "content-length": str(len(hook.body)),
        "connection": "close",
    }
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii"), host, port, tls
