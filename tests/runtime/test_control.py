"""Control messages: cancel, retry, resolve, with and without a running night."""

from pathlib import Path

import msgspec
import pytest

from ledger.commands import Decide, Record, TaskCommand
from ledger.events import (
    AttemptAccepted,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptUnknown,
    ControlTaken,
    ResultReady,
)
from ledger.streams import runtime_stream
from runtime.control import Controller, Done, Listeners
from runtime.history import cancel_wish
from runtime.inbox import CancelBatch, Control, ResolveTasks, RetryTasks
from runtime.simulated import EPOCH_US
from runtime.work import StreamConflict, Work, WorkKey
from tests.runtime.nights import OpenLedger, with_ledger


def controller(opened: OpenLedger, listeners: Listeners | None = None) -> Controller:
    return Controller(
        journal=opened.writer,
        log=opened.log,
        reader=opened.reader,
        clock=opened.clock,
        listeners=listeners or Listeners(),
    )


def test_a_cancel_stops_what_costs_nothing_and_counts_the_rest(tmp_path: Path) -> None:
    """W15; twice changes nothing more."""

    async def body(opened: OpenLedger) -> None:
        await opened.hold(2)
        await opened.intend(3)
        await opened.do(3, Record(AttemptAccepted(attempt=1, job="j3")))
        done = await controller(opened).apply(CancelBatch(batch=1, operator="me"))
        assert done == Done(changed=3, free=3, charged=1)
        assert opened.phases() == "cancelled cancelled accepted cancelled"
        assert opened.reader.batch(1).cancelled
        version = opened.reader.head().seq
        assert (await controller(opened).apply(CancelBatch(batch=1, operator="me"))).changed == 0
        assert opened.reader.head().seq == version + 1  # that it was taken

    with_ledger(tmp_path, body)


def test_a_second_cancel_is_a_wish_of_its_own(tmp_path: Path) -> None:
    """W15: what was bought since the first one is to be stopped as well, also after a kill.  Nobody knew of it."""

    async def body(opened: OpenLedger) -> None:
        await controller(opened).apply(CancelBatch(batch=1, operator="me"))
        first = cancel_wish(opened.reader, 1)
        opened.ledger.start_epoch(machine="m", pid=2, app_version="0", operator="o", command="run", at_us=EPOCH_US)
        await controller(opened).apply(CancelBatch(batch=1, operator="ann"))
        assert cancel_wish(opened.reader, 1) == (opened.ledger.epoch, "ann")
        assert first.epoch < opened.ledger.epoch

    with_ledger(tmp_path, body)


def test_a_cancel_tells_the_owners(tmp_path: Path) -> None:
    told: list[object] = []

    async def body(opened: OpenLedger) -> None:
        work = await opened.intend(1)

        def cancel_job(work: Work, operator: str) -> bool:
            told.append((work.n, operator))
            return True

        listeners = Listeners(
            owned=lambda key: work if key == WorkKey(1, 1) else None,
            stop_batch=told.append,
            cancel_job=cancel_job,
        )
        done = await controller(opened, listeners).apply(CancelBatch(batch=1, operator="me"))
        assert (done.unknown, done.charged) == (1, 0)

    with_ledger(tmp_path, body)
    assert told == [1, (1, "me")]


def test_what_came_home_failed_after_a_cancel_is_swept(tmp_path: Path) -> None:
    """LIVE-1: it was queued again in a batch that nobody buys for."""

    async def body(opened: OpenLedger) -> None:
        work = await opened.intend(1)
        await controller(opened).apply(CancelBatch(batch=1, operator="me"))
        await opened.log.record(work, Record(AttemptFailed(attempt=1, reason="provider")))
        assert opened.phases().startswith("queued")
        await controller(opened).sweep(1)
        assert opened.phases() == "cancelled cancelled cancelled cancelled"

    with_ledger(tmp_path, body)


def test_a_retry_wants_the_failed_ones_again(tmp_path: Path) -> None:
    again: list[Work] = []

    async def body(opened: OpenLedger) -> None:
        await opened.fail(1)
        await opened.fail(3)
        listeners = Listeners(queued_again=again.append)
        done = await controller(opened, listeners).apply(RetryTasks(batch=1, operator="me", tasks=(3, 4)))
        assert done == Done(changed=1, skipped=1)
        assert opened.phases() == "failed queued queued queued"
        assert (await controller(opened, listeners).apply(RetryTasks(batch=1, operator="me"))).changed == 1

    with_ledger(tmp_path, body)
    assert [work.n for work in again] == [3, 1]


