"""The ledger writer: one actor that gathers what waits into one commit and answers after it is durable.

While one group is being committed on a thread, the next gathers; so the number of commits per second is the
disk's and the number of events per second is the callers'.  After a failed commit the writer answers nothing
but that failure: spending stops first (LED-7).
"""

import logging
from collections import deque
from functools import partial
from typing import Protocol

import trio

from ledger.decisions import Decision, NewPayload, Outcome
from ledger.errors import CommitFailed, LedgerError
from ledger.events import PayloadRef
from ledger.journal import Ledger
from runtime.ports import Threads

_log = logging.getLogger(__name__)

_GROUP = 512  # decisions per commit at most: bounds the answer time of the last one


class Journal(Protocol):
    """What the actors know of the ledger: append, and texts that events refer to."""

    @property
    def epoch(self) -> int: ...

    async def append(self, decision: Decision) -> Outcome:
        """Return once the decision is durable or refused.  Raises LedgerError when the ledger is unusable."""
        ...

    def payload(self, text: str) -> tuple[PayloadRef, NewPayload]: ...


class _Waiting:
    __slots__ = ("decision", "done", "error", "outcome")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.done = trio.Event()
        self.outcome: Outcome | None = None
        self.error: LedgerError | None = None


class LedgerWriter:
    """Implements :class:`Journal` over a :class:`ledger.journal.Ledger` that nobody else uses."""

    def __init__(self, ledger: Ledger, threads: Threads) -> None:
        self._ledger = ledger
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._closing = False
        self._broken: LedgerError | None = None
        self.commits = 0

    def __repr__(self) -> str:
        return f"<LedgerWriter epoch={self.epoch} waiting={len(self._waiting)} commits={self.commits}>"

    @property
    def epoch(self) -> int:
        return self._ledger.epoch

    def payload(self, text: str) -> tuple[PayloadRef, NewPayload]:
        return self._ledger.payload(text)

    async def append(self, decision: Decision) -> Outcome:
        if self._broken is not None:
            raise self._broken
        entry = _Waiting(decision)
        self._waiting.append(entry)
        self._wake.set()
        # Handed in is handed in: the caller sees its cancellation only after the answer, because the commit
        # happens whether or not somebody waits for it.
        with trio.CancelScope(shield=True):
            await entry.done.wait()
        if entry.error is not None:
            raise entry.error
        assert entry.outcome is not None
        return entry.outcome

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`close`; raises the LedgerError of a failed commit."""
        task_status.started()
        with trio.CancelScope(shield=True):
            while True:
                if not self._waiting:
                    if self._closing:
                        # A late append must hear so: nobody would ever answer it behind its shield.
                        self._broken = LedgerError("the ledger writer was closed")
                        return
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
                await self._commit(group)

    def close(self) -> None:
        """Commit what waits, then let :meth:`run` return."""
        self._closing = True
        self._wake.set()

    async def _commit(self, group: list[_Waiting]) -> None:
        try:
            outcomes = await self._threads.run(partial(self._ledger.commit, [entry.decision for entry in group]))
        except BaseException as exc:
            # Whatever it was, nobody may be left waiting behind a shield for an answer that never comes.
            self._broken = exc if isinstance(exc, LedgerError) else CommitFailed(f"the ledger writer died: {exc!r}")
            _log.error("the ledger refused a commit: %s", self._broken)
            for entry in [*group, *self._waiting]:
                entry.error = self._broken
                entry.done.set()
            self._waiting.clear()
            raise
        self.commits += 1
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.outcome = outcome
            entry.done.set()
