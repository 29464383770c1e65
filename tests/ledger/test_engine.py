"""The file itself: where it may lie, who may read it, what is refused, and what a failed write means."""

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils
import sqlite_utils.utils

from ledger import engine
from ledger.appender import Appender
from ledger.audit import verify
from ledger.commands import Cancel, Erase
from ledger.decisions import Append, Committed, Decision
from ledger.encoding import decode_event
from ledger.engine import (
    Store,
    check_place,
    engine_facts,
    make_durable,
    network_filesystem,
    read_mounts,
    translated,
)
from ledger.errors import (
    CommitFailed,
    DiskFull,
    Fenced,
    InvariantBroken,
    LedgerDamaged,
    LedgerError,
    LedgerHeld,
    LedgerMissing,
    LedgerNewer,
    LedgerPlace,
)
from ledger.events import AttemptFailed
from ledger.journal import Ledger
from ledger.judge import Judge
from ledger.lock import RunLock, lock_path, newest_commit
from ledger.migrations import MIGRATIONS
from ledger.money import ambiguous_money, held_money
from ledger.reader import Reader
from ledger.rebuild import rebuild_views
from ledger.rules import decide_task
from ledger.schema import FORMAT, MIGRATION_NAMES
from ledger.streams import task_stream
from ledger.views import stored_projection
from tests.ledger.ledgers import decision, do, opened
from tests.ledger.stories import INTEND, UNKNOWN, bought


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_there_is_one_sqlite_library_in_the_process() -> None:
    """Ours is chosen apart, for the sake of a quick start; two on one file would drop each other's locks."""
    assert vars(engine)["sqlite3"] is vars(sqlite_utils.utils)["sqlite3"]


def test_a_file_with_every_migration_counts_as_up_to_date(tmp_path: Path) -> None:
    assert tuple(each.name for each in MIGRATIONS.pending(sqlite_utils.Database(memory=True))) == MIGRATION_NAMES
    with opened(tmp_path / "l.db", tasks=0) as ledger:
        rows = ledger.store.rows("SELECT name FROM _sqlite_migrations ORDER BY id")
    assert rows == [(name,) for name in MIGRATION_NAMES]


def test_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    """SEC-7."""
    path = tmp_path / "new" / "bydawn.db"
    before = os.umask(0)
    try:
        with opened(path, tasks=1) as ledger, ledger.reader():
            names = sorted(entry.name for entry in path.parent.iterdir())
            assert names == ["bydawn.db", "bydawn.db-shm", "bydawn.db-wal", "bydawn.db.lock"]
            assert {mode(entry) for entry in path.parent.iterdir()} == {0o600}
            assert mode(path.parent) == 0o700
    finally:
        os.umask(before)


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    opened(tmp_path / "bydawn.db").close()
    assert mode(tmp_path) == 0o755


