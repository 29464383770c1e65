"""Copies a ledger into another file while it is in use.

The copy is whole and of one moment, whatever a run writes meanwhile: a plain file copy would be neither, since the
newest commits stand in the write-ahead log beside the file.  It is marked as a copy, so that wherever it is put it buys
nothing before it was taken over (REC-10).
"""

from pathlib import Path

from ledger.engine import create_file, open_copy, open_reader
from ledger.schema import COPIED


def back_up(path: Path, part: Path, *, at_us: int) -> None:
    """Copy the ledger at ``path`` into the new file ``part``.  Erased texts are not in it.

    Raises:
        LedgerMissing, LedgerDamaged, LedgerPlace, DiskFull, CommitFailed: ``part`` is of no use then.
    """
    source = open_reader(path)
    try:
        create_file(part)
        target = open_copy(part)
        try:
            source.copy_to(target)
            target.run("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (COPIED, str(at_us)))
            # A file of its own from here on: no log beside it that would have to be moved along.
            target.run("PRAGMA journal_mode = DELETE")
        finally:
            target.close()
    finally:
        source.close()
