"""What a run goes on with: tasks that may be bought, attempts that are open or held, followers whose owner is settled.

Each is a page or a short list by an index, never a scan of all tasks.  Tasks of an import that is not sealed do not
exist here (LED-11).
"""

from typing import cast

import msgspec

from ledger.encoding import decode_event
from ledger.engine import Store
from ledger.events import TaskQueued
from ledger.folds import LIVE, AttemptPhase, TaskState
from ledger.replay import load_state
from ledger.streams import stream_parts, task_stream
from ledger.tasklist import TaskRow, one_task, sealed_range

_LAST_STREAM = (1 << 63) - 1


class QueuedTask(msgspec.Struct, frozen=True):
    """A task that may be bought.  ``request`` is None when its text was erased."""

    n: int
    state: TaskState
    request: str | None
    salt: bytes


class QueuedShape(msgspec.Struct, frozen=True):
    """What tasks that may be bought have in common where prices are concerned."""

    model: str
    aspect: str
    resolution: str
    references: bool
    count: int


class LiveAttempt(msgspec.Struct, frozen=True):
    """An attempt that the runtime must follow, with the state of its task."""

    batch: int
    n: int
    attempt: int
    account: str
    lane: str
    phase: AttemptPhase
    epoch: int
    intended_at_us: int
    expires_at_us: int
    state: TaskState


class Follower(msgspec.Struct, frozen=True):
    """A task that waits for the image of ``owner``, which is settled."""

    n: int
    state: TaskState
    owner: TaskRow


def queued_tasks(store: Store, batch: int, *, after: int, limit: int) -> list[QueuedTask]:
    """A page of tasks that may be bought, in input order, with their requests."""
    rows = store.rows(
        "SELECT t.stream, t.version, q.data, q.epoch, q.at_us, p.text, p.salt"
        " FROM tasks t JOIN events q ON q.seq = t.queued"
        " LEFT JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
        " WHERE t.phase = 'queued' AND t.owner = 0 AND t.stream > ? AND t.stream <= ? ORDER BY t.stream LIMIT ?",
        (*sealed_range(store, batch, after), limit),
    )
    found = []
    for stream, version, data, _epoch, _at_us, text, salt in rows:
        if version == 1:
            event = cast(TaskQueued, decode_event(TaskQueued.TYPE, data))
            state = TaskState(version=1, queued=event, owner=event.owner)
        else:
            state = task_state(store, stream)
        found.append(QueuedTask(stream_parts(stream).n, state, text, salt or b""))
    return found


def queued_shapes(store: Store, batch: int) -> list[QueuedShape]:
    """Count the tasks that may be bought by their shape, without reading any request."""
    rows = store.rows(
        "SELECT json_extract(q.data, '$.model'), json_extract(q.data, '$.aspect'),"
        " json_extract(q.data, '$.resolution'), coalesce(json_extract(q.data, '$.references'), 0) > 0, count(*)"
        " FROM tasks t JOIN events q ON q.seq = t.queued"
        " WHERE t.phase = 'queued' AND t.owner = 0 AND t.stream > ? AND t.stream <= ?"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        sealed_range(store, batch),
    )
    return [QueuedShape(model, aspect, size, bool(refs), n) for model, aspect, size, refs, n in rows]


def settled_followers(store: Store, batch: int, *, after: int, limit: int) -> list[Follower]:
    """Queued tasks whose owner has succeeded, failed or was cancelled, with that owner."""
    first = task_stream(batch, 0)
    rows = store.rows(
        "SELECT f.stream, f.owner FROM tasks f JOIN tasks o ON o.stream = ? + f.owner"
        " WHERE f.phase = 'queued' AND f.owner <> 0 AND f.stream > ? AND f.stream <= ?"
        " AND o.phase IN ('succeeded', 'failed', 'cancelled') ORDER BY f.stream LIMIT ?",
        (first, *sealed_range(store, batch, after), limit),
    )
    found = []
    for stream, owner in rows:
        owner_row = one_task(store, batch, owner)
        if owner_row is not None:
            found.append(Follower(stream_parts(stream).n, task_state(store, stream), owner_row))
    return found


def live_attempts(store: Store, account: str | None) -> list[LiveAttempt]:
    """Attempts in the phases intended, ambiguous, accepted, ready, those whose result expires first in front."""
    found = [entry for entry in _open(store, account) if entry.phase in LIVE]
    return sorted(found, key=lambda entry: (not entry.expires_at_us, entry.expires_at_us))


def held_attempts(store: Store, batch: int, *, account: str | None) -> list[LiveAttempt]:
    """Attempts that are unknown and undecided, whatever became of their task since."""
    found = _open(store, account, *sealed_range(store, batch))
    return [entry for entry in found if entry.state.attempts[entry.attempt - 1].doubtful]


def _open(store: Store, account: str | None, above: int = 0, up_to: int = _LAST_STREAM) -> list[LiveAttempt]:
    rows = store.rows(
        "SELECT stream, attempt FROM open_attempts WHERE account = coalesce(?, account)"
        " AND stream > ? AND stream <= ? ORDER BY stream, attempt",
        (account, above, up_to),
    )
    found = []
    for stream, number in rows:
        _, batch, n = stream_parts(stream)
        state = task_state(store, stream)
        attempt = state.attempts[number - 1]
        found.append(
            LiveAttempt(
                batch,
                n,
                number,
                attempt.account,
                attempt.lane,
                attempt.phase,
                attempt.epoch,
                attempt.intended_at_us,
                attempt.expires_at_us,
                state,
            )
        )
    return found


def task_state(store: Store, stream: int) -> TaskState:
    """Fold a task from its events."""
    if stream_parts(stream).kind != "task":
        raise ValueError(f"{stream} is no task")
    return cast(TaskState, load_state(store, stream))
