"""The ledger as its one writer uses it: decisions in, outcomes out, durable before anything is answered.

:meth:`Ledger.commit` takes what waits, in arrival order.  Keys, versions and guards are all judged in memory, on the
states and balances that the decisions before it in the same group leave behind, before any row is written: so a
conflict, a repeated key or an exceeded cap refuses that decision alone (savepoints per decision halved the rate).
Whatever passes becomes one transaction.

Not thread-safe, and bound to no thread: one call at a time.  After any error out of a commit the ledger refuses
everything (LED-7): memory and file may differ then, and only a new start can tell.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Self, cast

from ledger.appender import Appender
from ledger.decisions import (
    Committed,
    Conflict,
    Decision,
    Exceeded,
    Guard,
    NewPayload,
    Outcome,
    Repeated,
    Reserve,
)
from ledger.encoding import chain_start, encode_event, payload_digest
from ledger.engine import Store, check_place, create_file, engine_facts, open_writer, read_mounts
from ledger.errors import InvariantBroken, LedgerDamaged, LedgerError, LedgerMissing
from ledger.events import (
    AccountEvent,
    BatchEvent,
    EpochStarted,
    Event,
    PayloadRef,
    RuntimeEvent,
    TaskEvent,
    TaskQueued,
)
from ledger.folds import AccountState, BatchState, TaskState
from ledger.imports import PAGE, Imported, import_staged
from ledger.lock import RunLock
from ledger.money import Move
from ledger.projection import task_moves
from ledger.reader import Reader
from ledger.rebuild import rebuild_views
from ledger.replay import (
    ACCOUNT_KIND,
    BATCH_KIND,
    KIND_SHIFT,
    TASK_KIND,
    State,
    evolve,
    load_state,
)
from ledger.rules import breach
from ledger.schema import VIEWS
from ledger.staging import NewTask, Staged, StagedRow, Staging
from ledger.streams import account_stream, batch_stream, runtime_stream, stream_label, stream_parts, task_stream
from ledger.views import stored_projection

_CACHED_TASKS = 50_000


class _Step:
    """One event of a decision that is being judged."""

    __slots__ = ("after", "before", "event", "stream")

    def __init__(self, stream: int, event: Event, before: State, after: State) -> None:
        self.stream = stream
        self.event = event
        self.before = before
        self.after = after


class Ledger:
    """The only read-write handle of a ledger file; made by :meth:`create_or_open`."""

    def __init__(self, path: Path, store: Store, lock: RunLock, entropy: Callable[[int], bytes]) -> None:
        self.path = path
        self.store = store
        self._lock = lock
        self._entropy = entropy
        self._failed: LedgerError | None = None
        self._closed = False
        self._epoch = 0
        self._tasks: dict[int, TaskState] = {}
        self._others: dict[int, State] = {}
        self._settled: list[int] = []
        self._keys: dict[bytes, int] = {}  # of decisions that are not in the file yet
        self.ledger_id = self._born()
        self._staging = Staging(store)
        self._projection = stored_projection(store)
        self._appender = Appender(store, chain_start(self.ledger_id), self._projection)
        last = store.row("SELECT coalesce(max(seq), 0) FROM events")
        if last != (self._appender.seq,):
            raise LedgerDamaged(f"{path}: the last commit does not end with the last event; run bydawn verify")
        newest = store.row("SELECT coalesce(max(epoch), 0) FROM epochs")
        self._last_epoch: int = 0 if newest is None else newest[0]
        payload = store.row("SELECT coalesce(max(row), 0) FROM payloads")
        self._next_payload: int = 1 if payload is None else payload[0] + 1

    @classmethod
    def create_or_open(
        cls,
        path: Path,
        *,
        create: bool,
        entropy: Callable[[int], bytes] = os.urandom,
        mounts: Callable[[], str] = read_mounts,
    ) -> Self:
        """Take the run lock and open the ledger for writing.

        Args:
            create: make it when it is not there; otherwise a missing one is an error.
            entropy: where ids and salts come from.
            mounts: tells the mount table of the machine.

        Raises:
            LedgerMissing, LedgerHeld, LedgerPlace, LedgerDamaged, LedgerNewer: as their names say.
        """
        path = path.absolute()
        if not create and not path.exists():
            raise LedgerMissing(f"there is no ledger at {path}")
        check_place(path, mounts)
        create_file(path)
        lock = RunLock.take(path)
        try:
            store = open_writer(path)
            try:
                return cls(path, store, lock, entropy)
            except BaseException:
                store.close()
                raise
        except BaseException:
            lock.release()
            raise

    def _born(self) -> str:
        """Read the ledger's id, giving it one if it is new; rebuild views of another version."""
        store = self.store
        meta: dict[str, str] = dict(store.rows("SELECT name, value FROM meta"))
        ledger_id = meta.get("ledger_id")
        if ledger_id is None:
            ledger_id = self._entropy(16).hex()
            store.run("INSERT INTO meta (name, value) VALUES ('ledger_id', ?)", (ledger_id,))
        if meta.get("views") != VIEWS:
            rebuild_views(store)
        return ledger_id

    # --- identity and epochs ------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """This process's epoch, 0 before :meth:`start_epoch`."""
        return self._epoch

    def identity(self) -> tuple[int, int]:
        """Return (device, inode) of the file, by which a copy is told from the original (REC-10)."""
        # Never open() the ledger for this: closing that descriptor would drop SQLite's locks.
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def start_epoch(
        self,
        *,
        machine: str,
        pid: int,
        app_version: str,
        operator: str,
        command: str,
        at_us: int,
        identity: tuple[int, int] | None = None,
    ) -> int:
        """Make this process the writer of a new epoch, durably, and return its number.

        ``identity`` replaces the file's own (device, inode) where two files must count as one: in simulation.
        """
        self._usable()
        device, inode = identity or self.identity()
        started = EpochStarted(
            ledger_id=self.ledger_id,
            machine=machine,
            device=device,
            inode=inode,
            pid=pid,
            app_version=app_version,
            sqlite_version=engine_facts().version,
            operator=operator,
            command=command,
        )
        self._last_epoch = self._epoch = self._last_epoch + 1
        stream = runtime_stream()
        with self._fatal():
            state = self._state(stream)
            after = evolve(stream, state, started, epoch=self._epoch, at_us=at_us)
            self._accept([_Step(stream, started, state, after)], at_us, None)
            self._flush()
        return self._epoch

    # --- appending ----------------------------------------------------------------------------------------

    def payload(self, text: str) -> tuple[PayloadRef, NewPayload]:
        """Give an erasable text its row, salt and digest, in memory; it becomes durable with its decision."""
        row = self._next_payload
        self._next_payload = row + 1
        salt = self._entropy(16)
        return PayloadRef(row, payload_digest(salt, text)), NewPayload(row, salt, text)

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]:
        """Judge the decisions in order and make all that pass durable in one transaction.

        Raises:
            CommitFailed, DiskFull, Fenced, InvariantBroken: nothing of this call is known to be durable, and the
                ledger refuses everything from here on.
        """
        self._usable()
        if not self._epoch:
            raise LedgerError(f"{self.path}: no epoch was started")
        with self._fatal():
            outcomes = [self._judge(decision) for decision in decisions]
            self._flush()
        return outcomes

    def _judge(self, decision: Decision) -> Outcome:
        key = decision.key
        if key is not None:
            seq = self._seq_of(key)
            if seq:
                return Repeated(seq)
        at_us, epoch = decision.at_us, self._epoch
        states: dict[int, State] = {}
        steps: list[_Step] = []
        moved: dict[str, list[int]] = {}
        for append in decision.appends:
            stream = append.stream
            state = states.get(stream) or self._state(stream)
            if state.version != append.expected:
                return Conflict(append.stream, append.expected, state.version)
            for event in append.events:
                after = evolve(stream, state, event, epoch=epoch, at_us=at_us)
                if stream >> KIND_SHIFT == TASK_KIND:
                    before_task, after_task = cast(TaskState, state), cast(TaskState, after)
                    self._protect(stream, cast(TaskEvent, event), before_task)
                    for account, reserved, captured, number in task_moves(stream, epoch, before_task, after_task):
                        total = moved.setdefault(account, [0, 0, 0])
                        total[0] += reserved
                        total[1] += captured
                        total[2] += number
                steps.append(_Step(stream, event, state, after))
                state = after
            states[stream] = state
        for guard in decision.guards:
            value, cap = self._weigh(guard, moved)
            if value > cap:
                return Exceeded(guard, value)
        for payload in decision.payloads:
            self._appender.add_payload(payload.row, payload.salt, payload.text, None)
        self._projection.move(Move(account, *total) for account, total in moved.items())
        return Committed(self._accept(steps, at_us, key))

    def _weigh(self, guard: Guard, moved: dict[str, list[int]]) -> tuple[int, int]:
        """What a guarded account would become, and its cap."""
        if isinstance(guard, Reserve):
            reserved, captured, _ = moved.get(guard.account, (0, 0, 0))
            return self._projection.balance(guard.account).total + reserved + captured, guard.cap_microusd
        _, _, number = moved.get(guard.lane, (0, 0, 0))
        return self._projection.balance(guard.lane).open + number, guard.cap

    def _protect(self, stream: int, event: TaskEvent, before: TaskState) -> None:
        """The rules that stay on in production, whoever decided: a breach is a bug and stops the run."""
        if not isinstance(event, TaskQueued):
            _, batch, n = stream_parts(stream)
            if n > self.batch(batch).sealed_through:
                raise InvariantBroken(f"{stream_label(stream)}: its import is not sealed (LED-11)")
        wrong = breach(before, event)
        if wrong:
            raise InvariantBroken(f"{stream_label(stream)}: {event.TYPE}: {wrong}")

    def _accept(self, steps: Iterable[_Step], at_us: int, key: bytes | None) -> int:
        """Take the events in; the key goes with the last one, so that a repeat is answered with its seq."""
        steps = tuple(steps)
        add, epoch, projection = self._appender.add, self._epoch, self._projection
        last = len(steps) - 1
        for index, step in enumerate(steps):
            stream, event, after = step.stream, step.event, step.after
            seq = add(stream, after.version, epoch, at_us, event, key if index == last else None)
            kind = stream >> KIND_SHIFT
            if kind == TASK_KIND:
                projection.task(
                    seq,
                    stream,
                    at_us,
                    cast(TaskEvent, event),
                    cast(TaskState, step.before),
                    cast(TaskState, after),
                )
                self._remember(stream, cast(TaskState, after))
                continue
            if kind == BATCH_KIND:
                projection.batch(stream_parts(stream).batch, cast(BatchEvent, event), cast(BatchState, after))
            elif kind == ACCOUNT_KIND:
                projection.account(stream_parts(stream).n, cast(AccountEvent, event), cast(AccountState, after))
            else:
                projection.runtime(seq, epoch, cast(RuntimeEvent, event))
            self._others[stream] = after
        if key is not None and steps:
            self._keys[key] = self._appender.seq
        return self._appender.seq

    def _seq_of(self, key: bytes) -> int:
        """The seq under which a key is on record, 0 if it is not."""
        known = self._keys.get(key)
        if known is None:
            found = self.store.row("SELECT seq FROM events WHERE key = ?", (key,))
            return 0 if found is None else int(found[0])
        return known

    # --- importing ----------------------------------------------------------------------------------------

    def stage(self, batch: int | None, tasks: Iterable[NewTask], *, input_digest: str = "") -> Staged:
        """Take the rows of an input in, durably nowhere, and compare them with the tasks of ``batch``.

        Args:
            batch: None for a batch that does not exist yet.
            input_digest: of the input; what a killed import of *another* input left behind does not count as known.
        """
        self._usable()
        self._staging.fill(tasks)
        return self._staging.compare(batch, beyond=self._beyond(batch, input_digest))

    def _beyond(self, batch: int | None, input_digest: str) -> int:
        half = None if batch is None else self.batch(batch).open_import
        return half.first - 1 if half is not None and input_digest and half.input_digest != input_digest else -1

    def missing(self, batch: int, *, limit: int = 1000) -> list[int]:
        """Tasks of the batch that the staged input does not ask for any more."""
        return self._staging.missing(batch, limit=limit)

    def import_staged(
        self,
        batch: int,
        *,
        source: str,
        input_digest: str,
        at_us: int,
        share: bool,
        mapping: dict[str, str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        page: int = PAGE,
    ) -> Imported:
        """Make what is staged part of ``batch`` and seal it; goes on with a killed import of the same input.

        Raises:
            LedgerError: a given id repeats; nothing was written.
        """
        self._usable()
        imported = import_staged(
            self,
            self._staging,
            batch,
            source=source,
            input_digest=input_digest,
            at_us=at_us,
            share=share,
            mapping=mapping,
            progress=progress,
            page=page,
        )
        self._staging.clear()
        return imported

    def highest_task(self, batch: int) -> int:
        """The highest task number that the batch ever used: numbers are not used twice."""
        first, last = task_stream(batch, 0), task_stream(batch + 1, 0) - 1
        found = self.store.row("SELECT max(stream) FROM tasks WHERE stream BETWEEN ? AND ?", (first, last))
        newest = 0 if found is None or found[0] is None else stream_parts(found[0]).n
        return max(newest, *(entry.last for entry in self.batch(batch).imports), 0)

    def queue_page(self, batch: int, number: int, rows: list[StagedRow], *, at_us: int) -> None:
        """Append one page of an import.  The same events as by :meth:`commit`, without what only a decision needs:
        no guards, no key, no state to compare with, since the numbers are new."""
        self._usable()
        epoch, base = self._epoch, task_stream(batch, 0)
        add, add_payload, note = self._appender.add_encoded, self._appender.add_payload, self._projection.imported
        with self._fatal():
            salts = self._entropy(16 * len(rows))
            payload = self._next_payload
            self._next_payload += len(rows)
            at = 0
            for n, task_id, request, key, model, aspect, resolution, references, variant, line, group, owner in rows:
                salt = salts[at : at + 16]
                at += 16
                event = TaskQueued(
                    task_id,
                    PayloadRef(payload, payload_digest(salt, request)),
                    model,
                    aspect,
                    resolution,
                    line,
                    number,
                    variant,
                    references,
                    owner,
                    group,
                )
                seq = add(base + n, 1, epoch, at_us, event, encode_event(event))
                add_payload(payload, salt, request, key)
                note(seq, base + n, at_us, event)
                payload += 1
            self._flush()

    # --- states -------------------------------------------------------------------------------------------

    def _state(self, stream: int) -> State:
        if stream >> KIND_SHIFT != TASK_KIND:
            state = self._others.get(stream)
            if state is None:
                state = self._others[stream] = load_state(self.store, stream)
            return state
        known = self._tasks.get(stream)
        return load_state(self.store, stream) if known is None else known

    def _remember(self, stream: int, state: TaskState) -> None:
        """Keep the state, as the newest, until the transaction at least: the file does not have it yet."""
        self._tasks.pop(stream, None)
        self._tasks[stream] = state
        if state.settled:
            self._settled.append(stream)

    def _flush(self) -> None:
        """Write, then forget what will hardly move again and what is too much."""
        self._appender.flush()
        self._keys.clear()
        tasks = self._tasks
        for stream in self._settled:
            state = tasks.get(stream)
            if state is not None and state.settled:
                del tasks[stream]
        self._settled.clear()
        for stream in list(islice(tasks, max(0, len(tasks) - _CACHED_TASKS))):
            del tasks[stream]

    def state(self, stream: int) -> TaskState:
        """The state of a task's stream, empty when it has no events."""
        if stream >> KIND_SHIFT != TASK_KIND:
            raise ValueError(f"{stream_label(stream)} is no task")
        self._usable()
        return cast(TaskState, self._state(stream))

    def batch(self, batch: int) -> BatchState:
        """The state of a batch."""
        return cast(BatchState, self._state(batch_stream(batch)))

    def account(self, account: int) -> AccountState:
        """The state of an account."""
        return cast(AccountState, self._state(account_stream(account)))

    # --- keeping ------------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """A reader with its own connection; close it."""
        return Reader(self.path)

    def erase(self, rows: Iterable[int]) -> int:
        """Erase texts for good and return how many there were (SEC-8).

        The rows stay, empty: events keep pointing at them, and without the salt their digests tell nothing.
        """
        self._usable()
        with self._fatal(), self.store.transaction():
            erased = sum(
                self.store.run(
                    "UPDATE payloads SET salt = NULL, text = NULL, request_key = NULL"
                    " WHERE row = ? AND salt IS NOT NULL",
                    (row,),
                )
                for row in rows
            )
        self.checkpoint()
        return erased

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it; for idle moments, and after erasing."""
        self._usable()
        self.store.row("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close and let go of the lock.  A second call changes nothing."""
        if not self._closed:
            self._closed = True
            # The last connection that closes must be the writer's: it folds the write-ahead log away.
            self.store.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _usable(self) -> None:
        if self._failed is not None:
            raise type(self._failed)(f"{self._failed} (earlier; the ledger stays closed)") from self._failed
        if self._closed:
            raise LedgerError(f"{self.path} is closed")

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """Whatever goes wrong inside ends this handle: memory may be ahead of the file (LED-7)."""
        try:
            yield
        except LedgerError as exc:
            self._failed = exc
            self.close()
            raise
        except BaseException as exc:
            self._failed = LedgerError(f"{self.path}: {type(exc).__name__}: {exc}")
            self.close()
            raise
