"""One account's doubtful attempts over the fake provider, and what became of them."""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

import msgspec
import trio

from adapters.base import (
    HttpCall,
    HttpReply,
    ImageRequest,
    ListedJob,
    Pending,
    PollOutcome,
    Unreadable,
)
from ledger.commands import Intend, Record
from ledger.events import AttemptAmbiguous
from runtime.claims import Claims
from runtime.doubts import Doubts, evidence_of
from runtime.ports import WireError
from runtime.simulated import EPOCH_US
from runtime.trust import Trust, assume
from runtime.work import Work, WorkKey
from tests.runtime.fakes import CAPS, Bench, listed, run

NO_LISTING = msgspec.structs.replace(CAPS, listing=None)
Body: TypeAlias = Callable[["Doubting"], Awaitable[None]]


class Doubting:
    """One account's doubts and what they judged."""

    def __init__(
        self, bench: Bench, *, key_epoch: int = 0, taken_over: int = 0, trust: Callable[[int], Trust] = assume
    ) -> None:
        self.key_epoch = key_epoch
        self.key_in_doubt = False
        self.bench = bench
        self.judged: list[Work] = []
        self.passes = 0
        self.bound: dict[str, int] = {}  # job -> recorded time of its binding
        self.busy: set[str] = set()
        self.asked_since: list[int] = []
        self.date = ""
        self.forgotten: set[WorkKey] = set()  # of these nobody knows any more what was sent
        evidence = evidence_of(
            bench.account,
            query=self.query,
            clock=bench.clock,
            ledger_id="ledger",
            busy=lambda: self.busy,
            bound=self.bound_since,
            as_sent=self.as_sent,
        )
        self.doubts = Doubts(
            bench.account,
            log=bench.log,
            clock=bench.clock,
            random=bench.random,
            evidence=evidence,
            foreign=lambda epoch: epoch < self.key_epoch,
            key_in_doubt=lambda: self.key_in_doubt,
            spool=bench.spool,
            claims=Claims(look=self.look, bound=self.bound_ever, clock=bench.clock, visible_after_s=20.0),
            taken_over=taken_over,
            trust=trust,
        )

    async def look(self, job: str) -> PollOutcome:
        try:
            return self.bench.provider.read_poll(await self.bench.provider.send(HttpCall("GET", f"poll/{job}", {})))
        except WireError as exc:
            return Unreadable(str(exc))

    def bound_ever(self, jobs: Collection[str]) -> set[str]:
        return self.bound.keys() & set(jobs)

    async def as_sent(self, work: Work) -> ImageRequest | None:
        return None if work.key in self.forgotten else work.request

    async def query(self, call: HttpCall) -> HttpReply:
        self.asked_since.append(int(call.url.split("/")[1]))
        reply = await self.bench.provider.send(call)
        return msgspec.structs.replace(reply, headers={"date": self.date} if self.date else {})

    def bound_since(self, at_us: int) -> set[str]:
        return {job for job, bound_us in self.bound.items() if bound_us >= at_us}

    async def doubtful(self, n: int = 1, *, old: bool = False, named: bool = True, callback: bool = False) -> Work:
        """A task whose attempt is in doubt, of this epoch or of an older one."""
        work = self.bench.work(n)
        intent = Intend("fake", "fake", "1:1", "only", 40_000, "d", 0, callback=callback)
        await self.bench.log.record(work, intent)
        work.intended_at = None if old else self.bench.clock.monotonic()
        if named:
            await self.bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))
        if old:
            attempt = msgspec.structs.replace(work.attempt, epoch=self.bench.journal.epoch - 1)
            work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
        return work

    def first_pass_done(self) -> None:
        self.passes += 1


def doubt(
    bench: Bench,
    body: Callable[[Doubting], Awaitable[None]],
    *,
    seconds: float = 30.0,
    key_epoch: int = 0,
    taken_over: int = 0,
    trust: Callable[[int], Trust] = assume,
) -> Doubting:
    doubting = Doubting(bench, key_epoch=key_epoch, taken_over=taken_over, trust=trust)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            await body(doubting)
            nursery.start_soon(serve, doubting)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    run(go)
    return doubting


async def serve(doubting: Doubting) -> None:
    await doubting.doubts.run(judged=doubting.judged.append, first_pass_done=doubting.first_pass_done)


async def one(doubting: Doubting) -> None:
    doubting.doubts.add(await doubting.doubtful())


def job(name: str = "j1", prompt: str | None = "picture 1", at_us: int = EPOCH_US) -> ListedJob:
    return listed(name, prompt, at_us, Pending())
