"""The sealed head beside the results: what a later ledger must still contain.

``sealed-head.json`` in the folder of a batch names the newest event when it was written: before a run buys, every two
seconds while it does, and when it has ended.  An older copy of the ledger that is put in its place does not contain
that event, so it is found out before it buys everything once more (REC-10); ``bydawn verify --against`` reads the
same file.
"""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import trio

from bydawn.movedfolder import beside
from ledger.audit import SealedHead
from ledger.reader import Reader
from runtime.outputs import write_lines
from runtime.ports import Disk, DiskFailed, DiskFull, Threads

HEAD = "sealed-head.json"

_log = logging.getLogger(__name__)

_EVERY_S = 2.0


class Sealer:
    """Keeps the head in one folder up to date.  ``reader`` is asked in the caller's thread."""

    def __init__(self, disk: Disk, folder: Path, reader: Reader) -> None:
        self._disk = disk
        self._path = folder / HEAD
        self._reader = reader
        self._written: SealedHead | None = None

    def seal(self) -> None:
        """Write the head as it is now.  Blocking.  Raises DiskFull or DiskFailed."""
        self._write(head_of(self._reader))

    async def keep_sealing(self, threads: Threads) -> None:
        """Seal again and again until cancelled.  A disk that refuses is the night's trouble, and told by it."""
        while True:
            await trio.sleep(_EVERY_S)
            head = head_of(self._reader)
            if head != self._written:
                try:
                    await threads.run(partial(self._write, head))
                except (DiskFull, DiskFailed) as exc:
                    _log.warning("the head could not be sealed: %s", exc)

    def _write(self, head: SealedHead) -> None:
        write_lines(self._disk, self._path, [msgspec.json.encode(head) + b"\n"])
        self._written = head


def head_of(reader: Reader) -> SealedHead:
    """The end of the chain as it is now."""
    head = reader.head()
    return SealedHead(reader.ledger_id(), head.seq, head.hash)


def sealed_heads(reader: Reader) -> Iterator[tuple[Path, SealedHead]]:
    """The heads of this ledger that stand beside its results, each with its folder; also where a whole project was
    moved, and no run has put that on record yet."""
    ledger_id = reader.ledger_id()
    recorded = [Path(reader.batch(row.batch).folder) for row in reader.batches()]
    for folder in dict.fromkeys((*recorded, *(beside(reader.path, each) for each in recorded))):
        path = folder / HEAD
        try:
            head = msgspec.json.decode(path.read_bytes(), type=SealedHead)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError, RecursionError) as exc:
            _log.warning("%s cannot be read, and nothing is compared with it: %s", path, exc)
            continue
        if head.ledger_id == ledger_id:
            yield folder, head
