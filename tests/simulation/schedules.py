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

from ledger.events import Decided
from ledger.folds import TaskPhase
from ledger.reader import Reader
from runtime.router import StopReason
from runtime.trust import Trust
from tests.simulation.checker import missing_at_the_cut, problems, torn
from tests.simulation.history import History
from tests.simulation.life import Life
from tests.simulation.tally import Tally, at_the_cut, tallied
from tests.simulation.weather import WEATHERS
from tests.simulation.world import World

NO_CAP = 100_000_000


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """``lives`` are those that end badly; after them the world lives until everything is settled.

    ``orders``: what the operator decides about held tasks then; failed ones are wanted again.  ``again``: when all is
    over, one more run finds nothing to do.  The rest is of :class:`tests.simulation.world.World`.
    """

    seed: int
    weather: str = "fair"
    lives: tuple[Life, ...] = ()
    tasks: int = 5
    providers: tuple[str, ...] = ("kie", "replicate", "segmind")
    widths: tuple[int | None, ...] = ()
    same_prompts: bool = False
    files: bool = False
    webhooks: bool = False
    batches: int = 1
    followers: int = 0
    budget_microusd: int | None = None
    account_budget_microusd: int | None = None
    max_at_risk_microusd: int = NO_CAP
    max_duplicate_microusd: int | None = None
    trust: Trust | None = None
    accounts_each: int = 1
    orders: tuple[Decided, ...] = ()
    again: bool = False

    @property
    def capped(self) -> bool:
        budgets = (self.budget_microusd, self.account_budget_microusd)
        return any(budget is not None for budget in budgets) or self.max_at_risk_microusd < NO_CAP


def play(schedule: Schedule, root: Path) -> tuple[World, list[str], Tally]:
    """Live it through; return the world, what went wrong in it, and what it met."""
    world = World(
        root,
        schedule.seed,
        tasks=schedule.tasks,
        providers=schedule.providers,
        widths=schedule.widths,
        weather=WEATHERS[schedule.weather],
        same_prompts=schedule.same_prompts,
        files=schedule.files,
        webhooks=schedule.webhooks,
        batches=schedule.batches,
        followers=schedule.followers,
        budget_microusd=schedule.budget_microusd,
        account_budget_microusd=schedule.account_budget_microusd,
        max_at_risk_microusd=schedule.max_at_risk_microusd,
        max_duplicate_microusd=schedule.max_duplicate_microusd,
        trust=schedule.trust,
        accounts_each=schedule.accounts_each,
    )
    with Reader(world.path) as books:  # one for the night: each that is opened reads the schema anew
        for life in schedule.lives:
            world.live(life)
            world.broken += [*missing_at_the_cut(world, books), *torn(world)]
            world.seen += at_the_cut(world, books)
        stopped = _settle(world, books)
        for decision in schedule.orders:
            for batch in range(1, world.batches + 1):
                world.resolve(decision, batch)
                world.retry(batch)
            stopped = _settle(world, books)
        complete = not {"budget", "at_risk"} & set(stopped)
        found = problems(world, complete=complete)
        found += _odd_stops(schedule, world, stopped)
        if schedule.again and complete:
            found += _live_again(world, books)
        history = History(world, books)
        found += history.found
        return world, found, tallied(world, history, books)


def _settle(world: World, books: Reader) -> list[StopReason | None]:
    """Live until there is nothing to do: what a run of one batch learns may leave work for the other."""
    stopped = [world.live(Life(batch=batch)) for batch in range(1, world.batches + 1)]
    for batch in _with_queued(world, books):
        if stopped[batch - 1] == "":
            stopped[batch - 1] = world.live(Life(batch=batch))
    return stopped


def _with_queued(world: World, books: Reader) -> list[int]:
    if world.batches == 1:
        return []
    batches = range(1, world.batches + 1)
    return [batch for batch in batches if any(row.state == "queued" for row in books.counts(batch))]


def _odd_stops(schedule: Schedule, world: World, stopped: list[StopReason | None]) -> list[str]:
    allowed: set[StopReason | None] = {""}
    if schedule.capped:
        allowed |= {"budget", "at_risk"}
    if schedule.max_duplicate_microusd is not None:
        allowed.add("budget")  # for duplicates
    if world.key_epoch or world.rotated_epoch:
        allowed.add("no_provider")  # what the old keys bought stays open
    if world.seen["cancelled"]:
        allowed.add("cancelled")
    return [f"a night was stopped by {reason!r}" for reason in stopped if reason not in allowed]


def _live_again(world: World, books: Reader) -> list[str]:
    """REC-3, LIVE-2: what is settled stays as it is, and nobody is paid, however often a run begins.

    What is held may change: a callback that comes late ends the doubt, and what comes of it may be bought again.
    """
    before = _phases(world, books)
    jobs = len(world.bill())
    _settle(world, books)
    after = _phases(world, books)
    found = [
        f"task {key} was {phase} and is {after[key]}, and nothing was to be done (REC-3)"
        for key, phase in before.items()
        if phase != "held" and after[key] != phase
    ]
    if len(world.bill()) > jobs and "held" not in before.values():
        found.append(f"{len(world.bill()) - jobs} jobs were bought, and nothing was to be done (LIVE-2)")
    return found


def _phases(world: World, books: Reader) -> dict[str, TaskPhase]:
    return {
        f"{batch}/{row.n}": row.phase
        for batch in range(1, world.batches + 1)
        for row in books.tasks(batch, limit=10_000)
    }


def line(schedule: Schedule) -> str:
    """The command that replays it."""
    return f"python -m tests.simulation.schedules '{msgspec.json.encode(schedule).decode()}'"


def judged(schedule: Schedule) -> World:
    """Play it in a folder of its own; a broken promise is an AssertionError that says how to see it again."""
    return _judged(schedule)[0]


def counted(schedule: Schedule) -> Tally:
    """The same, for what it met."""
    return _judged(schedule)[1]


def _judged(schedule: Schedule) -> tuple[World, Tally]:
    with _folder() as root:
        try:
            world, found, tally = play(schedule, root)
        except Exception as exc:
            exc.add_note(f"replay: {line(schedule)}")
            raise
    assert not found, "\n".join([*found, f"replay: {line(schedule)}"])
    return world, tally


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
