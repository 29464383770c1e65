"""``python -m adapters.sandbox``: serve the emulators, print one JSON line when listening."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from adapters.sandbox.faults import load_profile
from adapters.sandbox.server import WEBHOOK_KEY_ENV, SandboxBusy, SandboxSettings, serve, webhook_key_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; returns the exit code."""
    os.umask(0o077)  # jobs hold prompts
    try:
        settings = _settings(arguments)
        trio.run(serve, settings, lambda port: _announce(settings.host, port))
    except (ValueError, OSError, SandboxBusy) as exc:
        sys.stderr.write(f"sandbox: {exc}\n")
        return 2
    return 0


def _settings(arguments: Sequence[str] | None) -> SandboxSettings:
    parser = argparse.ArgumentParser(prog="python -m adapters.sandbox", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where jobs and bill are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--latency", type=float, default=2.0, help="median seconds from acceptance to result")
    parser.add_argument("--chaos", default="none", help="none, flaky, storm, or a TOML file")
    parser.add_argument("--seed", type=int, default=0, help="of faults, fates and latencies")
    parser.add_argument("--rate-factor", type=float, default=5.0, help="1 = the documented limits")
    parser.add_argument("--price-factor", type=float, default=1.0, help="1 = the providers' own price lists")
    parser.add_argument(
        "--webhook-key", default="", help=f"what callbacks are signed with; or {WEBHOOK_KEY_ENV}[_FILE]"
    )
    parser.add_argument("--providers", default="", help="which to serve, default all")
    parser.add_argument("--idle-exit", type=float, default=0.0, help="leave after so many seconds without a request")
    given = parser.parse_args(arguments)
    return SandboxSettings(
        directory=given.dir,
        host=given.host,
        port=given.port,
        latency_s=given.latency,
        chaos=load_profile(given.chaos),
        seed=given.seed,
        rate_factor=given.rate_factor,
        price_factor=given.price_factor,
        webhook_key=given.webhook_key or webhook_key_of(os.environ),
        idle_exit_s=given.idle_exit,
        providers=tuple(filter(None, given.providers.split(","))),
    )


def _announce(host: str, port: int) -> None:
    line = msgspec.json.encode({"url": f"http://{host}:{port}", "pid": os.getpid()})
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
