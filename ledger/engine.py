"""The only module that imports SQLite.  No driver exception leaves it: one table translates them.

One SQLite library per process, since two libraries on one file drop each other's POSIX locks: the one that sqlite-utils
would take (``pysqlite3`` when that is installed).  A ledger has exactly one read-write connection, used by one
thread at a time, and any number of short-lived readers (``mode=ro`` and ``query_only``).

Transactions are ours (``isolation_level=None``): a plain BEGIN that upgrades to a write fails at once with BUSY, so
writes start with BEGIN IMMEDIATE.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import msgspec

from ledger.errors import (
    CommitFailed,
    DiskFull,
    LedgerDamaged,
    LedgerError,
    LedgerMissing,
    LedgerNewer,
    LedgerPlace,
)
from ledger.schema import APPLICATION_ID, FORMAT, MIGRATION_NAMES, MIGRATION_SET

if TYPE_CHECKING:
    import sqlite3
else:
    # Chosen as sqlite_utils.utils chooses it (a test compares the two), without the 60 ms that importing it takes.
    try:
        import pysqlite3 as sqlite3
    except ImportError:
        import sqlite3

# A row as the driver hands it over; it becomes typed in the module that asked for it.
Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = tuple[object, ...]

WAL_PAGES = 1000
"""How long the write-ahead log grows before it is folded into the file."""

# WAL needs shared memory on one host, and locks that work: neither holds over a network.
_NETWORK = frozenset(
    (
        *("nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "glusterfs"),
        *("lustre", "beegfs", "gpfs", "ocfs2", "gfs2", "davfs", "vboxsf", "vmhgfs", "prl_fs", "drvfs"),
    )
)
_NETWORK_FUSE = frozenset(
    ("sshfs", "rclone", "s3fs", "gcsfuse", "goofys", "glusterfs", "cephfs", "davfs2", "vmhgfs-fuse", "blobfuse")
)

_FETCHED = 1_000

_MESSAGES: tuple[tuple[str, type[LedgerError]], ...] = (
    ("database or disk is full", DiskFull),
    ("disk i/o error", CommitFailed),
    ("file is not a database", LedgerDamaged),
    ("malformed", LedgerDamaged),
    ("could not decode", LedgerDamaged),  # a text that is no UTF-8
    ("can't decode", LedgerDamaged),  # a message of SQLite about a schema that is none
    ("no such table", LedgerDamaged),
    ("no such column", LedgerDamaged),
    ("unable to open", LedgerMissing),
    ("locked", CommitFailed),
)

_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # the driver decodes the messages of SQLite, which may quote anything


def translated(exc: Exception) -> LedgerError:
    """Name a driver's exception in the ledger's words."""
    text = str(exc).lower()
    for part, error in _MESSAGES:
        if part in text:
            return error(str(exc))
    return CommitFailed(f"{type(exc).__name__}: {exc}")


class Store:
    """One connection.  Statements in, plain rows out."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    def read_any_text(self) -> None:
        """From now on spell out what is no UTF-8 in a text, instead of failing, so that its place can be named."""
        self._connection.text_factory = lambda text: bytes(text).decode(errors="backslashreplace")

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """Run a query and return all of it."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except _ERRORS as exc:
            raise translated(exc) from exc

    def stream(self, sql: str, values: Values = ()) -> Iterator[Row]:
        """Run a query and yield its rows as they come, holding the connection's read lock until the end."""
        try:
            cursor = self._connection.execute(sql, values)
            # By the thousand: one generator step per row cost as much as SQLite's own.
            while rows := cursor.fetchmany(_FETCHED):
                yield from rows
        except _ERRORS as exc:
            raise translated(exc) from exc

    def row(self, sql: str, values: Values = ()) -> Row | None:
        """Return the first row of a query, None if there is none."""
        try:
            found: Row | None = self._connection.execute(sql, values).fetchone()
        except _ERRORS as exc:
            raise translated(exc) from exc
        return found

    def run(self, sql: str, values: Values = ()) -> int:
        """Run one statement and return how many rows it changed."""
        try:
            return self._connection.execute(sql, values).rowcount
        except _ERRORS as exc:
            raise translated(exc) from exc

    def run_many(self, sql: str, values: Iterable[Values]) -> None:
        """Run one statement for many rows; only inside a transaction."""
        try:
            self._connection.executemany(sql, values)
        except sqlite3.Error as exc:
            raise translated(exc) from exc

    @contextlib.contextmanager
    def transaction(self, mode: str = "IMMEDIATE") -> Iterator[None]:
        """All of it becomes durable, or none; ``DEFERRED`` is for reading, and for temporary tables."""
        self.run(f"BEGIN {mode}")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself (disk full); then there is nothing left to undo.
            with contextlib.suppress(LedgerError):
                self.run("ROLLBACK")
            raise

    def copy_to(self, target: "Store") -> None:
        """Copy the whole database as of one moment; a writer beside it goes on meanwhile."""
        try:
            # All pages in one step: in several, SQLite would begin again after each commit of the writer.
            self._connection.backup(target._connection, pages=-1)
        except sqlite3.Error as exc:
            raise translated(exc) from exc

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


