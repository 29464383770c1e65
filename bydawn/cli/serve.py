"""``bydawn serve``: take callbacks for a ledger, also while no run is going, and show how its batches stand.

It writes nothing to the ledger: what arrives waits in the inbox for the run that is going, or for the next one.
"""

import os
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bydawn.cli.formats import count, counted
from bydawn.cli.options import ledger_options
from bydawn.cli.output import log_to_stderr, talk
from bydawn.errors import UserError
from bydawn.selection import ledger_path
from ledger.errors import LedgerMissing

if TYPE_CHECKING:
    from bydawn.dashboard.serving import Opening
    from bydawn.receiver import Receiver
    from bydawn.webhooks import Place

_TELL_S = 30.0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Of this machine; 8787 by default.")
@click.option("--listen", metavar="HOST", help="Address of this machine; 127.0.0.1 by default.")
@click.option(
    "--dashboard-port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Of the dashboard, on this machine only; 8788 by default, or a free one.",
)
@click.option("--no-dashboard", is_flag=True, help="Only receive callbacks.")
@click.option("--open-metrics", is_flag=True, help="Show /metrics of the dashboard's port without its token.")
@ledger_options
def serve(
    port: int | None,
    listen: str | None,
    dashboard_port: int | None,
    no_dashboard: bool,
    open_metrics: bool,
    ledger: Path | None,
    sandbox: bool,
) -> None:
    """Receive the callbacks of providers, and show a dashboard of the open batches.

    What arrives while no run is going waits and is used by the next one.  GET /healthz answers ok.  The dashboard
    has a port of its own, on this machine only; its address is printed, with a token that is new at each start.

    \b
      bydawn serve --port 8787
    """
    import logging

    from adapters.registry import entries
    from bydawn.config import load_config
    from bydawn.opening import keyed_by
    from bydawn.receiver import Receiver
    from bydawn.webhooks import Place, listening_place, public_url, webhook_secrets

    log_to_stderr(logging.INFO, "%(asctime)s %(message)s")
    logging.getLogger("hypercorn.error").setLevel(logging.WARNING)
    path = ledger_path(ledger, sandbox=sandbox)
    if not path.is_file():  # practice is served when it is asked for, and never instead of the real thing
        raise UserError(
            LedgerMissing.code,
            f"there is no ledger at {path}",
            why="callbacks belong to the ledger whose attempts they are about",
            fix="bydawn run INPUT starts one; in another folder: --ledger FILE; practice: --sandbox",
            exit_code=10,
        )
    config = load_config(Path.cwd(), os.environ)
    url = public_url(config.setting("webhook_url").value, where="BYDAWN_WEBHOOK_URL")
    usual = listening_place(config.setting("webhook_listen").value, url, where="BYDAWN_WEBHOOK_LISTEN")
    receiver = Receiver(path, keyed=keyed_by(path), secrets=webhook_secrets(entries(), config.env))
    with ExitStack() as until_the_end:
        opened = None
        if not no_dashboard:
            from bydawn.dashboard.serving import opening

            opened = opening(dashboard_port)
            until_the_end.enter_context(opened.listener)
        talk(f"ledger {path}; Ctrl-C stops")
        if opened is not None:
            _say_where(path, opened, until_the_end)
        _until_stopped(
            receiver, Place(listen or usual.host, port or usual.port), path, opened, open_metrics=open_metrics
        )


def _say_where(ledger: Path, opened: "Opening", until_the_end: ExitStack) -> None:
    """On a terminal the address itself; elsewhere only where it is: a log is read by others, and kept (SEC-1)."""
    from bydawn.dashboard.serving import address_file

    if sys.stderr.isatty():
        talk(f"dashboard {opened.address}")
    else:
        talk(f"dashboard at 127.0.0.1:{opened.port}; its address, with the token, is in")
        talk(f"  {until_the_end.enter_context(address_file(ledger, opened.address))}")


def _until_stopped(
    receiver: "Receiver", place: "Place", ledger: Path, opened: "Opening | None", *, open_metrics: bool
) -> None:
    import trio

    from bydawn.receiver import receive

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                nursery.start_soon(_tell, receiver)
                if opened is not None:
                    from bydawn.dashboard.serving import show

                    await nursery.start(partial(show, ledger, opened, open_metrics=open_metrics))
                await nursery.start(receive, receiver, place, talk)
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise _user_error(group) or group from group
    talk(_told(receiver))


async def _tell(receiver: "Receiver") -> None:
    """Say now and then what came, when anything came."""
    import trio

    said = _told(receiver)
    while True:
        await trio.sleep(_TELL_S)
        if (now := _told(receiver)) != said:
            said = now
            talk(said)


def _told(receiver: "Receiver") -> str:
    return f"{counted(receiver.taken, 'callback')} taken, {count(receiver.refused)} refused"


def _user_error(group: BaseExceptionGroup[BaseException]) -> UserError | None:
    for exc in group.exceptions:
        if isinstance(exc, UserError):
            return exc
        if isinstance(exc, BaseExceptionGroup) and (found := _user_error(exc)) is not None:
            return found
    return None
