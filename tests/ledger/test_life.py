"""One ledger, one life (REC-10): what tells that another copy may go on, and what does not."""

import itertools
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit import SealedHead, export_head, verify
from ledger.backup import back_up
from ledger.commands import Intend
from ledger.decisions import Append, Committed, Decision
from ledger.engine import create_file, open_copy, open_reader
from ledger.errors import LedgerError, LedgerMissing
from ledger.events import EpochStarted, LedgerTakenOver, WaitingTasks
from ledger.folds import EMPTY_RUNTIME, Place, RuntimeState, evolve_runtime
from ledger.journal import Ledger
from ledger.life import contradiction, strange
from ledger.reader import Reader
from ledger.streams import runtime_stream
from tests.ledger.ledgers import do, opened

HOME = Place("m1", 7, 70)
INTEND = Intend(
    account="kie",
    provider="kie",
    lane="",
    route="only",
    ceiling_microusd=75_000,
    body_digest="d",
    deadline_us=9,
)


def signs(here: Place, *, copied: bool = False, contradicted: str = "") -> list[str]:
    return [each.sign for each in strange(HOME, here, copied=copied, contradicted=contradicted)]


def test_at_home_nothing_is_strange() -> None:
    """REC-10."""
    assert signs(HOME) == []
    assert strange(None, HOME, copied=False, contradicted="") == ()


@pytest.mark.parametrize(
    ("here", "told"),
    [
        (Place("m2", 7, 70), ["machine"]),
        (Place("m1", 8, 70), ["file"]),
        (Place("m1", 7, 71), ["file"]),
        (Place("m2", 8, 71), ["machine", "file"]),
    ],
)
def test_another_machine_or_file_is_strange(here: Place, told: list[str]) -> None:
    """REC-10."""
    assert signs(here) == told


def test_each_sign_counts_by_itself() -> None:
    """REC-10: a backup put in place by copying over the file has the very same identity."""
    for copied, older in itertools.product((False, True), ("", "the ledger ends before event 9")):
        assert signs(HOME, copied=copied, contradicted=older) == ["backup"] * copied + ["older"] * bool(older)


def started(place: Place) -> EpochStarted:
    return EpochStarted("id", place.machine, place.device, place.inode, 1, "0", "3", "ann", "run")


def taken_over(place: Place, *waiting: WaitingTasks) -> LedgerTakenOver:
    return LedgerTakenOver("ann", place.machine, place.device, place.inode, waiting=waiting)


places = st.builds(Place, st.sampled_from(["m1", "m2"]), st.integers(1, 2), st.integers(1, 2))


@given(first=places, later=st.lists(st.tuples(st.booleans(), places)))
def test_only_taking_over_moves_a_ledger(first: Place, later: list[tuple[bool, Place]]) -> None:
    """REC-10: whatever starts elsewhere leaves the home where it is."""
    events = [started(first), *(taken_over(place) if over else started(place) for over, place in later)]
    state: RuntimeState = EMPTY_RUNTIME
    for number, event in enumerate(events, 1):
        state = evolve_runtime(state, event, epoch=number, at_us=number)
    assert state.home == next((place for over, place in reversed(later) if over), first)


def test_what_waits_after_a_takeover_waits_until_the_next_one() -> None:
    """REC-10."""
    state = evolve_runtime(EMPTY_RUNTIME, started(HOME), epoch=1, at_us=1)
    state = evolve_runtime(state, taken_over(HOME, WaitingTasks(1, 20)), epoch=1, at_us=2)
    state = evolve_runtime(state, started(HOME), epoch=2, at_us=3)
    assert state.waiting == (WaitingTasks(1, 20),)
    assert evolve_runtime(state, taken_over(HOME), epoch=2, at_us=4).waiting == ()


# --- real files -------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bydawn.db"


def home_of(path: Path) -> Place | None:
    with Reader(path) as reader:
        return reader.runtime().home


def test_a_renamed_file_is_the_same_and_a_copied_one_is_not(path: Path) -> None:
    """REC-10."""
    opened(path, tasks=2).close()
    home = home_of(path)
    moved = path.rename(path.with_name("moved.db"))
    with Ledger.create_or_open(moved, create=False) as ledger:
        assert home == Place("m", *ledger.identity())
    copy = Path(shutil.copy(moved, path))
    with Ledger.create_or_open(copy, create=False) as ledger:
        assert home != Place("m", *ledger.identity())


def test_an_older_copy_is_contradicted_by_every_later_head(path: Path) -> None:
    """REC-10: also after it went on in another way."""
    ledger = opened(path, tasks=2)
    older = path.with_name("older.db")
    back_up(path, older, at_us=5)
    heads = [export_head(path)]
    do(ledger, 1, INTEND)
    heads.append(export_head(path))
    ledger.close()
    assert contradiction(path, heads) == ""
    assert contradiction(older, heads[:1]) == ""
    assert "ends before event" in contradiction(older, heads)
    with opened(older) as other:  # a start is an event: it is now as long as the original
        do(other, 2, INTEND)
    assert export_head(older).seq >= heads[1].seq
    assert "another history" in contradiction(older, heads)
    assert contradiction(path, [SealedHead(heads[0].ledger_id, 0, "")]) == ""


def test_a_backup_is_whole_private_and_marked(path: Path) -> None:
    """REC-10, LED-4, SEC-7: of a ledger that is being written, with its newest commits still in the log."""
    copy = path.with_name("backup.db")
    with opened(path, tasks=3) as ledger:
        do(ledger, 1, INTEND)
        head = export_head(path)
        back_up(path, copy, at_us=77)
        do(ledger, 2, INTEND)
        with Reader(path) as reader:
            assert reader.copied_at_us() == 0
    assert export_head(copy) == head
    assert verify(copy).ok
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"bydawn.db", "bydawn.db.lock", "backup.db"}
    with Reader(copy) as reader:
        assert reader.copied_at_us() == 77
        assert reader.task(1, 1) is not None


def test_a_backup_of_nothing_makes_no_file(path: Path) -> None:
    with pytest.raises(LedgerMissing):
        back_up(path, path.with_name("backup.db"), at_us=1)
    assert list(path.parent.iterdir()) == []


def test_a_copy_that_cannot_be_written_is_the_ledgers_trouble(path: Path) -> None:
    opened(path).close()
    create_file(path.with_name("backup.db"))
    source, target = open_reader(path), open_copy(path.with_name("backup.db"))
    target.close()
    with pytest.raises(LedgerError):
        source.copy_to(target)
    source.close()


def test_taking_over_is_an_event_and_ends_the_mark(path: Path) -> None:
    """REC-10."""
    opened(path, tasks=2).close()
    copy = path.with_name("backup.db")
    back_up(path, copy, at_us=77)
    with opened(copy) as ledger:
        event = taken_over(Place("m", *ledger.identity()), WaitingTasks(1, 2))
        with ledger.reader() as reader:
            version = reader.version(runtime_stream())
        (outcome,) = ledger.commit([Decision(appends=(Append(runtime_stream(), version, (event,)),), at_us=9)])
        assert isinstance(outcome, Committed)
        ledger.settle()
        home = Place("m", *ledger.identity())
    with Reader(copy) as reader:
        assert reader.copied_at_us() == 0
        assert reader.runtime().home == home
        assert reader.runtime().waiting == (WaitingTasks(1, 2),)
    assert verify(copy).ok
