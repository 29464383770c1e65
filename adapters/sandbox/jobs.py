"""The job table of the sandbox: in memory for simulations, in a SQLite file of its own for the server.

Both keep the same promises and pass the same tests.  Neither knows bydawn's ids: what is on the bill is counted
from what was accepted.  Calls come one at a time, from one thread.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # re-exported, though not on purpose

from adapters.sandbox.base import Job

_SqlValue: TypeAlias = str | int | None
_Jobs: TypeAlias = list[Job]  # inside the tables ``list`` is the method

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    n INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    id TEXT NOT NULL,
    account TEXT NOT NULL,
    created_us INTEGER NOT NULL UNIQUE,
    done_us INTEGER NOT NULL,
    cancelled_us INTEGER NOT NULL DEFAULT 0,
    callback_due_us INTEGER,
    callbacks INTEGER NOT NULL DEFAULT 0,
    data TEXT NOT NULL,
    UNIQUE (provider, id)
);
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (provider, account, created_us);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (provider, account, done_us);
CREATE TABLE IF NOT EXISTS kept (
    provider TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (provider, name)
);
CREATE INDEX IF NOT EXISTS jobs_owing ON jobs (provider, callback_due_us) WHERE callback_due_us IS NOT NULL;
"""

_decode_job = msgspec.json.Decoder(Job).decode


class MemoryJobs:
    """A job table for one simulated world."""

    def __init__(self) -> None:
        self._jobs: list[tuple[str, str]] = []  # in order of acceptance
        self._by_id: dict[tuple[str, str], Job] = {}
        self._running: dict[tuple[str, str], dict[str, int]] = {}  # account -> job -> end
        self._owed: dict[tuple[str, str], int] = {}
        self._callbacks: dict[tuple[str, str], int] = {}
        self._kept: dict[tuple[str, str], bytes] = {}
        self._last_us = 0

    def add(self, job: Job) -> None:
        key = (job.provider, job.id)
        if key in self._by_id or job.created_us <= self._last_us:
            raise ValueError(f"job {job.id}: id or time is taken")
        self._jobs.append(key)
        self._by_id[key] = job
        self._last_us = job.created_us
        self._running.setdefault((job.provider, job.account), {})[job.id] = job.done_us
        if job.callback_url:
            self._owed[key] = job.done_us

    def add_all(self, jobs: Sequence[Job]) -> None:
        taken, last_us = set(self._by_id), self._last_us
        for job in jobs:  # all are looked at before the first is added
            if (job.provider, job.id) in taken or job.created_us <= last_us:
                raise ValueError(f"job {job.id}: id or time is taken")
            taken.add((job.provider, job.id))
            last_us = job.created_us
        for job in jobs:
            self.add(job)

    def get(self, provider: str, job: str) -> Job | None:
        return self._by_id.get((provider, job))

    def list(
        self, provider: str, account: str, *, since_us: int, until_us: int, limit: int, before_us: int | None = None
    ) -> _Jobs:
        found: list[Job] = []
        for key in reversed(self._jobs):
            job = self._by_id[key]
            if len(found) == limit or job.created_us < since_us:
                break
            ours = job.provider == provider and job.account == account and job.created_us <= until_us
            if ours and (before_us is None or job.created_us < before_us):
                found.append(job)
        return found

    def cancel(self, provider: str, job: str, now_us: int) -> None:
        found = self._by_id.get((provider, job))
        if found is None or found.cancelled_us or found.done_us <= now_us:
            return
        self._by_id[provider, job] = msgspec.structs.replace(found, cancelled_us=now_us, done_us=now_us)
        self._running[provider, found.account].pop(job, None)
        if found.callback_url:
            self._owed[provider, job] = now_us

    def running(self, provider: str, account: str, now_us: int) -> int:
        ends = self._running.get((provider, account), {})
        for job in [job for job, done_us in ends.items() if done_us <= now_us]:
            del ends[job]
        return len(ends)

    def count(self) -> int:
        return len(self._jobs)

    def fresh_us(self, now_us: int) -> int:
        return max(now_us, self._last_us + 1)

    def since(self, after: int, limit: int) -> Sequence[tuple[int, Job]]:
        return [(n, self._by_id[key]) for n, key in enumerate(self._jobs[after : after + limit], after + 1)]

    def due_callbacks(self, provider: str, now_us: int, limit: int) -> Sequence[Job]:
        due = sorted((at, key) for key, at in self._owed.items() if at <= now_us and key[0] == provider)
        return [self._by_id[key] for _, key in due[:limit]]

    def called_back(self, provider: str, job: str, *, retry_at_us: int | None) -> int:
        key = (provider, job)
        if retry_at_us is None:
            self._owed.pop(key, None)
        else:
            self._owed[key] = retry_at_us
        self._callbacks[key] = self._callbacks.get(key, 0) + 1
        return self._callbacks[key]

    def keep(self, provider: str, name: str, data: bytes) -> None:
        self._kept[provider, name] = data

    def kept(self, provider: str, name: str) -> bytes | None:
        return self._kept.get((provider, name))


