"""Jobs that another copy of a ledger bought, found at the providers when the ledger is taken over (REC-10).

A listing that shows what a job was asked for tells whose it is, and so does a reference of ours, which is the same in
both copies: a task that this ledger only knows as waiting takes the job over as an attempt of its own, and its image is
fetched like any other.  Nothing is concluded from a job that is not there; tasks without one go on waiting.  What a
listing shows and fits no task is counted: it was bought by another program, or twice.

Asked are the providers whose listing identifies a job by its input (``recovery`` is ``listing``), and those that find a
job by its reference (``lookup``): one page of waiting tasks after another, until none of a page was bought there, for
both copies buy in the same order.  A task with local references is left out: what they were uploaded as is not known
here.
"""

import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Literal

import msgspec
import trio

from adapters.base import Accepted, Failed, ListedJob, Lists, LooksUp, MalformedReply, Throttled, Unreadable
from adapters.batchfile import BatchFiles
from adapters.prices import PriceBook
from adapters.references import local_file
from ledger.commands import Intend, Record
from ledger.decisions import Append, Committed, Decision, Guard, Reserve
from ledger.events import AttemptAdopted, AttemptAmbiguous, TaskEvent
from ledger.folds import evolve_task
from ledger.journal import Ledger
from ledger.money import batch_money
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import task_stream
from runtime.accounts import Account
from runtime.clock import TrioClock
from runtime.egress import Egress
from runtime.evidence import CannotLook, read_listing
from runtime.limits import TokenBucket
from runtime.ports import WireError
from runtime.pricing import quote_by
from runtime.reconcile import SKEW_S
from runtime.requests import decode_request
from runtime.wire import HttpWire
from runtime.work import Work, WorkKey

_PAGE = 1000
_ATTEMPTS = 8
"""How many attempts further the other copy may have been: each may show another seed."""


_LOOKUPS = 3
"""The same, where each attempt is a question of its own."""
_PER_LOOK = 300
_AT_ONCE = 8


class Looked(msgspec.Struct, frozen=True):
    """What one account told.  ``trouble``: why it could not be read; then nothing is known."""

    account: str
    adopted: int = 0
    strangers: int = 0
    trouble: str = ""


def adopt_orphans(
    ledger: Ledger, accounts: Sequence[Account], batches: Sequence[int], book: PriceBook, *, since_us: int
) -> list[Looked]:
    """Bind what the providers show since a time to the waiting tasks of the batches, durably."""
    found = []
    with ledger.reader() as reader:
        for account in accounts:
            codec, recovery = account.codec, account.codec.capabilities.recovery
            if isinstance(codec, BatchFiles):
                continue
            try:
                if recovery == "lookup" and isinstance(codec, LooksUp):
                    found.append(_adopt_by_reference(ledger, reader, account, codec, batches, book))
                elif recovery == "listing" and isinstance(codec, Lists):
                    jobs = trio.run(_listed, account, codec, since_us - int(SKEW_S * 1e6))
                    found.append(adopt(ledger, reader, account, codec, jobs, batches, book))
            except CannotLook as exc:
                found.append(Looked(account.name, trouble=str(exc)))
    return found


@asynccontextmanager
async def _wire() -> AsyncIterator[HttpWire]:
    wire = HttpWire(Egress.from_environment(os.environ))
    try:
        yield wire
    finally:
        await wire.aclose()


async def _listed(account: Account, codec: Lists, since_us: int) -> list[ListedJob]:
    async with _wire() as wire:
        return await read_listing(account, codec, query=wire.send, clock=TrioClock(), since_us=since_us)


# --- by our reference ---------------------------------------------------------------------------------------


def _adopt_by_reference(
    ledger: Ledger, reader: Reader, account: Account, codec: LooksUp, batches: Sequence[int], book: PriceBook
) -> Looked:
    """Bind the jobs that were made with a reference of a waiting task's next attempts."""
    adopted = 0
    waiting = (work for work in _waiting(reader, batches) if account.codec.problem(work.request) is None)
    while page := list(islice(waiting, _PER_LOOK)):
        found = trio.run(_made_with, account, codec, page, ledger.ledger_id)
        bound = reader.bound(found.values()) if found else set()
        for work in page:
            job = found.get(work.key, "")
            if job and job not in bound and _bind(ledger, work, account, job, book, found_by="lookup"):
                adopted += 1
        if not found:
            break
    return Looked(account.name, adopted)