MOUNTS = """\
/dev/vda / ext4 rw 0 0
nas:/vol /mnt/nas nfs4 rw 0 0
nas:/my\\040vol /mnt/my\\040nas cifs rw 0 0
me@host:/ /mnt/far fuse.sshfs rw 0 0
disk /mnt/near fuse.ext4 rw 0 0
tmpfs /mnt/nas/local tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/home/ann", ""),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/deep/er", "nfs4"),
        ("/mnt/nas2", ""),
        ("/mnt/nas/local", ""),
        ("/mnt/my nas/x", "cifs"),
        ("/mnt/far", "fuse.sshfs"),
        ("/mnt/near", ""),
    ],
)
def test_network_file_systems_are_known_by_their_mount(place: str, kind: str) -> None:
    """LED-10."""
    assert network_filesystem(Path(place), MOUNTS) == kind


def test_a_ledger_on_a_network_file_system_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """LED-10."""
    path = tmp_path / "bydawn.db"
    with pytest.raises(LedgerPlace):
        Ledger.create_or_open(path, create=True, mounts=lambda: f"nas:/ {tmp_path} nfs rw 0 0\n")
    assert list(tmp_path.iterdir()) == []
    check_place(path)
    assert "/" in read_mounts()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "bydawn.db", tmp_path):
        with pytest.raises(LedgerPlace):
            Ledger.create_or_open(place, create=True)
    ledger = tmp_path / "bydawn.db"
    ledger.touch()
    lock_path(ledger).mkdir()
    with pytest.raises(LedgerPlace):
        RunLock.take(ledger)


def test_full_synchronous_and_write_ahead_logging_are_on(tmp_path: Path) -> None:
    """LED-10."""
    with opened(tmp_path / "bydawn.db") as ledger:
        assert ledger.store.row("PRAGMA journal_mode") == ("wal",)
        assert ledger.store.row("PRAGMA synchronous") == (2,)
        assert ledger.store.row("PRAGMA main.secure_delete") == (1,)


def test_events_cannot_be_changed_or_removed_even_by_us(tmp_path: Path) -> None:
    """LED-1."""
    with opened(tmp_path / "bydawn.db", tasks=1) as ledger:
        for statement in ("UPDATE events SET at_us = 0", "DELETE FROM events", "DELETE FROM commits"):
            with pytest.raises(CommitFailed, match="append-only"):
                ledger.store.run(statement)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """LED-5: neither by its file nor by its connection; each alone is enough."""
    with opened(tmp_path / "bydawn.db") as ledger, ledger.reader() as reader:
        assert reader.store.row("PRAGMA query_only") == (1,)
        for _ in range(2):
            with pytest.raises(CommitFailed):
                reader.store.run("DELETE FROM tasks")
            reader.store.run("PRAGMA query_only = OFF")


def test_a_newer_ledger_is_shown_and_never_written(tmp_path: Path) -> None:
    """LED-9."""
    path = tmp_path / "bydawn.db"
    opened(path, tasks=1).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(LedgerNewer):
        Ledger.create_or_open(path, create=True)
    with Reader(path) as reader:
        assert reader.newer()
        assert [task.id for task in reader.tasks(1)] == ["row-1"]
    with pytest.raises(LedgerNewer):
        decode_event("task.unheard_of.v1", "{}")
    with pytest.raises(LedgerDamaged):
        decode_event("task.completed.v1", "{}")


def test_a_ledger_whose_making_was_cut_short_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    path.touch()
    with pytest.raises(LedgerMissing):  # nothing is lost, and nobody should look for a backup
        Reader(path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA application_id = 0x42594457")
    with pytest.raises(LedgerMissing):
        Reader(path)
    opened(path, tasks=1).close()
    assert verify(path).ok
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DELETE FROM meta WHERE name = 'ledger_id'")
        raw.commit()
    with pytest.raises(LedgerDamaged), Reader(path) as reader:
        reader.ledger_id()


def test_a_ledger_whose_making_was_killed_inside_a_commit_is_finished(tmp_path: Path) -> None:
    """LED-4: before the write-ahead log there is a journal, which a reader must not take back, and a writer does."""
    made, path = tmp_path / "made.db", tmp_path / "bydawn.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as raw:
        raw.execute(f"PRAGMA user_version = {FORMAT}")
        raw.execute("PRAGMA cache_size = 1")
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("PRAGMA application_id = 0x42594457")
        raw.execute("CREATE TABLE larger_than_the_cache (x)")
        raw.execute("INSERT INTO larger_than_the_cache VALUES (zeroblob(100000))")
        for ending in ("", "-journal"):  # as they lie on the disk at this moment
            shutil.copy(f"{made}{ending}", f"{path}{ending}")
    for _ in range(2):
        with pytest.raises(LedgerMissing):
            Reader(path)
    opened(path, tasks=1).close()
    assert verify(path).ok


def test_a_file_that_ends_between_events_and_commit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    opened(path, tasks=1).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO events SELECT 99, stream, 99, epoch, at_us, type, NULL, data FROM events LIMIT 1")
        raw.commit()
    with pytest.raises(LedgerDamaged):
        Ledger.create_or_open(path, create=False)
    # The refused handle let go of the lock.
    RunLock.take(path).release()


def test_views_of_another_version_are_folded_anew(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=3) as ledger:
        do(ledger, 1, INTEND, *bought(1))
        do(ledger, 2, INTEND)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE meta SET value = '0' WHERE name = 'views'")
        raw.execute("DROP TABLE open_attempts")
        raw.execute("DELETE FROM tasks")
        raw.commit()
    with opened(path, tasks=3) as ledger:
        assert verify(path).ok
        # However little is kept in memory meanwhile: forgotten tasks are folded from their streams.
        rebuild_views(ledger.store, together=2, cached=1)
    assert verify(path).ok


def test_a_ledger_without_the_newer_books_is_in_order_and_gets_them_with_the_next_write(tmp_path: Path) -> None:
    """LED-9, MON-10: as version 1 of the views left it."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=2) as ledger:
        do(ledger, 1, *UNKNOWN)
        do(ledger, 2, INTEND)
        books = ledger.reader().money()
    assert books[held_money(1)] == (60_000, 0, 1)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE meta SET value = '1' WHERE name = 'views'")
        raw.execute("DELETE FROM money WHERE account IN (?, ?)", (held_money(1), ambiguous_money(1)))
        raw.commit()
    assert verify(path).ok
    with opened(path), Reader(path) as reader:
        assert reader.money()[held_money(1)] == books[held_money(1)]
    assert verify(path).ok


