"""What a provider can be asked about doubtful attempts: its listing, our own reference, or nothing.

Each kind answers the same question with the same verdicts (:mod:`runtime.reconcile`); :class:`runtime.doubts.Doubts`
decides when to ask and records what comes of it.  A question that could not be answered proves nothing (REC-4).
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol, TypeAlias

import msgspec
import trio

from adapters.base import (
    Accepted,
    HttpCall,
    HttpReply,
    ImageRequest,
    ListedJob,
    Lists,
    LooksUp,
    LookupOutcome,
    MalformedReply,
    NotVisible,
    Throttled,
    Unreadable,
)
from ledger.events import AbsentEvidence, AdoptEvidence
from runtime.accounts import Account
from runtime.ports import Clock, WireError
from runtime.reconcile import SKEW_S, CannotTell, Doubt, Found, Judgement, NotThere, judge
from runtime.work import Work, WorkKey

Query: TypeAlias = Callable[[HttpCall], Awaitable[HttpReply]]
Witnesses: TypeAlias = Callable[[int, int], Collection[str]]
AsSent: TypeAlias = Callable[[Work], Awaitable[ImageRequest | None]]

_PAGES_AT_MOST = 2000
_LOOKUPS_AT_ONCE = 8
CLOCKS_APART_US = 86_400_000_000  # how wrong our own clock may have been when something was recorded


class Looked(msgspec.Struct, frozen=True):
    """What one look told.  ``trouble``: why nothing can be concluded about the ``unanswered``; ``clocks_apart``: it is
    that this machine's clock and the provider's disagree."""

    verdicts: Sequence[Judgement]
    trouble: str = ""
    unanswered: frozenset[WorkKey] = frozenset()
    clocks_apart: bool = False


class CannotLook(Exception):
    """A page of a listing could not be read."""


class ClocksApart(CannotLook):
    """This machine's clock and the provider's disagree, so no time of the listing means what we think."""


class Evidence(Protocol):
    """One way to find out about doubtful attempts."""

    found_by: AdoptEvidence
    absent_by: AbsentEvidence

    async def look(self, works: Mapping[WorkKey, Work], ripe: Collection[WorkKey]) -> Looked:
        """Judge what can be judged now.  ``ripe``: those whose quarantine is over."""
        ...

    def next_look(self) -> float:
        """When to look again for its own reasons (monotonic); infinity when there are none."""
        ...


class NoEvidence:
    """Nobody can be asked."""

    found_by: AdoptEvidence = "operator"
    absent_by: AbsentEvidence = "listing"

    async def look(self, works: Mapping[WorkKey, Work], ripe: Collection[WorkKey]) -> Looked:
        return Looked([CannotTell(key, "no_evidence") for key in works])

    def next_look(self) -> float:
        return float("inf")


class LookupEvidence:
    """The provider finds a job by the reference that it was made with.

    One "not found" may be a slow replica: absence needs two of them, apart by more than the documented lag, both
    asked after the quarantine.
    """

    found_by: AdoptEvidence = "lookup"
    absent_by: AbsentEvidence = "not_found"

    def __init__(
        self,
        account: Account,
        codec: LooksUp,
        *,
        query: Query,
        clock: Clock,
        ledger_id: str,
        taken: Callable[[Collection[str]], Collection[str]] = lambda jobs: (),
    ) -> None:
        """``taken`` gives those of some jobs that an attempt was ever bound to."""
        record = account.codec.capabilities.lookup
        assert record is not None, f"{account.name}: a lookup in the codec and none in the record"
        self._lag_s = min(record.value.lag_s, account.quarantine)
        self._account = account
        self._codec = codec
        self._query = query
        self._clock = clock
        self._ledger_id = ledger_id
        self._taken = taken
        self._missed_at: dict[tuple[WorkKey, int], float] = {}

    async def look(self, works: Mapping[WorkKey, Work], ripe: Collection[WorkKey]) -> Looked:
        # What is no longer in doubt is not waited for: a time that is past would have the others asked for at once.
        self._missed_at = {missed: at for missed, at in self._missed_at.items() if missed[0] in works}
        verdicts: list[Judgement] = []
        troubles: dict[WorkKey, str] = {}
        found: dict[WorkKey, str] = {}
        turns = trio.CapacityLimiter(_LOOKUPS_AT_ONCE)

        async def ask(key: WorkKey, work: Work) -> None:
            async with turns:
                outcome = await self._ask(work)
            match outcome:
                case Accepted(job=job):
                    found[key] = job
                case NotVisible() if key in ripe and self._missed_twice(key, work.attempt.number):
                    verdicts.append(NotThere(key))
                case NotVisible():
                    pass
                case Throttled():
                    troubles[key] = "asked too fast"
                case Unreadable(detail=detail):
                    troubles[key] = detail

        async with trio.open_nursery() as nursery:
            for key, work in works.items():
                nursery.start_soon(ask, key, work)
        times = Counter(found.values())
        taken = set(self._taken(times)) if times else set()
        for key, job in found.items():
            # A reference is of one attempt, and so is its job (REC-5): a lookup that shows another's did not look.
            if job in taken or times[job] > 1:
                troubles[key] = "it shows a job of another purchase"
            else:
                verdicts.append(Found(key, job))
                self._missed_at.pop((key, works[key].attempt.number), None)
        return Looked(verdicts, next(iter(troubles.values()), ""), frozenset(troubles))

    def next_look(self) -> float:
        return min((at + self._lag_s for at in self._missed_at.values()), default=float("inf"))

    async def _ask(self, work: Work) -> LookupOutcome:
        reference = work.given_reference(self._ledger_id)
        try:
            reply = await self._query(self._codec.build_lookup(reference, self._account.context()))
            return self._codec.read_lookup(reply)
        except (WireError, MalformedReply) as exc:
            return Unreadable(str(exc))

    def _missed_twice(self, key: WorkKey, attempt: int) -> bool:
        now = self._clock.monotonic()
        if now < self._missed_at.setdefault((key, attempt), now) + self._lag_s:
            return False
        del self._missed_at[key, attempt]
        return True


class ListingEvidence:
    """A complete listing of the account's jobs.

    One listing may come from a replica that is behind, or be cut short without saying so: before an attempt is called
    absent, the listing is read a second time, and what either of them shows is there.  And jobs that the provider
    itself named in its answers at that time bear witness: a listing without one of them is without others, too.
    """

    found_by: AdoptEvidence = "listing"
    absent_by: AbsentEvidence = "listing"

    def __init__(
        self,
        account: Account,
        codec: Lists,
        *,
        query: Query,
        clock: Clock,
        ledger_id: str,
        busy: Callable[[], Collection[str]],
        bound: Callable[[int], Collection[str]],
        as_sent: AsSent,
        witnesses: Witnesses,
    ) -> None:
        """``busy`` names fingerprints of submits under way; ``bound`` gives the job ids that the ledger bound since a
        time (UTC microseconds); ``as_sent`` gives the request of an attempt as the provider was given it, None when
        nobody can know any more; ``witnesses`` gives jobs that must be on a list, by the time of their purchase."""
        record = account.codec.capabilities.listing
        self._lag_s = min(record.value.lag_s, account.quarantine) if record else 0.0
        self._witnesses = witnesses
        self._account = account
        self._codec = codec
        self._query = query
        self._clock = clock
        self._ledger_id = ledger_id
        self._busy = busy
        self._bound = bound
        self._as_sent = as_sent

    def next_look(self) -> float:
        return float("inf")

    async def look(self, works: Mapping[WorkKey, Work], ripe: Collection[WorkKey]) -> Looked:
        prints: dict[WorkKey, str] = {}
        timeless: set[WorkKey] = set()  # recorded by a clock that was ahead: nobody knows when they were intended
        verdicts: list[Judgement] = []
        for key, work in works.items():
            beyond = beyond_listing(self._account, self._clock, work)
            shown = None if beyond == "no_evidence" else await self._fingerprint(work)
            if shown is None:
                verdicts.append(CannotTell(key, "no_evidence"))
                continue
            prints[key] = shown
            if beyond == "clock_changed":
                timeless.add(key)
        works = {key: works[key] for key in prints}
        busy = set(self._busy())
        if not works:
            return Looked(verdicts)
        intended_us = {key: intended_at(self._clock, work) for key, work in works.items()}
        intended_us.update(dict.fromkeys(timeless, self._clock.now_us() - CLOCKS_APART_US))
        since_us = min(intended_us.values()) - int(SKEW_S * 1e6)
        doubts = [
            Doubt(key, shown, intended_us[key], key in ripe and key not in timeless) for key, shown in prints.items()
        ]
        seen_by_us = self._clock.now_us() - int(self._lag_s * 1e6)
        try:
            jobs = await self._read(since_us)
            judged_once = self._judged(doubts, jobs, since_us, busy)
            if any(isinstance(verdict, NotThere) for verdict in judged_once):
                jobs = merged((*jobs, *await self._read(since_us)))
        except CannotLook as exc:
            return Looked(verdicts, str(exc), frozenset(works), isinstance(exc, ClocksApart))
        verdicts += self._judged(doubts, jobs, since_us, busy)
        absent = frozenset(verdict.key for verdict in verdicts if isinstance(verdict, NotThere))
        if absent:
            # Also of the minutes before, as far as clocks agree: a list that was cut short is without its oldest.
            witnesses = self._witnesses(min(intended_us.values()) - int(SKEW_S / 2 * 1e6), seen_by_us)
            missing = set(witnesses) - {job.job for job in jobs}
            if missing:
                kept = [verdict for verdict in verdicts if verdict.key not in absent]
                return Looked(kept, f"the list is without {len(missing)} jobs that were accepted in that time", absent)
        # Their job may be found; but no listing is known to reach far enough to be without it.
        judged = {verdict.key for verdict in verdicts}
        untold = {key for key in timeless.intersection(ripe) - judged if prints[key] not in busy}
        return Looked([*verdicts, *(CannotTell(key, "clock_changed") for key in sorted(untold))])

    async def _read(self, since_us: int) -> list[ListedJob]:
        return await read_listing(self._account, self._codec, query=self._query, clock=self._clock, since_us=since_us)

    def _judged(
        self, doubts: Sequence[Doubt], jobs: Sequence[ListedJob], since_us: int, busy: set[str]
    ) -> list[Judgement]:
        busy.update(self._busy())  # also what was begun while the listing was read
        return judge(doubts, jobs, self._bound_of(jobs, doubts, since_us), busy)

    def _bound_of(self, jobs: Sequence[ListedJob], doubts: Sequence[Doubt], since_us: int) -> Collection[str]:
        """Which of the listed jobs are bound already.

        The times in the ledger are those of our wall clock, which may have been wrong when another attempt was bound.
        So before a job counts as free, a whole day more is searched (REC-5, REC-8); mostly none looks free.
        """
        bound = self._bound(since_us)
        prints = {doubt.fingerprint for doubt in doubts}
        if all(job.job in bound or (job.fingerprint is not None and job.fingerprint not in prints) for job in jobs):
            return bound
        return self._bound(since_us - CLOCKS_APART_US)

    async def _fingerprint(self, work: Work) -> str | None:
        """What a listing would show of the attempt; None when what was sent cannot be known any more."""
        if work.fingerprint:
            return work.fingerprint
        request = await self._as_sent(work)
        if request is None:
            return None
        marker = work.marker(self._ledger_id, work.attempt.number)
        return self._codec.fingerprint(request, self._account.context(marker=marker))


async def read_listing(account: Account, codec: Lists, *, query: Query, clock: Clock, since_us: int) -> list[ListedJob]:
    """Read every job that the account made since a time.

    Raises:
        CannotLook: a page could not be read, the pages lead in a circle, or our clock and the provider's disagree.
    """
    until_us = clock.now_us() + int(SKEW_S * 1e6)
    jobs: list[ListedJob] = []
    cursor: str | None = None
    asked: set[str] = set()
    for _ in range(_PAGES_AT_MOST):
        call = codec.build_list(account.context(), since_us=max(0, since_us), until_us=until_us, cursor=cursor)
        try:
            reply = await query(call)
            page = codec.read_list(reply)
        except (WireError, MalformedReply) as exc:
            raise CannotLook(str(exc)) from exc
        compare_clocks(clock, reply)
        jobs.extend(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return merged(jobs)
        if cursor in asked:
            raise CannotLook("the pages of the list lead in a circle")
        asked.add(cursor)
    raise CannotLook(f"more than {_PAGES_AT_MOST} pages")


def merged(jobs: Iterable[ListedJob]) -> list[ListedJob]:
    """Each job once, where pages overlap: as it shows most of itself."""
    found: dict[str, ListedJob] = {}
    for job in jobs:
        if job.job not in found or found[job.job].fingerprint is None:
            found[job.job] = job
    return list(found.values())


def intended_at(clock: Clock, work: Work) -> int:
    """When the attempt was intended, in the wall time of now (UTC microseconds), or earlier where the two disagree.

    A clock that was set back since would put the intent behind the provider's creation time of its job, the
    listing would be asked too late, and *absent* would be believed of a job that runs (REC-8).
    """
    recorded_us = work.attempt.intended_at_us
    if work.intended_at is None:
        return recorded_us
    age_s = clock.monotonic() - work.intended_at
    return min(recorded_us, clock.now_us() - int(age_s * 1e6))


def beyond_listing(account: Account, clock: Clock, work: Work) -> Literal["", "no_evidence", "clock_changed"]:
    """Why a listing cannot prove an attempt absent: it is older than the listing reaches, or was made by a clock that
    was ahead of now's.  Empty: it can."""
    listing = account.codec.capabilities.listing
    age_s = (clock.now_us() - intended_at(clock, work)) / 1e6
    if age_s < -SKEW_S:
        return "clock_changed"
    return "no_evidence" if listing is not None and age_s + 2 * SKEW_S > listing.value.keeps_s else ""


def compare_clocks(clock: Clock, reply: HttpReply) -> None:
    """A time of a listing is only the one that we mean while both clocks agree.

    Raises:
        ClocksApart: they do not.
    """
    try:
        theirs_s = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
    except ValueError:
        return  # not stated
    apart_s = abs(theirs_s - clock.now_us() / 1e6)
    if apart_s > SKEW_S / 2:
        raise ClocksApart(f"this machine's clock and the provider's are {apart_s:.0f} s apart")
