"""Events to view rows: the same code folds them live, in the transaction of the events, and on a rebuild.

Pure: numbers and rows, no SQL.  :class:`Projection` gathers what a commit changes, each row once however many events
touched it; :meth:`Projection.take` hands the rows over, and ``ledger.views`` writes them.

Balances and counts are kept as running totals in memory (there are few), so nothing ever scans tasks to know how a
batch stands.
"""

from collections.abc import Iterable

import msgspec

from ledger.events import (
    AccountEvent,
    BatchEvent,
    EpochEnded,
    EpochStarted,
    ImportDropped,
    RuntimeEvent,
    TaskEvent,
    TaskQueued,
)
from ledger.folds import FOUND, LIVE, AccountState, AttemptState, BatchState, LaneState, TaskState
from ledger.money import LANE_PREFIX, Balance, Move
from ledger.streams import batch_of, task_stream

CountKey = tuple[int, str, str]  # batch, state, provider

TALLIES = ("flagged", "rejected", "shared")
"""Counted beside the phases, under the same key."""

OPEN = LIVE | {"unknown"}
"""A restart looks at an attempt in one of these again."""
_PAID = frozenset({"done", "failed", "surplus", "lost"})


class Rows(msgspec.Struct):
    """Row operations of one commit, as tuples in the order of the columns of ``ledger.schema``."""

    imported: list[tuple[object, ...]]  # (stream, owner, at_us, queued, id)
    new_tasks: list[tuple[object, ...]]
    tasks: list[tuple[object, ...]]  # all but (queued, id), then the stream
    attempts: list[tuple[object, ...]]  # (stream, attempt, account)
    ended_attempts: list[tuple[object, ...]]
    money: list[tuple[object, ...]]
    counts: list[tuple[object, ...]]
    batches: list[tuple[object, ...]]
    accounts: list[tuple[object, ...]]
    lanes: list[tuple[object, ...]]
    epochs: list[tuple[object, ...]]
    ended_epochs: list[tuple[object, ...]]
    dropped: list[tuple[object, ...]]  # (first stream, last stream)


class _TaskChange:
    """What a commit knows about one task: its latest state, and the events that its row names."""

    __slots__ = ("at_us", "queued", "result", "state")

    def __init__(self) -> None:
        self.state: TaskState | None = None
        self.at_us = 0
        self.queued = 0
        self.result: int | None = None


