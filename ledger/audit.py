"""``verify``: does the ledger still say what it said, and do its parts agree?

One pass over the events, in order, inside one read transaction:

* the chain from commit to commit (a changed, missing, added or swapped event breaks it there);
* dense seq and versions, epochs that never go back;
* every transition legal, nothing bought twice without leave or before the seal;
* the views: folded anew beside the stored ones, by the writer's own projection, then compared row by row;
* the books: what the events charged, added up apart from the projection, against the stored balances;
* the texts of requests against the digests in their events.

Reads only.  What it finds are :class:`Problem` values with a place, never exceptions, as far as the file can be read.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from ledger.appender import last_commit
from ledger.encoding import chain_next, chain_start, decode_event, payload_digest
from ledger.engine import Store, open_reader
from ledger.errors import LedgerError
from ledger.events import (
    AttemptFailed,
    AttemptIntended,
    AttemptLost,
    ResultSpared,
    TaskCompleted,
    TaskEvent,
)
from ledger.folds import BatchState, TaskState
from ledger.money import batch_money
from ledger.rebuild import Replayer
from ledger.replay import KIND_SHIFT, TASK_KIND
from ledger.rules import breach
from ledger.schema import VIEW_TABLES, view_tables
from ledger.streams import batch_stream, stream_label, stream_parts
from ledger.views import write_rows

_TOGETHER = 20_000
_NAMED = 20


class Problem(msgspec.Struct, frozen=True):
    """``code`` is one of seq, version, epoch, chain, event, transition, views, books, payload, head."""

    code: str
    place: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """``problems`` names the first of each kind; ``counts`` says how many there are of each."""

    ok: bool
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    events: int
    seq: int
    head: str


class SealedHead(msgspec.Struct, frozen=True):
    """The end of the chain at one moment, kept outside the ledger: what a later ledger must still contain."""

    ledger_id: str
    seq: int
    hash: str


class _Audit:
    """What one verification has found so far."""

    def __init__(self, store: Store, progress: Callable[[int], None] | None, together: int) -> None:
        self._store = store
        self._progress = progress
        self._together = together
        self._found: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self._charged: Counter[int] = Counter()
        self._replayer = Replayer(store)
        self.events = 0
        self.head = b""
        self.seq = 0

    def problem(self, code: str, place: str, text: str) -> None:
        self.counts[code] += 1
        if self.counts[code] <= _NAMED:
            self._found.append(Problem(code, place, text))

    def report(self) -> Report:
        return Report(
            ok=not self._found,
            problems=tuple(self._found),
            counts=dict(self.counts),
            events=self.events,
            seq=self.seq,
            head=self.head.hex(),
        )

    def run(self) -> None:
        found = self._store.row("SELECT value FROM meta WHERE name = 'ledger_id'")
        start = chain_start("" if found is None else found[0])
        for statement in view_tables("replay."):
            self._store.run(statement)
        self._events(start)
        write_rows(self._store, self._replayer.projection.take(), "replay.")
        self._views()
        self._books()
        self._payloads()

    def _events(self, start: bytes) -> None:
        commits = self._store.stream("SELECT seq, head FROM commits ORDER BY seq")
        commit_seq, commit_head = next(commits, (0, start))
        head, seq, since, last_epoch = start, 0, 0, 0
        for seq_read, stream, version, epoch, at_us, tag, key, data in self._store.stream(
            "SELECT seq, stream, version, epoch, at_us, type, key, data FROM events ORDER BY seq"
        ):
            if seq_read != seq + 1:
                self.problem("seq", f"event {seq + 1}", f"missing: event {seq_read} follows event {seq}")
            seq = seq_read
            while commit_seq and commit_seq < seq:
                # The commit's last event is gone, so its head was never reached.
                self._broken(since, commit_seq)
                head, since = commit_head, commit_seq
                commit_seq, commit_head = next(commits, (0, start))
            head = chain_next(head, seq, stream, version, epoch, at_us, tag.encode(), key, data.encode())
            if seq == commit_seq:
                if head != commit_head:
                    self._broken(since, seq)
                # Going on from what is stored keeps one break from being reported for every later commit.
                head, since = commit_head, seq
                commit_seq, commit_head = next(commits, (0, start))
            if epoch < last_epoch:
                self.problem("epoch", f"event {seq}", f"epoch {epoch} after epoch {last_epoch} (LED-6)")
            last_epoch = max(epoch, last_epoch)
            self._event(seq, stream, version, epoch, at_us, tag, data)
            self.events += 1
            if self.events % self._together == 0:
                write_rows(self._store, self._replayer.projection.take(), "replay.")
                if self._progress is not None:
                    self._progress(self.events)
        if seq != since:
            self.problem(
                "chain", f"events {since + 1}-{seq}", "they belong to no commit: added, or their commit is gone"
            )
        if commit_seq:
            self._broken(since, commit_seq)
        self.seq, self.head = last_commit(self._store, start)

    def _broken(self, since: int, seq: int) -> None:
        self.problem(
            "chain", f"events {since + 1}-{seq}", "an event of this commit was changed, removed, added or moved (LED-8)"
        )

    def _event(self, seq: int, stream: int, version: int, epoch: int, at_us: int, tag: str, data: str) -> None:
        place = f"event {seq}"
        try:
            place = f"event {seq} ({stream_label(stream)})"
            event = decode_event(tag, data)
            before, _ = self._replayer.step(seq, stream, version, epoch, at_us, event)
        except (LedgerError, ValueError, AssertionError) as exc:
            self.problem("event", place, f"cannot be read: {exc}")
            return
        if before.version != version - 1:
            self.problem("version", place, f"version {version} follows version {before.version} (LED-2)")
        if stream >> KIND_SHIFT == TASK_KIND:
            self._task_event(place, stream, cast(TaskState, before), cast(TaskEvent, event))

    def _task_event(self, place: str, stream: int, before: TaskState, event: TaskEvent) -> None:
        wrong = breach(before, event)
        if wrong:
            self.problem("transition", place, f"{event.TYPE}: {wrong}")
        _, batch, n = stream_parts(stream)
        if type(event) is AttemptIntended:
            state = cast(BatchState, self._replayer.state(batch_stream(batch), 0))
            if n > state.sealed_through:
                self.problem("transition", place, "bought before its import was sealed (LED-11)")
        self._charged[batch] += _charge(event)

    def _views(self) -> None:
        for name in VIEW_TABLES:
            for here, there, text in (
                ("main", "replay", "is stored but does not follow from the events"),
                ("replay", "main", "follows from the events but is not stored so"),
            ):
                # The names are ours (schema.VIEW_TABLES).
                rows = self._store.stream(f"SELECT * FROM {here}.{name} EXCEPT SELECT * FROM {there}.{name}")  # noqa: S608
                for row in rows:
                    place = stream_label(row[0]) if name in ("tasks", "open_attempts") else f"{row[0]}"
                    self.problem("views", f"{name}: {place}", text)

    def _books(self) -> None:
        for batch, charged in self._charged.items():
            found = self._store.row("SELECT captured, reserved FROM money WHERE account = ?", (batch_money(batch),))
            captured, reserved = (0, 0) if found is None else found
            if captured != charged:
                text = f"the attempts charged {charged} micro-dollars, the books say {captured}"
                self.problem("books", batch_money(batch), text)
            if reserved < 0:
                self.problem("books", batch_money(batch), f"reserved is {reserved}")

    def _payloads(self) -> None:
        rows = self._store.stream(
            "SELECT q.stream, p.row, p.salt, p.text, json_extract(q.data, '$.request.digest')"
            " FROM tasks t JOIN events q ON q.seq = t.queued"
            " LEFT JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
        )
        for stream, row, salt, text, digest in rows:
            if row is None:
                self.problem("payload", stream_label(stream), "the row of its request is gone")
            elif text is not None and (salt is None or payload_digest(salt, text) != digest):
                self.problem("payload", stream_label(stream), "its request is not the one that was recorded")


_CHARGING = frozenset({TaskCompleted, ResultSpared, AttemptFailed, AttemptLost})


def _charge(event: TaskEvent) -> int:
    # By type and not by isinstance: every event of the ledger passes here (see evolve_task).
    if type(event) in _CHARGING:
        return cast(TaskCompleted, event).cost_microusd  # all four have it
    return 0


def verify(path: Path, progress: Callable[[int], None] | None = None, *, together: int = _TOGETHER) -> Report:
    """Replay the whole ledger and compare; ``progress`` is told the events done, after every ``together``.

    Raises:
        LedgerMissing, LedgerDamaged: there is no ledger here, or SQLite cannot read it.
    """
    store = open_reader(path, scratch=True)
    try:
        store.run("ATTACH '' AS replay")
        store.run("PRAGMA replay.journal_mode = OFF")
        audit = _Audit(store, progress, together)
        # One read transaction: all parts are compared as of the same commit, also beside a running night.
        with store.transaction("DEFERRED"):
            audit.run()
        return audit.report()
    finally:
        store.close()


def export_head(path: Path) -> SealedHead:
    """Return the end of the chain, to be kept beside the results."""
    store = open_reader(path)
    try:
        found = store.row("SELECT value FROM meta WHERE name = 'ledger_id'")
        ledger_id = "" if found is None else str(found[0])
        seq, head = last_commit(store, chain_start(ledger_id))
        return SealedHead(ledger_id, seq, head.hex())
    finally:
        store.close()


def check_against(path: Path, sealed: SealedHead) -> Problem | None:
    """Say how the ledger contradicts a head that was exported earlier; None if it still contains it (REC-10)."""
    here = export_head(path)
    if here.ledger_id != sealed.ledger_id:
        return Problem("head", path.name, f"this is ledger {here.ledger_id}, the head is of ledger {sealed.ledger_id}")
    if here.seq < sealed.seq:
        return Problem("head", f"event {here.seq}", f"the ledger ends before event {sealed.seq}: restored or cut")
    store = open_reader(path)
    try:
        found = store.row("SELECT head FROM commits WHERE seq = ?", (sealed.seq,))
    finally:
        store.close()
    if sealed.seq and (found is None or found[0].hex() != sealed.hash):
        return Problem("head", f"event {sealed.seq}", "the ledger has another history up to here")
    return None
