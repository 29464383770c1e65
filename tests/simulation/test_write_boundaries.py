"""A small night dies, or its disk fails, at every write there is: of images, of the spool, of the ledger.

RES-1, RES-2, RES-5, LED-4, LED-7: a first night, to which nothing happens, counts its effects on the disk, its commits
and its fault points.  Then there is one night per number and per way to end.  At the very cut, what the ledger calls
stored is on the disk; and the next life finishes the night with nothing bought twice
(:mod:`tests.simulation.checker`).
"""

from collections.abc import Iterator
from itertools import product

import msgspec
import pytest

from runtime.simulated import Fault
from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged

# One provider that is asked for the result, and one whose answer is the image and goes through the spool.
NIGHT = Schedule(seed=1, tasks=3, providers=("segmind", "together"))
OTHERS = (
    Schedule(seed=2, tasks=4, providers=("replicate", "toapis"), weather="rough"),
    Schedule(seed=3, tasks=3, providers=("kie", "apertis"), webhooks=True),
    Schedule(seed=4, tasks=3, providers=("google-batch",)),
)
FAULTS: tuple[Fault, ...] = ("full", "failed")


def ends(night: Schedule) -> Iterator[tuple[str, Life]]:
    """Every way to end this night at a write, with a name for its kind."""
    world = judged(night)
    for at, torn, power in product(range(world.effects), (False, True), (False, True)):
        yield (
            f"{'power cut' if power else 'kill'} {'in' if torn else 'before'} an effect",
            Life(cut_at=at, torn=torn, power=power),
        )
    for at, fault in product(range(world.effects), FAULTS):
        yield f"effect: {fault}", Life(disk=(at, fault))
    for at, fault in product(range(world.commits), FAULTS):
        yield f"commit: {fault}", Life(ledger=(at, fault))
    for at, power in product(range(sum(world.hits.values())), (False, True)):
        yield f"{'power cut' if power else 'kill'} at a point", Life(crash_at=at, power=power)


def die(night: Schedule, life: Life) -> None:
    world = judged(msgspec.structs.replace(night, lives=(life,)))
    if life.disk is None and life.ledger is None:
        assert sum(world.crashed.values()) == 1, "the night went another way than when it was counted"


def test_a_night_that_ends_at_a_write_goes_on_with_nothing_lost() -> None:
    """RES-1, RES-2, RES-5, LED-4, LED-7: every third of them, so each way at every third write."""
    thinned = list(ends(NIGHT))[::3]
    assert len({kind for kind, _ in thinned}) == 10
    for _, life in thinned:
        die(NIGHT, life)


@pytest.mark.slow
@pytest.mark.parametrize("night", [NIGHT, *OTHERS], ids=lambda night: "+".join(night.providers))
def test_a_night_may_end_at_every_write(night: Schedule, capsys: pytest.CaptureFixture[str]) -> None:
    """RES-1, RES-2, RES-5, LED-4, LED-7: all of them, and the number of them."""
    counted: dict[str, int] = {}
    for kind, life in ends(night):
        die(night, life)
        counted[kind] = counted.get(kind, 0) + 1
    with capsys.disabled():
        print(f"\n{'+'.join(night.providers)}: {sum(counted.values())} nights cut short: {counted}")
