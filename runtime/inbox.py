"""The inbox: control messages that any process leaves for the one that holds the ledger.

One small file per message in ``<ledger>.inbox/``, written to a temporary name, synced and renamed, so that a
reader never sees half of one.  The running process takes them (and on start those left from before), applies
them, records :class:`ledger.events.ControlTaken` under a key made from the file's name, and removes the file; a
crash in between applies it again, which changes nothing.

Hints from callbacks of providers lie in a folder of their own within, so that a flood of them never keeps an
operator's message out.  They are no commands: what they lead to is recorded, they themselves are not.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from ledger.events import Decided
from runtime.disk import write_all

_SUFFIX = ".json"
_PART = ".part"
_MOST_BYTES = 64 << 10
MOST_FILES = 10_000
_HALF_WRITTEN_S = 600.0  # an unfinished file that is older was left by a process that died


class CancelBatch(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop buying for a batch, and cancel at the provider where it can."""

    batch: int
    operator: str


class RetryTasks(msgspec.Struct, frozen=True, tag="retry"):
    """Want failed tasks again; ``tasks`` empty = every failed one, ``rejected`` = those whose image was rejected."""

    batch: int
    operator: str
    tasks: tuple[int, ...] = ()
    rejected: bool = False


class ResolveTasks(msgspec.Struct, frozen=True, tag="resolve"):
    """Decide held tasks; ``tasks`` empty = every held one that fits ``provider`` and ``older_s``.

    ``jobs`` are those to adopt, in the order of ``tasks``.  ``most_microusd`` is the most that may be bought again, by
    ceilings: what was told before the leave was given.
    """

    batch: int
    operator: str
    decision: Decided
    tasks: tuple[int, ...] = ()
    provider: str = ""
    older_s: float = 0.0
    jobs: tuple[str, ...] = ()
    most_microusd: int | None = None


Control: TypeAlias = CancelBatch | RetryTasks | ResolveTasks

_decoder = msgspec.json.Decoder(Control)


class InboxFull(Exception):
    """Too many messages wait: the process that holds the ledger does not take them."""


def inbox_of(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".inbox")


def message_key(name: str) -> bytes:
    """The idempotency key of a message: 16 bytes from its file's name."""
    return hashlib.sha256(b"inbox/" + name.encode()).digest()[:16]


def leave(inbox: Path, message: Control, *, name: str) -> Path:
    """Leave a message, durable when this returns; ``name`` is unique (time and random hex).

    Raises InboxFull, OSError.
    """
    _make_room(inbox, MOST_FILES)
    return _put(inbox, name, msgspec.json.encode(message))


class Hint(msgspec.Struct, frozen=True):
    """A callback named a job of an attempt: worth an authenticated look, and worth nothing by itself (REC-7)."""

    account: str
    batch: Annotated[int, msgspec.Meta(ge=1, lt=1 << 24)]
    n: Annotated[int, msgspec.Meta(ge=1, lt=1 << 36)]
    attempt: Annotated[int, msgspec.Meta(ge=1)]
    job: str


_hint_decoder = msgspec.json.Decoder(Hint)


def leave_hint(inbox: Path, hint: Hint, *, most: int = MOST_FILES) -> Path:
    """Leave a hint, durable when this returns.  The same hint again is the same file.

    Raises InboxFull (``most`` wait already), OSError.
    """
    directory = hints_of(inbox)
    name = f"{hint.batch}-{hint.n}-{hint.attempt}.{hashlib.sha256(msgspec.json.encode(hint)).hexdigest()[:16]}"
    path = directory / f"{name}{_SUFFIX}"
    if path.exists():
        _sync(directory)  # whoever wrote it may not have come so far
        return path
    inbox.mkdir(mode=0o700, exist_ok=True)
    _make_room(directory, most)
    return _put(directory, name, msgspec.json.encode(hint))


def hints(inbox: Path, *, but: Collection[str] = ()) -> Iterator[tuple[Path, Hint | None]]:
    """Yield the hints that wait, in the order of their names and without those named in ``but``; None stands for one
    that cannot be read."""
    directory = hints_of(inbox)
    if not directory.is_dir():
        return
    for path in sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.name not in but)[:MOST_FILES]:
        try:
            yield path, _hint_decoder.decode(_message(path))
        except FileNotFoundError:
            continue
        except (OSError, msgspec.MsgspecError, RecursionError):
            yield path, None


def hints_of(inbox: Path) -> Path:
    return inbox / "callbacks"


def waiting(inbox: Path) -> Iterator[tuple[Path, Control | None]]:
    """Yield the messages in the order of their names; None stands for one that cannot be read."""
    if not inbox.is_dir():
        return
    for path in sorted(inbox.glob(f"*{_SUFFIX}"))[:MOST_FILES]:
        try:
            yield path, _decoder.decode(_message(path))
        except (OSError, msgspec.MsgspecError, RecursionError):
            yield path, None


def _message(path: Path) -> bytes:
    """Read a message.  A link is none: it leads to something that nobody left here.  Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not is_message(os.fstat(handle)):
            raise OSError(errno.EINVAL, "no message", str(path))
        return file.read(_MOST_BYTES)


def is_message(found: os.stat_result) -> bool:
    """Whether a file may be one: plain (a pipe would let its reader wait for ever), of bounded size, and left by this
    user or by root, for messages can spend money (SEC-7)."""
    return stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES and found.st_uid in (os.geteuid(), 0)


def _make_room(directory: Path, most: int) -> None:
    """Make the directory, and clear away what dead writers left unfinished.  Raises InboxFull."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync(directory.parent)
    with os.scandir(directory) as entries:
        found = list(entries)
    if len(found) < most:
        return
    oldest = time.time() - _HALF_WRITTEN_S
    for entry in found:
        with contextlib.suppress(OSError):
            if entry.name.endswith(_PART) and entry.stat().st_mtime < oldest:
                os.unlink(entry.path)
    with os.scandir(directory) as entries:
        if sum(1 for _ in entries) >= most:
            raise InboxFull(str(directory))


def _put(directory: Path, name: str, data: bytes) -> Path:
    # A name of its own for each writer: two may be about to leave the same hint.
    part, final = directory / f".{name}.{secrets.token_hex(4)}{_PART}", directory / f"{name}{_SUFFIX}"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    part.rename(final)
    _sync(directory)
    return final


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
