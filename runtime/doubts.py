"""What becomes of doubtful attempts of one account: looked up, judged, and recorded with the evidence.

An attempt is doubtful when nobody can know yet whether the provider took the job: its intent is of an older
epoch without an outcome, or its answer never came or was unclear.  Where the provider has a complete listing,
a found job is adopted at once and an absent one is believed after the quarantine; where nothing can tell, the
attempt becomes ``unknown`` and its task is held.  Nothing here buys anything.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from email.utils import parsedate_to_datetime
from random import Random

import trio

from adapters.base import Finished, HttpCall, HttpReply, ListedJob, Lists, MalformedReply
from ledger.commands import Record
from ledger.events import (
    AttemptAbsent,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptUnknown,
    TaskEvent,
    UnknownReason,
)
from runtime.accounts import Account
from runtime.delivery import record_ready
from runtime.ports import Clock, WireError
from runtime.reconcile import SKEW_S, CannotTell, Doubt, Found, NotThere, judge
from runtime.spool import Spool
from runtime.waiting import Bell
from runtime.work import TaskLog, Work, WorkKey

_log = logging.getLogger(__name__)

_PAGES_AT_MOST = 2000
_FIRST_PASS_S = 60.0  # an account whose listing cannot be read for this long may buy again (REC-2)
_TRIES_WHEN_RIPE = 5
_CLOCKS_APART_US = 86_400_000_000  # how wrong our own clock may have been when something was recorded


class ListingFailed(Exception):
    """A page could not be read: the listing proves nothing (REC-4)."""


class Doubts:
    """The doubtful attempts of one account."""

    def __init__(
        self,
        account: Account,
        *,
        log: TaskLog,
        clock: Clock,
        random: Random,
        ledger_id: str,
        query: Callable[[HttpCall], Awaitable[HttpReply]],
        busy: Callable[[], Collection[str]],
        bound: Callable[[int], Collection[str]],
        key_epoch: int,
        spool: Spool,
    ) -> None:
        """``query`` sends a free call under the account's query limit; ``busy`` names fingerprints of submits
        under way; ``bound`` gives the job ids that the ledger bound since a time (UTC microseconds).
        ``key_epoch``: attempts of epochs before it were made with another key of this account's name, so nothing
        that this key is shown proves anything about them (REC-9)."""
        self._account = account
        self._log = log
        self._clock = clock
        self._random = random
        self._ledger_id = ledger_id
        self._query = query
        self._busy = busy
        self._bound = bound
        self._key_epoch = key_epoch
        self._spool = spool
        self._works: dict[WorkKey, Work] = {}
        self._ripe_at: dict[WorkKey, float] = {}
        self._failures = 0
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<Doubts {self._account.name} {len(self._works)} failures={self._failures}>"

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> None:
        """Take over a doubtful attempt.

        The quarantine is counted from now on the monotonic clock, also for attempts of older epochs, whose
        recorded time is not believed: a wall clock that jumped must not end a quarantine early (REC-8).
        """
        self._works[work.key] = work
        self._ripe_at[work.key] = self._clock.monotonic() + self._account.quarantine
        self._bell.ring()

    async def run(self, *, judged: Callable[[Work], None], first_pass_done: Callable[[], None]) -> None:
        """Judge until cancelled; ``judged`` gets each work whose attempt is doubtful no longer."""
        await self._take_kept_replies(judged)
        await self._name_crashed()
        first_pass_ends = self._clock.monotonic() + _FIRST_PASS_S
        first_pass = True
        while True:
            looked = await self._pass(judged) if self._works else True
            if first_pass and (looked or not self._works or self._clock.monotonic() >= first_pass_ends):
                first_pass = False
                first_pass_done()
            await self._bell.wait_rung(deadline=min(self._next_look(), first_pass_ends if first_pass else float("inf")))

    async def _take_kept_replies(self, judged: Callable[[Work], None]) -> None:
        """An image that came inside a reply may be durable although nobody recorded it: then there is no doubt."""
        for work in list(self._works.values()):
            head = await self._spool.head(work, work.attempt.number)
            if head is not None:
                result = Finished(cost_microusd=head.cost_microusd, model_version=head.model_version)
                await record_ready(self._log, self._clock, work, work.attempt.number, result, life_s=0.0)
                self._drop(work, judged)

    async def _name_crashed(self) -> None:
        """Older epochs' intents without an outcome are ambiguous from here on (REC-6: never our own epoch's)."""
        crashed = [
            work
            for work in self._works.values()
            if work.state.phase == "intended" and work.attempt.epoch < self._log.epoch
        ]
        async with trio.open_nursery() as nursery:  # together: one commit
            for work in crashed:
                fact = AttemptAmbiguous(attempt=work.attempt.number, reason="crash")
                nursery.start_soon(self._record, work, fact)

    async def _pass(self, judged: Callable[[Work], None]) -> bool:
        """Look once; False when the listing could not be read."""
        for work in [work for work in self._works.values() if work.attempt.epoch < self._key_epoch]:
            await self._unknown(work, "account_changed", judged)
        works = dict(self._works)
        if self._account.codec.capabilities.listing is None:
            for work in works.values():
                await self._unknown(work, "no_evidence", judged)
            return True
        now = self._clock.monotonic()
        ripe = {key for key in works if self._ripe_at[key] <= now}
        busy = set(self._busy())
        beyond = [work for work in works.values() if self._beyond_listing(work)]
        for work in beyond:
            await self._unknown(work, "no_evidence", judged)
            del works[work.key]
        if not works:
            return True
        intended_us = {key: self._intended_us(work) for key, work in works.items()}
        since_us = min(intended_us.values()) - int(SKEW_S * 1e6)
        try:
            jobs = await self._listing(since_us)
        except ListingFailed as exc:
            self._failures += 1
            _log.warning("%s: the listing could not be read: %s", self._account.name, exc)
            if self._failures >= _TRIES_WHEN_RIPE:
                for key in ripe:
                    await self._unknown(works[key], "listing_failed", judged)
            return False
        self._failures = 0
        busy.update(self._busy())
        doubts = [Doubt(key, self._fingerprint(work), intended_us[key], key in ripe) for key, work in works.items()]
        for verdict in judge(doubts, jobs, self._bound_of(jobs, doubts, since_us), busy):
            work = works[verdict.key]
            number = work.attempt.number
            match verdict:
                case Found(job=job):
                    await self._record(work, AttemptAdopted(attempt=number, job=job, evidence="listing"))
                    self._drop(work, judged)
                case NotThere():
                    await self._record(work, AttemptAbsent(attempt=number, evidence="listing"))
                    self._drop(work, judged)
                case CannotTell(reason=reason):
                    await self._unknown(work, reason, judged)
        return True

    def _bound_of(self, jobs: Sequence[ListedJob], doubts: Sequence[Doubt], since_us: int) -> Collection[str]:
        """Which of the listed jobs are bound already.

        The times in the ledger are those of our wall clock, which may have been wrong when another attempt was bound.
        So before a job counts as free, a whole day more is searched (REC-5, REC-8); mostly none looks free.
        """
        bound = self._bound(since_us)
        prints = {doubt.fingerprint for doubt in doubts}
        if all(job.job in bound or (job.fingerprint is not None and job.fingerprint not in prints) for job in jobs):
            return bound
        return self._bound(since_us - _CLOCKS_APART_US)

    def _intended_us(self, work: Work) -> int:
        """When the attempt was intended, in the wall time of now, or earlier where the two disagree.

        A clock that was set back since would put the intent behind the provider's creation time of its job, the
        listing would be asked too late, and *absent* would be believed of a job that runs (REC-8).
        """
        recorded_us = work.attempt.intended_at_us
        if work.intended_at is None:
            return recorded_us
        age_s = self._clock.monotonic() - work.intended_at
        return min(recorded_us, self._clock.now_us() - int(age_s * 1e6))

    def _beyond_listing(self, work: Work) -> bool:
        """Whether the attempt is older than the provider's listing reaches, or made by a clock that was ahead of now's:
        then nothing can be proven."""
        listing = self._account.codec.capabilities.listing
        age_s = (self._clock.now_us() - self._intended_us(work)) / 1e6
        return age_s < -SKEW_S or (listing is not None and age_s + 2 * SKEW_S > listing.value.keeps_s)

    @property
    def _lists(self) -> Lists:
        codec = self._account.codec
        assert isinstance(codec, Lists), f"{self._account.name}: a listing in the record and none in the codec"
        return codec

    async def _listing(self, since_us: int) -> list[ListedJob]:
        codec = self._lists
        until_us = self._clock.now_us() + int(SKEW_S * 1e6)
        jobs: list[ListedJob] = []
        cursor: str | None = None
        for _ in range(_PAGES_AT_MOST):
            call = codec.build_list(
                self._account.context(), since_us=max(0, since_us), until_us=until_us, cursor=cursor
            )
            try:
                reply = await self._query(call)
                page = codec.read_list(reply)
            except (WireError, MalformedReply) as exc:
                raise ListingFailed(str(exc)) from exc
            self._compare_clocks(reply)
            jobs.extend(page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return jobs
        raise ListingFailed(f"more than {_PAGES_AT_MOST} pages")

    def _compare_clocks(self, reply: HttpReply) -> None:
        """A window of a listing is only the one that we mean while both clocks agree."""
        try:
            theirs_s = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
        except ValueError:
            return  # not stated
        apart_s = abs(theirs_s - self._clock.now_us() / 1e6)
        if apart_s > SKEW_S / 2:
            raise ListingFailed(f"this machine's clock and the provider's are {apart_s:.0f} s apart")

    def _fingerprint(self, work: Work) -> str:
        marker = work.marker(self._ledger_id, work.attempt.number)
        return self._lists.fingerprint(work.request, self._account.context(marker=marker))

    def _next_look(self) -> float:
        """When to look again: as soon as the next quarantine ends, and a few times before, for presence."""
        if not self._works:
            return float("inf")
        now = self._clock.monotonic()
        if self._failures:
            return now + min(60.0, 2.0 ** min(self._failures, 6)) * self._random.uniform(0.5, 1.0)
        soon = now + max(1.0, self._account.quarantine / 4)
        ends = [end for end in self._ripe_at.values() if end > now]
        return min([soon, *ends])

    async def _unknown(self, work: Work, reason: UnknownReason, judged: Callable[[Work], None]) -> None:
        await self._record(work, AttemptUnknown(attempt=work.attempt.number, reason=reason))
        self._drop(work, judged)

    async def _record(self, work: Work, fact: TaskEvent) -> None:
        await self._log.record(work, Record(fact))

    def _drop(self, work: Work, judged: Callable[[Work], None]) -> None:
        del self._works[work.key], self._ripe_at[work.key]
        judged(work)
