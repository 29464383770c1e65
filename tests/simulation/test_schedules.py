"""Any night under any weather with any deaths keeps the promises; whatever fails prints the line that replays it.

MON-1, MON-2, MON-3, MON-7, MON-8, MON-10, RES-1, RES-2, RES-5, REC-3, REC-4, REC-5, REC-8, LIVE-1, LIVE-2, LED-3.
"""

import random
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.faults import POINTS
from tests.simulation.schedules import WEATHERS, Schedule, judged
from tests.simulation.world import Life

_CRASHES = st.builds(Life, crash_at=st.integers(0, 110))
# One of each class of evidence: callback or nothing, listing, listing by a marker, nothing at all, lookup.
PROVIDERS = [
    ("kie", "replicate", "segmind"),
    ("together", "toapis"),
    *((provider,) for provider in ("kie", "replicate", "segmind", "together", "toapis")),
]
_FAULTS = st.sampled_from(["full", "failed"])
_LIVES = st.one_of(
    _CRASHES,
    _CRASHES,
    st.builds(Life, disk=st.tuples(st.integers(0, 40), _FAULTS)),
    st.builds(Life, ledger=st.tuples(st.integers(0, 30), _FAULTS)),
    st.builds(Life, drain_at_s=st.floats(0, 8)),
    st.builds(Life, drain_at_s=st.floats(0, 4), hard_at_s=st.floats(4, 8)),
    st.builds(Life, drain_at_s=st.floats(0, 4), crash_at=st.integers(0, 60)),
    st.builds(Life, deadline_s=st.floats(0, 8)),
)
SCHEDULES = st.builds(
    Schedule,
    seed=st.integers(0, 2**32),
    weather=st.sampled_from(sorted(WEATHERS)),
    lives=st.lists(_LIVES, max_size=4).map(tuple),
    tasks=st.integers(1, 8),
    same_prompts=st.booleans(),
    webhooks=st.booleans(),
    followers=st.sampled_from([0, 0, 0, 2]),
    batches=st.sampled_from([1, 1, 1, 2]),
    providers=st.sampled_from(PROVIDERS),
    budget_microusd=st.sampled_from([None, None, 300_000]),
    max_at_risk_microusd=st.sampled_from([100_000_000, 100_000_000, 200_000]),
    max_duplicate_microusd=st.sampled_from([None, None, 0, 200_000]),
    orders=st.lists(st.sampled_from(["buy_again", "give_up"]), max_size=2).map(tuple),
)
_UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=_UNHURRIED)
@given(schedule=SCHEDULES)
def test_any_schedule_keeps_the_promises(schedule: Schedule) -> None:
    judged(schedule)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=_UNHURRIED)
@given(schedule=SCHEDULES)
def test_any_of_many_schedules_keeps_the_promises(schedule: Schedule) -> None:
    judged(schedule)


def _drawn(seed: int) -> Schedule:
    """A rough night that dies two to four times, also early in recovery."""
    draws = random.Random(seed)
    lives = [
        Life(crash_at=draws.choice([draws.randrange(12), draws.randrange(110)])) for _ in range(draws.randint(2, 4))
    ]
    weather = draws.choice(["fair", "rough", "slow", "dark", "jumpy"])
    providers = draws.choice([*PROVIDERS[:2], ("kie", "together")])
    webhooks = draws.random() < 0.5
    return Schedule(
        seed=seed,
        weather=weather,
        lives=tuple(lives),
        tasks=draws.randint(3, 6),
        providers=providers,
        webhooks=webhooks,
    )


@pytest.mark.slow
def test_every_window_is_died_in_a_hundred_times(capsys: pytest.CaptureFixture[str]) -> None:
    """The long run: a run that did not hit each window often enough proves nothing about it.

    W1, W2, W3, W4, W5, W6, W7, W8, W9, W10, W11, W13, W14.
    """
    crashed, started, seeds = Counter[str](), time.perf_counter(), 0
    while seeds < 1500 or min(crashed[point] for point in POINTS) < 100:
        crashed += judged(_drawn(seeds)).crashed
        seeds += 1
        assert seeds < 10_000, f"some window is hardly ever reached: {crashed}"
    with capsys.disabled():
        rate = seeds / (time.perf_counter() - started)
        print(f"\n{seeds} schedules, {rate:.0f} a second; deaths: {dict(crashed)}")
