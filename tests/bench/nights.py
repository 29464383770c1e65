"""The same work done three ways in this process, against the fast provider: what durability costs is their ratio.

* :func:`bare`: wire and codec, as many workers as jobs may be in flight, each result written to a file.  No ledger, no
  check of the image, no fsync: what a careful script does.
* :func:`stored`: the same loop, but each result goes through the blob store (decode, fsync, rename, link).
* :func:`durable`: a whole :class:`runtime.night.Night` over a ledger with ``synchronous=FULL``.

All three ask the same: one submit, polls from the expected latency on, one download.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import trio

from adapters.base import Accepted, Context, Finished, Secret
from adapters.capabilities import Rate
from adapters.kie import KIE
from adapters.prices import DEFAULT_BOOK
from ledger.journal import Ledger
from runtime.accounts import Account
from runtime.blobs import Blob, BlobStore, Receiver
from runtime.clock import TrioClock
from runtime.disk import RealDisk
from runtime.fetcher import Placement
from runtime.images import Expected
from runtime.night import Night, NightPlan, Seams
from runtime.ports import FetchRules
from runtime.pricing import quote_by
from runtime.requests import decode_request
from runtime.router import Terms
from runtime.threads import TrioThreads
from runtime.wire import HttpWire
from runtime.work import Work
from tests.bench.project import Project, fill, new_tasks

_RULES = FetchRules(hosts=(), loopback=True)
_FAST = Rate(100_000, 1.0)


class Shape(msgspec.Struct, frozen=True):
    """How much work, and how wide."""

    tasks: int
    in_flight: int
    latency_s: float


class Measured(msgspec.Struct, frozen=True):
    """One run.  ``cpu_s`` is of this process, all threads."""

    seconds: float
    cpu_s: float


def timed(run: Callable[[], object]) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Measured(time.perf_counter() - wall, time.process_time() - cpu)


def account(url: str, shape: Shape) -> Account:
    return Account(
        name="kie",
        provider="kie",
        codec=KIE,
        key=Secret("sandbox-bench"),
        base_url=url,
        loopback=True,
        max_inflight=shape.in_flight,
        rate=_FAST,
        poll_rate=_FAST,
        latency_s=shape.latency_s,
    )


# --- without a ledger -------------------------------------------------------------------------------------

Keep = Callable[[HttpWire, str, str], Awaitable[None]]  # wire, URL, name


def bare(url: str, shape: Shape, folder: Path) -> None:
    folder.mkdir(parents=True)

    async def keep(wire: HttpWire, link: str, name: str) -> None:
        chunks: list[bytes] = []

        async def take(chunk: bytes) -> None:
            chunks.append(chunk)

        await wire.fetch(link, take, _RULES)
        data = b"".join(chunks)
        await trio.to_thread.run_sync((folder / f"{name}.jpg").write_bytes, data)

    trio.run(_loop, url, shape, keep)


def stored(url: str, shape: Shape, folder: Path) -> None:
    store, threads = BlobStore(RealDisk(), folder), TrioThreads()

    async def keep(wire: HttpWire, link: str, name: str) -> None:
        receiver = Receiver(store, part=f"1-{name}", threads=threads)
        await wire.fetch(link, receiver.write, _RULES)
        found = await receiver.finish(Expected("1:1", "1K"), Path("images", name))
        assert isinstance(found, Blob), found

    trio.run(_loop, url, shape, keep)


async def _loop(url: str, shape: Shape, keep: Keep) -> None:
    wire, place = HttpWire(), account(url, shape)
    todo = enumerate(new_tasks(shape.tasks))

    async def worker() -> None:
        for n, task in todo:
            context = place.context(marker=n + 1)
            reply = KIE.read_submit(await wire.send(KIE.build_submit(decode_request(task.request).request, context)))
            assert isinstance(reply, Accepted), reply
            await trio.sleep(shape.latency_s)
            await keep(wire, await _followed(wire, reply.job, context), task.row)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(shape.in_flight):
                nursery.start_soon(worker)
    finally:
        await wire.aclose()


async def _followed(wire: HttpWire, job: str, context: Context) -> str:
    """Poll a job to its end; gives the URL of the result."""
    for _ in range(1000):
        found = KIE.read_poll(await wire.send(KIE.build_poll(job, context)))
        if isinstance(found, Finished):
            return found.url
        await trio.sleep(0.01)
    raise AssertionError(f"{job} does not end")


# --- with a ledger ----------------------------------------------------------------------------------------


def prepared(url: str, shape: Shape, folder: Path) -> Callable[[], None]:
    """Import the tasks, which is not what is measured here, and return the night to run."""
    project = Project(folder, url, rate="100000/1s", max_inflight=shape.in_flight)
    fill(project, tasks=shape.tasks, finished=0, open_jobs=0)
    return partial(durable, url, shape, project)


def durable(url: str, shape: Shape, project: Project) -> None:
    place = account(url, shape)
    disk = RealDisk()
    with Ledger.create_or_open(project.ledger, create=False) as ledger, ledger.reader() as reader:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="bench", command="bench", at_us=_now_us())
        folder = Path(reader.batch(1).folder)
        store = BlobStore(disk, folder)

        def placed(work: Work) -> Placement:
            assert work.state.queued is not None
            return Placement(store=store, name=Path("images", work.state.queued.id))

        night = Night(
            NightPlan(
                terms=Terms(batch=1, tasks=shape.tasks, budget_microusd=None, max_at_risk_microusd=10**9),
                accounts=(place,),
                buy_from=frozenset({"kie"}),
            ),
            ledger=ledger,
            reader=reader,
            seams=Seams(
                clock=TrioClock(),
                wire=HttpWire(),
                threads=TrioThreads(),
                commits=TrioThreads(1),
                disk=disk,
                random=Random(1),
            ),
            place=placed,
            quote=quote_by(DEFAULT_BOOK),
            inbox_dir=None,
            folder=folder,
            keyed=lambda text: "0" * 32,
        )
        stopped = trio.run(night.run)
        counts = {row.state: row.n for row in reader.counts(1)}
        assert not stopped
        assert counts == {"succeeded": shape.tasks}, counts


def _now_us() -> int:
    return time.time_ns() // 1000
