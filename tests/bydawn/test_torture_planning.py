"""The plan of a torture: the same for a seed, every point once, and a fresh task for every kill."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.registry import PROVIDERS, codec
from bydawn.torture.planning import AT_RANDOM, MIXED, MOMENTS, Recovery, Round, Shape, Target, plan, rounds_of
from runtime.faults import POINTS

KIE = Target("kie", "async", "callback")
GOOGLE = Target("google", "sync", "none")
FILES = Target("google-batch", "batch-file", "listing", usual=False)
ALL = (KIE, GOOGLE, FILES)


def planned(
    targets: tuple[Target, ...] = ALL, *, kills: int | None = None, tasks: int = 200, have: int = 500, seed: int = 0
) -> dict[str, Round]:
    rounds = rounds_of(targets)
    return {each.name: each for each in plan(rounds, dict.fromkeys(rounds, have), tasks=tasks, kills=kills, seed=seed)}


def test_each_provider_has_a_round_and_those_that_join_by_themselves_one_together() -> None:
    rounds = rounds_of(ALL)
    assert list(rounds) == ["kie", "google", "google-batch", MIXED]
    assert rounds[MIXED] == (KIE, GOOGLE)
    assert list(rounds_of((KIE, FILES))) == ["kie", "google-batch"]


def test_a_provider_may_be_called_like_anything() -> None:
    named = Target("mixed", "sync", "none")
    assert rounds_of((named, KIE))["mixed"] == (named,)


def test_by_default_every_point_that_is_passed_is_met_once_and_ten_moments_are_by_chance() -> None:
    rounds = planned()
    for target in ALL:
        assert Counter(kill.at for kill in rounds[target.provider].kills) == Counter(target.points)
    assert [kill.by_chance for kill in rounds[MIXED].kills] == [True] * AT_RANDOM


def test_together_the_shapes_pass_every_point_but_those_of_a_cancel() -> None:
    passed = {point for target in ALL for point in target.points}
    assert {point for point in POINTS if point not in passed} == {point for point in POINTS if "cancel" in point}
    assert set(KIE.points) | set(GOOGLE.points) == passed


def test_a_single_provider_meets_chance_in_its_own_round() -> None:
    (only,) = planned((KIE,)).values()
    assert sum(kill.by_chance for kill in only.kills) == AT_RANDOM


def test_chance_takes_turns() -> None:
    (served,) = planned((KIE,)).values()
    assert Counter(kill.at for kill in served.kills if kill.by_chance) == dict(zip(MOMENTS, (3, 3, 2, 2), strict=True))
    (alone,) = planned((GOOGLE,)).values()  # it calls nobody, so nobody serves
    assert Counter(kill.at for kill in alone.kills if kill.by_chance) == {"random": 4, "recovery": 3, "drain": 3}


@pytest.mark.parametrize("seed", range(20))
def test_there_is_something_to_recover_from(seed: int) -> None:
    (only,) = planned((KIE,), kills=15, tasks=15, seed=seed).values()
    assert only.kills[0].at != "recovery"


@pytest.mark.parametrize("kills", [1, 2, 7, 33, 60, 200])
def test_as_many_kills_as_were_asked_for(kills: int) -> None:
    rounds = planned(kills=kills, tasks=2000)
    assert sum(len(each.kills) for each in rounds.values()) == kills
    # In turns: no provider waits for another to have met all of its points.
    some = [len(rounds[target.provider].kills) for target in ALL if target.provider in rounds]
    assert len(some) == min(kills, len(ALL))


@pytest.mark.parametrize("tasks", [200, 1000, 1999])
def test_as_many_tasks_as_were_asked_for(tasks: int) -> None:
    assert sum(each.tasks for each in planned(tasks=tasks, kills=57, have=5000).values()) == tasks


def test_the_seed_decides() -> None:
    assert planned(seed=7) == planned(seed=7)
    assert planned(seed=7) != planned(seed=8)


def test_where_a_file_is_one_purchase_its_points_are_passed_once() -> None:
    kills = planned(tasks=2000)["google-batch"].kills
    assert all(kill.nth == 1 for kill in kills if kill.at in ("request_sent", "reply_read", "result_seen"))
    assert any(kill.nth > 1 for kill in kills)


def test_a_short_input_bounds_the_kills() -> None:
    rounds = planned(have=4)
    assert all(len(each.kills) == 4 == each.tasks for each in rounds.values())


@settings(deadline=None)
@given(
    kills=st.integers(1, 120),
    tasks=st.integers(1, 3000),
    have=st.integers(0, 300),
    seed=st.integers(0, 2**32),
    shapes=st.lists(st.sampled_from(("async", "sync", "batch-file")), min_size=1, max_size=5),
    recovery=st.sampled_from(("lookup", "listing", "absence", "callback", "none")),
)
def test_every_kill_has_a_fresh_task_to_happen_at(
    kills: int, tasks: int, have: int, seed: int, shapes: list[Shape], recovery: Recovery
) -> None:
    targets = tuple(Target(f"p{n}", shape, recovery) for n, shape in enumerate(shapes))
    for each in planned(targets, kills=kills, tasks=tasks, have=have, seed=seed).values():
        limits = [0, *(kill.limit for kill in each.kills)]
        fresh = [after - before for before, after in pairwise(limits)]
        assert min(fresh) >= 1
        assert limits[-1] == each.tasks <= have
        for kill, new in zip(each.kills, fresh, strict=True):
            assert 1 <= kill.nth <= max(new, 2) + (len(each.targets) if kill.by_chance else 0)
            assert kill.by_chance or (kill.at in each.targets[0].points and kill.nth <= new)


def test_every_provider_of_ours_has_a_shape_and_a_class() -> None:
    for name in PROVIDERS:
        record = codec(name).capabilities
        assert Target(name, record.shape.value, record.recovery).points
