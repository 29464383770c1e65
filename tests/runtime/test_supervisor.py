"""LIVE-4: restarted within a budget, parked above it, never restarted into a broken ledger."""

from random import Random

import pytest
import trio
import trio.testing

from ledger.errors import CommitFailed
from runtime.simulated import SimClock
from runtime.supervisor import supervise


class Flaky:
    def __init__(self, failures: int, error: type[Exception] = RuntimeError) -> None:
        self.left = failures
        self.runs = 0
        self.error = error

    async def run(self) -> None:
        self.runs += 1
        await trio.lowlevel.checkpoint()
        if self.left:
            self.left -= 1
            raise self.error("no")


def night(flaky: Flaky) -> list[str]:
    parked: list[str] = []

    async def go() -> None:
        await supervise("flaky", flaky.run, clock=SimClock(), random=Random(1), on_parked=parked.append)

    trio.run(go, clock=trio.testing.MockClock(autojump_threshold=0))
    return parked


def test_a_few_failures_are_restarted() -> None:
    flaky = Flaky(failures=4)
    assert night(flaky) == []
    assert flaky.runs == 5


def test_over_budget_is_parked_with_the_cause() -> None:
    flaky = Flaky(failures=1000)
    assert night(flaky) == ["flaky failed 6 times in 60 s: RuntimeError: no"]


def test_a_broken_ledger_ends_the_run_at_once() -> None:
    """LED-7."""
    flaky = Flaky(failures=1, error=CommitFailed)
    with pytest.raises(CommitFailed):
        night(flaky)
    assert flaky.runs == 1


def test_a_fatal_error_is_found_inside_groups() -> None:
    class Nested(Flaky):
        async def run(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(super().run)

    with pytest.raises(CommitFailed):
        night(Nested(failures=1, error=CommitFailed))
