"""One way to add to a task's stream: durable first, then visible (MON-2, LED-3)."""

from functools import partial

import pytest
import trio

from ledger.commands import Cancel, Fail, Intend, Record
from ledger.decisions import Exceeded, Guard, Reserve
from ledger.errors import CommandRejected, CommitFailed
from ledger.events import AttemptAccepted, AttemptFailed, PayloadRef
from ledger.folds import EMPTY_TASK
from runtime.work import Overtaken, StreamConflict, TaskLog, Work
from tests.runtime.fakes import Bench, run

INTEND = Intend("fake", "fake", "1:1", "only", 40_000, "d", 0)


def test_the_state_moves_after_the_answer_and_not_before() -> None:
    bench = Bench()
    phases: list[str] = []

    async def go() -> None:
        work = bench.work()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(bench.log.record, work, INTEND))
            await trio.sleep(0.0005)
            phases.append(work.state.phase)
        phases.append(work.state.phase)

    run(go)
    assert phases == ["queued", "intended"]


def test_the_log_names_a_task_by_the_id_that_people_know() -> None:
    work = Bench().work(7)
    assert repr(work) == "<task row7, queued>"
    work.state = EMPTY_TASK  # of an event that was lost
    assert repr(work) == f"<task #7, {EMPTY_TASK.phase}>"


def test_what_is_on_record_already_is_not_appended_again() -> None:
    bench = Bench()

    async def go() -> None:
        work = bench.work()
        await bench.log.record(work, INTEND)
        for _ in range(2):
            await bench.log.record(work, Record(AttemptAccepted(attempt=1, job="j")))
            await bench.log.record(work, Cancel(operator="me"))

    run(go)
    assert bench.journal.types() == ["AttemptIntended", "AttemptAccepted", "CancelAsked"]


def test_a_second_owner_is_a_conflict_and_leaves_the_state() -> None:
    bench = Bench()

    async def go() -> None:
        mine, theirs = bench.work(), bench.work()
        await bench.log.record(mine, INTEND)
        with pytest.raises(StreamConflict, match="row1"):
            await bench.log.record(theirs, INTEND)
        assert theirs.state.phase == "queued"
        with pytest.raises(CommandRejected):
            await bench.log.record(mine, INTEND)

    run(go)


def test_a_guard_and_a_broken_ledger_leave_the_state() -> None:
    """MON-8, LED-7: and the guards are asked for the time that the events carry."""
    bench = Bench()
    asked: list[int] = []
    bench.journal.refuses = lambda guard: True

    def guards(at_us: int) -> tuple[Guard, ...]:
        asked.append(at_us)
        return (Reserve("batch/1", 1),)

    async def go() -> None:
        work = bench.work()
        assert isinstance(await bench.log.record(work, INTEND, guards=guards), Exceeded)
        assert asked == [bench.clock.now_us() - 1000]
        bench.journal.broken = CommitFailed("io")
        with pytest.raises(CommitFailed):
            await bench.log.record(work, Fail(reason="lost"))
        assert work.state.phase == "queued"

    run(go)


def test_attempts_are_bounded_by_the_log() -> None:
    bench = Bench()
    log = TaskLog(bench.journal, bench.clock, max_attempts=2)

    async def go() -> None:
        work = bench.work()
        for number in (1, 2):
            await log.record(work, INTEND)
            await log.record(work, Record(AttemptFailed(attempt=number, reason="provider", detail=PayloadRef(1, "d"))))
        assert (work.state.phase, work.state.reason) == ("failed", "attempts_exhausted")

    run(go)


def test_the_followed_attempt_is_the_newest_live_one() -> None:
    bench = Bench()

    async def go() -> None:
        work = bench.work()
        await bench.log.record(work, INTEND)
        await bench.log.record(work, Record(AttemptFailed(attempt=1, reason="provider")))
        assert work.attempt.number == 1
        await bench.log.record(work, INTEND)
        assert work.attempt.number == 2

    run(go)


def test_markers_are_stable_distinct_and_small() -> None:
    """REC-5: the provider shows them back as a seed."""
    work: Work = Bench().work()
    markers = {work.marker("ledger", attempt) for attempt in range(1, 500)}
    assert len(markers) == 499
    assert all(1 <= marker < 2**31 for marker in markers)
    assert work.marker("ledger", 1) == Bench().work().marker("ledger", 1)
    assert work.marker("ledger", 1) != work.marker("other", 1)


def test_body_digests_are_salted() -> None:
    """SEC-8."""
    one, other = Bench().work(), Bench().work()
    other.salt = b"another"
    assert one.body_digest(b"body") != other.body_digest(b"body")
    assert one.body_digest(b"body") == Bench().work().body_digest(b"body")


def test_several_tasks_are_recorded_together_or_not_at_all() -> None:
    """MON-1: one commit holds the intents of all lines of a batch file."""
    bench = Bench()

    async def go() -> None:
        first, second, third = (bench.work(n) for n in (1, 2, 3))
        theirs = bench.work(2)
        await bench.log.record(theirs, INTEND)
        with pytest.raises(Overtaken, match="row2") as caught:
            await bench.log.record_all([(first, INTEND), (second, INTEND), (third, INTEND)])
        assert caught.value.work is second
        assert [first.state.phase, second.state.phase, third.state.phase] == ["queued"] * 3
        assert await bench.log.record_all([(first, INTEND), (third, INTEND)]) is None
        assert [first.state.phase, third.state.phase] == ["intended"] * 2

    run(go)
    assert bench.journal.types() == ["AttemptIntended"] * 3


def test_a_guard_refuses_all_of_them() -> None:
    bench = Bench()
    bench.journal.refuses = lambda guard: True

    async def go() -> None:
        works = [bench.work(n) for n in (1, 2)]
        guard = Reserve("batch/1", 1)
        refused = await bench.log.record_all([(work, INTEND) for work in works], guards=lambda at_us: (guard,))
        assert refused == Exceeded(guard, 0)
        assert [work.state.phase for work in works] == ["queued"] * 2

    run(go)
    assert bench.journal.events == []
