"""Are the images that the ledger promises really on disk, byte for byte?

Every completed and every spare result is looked up under its digest and hashed again (RES-1), except those that were
erased on purpose, which the ledger says.  Names, manifest and reports are not looked at: they are rebuilt from the
ledger and the blobs.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ledger.encoding import decode_event
from ledger.erasing import files_erased
from ledger.errors import LedgerDamaged
from ledger.events import ResultSpared, TaskCompleted
from ledger.reader import Reader
from ledger.streams import stream_parts

PAGE = 2_000
_PROMISING = (
    "SELECT seq, stream, type, CAST(data AS BLOB) FROM events WHERE seq > ? AND type IN (?, ?) ORDER BY seq LIMIT ?"
)


class Promise(NamedTuple):
    """One blob that must be there; ``seq`` is the event that says so."""

    seq: int
    task: int
    path: Path
    sha256: str
    size: int


class Broken(NamedTuple):
    promise: Promise
    text: str


def promises(reader: Reader, folders: dict[int, Path], batch: int = 0) -> Iterator[list[Promise]]:
    """Page through what the ledger promises for one batch, 0 = for all.

    An event that cannot be read promises nothing that could be looked at: the audit names it.
    """
    erased = files_erased(reader)
    after = 0
    while page := reader.store.rows(_PROMISING, (after, TaskCompleted.TYPE, ResultSpared.TYPE, PAGE)):
        after = page[-1][0]
        found = []
        for seq, stream, tag, data in page:
            parts = stream_parts(stream)
            if stream in erased or parts.batch not in folders or batch not in (0, parts.batch):
                continue
            with suppress(LedgerDamaged):
                event = decode_event(tag, data)
                assert isinstance(event, TaskCompleted | ResultSpared)
                path = folders[parts.batch] / "blobs" / event.sha256[:2] / event.sha256
                found.append(Promise(seq, parts.n, path, event.sha256, event.size))
        yield found


def check(promise: Promise) -> Broken | None:
    """Hash one file."""
    try:
        with promise.path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != promise.size:
                return Broken(promise, f"has {found:,} bytes instead of {promise.size:,}")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Broken(promise, "is missing")
    except OSError as error:
        return Broken(promise, f"cannot be read: {error.strerror}")
    return None if digest == promise.sha256 else Broken(promise, f"hashes to {digest}")


def broken_blobs(
    reader: Reader, folders: dict[int, Path], *, batch: int = 0, progress: Callable[[int], None]
) -> Iterator[Broken]:
    """Yield what is missing or changed; ``progress`` is told how many files have been read."""
    read = 0
    # Hashing leaves the interpreter lock, so threads use the cores and keep the disk busy.
    with ThreadPoolExecutor() as pool:
        for page in promises(reader, folders, batch):
            for outcome in pool.map(check, page):
                read += 1
                progress(read)
                if outcome is not None:
                    yield outcome