def test_held_tasks_are_decided(tmp_path: Path) -> None:
    """MON-2: buying again is a permission; adopting hands the job to its account."""
    told: list[tuple[str, int]] = []

    async def body(opened: OpenLedger) -> None:
        for n in (1, 2, 3):
            await opened.hold(n)
        listeners = Listeners(
            queued_again=lambda work: told.append(("queued", work.n)),
            adopted=lambda work: told.append(("adopted", work.n)),
        )
        control = controller(opened, listeners)
        for n, decision in ((1, "buy_again"), (2, "give_up"), (3, "adopt")):
            message = ResolveTasks(batch=1, operator="me", decision=decision, tasks=(n,), jobs=("j3",))  # type: ignore[arg-type]
            assert (await control.apply(message)).changed == 1
        assert opened.phases() == "queued failed accepted queued"
        assert opened.work(1).state.permissions == 1

    with_ledger(tmp_path, body)
    assert told == [("queued", 1), ("adopted", 3)]


def test_several_jobs_are_adopted_by_one_message_and_none_by_two_tasks(tmp_path: Path) -> None:
    """REC-5: also when a job was bound between the question and the message."""

    async def body(opened: OpenLedger) -> None:
        await opened.intend(4)
        await opened.do(4, Record(AttemptAccepted(attempt=1, job="j4")))
        for n in (1, 2, 3):
            await opened.hold(n)
        message = ResolveTasks(batch=1, operator="me", decision="adopt", tasks=(3, 1, 2), jobs=("j3", "j4", "j3"))
        done = await controller(opened).apply(message)
        assert (done.changed, done.skipped) == (1, 2)
        jobs = [opened.work(n).state.attempts[0].job for n in (1, 2, 3, 4)]
        assert jobs in (["", "j3", "", "j4"], ["", "", "j3", "j4"])
        await opened.do(1, Record(AttemptAdopted(attempt=1, job="j1", evidence="operator")))
        rest = ResolveTasks(batch=1, operator="me", decision="adopt", tasks=(2, 3), jobs=("j2", "j5"))
        assert (await controller(opened).apply(rest)).changed == 1
        assert opened.phases() == "accepted accepted accepted accepted"

    with_ledger(tmp_path, body)


def test_a_job_that_a_lookup_just_found_for_another_task_is_not_adopted(tmp_path: Path) -> None:
    """REC-5: two equal requests, and the record of the lookup is on its way."""

    async def body(opened: OpenLedger) -> None:
        for n in (1, 2):
            await opened.hold(n)
        taken = {"j1"}

        def take(work: Work, job: str) -> bool:
            free = job not in taken
            taken.add(job)
            return free

        listeners = Listeners(take_job=take, give_job_back=lambda work, job: taken.discard(job))
        message = ResolveTasks(batch=1, operator="me", decision="adopt", tasks=(1, 2), jobs=("j1", "j2"))
        done = await controller(opened, listeners).apply(message)
        assert (done.changed, done.skipped) == (1, 1)
        assert opened.phases() == "held accepted queued queued"
        assert taken == {"j1", "j2"}

    with_ledger(tmp_path, body)


def test_a_job_of_a_decision_that_came_too_late_is_free_again(tmp_path: Path) -> None:
    """LIVE-1: else a lookup that finds it for an equal request could never bind it."""
    taken: set[str] = set()

    async def body(opened: OpenLedger) -> None:
        await opened.hold(1)
        opened.log.record = too_late  # type: ignore[method-assign, assignment]
        listeners = Listeners(
            take_job=lambda work, job: not taken.add(job),  # type: ignore[func-returns-value]
            give_job_back=lambda work, job: taken.discard(job),
        )
        message = ResolveTasks(batch=1, operator="me", decision="adopt", tasks=(1,), jobs=("j1",))
        assert (await controller(opened, listeners).apply(message)).changed == 0

    async def too_late(work: Work, command: TaskCommand) -> None:
        raise StreamConflict(f"{work!r} {command}")

    with_ledger(tmp_path, body)
    assert taken == set()


def test_no_more_is_bought_again_than_was_agreed_to(tmp_path: Path) -> None:
    """MON-2: a task that became held after the question is none of its business."""

    async def body(opened: OpenLedger) -> None:
        for n in (1, 2, 3):
            await opened.hold(n)
        message = ResolveTasks(batch=1, operator="me", decision="buy_again", most_microusd=120_000)
        done = await controller(opened).apply(message)
        assert (done.changed, done.skipped) == (2, 1)
        assert opened.phases() == "queued queued held queued"

    with_ledger(tmp_path, body)


