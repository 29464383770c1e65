"""The fetcher: what is paid for comes home, in the order of expiry, or is said to be lost (RES-1, RES-4, RES-6)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from adapters.base import Failed, Finished, Gone, NotVisible, Pending, PollOutcome, Unreadable
from ledger.commands import Intend, Record
from ledger.events import AttemptAccepted, ResultReady
from ledger.reader import Reader
from runtime.account import AccountActor
from runtime.accounts import Account
from runtime.blobs import BlobStore
from runtime.fetcher import Fetcher, Placement
from runtime.ports import DiskFull, FetchRefused, WireError
from runtime.simulated import SimDisk, SimThreads
from runtime.spool import Spool
from runtime.supervisor import supervise
from runtime.work import Work
from tests.runtime.fakes import Bench, run
from tests.runtime.pictures import picture

PICTURE = picture()


class FakeActor:
    """What the fetcher knows of an account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.parked = ""
        self.charges: list[tuple[int, int | None]] = []  # (attempt, what it cost)
        self.answers: list[PollOutcome] = []

    async def ask(self, work: Work) -> PollOutcome:
        await trio.lowlevel.checkpoint()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def park(self, reason: str) -> None:
        self.parked = reason

    def charged(self, work: Work, number: int) -> None:
        self.charges.append((number, work.state.attempts[number - 1].cost_microusd))


class Fetching:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.disk = SimDisk()
        self.actor = FakeActor(bench.account)
        self.told: list[tuple[str, int]] = []
        self.place_fails: set[int] = set()
        self.spool = Spool(SimThreads(), lambda work: self.place(work).store)
        self.fetcher = Fetcher(
            wire=bench.provider,
            threads=SimThreads(),
            clock=bench.clock,
            random=bench.random,
            log=bench.log,
            reader=cast(Reader, None),  # only asked for links of older epochs
            place=self.place,
            spool=self.spool,
            quote=lambda account, request: None,
            settled=lambda work: self.told.append(("settled", work.n)),
            give_back=lambda work: self.told.append(("queued", work.n)),
            left=lambda work: self.told.append(("left", work.n)),
            seen_size=lambda size: None,
        )

    def place(self, work: Work) -> Placement:
        if work.n in self.place_fails:
            raise RuntimeError("no name for it")
        return Placement(store=BlobStore(self.disk, Path("/out")), name=Path("images", f"task-{work.n}"))

    async def ready(self, n: int = 1, *, expires_s: float = 3600.0, cost: int | None = 30_000) -> Work:
        log, work = self.bench.log, self.bench.work(n)
        await log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        await log.record(work, Record(AttemptAccepted(attempt=1, job=f"j{n}")))
        await log.record(work, Record(ResultReady(attempt=1, cost_microusd=cost)))
        work.url, work.expires = f"https://x/{n}", trio.current_time() + expires_s
        return work

    async def spooled(self, data: bytes) -> Work:
        """A task whose image came with the reply."""
        log, work = self.bench.log, self.bench.work()
        await log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        if data:
            await self.spool.keep(work, 1, Finished(data=data))
        await log.record(work, Record(ResultReady(attempt=1)))
        return work

    def take(self, work: Work) -> None:
        self.fetcher.take(work, cast(AccountActor, self.actor))

    async def supervised(self) -> None:
        bench = self.bench
        await supervise("fetcher", self.fetcher.run, clock=bench.clock, random=bench.random, on_parked=self.fail)

    def fail(self, reason: str) -> None:
        raise AssertionError(reason)


