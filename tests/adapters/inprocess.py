"""An emulator without a socket: a codec's call goes in, a codec's reply comes out."""

from urllib.parse import parse_qsl, urlsplit

import msgspec

from adapters.base import HttpCall, HttpReply
from adapters.sandbox.base import Call, Emulator, Reply
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.wirefmt import EmulatorSettings

ORIGIN = "http://127.0.0.1:8700"
START_US = 1_795_309_200_000_000  # 2026-11-22 01:00
S = 1_000_000


def sandbox(*, rate_factor: float = 1_000.0, latency_s: float = 2.0) -> EmulatorSettings:
    """Settings over fresh tables in memory; the limits are out of the way unless asked for."""
    return EmulatorSettings(
        jobs=MemoryJobs(),
        limits=TokenBuckets(rate_factor),
        files_origin=ORIGIN,
        latency_s=latency_s,
        rate_factor=rate_factor,
        small_px=64,
    )


def fated(settings: EmulatorSettings, fate: str) -> EmulatorSettings:
    """The same tables, where every job ends as ``fate`` ("fail_job", "policy_job")."""
    return msgspec.structs.replace(settings, chaos=msgspec.structs.replace(settings.chaos, **{fate: 1.0}))


def base_url(emulator: Emulator) -> str:
    return f"{ORIGIN}/{emulator.name}"


def ask(emulator: Emulator, call: HttpCall, now_us: int = START_US) -> HttpReply:
    """Send what a codec built."""
    reply = raw(emulator, call.method, call.url, now_us, headers=call.headers, body=call.body)
    return HttpReply(reply.status, reply.headers, reply.late() if reply.late else reply.body)


def raw(
    emulator: Emulator,
    method: str,
    url: str,
    now_us: int = START_US,
    *,
    headers: dict[str, str] | None = None,
    body: bytes | object = b"",
) -> Reply:
    """Send anything; ``url`` may be a path, ``body`` a JSON value."""
    prefix = base_url(emulator)
    if url.startswith("/"):
        url = prefix + url
    assert url.startswith(prefix + "/"), f"{url} leaves the sandbox"
    parts = urlsplit(url.removeprefix(prefix))
    return emulator.handle(
        Call(
            method=method,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in (headers or {}).items()},
            body=body if isinstance(body, bytes) else msgspec.json.encode(body),
            origin=prefix,
        ),
        now_us,
    )


def json_of(reply: Reply | HttpReply) -> dict[str, object]:
    return msgspec.json.decode(reply.body, type=dict[str, object])
