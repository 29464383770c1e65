"""What other processes see of a ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.commands import Decide, Record, Review, Share
from ledger.decisions import Append, Committed, Decision
from ledger.events import (
    AccountOpened,
    AttemptAccepted,
    AttemptLost,
    AttemptNotSent,
    BatchConfigured,
    EpochEnded,
    LimiterSaved,
    ResultReady,
    TaskCompleted,
    TaskShared,
)
from ledger.journal import Ledger
from ledger.money import account_money, batch_money, lost_money
from ledger.openwork import QueuedShape
from ledger.reader import CountRow, Reader
from ledger.replay import replay_tasks
from ledger.streams import account_stream, batch_stream, runtime_stream, task_stream
from tests.ledger.ledgers import do, opened, queue
from tests.ledger.stories import INTEND, UNKNOWN, bought

SHARE = Share(owner=1, version=1, sha256="aa", size=10, media_type="image/png", width=8, height=8)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Tasks: 1 done, 2 held, 3 follows 1, 4 accepted, 5 ready, 6 queued again, 7 follows 6."""
    with opened(tmp_path / "bydawn.db") as ledger:
        queue(ledger, 7, owners={3: 1, 7: 6})
        do(ledger, 1, INTEND, *bought(1))
        do(ledger, 2, *UNKNOWN)
        do(ledger, 4, INTEND, Record(AttemptAccepted(attempt=1, job="j4")))
        do(ledger, 5, INTEND, Record(AttemptAccepted(attempt=1, job="j5")))
        do(ledger, 5, Record(ResultReady(attempt=1, expires_at_us=99)))
        do(ledger, 6, INTEND, Record(AttemptNotSent(attempt=1, reason="connect")))
        yield ledger


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[Reader]:
    with ledger.reader() as reader:
        yield reader


def test_tasks_are_paged_and_filtered(reader: Reader) -> None:
    assert [task.n for task in reader.tasks(1, limit=3)] == [1, 2, 3]
    assert [task.n for task in reader.tasks(1, after=3, limit=3)] == [4, 5, 6]
    assert [task.n for task in reader.tasks(1, states=("held", "ready"))] == [2, 5]
    assert [task.n for task in reader.tasks(1, provider="kie", states=("succeeded",))] == [1]
    assert reader.tasks(1, flag="blank") == []
    assert reader.tasks(9) == []


def test_a_task_carries_its_image_and_its_reason(ledger: Ledger, reader: Reader) -> None:
    done = reader.task(1, 1)
    assert done is not None
    assert (done.sha256, done.result_version, done.cost_microusd, done.shared_with) == ("aa", 1, 50_000, 0)
    held = reader.task_by_id(1, "row-2")
    assert held is not None
    assert (held.phase, held.reason, held.attempts, held.sha256) == ("held", "no_evidence", 1, "")
    do(ledger, 3, SHARE)
    shared = reader.task(1, 3)
    assert shared is not None
    assert (shared.sha256, shared.shared_with, shared.attempts) == ("aa", 1, 0)
    for missing in (reader.task(1, 0), reader.task(1, 8), reader.task_by_id(1, "row-9")):
        assert missing is None


def test_the_queue_holds_what_may_be_bought(reader: Reader) -> None:
    queued = reader.queued(1)
    assert [(task.n, task.state.version) for task in queued] == [(6, 3)]
    assert queued[0].request == '{"prompt":"picture 6"}'
    assert len(queued[0].salt) == 16
    assert queued[0].state == reader.state(task_stream(1, 6))
    assert reader.queued(1, after=6) == []
    assert reader.queued_shapes(1) == [QueuedShape("nano-banana-2", "1:1", "1K", references=False, count=1)]


def test_followers_wait_for_settled_owners(reader: Reader) -> None:
    (follower,) = reader.followers(1)
    assert (follower.n, follower.state.owner, follower.owner.sha256) == (3, 1, "aa")
    assert reader.followers(1, after=3) == []


def test_live_attempts_come_by_expiry_and_held_ones_apart(ledger: Ledger, reader: Reader) -> None:
    """RES-6: what expires is in front."""
    assert [(entry.n, entry.phase) for entry in reader.live()] == [(5, "ready"), (4, "accepted")]
    assert reader.live("kie")[0].state.attempts[0].job == "j5"
    assert reader.live("other") == []
    assert [(entry.n, entry.phase) for entry in reader.held(1)] == [(2, "unknown")]
    assert reader.held(1, account="other") == []
    do(ledger, 2, Decide(operator="ann", decision="give_up", attempt=1))
    assert reader.held(1) == []


