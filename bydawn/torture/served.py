"""The sandbox of a round: a process that plays the providers, and tells what reached it and what it charges."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from adapters.sandbox.house import BillLine
from bydawn.errors import UserError

_LATENCY_S, _RATE_FACTOR, _IDLE_EXIT_S = 0.2, 50, 300
_SETTLE_S = 20.0  # for jobs at the sandbox that nobody waits for any more
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class _Hello(msgspec.Struct, frozen=True):
    url: str


class Requests(msgspec.Struct, frozen=True):
    """How many reached the providers, and when the one came that was asked after; 0 = not yet."""

    requests: int
    first_us: int


@contextmanager
def served(folder: Path, chaos: str, seed: int) -> Iterator[str]:
    """Serve all providers from a process of its own; gives its address, and ends it."""
    command = [sys.executable, "-m", "adapters.sandbox", "--dir", str(folder), "--chaos", chaos, "--seed", str(seed)]
    command += ["--latency", str(_LATENCY_S), "--rate-factor", str(_RATE_FACTOR), "--idle-exit", str(_IDLE_EXIT_S)]
    folder.mkdir(mode=0o700, parents=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UserError(
                "BD-061",
                "the sandbox could not be started",
                where=str(folder / "log"),
                why=(folder / "log").read_text("utf-8", "replace")[-500:],
                fix="try it by hand: bydawn sandbox",
                exit_code=6,
            )
        yield msgspec.json.decode(line, type=_Hello).url
    finally:
        process.kill()
        process.communicate()


def requests(url: str, after: int = 0) -> Requests:
    with _DIRECT.open(f"{url}/sandbox/requests?after={after}", timeout=60) as reply:
        return msgspec.json.decode(reply.read(), type=Requests)


def bill_of(url: str, after: int = 0) -> list[BillLine]:
    """The lines of the bill behind number ``after``."""
    with _DIRECT.open(f"{url}/sandbox/bill?after={after}", timeout=60) as reply:
        return [msgspec.json.decode(line, type=BillLine) for line in reply]


def settled_bill(url: str) -> list[BillLine]:
    """The bill once every job has ended: one that is held by us runs on there, and may still be charged."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        bill = bill_of(url)
        if time.monotonic() > deadline or not any(line.state == "running" for line in bill):
            return bill
        time.sleep(0.1)
