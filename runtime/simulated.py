"""Simulated seams: a disk in memory that loses what was not synced, threads without threads, a clock to jump.

They pass the same contract suite as the real ones.  In simulation no real thread, file or wall clock is used, so
that a run is a function of its seed.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import trio

from runtime.ports import DiskFailed, DiskFull, NameTaken

T = TypeVar("T")
Fault = Literal["full", "failed"]

EPOCH_US = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z, the first moment of every simulated night


class SimClock:
    """Implements :class:`runtime.ports.Clock` over the time of the trio run (usually a ``MockClock``)."""

    def __init__(self, epoch_us: int = EPOCH_US) -> None:
        self._epoch_us = epoch_us

    def monotonic(self) -> float:
        return trio.current_time()

    def now_us(self) -> int:
        return self._epoch_us + round(trio.current_time() * 1_000_000)

    async def sleep_until(self, deadline: float) -> None:
        await trio.sleep_until(deadline)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP or a user may; ``monotonic`` does not notice (REC-8)."""
        self._epoch_us += round(seconds * 1_000_000)


class SimThreads:
    """Implements :class:`runtime.ports.Threads` by calling at once: the mock clock jumps while a thread works."""

    async def run(self, fn: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()  # like a real hop, cancelled before the start or not at all
        return fn()


class _Inode:
    """The content of a file as programs see it, and as a power cut leaves it."""

    __slots__ = ("data", "protected", "synced")

    def __init__(self) -> None:
        self.data = b""
        self.synced = b""
        self.protected = False


class SimDisk:
    """Implements :class:`runtime.ports.Disk` in memory.

    A name survives a power cut when its directory was synced after it appeared (``rename``, ``make_dir``), bytes
    survive when the file was synced.  The simulator is as unkind as POSIX allows: a removed name that was
    durable comes back, and so does the old name of a renamed file in another directory.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.operations = 0  # effects so far; the numbers that ``fail`` counts in
        self._files: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._dirs: set[Path] = {Path("/")}
        self._faults: dict[int, Fault] = {}
        self._death: tuple[int, Callable[[], None], bool] | None = None
        self._frozen = False

    # --- what a test does to it ---

    def fail(self, after: int, fault: Fault) -> None:
        """Let the effect that comes after ``after`` more effects fail; 0 is the next one."""
        self._faults[self.operations + after] = fault

    def die(self, after: int, dead: Callable[[], None], *, torn: bool = False) -> None:
        """Call ``dead``, which raises, in place of the effect that comes after ``after`` more effects.

        Args:
            torn: it dies in the middle of that effect; of what is written, half has reached the file.
        """
        self._death = (self.operations + after, dead, torn)

    def freeze(self) -> None:
        """From now on every effect raises: the process is dead, its clean-up must not be seen."""
        self._frozen = True

    def crash(self, *, power: bool = True) -> "SimDisk":
        """Freeze this disk for ever and return what the next process finds.

        Args:
            power: True loses everything that was not synced; False is ``kill -9``, which loses nothing that
                was handed to the system.
        """
        self.freeze()
        after = SimDisk(capacity_bytes=self.capacity_bytes)
        after._dirs = set(self._dirs)
        copies: dict[_Inode, _Inode] = {}
        for path, inode in (self._durable if power else self._files).items():
            copy = copies.setdefault(inode, _Inode())
            copy.data = copy.synced = inode.synced if power else inode.data
            copy.protected = inode.protected
            after._files[path] = copy
        after._durable = dict(after._files)
        return after

    # --- the port ---

    def make_dir(self, path: Path) -> None:
        with self._effect("make directory", path):
            if path in self._dirs:
                return
            for directory in (path, *path.parents):
                if directory in self._files:
                    raise DiskFailed(f"make directory {path}: a file is in the way")
            self._dirs.update((path, *path.parents))

    def write_new(self, path: Path, data: bytes) -> None:
        with self._effect("write", path, data):
            if path in self._files or path in self._dirs:
                raise NameTaken(f"write {path}: File exists")
            inode = self._create(path)
            inode.data = inode.synced = bytes(data)

    def append(self, path: Path, data: bytes) -> None:
        with self._effect("append", path, data):
            inode = self._files.get(path) or self._create(path)
            if inode.protected:
                raise DiskFailed(f"append {path}: Permission denied")
            inode.data += data

    def sync(self, path: Path) -> None:
        with self._effect("sync", path):
            inode = self._file("sync", path)
            inode.synced = inode.data

    def protect(self, path: Path) -> None:
        with self._effect("protect", path):
            self._file("protect", path).protected = True

    def rename(self, source: Path, target: Path) -> None:
        with self._effect("rename", source):
            inode = self._file("rename", source)
            self._need_dir("rename", target)
            del self._files[source]
            self._files[target] = inode
            self._sync_dir(target.parent)

    def link(self, source: Path, target: Path) -> None:
        with self._effect("link", target):
            inode = self._file("link", source)
            self._need_dir("link", target)
            if self._files.setdefault(target, inode).data != inode.data:
                raise NameTaken(f"link {target}: File exists")

    def remove(self, path: Path) -> None:
        with self._effect("remove", path):
            self._files.pop(path, None)

    def read(self, path: Path, *, limit: int | None = None) -> bytes:
        data = self._file("read", path).data
        if limit is not None and len(data) > limit:
            raise DiskFailed(f"read {path}: it has more than {limit} bytes")
        return data

    def exists(self, path: Path) -> bool:
        return path in self._files or path in self._dirs

    def names(self, path: Path) -> tuple[str, ...]:
        return tuple(sorted(p.name for p in _inside(path, (*self._files, *self._dirs))))

    def free_bytes(self, path: Path) -> int:
        return max(0, self.capacity_bytes - sum(len(i.data) for i in set(self._files.values())))

    # --- inside ---

    @contextlib.contextmanager
    def _effect(self, doing: str, path: Path, data: bytes = b"") -> Iterator[None]:
        if self._frozen:
            raise DiskFailed(f"{doing} {path}: the process is dead")
        if self._death is not None and self.operations == self._death[0]:
            _, dead, torn = self._death
            if torn and data and (doing == "append" or path not in self._files):
                inode = self._files.get(path) or self._create(path)
                inode.data += data[: len(data) // 2]
            dead()
        fault = self._faults.pop(self.operations, None)
        self.operations += 1
        if fault == "failed":
            raise DiskFailed(f"{doing} {path}: Input/output error")
        if fault == "full" or (data and len(data) > self.free_bytes(path)):
            raise DiskFull(f"{doing} {path}: No space left on device")
        yield

    def _file(self, doing: str, path: Path) -> _Inode:
        try:
            return self._files[path]
        except KeyError:
            raise DiskFailed(f"{doing} {path}: No such file or directory") from None

    def _need_dir(self, doing: str, path: Path) -> None:
        if path.parent not in self._dirs:
            raise DiskFailed(f"{doing} {path}: No such file or directory")

    def _create(self, path: Path) -> _Inode:
        self._need_dir("write", path)
        inode = self._files[path] = _Inode()
        return inode

    def _sync_dir(self, directory: Path) -> None:
        for path in _inside(directory, self._durable):
            del self._durable[path]
        self._durable.update((path, self._files[path]) for path in _inside(directory, self._files))


def _inside(directory: Path, paths: Iterable[Path]) -> list[Path]:
    """Those that lie right in the directory; by their texts, since a ``Path.parent`` is a new object each time."""
    place = str(directory).rstrip("/")
    return [path for path in paths if str(path).rpartition("/")[0] == place and path != directory]