class EngineFacts(msgspec.Struct, frozen=True):
    """What ``doctor`` says about the SQLite library of this process."""

    version: str
    wal_reset_fault: bool


def engine_facts(version: str = sqlite3.sqlite_version) -> EngineFacts:
    """Say which library this is, and whether it has the WAL-reset fault (sqlite.org/wal.html#walresetbug).

    The fault needs two connections that write or checkpoint at the same moment.  A ledger has one, and its readers
    can do neither, so it is safe here on every version.
    """
    parts = tuple(int(part) for part in version.split(".")[:3])
    fixed = parts >= (3, 51, 3) or parts in ((3, 50, 7), (3, 44, 6))
    return EngineFacts(version, wal_reset_fault=not fixed)


def read_mounts() -> str:
    """The mount table of this machine; empty where there is none to read (macOS)."""
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def network_filesystem(path: Path, mounts: str) -> str:
    """Return the name of the network file system that ``path`` lies on, empty if it is local."""
    target = str(path)
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _unescaped(fields[1])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    family, _, flavour = kind.partition(".")
    if kind in _NETWORK or (family.startswith("fuse") and flavour in _NETWORK_FUSE):
        return kind
    return ""


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def check_place(path: Path, mounts: Callable[[], str] = read_mounts) -> None:
    """Refuse what is no file, and a network file system (LED-10)."""
    if path.exists() and not path.is_file():
        raise LedgerPlace(f"{path} is not a file")
    kind = network_filesystem(path.parent.resolve(), mounts())
    if kind:
        raise LedgerPlace(f"{path} lies on a network file system ({kind})")


