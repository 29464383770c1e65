"""The assembly: order of start and end, messages, keys, and accounts that cannot go on."""

from pathlib import Path

import pytest

from ledger.events import AccountKeyChanged, AccountParked, AttemptUnknown, ControlTaken
from ledger.reader import Reader
from runtime.inbox import CancelBatch, RetryTasks, leave
from tests.simulation.checker import problems
from tests.simulation.life import Life
from tests.simulation.weather import Weather
from tests.simulation.world import KEY, World


def phases(world: World) -> dict[str, int]:
    with Reader(world.path) as reader:
        return {row.state: row.n for row in reader.counts(1)}


def kinds(world: World, kind: type) -> int:
    with Reader(world.path) as reader:
        return sum(isinstance(row.event, kind) for row in reader.events(limit=10_000))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, seed=1, tasks=4, providers=("replicate",))
    world.inbox = tmp_path / "inbox"
    return world


def test_a_cancel_that_waits_is_heard_before_anything_is_bought(world: World) -> None:
    """REC-2: it was read beside the buying, half a second late."""
    assert world.inbox is not None
    leave(world.inbox, CancelBatch(batch=1, operator="me"), name="0001")
    assert world.live() == "cancelled"
    assert world.bill() == []
    assert phases(world) == {"cancelled": 4}
    assert list(world.inbox.iterdir()) == []


def test_a_message_whose_file_outlived_a_crash_is_not_applied_again(world: World) -> None:
    """LED-3: a retry of everything that failed would buy what failed since."""
    assert world.inbox is not None
    for _ in range(2):
        leave(world.inbox, RetryTasks(batch=1, operator="me"), name="0001")
        world.live()
        assert list(world.inbox.iterdir()) == []
    assert kinds(world, ControlTaken) == 1


def test_a_message_that_cannot_be_read_is_put_aside(world: World) -> None:
    assert world.inbox is not None
    world.inbox.mkdir()
    (world.inbox / "0001.json").write_text("{")
    assert world.live() == ""
    assert [path.name for path in world.inbox.iterdir()] == ["0001.bad"]


def test_what_fails_after_a_cancel_is_cancelled_too(tmp_path: Path) -> None:
    """LIVE-1: in flight at the cancel, failed by the provider, and then queued in a batch that is over."""
    chaos = Weather().chaos
    world = World(tmp_path, seed=1, tasks=4, providers=("segmind",), weather=Weather(chaos=type(chaos)(fail_job=1.0)))
    world.live(Life(drain_at_s=0.5, hard_at_s=0.6))
    world.inbox = tmp_path / "inbox"
    leave(world.inbox, CancelBatch(batch=1, operator="me"), name="0001")
    assert world.live() == "cancelled"
    assert set(phases(world)) <= {"cancelled", "failed"}


@pytest.mark.parametrize("crash_at", range(8))
def test_a_new_key_judges_nothing_of_the_old_one_whenever_the_run_dies(tmp_path: Path, crash_at: int) -> None:
    """REC-9, W17: the run that noticed the new key died; the next one took the key for the old one, and the job for
    absent."""
    world = World(tmp_path, seed=2, tasks=1, providers=("replicate",))
    world.live(Life(crash_at=6))  # the request is out, its answer unread
    world.fingerprint, world.keys["replicate"] = "n" * 32, "sandbox of somebody else"
    world.live(Life(crash_at=crash_at))
    assert world.live() == ""
    assert phases(world) == {"held": 1}
    assert kinds(world, AttemptUnknown) == kinds(world, AccountKeyChanged) == 1
    assert len(world.bill()) <= 1


def test_an_account_without_credit_is_parked_and_the_others_take_its_tasks(tmp_path: Path) -> None:
    """LIVE-4."""
    world = World(tmp_path, seed=3, tasks=4, providers=("kie", "replicate"))
    world.keys["kie"] = "sandbox broke"
    assert world.live() == ""
    assert problems(world) == []
    assert {line.provider for line in world.bill()} == {"replicate"}
    assert kinds(world, AccountParked) == 1


def test_with_every_account_parked_the_night_ends(tmp_path: Path) -> None:
    world = World(tmp_path, seed=3, tasks=4, providers=("kie", "replicate"))
    world.keys = dict.fromkeys(world.keys, "sandbox broke")
    assert world.live() == "no_provider"
    assert phases(world) == {"queued": 4}


def test_a_key_that_is_refused_in_the_night_leaves_its_jobs_open(tmp_path: Path) -> None:
    """LIVE-4: the night ends without them, and the next one with the good key brings them home."""
    world = World(tmp_path, seed=4, tasks=4, providers=("replicate",))
    world.live(Life(drain_at_s=0.8, hard_at_s=0.9))
    world.keys["replicate"] = "sandbox wrong"
    assert world.live() == "no_provider"
    world.keys["replicate"] = KEY
    assert world.live() == ""
    assert problems(world) == []


def test_a_deadline_stops_the_buying_and_brings_home_what_is_in_flight(tmp_path: Path) -> None:
    world = World(tmp_path, seed=5, tasks=60, providers=("kie",))
    assert world.live(Life(deadline_s=3.0)) == "deadline"
    assert problems(world, complete=False) == []
    assert set(phases(world)) == {"queued", "succeeded"}


def test_a_signal_before_the_start_buys_nothing(tmp_path: Path) -> None:
    """LIVE-5."""
    world = World(tmp_path, seed=6)
    assert world.live(Life(drain_at_s=0.0)) == "interrupted"
    assert world.bill() == []
