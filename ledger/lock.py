"""The run lock: a file beside the ledger that one process at a time holds (LED-5).

A separate file, because closing *any* descriptor of the ledger itself would drop SQLite's own locks.  It is never
removed: a lock on an unlinked file would let a second process in.  The kernel releases it when the process dies,
however it dies.

The file names the process, and in a second line the newest commit of the ledger: a copy of an older moment that is put
in the ledger's place does not contain it (REC-10).  That line is written after each commit and synced by nobody, so a
power cut may leave an older one, which says less and nothing wrong.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

from ledger.errors import LedgerHeld, LedgerPlace

_PID = 32  # bytes of the first line


def lock_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


def newest_commit(ledger: Path) -> tuple[str, int, str] | None:
    """Id of the ledger, seq and head of the newest commit that was made beside this lock; None where none is told."""
    try:
        ledger_id, seq, head = lock_path(ledger).read_bytes()[_PID:].decode("ascii").split()
        return ledger_id, int(seq), head
    except (OSError, ValueError):
        return None


class RunLock:
    """Held from :meth:`take` to :meth:`release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def mark(self, ledger_id: str, seq: int, head: str) -> None:
        """Name the newest commit.  A disk that refuses keeps the older one."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, f"{ledger_id} {seq:020} {head}\n".encode(), _PID)

    @classmethod
    def take(cls, ledger: Path) -> Self:
        """Take the lock of ``ledger`` without waiting.

        Raises:
            LedgerHeld: another process (or another handle of this one) holds it.
        """
        path = lock_path(ledger)
        try:
            # Never through a link: what it led to would be cut to our process id.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise LedgerPlace(f"{path} cannot be written: {exc.strerror}") from exc
        try:
            # flock and not fcntl.lockf: a second handle in the same process must be refused too.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(descriptor, _PID, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise LedgerHeld(f"{ledger} is held by process {holder or 'unknown'}") from exc
        with contextlib.suppress(
            OSError
        ):  # a full disk: then nobody can read who holds it, and it is held all the same
            os.pwrite(descriptor, f"{os.getpid()}".ljust(_PID - 1).encode() + b"\n", 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go; a second call changes nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
