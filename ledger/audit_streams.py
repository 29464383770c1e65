"""The second half of ``verify``: every stream folded from its first event to its last, and what follows from it.

* versions 1..n; every transition legal, nothing bought twice without leave or before the seal;
* the views: each row as it follows from the folded streams, by the writer's own rules, beside the stored one;
* the books: what the events charged, added up apart from the balances, against them.

A stream's events are read together, in the order of their key and not of the ledger.  So one state is in memory at a
time, a task is weighed and compared once, when its last event is in, and nothing has to be written aside: a replay in
the order of the ledger took three times as long (`docs/benchmarks.md`).  Order between streams matters in one rule,
LED-11, and is told by seq there.  The streams of batches, accounts and epochs, few and short, are read first.

The caller holds one read transaction, so that events and views are of the same commit, also beside a running night.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import cast

from ledger.encoding import decode_event
from ledger.engine import Row, Store
from ledger.errors import LedgerError
from ledger.events import (
    AccountEvent,
    AttemptFailed,
    AttemptIntended,
    AttemptLost,
    BatchEvent,
    BatchSealed,
    Event,
    ResultSpared,
    RuntimeEvent,
    TaskCompleted,
    TaskEvent,
)
from ledger.findings import Findings, named_event, named_stream
from ledger.folds import EMPTY_TASK, AccountState, BatchState, RuntimeState, TaskState, evolve_task
from ledger.money import SINCE_VIEWS_2, Balance, batch_money, moves
from ledger.projection import OPEN, CountKey, Projection, Rows, count_keys, task_columns
from ledger.replay import ACCOUNT_KIND, BATCH_KIND, KIND_SHIFT, TASK_KIND, State, empty_state, evolve
from ledger.rules import breach
from ledger.streams import batch_of, runtime_stream, stream_parts, task_of

_TASKS = (TASK_KIND << KIND_SHIFT, (TASK_KIND + 1 << KIND_SHIFT) - 1)  # the first and the last key
_KEYS = (-1 << 63, (1 << 63) - 1)  # whatever SQLite can hold, since a key may have been changed to anything

_CHARGING = frozenset({TaskCompleted, ResultSpared, AttemptFailed, AttemptLost})


def audit_streams(store: Store, progress: Callable[[int], None] | None, together: int) -> Findings:
    """Check every stream and what follows from it; ``progress`` is told the events done, after every ``together``."""
    findings = Findings()
    _Streams(store, findings, progress, together).run()
    return findings


class _Streams:
    def __init__(self, store: Store, findings: Findings, progress: Callable[[int], None] | None, together: int) -> None:
        self._store = store
        self._findings = findings
        self._progress = progress
        self._together = together
        self._done = 0
        self._others: dict[int, State] = {}
        self._projection = Projection()  # of everything but tasks
        self._seals: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # batch -> (sealed through, seq)
        self._dropped: list[tuple[int, int]] = []  # first and last task streams
        self._open_attempts: dict[tuple[int, int], Row] = {}
        self._counts: Counter[CountKey] = Counter()
        self._money: dict[str, list[int]] = {}
        self._charged: Counter[int] = Counter()
        self._epoch = 0  # the newest: a lane holds what it sent (ledger.money)
        found = store.row("SELECT value FROM meta WHERE name = 'views'")
        self._views = "" if found is None else str(found[0])

    def run(self) -> None:
        first, last = _TASKS
        self._small_streams(_KEYS[0], first - 1)
        self._small_streams(last + 1, _KEYS[1])
        self._epoch = cast(RuntimeState, self._state(runtime_stream())).epoch
        rows = self._projection.take()
        self._dropped = cast(list[tuple[int, int]], rows.dropped)
        self._tasks()
        self._check_views(rows)
        self._check_books()

    def _events(self, first: int, last: int) -> Iterator[Row]:
        for row in self._store.stream(
            "SELECT seq, stream, version, epoch, at_us, CAST(type AS BLOB), CAST(data AS BLOB) FROM events"
            " WHERE stream BETWEEN ? AND ?"
            " ORDER BY stream, version",
            (first, last),
        ):
            yield row
            self._done += 1
            if self._progress is not None and self._done % self._together == 0:
                self._progress(self._done)

    def _unreadable(self, seq: int, stream: int, error: Exception) -> None:
        self._findings.problem("event", named_event(seq, stream), f"cannot be read: {error}")

    def _gap(self, seq: int, stream: int, version: int, last: int) -> None:
        self._findings.problem("version", named_event(seq, stream), f"version {version} follows version {last} (LED-2)")

    # --- batches, accounts, epochs ------------------------------------------------------------------------

    def _small_streams(self, first: int, last: int) -> None:
        versions: Counter[int] = Counter()
        for seq, stream, version, epoch, at_us, tag, data in self._events(first, last):
            if version != versions[stream] + 1:
                self._gap(seq, stream, version, versions[stream])
            versions[stream] = version
            try:
                stream_parts(stream)  # not a key of ours: ValueError
                event = decode_event(tag.decode(errors="replace"), data)
                after = evolve(stream, self._state(stream), event, epoch=epoch, at_us=at_us)
            except (LedgerError, ValueError, AssertionError) as exc:
                self._unreadable(seq, stream, exc)
                continue
            self._others[stream] = after
            self._project(seq, stream, epoch, event, after)

    def _state(self, stream: int) -> State:
        """The state of a stream that is no task's."""
        return self._others.get(stream) or empty_state(stream)

    def _project(self, seq: int, stream: int, epoch: int, event: Event, after: State) -> None:
        kind = stream >> KIND_SHIFT
        if kind == BATCH_KIND:
            batch, state = batch_of(stream), cast(BatchState, after)
            self._projection.batch(batch, cast(BatchEvent, event), state)
            if type(event) is BatchSealed:
                self._seals[batch].append((state.sealed_through, seq))
        elif kind == ACCOUNT_KIND:
            self._projection.account(stream_parts(stream).n, cast(AccountEvent, event), cast(AccountState, after))
        else:
            self._projection.runtime(seq, epoch, cast(RuntimeEvent, event))

    # --- tasks --------------------------------------------------------------------------------------------

    def _tasks(self) -> None:
        views = _TaskRows(self._store, self._findings)
        current, state, last = 0, EMPTY_TASK, 0
        queued = result = changed_at_us = 0
        for seq, stream, version, epoch, at_us, tag, data in self._events(*_TASKS):
            if stream != current:
                self._settle(views, current, state, changed_at_us, queued, result)
                current, state, last, queued, result = stream, EMPTY_TASK, 0, 0, 0
            if version != last + 1:
                self._gap(seq, stream, version, last)
            last = version
            try:
                event = cast(TaskEvent, decode_event(tag.decode(errors="replace"), data))
                wrong = breach(state, event)
                after = evolve_task(state, event, epoch=epoch, at_us=at_us)
            except (LedgerError, AssertionError) as exc:
                self._unreadable(seq, stream, exc)
                continue
            if wrong:
                self._findings.problem("transition", named_event(seq, stream), f"{event.TYPE}: {wrong}")
            kind = type(event)
            if kind is AttemptIntended and not self._sealed(seq, stream):
                text = "bought before its import was sealed (LED-11)"
                self._findings.problem("transition", named_event(seq, stream), text)
            elif kind in _CHARGING:
                self._charged[batch_of(stream)] += cast(TaskCompleted, event).cost_microusd  # all four have it
            if after.queued is not state.queued:
                queued = seq
            if after.results is not state.results and len(after.results) > len(state.results):
                result = seq
            state, changed_at_us = after, at_us
        self._settle(views, current, state, changed_at_us, queued, result)
        views.end()

    def _sealed(self, seq: int, stream: int) -> bool:
        """Whether the import of a task had been sealed before event ``seq`` (LED-11)."""
        seals = self._seals[batch_of(stream)]  # both their numbers only grow
        first = bisect_left(seals, (task_of(stream),))
        return first < len(seals) and seals[first][1] < seq

    def _settle(self, views: "_TaskRows", stream: int, state: TaskState, at_us: int, queued: int, result: int) -> None:
        """Weigh a task whose last event is in, and compare its row."""
        if state.queued is None or (self._dropped and self._was_dropped(stream)):
            return  # a row of it would be one that does not follow
        views.compare((stream, *task_columns(state, at_us), queued, result or None, state.queued.id))
        batch = batch_of(stream)
        for key in count_keys(batch, state):
            self._counts[key] += 1
        attempts = state.attempts
        if not attempts:
            return
        for attempt in attempts:
            if attempt.phase in OPEN:
                self._open_attempts[stream, attempt.number] = (stream, attempt.number, attempt.account)
        for account, reserved, captured, number in moves(EMPTY_TASK, state, batch=batch, epoch=self._epoch):
            held = self._money.setdefault(account, [0, 0, 0])
            held[0] += reserved
            held[1] += captured
            held[2] += number

    def _was_dropped(self, stream: int) -> bool:
        return any(first <= stream <= last for first, last in self._dropped)

    # --- views and books ----------------------------------------------------------------------------------

    def _check_views(self, rows: Rows) -> None:
        ended = {epoch: seq for seq, epoch in rows.ended_epochs}
        epochs = [(epoch, started, ended.get(epoch)) for epoch, started in rows.epochs]
        self._compare_rows("open_attempts", 2, self._open_attempts.values())
        self._compare_rows("batches", 1, rows.batches)
        self._compare_rows("accounts", 1, rows.accounts)
        self._compare_rows("lanes", 2, rows.lanes)
        self._compare_rows("epochs", 1, epochs)
        # A total of nothing may be on record or not.
        self._compare_rows("counts", 3, [(*key, n) for key, n in self._counts.items()], nothing=(0,))
        # Views of an older version are made anew by the next write, and until then they lack some books.
        lacking = SINCE_VIEWS_2 if self._views == "1" else ()
        money = [(name, *held) for name, held in self._money.items() if not name.startswith(lacking)]
        self._compare_rows("money", 1, money, nothing=(0, 0, 0))

    def _compare_rows(self, table: str, key: int, follows: Iterable[Row], nothing: Row | None = None) -> None:
        """Compare a small view; the first ``key`` columns of its rows name them."""
        expected = {row[:key]: row for row in follows}
        columns = view_columns(self._store, table)
        # The name is ours (schema.VIEW_TABLES).
        for row in self._store.stream(f"SELECT * FROM {table}"):  # noqa: S608
            wanted = expected.pop(row[:key], None)
            if wanted is None and row[key:] != nothing:
                self._findings.problem("views", view_place(table, row[:key]), NOT_FROM_EVENTS)
            elif wanted is not None and wanted != row:
                self._findings.problem("views", view_place(table, row[:key]), difference(columns, row, wanted))
        for name, row in expected.items():
            if row[key:] != nothing:
                self._findings.problem("views", view_place(table, name), NOT_STORED)

    def _check_books(self) -> None:
        stored = {name: Balance(*held) for name, *held in self._store.stream("SELECT * FROM money")}
        for batch, charged in self._charged.items():
            held = stored.get(batch_money(batch), Balance())
            if held.captured != charged:
                text = f"the attempts charged {charged} micro-dollars, the books say {held.captured}"
                self._findings.problem("books", batch_money(batch), text)
            if held.reserved < 0:
                self._findings.problem("books", batch_money(batch), f"reserved is {held.reserved}")


