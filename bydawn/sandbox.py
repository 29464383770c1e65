"""The practice ground of ``--sandbox``: a separate process that plays all providers, and accounts that point at it.

It is started when none answers, in a session of its own, so that a kill -9 of the run never touches it; its jobs
and its bill lie in ``<ledger>.sandbox/`` and survive a restart of it.  After some idle time it ends by itself.
"""

import http.client
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec

from adapters import registry
from adapters.base import Secret
from adapters.capabilities import Rate
from bydawn.errors import UserError
from runtime.accounts import Account

_START_S = 20.0
_IDLE_EXIT_S = 900
_KEY = "sandbox-practice"
# Loopback is never reached through a proxy, whatever HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Hello(msgspec.Struct, frozen=True):
    """What a sandbox says of itself at ``/sandbox``."""

    bydawn_sandbox: int
    providers: tuple[str, ...]
    rate_factor: float
    latency_s: float
    quarantine_s: float
    pid: int


class Practice(msgspec.Struct, frozen=True):
    url: str
    hello: Hello
    started: bool


def practice_dir(ledger: Path) -> Path:
    """Where the sandbox of a ledger keeps its jobs and its bill."""
    return ledger.with_name(ledger.name + ".sandbox")


def find_or_start(ledger: Path) -> Practice:
    """Return the sandbox of this ledger, started when none answers.

    ``BYDAWN_SANDBOX_URL`` names one that runs already.

    Raises:
        UserError: it cannot be started, or what answers is no sandbox.
    """
    named = os.environ.get("BYDAWN_SANDBOX_URL")
    if named:
        hello = _hello(named)
        if hello is None:
            raise UserError(
                "BD-060",
                f"no sandbox answers at {named}",
                why="BYDAWN_SANDBOX_URL names it",
                fix="start it with bydawn sandbox, or unset the variable",
                exit_code=6,
            )
        return Practice(named.rstrip("/"), hello, started=False)
    folder = practice_dir(ledger)
    address = folder / "address"
    if address.exists():
        url = address.read_text().strip()
        hello = _hello(url)
        if hello is not None:
            return Practice(url, hello, started=False)
    url = _start(folder)
    hello = _hello(url)
    if hello is None:
        raise _not_started(folder)
    address.write_text(url + "\n")
    return Practice(url, hello, started=True)


def practice_accounts(practice: Practice, providers: tuple[str, ...]) -> list[Account]:
    """Return an account per provider that buys from the sandbox; empty ``providers`` = all it plays but those that join
    only when they are named."""
    unknown = [name for name in providers if name not in practice.hello.providers]
    if unknown:
        raise UserError(
            "BD-040",
            f"the sandbox plays no provider named {', '.join(unknown)}",
            fix=f"--provider with some of: {', '.join(practice.hello.providers)}; a package that came later is "
            f"played by the next sandbox: kill {practice.hello.pid}",
        )
    known = registry.entries()
    # A sandbox of another installation may play what we have no codec for.
    usual = [name for name in practice.hello.providers if name in known and not known[name].named_only]
    return [_account(practice, name) for name in providers or usual]


def _account(practice: Practice, provider: str) -> Account:
    codec = registry.codec(provider)
    caps, factor = codec.capabilities, practice.hello.rate_factor
    return Account(
        name=provider,
        provider=provider,
        codec=codec,
        key=Secret(os.environ.get("BYDAWN_SANDBOX_KEY") or _KEY),
        base_url=f"{practice.url}/{provider}",
        loopback=True,
        rate=_faster(caps.submit_rate.value, factor),
        poll_rate=_faster(caps.poll_rate.value, factor),
        quarantine_s=practice.hello.quarantine_s,
        latency_s=practice.hello.latency_s,
    )


def _faster(rate: Rate, factor: float) -> Rate:
    return Rate(count=max(1, int(rate.count * factor)), per_s=rate.per_s)


def _hello(url: str) -> Hello | None:
    try:
        with _DIRECT.open(f"{url.rstrip('/')}/sandbox", timeout=5) as reply:
            return msgspec.json.decode(reply.read(65536), type=Hello)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, ValueError):
        return None


def _start(folder: Path) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    extra = []  # what callbacks are signed with is no part of it: the process finds that in its own environment
    for option in ("latency", "chaos", "seed", "rate-factor", "price-factor"):
        value = os.environ.get("BYDAWN_SANDBOX_" + option.upper().replace("-", "_"))
        if value:
            extra += [f"--{option}", value]
    command = [sys.executable, "-m", "adapters.sandbox", "--port", "0", "--dir", str(folder)]
    command += ["--idle-exit", str(_IDLE_EXIT_S), *extra]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert process.stdout is not None
    started = time.monotonic()
    line = process.stdout.readline()
    try:
        told = msgspec.json.decode(line, type=dict[str, str | int])
    except msgspec.MsgspecError:
        raise _not_started(folder) from None
    finally:
        process.stdout.close()
    url = str(told["url"])
    while _hello(url) is None:
        if time.monotonic() - started > _START_S or process.poll() is not None:
            raise _not_started(folder)
        time.sleep(0.05)
    return url


def _not_started(folder: Path) -> UserError:
    return UserError(
        "BD-061",
        "the sandbox could not be started",
        where=str(folder / "log"),
        why="its log says more",
        fix="try it by hand: bydawn sandbox",
        exit_code=6,
    )
