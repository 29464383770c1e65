"""The sandbox as a process: starlette over the house, on hypercorn's trio worker, behind the TCP front.

One process, one directory: everything it knows is in the job table there, so it may be killed and started again
at any moment, like everything else.  This module adds sockets and knows nothing of any provider.
"""

import fcntl
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_asgi
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adapters.sandbox.base import Call, Reply
from adapters.sandbox.faults import PROFILES, ChaosProfile
from adapters.sandbox.front import MARK_HEADER, serve_front
from adapters.sandbox.house import Drawing, House
from adapters.sandbox.jobs import SqliteJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.webhooks import deliver_callbacks, now_us
from adapters.sandbox.wirefmt import EmulatorSettings

_log = logging.getLogger(__name__)

_MAX_BODY = 16 * 1024 * 1024  # references may come as data: URIs
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]
_ARRIVALS_KEPT = 10_000


class SandboxSettings(msgspec.Struct, frozen=True):
    """How to run a sandbox.  ``quarantine_s`` is told to clients: after that long, every job that will ever be
    visible is, since nothing here holds a request back."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    latency_s: float = 2.0
    rate_factor: float = 5.0
    price_factor: float = 1.0
    chaos: ChaosProfile = PROFILES["none"]
    seed: int = 0
    quarantine_s: float = 3.0
    webhook_key: str = ""
    idle_exit_s: float = 0.0  # leave after so long without a request; 0 = stay
    providers: tuple[str, ...] = ()  # empty: all


WEBHOOK_KEY_ENV = "BYDAWN_SANDBOX_WEBHOOK_KEY"
"""Where the key is looked for that no command line shows; with ``_FILE``, the file that holds it."""


def webhook_key_of(env: Mapping[str, str]) -> str:
    """What callbacks are signed with by the environment; empty: by nothing.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is no text.
    """
    key, file = env.get(WEBHOOK_KEY_ENV, "").strip(), env.get(f"{WEBHOOK_KEY_ENV}_FILE", "").strip()
    return key or (Path(file).expanduser().read_text("utf-8").strip() if file else "")


class SandboxBusy(Exception):
    """Another sandbox process works in this directory: stop it, or choose another directory."""


async def serve(settings: SandboxSettings, started: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``started`` is called with the port once connections are taken.

    Raises:
        SandboxBusy: the directory is in use.
        OSError: the port is.
    """
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(settings.directory):
        jobs = SqliteJobs(settings.directory / "sandbox.db")
        try:
            await _serve(settings, jobs, started)
        finally:
            jobs.close()


async def _serve(settings: SandboxSettings, jobs: SqliteJobs, started: Callable[[int], None]) -> None:
    listeners = await trio.open_tcp_listeners(settings.port, host=settings.host)
    async with AsyncExitStack() as stack:
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        await _serve_on(listeners, settings, jobs, started)


async def _serve_on(
    listeners: list[trio.SocketListener],
    settings: SandboxSettings,
    jobs: SqliteJobs,
    started: Callable[[int], None],
) -> None:
    port: int = listeners[0].socket.getsockname()[1]
    emulation = EmulatorSettings(
        jobs=jobs,
        limits=TokenBuckets(settings.rate_factor),
        files_origin=f"http://{settings.host}:{port}",
        chaos=settings.chaos,
        latency_s=settings.latency_s,
        rate_factor=settings.rate_factor,
        price_factor=settings.price_factor,
        seed=settings.seed,
        webhook_key=settings.webhook_key,
    )
    house = House(emulation, settings.providers)
    for name, reason in house.left_out.items():
        _log.warning("%s is not played: %s", name, reason)
    idleness = _Idleness(settings.idle_exit_s)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            skin = cast(
                ASGIFramework, application(house, settings, idleness.end)
            )  # the two libraries type ASGI differently
            run = partial(serve_asgi, skin, _hypercorn(), shutdown_trigger=trio.sleep_forever)
            binds: list[str] = await nursery.start(run)
            behind_host, _, behind_port = binds[0].removeprefix("http://").rpartition(":")
            nursery.start_soon(serve_front, listeners, (behind_host, int(behind_port)))
            nursery.start_soon(deliver_callbacks, house)
            nursery.start_soon(idleness.wait_too_long, nursery.cancel_scope)
            started(port)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


