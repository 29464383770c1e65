"""The journal of a purchase that no ledger knows: a small file whose lines are durable before the next step.

After a crash it tells whether a purchase is open, and under which job.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line: ``intent`` before the call leaves, ``job`` when its id is known, ``end`` when nothing is open."""

    kind: str
    at: str
    provider: str
    model: str = ""
    resolution: str = ""
    reference: str = ""
    marker: int = 0
    job: str = ""
    outcome: str = ""


class Journal:
    """A file of its own per provider; each line is durable before the next step."""

    def __init__(self, path: Path, provider: str) -> None:
        self._path = path
        self._provider = provider

    def write(self, kind: str, **fields: str | int) -> None:
        line = msgspec.convert(
            {"kind": kind, "at": datetime.now(UTC).isoformat(timespec="seconds"), "provider": self._provider, **fields},
            type=Entry,
        )
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line
                    file.write(b"\n")
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def open_purchase(self) -> tuple[Entry, str] | None:
        """The last intent and its job's id, when it has not ended; a line that was cut by the crash counts as none."""
        found: tuple[Entry, str] | None = None
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError:
                continue
            if entry.provider != self._provider:
                continue
            if entry.kind == "intent":
                found = entry, ""
            elif entry.kind == "job" and found is not None:
                found = found[0], entry.job
            elif entry.kind == "end":
                found = None
        return found
