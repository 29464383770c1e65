"""Nights between which, and in which, people change their minds: caps, policies, providers, and orders about tasks.

What the schedules of seeds never play.  Each seed here is a few lives, each with settings of its own; messages are left
in the inbox while it runs.  In the end all caps are lifted, and the books must agree.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import trio

from ledger.events import Decided
from ledger.reader import Reader
from runtime.inbox import Control, ResolveTasks, RetryTasks, inbox_of, leave
from runtime.night import Night
from runtime.router import StopReason
from tests.simulation.checker import problems
from tests.simulation.draws import PROVIDERS
from tests.simulation.life import Life
from tests.simulation.weather import WEATHERS, Weather
from tests.simulation.world import World

_DECISIONS: tuple[Decided, ...] = ("buy_again", "give_up")


class Told(World):
    """A world whose people leave messages in the middle of a life, each after so many seconds."""

    messages: Sequence[tuple[float, Control]] = ()

    def queued(self) -> list[int]:
        """Tasks that could be bought and were not."""
        with Reader(self.path) as reader:
            return [task.n for task in reader.queued(1)]

    async def _signals(self, night: Night, life: Life) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super()._signals, night, life)
            for place, (at_s, message) in enumerate(self.messages):
                nursery.start_soon(self._leave, at_s, message, place)

    async def _leave(self, at_s: float, message: Control, place: int) -> None:
        await trio.sleep(at_s)
        assert self.inbox is not None
        leave(self.inbox, message, name=f"{self.epoch:04}-{place}")
        self.seen["messages"] += 1


class Crossing(Told):
    """One whose settings change between lives as well."""

    def __init__(self, root: Path, seed: int) -> None:
        self.draw = draw = random.Random(f"crossing {seed}")
        providers: list[str] = []
        while len(providers) < 3:
            providers.append(draw.choice([name for name in PROVIDERS if name not in providers]))
        super().__init__(
            root,
            seed,
            tasks=draw.randint(5, 8),
            providers=providers,
            widths=[None if name == "google-batch" else draw.choice((None, 1, 2)) for name in providers],
            weather=WEATHERS[draw.choice(tuple(WEATHERS))],
            followers=draw.choice((0, 0, 2)),
            same_prompts=draw.random() < 0.2,
            webhooks=draw.random() < 0.6,
            accounts_each=draw.choice((1, 1, 2)),
        )
        self.inbox = inbox_of(self.path)
        self.buying: frozenset[str] = frozenset()  # empty = all
        self.asked = False  # whether anybody wanted anything yet: messages outlive the run that they were meant for

    def change_minds(self) -> None:
        """Draw the settings of the next life, and what people will want in it."""
        draw = self.draw
        self.budget_microusd = draw.choice((None, None, 100_000, 300_000, 600_000))
        self.max_at_risk_microusd = draw.choice((100_000_000, 100_000_000, 150_000))
        self.max_duplicate_microusd = draw.choice((None, None, 0, 150_000, 500_000))
        names = [account.name for account in self._accounts()]
        self.buying = frozenset(draw.sample(names, draw.randint(1, len(names)))) if draw.random() < 0.5 else frozenset()
        self.messages = [(draw.uniform(0, 8), self._message()) for _ in range(draw.choice((0, 1, 1, 2, 3)))]
        self.asked = self.asked or bool(self.messages)

    def settle(self) -> None:
        """No caps, no messages, and all accounts again."""
        self.budget_microusd = self.max_duplicate_microusd = None
        self.max_at_risk_microusd = 100_000_000
        self.buying, self.messages = frozenset(), []

    def _message(self) -> Control:
        if self.draw.random() < 0.5:
            return RetryTasks(batch=1, operator="sim")
        return ResolveTasks(batch=1, operator="sim", decision=self.draw.choice(_DECISIONS))

    def _capped(self) -> Iterator[tuple[str, int]]:
        """A cap that is lowered below what is spent lets nothing more through."""
        with Reader(self.path) as reader:
            held = reader.money()
        for name, most in super()._capped():
            if name.startswith("duplicates/") and self.asked:
                continue  # an operator may have allowed more
            yield name, max(most, held[name].total if name in held else 0)

    async def _one_life(self, night: Night, life: Life) -> StopReason:
        if self.buying:
            night._plan = msgspec.structs.replace(night._plan, buy_from=self.buying)
        return await super()._one_life(night, life)


def lived(root: Path, seed: int) -> list[str]:
    """Live one of these nights through; returns what went wrong."""
    world = Crossing(root, seed)
    found: list[str] = []
    for _ in range(world.draw.randint(2, 4)):
        world.change_minds()
        crash = world.draw.choice((None, *range(5, 90, 5)))
        if world.live(Life(crash_at=crash)) == "":
            found += [f"task {n} is left queued, and nothing stopped the run" for n in world.queued()]
    world.settle()
    stopped = world.live()
    found += problems(world)
    return [*found, *([] if stopped == "" else [f"it ended with {stopped!r}"])]


@pytest.mark.parametrize("seed", [*range(10), 191, 244, 283])
def test_people_may_change_their_minds_between_runs_and_in_them(tmp_path: Path, seed: int) -> None:
    """MON-2, MON-4, MON-7, MON-8, LIVE-1.

    In the last three a follower was wanted again in the middle of a run, and that its purchase was refused ended it.
    """
    assert lived(tmp_path, seed) == []


@pytest.mark.parametrize("seed", range(3))
def test_what_is_decided_while_the_policy_waits_for_room_is_bought(tmp_path: Path, seed: int) -> None:
    """LIVE-1, MON-2: a person was faster than the policy, and the task stayed queued while the run said that all was
    done."""
    world = Told(tmp_path, seed, tasks=8, providers=("kie",), widths=(1,), weather=Weather(lost_reply=0.6))
    world.inbox = inbox_of(world.path)
    assert world.live() == ""
    world.max_duplicate_microusd = 50_000_000
    world.messages = [(1.0, ResolveTasks(batch=1, operator="sim", decision="buy_again"))]
    assert (world.live(), world.queued()) == ("", [])
    assert problems(world) == []


@pytest.mark.slow
def test_many_nights_of_people_who_change_their_minds(tmp_path: Path) -> None:
    """MON-2, MON-4, MON-7, MON-8, LIVE-1."""
    found: dict[int, list[str]] = {}
    for seed in range(10, 400):
        (root := tmp_path / str(seed)).mkdir()
        if wrong := lived(root, seed):
            found[seed] = wrong
    assert found == {}
