"""Follows the accepted jobs of one account until each is ready, failed or lost.

One heap of due times behind the account's query limit: the first poll near the observed latency, then short
growing steps, all with jitter.  A local timeout never ends a job (MON-6); only what the provider says does.

Callbacks come first where they come at all: while this account is called back, the first poll of a job that has an
address waits three times as long.  A poll that finds an ended job that nobody called about ends that trust, the next
callback renews it.  So a receiver that nobody reaches costs nothing but the polls.
"""

import heapq
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import TypeAlias

import msgspec
import trio

from adapters.base import (
    Cancels,
    Failed,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Polls,
    Recall,
    Sweeps,
    Throttled,
    Unreadable,
)
from ledger.commands import Cancel, Record
from ledger.events import AttemptLost
from runtime import faults
from runtime.accounts import Account
from runtime.delivery import record_failed, record_ready
from runtime.keycheck import Seen, seen
from runtime.limits import LatencyEstimate, TokenBucket
from runtime.patience import Patience
from runtime.ports import Clock, Wire, WireError
from runtime.reconcile import SKEW_S
from runtime.waiting import Bell
from runtime.work import TaskLog, Work, WorkKey

_log = logging.getLogger(__name__)

_AT_ONCE = 16
_WORTH_A_SWEEP = 3  # jobs; fewer are polled one by one
_SWEEP_AHEAD_S = 0.5  # jobs that are due so soon are asked for with those that are due now
_SWEEP_PAUSE_S = 60.0  # after a sweep that could not be read
_TRUST = 3.0  # how much later the first poll comes while callbacks do


_Due: TypeAlias = tuple[float, int, Work]  # when, ticket, work


class Told(msgspec.Struct, frozen=True):
    """What the account does with the news of a job."""

    ready: Callable[[Work], None]
    ended: Callable[[Work, bool], None]  # settled or queued again; True = the provider's own failure
    stranded: Callable[[Work], None]  # this account can tell nothing about the job: it stays open
    unauthorized: Callable[[str], None]
    charged: Callable[[Work, int], None]  # what an attempt without an image cost is on record


