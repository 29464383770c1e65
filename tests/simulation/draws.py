"""Draws a schedule: every class of evidence, every weather, every way to die, and the corners that a plain night never
meets.  There is one idea of a drawn night, for a seed and for hypothesis alike: both are a source of choices.

    python -m tests.simulation.draws 300             the nights of the first 300 seeds, until one breaks a promise
    python -m tests.simulation.draws --seed 4711     the night of one seed
"""

import argparse
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from adapters.base import Cancels
from adapters.batchfile import BatchFiles
from adapters.registry import codec
from runtime.faults import CANCEL_POINTS, POINTS
from runtime.simulated import Fault
from tests.simulation.life import Life
from tests.simulation.schedules import NO_CAP, Schedule, counted
from tests.simulation.tally import Tally
from tests.simulation.weather import WEATHERS

T = TypeVar("T")

# Lookup, listings by input, by marker and by file, callbacks, absence alone, and nothing at all; what recovery can be
# wrong about stands here more than once.
PROVIDERS = (
    *("replicate", "segmind", "toapis", "kie", "google-batch", "wavespeed", "apipass"),
    *("together", "google", "newportai", "apertis", "byteplus"),
    *("replicate", "replicate", "segmind", "toapis", "google-batch", "kie", "together"),
)
_CANCELLED = frozenset(name for name in PROVIDERS if isinstance(codec(name), Cancels | BatchFiles))
_HARD_TO_MEET = ("request_sent", "reply_read", "reply_read", "reply_spooled", "reply_spooled")
_FAULTS: tuple[Fault, ...] = ("full", "failed")


class Choices(Protocol):
    """Where a schedule comes from.  What stands first, and what is small, is simple: hypothesis shrinks to it."""

    def pick(self, options: Sequence[T]) -> T: ...

    def whole(self, least: int, most: int) -> int: ...

    def real(self, least: float, most: float) -> float: ...