class Projection:
    """Running totals, and the changes since the last :meth:`take`."""

    def __init__(self, money: Iterable[Move] = (), counts: Iterable[tuple[CountKey, int]] = ()) -> None:
        """Continue from stored totals."""
        self._money: dict[str, list[int]] = {name: [r, c, n] for name, r, c, n in money}
        self._counts: dict[CountKey, int] = dict(counts)
        self._clear()

    def _clear(self) -> None:
        self._tasks: dict[int, _TaskChange] = {}
        self._attempts: dict[tuple[int, int], str | None] = {}  # -> account, None = no longer open
        self._touched_money: set[str] = set()
        self._touched_counts: set[CountKey] = set()
        self._batches: dict[int, BatchState] = {}
        self._accounts: dict[int, AccountState] = {}
        self._epochs: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._dropped: list[tuple[int, int]] = []
        self._imported: list[tuple[object, ...]] = []

    def balance(self, account: str) -> Balance:
        """What a money account holds now."""
        held = self._money.get(account)
        return Balance() if held is None else Balance(*held)

    def move(self, moved: Iterable[Move]) -> None:
        """Add to the books."""
        for name, reserved, captured, number in moved:
            held = self._money.setdefault(name, [0, 0, 0])
            held[0] += reserved
            held[1] += captured
            held[2] += number
            self._touched_money.add(name)

    def task(self, seq: int, stream: int, at_us: int, event: TaskEvent, before: TaskState, after: TaskState) -> None:
        """Note an event of a task.  Its moves are noted apart, since the writer has weighed them already."""
        change = self._tasks.get(stream)
        if change is None:
            change = self._tasks[stream] = _TaskChange()
        change.state = after
        change.at_us = at_us
        if type(event) is TaskQueued:
            change.queued = seq
        if len(after.results) > len(before.results):
            change.result = seq
        old, new = before.attempts, after.attempts
        if new is not old:
            for index, attempt in enumerate(new):
                was = old[index] if index < len(old) else None
                if was is not attempt:
                    is_open = attempt.phase in OPEN
                    if is_open != (was is not None and was.phase in OPEN):
                        self._attempts[stream, index + 1] = attempt.account if is_open else None
        if after.phase != before.phase or after.results is not before.results or change.queued == seq:
            batch = batch_of(stream)
            if change.queued != seq:
                self._count_task(batch, before, -1)
            self._count_task(batch, after, 1)

    def imported(self, seq: int, stream: int, at_us: int, event: TaskQueued) -> None:
        """Note a task's first event.  The same row as by :meth:`task`, which a rebuild uses, at half the cost."""
        self._imported.append((stream, event.owner, at_us, seq, event.id))
        self._count((batch_of(stream), "queued", ""), 1)

    def batch(self, batch: int, event: BatchEvent, after: BatchState) -> None:
        """Note an event of a batch."""
        self._batches[batch] = after
        if isinstance(event, ImportDropped):
            # Nothing happens to a task before its import is sealed (LED-11), so they are all queued.
            first, last = task_stream(batch, event.first), task_stream(batch, event.last)
            self._dropped.append((first, last))
            # Drops are written first, so what a rebuild gathered of these tasks since would come back with it.
            for stream in [stream for stream in self._tasks if first <= stream <= last]:
                del self._tasks[stream]
            self._count((batch, "queued", ""), event.first - event.last - 1)

    def account(self, number: int, _event: AccountEvent, after: AccountState) -> None:
        """Note an event of an account."""
        self._accounts[number] = after

    def runtime(self, seq: int, epoch: int, event: RuntimeEvent) -> None:
        """Note an event of the runtime.  A new epoch starts with empty lanes (MON-3)."""
        if isinstance(event, EpochStarted):
            self._epochs[epoch] = seq
            for name, held in self._money.items():
                if name.startswith(LANE_PREFIX) and any(held):
                    held[:] = (0, 0, 0)
                    self._touched_money.add(name)
        elif isinstance(event, EpochEnded):
            self._ended[epoch] = seq

    def _count(self, key: CountKey, number: int) -> None:
        self._counts[key] = self._counts.get(key, 0) + number
        self._touched_counts.add(key)

    def _count_task(self, batch: int, state: TaskState, number: int) -> None:
        for key in count_keys(batch, state):
            self._count(key, number)

    def take(self) -> Rows:
        """Return the row operations since the last call."""
        new_tasks: list[tuple[object, ...]] = []
        tasks: list[tuple[object, ...]] = []
        for stream, change in self._tasks.items():
            state = change.state
            assert state is not None
            columns = task_columns(state, change.at_us)
            if change.queued and state.queued is not None:
                new_tasks.append((stream, *columns, change.queued, change.result, state.queued.id))
            else:
                tasks.append((*columns, change.result, stream))
        rows = Rows(
            imported=self._imported,
            new_tasks=new_tasks,
            tasks=tasks,
            attempts=[(*key, account) for key, account in self._attempts.items() if account is not None],
            ended_attempts=[key for key, account in self._attempts.items() if account is None],
            money=[(name, *self._money[name]) for name in self._touched_money],
            counts=[(*key, self._counts[key]) for key in self._touched_counts],
            batches=[batch_row(batch, state) for batch, state in self._batches.items()],
            accounts=[account_row(number, state) for number, state in self._accounts.items()],
            lanes=[lane_row(n, lane) for n, state in self._accounts.items() for lane in state.lanes],
            epochs=list(self._epochs.items()),
            ended_epochs=[(seq, epoch) for epoch, seq in self._ended.items()],
            dropped=list(self._dropped),
        )
        self._clear()
        return rows


def count_keys(batch: int, state: TaskState) -> list[CountKey]:
    """What a task is counted under: its phase, and the tallies that hold of it."""
    phase = state.phase
    last = _last(state.attempts) if phase != "queued" else None
    provider = "" if last is None else last.provider
    keys: list[CountKey] = [(batch, phase, provider)]
    if not state.results:
        return keys
    current = state.results[-1]
    if current.verdict == "rejected":
        keys.append((batch, "rejected", provider))
    elif current.flags:
        keys.append((batch, "flagged", provider))
    if current.owner and phase == "succeeded":
        keys.append((batch, "shared", provider))
    return keys


def _last(attempts: tuple[AttemptState, ...]) -> AttemptState | None:
    """The newest purchase, but for those of another copy that were found when all was over and gave it no image."""
    for attempt in reversed(attempts):
        if attempt.route != FOUND or attempt.phase == "done":
            return attempt
    return None


def task_columns(state: TaskState, at_us: int) -> tuple[object, ...]:
    """The columns of a task that change: version .. flags."""
    attempts = state.attempts
    current = state.current
    reason = state.reason
    account = provider = ""
    cost = 0
    if attempts:
        last = _last(attempts)
        if last is not None:
            account, provider = last.account, last.provider
        cost = sum(attempt.cost_microusd or 0 for attempt in attempts if attempt.phase in _PAID)
        if state.phase == "held":
            reason = next(attempt.reason for attempt in reversed(attempts) if attempt.doubtful)
    return (
        state.version,
        state.phase,
        account,
        provider,
        len(attempts),
        cost,
        state.slot,
        state.owner,
        at_us,
        reason,
        ",".join(current.flags) if current is not None and current.flags else "",
    )


def batch_row(batch: int, state: BatchState) -> tuple[object, ...]:
    return (batch, state.name, int(state.sandbox), state.opened_at_us, state.sealed_through, int(state.cancelled))


def account_row(number: int, state: AccountState) -> tuple[object, ...]:
    return (
        number,
        state.name,
        state.provider,
        state.fingerprint,
        state.parked,
        state.overcharges,
        state.overcharged_microusd,
    )


def lane_row(number: int, lane: LaneState) -> tuple[object, ...]:
    return (number, lane.lane, lane.concurrency, lane.breaker, lane.reason)
