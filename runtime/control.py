"""What a control message does to the ledger, and whom it tells.

The same code serves a running night (then the router and the account actors own most tasks and are told) and a
command that found the ledger free (then nobody else owns anything).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from ledger.commands import Cancel, Decide, Retry, TaskCommand
from ledger.decisions import Append, Committed, Decision, Outcome, Repeated
from ledger.errors import CommandRejected
from ledger.events import BatchCancelled, ControlTaken, Event
from ledger.folds import LIVE, SETTLED, TaskPhase
from ledger.reader import Reader
from ledger.streams import StreamKey, batch_stream, runtime_stream
from ledger.tasklist import TaskRow
from runtime.history import cancel_wish
from runtime.inbox import CancelBatch, Control, ResolveTasks, RetryTasks, message_key, waiting
from runtime.ports import Clock
from runtime.work import StreamConflict, TaskLog, TextErased, Work, WorkKey, load_work
from runtime.writer import Journal

_log = logging.getLogger(__name__)

_TOGETHER = 200  # tasks per round: their records share commits


class Listeners(msgspec.Struct, frozen=True):
    """Who must be told in a running night; the defaults stand for *nobody runs*."""

    owned: Callable[[WorkKey], Work | None] = lambda key: None
    queued_again: Callable[[Work], None] = lambda work: None
    adopted: Callable[[Work], None] = lambda work: None
    take_job: Callable[[Work, str], bool] = lambda work, job: True  # see Claims.take and Claims.give_back
    give_job_back: Callable[[Work, str], None] = lambda work, job: None
    stop_batch: Callable[[int], None] = lambda batch: None
    cancel_job: Callable[[Work, str], bool] = lambda work, operator: False


_NOBODY = Listeners()


class Done(msgspec.Struct, frozen=True):
    """What came of a message.  For a cancel: ``free`` cost nothing, ``charged`` finish and are paid, ``unknown`` were
    asked to stop."""

    changed: int = 0
    skipped: int = 0
    free: int = 0
    charged: int = 0
    unknown: int = 0

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


class Controller:
    def __init__(
        self, *, journal: Journal, log: TaskLog, reader: Reader, clock: Clock, listeners: Listeners = _NOBODY
    ) -> None:
        self._journal = journal
        self._log = log
        self._reader = reader
        self._clock = clock
        self._tell = listeners

    async def apply(self, message: Control, *, key: bytes | None = None) -> Done:
        """Do it, then record that it was done under ``key``.  Doing it again changes nothing."""
        match message:
            case CancelBatch():
                done = await self._cancel(message)
            case RetryTasks():
                done = await self._retry(message)
            case ResolveTasks():
                done = await self._resolve(message)
        kind = type(message).__struct_config__.tag
        await self._append_runtime(ControlTaken(kind=str(kind), operator=message.operator, result=done.text()), key)
        return done

    async def take_waiting(self, directory: Path) -> None:
        """Apply the messages that wait in an inbox, in order, and remove each when it is on record."""
        for path, message in waiting(directory):
            key = message_key(path.name)
            if message is None:
                _log.error("the inbox message %s cannot be read and was put aside", path.name)
                path.rename(path.with_suffix(".bad"))
                continue
            if self._reader.seq_of_key(key) is None:  # else only its file outlived a crash
                done = await self.apply(message, key=key)
                _log.info("%s: %s", path.name, done)
            path.unlink(missing_ok=True)

    async def _append_runtime(self, event: ControlTaken, key: bytes | None) -> None:
        await self._append(runtime_stream(), event, key=key)

    async def _append(self, stream: StreamKey, event: Event, *, key: bytes | None = None) -> None:
        """Append to a stream that others may write to as well: on the newest version, again when it has moved."""
        outcome: Outcome | None = None
        while not isinstance(outcome, Committed | Repeated):
            append = Append(stream, self._reader.version(stream), (event,))
            outcome = await self._journal.append(Decision(appends=(append,), at_us=self._clock.now_us(), key=key))

    # --- cancel -------------------------------------------------------------------------------------------

    async def _cancel(self, message: CancelBatch) -> Done:
        batch = message.batch
        self._tell.stop_batch(batch)
        if cancel_wish(self._reader, batch).epoch < self._journal.epoch:  # also again, for what was bought since (W15)
            await self._append(batch_stream(batch), BatchCancelled(operator=message.operator))
        stopped = await self._each(batch, ("queued", "held"), Cancel(operator=message.operator))
        asked, charged = 0, sum(self._comes_home(WorkKey(batch, row.n)) for row in self._rows(batch, ("held",)))
        for row in self._rows(batch, ("intended", "ambiguous", "accepted", "ready")):
            work = self._tell.owned(WorkKey(batch, row.n))
            if work is not None and self._tell.cancel_job(work, message.operator):
                asked += 1
            else:
                charged += 1
        free = sum(work.state.phase == "cancelled" for work in stopped)  # else a purchase that turned up is under way
        return Done(changed=len(stopped), free=free, charged=charged, unknown=asked)

    async def sweep(self, batch: int) -> None:
        """Settle what of a cancelled batch came home without an image and was queued again."""
        await self._each(batch, ("queued",), Cancel(operator="follows the cancelled batch"))

    # --- retry and resolve --------------------------------------------------------------------------------

    async def _retry(self, message: RetryTasks) -> Done:
        command = Retry(operator=message.operator)
        states: tuple[TaskPhase, ...] = ("succeeded",) if message.rejected else ("failed", "cancelled")
        if not message.tasks and not message.rejected:
            states = ("failed",)
        works = await self._each(message.batch, states, command, only=frozenset(message.tasks))
        for work in works:
            self._tell.queued_again(work)
        return Done(changed=len(works), skipped=max(0, len(message.tasks) - len(works)))

    async def _resolve(self, message: ResolveTasks) -> Done:
        oldest_us = self._clock.now_us() - int(message.older_s * 1e6)
        jobs = dict(zip(message.tasks, message.jobs, strict=False))
        taken = self._reader.bound(message.jobs) if message.jobs else set()  # one job binds one attempt (REC-5)
        left_microusd = float("inf") if message.most_microusd is None else message.most_microusd
        works: list[Work] = []
        skipped = 0
        for row in self._rows(message.batch, ("held",), only=frozenset(message.tasks)):
            work = load_work(self._reader, message.batch, row.n)
            held = [attempt for attempt in work.state.attempts if attempt.doubtful]
            if not held or (message.provider and held[-1].provider != message.provider):
                continue
            if message.older_s and held[-1].intended_at_us > oldest_us:
                continue
            if self._comes_home(work.key):
                skipped += 1
                continue
            job, ceiling = jobs.get(row.n, ""), held[-1].ceiling_microusd
            command = Decide(operator=message.operator, decision=message.decision, attempt=held[-1].number, job=job)
            if job not in taken and ceiling <= left_microusd and await self._decide(work, command):
                works.append(work)
                taken |= {job} - {""}
                left_microusd -= ceiling
            else:
                skipped += 1
        for work in works:
            if work.state.phase == "queued":
                self._tell.queued_again(work)
            elif work.state.phase == "accepted":
                self._tell.adopted(work)
        return Done(changed=len(works), skipped=max(skipped, len(message.tasks) - len(works)))

    async def _decide(self, work: Work, command: Decide) -> bool:
        """Record a decision; False when nothing came of it.

        A lookup or a callback may find the job that it names for another attempt just now: who takes it first has it
        (REC-5).
        """
        if command.job and not self._tell.take_job(work, command.job):
            return False
        decided = await self._record(work, command)
        if command.job and not decided:
            self._tell.give_job_back(work, command.job)
        return decided

    # --- small things -------------------------------------------------------------------------------------

    def _rows(
        self, batch: int, states: Sequence[TaskPhase], *, only: frozenset[int] = frozenset()
    ) -> Iterator[TaskRow]:
        """Every task in one of the states; read in pages, so rows may change behind the reader."""
        after = 0
        while page := self._reader.tasks(batch, after=after, limit=_TOGETHER, states=tuple(states)):
            after = page[-1].n
            yield from (row for row in page if not only or row.n in only)

    async def _each(
        self, batch: int, states: Sequence[TaskPhase], command: TaskCommand, *, only: frozenset[int] = frozenset()
    ) -> list[Work]:
        """Give every such task the command; return those that it changed."""
        changed: list[Work] = []
        round_: list[Work] = []

        async def give(work: Work) -> None:
            if await self._record(work, command):
                changed.append(work)

        async def flush() -> None:
            async with trio.open_nursery() as nursery:
                for work in round_:
                    nursery.start_soon(partial(give, work))
            round_.clear()

        for row in self._rows(batch, states, only=only):
            if self._comes_home(WorkKey(batch, row.n)):
                continue
            with suppress(TextErased):  # settled for good
                round_.append(load_work(self._reader, batch, row.n))
            if len(round_) >= _TOGETHER:
                await flush()
        await flush()
        return changed

    def _comes_home(self, key: WorkKey) -> bool:
        """Whether somebody follows a purchase of a task that is settled or held for another one.  The stream is his:
        what was changed under him would end the night with his next news.  What comes of it may settle the task."""
        work = self._tell.owned(key)
        return work is not None and work.state.phase in SETTLED and work.phase in LIVE

    async def _record(self, work: Work, command: TaskCommand) -> bool:
        """False when the task is no longer in a state for the command: somebody was faster, nothing is wrong."""
        before = work.state.version
        try:
            await self._log.record(work, command)
        except (CommandRejected, StreamConflict):
            return False
        return work.state.version > before
