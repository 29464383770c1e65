"""Whole nights, one question each, judged by the providers' own bill."""

import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from adapters.sandbox.faults import PROFILES, ChaosProfile
from ledger.events import ReferenceUploaded
from ledger.reader import Reader
from ledger.streams import account_stream, task_stream
from runtime.faults import POINTS
from runtime.trust import TRUSTS, Trust
from tests.simulation.checker import problems
from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged, line, play
from tests.simulation.weather import ROUGH, SLOW, WEATHERS, Weather
from tests.simulation.world import World


def test_a_quiet_night_buys_every_image_once(tmp_path: Path) -> None:
    world = World(tmp_path, seed=1, tasks=12)
    assert world.live() == ""
    assert problems(world) == []
    assert len(world.bill()) == 12
    assert all(line.state == "succeeded" for line in world.bill())


@pytest.mark.parametrize("crash_at", range(0, 96, 4))
def test_a_crash_at_any_fault_point_costs_nothing_but_time(crash_at: int) -> None:
    """MON-1, MON-2, MON-7, REC-4, REC-5, RES-1, RES-2, LIVE-1, LED-3: five tasks, three providers, one death."""
    judged(Schedule(seed=crash_at, lives=(Life(crash_at=crash_at),)))


@pytest.mark.parametrize("seed", range(12))
def test_rough_nights_with_several_deaths(seed: int) -> None:
    """The same under throttling, 5xx before and after acceptance, resets, lost requests and replies."""
    draws = random.Random(seed)
    judged(Schedule(seed=seed, weather="rough", lives=tuple(Life(crash_at=draws.randrange(90)) for _ in range(3))))