class Seeded:
    """The choices of a seed, the same everywhere and always."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def whole(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def real(self, least: float, most: float) -> float:
        return round(self._random.uniform(least, most), 3)


def drawn(seed: int) -> Schedule:
    """The schedule of a seed: five tasks or more on three providers, and at least one death."""
    return night(Seeded(seed), seed)


def night(draw: Choices, seed: int, *, tasks: int = 5, lives: int = 1) -> Schedule:
    """Draw one night with so many tasks and so many bad ends, or more."""
    providers: list[str] = []
    while len(providers) < 3:
        providers.append(draw.pick([name for name in PROVIDERS if name not in providers]))
    rekeyed = _sometimes(draw, 20)
    batches = draw.pick((1, 1, 1, 1, 1, 2))
    ends = [_death(draw, providers)] if lives else []
    for _ in range(draw.whole(0, 2)):
        ends.append(_life(draw, providers))
    if rekeyed:  # after the first death, somebody puts another account's key in
        ends.insert(1, msgspec.structs.replace(_life(draw, providers), new_keys=True))
    schedule = Schedule(
        seed=seed,
        weather=draw.pick(tuple(WEATHERS)),
        lives=tuple(msgspec.structs.replace(life, batch=draw.whole(1, batches)) for life in ends),
        tasks=draw.whole(tasks, max(tasks, 8 if batches == 1 else 5)),
        providers=tuple(providers),
        # The cheapest account with room gets a task: where there is little room, several are bought from.
        widths=tuple(draw.pick((None, 1, 1, 2, 3)) if name != "google-batch" else None for name in providers),
        same_prompts=_sometimes(draw, 10),
        files=_sometimes(draw, 6),
        webhooks=draw.pick((False, True)),
        batches=batches,
        followers=draw.pick((0, 0, 0, 2)),
        budget_microusd=draw.pick((None, None, None, None, 300_000)),
        account_budget_microusd=draw.pick((None,) * 9 + (150_000,)),
        max_at_risk_microusd=draw.pick((NO_CAP, NO_CAP, NO_CAP, NO_CAP, 200_000)),
        max_duplicate_microusd=draw.pick((None, None, None, None, 0, 200_000)),
        trust=draw.pick((None, None, None, "documented")),
        orders=draw.pick(((), (), (), (), (), ("buy_again",), ("give_up",), ("buy_again", "give_up"))),
        again=_sometimes(draw, 8),
    )
    if _sometimes(draw, 20) and len(schedule.lives) > 1:
        *before, last = schedule.lives
        schedule = msgspec.structs.replace(schedule, lives=(*before, msgspec.structs.replace(last, rotated=True)))
    return schedule


def _sometimes(draw: Choices, every: int) -> bool:
    return draw.pick((False,) * (every - 1) + (True,))


def _death(draw: Choices, providers: Sequence[str]) -> Life:
    """A process that dies: at any fault point, at one of a window, at an effect on the disk, or while it cancels."""
    power = draw.pick((None, False, True))
    match draw.pick((*("early", "anywhere", "window", "write", "window") * 2, "cancel")):
        case "early":
            return Life(crash_at=draw.whole(0, 15), power=power)
        case "window":
            return Life(crash_at=draw.whole(0, 3), point=draw.pick(_points(providers)), power=power)
        case "write":
            return Life(cut_at=draw.whole(0, 30), torn=draw.pick((False, True)), power=power)
        case "cancel" if not _CANCELLED.isdisjoint(providers):
            point = draw.pick(CANCEL_POINTS)
            return Life(cancel_at_s=draw.real(0.2, 1.8), crash_at=draw.whole(0, 1), point=point, power=power)
        case _:
            return Life(crash_at=draw.whole(0, 80), power=power)


def _points(providers: Sequence[str]) -> Sequence[str]:
    """The fault points that a run over these providers gets to; more than once where little else leads to a window."""
    shapes = {codec(name).capabilities.shape.value for name in providers}
    never = (
        {"reply_spooled"} if shapes == {"async"} else {"result_seen", "ready_recorded"} if shapes == {"sync"} else {}
    )
    return [point for point in (*POINTS, *_HARD_TO_MEET) if point not in never]


def _life(draw: Choices, providers: Sequence[str]) -> Life:
    """Any process: most die, others fail, are stopped or told to cancel, and may die of something else before."""
    ends: tuple[Callable[[], Life], ...] = (
        lambda: _death(draw, providers),
        lambda: _death(draw, providers),
        lambda: _death(draw, providers),
        lambda: Life(disk=(draw.whole(0, 40), draw.pick(_FAULTS))),
        lambda: Life(ledger=(draw.whole(0, 30), draw.pick(_FAULTS))),
        lambda: Life(drain_at_s=draw.real(0, 6)),
        lambda: Life(drain_at_s=draw.real(0, 4), hard_at_s=draw.real(4, 8)),
        lambda: Life(drain_at_s=draw.real(0, 4), crash_at=draw.whole(0, 60)),
        lambda: Life(deadline_s=draw.real(0, 8)),
        lambda: Life(cancel_at_s=draw.real(0, 6)),
        lambda: Life(cancel_at_s=draw.real(0, 3), crash_at=draw.whole(0, 60)),
    )
    return draw.pick(ends)()


def replay(seed: int) -> str:
    """The command that plays a seed's night again."""
    return f"python -m tests.simulation.draws --seed {seed}"


def played(seeds: range) -> Tally:
    """Play the nights of these seeds; a broken promise is an AssertionError that says how to see it again."""
    total = Tally()
    for seed in seeds:
        try:
            total.add(counted(drawn(seed)))
        except BaseException as exc:
            exc.add_note(f"schedule {seed - seeds.start + 1} of {len(seeds)}; replay: {replay(seed)}")
            raise
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING if args.count == 1 else logging.CRITICAL)
    started = time.perf_counter()
    total = Tally()
    for seed in range(args.seed, args.seed + args.count):
        try:
            total.add(played(range(seed, seed + 1)))
        except BaseException:
            took_s = time.perf_counter() - started
            print(f"schedule {seed - args.seed + 1} of {args.count} after {took_s:.1f} s", flush=True)
            raise
    print(total.text())
    print(f"nothing is wrong with {args.count} schedules, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
