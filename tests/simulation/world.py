"""A whole night in simulation: real runtime, real ledger file, simulated time, network, disk and process death.

One seed is one night.  A crash first freezes every effect (wire, disk, commit), then unwinds, so that what
clean-up code does then cannot be seen.  The providers go on, and the next life finds what was durable.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import trio
import trio.testing

from adapters import registry
from adapters.base import HttpCall, HttpReply, ImageRequest, Secret
from adapters.prices import DEFAULT_BOOK
from adapters.sandbox.base import Call, Reply
from adapters.sandbox.faults import PROFILES, ChaosProfile
from adapters.sandbox.house import BillLine, House
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.wirefmt import EmulatorSettings
from ledger.decisions import Append, Committed, Decision, Outcome
from ledger.events import BatchOpened, BatchSealed, Event, ImportOpened, TaskQueued
from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.streams import StreamKey, batch_stream, task_stream
from runtime import faults
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.fetcher import Placement
from runtime.night import Night, NightPlan, Seams, quote_by
from runtime.ports import Fetched, FetchRefused, FetchRules, WireError
from runtime.requests import encode_request
from runtime.router import StopReason, Terms
from runtime.simulated import EPOCH_US, SimClock, SimDisk, SimThreads
from runtime.work import Work

ORIGIN = "http://sandbox.test"
FOLDER = Path("/night")


class Crash(BaseException):
    """The process died here."""


class Weather(msgspec.Struct, frozen=True):
    """How bad the night is; shares of requests."""

    chaos: ChaosProfile = PROFILES["none"]
    refused: float = 0.0  # the connection fails before a byte is sent
    lost_request: float = 0.0  # sent, never arrives
    lost_reply: float = 0.0  # served, the answer is lost


class SimWire:
    """Implements :class:`runtime.ports.Wire` by calling the emulators in process."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def send(self, call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        world, weather = self._world, self._world.weather
        world.alive()
        await trio.sleep(world.random.uniform(0.001, 0.05))
        world.alive()
        if world.random.random() < weather.refused:
            raise WireError("connection refused", sent=False)
        if on_sent is not None:
            on_sent()
        world.alive()
        if world.random.random() < weather.lost_request:
            await trio.sleep(call.timeout_s)
            raise WireError("no answer", sent=True)
        reply = world.serve(call.method, call.url, call.headers, call.body)
        await trio.sleep(world.random.uniform(0.001, 0.05) + reply.delay_s)
        world.alive()
        if reply.transport or world.random.random() < weather.lost_reply:
            raise WireError("connection reset", sent=True)
        return HttpReply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    async def fetch(self, url: str, sink: Callable[[bytes], Awaitable[None]], rules: FetchRules) -> Fetched:
        world = self._world
        world.alive()
        if not url.startswith(ORIGIN):
            raise FetchRefused(url)
        await trio.sleep(world.random.uniform(0.001, 0.1))
        reply = world.serve("GET", url, {}, b"")
        world.alive()
        if reply.transport:
            raise WireError("connection reset", sent=True)
        if reply.status == 200:
            await sink(reply.body)
        return Fetched(reply.status, reply.headers, len(reply.body))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FreezingLedger:
    """A ledger whose commits refuse once the process is dead."""

    def __init__(self, ledger: Ledger, world: "World") -> None:
        self._ledger = ledger
        self._world = world
        self.ledger_id = ledger.ledger_id
        self.payload = ledger.payload

    @property
    def epoch(self) -> int:
        return self._ledger.epoch

    def commit(self, decisions: Sequence[Decision]) -> list[Outcome]:
        self._world.alive()
        return self._ledger.commit(decisions)


