"""Jobs that another copy of a ledger bought, found at the providers when the ledger is taken over (REC-10).

A listing that shows what a job was asked for tells whose it is, and so does a reference of ours, which is the same in
both copies: a task that this ledger only knows as waiting takes the job over as an attempt of its own, and its image is
fetched like any other.  A task that is settled here was bought twice: that job becomes an attempt of it as well, so
that its dollars are on record and its image is kept as a spare (MON-9, MON-10).  Nothing is concluded from a job that
is not there; tasks without one go on waiting.  What a listing shows and fits no task is counted: it was bought by
another program, or it is the one in doubt of a task that is still open.

Asked are the providers whose listing identifies a job by its input (``recovery`` is ``listing``), and those that find a
job by its reference (``lookup``): one page of waiting tasks after another, until none of a page was bought there, for
both copies buy in the same order; then settled ones likewise, those that changed last in front.  A task with local
references is left out: what they were uploaded as is not known here.

Where images are bought by the file (:mod:`bydawn.orphanfiles`), the name of a file tells that a copy of this ledger
made it, and the key of each of its lines whose it is.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Literal

import msgspec
import trio

from adapters.base import (
    Accepted,
    Failed,
    HttpCall,
    HttpReply,
    ListedJob,
    Lists,
    LooksUp,
    LookupOutcome,
    MalformedReply,
    NotVisible,
    Throttled,
    Unreadable,
)
from adapters.batchfile import BatchFiles, batch_of_job
from adapters.prices import PriceBook
from adapters.references import local_file
from bydawn.orphanfiles import Files, read_files
from ledger.commands import Find, Intend
from ledger.decisions import Append, Committed, Decision, Guard, Reserve
from ledger.ended import ended_tasks
from ledger.folds import ENDED, evolve_task
from ledger.journal import Ledger
from ledger.money import batch_money
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import task_stream
from runtime.accounts import Account
from runtime.batchevidence import line_key
from runtime.clock import TrioClock
from runtime.egress import Egress
from runtime.evidence import CannotLook, Query, read_listing
from runtime.limits import TokenBucket
from runtime.ports import WireError
from runtime.pricing import quote_by
from runtime.reconcile import SKEW_S
from runtime.requests import decode_request
from runtime.wire import HttpWire
from runtime.work import TextErased, Work, WorkKey, load_work

_PAGE = 1000
_ATTEMPTS = 8
"""How many attempts further the other copy may have been: each may show another seed."""
_LOOKUPS = 3
"""The same, where each attempt is a question of its own."""
_PER_LOOK = 300
_SETTLED_PER_LOOK = 100
_AT_ONCE = 8
_KEY = re.compile(r"([0-9]{1,7})-([0-9]{1,10})-([0-9]{1,7})-")


class Looked(msgspec.Struct, frozen=True):
    """What one account told.

    ``adopted``: jobs of tasks that waited.  ``surplus``: of tasks that are settled, by their ceilings, in the
    ``batches`` of these names.  ``strangers``: of none.  ``trouble``: why it could not be read; then nothing is known.
    ``silent_files``: files of requests that have not told what is in them yet.  ``lost_files``: that never will.
    """

    account: str
    adopted: int = 0
    surplus: int = 0
    surplus_microusd: int = 0
    batches: tuple[str, ...] = ()
    strangers: int = 0
    silent_files: int = 0
    lost_files: int = 0
    trouble: str = ""


class _Books(msgspec.Struct, frozen=True):
    """Where jobs of one account are put on record."""

    ledger: Ledger
    reader: Reader
    account: Account
    prices: PriceBook
    found_by: Literal["listing", "lookup"]


def adopt_orphans(
    ledger: Ledger,
    accounts: Sequence[Account],
    batches: Sequence[int],
    book: PriceBook,
    *,
    since_us: int,
    files_only: bool = False,
) -> list[Looked]:
    """Bind what the providers show since a time to the waiting tasks of the batches and to settled tasks, durably.

    ``files_only``: look at files of requests alone, which may tell more than they did.
    """
    found = []
    with ledger.reader() as reader:
        for account in accounts:
            codec, recovery = account.codec, account.codec.capabilities.recovery
            try:
                if isinstance(codec, BatchFiles):
                    found.append(_adopt_lines(_Books(ledger, reader, account, book, "listing"), codec))
                elif files_only:
                    continue
                elif recovery == "lookup" and isinstance(codec, LooksUp):
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


def _paced(account: Account, wire: HttpWire) -> Query:
    """A way to send free calls within the account's limit of them."""
    clock, queries, one_by_one = TrioClock(), TokenBucket(account.query_rate), trio.Lock()

    async def query(call: HttpCall) -> HttpReply:
        async with one_by_one:
            while (wait_s := queries.seconds_until_free(clock.monotonic())) > 0:
                await clock.sleep_until(clock.monotonic() + wait_s)
            queries.take(clock.monotonic())
        return await wire.send(call)

    return query


async def _listed(account: Account, codec: Lists, since_us: int) -> list[ListedJob]:
    async with _wire() as wire:
        return await read_listing(account, codec, query=wire.send, clock=TrioClock(), since_us=since_us)


