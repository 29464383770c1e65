"""The result store: images under their digest, durable before anyone is told of them.

    blobs/ab/<sha256>              read-only, the one copy that counts
    blobs/<epoch>-<attempt>.part   on its way; belongs to one epoch and is removed by the next (RES-5)
    disputed/<epoch>-<attempt>.bin what was delivered and is no image, kept for dispute (RES-4)
    images/...                     names for people: hard links to the blobs, rebuilt at any time (RES-7)

The order is always: write, fsync, rename to the digest, fsync the directory (RES-2).  Only then does a caller
record the completion.  Doing all of it twice changes nothing: after a kill between rename and record the same bytes
are stored again under the same name (crash window W11).
"""

import hashlib
import logging
import re
from pathlib import Path

import msgspec

from runtime.images import BadImage, Expected, Inspected, inspect
from runtime.names import with_ending
from runtime.ports import Disk, DiskFailed, NameTaken, Threads

_log = logging.getLogger(__name__)

MEMORY_BYTES = 8 << 20  # of one download; beyond it goes to the part file

_PART = re.compile(r"(\d+)-[\w.-]+", re.ASCII)


class Blob(msgspec.Struct, frozen=True):
    """A stored image: durable, decodable, and hashing to ``sha256`` (RES-1)."""

    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    flags: tuple[str, ...] = ()


class BlobStore:
    """The store in one batch's folder.  Every method blocks: call it through Threads."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self.disk = disk
        self.root = root

    def path(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def put(self, data: bytes, *, part: str, expected: Expected, link: Path | None = None) -> Blob | BadImage:
        """Check and store a whole result, and link it as ``link`` plus the ending of its type.

        Args:
            part: ``<epoch>-<attempt>``; the name on the way, and of what is kept for dispute.
            link: relative to the batch's folder, without its ending; None links nothing.
        """
        path = self._part_path(part)
        self.disk.make_dir(path.parent)
        self.disk.remove(path)  # an earlier try of this attempt may have been cut off
        self.disk.write_new(path, data)
        return self._settle(path, data, hashlib.sha256(data).hexdigest(), expected, link)

    def spill(self, data: bytes, *, part: str, first: bool) -> None:
        """Append a piece of a large result to its part file, without fsync."""
        path = self._part_path(part)
        if first:
            self.disk.make_dir(path.parent)
            self.disk.remove(path)
        self.disk.append(path, data)

    def put_spilled(self, *, part: str, sha256: str, expected: Expected, link: Path | None = None) -> Blob | BadImage:
        """Check and store what was spilled; ``sha256`` is the digest of the bytes as they came in.

        The file is read back from the disk: what was received and what was kept are compared here.
        """
        path = self._part_path(part)
        self.disk.sync(path)
        data = self.disk.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DiskFailed(f"{path.name} reads back other bytes than were written")
        return self._settle(path, data, sha256, expected, link)

    def discard(self, part: str) -> None:
        self.disk.remove(self._part_path(part))

    def link(self, sha256: str, media_type: str, name: Path) -> Path:
        """Give a blob its name for people; returns it relative to the folder.  The same name twice is fine."""
        target = self.root / with_ending(name, media_type)
        self.disk.make_dir(target.parent)
        self.disk.link(self.path(sha256), target)
        return target.relative_to(self.root)

    def put_back(self, sha256: str, name: Path) -> None:
        """Give a blob its name again, ending and all, if both the blob is there and nothing has the name."""
        target = self.root / name
        if not self.disk.exists(target) and self.disk.exists(self.path(sha256)):
            self.disk.make_dir(target.parent)
            self.disk.link(self.path(sha256), target)

    def supersede(self, name: Path, media_type: str, version: int) -> None:
        """Keep the picture under ``name`` as ``name.v<version>``, before the next version takes the name."""
        target = self.root / with_ending(name, media_type)
        if self.disk.exists(target):
            self.disk.rename(target, target.with_name(f"{name.name}.v{version}{target.suffix}"))

    def sweep(self, epoch: int) -> int:
        """Remove the part files of epochs before ``epoch``; returns how many there were."""
        swept = 0
        for name in self.disk.names(self.root / "blobs"):
            match = _PART.fullmatch(name.removesuffix(".part")) if name.endswith(".part") else None
            if match is not None and int(match[1]) < epoch:
                self.disk.remove(self.root / "blobs" / name)
                swept += 1
        return swept

    def _part_path(self, part: str) -> Path:
        if not _PART.fullmatch(part):
            raise ValueError(f"{part!r} is not <epoch>-<attempt>")
        return self.root / "blobs" / f"{part}.part"

    def _settle(self, path: Path, data: bytes, sha256: str, expected: Expected, link: Path | None) -> Blob | BadImage:
        """Give a durable part file its final name, by what it is."""
        verdict = inspect(data, expected)
        if isinstance(verdict, BadImage):
            kept = Path("disputed", f"{path.stem}.bin")
            self.disk.make_dir(self.root / "disputed")
            self.disk.rename(path, self.root / kept)
            return BadImage(verdict.reason, kept=str(kept))
        target = self.path(sha256)
        self.disk.protect(path)
        self.disk.make_dir(target.parent)
        self.disk.rename(path, target)  # over an equal one, if it is there: that one may not be durable yet
        if link is not None:
            try:
                self.link(sha256, verdict.media_type, link)
            except NameTaken:
                # The blob is what counts.  A stranger's file under the name is no reason to end a night, nor to
                # overwrite what may be somebody's retouched picture; `verify` will show it.
                _log.warning("%s has other bytes already and was left alone", link)
        return _blob(sha256, len(data), verdict)


class Receiver:
    """Takes one result as it comes from the wire: small ones in memory, large ones to their part file.

    A small result is written, checked, stored and linked in a single hop to a thread.  Memory per download is
    bounded by ``memory_bytes`` until the check at the end (SEC-9).
    """

    def __init__(self, store: BlobStore, *, part: str, threads: Threads, memory_bytes: int = MEMORY_BYTES) -> None:
        self._store = store
        self._part = part
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._chunks: list[bytes] = []
        self._held = 0
        self._digest = hashlib.sha256()
        self._spilled = False

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; the sink of ``Wire.fetch``."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held > self._memory_bytes:
            first, self._spilled = not self._spilled, True
            await self._threads.run(lambda: self._spill(first=first))

    async def finish(self, expected: Expected, link: Path | None = None) -> Blob | BadImage:
        """Store what came; the receiver is used up."""
        result = await self._threads.run(lambda: self._finish(expected, link))
        self._spilled = False  # the part file has another name now
        return result

    async def discard(self) -> None:
        """Drop what came.  After :meth:`finish`, and when all was in memory, there is nothing to do."""
        self._chunks.clear()
        if self._spilled:
            self._spilled = False
            await self._threads.run(lambda: self._store.discard(self._part))

    def _spill(self, *, first: bool) -> None:
        data = self._take()
        self._digest.update(data)
        self._store.spill(data, part=self._part, first=first)

    def _finish(self, expected: Expected, link: Path | None) -> Blob | BadImage:
        if not self._spilled:
            return self._store.put(self._take(), part=self._part, expected=expected, link=link)
        self._spill(first=False)
        sha256 = self._digest.hexdigest()
        return self._store.put_spilled(part=self._part, sha256=sha256, expected=expected, link=link)

    def _take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        return data


def _blob(sha256: str, size: int, seen: Inspected) -> Blob:
    return Blob(sha256, size, seen.media_type, seen.width, seen.height, seen.flags)
