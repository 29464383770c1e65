"""The inbox: control messages that any process leaves for the one that holds the ledger.

One small file per message in ``<ledger>.inbox/``, written to a temporary name, synced and renamed, so that a
reader never sees half of one.  The running process takes them (and on start those left from before), applies
them, records :class:`ledger.events.ControlTaken` under a key made from the file's name, and removes the file; a
crash in between applies it again, which changes nothing.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from ledger.events import Decided

_SUFFIX = ".json"
_MOST_BYTES = 64 << 10
_MOST_FILES = 10_000


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
    """Decide held tasks; ``tasks`` empty = every held one that fits ``provider`` and ``older_s``."""

    batch: int
    operator: str
    decision: Decided
    tasks: tuple[int, ...] = ()
    provider: str = ""
    older_s: float = 0.0
    job: str = ""


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
    inbox.mkdir(mode=0o700, exist_ok=True)
    if sum(1 for _ in inbox.iterdir()) >= _MOST_FILES:
        raise InboxFull(str(inbox))
    part, final = inbox / f".{name}.part", inbox / f"{name}{_SUFFIX}"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, msgspec.json.encode(message))
        os.fsync(handle)
    finally:
        os.close(handle)
    part.rename(final)
    directory = os.open(inbox, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return final


def waiting(inbox: Path) -> Iterator[tuple[Path, Control | None]]:
    """Yield the messages in the order of their names; None stands for one that cannot be read."""
    if not inbox.is_dir():
        return
    for path in sorted(inbox.glob(f"*{_SUFFIX}"))[:_MOST_FILES]:
        try:
            if path.stat().st_size > _MOST_BYTES:
                yield path, None
            else:
                yield path, _decoder.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            yield path, None
