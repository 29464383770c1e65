"""The ledger as its one writer uses it: decisions in, outcomes out, durable before anything is answered.

:meth:`Ledger.commit` takes what waits, in arrival order.  All of it is judged in memory (:mod:`ledger.judge`) before
any row is written, so a conflict, a repeated key or an exceeded cap refuses that decision alone; savepoints per
decision halved the rate.  Whatever passes becomes one transaction (:mod:`ledger.appender`).

Not thread-safe, and bound to no thread: one call at a time.  After any error out of a commit the ledger refuses
everything (LED-7): memory and file may differ then, and only a new start can tell.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, cast

from ledger.appender import Appender
from ledger.decisions import (
    Append,
    Decision,
    NewPayload,
    Outcome,
)
from ledger.encoding import chain_start, encode_event, payload_digest
from ledger.engine import WAL_PAGES, Store, check_place, create_file, engine_facts, open_writer, read_mounts
from ledger.errors import LedgerDamaged, LedgerError, LedgerMissing
from ledger.events import (
    EpochStarted,
    PayloadRef,
    TaskQueued,
)
from ledger.folds import AccountState, BatchState, TaskState
from ledger.imports import PAGE, Imported, import_staged
from ledger.judge import Judge
from ledger.lock import RunLock, newest_commit
from ledger.reader import Reader
from ledger.rebuild import rebuild_views
from ledger.replay import (
    KIND_SHIFT,
    TASK_KIND,
)
from ledger.schema import COPIED, VIEWS
from ledger.staging import NewTask, Staged, StagedRow, Staging
from ledger.streams import account_stream, runtime_stream, stream_label, stream_parts, task_stream
from ledger.views import stored_projection

_IMPORT_WAL_PAGES = 32_000  # 128 MB


class Ledger:
    """The only read-write handle of a ledger file; made by :meth:`create_or_open`."""

    def __init__(self, path: Path, store: Store, lock: RunLock, entropy: Callable[[int], bytes]) -> None:
        self.path = path
        self.store = store
        self._lock = lock
        self._entropy = entropy
        self._failed: LedgerError | None = None
        self._closed = False
        self.ledger_id = self._born()
        self._staging = Staging(store)
        self._projection = stored_projection(store)
        self._appender = Appender(store, chain_start(self.ledger_id), self._projection)
        self._judge = Judge(store, self._appender, self._projection)
        last = store.row("SELECT coalesce(max(seq), 0) FROM events")
        if last != (self._appender.seq,):
            raise LedgerDamaged(f"{path}: the last commit does not end with the last event; run bydawn verify")
        self._contradicted = _is_older(store, self.ledger_id, newest_commit(path))
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
        path = path.resolve() if path.is_symlink() else path.absolute()  # one file, one lock (LED-5)
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
        return self._judge.epoch

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
        self._last_epoch = self._judge.epoch = self._last_epoch + 1
        stream = runtime_stream()
        with self._fatal():
            append = Append(stream, self._judge.state(stream).version, (started,))
            self._judge.judge(Decision(appends=(append,), at_us=at_us))
            self._flush()
        return self._judge.epoch

    def settle(self) -> None:
        """This file is no backup any more, but the ledger that goes on; durable when it returns."""
        self._usable()
        with self._fatal(), self.store.transaction():
            self.store.run("DELETE FROM meta WHERE name = ?", (COPIED,))

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
        if not self._judge.epoch:
            raise LedgerError(f"{self.path}: no epoch was started")
        with self._fatal():
            outcomes = [self._judge.judge(decision) for decision in decisions]
            self._flush()
        return outcomes

    def _flush(self) -> None:
        self._appender.flush()
        self._judge.written()
        if not self._contradicted:
            self.mark()

    def mark(self) -> None:
        """Let the lock file name the newest commit, also where it named one that this ledger does not contain."""
        self._contradicted = False
        self._lock.mark(self.ledger_id, self._appender.seq, self._appender.head.hex())

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
        # Checkpoints in the usual step would write the same tail and index pages a hundred times.
        self.store.run(f"PRAGMA wal_autocheckpoint = {_IMPORT_WAL_PAGES}")
        try:
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
        finally:
            self.store.run(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        self._staging.clear()
        if imported.added > page:
            self.checkpoint()  # or the log would stay as long as it grew
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
        epoch, base = self._judge.epoch, task_stream(batch, 0)
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

    def state(self, stream: int) -> TaskState:
        """The state of a task's stream, empty when it has no events."""
        if stream >> KIND_SHIFT != TASK_KIND:
            raise ValueError(f"{stream_label(stream)} is no task")
        self._usable()
        return cast(TaskState, self._judge.state(stream))

    def batch(self, batch: int) -> BatchState:
        """The state of a batch."""
        return self._judge.batch(batch)

    def account(self, account: int) -> AccountState:
        """The state of an account."""
        return cast(AccountState, self._judge.state(account_stream(account)))

    # --- keeping ------------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """A reader with its own connection; close it."""
        return Reader(self.path)

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it; for idle moments, and after erasing.

        Returns whether it is empty: not while somebody is in the middle of reading what it holds.
        """
        self._usable()
        found = self.store.row("PRAGMA wal_checkpoint(TRUNCATE)")
        return found is not None and found[0] == 0

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


def _is_older(store: Store, ledger_id: str, newest: tuple[str, int, str] | None) -> bool:
    """Whether the ledger does not contain the newest commit that was made in its place: then that stays on record."""
    if newest is None or newest[0] != ledger_id or not newest[1]:
        return False
    return store.row("SELECT lower(hex(head)) FROM commits WHERE seq = ?", newest[1:2]) != newest[2:]
