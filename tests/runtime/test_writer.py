"""The ledger writer: groups, order, cancellation, and the end of everything after a failed commit (LED-3..LED-7)."""

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ledger.decisions import Committed, Decision, Outcome
from ledger.errors import CommitFailed, DiskFull, LedgerError
from ledger.journal import Ledger
from runtime.simulated import SimThreads
from runtime.writer import LedgerWriter
from tests.runtime.fakes import run


class FakeLedger:
    """Counts its commits; ``fails`` is raised by the next one."""

    epoch = 3

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.fails: BaseException | None = None

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]:
        if self.fails is not None:
            raise self.fails
        self.groups.append(len(decisions))
        return [Committed(sum(self.groups) - len(decisions) + place) for place in range(1, len(decisions) + 1)]


def writer_over(ledger: FakeLedger) -> LedgerWriter:
    stands_in: Ledger = ledger  # type: ignore[assignment]  # what the writer uses of it
    return LedgerWriter(stands_in, SimThreads())


def decision(at_us: int = 1) -> Decision:
    return Decision(appends=(), at_us=at_us)


def test_what_waits_shares_one_commit_and_is_answered_in_order() -> None:
    ledger, seqs = FakeLedger(), []

    async def append(writer: LedgerWriter) -> None:
        outcome = await writer.append(decision())
        assert isinstance(outcome, Committed)
        seqs.append(outcome.seq)

    async def go() -> None:
        writer = writer_over(ledger)
        async with trio.open_nursery() as callers:
            for _ in range(700):
                callers.start_soon(append, writer)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                writer.close()

    run(go)
    assert ledger.groups == [512, 188]
    assert sorted(seqs) == list(range(1, 701))


def test_a_cancelled_caller_still_gets_its_answer_first() -> None:
    """LED-3, LED-4: an append that was handed in is durable whether or not its caller was cancelled."""
    ledger = FakeLedger()
    answered: list[object] = []

    async def go() -> None:
        writer = writer_over(ledger)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                scope.cancel()
                nursery.start_soon(writer.run)
                answered.append(await writer.append(decision()))
                await trio.lowlevel.checkpoint()
                answered.append("went on although cancelled")
            assert scope.cancelled_caught
            writer.close()

    run(go)
    assert answered == [Committed(1)]


def test_the_writer_outlives_the_cancellation_of_its_nursery() -> None:
    """LED-4: what the actors hand in on their way down is still committed."""
    ledger = FakeLedger()

    async def go() -> None:
        writer = writer_over(ledger)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                scope.cancel()
                assert await writer.append(decision()) == Committed(1)
                writer.close()

    run(go)
    assert ledger.groups == [1]


@pytest.mark.parametrize("error", [CommitFailed("io"), DiskFull("full")])
def test_a_failed_commit_answers_everybody_and_ends_the_writer(error: LedgerError) -> None:
    """LED-7."""
    ledger, heard = FakeLedger(), []
    ledger.fails = error

    async def append(writer: LedgerWriter) -> None:
        try:
            await writer.append(decision())
        except LedgerError as exc:
            heard.append(exc)

    async def go() -> None:
        writer = writer_over(ledger)
        async with trio.open_nursery() as callers:
            for _ in range(3):
                callers.start_soon(append, writer)
            await wait_all_tasks_blocked()
            with pytest.raises(type(error)):
                await writer.run()
            ledger.fails = None
            await append(writer)  # no retry on that handle

    run(go)
    assert heard == [error] * 4
    assert ledger.groups == []


def test_any_other_death_of_the_writer_is_a_failed_commit_for_the_callers() -> None:
    ledger = FakeLedger()
    ledger.fails = KeyboardInterrupt()

    async def go() -> None:
        writer = writer_over(ledger)

        async def writing() -> None:
            with pytest.raises(KeyboardInterrupt):
                await writer.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writing)
            with pytest.raises(CommitFailed):
                await writer.append(decision())

    run(go)


def test_an_append_after_the_end_is_refused_and_does_not_hang() -> None:
    """Behind its shield it would wait for ever."""

    async def go() -> None:
        writer = writer_over(FakeLedger())
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            writer.close()
        with pytest.raises(LedgerError, match="closed"):
            await writer.append(decision())

    run(go)
