"""A batch on its way in: rows wait in a temporary database until all of them are known to be good.

Nothing here holds a batch in memory.  What costs time for a million rows is kept off the usual path: whether anything
repeats at all is told by eight bytes per row in memory, and only if so does SQLite sort; ids are looked up only when
the batch has tasks already.  (A names table, payloads under random keys and an index of request keys made the same
import three times as long.)

The temporary database is attached for one import only: detaching it frees its disk space at once, where dropping
its tables would walk all their pages.  It is private to the connection, vanishes with it, and touches nothing durable.
"""

# ruff: noqa: S608 - statements are put together from constants of this file only.

from array import array
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec

from ledger.engine import Store
from ledger.streams import task_stream

_BUCKETS = 64
_NAMED = 5
_N_MASK = (1 << 36) - 1


class NewTask(msgspec.Struct, frozen=True, gc=False):
    """One wanted image.  The task's id is ``row``, made unique by ``-2``, ``-3`` when it was not given and repeats,
    and ``suffix``.  ``request_key`` (16 bytes) digests everything that defines the request."""

    row: str
    given: bool
    suffix: str
    request: str
    request_key: bytes
    model: str
    aspect: str
    resolution: str
    references: int
    variant: int
    line: int
    group: str = ""


class Repeated(msgspec.Struct, frozen=True):
    """An id that was given to several rows, with the first lines that have it."""

    id: str
    lines: tuple[int, ...]


class Staged(msgspec.Struct, frozen=True):
    """What waits, compared with what the batch has.  ``changed`` and ``duplicates`` name the first few."""

    total: int
    new: int
    known: int
    changed_count: int
    changed: tuple[str, ...]
    missing: int
    shared: int
    duplicates_count: int
    duplicates: tuple[Repeated, ...]


# n, id, request, request_key, model, aspect, resolution, references, variant, line, group, owner
StagedRow: TypeAlias = tuple[int, str, str, bytes, str, str, str, int, int, int, str, int]


class _Hashes:
    """Eight bytes per value; tells whether any value may repeat (a chance repeat only costs a sort)."""

    def __init__(self) -> None:
        self._buckets = tuple(array("q") for _ in range(_BUCKETS))

    def add(self, value: object) -> None:
        number = hash(value)
        self._buckets[number & (_BUCKETS - 1)].append(number)

    def repeated(self) -> bool:
        return any(len(set(bucket)) != len(bucket) for bucket in self._buckets)


