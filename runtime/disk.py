"""The real disk: private from the first byte, durable when a method says so, two errors and no others.

The order of things is the point of this module.  A file's bytes are durable after ``write_new`` or ``sync``;
its *name* is durable only after ``rename`` (which syncs the directory).  So whatever must survive a power cut is
written under a temporary name and renamed, and nobody ever reads half a file under a final name (RES-2, RES-5).
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.ports import DiskFailed, DiskFull, NameTaken

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

# On macOS fsync only hands the data to the drive; this one makes the drive write it down.
_FULL_FSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


class RealDisk:
    """Implements :class:`runtime.ports.Disk` with plain system calls."""

    def make_dir(self, path: Path) -> None:
        with _translated("make directory", path):
            missing = []
            while not path.is_dir():
                missing.append(path)
                path = path.parent
            for directory in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
                if not directory.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
                _sync_dir(directory.parent)

    def write_new(self, path: Path, data: bytes) -> None:
        with _translated("write", path):
            fd = os.open(path, _CREATE | os.O_EXCL, 0o600)
            try:
                write_all(fd, data)
                _flush(fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                raise
            finally:
                os.close(fd)

    def append(self, path: Path, data: bytes) -> None:
        with _translated("append", path):
            fd = os.open(path, _CREATE | os.O_APPEND, 0o600)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)

    def sync(self, path: Path) -> None:
        with _translated("sync", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _flush(fd)
            finally:
                os.close(fd)

    def protect(self, path: Path) -> None:
        with _translated("protect", path):
            os.chmod(path, 0o400)

    def rename(self, source: Path, target: Path) -> None:
        with _translated("rename", source):
            os.replace(source, target)
            _sync_dir(target.parent)

    def link(self, source: Path, target: Path) -> None:
        with _translated("link", target):
            try:
                os.link(source, target)
            except FileExistsError:
                if not (target.samefile(source) or target.read_bytes() == source.read_bytes()):
                    raise
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                self._copy(source, target)

    def remove(self, path: Path) -> None:
        with _translated("remove", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def read(self, path: Path, *, limit: int | None = None) -> bytes:
        with _translated("read", path):
            if limit is None:
                return path.read_bytes()
            with path.open("rb") as file:
                data = file.read(limit + 1)
        if len(data) > limit:
            raise DiskFailed(f"read {path}: it has more than {limit} bytes")
        return data

    def exists(self, path: Path) -> bool:
        with _translated("look for", path):
            return path.exists()

    def names(self, path: Path) -> tuple[str, ...]:
        with _translated("list", path):
            try:
                return tuple(sorted(os.listdir(path)))
            except FileNotFoundError:
                return ()

    def free_bytes(self, path: Path) -> int:
        with _translated("measure", path):
            while not path.exists():
                path = path.parent
            stat = os.statvfs(path)
            return stat.f_bavail * stat.f_frsize

    def _copy(self, source: Path, target: Path) -> None:
        # Left over by a kill, the .part is overwritten by the next try, hence no O_EXCL.
        part = target.with_name(target.name + ".part")
        fd = os.open(part, _CREATE | os.O_TRUNC, 0o600)
        try:
            write_all(fd, source.read_bytes())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        finally:
            os.close(fd)
        os.replace(part, target)


@contextlib.contextmanager
def _translated(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        message = f"{doing} {path}: {exc.strerror or exc}"
        if exc.errno in _NO_SPACE:
            raise DiskFull(message) from exc
        if exc.errno == errno.EEXIST:
            raise NameTaken(message) from exc
        raise DiskFailed(message) from exc


def create_private(path: Path) -> int:
    """Open a file of ours for writing, in the place of what an earlier try left there: a link is removed, and what it
    leads to is left alone (SEC-7).  Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, _CREATE | os.O_EXCL, 0o600)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: a disk that is nearly full may take some and say so, without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _flush(fd: int) -> None:
    if _FULL_FSYNC is not None:
        with contextlib.suppress(OSError):  # not every file system knows it
            fcntl.fcntl(fd, _FULL_FSYNC)
            return
    os.fsync(fd)


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        _flush(fd)
    finally:
        os.close(fd)
