"""The four seams between the runtime and the world: Clock, Wire, Threads, Disk.

They are passed in, never patched.  Each has a real implementation and a simulated one, and one contract suite
(``tests/runtime/test_seams.py``) that both pass.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from adapters.base import HttpCall, HttpReply

T = TypeVar("T")


class WireError(Exception):
    """The exchange broke.  ``sent`` False is proof that no byte of the request left this machine."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class FetchRefused(Exception):
    """The URL, its host or address, or the reply's size breaks the rules: nothing was kept (SEC-3, SEC-4)."""


class DiskFull(Exception):
    """No space left on the device (or quota); nothing half-written is visible."""


class DiskFailed(Exception):
    """The disk refused a write or a sync for another reason than space."""


class NameTaken(DiskFailed):
    """Another file has this name already; it was left alone."""


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds for durations; never goes back."""
        ...

    def now_us(self) -> int:
        """Wall clock, UTC microseconds; for records and people, never for decisions about buying (REC-8)."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Sleep until ``monotonic()`` reaches ``deadline``."""
        ...


class FetchRules(msgspec.Struct, frozen=True):
    """Where a download may come from and how large it may be.

    ``hosts`` are exact names or ``.suffix``; ``loopback`` allows plain http and loopback addresses (only while
    the provider's base URL is itself overridden to loopback).
    """

    hosts: tuple[str, ...]
    loopback: bool = False
    max_bytes: int = 64 << 20
    timeout_s: float = 120.0
    max_redirects: int = 3


class Fetched(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    size: int


class Wire(Protocol):
    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        """Exchange one call, with no retry and no redirect.

        ``on_sent`` fires when the first byte is written.  Raises :class:`WireError`.  Reply bodies are
        bounded; a larger one is a WireError with ``sent=True``.
        """
        ...

    async def stream(self, call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        """Exchange one free call whose answer may be too large for memory, with no retry and no redirect.

        The body of a 200 goes into ``sink`` as it comes, at most ``call.max_reply_bytes`` of it, and the reply is
        returned without it; every other reply is returned whole.  ``call.timeout_s`` bounds the wait for each piece.
        Raises :class:`WireError`, also for a body that is cut off: its beginning has reached the sink then.
        """
        ...

    async def fetch(self, url: str, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules) -> Fetched:
        """Stream a download into ``sink``, without credentials, checking the rules on the connected socket
        before any byte is sent and again at each redirect.  A status other than 200 sinks nothing.

        Raises :class:`FetchRefused` (rules), :class:`WireError` (connection).
        """
        ...

    async def aclose(self) -> None: ...


class Threads(Protocol):
    async def run(self, fn: Callable[[], T]) -> T:
        """Run blocking work off the loop.  Not cancellable once started: the caller waits for its end."""
        ...


class Disk(Protocol):
    """Blocking; call through Threads.  Every method raises :class:`DiskFull` or :class:`DiskFailed`, nothing else."""

    def make_dir(self, path: Path) -> None:
        """Create with parents, mode 0700, and make the names durable."""
        ...

    def write_new(self, path: Path, data: bytes) -> None:
        """Create ``path`` (O_EXCL, 0600), write all, fsync.  Raises :class:`NameTaken` when it is there.

        The bytes are durable then, the name only after ``rename``.
        """
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Append to a ``.part`` file (created 0600 when missing), without fsync."""
        ...

    def sync(self, path: Path) -> None:
        """fsync a file."""
        ...

    def protect(self, path: Path) -> None:
        """Make a file read-only (0400), as blobs are."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename over, then fsync the target's directory (RES-2)."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Hard link, or copy where links are not possible; an existing target with the same bytes is fine.

        Raises :class:`NameTaken` when it has other bytes.
        """
        ...

    def remove(self, path: Path) -> None:
        """Remove if there."""
        ...

    def read(self, path: Path, *, limit: int | None = None) -> bytes:
        """Read a whole file.  One that is larger than ``limit`` is not read: :class:`DiskFailed`."""
        ...

    def exists(self, path: Path) -> bool: ...

    def names(self, path: Path) -> tuple[str, ...]:
        """List the names in a directory, sorted; empty when it is not there."""
        ...

    def free_bytes(self, path: Path) -> int: ...
