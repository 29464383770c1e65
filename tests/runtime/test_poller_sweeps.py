"""Many jobs in one call, where a provider tells of them together (LIVE-1, REC-8)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import pytest
import trio

from adapters.base import Context, Failed, HttpCall, HttpReply, MalformedReply, Pending, PollOutcome
from runtime.ports import WireError
from tests.runtime.fakes import CAPS, Bench, FakeProvider
from tests.runtime.polling import LINK, Following, follow


class Sweeper(FakeProvider):
    """A provider that tells the states of many jobs in one call."""

    sweep_size = 5

    def build_sweep(self, jobs: Sequence[str], ctx: Context, *, since_us: int, until_us: int) -> HttpCall:
        assert since_us < until_us
        return HttpCall("GET", f"sweep/{','.join(jobs)}", {})

    def read_sweep(self, reply: HttpReply) -> Mapping[str, PollOutcome]:
        told = self._told[int(reply.body)]
        if isinstance(told, MalformedReply):
            raise told
        assert isinstance(told, dict)
        return told


def sweeping() -> Bench:
    bench = Bench()
    bench.provider = Sweeper(caps=CAPS)
    bench.account = msgspec.structs.replace(bench.account, codec=bench.provider)
    return bench


def follows(count: int, seconds: float = 60.0) -> Callable[[Following], Awaitable[None]]:
    async def body(following: Following) -> None:
        works = [await following.accepted(n) for n in range(1, count + 1)]
        for work in works:
            following.poller.overdue(work)
        await trio.sleep(seconds)

    return body


def test_jobs_that_are_due_together_are_asked_for_in_one_call() -> None:
    bench = sweeping()
    bench.provider.say("sweep", {f"j{n}": LINK for n in range(1, 13)})
    bench.provider.say("poll", LINK)  # of the two that are left over
    assert follow(bench, follows(12)).told == ["ready"] * 12
    asked = [call.removeprefix("sweep/").split(",") for call in bench.provider.calls if call.startswith("sweep")]
    assert max(len(jobs) for jobs in asked) == 5
    assert len(bench.provider.calls) < 12
    swept = [job for jobs in asked for job in jobs]
    assert len(swept) == len(set(swept))


def test_the_one_call_asks_for_a_time_that_ends_after_it_begins_also_when_the_clock_was_set_back() -> None:
    """REC-8: the actor failed over and over until the clock had caught up."""
    bench = sweeping()
    bench.provider.say("sweep", {f"j{n}": LINK for n in range(1, 4)})

    async def body(following: Following) -> None:
        works = [await following.accepted(n) for n in range(1, 4)]
        bench.clock.jump(-7_200.0)
        for work in works:
            following.poller.overdue(work)
        await trio.sleep(60.0)

    assert follow(bench, body).told == ["ready"] * 3
    assert bench.provider.count("sweep") == 1


def test_a_job_that_the_one_call_leaves_out_is_polled_by_itself() -> None:
    bench = sweeping()
    bench.provider.say("sweep", {"j1": LINK, "j3": Pending()}, {})
    bench.provider.say("poll", LINK)
    assert follow(bench, follows(3)).told == ["ready"] * 3
    assert sum(call == "poll/j2" for call in bench.provider.calls) == 1
    assert "poll/j1" not in bench.provider.calls


def test_the_end_of_the_one_call_sets_no_job_free_that_is_polled_again_already() -> None:
    """LIVE-1: it did so to all its jobs, however long it went on with the others. Then a cancel had a job asked for
    twice at one time, its image was fetched twice, and the night ended with an internal error."""
    bench = sweeping()
    bench.provider.say("sweep", {"j1": Pending(), "j3": LINK})
    bench.provider.say("poll", LINK)
    seconds = {"poll/j2": 20.0, "poll/j1": 60.0}

    def slowly(kind: str) -> None:
        bench.provider.latency_s = seconds.get(bench.provider.calls[-1], 0.1)

    bench.provider.before = slowly

    async def body(following: Following) -> None:
        works = [await following.accepted(n) for n in range(1, 4)]
        for work in works:
            following.poller.overdue(work)
        await trio.sleep(25.0)  # the second job was asked for by itself, and the first one is being asked for again
        assert following.told == ["ready", "ready"]
        following.poller.overdue(works[0])
        await trio.sleep(100.0)

    assert follow(bench, body).told == ["ready"] * 3
    assert bench.provider.calls.count("poll/j1") == 1


@pytest.mark.parametrize("trouble", [MalformedReply("404"), WireError("reset", sent=True)])
def test_without_the_one_call_every_job_is_polled(trouble: Exception) -> None:
    bench = sweeping()
    bench.provider.say("sweep", trouble)
    bench.provider.say("poll", LINK)
    assert follow(bench, follows(4)).told == ["ready"] * 4
    assert (bench.provider.count("sweep"), bench.provider.count("poll")) == (1, 4)


def test_two_jobs_are_not_worth_it_and_a_cancel_is_told_to_the_job_itself() -> None:
    bench = sweeping()
    bench.provider.say("sweep", {f"j{n}": LINK for n in range(1, 4)})
    bench.provider.say("poll", LINK)
    assert follow(bench, follows(2)).told == ["ready"] * 2
    assert bench.provider.count("sweep") == 0

    async def cancelled(following: Following) -> None:
        works = [await following.accepted(n) for n in range(3, 6)]
        works[0].cancel_by = "ann"
        for work in works:
            following.poller.overdue(work)
        await trio.sleep(10.0)

    bench.provider.say("cancel", Failed("cancelled", retryable=False))
    bench.provider.answers["sweep"].clear()
    bench.provider.say("sweep", {f"j{n}": LINK for n in range(3, 6)})
    assert sorted(follow(bench, cancelled).told) == ["ended False", "ready", "ready"]
    assert bench.provider.count("cancel") == 1
