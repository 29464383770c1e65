"""A schedule: everything that decides how a simulated night goes, in one line that replays it.

python -m tests.simulation.schedules '{"seed":7,...}'
"""

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from adapters.sandbox.faults import ChaosProfile
from ledger.events import Decided
from runtime.router import StopReason
from tests.simulation.checker import missing_at_the_cut, problems, too_many_duplicates, torn
from tests.simulation.world import FAIR, Life, Weather, World

ROUGH = Weather(
    chaos=ChaosProfile(
        throttle=0.05,
        error_before=0.03,
        error_after=0.03,
        reset_after=0.03,
        fail_job=0.05,
        hook_lost=0.2,
        hook_twice=0.2,
    ),
    refused=0.03,
    lost_request=0.01,
    lost_reply=0.03,
)
SLOW = Weather(
    chaos=ChaosProfile(slow_reply=0.3, slow_s=40.0, cut_reply=0.05, hook_late=0.5), late=0.05, listing_lag_s=4.0
)
DARK = Weather(
    chaos=ChaosProfile(
        fail_job=0.2, truncated=0.1, wrong_bytes=0.1, blank=0.1, policy_job=0.05, hook_forged=0.5, hook_late=0.2
    ),
    lost_reply=0.15,
    late=0.1,
    listings_fail_s=45.0,
)
JUMPY = Weather(chaos=ROUGH.chaos, lost_reply=0.1, late=0.05, jumps=720.0)
WEATHERS = {"fair": FAIR, "rough": ROUGH, "slow": SLOW, "dark": DARK, "jumpy": JUMPY}


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """``lives`` are those that end badly; after them the world lives until everything is settled.

    ``orders``: what the operator decides about held tasks then; failed ones are wanted again.
    """

    seed: int
    weather: str = "fair"
    lives: tuple[Life, ...] = ()
    tasks: int = 5
    providers: tuple[str, ...] = ("kie", "replicate", "segmind")
    same_prompts: bool = False
    webhooks: bool = False
    batches: int = 1
    followers: int = 0
    budget_microusd: int | None = None
    max_at_risk_microusd: int = 100_000_000
    max_duplicate_microusd: int | None = None
    orders: tuple[Decided, ...] = ()


def play(schedule: Schedule, root: Path) -> tuple[World, list[str]]:
    """Live it through; return the world and what went wrong in it."""
    world = World(
        root,
        schedule.seed,
        tasks=schedule.tasks,
        providers=schedule.providers,
        weather=WEATHERS[schedule.weather],
        same_prompts=schedule.same_prompts,
        webhooks=schedule.webhooks,
        batches=schedule.batches,
        followers=schedule.followers,
        budget_microusd=schedule.budget_microusd,
        max_at_risk_microusd=schedule.max_at_risk_microusd,
        max_duplicate_microusd=schedule.max_duplicate_microusd,
    )
    for life in schedule.lives:
        world.live(life)
        world.broken += [*missing_at_the_cut(world), *torn(world)]
    stopped = _settle(world)
    for decision in schedule.orders:
        for batch in range(1, world.batches + 1):
            world.resolve(decision, batch)
            world.retry(batch)
        stopped = _settle(world)
    found = problems(world, complete=not any(stopped))
    if schedule.max_duplicate_microusd is not None and not schedule.orders:  # an operator may allow more
        found += too_many_duplicates(world, schedule.max_duplicate_microusd)
    capped = schedule.budget_microusd is not None or schedule.max_at_risk_microusd < 100_000_000
    allowed: set[StopReason | None] = {"", "budget", "at_risk"} if capped else {""}
    if world.rekeyed:
        allowed.add("no_provider")  # what the old keys bought stays open
    found += [f"a night was stopped by {reason!r}" for reason in stopped if reason not in allowed]
    return world, found


def _settle(world: World) -> list[StopReason | None]:
    return [world.live(Life(batch=batch)) for batch in range(1, world.batches + 1)]


def line(schedule: Schedule) -> str:
    """The command that replays it."""
    return f"python -m tests.simulation.schedules '{msgspec.json.encode(schedule).decode()}'"


def judged(schedule: Schedule) -> World:
    """Play it in a folder of its own; a broken promise is an AssertionError that says how to see it again."""
    with _folder() as root:
        try:
            world, found = play(schedule, root)
        except Exception as exc:
            exc.add_note(f"replay: {line(schedule)}")
            raise
    assert not found, "\n".join([*found, f"replay: {line(schedule)}"])
    return world


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory where that is possible: what a power cut leaves is simulated, so the real disk would only be slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    judged(msgspec.json.decode(sys.argv[1], type=Schedule))
    print("nothing is wrong with it")
