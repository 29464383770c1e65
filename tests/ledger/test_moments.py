"""REC-1: a batch at any moment follows from the events alone, and at the last one says what the views say."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.audit import verify
from ledger.commands import TaskCommand
from ledger.decisions import Append, Decision
from ledger.events import (
    AccountOpened,
    AccountParked,
    BatchConfigured,
    BatchOpened,
    EpochEnded,
    Overcharged,
)
from ledger.journal import Ledger
from ledger.moments import Difference, Moment, Playback, difference, last_seq, moment_at, seq_at, time_of
from ledger.projection import TALLIES
from ledger.reader import Reader
from ledger.replay import replay_tasks
from ledger.streams import account_stream, batch_stream, runtime_stream, stream_parts
from tests.ledger.ledgers import do, live_through, opened, queue
from tests.ledger.stories import INTEND, UNKNOWN, bought
from tests.ledger.strategies import stories
from tests.ledger.test_imports import killed_import, row

TASKS = 3


def seq_after(path: Path, told: list[tuple[int, list[TaskCommand]]]) -> int:
    """Tell stories of three tasks; returns the last seq."""
    live_through(path, told or [(1, [])], tasks=TASKS)
    with Reader(path) as reader:
        return last_seq(reader.store)


tellings = st.lists(st.tuples(st.integers(1, TASKS), stories), max_size=3)


def views(reader: Reader) -> dict[str, object]:
    """What the views say of batch 1, as :func:`as_views` says it of a moment."""
    counts = reader.store.rows("SELECT state, provider, n FROM counts WHERE batch = 1 AND n <> 0 ORDER BY 1, 2")
    tasks = reader.store.rows(
        "SELECT stream, id, phase, version, account, provider, attempts, cost_microusd, reason, flags FROM tasks"
        " ORDER BY stream"
    )
    return {
        "counts": counts,
        "books": {name: held for name, held in reader.money().items() if any(held)},
        "tasks": [(stream_parts(stream).n, *rest) for stream, *rest in tasks],
        "batch": reader.batch(1),
        "accounts": [(row.n, row.name, row.parked, row.overcharges) for row in reader.accounts()],
        "epochs": [(row.epoch, row.started_at_us, row.ended_at_us) for row in reader.epochs()],
    }


def as_views(moment: Moment) -> dict[str, object]:
    counted = sorted((*moment.counts, *moment.tallies), key=lambda entry: (entry.state, entry.provider))
    assert moment.tasks is not None
    return {
        "counts": [(entry.state, entry.provider, entry.n) for entry in counted],
        "books": moment.books,
        "tasks": [
            (
                *(line.n, line.id, line.phase, line.version, line.account, line.provider),
                *(line.attempts, line.cost_microusd, line.reason, line.flags),
            )
            for line in moment.tasks
        ],
        "batch": moment.state,
        "accounts": [(line.n, line.name, line.parked, line.overcharges) for line in moment.accounts],
        "epochs": [(line.epoch, line.started_at_us, line.ended_at_us) for line in moment.epochs],
    }


@settings(max_examples=15)
@given(told=tellings)
def test_at_the_last_event_a_replay_says_what_the_views_say(told: list[tuple[int, list[TaskCommand]]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        end = seq_after(path, told)
        with Reader(path) as reader:
            assert as_views(moment_at(reader.store, 1, end, tasks=True)) == views(reader)


@settings(max_examples=12)
@given(told=tellings, cut=st.integers(0, 60))
def test_a_moment_is_the_fold_of_the_events_before_it(told: list[tuple[int, list[TaskCommand]]], cut: int) -> None:
    """However it is reached: in one go, in pages of any size, or played on from an earlier moment."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        end = seq_after(path, told)
        cut = min(cut, end)
        with Reader(path) as reader:
            straight = moment_at(reader.store, 1, cut, tasks=True)
            assert straight.seq == cut
            by_ones = Playback(reader.store, 1, tasks=True, page=1)
            by_ones.play(cut)
            assert by_ones.moment() == straight
            by_ones.play(end)
            assert by_ones.moment() == moment_at(reader.store, 1, end, tasks=True)
            phases = Counter(state.phase for state in replay_tasks(reader.store, 1).values())
            whole = moment_at(reader.store, 1, end)
            told_phases: Counter[str] = Counter()
            for entry in whole.counts:
                told_phases[entry.state] += entry.n
            assert told_phases == phases
            assert whole.digest() == moment_at(reader.store, 1, end, tasks=True).digest()


