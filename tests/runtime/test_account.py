"""The account actor: buys within its limits, follows what it bought, and survives its own death (LIVE-4, MON-3)."""

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import (
    Accepted,
    Failed,
    Finished,
    Gone,
    NotVisible,
    Pending,
    PollOutcome,
    Refused,
    SubmitOutcome,
    Throttled,
    Unclear,
    Unreadable,
)
from adapters.capabilities import Rate
from ledger.commands import Decide, Intend, Record
from ledger.decisions import Reserve
from ledger.events import (
    AccountParked,
    AttemptAccepted,
    AttemptAmbiguous,
    AttemptFailed,
    AttemptUnknown,
    Overcharged,
    ResultReady,
)
from runtime.account import AccountActor, Hands
from runtime.accountparts import Needs
from runtime.gateway import Gateway, Submission
from runtime.ports import WireError
from runtime.simulated import EPOCH_US
from runtime.supervisor import supervise
from runtime.work import Work
from tests.runtime.fakes import CAPS, Bench, known, listed, nothing, run

LINK = Finished(url="https://x/1.png")


class Desk:
    """One account at work, and whom it told what."""

    def __init__(self, bench: Bench, *, key_epoch: int = 0) -> None:
        self.bench = bench
        self.told: list[tuple[str, int]] = []
        self.gateway = Gateway(bench.log, bench.provider, bench.clock, "ledger", bench.spool)
        self.account_log = bench.account_log(key_epoch=key_epoch)
        self.actor = AccountActor(
            bench.account,
            Needs(
                gateway=self.gateway,
                log=bench.log,
                account_log=self.account_log,
                wire=bench.provider,
                clock=bench.clock,
                random=bench.random,
                ledger_id="ledger",
                spool=bench.spool,
                files=bench.files,
                text=bench.journal.texts.get,
                bound=lambda at_us: set(),
                taken=lambda jobs: set(),
            ),
            Hands(
                give_back=lambda work: self.told.append(("queued", work.n)),
                ready=lambda work, actor: self.told.append(("ready", work.n)),
                settled=lambda work: self.told.append(("settled", work.n)),
                left=lambda work: self.told.append(("left", work.n)),
                stays_held=lambda work: self.told.append(("stays held", work.n)),
                blocked=lambda submission, exceeded: self.told.append(("blocked", submission.work.n)),
                moved=lambda: None,
            ),
        )

    def offer(self, *works: Work) -> None:
        for work in works:
            self.actor.offer(
                Submission(work, self.bench.account, work.request.aspect, "only", 40_000, lambda at_us: (), nothing)
            )

    async def open_work(self, n: int = 1, *, job: str = "j1", ready: bool = False, old: bool = True) -> Work:
        """A task with an open attempt of an older epoch: crashed in its submit, or followed when ``job`` is given."""
        log, work = self.bench.log, self.bench.work(n)
        await log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        if job:
            await log.record(work, Record(AttemptAccepted(attempt=1, job=job)))
        if ready:
            fact = ResultReady(attempt=1, expires_at_us=self.bench.clock.now_us() + n * 1_000_000)
            await log.record(work, Record(fact))
        attempt = msgspec.structs.replace(work.attempt, epoch=self.bench.journal.epoch - old)
        work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
        return work

    async def supervised(self) -> None:
        bench = self.bench
        await supervise("account", self.actor.run, clock=bench.clock, random=bench.random, on_parked=self.actor.give_up)


def at_work(
    bench: Bench, body: Callable[[Desk], Awaitable[None]], *, seconds: float = 30.0, key_epoch: int = 0
) -> Desk:
    desk = Desk(bench, key_epoch=key_epoch)

    async def go() -> None:
        async with trio.open_nursery() as outer:
            await outer.start(desk.gateway.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.supervised)
                await trio.sleep(0.2)
                await body(desk)
                await trio.sleep(seconds)
                nursery.cancel_scope.cancel()
            await desk.actor.write_diary()
            outer.cancel_scope.cancel()

    run(go)
    return desk


def buys(*, works: int = 1, aspects: Sequence[str] = ("1:1",)) -> Callable[[Desk], Awaitable[None]]:
    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        desk.offer(*(desk.bench.work(n, aspect=aspects[n % len(aspects)]) for n in range(1, works + 1)))

    return body


def test_a_task_goes_from_the_offer_to_ready() -> None:
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending(), LINK)
    desk = at_work(bench, buys())
    assert desk.told == [("ready", 1)]
    assert bench.journal.types()[:3] == ["AttemptIntended", "AttemptAccepted", "ResultReady"]
    assert desk.actor.in_flight == 0