def test_a_task_whose_late_image_comes_home_is_left_to_whoever_brings_it(tmp_path: Path) -> None:
    """MON-9, LIVE-3: a message about a settled or held task changed its stream under the purchase that was followed,
    and the news of that ended the whole night."""

    async def body(opened: OpenLedger) -> None:
        adopted = Record(AttemptAdopted(attempt=1, job="j", evidence="callback"))
        await opened.hold(1)
        given_up = await opened.do(1, Decide(operator="me", decision="give_up", attempt=1), adopted)
        await opened.hold(2)
        await opened.do(2, Decide(operator="me", decision="buy_again", attempt=1))
        await opened.intend(2)
        held = await opened.do(
            2,
            adopted,
            Record(AttemptAmbiguous(attempt=2, reason="no_reply")),
            Record(AttemptUnknown(attempt=2, reason="no_evidence")),
        )
        assert (given_up.state.phase, held.state.phase) == ("failed", "held")
        owned = {WorkKey(1, 1): given_up, WorkKey(1, 2): held}
        control = controller(opened, Listeners(owned=owned.get))
        assert (await control.apply(RetryTasks(batch=1, operator="me", tasks=(1,)))).skipped == 1
        done = await control.apply(ResolveTasks(batch=1, operator="me", decision="buy_again"))
        assert (done.changed, done.skipped) == (0, 1)
        done = await control.apply(CancelBatch(batch=1, operator="me"))
        assert (done.free, done.charged) == (2, 1)
        for work in owned.values():  # whoever follows them can still say what came of them
            await opened.log.record(work, Record(ResultReady(attempt=1)))

    with_ledger(tmp_path, body)


@pytest.mark.parametrize(
    "order",
    [
        CancelBatch(batch=1, operator="me"),
        ResolveTasks(batch=1, operator="me", decision="give_up"),
        ResolveTasks(batch=1, operator="me", decision="buy_again"),
    ],
    ids=("cancel", "give up", "buy again"),
)
def test_what_turned_up_is_under_way_beside_what_is_decided(tmp_path: Path, order: Control) -> None:
    """MON-9, LED-7: such a task could not be cancelled or given up; the command ended with a broken rule each time."""

    async def body(opened: OpenLedger) -> None:
        await opened.hold(1)
        await opened.do(1, Decide(operator="me", decision="buy_again", attempt=1))
        await opened.intend(1)
        await opened.do(
            1,
            Record(AttemptAmbiguous(attempt=2, reason="no_reply")),
            Record(AttemptUnknown(attempt=2, reason="no_evidence")),
            Record(AttemptAdopted(attempt=1, job="j", evidence="callback")),
        )
        assert opened.work(1).state.phase == "held"
        done = await controller(opened).apply(order)
        assert done.changed == (4 if isinstance(order, CancelBatch) else 1)
        assert (done.free, done.charged) == ((3, 1) if isinstance(order, CancelBatch) else (0, 0))
        state = opened.work(1).state
        assert (state.phase, state.cancel_asked) == ("accepted", isinstance(order, CancelBatch))
        assert not any(attempt.doubtful for attempt in state.attempts)

    with_ledger(tmp_path, body, tasks=4)


def test_only_old_ones_at_one_provider(tmp_path: Path) -> None:
    async def body(opened: OpenLedger) -> None:
        await opened.hold(1)
        other = ResolveTasks(batch=1, operator="me", decision="give_up", provider="segmind")
        assert (await controller(opened).apply(other)).changed == 0
        young = ResolveTasks(batch=1, operator="me", decision="give_up", older_s=3600.0)
        assert (await controller(opened).apply(young)).changed == 0
        opened.clock.jump(7200.0)
        assert (await controller(opened).apply(young)).changed == 1

    with_ledger(tmp_path, body)


def test_a_message_is_recorded_once_under_its_key(tmp_path: Path) -> None:
    """LED-3."""

    async def body(opened: OpenLedger) -> None:
        for _ in range(2):
            await controller(opened).apply(RetryTasks(batch=1, operator="me"), key=b"k" * 16)
        taken = [row.event for row in opened.reader.events() if isinstance(row.event, ControlTaken)]
        assert [(event.kind, msgspec.json.decode(event.result, type=Done)) for event in taken] == [("retry", Done())]

    with_ledger(tmp_path, body)


class LateReader:
    """Sees the runtime stream one version late, once: somebody else has written in between."""

    def __init__(self, opened: OpenLedger) -> None:
        self._opened = opened
        self.late = 1

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened.reader, name)

    def version(self, stream: int) -> int:
        found = self._opened.reader.version(stream)
        if stream == runtime_stream() and self.late:
            self.late -= 1
            return found - 1
        return found


def test_a_conflict_on_the_record_is_tried_again(tmp_path: Path) -> None:
    """The record was dropped, and the command that waited for it never heard of its message."""

    async def body(opened: OpenLedger) -> None:
        late = LateReader(opened)
        control = Controller(
            journal=opened.writer,
            log=opened.log,
            reader=late,  # type: ignore[arg-type]  # a reader in all but this
            clock=opened.clock,
        )
        await control.apply(RetryTasks(batch=1, operator="me"), key=b"k" * 16)
        assert late.late == 0
        assert opened.reader.seq_of_key(b"k" * 16) is not None

    with_ledger(tmp_path, body)
