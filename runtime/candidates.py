"""Which jobs at a provider could be the ones of held attempts: for a person to choose from.

Recovery adopts only what is proven (:mod:`runtime.reconcile`).  What a person is shown goes further: also a job whose
input the provider does not show, when it was made at that time and is nobody's; and a job that a callback named.
Everything is asked for now, with the account's own key, and nothing is concluded from a job that is not there.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import msgspec
import trio

from adapters.base import (
    Accepted,
    Codec,
    Failed,
    Finished,
    Gone,
    ImageRequest,
    ListedJob,
    Lists,
    LooksUp,
    LookupOutcome,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Polls,
    Throttled,
    Unreadable,
)
from adapters.batchfile import BatchFiles, BatchOutcome, ResultFile, line_job
from runtime.accounts import Account
from runtime.batchevidence import line_key, read_batches
from runtime.evidence import CLOCKS_APART_US, CannotLook, Query, beyond_listing, intended_at, read_listing
from runtime.ports import Clock, WireError
from runtime.reconcile import SKEW_S
from runtime.work import Work, WorkKey

How: TypeAlias = Literal["listing", "lookup", "batches", "nothing"]
Told: TypeAlias = Literal["running", "succeeded", "failed", "gone", "not there"]
Fits: TypeAlias = Literal["input", "reference", "callback", "time"]
Bound: TypeAlias = Callable[[Collection[str]], Collection[str]]

_Thing = TypeVar("_Thing")
_Answer = TypeVar("_Answer")

_AT_ONCE = 8


class Candidate(msgspec.Struct, frozen=True):
    """A job that could be the one of an attempt.

    ``fits``: by its shown ``input``; by our ``reference`` or file name; by a ``callback`` of somebody who knew the
    attempt's address; or by its ``time`` alone, for its input is not shown.  ``created_us`` 0 = not told.
    """

    job: str
    state: Told
    fits: Fits
    created_us: int = 0
    model: str = ""
    cost_microusd: int | None = None


class Held(msgspec.Struct, frozen=True):
    """A held attempt: its task, the request as the provider was given it (None = nobody knows any more), and the jobs
    that callbacks named."""

    work: Work
    as_sent: ImageRequest | None
    named: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True):
    """What one account told.  ``trouble``: why it could not be asked; then nothing is known.

    ``candidates`` has those of each task, the best first.  Of those ``beyond`` the list proves nothing by a time: they
    are older than it reaches, or were sent while a clock was wrong.  ``busy``: jobs that may be of a request whose
    answer is on its way to the record; who adopts one of them may bind a job twice (REC-5).
    """

    how: How
    trouble: str = ""
    candidates: Mapping[WorkKey, Sequence[Candidate]] = {}
    beyond: frozenset[WorkKey] = frozenset()
    busy: frozenset[str] = frozenset()


def how_asked(codec: Codec) -> How:
    """What the provider can be asked about a lost answer."""
    if isinstance(codec, BatchFiles):
        return "batches"
    if isinstance(codec, LooksUp):
        return "lookup"
    if isinstance(codec, Lists) and codec.capabilities.listing is not None:
        return "listing"
    return "nothing"


async def search(
    account: Account,
    held: Sequence[Held],
    *,
    query: Query,
    clock: Clock,
    ledger_id: str,
    bound: Bound,
    sending_since_us: int | None = None,
) -> Asked:
    """Ask the account once about all of them.

    ``bound`` gives those of some jobs that an attempt has already; ``sending_since_us`` is when the oldest request was
    intended that has no outcome on record, None when there is none.
    """
    codec = account.codec
    asked = Asked(how_asked(codec))
    try:
        if isinstance(codec, BatchFiles):
            asked = Asked("batches", candidates=await _by_file(account, codec, held, query, clock))
        elif isinstance(codec, LooksUp):
            asked = Asked("lookup", candidates=await _by_reference(account, codec, held, query, ledger_id))
        elif isinstance(codec, Lists) and asked.how == "listing":
            asked = await _by_listing(account, codec, held, query, clock, ledger_id, bound, sending_since_us)
        named = {job for each in held for job in each.named}
        named -= set(bound(named)) if named else set()
        states = dict(await _together(sorted(named), lambda job: state_of(account, job, query)))
    except CannotLook as exc:
        return Asked(asked.how, trouble=str(exc))
    candidates: dict[WorkKey, Sequence[Candidate]] = {}
    for each in held:
        mine = asked.candidates.get(each.work.key, ())
        known = {candidate.job for candidate in mine}
        called = [Candidate(job, states[job], "callback") for job in each.named if job in states and job not in known]
        candidates[each.work.key] = [*(one for one in called if one.state != "not there"), *mine]
    return msgspec.structs.replace(asked, candidates=candidates)


async def state_of(account: Account, job: str, query: Query) -> Told:
    """Read one job with the account's key.

    Raises:
        CannotLook: it could not be read now.
    """
    codec = account.codec
    if not isinstance(codec, Polls):
        return "not there"
    try:
        outcome = codec.read_poll(await query(codec.build_poll(job, account.context())))
    except (WireError, MalformedReply, ValueError) as exc:  # a ValueError: no id of a job has this form
        raise CannotLook(str(exc)) from exc
    return _told(outcome)


# --- the ways to ask --------------------------------------------------------------------------------------

_Found: TypeAlias = dict[WorkKey, list[Candidate]]


async def _by_file(account: Account, codec: BatchFiles, held: Sequence[Held], query: Query, clock: Clock) -> _Found:
    named = await read_batches(account, codec, query=query, clock=clock)
    batches = {batch.batch: batch for each in held for batch in named.get(each.work.attempt.file, [])}

    async def state(batch: str) -> Told:
        try:
            return _told(codec.read_batch(await query(codec.build_batch(batch, account.context()))))
        except (WireError, MalformedReply) as exc:
            raise CannotLook(str(exc)) from exc

    states = dict(await _together(sorted(batches), state))
    found: _Found = {}
    for each in held:
        work = each.work
        for batch in named.get(work.attempt.file, []) if work.attempt.file else []:
            job = line_job(batch.batch, line_key(work, work.attempt.number))
            candidate = Candidate(job, states[batch.batch], "reference", batch.created_us)
            found.setdefault(work.key, []).append(candidate)
    return found


async def _by_reference(account: Account, codec: LooksUp, held: Sequence[Held], query: Query, ledger_id: str) -> _Found:
    async def look(work: Work) -> Candidate | None:
        reference = work.given_reference(ledger_id)
        try:
            outcome: LookupOutcome = codec.read_lookup(await query(codec.build_lookup(reference, account.context())))
        except (WireError, MalformedReply) as exc:
            raise CannotLook(str(exc)) from exc
        match outcome:
            case Accepted(job=job):
                return Candidate(job, await state_of(account, job, query), "reference")
            case Throttled():
                raise CannotLook("asked too fast")
            case Unreadable(detail=detail):
                raise CannotLook(detail or "the lookup could not be read")
        return None

    looked = await _together([each.work for each in held], look)
    return {work.key: [candidate] for work, candidate in looked if candidate is not None}


def _intended_us(held: Held, timeless: Collection[WorkKey], clock: Clock) -> int:
    """``timeless``: nobody knows when they were sent, so the last day is searched."""
    if held.work.key in timeless:
        return clock.now_us() - CLOCKS_APART_US
    return intended_at(clock, held.work)


async def _by_listing(
    account: Account,
    codec: Lists,
    held: Sequence[Held],
    query: Query,
    clock: Clock,
    ledger_id: str,
    bound: Bound,
    sending_since_us: int | None,
) -> Asked:
    reasons = {each.work.key: beyond_listing(account, clock, each.work) for each in held}
    beyond = frozenset(key for key, reason in reasons.items() if reason)
    within = [each for each in held if reasons[each.work.key] != "no_evidence"]
    if not within:
        return Asked("listing", beyond=beyond)
    jobs = await _listed(account, codec, within, beyond, query, clock)
    busy: frozenset[str] = frozenset()
    if sending_since_us is not None:
        from_us = sending_since_us - int(SKEW_S / 2 * 1e6)
        busy = frozenset(job.job for job in jobs if job.created_us >= from_us)
    taken = busy.union(bound({job.job for job in jobs}))
    free = [job for job in jobs if job.job not in taken]
    found = _fitting(account, codec, within, beyond, free, clock, ledger_id)
    return Asked("listing", candidates=found, beyond=beyond, busy=busy)


async def _listed(
    account: Account, codec: Lists, held: Sequence[Held], timeless: Collection[WorkKey], query: Query, clock: Clock
) -> list[ListedJob]:
    since_us = min(_intended_us(each, timeless, clock) for each in held) - int(SKEW_S * 1e6)
    return await read_listing(account, codec, query=query, clock=clock, since_us=since_us)


def _fitting(
    account: Account,
    codec: Lists,
    held: Sequence[Held],
    timeless: Collection[WorkKey],
    free: Sequence[ListedJob],
    clock: Clock,
    ledger_id: str,
) -> _Found:
    """Which of the free jobs fit which task: by the same input, or by their time where an input cannot be compared."""
    caps = account.codec.capabilities
    skew_us = int(SKEW_S * 1e6)
    # So late a request that was given up can still have become a job.
    late_us = skew_us + int((caps.submit_timeout_s.value + caps.ingress_hold_s) * 1e6)
    found: _Found = {}
    for each in held:
        work, at_us = each.work, _intended_us(each, timeless, clock)
        shown = None
        if each.as_sent is not None:
            ctx = account.context(marker=work.marker(ledger_id, work.attempt.number))
            shown = codec.fingerprint(each.as_sent, ctx)
        fitting: list[Candidate] = []
        for job in sorted(free, key=lambda job: (abs(job.created_us - at_us), job.job)):
            same = shown is not None and job.fingerprint == shown
            silent = (job.fingerprint is None or shown is None) and work.key not in timeless
            if at_us - skew_us <= job.created_us and (same or (silent and job.created_us <= at_us + late_us)):
                fitting.append(_candidate(job, "input" if same else "time"))
        fitting.sort(key=lambda candidate: candidate.fits)  # "input" before "time"; the nearest in time stay first
        found[work.key] = fitting
    return found


def _candidate(job: ListedJob, fits: Fits) -> Candidate:
    cost = job.cost_microusd
    if cost is None and isinstance(job.outcome, Finished | Failed):
        cost = job.outcome.cost_microusd or None
    return Candidate(job.job, _told(job.outcome), fits, job.created_us, job.model, cost)


def _told(outcome: PollOutcome | BatchOutcome) -> Told:
    match outcome:
        case Pending():
            return "running"
        case Finished() | ResultFile():
            return "succeeded"
        case Failed():
            return "failed"
        case Gone():
            return "gone"
        case NotVisible():
            return "not there"
        case Throttled():
            raise CannotLook("asked too fast")
        case Unreadable(detail=detail):
            raise CannotLook(detail or "the job could not be read")


async def _together(
    things: Sequence[_Thing], ask: Callable[[_Thing], Awaitable[_Answer]]
) -> list[tuple[_Thing, _Answer]]:
    """Ask about each, a few at a time.

    Raises:
        CannotLook: one of them could not be answered.
    """
    answers: list[tuple[_Thing, _Answer]] = []
    trouble: list[CannotLook] = []
    turns = trio.CapacityLimiter(_AT_ONCE)

    async def one(thing: _Thing) -> None:
        async with turns:
            if not trouble:
                try:
                    answers.append((thing, await ask(thing)))
                except CannotLook as exc:
                    trouble.append(exc)

    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(one, thing)
    if trouble:
        raise trouble[0]
    return answers
