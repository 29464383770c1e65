"""Whether a job that a callback named may be bound to the attempt that it was called about.

Our token proves that whoever called was told the address of this attempt; it does not prove what the call says.  So
the job is read with the account's own key first, and it must be nobody's yet (REC-5, REC-7): one job binds one attempt.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Literal, TypeAlias

import trio

from adapters.base import NotVisible, PollOutcome, Throttled, Unreadable
from runtime.ports import Clock

Verdict: TypeAlias = Literal["there", "refused", "later"]

_AT_ONCE = 8


class Claims:
    """Judges the jobs that callbacks name, for one account."""

    def __init__(
        self,
        *,
        look: Callable[[str], Awaitable[PollOutcome]],
        bound: Callable[[Collection[str]], Collection[str]],
        clock: Clock,
        visible_after_s: float,
        given: set[str] | None = None,
    ) -> None:
        """``look`` reads a job; ``bound`` gives those of the jobs that the ledger has bound to an attempt.  ``given``
        holds those that were taken in this run: the same set for every account that may be shown the same jobs."""
        self._look = look
        self._bound = bound
        self._clock = clock
        self._visible_after_s = visible_after_s
        self._unseen_since: dict[str, float] = {}
        self._given: set[str] = set() if given is None else given

    def take(self, job: str) -> bool:
        """Reserve a job for one attempt; False when another one has it in this run.  Every adoption asks first: between
        a verdict and its record there is time for another verdict."""
        free = job not in self._given
        self._given.add(job)
        return free

    def give_back(self, job: str) -> None:
        """It was not bound after all: somebody was faster with the attempt, and another one may have the job."""
        self._given.discard(job)

    async def judge(self, jobs: Collection[str]) -> dict[str, Verdict]:
        """Say of each job whether it is there and nobody's.  ``later``: that could not be read now."""
        verdicts: dict[str, Verdict] = {}
        turns = trio.CapacityLimiter(_AT_ONCE)

        async def ask(job: str) -> None:
            async with turns:
                verdicts[job] = self._verdict(job, await self._look(job))

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(ask, job)
        # Read after the jobs were: what the account bound in the meantime counts.
        there = [job for job, verdict in verdicts.items() if verdict == "there"]
        for job in self._bound(there) if there else ():
            verdicts[job] = "refused"
        return verdicts

    def _verdict(self, job: str, outcome: PollOutcome) -> Verdict:
        match outcome:
            case NotVisible():
                now = self._clock.monotonic()
                # It is called about when it has ended, and yet a replica may not show it.
                if now < self._unseen_since.setdefault(job, now) + self._visible_after_s:
                    return "later"
                del self._unseen_since[job]
                return "refused"
            case Throttled() | Unreadable():
                return "later"
            case _:
                self._unseen_since.pop(job, None)
                return "there"
