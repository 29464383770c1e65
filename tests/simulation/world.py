"""A whole night in simulation: real runtime, real ledger file, simulated time, network, disk and process death.

One seed is one night.  A crash first freezes every effect (wire, disk, commit), then unwinds, so that what
clean-up code does then cannot be seen.  The providers (:mod:`tests.simulation.far_end`) go on, and the next life
finds what was durable.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import trio
import trio.testing

from adapters import registry
from adapters.base import HttpCall, Secret
from adapters.prices import DEFAULT_BOOK
from adapters.sandbox.base import Reply
from adapters.sandbox.house import BillLine
from ledger.decisions import Committed
from ledger.errors import CommitFailed, DiskFull, LedgerError
from ledger.events import Decided
from ledger.journal import Ledger
from ledger.money import account_money, batch_money, day_money, duplicates_money, lane_money, risk_money
from ledger.reader import Reader
from runtime import faults, ports, spool
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.control import Controller
from runtime.fetcher import Placement
from runtime.inbox import CancelBatch, Control, ResolveTasks, RetryTasks, inbox_of, leave
from runtime.night import Night, NightPlan, Seams
from runtime.pricing import quote_by
from runtime.router import StopReason, Terms
from runtime.simulated import EPOCH_US, SimClock, SimDisk, SimThreads
from runtime.trust import Trust
from runtime.work import TaskLog, Work
from runtime.writer import LedgerWriter
from tests.simulation.far_end import FarEnd
from tests.simulation.life import Life
from tests.simulation.postman import PUBLIC_URL, Postman, keyed
from tests.simulation.wanted import Wanted, folder
from tests.simulation.watched import WatchedLedger, unborn
from tests.simulation.weather import FAIR, Weather
from tests.simulation.wire import FILES, ORIGIN, Crash, SimWire

KEY = "sandbox, and nobody else's secret"
OTHER_KEY = "sandbox, with the secret of another account"


class World:
    """Everything that outlives a crash: providers, disk, ledger file, wall clock, seed."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        tasks: int = 5,
        providers: Sequence[str] = ("kie", "replicate", "segmind"),
        weather: Weather = FAIR,
        same_prompts: bool = False,
        batches: int = 1,
        followers: int = 0,
        files: bool = False,
        budget_microusd: int | None = None,
        account_budget_microusd: int | None = None,
        account_day_microusd: int | None = None,
        max_at_risk_microusd: int = 100_000_000,
        max_duplicate_microusd: int | None = None,
        widths: Sequence[int | None] = (),
        webhooks: bool = False,
        trust: Trust | None = None,
        accounts_each: int = 1,
    ) -> None:
        """``webhooks``: providers that can are told where to call back, and somebody listens all the time.
        ``accounts_each``: so many accounts here use the one that we have at each provider, each under its own name.
        ``widths``: how many jobs each account may have in flight, in the order of ``providers``; None = as it likes.
        What the batches are like: :class:`tests.simulation.wanted.Wanted`."""
        self.path = root / "night.db"
        self.random = random.Random(seed)
        self.weather = weather
        self.providers = tuple(providers)
        self.batches = batches
        self.budget_microusd = budget_microusd
        self.account_budget_microusd = account_budget_microusd
        self.account_day_microusd = account_day_microusd
        self.max_at_risk_microusd = max_at_risk_microusd
        self.max_duplicate_microusd = max_duplicate_microusd
        self.widths = dict(zip(self.providers, widths, strict=False))
        self.accounts_each = accounts_each
        self.trust = trust
        self.disk = SimDisk()
        self.hits: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()  # fault point -> deaths there
        self.seen: Counter[str] = Counter()  # what else happened, by name
        self.inbox: Path | None = None
        self.keys = dict.fromkeys(self.providers, KEY)
        self.fingerprint = "k" * 32  # of whatever the keys are
        self.key_epoch = 0  # what was bought before may not be visible any more
        self.rotated_epoch = 0  # and what was bought before may have to be recognised first
        self.broken: list[str] = []  # promises that were seen broken on the way
        self.fetched: list[tuple[int, str]] = []  # (newest event at that time, job) of every download
        self.epoch = 0
        self.last_night = 0  # the epoch of the newest run
        self.effects = self.commits = 0  # how many the last life had on the disk, and in the ledger
        self._life = Life()
        self._points_left: int | None = None
        self._commits_left: int | None = None
        self._frozen = False
        self._reader: Reader | None = None
        self._caps: dict[str, int] = {}  # money account -> most that it may hold in any committed state
        self._crew: Night | None = None
        self._now_us = EPOCH_US  # the true time at which the next life starts
        self._wrong_us = 0  # how wrong the machine's wall clock is
        self._started_us = EPOCH_US
        self._drained_at: float | None = None
        self._true = SimClock(self._now_us)
        self.clock = SimClock(self._now_us)
        wanted = Wanted(tasks, self.providers, same_prompts, batches, followers, files, trust)
        self.wanting = wanted.streams()  # prompt -> the tasks that want its picture
        self._billed = 0  # lines of the bill that were compared with the intents
        self._bought = Counter[tuple[str, str]]()  # (provider, prompt) -> jobs
        self._far_end = FarEnd(self.providers, weather=weather, seed=seed, served=self._compare_intents)
        self.house = self._far_end.house
        self.postman: Postman | None = None
        if webhooks:
            self.inbox = inbox_of(self.path)
            self.postman = Postman(self.house, self.inbox)
        self._bytes = random.Random(seed + 1)
        self._import(wanted)

    # --- the world as the runtime sees it -----------------------------------------------------------------

    def alive(self) -> None:
        if self._frozen:
            raise Crash

    def true_us(self) -> int:
        return self._true.now_us()

    def sending(self) -> None:
        """A paid request is about to leave."""
        if self._drained_at is not None and trio.current_time() > self._drained_at:
            self.broken.append("a paid request left after the signal to stop (LIVE-5)")

    def serve(self, call: HttpCall) -> Reply:
        now_us = self.true_us()
        if call.url.startswith(FILES) and self._reader is not None:
            self.fetched.append((self._reader.head().seq, Path(call.url).stem))
        return self._far_end.serve(call, now_us, since_start_s=(now_us - self._started_us) / 1e6)

    def arrive_later(self, call: HttpCall, after_s: float) -> None:
        self._far_end.arrive_later(call, self.true_us() + round(after_s * 1e6))

    def _compare_intents(self, now_us: int) -> None:
        """MON-1, MON-5: at no moment has a provider more jobs for a prompt than the ledger has intents."""
        for line in self.house.bill(self._billed, now_us):
            self._billed = line.n
            bought = (line.provider, line.prompt)
            self._bought[bought] += 1
            if self._reader is None:
                continue
            streams = self.wanting[line.prompt]
            attempts = [attempt for stream in streams for attempt in self._reader.state(stream).attempts]
            intents = sum(attempt.provider == line.provider for attempt in attempts)
            if self._bought[bought] > intents:
                self.broken.append(f"{line.provider}: {self._bought[bought]} jobs for {intents} intents (MON-1, MON-5)")

    def point(self, name: str) -> None:
        self.alive()
        self.hits[name] += 1
        if self._points_left is not None and self._life.point in ("", name):
            self._points_left -= 1
            if self._points_left < 0:
                self._die(name)

    def _die(self, name: str) -> NoReturn:
        self._frozen = True
        self.disk.freeze()
        self.crashed[name] += 1
        raise Crash

    def break_commit(self) -> None:
        if self._commits_left is not None:
            self._commits_left -= 1
            if self._commits_left < 0:
                assert self._life.ledger is not None
                fault = self._life.ledger[1]
                self.seen[f"the ledger: {fault}"] += 1
                raise DiskFull("no space left") if fault == "full" else CommitFailed("input/output error")

    def committed(self) -> None:
        """MON-3, MON-4, MON-8: at every commit, every cap holds."""
        assert self._reader is not None
        actors = self._crew.actors if self._crew is not None else ()
        lanes = [(lane_money(actor.account.name, ""), actor) for actor in actors]
        for name, balance in self._reader.money().items():
            most = self._caps.get(name)
            if most is not None and balance.total > most:
                self.broken.append(f"{name}: {balance} is over {most} (MON-3, MON-4, MON-8)")
            for lane, actor in lanes if balance.open else ():
                if name.startswith(lane) and balance.open > actor.most_unacknowledged:
                    self.broken.append(f"{name}: {balance.open} submits are unanswered (MON-3)")

    # --- lives --------------------------------------------------------------------------------------------

    def live(self, life: Life | None = None) -> StopReason | None:
        """Run one process until the night ends (its stop reason) or it dies (None)."""
        self._life = life = life or Life()
        self._points_left = life.crash_at
        self._commits_left = life.ledger[0] if life.ledger else None
        if life.disk is not None:
            self.disk.fail(*life.disk)
        if life.cut_at is not None:
            self.disk.die(life.cut_at, lambda: self._die("disk"), torn=life.torn)
        if life.cancel_at_s is not None and self.inbox is None:
            self.inbox = inbox_of(self.path)
        self._caps = dict(self._capped())
        stopped: StopReason | None = None
        commits = self.hits["after_commit"]
        with self._process("run") as ledger, Reader(self.path) as self._reader:
            self.last_night = self.epoch
            if life.new_keys or life.rotated:
                self._change_keys(life, something_open=bool(self._reader.live(None)))
            try:
                stopped = self._night(WatchedLedger(ledger, self), self._reader, life)
            except (Crash, BaseExceptionGroup, ports.DiskFull, ports.DiskFailed) as exc:
                self._expected(exc)
        self._reader = None
        self.effects, self.commits = self.disk.operations, self.hits["after_commit"] - commits
        power = self._frozen and (self.random.random() < 0.5 if life.power is None else life.power)
        self.disk = self.disk.crash(power=power)
        if self._frozen:
            self.seen["the power went" if power else "killed"] += 1
        return None if self._frozen else stopped

    def _change_keys(self, life: Life, *, something_open: bool) -> None:
        if life.new_keys:
            self.keys = dict.fromkeys(self.providers, OTHER_KEY)
            self.fingerprint, self.key_epoch = "n" * 32, self.epoch
            self.seen["new keys, something open"] += something_open
        if life.rotated:  # the emulators take what stands behind a plus for another key of the same account
            self.keys = {name: f"{key.partition('+')[0]}+{self.epoch}" for name, key in self.keys.items()}
            self.fingerprint, self.rotated_epoch = f"{self.epoch:032}", self.epoch
            self.seen["rotated keys, something open"] += something_open

    def _capped(self) -> Iterator[tuple[str, int]]:
        for batch in range(1, self.batches + 1):
            yield risk_money(batch), self.max_at_risk_microusd
            if self.budget_microusd is not None:
                yield batch_money(batch), self.budget_microusd
            if self.max_duplicate_microusd is not None and not self.seen["orders"]:  # an operator may allow more
                yield duplicates_money(batch), self.max_duplicate_microusd
        if self.account_budget_microusd is not None:
            for account in self._accounts():
                yield account_money(account.name), self.account_budget_microusd
        if self.account_day_microusd is not None:
            for account in self._accounts():
                yield day_money(account.name, self._now_us + self._wrong_us), self.account_day_microusd

    def _expected(self, exc: BaseException) -> None:
        """A death that was asked for; anything else is a bug."""
        wanted: tuple[type[BaseException], ...] = (Crash,) if self._frozen else ()
        if self._life.disk is not None:
            wanted += (ports.DiskFull, ports.DiskFailed)
        if self._life.ledger is not None:
            wanted += (LedgerError,)
        others = (
            exc.split(wanted)[1] if isinstance(exc, BaseExceptionGroup) else None if isinstance(exc, wanted) else exc
        )
        # What dies of a broken disk may take others with it, which die of the refusals that follow.
        if not wanted or (others is not None and not self._frozen):
            exc.add_note("\n".join(self.broken))
            raise exc
        if self._life.disk is not None and not self._frozen:
            self.seen[f"the disk: {self._life.disk[1]}"] += 1

    @contextlib.contextmanager
    def _process(self, command: str) -> Iterator[Ledger]:
        """The ledger as a new process finds it."""
        self._frozen = False
        self._drained_at = None
        self._started_us = self._now_us
        self._true = SimClock(self._now_us)
        self.clock = SimClock(self._now_us + self._wrong_us)
        ledger = Ledger.create_or_open(self.path, create=False, entropy=self._bytes.randbytes, mounts=lambda: "")
        try:
            self.epoch = ledger.start_epoch(
                machine="sim",
                pid=1,
                app_version="0",
                operator="sim",
                command=command,
                at_us=self._now_us + self._wrong_us,
                identity=(1, 1),
            )
            yield ledger
        finally:
            faults.install(None)
            ledger.close()
            self._now_us += 1_000_000

    def _night(self, ledger: WatchedLedger, reader: Reader, life: Life) -> StopReason:
        stores = {batch: BlobStore(self.disk, folder(batch)) for batch in range(1, self.batches + 1)}
        open_attempts = {(live.batch, live.n, live.attempt) for live in reader.live(None)}
        for store in stores.values():
            store.sweep(ledger.epoch)
            spool.sweep(store, lambda *attempt: attempt in open_attempts)

        def place(work: Work) -> Placement:
            return Placement(store=stores[work.batch], name=Path("images", f"task-{work.n}"))

        night = self._crew = Night(
            NightPlan(
                terms=Terms(
                    batch=life.batch,
                    tasks=reader.batch(life.batch).sealed_through,
                    budget_microusd=self.budget_microusd,
                    max_at_risk_microusd=self.max_at_risk_microusd,
                    max_duplicate_microusd=self.max_duplicate_microusd,
                ),
                accounts=self._accounts(),
                buy_from=frozenset(account.name for account in self._accounts()),
                deadline_s=life.deadline_s,
                webhook_url=PUBLIC_URL if self.postman else "",
            ),
            ledger=ledger,  # type: ignore[arg-type]  # the same methods, with fault points
            reader=reader,
            seams=Seams(
                clock=self.clock,
                wire=SimWire(self),
                threads=SimThreads(),
                commits=SimThreads(),
                disk=self.disk,
                random=self.random,
            ),
            place=place,
            quote=quote_by(DEFAULT_BOOK),
            inbox_dir=self.inbox,
            folder=folder(life.batch),
            keyed=lambda text: keyed(text) if text.startswith("callback/") else self.fingerprint,
        )
        faults.install(self.point)
        return self._run(lambda: self._one_life(night, life))

    async def _one_life(self, night: Night, life: Life) -> StopReason:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._signals, night, life)
                nursery.start_soon(self._set_clock)
                if self.postman is not None:
                    self.postman.deliver(self.true_us())  # what was called while nobody ran
                    nursery.start_soon(self._call_back, self.postman)
                if life.cancel_at_s is not None:
                    nursery.start_soon(self._cancel, life.cancel_at_s)
                stopped = await night.run()
                nursery.cancel_scope.cancel()
            return stopped
        finally:
            self._now_us = self.true_us()
            self._crew = None

    async def _signals(self, night: Night, life: Life) -> None:
        for at_s in (life.drain_at_s, life.hard_at_s):
            if at_s is not None:
                await trio.sleep_until(at_s)
                night.drain()
                self._drained_at = trio.current_time() if self._drained_at is None else self._drained_at
                self.seen["SIGTERM"] += 1

    async def _cancel(self, at_s: float) -> None:
        await trio.sleep_until(at_s)
        assert self.inbox is not None
        leave(self.inbox, CancelBatch(batch=self._life.batch, operator="sim"), name=f"{self.epoch:04}-cancel")
        self.seen["cancelled"] += 1

    async def _call_back(self, postman: Postman) -> None:
        while True:
            await trio.sleep(0.4)
            postman.deliver(self.true_us())

    async def _set_clock(self) -> None:
        """Now and then, somebody sets the machine's wall clock."""
        while self.weather.jumps:
            await trio.sleep(self.random.expovariate(self.weather.jumps / 3600))
            wrong_us = round(self.random.uniform(-7200, 7200) * 1e6) if not self._wrong_us else 0
            self.clock.jump((wrong_us - self._wrong_us) / 1e6)
            self._wrong_us = wrong_us
            self.seen["the clock jumped"] += 1

    def _run(self, main: Callable[[], Awaitable[StopReason]]) -> StopReason:
        core = trio._core._run
        core._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # the simulator alone does this
        core._r.seed(self.random.getrandbits(32))
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    def _accounts(self) -> tuple[Account, ...]:
        return tuple(
            self._account(name, f"{name}.{each}" if each > 1 else name)
            for name in self.providers
            for each in range(1, self.accounts_each + 1)
        )

    def _account(self, provider: str, name: str) -> Account:
        return Account(
            name=name,
            provider=provider,
            codec=registry.codec(provider),
            key=Secret(self.keys[provider]),
            base_url=f"{ORIGIN}/{provider}",
            loopback=True,
            max_inflight=self.widths.get(provider),
            budget_microusd=self.account_budget_microusd,
            budget_day_microusd=self.account_day_microusd,
            quarantine_s=10.0 + 2 * self.weather.listing_lag_s,  # a late request arrives within 8 s
            latency_s=2.0,
        )

    # --- the operator -------------------------------------------------------------------------------------

    def retry(self, batch: int = 1) -> None:
        """Want every failed task again."""
        self._order(RetryTasks(batch=batch, operator="sim"))

    def resolve(self, decision: Decided, batch: int = 1) -> None:
        """Decide every held task."""
        self._order(ResolveTasks(batch=batch, operator="sim", decision=decision))

    def _order(self, message: Control) -> None:
        self.seen["orders"] += 1
        with self._process("control") as ledger, Reader(self.path) as reader:

            async def give() -> None:
                writer = LedgerWriter(ledger, SimThreads())
                async with trio.open_nursery() as nursery:
                    await nursery.start(writer.run)
                    log = TaskLog(writer, self.clock)
                    await Controller(journal=writer, log=log, reader=reader, clock=self.clock).apply(message)
                    writer.close()

            trio.run(give, clock=trio.testing.MockClock(autojump_threshold=0))

    # --- the input ----------------------------------------------------------------------------------------

    def _import(self, wanted: Wanted) -> None:
        self.path.touch(mode=0o600)
        self.path.write_bytes(unborn())
        with self._process("import") as ledger:
            outcomes = ledger.commit(list(wanted.decisions(ledger, self.disk, self._now_us)))
            assert all(isinstance(outcome, Committed) for outcome in outcomes)

    # --- the auditor --------------------------------------------------------------------------------------

    def bill(self) -> list[BillLine]:
        """What the providers charge when everything has ended, and all that was on its way has arrived."""
        return self._far_end.bill(self._now_us)

    def bill_so_far(self) -> list[BillLine]:
        return list(self.house.bill(0, self._now_us))

    @property
    def died(self) -> bool:
        """Whether the newest process did not come to its end."""
        return self._frozen

    @property
    def created(self) -> set[str]:
        """The names of the files of which a batch was made."""
        return self._far_end.created
