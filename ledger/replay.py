"""From rows to states: which fold a stream has, and how one stream is read and folded.

The kind of a stream is in its key, so a state is found without knowing what the stream is about.
"""

from typing import TypeAlias, cast

from ledger.encoding import decode_event
from ledger.engine import Store
from ledger.events import AccountEvent, BatchEvent, Event, RuntimeEvent, TaskEvent
from ledger.folds import (
    EMPTY_ACCOUNT,
    EMPTY_BATCH,
    EMPTY_RUNTIME,
    EMPTY_TASK,
    AccountState,
    BatchState,
    RuntimeState,
    TaskState,
    evolve_account,
    evolve_batch,
    evolve_runtime,
    evolve_task,
)
from ledger.streams import account_stream, batch_stream, runtime_stream, task_stream

State: TypeAlias = TaskState | BatchState | AccountState | RuntimeState

KIND_SHIFT = 60
BATCH_KIND = batch_stream(0) >> KIND_SHIFT
TASK_KIND = task_stream(0, 0) >> KIND_SHIFT
ACCOUNT_KIND = account_stream(0) >> KIND_SHIFT
RUNTIME_KIND = runtime_stream() >> KIND_SHIFT

_EMPTY: dict[int, State] = {
    BATCH_KIND: EMPTY_BATCH,
    TASK_KIND: EMPTY_TASK,
    ACCOUNT_KIND: EMPTY_ACCOUNT,
    RUNTIME_KIND: EMPTY_RUNTIME,
}

_HISTORY = "SELECT type, data, epoch, at_us FROM events WHERE stream = ? AND version < ? ORDER BY version"
_END = 1 << 62


def empty_state(stream: int) -> State:
    """The state of a stream without events."""
    return _EMPTY[stream >> KIND_SHIFT]


def evolve(stream: int, state: State, event: Event, *, epoch: int, at_us: int) -> State:
    """Apply one event of any stream.  An event on a stream of another kind is a bug: AssertionError."""
    # The casts cost nothing, and a wrong kind still ends in the fold's assert_never.
    kind = stream >> KIND_SHIFT
    if kind == TASK_KIND:
        return evolve_task(cast(TaskState, state), cast(TaskEvent, event), epoch=epoch, at_us=at_us)
    if kind == BATCH_KIND:
        return evolve_batch(cast(BatchState, state), cast(BatchEvent, event), at_us=at_us)
    if kind == ACCOUNT_KIND:
        return evolve_account(cast(AccountState, state), cast(AccountEvent, event))
    return evolve_runtime(cast(RuntimeState, state), cast(RuntimeEvent, event), epoch=epoch, at_us=at_us)


def load_state(store: Store, stream: int, *, before: int = _END) -> State:
    """Fold a stream from its rows, up to (not with) version ``before``."""
    state = empty_state(stream)
    for tag, data, epoch, at_us in store.rows(_HISTORY, (stream, before)):
        state = evolve(stream, state, decode_event(tag, data), epoch=epoch, at_us=at_us)
    return state


def replay_tasks(store: Store, batch: int) -> dict[int, TaskState]:
    """Fold every task of a batch from its events alone, in one pass over the ledger; keyed by stream.

    For looking at a past state as a whole: everything is in memory.
    """
    first, last = task_stream(batch, 0), task_stream(batch + 1, 0)
    states: dict[int, TaskState] = {}
    for stream, epoch, at_us, tag, data in store.stream(
        "SELECT stream, epoch, at_us, type, data FROM events ORDER BY seq"
    ):
        if first <= stream < last:
            event = cast(TaskEvent, decode_event(tag, data))
            states[stream] = evolve_task(states.get(stream, EMPTY_TASK), event, epoch=epoch, at_us=at_us)
    return states
