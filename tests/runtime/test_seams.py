"""One contract suite per seam, run against the real implementation and the simulated one.

The Wire's suite is in ``test_wire.py``, because it needs a server.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, trio_test

from runtime.clock import TrioClock
from runtime.disk import RealDisk
from runtime.ports import Clock, Disk, DiskFailed, NameTaken, Threads
from runtime.simulated import EPOCH_US, SimClock, SimDisk, SimThreads
from runtime.threads import TrioThreads

# --- Disk -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return RealDisk() if request.param == "real" else SimDisk()


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "out"
    disk.make_dir(path)
    return path


def test_a_directory_may_be_made_twice(disk: Disk, root: Path) -> None:
    disk.make_dir(root)
    assert disk.exists(root)
    assert disk.names(root) == ()


def test_a_file_in_the_way_of_a_directory_is_an_error(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"x")
    with pytest.raises(DiskFailed):
        disk.make_dir(root / "a" / "b")
    with pytest.raises(DiskFailed):
        disk.make_dir(root / "a")


def test_new_bytes_are_read_back(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"one")
    assert disk.read(root / "a") == b"one"
    assert disk.exists(root / "a")
    assert disk.names(root) == ("a",)


def test_a_new_file_never_replaces_one(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"one")
    with pytest.raises(NameTaken):
        disk.write_new(root / "a", b"two")
    assert disk.read(root / "a") == b"one"


def test_nothing_is_written_where_no_directory_is(disk: Disk, root: Path) -> None:
    with pytest.raises(DiskFailed):
        disk.write_new(root / "no" / "a", b"one")
    with pytest.raises(DiskFailed):
        disk.append(root / "no" / "a", b"one")


def test_appends_add_up(disk: Disk, root: Path) -> None:
    disk.append(root / "a.part", b"one")
    disk.append(root / "a.part", b"two")
    disk.sync(root / "a.part")
    assert disk.read(root / "a.part") == b"onetwo"


def test_rename_replaces(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"new")
    disk.write_new(root / "b", b"old")
    disk.rename(root / "a", root / "b")
    assert not disk.exists(root / "a")
    assert disk.read(root / "b") == b"new"


def test_link_shares_bytes_and_may_be_repeated(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"one")
    disk.link(root / "a", root / "b")
    disk.link(root / "a", root / "b")
    disk.remove(root / "a")
    assert disk.read(root / "b") == b"one"


def test_link_accepts_a_copy_and_refuses_other_bytes(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"one")
    disk.write_new(root / "same", b"one")
    disk.write_new(root / "other", b"two")
    disk.link(root / "a", root / "same")
    with pytest.raises(NameTaken):
        disk.link(root / "a", root / "other")
    assert disk.read(root / "other") == b"two"


def test_a_protected_file_can_still_be_read_linked_renamed_and_removed(disk: Disk, root: Path) -> None:
    disk.write_new(root / "a", b"one")
    disk.protect(root / "a")
    disk.rename(root / "a", root / "b")
    disk.link(root / "b", root / "c")
    assert disk.read(root / "c") == b"one"
    disk.remove(root / "b")
    assert disk.names(root) == ("c",)


def test_removing_what_is_not_there_is_fine(disk: Disk, root: Path) -> None:
    disk.remove(root / "a")


ON_MISSING: dict[str, Callable[[Disk, Path], object]] = {
    "read": lambda disk, root: disk.read(root / "a"),
    "sync": lambda disk, root: disk.sync(root / "a"),
    "protect": lambda disk, root: disk.protect(root / "a"),
    "rename": lambda disk, root: disk.rename(root / "a", root / "b"),
    "link": lambda disk, root: disk.link(root / "a", root / "b"),
}


@pytest.mark.parametrize("act", ON_MISSING)
def test_a_missing_file_is_a_disk_error(disk: Disk, root: Path, act: str) -> None:
    with pytest.raises(DiskFailed):
        ON_MISSING[act](disk, root)


def test_names_of_a_missing_directory_are_none(disk: Disk, root: Path) -> None:
    assert disk.names(root / "no") == ()


def test_names_are_sorted_and_include_directories(disk: Disk, root: Path) -> None:
    disk.write_new(root / "b", b"")
    disk.make_dir(root / "a")
    assert disk.names(root) == ("a", "b")


def test_free_space_is_known_for_a_path_to_be(disk: Disk, root: Path) -> None:
    assert disk.free_bytes(root / "no" / "such") > 0


# --- Clock ------------------------------------------------------------------------------------------------


@pytest.fixture(params=[TrioClock, SimClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


@pytest.fixture
def jumping() -> MockClock:
    return MockClock(autojump_threshold=0)


@trio_test
async def test_sleep_until_reaches_its_deadline(clock: Clock, jumping: MockClock) -> None:
    start = clock.monotonic()
    await clock.sleep_until(start + 30)
    assert clock.monotonic() == start + 30


@trio_test
async def test_a_deadline_in_the_past_does_not_wait(clock: Clock, jumping: MockClock) -> None:
    start = clock.monotonic()
    await clock.sleep_until(start - 30)
    assert clock.monotonic() == start


@trio_test
async def test_the_wall_clock_counts_microseconds_of_this_century(clock: Clock, jumping: MockClock) -> None:
    assert 1_600_000_000_000_000 < clock.now_us() < 4_102_444_800_000_000


@trio_test
async def test_a_jump_of_the_wall_clock_is_not_seen_by_durations(jumping: MockClock) -> None:
    clock = SimClock()
    await clock.sleep_until(10)
    assert clock.now_us() == EPOCH_US + 10_000_000
    clock.jump(-3600)
    assert clock.now_us() == EPOCH_US - 3_590_000_000
    assert clock.monotonic() == 10


# --- Threads ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[TrioThreads, SimThreads])
def threads(request: pytest.FixtureRequest) -> Threads:
    made: Threads = request.param()
    return made


@trio_test
async def test_a_thread_gives_back_what_the_work_gives(threads: Threads) -> None:
    assert await threads.run(lambda: 6 * 7) == 42


@trio_test
async def test_a_thread_gives_back_what_the_work_raises(threads: Threads) -> None:
    def work() -> None:
        raise DiskFailed("worn out")

    with pytest.raises(DiskFailed, match="worn out"):
        await threads.run(work)


@trio_test
async def test_work_is_not_started_under_a_cancelled_scope(threads: Threads) -> None:
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await threads.run(lambda: done.append(1))
    assert scope.cancelled_caught
    assert done == []


@trio_test
async def test_work_once_started_is_waited_for() -> None:
    threads = TrioThreads(limit=1)
    started, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        await trio.to_thread.run_sync(started.wait)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            go.set()
    assert done.is_set()
