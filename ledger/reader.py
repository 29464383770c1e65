"""Reading a ledger, from any process, beside its writer.

A reader has its own read-only connection and sees the last commit at each call.  Its reads are short, because an open
read keeps the write-ahead log from being folded away.  Rows become typed; what a view does not carry is read from the
events that it names.

:class:`Reader` is the one face of all that.  What it says of the ledger, its batches, accounts and totals is here; of
tasks one by one in :mod:`ledger.tasklist`; of what a run goes on with in :mod:`ledger.openwork`.

Tasks of an import that is not sealed do not exist for a reader (LED-11).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self, cast

import msgspec

from ledger.encoding import decode_event, recorded
from ledger.engine import Store, open_reader
from ledger.errors import LedgerDamaged
from ledger.events import (
    AttemptAccepted,
    AttemptAdopted,
    AttemptIntended,
    EpochEnded,
    EpochStarted,
    Recorded,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskShared,
)
from ledger.folds import AccountState, BatchState, RuntimeState, TaskPhase, TaskState
from ledger.money import Balance
from ledger.openwork import (
    Follower,
    LiveAttempt,
    QueuedShape,
    QueuedTask,
    held_attempts,
    live_attempts,
    queued_shapes,
    queued_tasks,
    settled_followers,
    task_state,
)
from ledger.projection import TALLIES
from ledger.replay import load_state
from ledger.schema import COPIED, FORMAT
from ledger.streams import FIRST_TASK, LAST_TASK, account_stream, batch_stream, runtime_stream, task_stream
from ledger.tasklist import TaskRow, one_task, task_of_id, task_page

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

    def bound_between(self, after: int, through: int) -> list[str]:
        """The jobs that attempts were bound to by the events behind one and up to another."""
        found = self.store.rows(
            "SELECT json_extract(data, '$.job') FROM events WHERE seq > ? AND seq <= ? AND type IN (?, ?)",
            (after, through, AttemptAccepted.TYPE, AttemptAdopted.TYPE),
        )
        return [str(job) for (job,) in found]

    def files(self) -> set[str]:
        """The names of the files of requests that were ever intended.  Reads every event: ask once."""
        found = self.store.rows(
            "SELECT DISTINCT json_extract(data, '$.file') FROM events WHERE type = ?", (AttemptIntended.TYPE,)
        )
        return {str(name) for (name,) in found if name}

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
            (newest, since_us, *_ENDS, task_stream(batch, FIRST_TASK), task_stream(batch, LAST_TASK)),
        )
        return [at_us for (at_us,) in rows]

    # --- tasks: one by one (ledger.tasklist), and what a run goes on with (ledger.openwork) -----------------

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
        return task_page(self.store, batch, after=after, limit=limit, states=states, provider=provider, flag=flag)

    def task(self, batch: int, n: int) -> TaskRow | None:
        return one_task(self.store, batch, n)

    def task_by_id(self, batch: int, task_id: str) -> TaskRow | None:
        """Find a task by its id: a scan of the batch."""
        return task_of_id(self.store, batch, task_id)

    def queued(self, batch: int, *, after: int = 0, limit: int = 10_000) -> list[QueuedTask]:
        """A page of tasks that may be bought, in input order, with their requests."""
        return queued_tasks(self.store, batch, after=after, limit=limit)

    def queued_through(self, batch: int, n: int) -> int:
        """How many tasks up to a number wait to be bought, followers included."""
        row = self.store.row(
            "SELECT count(*) FROM tasks WHERE phase = 'queued' AND stream > ? AND stream <= ?",
            (task_stream(batch, 0), task_stream(batch, n)),
        )
        return 0 if row is None else int(row[0])

    def queued_shapes(self, batch: int) -> list[QueuedShape]:
        """The tasks that may be bought, counted by their shape."""
        return queued_shapes(self.store, batch)

    def followers(self, batch: int, *, after: int = 0, limit: int = 1000) -> list[Follower]:
        """Queued tasks whose owner has succeeded, failed or was cancelled, with that owner."""
        return settled_followers(self.store, batch, after=after, limit=limit)

    def live(self, account: str | None = None) -> list[LiveAttempt]:
        """Attempts that must be followed, those whose result expires first in front."""
        return live_attempts(self.store, account)

    def held(self, batch: int, *, account: str | None = None) -> list[LiveAttempt]:
        """Attempts that are unknown and undecided, whatever became of their task since."""
        return held_attempts(self.store, batch, account=account)

    def state(self, stream: int) -> TaskState:
        """Fold a task from its events."""
        return task_state(self.store, stream)

    # --- handle -------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
