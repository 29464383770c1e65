"""Nights with callbacks: what they save, and that they may be lost, late, repeated or forged (REC-5, REC-7)."""

import random
from collections import Counter
from pathlib import Path

import pytest

from adapters.sandbox.faults import ChaosProfile
from bydawn.moneylines import stored_lines
from ledger.commands import Intend, Record
from ledger.decisions import Append, Decision
from ledger.events import AttemptAdopted, AttemptAmbiguous, AttemptUnknown
from ledger.journal import Ledger
from ledger.reader import Reader
from ledger.rules import decide_task
from ledger.streams import task_of, task_stream
from runtime.inbox import Hint, hints, inbox_of, leave_hint
from runtime.simulated import EPOCH_US
from tests.simulation.checker import problems
from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged
from tests.simulation.weather import FAIR, Weather
from tests.simulation.world import World


def works(world: World) -> list[tuple[str, str, str]]:
    """(phase, job, by which evidence it was adopted) of every attempt."""
    with Reader(world.path) as reader:
        return [
            (attempt.phase, attempt.job, attempt.adopted_by)
            for row in reader.tasks(1, limit=1000)
            for attempt in reader.state(task_stream(1, row.n)).attempts
        ]


@pytest.mark.parametrize("seed", range(12))
def test_no_task_is_held_whose_job_arrived(tmp_path: Path, seed: int) -> None:
    """Class C with its callbacks: every kill between request and record is cleared up, at no price."""
    draws = random.Random(seed)
    world = World(tmp_path, seed, providers=("kie",), tasks=6, webhooks=True)
    for _ in range(draws.randint(1, 3)):
        world.live(Life(crash_at=draws.randrange(60)))
    assert world.live() == ""
    assert problems(world) == []
    found = works(world)
    bound = {job for _, job, _ in found if job}
    assert bound == {line.job for line in world.bill()}


def test_without_callbacks_they_are_held(tmp_path: Path) -> None:
    """The same kills, so that the test above cannot pass for nothing."""
    unbound = adopted = 0
    for seed in range(12):
        for webhooks in (False, True):
            draws = random.Random(seed)
            root = tmp_path / f"{seed}{webhooks}"
            root.mkdir()
            world = World(root, seed, providers=("kie",), tasks=6, webhooks=webhooks)
            for _ in range(draws.randint(1, 3)):
                world.live(Life(crash_at=draws.randrange(60)))
            world.live()
            found = works(world)
            if webhooks:
                adopted += sum(by == "callback" for _, _, by in found)
            else:
                unbound += len({line.job for line in world.bill()} - {job for _, job, _ in found})
    assert unbound
    assert adopted


@pytest.mark.parametrize("fate", ["hook_lost", "hook_late", "hook_twice", "hook_forged"])
@pytest.mark.parametrize("providers", [("kie",), ("replicate",), ("kie", "replicate", "toapis")])
def test_callbacks_that_go_wrong_lead_to_the_same_end(tmp_path: Path, fate: str, providers: tuple[str, ...]) -> None:
    """REC-7: as none, plus polling."""
    weather = Weather(chaos=ChaosProfile(**{fate: 1.0}))
    world = World(tmp_path, 7, providers=providers, tasks=8, weather=weather, webhooks=True)
    assert world.live() == ""
    assert problems(world) == []
    assert {phase for phase, _, _ in works(world)} == {"done"}
    assert world.postman is not None
    if fate == "hook_forged":
        assert world.postman.turned_away > 0
    assert world.live() == ""  # and what came when all was over is cleared away by the next run
    assert list(hints(world.path.with_name("night.db.inbox"))) == []


@pytest.mark.parametrize("killed", [None, 12])
def test_a_first_purchase_that_calls_after_the_second_is_kept_as_spare(tmp_path: Path, killed: int | None) -> None:
    """MON-7, MON-9, MON-10: bought again beside a doubt, and the first is there after all.  Both are paid: both are
    kept, also where the call comes while the second one is under way (``killed``: the night before died then)."""
    weather = Weather(chaos=ChaosProfile(hook_lost=1.0), lost_reply=0.4)
    world = World(
        tmp_path, 4, tasks=8, providers=("kie",), weather=weather, webhooks=True, max_duplicate_microusd=10_000_000
    )
    world.live(Life(crash_at=killed, point="acceptance_recorded"))
    under_way = [phase for phase, _, _ in works(world)].count("accepted")
    assert (under_way > 0) == (killed is not None)
    while late := unbound(world):
        for hint in late:
            leave_hint(inbox_of(world.path), hint)
        assert world.live() == ""
        assert list(hints(inbox_of(world.path))) == [], "the night does not end before it has looked"
    assert problems(world) == []
    assert {line.job for line in world.bill()} == {job for _, job, _ in works(world) if job}
    spares = [by for phase, _, by in works(world) if phase == "surplus"]
    assert len(spares) == len(world.bill()) - 8 > 0
    assert set(spares) == {"callback"}
    with Reader(world.path) as reader:
        lines = stored_lines(reader.money(), 1)
    assert lines.surplus == (len(spares), len(spares) * 40_000)
    assert lines.spent == len(world.bill()) * 40_000
    assert lines.reserved == lines.decided.microusd, "of what was never heard again"


