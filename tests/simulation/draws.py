"""Schedules drawn from a seed: every weather, every way to die, and the corners that a plain night never meets.

    python -m tests.simulation.draws 300

plays the first 300 and stops at the first that breaks a promise.
"""

import logging
import random
import sys
import time
from collections.abc import Callable

from tests.simulation.schedules import WEATHERS, Schedule, judged
from tests.simulation.world import Life

# Each class of evidence alone and mixed: callback, listing by input, listing by a marker, lookup, nothing at all.
PROVIDERS = (
    ("kie", "replicate", "segmind"),
    ("together", "toapis"),
    ("kie", "together"),
    ("replicate",),
    ("replicate",),
    ("segmind",),
    ("kie",),
    ("together",),
)


def drawn(seed: int) -> Schedule:
    """The schedule of a seed, the same everywhere and always."""
    draws = random.Random(seed)
    lives = tuple(_life(draws) for _ in range(draws.randint(1, 3)))
    rekeyed = draws.random() < 0.05
    if rekeyed:  # somebody puts another account's key in, after the first death
        lives = (*lives[:1], Life(new_keys=True, crash_at=draws.randrange(90)), *lives[1:])
    return Schedule(
        seed=seed,
        weather="fair" if rekeyed else draws.choice(sorted(WEATHERS)),  # what the old keys bought is long asked for
        lives=lives,
        tasks=draws.randint(5, 8),
        providers=("replicate",) if rekeyed else draws.choice(PROVIDERS),
        same_prompts=draws.random() < 0.1,
        webhooks=draws.random() < 0.4,
        followers=draws.choice([0, 0, 2]),
        budget_microusd=draws.choice([None, None, 300_000]),
    )


def _life(draws: random.Random) -> Life:
    kinds: list[Callable[[], Life]] = [
        lambda: Life(crash_at=draws.choice([draws.randrange(15), draws.randrange(110)])),
        lambda: Life(crash_at=draws.randrange(110)),
        lambda: Life(cut_at=draws.randrange(60), power=draws.random() < 0.7),
        lambda: Life(drain_at_s=draws.uniform(0, 4), hard_at_s=draws.uniform(4, 8)),
    ]
    return draws.choices(kinds, weights=[3, 3, 2, 1])[0]()


def main(count: int) -> None:
    started = time.perf_counter()
    for seed in range(count):
        try:
            judged(drawn(seed))
        except BaseException:
            print(f"schedule {seed + 1} of {count} after {time.perf_counter() - started:.1f} s", flush=True)
            raise
    print(f"nothing is wrong with {count} schedules, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    logging.disable()
    main(int(sys.argv[1]))