def moved(counts: Counter[str], step: Difference) -> Counter[str]:
    """Take every task where the difference says."""
    after = counts.copy()
    for (old, new), n in step.transitions.items():
        after[old] -= n
        after[new] += n
    return Counter({phase: n for phase, n in after.items() if n and phase})


def phases(moment: Moment) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in moment.counts:
        found[entry.state] += entry.n
    return found


@settings(max_examples=12)
@given(told=tellings, cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_differences_compose(told: list[tuple[int, list[TaskCommand]]], cuts: tuple[int, int]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bydawn.db"
        end = seq_after(path, told)
        a, b = sorted(min(cut, end) for cut in cuts)
        with Reader(path) as reader:
            first, then = difference(reader.store, 1, a, b), difference(reader.store, 1, b, end)
            whole = difference(reader.store, 1, a, end)
            nothing = difference(reader.store, 1, b, b)
        assert (first.before, first.after, then.after) == (whole.before, then.before, whole.after)
        assert Counter(first.events) + Counter(then.events) == Counter(whole.events)
        assert first.notable + then.notable == whole.notable
        for step in (first, then, whole):
            assert moved(phases(step.before), step) == phases(step.after)
        assert (nothing.transitions, nothing.events, nothing.notable) == ({}, {}, ())


def write(ledger: Ledger, stream: int, *events: object, at_us: int) -> None:
    with ledger.reader() as reader:
        version = reader.version(stream)
    append = Append(stream, version, events)  # type: ignore[arg-type]  # events of the stream's kind
    ledger.commit([Decision(appends=(append,), at_us=at_us)])


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A night with two batches and an account that was parked; task 1 was bought, 2 is held, 3 was not begun."""
    path = tmp_path / "bydawn.db"
    with opened(path, tasks=TASKS) as ledger:
        write(ledger, account_stream(1), AccountOpened(name="kie", provider="kie", fingerprint="f"), at_us=20)
        do(ledger, 1, INTEND, *bought(1))
        do(ledger, 2, *UNKNOWN)
        write(ledger, account_stream(1), AccountParked(reason="no_credit"), at_us=30)
        other = BatchOpened(name="other", folder="other", sandbox=True, operator="ann")
        write(ledger, batch_stream(2), other, at_us=31)
        charged = Overcharged(batch=2, task=1, attempt=1, ceiling_microusd=1, charged_microusd=2)
        write(ledger, account_stream(1), charged, at_us=32)
        write(ledger, batch_stream(1), BatchConfigured(operator="ann", budget_microusd=5), at_us=33)
        write(ledger, runtime_stream(), EpochEnded(stopped_by="done", exit_code=3), at_us=34)
    return path


def test_a_moment_tells_counts_books_accounts_and_runs(night: Path) -> None:
    with Reader(night) as reader:
        moment = moment_at(reader.store, 1, last_seq(reader.store))
    assert [(entry.state, entry.provider, entry.n) for entry in moment.counts] == [
        ("held", "kie", 1),
        ("queued", "", 1),
        ("succeeded", "kie", 1),
    ]
    assert moment.book("batch/1").captured == 50_000
    assert moment.book("account/kie").reserved == moment.book("risk/1").reserved == 60_000
    assert moment.book("account/none") == (0, 0, 0)
    assert [(line.name, line.parked, line.overcharges) for line in moment.accounts] == [("kie", "no_credit", 1)]
    (epoch,) = moment.epochs
    assert (epoch.epoch, epoch.ended_at_us, epoch.stopped_by, epoch.exit_code) == (1, 34, "done", 3)
    assert epoch.events == 3 + TASKS + 7 + 1  # what it wrote for this batch, not for the other
    assert moment.state.settings.budget_microusd == 5
    assert moment.unsealed == 0


def test_before_anything_there_is_nothing(night: Path) -> None:
    with Reader(night) as reader:
        moment = moment_at(reader.store, 1, 0)
    assert (moment.seq, moment.at_us, moment.counts, moment.books, moment.phases) == (0, 0, (), {}, b"")
    assert moment.state.name == ""


def test_a_difference_names_what_is_notable_and_leaves_the_other_batch_out(night: Path) -> None:
    with Reader(night) as reader:
        since = seq_at(reader.store, 20)
        step = difference(reader.store, 1, since, last_seq(reader.store))
    assert [type(entry.event).__name__ for entry in step.notable] == ["AccountParked", "BatchConfigured", "EpochEnded"]
    assert step.events == {"batch.configured.v1": 1}


def test_a_difference_tells_the_way_of_every_task(night: Path) -> None:
    with Reader(night) as reader:
        step = difference(reader.store, 1, 0, last_seq(reader.store))
    assert step.transitions == {("", "queued"): 1, ("", "held"): 1, ("", "succeeded"): 1}
    assert step.events["task.attempt_intended.v1"] == 2


def test_a_time_stands_for_the_newest_event_by_then(night: Path) -> None:
    with Reader(night) as reader:
        end = last_seq(reader.store)
        assert seq_at(reader.store, 0) == 0
        assert seq_at(reader.store, 10**18) == end
        assert time_of(reader.store, seq_at(reader.store, 33)) == 33
        assert time_of(reader.store, seq_at(reader.store, 32)) == 32
        assert time_of(reader.store, end + 1) == 0


def test_playing_past_the_end_stops_there_and_tells_how_far_it_is(night: Path) -> None:
    told: list[tuple[int, int]] = []
    with Reader(night) as reader:
        end = last_seq(reader.store)
        playback = Playback(reader.store, 1, page=10)
        playback.play(end + 100, lambda done, total: told.append((done, total)))
        assert playback.moment() == moment_at(reader.store, 1, end)
    assert told[0] == (10, end + 100)
    assert told[-1] == (end, end + 100)


@pytest.mark.parametrize("page", [1, 5, 1000])
def test_tasks_of_a_dropped_import_never_count(tmp_path: Path, page: int) -> None:
    """LED-11, also where a page of events holds the import and its end."""
    path = tmp_path / "bydawn.db"
    killed_import(path, [row(n) for n in range(1, 8)])
    with Reader(path) as reader:
        half = moment_at(reader.store, 1, last_seq(reader.store))
    assert half.unsealed == 3
    with opened(path) as ledger:
        ledger.stage(1, [row(2), row(11)], input_digest="d2")
        ledger.import_staged(1, source="s", input_digest="d2", at_us=4, share=True)
    assert verify(path).ok
    with Reader(path) as reader:
        playback = Playback(reader.store, 1, tasks=True, page=page)
        playback.play(last_seq(reader.store))
        moment = playback.moment()
        assert as_views(moment) == views(reader)
        phases_alone = Playback(reader.store, 1, page=page)
        phases_alone.play(last_seq(reader.store))
    assert phases_alone.moment().phases == moment.phases == b"\0\0\0\0\1\1"


def test_tallies_are_no_states() -> None:
    assert set(TALLIES) == {"flagged", "rejected", "shared"}


def test_another_batch_of_the_ledger_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bydawn.db"
    with opened(path) as ledger:
        queue(ledger, 2)
        do(ledger, 1, INTEND)
    with Reader(path) as reader:
        assert moment_at(reader.store, 2, last_seq(reader.store)).counts == ()
