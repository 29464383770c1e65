"""Follows batches until they have ended, and hands each of their lines on like a reply of its own.

It stands in the place of the :class:`~runtime.poller.Poller` where images are bought by the file: what is asked for is
the batch, rarely, and one answer speaks of all its lines.  The results are streamed and read line by line, so that
memory holds one line at a time; each image is durable and on record before the next line is looked at.  So a kill in
the middle costs nothing: the file is read again, and lines that are on record already are passed over (LIVE-2).
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
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
    Throttled,
    Unreadable,
)
from adapters.batchfile import BatchFiles, BatchOutcome, LineResult, NoResults, ResultFile, batch_of_job
from ledger.commands import Cancel, Record
from ledger.events import AttemptLost
from runtime import faults
from runtime.accounts import Account
from runtime.batchevidence import attempt_of_key
from runtime.batchresults import read_results
from runtime.delivery import record_failed, record_ready
from runtime.keycheck import Seen, seen
from runtime.patience import Patience
from runtime.poller import Told
from runtime.ports import Clock, Wire, WireError
from runtime.spool import Spool
from runtime.waiting import Bell
from runtime.work import TaskLog, Work

_log = logging.getLogger(__name__)

_LONGEST_S = 300.0  # between two looks at a batch that may take a day
_FIRST_S = 10.0  # many batches are small, and done within minutes
_SHORTEST_S = 0.5
_SETTLE_S = 0.5  # lines of one batch arrive together: it is looked at when all of them are known
_UNSEEN_S = 60.0
_LOST_AFTER_S = 600.0
_REFUSED_S = 300.0
_SHORT_S = 60.0  # so much later, results without some of their lines are read once more


class _Batch:
    """A batch with those of its lines that are ours and open, by what their keys begin with."""

    __slots__ = (
        "due",
        "followed_at",
        "id",
        "lane",
        "missed",
        "missed_at",
        "refused_at",
        "told_to_stop",
        "unread",
        "unseen_at",
        "works",
    )

    def __init__(self, batch: str, lane: str, now: float) -> None:
        self.id = batch
        self.lane = lane
        self.works: dict[str, Work] = {}
        self.due = now
        self.followed_at = now
        self.unseen_at: float | None = None
        self.refused_at: float | None = None
        self.told_to_stop = False
        self.unread = 0  # lines of the results that nobody can read
        self.missed: set[str] = set()  # lines that the results lacked when they were read first,
        self.missed_at = 0.0  # and when that was

    def __repr__(self) -> str:
        return f"<batch {self.id}, {len(self.works)} lines>"


class BatchPoller:
    def __init__(
        self,
        account: Account,
        codec: BatchFiles,
        *,
        query: Callable[[HttpCall], Awaitable[HttpReply]],
        log: TaskLog,
        wire: Wire,
        clock: Clock,
        random: Random,
        spool: Spool,
        told: Told,
        foreign: Callable[[int], bool],
    ) -> None:
        """``query`` sends a free call under the account's query limit; ``foreign`` as for the poller."""
        self._account = account
        self._codec = codec
        self._query = query
        self._log = log
        self._wire = wire
        self._clock = clock
        self._random = random
        self._spool = spool
        self._told = told
        self._foreign = foreign
        self._patience = Patience(account.codec.capabilities, clock, log)
        self._batches: dict[str, _Batch] = {}
        self._tokens: Counter[str] = Counter()  # by lane, of all lines that are followed
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<BatchPoller {self._account.name} batches={len(self._batches)}>"

    @property
    def open(self) -> int:
        """How many batches have not ended yet."""
        return len(self._batches)

    def tokens(self, lane: str) -> int:
        """How many tokens of a lane wait at the provider."""
        return self._tokens[lane]

    def accepted(self, work: Work) -> None:
        """A line of a batch that was just created."""
        self._follow(work, self._pause_s(0.0))

    def overdue(self, work: Work, *, within_s: float = 0.0) -> None:
        """A line of a batch of unknown age, or one that somebody wants stopped."""
        self._follow(work, _SETTLE_S + self._random.uniform(0.0, within_s))

    def hinted(self, work: Work) -> None:
        """Nobody is called back about a line."""

    def clear(self) -> None:
        """Forget everything (the owner is about to name all its works anew)."""
        self._batches.clear()
        self._tokens.clear()

    async def run(self) -> None:
        """Look at one batch after the other until cancelled."""
        while True:
            batch = min(self._batches.values(), key=lambda each: each.due, default=None)
            if batch is None or batch.due > self._clock.monotonic():
                await self._bell.wait_rung(deadline=float("inf") if batch is None else batch.due)
                continue
            now = self._clock.monotonic()
            batch.due = now + self._pause_s(now - batch.followed_at)
            await self._look(batch)
            if not batch.works:
                self._batches.pop(batch.id, None)

    async def ask(self, work: Work) -> PollOutcome:
        """Read the line of a ready task once more: its image was lost on our side."""
        name, key = _followed(work)
        outcome = await self._state(name)
        if not isinstance(outcome, ResultFile):
            return outcome
        found: list[Finished | Failed] = []

        async def take(result: LineResult) -> None:
            if attempt_of_key(result.key) == key:
                found.append(result.outcome)

        answer = await self._results(outcome.name, take, lambda line: None)
        if answer is None:
            return found[0] if found else Gone("the results have no line for it")
        return answer

    async def sees(self, job: str) -> Seen:
        """Whether the batch of a job is readable with the account's key."""
        return seen(await self._state(batch_of_job(job)[0]))

    # --- one batch ----------------------------------------------------------------------------------------

    def _follow(self, work: Work, delay_s: float) -> None:
        name, key = _followed(work)
        now = self._clock.monotonic()
        work.followed_at = now if work.followed_at is None else work.followed_at
        batch = self._batches.setdefault(name, _Batch(name, work.attempt.lane, now))
        if key not in batch.works:
            self._tokens[batch.lane] += self._codec.tokens(work.request)
        batch.works[key] = work
        batch.due = now + delay_s
        self._bell.ring()

    def _let_go(self, batch: _Batch, key: str) -> Work:
        work = batch.works.pop(key)
        self._tokens[batch.lane] -= self._codec.tokens(work.request)
        return work

    def _pause_s(self, age_s: float) -> float:
        """How long to wait for the next look, at a batch that is followed for so long: it costs a call and tells of all
        lines, so few of them are enough."""
        most_s = min(_LONGEST_S, max(_SHORTEST_S, self._account.latency / 8))
        return min(most_s, max(_FIRST_S, age_s / 4)) * self._random.uniform(0.9, 1.1)

    async def _look(self, batch: _Batch) -> None:
        for key, work in list(batch.works.items()):
            if work.phase != "accepted" or work.attempt.account != self._account.name:
                self._let_go(batch, key)  # somebody else's by now
        if not batch.works:
            return
        await self._stop(batch)
        outcome = await self._state(batch.id)
        if isinstance(outcome, Failed) and self._is_foreign(batch):
            outcome = NotVisible()  # what another account is told of a batch that it does not see (REC-9)
        now = self._clock.monotonic()
        if not isinstance(outcome, NotVisible | Throttled | Unreadable):  # the last two say nothing of the batch
            batch.unseen_at = None
        if not (isinstance(outcome, Unreadable) and outcome.unauthorized):
            batch.refused_at = None
        for work in batch.works.values():
            self._patience.heard(work, outcome)
        match outcome:
            case Pending():
                return
            case ResultFile(name=name):
                faults.point("result_seen")
                await self._read(batch, name)
            case Failed():
                await self._failed(batch, list(batch.works), outcome)
            case NotVisible():
                if batch.unseen_at is None:
                    batch.unseen_at = now
                if self._given_up(batch, now):
                    await self._unknown_here(batch)
            case Throttled(retry_after_s=seconds):
                batch.due = max(batch.due, now + (seconds or 0.0))
            case Unreadable(garbled=True, detail=detail) if self._given_up_reading(batch):
                await self._never_read(batch, detail)
            case Unreadable():
                self._unreadable(batch, outcome)

    async def _state(self, batch: str) -> BatchOutcome:
        """Ask how far a batch is; what network and peer do wrong becomes ``Unreadable``."""
        try:
            return self._codec.read_batch(await self._query(self._codec.build_batch(batch, self._account.context())))
        except WireError as exc:
            return Unreadable(detail=str(exc))
        except MalformedReply as exc:
            return Unreadable(detail=f"malformed reply: {exc}", garbled=True)

    def _unreadable(self, batch: _Batch, outcome: Unreadable) -> None:
        now = self._clock.monotonic()
        _log.info("%r cannot be read: %s", batch, outcome.detail)
        if not outcome.unauthorized:
            return
        self._told.unauthorized(outcome.detail)
        if batch.refused_at is None:
            batch.refused_at = now
        elif now - batch.refused_at > _REFUSED_S:
            self._strand(batch, "the account's key is refused")

    async def _stop(self, batch: _Batch) -> None:
        """Ask the provider to stop a batch of which nothing is wanted any more.

        A single line cannot be stopped, and the others are not given up for it: it comes home with them.
        """
        asked = [work for work in batch.works.values() if work.cancel_by]
        if not asked:
            return
        all_of_it, again = len(asked) == len(batch.works), batch.told_to_stop
        older = any(work.attempt.epoch < self._log.epoch for work in asked)
        if again or older:  # it may have ended, or been asked before (W15)
            all_of_it = all_of_it and isinstance(await self._state(batch.id), Pending)
        await self._log.record_all([(work, Cancel(operator=work.cancel_by)) for work in asked])
        faults.point("cancel_recorded")
        if all_of_it:
            batch.told_to_stop = True
            if not await self._tell_to_stop(batch) and not again:
                return  # once more at the next look
        for work in asked:
            work.cancel_by = ""

    async def _tell_to_stop(self, batch: _Batch) -> bool:
        """Whether the provider has heard it."""
        try:
            reply = await self._query(self._codec.build_stop(batch.id, self._account.context()))
        except WireError as exc:
            _log.warning("%r could not be asked to stop: %s", batch, exc)
            return False
        faults.point("cancel_answered")
        return reply.status != 429 and reply.status < 500

    # --- results ------------------------------------------------------------------------------------------

    async def _read(self, batch: _Batch, name: str) -> None:
        """Take the lines home.  Those that are missing in a whole file have failed, once it was read a second time.

        A file may be cut short without saying so, or be written still, and a line that failed is bought again.
        """
        batch.unread = 0
        known = set(batch.works)

        async def take(result: LineResult) -> None:
            await self._take(batch, result)

        def unread(why: str) -> None:
            batch.unread += 1
            _log.error("%r: a line of its results cannot be read: %s", batch, why)

        answer = await self._results(name, take, unread)
        match answer:
            case None:
                # A line that was adopted meanwhile may have been passed over: the file is read again for it.
                await self._missing(batch, {key for key in batch.works if key in known})
            case Gone(detail=detail):
                await self._lost(batch, detail or "the results are gone")
            case Throttled(retry_after_s=seconds):
                batch.due = max(batch.due, self._clock.monotonic() + (seconds or 0.0))
            case Unreadable():
                self._unreadable(batch, answer)

    async def _missing(self, batch: _Batch, keys: set[str]) -> None:
        """These lines were not in a file that was read to its end."""
        now = self._clock.monotonic()
        twice = batch.missed & keys if now >= batch.missed_at + _SHORT_S else set()
        if twice:
            # Whose the unreadable lines are nobody can know, and they were probably paid.
            missing = Failed("contract", "the results have no readable line for it", charged=batch.unread > 0)
            await self._failed(batch, [key for key in batch.works if key in twice], missing)
        if once := keys - twice:
            _log.warning("%r: its results are without %d lines of ours: they are read again", batch, len(once))
            if not once <= batch.missed:
                batch.missed, batch.missed_at = batch.missed | once, now
            batch.due = max(batch.due, batch.missed_at + _SHORT_S)

    async def _results(
        self, name: str, take: Callable[[LineResult], Awaitable[None]], unread: Callable[[str], None]
    ) -> NoResults | None:
        call = self._codec.build_results(name, self._account.context())
        return await read_results(self._codec, call, self._wire, take, unread)

    async def _take(self, batch: _Batch, result: LineResult) -> None:
        """Hand one line on.  What is on record already was taken before a kill."""
        key = attempt_of_key(result.key)
        work = batch.works.get(key)
        if work is None:
            return
        number = work.attempt.number
        self._let_go(batch, key)
        if isinstance(result.outcome, Failed):
            await record_failed(self._log, work, number, result.outcome)
            self._told.charged(work, number)
            self._told.ended(work, False)
            return
        await self._spool.keep(work, number, result.outcome)
        faults.point("reply_spooled")
        kept = msgspec.structs.replace(result.outcome, data=b"")  # the fetcher takes it from there
        await record_ready(self._log, self._clock, work, number, kept, life_s=0.0)
        faults.point("ready_recorded")
        self._told.ready(work)

    async def _failed(self, batch: _Batch, keys: Sequence[str], outcome: Failed) -> None:
        """All these lines failed for the same reason."""
        works = [batch.works[key] for key in keys]
        async with trio.open_nursery() as nursery:  # together: one commit
            for work in works:
                nursery.start_soon(record_failed, self._log, work, work.attempt.number, outcome)
        for place, key in enumerate(keys):
            providers_fault = outcome.reason == "provider" and place == 0  # one batch failed, not so many
            self._told.ended(self._let_go(batch, key), providers_fault)

    async def _lost(self, batch: _Batch, reason: str) -> None:
        _log.error("%r: paid and lost: %s", batch, reason)
        lost: list[tuple[Work, Record]] = []
        for work in batch.works.values():
            attempt = work.attempt
            fact = AttemptLost(attempt=attempt.number, reason=reason, cost_microusd=attempt.ceiling_microusd)
            lost.append((work, Record(fact)))
        await self._log.record_all(lost)
        for key in list(batch.works):
            self._told.ended(self._let_go(batch, key), False)

    # --- batches that cannot be found ---------------------------------------------------------------------

    def _given_up(self, batch: _Batch, now: float) -> bool:
        """Whether the batch has been invisible for too long to be on its way."""
        longest_s = max(_LOST_AFTER_S, self._account.codec.capabilities.visible_after_s.value)
        unseen_s = 0.0 if batch.unseen_at is None else now - batch.unseen_at
        return unseen_s >= _UNSEEN_S and (now - batch.followed_at > longest_s or self._is_foreign(batch))

    async def _unknown_here(self, batch: _Batch) -> None:
        if self._is_foreign(batch):
            self._strand(batch, "it was bought with another key than the account has now")
        else:
            await self._lost(batch, "the provider does not know the batch")

    def _given_up_reading(self, batch: _Batch) -> bool:
        """Whether its answers could not be read for so long that asking on would only keep the night from ending."""
        return any(self._patience.garbled_for_good(work) for work in batch.works.values())

    async def _never_read(self, batch: _Batch, why: str) -> None:
        if all(self._patience.outlived(work) for work in batch.works.values()):
            await self._lost(batch, "no answer about it could be read for as long as a result is kept")
        else:
            self._strand(batch, f"its answers cannot be read ({why})")

    def _is_foreign(self, batch: _Batch) -> bool:
        return any(self._foreign(work.attempt.epoch) for work in batch.works.values())

    def _strand(self, batch: _Batch, why: str) -> None:
        _log.error("%r: %s: it is asked for again by the next run", batch, why)
        for key in list(batch.works):
            self._told.stranded(self._let_go(batch, key))


def _followed(work: Work) -> tuple[str, str]:
    """The batch of a line, and what names the line in it."""
    batch, key = batch_of_job(work.attempt.job)
    return batch, attempt_of_key(key)