@pytest.mark.parametrize("seed", range(8))
def test_dying_again_and_again_in_recovery_ends_the_same(seed: int) -> None:
    """REC-3: three deaths within the first steps of recovery, behind one in the middle of the night."""
    lives = (Life(crash_at=40 + 5 * seed), Life(crash_at=seed), Life(crash_at=seed // 2), Life(crash_at=2 * seed))
    judged(Schedule(seed=seed, weather="rough", lives=lives))


@pytest.mark.parametrize("seed", range(4))
def test_equal_inputs_are_adopted_one_by_one(tmp_path: Path, seed: int) -> None:
    """REC-5: five tasks that want the same picture are five jobs, whichever dies when."""
    lives = (Life(crash_at=10 + 7 * seed), Life(crash_at=3))
    schedule = Schedule(seed=seed, same_prompts=True, providers=("replicate", "segmind"), lives=lives)
    world, found, _ = play(schedule, tmp_path)
    assert found == [], line(schedule)
    assert len(world.bill()) == 5


@pytest.mark.parametrize("weather", sorted(WEATHERS))
def test_every_weather_passes(weather: str) -> None:
    """LIVE-1: listings that lag or fail for a while, slow replies, late requests, bad images, a clock that jumps."""
    judged(Schedule(seed=5, weather=weather, tasks=12))


def test_a_jumping_clock_buys_nothing_twice(tmp_path: Path) -> None:
    """REC-8: lost answers at a provider whose listing shows inputs, while the clock is set wrong every few seconds."""
    world = World(tmp_path, seed=3, tasks=12, providers=("replicate",), weather=Weather(lost_reply=0.4, jumps=1800.0))
    assert world.live() == ""
    assert problems(world) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_provider_without_evidence_holds_what_is_in_doubt(tmp_path: Path, seed: int) -> None:
    """Class N in the table of windows: held, decided by the operator, never bought twice in silence."""
    world = World(tmp_path, seed, tasks=8, providers=("kie",), weather=Weather(lost_reply=0.3))
    world.live()
    assert problems(world) == []
    with Reader(world.path) as reader:
        held = len(reader.held(1))
        assert held > 0
    world.resolve("give_up")
    assert world.live() == ""
    assert problems(world) == []
    with Reader(world.path) as reader:
        assert reader.held(1) == []
        assert sum(row.n for row in reader.counts(1) if row.state == "failed") == held


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_is_never_passed_and_ends_the_night(tmp_path: Path, seed: int) -> None:
    """MON-8: checked at every commit, with deaths; the reason is the budget, and what was bought came home."""
    world = World(tmp_path, seed, tasks=12, budget_microusd=300_000)
    world.live(Life(crash_at=20 + 10 * seed))
    assert world.live() == "budget"
    assert problems(world, complete=False) == []
    with Reader(world.path) as reader:
        assert {row.state for row in reader.counts(1)} == {"succeeded", "queued"} | ({"held"} & _states(reader))


@pytest.mark.parametrize("seed", range(2))
def test_a_budget_of_the_day_is_never_passed_and_ends_the_night(tmp_path: Path, seed: int) -> None:
    """MON-8: of each account by itself, also for what a death left in doubt."""
    world = World(tmp_path, seed, tasks=12, providers=("kie", "replicate"), account_day_microusd=200_000)
    world.live(Life(crash_at=20 + 10 * seed))
    assert world.live() == "budget"
    assert problems(world, complete=False) == []
    with Reader(world.path) as reader:
        spent = [balance.total for name, balance in reader.money("day/").items()]
    assert len(spent) == 2
    assert all(0 < each <= 200_000 for each in spent)


def test_money_at_risk_ends_the_night_only_when_held_attempts_fill_it(tmp_path: Path) -> None:
    """MON-3: with one place for doubt, the night goes on as long as answers come, and ends with the first held one."""
    world = World(tmp_path, seed=2, tasks=8, providers=("kie",), max_at_risk_microusd=80_000)
    assert world.live() == ""
    assert problems(world) == []
    (tmp_path / "b").mkdir()
    doubtful = World(
        tmp_path / "b",
        seed=2,
        tasks=8,
        providers=("kie",),
        weather=Weather(lost_reply=1.0),
        max_at_risk_microusd=80_000,
    )
    assert doubtful.live() == "at_risk"
    with Reader(doubtful.path) as reader:
        assert len(reader.held(1)) == 1


@pytest.mark.parametrize("hard_at_s", [None, 3.0])
def test_a_signal_ends_the_night_and_the_next_one_goes_on(tmp_path: Path, hard_at_s: float | None) -> None:
    """LIVE-5, LIVE-2."""
    world = World(tmp_path, seed=4, tasks=12, weather=SLOW)
    assert world.live(Life(drain_at_s=1.0, hard_at_s=hard_at_s)) == "interrupted"
    assert problems(world, complete=False) == []
    assert world.live() == ""
    assert problems(world) == []


@pytest.mark.parametrize("fault", ["full", "failed"])
@pytest.mark.parametrize("place", ["disk", "ledger"])
def test_a_disk_that_fails_loses_nothing(place: str, fault: str) -> None:
    """LED-7, RES-1: at any write the process ends; the next one goes on."""
    for after in range(0, 24, 4):
        judged(Schedule(seed=after, lives=(_failing(place, after, fault),)))


def _failing(place: str, after: int, fault: str) -> Life:
    how = "full" if fault == "full" else "failed"
    return Life(disk=(after, how)) if place == "disk" else Life(ledger=(after, how))  # type: ignore[arg-type]


@pytest.mark.parametrize("crash_at", [15, 45])
def test_a_run_follows_what_another_batch_left_open(tmp_path: Path, crash_at: int) -> None:
    """REC-2: batch 1 dies, a run of batch 2 brings home what is in flight there, and buys nothing for it."""
    world = World(tmp_path, seed=crash_at, batches=2)
    world.live(Life(crash_at=crash_at))
    assert world.live(Life(batch=2)) == ""
    with Reader(world.path) as reader:
        assert [entry for entry in reader.live() if entry.batch == 1] == []
        assert {row.state for row in reader.counts(2)} <= {"succeeded", "held"}
    assert world.live() == ""
    assert problems(world) == []


def test_followers_take_over_what_their_owner_bought(tmp_path: Path) -> None:
    world = World(tmp_path, seed=6, tasks=6, followers=4, providers=("segmind",))
    world.live(Life(crash_at=30))
    assert world.live() == ""
    assert problems(world) == []
    assert len(world.bill()) == 2


def test_failed_tasks_are_wanted_again(tmp_path: Path) -> None:
    """MON-2: a retry is leave for one more purchase, and no more."""
    schedule = Schedule(seed=9, weather="dark", tasks=10, orders=("buy_again", "buy_again"))
    _, found, _ = play(schedule, tmp_path)
    assert found == [], line(schedule)


def test_the_same_seed_is_the_same_night(tmp_path: Path) -> None:
    """REC-1 and the simulator itself: two runs of one seed end with the same chain head."""
    heads = []
    for turn in ("first", "second"):
        folder = tmp_path / turn
        folder.mkdir()
        world, _, _ = play(Schedule(seed=77, weather="rough", lives=(Life(crash_at=11), Life(crash_at=23))), folder)
        with Reader(world.path) as reader:
            heads.append(reader.head())
    assert heads[0] == heads[1]


def test_every_window_is_reached(tmp_path: Path) -> None:
    world = World(tmp_path, seed=5, weather=ROUGH, tasks=20, providers=("replicate", "together"))
    assert world.live() == ""
    assert set(POINTS) <= set(world.hits)


def _states(reader: Reader) -> set[str]:
    return {row.state for row in reader.counts(1)}


# --- local references -------------------------------------------------------------------------------------


def uploaded(world: World) -> Counter[tuple[str, str]]:
    """How often each file was uploaded to each account, by the ledger."""
    with Reader(world.path) as reader:
        names: dict[int, str] = {account_stream(row.n): row.name for row in reader.accounts()}
        found = [(row.stream, row.event) for row in reader.events(limit=100_000)]
    return Counter((names[stream], event.sha256) for stream, event in found if isinstance(event, ReferenceUploaded))


@pytest.mark.parametrize("provider", ["kie", "replicate", "segmind", "toapis", "wavespeed"])
def test_each_file_is_uploaded_once_for_all_tasks_and_all_lives(tmp_path: Path, provider: str) -> None:
    world = World(tmp_path, seed=3, tasks=8, providers=(provider,), files=True)
    world.live(Life(crash_at=45))
    world.live(Life(crash_at=30))
    assert world.live() == ""
    assert problems(world) == []
    assert set(uploaded(world).values()) == {1}
    assert len(uploaded(world)) == 9


@pytest.mark.parametrize("crash_at", range(0, 64, 4))
def test_a_crash_around_an_upload_costs_nothing(tmp_path: Path, crash_at: int) -> None:
    """REC-4, REC-5: what was in doubt is compared by the addresses that were sent."""
    world = World(tmp_path, seed=crash_at, tasks=5, providers=("replicate", "toapis", "apertis"), files=True)
    world.live(Life(crash_at=crash_at))
    world.live()
    assert problems(world) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_rough_night_with_references(tmp_path: Path, seed: int) -> None:
    weather = WEATHERS["rough"]
    world = World(tmp_path, seed=seed, tasks=8, providers=("replicate", "segmind"), weather=weather, files=True)
    world.live(Life(crash_at=50))
    world.live()
    assert problems(world) == []


def test_what_is_in_doubt_is_bought_again_within_the_budget_for_duplicates(tmp_path: Path) -> None:
    """MON-2, MON-4: leave and intent are one decision, and the budget bounds it."""
    world = World(
        tmp_path,
        seed=4,
        tasks=12,
        providers=("kie",),
        weather=Weather(lost_reply=0.5),
        max_duplicate_microusd=2 * 75_000,
    )
    assert world.live() == ""
    with Reader(world.path) as reader:
        duplicates = reader.money("duplicates/")["duplicates/1"]
        held = len(reader.held(1))
    assert 0 < duplicates.open <= 2
    assert duplicates.total <= 2 * 75_000
    assert held > 0  # more were in doubt than there was money for
    assert problems(world) == []
    world.max_duplicate_microusd = 100_000_000
    assert world.live() == ""
    assert problems(world) == []
    with Reader(world.path) as reader:
        assert reader.money("duplicates/")["duplicates/1"].open > duplicates.open


def test_a_duplicate_that_cost_less_than_its_ceiling_makes_room_for_another_in_the_same_run(tmp_path: Path) -> None:
    """MON-4: there is room for two; what those are charged leaves room for more, which waited for the next run."""
    most = 2 * 75_000
    world = World(
        tmp_path, seed=0, tasks=12, providers=("kie",), weather=Weather(lost_reply=0.4), max_duplicate_microusd=most
    )
    msgspec.structs.force_setattr(world.house._settings, "price_factor", 0.5)
    assert world.live() == ""
    assert problems(world) == []
    with Reader(world.path) as reader:
        duplicates = reader.money("duplicates/")["duplicates/1"]
        assert reader.held(1)
    assert duplicates.open == 3
    assert most - 75_000 < duplicates.total <= most  # and no room for one more


@pytest.mark.parametrize("provider", ["replicate", "toapis"])
def test_the_same_night_under_both_settings_of_trust(tmp_path: Path, provider: str) -> None:
    """REC-4: requests are lost.  Where assumptions do, their absence is proven and they are bought again; where only
    documents do, they are held, and nothing else is."""
    worlds: dict[Trust, World] = {}
    for trust in TRUSTS:
        (tmp_path / trust).mkdir()
        world = worlds[trust] = World(
            tmp_path / trust, seed=8, tasks=10, providers=(provider,), weather=Weather(lost_request=0.2), trust=trust
        )
        assert world.live() == ""
        assert problems(world) == []
    with Reader(worlds["assumed"].path) as reader:
        assert _states(reader) == {"succeeded"}
        assert any(
            attempt.phase == "absent" for n in range(1, 11) for attempt in reader.state(task_stream(1, n)).attempts
        )
    with Reader(worlds["documented"].path) as reader:
        held = [each.state.attempts[-1] for each in reader.held(1)]
        assert held
        proof = "lookup_assumed" if provider == "toapis" else "listing_assumed"
        assert {attempt.reason for attempt in held} == {proof}
        assert not any(
            attempt.phase == "absent" for n in range(1, 11) for attempt in reader.state(task_stream(1, n)).attempts
        )
    assert len(worlds["documented"].bill()) == 10 - len(held)


def test_a_refusal_that_is_not_documented_holds_the_task(tmp_path: Path) -> None:
    """MON-2: throttled all the time; under documents alone each such answer leaves its task in doubt."""
    throttled = Weather(msgspec.structs.replace(PROFILES["none"], throttle=0.3))
    world = World(tmp_path, seed=3, tasks=10, providers=("apertis",), weather=throttled, trust="documented")
    world.live()
    assert problems(world) == []
    with Reader(world.path) as reader:
        assert {each.state.attempts[-1].reason for each in reader.held(1)} >= {"answer_assumed"}


@pytest.mark.parametrize("seed", [0, 1, 9, 11, 13])
def test_a_purchase_that_failed_is_made_again_within_the_budget_for_duplicates(tmp_path: Path, seed: int) -> None:
    """MON-4: the leave of a policy is free again when its purchase failed; the money for it may be somebody else's by
    then, and the night used to buy all the same."""
    most = 2 * 75_000
    world = World(
        tmp_path,
        seed,
        tasks=16,
        providers=("kie",),
        widths=(2,),
        weather=Weather(chaos=ChaosProfile(fail_job=0.4), lost_reply=0.3),
        max_duplicate_microusd=most,
    )
    stopped = world.live()
    assert stopped in ("", "budget")
    assert problems(world, complete=not stopped) == []
    with Reader(world.path) as reader:
        assert 0 < reader.money("duplicates/")["duplicates/1"].total <= most


def test_what_a_person_allowed_is_bought_whatever_the_budget_for_duplicates(tmp_path: Path) -> None:
    """MON-4 bounds the policy alone."""
    weather = Weather(chaos=ChaosProfile(fail_job=0.3), lost_reply=0.5)
    world = World(tmp_path, 3, tasks=10, providers=("kie",), weather=weather, max_duplicate_microusd=0)
    assert world.live() == ""
    with Reader(world.path) as reader:
        held = {entry.n for entry in reader.held(1)}
    assert held
    world.resolve("buy_again")
    world.live()
    assert problems(world) == []
    with Reader(world.path) as reader:
        bought = {n for n in held if len(reader.state(task_stream(1, n)).attempts) > 1}
    assert bought == held