class SqliteJobs:
    """A job table that survives the death of its process.

    ``synchronous=NORMAL``: in WAL mode a commit then outlives ``kill -9``, which is what the sandbox must stand.
    FULL would add an fsync per job for power cuts, which are not practised here, and let the disk set the rate.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._count, self._last_us = self._row("SELECT count(*), coalesce(max(created_us), 0) FROM jobs")

    def close(self) -> None:
        self._db.close()

    def add(self, job: Job) -> None:
        if job.created_us <= self._last_us:
            raise ValueError(f"job {job.id}: id or time is taken")
        owed = job.done_us if job.callback_url else None
        row = (self._count + 1, job.provider, job.id, job.account, job.created_us, job.done_us, owed)
        try:
            self._db.execute(
                "INSERT INTO jobs (n, provider, id, account, created_us, done_us, callback_due_us, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, msgspec.json.encode(job).decode()),
            )
        except sqlite3.IntegrityError as exc:
            raise ValueError(f"job {job.id}: id or time is taken") from exc
        self._count, self._last_us = self._count + 1, job.created_us

    def add_all(self, jobs: Sequence[Job]) -> None:
        before = self._count, self._last_us
        self._db.execute("BEGIN")
        try:
            for job in jobs:
                self.add(job)
        except BaseException:
            self._db.execute("ROLLBACK")
            self._count, self._last_us = before
            raise
        self._db.execute("COMMIT")

    def get(self, provider: str, job: str) -> Job | None:
        found = self._jobs("provider = ? AND id = ?", (provider, job))
        return found[0] if found else None

    def list(
        self, provider: str, account: str, *, since_us: int, until_us: int, limit: int, before_us: int | None = None
    ) -> _Jobs:
        end_us = until_us if before_us is None else min(until_us, before_us - 1)
        return self._jobs(
            "provider = ? AND account = ? AND created_us BETWEEN ? AND ? ORDER BY created_us DESC LIMIT ?",
            (provider, account, since_us, end_us, limit),
        )

    def cancel(self, provider: str, job: str, now_us: int) -> None:
        self._db.execute(
            "UPDATE jobs SET cancelled_us = ?, done_us = ?,"
            " callback_due_us = CASE WHEN callback_due_us IS NULL THEN NULL ELSE ? END"
            " WHERE provider = ? AND id = ? AND cancelled_us = 0 AND done_us > ?",
            (now_us, now_us, now_us, provider, job, now_us),
        )

    def running(self, provider: str, account: str, now_us: int) -> int:
        where = "provider = ? AND account = ? AND done_us > ?"
        return self._row(f"SELECT count(*), 0 FROM jobs WHERE {where}", (provider, account, now_us))[0]  # noqa: S608

    def count(self) -> int:
        return self._count

    def fresh_us(self, now_us: int) -> int:
        return max(now_us, self._last_us + 1)

    def since(self, after: int, limit: int) -> Sequence[tuple[int, Job]]:
        return list(enumerate(self._jobs("n > ? ORDER BY n LIMIT ?", (after, limit)), after + 1))

    def due_callbacks(self, provider: str, now_us: int, limit: int) -> Sequence[Job]:
        where = "provider = ? AND callback_due_us <= ? ORDER BY callback_due_us LIMIT ?"
        return self._jobs(where, (provider, now_us, limit))

    def called_back(self, provider: str, job: str, *, retry_at_us: int | None) -> int:
        where = "provider = ? AND id = ?"
        self._db.execute(
            f"UPDATE jobs SET callback_due_us = ?, callbacks = callbacks + 1 WHERE {where}",  # noqa: S608
            (retry_at_us, provider, job),
        )
        return self._row(f"SELECT callbacks, 0 FROM jobs WHERE {where}", (provider, job))[0]  # noqa: S608

    def keep(self, provider: str, name: str, data: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO kept (provider, name, data) VALUES (?, ?, ?)", (provider, name, data))

    def kept(self, provider: str, name: str) -> bytes | None:
        found = self._db.execute("SELECT data FROM kept WHERE provider = ? AND name = ?", (provider, name)).fetchone()
        return None if found is None else bytes(found[0])

    def _row(self, sql: str, values: tuple[_SqlValue, ...] = ()) -> tuple[int, int]:
        first, second = self._db.execute(sql, values).fetchone()
        return int(first), int(second)

    def _jobs(self, where: str, values: tuple[_SqlValue, ...]) -> _Jobs:
        """Read jobs; the columns that change after acceptance win over the stored text."""
        rows = self._db.execute(f"SELECT data, done_us, cancelled_us FROM jobs WHERE {where}", values)  # noqa: S608
        return [
            msgspec.structs.replace(_decode_job(data), done_us=done_us, cancelled_us=cancelled_us)
            for data, done_us, cancelled_us in rows
        ]