@pytest.mark.parametrize(
    ("answer", "told", "events"),
    [
        (Refused("invalid"), "settled", ["AttemptIntended", "AttemptRejected", "TaskFailed"]),
        (Refused("unavailable"), "queued", ["AttemptIntended", "AttemptRejected"]),
        (Throttled(1.0), "queued", ["AttemptIntended", "AttemptRejected"]),
        (WireError("no", sent=False), "queued", ["AttemptIntended", "AttemptNotSent"]),
        (Refused("no_credit"), "queued", ["AttemptIntended", "AttemptRejected", "AccountParked"]),
    ],
)
def test_what_was_not_bought_goes_back(answer: SubmitOutcome, told: str, events: list[str]) -> None:
    bench = Bench()
    bench.provider.say("submit", answer)
    desk = at_work(bench, buys(), seconds=20.0)
    assert desk.told == [(told, 1)]
    assert bench.journal.types() == events
    assert desk.actor.in_flight == 0


def test_a_refusal_by_a_guard_is_told_and_frees_the_lane() -> None:
    """MON-3, MON-8."""
    bench = Bench()
    bench.journal.refuses = lambda guard: True

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        guard = Reserve("batch/1", 1)
        submission = Submission(
            desk.bench.work(), desk.bench.account, "1:1", "only", 1, lambda at_us: (guard,), nothing
        )
        desk.actor.offer(submission)

    desk = at_work(bench, body)
    assert desk.told == [("blocked", 1)]
    assert desk.actor.in_flight == 0


def test_concurrency_and_rate_bound_the_submits() -> None:
    """MON-3."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, concurrency=known(2), submit_rate=known(Rate(3, 100.0))))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    desk = at_work(bench, buys(works=5), seconds=90.0)
    assert bench.provider.count("submit") <= 3
    assert desk.actor.in_flight <= 3


def test_a_throttled_probe_does_not_shut_the_lane_for_ever() -> None:
    """LIVE-1: the half-open breaker waited for an outcome that a 429 never was."""
    bench = Bench()
    bench.provider.say("submit", *[Refused("unavailable")] * 5, Throttled(1.0), Accepted("j1"))
    bench.provider.say("poll", Pending())

    async def body(desk: Desk) -> None:
        for _ in range(40):
            await trio.sleep(2.0)
            if desk.actor.room("1:1") > 0 and not desk.actor.in_flight:
                desk.offer(desk.bench.work(len(desk.told) + 100))

    desk = at_work(bench, body)
    assert desk.actor.in_flight == 1


def test_an_open_lane_gives_its_queue_back() -> None:
    """LIVE-3: other accounts may take the tasks, and the other lanes of this one have room again."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, submit_rate=known(Rate(2, 1.0))))
    bench.provider.say("submit", Refused("unavailable"))

    async def body(desk: Desk) -> None:
        desk.offer(*(desk.bench.work(n) for n in range(1, 10)))
        await trio.sleep(3.0)
        assert desk.actor.room("1:1") == 0
        assert desk.actor.room("16:9") == 2

    desk = at_work(bench, body, seconds=0.0)
    assert sorted(desk.told) == [("queued", n) for n in range(1, 10)]


def test_a_lane_that_waits_for_its_jobs_leaves_room_in_the_others() -> None:
    """LIVE-3: what waited there counted against the whole account."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, concurrency=known(1), submit_rate=known(Rate(2, 1.0))))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())

    async def body(desk: Desk) -> None:
        desk.offer(*(desk.bench.work(n) for n in (1, 2, 3)))
        await trio.sleep(20.0)
        assert desk.actor.room("16:9") == 1

    at_work(bench, body)


def test_recovery_spends_nothing_until_the_first_listing() -> None:
    """REC-2, REC-6: no room before; the crashed intent is adopted, the followed job polled, the ready one passed on."""
    bench = Bench(latency_s=5.0)
    bench.provider.say("list", (listed("j9", "picture 9", EPOCH_US, Pending()),))
    bench.provider.say("poll", LINK)
    desk = Desk(bench)

    async def go() -> None:
        crashed = await desk.open_work(9, job="")
        followed, ready = await desk.open_work(2), await desk.open_work(3, ready=True)
        desk.actor.take_over([crashed, followed, ready], [], {"1:1": 7})
        assert ready.expires < float("inf")  # RES-6
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.gateway.run)
            nursery.start_soon(desk.supervised)
            await trio.sleep(1.0)
            assert desk.told == [("ready", 3)]
            assert desk.actor.room("1:1") == 0
            await trio.sleep(60.0)
            assert desk.actor.room("1:1") == 7
            nursery.cancel_scope.cancel()

    run(go)
    assert sorted(desk.told) == [("ready", 2), ("ready", 3), ("ready", 9)]
    assert desk.actor.in_flight == 0


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_a_restarted_actor_goes_on_with_what_it_owns(deaths: int) -> None:
    """LIVE-4, LIVE-2: each death comes in the middle of a poll; nothing is bought or told twice."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", *[RuntimeError("bug")] * deaths, LINK)
    desk = at_work(bench, buys(works=3), seconds=60.0)
    assert sorted(desk.told) == [("ready", 1), ("ready", 2), ("ready", 3)]
    assert bench.provider.count("submit") == 3
    assert desk.actor.in_flight == 0


