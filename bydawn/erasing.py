"""Erases the texts of tasks, and what was made from them outside the ledger.

The order makes every step repeatable: whatever a crash leaves undone, the same command does.

1. Images whose names tell input columns get names without them, while the ledger still knows the old ones.
2. One transaction: the event of each task, and its texts emptied (SEC-8).
3. The write-ahead log goes into the file and is emptied: until then the texts stand in it.
4. Manifest and errors are written anew, with ``[erased]``.
5. On request the images: names, blobs that no other task needs, what was kept for dispute.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bydawn.cli.formats import plain
from bydawn.errors import UserError
from bydawn.manifest import Naming, write_outputs
from bydawn.opening import Opened
from bydawn.single import NAME as SINGLE
from bydawn.single import REQUEST
from ledger.commands import Erase
from ledger.decisions import Append, Committed, Decision
from ledger.erasing import Image, belonging, images_of, needed_images, texts_of
from ledger.errors import CommandRejected
from ledger.events import TaskEvent
from ledger.folds import TaskState
from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import task_stream
from runtime.blobs import BlobStore
from runtime.disk import RealDisk
from runtime.names import with_ending
from runtime.ports import Disk, NameTaken
from runtime.requests import decode_request

_TRIES = 20
_PAUSE_S = 0.25


class Scope(msgspec.Struct, frozen=True):
    """What an erasure of some tasks takes along.  ``numbers`` holds the tasks that share their purchases, too."""

    batch: int
    numbers: tuple[int, ...]
    ids: tuple[str, ...]
    texts: int
    images: int
    unbought: int  # tasks that were still wanted: they are cancelled


class Erased(msgspec.Struct, frozen=True):
    """What was done.  ``log_emptied`` False: somebody reads in the write-ahead log, where the texts still stand."""

    tasks: int
    texts: int
    cancelled: int
    files: int
    log_emptied: bool


def scope_of(reader: Reader, batch: int, numbers: Sequence[int]) -> Scope:
    """Say what would go.

    Raises:
        UserError: an attempt of one of the tasks is open or held.
    """
    together = belonging(reader, batch, numbers)
    states = {n: reader.state(task_stream(batch, n)) for n in together}
    for n, state in states.items():
        _decided(state, Erase(operator=""), asked=n in numbers)
    rows = {row for of_task in texts_of(reader, batch, together).values() for row in of_task}
    return Scope(
        batch=batch,
        numbers=tuple(together),
        ids=tuple(state.queued.id for state in states.values() if state.queued is not None),
        texts=len(rows),
        images=len({image.sha256 for image in images_of(reader, batch, together)}),
        unbought=sum(state.phase == "queued" for state in states.values()),
    )


def erase(
    opened: Opened,
    batch: int,
    numbers: Sequence[int],
    *,
    files: bool,
    operator: str,
    disk: Disk | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Erased:
    """Erase the texts of the tasks and of those that share their purchases; ``files``: their images too.

    Raises:
        UserError: an attempt of one of the tasks is open or held; nothing was changed.
        DiskFull, DiskFailed: the texts are gone, the files of the batch are not all done; the same command does it.
    """
    disk = disk or RealDisk()
    ledger = opened.ledger
    with ledger.reader() as reader:
        scope = scope_of(reader, batch, numbers)
        store = BlobStore(disk, Path(reader.batch(batch).folder))
        images = images_of(reader, batch, scope.numbers)
        names = _Names(reader, batch, store)
        for image in images:
            names.forget_columns(image)
        _commit(ledger, reader, scope, files=files, operator=operator)
    # No reader of ours is open now: it would keep the log from being emptied.
    emptied = _empty_log(ledger, pause)
    removed = 0
    with ledger.reader() as reader:
        if store.root.is_dir():
            write_outputs(reader, batch, disk)
            if reader.batch(batch).name == SINGLE:
                disk.remove(store.root / REQUEST)
            if files:
                removed = _remove_images(reader, batch, scope.numbers, images, store)
    return Erased(len(scope.numbers), scope.texts, scope.unbought, removed, emptied)


def _commit(ledger: Ledger, reader: Reader, scope: Scope, *, files: bool, operator: str) -> None:
    texts = texts_of(reader, scope.batch, scope.numbers)
    appends = []
    for n in scope.numbers:
        stream = task_stream(scope.batch, n)
        state = reader.state(stream)
        events = _decided(state, Erase(operator=operator, files=files, texts=len(texts[n])))
        if events:
            appends.append(Append(stream, state.version, events))
    if not appends:
        return
    rows = sorted({row for of_task in texts.values() for row in of_task})
    (outcome,) = ledger.commit([Decision(tuple(appends), time.time_ns() // 1000, erases=tuple(rows))])
    assert isinstance(outcome, Committed), outcome  # nobody else may write


def _decided(state: TaskState, command: Erase, *, asked: bool = True) -> tuple[TaskEvent, ...]:
    try:
        return decide_task(state, command)
    except CommandRejected as exc:
        raise UserError(
            "BD-116",
            plain(str(exc)),
            why="while a purchase is open or in doubt, its text is what finds it again after a crash"
            + ("" if asked else "; this task shares a purchase with the one that you named"),
            fix="let the run finish, or decide it: bydawn resolve BATCH; to stop it: bydawn cancel BATCH",
        ) from exc


def _empty_log(ledger: Ledger, pause: Callable[[float], None]) -> bool:
    """Wait a little for others who read: each of their looks is short."""
    for _ in range(_TRIES):
        if ledger.checkpoint():
            return True
        pause(_PAUSE_S)
    return False


# --- files ------------------------------------------------------------------------------------------------


class _Names:
    """The names of images for people, with and without what the input said."""

    def __init__(self, reader: Reader, batch: int, store: BlobStore) -> None:
        self._reader = reader
        self._batch = batch
        self._store = store
        self._naming = Naming(reader.batch(batch))

    def forget_columns(self, image: Image) -> None:
        """Give an image the name that says nothing, where its name was made from columns."""
        disk, root = self._store.disk, self._store.root
        old, new = self._path(image, told=True), self._path(image, told=False)
        if old == new or image.version == 0 or not disk.exists(root / old):
            return
        disk.make_dir((root / new).parent)
        try:
            disk.link(root / old, root / new)
        except NameTaken:  # by a stranger's file, which stays
            disk.link(root / old, _beside(root / new, image.n))
        disk.remove(root / old)

    def remove(self, image: Image) -> int:
        """Remove the names under which this very image lies; returns how many there were."""
        disk, removed = self._store.disk, 0
        name = self._store.root / self._path(image, told=False)
        for path in (name, _beside(name, image.n)):
            if disk.exists(path) and hashlib.sha256(disk.read(path)).hexdigest() == image.sha256:
                disk.remove(path)
                removed += 1
        return removed

    def _path(self, image: Image, *, told: bool) -> Path:
        queued = self._reader.state(task_stream(self._batch, image.n)).queued
        assert queued is not None
        text = self._reader.payload(queued.request.row) if told else None
        wanted = None if text is None else decode_request(text)
        return with_ending(self._naming.name_of_task(image.n, queued, wanted, version=image.version), image.media_type)


def _beside(name: Path, n: int) -> Path:
    """The name of task ``n`` where a stranger has the one it should have."""
    return name.with_name(f"{name.stem}.erased-{n}{name.suffix}")


def _remove_images(reader: Reader, batch: int, numbers: Sequence[int], images: list[Image], store: BlobStore) -> int:
    removed = 0
    names = _Names(reader, batch, store)
    for image in images:
        if image.version:
            removed += names.remove(image)
    digests = {image.sha256 for image in images}
    for digest in sorted(digests - needed_images(reader, batch, digests, but=numbers)):
        removed += store.disk.exists(store.path(digest))
        store.disk.remove(store.path(digest))
    for name in store.disk.names(store.root / "disputed"):
        parts = name.removesuffix(".bin").split("-")
        with contextlib.suppress(ValueError, IndexError):
            if int(parts[1]) == batch and int(parts[2]) in numbers:
                store.disk.remove(store.root / "disputed" / name)
                removed += 1
    return removed
