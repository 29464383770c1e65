"""Replay: every event once more, through the same projection that the writer uses.

Used to rebuild views of another version.  (The audit goes from stream to stream instead: :mod:`ledger.audit_streams`.)
Memory stays bounded: a settled task is forgotten, and only so many others are kept; a forgotten one that moves again
is folded anew from its stream.
"""

from typing import cast

from ledger.encoding import decode_event
from ledger.engine import Store
from ledger.events import AccountEvent, BatchEvent, Event, RuntimeEvent, TaskEvent
from ledger.folds import AccountState, BatchState, TaskState
from ledger.money import moves
from ledger.projection import Projection
from ledger.replay import ACCOUNT_KIND, BATCH_KIND, KIND_SHIFT, TASK_KIND, State, empty_state, evolve, load_state
from ledger.schema import VIEW_TABLES, VIEWS, view_statements
from ledger.streams import batch_of, stream_parts
from ledger.views import write_rows

_CACHED_TASKS = 300_000
_TOGETHER = 20_000


class Replayer:
    """Folds events in their order and projects them; the caller writes what :attr:`projection` gathers."""

    def __init__(self, store: Store, *, cached: int = _CACHED_TASKS) -> None:
        """``cached`` bounds the unsettled tasks kept in memory."""
        self.projection = Projection()
        self._store = store
        self._cached = cached
        self._tasks: dict[int, TaskState] = {}
        self._others: dict[int, State] = {}

    def state(self, stream: int, before_version: int) -> State:
        """The state of a stream as this replay left it."""
        if stream >> KIND_SHIFT != TASK_KIND:
            return self._others.get(stream) or empty_state(stream)
        known = self._tasks.get(stream)
        if known is None:
            if before_version <= 1:
                return empty_state(stream)
            return load_state(self._store, stream, before=before_version)
        return known

    def step(self, seq: int, stream: int, version: int, epoch: int, at_us: int, event: Event) -> tuple[State, State]:
        """Take one event; returns the states before and after."""
        before = self.state(stream, version)
        after = evolve(stream, before, event, epoch=epoch, at_us=at_us)
        kind = stream >> KIND_SHIFT
        projection = self.projection
        if kind == TASK_KIND:
            task_before, task_after = cast(TaskState, before), cast(TaskState, after)
            projection.move(moves(task_before, task_after, batch=batch_of(stream), epoch=epoch))
            projection.task(seq, stream, at_us, cast(TaskEvent, event), task_before, task_after)
            self._remember(stream, task_after)
            return before, after
        if kind == BATCH_KIND:
            projection.batch(batch_of(stream), cast(BatchEvent, event), cast(BatchState, after))
        elif kind == ACCOUNT_KIND:
            projection.account(stream_parts(stream).n, cast(AccountEvent, event), cast(AccountState, after))
        else:
            projection.runtime(seq, epoch, cast(RuntimeEvent, event))
        self._others[stream] = after
        return before, after

    def _remember(self, stream: int, state: TaskState) -> None:
        tasks = self._tasks
        if state.settled:
            tasks.pop(stream, None)
            return
        tasks[stream] = state
        if len(tasks) > self._cached:
            del tasks[next(iter(tasks))]


def rebuild_views(store: Store, *, together: int = _TOGETHER, cached: int = _CACHED_TASKS) -> None:
    """Drop all views and fold them anew, in one transaction, writing after every ``together`` events."""
    replayer = Replayer(store, cached=cached)
    with store.transaction():
        for name in VIEW_TABLES:
            store.run(f"DROP TABLE IF EXISTS {name}")
        for statement in view_statements():
            store.run(statement)
        rows = store.stream("SELECT seq, stream, version, epoch, at_us, type, data FROM events ORDER BY seq")
        for done, (seq, stream, version, epoch, at_us, tag, data) in enumerate(rows, 1):
            replayer.step(seq, stream, version, epoch, at_us, decode_event(tag, data))
            if done % together == 0:
                write_rows(store, replayer.projection.take())
        write_rows(store, replayer.projection.take())
        store.run("INSERT OR REPLACE INTO meta (name, value) VALUES ('views', ?)", (VIEWS,))