# --- by our reference ---------------------------------------------------------------------------------------


def _adopt_by_reference(
    ledger: Ledger, reader: Reader, account: Account, codec: LooksUp, batches: Sequence[int], book: PriceBook
) -> Looked:
    """Bind the jobs that were made with a reference of a waiting task's next attempts, or of a settled task's."""
    books = _Books(ledger, reader, account, book, "lookup")

    def bind(works: Sequence[Work]) -> tuple[list[Work], bool]:
        found = trio.run(_made_with, account, codec, works, ledger.ledger_id)
        bound = reader.bound({job for jobs in found.values() for job in jobs}) if found else set()
        fresh = [(work, job) for work in works for job in found.get(work.key, ()) if job not in bound]
        return [work for work, job in fresh if _bind(books, work, job)], bool(found)

    adopted = 0
    waiting = (work for work in _waiting(reader, batches) if account.codec.problem(work.request) is None)
    while page := list(islice(waiting, _PER_LOOK)):
        taken, any_there = bind(page)
        adopted += len(taken)
        if not any_there:
            break
    spares: list[Work] = []
    settled = (work for work in _settled(reader) if account.codec.problem(work.request) is None)
    while page := list(islice(settled, _SETTLED_PER_LOOK)):
        taken, _ = bind(page)
        spares += taken
        if not taken:
            break
    return _looked(reader, account, adopted, spares)


async def _made_with(
    account: Account, codec: LooksUp, works: Sequence[Work], ledger_id: str
) -> dict[WorkKey, list[str]]:
    """The jobs of each work that has any: the newest of one that waits, for the other copy went on to the next attempt
    only where one came to nothing; of a settled one all from its newest attempt on, for the other copy may have made
    that as well.

    Raises CannotLook: an answer says neither that there is a job, nor that there is none.
    """
    found: dict[WorkKey, list[str]] = {}
    troubles: list[str] = []
    turns = trio.CapacityLimiter(_AT_ONCE)

    async def outcome_of(query: Query, reference: str) -> LookupOutcome:
        async with turns:
            try:
                return codec.read_lookup(await query(codec.build_lookup(reference, account.context())))
            except (WireError, MalformedReply) as exc:
                return Unreadable(str(exc))

    async def ask(query: Query, work: Work, attempt: int) -> None:
        outcome = await outcome_of(query, work.reference(ledger_id, attempt))
        if isinstance(outcome, NotVisible):  # the other copy may have been run by an earlier version
            outcome = await outcome_of(query, work.early_reference(ledger_id, attempt))
        match outcome:
            case Accepted(job=job):
                found.setdefault(work.key, []).append(job)
            case Throttled():
                troubles.append("asked too fast")
            case Unreadable(detail=detail):
                troubles.append(detail)

    async with _wire() as wire:
        query = _paced(account, wire)
        for further in range(1, _LOOKUPS + 1):
            async with trio.open_nursery() as nursery:
                for work in works:
                    settled = work.state.phase in ENDED
                    if settled or len(found.get(work.key, ())) in (0, further - 1):  # none yet, or each so far
                        first = max(0, len(work.state.attempts) - settled)
                        nursery.start_soon(ask, query, work, first + further)
    if troubles:
        raise CannotLook(troubles[0])
    return {
        work.key: found[work.key] if work.state.phase in ENDED else found[work.key][-1:]
        for work in works
        if work.key in found
    }


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
    """Bind those of the listed jobs that fit waiting tasks, then those that fit settled ones; one job to one task."""
    books = _Books(ledger, reader, account, book, "listing")
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
            if fitting and _bind(books, work, fitting[0].job):
                fitting.pop(0)
                adopted += 1
    spares = _keep_spares(books, codec, {shown: there for shown, there in free.items() if there})
    return _looked(reader, account, adopted, spares, strangers=len(unbound) - adopted - len(spares))


def _keep_spares(books: _Books, codec: Lists, free: dict[str, list[ListedJob]]) -> list[Work]:
    """Bind jobs to settled tasks that asked for the same; returns the task of each."""
    kept: list[Work] = []
    for work in _in_doubt(books.reader, books.account) if free else ():
        for shown in _prints(work, books.account, codec, books.ledger.ledger_id, first=1):
            free.pop(shown, None)  # it may be the very job that is in doubt: recovery judges that
    for work in _settled(books.reader) if free else ():
        for shown in _prints(work, books.account, codec, books.ledger.ledger_id, first=1):
            kept += [work for job in free.pop(shown, ()) if _bind(books, work, job.job)]
        if not free:
            break
    return kept


# --- by the file --------------------------------------------------------------------------------------------


