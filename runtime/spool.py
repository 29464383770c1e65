"""Keeps images that came inside a reply until they are stored: the one copy there is of something paid for.

A synchronous provider answers with the bytes and forgets them.  So they are made durable before anything is
recorded (W14): a file per attempt in the batch's folder, written under another name, synced and renamed.  A kill
before that leaves a doubtful attempt; a kill after it leaves the image.

    spool/<task>-<attempt>         one line of JSON (:class:`Head`), then the bytes as they came

The fetcher takes it from there like any download, and removes it once the task is done.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from adapters.base import Finished
from runtime.blobs import BlobStore
from runtime.ports import Disk, Threads
from runtime.work import Work

_NAME = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)", re.ASCII)
_FOLDER = "spool"


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the reply said beside the image."""

    cost_microusd: int | None = None
    model_version: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Head).decode


class Spool:
    """The spools of all batches: each lies in its batch's folder."""

    def __init__(self, threads: Threads, store_of: Callable[[Work], BlobStore]) -> None:
        self._threads = threads
        self._store_of = store_of

    async def keep(self, work: Work, attempt: int, result: Finished) -> None:
        """Make the bytes of a reply durable.  Raises DiskFull, DiskFailed."""
        disk, path = self._place(work, attempt)
        head = _encode(Head(result.cost_microusd, result.model_version))

        def write() -> None:
            disk.make_dir(path.parent)
            part = path.with_name(path.name + ".part")
            disk.remove(part)
            disk.write_new(part, head + b"\n" + result.data)
            disk.rename(part, path)

        await self._threads.run(write)

    async def head(self, work: Work, attempt: int) -> Head | None:
        """What is known of a kept reply; None when there is none."""
        kept = await self._read(work, attempt)
        return None if kept is None else kept[0]

    async def data(self, work: Work, attempt: int) -> bytes | None:
        """The kept bytes; None when there are none."""
        kept = await self._read(work, attempt)
        return None if kept is None else kept[1]

    async def drop(self, work: Work, attempt: int) -> None:
        """Remove what was kept: it is stored elsewhere now, or of no use."""
        disk, path = self._place(work, attempt)
        await self._threads.run(lambda: disk.remove(path))

    async def _read(self, work: Work, attempt: int) -> tuple[Head, bytes] | None:
        disk, path = self._place(work, attempt)
        kept = await self._threads.run(lambda: disk.read(path) if disk.exists(path) else None)
        if kept is None:
            return None
        line, _, data = kept.partition(b"\n")
        return _decode(line), data

    def _place(self, work: Work, attempt: int) -> tuple[Disk, Path]:
        store = self._store_of(work)
        return store.disk, store.root / _FOLDER / f"{work.batch}-{work.n}-{attempt}"


def sweep(store: BlobStore, in_use: Callable[[int, int, int], bool]) -> int:
    """Remove what a crash left: parts, and files whose attempt (batch, task, number) is not ``in_use``.

    Blocks; returns how many there were.
    """
    folder = store.root / _FOLDER
    swept = 0
    for name in store.disk.names(folder):
        found = _NAME.fullmatch(name)
        if found is not None and in_use(int(found[1]), int(found[2]), int(found[3])):
            continue
        if found is not None or name.endswith(".part"):
            store.disk.remove(folder / name)
            swept += 1
    return swept
