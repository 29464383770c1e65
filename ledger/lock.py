"""The run lock: a file beside the ledger that one process at a time holds (LED-5).

A separate file, because closing *any* descriptor of the ledger itself would drop SQLite's own locks.  It is never
removed: a lock on an unlinked file would let a second process in.  The kernel releases it when the process dies,
however it dies.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

from ledger.errors import LedgerHeld, LedgerPlace


def lock_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


class RunLock:
    """Held from :meth:`take` to :meth:`release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

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
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise LedgerHeld(f"{ledger} is held by process {holder or 'unknown'}") from exc
        with contextlib.suppress(
            OSError
        ):  # a full disk: then nobody can read who holds it, and it is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go; a second call changes nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