async def _made_with(account: Account, codec: LooksUp, works: Sequence[Work], ledger_id: str) -> dict[WorkKey, str]:
    """The job of each work that has one.  Raises CannotLook: an answer says neither that, nor that there is none."""
    found: dict[WorkKey, str] = {}
    troubles: list[str] = []
    clock, queries, turns = TrioClock(), TokenBucket(account.query_rate), trio.CapacityLimiter(_AT_ONCE)
    one_by_one = trio.Lock()

    async def ask(wire: HttpWire, work: Work, attempt: int) -> None:
        async with turns:
            async with one_by_one:
                while (wait_s := queries.seconds_until_free(clock.monotonic())) > 0:
                    await clock.sleep_until(clock.monotonic() + wait_s)
                queries.take(clock.monotonic())
            reference = work.reference(ledger_id, attempt)
            try:
                outcome = codec.read_lookup(await wire.send(codec.build_lookup(reference, account.context())))
            except (WireError, MalformedReply) as exc:
                outcome = Unreadable(str(exc))
        match outcome:
            case Accepted(job=job):
                found[work.key] = job
            case Throttled():
                troubles.append("asked too fast")
            case Unreadable(detail=detail):
                troubles.append(detail)

    async with _wire() as wire:
        for further in range(1, _LOOKUPS + 1):
            async with trio.open_nursery() as nursery:
                for work in [work for work in works if work.key not in found]:
                    nursery.start_soon(ask, wire, work, len(work.state.attempts) + further)
    if troubles:
        raise CannotLook(troubles[0])
    return found


# --- by a listing -------------------------------------------------------------------------------------------


def adopt(
    ledger: Ledger,
    reader: Reader,
    account: Account,
    codec: Lists,
    jobs: Sequence[ListedJob],
    batches: Sequence[int],
    book: PriceBook,
) -> Looked:
    """Bind those of the listed jobs that fit waiting tasks; one job to one task."""
    bound = reader.bound({job.job for job in jobs})
    unbound = [job for job in sorted(jobs, key=lambda job: (job.created_us, job.job)) if job.job not in bound]
    free: dict[str, list[ListedJob]] = defaultdict(list)
    for job in unbound:
        # One that failed there gives no image; the other copy may have bought the task once more after it.
        if job.fingerprint is not None and not isinstance(job.outcome, Failed):
            free[job.fingerprint].append(job)
    adopted = 0
    if free:
        for work in _waiting(reader, batches):
            fitting = next(
                (free[shown] for shown in _prints(work, account, codec, ledger.ledger_id) if free.get(shown)), None
            )
            if fitting and _bind(ledger, work, account, fitting[0].job, book, found_by="listing"):
                fitting.pop(0)
                adopted += 1
    return Looked(account.name, adopted, len(unbound) - adopted)


def _waiting(reader: Reader, batches: Sequence[int]) -> Iterator[Work]:
    """The tasks that wait to be bought, as the router would take them in."""
    for batch in batches:
        after = 0
        while page := reader.queued(batch, after=after, limit=_PAGE):
            after = page[-1].n
            for task in page:
                if task.request is not None:
                    work = Work(batch, task.n, task.state, decode_request(task.request), task.salt)
                    if not any(map(local_file, work.request.references)):
                        yield work


def _prints(work: Work, account: Account, codec: Lists, ledger_id: str) -> Iterator[str]:
    """What a listing would show of the task's next attempts."""
    if account.codec.problem(work.request) is not None:
        return
    last = None
    for attempt in range(len(work.state.attempts) + 1, len(work.state.attempts) + 1 + _ATTEMPTS):
        shown = codec.fingerprint(work.request, account.context(marker=work.marker(ledger_id, attempt)))
        if shown == last:
            return  # the same for every attempt
        last = shown
        yield shown


def _bind(
    ledger: Ledger, work: Work, account: Account, job: str, book: PriceBook, *, found_by: Literal["listing", "lookup"]
) -> bool:
    """Record the other copy's purchase as an attempt of the task; False when the budget has no room for it."""
    price = quote_by(book)(account, work.request)
    if price is None:
        return False
    number = len(work.state.attempts) + 1
    ctx = account.context(marker=work.marker(ledger.ledger_id, number))
    at_us = time.time_ns() // 1000
    intend = Intend(
        account=account.name,
        provider=account.provider,
        lane=account.codec.lane(work.request),
        route="takeover",
        ceiling_microusd=price.ceiling_microusd,
        body_digest=work.body_digest(account.codec.build_submit(work.request, ctx).body),
        deadline_us=at_us,
    )
    # All of it in one commit: there is no moment at which the purchase is in doubt.
    ambiguous = Record(AttemptAmbiguous(attempt=number, reason="crash"))
    adopted = Record(AttemptAdopted(attempt=number, job=job, evidence=found_by))
    state, events = work.state, list[TaskEvent]()
    for command in (intend, ambiguous, adopted):
        for event in decide_task(state, command):
            state = evolve_task(state, event, epoch=ledger.epoch, at_us=at_us)
            events.append(event)
    budget = ledger.batch(work.batch).settings.budget_microusd
    guards: tuple[Guard, ...] = () if budget is None else (Reserve(batch_money(work.batch), budget),)
    append = Append(task_stream(work.batch, work.n), work.state.version, tuple(events))
    (outcome,) = ledger.commit([Decision(appends=(append,), at_us=at_us, guards=guards)])
    return isinstance(outcome, Committed)
