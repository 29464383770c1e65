"""Following batches: rarely asked for, read line by line, handed on like replies, whatever breaks on the way."""

import logging
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio
from msgspec.structs import replace

from adapters.base import (
    Failed,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    MalformedReply,
    NotVisible,
    Pending,
    Throttled,
    Unreadable,
)
from adapters.batchfile import ResultFile, line_job
from ledger.commands import Intend, Record
from ledger.events import AttemptAccepted, AttemptFailed, AttemptLost, ResultReady
from runtime.batchevidence import line_key
from runtime.batchpoller import BatchPoller
from runtime.poller import Told
from runtime.ports import WireError
from runtime.work import Work
from tests.runtime.batches import FileProvider, key_of
from tests.runtime.fakes import Bench, run

RESULTS = ResultFile("r")


class FileBench(Bench):
    """A bench whose provider sells by the file."""

    def __init__(self, *, budget: int = 1_000_000) -> None:
        super().__init__()
        self.files_of = FileProvider(budget=budget)
        self.provider = self.files_of
        self.account = replace(self.account, codec=self.files_of)


class Follower:
    """A poller with the works it follows, and what it told of them."""

    def __init__(self, bench: FileBench, *, key_epoch: int = 0) -> None:
        self.bench = bench
        self.told: list[tuple[str, int]] = []
        self.charges: list[int | None] = []
        self.poller = BatchPoller(
            bench.account,
            bench.files_of,
            query=bench.provider.send,
            log=bench.log,
            wire=bench.provider,
            clock=bench.clock,
            random=bench.random,
            spool=bench.spool,
            told=Told(
                ready=lambda work: self.told.append(("ready", work.n)),
                ended=lambda work, fault: self.told.append(("fault" if fault else "ended", work.n)),
                stranded=lambda work: self.told.append(("stranded", work.n)),
                unauthorized=lambda why: self.told.append(("unauthorized", 0)),
                charged=lambda work, number: self.charges.append(work.state.attempts[number - 1].cost_microusd),
            ),
            foreign=lambda epoch: epoch < key_epoch,
        )

    async def line(self, n: int, batch: str = "b1") -> Work:
        """A line of a batch that runs."""
        work = self.bench.work(n)
        intend = Intend("fake", "fake", "m", "only", 40_000, "d", 0, file="f1")
        await self.bench.log.record(work, intend)
        job = line_job(batch, line_key(work, 1))
        await self.bench.log.record(work, Record(AttemptAccepted(attempt=1, job=job)))
        return work

    async def lines(self, count: int, batch: str = "b1") -> list[Work]:
        works = [await self.line(n, batch) for n in range(1, count + 1)]
        for work in works:
            self.poller.accepted(work)
        return works


def following(
    bench: FileBench, body: Callable[[Follower], Awaitable[None]], *, seconds: float = 5.0, key_epoch: int = 0
) -> Follower:
    """Run the body, then the poller for a while."""
    follower = Follower(bench, key_epoch=key_epoch)

    async def go() -> None:
        await body(follower)
        with trio.move_on_after(seconds):
            await follower.poller.run()

    run(go)
    return follower


def follow(bench: FileBench, count: int, *, seconds: float = 5.0, key_epoch: int = 0) -> Follower:
    """Follow so many lines of one batch."""

    async def body(follower: Follower) -> None:
        await follower.lines(count)

    return following(bench, body, seconds=seconds, key_epoch=key_epoch)


def facts(bench: FileBench, kind: type) -> list[object]:
    return [event for event in bench.journal.events if isinstance(event, kind)]


