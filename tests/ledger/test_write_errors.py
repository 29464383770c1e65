"""A ledger whose writer is killed at every statement, or may write no further than a limit (LED-4, LED-7).

The limit is the system's own, on the size of a file: the write that would pass it fails, in the log, in the file or in
what SQLite keeps beside them, and every later one does too.
"""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ledger import engine
from ledger.audit import SealedHead, check_against, export_head, verify
from ledger.errors import LedgerError
from ledger.journal import Ledger
from ledger.streams import task_stream
from tests.ledger.ledgers import decision, opened
from tests.ledger.stories import INTEND
from tests.processes import die, forked, in_memory

TASKS = 6
_PAGE = 4096


@pytest.fixture
def memory() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


def buy(path: Path, tell: Callable[[str], None], *, log_pages: int = engine.WAL_PAGES, text: str = "") -> None:
    """An intent for each task, with a ``text`` to keep, each told of when it is durable."""
    with opened(path, tasks=TASKS) as ledger:
        ledger.store.run(f"PRAGMA wal_autocheckpoint = {log_pages}")
        _told(path, tell)
        for n in range(1, TASKS + 1):
            if ledger.state(task_stream(1, n)).attempts:
                continue
            intent = decision(ledger, n, INTEND)
            try:
                ledger.commit([msgspec.structs.replace(intent, payloads=(ledger.payload(text)[1],))])
            except LedgerError as exc:
                _is_closed(ledger, type(exc))
                raise
            _told(path, tell)


def _told(path: Path, tell: Callable[[str], None]) -> None:
    head = export_head(path)
    tell(f"{head.ledger_id} {head.seq} {head.hash}")


def _is_closed(ledger: Ledger, error: type[LedgerError]) -> None:
    """LED-7: the handle answers nothing but the failure."""
    for call in (
        lambda: ledger.commit([]),
        lambda: ledger.state(task_stream(1, 1)),
        lambda: ledger.checkpoint(),
    ):
        with pytest.raises(error):
            call()


def survived(path: Path, told: list[str]) -> None:
    """What was told is there, nothing is half there, and the next process goes on (LED-4)."""
    if told:
        ledger_id, seq, head = told[-1].split()
        assert check_against(path, SealedHead(ledger_id, int(seq), head)) is None
        assert export_head(path).seq <= int(seq) + 1  # and at most the commit that was on its way
        assert verify(path).ok
    buy(path, lambda line: None)
    assert verify(path).ok


def killed_at(path: Path, at: int) -> tuple[int, list[str]]:
    """Buy in a process that is killed at statement ``at`` of SQLite."""
    connect = engine._connect

    def counted(place: Path, mode: str) -> object:
        connection = connect(place, mode)
        if mode == "rw":
            connection.set_trace_callback(count)
        return connection

    def count(_: str) -> None:
        nonlocal at
        at -= 1
        if at < 0:
            die()

    def work(tell: Callable[[str], None]) -> None:
        engine._connect = counted  # type: ignore[assignment]  # in a process that has nothing else to do
        buy(path, tell)

    return forked(work)


def kill_at(statements: range, memory: Path) -> int:
    """Kill at each of them, until there are no more; returns how many were killed."""
    for killed, at in enumerate(statements):
        path = memory / str(at) / "l.db"
        status, told = killed_at(path, at)
        survived(path, told)
        if status == 0:
            return killed
        assert status == -9
    raise AssertionError("there were more statements")


def limit(path: Path, size: int, *, log_pages: int = engine.WAL_PAGES, text: str = "") -> bool:
    """Buy in a process that may make no file larger than ``size``; whether it came to that."""

    def work(tell: Callable[[str], None]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            buy(path, tell, log_pages=log_pages, text=text)
        except LedgerError:
            tell("refused")

    status, told = forked(work)
    assert status == 0, f"with files of {size} bytes it ended otherwise than with an error of the ledger"
    survived(path, [line for line in told if line != "refused"])
    return told[-1:] == ["refused"]


def limit_log(memory: Path, *, step: int) -> int:
    """Limits from nothing up to where the log fits, through all of its making; returns how many failed."""
    for number in range(10_000):
        if not limit(memory / str(number) / "l.db", number * step):
            return number
    raise AssertionError("it never fits")


def limit_file(memory: Path, *, step: int) -> int:
    """Limits under which the log is short, and the file may not grow as it must; returns how many failed."""
    for number in range(10_000):
        path = memory / str(number) / "l.db"
        opened(path, tasks=TASKS).close()
        if not limit(path, path.stat().st_size + number * step, log_pages=8, text="x" * 5 * _PAGE):
            return number
    raise AssertionError("it never fits")


def test_a_writer_killed_at_any_statement_loses_nothing_it_told(memory: Path) -> None:
    """LED-4: from the first statement of a ledger's making on; every seventeenth."""
    assert kill_at(range(0, 1000, 17), memory) > 10


def test_a_write_that_fails_closes_the_ledger_and_loses_nothing_it_told(memory: Path) -> None:
    """LED-4, LED-7: at each limit some other write is the one that fails."""
    assert limit_log(memory, step=5 * _PAGE + 700) > 15


def test_a_checkpoint_that_fails_loses_nothing(memory: Path) -> None:
    """LED-4, LED-7: the commits go on in the log until that is full, too."""
    assert limit_file(memory, step=3 * _PAGE + 700) > 5


@pytest.mark.slow
def test_every_statement_and_every_limit(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LED-4, LED-7: all of them, and their number."""
    counted = {
        "killed at a statement": kill_at(range(1000), memory / "killed"),
        "log ends at a limit": limit_log(memory / "log", step=700),
        "file ends at a limit": limit_file(memory / "file", step=300),
    }
    with capsys.disabled():
        print(f"\nwriters of a real ledger ended: {sum(counted.values())}: {counted}")
