"""The night: starts the actors, wires them together, and brings them down in the right order.

    night
     ├─ ledger writer          outlives everybody: what is handed in becomes durable
     │   ├─ submit gateway     outlives the actors: a submit under way still gets its record
     │   │   ├─ account × N    supervised
     │   │   ├─ fetcher        supervised
     │   │   ├─ inbox          supervised
     │   │   └─ router         when it returns, the night is over

The order of shutdown is the reverse.  The first signal stops buying and lets what is in flight come home within
a grace; the second one ends the waiting for answers, which are then recorded as doubtful.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType

import msgspec
import trio

from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.tasklist import TaskRow
from runtime.account import AccountActor, Hands
from runtime.accountbook import open_accounts
from runtime.accountparts import Beside, Needs
from runtime.accounts import Account
from runtime.callbacks import Addresses
from runtime.control import Controller, Listeners
from runtime.diskguard import DiskGuard
from runtime.fetcher import Fetcher, Placement
from runtime.gateway import Gateway
from runtime.hints import Desk, Hints
from runtime.history import BoundJobs, answered_jobs, bound_jobs, jobs_of
from runtime.keycheck import KnownJob
from runtime.leftovers import hand_over
from runtime.ports import Clock, Disk, NameTaken, Threads, Wire
from runtime.pricing import Quote
from runtime.references import ReferenceFiles
from runtime.router import Router, StopReason, Terms
from runtime.sharing import settle_followers
from runtime.spool import Spool
from runtime.supervisor import supervise
from runtime.trust import DEFAULT, Trust
from runtime.work import TaskLog, Work, load_work
from runtime.writer import LedgerWriter

_log = logging.getLogger(__name__)

_INBOX_LOOK_S = 0.5
_SHARE_LOOK_S = 1.0
_HARD_STOP_S = 2.0


class Seams(msgspec.Struct, frozen=True):
    """The world, as it is passed in.

    ``commits`` is a thread that the ledger has for itself: behind a queue of images that are being decoded, every
    record of the night would wait.
    """

    clock: Clock
    wire: Wire
    threads: Threads
    commits: Threads
    disk: Disk
    random: Random


class NightPlan(msgspec.Struct, frozen=True):
    """What to do tonight.

    ``accounts`` are all that may be asked about open attempts, ``buy_from`` names those that may be bought from, and
    ``late`` those that would be if the deadline were not so near: what only they take is left for another night.
    ``deadline_s``: stop buying so many seconds from the start.  ``grace_s``: how long the first signal waits for
    what is in flight.  ``webhook_url``: where providers that can shall call back; empty = nowhere.  ``places``: where
    local reference files were found just now, by digest.
    """

    terms: Terms
    accounts: tuple[Account, ...]
    buy_from: frozenset[str]
    late: frozenset[str] = frozenset()
    max_attempts: int = 3
    deadline_s: float | None = None
    grace_s: float = 60.0
    webhook_url: str = ""
    places: Mapping[str, str] = MappingProxyType({})


class Night:
    """One run over a ledger that this process holds."""

    def __init__(
        self,
        plan: NightPlan,
        *,
        ledger: Ledger,
        reader: Reader,
        seams: Seams,
        place: Callable[[Work], Placement],
        quote: Quote,
        inbox_dir: Path | None,
        folder: Path,
        keyed: Callable[[str], str],
    ) -> None:
        """``place`` says where a task's image goes, ``folder`` is watched for space, ``keyed`` digests a text with the
        ledger's secret."""
        self._plan = plan
        self._ledger = ledger
        self._reader = reader
        self._seams = seams
        self._inbox_dir = inbox_dir
        self._keyed = keyed
        clock = seams.clock
        self.writer = LedgerWriter(ledger, seams.commits)
        self._log = TaskLog(self.writer, clock, max_attempts=plan.max_attempts)
        self._spool = Spool(seams.threads, lambda work: place(work).store)
        addresses = Addresses(plan.webhook_url, keyed) if plan.webhook_url else None
        self._gateway = Gateway(
            self._log, seams.wire, clock, ledger.ledger_id, self._spool, addresses=addresses, trust=self._trust
        )
        self._disk = DiskGuard(partial(seams.disk.free_bytes, folder))
        self.actors: list[AccountActor] = []
        self._place = place
        self._quote = quote
        self._trusts: dict[int, Trust] = {}
        self.router: Router
        self.fetcher: Fetcher
        self._draining = trio.Event()
        self._hard = trio.Event()
        self._inbox_drained = trio.Event()

    # --- for the signal handler ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Buy nothing more and bring home what is in flight; the second call stops waiting for answers."""
        if self._draining.is_set():
            self._hard.set()
        self._draining.set()

    # --- the night ----------------------------------------------------------------------------------------

    async def run(self) -> StopReason:
        """Run until everything wanted is settled or buying was stopped; return why it was stopped, if it was.

        Raises LedgerError, DiskFull, DiskFailed, StreamConflict: the ledger is then to be closed and opened again.
        """
        async with trio.open_nursery() as outer:
            await outer.start(self.writer.run)
            try:
                await self._prepare()
                async with trio.open_nursery() as middle:
                    await middle.start(self._gateway.run)
                    await self._crew()
                    middle.cancel_scope.cancel()
                for actor in self.actors:
                    await actor.write_diary()
                if self.router.stopped == "cancelled":  # what came home failed is queued again: that ends, too
                    await self._controller().sweep(self._plan.terms.batch)
                await self._settle_followers()
            finally:
                self.writer.close()
        return self.router.stopped

    async def _prepare(self) -> None:
        """Make the accounts known, build the actors, and give each what older epochs left open there."""
        seams, plan = self._seams, self._plan
        logs = await open_accounts(plan.accounts, self._reader, self.writer, seams.clock, self._keyed)
        files = ReferenceFiles(seams.threads, seams.disk, places=plan.places)
        given, taken = defaultdict[str, set[str]](set), BoundJobs(self._reader)
        hands = Hands(
            give_back=lambda work: self.router.give_back(work),
            ready=lambda work, actor: self.fetcher.take(work, actor),
            settled=self._settled,
            left=lambda work: self.router.strand(work),
            stays_held=self._let_go,
            blocked=lambda submission, exceeded: self.router.blocked(submission, exceeded),
            moved=lambda: self.router.moved(),
        )
        self.actors = [
            AccountActor(
                account,
                Needs(
                    gateway=self._gateway,
                    log=self._log,
                    account_log=logs[account.name],
                    wire=seams.wire,
                    clock=seams.clock,
                    random=seams.random,
                    ledger_id=self._ledger.ledger_id,
                    spool=self._spool,
                    files=files,
                    text=self._reader.payload,
                    bound=partial(bound_jobs, self._reader),
                    taken=taken,
                    known_jobs=partial(self._known_jobs, account, logs[account.name].foreign),
                    taken_over=self._reader.runtime().taken_over,
                    trust=self._trust,
                    witnesses=partial(answered_jobs, self._reader, account.name, logs[account.name].foreign),
                    beside=Beside(given[account.provider], partial(self._busy_beside, account)),
                ),
                hands,
            )
            for account in plan.accounts
        ]
        for actor in self.actors:
            actor.buying = actor.account.name in plan.buy_from
        self.router = Router(
            plan.terms,
            [actor for actor in self.actors if actor.buying],
            reader=self._reader,
            log=self._log,
            clock=seams.clock,
            quote=self._quote,
            disk_room=self._disk.room,
            late=[account for account in plan.accounts if account.name in plan.late],
        )
        self.fetcher = Fetcher(
            wire=seams.wire,
            threads=seams.threads,
            clock=seams.clock,
            random=seams.random,
            log=self._log,
            reader=self._reader,
            place=self._place,
            spool=self._spool,
            quote=self._quote,
            settled=self._settled,
            give_back=self.router.give_back,
            left=self.router.strand,
            seen_size=self._disk.seen,
        )
        await hand_over(
            self.actors,
            reader=self._reader,
            log=self._log,
            clock=seams.clock,
            trust=self._trust,
            follow=self.router.follow,
        )

    def _known_jobs(self, account: Account, foreign: Callable[[int], bool]) -> Iterator[KnownJob]:
        """Jobs of other keys that the provider may still show, the newest first."""
        caps = account.codec.capabilities
        shown_s = max(caps.result_life_s.value, caps.listing.value.keeps_s if caps.listing else 0.0)
        return jobs_of(self._reader, account.name, foreign, self._seams.clock.now_us() - int(shown_s * 1e6))

    def _busy_beside(self, account: Account) -> set[str]:
        """Fingerprints of submits under way at the provider's other accounts: this one may be shown their jobs."""
        others = [actor for actor in self.actors if actor.account.name != account.name]
        return {shown for actor in others if actor.account.provider == account.provider for shown in actor.busy()}

    def _trust(self, batch: int) -> Trust:
        """How sure a fact must be for a batch; that changes between runs only."""
        if batch not in self._trusts:
            self._trusts[batch] = self._reader.batch(batch).settings.trust or DEFAULT
        return self._trusts[batch]

    async def _crew(self) -> None:
        hints = self._hints(self._inbox_dir) if self._inbox_dir is not None else None
        if hints is not None:
            hints.take()  # what was called about while nobody ran is known before anybody judges (REC-2)
        async with trio.open_nursery() as crew:
            for actor in self.actors:
                crew.start_soon(self._supervised, f"account {actor.account.name}", actor.run, actor.give_up)
            crew.start_soon(self._supervised, "fetcher", self.fetcher.run, _raise)
            if self._inbox_dir is not None:
                crew.start_soon(
                    self._supervised, "inbox", partial(self._take_messages, self._inbox_dir), self._no_inbox
                )
                assert hints is not None
                crew.start_soon(self._supervised, "callbacks", hints.run, hints.give_up)
                await self._inbox_drained.wait()  # a cancel that waits since before is heard before buying (REC-2)
            crew.start_soon(self._supervised, "sharing", self._share, _note)
            crew.start_soon(self._wait_drain)
            crew.start_soon(self._wait_hard)
            if self._plan.deadline_s is not None:
                crew.start_soon(self._wait_deadline, self._plan.deadline_s)
            await self.router.run()
            while hints is not None and not self.router.stopped:
                hints.take()  # of a first purchase, beside which another one has come home just now (MON-9)
                if not self.router.moving:
                    break
                await self.router.run()
            crew.cancel_scope.cancel()

    async def _supervised(
        self, name: str, actor: Callable[[], Awaitable[None]], on_parked: Callable[[str], None]
    ) -> None:
        await supervise(name, actor, clock=self._seams.clock, random=self._seams.random, on_parked=on_parked)

    # --- stopping -----------------------------------------------------------------------------------------

    async def _wait_drain(self) -> None:
        await self._draining.wait()
        self._gateway.stop()
        self.router.stop("interrupted")
        clock = self._seams.clock
        await clock.sleep_until(clock.monotonic() + self._plan.grace_s)
        self._gateway.hurry(_HARD_STOP_S)
        self.router.let_go()

    async def _wait_hard(self) -> None:
        await self._hard.wait()
        self._gateway.hurry(_HARD_STOP_S)
        self.router.let_go()

    async def _wait_deadline(self, seconds: float) -> None:
        clock = self._seams.clock
        await clock.sleep_until(clock.monotonic() + seconds)
        self.router.stop("deadline")

    # --- the inbox and the followers ----------------------------------------------------------------------

    def _no_inbox(self, reason: str) -> None:
        _note(reason)
        self._inbox_drained.set()

    def _controller(self) -> Controller:
        return Controller(
            journal=self.writer,
            log=self._log,
            reader=self._reader,
            clock=self._seams.clock,
            listeners=Listeners(
                owned=lambda key: self.router.moving.get(key),
                queued_again=lambda work: self.router.give_back(work),
                adopted=self._adopted,
                take_job=self._take_job,
                give_job_back=self._give_job_back,
                stop_batch=lambda batch: self.router.stop("cancelled") if batch == self._plan.terms.batch else None,
                cancel_job=self._cancel_job,
            ),
        )

    async def _take_messages(self, directory: Path) -> None:
        controller, clock = self._controller(), self._seams.clock
        while True:
            await controller.take_waiting(directory)
            self._inbox_drained.set()
            await clock.sleep_until(clock.monotonic() + _INBOX_LOOK_S)

    def _hints(self, directory: Path) -> Hints:
        desk = Desk(
            owned=lambda key: self.router.moving.get(key),
            follow=self.router.follow,
            left=self._let_go,
            adopted=self._adopted,
        )
        return Hints(
            directory,
            actors=self.actors,
            reader=self._reader,
            log=self._log,
            clock=self._seams.clock,
            desk=desk,
        )

    def _let_go(self, work: Work) -> None:
        """Nobody works on this open task now: somebody may have decided about it meanwhile."""
        self.router.left(work)
        now = load_work(self._reader, work.batch, work.n)
        if now.key in self.router.moving:
            return
        if now.state.phase == "queued":
            self.router.give_back(now)
        else:
            self.router.settled(now)

    def _settled(self, work: Work) -> None:
        """Done with one purchase of a settled task; others of it may have turned up, and are paid as well (MON-9)."""
        actor = self._actor(work) if self.router.moving.get(work.key) is work and work.state.attempts else None
        if actor is not None and work.phase in ("accepted", "ready"):
            work.forget_result()
            if work.phase == "accepted":
                self._adopted(work)
            else:
                self.fetcher.take(work, actor)
        elif work.state.phase in ("queued", "held"):  # held; or somebody changed it before it was bought
            self._let_go(work)
        else:
            self.router.settled(work)

    def _actor(self, work: Work) -> AccountActor | None:
        name = work.attempt.account
        return next((actor for actor in self.actors if actor.account.name == name), None)

    def _adopted(self, work: Work) -> None:
        actor = self._actor(work)
        if actor is not None:
            self.router.follow([work])
            actor.follow_adopted(work)

    def _take_job(self, work: Work, job: str) -> bool:
        actor = self._actor(work)
        return actor is None or actor.claims.take(job)

    def _give_job_back(self, work: Work, job: str) -> None:
        actor = self._actor(work)
        if actor is not None:
            actor.claims.give_back(job)

    def _cancel_job(self, work: Work, operator: str) -> bool:
        actor = self._actor(work) if work.state.attempts else None
        return actor is not None and actor.cancel(work, operator)

    async def _share(self) -> None:
        clock = self._seams.clock
        while True:
            await self._settle_followers()
            await clock.sleep_until(clock.monotonic() + _SHARE_LOOK_S)

    async def _settle_followers(self) -> None:
        await settle_followers(self._plan.terms.batch, self._reader, self._log, self._link)

    async def _link(self, work: Work, owner: TaskRow) -> None:
        placement = self._place(work)
        try:
            await self._seams.threads.run(partial(placement.store.link, owner.sha256, owner.media_type, placement.name))
        except NameTaken:  # the blob is what counts: a stranger's file is left alone, and `verify` will show it
            _log.warning("%s has other bytes already and was left alone", placement.name)


def _note(reason: str) -> None:
    _log.error("%s; the night goes on without it", reason)


def _raise(reason: str) -> None:
    raise RuntimeError(reason)
