"""The poller: follows jobs to their end, and ends none by a timeout (MON-6, REC-8, REC-9, RES-6)."""

import itertools

import msgspec
import pytest
import trio

from adapters.base import Failed, Gone, HttpCall, HttpReply, NotVisible, Pending, PollOutcome, Throttled, Unreadable
from adapters.capabilities import Rate
from ledger.commands import Intend, Record
from ledger.events import AttemptAccepted
from runtime.ports import WireError
from runtime.work import Work
from tests.runtime.fakes import CAPS, Bench, FakeProvider, known, run
from tests.runtime.polling import LINK, Following, follow


@pytest.mark.parametrize(
    ("answer", "told", "event"),
    [
        (LINK, "ready", "ResultReady"),
        (Failed("provider"), "ended True", "AttemptFailed"),
        (Failed("policy", retryable=False), "ended False", "AttemptFailed"),
    ],
)
def test_an_end_is_recorded_and_told_once(answer: PollOutcome, told: str, event: str) -> None:
    bench = Bench()
    bench.provider.say("poll", Pending(), Unreadable("500"), WireError("reset", sent=True), answer)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(100.0)

    assert follow(bench, body).told == [told]
    assert bench.journal.types().count(event) == 1
    assert bench.provider.count("poll") == 4


def test_a_result_is_gone_when_that_is_said_for_a_minute() -> None:
    """RES-6: one answer of the moment between the end of a job and its result was enough, and the image was lost."""
    bench = Bench()
    bench.provider.say("poll", Gone("removed"), Unreadable("500"), Gone("removed"))

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(55.0)
        assert following.told == []
        await trio.sleep(100.0)

    assert follow(bench, body).told == ["ended False"]
    assert bench.journal.types()[-2:] == ["AttemptLost", "TaskFailed"]


@pytest.mark.parametrize("between", [(), (Pending(),)])
def test_a_result_that_comes_after_the_end_of_its_job_is_taken(between: tuple[PollOutcome, ...]) -> None:
    """RES-6, MON-9."""
    bench = Bench()
    bench.provider.say("poll", Gone("without an output"), *between, Gone("without an output"), LINK)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(60.0)

    assert follow(bench, body).told == ["ready"]


@pytest.mark.parametrize(
    ("recalled", "told"), [(LINK, "ready"), (NotVisible(), "ended False"), (Pending(), "ended False")]
)
def test_what_is_gone_is_asked_for_in_the_slower_place(recalled: PollOutcome, told: str) -> None:
    """RES-6, LIVE-1: before a loss."""
    bench = Bench()
    bench.provider = Recalling()
    bench.account = msgspec.structs.replace(bench.account, codec=bench.provider)
    bench.provider.say("poll", Gone("without an output"))
    bench.provider.say("recall", recalled)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(200.0)

    assert follow(bench, body).told == [told]


def test_what_a_failed_job_cost_is_told() -> None:
    """MON-8."""
    bench = Bench()
    bench.provider.say("poll", Failed("provider", cost_microusd=90_000))

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(10.0)

    assert follow(bench, body).charges == [90_000]


def test_a_work_is_scheduled_once_however_often_it_is_asked_for() -> None:
    """A cancel, a restart and a doubt may all put it on the heap: each used to poll for ever beside the others."""
    bench = Bench()
    bench.provider.say("poll", Pending())

    async def body(following: Following) -> None:
        work = await following.accepted()
        for _ in range(5):
            following.poller.overdue(work)
        await trio.sleep(1.0)

    follow(bench, body)
    assert bench.provider.count("poll") <= 2


def test_a_job_that_went_to_another_account_is_not_asked_for_here() -> None:
    """REC-9: its absence here would be taken for a loss."""
    bench = Bench()
    bench.provider.say("poll", NotVisible())

    async def body(following: Following) -> None:
        work = await following.accepted()
        attempt = msgspec.structs.replace(work.attempt, account="another")
        work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
        following.poller.overdue(work)
        await trio.sleep(10_000.0)

    assert follow(bench, body).told == []
    assert bench.provider.calls == []


def test_a_jump_of_the_wall_clock_loses_no_job() -> None:
    """REC-8: a job that is not visible yet was lost when NTP set the clock ten minutes forward."""
    bench = Bench()
    bench.provider.say("poll", NotVisible(), NotVisible(), LINK)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        bench.clock.jump(86_400.0)
        await trio.sleep(60.0)

    assert follow(bench, body).told == ["ready"]


def test_one_not_found_after_a_long_run_is_not_a_loss() -> None:
    """MON-9: a slow replica's answer about a job that ran for an hour."""
    bench = Bench()
    bench.provider.say("poll", Pending())

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(3600.0)
        bench.provider.say("poll", NotVisible(), LINK)
        await trio.sleep(100.0)

    assert follow(bench, body).told == ["ready"]


