"""Doubtful attempts of one account: adopted, absent with proof, or unknown; never bought (REC-2, REC-4, REC-5)."""

from collections.abc import Awaitable, Callable, Collection
from copy import copy
from typing import TypeAlias

import msgspec
import pytest
import trio

from adapters.base import (
    Failed,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    ListedJob,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Throttled,
    Unreadable,
)
from ledger.commands import Decide, Intend, Record
from ledger.events import AttemptAmbiguous, AttemptUnknown
from runtime.claims import Claims
from runtime.doubts import Doubts, evidence_of
from runtime.ports import WireError
from runtime.simulated import EPOCH_US
from runtime.trust import Trust, assume
from runtime.work import Work, WorkKey
from tests.runtime.fakes import CAPS, Bench, listed, run

Body: TypeAlias = Callable[["Doubting"], Awaitable[None]]


class Doubting:
    """One account's doubts and what they judged."""

    def __init__(
        self, bench: Bench, *, key_epoch: int = 0, taken_over: int = 0, trust: Callable[[int], Trust] = assume
    ) -> None:
        self.key_epoch = key_epoch
        self.key_in_doubt = False
        self.bench = bench
        self.judged: list[Work] = []
        self.passes = 0
        self.bound: dict[str, int] = {}  # job -> recorded time of its binding
        self.busy: set[str] = set()
        self.asked_since: list[int] = []
        self.date = ""
        self.forgotten: set[WorkKey] = set()  # of these nobody knows any more what was sent
        evidence = evidence_of(
            bench.account,
            query=self.query,
            clock=bench.clock,
            ledger_id="ledger",
            busy=lambda: self.busy,
            bound=self.bound_since,
            as_sent=self.as_sent,
        )
        self.doubts = Doubts(
            bench.account,
            log=bench.log,
            clock=bench.clock,
            random=bench.random,
            evidence=evidence,
            foreign=lambda epoch: epoch < self.key_epoch,
            key_in_doubt=lambda: self.key_in_doubt,
            spool=bench.spool,
            claims=Claims(look=self.look, bound=self.bound_ever, clock=bench.clock, visible_after_s=20.0),
            taken_over=taken_over,
            trust=trust,
        )

    async def look(self, job: str) -> PollOutcome:
        try:
            return self.bench.provider.read_poll(await self.bench.provider.send(HttpCall("GET", f"poll/{job}", {})))
        except WireError as exc:
            return Unreadable(str(exc))

    def bound_ever(self, jobs: Collection[str]) -> set[str]:
        return self.bound.keys() & set(jobs)

    async def as_sent(self, work: Work) -> ImageRequest | None:
        return None if work.key in self.forgotten else work.request

    async def query(self, call: HttpCall) -> HttpReply:
        self.asked_since.append(int(call.url.split("/")[1]))
        reply = await self.bench.provider.send(call)
        return msgspec.structs.replace(reply, headers={"date": self.date} if self.date else {})

    def bound_since(self, at_us: int) -> set[str]:
        return {job for job, bound_us in self.bound.items() if bound_us >= at_us}

    async def doubtful(self, n: int = 1, *, old: bool = False, named: bool = True, callback: bool = False) -> Work:
        """A task whose attempt is in doubt, of this epoch or of an older one."""
        work = self.bench.work(n)
        intent = Intend("fake", "fake", "1:1", "only", 40_000, "d", 0, callback=callback)
        await self.bench.log.record(work, intent)
        work.intended_at = None if old else self.bench.clock.monotonic()
        if named:
            await self.bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))
        if old:
            attempt = msgspec.structs.replace(work.attempt, epoch=self.bench.journal.epoch - 1)
            work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
        return work

    def first_pass_done(self) -> None:
        self.passes += 1


def doubt(
    bench: Bench,
    body: Callable[[Doubting], Awaitable[None]],
    *,
    seconds: float = 30.0,
    key_epoch: int = 0,
    taken_over: int = 0,
    trust: Callable[[int], Trust] = assume,
) -> Doubting:
    doubting = Doubting(bench, key_epoch=key_epoch, taken_over=taken_over, trust=trust)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            await body(doubting)
            nursery.start_soon(serve, doubting)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    run(go)
    return doubting


async def serve(doubting: Doubting) -> None:
    await doubting.doubts.run(judged=doubting.judged.append, first_pass_done=doubting.first_pass_done)


async def one(doubting: Doubting) -> None:
    doubting.doubts.add(await doubting.doubtful())


def job(name: str = "j1", prompt: str | None = "picture 1", at_us: int = EPOCH_US) -> ListedJob:
    return listed(name, prompt, at_us, Pending())


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

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await doubting.doubtful(1, old=True, named=False))

    doubting = doubt(bench, body, seconds=1.0)
    assert bench.journal.types() == ["AttemptIntended", "AttemptAmbiguous"]
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


# --- callbacks ------------------------------------------------------------------------------------------------

NO_LISTING = msgspec.structs.replace(CAPS, listing=None)


def called(*jobs: str, after_s: float = 0.0, settled: list[tuple[str, bool]] | None = None, n: int = 1) -> Body:
    """A doubtful attempt that has an address, and the jobs that callbacks name for it."""

    async def body(doubting: Doubting) -> None:
        work = await doubting.doubtful(n, callback=True)
        doubting.doubts.add(work)
        await trio.sleep(after_s)
        for job in jobs:

            def note(handled: bool, job: str = job) -> None:
                if settled is not None:
                    settled.append((job, handled))

            doubting.doubts.claim(work, job, note)

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