def test_several_purchases_of_a_settled_task_come_home_one_after_another(tmp_path: Path) -> None:
    """MON-9: all its lost purchases were found before the night."""
    weather = Weather(chaos=ChaosProfile(hook_lost=1.0), lost_reply=0.4)
    world = World(
        tmp_path, 4, tasks=8, providers=("kie",), weather=weather, webhooks=True, max_duplicate_microusd=10_000_000
    )
    assert world.live() == ""
    late = unbound(world)
    assert max(Counter(hint.n for hint in late).values()) > 1
    with Ledger.create_or_open(world.path, create=False) as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="test", at_us=EPOCH_US)
        for hint in late:
            stream = task_stream(1, hint.n)
            fact = AttemptAdopted(attempt=hint.attempt, job=hint.job, evidence="callback")
            state = ledger.state(stream)
            append = Append(stream, state.version, decide_task(state, Record(fact)))
            ledger.commit([Decision(appends=(append,), at_us=EPOCH_US)])
    assert world.live() == ""
    assert problems(world) == []
    assert [phase for phase, _, _ in works(world)].count("surplus") == len(late)


def test_a_first_purchase_that_calls_while_the_second_is_held_comes_home(tmp_path: Path) -> None:
    """MON-9, LIVE-1: the task has its image, although the later purchase stays in doubt."""
    weather = Weather(chaos=ChaosProfile(hook_lost=1.0), lost_reply=0.4)
    world = World(tmp_path, 4, tasks=8, providers=("kie",), weather=weather, webhooks=True)
    assert world.live() == ""
    hint = unbound(world)[0]
    stream = task_stream(1, hint.n)
    with Ledger.create_or_open(world.path, create=False) as ledger:
        ledger.start_epoch(machine="m", pid=1, app_version="0", operator="o", command="test", at_us=EPOCH_US)
        again = Intend("kie", "kie", "default", "only", 75_000, "d", 0, beside="policy")
        no_reply = Record(AttemptAmbiguous(attempt=2, reason="no_reply"))
        unknown = Record(AttemptUnknown(attempt=2, reason="no_evidence"))
        for command in (again, no_reply, unknown):
            state = ledger.state(stream)
            append = Append(stream, state.version, decide_task(state, command))
            ledger.commit([Decision(appends=(append,), at_us=EPOCH_US)])
    leave_hint(inbox_of(world.path), hint)
    assert world.live() == ""
    with Reader(world.path) as reader:
        state = reader.state(stream)
    assert (state.phase, [each.phase for each in state.attempts]) == ("succeeded", ["done", "unknown"])
    assert problems(world) == []


def unbound(world: World) -> list[Hint]:
    """What the provider would say of its jobs that the ledger does not know."""
    bound = {job for _, job, _ in works(world)}
    jobs: dict[int, list[str]] = {}
    for line in world.bill():
        if line.job not in bound:
            jobs.setdefault(world.wanting[line.prompt][0], []).append(line.job)
    found = []
    with Reader(world.path) as reader:
        for stream, theirs in jobs.items():
            bare = [each for each in reader.state(stream).attempts if not each.job]
            for attempt, job in zip(bare, theirs, strict=False):
                found.append(Hint(attempt.account, 1, task_of(stream), attempt.number, job))
    return found


def test_a_night_with_callbacks_is_the_same_twice(tmp_path: Path) -> None:
    heads = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, 11, weather=FAIR, webhooks=True, tasks=6)
        world.live(Life(crash_at=30))
        world.live()
        with Reader(world.path) as reader:
            heads.append(reader.head())
    assert heads[0] == heads[1]


@pytest.mark.slow
@pytest.mark.parametrize("weather", ["fair", "rough", "slow", "dark", "jumpy"])
def test_many_nights_with_callbacks(weather: str) -> None:
    for seed in range(300):
        draws = random.Random(seed)
        lives = tuple(Life(crash_at=draws.randrange(90)) for _ in range(draws.randint(1, 4)))
        judged(
            Schedule(
                seed=seed,
                weather=weather,
                lives=lives,
                webhooks=True,
                providers=draws.choice([("kie",), ("kie", "replicate"), ("replicate",), ("toapis", "kie")]),
                orders=draws.choice([(), ("buy_again",), ("give_up",)]),
            )
        )