def test_an_actor_over_its_budget_lets_go_of_everything() -> None:
    """LIVE-4: nobody followed its jobs any more, and the night waited for them for ever."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", RuntimeError("bug"))
    desk = at_work(bench, buys(works=2), seconds=100.0)
    assert sorted(desk.told) == [("left", 1), ("left", 2)]
    assert desk.actor.room("1:1") == 0
    parked = [event for event in bench.journal.events if isinstance(event, AccountParked)]
    assert len(parked) == 1


def test_a_job_that_an_operator_adopts_while_it_is_looked_up_is_followed_also_after_a_restart() -> None:
    """LIVE-1, LIVE-4: the lookup that ended in vain took it from its account's hands, and the night never ended."""
    bench = Bench()
    bench.provider.say("list", ())
    bench.provider.say("poll", Pending())

    async def body(desk: Desk) -> None:
        held = await desk.open_work(1, job="")
        await bench.log.record(held, Record(AttemptAmbiguous(attempt=1, reason="crash")))
        await bench.log.record(held, Record(AttemptUnknown(attempt=1, reason="listing_failed")))
        desk.actor.take_over([held], [], {})
        adopted = copy(held)
        await bench.log.record(adopted, Decide("ann", "adopt", 1, job="j1"))
        desk.actor.follow_adopted(adopted)
        await trio.sleep(30.0)
        assert desk.told == [("stays held", 1)]
        bench.provider.say("poll", RuntimeError("bug"), LINK)

    assert at_work(bench, body).told == [("stays held", 1), ("ready", 1)]


def test_an_answer_that_comes_after_the_actor_died_is_let_go_of_too() -> None:
    """LIVE-4: the gateway outlives the actor; its record stands, the next run follows the job."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())

    async def body(desk: Desk) -> None:
        work = desk.bench.work(1)
        desk.offer(work)
        await trio.sleep(0.05)
        assert bench.journal.types() == ["AttemptIntended"]
        desk.actor.give_up("dead")
        assert desk.told == []
        await trio.sleep(1.0)
        assert work.state.phase == "accepted"

    assert at_work(bench, body).told == [("left", 1)]


def test_unclear_answers_are_looked_up_and_never_sent_again() -> None:
    """MON-2, MON-5, LIVE-1."""
    bench = Bench()
    bench.provider.say("submit", Unclear("what"))
    bench.provider.say("list", ())
    desk = at_work(bench, buys(), seconds=20.0)
    assert desk.told == [("queued", 1)]
    assert bench.provider.count("submit") == 1
    assert bench.journal.types() == ["AttemptIntended", "AttemptAmbiguous", "AttemptAbsent"]


def test_parked_keeps_following_and_gives_back_what_was_not_begun() -> None:
    """LIVE-4."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, concurrency=known(1)))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending(), LINK)

    async def body(desk: Desk) -> None:
        desk.offer(desk.bench.work(1), desk.bench.work(2))
        await trio.sleep(0.05)  # the first one is on its way, the second waits for it
        desk.actor.park("no_credit")
        assert desk.told == [("queued", 2)]

    assert at_work(bench, body).told == [("queued", 2), ("ready", 1)]


def test_what_happened_last_is_in_the_diary_too() -> None:
    """MON-8: an overcharge of the last image came with the end of the night, and was not recorded."""
    bench = Bench()

    async def body(desk: Desk) -> None:
        work = await desk.open_work()
        await bench.log.record(work, Record(AttemptFailed(attempt=1, reason="provider", cost_microusd=50_000)))
        desk.actor.charged(work, 1)

    at_work(bench, body, seconds=0.0)
    assert sorted(bench.journal.types()[-2:]) == ["AccountParked", "Overcharged"]


