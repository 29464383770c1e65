"""Opens a ledger for writing: run lock, a new epoch with the identity of this machine, and the ledger's secret.

Whoever opens it also closes its epoch, so that only a process that really died looks killed afterwards.
"""

import getpass
import hashlib
import hmac
import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

import bydawn
from bydawn.errors import UserError
from ledger.decisions import Append, Decision
from ledger.errors import LedgerError, LedgerHeld
from ledger.events import EpochEnded
from ledger.journal import Ledger
from ledger.streams import runtime_stream

_SECRET_BYTES = 32


class Opened(msgspec.Struct, frozen=True):
    """A ledger that this process may write; ``keyed`` digests a text with the ledger's secret (hex, 32 digits)."""

    ledger: Ledger
    keyed: Callable[[str], str]
    created: bool


def operator() -> str:
    """Who is at the keyboard, for the record."""
    try:
        return os.environ.get("BYDAWN_OPERATOR") or getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return f"uid-{os.getuid()}"


def _command(arguments: Sequence[str]) -> str:
    """What was called, for the record; never a prompt, since events can never be erased (SEC-8)."""
    shown = ["image", "..."] if arguments[:1] == ["image"] else arguments
    return shlex.join(["bydawn", *shown])


@contextmanager
def opened_for_writing(path: Path, *, create: bool) -> Iterator[Opened]:
    """Hold the ledger for writing under a new epoch.

    Raises:
        LedgerHeld: another process has it; leave a message in its inbox instead.
        LedgerError: as :meth:`ledger.journal.Ledger.create_or_open` says.
    """
    created = not path.exists()
    if created and create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ledger = Ledger.create_or_open(path, create=create)
    try:
        keyed = keyed_by(path)
        ledger.start_epoch(
            machine=keyed(machine()),
            pid=os.getpid(),
            app_version=bydawn.__version__,
            operator=operator(),
            command=_command(sys.argv[1:]),
            at_us=time.time_ns() // 1000,
        )
        try:
            yield Opened(ledger, keyed, created)
        except UserError as exc:
            end_epoch(ledger, stopped_by="disk_full" if exc.exit_code == 7 else "refused", exit_code=exc.exit_code)
            raise
        except KeyboardInterrupt:
            end_epoch(ledger, stopped_by="interrupted", exit_code=130)
            raise
        except Exception:
            end_epoch(ledger, stopped_by="error", exit_code=1)
            raise
        end_epoch(ledger, stopped_by="done", exit_code=0)
    finally:
        ledger.close()


def keyed_by(path: Path) -> Callable[[str], str]:
    """Return the function that digests a text with the secret of the ledger at ``path`` (hex, 32 digits)."""
    secret = _ledger_secret(path)
    return lambda text: hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:32]


def end_epoch(ledger: Ledger, *, stopped_by: str, exit_code: int) -> None:
    """Record that this process ends by itself, unless the run has said so already with its figures.

    A ledger that refused a commit takes nothing more, and then the trouble itself is what must be told.
    """
    with suppress(LedgerError):
        with ledger.reader() as reader:
            newest = reader.epochs()[-1]
            version = reader.version(runtime_stream())
        if newest.epoch == ledger.epoch and newest.ended is None:
            ended = EpochEnded(stopped_by=stopped_by, exit_code=exit_code)
            append = Append(runtime_stream(), version, (ended,))
            ledger.commit([Decision(appends=(append,), at_us=time.time_ns() // 1000)])


def held_error(path: Path, exc: LedgerHeld) -> UserError:
    return UserError(
        LedgerHeld.code,
        "another bydawn is running on this ledger",
        where=str(path),
        why=str(exc),
        fix="wait for it, or look at it: bydawn status --watch",
        exit_code=11,
    )


def _ledger_secret(path: Path) -> bytes:
    """Read the secret beside the ledger, made on first use: 0600, never stored or shown elsewhere (SEC-1)."""
    place = path.with_name(path.name + ".key")
    try:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = place.read_bytes()
        if len(secret) != _SECRET_BYTES:
            raise UserError(
                "BD-032",
                "the key file of the ledger is damaged",
                where=str(place),
                why=f"it should hold {_SECRET_BYTES} bytes and holds {len(secret)}",
                fix="put it back from a backup; or remove it: then take the ledger over and confirm the accounts",
                exit_code=12,
            ) from None
        return secret
    secret = secrets.token_bytes(_SECRET_BYTES)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret


def machine() -> str:
    """What tells this machine from another: the name it is given, else its systemd id, else its host name."""
    given = os.environ.get("BYDAWN_MACHINE", "").strip()
    if given:
        return given
    try:
        return Path("/etc/machine-id").read_text().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename
