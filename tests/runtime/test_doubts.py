"""Doubtful attempts of one account: adopted, absent with proof, or unknown; never bought (REC-2, REC-4, REC-5)."""

import msgspec
import pytest
import trio

from adapters.base import (
    Finished,
    MalformedReply,
)
from runtime.ports import WireError
from runtime.simulated import EPOCH_US
from runtime.work import Work
from tests.runtime.doubting import Doubting, doubt, job, one, serve
from tests.runtime.fakes import CAPS, Bench, run


def test_a_listed_job_is_adopted_at_once() -> None:
    """REC-5."""
    bench = Bench()
    bench.provider.say("list", (job(),))
    found = doubt(bench, one, seconds=1.0)
    assert [(work.state.phase, work.attempt.job) for work in found.judged] == [("accepted", "j1")]
    assert found.passes == 1


def test_absence_is_believed_after_the_quarantine_and_not_before() -> None:
    """REC-4."""
    bench = Bench()
    bench.provider.say("list", ())
    assert doubt(bench, one, seconds=9.0).judged == []
    bench = Bench()
    bench.provider.say("list", ())
    (work,) = doubt(bench, one, seconds=14.0).judged
    assert (work.state.phase, work.attempt.phase) == ("queued", "absent")


@pytest.mark.parametrize("bound_us", [EPOCH_US, EPOCH_US - 7_200_000_000])
def test_a_job_bound_to_another_attempt_is_not_adopted(bound_us: int) -> None:
    """REC-5, REC-8: one job binds one attempt, also when it was bound while our clock was two hours slow."""
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        doubting.bound["j1"] = bound_us
        await one(doubting)

    (work,) = doubt(bench, body).judged
    assert work.attempt.phase == "absent"


def test_while_an_equal_submit_is_under_way_nothing_is_concluded() -> None:
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        doubting.busy.add("picture 1")
        await one(doubting)

    assert doubt(bench, body).judged == []


@pytest.mark.parametrize("error", [WireError("reset", sent=True), MalformedReply("page")])
def test_a_listing_that_fails_proves_nothing_and_gives_up_in_the_end(error: Exception) -> None:
    """REC-2, REC-4: buying may begin after 60 s; ripe doubts are held after five failures."""
    bench = Bench()
    bench.provider.say("list", error)
    early = doubt(bench, one, seconds=20.0)
    assert (early.judged, early.passes) == ([], 0)
    bench = Bench()
    bench.provider.say("list", error)
    late = doubt(bench, one, seconds=200.0)
    assert [work.attempt.reason for work in late.judged] == ["listing_failed"]
    assert late.passes == 1


def test_a_listing_may_fail_all_night() -> None:
    """LIVE-1: two to the power of the failures was a float too large after a thousand of them."""
    bench = Bench()
    bench.provider.say("list", WireError("reset", sent=True))
    bench.account = msgspec.structs.replace(bench.account, quarantine_s=1e9)
    doubting = doubt(bench, one, seconds=60.0 * 1200)
    assert len(doubting.asked_since) > 1100


def test_without_a_listing_a_doubt_is_held_at_once() -> None:
    bench = Bench(caps=msgspec.structs.replace(CAPS, listing=None))
    (work,) = doubt(bench, one).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "no_evidence")


def test_crashed_intents_are_named_and_only_those_of_older_epochs() -> None:
    """REC-6."""
    bench = Bench()
    bench.provider.say("list", ())
    works: list[Work] = []

    async def body(doubting: Doubting) -> None:
        works.extend([await doubting.doubtful(n, old=n == 1, named=False) for n in (1, 2)])
        for work in works:
            doubting.doubts.add(work)

    doubting = doubt(bench, body, seconds=1.0)
    assert bench.journal.types() == ["AttemptIntended", "AttemptIntended", "AttemptAmbiguous"]
    assert [work.state.phase for work in works] == ["ambiguous", "intended"]
    assert doubting.passes == 1


def test_attempts_of_another_key_are_unknown_in_every_later_run() -> None:
    """REC-9, W17: also when the run that noticed the new key was killed before it could say so."""
    bench = Bench(epoch=9)
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await doubting.doubtful(1, old=True))

    (work,) = doubt(bench, body, key_epoch=9).judged
    assert work.attempt.reason == "account_changed"
    assert bench.provider.calls == []


def test_what_has_been_in_doubt_for_long_is_looked_for_from_its_intent_on() -> None:
    """REC-4, REC-5: half an hour later, a list of the last ten minutes is without it, and it is there."""
    bench = Bench()
    bench.account = msgspec.structs.replace(bench.account, quarantine_s=3600.0)
    bench.provider.say("list", *[WireError("reset", sent=True)] * 40, (job(),))
    doubting = doubt(bench, one, seconds=3 * 3600.0)
    assert [work.attempt.job for work in doubting.judged] == ["j1"]
    assert len(doubting.asked_since) == 41
    assert max(doubting.asked_since) <= EPOCH_US