def test_a_job_that_stays_invisible_is_lost() -> None:
    """RES-6, LIVE-1."""
    bench = Bench()
    bench.provider.say("poll", NotVisible())

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(590.0)
        assert following.told == []
        await trio.sleep(90.0)

    assert follow(bench, body).told == ["ended False"]
    assert bench.journal.types()[-2:] == ["AttemptLost", "TaskFailed"]


def test_an_answer_that_never_came_says_nothing_of_an_invisible_job() -> None:
    """LIVE-1: on a bad line every third look broke, each began the wait anew, and the night never ended."""
    bench = Bench()
    bench.provider.say("poll", *[NotVisible(), NotVisible(), WireError("reset", sent=True)] * 500)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(700.0)

    assert follow(bench, body).told == ["ended False"]


def test_an_old_epochs_invisible_job_is_lost_after_a_minute() -> None:
    """RES-6: what was made yesterday is not waited for ten minutes again, but one answer is not believed."""
    bench = Bench()
    bench.provider.say("poll", NotVisible())

    async def body(following: Following) -> None:
        work = await following.accepted()
        bench.journal.epoch += 1
        bench.clock.jump(86_400.0)
        following.poller.overdue(work)
        await trio.sleep(30.0)
        assert following.told == []
        await trio.sleep(70.0)

    assert follow(bench, body).told == ["ended False"]


@pytest.mark.parametrize("answer", [NotVisible(), Failed("provider"), Gone("no such task")])
def test_what_another_key_is_told_proves_nothing_and_holds_up_nobody(answer: PollOutcome) -> None:
    """REC-9, LIVE-1: it stays accepted; "failed" was believed, and the task bought again."""
    bench = Bench()
    bench.provider.say("poll", answer)

    async def body(following: Following) -> None:
        work = await following.accepted()
        bench.journal.epoch += 1
        following.poller.overdue(work)
        await trio.sleep(100.0)
        assert work.state.phase == "accepted"

    assert follow(bench, body, key_epoch=6).told == ["stranded"]


def test_a_refused_key_is_told_and_the_job_let_go_of() -> None:
    """LIVE-4: the job stays open; the night may end without it."""
    bench = Bench()
    bench.provider.say("poll", Unreadable("401", unauthorized=True))

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(1000.0)

    told = follow(bench, body).told
    assert told[-1] == "stranded"
    assert set(told) == {"unauthorized 401", "stranded"}


def test_polls_keep_to_the_query_limit_and_a_throttle_pauses_them() -> None:
    bench = Bench()
    bench.provider.say("poll", Throttled(retry_after_s=50.0), LINK)
    following = Following(bench, rate=Rate(1, 10.0))

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(following.poller.run)
            for n in (1, 2):
                following.poller.overdue(await following.accepted(n))
            await trio.sleep(45.0)
            assert bench.provider.count("poll") == 1
            await trio.sleep(60.0)
            nursery.cancel_scope.cancel()

    run(go)
    assert following.told == ["ready", "ready"]


def test_cancelled_in_a_poll_it_can_be_polled_again() -> None:
    """A restart of the account: nothing is marked as being polled for ever."""
    bench = Bench(latency_s=5.0)
    bench.provider.say("poll", LINK)
    following = Following(bench)

    async def go() -> None:
        work = await following.accepted()
        for end_s in (2.0, 100.0):
            following.poller.clear()
            following.poller.overdue(work)
            with trio.move_on_after(end_s):
                await following.poller.run()

    run(go)
    assert following.told == ["ready"]


