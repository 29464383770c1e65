"""The newest part of the ledger: which jobs are bound, how full the rate windows are."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.commands import Record
from ledger.decisions import Append, Committed, Decision
from ledger.events import (
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptIntended,
    AttemptUnknown,
    BatchCancelled,
    BatchOpened,
    BatchSealed,
    Event,
    ImportOpened,
    TaskQueued,
    UnknownReason,
)
from ledger.journal import Ledger
from ledger.lately import facts_since
from ledger.reader import Reader
from ledger.streams import StreamKey, batch_stream, task_stream
from runtime.history import (
    BoundJobs,
    CancelWish,
    answered_jobs,
    bound_jobs,
    cancel_wish,
    held_again,
    jobs_of,
    recent_intents,
)
from runtime.keycheck import KnownJob
from tests.ledger.ledgers import opened as ledger_of
from tests.runtime.nights import OpenLedger, with_ledger

MINUTE_US = 60_000_000


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Three tasks, bought at minutes 1, 2 and 3: accepted, adopted, still open."""
    ledger = Ledger.create_or_open(tmp_path / "n.db", create=True)
    ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=0)

    def commit(stream: StreamKey, expected: int, at_us: int, *events: Event) -> None:
        outcomes = ledger.commit([Decision(appends=(Append(stream, expected, events),), at_us=at_us)])
        assert isinstance(outcomes[0], Committed)

    commit(
        batch_stream(1),
        0,
        0,
        BatchOpened(name="b", folder="/b", sandbox=True, operator="o"),
        ImportOpened(number=1, first=1, source="s", input_digest="d"),
    )
    ref, _ = ledger.payload("{}")
    for n in (1, 2, 3):
        queued = TaskQueued(id=f"r{n}", request=ref, model="m", aspect="1:1", resolution="1K", line=n, number=1)
        commit(task_stream(1, n), 0, 0, queued)
    commit(batch_stream(1), 2, 0, BatchSealed(number=1, tasks=3, rows=3, input_digest="d"))
    for n in (1, 2, 3):
        commit(task_stream(1, n), 1, n * MINUTE_US, AttemptIntended(1, f"a{n}", "kie", "default", "only", 5, "d", 0))
    commit(task_stream(1, 1), 2, 4 * MINUTE_US, AttemptAccepted(1, "j1"))
    commit(task_stream(1, 2), 2, 5 * MINUTE_US, AttemptAmbiguous(1, "no_reply"))
    commit(task_stream(1, 2), 3, 6 * MINUTE_US, AttemptAdopted(1, "j2", "listing"))
    ledger.close()
    return Reader(tmp_path / "n.db")


def test_jobs_are_bound_by_acceptance_and_by_adoption(reader: Reader) -> None:
    """REC-5."""
    assert bound_jobs(reader, 0) == {"j1", "j2"}
    assert bound_jobs(reader, 5 * MINUTE_US) == {"j2"}
    assert bound_jobs(reader, 7 * MINUTE_US) == set()


@pytest.mark.parametrize(
    ("reason", "again"),
    [("listing_failed", True), ("clock_changed", True), ("account_changed", True), ("several_fit", False)],
)
def test_what_is_held_for_a_cause_that_may_be_gone_is_looked_up_again(
    tmp_path: Path, reason: UnknownReason, again: bool
) -> None:
    """REC-8, REC-9: unknown is not final; and where another key is still in the way, nothing is asked."""

    async def body(opened: OpenLedger) -> None:
        await opened.intend(1)
        crashed = Record(AttemptAmbiguous(attempt=1, reason="crash"))
        await opened.do(1, crashed, Record(AttemptUnknown(attempt=1, reason=reason)))
        await opened.intend(2)
        assert [each.n for each in held_again(opened.reader, "kie", lambda epoch: False)] == [1] * again
        assert held_again(opened.reader, "kie", lambda epoch: True) == []
        assert held_again(opened.reader, "replicate", lambda epoch: False) == []

    with_ledger(tmp_path, body)


@pytest.mark.parametrize("reason", ["listing_assumed", "lookup_assumed", "answer_assumed"])
def test_what_was_not_sure_enough_is_looked_up_again_once_it_is(tmp_path: Path, reason: UnknownReason) -> None:
    """REC-4: --trust may change on any continue."""

    async def body(opened: OpenLedger) -> None:
        await opened.intend(1)
        crashed = Record(AttemptAmbiguous(attempt=1, reason="crash"))
        await opened.do(1, crashed, Record(AttemptUnknown(attempt=1, reason=reason)))
        assert held_again(opened.reader, "kie", lambda epoch: False, lambda batch: "documented") == []
        assert len(held_again(opened.reader, "kie", lambda epoch: False, lambda batch: "assumed")) == 1

    with_ledger(tmp_path, body)


def test_jobs_that_were_answered_bear_witness_by_account_time_and_key(reader: Reader) -> None:
    """REC-4: adopted ones do not, since nobody knows when they were made."""

    def answered(account: str, since: int, until: int, *, foreign: bool = False) -> set[str]:
        return answered_jobs(reader, account, lambda epoch: foreign, since * MINUTE_US, until * MINUTE_US)

    assert answered("a1", 0, 9) == answered("a1", 1, 4) == {"j1"}
    assert answered("a1", 2, 9) == answered("a1", 0, 3) == answered("a2", 0, 9) == set()
    assert answered("a1", 0, 9, foreign=True) == set()