def test_a_full_disk_closes_the_ledger_for_good_and_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """LED-4, LED-7."""
    path = tmp_path / "bydawn.db"
    ledger = opened(path, tasks=1)
    (pages,) = ledger.store.row("PRAGMA page_count") or (0,)
    ledger.store.run(f"PRAGMA max_page_count = {pages}")
    _, payload = ledger.payload("x" * 100_000)
    big = Decision(
        appends=decision(ledger, 1, INTEND).appends,
        at_us=3,
        payloads=(payload,),
    )
    with pytest.raises(DiskFull):
        ledger.commit([big])
    with pytest.raises(DiskFull):
        ledger.commit([])
    with pytest.raises(DiskFull):
        ledger.state(task_stream(1, 1))
    # It let go of everything: the same command goes on once there is space.
    with opened(path) as again:
        assert again.state(task_stream(1, 1)).phase == "queued"
        do(again, 1, INTEND)
    assert verify(path).ok


def test_whatever_else_goes_wrong_in_a_commit_closes_the_ledger_too(tmp_path: Path) -> None:
    """LED-7: an event that could not be read back is never written."""
    path = tmp_path / "bydawn.db"
    ledger = opened(path, tasks=1)
    do(ledger, 1, INTEND)
    negative = AttemptFailed(attempt=1, reason="provider", cost_microusd=-5)
    with pytest.raises(InvariantBroken):
        ledger.commit([Decision(appends=(Append(task_stream(1, 1), 2, (negative,)),), at_us=3)])
    ledger = opened(path)
    with pytest.raises(AssertionError):
        ledger.commit([Decision(appends=(Append(task_stream(1, 1), 2, (negative, "no event")),), at_us=3)])  # type: ignore[arg-type]  # that is the test
    with pytest.raises(LedgerError):
        ledger.commit([])
    assert verify(path).ok


def test_an_older_epoch_cannot_write(tmp_path: Path) -> None:
    """LED-6: checked inside the transaction, against what the file says."""
    path = tmp_path / "bydawn.db"
    ledger = opened(path, tasks=1)
    late = decision(ledger, 1, INTEND)
    # The lock was lost (removed by hand, say), and a newer process took over.
    lock_path(path).unlink()
    with opened(path) as newer:
        do(newer, 1, Cancel(operator="ann"))
    with pytest.raises(Fenced):
        ledger.commit([late])
    with pytest.raises(Fenced):
        ledger.commit([])
    assert verify(path).ok


def test_the_lock_names_the_newest_commit_until_an_older_ledger_is_there(tmp_path: Path) -> None:
    """REC-10: and then goes on naming it, until that is taken over."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=1):
        pass
    older = path.read_bytes()
    with opened(path) as ledger:
        do(ledger, 1, INTEND)
        ledger_id = ledger.ledger_id
    newest = newest_commit(path)
    with Reader(path) as reader:
        assert newest == (ledger_id, reader.head().seq, reader.head().hash)
    path.write_bytes(older)
    with opened(path) as ledger:
        assert newest_commit(path) == newest
        ledger.mark()
        assert newest_commit(path) != newest
    lock_path(path).write_text("4711\n")  # as earlier releases left it
    assert newest_commit(path) is None


def test_a_link_to_a_ledger_has_no_lock_of_its_own(tmp_path: Path) -> None:
    """LED-5: by its other name it was opened a second time, and the first process fenced off."""
    path, link = tmp_path / "bydawn.db", tmp_path / "elsewhere" / "linked.db"
    link.parent.mkdir()
    with opened(path):
        link.symlink_to(path)
        with pytest.raises(LedgerHeld):
            Ledger.create_or_open(link, create=False)
    assert [file.name for file in link.parent.iterdir()] == ["linked.db"]


def test_the_lock_names_its_holder_and_is_refused_within_a_process_too(tmp_path: Path) -> None:
    """LED-5."""
    path = tmp_path / "bydawn.db"
    lock = RunLock.take(path)
    with pytest.raises(LedgerHeld, match=str(os.getpid())):
        RunLock.take(path)
    lock.release()
    lock.release()
    RunLock.take(path).release()


def test_erased_text_is_gone_from_the_files_and_the_chain_still_holds(tmp_path: Path) -> None:
    """SEC-8, LED-8."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=2) as ledger:
        row = ledger.state(task_stream(1, 1)).queued
        assert row is not None
        with ledger.reader() as reader:
            assert reader.salted(row.request.row) is not None
        events = decide_task(ledger.state(task_stream(1, 1)), Erase(operator="ann"))
        erasing = Decision((Append(task_stream(1, 1), 1, events),), at_us=9, erases=(row.request.row, 99))
        assert [type(outcome) for outcome in ledger.commit([erasing])] == [Committed]
        assert ledger.checkpoint()
        everything = b"".join(entry.read_bytes() for entry in path.parent.iterdir())
        assert b"picture 2" in everything
        assert b"picture 1" not in everything
        with ledger.reader() as reader:
            assert reader.payload(row.request.row) is None
            assert reader.salted(row.request.row) is None
            assert [task.request for task in reader.queued(1)] == ['{"prompt":"picture 2"}']
    assert verify(path).ok