class _TaskRows:
    """The stored rows of ``tasks``, walked beside the streams: both are in the order of the stream key."""

    def __init__(self, store: Store, findings: Findings) -> None:
        self._columns = view_columns(store, "tasks")
        self._findings = findings
        self._rows = store.stream("SELECT * FROM tasks ORDER BY stream")
        self._row = next(self._rows, None)

    def compare(self, wanted: Row) -> None:
        """Compare the next task that has a row."""
        row = self._row
        while row is not None and row[0] < wanted[0]:
            self._findings.problem("views", view_place("tasks", row[:1]), NOT_FROM_EVENTS)
            row = next(self._rows, None)
        if row is None or row[0] != wanted[0]:
            self._findings.problem("views", view_place("tasks", wanted[:1]), NOT_STORED)
        else:
            if row != wanted:
                text = difference(self._columns, row, wanted)
                self._findings.problem("views", view_place("tasks", row[:1]), text)
            row = next(self._rows, None)
        self._row = row

    def end(self) -> None:
        """What is left follows from nothing."""
        while self._row is not None:
            self._findings.problem("views", view_place("tasks", self._row[:1]), NOT_FROM_EVENTS)
            self._row = next(self._rows, None)


NOT_FROM_EVENTS = "is stored but does not follow from the events"
NOT_STORED = "follows from the events but is not stored"


def view_columns(store: Store, table: str) -> list[str]:
    return [name for (name,) in store.rows("SELECT name FROM pragma_table_info(?)", (table,))]


def difference(columns: list[str], stored: Row, wanted: Row) -> str:
    """Say which columns of a row are not what they must be."""
    told = (
        f"{name} is {was!r}, the events say {is_!r}"
        for name, was, is_ in zip(columns, stored, wanted, strict=True)
        if was != is_
    )
    return "; ".join(told)


def view_place(table: str, key: Row) -> str:
    """Name a row of a view: streams by their label, the rest by its key."""
    if table in ("tasks", "open_attempts"):
        return f"{table}: {', '.join((named_stream(key[0]), *map(str, key[1:])))}"
    return f"{table}: {', '.join(map(str, key))}"
