"""Doubtful attempts about which a callback came: looked at, and adopted only when the job is there (REC-7)."""

import pytest
import trio

from adapters.base import (
    Failed,
    Finished,
    Gone,
    NotVisible,
    Pending,
    PollOutcome,
    Throttled,
    Unreadable,
)
from runtime.ports import WireError
from tests.runtime.doubting import NO_LISTING, Body, Doubting, doubt, job
from tests.runtime.fakes import Bench


def called(*jobs: str, after_s: float = 0.0, settled: list[tuple[str, bool]] | None = None, n: int = 1) -> Body:
    """A doubtful attempt that has an address, and the jobs that callbacks name for it."""

    async def body(doubting: Doubting) -> None:
        work = await doubting.doubtful(n, callback=True)
        doubting.doubts.add(work)
        await trio.sleep(after_s)
        for name in jobs:

            def note(handled: bool, name: str = name) -> None:
                if settled is not None:
                    settled.append((name, handled))

            doubting.doubts.claim(work, name, note)

    return body


@pytest.mark.parametrize(
    "answer", [Pending(), Finished(url="https://x/1.png"), Failed("policy", retryable=False), Gone()]
)
def test_a_job_that_a_callback_names_is_adopted_when_it_is_there(answer: PollOutcome) -> None:
    """REC-5, REC-7, W4 at class C: it answers, and it is nobody's."""
    bench = Bench(caps=NO_LISTING)
    bench.provider.say("poll", answer)
    settled: list[tuple[str, bool]] = []
    (work,) = doubt(bench, called("j9", settled=settled), seconds=3.0).judged
    assert (work.state.phase, work.attempt.job, work.attempt.adopted_by) == ("accepted", "j9", "callback")
    assert settled == [("j9", True)]


def test_a_job_that_another_attempt_has_is_not_adopted_by_a_callback() -> None:
    """REC-5: one job binds one attempt."""
    bench = Bench(caps=NO_LISTING)
    bench.provider.say("poll", Pending())
    settled: list[tuple[str, bool]] = []

    async def body(doubting: Doubting) -> None:
        doubting.bound["j9"] = 0
        await called("j9", settled=settled)(doubting)

    assert doubt(bench, body, seconds=5.0).judged == []
    assert settled == [("j9", True)]


def test_one_job_named_for_two_attempts_is_given_to_one() -> None:
    """REC-5: also when both are judged in the same moment."""
    bench = Bench(caps=NO_LISTING)
    bench.provider.say("poll", Pending())

    async def body(doubting: Doubting) -> None:
        await called("j9")(doubting)
        await called("j9", n=2)(doubting)

    assert [work.state.phase for work in doubt(bench, body, seconds=10.0).judged] == ["accepted"]


@pytest.mark.parametrize("trouble", [WireError("reset", sent=True), Unreadable("503"), Throttled(1.0), NotVisible()])
def test_a_callback_is_looked_at_again_while_that_cannot_be_done(trouble: object) -> None:
    bench = Bench(caps=NO_LISTING)
    bench.provider.say("poll", trouble, trouble, Pending())
    (work,) = doubt(bench, called("j9"), seconds=20.0).judged
    assert work.attempt.job == "j9"


def test_a_named_job_that_is_never_seen_is_dropped() -> None:
    bench = Bench(caps=NO_LISTING)
    bench.provider.say("poll", NotVisible())
    settled: list[tuple[str, bool]] = []
    assert doubt(bench, called("j9", settled=settled), seconds=29.0).judged == []
    assert settled == [("j9", True)]


@pytest.mark.parametrize(
    ("listed", "reason"), [((job(prompt=None),), "several_fit"), (WireError("reset", sent=True), "listing_failed")]
)
def test_a_listing_that_cannot_tell_leaves_it_to_the_callback_for_a_while(listed: object, reason: str) -> None:
    """WaveSpeed's history shows neither marker nor input: it proves absence, and a callback presence."""
    bench = Bench()
    bench.provider.say("list", listed)
    assert doubt(bench, called(), seconds=29.0).judged == []
    bench = Bench()
    bench.provider.say("list", listed)
    (work,) = doubt(bench, called(), seconds=300.0).judged
    assert (work.state.phase, work.attempt.reason) == ("held", reason)


def test_without_a_listing_a_doubt_waits_for_its_callback() -> None:
    """The quarantine of 10 s, and ten times the usual time of a job (2 s)."""
    bench = Bench(caps=NO_LISTING)
    assert doubt(bench, called(), seconds=29.0).judged == []
    bench = Bench(caps=NO_LISTING)
    (work,) = doubt(bench, called(), seconds=34.0).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "no_evidence")


def test_with_a_listing_a_callback_is_only_faster() -> None:
    bench = Bench()
    bench.provider.say("poll", Pending())
    bench.provider.say("list", ())
    (work,) = doubt(bench, called("j9"), seconds=5.0).judged
    assert work.attempt.adopted_by == "callback"


def test_a_claim_on_a_doubt_that_ended_is_handed_back() -> None:
    """Its file stays: as the attempt is now, it may lead elsewhere."""
    bench = Bench()
    bench.provider.say("poll", Unreadable("503"))
    bench.provider.say("list", (job(),))
    settled: list[tuple[str, bool]] = []

    async def body(doubting: Doubting) -> None:
        await called("j9", settled=settled)(doubting)

    (work,) = doubt(bench, body, seconds=2.0).judged
    assert work.attempt.adopted_by == "listing"
    assert settled == [("j9", False)]

    async def late(doubting: Doubting) -> None:
        work = await doubting.doubtful(3, callback=True)
        doubting.doubts.claim(work, "j3", lambda handled: settled.append(("j3", handled)))

    doubt(bench, late, seconds=1.0)
    assert settled[-1] == ("j3", False)
