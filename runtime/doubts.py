"""What becomes of doubtful attempts of one account: looked up, judged, and recorded with the evidence.

An attempt is doubtful when nobody can know yet whether the provider took the job: its intent is of an older
epoch without an outcome, or its answer never came or was unclear.  What can be asked is :mod:`runtime.evidence`'s:
a found job is adopted at once and an absent one is believed after the quarantine; where nothing can tell, the
attempt becomes ``unknown`` and its task is held.  A job that a callback names is looked at first
(:mod:`runtime.claims`).  Nothing here buys anything.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from random import Random

import trio

from adapters.base import Finished, Lists, LooksUp
from adapters.batchfile import BatchFiles
from ledger.commands import Record
from ledger.errors import CommandRejected
from ledger.events import (
    AdoptEvidence,
    AttemptAbsent,
    AttemptAdopted,
    AttemptAmbiguous,
    AttemptUnknown,
    TaskEvent,
    UnknownReason,
)
from runtime.accounts import Account
from runtime.batchevidence import BatchEvidence
from runtime.claims import Claims
from runtime.delivery import record_ready
from runtime.evidence import AsSent, Evidence, ListingEvidence, LookupEvidence, NoEvidence, Query, Witnesses
from runtime.ports import Clock
from runtime.reconcile import CannotTell, Found, Judgement, NotThere
from runtime.spool import Spool
from runtime.trust import Trust, assume, unproven_absence
from runtime.waiting import Bell
from runtime.work import StreamConflict, TaskLog, Work, WorkKey

_log = logging.getLogger(__name__)

_FIRST_PASS_S = 60.0  # an account whose listing cannot be read for this long may buy again (REC-2)
_TRIES_WHEN_RIPE = 5
_CLAIMS_AGAIN_S = 5.0


class Doubts:
    """The doubtful attempts of one account."""

    def __init__(
        self,
        account: Account,
        *,
        log: TaskLog,
        clock: Clock,
        random: Random,
        evidence: Evidence,
        foreign: Callable[[int], bool],
        spool: Spool,
        claims: Claims,
        taken_over: int = 0,
        trust: Callable[[int], Trust] = assume,
        key_in_doubt: Callable[[], bool] = lambda: False,
    ) -> None:
        """``evidence`` is what can be asked, see :func:`evidence_of`.
        ``foreign``: whether attempts of an epoch may have been made from another account of this name, so that nothing
        that its key is shown now proves anything about them (REC-9).
        ``taken_over``: absence proves nothing of attempts of epochs up to it, which another copy of the ledger may have
        judged as well (REC-10).
        ``key_in_doubt``: whether it is still being found out if the key is of the same account.
        ``trust`` gives how sure the fact must be, for a batch, on which an absence is believed."""
        self._account = account
        self._log = log
        self._clock = clock
        self._random = random
        self._evidence = evidence
        self._foreign = foreign
        self._taken_over = taken_over
        self._trust = trust
        self._key_in_doubt = key_in_doubt
        self._spool = spool
        self._claims = claims
        self._claimed: dict[WorkKey, dict[str, Callable[[bool], None]]] = {}
        self._works: dict[WorkKey, Work] = {}
        self._numbers: dict[WorkKey, int] = {}  # of the attempt in doubt
        self._ripe_at: dict[WorkKey, float] = {}
        self._called_until: dict[WorkKey, float] = {}  # so long a callback may still tell what nothing else can
        self._unanswered = Counter[WorkKey]()  # looks in a row that could not tell about it
        self._failures = 0
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<Doubts {self._account.name} {len(self._works)} failures={self._failures}>"

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> None:
        """Take over a doubtful attempt; or one that an earlier run held for a cause that may be gone.

        The quarantine is counted from now on the monotonic clock, also for attempts of older epochs, whose
        recorded time is not believed: a wall clock that jumped must not end a quarantine early (REC-8).
        """
        now = self._clock.monotonic()
        self._works[work.key] = work
        self._numbers[work.key] = work.attempt.number
        self._ripe_at[work.key] = now + self._account.quarantine
        waits = work.attempt.callback and not work.attempt.doubtful  # a late call ends what is held by itself
        self._called_until[work.key] = now + (self._account.callback_wait if waits else 0.0)
        self._bell.ring()

    def claim(self, work: Work, job: str, settled: Callable[[bool], None]) -> None:
        """A callback named a job for a doubtful attempt: look at it.  ``settled`` hears True when what came of it is on
        record, False when the doubt ended otherwise first."""
        if work.key not in self._works:
            settled(False)
            return
        self._claimed.setdefault(work.key, {})[job] = settled
        self._bell.ring()

    def look_now(self) -> None:
        """Something was learned that may tell more."""
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
        for work in [work for work in self._works.values() if work.state.phase != "held"]:
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
        """Look once; False when the question could not be answered."""
        self._let_go_of_decided()
        strange = {key: work for key, work in self._works.items() if self._foreign(work.attempt.epoch)}
        for work in () if self._key_in_doubt() else strange.values():
            await self._unknown(work, "account_changed", judged)
        await self._judge_claims(judged)
        works = {key: work for key, work in self._works.items() if key not in strange}
        if not works:
            return True
        now = self._clock.monotonic()
        ripe = {key for key in works if self._ripe_at[key] <= now}
        looked = await self._evidence.look(works, ripe)
        for verdict in looked.verdicts:
            work = works[verdict.key]
            if not self._in_doubt(work):
                continue
            number = work.attempt.number
            match self._believed(work, verdict):
                case Found(job=job):
                    if not self._claims.take(job):
                        continue
                    await self._adopt(work, job, self._evidence.found_by, judged)
                case NotThere() if work.attempt.epoch <= self._taken_over:
                    # The other copy may have found the same, and bought the task under an attempt of its own.
                    await self._unknown(work, "taken_over", judged)
                case NotThere():
                    await self._settle(work, AttemptAbsent(attempt=number, evidence=self._evidence.absent_by), judged)
                case CannotTell(reason=reason) if self._called_until[verdict.key] <= now:
                    await self._unknown(work, reason, judged)
                case CannotTell():
                    pass  # its provider may still call back about it
        for key in self._works:
            self._unanswered[key] = self._unanswered[key] + 1 if key in looked.unanswered else 0
        if not looked.trouble:
            self._failures = 0
            return True
        self._failures += 1
        _log.warning("%s: doubtful attempts could not be looked up: %s", self._account.name, looked.trouble)
        for key, work in works.items():
            given_up = key in ripe and key in looked.unanswered and self._unanswered[key] >= _TRIES_WHEN_RIPE
            if given_up and key in self._works and self._called_until[key] <= now:
                await self._unknown(work, "clock_changed" if looked.clocks_apart else "listing_failed", judged)
        return False

    def _believed(self, work: Work, verdict: Judgement) -> Judgement:
        """The verdict as far as the task's batch trusts what it rests on."""
        match verdict:
            case NotThere(key=key):
                assumed = unproven_absence(self._account.codec.capabilities, self._trust(work.batch))
                return CannotTell(key, assumed) if assumed else verdict
            case CannotTell(key=key, reason="no_evidence") if work.attempt.reason == "answer_assumed":
                return CannotTell(key, "answer_assumed")
        return verdict

    async def _judge_claims(self, judged: Callable[[Work], None]) -> None:
        """Look at the jobs that callbacks named."""
        jobs = list(dict.fromkeys(job for claims in self._claimed.values() for job in claims))
        verdicts = await self._claims.judge(jobs) if jobs else {}
        for key, claims in list(self._claimed.items()):
            for job, settled in list(claims.items()):
                verdict = verdicts.get(job, "later")  # named while the others were looked at
                if verdict == "later":
                    continue
                del claims[job]
                if verdict == "there" and self._claims.take(job):
                    await self._adopt(self._works[key], job, "callback", judged)
                    settled(True)
                    break
                _log.warning("a callback named a job for attempt %s that is not its own", key)
                settled(True)

    def _in_doubt(self, work: Work) -> bool:
        """Whether it is still ours to judge: an operator may have decided about a held one meanwhile."""
        attempt = work.attempt
        return attempt.number == self._numbers.get(work.key) and (
            attempt.doubtful or attempt.phase in ("intended", "ambiguous")
        )

    def _let_go_of_decided(self) -> None:
        """Whoever carried the decision out has the task now."""
        for work in [work for work in self._works.values() if not self._in_doubt(work)]:
            self._forget(work)

    def _next_look(self) -> float:
        """When to look again: as soon as the next quarantine ends, and a few times before, for presence."""
        if not self._works:
            return float("inf")
        now = self._clock.monotonic()
        if self._failures:
            return now + min(60.0, 2.0 ** min(self._failures, 6)) * self._random.uniform(0.5, 1.0)
        soon = now + max(1.0, self._account.quarantine / 4)
        ends = [end for ends in (self._ripe_at, self._called_until) for end in ends.values() if end > now]
        if any(self._claimed.values()):
            soon = min(soon, now + _CLAIMS_AGAIN_S)
        return min([soon, max(now, self._evidence.next_look()), *ends])

    async def _unknown(self, work: Work, reason: UnknownReason, judged: Callable[[Work], None]) -> None:
        await self._settle(work, AttemptUnknown(attempt=work.attempt.number, reason=reason), judged)

    async def _adopt(self, work: Work, job: str, by: AdoptEvidence, judged: Callable[[Work], None]) -> None:
        """Bind a job that was taken for an attempt; one that is not bound after all is free again."""
        number = work.attempt.number
        try:
            await self._settle(work, AttemptAdopted(attempt=number, job=job, evidence=by), judged)
        except (StreamConflict, CommandRejected):
            self._claims.give_back(job)
            raise
        attempt = work.state.attempt(number)
        if attempt is None or attempt.job != job:
            self._claims.give_back(job)

    async def _settle(self, work: Work, fact: TaskEvent, judged: Callable[[Work], None]) -> None:
        held = work.attempt.doubtful
        try:
            await self._record(work, fact)
        except (StreamConflict, CommandRejected):
            if not held:
                raise
            _log.info("%r: an operator was faster", work)
        self._drop(work, judged)

    async def _record(self, work: Work, fact: TaskEvent) -> None:
        await self._log.record(work, Record(fact))

    def _drop(self, work: Work, judged: Callable[[Work], None]) -> None:
        self._forget(work)
        judged(work)

    def _forget(self, work: Work) -> None:
        del self._works[work.key], self._numbers[work.key], self._ripe_at[work.key], self._called_until[work.key]
        self._unanswered.pop(work.key, None)
        for settled in self._claimed.pop(work.key, {}).values():
            settled(False)


