"""A poller and what it told, for tests of polls, of sweeps, and of cancels."""

from collections.abc import Awaitable, Callable

import trio

from adapters.base import Finished
from adapters.capabilities import Rate
from ledger.commands import Intend, Record
from ledger.events import AttemptAccepted
from runtime.limits import TokenBucket
from runtime.poller import Poller, Told
from runtime.work import Work
from tests.runtime.fakes import Bench, run

FAST = Rate(1000, 1.0)
LINK = Finished(url="https://x/1.png", cost_microusd=30_000)


class Following:
    """One poller and what it told."""

    def __init__(self, bench: Bench, *, key_epoch: int = 0, rate: Rate = FAST) -> None:
        self.bench = bench
        self.told: list[str] = []
        self.charges: list[int | None] = []
        self.poller = Poller(
            bench.account,
            queries=TokenBucket(rate),
            log=bench.log,
            wire=bench.provider,
            clock=bench.clock,
            random=bench.random,
            told=Told(
                ready=lambda work: self.told.append("ready"),
                ended=lambda work, fault: self.told.append(f"ended {fault}"),
                stranded=lambda work: self.told.append("stranded"),
                unauthorized=lambda why: self.told.append(f"unauthorized {why}"),
                charged=lambda work, number: self.charges.append(work.state.attempts[number - 1].cost_microusd),
            ),
            foreign=lambda epoch: epoch < key_epoch,
        )

    async def accepted(self, n: int = 1) -> Work:
        """A task with an accepted job, made in the journal's epoch of now."""
        work = self.bench.work(n)
        intent = Intend("fake", "fake", "1:1", "only", 40_000, "d", 0)
        await self.bench.log.record(work, intent)
        await self.bench.log.record(work, Record(AttemptAccepted(attempt=1, job=f"j{n}")))
        return work


def follow(bench: Bench, body: Callable[[Following], Awaitable[None]], *, key_epoch: int = 0) -> Following:
    following = Following(bench, key_epoch=key_epoch)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(following.poller.run)
            await body(following)
            nursery.cancel_scope.cancel()

    run(go)
    return following
