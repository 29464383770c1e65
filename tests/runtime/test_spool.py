"""Images that came inside a reply are durable before anybody is told, and go when they are stored (W14, RES-5)."""

from pathlib import Path

import pytest
import trio

from adapters.base import Finished
from runtime.blobs import BlobStore
from runtime.bytebudget import ByteBudget
from runtime.ports import DiskFull
from runtime.simulated import SimDisk, SimThreads
from runtime.spool import Head, Spool, sweep
from runtime.work import Work
from tests.runtime.fakes import Bench, run

FOLDER = Path("/out")
IMAGE = b"\x89PNG\nnot\nonly\none\nline"


def kept(bench: Bench, work: Work, attempt: int = 1) -> tuple[Head | None, bytes | None]:
    found: list[tuple[Head | None, bytes | None]] = []

    async def look() -> None:
        found.append((await bench.spool.head(work, attempt), await bench.spool.data(work, attempt)))

    run(look)
    return found[0]


def test_what_was_kept_comes_back_byte_for_byte_with_what_the_reply_said() -> None:
    bench = Bench()
    work = bench.work()
    run(lambda: bench.spool.keep(work, 1, Finished(data=IMAGE, cost_microusd=5, model_version="v3")))
    assert kept(bench, work) == (Head(5, "v3"), IMAGE)
    assert kept(bench, work, attempt=2) == (None, None)
    run(lambda: bench.spool.drop(work, 1))
    run(lambda: bench.spool.drop(work, 1))
    assert kept(bench, work) == (None, None)


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_power_cut_leaves_the_whole_reply_or_nothing(fails_at: int) -> None:
    """RES-5, W14: a reader never sees half of one, and what was acknowledged is there."""
    disk, work = SimDisk(), Bench().work()
    disk.fail(fails_at, "full")
    acknowledged = True
    try:
        run(lambda: spool_on(disk).keep(work, 1, Finished(data=IMAGE)))
    except DiskFull:
        acknowledged = False
    after = spool_on(disk.crash())
    found: list[bytes | None] = []

    async def look() -> None:
        found.append(await after.data(work, 1))

    run(look)
    assert found == [IMAGE] if acknowledged else found[0] in (None, IMAGE)


def spool_on(disk: SimDisk) -> Spool:
    return Spool(SimThreads(), lambda work: BlobStore(disk, FOLDER))


def test_the_sweep_removes_what_no_open_attempt_needs() -> None:
    bench = Bench()
    store = BlobStore(bench.disk, FOLDER)
    for n in (1, 2):
        run(lambda n=n: bench.spool.keep(bench.work(n), 1, Finished(data=IMAGE)))  # type: ignore[misc]
    bench.disk.write_new(FOLDER / "spool" / "1-3-1.part", b"half")
    bench.disk.write_new(FOLDER / "spool" / "notes.txt", b"somebody's")
    assert sweep(store, lambda *attempt: attempt == (1, 2, 1)) == 2
    assert store.disk.names(FOLDER / "spool") == ("1-2-1", "notes.txt")


def test_large_replies_share_a_budget_and_wait_in_order() -> None:
    """SEC-9."""
    budget = ByteBudget(100)
    order: list[str] = []

    async def hold(name: str, size: int, seconds: float) -> None:
        async with budget.hold(size):
            order.append(name)
            await trio.sleep(seconds)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            for name, size, seconds in (("a", 60, 5.0), ("huge", 1_000, 1.0), ("b", 10, 1.0), ("free", 0, 1.0)):
                nursery.start_soon(hold, name, size, seconds)
                await trio.sleep(0.1)
        assert repr(budget) == "<ByteBudget 0 of 100>"

    run(go)
    assert order == ["a", "free", "huge", "b"]
