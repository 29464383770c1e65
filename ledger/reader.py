"""Reading a ledger, from any process, beside its writer.

A reader has its own read-only connection and sees the last commit at each call.  Its reads are short, because an open
read keeps the write-ahead log from being folded away.  Rows become typed here; what a view does not carry is read
from the events that it names.

Tasks of an import that is not sealed do not exist for a reader (LED-11).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self, cast

import msgspec

from ledger.encoding import decode_event, recorded
from ledger.engine import Row, Store, open_reader
from ledger.errors import LedgerDamaged
from ledger.events import (
    AttemptAccepted,
    AttemptAdopted,
    EpochEnded,
    EpochStarted,
    PayloadRef,
    Recorded,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskQueued,
    TaskShared,
)
from ledger.folds import LIVE, AccountState, AttemptPhase, BatchState, RuntimeState, TaskPhase, TaskState
from ledger.money import Balance
from ledger.projection import TALLIES
from ledger.replay import load_state
from ledger.schema import COPIED, FORMAT
from ledger.streams import account_stream, batch_stream, runtime_stream, stream_parts, task_stream

_FIRST_TASK = 1
_LAST_TASK = (1 << 36) - 1
_LAST_STREAM = (1 << 63) - 1
_ENDS = (TaskCompleted.TYPE, TaskShared.TYPE, TaskFailed.TYPE, TaskCancelled.TYPE)


class Head(msgspec.Struct, frozen=True):
    """The end of the chain.  ``hash`` is hex."""

    seq: int
    hash: str


class CountRow(msgspec.Struct, frozen=True):
    state: TaskPhase
    provider: str  # of the newest attempt; empty while queued, and where nothing was bought
    n: int


class BatchRow(msgspec.Struct, frozen=True):
    batch: int
    name: str
    sandbox: bool
    opened_at_us: int
    sealed_through: int
    cancelled: bool


class AccountRow(msgspec.Struct, frozen=True):
    n: int
    name: str
    provider: str
    fingerprint: str
    parked: str
    overcharges: int
    overcharged_microusd: int


class LaneRow(msgspec.Struct, frozen=True):
    account: str
    lane: str
    concurrency: int
    breaker: str
    reason: str


class EpochRow(msgspec.Struct, frozen=True):
    """``ended`` is None while the epoch runs, and for ever when its process was killed.

    ``first`` and ``last`` number its events: its start, and the last one before the next start.
    """

    epoch: int
    started_at_us: int
    started: EpochStarted
    ended_at_us: int = 0
    ended: EpochEnded | None = None
    first: int = 0
    last: int = 0


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


_TASK = (
    "SELECT t.stream, t.version, t.phase, t.account, t.provider, t.attempts, t.cost_microusd, t.slot, t.owner, t.at_us,"
    " t.reason, t.flags, t.id, q.data, r.type, r.data"
    " FROM tasks t JOIN events q ON q.seq = t.queued LEFT JOIN events r ON r.seq = t.result"
)


class Reader:
    """A read-only handle; also a context manager.  One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises LedgerMissing or LedgerDamaged."""
        self.path = path
        self.store: Store = open_reader(path)

    # --- the ledger as a whole ----------------------------------------------------------------------------

    def ledger_id(self) -> str:
        found = self.store.row("SELECT value FROM meta WHERE name = 'ledger_id'")
        if found is None:
            raise LedgerDamaged(f"{self.path} has no id: its making was cut short")
        return str(found[0])

    def newer(self) -> bool:
        """Whether a newer bydawn wrote this ledger: it can be read as far as its events are known, never written."""
        found = self.store.row("PRAGMA user_version")
        return found is not None and found[0] > FORMAT

    def head(self) -> Head:
        """The end of the chain; seq 0 with an empty hash while there are no events."""
        found = self.store.row("SELECT seq, head FROM commits ORDER BY seq DESC LIMIT 1")
        return Head(0, "") if found is None else Head(found[0], found[1].hex())

    def epoch(self) -> int:
        """The newest epoch, 0 before the first."""
        found = self.store.row("SELECT coalesce(max(epoch), 0) FROM epochs")
        return 0 if found is None else int(found[0])

    def runtime(self) -> RuntimeState:
        """The newest epoch, where the ledger is at home, and what waits since it was taken over."""
        return cast(RuntimeState, load_state(self.store, runtime_stream()))

    def copied_at_us(self) -> int:
        """When this file was made as a backup, 0 for one that was not (or has been taken over since)."""
        found = self.store.row("SELECT value FROM meta WHERE name = ?", (COPIED,))
        return 0 if found is None else int(found[0])

    def epochs(self) -> list[EpochRow]:
        """All process starts that could write, oldest first."""
        rows = self.store.rows(
            "SELECT p.epoch, s.at_us, s.type, s.data, e.at_us, e.type, e.data, p.started,"
            " lead(p.started - 1, 1, (SELECT max(seq) FROM events)) OVER (ORDER BY p.epoch) FROM epochs p"
            " JOIN events s ON s.seq = p.started LEFT JOIN events e ON e.seq = p.ended ORDER BY p.epoch"
        )
        found = []
        for epoch, started_at, started_type, started, ended_at, ended_type, ended, first, last in rows:
            end = None if ended is None else cast(EpochEnded, decode_event(ended_type, ended))
            start = cast(EpochStarted, decode_event(started_type, started))
            found.append(EpochRow(epoch, started_at, start, ended_at or 0, end, first, last))
        return found

    def events(self, *, stream: int | None = None, after: int = 0, limit: int = 1000) -> list[Recorded]:
        """Events in order, from seq ``after`` on; of one stream, ``after`` is a version."""
        columns = "SELECT seq, stream, version, epoch, at_us, type, data FROM events"
        if stream is None:
            rows = self.store.rows(f"{columns} WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        else:
            rows = self.store.rows(
                f"{columns} WHERE stream = ? AND version > ? ORDER BY version LIMIT ?", (stream, after, limit)
            )
        return [recorded(*row) for row in rows]

    def version(self, stream: int) -> int:
        """The version of a stream, 0 when it has no events."""
        found = self.store.row("SELECT coalesce(max(version), 0) FROM events WHERE stream = ?", (stream,))
        return 0 if found is None else int(found[0])

    def bound(self, jobs: Collection[str]) -> set[str]:
        """Those of the jobs that an attempt was ever bound to.  Reads every event: ask for many at once."""
        found = self.store.rows(
            "SELECT json_extract(data, '$.job') FROM events WHERE type IN (?, ?)"
            " AND json_extract(data, '$.job') IN (SELECT value FROM json_each(?))",
            (AttemptAccepted.TYPE, AttemptAdopted.TYPE, msgspec.json.encode(list(jobs)).decode()),
        )
        return {str(job) for (job,) in found}

    def seq_of_key(self, key: bytes) -> int | None:
        """The event that was appended under an idempotency key, None while there is none."""
        found = self.store.row("SELECT seq FROM events WHERE key = ?", (key,))
        return None if found is None else int(found[0])

    def payload(self, row: int) -> str | None:
        """An erasable text; None when it was erased (or never was)."""
        found = self.store.row("SELECT text FROM payloads WHERE row = ?", (row,))
        return None if found is None else found[0]

    def salted(self, row: int) -> tuple[bytes, str] | None:
        """An erasable text with its salt, by which digests of what is derived from it are made."""
        found = self.store.row("SELECT salt, text FROM payloads WHERE row = ?", (row,))
        return None if found is None or found[0] is None else (found[0], found[1])

    # --- batches and accounts -----------------------------------------------------------------------------

    def batches(self) -> list[BatchRow]:
        """All batches, oldest first."""
        rows = self.store.rows(
            "SELECT batch, name, sandbox, opened_at_us, sealed_through, cancelled FROM batches ORDER BY batch"
        )
        return [BatchRow(b, name, bool(sandbox), at, sealed, bool(gone)) for b, name, sandbox, at, sealed, gone in rows]

    def batch_by_name(self, name: str) -> int | None:
        found = self.store.row("SELECT batch FROM batches WHERE name = ?", (name,))
        return None if found is None else int(found[0])

    def batch(self, batch: int) -> BatchState:
        """How the batch is run, what was agreed, and what was imported; empty when there is none."""
        return cast(BatchState, load_state(self.store, batch_stream(batch)))

    def next_batch(self) -> int:
        """A number for a new batch."""
        found = self.store.row("SELECT coalesce(max(batch), 0) + 1 FROM batches")
        return 1 if found is None else int(found[0])

    def accounts(self) -> list[AccountRow]:
        rows = self.store.rows(
            "SELECT n, name, provider, fingerprint, parked, overcharges, overcharged_microusd FROM accounts ORDER BY n"
        )
        return [AccountRow(*row) for row in rows]

    def account(self, number: int) -> AccountState:
        """The state of an account, empty when there is none."""
        return cast(AccountState, load_state(self.store, account_stream(number)))

    def lanes(self) -> list[LaneRow]:
        rows = self.store.rows(
            "SELECT a.name, l.lane, l.concurrency, l.breaker, l.reason FROM lanes l JOIN accounts a ON a.n = l.account"
            " ORDER BY l.account, l.lane"
        )
        return [LaneRow(*row) for row in rows]

    # --- totals: never a scan of tasks --------------------------------------------------------------------

    def counts(self, batch: int) -> list[CountRow]:
        """How many tasks of the batch are in each phase, by provider."""
        rows = self.store.rows("SELECT state, provider, n FROM counts WHERE batch = ? AND n <> 0", (batch,))
        return [CountRow(*row) for row in rows if row[0] not in TALLIES]

    def tallies(self, batch: int) -> dict[str, int]:
        """How many images are ``flagged``, ``rejected``, ``shared``: counted beside the phases."""
        sums = dict.fromkeys(TALLIES, 0)
        for state, n in self.store.rows("SELECT state, n FROM counts WHERE batch = ?", (batch,)):
            if state in sums:
                sums[state] += n
        return sums

    def money(self, prefix: str = "") -> dict[str, Balance]:
        """Balances of the money accounts whose name starts with ``prefix`` (names: ``ledger.money``)."""
        rows = self.store.rows(
            "SELECT account, reserved, captured, open FROM money WHERE account >= ? AND account < ?",
            (prefix, prefix + "\U0010ffff"),
        )
        return {name: Balance(*held) for name, *held in rows}

    def ends(self, batch: int, *, since_us: int, newest: int) -> list[int]:
        """When tasks of the batch ended, oldest first, among the newest so many events; no event is decoded."""
        rows = self.store.rows(
            "SELECT at_us FROM events WHERE seq > (SELECT coalesce(max(seq), 0) FROM events) - ? AND at_us >= ?"
            " AND type IN (?, ?, ?, ?) AND stream BETWEEN ? AND ? ORDER BY seq",
            (newest, since_us, *_ENDS, task_stream(batch, _FIRST_TASK), task_stream(batch, _LAST_TASK)),
        )
        return [at_us for (at_us,) in rows]

    # --- tasks --------------------------------------------------------------------------------------------

    def tasks(
        self,
        batch: int,
        *,
        after: int = 0,
        limit: int = 50,
        states: Sequence[TaskPhase] = (),
        provider: str = "",
        flag: str = "",
    ) -> list[TaskRow]:
        """A page of tasks in input order, from number ``after`` on."""
        sql = f"{_TASK} WHERE t.stream > ? AND t.stream <= ?"
        values: tuple[object, ...] = self._range(batch, after)
        if states:
            sql += f" AND t.phase IN ({', '.join('?' * len(states))})"
            values += tuple(states)
        if provider:
            sql += " AND t.provider = ?"
            values += (provider,)
        if flag:
            sql += " AND instr(',' || t.flags || ',', ?) > 0"
            values += (f",{flag},",)
        return [_task_row(row) for row in self.store.rows(f"{sql} ORDER BY t.stream LIMIT ?", (*values, limit))]

    def task(self, batch: int, n: int) -> TaskRow | None:
        return next(iter(self.tasks(batch, after=n - 1, limit=1)), None) if self._is(batch, n) else None

    def task_by_id(self, batch: int, task_id: str) -> TaskRow | None:
        """Find a task by its id.  A scan: an index on ids would cost every import more than a second per million."""
        found = self.store.row(
            "SELECT stream FROM tasks WHERE stream > ? AND stream <= ? AND id = ?",
            (*self._range(batch, 0), task_id),
        )
        return None if found is None else self.task(batch, stream_parts(found[0]).n)

    def queued(self, batch: int, *, after: int = 0, limit: int = 10_000) -> list[QueuedTask]:
        """A page of tasks that may be bought, in input order, with their requests."""
        rows = self.store.rows(
            "SELECT t.stream, t.version, q.data, q.epoch, q.at_us, p.text, p.salt"
            " FROM tasks t JOIN events q ON q.seq = t.queued"
            " LEFT JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
            " WHERE t.phase = 'queued' AND t.owner = 0 AND t.stream > ? AND t.stream <= ? ORDER BY t.stream LIMIT ?",
            (*self._range(batch, after), limit),
        )
        found = []
        for stream, version, data, _epoch, _at_us, text, salt in rows:
            if version == 1:
                event = cast(TaskQueued, decode_event(TaskQueued.TYPE, data))
                state = TaskState(version=1, queued=event, owner=event.owner)
            else:
                state = self.state(stream)
            found.append(QueuedTask(stream_parts(stream).n, state, text, salt or b""))
        return found

    def queued_shapes(self, batch: int) -> list[QueuedShape]:
        """Count the tasks that may be bought by their shape, without reading any request."""
        rows = self.store.rows(
            "SELECT json_extract(q.data, '$.model'), json_extract(q.data, '$.aspect'),"
            " json_extract(q.data, '$.resolution'), coalesce(json_extract(q.data, '$.references'), 0) > 0, count(*)"
            " FROM tasks t JOIN events q ON q.seq = t.queued"
            " WHERE t.phase = 'queued' AND t.owner = 0 AND t.stream > ? AND t.stream <= ?"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            self._range(batch, 0),
        )
        return [QueuedShape(model, aspect, size, bool(refs), n) for model, aspect, size, refs, n in rows]

    def followers(self, batch: int, *, after: int = 0, limit: int = 1000) -> list[Follower]:
        """Queued tasks whose owner has succeeded, failed or was cancelled, with that owner."""
        first = task_stream(batch, 0)
        rows = self.store.rows(
            "SELECT f.stream, f.owner FROM tasks f JOIN tasks o ON o.stream = ? + f.owner"
            " WHERE f.phase = 'queued' AND f.owner <> 0 AND f.stream > ? AND f.stream <= ?"
            " AND o.phase IN ('succeeded', 'failed', 'cancelled') ORDER BY f.stream LIMIT ?",
            (first, *self._range(batch, after), limit),
        )
        found = []
        for stream, owner in rows:
            owner_row = self.task(batch, owner)
            if owner_row is not None:
                found.append(Follower(stream_parts(stream).n, self.state(stream), owner_row))
        return found

    def live(self, account: str | None = None) -> list[LiveAttempt]:
        """Attempts in the phases intended, ambiguous, accepted, ready, those whose result expires first in front."""
        found = [entry for entry in self._open(account) if entry.phase in LIVE]
        return sorted(found, key=lambda entry: (not entry.expires_at_us, entry.expires_at_us))

    def held(self, batch: int, *, account: str | None = None) -> list[LiveAttempt]:
        """Attempts that are unknown and undecided, whatever became of their task since."""
        found = self._open(account, *self._range(batch, 0))
        return [entry for entry in found if entry.state.attempts[entry.attempt - 1].doubtful]

    def _open(self, account: str | None, above: int = 0, up_to: int = _LAST_STREAM) -> list[LiveAttempt]:
        rows = self.store.rows(
            "SELECT stream, attempt FROM open_attempts WHERE account = coalesce(?, account)"
            " AND stream > ? AND stream <= ? ORDER BY stream, attempt",
            (account, above, up_to),
        )
        found = []
        for stream, number in rows:
            _, batch, n = stream_parts(stream)
            state = self.state(stream)
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

    def state(self, stream: int) -> TaskState:
        """Fold a task from its events."""
        if stream_parts(stream).kind != "task":
            raise ValueError(f"{stream} is no task")
        return cast(TaskState, load_state(self.store, stream))

    def _range(self, batch: int, after: int) -> tuple[int, int]:
        """Stream keys (above, up to): the tasks that are sealed."""
        found = self.store.row("SELECT sealed_through FROM batches WHERE batch = ?", (batch,))
        sealed = 0 if found is None else found[0]
        return task_stream(batch, min(after, _LAST_TASK)), task_stream(batch, sealed)

    def _is(self, batch: int, n: int) -> bool:
        if n < _FIRST_TASK:
            return False
        return self.store.row("SELECT 1 FROM tasks WHERE stream = ?", (task_stream(batch, n),)) is not None

    # --- handle -------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
