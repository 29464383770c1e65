"""Nights with two names for one account at a provider: a list of either shows the jobs of both (REC-5)."""

import random

import pytest

from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged
from tests.simulation.weather import WEATHERS

PROVIDERS = ("replicate", "segmind", "toapis", "wavespeed", "kie", "google-batch")


def night(provider: str, seed: int) -> Schedule:
    """Tasks that all want the same, so that their purchases could be taken for each other."""
    draw = random.Random(f"{provider} {seed}")
    return Schedule(
        seed=seed,
        weather=draw.choice(tuple(WEATHERS)),
        lives=tuple(Life(crash_at=draw.randint(5, 60)) for _ in range(draw.randint(1, 3))),
        tasks=8,
        providers=(provider,),
        widths=(draw.choice((1, 2, 3)),) if provider != "google-batch" else (),
        same_prompts=True,
        webhooks=draw.random() < 0.3,
        accounts_each=2,
    )


# What was bought twice or lost before both names knew of each other's jobs and open submits.
FOUND = (
    Schedule(7, "slow", (Life(crash_at=30),), 8, ("replicate",), (3,), True, webhooks=True, accounts_each=2),
    Schedule(15, "rough", (Life(crash_at=38),), 8, ("replicate",), (3,), True, webhooks=True, accounts_each=2),
    Schedule(119, "slow", (Life(crash_at=52),), 8, ("replicate",), (3,), True, accounts_each=2),
    Schedule(131, "slow", (Life(crash_at=54), Life(crash_at=37)), 8, ("replicate",), (1,), True, accounts_each=2),
)


@pytest.mark.parametrize("schedule", FOUND, ids=lambda schedule: str(schedule.seed))
def test_one_job_is_not_bound_for_both_names_of_an_account(schedule: Schedule) -> None:
    """REC-5, MON-7: a job that the list of one showed was taken while the other's submit had no answer yet."""
    judged(schedule)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_names_for_one_account_keep_every_promise(provider: str) -> None:
    """MON-2, MON-7, REC-4, REC-5."""
    for seed in range(3):
        judged(night(provider, seed))


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_many_nights_with_two_names_for_one_account(provider: str) -> None:
    """MON-2, MON-7, REC-4, REC-5."""
    for seed in range(100):
        judged(night(provider, seed))
