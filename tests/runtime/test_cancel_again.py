"""W15: a cancel without an answer, since the process died or the network failed.  The job is looked at and cancelled
again, and never bought again; whatever it came to is taken."""

from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import Failed, HttpCall, Pending, Throttled, Unreadable
from adapters.sandbox.base import Reply
from adapters.sandbox.faults import ChaosProfile
from ledger.reader import Reader
from ledger.streams import task_stream
from runtime.inbox import CancelBatch, RetryTasks, leave
from runtime.ports import WireError
from tests.runtime.fakes import CAPS, Bench, known
from tests.runtime.polling import LINK, Following, follow
from tests.simulation.life import Life
from tests.simulation.weather import Weather
from tests.simulation.world import World

TASKS = 4


def phases(world: World) -> dict[str, int]:
    with Reader(world.path) as reader:
        return {row.state: row.n for row in reader.counts(1)}


def in_flight(tmp_path: Path, provider: str) -> World:
    """Four accepted jobs that run for five minutes, and a wish to cancel them."""
    world = World(tmp_path, seed=1, tasks=TASKS, providers=(provider,))
    msgspec.structs.force_setattr(world.house._settings, "latency_s", 300.0)  # two seconds else
    world.live(Life(drain_at_s=0.5, hard_at_s=0.6))
    assert phases(world) == {"accepted": TASKS}
    world.inbox = tmp_path / "inbox"
    leave(world.inbox, CancelBatch(batch=1, operator="me"), name="0001")
    return world


def is_cancel(call: HttpCall) -> bool:
    return call.method == "DELETE" or call.url.endswith("/cancel")


def dies_at_the_cancel(world: World, *, arrives: bool) -> list[str]:
    """Let the process die at its first cancel; gives the list of all that are sent."""
    sent: list[str] = []
    serve = world.serve

    def serve_or_die(call: HttpCall) -> Reply:
        if is_cancel(call):
            sent.append(call.url)
            if len(sent) == 1:
                if arrives:
                    serve(call)
                world.point = lambda name: None  # type: ignore[method-assign]  # nothing else kills it
                world._die("cancel")  # as the world does at its own points
        return serve(call)

    world.serve = serve_or_die  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("provider", ["replicate", "wavespeed"])
def test_a_cancel_whose_answer_was_lost_in_a_kill_is_sent_again(tmp_path: Path, provider: str, arrives: bool) -> None:
    """W15, MON-2, MON-7."""
    world = in_flight(tmp_path, provider)
    sent = dies_at_the_cancel(world, arrives=arrives)
    assert world.live() is None
    first = sent[0]
    assert world.live() == ""
    assert sent.count(first) == (1 if arrives else 2)  # a job that is seen to be cancelled needs no second word
    assert len(world.bill()) == TASKS
    assert phases(world) == {"cancelled": TASKS}


@pytest.mark.parametrize("crash_at", range(0, 30, 2))
def test_a_cancel_of_what_was_bought_after_another_one_is_not_forgotten_in_a_kill(
    tmp_path: Path, crash_at: int
) -> None:
    """W15: cancelled, wanted again, bought, cancelled: only the first wish was on record."""
    world = in_flight(tmp_path, "replicate")
    assert world.inbox is not None
    assert world.live() == "cancelled"
    leave(world.inbox, RetryTasks(batch=1, operator="me", tasks=(1, 2, 3, 4)), name="0002")
    world.live(Life(drain_at_s=0.5, hard_at_s=0.6))
    assert phases(world) == {"accepted": TASKS}
    leave(world.inbox, CancelBatch(batch=1, operator="me"), name="0003")
    world.live(Life(crash_at=crash_at))
    world.live()
    assert phases(world) == {"cancelled": TASKS}
    assert len(world.bill()) == 2 * TASKS


@pytest.mark.parametrize("crash_at", range(0, 36, 3))
def test_killed_anywhere_in_a_cancel_everything_ends_and_nothing_is_bought_twice(tmp_path: Path, crash_at: int) -> None:
    """W15, LIVE-1: also between the wish for the batch and the one for each job."""
    world = in_flight(tmp_path, "replicate")
    world.live(Life(crash_at=crash_at))
    world.live()
    jobs = {line.job: line for line in world.bill()}
    assert len(jobs) == TASKS
    assert set(phases(world)) <= {"cancelled", "succeeded"}
    with Reader(world.path) as reader:
        for row in reader.tasks(1):
            job = jobs[reader.state(task_stream(1, row.n)).attempts[0].job]
            assert (job.state == "succeeded") == (row.phase == "succeeded")
    assert any(line.state != "succeeded" for line in jobs.values())


