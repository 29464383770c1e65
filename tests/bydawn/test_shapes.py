"""Which part of a batch a plan is about."""

import msgspec
import pytest

from bydawn.shapes import part_of, share_of, wanted_tasks
from ledger.folds import EMPTY_BATCH, BatchSettings, BatchState
from runtime.planning import Group

GROUPS = [
    Group("nano-banana-2", "1:1", "1K", False, ("kie",), 900),
    Group("nano-banana-2", "9:16", "1K", False, ("kie",), 100),
]


def batch(*, tasks: int = 0, limit: int | None = None, sample: int | None = None, ppm: int | None = None) -> BatchState:
    settings = BatchSettings(limit=limit, sample=sample, sample_ppm=ppm)
    return msgspec.structs.replace(EMPTY_BATCH, sealed_through=tasks, settings=settings)


def counts(groups: list[Group]) -> list[int]:
    return [group.count for group in groups]


def test_without_a_bound_everything_is_planned_and_nothing_said() -> None:
    assert part_of(GROUPS, batch()) == (GROUPS, ())


@pytest.mark.parametrize(
    ("bound", "option"), [({"limit": 50}, "--limit"), ({"sample": 50}, "--sample"), ({"ppm": 49_500}, "--sample")]
)
def test_a_bound_leaves_its_share_of_each_shape(bound: dict[str, int], option: str) -> None:
    groups, said = part_of(GROUPS, batch(**bound))
    assert counts(groups) == [45, 5]
    assert said == (f"{option}: 50 tasks of 1,000",)


def test_what_is_settled_counts_against_the_bound() -> None:
    """A run with ``--limit 50`` settles fifty in all, not fifty more."""
    assert sum(counts(part_of(GROUPS, batch(limit=50), settled=30)[0])) == 20
    assert sum(counts(part_of(GROUPS, batch(limit=50), settled=80)[0])) == 0


def test_a_bound_beyond_the_batch_bounds_nothing() -> None:
    assert part_of(GROUPS, batch(limit=5_000), settled=30) == (GROUPS, ())


def test_the_smaller_of_two_bounds_holds() -> None:
    assert wanted_tasks(batch(tasks=1_000, limit=70, sample=20)) == 20
    assert wanted_tasks(batch(tasks=10, limit=70)) == 10


@pytest.mark.parametrize(
    ("tasks", "ppm", "wanted"),
    [(30, 100_000, 3), (31, 100_000, 4), (30, 1, 1), (30, 1_000_000, 30), (1_000_000, 5_000, 5_000), (0, 5_000, 0)],
)
def test_a_share_is_rounded_up(tasks: int, ppm: int, wanted: int) -> None:
    assert wanted_tasks(batch(tasks=tasks, ppm=ppm)) == wanted


@pytest.mark.parametrize("wanted", [0, 1, 7, 333, 1_000, 2_000])
def test_shares_add_up_to_what_is_wanted(wanted: int) -> None:
    assert sum(counts(share_of(GROUPS, wanted))) == min(wanted, 1_000)