def _adopt_lines(books: _Books, codec: BatchFiles) -> Looked:
    """Bind the lines of the other copy's files to the tasks that their keys prove: to one that waits the newest, since
    the other copy went on to the next attempt only where one came to nothing; to a settled one all of them."""
    files = trio.run(_files, books, codec)
    bound = books.reader.bound({line.job for line in files.lines}) if files.lines else set()
    adopted, spares, strangers = 0, list[Work](), files.others
    for line in reversed(files.lines):
        if line.job in bound:
            continue
        work = _of_line(books.reader, line.key)
        settled = work is not None and work.state.phase in ENDED
        if work is None or not (settled or work.state.phase == "queued") or not _bind(books, work, line.job):
            strangers += 1
        elif settled:
            spares.append(work)
        else:
            adopted += 1
    looked = _looked(books.reader, books.account, adopted, spares, strangers=strangers)
    return msgspec.structs.replace(looked, silent_files=files.silent, lost_files=files.lost)


async def _files(books: _Books, codec: BatchFiles) -> Files:
    async with _wire() as wire:
        return await read_files(
            books.account,
            codec,
            query=_paced(books.account, wire),
            wire=wire,
            clock=TrioClock(),
            ledger_id=books.ledger.ledger_id,
            known=books.reader.files(),
        )


def _of_line(reader: Reader, key: str) -> Work | None:
    """The task that a key proves; None where it is another task's of the same number, or that of none that is here."""
    named = _KEY.match(key)
    if named is None:
        return None
    batch, n, attempt = map(int, named.groups())
    row = reader.task(batch, n)
    if row is None or row.owner:
        return None
    with suppress(TextErased):
        work = load_work(reader, batch, n)
        return work if line_key(work, attempt) == key else None
    return None


# --- what is on record, and what is put there ---------------------------------------------------------------


def _looked(reader: Reader, account: Account, adopted: int, spares: Sequence[Work], *, strangers: int = 0) -> Looked:
    most = sum(work.attempt.ceiling_microusd for work in spares)
    batches = tuple(reader.batch(batch).name for batch in sorted({work.batch for work in spares}))
    return Looked(account.name, adopted, len(spares), most, batches, strangers)


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


def _settled(reader: Reader) -> Iterator[Work]:
    """The tasks that are settled, those that changed last in front."""
    for batch, n in ended_tasks(reader.store):
        with suppress(TextErased):  # what it asked for is forgotten, and nothing may be fetched for it
            work = load_work(reader, batch, n)
            if not any(map(local_file, work.request.references)):
                yield work


def _in_doubt(reader: Reader, account: Account) -> Iterator[Work]:
    """The open tasks with a purchase in doubt at the account."""
    held = [each for batch in reader.batches() for each in reader.held(batch.batch, account=account.name)]
    for each in (*reader.live(account.name), *held):
        if each.phase in ("intended", "ambiguous", "unknown") and each.state.phase not in ENDED:
            yield load_work(reader, each.batch, each.n)


def _prints(work: Work, account: Account, codec: Lists, ledger_id: str, *, first: int = 0) -> Iterator[str]:
    """What a listing would show of the task's attempts, from the ``first`` one on, else of its next ones."""
    if account.codec.problem(work.request) is not None:
        return
    last, following = None, len(work.state.attempts) + 1
    for attempt in range(first or following, following + _ATTEMPTS):
        shown = codec.fingerprint(work.request, account.context(marker=work.marker(ledger_id, attempt)))
        if shown == last:
            return  # the same for every attempt
        last = shown
        yield shown


def _bind(books: _Books, work: Work, job: str) -> bool:
    """Record the other copy's purchase as an attempt of the task; False when the budget has no room for it.

    What is bound to a settled task was paid beside the budget: that is recorded truly, as an overcharge is (MON-8).
    """
    ledger, account = books.ledger, books.account
    price = quote_by(books.prices)(account, work.request)
    if price is None:
        return False
    at_us = time.time_ns() // 1000
    intend = Intend(
        account=account.name,
        provider=account.provider,
        lane=account.codec.lane(work.request),
        route="takeover",
        ceiling_microusd=price.ceiling_microusd,
        body_digest=_body_digest(books, work, job),
        deadline_us=at_us,
    )
    state = work.state
    events = decide_task(state, Find(intend, job, books.found_by))
    for event in events:
        state = evolve_task(state, event, epoch=ledger.epoch, at_us=at_us)
    budget = None if state.phase in ENDED else ledger.batch(work.batch).settings.budget_microusd
    guards: tuple[Guard, ...] = () if budget is None else (Reserve(batch_money(work.batch), budget),)
    append = Append(task_stream(work.batch, work.n), work.state.version, events)
    (outcome,) = ledger.commit([Decision(appends=(append,), at_us=at_us, guards=guards)])
    if isinstance(outcome, Committed):
        work.state = state
        return True
    return False


def _body_digest(books: _Books, work: Work, job: str) -> str:
    """Of what the other copy sent; empty where nobody here can know it, since it carried local files."""
    codec = books.account.codec
    if not isinstance(codec, BatchFiles):
        marker = work.marker(books.ledger.ledger_id, len(work.state.attempts) + 1)
        return work.body_digest(codec.build_submit(work.request, books.account.context(marker=marker)).body)
    if any(map(local_file, work.request.references)):
        return ""
    return work.body_digest(codec.line(batch_of_job(job)[1], work.request))