def test_what_fails_after_a_cancel_and_a_kill_is_not_bought_again(tmp_path: Path) -> None:
    """W15, MON-6: Kie cannot stop a job, so nothing but the wish for the batch says that it is not wanted any more."""
    world = World(tmp_path, seed=1, tasks=TASKS, providers=("kie",), weather=Weather(chaos=ChaosProfile(fail_job=1.0)))
    msgspec.structs.force_setattr(world.house._settings, "latency_s", 300.0)
    world.live(Life(drain_at_s=0.5, hard_at_s=0.6))
    world.inbox = tmp_path / "inbox"
    leave(world.inbox, CancelBatch(batch=1, operator="me"), name="0001")
    crash_at = 0
    while any(world.inbox.iterdir()):
        assert world.live(Life(crash_at=crash_at)) is None
        crash_at += 1
    assert phases(world) == {"accepted": TASKS}
    assert world.live() == ""
    assert phases(world) == {"cancelled": TASKS}
    assert len(world.bill()) == TASKS


@pytest.mark.parametrize(("seen", "told"), [(LINK, ["ready"]), (Pending(), ["ended False"])])
def test_a_job_of_an_older_epoch_is_looked_at_before_its_cancel(seen: object, told: list[str]) -> None:
    """W15, MON-9: also where a cancel is free, it had the time of a restart to end."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, cancel=known(False)))
    bench.provider.say("cancel", Failed("cancelled", retryable=False))
    bench.provider.say("poll", seen)

    async def body(following: Following) -> None:
        work = await following.accepted()
        attempt = msgspec.structs.replace(work.attempt, epoch=bench.journal.epoch - 1)
        work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
        work.cancel_by = "me"
        following.poller.overdue(work)
        await trio.sleep(5.0)

    assert follow(bench, body).told == told
    assert bench.provider.count("cancel") == (told != ["ready"])


LOST = WireError("reset", sent=True)
STOPPED = Failed("cancelled", retryable=False)


@pytest.mark.parametrize(
    ("answers", "seen", "cancels", "told"),
    [
        pytest.param([LOST, STOPPED], Pending(), 2, ["ended False"], id="it had not arrived"),
        pytest.param([Unreadable("502"), STOPPED], Pending(), 2, ["ended False"], id="a gateway"),
        pytest.param([Throttled(), STOPPED], Pending(), 2, ["ended False"], id="too fast"),
        pytest.param([LOST], STOPPED, 1, ["ended False"], id="it had arrived"),
        pytest.param([LOST], LINK, 1, ["ready"], id="the image was faster"),
        pytest.param([LOST], Pending(), 2, [], id="never an answer"),
        pytest.param([Pending()], Pending(), 1, [], id="understood"),
    ],
)
def test_a_cancel_whose_answer_was_lost_is_repeated_once_in_the_same_run(
    answers: list[object], seen: object, cancels: int, told: list[str]
) -> None:
    """W15, MON-9: it was left to the next run, which may come when the job has long been charged."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, cancel=known(False)))
    bench.provider.say("cancel", *answers)
    bench.provider.say("poll", seen)

    async def body(following: Following) -> None:
        work = await following.accepted()
        work.cancel_by = "me"
        following.poller.overdue(work)
        await trio.sleep(200.0)
        assert not work.cancel_by

    assert follow(bench, body).told == told
    assert bench.provider.count("cancel") == cancels
    assert bench.journal.types().count("CancelAsked") == 1


def test_every_job_has_a_second_word() -> None:
    """W15: of a task that is bought again after the first was stopped, too."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, cancel=known(False)))
    bench.provider.say("cancel", LOST, STOPPED, LOST, STOPPED)
    bench.provider.say("poll", Pending())

    async def body(following: Following) -> None:
        for n in (1, 2):
            work = await following.accepted(n)
            work.cancel_by = "me"
            following.poller.overdue(work)
            await trio.sleep(200.0)

    assert follow(bench, body).told == ["ended False", "ended False"]
    assert bench.provider.count("cancel") == 4