class World:
    """Everything that outlives a crash: providers, disk, ledger file, wall clock, seed."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        tasks: int = 5,
        providers: Sequence[str] = ("kie", "replicate", "segmind"),
        weather: Weather = Weather(),
        same_prompts: bool = False,
    ) -> None:
        self.path = root / "night.db"
        self.random = random.Random(seed)
        self.weather = weather
        self.providers = tuple(providers)
        self.disk = SimDisk()
        self.hits: Counter[str] = Counter()
        self.crash_at: int | None = None  # so many more fault points
        self._frozen = False
        self._now_us = EPOCH_US
        self.clock = SimClock(self._now_us)
        self.house = House(
            EmulatorSettings(
                jobs=MemoryJobs(),
                limits=TokenBuckets(100.0),
                files_origin=ORIGIN,
                chaos=weather.chaos,
                latency_s=2.0,
                rate_factor=100.0,
                seed=seed,
                small_px=64,
            ),
            self.providers,
        )
        self._bytes = random.Random(seed + 1)
        self._import(tasks, same_prompts)

    # --- the world as the runtime sees it -----------------------------------------------------------------

    def alive(self) -> None:
        if self._frozen:
            raise Crash

    def serve(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Reply:
        parts = urlsplit(url)
        call = Call(
            method,
            parts.path,
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in headers.items()},
            body,
            ORIGIN,
        )
        return self.house.handle(call, self.clock.now_us())

    def _point(self, name: str) -> None:
        self.alive()
        self.hits[name] += 1
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                self._frozen = True
                self.disk.freeze()
                raise Crash

    # --- lives --------------------------------------------------------------------------------------------

    def live(self, *, crash_at: int | None = None, budget_microusd: int | None = None) -> StopReason | None:
        """Run one process until the night ends (its stop reason) or it dies (None)."""
        self.crash_at = crash_at
        self._frozen = False
        self.clock = SimClock(self._now_us)
        ledger = Ledger.create_or_open(self.path, create=False, entropy=self._bytes.randbytes)
        died = False
        stopped: StopReason | None = None
        try:
            ledger.start_epoch(
                machine="sim",
                pid=1,
                app_version="0",
                operator="sim",
                command="run",
                at_us=self._now_us,
                identity=(1, 1),
            )
            with Reader(self.path) as reader:
                try:
                    stopped = self._night(FreezingLedger(ledger, self), reader, budget_microusd)
                except BaseExceptionGroup as group:
                    if group.split(Crash)[0] is None:
                        raise
                    died = True
        finally:
            faults.install(None)
            ledger.close()
        self._now_us += 1_000_000
        if died:
            self.disk = self.disk.crash(power=self.random.random() < 0.5)
        return None if died else stopped

    def _night(self, ledger: FreezingLedger, reader: Reader, budget_microusd: int | None) -> StopReason:
        store = BlobStore(self.disk, FOLDER)

        def place(work: Work) -> Placement:
            return Placement(store=store, name=Path("images", f"task-{work.n}"))

        accounts = tuple(self._account(name) for name in self.providers)
        night = Night(
            NightPlan(
                terms=Terms(
                    batch=1,
                    tasks=reader.batch(1).sealed_through,
                    budget_microusd=budget_microusd,
                    max_at_risk_microusd=100_000_000,
                ),
                accounts=accounts,
                buy_from=frozenset(self.providers),
            ),
            ledger=ledger,  # type: ignore[arg-type]  # the same methods, frozen on death
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
            inbox_dir=None,
            folder=FOLDER,
            keyed=lambda text: "k" * 32,
        )
        faults.install(self._point)
        core = trio._core._run
        core._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]  # the simulator alone does this
        core._r.seed(self.random.getrandbits(32))  # type: ignore[attr-defined]

        async def one_life() -> StopReason:
            try:
                return await night.run()
            finally:
                self._now_us = self.clock.now_us()

        return trio.run(one_life, clock=trio.testing.MockClock(autojump_threshold=0))

    def _account(self, provider: str) -> Account:
        return Account(
            name=provider,
            provider=provider,
            codec=registry.codec(provider),
            key=Secret("sandbox"),
            base_url=f"{ORIGIN}/{provider}",
            loopback=True,
            quarantine_s=10.0,
            latency_s=2.0,
        )

    # --- the input ----------------------------------------------------------------------------------------

    def _import(self, tasks: int, same_prompts: bool) -> None:
        ledger = Ledger.create_or_open(self.path, create=True, entropy=self._bytes.randbytes)
        try:
            ledger.start_epoch(
                machine="sim",
                pid=1,
                app_version="0",
                operator="sim",
                command="import",
                at_us=self._now_us,
                identity=(1, 1),
            )
            opened = (
                BatchOpened(name="night", folder=str(FOLDER), sandbox=True, operator="sim"),
                ImportOpened(number=1, first=1, source="test", input_digest="d"),
            )
            sealed = BatchSealed(number=1, tasks=tasks, rows=tasks, input_digest="d")
            decisions = [self._decision(batch_stream(1), 0, *opened)]
            for n in range(1, tasks + 1):
                request = ImageRequest(prompt="one and the same" if same_prompts else f"picture number {n}")
                ref, payload = ledger.payload(encode_request(request, {}))
                queued = TaskQueued(
                    id=f"row{n}",
                    request=ref,
                    model=request.model,
                    aspect=request.aspect,
                    resolution=request.resolution,
                    line=n,
                    number=1,
                )
                decision = self._decision(task_stream(1, n), 0, queued)
                decisions.append(msgspec.structs.replace(decision, payloads=(payload,)))
            decisions.append(self._decision(batch_stream(1), len(opened), sealed))
            assert all(isinstance(outcome, Committed) for outcome in ledger.commit(decisions))
        finally:
            ledger.close()

    def _decision(self, stream: StreamKey, expected: int, *events: Event) -> Decision:
        return Decision(appends=(Append(stream, expected, events),), at_us=self._now_us)

    # --- the auditor --------------------------------------------------------------------------------------

    def bill(self) -> list[BillLine]:
        """What the providers charge when everything has ended."""
        return list(self.house.bill(0, self._now_us + 86_400_000_000))
