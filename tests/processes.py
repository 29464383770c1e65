"""Processes that die, or whose writes fail, at a chosen system call; made by fork, so that one costs milliseconds."""

import contextlib
import errno
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from unittest.mock import patch

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "chmod", "link")
Ending = Literal["kill", "EIO", "ENOSPC", "short"]

_write = os.write


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str]]:
    """Run ``work`` in a process of its own; return its exit code (negative: the signal) and the lines it told.

    ``work`` is given a function that tells a line: what was told before a kill was told.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads: idle ones of earlier tests, which hold no lock that matters here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work(lambda line: _tell(write, line))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with open(read, encoding="utf-8") as lines:
        told = lines.read().splitlines()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), told


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: who dies by a signal loses nothing there, and syncing costs nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def system_calls(at: int | None = None, ending: Ending = "kill") -> Iterator[list[str]]:
    """Number the calls that write, through :mod:`os`; yield the names of those made.

    Call ``at`` does not happen: the process is killed there, or it fails.  Of a ``write``, half is done all the same.
    "short" is a write of half of the bytes that says so, as a disk that is nearly full may answer.
    """
    made: list[str] = []
    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(patch.object(os, name, _numbered(name, getattr(os, name), made, at, ending)))
        yield made


def _numbered(
    name: str, real: Callable[..., object], made: list[str], at: int | None, ending: Ending
) -> Callable[..., object]:
    def call(*args: object, **more: object) -> object:
        made.append(name)
        if len(made) - 1 != at or (ending == "short" and name != "write"):
            return real(*args, **more)
        half = _half(*args) if name == "write" else 0
        if ending == "short":
            return half
        if ending == "kill":
            die()
        raise OSError(getattr(errno, ending), os.strerror(getattr(errno, ending)))

    return call


def _half(descriptor: object, data: object) -> int:
    assert isinstance(descriptor, int)
    assert isinstance(data, bytes | memoryview)
    return _write(descriptor, bytes(data)[: max(1, len(data) // 2)])


def _tell(descriptor: int, line: str) -> None:
    _write(descriptor, f"{line}\n".encode())