def test_a_cancel_is_recorded_then_sent() -> None:
    """W15."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, cancel=known(True)))
    bench.provider.say("cancel", Failed("cancelled", retryable=False))
    bench.provider.say("poll", Pending())

    async def body(following: Following) -> None:
        work = await following.accepted()
        work.cancel_by = "me"
        following.poller.overdue(work)
        await trio.sleep(5.0)
        assert work.state.phase == "cancelled"

    assert follow(bench, body).told == ["ended False"]
    assert bench.journal.types()[-3:] == ["CancelAsked", "AttemptFailed", "TaskCancelled"]


@pytest.mark.parametrize(("charged", "cancels", "told"), [(True, 0, ["ready"]), (False, 1, ["ended False"])])
def test_what_ended_before_its_cancel_is_kept_where_it_is_charged_all_the_same(
    charged: bool, cancels: int, told: list[str]
) -> None:
    """MON-9: a cancel may delete the image with the job."""
    bench = Bench(caps=msgspec.structs.replace(CAPS, cancel=known(charged)))
    bench.provider.say("cancel", Failed("cancelled", retryable=False))
    bench.provider.say("poll", LINK)

    async def body(following: Following) -> None:
        work = await following.accepted()
        work.cancel_by = "me"
        following.poller.overdue(work)
        await trio.sleep(5.0)

    assert follow(bench, body).told == told
    assert bench.provider.count("cancel") == cancels


class Recalling(FakeProvider):
    def build_recall(self, job: str, ctx: object) -> HttpCall:
        return HttpCall("GET", f"recall/{job}", {})

    def read_recall(self, reply: HttpReply) -> PollOutcome:
        return self.read_poll(reply)


def test_what_polls_have_forgotten_is_asked_for_in_the_slower_place() -> None:
    """RES-6: before a loss."""
    bench = Bench()
    bench.provider = Recalling()
    bench.account = msgspec.structs.replace(bench.account, codec=bench.provider)
    bench.provider.say("poll", NotVisible())
    bench.provider.say("recall", WireError("reset", sent=True), LINK)

    async def body(following: Following) -> None:
        following.poller.accepted(await following.accepted())
        await trio.sleep(800.0)

    assert follow(bench, body).told == ["ready"]


def test_a_job_that_has_ended_is_not_cancelled_when_its_link_is_asked_for_again() -> None:
    """MON-9: the cancel came while the end was put on record; at some providers it would delete the image."""
    bench = Bench()
    bench.provider.say("poll", LINK)

    async def body(following: Following) -> None:
        work = await following.accepted()
        following.poller.overdue(work)
        await trio.sleep(10.0)
        work.cancel_by = "ann"
        assert await following.poller.ask(work) == LINK

    assert follow(bench, body).told == ["ready"]
    assert bench.provider.count("cancel") == 0


# --- callbacks ------------------------------------------------------------------------------------------------


async def called_about(following: Following, n: int) -> Work:
    """A job that has an address to be called at."""
    work = following.bench.work(n)
    await following.bench.log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0, callback=True))
    await following.bench.log.record(work, Record(AttemptAccepted(attempt=1, job=f"j{n}")))
    return work


def polled_at(bench: Bench) -> list[float]:
    """When each poll arrived, from now on."""
    times: list[float] = []
    bench.provider.before = lambda kind: times.append(bench.clock.monotonic())
    return times


def test_a_callback_is_followed_by_a_poll_at_once() -> None:
    """REC-7: the poll says what is so."""
    bench = Bench()
    bench.provider.say("poll", LINK)
    times = polled_at(bench)

    async def body(following: Following) -> None:
        work = await called_about(following, 1)
        start = bench.clock.monotonic()
        following.poller.accepted(work)
        following.poller.hinted(work)
        await trio.sleep(100.0)
        assert [round(at - start, 1) for at in times] == [0.0]

    assert follow(bench, body).told == ["ready"]


def test_a_forged_callback_costs_one_poll_and_teaches_nothing() -> None:
    bench = Bench()
    bench.provider.say("poll", Pending(), LINK)

    async def body(following: Following) -> None:
        before = following.poller.latency.seconds
        work = await called_about(following, 1)
        following.poller.accepted(work)
        following.poller.hinted(work)
        await trio.sleep(100.0)
        assert following.poller.latency.seconds == before

    assert follow(bench, body).told == ["ready"]
    assert bench.provider.count("poll") == 2


def test_polls_come_late_while_callbacks_come() -> None:
    """And at their own pace again when one was missing: a receiver that nobody reaches costs the polls, no time."""
    bench = Bench()
    bench.provider.say("poll", LINK)
    times = polled_at(bench)
    waited: list[float] = []

    async def body(following: Following) -> None:
        for n, hinted in ((1, False), (2, True), (3, False), (4, False)):
            work = await called_about(following, n)
            start = bench.clock.monotonic()
            following.poller.accepted(work)
            if hinted:
                await trio.sleep(1.0)
                following.poller.hinted(work)
            await trio.sleep(50.0)
            waited.append(times[-1] - start)
        plain = await following.accepted(5)
        following.poller.hinted(work)
        start = bench.clock.monotonic()
        following.poller.accepted(plain)
        await trio.sleep(50.0)
        waited.append(times[-1] - start)

    follow(bench, body)
    assert waited == pytest.approx([2.0, 1.0, 6.0, 2.0, 2.0], rel=0.1)


def test_a_pause_that_nobody_told_grows_to_the_window_and_no_further() -> None:
    """One stray 429 held every question back for a whole minute."""
    bench = Bench()
    bench.provider.say("poll", *[Throttled()] * 9, LINK)
    asked: list[float] = []
    bench.provider.before = lambda kind: asked.append(trio.current_time())
    following = Following(bench, rate=Rate(1000, 60.0))

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(following.poller.run)
            following.poller.overdue(await following.accepted())
            await trio.sleep(1000.0)
            nursery.cancel_scope.cancel()

    run(go)
    assert following.told == ["ready"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[0] < 5.0
    assert 25.0 < pauses[-1] < 75.0
