"""Follows the accepted jobs of one account until each is ready, failed or lost.

One heap of due times behind the account's query limit: the first poll near the observed latency, then short
growing steps, all with jitter.  A local timeout never ends a job (MON-6); only what the provider says does.
"""

import heapq
import logging
from collections.abc import Callable
from random import Random

import msgspec
import trio

from adapters.base import (
    Failed,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Recall,
    Throttled,
    Unreadable,
)
from ledger.commands import Cancel, Record
from ledger.events import AttemptFailed, AttemptLost, ResultReady
from runtime import faults
from runtime.accounts import Account
from runtime.limits import LatencyEstimate, TokenBucket
from runtime.ports import Clock, Wire, WireError
from runtime.waiting import Bell
from runtime.work import TaskLog, Work

_log = logging.getLogger(__name__)

_AT_ONCE = 16
_LOST_AFTER_S = 600.0  # an accepted job that stays invisible longer than this is lost


class Told(msgspec.Struct, frozen=True):
    """What the account does with the news of a job."""

    ready: Callable[[Work], None]
    ended: Callable[[Work, bool], None]  # settled or queued again; True = the provider's own failure
    unauthorized: Callable[[str], None]


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
        other_key: bool,
    ) -> None:
        """``other_key``: the account's key is not the one that the attempts were made with, so *not found* proves
        nothing (REC-9)."""
        self._account = account
        self._caps = account.codec.capabilities
        self._queries = queries
        self._log = log
        self._wire = wire
        self._clock = clock
        self._random = random
        self._told = told
        self._other_key = other_key
        self._due: list[tuple[float, int, Work]] = []
        self._ticket = 0
        self._bell = Bell()
        self.latency = LatencyEstimate(account.latency_s or self._caps.typical_latency_s.value * 0.25)

    def __repr__(self) -> str:
        return f"<Poller {self._account.name} due={len(self._due)} first_poll={self.latency.seconds:.1f}s>"

    def accepted(self, work: Work) -> None:
        """A job was just accepted: poll it near its expected end."""
        work.polls = 0
        work.accepted_at = self._clock.monotonic()
        self._schedule(work, self.latency.delay_s(0) * self._random.uniform(0.95, 1.05))

    def overdue(self, work: Work, *, within_s: float = 0.0) -> None:
        """A job of unknown age: poll it soon, spread over ``within_s``; it teaches nothing about latency."""
        work.polls = 1
        self._schedule(work, self._random.uniform(0.0, within_s))

    def clear(self) -> None:
        """Forget the due times (the owner is about to schedule all its works anew)."""
        self._due.clear()

    async def run(self) -> None:
        """Poll until cancelled."""
        slots = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                now = self._clock.monotonic()
                if not self._due or self._due[0][0] > now:
                    await self._bell.wait_rung(deadline=self._due[0][0] if self._due else float("inf"))
                    continue
                await slots.acquire_on_behalf_of(turn := object())
                await self.wait_query()
                nursery.start_soon(self._poll, heapq.heappop(self._due)[2], slots, turn)

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
        if work.data:
            return Finished(data=work.data, cost_microusd=work.said_cost_microusd)
        codec = self._account.codec
        try:
            if work.cancel_by and self._caps.cancel is not None:
                await self._log.record(work, Cancel(operator=work.cancel_by))
                work.cancel_by = ""
                reply = await self._wire.send(codec.build_cancel(work.attempt.job, self._account.context()))
                return codec.read_cancel(reply)
            return codec.read_poll(await self._wire.send(codec.build_poll(work.attempt.job, self._account.context())))
        except WireError as exc:
            return Unreadable(detail=str(exc))
        except MalformedReply as exc:
            return Unreadable(detail=f"malformed reply: {exc}")

    # --- one poll -----------------------------------------------------------------------------------------

    def _schedule(self, work: Work, delay_s: float) -> None:
        self._ticket += 1
        heapq.heappush(self._due, (self._clock.monotonic() + delay_s, self._ticket, work))
        self._bell.ring()

    async def _poll(self, work: Work, slots: trio.CapacityLimiter, turn: object) -> None:
        try:
            if work.state.phase != "accepted" or work.polling:
                return
            work.polling = True
            try:
                await self._polled(work, await self.ask(work))
            finally:
                work.polling = False
        finally:
            slots.release_on_behalf_of(turn)

    async def _polled(self, work: Work, outcome: PollOutcome) -> None:
        work.polls += 1
        if work.polls == 1:
            age_s = self._clock.monotonic() - work.accepted_at
            self.latency.first_poll_found(age_s, done=not isinstance(outcome, Pending | NotVisible))
        match outcome:
            case Finished():
                faults.point("result_seen")
                await self._ready(work, outcome)
            case Failed():
                await self._failed(work, outcome)
            case Gone(detail=detail):
                await self._lost(work, detail or "the provider no longer has the result")
            case NotVisible() if self._given_up(work):
                await self._recall(work)
            case Throttled(retry_after_s=seconds):
                pause_s = seconds if seconds is not None else self._queries.rate.per_s
                self._queries.block(self._clock.monotonic() + pause_s)
                self._again(work)
            case Unreadable(unauthorized=True, detail=detail):
                self._told.unauthorized(detail)
                self._schedule(work, 30.0)
            case Pending() | NotVisible() | Unreadable():
                self._again(work)

    def _again(self, work: Work) -> None:
        self._schedule(work, self.latency.delay_s(max(1, work.polls)) * self._random.uniform(0.9, 1.1))

    def _given_up(self, work: Work) -> bool:
        age_s = (self._clock.now_us() - work.attempt.intended_at_us) / 1e6
        return not self._other_key and age_s > max(_LOST_AFTER_S, self._caps.visible_after_s.value)

    async def _ready(self, work: Work, outcome: Finished) -> None:
        life_s = outcome.expires_s or self._caps.result_life_s.value
        work.url, work.data = outcome.url, outcome.data
        work.expires = self._clock.monotonic() + life_s
        url, payload = self._log.text(outcome.url) if outcome.url else (None, None)
        fact = ResultReady(
            attempt=work.attempt.number,
            url=url,
            cost_microusd=outcome.cost_microusd,
            expires_at_us=self._clock.now_us() + int(life_s * 1e6),
            model_version=outcome.model_version,
        )
        await self._log.record(work, Record(fact), payloads=[payload] if payload else [])
        faults.point("ready_recorded")
        self._told.ready(work)

    async def _recall(self, work: Work) -> None:
        """Before a job counts as lost: some providers know more in a slower place."""
        codec = self._account.codec
        outcome: PollOutcome = NotVisible()
        if isinstance(codec, Recall):
            try:
                outcome = codec.read_recall(
                    await self.query(codec.build_recall(work.attempt.job, self._account.context()))
                )
            except (WireError, MalformedReply) as exc:
                outcome = Unreadable(detail=str(exc))
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

    async def _failed(self, work: Work, outcome: Failed) -> None:
        detail, payload = self._log.text(outcome.detail)
        attempt = work.attempt
        cost = outcome.cost_microusd or (attempt.ceiling_microusd if outcome.charged else 0)
        fact = AttemptFailed(attempt=attempt.number, reason=outcome.reason, cost_microusd=cost, detail=detail)
        await self._log.record(work, Record(fact, retryable=outcome.retryable), payloads=[payload])
        self._told.ended(work, outcome.reason == "provider")

    async def _lost(self, work: Work, reason: str) -> None:
        attempt = work.attempt
        cost = attempt.ceiling_microusd if attempt.cost_microusd is None else attempt.cost_microusd
        _log.error("%r: paid and lost: %s", work, reason)
        fact = AttemptLost(attempt=attempt.number, reason=reason, cost_microusd=cost)
        await self._log.record(work, Record(fact))
        self._told.ended(work, False)
