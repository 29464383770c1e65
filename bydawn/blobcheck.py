"""Are the images that the ledger promises really on disk, byte for byte?

Every completed and every spare result is looked up under its digest and hashed again (RES-1), and every task's image
under its name for people too, where that is not the very same file (RES-7); except those that were erased on purpose,
which the ledger says.  Manifest and reports are not looked at: they are rebuilt from the ledger.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from bydawn.manifest import Naming
from ledger.encoding import decode_event
from ledger.erasing import files_erased
from ledger.errors import LedgerDamaged, LedgerNewer
from ledger.events import ResultSpared, TaskCompleted, TaskQueued, TaskShared
from ledger.folds import BatchState
from ledger.reader import Reader
from ledger.streams import stream_parts
from runtime.names import EXTENSIONS, TemplateError, with_ending
from runtime.requests import decode_request

PAGE = 2_000
# The last column: whether a later image has the name by now.
_PROMISING = (
    "SELECT e.seq, e.stream, e.type, CAST(e.data AS BLOB), CAST(q.data AS BLOB), EXISTS (SELECT 1 FROM events l"
    " WHERE l.stream = e.stream AND l.version > e.version AND l.type IN (?1, ?2))"
    " FROM events e LEFT JOIN events q ON q.stream = e.stream AND q.version = 1 AND q.type = ?4"
    " WHERE e.type IN (?1, ?2, ?3) AND e.seq > ?5 ORDER BY e.seq LIMIT ?6"
)


class Promise(NamedTuple):
    """One image that must be there; ``seq`` is the event that says so.

    ``blob`` is set where ``path`` is only a name for people: the file that it should be a link to.
    """

    seq: int
    task: int
    path: Path
    sha256: str
    size: int
    blob: Path | None = None


class Broken(NamedTuple):
    promise: Promise
    text: str


def promises(reader: Reader, batches: Mapping[int, BatchState], batch: int = 0) -> Iterator[list[Promise]]:
    """Page through what the ledger promises for one batch, 0 = for all.

    An event that cannot be read promises nothing that could be looked at: the audit names it.
    """
    erased = files_erased(reader)
    namings = {number: Naming(state) for number, state in batches.items()}
    tags = (TaskCompleted.TYPE, TaskShared.TYPE, ResultSpared.TYPE, TaskQueued.TYPE)
    after = 0
    while page := reader.store.rows(_PROMISING, (*tags, after, PAGE)):
        after = page[-1][0]
        found = []
        for seq, stream, tag, data, wanted, superseded in page:
            try:
                parts = stream_parts(stream)
            except ValueError:  # the audit names the event
                continue
            if stream in erased or parts.batch not in batches or batch not in (0, parts.batch):
                continue
            with suppress(LedgerDamaged, LedgerNewer, TemplateError, msgspec.DecodeError):
                event = decode_event(tag, data)
                assert isinstance(event, TaskCompleted | TaskShared | ResultSpared)
                root = Path(batches[parts.batch].folder)
                blob = root / "blobs" / event.sha256[:2] / event.sha256
                if not isinstance(event, TaskShared):
                    found.append(Promise(seq, parts.n, blob, event.sha256, event.size))
                if superseded or isinstance(event, ResultSpared) or wanted is None:
                    continue
                queued = decode_event(TaskQueued.TYPE, wanted)
                assert isinstance(queued, TaskQueued)
                if event.media_type in EXTENSIONS:
                    name = _name(reader, namings[parts.batch], parts.n, queued, event)
                    found.append(Promise(seq, parts.n, root / name, event.sha256, event.size, blob))
        yield found


def _name(reader: Reader, naming: Naming, n: int, queued: TaskQueued, image: TaskCompleted | TaskShared) -> Path:
    """The name for people, relative to the batch's folder."""
    text = reader.payload(queued.request.row) if naming.templated else None
    wanted = None if text is None else decode_request(text)
    return with_ending(naming.name_of_task(n, queued, wanted, version=image.version), image.media_type)


def check(promise: Promise) -> Broken | None:
    """Hash one file, but for a name that is a link to its blob, which is looked at for itself."""
    try:
        with promise.path.open("rb") as file:
            if promise.blob is not None and _is(file.fileno(), promise.blob):
                return None
            found = os.fstat(file.fileno()).st_size
            if found != promise.size:
                return Broken(promise, f"has {found:,} bytes instead of {promise.size:,}")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Broken(promise, "is missing")
    except OSError as error:
        return Broken(promise, f"cannot be read: {error.strerror}")
    except ValueError as error:  # of an event that was changed: no path at all
        return Broken(promise, f"cannot be read: {error}")
    return None if digest == promise.sha256 else Broken(promise, f"hashes to {digest}")


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def broken_images(
    reader: Reader, batches: Mapping[int, BatchState], *, batch: int = 0, progress: Callable[[int], None]
) -> Iterator[Broken]:
    """Yield what is missing or changed; ``progress`` is told how many images have been read, whatever their names."""
    read = 0
    # Hashing leaves the interpreter lock, so threads use the cores and keep the disk busy.
    with ThreadPoolExecutor() as pool:
        for page in promises(reader, batches, batch):
            for promise, outcome in zip(page, pool.map(check, page), strict=True):
                read += promise.blob is None
                progress(read)
                if outcome is not None:
                    yield outcome