class _Idleness:
    """Ends a sandbox that a run has started and nobody asks any more: nobody else would."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since = trio.current_time()

    def end(self) -> None:
        self._since = trio.current_time()

    async def wait_too_long(self, scope: trio.CancelScope) -> None:
        while self._limit_s:
            if trio.current_time() >= self._since + self._limit_s:
                scope.cancel()
            await trio.sleep_until(self._since + self._limit_s)


class Arrivals:
    """How many requests the providers were sent, and when the latest ones came."""

    def __init__(self) -> None:
        self.count = 0
        self._times_us: deque[int] = deque(maxlen=_ARRIVALS_KEPT)

    def note(self, at_us: int) -> None:
        self.count += 1
        self._times_us.append(at_us)

    def first_after(self, count: int) -> int:
        """When the request came that followed the first ``count``; 0 when it has not, or long ago."""
        place = count - (self.count - len(self._times_us))
        return self._times_us[place] if 0 <= place < len(self._times_us) else 0


def application(house: House, settings: SandboxSettings, asked: Callable[[], None]) -> Starlette:
    """The ASGI skin: requests become calls, replies become responses; ``asked`` hears of every request."""
    # Two cores' worth of drawing at once; more would only make every picture later.
    brushes = trio.CapacityLimiter(2)
    arrivals = Arrivals()

    async def about(request: Request) -> Response:
        asked()
        return JSONResponse(
            {
                "bydawn_sandbox": 1,
                "providers": list(house.providers),
                "rate_factor": settings.rate_factor,
                "latency_s": settings.latency_s,
                "quarantine_s": settings.quarantine_s,
                "pid": os.getpid(),
            }
        )

    async def bill(request: Request) -> Response:
        asked()
        after = _after(request)
        if after is None:
            return Response("after must be a number\n", status_code=400)
        return StreamingResponse(_bill_lines(house, after), media_type="application/jsonl")

    async def requests(request: Request) -> Response:
        asked()
        after = _after(request)
        if after is None:
            return Response("after must be a number\n", status_code=400)
        return JSONResponse({"requests": arrivals.count, "first_us": arrivals.first_after(after)})

    async def emulate(request: Request) -> Response:
        asked()
        arrivals.note(now_us())
        call = await _as_call(request)
        if call is None:
            return Response(status_code=413)
        found = house.find(call, now_us())
        if isinstance(found, Drawing):
            found = await trio.to_thread.run_sync(house.picture, found, limiter=brushes)
        await trio.sleep(found.delay_s)
        return _Skin(found)

    return Starlette(
        routes=[
            Route("/sandbox", about, methods=["GET"]),
            Route("/sandbox/bill", bill, methods=["GET"]),
            Route("/sandbox/requests", requests, methods=["GET"]),
            Route("/{path:path}", emulate, methods=_METHODS),
        ]
    )


class _Skin(Response):
    """A reply on its way out.  A cut one stops in the middle of its body, whereupon the server closes the
    connection; a reset one is marked for the front."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body, status_code=reply.status, headers=reply.headers)
        self._cut = reply.transport == "cut"
        if reply.transport == "reset":
            self.headers[MARK_HEADER] = "reset"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._cut:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _after(request: Request) -> int | None:
    """The number that a reader has seen already; None when it is none."""
    after = request.query_params.get("after", "0")
    return int(after) if after.isascii() and after.isdigit() else None


async def _as_call(request: Request) -> Call | None:
    """Read a request whole; None when it is too large or its sender left."""
    body = bytearray()
    try:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _MAX_BODY:
                    return None
    except ClientDisconnect:
        return None
    return Call(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers=dict(request.headers),
        body=bytes(body),
        origin=f"http://{request.headers.get('host', '')}",
    )


async def _bill_lines(house: House, after: int) -> AsyncIterator[bytes]:
    """Encode the bill page by page, so that a large one neither blocks the loop nor fills memory."""
    lines: list[bytes] = []
    for line in house.bill(after, now_us()):
        lines.append(msgspec.json.encode(line))
        if len(lines) == 500:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
            await trio.lowlevel.checkpoint()
    if lines:
        yield b"\n".join(lines) + b"\n"


def _hypercorn() -> Config:
    config = Config()
    config.bind = ["127.0.0.1:0"]  # only the front connects here
    config.accesslog = None
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.5
    config.keep_alive_max_requests = 1_000_000_000
    config.include_server_header = False
    return config


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    with (directory / "sandbox.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise SandboxBusy(f"{directory}: another sandbox is running there") from exc
        yield
