"""Jobs whose answers nobody can read, such as a success without an address of its image: asked for long enough, then
left open for the next run, and lost only when the result must have expired (RES-6, LIVE-1)."""

from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import HttpCall, MalformedReply, Pending, Unreadable
from adapters.sandbox.base import Reply
from ledger.reader import Reader
from runtime.ports import WireError
from tests.runtime.fakes import Bench
from tests.runtime.polling import LINK, Following, follow
from tests.simulation.checker import problems
from tests.simulation.world import World

GARBLED = MalformedReply("task: a success without a result URL")
DAY_S = 86_400.0


@pytest.mark.parametrize("older", [False, True])
def test_it_is_asked_for_a_while_and_then_left_to_the_next_run(older: bool) -> None:
    """LIVE-1: it was polled for ever, and no night ended.  It stays accepted: it is paid, and may yet be read."""
    bench = Bench()
    bench.provider.say("poll", GARBLED)

    async def body(following: Following) -> None:
        work = await following.accepted()
        bench.journal.epoch += older
        following.poller.overdue(work)
        await trio.sleep(50.0 if older else 590.0)
        assert following.told == []
        await trio.sleep(60.0)
        assert work.state.phase == "accepted"

    assert follow(bench, body).told == ["stranded"]
    assert "AttemptLost" not in bench.journal.types()


@pytest.mark.parametrize("older", [False, True])
def test_a_state_that_nobody_knows_is_running_for_an_hour(older: bool) -> None:
    """LIVE-1, MON-6: it counted as running for ever; then the job is left to the next run, and bought by none."""
    bench = Bench()
    bench.provider.say("poll", Pending("upscaling"))

    async def body(following: Following) -> None:
        work = await following.accepted()
        bench.journal.epoch += older
        following.poller.overdue(work)
        await trio.sleep(3_590.0)
        assert following.told == []
        await trio.sleep(120.0)
        assert work.state.phase == "accepted"

    assert follow(bench, body).told == ["stranded"]
    assert "AttemptLost" not in bench.journal.types()


def test_a_known_state_begins_that_hour_anew() -> None:
    bench = Bench()
    bench.provider.say("poll", *[Pending("upscaling")] * 100, Pending(), Pending("upscaling"))

    async def body(following: Following) -> None:
        following.poller.overdue(await following.accepted())
        await trio.sleep(3_700.0)

    assert follow(bench, body).told == []


def test_it_is_taken_when_it_can_be_read_after_all() -> None:
    bench = Bench()
    bench.provider.say("poll", *[GARBLED] * 20, LINK)

    async def body(following: Following) -> None:
        following.poller.overdue(await following.accepted())
        await trio.sleep(590.0)

    assert follow(bench, body).told == ["ready"]


@pytest.mark.parametrize("between", [Unreadable("503"), WireError("reset", sent=True), Pending()])
def test_what_comes_between_begins_the_wait_anew_only_if_it_was_read(between: object) -> None:
    bench = Bench()
    bench.provider.say("poll", *[GARBLED] * 30, between, GARBLED)

    async def body(following: Following) -> None:
        following.poller.overdue(await following.accepted())
        await trio.sleep(660.0)

    assert follow(bench, body).told == ([] if isinstance(between, Pending) else ["stranded"])


@pytest.mark.parametrize(("days", "told"), [(0.5, "stranded"), (3.0, "ended False")])
def test_it_is_lost_when_its_result_has_expired(days: float, told: str) -> None:
    """RES-6: of the fake provider results are kept for an hour, and a job may take one."""
    bench = Bench()
    bench.provider.say("poll", GARBLED)
    caps = bench.provider.capabilities
    bench.provider.capabilities = msgspec.structs.replace(
        caps, result_life_s=msgspec.structs.replace(caps.result_life_s, value=DAY_S)
    )

    async def body(following: Following) -> None:
        work = await following.accepted()
        bench.journal.epoch += 1
        bench.clock.jump(days * DAY_S)
        following.poller.overdue(work)
        await trio.sleep(120.0)

    assert follow(bench, body).told == [told]
    assert ("AttemptLost" in bench.journal.types()) == (told != "stranded")


@pytest.mark.parametrize("provider", ["kie", "apipass", "toapis"])
def test_a_success_without_an_address_keeps_no_night_from_ending(tmp_path: Path, provider: str) -> None:
    """LIVE-1, MON-2: the run ends and says so, nothing is bought again, and the next run brings the images home."""
    world = World(tmp_path, seed=1, tasks=3, providers=(provider,))
    serve = world.serve

    def without_addresses(call: HttpCall) -> Reply:
        reply = serve(call)
        return msgspec.structs.replace(reply, body=reply.body.replace(b"http", b"none"))

    world.serve = without_addresses  # type: ignore[method-assign]
    assert world.live() == "no_provider"
    with Reader(world.path) as reader:
        assert {row.state for row in reader.counts(1)} == {"accepted"}
    world.serve = serve  # type: ignore[method-assign]
    assert world.live() == ""
    assert problems(world) == []
    assert len(world.bill()) == 3
