"""The ledger of a simulated night: its commits are fault points, refuse once the process is dead, may fail, and are
each looked at."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from ledger.decisions import Decision, Outcome
from ledger.engine import create_file, open_writer
from ledger.journal import Ledger


class Watcher(Protocol):
    """Whoever decides what becomes of a commit."""

    def point(self, name: str) -> None: ...

    def break_commit(self) -> None: ...

    def committed(self) -> None: ...


class WatchedLedger:
    """What the runtime takes for the ledger."""

    def __init__(self, ledger: Ledger, watcher: Watcher) -> None:
        self._ledger = ledger
        self._watcher = watcher
        self.ledger_id = ledger.ledger_id
        self.payload = ledger.payload

    @property
    def epoch(self) -> int:
        return self._ledger.epoch

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]:
        self._watcher.point("before_commit")
        self._watcher.break_commit()
        outcomes = self._ledger.commit(decisions)
        self._watcher.committed()
        self._watcher.point("after_commit")  # durable, and nobody has heard of it (LED-3)
        return outcomes


@cache
def unborn() -> bytes:
    """A ledger with all its tables and without an id: whoever opens it first gives it one.  Made once, since that costs
    as much as a short night."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "unborn.db")
        create_file(path)
        open_writer(path).close()
        return path.read_bytes()