def evidence_of(
    account: Account,
    *,
    query: Query,
    clock: Clock,
    ledger_id: str,
    busy: Callable[[], Collection[str]],
    bound: Callable[[int], Collection[str]],
    as_sent: AsSent,
    witnesses: Witnesses = lambda since_us, until_us: (),
    taken: Callable[[Collection[str]], Collection[str]] = lambda jobs: (),
) -> Evidence:
    """The best evidence that the provider has to give.

    ``query`` sends a free call under the account's query limit; ``busy`` names fingerprints of submits under way;
    ``bound`` gives the job ids that the ledger bound since a time (UTC microseconds); ``as_sent`` gives the request of
    an attempt as the provider was given it, None when nobody can know any more; ``witnesses`` gives jobs that must be
    on a list: those of this account that were intended and answered between two times (UTC microseconds); ``taken``
    gives those of some jobs that the ledger bound ever.
    """
    codec = account.codec
    if isinstance(codec, BatchFiles):
        return BatchEvidence(account, codec, query=query, clock=clock)
    if isinstance(codec, LooksUp):
        return LookupEvidence(account, codec, query=query, clock=clock, ledger_id=ledger_id, taken=taken)
    if isinstance(codec, Lists) and codec.capabilities.listing is not None:
        return ListingEvidence(
            account,
            codec,
            query=query,
            clock=clock,
            ledger_id=ledger_id,
            busy=busy,
            bound=bound,
            as_sent=as_sent,
            witnesses=witnesses,
        )
    return NoEvidence()