def test_the_results_are_handed_on_line_by_line() -> None:
    bench = FileBench()
    bench.provider.say("batch", Pending(), Pending(), RESULTS)
    bench.provider.say("results", b"1-2-1=two\n1-1-1=one\n1-3-1!policy\n")
    follower = follow(bench, 3)
    assert follower.told == [("ready", 2), ("ready", 1), ("ended", 3)]
    assert bench.provider.count("batch/b1") == 3  # one question for all lines
    assert facts(bench, ResultReady) == [ResultReady(attempt=1, url=None, cost_microusd=9, expires_at_us=0)] * 2
    (failed,) = facts(bench, AttemptFailed)
    assert isinstance(failed, AttemptFailed)
    assert (failed.reason, bench.journal.types()[-1]) == ("policy", "TaskFailed")
    assert follower.poller.open == 0

    async def look() -> None:
        assert await bench.spool.data(bench.work(2), 1) == b"two"

    run(look)


def test_the_lines_of_a_file_that_an_earlier_version_made_come_home_too() -> None:
    """LED-9: their keys were shorter, whichever of the two made the file and whichever recorded the job."""
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", f"1-1-1=one\n{key_of(2)}=two\n{key_of(3)}=three\n".encode())

    async def body(follower: Follower) -> None:
        await follower.lines(2)
        work = bench.work(3)
        await bench.log.record(work, Intend("fake", "fake", "m", "only", 40_000, "d", 0, file="f1"))
        await bench.log.record(work, Record(AttemptAccepted(attempt=1, job=line_job("b1", "1-3-1"))))
        follower.poller.accepted(work)

    assert following(bench, body).told == [("ready", 1), ("ready", 2), ("ready", 3)]


def test_what_a_failed_line_cost_is_told() -> None:
    """MON-8."""
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", f"{key_of(1)}!dear\n".encode())
    assert follow(bench, 1).charges == [90_000]


def test_a_batch_is_asked_for_rarely() -> None:
    """A day has 288 times five minutes; in the first ones it is asked a little more often."""
    bench = FileBench()
    bench.account = replace(bench.account, latency_s=86_400.0)
    bench.provider.say("batch", Pending())
    follow(bench, 3, seconds=86_400.0)
    assert 250 <= bench.provider.count("batch") <= 340
    bench.provider.calls.clear()
    follow(bench, 3, seconds=300.0)
    assert 8 <= bench.provider.count("batch") <= 16


def test_a_broken_stream_is_read_again_and_what_is_on_record_is_passed_over() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", WireError("cut", sent=True), b"1-1-1=one\n1-2-1=two\n")

    async def body(follower: Follower) -> None:
        await follower.lines(2)
        await follower.poller._take(follower.poller._batches["b1"], bench.files_of.read_line(b"1-1-1=one"))

    follower = following(bench, body)
    assert follower.told == [("ready", 1), ("ready", 2)]
    assert len(facts(bench, ResultReady)) == 2