def test_the_identity_of_the_file_is_recorded_with_each_epoch(tmp_path: Path) -> None:
    """REC-10."""
    path = tmp_path / "bydawn.db"
    with opened(path) as ledger:
        with ledger.reader() as reader:
            (epoch,) = reader.epochs()
        assert (epoch.started.device, epoch.started.inode) == ledger.identity()
        assert epoch.started.ledger_id == ledger.ledger_id
    with opened(path) as ledger, ledger.reader() as reader:
        assert (ledger.epoch, reader.epoch(), len(reader.epochs())) == (2, 2, 2)
        assert reader.ledger_id() == ledger.ledger_id


@pytest.mark.parametrize(
    ("version", "fault"),
    [("3.40.1", True), ("3.44.6", False), ("3.50.7", False), ("3.51.2", True), ("3.51.3", False), ("3.54.1", False)],
)
def test_the_wal_reset_fault_is_known_by_version(version: str, fault: bool) -> None:
    assert engine_facts(version).wal_reset_fault == fault
    assert engine_facts().version


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("database or disk is full", DiskFull),
        ("disk I/O error", CommitFailed),
        ("database disk image is malformed", LedgerDamaged),
        ("unable to open database file", LedgerMissing),
        ("something new", CommitFailed),
    ],
)
def test_driver_errors_become_ours(message: str, error: type[Exception]) -> None:
    assert type(translated(sqlite3.OperationalError(message))) is error


def test_a_connection_that_promises_less_is_refused(tmp_path: Path) -> None:
    """LED-10: as where no memory can be shared, or no log be kept; SQLite says so and goes on without."""
    opened(tmp_path / "bydawn.db").close()
    for place in (f"file:{tmp_path / 'other.db'}?vfs=unix-dotfile", "file::memory:"):
        store = Store(sqlite3.connect(place, uri=True, isolation_level=None), tmp_path)
        with pytest.raises(LedgerPlace, match="SQLite answers"):
            make_durable(store)
        store.close()
    store = Store(sqlite3.connect(tmp_path / "bydawn.db", isolation_level=None), tmp_path)
    store.run("PRAGMA synchronous = NORMAL")
    make_durable(store)
    assert store.row("PRAGMA synchronous") == (2,)
    store.close()


def test_no_driver_error_leaves_a_connection(tmp_path: Path) -> None:
    with opened(tmp_path / "bydawn.db") as ledger:
        store = ledger.store
        for call in (
            lambda: store.rows("SELECT * FROM nowhere"),
            lambda: store.row("SELECT * FROM nowhere"),
            lambda: list(store.stream("SELECT * FROM nowhere")),
            lambda: store.run("DELETE FROM nowhere"),
            lambda: store.run_many("DELETE FROM nowhere WHERE x = ?", [(1,)]),
        ):
            with pytest.raises(LedgerDamaged):
                call()
    with pytest.raises(LedgerMissing):
        Reader(tmp_path)


def test_only_so_many_tasks_are_remembered(tmp_path: Path) -> None:
    with opened(tmp_path / "bydawn.db", tasks=4) as ledger:
        projection = stored_projection(ledger.store)
        judge = Judge(ledger.store, Appender(ledger.store, b"", projection), projection, cached=2)
        judge.epoch = 1
        for n in (1, 2, 3):
            assert isinstance(judge.judge(decision(ledger, n, INTEND)), Committed)
        # Until they are written all are remembered, since the file does not have them yet.
        assert judge.state(task_stream(1, 1)).version == 2
        judge.written()
        assert [judge.state(task_stream(1, n)).version for n in (1, 2, 3)] == [1, 2, 2]
