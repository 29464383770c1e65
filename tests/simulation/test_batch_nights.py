"""Whole nights by the file: Google's batches under crashes and weather, judged by its own bill (W2 to W5, W16)."""

import random
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from adapters.base import HttpCall
from adapters.sandbox import google_batches
from adapters.sandbox.base import Reply
from ledger.events import AttemptIntended
from ledger.reader import Reader
from tests.simulation.checker import problems
from tests.simulation.life import Life
from tests.simulation.schedules import Schedule, judged
from tests.simulation.weather import WEATHERS
from tests.simulation.world import World

BATCH = ("google-batch",)
WINDOWS = {
    "before_intent",
    "intent_recorded",
    "request_sent",
    "reply_read",
    "acceptance_recorded",
    "result_seen",
    "reply_spooled",
    "ready_recorded",
}


class Files(World):
    """A world that remembers the creations of batches; ``twice``: something on the way sends each of them again, and
    its answer is lost."""

    def __init__(self, root: Path, seed: int, *, twice: bool = False, **more: object) -> None:
        self.sent: list[str] = []
        self._twice = twice
        super().__init__(root, seed, providers=BATCH, **more)  # type: ignore[arg-type]  # passed on as they came

    def serve(self, call: HttpCall) -> Reply:
        reply = super().serve(call)
        if urlsplit(call.url).path.endswith(":batchGenerateContent"):
            self.sent.append(msgspec.json.decode(call.body)["batch"]["displayName"])
            if self._twice:
                super().serve(call)
                return Reply(500, {}, b'{"error":{"code":500,"message":"x","status":"INTERNAL"}}')
        return reply


def states(world: World) -> Counter[str]:
    return Counter(line.state for line in world.bill())


def test_a_quiet_night_buys_every_image_once_in_few_files(tmp_path: Path) -> None:
    world = Files(tmp_path, 1, tasks=450)
    assert world.live() == ""
    assert problems(world) == []
    assert states(world) == {"succeeded": 450}
    assert len(world.sent) == len(set(world.sent)) == 3  # of 200, 200 and 50


def test_all_lines_of_a_file_are_intended_in_one_commit(tmp_path: Path) -> None:
    """MON-1."""
    world = Files(tmp_path, 1, tasks=60)
    world.live()
    with Reader(world.path) as reader:
        intents = [recorded for recorded in reader.events() if isinstance(recorded.event, AttemptIntended)]
    times = {(recorded.event.file, recorded.at_us) for recorded in intents}  # type: ignore[union-attr]
    assert len(times) == len(world.sent) == 1
    assert [recorded.seq for recorded in intents] == list(range(intents[0].seq, intents[0].seq + 60))


@pytest.mark.parametrize("money_at_risk", [40_000, 100_000])
def test_a_small_cap_on_the_money_at_risk_makes_small_files(tmp_path: Path, money_at_risk: int) -> None:
    """MON-3: a file is in doubt as a whole."""
    world = Files(tmp_path, 1, tasks=7, max_at_risk_microusd=money_at_risk)
    most = money_at_risk // 42_000  # the ceiling of one image
    assert world.live() == ("" if most else "at_risk")
    assert problems(world, complete=bool(most)) == []
    assert len(world.sent) == (-(-7 // most) if most else 0)


def test_a_budget_that_does_not_reach_for_all_buys_what_it_can(tmp_path: Path) -> None:
    """MON-8."""
    world = Files(tmp_path, 1, tasks=30, budget_microusd=500_000)
    assert world.live() == "budget"
    assert problems(world, complete=False) == []
    assert 10 <= states(world)["succeeded"] <= 14


def test_a_crash_at_any_fault_point_costs_nothing_but_time() -> None:
    """MON-1, MON-2, MON-7, REC-3, REC-4, LIVE-1, LIVE-2, W16."""
    died: Counter[str] = Counter()
    for crash_at in range(70):
        died += judged(Schedule(seed=crash_at, providers=BATCH, tasks=7, lives=(Life(crash_at=crash_at),))).crashed
    assert died.keys() >= WINDOWS


@pytest.mark.parametrize("weather", sorted(WEATHERS))
@pytest.mark.parametrize("seed", range(3))
def test_every_weather_with_several_deaths(weather: str, seed: int) -> None:
    draws = random.Random(seed)
    lives = tuple(Life(crash_at=draws.randrange(80)) for _ in range(3))
    judged(Schedule(seed=seed, providers=BATCH, tasks=9, weather=weather, lives=lives))


@pytest.mark.parametrize("seed", range(4))
def test_beside_the_plain_call_and_another_provider(seed: int) -> None:
    lives = (Life(crash_at=30 + 7 * seed), Life(drain_at_s=1.0 + seed))
    judged(Schedule(seed=seed, providers=("google", *BATCH, "kie"), tasks=14, weather="rough", lives=lives))


def test_batches_that_expire_cost_nothing_and_are_bought_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_batches, "EXPIRES_US", 2_300_000)  # most are done by then, and some are not
    world = Files(tmp_path, 4, tasks=12, max_at_risk_microusd=130_000)
    assert world.live() == ""
    assert problems(world) == []
    assert states(world)["failed"] > 0
    assert states(world)["succeeded"] == 12


def test_what_always_expires_fails_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LIVE-1."""
    monkeypatch.setattr(google_batches, "EXPIRES_US", 1)
    world = Files(tmp_path, 1, tasks=3)
    assert world.live() == ""
    assert problems(world) == []
    assert states(world) == {"failed": 9}  # three tries each
    assert sum(line.charged_microusd for line in world.bill()) == 0


def test_a_file_that_was_made_into_two_batches_is_bought_no_third_time(tmp_path: Path) -> None:
    """REC-5: the older one is adopted, the other one is nobody's."""
    world = Files(tmp_path, 1, tasks=5, twice=True)
    assert world.live() == ""
    assert len(world.sent) == 1
    with Reader(world.path) as reader:
        assert [row.phase for row in reader.tasks(1)] == ["succeeded"] * 5
    batches = Counter(line.job.partition(".")[0] for line in world.bill())
    assert sorted(batches.values()) == [5, 5]
    surplus = [problem for problem in problems(world) if "google-batch" in problem or "bound" in problem]
    assert surplus == problems(world)  # that it was paid for nobody is all there is to say