def create_file(path: Path) -> None:
    """Make the empty file 0600, in a directory 0700 if that is missing too.

    SQLite would create it 0644, and gives ``-wal`` and ``-shm`` the mode of the main file: so the right mode has to
    be there before it opens anything (SEC-7).  The names are durable before anything is committed (LED-4).
    """
    try:
        missing = [path.parent, *path.parent.parents]
        while missing and missing[-1].exists():
            missing.pop()
        if missing:
            path.parent.mkdir(parents=True, mode=0o700)
            path.parent.chmod(0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        for directory in (*reversed([each.parent for each in missing]), path.parent):
            _sync_dir(directory)
    except FileExistsError:
        return
    except OSError as exc:
        raise LedgerPlace(f"{path} cannot be created: {exc.strerror}") from exc


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_writer(path: Path) -> Store:
    """Open an existing file (empty = a ledger to be) for writing, bring its schema up to date, and check the promises.

    Raises:
        LedgerDamaged: not a ledger.
        LedgerNewer: written by a newer bydawn.
        LedgerPlace: write-ahead logging or full syncing cannot be had here.
    """
    # A writer hands its connection to worker threads, one at a time; SQLite itself is built thread-safe.
    connection = _connect(path, "rw")
    store = Store(connection, path)
    try:
        # Marked first: a file whose making was cut short is then known as a ledger to be, and finished here.
        if _check_format(store):
            # The id last: with it the format is settled; a kill in between leaves a file that is still to become one.
            store.run(f"PRAGMA user_version = {FORMAT}")
            store.run(f"PRAGMA application_id = {APPLICATION_ID}")
        store.run("PRAGMA main.secure_delete = ON")
        store.run("PRAGMA cache_size = -16000")
        store.run(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        make_durable(store)
        if not _up_to_date(store):
            _migrate(connection)
    except BaseException:
        store.close()
        raise
    return store


def _up_to_date(store: Store) -> bool:
    """Whether every migration is on record, by the table that sqlite-utils keeps."""
    if store.row("SELECT 1 FROM sqlite_schema WHERE name = '_sqlite_migrations'") is None:
        return False
    rows = store.rows("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (MIGRATION_SET,))
    return {name for (name,) in rows} >= set(MIGRATION_NAMES)


def _migrate(connection: "sqlite3.Connection") -> None:
    from sqlite_utils import Database

    from ledger.migrations import MIGRATIONS

    try:
        MIGRATIONS.apply(Database(connection, recursive_triggers=False, execute_plugins=False))
    except sqlite3.Error as exc:
        raise translated(exc) from exc


def make_durable(store: Store) -> None:
    """Ask for full syncing and write-ahead logging, and read the answers: SQLite does not fail when it cannot do what a
    pragma asks, it says what it does instead (LED-10).  Raises LedgerPlace."""
    store.run("PRAGMA synchronous = FULL")
    journal_mode, synchronous = store.row("PRAGMA journal_mode = WAL"), store.row("PRAGMA synchronous")
    if journal_mode != ("wal",) or synchronous != (2,):
        raise LedgerPlace(f"{store.path}: SQLite answers journal_mode {journal_mode}, synchronous {synchronous}")


def open_reader(path: Path) -> Store:
    """Open for reading only.  A newer ledger may be read as far as its events are known; one whose making was cut
    short is not there yet.
    """
    if not path.is_file():
        raise LedgerMissing(f"there is no ledger at {path}")
    unmade = f"there is no ledger at {path} yet: its making was cut short, and a run completes it"
    store = Store(_connect(path, "ro"), path)
    try:
        try:
            store.run("PRAGMA query_only = ON")
            store.run("PRAGMA cache_size = -4000")
            making = _in_the_making(store)
        except CommitFailed as exc:
            # Killed inside a commit of its making, before the write-ahead log: only a writer may take that back.
            if not path.with_name(path.name + "-journal").exists():
                raise
            raise LedgerMissing(unmade) from exc
        if making:
            raise LedgerMissing(unmade)
        if store.row("PRAGMA application_id") != (APPLICATION_ID,):
            raise LedgerDamaged(f"{path} is not a ledger of bydawn")
    except BaseException:
        store.close()
        raise
    return store


def open_copy(path: Path) -> Store:
    """Open a file that was just created to take a copy in."""
    store = Store(_connect(path, "rw"), path)
    store.run("PRAGMA synchronous = FULL")
    return store


def _in_the_making(store: Store) -> bool:
    """Whether a writer has been here, or is, and has not got as far as the tables, which come all at once."""
    if store.row("PRAGMA application_id") == (APPLICATION_ID,):
        return store.row("SELECT 1 FROM sqlite_schema WHERE name = 'events'") is None
    return store.row("SELECT count(*) FROM sqlite_schema") == (0,)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    try:
        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10.0, cached_statements=256
        )
    except sqlite3.Error as exc:
        raise translated(exc) from exc


def _check_format(store: Store) -> bool:
    """Whether the file is still to become a ledger."""
    tables = store.row("SELECT count(*) FROM sqlite_schema")
    application = store.row("PRAGMA application_id")
    version = store.row("PRAGMA user_version")
    if application == (APPLICATION_ID,):
        if version is not None and version[0] > FORMAT:
            raise LedgerNewer(f"{store.path} has format {version[0]}; this bydawn knows {FORMAT}")
        return False
    if tables != (0,):
        raise LedgerDamaged(f"{store.path} is a database, but not a ledger of bydawn")
    return True
