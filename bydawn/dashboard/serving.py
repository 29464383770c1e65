"""Opens the dashboard's port and says where it is, to nobody but the person who started it."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from bydawn.dashboard.app import Dashboard
from bydawn.dashboard.door import Door
from bydawn.errors import UserError
from bydawn.listening import bound, serve_bounded
from bydawn.webhooks import Place

PORT = 8788
_HERE = "127.0.0.1"  # there is no option for another one
_OPTION = "--dashboard-port"
_MOST = 32


class Opening(msgspec.Struct, frozen=True):
    """A port that is bound, and the token that is drawn for it."""

    listener: socket.socket
    token: str

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """As good as the dashboard itself: for a terminal, or a private file, and for no log (SEC-1)."""
        return f"http://{_HERE}:{self.port}/?token={self.token}"


def opening(port: int | None) -> Opening:
    """Bind a port of this machine: the one given, else the usual one, else any.

    Raises:
        UserError: the one given cannot be had.
    """
    listener = bound(Place(_HERE, port or PORT), where=_OPTION)
    if listener is None and port is None:
        listener = bound(Place(_HERE, 0), where=_OPTION)
    if listener is None:
        raise UserError(
            "BD-112",
            f"the dashboard cannot listen at {_HERE}:{port or PORT}",
            where=_OPTION,
            why="another program has this address",
            fix=f"{_OPTION} with another port; without it a free one is found",
        )
    return Opening(listener, secrets.token_urlsafe(32))


async def show(
    ledger: Path,
    opened: Opening,
    *,
    open_metrics: bool = False,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the dashboard of a ledger until cancelled."""
    door = Door(Dashboard(ledger).application(), port=opened.port, token=opened.token, open_metrics=open_metrics)
    await serve_bounded(door, opened.listener, most=_MOST, task_status=task_status)


@contextlib.contextmanager
def address_file(ledger: Path, address: str) -> Iterator[Path]:
    """Keep the address in a private file beside the ledger, for as long as it is good: where what is said to a
    terminal would end in a log."""
    path = ledger.with_name(f"{ledger.name}.dashboard")
    path.unlink(missing_ok=True)  # its mode may be another's
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{address}\n")
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == f"{address}\n":  # not of another one that was started since
                path.unlink()
