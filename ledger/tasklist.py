"""Tasks as lists and manifests show them: a page of a batch, one by its number, one by its id.

Tasks of an import that is not sealed do not exist here (LED-11).
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from ledger.encoding import decode_event
from ledger.engine import Row, Store
from ledger.events import PayloadRef, TaskCompleted, TaskQueued, TaskShared
from ledger.folds import TaskPhase
from ledger.streams import FIRST_TASK, LAST_TASK, stream_parts, task_stream


class TaskRow(msgspec.Struct, frozen=True):
    """A task as lists and manifests show it.  ``at_us`` is its last change; image fields are of the newest version."""

    batch: int
    n: int
    id: str
    phase: TaskPhase
    version: int
    account: str
    provider: str
    attempts: int
    cost_microusd: int
    slot: int
    owner: int
    at_us: int
    reason: str
    flags: tuple[str, ...]
    model: str
    aspect: str
    resolution: str
    variant: int
    line: int
    group: str
    request: PayloadRef
    result_version: int = 0  # 0 = no image yet
    sha256: str = ""
    media_type: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    model_version: str = ""
    shared_with: int = 0  # the task whose purchase this image is


_TASK = (
    "SELECT t.stream, t.version, t.phase, t.account, t.provider, t.attempts, t.cost_microusd, t.slot, t.owner, t.at_us,"
    " t.reason, t.flags, t.id, q.data, r.type, r.data"
    " FROM tasks t JOIN events q ON q.seq = t.queued LEFT JOIN events r ON r.seq = t.result"
)


def task_page(
    store: Store,
    batch: int,
    *,
    after: int,
    limit: int,
    states: Sequence[TaskPhase] = (),
    provider: str = "",
    flag: str = "",
) -> list[TaskRow]:
    """A page of tasks in input order, from number ``after`` on."""
    sql = f"{_TASK} WHERE t.stream > ? AND t.stream <= ?"
    values: tuple[object, ...] = sealed_range(store, batch, after)
    if states:
        sql += f" AND t.phase IN ({', '.join('?' * len(states))})"
        values += tuple(states)
    if provider:
        sql += " AND t.provider = ?"
        values += (provider,)
    if flag:
        sql += " AND instr(',' || t.flags || ',', ?) > 0"
        values += (f",{flag},",)
    return [_task_row(row) for row in store.rows(f"{sql} ORDER BY t.stream LIMIT ?", (*values, limit))]


def one_task(store: Store, batch: int, n: int) -> TaskRow | None:
    """The task of that number, None when there is none."""
    return next(iter(task_page(store, batch, after=n - 1, limit=1)), None) if _is_task(store, batch, n) else None


def task_of_id(store: Store, batch: int, task_id: str) -> TaskRow | None:
    """Find a task by its id.  A scan: an index on ids would cost every import more than a second per million."""
    found = store.row(
        "SELECT stream FROM tasks WHERE stream > ? AND stream <= ? AND id = ?",
        (*sealed_range(store, batch), task_id),
    )
    return None if found is None else one_task(store, batch, stream_parts(found[0]).n)


def sealed_range(store: Store, batch: int, after: int = 0) -> tuple[int, int]:
    """Stream keys (above, up to): the tasks of the batch that are sealed, from number ``after`` on."""
    found = store.row("SELECT sealed_through FROM batches WHERE batch = ?", (batch,))
    sealed = 0 if found is None else found[0]
    return task_stream(batch, min(after, LAST_TASK)), task_stream(batch, sealed)


def _is_task(store: Store, batch: int, n: int) -> bool:
    if n < FIRST_TASK:
        return False
    return store.row("SELECT 1 FROM tasks WHERE stream = ?", (task_stream(batch, n),)) is not None


def _task_row(row: Row) -> TaskRow:
    (stream, version, phase, account, provider, attempts, cost, slot, owner, at_us, reason, flags, task_id) = row[:13]
    queued_data, result_type, result_data = row[13:]
    _, batch, n = stream_parts(stream)
    queued = cast(TaskQueued, decode_event(TaskQueued.TYPE, queued_data))
    found = TaskRow(
        batch=batch,
        n=n,
        id=task_id,
        phase=phase,
        version=version,
        account=account,
        provider=provider,
        attempts=attempts,
        cost_microusd=cost,
        slot=slot,
        owner=owner,
        at_us=at_us,
        reason=reason,
        flags=_flags(flags),
        model=queued.model,
        aspect=queued.aspect,
        resolution=queued.resolution,
        variant=queued.variant,
        line=queued.line,
        group=queued.group,
        request=queued.request,
    )
    if result_data is None:
        return found
    result = cast(TaskCompleted | TaskShared, decode_event(result_type, result_data))
    return msgspec.structs.replace(
        found,
        result_version=result.version,
        sha256=result.sha256,
        media_type=result.media_type,
        width=result.width,
        height=result.height,
        size=result.size,
        model_version=result.model_version if isinstance(result, TaskCompleted) else "",
        shared_with=result.owner if isinstance(result, TaskShared) else 0,
    )


def _flags(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