_TABLES = (
    "CREATE TABLE staging.staged (pos INTEGER PRIMARY KEY, row TEXT, given INTEGER, suffix TEXT, request TEXT,"
    " request_key BLOB, model TEXT, aspect TEXT, resolution TEXT, refs INTEGER, variant INTEGER, line INTEGER,"
    " grp TEXT)",
    # Rows whose id is not simply row || suffix.
    "CREATE TABLE staging.renamed (pos INTEGER PRIMARY KEY, id TEXT)",
    # Rows that are tasks already, and tasks (or rows) that buy for others.
    "CREATE TABLE staging.known (pos INTEGER PRIMARY KEY, n INTEGER)",
    "CREATE TABLE staging.fresh (pos INTEGER PRIMARY KEY, n INTEGER)",
    "CREATE TABLE staging.owners (pos INTEGER PRIMARY KEY, owner INTEGER)",
    "CREATE TABLE staging.ids (id TEXT PRIMARY KEY, pos INTEGER) WITHOUT ROWID",
)
_REQUEST_OF_KNOWN = (
    "JOIN tasks t ON t.stream = ? + k.n JOIN events q ON q.seq = t.queued"
    " JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
)
_INSERT = "INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Staging:
    """The staged rows of one import."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._total = 0
        self._ids_repeat = False
        self._keys_repeat = False
        self._attached = False
        self._first = 1
        self._all_new = True
        self._compared: tuple[tuple[int | None, int], Staged] | None = None

    @property
    def total(self) -> int:
        """How many rows wait."""
        return self._total

    def fill(self, tasks: Iterable[NewTask]) -> None:
        """Take the rows in, in order, instead of any that waited before."""
        store = self._store
        self.clear()
        store.run("ATTACH '' AS staging")
        self._attached = True
        store.run("PRAGMA staging.journal_mode = OFF")
        store.run("PRAGMA staging.cache_size = -8000")
        ids, keys = _Hashes(), _Hashes()
        try:
            with store.transaction("DEFERRED"):
                for statement in _TABLES:
                    store.run(statement)
                store.run_many(_INSERT, self._rows(tasks, ids, keys))
        except BaseException:
            # Without a journal nothing can be rolled back there: only a new start helps.
            self.clear()
            raise
        self._ids_repeat = ids.repeated()
        self._keys_repeat = keys.repeated()

    def _rows(self, tasks: Iterable[NewTask], ids: _Hashes, keys: _Hashes) -> Iterator[tuple[object, ...]]:
        pos = 0
        add_id, add_key = ids.add, keys.add
        for pos, task in enumerate(tasks, 1):
            add_id(task.row + task.suffix)
            add_key(task.request_key)
            yield (
                pos,
                task.row,
                task.given,
                task.suffix,
                task.request,
                task.request_key,
                task.model,
                task.aspect,
                task.resolution,
                task.references,
                task.variant,
                task.line,
                task.group,
            )
        self._total = pos

    def clear(self) -> None:
        """Drop what waits."""
        if self._attached:
            self._store.run("DETACH staging")
            self._attached = False
        self._total = 0
        self._compared = None

    def compare(self, batch: int | None, *, beyond: int) -> Staged:
        """Name the rows, and compare them with the tasks of ``batch`` up to number ``beyond`` (-1 = all)."""
        if self._compared is not None and self._compared[0] == (batch, beyond):
            return self._compared[1]
        duplicates_count, duplicates = self._name()
        first, last = _task_range(batch, beyond)
        tasks = self._one("SELECT count(*) FROM tasks WHERE stream > ? AND stream <= ?", (first, last))
        changed_count = 0
        changed: tuple[str, ...] = ()
        if tasks and not duplicates_count:
            self._recognise(first, last)
            changed_count, changed = self._changed(first)
        known = self._one("SELECT count(*) FROM known")
        staged = Staged(
            total=self._total,
            new=self._total - known,
            known=known,
            changed_count=changed_count,
            changed=changed,
            missing=tasks - known,
            shared=self._shared(),
            duplicates_count=duplicates_count,
            duplicates=duplicates,
        )
        self._compared = (batch, beyond), staged
        return staged

    def _name(self) -> tuple[int, tuple[Repeated, ...]]:
        """Give repeated rows their ``-k``; returns given ids that repeat."""
        store = self._store
        with store.transaction("DEFERRED"):
            for name in ("renamed", "known"):
                store.run(f"DELETE FROM {name}")
            if not self._ids_repeat:
                return 0, ()
            store.run(
                "INSERT INTO renamed SELECT pos, row || '-' || k || suffix FROM (SELECT pos, row, suffix, given,"
                " row_number() OVER (PARTITION BY row || suffix ORDER BY pos) AS k FROM staged)"
                " WHERE k > 1 AND NOT given"
            )
        clashes = (
            "SELECT id, min(line), max(line), count(*) AS times FROM (SELECT coalesce(r.id, s.row || s.suffix) AS id,"
            " s.line AS line, s.pos AS pos FROM staged s LEFT JOIN renamed r ON r.pos = s.pos)"
            " GROUP BY id HAVING times > 1 ORDER BY min(pos)"
        )
        count = self._one(f"SELECT count(*) FROM ({clashes})")
        named = store.rows(f"{clashes} LIMIT {_NAMED}")
        return count, tuple(Repeated(task_id, (low, high)) for task_id, low, high, _ in named)

    def _recognise(self, first: int, last: int) -> None:
        """Find the rows that are tasks already, by their ids."""
        store = self._store
        with store.transaction("DEFERRED"):
            store.run("DELETE FROM ids")
            store.run(
                "INSERT INTO ids SELECT coalesce(r.id, s.row || s.suffix) AS id, s.pos FROM staged s"
                " LEFT JOIN renamed r ON r.pos = s.pos ORDER BY id"
            )
            store.run(
                "INSERT INTO known SELECT i.pos, t.stream & ? FROM tasks t CROSS JOIN ids i ON i.id = t.id"
                " WHERE t.stream > ? AND t.stream <= ? ORDER BY i.pos",
                (_N_MASK, first, last),
            )

    def _changed(self, first: int) -> tuple[int, tuple[str, ...]]:
        """Known rows that now ask for something else.  An erased request cannot be compared and counts as equal."""
        changed = (
            f"SELECT t.id FROM known k JOIN staged s ON s.pos = k.pos {_REQUEST_OF_KNOWN}"
            " WHERE p.request_key <> s.request_key ORDER BY k.pos"
        )
        count = self._one(f"SELECT count(*) FROM ({changed})", (first,))
        return count, tuple(row[0] for row in self._store.rows(f"{changed} LIMIT {_NAMED}", (first,)))

    def _shared(self) -> int:
        """How many rows ask for what an earlier row asks for."""
        if not self._keys_repeat:
            return 0
        return self._total - self._one("SELECT count(DISTINCT request_key) FROM staged")

    def number(self, batch: int, *, first: int, share: bool) -> int:
        """Give the rows that are not known their task numbers from ``first`` on, and the repeated ones an owner;
        returns how many there are."""
        store = self._store
        known = self._one("SELECT count(*) FROM known")
        # Not the same as `known`: an option that changes every id makes no row known, and may still ask for images
        # that the batch has bought.
        first_import = first == 1
        with store.transaction("DEFERRED"):
            for name in ("fresh", "owners"):
                store.run(f"DELETE FROM {name}")
            self._first = first
            self._all_new = first_import
            if not first_import:
                store.run(
                    "INSERT INTO fresh SELECT pos, ? + row_number() OVER (ORDER BY pos) FROM staged"
                    " WHERE pos NOT IN (SELECT pos FROM known)",
                    (first - 1,),
                )
            if share and not first_import:
                self._share_with_known(batch)
            elif share and self._keys_repeat:
                store.run(
                    "INSERT INTO owners SELECT s.pos, g.first + ? FROM staged s JOIN (SELECT request_key AS k,"
                    " min(pos) AS first FROM staged GROUP BY request_key HAVING count(*) > 1) g"
                    " ON g.k = s.request_key WHERE s.pos > g.first",
                    (first - 1,),
                )
        return self._total - known

    def _share_with_known(self, batch: int) -> None:
        """New rows follow the task that buys the same, whether it is there already or new itself."""
        first, last = _task_range(batch, -1)
        self._store.run(
            "INSERT INTO owners SELECT f.pos, coalesce(b.n, g.n) AS owner FROM fresh f JOIN staged s ON s.pos = f.pos"
            " JOIN (SELECT request_key AS k, min(n) AS n FROM fresh JOIN staged USING (pos) GROUP BY request_key) g"
            " ON g.k = s.request_key"
            " LEFT JOIN (SELECT p.request_key AS k, min(t.stream & ?) AS n FROM tasks t"
            " JOIN events q ON q.seq = t.queued JOIN payloads p ON p.row = json_extract(q.data, '$.request.row')"
            " WHERE t.stream > ? AND t.stream <= ? AND t.owner = 0 AND t.phase NOT IN ('failed', 'cancelled')"
            " AND p.request_key IN (SELECT request_key FROM fresh JOIN staged USING (pos)) GROUP BY p.request_key) b"
            " ON b.k = s.request_key WHERE coalesce(b.n, g.n) <> f.n",
            (_N_MASK, first, last),
        )

    def pages(self, size: int) -> Iterator[list[StagedRow]]:
        """Yield the numbered rows in order; commits may happen in between."""
        if self._all_new:
            number, join = f"s.pos + {self._first - 1}", ""
        else:
            number, join = "f.n", "JOIN fresh f ON f.pos = s.pos"
        sql = (
            f"SELECT {number}, coalesce(r.id, s.row || s.suffix), s.request, s.request_key, s.model, s.aspect,"
            " s.resolution, s.refs, s.variant, s.line, s.grp, coalesce(o.owner, 0), s.pos"
            f" FROM staged s {join} LEFT JOIN renamed r ON r.pos = s.pos LEFT JOIN owners o ON o.pos = s.pos"
            " WHERE s.pos > ? ORDER BY s.pos LIMIT ?"
        )
        after = 0
        while rows := self._store.rows(sql, (after, size)):
            after = rows[-1][-1]
            yield [row[:-1] for row in rows]

    def missing(self, batch: int, *, limit: int) -> list[int]:
        """Tasks of the batch that no staged row asks for any more, by number."""
        first, last = _task_range(batch, -1)
        rows = self._store.rows(
            "SELECT stream & ? FROM tasks WHERE stream > ? AND stream <= ?"
            " AND stream & ? NOT IN (SELECT n FROM known) ORDER BY stream LIMIT ?",
            (_N_MASK, first, last, _N_MASK, limit),
        )
        return [row[0] for row in rows]

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> int:
        found = self._store.row(sql, values)
        return 0 if found is None else int(found[0])


def _task_range(batch: int | None, through: int) -> tuple[int, int]:
    """Stream keys (above, up to) of the tasks of a batch; an empty range without one."""
    if batch is None:
        return 0, 0
    return task_stream(batch, 0), task_stream(batch, _N_MASK if through < 0 else through)
