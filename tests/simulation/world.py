"""A whole night in simulation: real runtime, real ledger file, simulated time, network, disk and process death.

One seed is one night.  A crash first freezes every effect (wire, disk, commit), then unwinds, so that what
clean-up code does then cannot be seen.  The providers go on, and the next life finds what was durable.
The providers have their own clock: the machine's wall clock may jump, theirs does not.
"""

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

import msgspec
import trio
import trio.testing

from adapters import registry
from adapters.base import HttpCall, ImageRequest, Secret
from adapters.prices import DEFAULT_BOOK
from adapters.references import LocalFile
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.faults import PROFILES, ChaosProfile
from adapters.sandbox.house import BillLine, House
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.picture import request_digest
from adapters.sandbox.wirefmt import EmulatorSettings
from ledger.decisions import Append, Committed, Decision, Outcome
from ledger.errors import CommitFailed, DiskFull, LedgerError
from ledger.events import BatchConfigured, BatchOpened, BatchSealed, Decided, Event, ImportOpened, TaskQueued
from ledger.journal import Ledger
from ledger.money import batch_money
from ledger.reader import Reader
from ledger.streams import StreamKey, batch_stream, task_stream
from runtime import faults, ports, spool
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.control import Controller
from runtime.fetcher import Placement
from runtime.inbox import Control, ResolveTasks, RetryTasks, inbox_of
from runtime.night import Night, NightPlan, Seams, quote_by
from runtime.requests import encode_request
from runtime.router import StopReason, Terms
from runtime.simulated import EPOCH_US, Fault, SimClock, SimDisk, SimThreads
from runtime.trust import Trust
from runtime.work import TaskLog, Work
from runtime.writer import LedgerWriter
from tests.simulation.postman import PUBLIC_URL, Postman, keyed
from tests.simulation.wire import ORIGIN, Crash, SimWire

PRICED = ("google", "google-batch", "kie", "segmind")  # what these charge, they say


class Weather(msgspec.Struct, frozen=True):
    """How bad the night is; shares of requests, and times in seconds.

    ``late``: the connection breaks, and the request arrives up to ``late_s`` after that.  ``listings_fail_s``: so
    long from the start of each life, listings answer with a 5xx.  ``jumps``: how often an hour the wall clock is set
    wrong, by up to two hours either way.
    """

    chaos: ChaosProfile = PROFILES["none"]
    refused: float = 0.0  # the connection fails before a byte is sent
    lost_request: float = 0.0  # sent, never arrives
    lost_reply: float = 0.0  # served, the answer is lost
    late: float = 0.0
    late_s: float = 8.0
    listing_lag_s: float = 0.0
    listings_fail_s: float = 0.0
    jumps: float = 0.0


FAIR = Weather()


class LaggingJobs(MemoryJobs):
    """A job table whose listings do not show the newest jobs yet."""

    def __init__(self, lag_s: float, now_us: Callable[[], int]) -> None:
        super().__init__()
        self._lag_us = round(lag_s * 1e6)
        self._now_us = now_us

    def list(
        self, provider: str, account: str, *, since_us: int, until_us: int, limit: int, before_us: int | None = None
    ) -> list[Job]:
        return super().list(
            provider,
            account,
            since_us=since_us,
            until_us=min(until_us, self._now_us() - self._lag_us),
            limit=limit,
            before_us=before_us,
        )


class WatchedLedger:
    """A ledger whose commits are fault points, refuse once the process is dead, and may fail."""

    def __init__(self, ledger: Ledger, world: "World") -> None:
        self._ledger = ledger
        self._world = world
        self.ledger_id = ledger.ledger_id
        self.payload = ledger.payload

    @property
    def epoch(self) -> int:
        return self._ledger.epoch

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]:
        world = self._world
        world.point("before_commit")
        world.break_commit()
        outcomes = self._ledger.commit(decisions)
        world.committed()
        world.point("after_commit")  # durable, and nobody has heard of it (LED-3)
        return outcomes