def test_a_clock_set_back_after_the_intent_does_not_hide_the_job() -> None:
    """REC-8: the listing was asked from the wrong time on, and the paid job bought again."""
    bench = Bench()
    true_us = EPOCH_US - 3_600_000_000
    bench.provider.say("list", (job(at_us=true_us),))

    async def body(doubting: Doubting) -> None:
        await one(doubting)
        bench.clock.jump(-3600.0)

    doubting = doubt(bench, body)
    assert [work.attempt.job for work in doubting.judged] == ["j1"]
    assert doubting.asked_since[0] < true_us


@pytest.mark.parametrize("old", [False, True])
def test_a_clock_set_ahead_ends_no_quarantine(old: bool) -> None:
    """REC-4, REC-8: a minute by the wall clock is none by the one that counts, also not for an older epoch's."""

    async def body(doubting: Doubting) -> None:
        work = await doubting.doubtful(1, old=old)
        doubting.bench.clock.jump(60.0)
        doubting.doubts.add(work)

    for seconds, phases in ((9.0, []), (40.0, ["absent"])):
        bench = Bench()
        bench.provider.say("list", ())
        assert [work.attempt.phase for work in doubt(bench, body, seconds=seconds).judged] == phases


def test_an_old_intent_from_the_future_proves_nothing() -> None:
    """REC-8: its recorded time is of a clock that was wrong."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await doubting.doubtful(1, old=True))
        bench.clock.jump(-7200.0)

    (work,) = doubt(bench, body).judged
    assert work.attempt.reason == "clock_changed"


def test_a_job_of_an_intent_from_the_future_is_found_all_the_same() -> None:
    """REC-5, REC-8: the clock was a day ahead when it was bought, and is right now."""
    bench = Bench()
    bench.provider.say("list", (job(prompt="picture 1", at_us=EPOCH_US - 80_000_000_000),))

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await doubting.doubtful(1, old=True))
        bench.clock.jump(-79_000.0)

    (work,) = doubt(bench, body).judged
    assert (work.state.phase, work.attempt.job) == ("accepted", "j1")


def test_a_listing_by_another_clock_proves_nothing() -> None:
    """REC-4, REC-8: the provider says what time it is."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        doubting.date = "Sun, 06 Nov 1994 08:49:37 GMT"
        await one(doubting)

    (work,) = doubt(bench, body, seconds=200.0).judged
    assert work.attempt.reason == "clock_changed"


def test_cancelled_in_a_pass_and_run_again_ends_the_same() -> None:
    """REC-3."""
    bench = Bench(latency_s=3.0)
    bench.provider.say("list", ())
    doubting = Doubting(bench)

    async def go() -> None:
        await one(doubting)
        for cut_s in (0.0, 1.0, 4.0, 40.0):
            with trio.move_on_after(cut_s):
                await serve(doubting)

    run(go)
    (work,) = doubting.judged
    assert work.attempt.phase == "absent"
    assert bench.journal.types().count("AttemptAbsent") == 1


def test_a_reply_in_the_spool_ends_the_doubt_with_the_image() -> None:
    """W14: killed between the durable image and its record."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, listing=None))

    async def body(doubting: Doubting) -> None:
        held, kept = [await doubting.doubtful(n, old=True, named=False) for n in (1, 2)]
        await bench.spool.keep(kept, 1, Finished(data=b"image", cost_microusd=7))
        doubting.doubts.add(held)
        doubting.doubts.add(kept)

    ready, held = doubt(bench, body).judged
    assert (ready.n, ready.state.phase, ready.attempt.cost_microusd) == (2, "ready", 7)
    assert (held.n, held.state.phase, held.attempt.reason) == (1, "held", "no_evidence")


def test_after_a_takeover_absence_proves_nothing_and_presence_does() -> None:
    """REC-10, W18: the other copy may have judged the attempt absent, too, and bought the task again."""
    bench = Bench()
    bench.provider.say("list", (job(prompt="picture 1"),))

    async def body(doubting: Doubting) -> None:
        for n in (1, 2):
            doubting.doubts.add(await doubting.doubtful(n, old=True))

    doubting = doubt(bench, body, taken_over=bench.journal.epoch - 1)
    found, held = sorted(doubting.judged, key=lambda work: work.n)
    assert found.state.phase == "accepted"
    assert (held.state.phase, held.attempt.reason) == ("held", "taken_over")