def fetch(
    bench: Bench,
    body: Callable[[Fetching], Awaitable[None]],
    *,
    seconds: float = 100.0,
    meanwhile: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> Fetching:
    fetching = Fetching(bench)

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            await body(fetching)
            nursery.start_soon(fetching.supervised)
            nursery.start_soon(meanwhile)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    run(go)
    return fetching


async def one(fetching: Fetching) -> None:
    fetching.take(await fetching.ready())


def test_a_result_comes_home_through_resets_and_busy_servers() -> None:
    """RES-1, RES-2."""
    bench = Bench()
    bench.provider.say("fetch", WireError("reset", sent=True), 503, PICTURE)
    fetching = fetch(bench, one)
    assert fetching.told == [("settled", 1)]
    assert bench.journal.types()[-1] == "TaskCompleted"
    assert fetching.fetcher.open == 0


def test_what_expires_first_is_fetched_first() -> None:
    """RES-6."""
    bench = Bench()
    bench.provider.say("fetch", PICTURE)

    async def body(fetching: Fetching) -> None:
        for n in range(1, 40):
            fetching.take(await fetching.ready(n, expires_s=5000.0 - n))

    fetch(bench, body)
    fetched = [int(call.rpartition("/")[2]) for call in bench.provider.calls]
    assert set(fetched[:24]) == set(range(16, 40))
    assert sorted(fetched) == list(range(1, 40))


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_stale_link_is_asked_for_again(status: int) -> None:
    """MON-9: some storages say 400 of a signed link that expired."""
    bench = Bench()
    bench.provider.say("fetch", status, PICTURE)

    async def body(fetching: Fetching) -> None:
        fetching.actor.answers = [Finished(url="https://x/fresh")]
        await one(fetching)

    fetch(bench, body)
    assert bench.provider.calls[-1] == "fetch/https://x/fresh"
    assert bench.journal.types()[-1] == "TaskCompleted"


@pytest.mark.parametrize(
    "answer", [NotVisible(), Finished(url="https://x/1"), Failed("provider", "it went backwards"), Pending()]
)
def test_a_result_is_lost_only_when_it_expired(answer: PollOutcome) -> None:
    """RES-6, LIVE-1: it was asked for and downloaded in vain for ever."""
    bench = Bench()
    bench.provider.say("fetch", 404)

    async def body(fetching: Fetching) -> None:
        fetching.actor.answers = [answer]
        fetching.take(await fetching.ready(expires_s=300.0))

    assert fetch(bench, body, seconds=250.0).told == []
    bench = Bench()
    bench.provider.say("fetch", 404)
    assert fetch(bench, body, seconds=450.0).told == [("settled", 1)]
    assert bench.journal.types()[-2:] == ["AttemptLost", "TaskFailed"]


@pytest.mark.parametrize("answer", [Unreadable("401", unauthorized=True), Finished(url="https://x/1"), Pending()])
def test_a_link_that_is_always_refused_keeps_no_night_from_ending(answer: PollOutcome) -> None:
    """LIVE-1, MON-9: it was asked for until its week was over; it stays ready, for the next run."""
    bench = Bench()
    bench.provider.say("fetch", 403)

    async def body(fetching: Fetching) -> None:
        fetching.actor.answers = [answer]
        fetching.take(await fetching.ready(expires_s=7 * 86_400.0))

    fetching = fetch(bench, body, seconds=3_600.0)
    assert fetching.told == [("left", 1)]
    assert bench.journal.types()[-1] == "ResultReady"


def test_a_host_that_cannot_be_reached_for_hours_is_waited_for() -> None:
    """LIVE-1."""
    bench = Bench()
    bench.provider.say("fetch", WireError("no route", sent=False))
    fetching = fetch(bench, one, seconds=10_000.0)
    assert (fetching.told, fetching.fetcher.open) == ([], 1)


def test_the_provider_may_say_that_it_is_gone() -> None:
    bench = Bench()
    bench.provider.say("fetch", 404)

    async def body(fetching: Fetching) -> None:
        fetching.actor.answers = [Unreadable("500"), Gone("removed")]
        await one(fetching)

    fetch(bench, body)
    assert bench.journal.types()[-2:] == ["AttemptLost", "TaskFailed"]


def test_a_bad_image_is_fetched_twice_kept_and_bought_again() -> None:
    """RES-4, MON-8: what it cost is looked at."""
    bench = Bench()
    bench.provider.say("fetch", PICTURE[:-20])
    fetching = fetch(bench, one)
    assert fetching.told == [("queued", 1)]
    assert bench.provider.count("fetch") == 2
    assert fetching.disk.names(Path("/out/disputed")) == ("5-1-1-1.bin",)
    assert fetching.actor.charges == [(1, 30_000)]


def test_a_storage_that_sends_its_error_page_for_some_seconds_costs_no_second_purchase() -> None:
    """MON-2: with a 200, in the place of the image."""
    bench = Bench()

    async def body(fetching: Fetching) -> None:
        bench.provider.say("fetch", b"<html>busy</html>")
        await one(fetching)

    async def recovered() -> None:
        await trio.sleep(5.0)
        bench.provider.answers["fetch"].clear()
        bench.provider.say("fetch", PICTURE)

    fetching = fetch(bench, body, meanwhile=recovered)
    assert fetching.told == [("settled", 1)]


def test_a_transfer_that_was_cut_once_is_no_bad_image() -> None:
    bench = Bench()
    bench.provider.say("fetch", PICTURE[:-20], PICTURE)
    assert fetch(bench, one).told == [("settled", 1)]


def test_what_our_rules_refuse_stays_paid_and_ready_and_buys_no_more() -> None:
    """MON-9: it used to fail, and to be bought again twice with the same end."""
    bench = Bench()
    bench.provider.say("fetch", FetchRefused("host"))
    fetching = fetch(bench, one)
    assert fetching.told == [("left", 1)]
    assert fetching.actor.parked
    assert bench.journal.types()[-1] == "ResultReady"


def test_a_full_disk_ends_the_run_with_the_task_still_ready() -> None:
    bench = Bench()
    bench.provider.say("fetch", PICTURE)
    fetching = Fetching(bench)

    async def go() -> None:
        await one(fetching)
        fetching.disk.fail(1, "full")
        await fetching.supervised()

    with pytest.RaisesGroup(DiskFull, flatten_subgroups=True, allow_unwrapped=True):
        run(go)
    assert bench.journal.types()[-1] == "ResultReady"


def test_a_crash_loses_no_task_and_one_bad_task_does_not_stop_the_others() -> None:
    """LIVE-3, LIVE-4: works that were being fetched when the fetcher died were forgotten, and the night never ended."""
    bench = Bench(latency_s=5.0)
    bench.provider.say("fetch", PICTURE)

    async def body(fetching: Fetching) -> None:
        fetching.place_fails = {7}
        for n in range(1, 60):
            fetching.take(await fetching.ready(n))

    fetching = fetch(bench, body, seconds=200.0)
    assert ("left", 7) in fetching.told
    assert sorted(fetching.told) == sorted([("left", 7), *(("settled", n) for n in range(1, 60) if n != 7)])
    assert fetching.fetcher.open == 0


def test_an_image_that_came_with_the_reply_is_stored_without_a_download() -> None:
    bench = Bench()

    async def body(fetching: Fetching) -> None:
        work = await fetching.ready()
        work.data, work.url = PICTURE, ""
        fetching.take(work)

    assert fetch(bench, body).told == [("settled", 1)]
    assert bench.provider.calls == []


def test_a_charge_above_the_ceiling_is_told_and_recorded_truly() -> None:
    """MON-8."""
    bench = Bench()
    bench.provider.say("fetch", PICTURE)

    async def body(fetching: Fetching) -> None:
        fetching.take(await fetching.ready(cost=50_000))

    fetching = fetch(bench, body)
    assert fetching.actor.charges == [(1, 50_000)]
    assert msgspec.to_builtins(bench.journal.events[-1])["cost_microusd"] == 50_000


@pytest.mark.parametrize("cut_s", [0.0, 0.05, 0.1, 0.101])
def test_cancelled_at_any_await_it_goes_on_from_there(cut_s: float) -> None:
    """LIVE-2, RES-5."""
    bench = Bench()
    bench.provider.say("fetch", PICTURE)
    fetching = Fetching(bench)

    async def go() -> None:
        await one(fetching)
        for seconds in (cut_s, 10.0):
            with trio.move_on_after(seconds):
                await fetching.fetcher.run()

    run(go)
    assert fetching.told == [("settled", 1)]
    assert bench.journal.types().count("TaskCompleted") == 1
    assert [name for name in fetching.disk.names(Path("/out/blobs")) if name.endswith(".part")] == []


def test_an_image_that_came_with_the_reply_is_taken_from_the_spool() -> None:
    """W14, RES-2: the spool keeps it until the task is done."""
    bench = Bench()

    async def body(fetching: Fetching) -> None:
        work = await fetching.spooled(PICTURE)
        fetching.take(work)

    fetching = fetch(bench, body)
    assert fetching.told == [("settled", 1)]
    assert bench.journal.types()[-1] == "TaskCompleted"
    assert bench.provider.calls == []
    assert fetching.disk.names(Path("/out/spool")) == ()


def test_bytes_of_a_reply_that_are_no_image_go_from_the_spool_to_the_disputed() -> None:
    bench = Bench()

    async def body(fetching: Fetching) -> None:
        fetching.take(await fetching.spooled(b"<html>"))

    fetching = fetch(bench, body)
    assert fetching.told == [("queued", 1)]
    assert fetching.disk.names(Path("/out/disputed")) == ("5-1-1-1.bin",)
    assert fetching.disk.names(Path("/out/spool")) == ()


def test_a_reply_whose_bytes_are_gone_is_paid_and_lost() -> None:
    bench = Bench()

    async def body(fetching: Fetching) -> None:
        fetching.actor.answers = [Gone("not there any more")]
        fetching.take(await fetching.spooled(b""))

    assert fetch(bench, body).told == [("settled", 1)]
    assert bench.journal.types()[-2:] == ["AttemptLost", "TaskFailed"]