class Life(msgspec.Struct, frozen=True):
    """One process: how it goes, beside the weather.

    ``crash_at``: it dies at that many fault points from now.  ``cut_at``: it dies in place of the disk's effect of
    that number from now, or in the middle of it (``torn``).  ``power``: whether the power goes with it and takes what
    was not synced; None draws.  ``disk`` and ``ledger``: the effect, or the commit, of
    that number from now fails so, and the process ends with an error.  ``drain_at_s``, ``hard_at_s``: SIGTERM.
    ``new_keys``: from now on the keys are those of another account.
    """

    crash_at: int | None = None
    cut_at: int | None = None
    torn: bool = False
    power: bool | None = None
    disk: tuple[int, Fault] | None = None
    ledger: tuple[int, Fault] | None = None
    new_keys: bool = False
    drain_at_s: float | None = None
    hard_at_s: float | None = None
    deadline_s: float | None = None
    batch: int = 1


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
        max_at_risk_microusd: int = 100_000_000,
        max_duplicate_microusd: int | None = None,
        webhooks: bool = False,
        trust: Trust | None = None,
    ) -> None:
        """``webhooks``: providers that can are told where to call back, and somebody listens all the time.
        ``trust``: what the batches were configured with; None = nothing was said.
        ``followers`` of the tasks of each batch, its last ones, share the purchase of the first one.
        ``files``: each task has two local references, one that all share and one of its own."""
        self.path = root / "night.db"
        self.random = random.Random(seed)
        self.weather = weather
        self.providers = tuple(providers)
        self.batches = batches
        self.budget_microusd = budget_microusd
        self.max_at_risk_microusd = max_at_risk_microusd
        self.max_duplicate_microusd = max_duplicate_microusd
        self.trust = trust
        self.disk = SimDisk()
        self.hits: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()  # fault point -> deaths there
        self.inbox: Path | None = None
        self.keys = dict.fromkeys(self.providers, "sandbox")
        self.fingerprint = "k" * 32  # of whatever the keys are
        self.rekeyed = False  # what was bought before may not be visible any more
        self.broken: list[str] = []  # promises that were seen broken on the way
        self.epoch = 0
        self.last_night = 0  # the epoch of the newest run
        self.effects = self.commits = 0  # how many the last life had on the disk, and in the ledger
        self._life = Life()
        self._points_left: int | None = None
        self._commits_left: int | None = None
        self._frozen = False
        self._reader: Reader | None = None
        self._now_us = EPOCH_US  # the true time at which the next life starts
        self._wrong_us = 0  # how wrong the machine's wall clock is
        self._started_us = EPOCH_US
        self._true = SimClock(self._now_us)
        self.clock = SimClock(self._now_us)
        self._handled_us = 0  # when the request arrived that is being answered
        self._pending: list[tuple[int, HttpCall]] = []
        self._wanting: dict[str, list[StreamKey]] = {}  # digest of a picture -> the tasks that want it
        self._billed = 0  # lines of the bill that were compared with the intents
        self._bought = Counter[tuple[str, str]]()  # (provider, digest) -> jobs
        self.house = House(
            EmulatorSettings(
                jobs=LaggingJobs(weather.listing_lag_s, lambda: self._handled_us),
                limits=TokenBuckets(100.0),
                files_origin=ORIGIN,
                chaos=weather.chaos,
                latency_s=2.0,
                rate_factor=100.0,
                seed=seed,
                small_px=64,
                small_page=3,  # so that listings have many pages
            ),
            self.providers,
        )
        self.postman: Postman | None = None
        if webhooks:
            self.inbox = inbox_of(self.path)
            self.postman = Postman(self.house, self.inbox)
        self._bytes = random.Random(seed + 1)
        self._files = files
        self._import(tasks, same_prompts, followers)

    # --- the world as the runtime sees it -----------------------------------------------------------------

    def alive(self) -> None:
        if self._frozen:
            raise Crash

    def true_us(self) -> int:
        return self._true.now_us()

    def serve(self, call: HttpCall) -> Reply:
        """Let a request arrive, after those that were on their way for longer."""
        now_us = self.true_us()
        due, self._pending = (
            [entry for entry in self._pending if entry[0] <= now_us],
            [entry for entry in self._pending if entry[0] > now_us],
        )
        for at_us, late in sorted(due, key=lambda entry: entry[0]):
            self._handle(late, at_us)
        if self._is_listing(call) and now_us < self._started_us + self.weather.listings_fail_s * 1e6:
            return Reply(503, {}, b"busy")
        return self._handle(call, now_us)

    def arrive_later(self, call: HttpCall, after_s: float) -> None:
        self._pending.append((self.true_us() + round(after_s * 1e6), call))

    def _handle(self, call: HttpCall, now_us: int) -> Reply:
        self._handled_us = now_us
        parts = urlsplit(call.url)
        headers = {name.lower(): value for name, value in call.headers.items()}
        reply = self.house.handle(
            Call(call.method, parts.path, dict(parse_qsl(parts.query)), headers, call.body, ORIGIN), now_us
        )
        self._compare_intents(now_us)
        return msgspec.structs.replace(reply, headers={**reply.headers, "date": formatdate(now_us / 1e6, usegmt=True)})

    def _compare_intents(self, now_us: int) -> None:
        """MON-1, MON-5: at no moment has a provider more jobs for a picture than the ledger has intents."""
        for line in self.house.bill(self._billed, now_us):
            self._billed = line.n
            bought = (line.provider, line.digest)
            self._bought[bought] += 1
            streams = self._wanting.get(line.digest)
            if streams is None or self._reader is None:
                continue
            attempts = [attempt for stream in streams for attempt in self._reader.state(stream).attempts]
            intents = sum(attempt.provider == line.provider for attempt in attempts)
            if self._bought[bought] > intents:
                self.broken.append(f"{line.provider}: {self._bought[bought]} jobs for {intents} intents (MON-1, MON-5)")

    @staticmethod
    def _is_listing(call: HttpCall) -> bool:
        path = urlsplit(call.url).path
        return call.method == "GET" and (path.endswith(("/predictions", "/batches")) or "history" in path)

    def point(self, name: str) -> None:
        self.alive()
        self.hits[name] += 1
        if self._points_left is not None:
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
                raise (
                    DiskFull("no space left") if self._life.ledger[1] == "full" else CommitFailed("input/output error")
                )

    def committed(self) -> None:
        """MON-8: at every commit, what is captured and reserved fits the budget."""
        if self.budget_microusd is None:
            return
        assert self._reader is not None
        for batch in range(1, self.batches + 1):
            name = batch_money(batch)
            balance = self._reader.money(name).get(name)
            if balance is not None and balance.total > self.budget_microusd:
                self.broken.append(f"batch {batch}: {balance} is over the budget (MON-8)")

    # --- lives --------------------------------------------------------------------------------------------

    def live(self, life: Life | None = None) -> StopReason | None:
        """Run one process until the night ends (its stop reason) or it dies (None)."""
        self._life = life = life or Life()
        self._points_left = life.crash_at
        self._commits_left = life.ledger[0] if life.ledger else None
        if life.disk is not None:
            self.disk.fail(*life.disk)
        if life.new_keys:
            self.keys = {provider: f"{key} of another account" for provider, key in self.keys.items()}
            self.fingerprint, self.rekeyed = "n" * len(self.fingerprint), True
        if life.cut_at is not None:
            self.disk.die(life.cut_at, lambda: self._die("disk"), torn=life.torn)
        stopped: StopReason | None = None
        commits = self.hits["after_commit"]
        with self._process("run") as ledger, Reader(self.path) as self._reader:
            self.last_night = self.epoch
            try:
                stopped = self._night(WatchedLedger(ledger, self), self._reader, life)
            except (Crash, BaseExceptionGroup, ports.DiskFull, ports.DiskFailed) as exc:
                self._expected(exc)
        self._reader = None
        self.effects, self.commits = self.disk.operations, self.hits["after_commit"] - commits
        power = self._frozen and (self.random.random() < 0.5 if life.power is None else life.power)
        self.disk = self.disk.crash(power=power)
        return None if self._frozen else stopped

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

    @contextlib.contextmanager
    def _process(self, command: str) -> Iterator[Ledger]:
        """The ledger as a new process finds it."""
        self._frozen = False
        self._started_us = self._now_us
        self._true = SimClock(self._now_us)
        self.clock = SimClock(self._now_us + self._wrong_us)
        ledger = Ledger.create_or_open(self.path, create=command == "import", entropy=self._bytes.randbytes)
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

        night = Night(
            NightPlan(
                terms=Terms(
                    batch=life.batch,
                    tasks=reader.batch(life.batch).sealed_through,
                    budget_microusd=self.budget_microusd,
                    max_at_risk_microusd=self.max_at_risk_microusd,
                    max_duplicate_microusd=self.max_duplicate_microusd,
                ),
                accounts=tuple(self._account(name) for name in self.providers),
                buy_from=frozenset(self.providers),
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
                stopped = await night.run()
                nursery.cancel_scope.cancel()
            return stopped
        finally:
            self._now_us = self.true_us()

    async def _signals(self, night: Night, life: Life) -> None:
        for at_s in (life.drain_at_s, life.hard_at_s):
            if at_s is not None:
                await trio.sleep_until(at_s)
                night.drain()

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

    def _run(self, main: Callable[[], Awaitable[StopReason]]) -> StopReason:
        core = trio._core._run
        core._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # the simulator alone does this
        core._r.seed(self.random.getrandbits(32))
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    def _account(self, provider: str) -> Account:
        return Account(
            name=provider,
            provider=provider,
            codec=registry.codec(provider),
            key=Secret(self.keys[provider]),
            base_url=f"{ORIGIN}/{provider}",
            loopback=True,
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

    def _import(self, tasks: int, same_prompts: bool, followers: int) -> None:
        with self._process("import") as ledger:
            for batch in range(1, self.batches + 1):
                outcomes = ledger.commit(self._batch(ledger, batch, tasks, same_prompts, followers))
                assert all(isinstance(outcome, Committed) for outcome in outcomes)

    def _batch(self, ledger: Ledger, batch: int, tasks: int, same_prompts: bool, followers: int) -> list[Decision]:
        opened = (
            BatchOpened(name=f"night {batch}", folder=str(folder(batch)), sandbox=True, operator="sim"),
            *((BatchConfigured(operator="sim", trust=self.trust),) if self.trust else ()),
            ImportOpened(number=1, first=1, source="test", input_digest="d"),
        )
        decisions = [self._decision(batch_stream(batch), 0, *opened)]
        for n in range(1, tasks + 1):
            owner = 1 if n > max(1, tasks - followers) else 0
            prompt = f"picture number {batch}.{owner or n}"
            request = ImageRequest(
                prompt="one and the same" if same_prompts else prompt,
                references=(self._file("logo"), self._file(f"{batch}.{owner or n}")) if self._files else (),
            )
            if not request.references:  # else the provider is given addresses, and the picture is of those
                digest = request_digest(request.prompt, (), request.aspect, request.resolution)
                self._wanting.setdefault(digest.hex(), []).append(task_stream(batch, n))
            ref, payload = ledger.payload(encode_request(request, {}))
            queued = TaskQueued(
                id=f"row{n}",
                request=ref,
                model=request.model,
                aspect=request.aspect,
                resolution=request.resolution,
                line=n,
                number=1,
                owner=owner,
            )
            decision = self._decision(task_stream(batch, n), 0, queued)
            decisions.append(msgspec.structs.replace(decision, payloads=(payload,)))
        sealed = BatchSealed(number=1, tasks=tasks, rows=tasks, input_digest="d")
        decisions.append(self._decision(batch_stream(batch), len(opened), sealed))
        return decisions

    def _file(self, name: str) -> str:
        """Put a reference file on the disk, once; returns it as it stands in a request."""
        path, data = Path("/pics") / f"{name}.png", b"\x89PNG\r\n\x1a\n" + name.encode()
        if not self.disk.exists(path):
            part = path.with_suffix(".part")
            self.disk.make_dir(path.parent)
            self.disk.write_new(part, data)
            self.disk.rename(part, path)
        return LocalFile(hashlib.sha256(data).hexdigest(), len(data), "image/png", str(path)).text

    def _decision(self, stream: StreamKey, expected: int, *events: Event) -> Decision:
        return Decision(appends=(Append(stream, expected, events),), at_us=self._now_us)

    # --- the auditor --------------------------------------------------------------------------------------

    def bill(self) -> list[BillLine]:
        """What the providers charge when everything has ended, and all that was on its way has arrived."""
        for at_us, late in sorted(self._pending, key=lambda entry: entry[0]):
            self._handle(late, at_us)
        self._pending.clear()
        return list(self.house.bill(0, self._now_us + 86_400_000_000))


def folder(batch: int) -> Path:
    """Where the images of a batch lie."""
    return Path("/night", str(batch))
