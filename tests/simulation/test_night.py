"""Whole nights with crashes at every fault point, judged by the providers' own bill."""

import random
from collections import Counter
from pathlib import Path

import pytest

from adapters.sandbox.faults import ChaosProfile
from ledger.reader import Reader
from runtime.faults import POINTS
from tests.simulation.checker import problems
from tests.simulation.world import Weather, World

ROUGH = Weather(
    chaos=ChaosProfile(throttle=0.05, error_before=0.03, error_after=0.03, reset_after=0.03, fail_job=0.05),
    refused=0.03,
    lost_request=0.01,
    lost_reply=0.03,
)


def settle(world: World, crashes: list[int]) -> None:
    """Live until the night ends by itself, dying at the given numbers of fault points."""
    for crash_at in crashes:
        if world.live(crash_at=crash_at) is not None:
            return
    assert world.live() == ""


def test_a_quiet_night_buys_every_image_once(tmp_path: Path) -> None:
    world = World(tmp_path, seed=1, tasks=12)
    assert world.live() == ""
    assert problems(world) == []
    assert len(world.bill()) == 12
    assert all(line.state == "succeeded" for line in world.bill())


@pytest.mark.parametrize("crash_at", range(0, 66, 3))
def test_a_crash_at_any_fault_point_costs_nothing_but_time(tmp_path: Path, crash_at: int) -> None:
    """MON-1, MON-2, MON-7, REC-4, REC-5, RES-1, RES-2, LIVE-1: five tasks, three providers, one death."""
    world = World(tmp_path, seed=crash_at)
    settle(world, [crash_at])
    assert problems(world) == [], f"replay: World(tmp_path, seed={crash_at}), settle(world, [{crash_at}])"


@pytest.mark.parametrize("seed", range(12))
def test_rough_nights_with_several_deaths(tmp_path: Path, seed: int) -> None:
    """The same under throttling, 5xx before and after acceptance, resets, lost requests and replies."""
    draws = random.Random(seed)
    crashes = [draws.randrange(60) for _ in range(3)]
    world = World(tmp_path, seed=seed, weather=ROUGH)
    settle(world, crashes)
    assert problems(world) == [], f"replay: World(tmp_path, seed={seed}, weather=ROUGH), settle(world, {crashes})"


@pytest.mark.parametrize("seed", range(4))
def test_equal_inputs_are_adopted_one_by_one(tmp_path: Path, seed: int) -> None:
    """REC-5: five tasks that want the same picture are five jobs, whichever dies when."""
    world = World(tmp_path, seed=seed, same_prompts=True, providers=("replicate", "segmind"))
    settle(world, [7 + 5 * seed, 3])
    assert problems(world) == []
    assert len(world.bill()) == 5


def test_the_same_seed_is_the_same_night(tmp_path: Path) -> None:
    """REC-1 and the simulator itself: two runs of one seed end with the same chain head."""
    heads = []
    for turn in ("first", "second"):
        folder = tmp_path / turn
        folder.mkdir()
        world = World(folder, seed=77, weather=ROUGH)
        settle(world, [11, 23])
        with Reader(world.path) as reader:
            heads.append(reader.head())
    assert heads[0] == heads[1]


def test_every_window_is_reached(tmp_path: Path) -> None:
    hits: Counter[str] = Counter()
    world = World(tmp_path, seed=5, weather=ROUGH, tasks=20)
    settle(world, [])
    hits.update(world.hits)
    assert set(POINTS) <= set(hits)