def test_intents_tell_how_full_the_windows_are(reader: Reader) -> None:
    assert recent_intents(reader, 2 * MINUTE_US) == [("a2", 2 * MINUTE_US), ("a3", 3 * MINUTE_US)]


def test_the_last_wish_to_cancel_a_batch_is_told_with_its_epoch(tmp_path: Path) -> None:
    """W15: what was bought in later epochs is wanted."""
    ledger = Ledger.create_or_open(tmp_path / "n.db", create=True)
    opened = BatchOpened(name="b", folder="/b", sandbox=True, operator="o")
    events: tuple[Event, ...] = (opened, BatchCancelled("ann"), BatchCancelled("bob"))
    for epoch, event in enumerate(events, start=1):
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="run", at_us=0)
        with ledger.reader() as reader:
            assert cancel_wish(reader, 1) == (CancelWish(epoch - 1, "ann") if epoch == 3 else CancelWish())
        ledger.commit([Decision(appends=(Append(batch_stream(1), epoch - 1, (event,)),), at_us=0)])
    with ledger.reader() as reader:
        assert cancel_wish(reader, 1) == CancelWish(3, "bob")
    ledger.close()


def test_of_the_jobs_only_those_of_another_key_are_told_newest_first(reader: Reader) -> None:
    """REC-9, also in a large ledger: what this key bought is passed over without reading its tasks."""
    with reader:
        state, read = reader.state, list[int]()
        reader.state = lambda stream: read.append(stream) or state(stream)  # type: ignore[method-assign, func-returns-value]
        assert list(jobs_of(reader, "a1", lambda epoch: True, 0)) == [KnownJob("j1", 1)]
        assert read == [task_stream(1, 2), task_stream(1, 1)]
        assert list(jobs_of(reader, "a2", lambda epoch: True, 5 * MINUTE_US)) == [KnownJob("j2", 1)]
        read.clear()
        assert list(jobs_of(reader, "a1", lambda epoch: False, 0)) == []
        assert read == [task_stream(1, 2)]  # an adoption may be of an older purchase


@pytest.mark.parametrize("window", [1, 2, 5, 1000])
def test_facts_are_found_whatever_the_part_of_the_ledger_that_is_read_at_once(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr("ledger.lately._WINDOW", window)

    def found(at_us: int, *types: str) -> list[str]:
        return [f"{row.event.TYPE} {row.at_us // MINUTE_US}" for row in facts_since(reader, at_us, *types)]

    accepted, adopted = AttemptAccepted.TYPE, AttemptAdopted.TYPE
    with reader:
        assert found(0, accepted, adopted) == [f"{adopted} 6", f"{accepted} 4"]
        assert found(5 * MINUTE_US, accepted, adopted) == [f"{adopted} 6"]
        assert found(0, accepted) == [f"{accepted} 4"]
        assert found(7 * MINUTE_US, accepted, adopted) == []


JOBS = st.sampled_from([*(f"j{n}" for n in range(8)), "odd'\"job"])


@given(st.lists(st.tuples(st.lists(JOBS, max_size=4), st.sets(JOBS)), max_size=5), st.integers(1, 4))
@settings(max_examples=15)
def test_who_asks_time_and_again_hears_what_a_whole_read_tells(
    rounds: list[tuple[list[str], set[str]]], together: int
) -> None:
    """REC-5: one job binds one attempt.  And each event is read once, however often somebody calls back (REC-7)."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patched,
        ledger_of(Path(folder) / "n.db", tasks=20) as ledger,
        ledger.reader() as reader,
    ):
        patched.setattr("runtime.history._TOGETHER", together)
        read: list[tuple[int, int]] = []
        between = reader.bound_between

        def noted(after: int, through: int) -> list[str]:
            read.append((after, through))
            return between(after, through)

        patched.setattr(reader, "bound_between", noted)
        bound, n = BoundJobs(reader), 0
        for made, asked in rounds:
            for job in made:
                n += 1
                _bought(ledger, n, job)
            assert bound(asked) == bound(asked) == reader.bound(asked)
        ends = [through for _, through in read]
        assert [after for after, _ in read] == [0, *ends][: len(read)]
        assert ends[-1:] == [reader.head().seq][: len(rounds)]
        assert all(through - after <= together for after, through in read)


def _bought(ledger: Ledger, n: int, job: str) -> None:
    events: list[Event] = [AttemptIntended(1, "kie", "kie", "default", "only", 5, "d", 0)]
    if n % 2:
        events.append(AttemptAccepted(1, job))
    else:
        events += [AttemptAmbiguous(1, "no_reply"), AttemptAdopted(1, job, "listing")]
    (outcome,) = ledger.commit([Decision(appends=(Append(task_stream(1, n), 1, tuple(events)),), at_us=1)])
    assert isinstance(outcome, Committed)