def test_pieces_of_a_stream_become_lines_again() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    data = b"\n1-1-1=one\n\n1-2-1=two"  # blank lines, and none at the end

    async def stream(call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        for piece in data:
            await sink(bytes([piece]))
        return HttpReply(200, {}, b"")

    bench.provider.stream = stream  # type: ignore[method-assign]  # the test's own fake
    assert follow(bench, 2).told == [("ready", 1), ("ready", 2)]


def test_a_line_that_is_missing_has_failed_and_cost_nothing() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", b"1-1-1=one\n9-9-9=nobody's\n")
    follower = follow(bench, 2, seconds=100.0)
    assert follower.told == [("ready", 1), ("ended", 2)]
    assert bench.provider.count("results") == 2
    (failed,) = facts(bench, AttemptFailed)
    assert isinstance(failed, AttemptFailed)
    assert (failed.reason, failed.cost_microusd) == ("contract", 0)


@pytest.mark.parametrize("cut", [b"1-1-1=one\n", b"1-1-1=one\n1-2", b"", b"1-1-1=one\n1-3-1=three\n"])
def test_results_that_are_cut_short_once_buy_nothing_again(cut: bytes) -> None:
    """MON-2, MON-9: a file that ended early without saying so was believed, and what it lacked was bought again."""
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", cut, b"1-1-1=one\n1-2-1=two\n1-3-1=three\n")
    follower = follow(bench, 3, seconds=100.0)
    assert sorted(follower.told) == [("ready", 1), ("ready", 2), ("ready", 3)]
    assert facts(bench, AttemptFailed) == []


def test_a_line_is_called_missing_when_two_files_lack_it_and_not_two_lines() -> None:
    """MON-2: each of the two files was without another line."""
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", b"1-1-1=one\n", b"1-2-1=two\n", b"1-3-1=three\n")
    follower = follow(bench, 3, seconds=100.0)
    assert follower.told == [("ready", 1), ("ready", 2), ("ended", 3)]


@pytest.mark.parametrize("odd", [b"garbage", b"x" * 2_000])
def test_a_line_that_cannot_be_read_was_probably_paid(odd: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.batchresults._LINE_BYTES", 1_000)
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", b"1-1-1=one\n" + odd + b"\n1-3-1=three\n")
    follower = follow(bench, 3, seconds=100.0)
    assert follower.told == [("ready", 1), ("ready", 3), ("ended", 2)]
    (failed,) = facts(bench, AttemptFailed)
    assert isinstance(failed, AttemptFailed)
    assert (failed.reason, failed.cost_microusd) == ("contract", 40_000)


def test_a_line_that_is_adopted_while_the_results_are_read_is_not_called_missing() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    late: list[Callable[[], None]] = []

    async def stream(call: HttpCall, sink: Callable[[bytes], Awaitable[None]]) -> HttpReply:
        await sink(b"1-2-1=two\n")
        if late:
            late.pop()()
        await sink(b"1-1-1=one\n")
        return HttpReply(200, {}, b"")

    bench.provider.stream = stream  # type: ignore[method-assign]  # the test's own fake

    async def body(follower: Follower) -> None:
        work = await follower.line(2)
        await follower.lines(1)
        late.append(lambda: follower.poller.overdue(work))

    follower = following(bench, body)
    assert follower.told == [("ready", 1), ("ready", 2)]


def test_an_expired_batch_costs_nothing_and_its_lines_are_queued_again() -> None:
    bench = FileBench()
    bench.provider.say("batch", Failed("expired", "48 h"))
    follower = follow(bench, 3)
    assert follower.told == [("ended", n) for n in (1, 2, 3)]
    assert [fact.cost_microusd for fact in facts(bench, AttemptFailed)] == [0, 0, 0]  # type: ignore[attr-defined]
    assert "TaskFailed" not in bench.journal.types()


def test_a_failed_batch_is_one_failure_of_the_provider() -> None:
    bench = FileBench()
    bench.provider.say("batch", Failed("provider", "no"))
    assert follow(bench, 3).told == [("fault", 1), ("ended", 2), ("ended", 3)]


def test_results_that_are_gone_are_lost() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", 404)
    follower = follow(bench, 2)
    assert follower.told == [("ended", 1), ("ended", 2)]
    assert [fact.cost_microusd for fact in facts(bench, AttemptLost)] == [40_000] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer",
    [Unreadable("busy"), Throttled(3.0), Throttled(), NotVisible(), WireError("no", sent=True), MalformedReply("no")],
)
def test_an_answer_that_says_nothing_is_asked_for_again(answer: object) -> None:
    bench = FileBench()
    bench.provider.say("batch", answer, RESULTS)
    bench.provider.say("results", 429, b"1-1-1=one\n")
    if isinstance(answer, MalformedReply):
        _malformed_once(bench)
    follower = follow(bench, 1, seconds=30.0)
    assert follower.told == [("ready", 1)]


def _malformed_once(bench: FileBench) -> None:
    bench.provider.answers["batch"].popleft()
    read, left = bench.files_of.read_batch, [MalformedReply("no")]

    def reads(reply: HttpReply) -> object:
        if left:
            raise left.pop()
        return read(reply)

    bench.files_of.read_batch = reads  # type: ignore[method-assign,assignment]  # the test's own fake


def test_a_batch_that_nobody_knows_is_lost_after_a_while() -> None:
    bench = FileBench()
    bench.provider.say("batch", NotVisible())
    assert follow(bench, 2, seconds=590.0).told == []
    bench = FileBench()
    bench.provider.say("batch", NotVisible())
    assert follow(bench, 2, seconds=700.0).told == [("ended", 1), ("ended", 2)]
    assert len(facts(bench, AttemptLost)) == 2


def test_an_answer_that_never_came_says_nothing_of_an_invisible_batch() -> None:
    """LIVE-1."""
    bench = FileBench()
    bench.provider.say("batch", *[NotVisible(), Unreadable("busy")] * 2000)
    assert follow(bench, 2, seconds=900.0).told == [("ended", 1), ("ended", 2)]


def test_a_batch_that_another_key_made_is_left_open() -> None:
    """REC-9: neither *not found* nor *failed* proves anything with the new key."""
    for answer in (NotVisible(), Failed("provider")):
        bench = FileBench()
        bench.provider.say("batch", answer)
        assert follow(bench, 2, seconds=200.0, key_epoch=6).told == [("stranded", 1), ("stranded", 2)]


def test_a_refused_key_parks_and_is_waited_for_a_while() -> None:
    bench = FileBench()
    bench.provider.say("batch", Unreadable("401", unauthorized=True))
    follower = follow(bench, 2, seconds=400.0)
    assert follower.told[0] == ("unauthorized", 0)
    assert follower.told[-2:] == [("stranded", 1), ("stranded", 2)]


@pytest.mark.parametrize(
    ("older", "age_s", "told", "after_s"),
    [(False, 0.0, "stranded", 600.0), (True, 0.0, "stranded", 60.0), (True, 5 * 86_400.0, "ended", 60.0)],
)
def test_a_batch_whose_answers_cannot_be_read_does_not_keep_the_night(
    older: bool, age_s: float, told: str, after_s: float
) -> None:
    """LIVE-1, RES-6: it was asked for without end.  It stays open, and is lost when its results must have expired."""
    bench = FileBench()
    bench.provider.say("batch", MalformedReply("an operation without a state"))

    async def body(follower: Follower) -> None:
        for work in await follower.lines(2):
            epoch = bench.journal.epoch - older
            at_us = work.attempt.intended_at_us - int(age_s * 1e6)
            attempt = replace(work.attempt, epoch=epoch, intended_at_us=at_us)
            work.state = replace(work.state, attempts=(attempt,))

    assert following(bench, body, seconds=after_s - 1.0).told == []
    bench = FileBench()
    bench.provider.say("batch", MalformedReply("an operation without a state"))
    assert following(bench, body, seconds=after_s + 30.0).told == [(told, 1), (told, 2)]
    assert len(facts(bench, AttemptLost)) == (2 if told == "ended" else 0)


@pytest.mark.parametrize(("between", "told"), [(Pending(), "ready"), (MalformedReply("no state"), "stranded")])
def test_an_answer_that_can_be_read_begins_the_patience_anew(between: object, told: str) -> None:
    """LIVE-1."""
    bench = FileBench()
    broken = [MalformedReply("no state")] * 1_000  # eight minutes
    bench.provider.say("batch", *broken, between, *broken, RESULTS)
    bench.provider.say("results", b"1-1-1=one\n")
    assert follow(bench, 1, seconds=3_000.0).told == [(told, 1)]


async def two_unwanted(follower: Follower) -> None:
    for work in await follower.lines(2):
        work.cancel_by = "me"
        follower.poller.overdue(work)


def test_a_batch_is_stopped_when_nothing_of_it_is_wanted() -> None:
    bench = FileBench()
    bench.provider.say("batch", Failed("cancelled"))
    bench.provider.say("stop", WireError("no", sent=True))
    following(bench, two_unwanted)
    assert bench.provider.calls == ["stop/b1", "batch/b1"]
    assert bench.journal.types()[4:] == ["CancelAsked"] * 2 + ["AttemptFailed", "TaskCancelled"] * 2


@pytest.mark.parametrize(
    ("states", "stops"),
    [([Pending(), Pending(), Failed("cancelled")], 2), ([Pending(), Failed("cancelled")], 1), ([Pending()], 2)],
)
def test_a_stop_whose_answer_was_lost_is_repeated_once(states: list[object], stops: int) -> None:
    """W15: after a look, since it may have arrived."""
    bench = FileBench()
    bench.provider.say("batch", *states)
    bench.provider.say("stop", WireError("no", sent=True))
    following(bench, two_unwanted)
    assert bench.provider.count("stop") == stops
    assert bench.journal.types().count("CancelAsked") == 2


@pytest.mark.parametrize(("state", "stops"), [(Pending(), 1), (Failed("cancelled"), 0)])
def test_a_batch_of_an_older_epoch_is_looked_at_before_it_is_stopped(state: object, stops: int) -> None:
    """W15: it may have ended, or been told already."""
    bench = FileBench()
    bench.provider.say("batch", state, Failed("cancelled"))
    bench.provider.say("stop", Pending())

    async def body(follower: Follower) -> None:
        for work in await follower.lines(2):
            attempt = msgspec.structs.replace(work.attempt, epoch=bench.journal.epoch - 1)
            work.state = msgspec.structs.replace(work.state, attempts=(attempt,))
            work.cancel_by = "me"
            follower.poller.overdue(work)

    following(bench, body)
    assert bench.provider.count("stop") == stops
    assert bench.journal.types()[-4:] == ["AttemptFailed", "TaskCancelled"] * 2


def test_one_line_that_is_not_wanted_does_not_stop_the_others() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", b"1-1-1=one\n1-2-1=two\n")

    async def body(follower: Follower) -> None:
        first, _ = await follower.lines(2)
        first.cancel_by = "me"

    follower = following(bench, body)
    assert bench.provider.count("stop") == 0
    assert follower.told == [("ready", 1), ("ready", 2)]
    assert "CancelAsked" in bench.journal.types()


def test_lines_that_are_somebody_elses_by_now_are_let_go() -> None:
    bench = FileBench()
    bench.provider.say("batch", RESULTS)

    async def body(follower: Follower) -> None:
        (work,) = await follower.lines(1)
        await bench.log.record(work, Record(AttemptFailed(attempt=1, reason="provider")))
        follower.poller.hinted(work)

    follower = following(bench, body)
    assert bench.provider.calls == []
    assert (follower.told, follower.poller.open) == ([], 0)


def test_tokens_are_counted_while_lines_wait() -> None:
    bench = FileBench()

    async def body(follower: Follower) -> None:
        await follower.lines(2)
        assert follower.poller.tokens("m") == len("picture 1") + len("picture 2")
        assert follower.poller.tokens("other") == 0
        assert follower.poller.open == 1
        follower.poller.clear()
        assert follower.poller.open == 0

    following(bench, body, seconds=0.1)


def test_a_crash_of_the_spool_stops_the_poller_before_anything_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """RES-2: no image is called ready whose bytes are not durable."""
    bench = FileBench()
    bench.provider.say("batch", RESULTS)
    bench.provider.say("results", b"1-1-1=one\n")
    bench.disk.fail(0, "full")
    with caplog.at_level(logging.CRITICAL), pytest.raises(Exception, match="space"):
        follow(bench, 1)
    assert facts(bench, ResultReady) == []


# --- a ready task asks once more --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "results", "found"),
    [
        (RESULTS, b"1-2-1=two\n1-1-1=one\nodd\n", Finished(data=b"one", cost_microusd=9)),
        (RESULTS, b"1-2-1=two\n", Gone("the results have no line for it")),
        (RESULTS, 404, Gone("gone")),
        (RESULTS, WireError("cut", sent=True), Unreadable("cut")),
        (NotVisible(), b"", NotVisible()),
    ],
)
def test_a_line_can_be_read_again(state: object, results: object, found: object) -> None:
    bench = FileBench()
    bench.provider.say("batch", state)
    bench.provider.say("results", results)
    answers: list[object] = []

    async def body(follower: Follower) -> None:
        answers.append(await follower.poller.ask(await follower.line(1)))

    following(bench, body, seconds=0.0)
    assert answers == [found]
