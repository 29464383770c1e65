"""The account actor: buys from one provider account, follows its jobs, and recovers what a crash left open.

It owns a task from the intent until the result is ready.  What it does by itself is here: it starts what may start
now, hears what came of it, and hands each task on.  What asks, counts, waits and judges for it are the parts of the
account (:mod:`runtime.accountparts`).  The object outlives a crash of its coroutine: the supervisor calls
:meth:`AccountActor.run` again and it goes on from the works it owns.  Nothing is bought before
:attr:`AccountActor.recovered` (REC-2).
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import trio

from adapters.base import (
    Accepted,
    Cancels,
    Failed,
    Finished,
    Gone,
    Lists,
    NotVisible,
    PollOutcome,
    Unclear,
    Unreadable,
)
from ledger.decisions import Exceeded
from ledger.events import AccountParked, Overcharged
from ledger.folds import LIVE
from runtime.accountparts import Needs, News, Parts
from runtime.accounts import Account
from runtime.batchfiles import Tell
from runtime.gateway import Submission, SubmitResult, Superseded
from runtime.gathering import FILES_UNACKNOWLEDGED
from runtime.lanes import Lane, drain_queues
from runtime.poller import Told
from runtime.reconcile import SKEW_S
from runtime.trust import Disbelieved
from runtime.work import Work, WorkKey

_log = logging.getLogger(__name__)

_RESTART_SPREAD_S = 1.0  # overdue polls after a restart are spread over this long


class Hands(msgspec.Struct, frozen=True):
    """Where an account hands a task on to."""

    give_back: Callable[[Work], None]  # queued again, to the router
    ready: Callable[[Work, "AccountActor"], None]  # to the fetcher
    settled: Callable[[Work], None]
    left: Callable[[Work], None]  # nobody follows it any more in this run: it stays open in the ledger
    stays_held: Callable[[Work], None]  # looked up again in vain; somebody may have decided about it meanwhile
    blocked: Callable[[Submission, Exceeded], None]  # a guard refused the intent
    moved: Callable[[], None]  # money or room may have become free


class AccountActor:
    def __init__(self, account: Account, needs: Needs, hands: Hands) -> None:
        self.account = account
        self._needs = needs
        self._hands = hands
        self._clock = needs.clock
        self._caps = account.codec.capabilities
        followed = Told(
            ready=self._ready,
            ended=self._ended,
            stranded=self._stranded,
            unauthorized=lambda why: self.park(f"unauthorized: {why}"),
            charged=self.charged,
        )
        news = News(
            followed=followed,
            filed=Tell(ended=self._submitted_together, not_begun=self._not_begun),
            warmed=self._warmed,
            busy=self.busy,
            may_buy=lambda: self.buying and not self.parked,
        )
        parts = Parts(account, needs, news)
        self._buy_bell = parts.buy_bell
        self._diary = parts.diary
        self._pace = parts.pace
        self._poller = parts.poller
        self._batches = parts.batches
        self._follower = parts.follower
        self._references = parts.references
        self._warm_up = parts.warm_up
        self._desk = parts.desk
        self._key = parts.key
        self.claims = parts.claims
        self._doubts = parts.doubts
        self._owned: dict[WorkKey, Work] = {}
        self._were_held: set[WorkKey] = set()  # by an earlier run; looked up again in this one
        self.parked = ""
        self._dead = False
        self.buying = True
        self.recovered = trio.Event()

    def __repr__(self) -> str:
        return f"<AccountActor {self.account.name} owned={len(self._owned)} {self.parked or 'working'}>"

    # --- for the router -----------------------------------------------------------------------------------

    def room(self, lane: str) -> int:
        """How many more tasks this lane would take now: by its concurrency, and by a second of the rate."""
        if self.parked or not self.buying or not self.recovered.is_set():
            return 0
        if self._desk is not None:
            return self._desk.gathering.room(self._pace.lane(lane), self._clock.monotonic())
        return 0 if self._warm_up.full else self._pace.room(lane) - self._warm_up.count(lane)

    def offer(self, submission: Submission) -> None:
        """Take over a queued task; the caller has asked for :meth:`room`."""
        self._owned[submission.work.key] = submission.work
        if not self._warm_up.take(submission):
            self._pace.lane(submission.lane).queue.append(submission)
            self._buy_bell.ring()

    def stop_buying(self) -> list[Work]:
        """Start no more purchases; return the tasks that were not begun."""
        self.buying = False
        works = [submission.work for submission in self._drain(self._pace.lanes)]
        for work in works:
            self._owned.pop(work.key, None)
        if self._desk is not None:
            self._desk.stop()
        return works

    @property
    def seconds_until_room(self) -> float:
        """When a lane that is shut now might open; infinity when only an event can open it."""
        return self._pace.seconds_until_room

    @property
    def most_unacknowledged(self) -> int:
        """How many submits of one lane may be unanswered at once (MON-3); a file is one, and counts with its lines."""
        files = self._caps.batch_file
        if files is not None:
            return FILES_UNACKNOWLEDGED * files.value.lines
        return self._pace.most_in_flight

    @property
    def in_flight(self) -> int:
        return self._pace.in_flight

    def statistics(self) -> dict[str, str]:
        """A snapshot for people."""
        return {"account": repr(self), "poller": repr(self._poller), "doubts": repr(self._doubts)} | {
            f"lane {lane.name}": repr(lane) for lane in self._pace.lanes
        }

    # --- for the night and the fetcher --------------------------------------------------------------------

    def take_over(self, works: Sequence[Work], intent_ages_s: Sequence[float], limits: Mapping[str, int]) -> None:
        """Own what older epochs left open here, and remember the rate and limits they had (before :meth:`run`)."""
        ages_s = list(intent_ages_s) if self._desk is None else sorted(set(intent_ages_s))  # one per file
        self._pace.restore(ages_s, limits)
        now, now_us = self._clock.monotonic(), self._clock.now_us()
        for work in works:
            self._owned[work.key] = work
            if work.attempt.expires_at_us:  # by the wall clock: good for an order, and with a margin for a verdict
                work.expires = now + (work.attempt.expires_at_us - now_us) / 1e6 + SKEW_S
            if work.phase == "accepted":
                self._pace.lane(work.attempt.lane).in_flight += 1
            elif work.phase != "ready":
                if work.state.phase == "held":
                    self._were_held.add(work.key)
                self._doubts.add(work)

    def follow_adopted(self, work: Work) -> None:
        """Own a task whose doubtful attempt turned out to be a job: poll it now."""
        self._owned[work.key] = work
        self._pace.lane(work.attempt.lane).in_flight += 1
        self._follower.overdue(work)

    def foreign(self, epoch: int) -> bool:
        """Whether attempts of an epoch may have been made from another account of this name (REC-9)."""
        return self._needs.account_log.foreign(epoch)

    def hinted(self, work: Work) -> None:
        """The provider called back about the job of an accepted attempt."""
        if work.key in self._owned and work.phase == "accepted":
            self._follower.hinted(work)

    def claim(self, work: Work, job: str, settled: Callable[[bool], None]) -> None:
        """The provider called back about a doubtful attempt, see :meth:`Doubts.claim`."""
        self._doubts.claim(work, job, settled)

    def cancel(self, work: Work, operator: str) -> bool:
        """Ask the provider to stop a job; False where it cannot, or where there is no job yet."""
        can_stop = self._batches is not None or isinstance(self.account.codec, Cancels)
        if not can_stop or work.key not in self._owned or work.state.phase != "accepted":
            return False
        work.cancel_by = operator
        self._follower.overdue(work)
        return True

    def charged(self, work: Work, number: int) -> None:
        """An attempt has ended, with an image or without: a charge above its ceiling is recorded truly, and nothing
        more is bought here (MON-8)."""
        attempt = work.state.attempts[number - 1]
        charged_microusd = attempt.cost_microusd or 0
        if charged_microusd <= attempt.ceiling_microusd:
            return
        self._diary.note(
            Overcharged(
                batch=work.batch,
                task=work.n,
                attempt=number,
                ceiling_microusd=attempt.ceiling_microusd,
                charged_microusd=charged_microusd,
            )
        )
        charged, ceiling = charged_microusd / 1e6, attempt.ceiling_microusd / 1e6
        self.park(f"overcharge: ${charged:.4f} against a ceiling of ${ceiling:.4f}")

    async def ask(self, work: Work) -> PollOutcome:
        """Read the job of a ready task once more (for a fresh link), also where polls have forgotten it."""
        outcome = await self._asked(work)
        if isinstance(outcome, Failed | Gone | NotVisible) and self.foreign(work.attempt.epoch):
            return Unreadable("another key than the one that bought it proves nothing about it")
        return outcome

    async def _asked(self, work: Work) -> PollOutcome:
        if self._batches is not None:
            return await self._batches.ask(work)
        await self._poller.wait_query()
        outcome = await self._poller.ask(work)
        return await self._poller.recall(work) if isinstance(outcome, NotVisible) else outcome

    def park(self, reason: str) -> None:
        """Buy nothing more here; what is open stays tracked (LIVE-4)."""
        if self.parked:
            return
        self.parked = reason
        _log.error("account %s is parked: %s", self.account.name, reason)
        self._diary.note(AccountParked(reason=reason))
        for submission in self._drain(self._pace.lanes):
            self._owned.pop(submission.work.key, None)
            self._hands.give_back(submission.work)
        self._hands.moved()

    def give_up(self, reason: str) -> None:
        """The supervisor starts this actor no more: park, and let go of what it owns, or the night never ends."""
        self._dead = True
        self.park(reason)
        for work in list(self._owned.values()):
            if work.phase == "held" or (work.phase in LIVE and not self._at_the_gateway(work)):
                self._leave(work)

    async def write_diary(self) -> None:
        """Append what happened to the account and is not on record yet."""
        await self._diary.write()

    # --- the actor ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled.  Safe to call again after a failure."""
        self._follower.clear()
        for work in list(self._owned.values()):
            if work.phase == "accepted":
                self._follower.overdue(work, within_s=_RESTART_SPREAD_S)
            elif work.phase == "ready":
                self._pass_on(work)
        async with trio.open_nursery() as nursery:
            if self._key.in_doubt:
                nursery.start_soon(self._know_key)
            nursery.start_soon(self._doubt)
            nursery.start_soon(self._follower.run)
            nursery.start_soon(self._warm_up.run)
            nursery.start_soon(self._buy)
            nursery.start_soon(self._diary.keep, self._pace.changed_limits)

    async def _doubt(self) -> None:
        await self._doubts.run(judged=self._judged, first_pass_done=self._recovered)

    async def _know_key(self) -> None:
        await self._key.run([work for work in self._owned.values() if work.state.attempts])
        self._doubts.look_now()

    def _recovered(self) -> None:
        self.recovered.set()
        self._buy_bell.ring()
        self._hands.moved()

    async def _buy(self) -> None:
        await self.recovered.wait()
        if self._desk is not None:
            await self._desk.run()
        while True:
            now = self._clock.monotonic()
            found: Submission | float = float("inf")
            if self.buying and not self.parked:
                found = self._pace.next()
            if isinstance(found, Submission):
                resolve = self._references.resolve
                self._needs.gateway.start(msgspec.structs.replace(found, done=self._submitted, resolve=resolve))
                await trio.lowlevel.checkpoint()
            else:
                await self._buy_bell.wait_rung(deadline=now + found)

    # --- news ---------------------------------------------------------------------------------------------

    def _submitted(self, submission: Submission, result: SubmitResult) -> None:
        """The outcome of a submit is durable: decide what comes next.  Called by the gateway."""
        lane = self._pace.lane(submission.lane)
        self._judge_lane(lane, result)
        self._settle(lane, submission, result)

    def _submitted_together(self, lane: Lane, submissions: Sequence[Submission], result: SubmitResult) -> None:
        """One outcome for all lines of a file."""
        self._judge_lane(lane, result)
        for submission in reversed(submissions):  # what goes back to the head of a line keeps its order
            self._settle(lane, submission, result)

    def _not_begun(self, lane: Lane, submissions: Sequence[Submission]) -> None:
        """Tasks that were taken from their lane for a file, and nothing came of it."""
        for submission in submissions:
            lane.in_flight -= 1
            self._release(submission.work)
        self._buy_bell.ring()

    def _settle(self, lane: Lane, submission: Submission, result: SubmitResult) -> None:
        work = submission.work
        if not isinstance(result, Accepted):
            lane.in_flight -= 1
        match result:
            case Accepted():
                self._follower.accepted(work)
                self._hands.moved()
            case Finished():
                self._pass_on(work)
                self._hands.moved()
            case Unclear() | Disbelieved():
                self._doubts.add(work)
            case Exceeded():
                self._owned.pop(work.key, None)
                self._hands.blocked(submission, result)
            case Superseded():
                self._owned.pop(work.key, None)
                self._hands.settled(work)
            case _:
                if isinstance(result, Failed):
                    self.charged(work, len(work.state.attempts))
                self._release(work)
        if self._dead and work.state.phase in LIVE:
            self._leave(work)
        self._buy_bell.ring()

    def _judge_lane(self, lane: Lane, result: SubmitResult) -> None:
        park = self._pace.learn(lane, result)
        if park:
            self.park(park)
        if lane.breaker.state == "open":
            self._send_back(lane)

    def _ready(self, work: Work) -> None:
        self._pace.lane(work.attempt.lane).in_flight -= 1
        self._pass_on(work)
        self._buy_bell.ring()

    def _ended(self, work: Work, providers_fault: bool) -> None:
        lane = self._pace.lane(work.attempt.lane)
        lane.in_flight -= 1
        if providers_fault:
            self._pace.job_failed(lane)
            if lane.breaker.state == "open":
                self._send_back(lane)
        self._release(work)
        self._buy_bell.ring()

    def _stranded(self, work: Work) -> None:
        self._pace.lane(work.attempt.lane).in_flight -= 1
        self._leave(work)

    def _judged(self, work: Work) -> None:
        if work.phase == "accepted":
            self.follow_adopted(work)
            self._hands.moved()  # the doubt held money at risk, and a place in its lane
        elif work.phase == "ready":
            self._pass_on(work)
            self._hands.moved()
        elif work.key in self._were_held and work.attempt.phase == "unknown":
            if self._owned.get(work.key) is work:  # else somebody adopted its job meanwhile, which is followed
                del self._owned[work.key]
            self._hands.stays_held(work)
        else:
            self._release(work)

    def busy(self) -> set[str]:
        """Fingerprints of submits under way: a listed job may be theirs."""
        codec = self.account.codec
        if not isinstance(codec, Lists):
            return set()
        return {
            work.fingerprint
            or codec.fingerprint(
                work.request, self.account.context(marker=work.marker(self._needs.ledger_id, work.attempt.number))
            )
            for work in self._owned.values()
            if self._at_the_gateway(work)
        }

    # --- small things -------------------------------------------------------------------------------------

    def _pass_on(self, work: Work) -> None:
        self._owned.pop(work.key, None)
        self._hands.ready(work, self)

    def _warmed(self, submission: Submission) -> None:
        """Its reference files are where they can be referred to, or the gateway will be told why not."""
        self._pace.lane(submission.lane).queue.append(submission)
        self._buy_bell.ring()
        self._hands.moved()

    def _drain(self, lanes: Collection[Lane]) -> list[Submission]:
        """Take back what waits for its turn in these lanes; nothing of it is intended yet."""
        return drain_queues(lanes) + self._warm_up.drain({lane.name for lane in lanes})

    def _send_back(self, lane: Lane) -> None:
        """A lane that is shut keeps no tasks: others may take them, and its queue counts against the account."""
        for submission in self._drain([lane]):
            self._owned.pop(submission.work.key, None)
            self._hands.give_back(submission.work)

    def _at_the_gateway(self, work: Work) -> bool:
        """Whether a submit of it is under way, whose answer comes through :meth:`_submitted`."""
        return work.state.phase == "intended" and work.attempt.epoch == self._needs.log.epoch

    def _leave(self, work: Work) -> None:
        self._owned.pop(work.key, None)
        self._hands.left(work)

    def _release(self, work: Work) -> None:
        self._owned.pop(work.key, None)
        if work.state.settled:
            self._hands.settled(work)
        else:
            self._hands.give_back(work)