def test_a_failure_that_is_charged_above_the_ceiling_parks_the_account() -> None:
    """MON-8: it was recorded, and the account went on buying; told of a job, and inside an answer."""
    dear = Failed("provider", cost_microusd=90_000)
    told = Overcharged(batch=1, task=1, attempt=1, ceiling_microusd=40_000, charged_microusd=90_000)

    async def buy(desk: Desk) -> None:
        desk.offer(desk.bench.work(1))

    by_poll, at_once = Bench(), Bench()
    by_poll.provider.say("submit", Accepted("j1"))
    by_poll.provider.say("poll", dear)
    at_once.provider.say("submit", dear)
    for bench in (by_poll, at_once):
        assert at_work(bench, buy).actor.parked.startswith("overcharge")
        assert [event for event in bench.journal.events if isinstance(event, Overcharged)] == [told]


def test_a_charge_is_told_of_the_purchase_that_was_charged() -> None:
    """MON-8: of two purchases of a task, the newest one was named, with its ceiling."""
    bench = Bench()

    async def body(desk: Desk) -> None:
        work, log = desk.bench.work(), desk.bench.log
        await log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        await log.record(work, Record(AttemptFailed(attempt=1, reason="provider", cost_microusd=50_000)))
        await log.record(work, Intend("fake", "fake", "1:1", "only", 60_000, "d", 0))
        await log.record(work, Record(AttemptAmbiguous(attempt=2, reason="no_reply")))
        await log.record(work, Record(AttemptUnknown(attempt=2, reason="no_evidence")))
        desk.actor.charged(work, 1)

    at_work(bench, body, seconds=0.0)
    (told,) = (event for event in bench.journal.events if isinstance(event, Overcharged))
    assert (told.attempt, told.ceiling_microusd, told.charged_microusd) == (1, 40_000, 50_000)


def test_a_fresh_link_is_asked_for_in_the_slower_place_only_with_the_same_key() -> None:
    """REC-9."""
    bench = Bench()
    bench.provider.say("poll", NotVisible(), Unreadable("500"))

    async def body(desk: Desk) -> None:
        work = await desk.open_work(old=False)
        assert isinstance(await desk.actor.ask(work), NotVisible)
        assert isinstance(await desk.actor.ask(work), Unreadable)

    at_work(bench, body, key_epoch=5)


@pytest.mark.parametrize("answer", [Failed("provider"), Gone("gone"), NotVisible()])
def test_what_another_key_is_told_of_a_ready_job_proves_nothing(answer: PollOutcome) -> None:
    """REC-9: its result is not lost."""
    bench = Bench()
    bench.provider.say("poll", answer)

    async def body(desk: Desk) -> None:
        work = await desk.open_work()
        assert isinstance(await desk.actor.ask(work), Unreadable)

    at_work(bench, body, key_epoch=6)


@pytest.mark.parametrize("cut_s", [0.0, 0.001, 0.05, 0.101, 2.0, 2.1])
def test_cancelled_at_any_await_and_run_again(cut_s: float) -> None:
    """LIVE-2: by the supervisor or a shutdown; one purchase, one result."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", LINK)
    desk = Desk(bench)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(desk.gateway.run)
            with trio.move_on_after(0.5):
                await desk.actor.run()
            desk.offer(desk.bench.work(1))
            for seconds in (cut_s, 30.0):
                with trio.move_on_after(seconds):
                    await desk.actor.run()
            nursery.cancel_scope.cancel()

    run(go)
    assert desk.told == [("ready", 1)]
    assert bench.journal.types() == ["AttemptIntended", "AttemptAccepted", "ResultReady"]


def test_an_image_that_comes_with_the_reply_is_ready_at_once_and_durable() -> None:
    """W14: a synchronous provider has no job to ask for again."""
    bench = Bench()
    bench.provider.say("submit", Finished(data=b"image", cost_microusd=7, model_version="v1"))
    desk = at_work(bench, buys())
    assert desk.told == [("ready", 1)]
    assert bench.journal.types()[:2] == ["AttemptIntended", "ResultReady"]
    assert bench.provider.count("poll") == 0
    assert desk.actor.in_flight == 0
    assert bench.disk.names(Path("/out/spool")) == ("1-1-1",)


def test_a_full_disk_keeps_the_image_of_a_reply_in_memory() -> None:
    """MON-9: it is paid for; the fetcher meets the same disk and ends the run, in which the task stays ready."""
    bench = Bench()
    bench.provider.say("submit", Finished(data=b"image"))
    bench.disk.fail(1, "full")
    work = bench.work()

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        desk.offer(work)

    assert at_work(bench, body).told == [("ready", 1)]
    assert (work.data, bench.disk.names(Path("/out/spool"))) == (b"image", ())