# --- how sure a fact must be -----------------------------------------------------------------------------------


def documented(batch: int) -> Trust:
    return "documented"


def test_an_absence_that_rests_on_an_assumption_is_not_believed_where_documents_are_asked_for() -> None:
    """REC-4: the listing of the fake provider is assumed to be complete; the job of a found one is believed all the
    same, for nothing is bought by it."""
    bench = Bench()
    bench.provider.say("list", ())
    (work,) = doubt(bench, one, trust=documented).judged
    assert (work.state.phase, work.attempt.phase, work.attempt.reason) == ("held", "unknown", "listing_assumed")
    bench = Bench()
    bench.provider.say("list", (job(),))
    (work,) = doubt(bench, one, seconds=1.0, trust=documented).judged
    assert work.attempt.job == "j1"


def test_an_absence_that_rests_on_a_document_is_believed() -> None:
    """REC-4."""
    assert CAPS.listing is not None
    sure = msgspec.structs.replace(CAPS, listing=msgspec.structs.replace(CAPS.listing, mark="confirmed"))
    bench = Bench(caps=sure)
    bench.provider.say("list", ())
    (work,) = doubt(bench, one, trust=documented).judged
    assert work.attempt.phase == "absent"


def test_a_disbelieved_answer_is_named_where_nobody_can_be_asked() -> None:
    bench = Bench(caps=NO_LISTING)

    async def body(doubting: Doubting) -> None:
        work = await doubting.doubtful(named=False)
        await bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="answer_assumed")))
        doubting.doubts.add(work)

    (work,) = doubt(bench, body).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "answer_assumed")


# --- a key that was replaced -------------------------------------------------------------------------------------


def test_while_nobody_knows_whose_the_key_is_nothing_is_concluded() -> None:
    """REC-9, REC-2: what the other key bought waits, and holds up nothing else."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        doubting.key_epoch, doubting.key_in_doubt = 9, True
        doubting.doubts.add(await doubting.doubtful(1))

    waiting = doubt(bench, body)
    assert (waiting.judged, waiting.passes) == ([], 1)


def test_once_the_key_is_known_its_evidence_counts() -> None:
    """REC-9."""
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        doubting.key_epoch, doubting.key_in_doubt = 9, True
        doubting.doubts.add(await doubting.doubtful(1))

        async def know() -> None:
            await trio.sleep(5.0)
            doubting.key_epoch, doubting.key_in_doubt = 0, False
            doubting.doubts.look_now()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(know)
            nursery.start_soon(serve, doubting)
            await trio.sleep(6.0)
            assert [work.attempt.job for work in doubting.judged] == ["j1"]
            nursery.cancel_scope.cancel()

    doubt(bench, body, seconds=0.0)


async def held_by_key(doubting: Doubting) -> Work:
    """A task that an earlier run held, for it had another key."""
    work = await doubting.doubtful(1, old=True)
    await doubting.bench.log.record(work, Record(AttemptUnknown(attempt=1, reason="account_changed")))
    assert work.state.phase == "held"
    return work


@pytest.mark.parametrize(("listed", "phase"), [((job(),), "accepted"), ((), "absent")])
def test_what_another_key_held_is_judged_once_that_key_is_known(listed: tuple[ListedJob, ...], phase: str) -> None:
    """REC-9, LIVE-1."""
    bench = Bench()
    bench.provider.say("list", listed)

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await held_by_key(doubting))

    (work,) = doubt(bench, body).judged
    assert work.attempt.phase == phase


def test_what_nobody_can_be_asked_about_stays_held() -> None:
    bench = Bench(caps=NO_LISTING)

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await held_by_key(doubting))

    (work,) = doubt(bench, body).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "account_changed")


def test_an_operator_who_decides_meanwhile_is_not_overruled() -> None:
    """MON-2: the task is bought again by its word, and the judgement lets go of it."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        work = await held_by_key(doubting)
        doubting.doubts.add(work)
        await bench.log.record(work, Decide("ann", "buy_again", 1))

    doubting = doubt(bench, body)
    assert doubting.judged == []
    assert len(doubting.doubts) == 0


def test_an_operator_whose_decision_nobody_here_has_heard_of_is_not_overruled_either() -> None:
    """The run ended with a conflict of two owners, which is a bug everywhere else."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        work = await held_by_key(doubting)
        doubting.doubts.add(work)
        await bench.log.record(copy(work), Decide("ann", "give_up", 1))

    (work,) = doubt(bench, body).judged
    assert work.state.phase == "held"
    assert "AttemptAbsent" not in bench.journal.types()


def test_a_job_that_came_too_late_for_one_attempt_is_there_for_an_equal_one() -> None:
    """LIVE-1, REC-5: an operator was faster than the verdict.  The other one waited for the job for ever."""
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        held, other = await held_by_key(doubting), await doubting.doubtful(2)
        other.wanted = held.wanted
        for work in (held, other):
            doubting.doubts.add(work)
        await bench.log.record(copy(held), Decide("ann", "give_up", 1))

    judged = doubt(bench, body).judged
    assert [(work.n, work.attempt.job) for work in judged] == [(1, ""), (2, "j1")]
