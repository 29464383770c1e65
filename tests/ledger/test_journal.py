"""The writer over a real file."""

from pathlib import Path

import pytest

from ledger.decisions import Append, Committed, Conflict, Count, Decision, Exceeded, Repeated, Reserve
from ledger.errors import InvariantBroken, LedgerError, LedgerHeld, LedgerMissing
from ledger.events import PayloadRef, TaskCancelled, TaskQueued, TaskRetried
from ledger.journal import Ledger
from ledger.money import batch_money, lane_money
from ledger.streams import batch_stream, task_stream
from tests.ledger.ledgers import decision, do, opened
from tests.ledger.stories import INTEND, bought, intent

LANE = lane_money("kie", "default")


def test_a_decision_is_durable_when_it_is_answered_and_read_back_typed(tmp_path: Path) -> None:
    """LED-2, LED-4."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=2) as ledger:
        do(ledger, 1, INTEND, *bought(1))
        before = ledger.state(task_stream(1, 1))
        with ledger.reader() as reader:
            assert reader.state(task_stream(1, 1)) == before
            assert [row.id for row in reader.tasks(1)] == ["row-1", "row-2"]
            assert [event.seq for event in reader.events()] == list(range(1, reader.head().seq + 1))
    with Ledger.create_or_open(path, create=False) as again:
        assert again.state(task_stream(1, 1)) == before


def test_each_refusal_is_its_own_and_the_rest_of_the_group_goes_on(tmp_path: Path) -> None:
    """MON-3, MON-8, LED-3: judged in arrival order on what the decisions before it leave."""
    with opened(tmp_path / "bydawn.db", tasks=4) as ledger:
        budget = Reserve(batch_money(1), 120_000)
        room = Count(LANE, 2)
        group = [decision(ledger, n, INTEND, guards=(budget, room)) for n in (1, 2, 3)]
        stale = decision(ledger, 1, INTEND)
        keyed = decision(ledger, 4, INTEND, key=b"k" * 16)
        outcomes = ledger.commit([group[0], stale, group[1], group[2], keyed, keyed])
        assert isinstance(outcomes[0], Committed)
        assert outcomes[1] == Conflict(task_stream(1, 1), expected=1, actual=2)
        assert isinstance(outcomes[2], Committed)
        assert outcomes[3] == Exceeded(budget, 180_000)
        assert isinstance(outcomes[4], Committed)
        assert outcomes[5] == Repeated(outcomes[4].seq)
        assert ledger.commit([keyed]) == [Repeated(outcomes[4].seq)]
        with ledger.reader() as reader:
            assert reader.head().seq == outcomes[4].seq
            assert reader.money("lane/")[LANE].open == 3
            assert reader.money("batch/")[batch_money(1)].reserved == 180_000
        full = decision(ledger, 3, INTEND, guards=(room,))
        assert ledger.commit([full]) == [Exceeded(room, 4)]


def test_a_task_may_be_settled_and_moved_again_in_one_group(tmp_path: Path) -> None:
    """The state after the first decision is not in the file yet when the second is judged."""
    with opened(tmp_path / "bydawn.db", tasks=1) as ledger:
        stream = task_stream(1, 1)
        cancelled = TaskCancelled(operator="ann")
        retried = TaskRetried(operator="ann", version=1)
        outcomes = ledger.commit(
            [
                Decision(appends=(Append(stream, 1, (cancelled,)),), at_us=3),
                Decision(appends=(Append(stream, 2, (retried,)),), at_us=4),
            ]
        )
        assert all(isinstance(outcome, Committed) for outcome in outcomes)
        assert (ledger.state(stream).version, ledger.state(stream).phase) == (3, "queued")


def test_a_second_handle_is_refused_and_a_closed_one_is_of_no_use(tmp_path: Path) -> None:
    """LED-5."""
    path = tmp_path / "bydawn.db"
    with pytest.raises(LedgerMissing):
        Ledger.create_or_open(path, create=False)
    ledger = opened(path)
    with pytest.raises(LedgerHeld):
        Ledger.create_or_open(path, create=False)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError):
        ledger.commit([])
    with Ledger.create_or_open(path, create=False) as again, pytest.raises(LedgerError):
        again.commit([])  # no epoch was started


def test_the_writer_itself_refuses_a_second_purchase_without_leave(tmp_path: Path) -> None:
    """MON-2: whoever decided, the run stops and nothing more is written."""
    with opened(tmp_path / "bydawn.db", tasks=1) as ledger:
        do(ledger, 1, INTEND)
        second = Decision(appends=(Append(task_stream(1, 1), 2, (intent(2),)),), at_us=3)
        with pytest.raises(InvariantBroken):
            ledger.commit([second])
        with pytest.raises(InvariantBroken):
            ledger.commit([])


def test_nothing_happens_to_a_task_before_its_import_is_sealed(tmp_path: Path) -> None:
    """LED-11."""
    with opened(tmp_path / "bydawn.db", tasks=1) as ledger:
        queued = TaskQueued(id="x", request=PayloadRef(1, ""), model="", aspect="", resolution="", line=1, number=2)
        ledger.commit([Decision(appends=(Append(task_stream(1, 2), 0, (queued,)),), at_us=3)])
        with ledger.reader() as reader:
            assert [row.n for row in reader.tasks(1)] == [1]
            assert [task.n for task in reader.queued(1)] == [1]
        with pytest.raises(InvariantBroken):
            ledger.commit([Decision(appends=(Append(task_stream(1, 2), 1, (intent(1),)),), at_us=3)])


def test_a_task_is_queued_once(tmp_path: Path) -> None:
    with opened(tmp_path / "bydawn.db", tasks=1) as ledger:
        queued = ledger.state(task_stream(1, 1)).queued
        assert queued is not None
        with pytest.raises(InvariantBroken):
            ledger.commit([Decision(appends=(Append(task_stream(1, 1), 1, (queued,)),), at_us=3)])


def test_only_tasks_have_task_states(tmp_path: Path) -> None:
    with opened(tmp_path / "bydawn.db") as ledger, ledger.reader() as reader:
        for handle in (ledger, reader):
            with pytest.raises(ValueError):
                handle.state(batch_stream(1))
