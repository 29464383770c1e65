"""When a run is killed: a plan of rounds and kills, made from a seed and nothing else.

A *round* is one batch in a ledger of its own, bought from one provider, so that what comes of it can be told per
class of evidence; the last round buys from all of them at once.  Each *kill* ends one life of the round's process,
at a fault point or at a moment of chance.  The batch grows from life to life (``--limit``): whatever earlier kills
have done to earlier tasks, there are fresh ones that go through the fault point.
"""

import itertools
import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from runtime.faults import POINTS

Shape: TypeAlias = Literal["async", "sync", "batch-file"]
Recovery: TypeAlias = Literal["lookup", "listing", "absence", "callback", "none"]

Moment: TypeAlias = Literal["random", "recovery", "drain", "machine"]
# Kills by chance take turns: after some request; among the first requests, while the run still asks what became of
# the earlier kills; while it drains after SIGTERM; and the run with ``bydawn serve``, as when the machine goes down.
MOMENTS: tuple[Moment, ...] = ("random", "recovery", "drain", "machine")

MIXED = "_mixed"  # no provider can have this name
AT_RANDOM = 10
TASKS = 200

_CANCELLING = frozenset({"cancel_recorded", "cancel_answered"})  # nobody does, here
# What a provider of the shape never gets to: an image that comes with the answer is neither polled for nor announced.
_NEVER: dict[Shape, frozenset[str]] = {
    "async": frozenset({"reply_spooled"}),
    "sync": frozenset({"result_seen", "ready_recorded"}),
    "batch-file": frozenset(),
}
# Passed once per file, however many lines it has.
_PER_FILE = frozenset(
    {"before_intent", "intent_recorded", "request_sent", "reply_read", "acceptance_recorded", "result_seen"}
)


class Target(msgspec.Struct, frozen=True):
    """A provider to buy from.  ``usual``: it joins a batch without being named; only such ones buy together."""

    provider: str
    shape: Shape
    recovery: Recovery
    usual: bool = True

    @property
    def points(self) -> tuple[str, ...]:
        """The fault points that a run over this provider gets to."""
        return tuple(point for point in POINTS if point not in _NEVER[self.shape] | _CANCELLING)


class Kill(msgspec.Struct, frozen=True):
    """The end of one life: at a fault point's ``nth`` time, or at a moment by chance: ``pause_s`` after the ``nth``
    request (at ``drain``, SIGTERM comes with the request and SIGKILL after the pause).

    ``limit``: how many tasks the batch has in this life.
    """

    at: str
    nth: int
    limit: int
    pause_s: float = 0.0

    @property
    def by_chance(self) -> bool:
        return self.at in MOMENTS


class Round(msgspec.Struct, frozen=True):
    name: str
    targets: tuple[Target, ...]
    tasks: int
    kills: tuple[Kill, ...]

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(target.provider for target in self.targets)

    @property
    def kind(self) -> str:
        """The class of evidence, or that there are several."""
        return self.targets[0].recovery if self.name != MIXED else "mixed"

    @property
    def wants_calls(self) -> bool:
        """Whether a purchase can be found again only when the provider calls back."""
        return _wants_calls(self.targets)


def _wants_calls(targets: Sequence[Target]) -> bool:
    return any(target.recovery in ("callback", "absence") for target in targets)


def rounds_of(targets: Sequence[Target]) -> dict[str, tuple[Target, ...]]:
    """Who is bought from in which round."""
    rounds: dict[str, tuple[Target, ...]] = {target.provider: (target,) for target in targets}
    usual = tuple(target for target in targets if target.usual)
    if len(usual) > 1:
        rounds[MIXED] = usual
    return rounds


def plan(
    rounds: Mapping[str, tuple[Target, ...]], available: Mapping[str, int], *, tasks: int, kills: int | None, seed: int
) -> tuple[Round, ...]:
    """Plan the rounds.

    Args:
        available: how many tasks the input has for each round.
        tasks: how many to buy over all rounds; at least one per kill is taken.
        kills: how many over all rounds; None = each fault point once at each provider, and ten at random.
    """
    dice = random.Random(seed)
    dealt = _dealt(rounds, kills, dice)
    total = sum(map(len, dealt.values()))
    planned = []
    before = 0
    for name, points in dealt.items():
        # As many for each kill; what does not come out even goes to some, and none is left over.
        share = tasks * (before + len(points)) // total - tasks * before // total
        before += len(points)
        share = min(available[name], max(len(points), share))
        points = points[:share]  # each kill needs a task
        if points:
            planned.append(_round(name, rounds[name], points, share, dice))
    return tuple(planned)


def _dealt(rounds: Mapping[str, tuple[Target, ...]], kills: int | None, dice: random.Random) -> dict[str, list[str]]:
    """Where each round is killed, in the order of its lives: fault points, and moments of chance."""
    single = {name: targets for name, targets in rounds.items() if name != MIXED}
    waiting = [
        deque((name, point) for point in dice.sample(targets[0].points, len(targets[0].points)))
        for name, targets in single.items()
    ]
    # In turns, so that a few kills come to all providers.
    turns = itertools.chain.from_iterable(itertools.zip_longest(*waiting))
    everything = [turn for turn in turns if turn is not None]
    if kills is None:
        kills = len(everything) + AT_RANDOM
    chosen = everything[:kills]
    beyond = kills - len(chosen)
    first = MIXED if MIXED in rounds else next(iter(rounds))
    by_chance = [first] * min(beyond, AT_RANDOM)
    by_chance += [name for name, _ in zip(itertools.cycle(rounds), range(beyond - AT_RANDOM), strict=False)]
    moments = {name: itertools.cycle(_moments(targets)) for name, targets in rounds.items()}
    chosen += [(name, next(moments[name])) for name in by_chance]
    dealt: dict[str, list[str]] = {name: [] for name in rounds}
    for name, point in chosen:
        dealt[name].append(point)
    for points in dealt.values():
        dice.shuffle(points)
        while points and points[0] == "recovery":  # there is nothing to recover from yet
            points.append(points.pop(0))
    return dealt


def _moments(targets: Sequence[Target]) -> Sequence[Moment]:
    """Where nobody serves, the machine is the run."""
    return [moment for moment in MOMENTS if moment != "machine" or _wants_calls(targets)]


def _round(name: str, targets: tuple[Target, ...], points: Sequence[str], tasks: int, dice: random.Random) -> Round:
    kills = []
    before = 0
    for number, point in enumerate(points, 1):
        limit = tasks * number // len(points)
        nth = dice.randint(1, limit - before)
        pause_s = 0.0
        if point in MOMENTS:
            # Each account's key is checked first; what is asked next, before anything is bought, is recovery.
            nth = len(targets) + (dice.randint(0, 2) if point == "recovery" else nth)
            pause_s = round(dice.uniform(0.0, 0.3 if point == "drain" else 0.05), 4)
        elif targets[0].shape == "batch-file" and point in _PER_FILE:
            nth = 1
        kills.append(Kill(point, nth, limit, pause_s))
        before = limit
    return Round(name, targets, tasks, tuple(kills))