def test_totals_are_read_without_looking_at_tasks(ledger: Ledger, reader: Reader) -> None:
    """MON-10: paid, lost and doubtful are lines of their own."""
    do(ledger, 4, Record(AttemptLost(attempt=1, reason="expired", cost_microusd=7)))
    do(ledger, 3, SHARE)
    do(ledger, 1, Review(version=1, verdict="rejected", operator="ann"))
    flagged = TaskCompleted(
        attempt=1,
        version=1,
        sha256="bb",
        size=1,
        media_type="image/png",
        width=1,
        height=1,
        cost_microusd=1,
        flags=("blank", "small"),
    )
    do(ledger, 5, Record(flagged))
    assert [task.n for task in reader.tasks(1, flag="blank")] == [5]
    counts = {(row.state, row.provider): row.n for row in reader.counts(1)}
    assert counts == {
        ("succeeded", "kie"): 2,
        ("succeeded", ""): 1,
        ("held", "kie"): 1,
        ("failed", "kie"): 1,
        ("queued", ""): 2,
    }
    assert CountRow("held", "kie", 1) in reader.counts(1)
    assert reader.tallies(1) == {"flagged": 1, "rejected": 1, "shared": 1}
    money = reader.money()
    assert money[batch_money(1)].captured == 50_008
    assert money[batch_money(1)].reserved == 60_000
    assert money[account_money("kie")].total == 110_008
    assert money[lost_money(1)] == (0, 7, 1)
    assert set(reader.money("lane/")) == {"lane/kie/default"}


def test_batches_accounts_lanes_and_epochs(ledger: Ledger, reader: Reader) -> None:
    account = (AccountOpened(name="kie", provider="kie", fingerprint="f"), LimiterSaved(lane="wide", concurrency=3))
    configured = (BatchConfigured(operator="ann", budget_microusd=5),)
    ended = (EpochEnded(stopped_by="done", exit_code=0),)
    (outcome,) = ledger.commit(
        [
            Decision(
                appends=(
                    Append(account_stream(1), 0, account),
                    Append(batch_stream(1), 3, configured),
                    Append(runtime_stream(), 1, ended),
                ),
                at_us=50,
            )
        ]
    )
    assert isinstance(outcome, Committed)
    (batch,) = reader.batches()
    assert (batch.name, batch.sandbox, batch.sealed_through, batch.cancelled) == ("night", True, 7, False)
    assert (reader.batch_by_name("night"), reader.batch_by_name("day"), reader.next_batch()) == (1, None, 2)
    assert reader.batch(1) == ledger.batch(1)
    assert reader.batch(1).settings.budget_microusd == 5
    assert reader.account(1) == ledger.account(1)
    assert [(row.n, row.name, row.parked) for row in reader.accounts()] == [(1, "kie", "")]
    assert [(row.account, row.lane, row.concurrency) for row in reader.lanes()] == [("kie", "wide", 3)]
    (epoch,) = reader.epochs()
    assert (epoch.epoch, epoch.started_at_us, epoch.ended_at_us, epoch.ended) == (1, 1, 50, ended[0])


def test_events_can_be_followed_and_streams_read(reader: Reader) -> None:
    events = reader.events(after=2, limit=2)
    assert [event.seq for event in events] == [3, 4]
    stream = task_stream(1, 1)
    assert [event.version for event in reader.events(stream=stream, after=2)] == [3, 4, 5]
    assert (reader.version(stream), reader.version(task_stream(1, 99))) == (5, 0)
    assert (reader.payload(1), reader.payload(99), reader.salted(99)) == ('{"prompt":"picture 1"}', None, None)


def test_all_tasks_fold_in_one_pass_to_what_each_folds_to(reader: Reader) -> None:
    """REC-1."""
    states = replay_tasks(reader.store, 1)
    assert {stream: reader.state(stream) for stream in states} == states
    assert len(states) == 7
    assert replay_tasks(reader.store, 2) == {}


def test_ends_are_those_of_the_batch_in_the_newest_events(ledger: Ledger, reader: Reader) -> None:
    do(ledger, 3, SHARE)
    ends = [row for row in reader.events() if isinstance(row.event, (TaskCompleted, TaskShared))]
    times = [row.at_us for row in ends]
    assert len(times) == 2
    head = reader.head().seq
    assert reader.ends(1, since_us=0, newest=head) == times
    assert reader.ends(1, since_us=0, newest=head - ends[0].seq) == times[1:]
    assert reader.ends(1, since_us=times[1] + 1, newest=head) == []
    assert reader.ends(2, since_us=0, newest=head) == []


def test_jobs_that_any_attempt_was_bound_to(ledger: Ledger, reader: Reader) -> None:
    """REC-5: also one that was adopted, whatever became of it since."""
    do(ledger, 2, Decide(operator="ann", decision="adopt", attempt=1, job="odd'\"job"))
    assert reader.bound(["j4", "j5", "odd'\"job", "j99", ""]) == {"j4", "j5", "odd'\"job"}
    assert reader.bound([]) == set()