class Poller:
    def __init__(
        self,
        account: Account,
        *,
        queries: TokenBucket,
        log: TaskLog,
        wire: Wire,
        clock: Clock,
        random: Random,
        told: Told,
        foreign: Callable[[int], bool],
    ) -> None:
        """``foreign``: whether attempts of an epoch may have been made from another account, so that *not found* proves
        nothing about them (REC-9)."""
        self._account = account
        self._caps = account.codec.capabilities
        self._queries = queries
        self._log = log
        self._wire = wire
        self._clock = clock
        self._random = random
        self._told = told
        self._foreign = foreign
        self._patience = Patience(self._caps, clock, log)
        self._due: list[tuple[float, int, Work]] = []
        self._tickets: dict[WorkKey, int] = {}  # of the one entry of each work that counts
        self._ticket = 0
        self._bell = Bell()
        self._no_sweep_before = 0.0
        self._told_to_stop: set[str] = set()  # jobs; a second time where the answer was lost
        self._throttled = 0  # answers in a row that said: too fast, and not how long to wait
        self._called_back = False
        self.latency = LatencyEstimate(account.latency_s or self._caps.typical_latency_s.value * 0.25)

    def __repr__(self) -> str:
        return f"<Poller {self._account.name} due={len(self._tickets)} first_poll={self.latency.seconds:.1f}s>"

    def accepted(self, work: Work) -> None:
        """A job was just accepted: poll it near its expected end."""
        work.polls = 0
        work.accepted_at = work.followed_at = self._clock.monotonic()
        patience = _TRUST if self._called_back and work.attempt.callback else 1.0
        self._schedule(work, patience * self.latency.delay_s(0) * self._random.uniform(0.95, 1.05))

    def overdue(self, work: Work, *, within_s: float = 0.0) -> None:
        """A job of unknown age: poll it soon, spread over ``within_s``; it teaches nothing about latency."""
        work.polls = 1
        if work.followed_at is None:
            work.followed_at = self._clock.monotonic()
        self._schedule(work, self._random.uniform(0.0, within_s))

    def hinted(self, work: Work) -> None:
        """The provider called back about the job: ask for it now.  That teaches nothing about latency, since whoever
        called may have lied."""
        work.hinted = self._called_back = True
        work.polls = max(1, work.polls)
        self._schedule(work, 0.0)

    def clear(self) -> None:
        """Forget the due times (the owner is about to schedule all its works anew)."""
        self._due.clear()
        self._tickets.clear()

    async def run(self) -> None:
        """Poll until cancelled."""
        slots = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                now = self._clock.monotonic()
                if not self._due or self._due[0][0] > now:
                    await self._bell.wait_rung(deadline=self._due[0][0] if self._due else float("inf"))
                    continue
                _, ticket, work = self._due[0]
                if self._tickets.get(work.key) != ticket:  # scheduled anew since
                    heapq.heappop(self._due)
                    continue
                await slots.acquire_on_behalf_of(turn := object())
                await self.wait_query()
                together = self._due_together(heapq.heappop(self._due))  # what is due first may be another one by now
                if len(together) > 1:
                    nursery.start_soon(self._sweep, together, slots, turn)
                else:
                    _, ticket, work = together[0]
                    nursery.start_soon(self._poll, work, ticket, slots, turn)

    async def wait_query(self) -> None:
        """Wait until the account's query limit allows one more free call, and count it."""
        while (wait_s := self._queries.seconds_until_free(self._clock.monotonic())) > 0:
            await self._clock.sleep_until(self._clock.monotonic() + wait_s)
        self._queries.take(self._clock.monotonic())

    async def query(self, call: HttpCall) -> HttpReply:
        """Send a free call under the query limit.  Raises WireError."""
        await self.wait_query()
        return await self._wire.send(call)

    async def ask(self, work: Work) -> PollOutcome:
        """Read the job of the followed attempt; what network and peer do wrong becomes ``Unreadable``."""
        codec = self._account.codec
        if not isinstance(codec, Polls):
            return Gone(detail="the image came inside a reply, and the reply is not there any more")
        try:
            if work.cancel_by and work.phase == "accepted" and isinstance(codec, Cancels):  # else it has ended already
                return await self._cancelled(work, codec)
            return codec.read_poll(await self._wire.send(codec.build_poll(work.attempt.job, self._account.context())))
        except WireError as exc:
            return Unreadable(detail=str(exc))
        except MalformedReply as exc:
            return Unreadable(detail=f"malformed reply: {exc}", garbled=True)

    async def _cancelled(self, work: Work, codec: Cancels) -> PollOutcome:
        """Tell the provider to stop the job: once more, where nothing can be read of the first answer (W15)."""
        job, operator = work.attempt.job, work.cancel_by
        again = job in self._told_to_stop
        self._told_to_stop.add(job)
        await self._log.record(work, Cancel(operator=operator))
        work.cancel_by = ""
        faults.point("cancel_recorded")
        ended = await self._ended_before_its_cancel(work, again=again)
        if ended is not None:
            return ended
        work.cancel_by = "" if again else operator  # until the answer is there
        outcome = codec.read_cancel(await self._wire.send(codec.build_cancel(job, self._account.context())))
        faults.point("cancel_answered")
        if not isinstance(outcome, Throttled | Unreadable):
            work.cancel_by = ""
        return outcome

    async def _ended_before_its_cancel(self, work: Work, *, again: bool) -> Finished | Failed | Gone | None:
        """Where a cancelled job is charged, what has ended already is taken: a cancel may delete the image with the job
        (MON-9).  So it is where the provider may have been told before, or the job had the time of a restart to end
        (W15)."""
        charged = self._caps.cancel
        if (charged is None or not charged.value) and not again and work.attempt.epoch >= self._log.epoch:
            return None
        outcome = await self.look(work.attempt.job)
        return outcome if isinstance(outcome, Finished | Failed | Gone) else None

    async def look(self, job: str) -> PollOutcome:
        """Read a job that no attempt is bound to yet, under the query limit."""
        codec = self._account.codec
        if not isinstance(codec, Polls):
            return NotVisible()
        try:
            outcome = codec.read_poll(await self.query(codec.build_poll(job, self._account.context())))
        except (WireError, MalformedReply) as exc:
            return Unreadable(detail=str(exc))
        if isinstance(outcome, Throttled):
            self._pause(outcome)
        return outcome

    async def sees(self, job: str) -> Seen:
        """Whether a job is readable with the account's key."""
        return seen(await self.look(job))

    # --- many jobs in one call -----------------------------------------------------------------------------

    def _due_together(self, first: _Due) -> list[_Due]:
        """Take what one call can tell about beside ``first`` off the heap: it is due now, or nearly."""
        codec, now = self._account.codec, self._clock.monotonic()
        together = [first]
        if not isinstance(codec, Sweeps) or now < self._no_sweep_before:
            return together
        horizon = now + max(_SWEEP_AHEAD_S, self.latency.seconds / 10)
        while self._due and self._due[0][0] <= horizon and len(together) < codec.sweep_size:
            entry = heapq.heappop(self._due)
            if self._tickets.get(entry[2].key) == entry[1]:
                together.append(entry)
        if len(together) >= _WORTH_A_SWEEP:
            return together
        for entry in together[1:]:
            heapq.heappush(self._due, entry)
        return [first]

    async def _sweep(self, entries: list[_Due], slots: trio.CapacityLimiter, turn: object) -> None:
        """Ask for many jobs in one call; those that it does not tell about are polled one by one."""
        try:
            codec = self._account.codec
            assert isinstance(codec, Sweeps)
            works = deque(work for _, ticket, work in entries if self._to_poll(work, ticket))
            for work in works:
                work.polling = True
            try:
                told = await self._asked_together(codec, works) if works else {}
                while works:
                    work = works[0]
                    if told is not None:
                        await self._swept(work, told)
                    # Before its next poll is due, which it would keep away; and not again after that has begun.
                    works.popleft().polling = False
                    if told is None:
                        self._schedule(work, 0.0)
            finally:
                for work in works:
                    work.polling = False
        finally:
            slots.release_on_behalf_of(turn)

    async def _swept(self, work: Work, told: Mapping[str, PollOutcome]) -> None:
        outcome = None if work.cancel_by else told.get(work.attempt.job)
        if outcome is None:
            await self.wait_query()
            outcome = await self.ask(work)
        await self._polled(work, outcome)

    async def _asked_together(self, codec: Sweeps, works: Collection[Work]) -> Mapping[str, PollOutcome] | None:
        """What it tells by job; None when it tells nothing."""
        margin_us, now_us = int(SKEW_S * 1e6), self._clock.now_us()
        # A clock that was set back since would ask for a time that ends before it begins; what such a question
        # cannot tell about is polled alone.
        oldest_us = min(now_us, *(work.attempt.intended_at_us for work in works))
        call = codec.build_sweep(
            [work.attempt.job for work in works],
            self._account.context(),
            since_us=max(0, oldest_us - margin_us),
            until_us=now_us + margin_us,
        )
        try:
            return codec.read_sweep(await self._wire.send(call))
        except (WireError, MalformedReply) as exc:
            _log.info("%s: many jobs in one call: %s", self._account.name, exc)
            self._no_sweep_before = self._clock.monotonic() + _SWEEP_PAUSE_S
            return None

    # --- one poll -----------------------------------------------------------------------------------------

    def _schedule(self, work: Work, delay_s: float) -> None:
        """Put the next poll of a work on the heap; an earlier entry of it counts no longer."""
        self._ticket += 1
        self._tickets[work.key] = self._ticket
        heapq.heappush(self._due, (self._clock.monotonic() + delay_s, self._ticket, work))
        self._bell.ring()

    def _to_poll(self, work: Work, ticket: int) -> bool:
        """Whether the entry still counts, and the job is still ours to ask for."""
        if self._tickets.get(work.key) != ticket:
            return False
        if work.phase != "accepted" or work.attempt.account != self._account.name:
            del self._tickets[work.key]  # somebody else's by now
            return False
        return not work.polling  # that poll will schedule the next one

    async def _poll(self, work: Work, ticket: int, slots: trio.CapacityLimiter, turn: object) -> None:
        try:
            if not self._to_poll(work, ticket):
                return
            work.polling = True
            try:
                await self._polled(work, await self.ask(work))
            finally:
                work.polling = False
        finally:
            slots.release_on_behalf_of(turn)

    async def _polled(self, work: Work, outcome: PollOutcome) -> None:
        foreign = self._foreign(work.attempt.epoch)
        if foreign and isinstance(outcome, Failed | Gone):
            outcome = NotVisible()  # what another account is told of a job that it does not see (REC-9)
        work.polls += 1
        if work.polls == 1:
            age_s = self._clock.monotonic() - work.accepted_at
            self.latency.first_poll_found(age_s, done=not isinstance(outcome, Pending | NotVisible))
        if isinstance(outcome, Finished | Failed) and not work.hinted and work.attempt.callback:
            self._called_back = False
        if not isinstance(outcome, Throttled):
            self._throttled = 0
        self._patience.heard(work, outcome)
        match outcome:
            case Finished():
                faults.point("result_seen")
                await self._ready(work, outcome)
            case Failed():
                await self._failed(work, outcome)
            case Gone() if self._patience.gone_for_good(work):
                recalled = await self.recall(work)
                await self._recalled(work, outcome if isinstance(recalled, NotVisible | Pending) else recalled)
            case NotVisible() if foreign and self._patience.unseen(work):
                self._strand(work, "it was bought with another key than the account has now")
            case NotVisible() if not foreign and self._patience.invisible_for_good(work):
                await self._recalled(work, await self.recall(work))
            case Throttled():
                self._pause(outcome)
                self._again(work)
            case Unreadable(garbled=True, detail=detail) if self._patience.garbled_for_good(work):
                await self._never_read(work, f"its answers cannot be read ({detail})")
            case Pending(unnamed=state) if state and self._patience.unnamed_for_good(work):
                await self._never_read(work, f"it is in a state that nobody knows ({state})")
            case Unreadable(unauthorized=True, detail=detail):
                self._told.unauthorized(detail)
                if self._patience.refused_for_good(work):
                    self._strand(work, "the account's key is refused")
                else:
                    self._schedule(work, 30.0)
            case Pending() | NotVisible() | Gone() | Unreadable():
                self._again(work)

    def _pause(self, throttled: Throttled) -> None:
        """Ask nothing for as long as the provider says, else longer each time in a row, up to its whole window."""
        pause_s = throttled.retry_after_s
        if pause_s is None:
            self._throttled += 1
            longest_s = self._queries.rate.per_s
            pause_s = min(longest_s, 2.0 ** min(self._throttled, 10)) * self._random.uniform(0.5, 1.0)
        self._queries.block(self._clock.monotonic() + pause_s)

    def _again(self, work: Work) -> None:
        at_once = work.cancel_by and work.attempt.job not in self._told_to_stop
        delay_s = 0.0 if at_once else self.latency.delay_s(max(1, work.polls)) * self._random.uniform(0.9, 1.1)
        self._schedule(work, delay_s)

    async def _ready(self, work: Work, outcome: Finished) -> None:
        life_s = self._caps.result_life_s.value
        await record_ready(self._log, self._clock, work, work.attempt.number, outcome, life_s=life_s)
        faults.point("ready_recorded")
        self._tickets.pop(work.key, None)
        self._told.ready(work)

    async def recall(self, work: Work) -> PollOutcome:
        """Ask for a job that polls have forgotten: some providers know more in a slower place."""
        codec = self._account.codec
        if not isinstance(codec, Recall):
            return NotVisible()
        try:
            return codec.read_recall(await self.query(codec.build_recall(work.attempt.job, self._account.context())))
        except (WireError, MalformedReply) as exc:
            return Unreadable(detail=str(exc))

    async def _recalled(self, work: Work, outcome: PollOutcome) -> None:
        match outcome:
            case Finished():
                await self._ready(work, outcome)
            case Failed():
                await self._failed(work, outcome)
            case Gone(detail=detail):
                await self._lost(work, detail or "the provider no longer has the result")
            case NotVisible():
                await self._lost(work, "the provider does not know the job")
            case _:
                self._again(work)

    async def _never_read(self, work: Work, why: str) -> None:
        if self._patience.outlived(work):
            await self._lost(work, "no answer about it could be read for as long as a result is kept")
        else:
            self._strand(work, why)

    def _strand(self, work: Work, why: str) -> None:
        _log.error("%r: %s: it is asked for again by the next run", work, why)
        del self._tickets[work.key]
        self._told.stranded(work)

    async def _failed(self, work: Work, outcome: Failed) -> None:
        number = work.attempt.number
        await record_failed(self._log, work, number, outcome)
        self._told.charged(work, number)
        self._tickets.pop(work.key, None)
        self._told.ended(work, outcome.reason == "provider")

    async def _lost(self, work: Work, reason: str) -> None:
        attempt = work.attempt
        cost = attempt.ceiling_microusd if attempt.cost_microusd is None else attempt.cost_microusd
        _log.error("%r: paid and lost: %s", work, reason)
        fact = AttemptLost(attempt=attempt.number, reason=reason, cost_microusd=cost)
        await self._log.record(work, Record(fact))
        self._tickets.pop(work.key, None)
        self._told.ended(work, False)
