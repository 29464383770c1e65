"""The submit gateway: intent, act, record, whatever happens around it (MON-1, MON-5, LIVE-5)."""

from collections.abc import Callable

import msgspec
import pytest
import trio

from adapters.base import (
    Accepted,
    Context,
    Failed,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Refused,
    SubmitOutcome,
    Throttled,
    Unclear,
)
from ledger.decisions import Exceeded, Guard, Reserve
from ledger.errors import CommitFailed
from runtime.gateway import Gateway, NotSent, Submission, SubmitResult, Superseded
from runtime.ports import WireError
from runtime.trust import Trust
from runtime.work import Work
from tests.runtime.fakes import Bench, nothing, run


class Counter:
    """One gateway with what came of its submissions."""

    def __init__(self, bench: Bench, *, trust: Trust = "assumed") -> None:
        self.bench = bench
        self.gateway = Gateway(bench.log, bench.provider, bench.clock, "ledger", bench.spool, trust=lambda batch: trust)
        self.results: list[SubmitResult] = []
        self._tell, self._done = trio.open_memory_channel[SubmitResult](10)

    def start(self, work: Work, *guards: Guard) -> None:
        self.gateway.start(
            Submission(
                work=work,
                account=self.bench.account,
                lane="1:1",
                route="only",
                ceiling_microusd=40_000,
                guards=lambda at_us: guards,
                done=self._submitted,
            )
        )

    def _submitted(self, submission: Submission, result: SubmitResult) -> None:
        self.results.append(result)
        self._tell.send_nowait(result)

    async def wait_done(self, n: int = 1) -> None:
        """Wait for the ``n``-th result."""
        for _ in range(n):
            await self._done.receive()


def buy(bench: Bench, work: Work, *guards: Guard, trust: Trust = "assumed") -> SubmitResult:
    results: list[SubmitResult] = []

    async def go() -> None:
        counter = Counter(bench, trust=trust)
        async with trio.open_nursery() as nursery:
            await nursery.start(counter.gateway.run)
            counter.start(work, *guards)
            await counter.wait_done()
            nursery.cancel_scope.cancel()
        results.extend(counter.results)

    run(go)
    (result,) = results
    return result


@pytest.mark.parametrize(
    ("answer", "recorded", "phase"),
    [
        (Accepted("j1"), "AttemptAccepted", "accepted"),
        (Finished(data=b"x"), "ResultReady", "ready"),
        (Finished(url="https://x/1.png"), "ResultReady", "ready"),
        (Failed("provider", charged=True), "AttemptFailed", "queued"),
        (Failed("policy", retryable=False), "AttemptFailed", "failed"),
        (Throttled(), "AttemptRejected", "queued"),
        (Refused("no_credit"), "AttemptRejected", "queued"),
        (Unclear("what"), "AttemptAmbiguous", "ambiguous"),
        (Unclear("what", likely_paid=True), "AttemptAmbiguous", "ambiguous"),
        (WireError("reset", sent=True), "AttemptAmbiguous", "ambiguous"),
        (WireError("refused", sent=False), "AttemptNotSent", "queued"),
    ],
)
def test_every_answer_is_recorded_after_the_intent(answer: SubmitOutcome, recorded: str, phase: str) -> None:
    """MON-1, MON-5: one intent, at most one request, one record."""
    bench = Bench()
    bench.provider.say("submit", answer)
    intents: list[int] = []
    bench.provider.before = lambda kind: intents.append(bench.journal.types().count("AttemptIntended"))
    work = bench.work()
    buy(bench, work)
    assert intents == [1]
    assert bench.journal.types()[:2] == ["AttemptIntended", recorded]
    assert bench.provider.count("submit") == 1
    assert work.state.phase == phase


def test_a_reply_that_breaks_the_protocol_is_doubtful() -> None:
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))

    def malformed(reply: object) -> SubmitOutcome:
        raise MalformedReply("no")

    bench.provider.read_submit = malformed  # type: ignore[method-assign]  # the test's own fake
    work = bench.work()
    assert buy(bench, work) == Unclear("malformed reply: no", likely_paid=True)
    assert work.attempt.reason == "no_job_id"


def test_large_replies_wait_for_each_other_before_they_are_intended() -> None:
    """SEC-9: two of 300 MiB would hold more than 512 at one time."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    build, send = bench.provider.build_submit, bench.provider.send
    open_then: list[int] = []

    def large(request: ImageRequest, ctx: Context) -> HttpCall:
        return msgspec.structs.replace(build(request, ctx), max_reply_bytes=300 << 20)

    async def slow(call: HttpCall, on_sent: Callable[[], None] | None = None) -> HttpReply:
        types = bench.journal.types()
        open_then.append(types.count("AttemptIntended") - types.count("AttemptAccepted"))
        await trio.sleep(1.0)
        return await send(call, on_sent)

    bench.provider.build_submit = large  # type: ignore[method-assign]  # the test's own fake
    bench.provider.send = slow  # type: ignore[method-assign]

    async def go() -> None:
        counter = Counter(bench)
        async with trio.open_nursery() as nursery:
            await nursery.start(counter.gateway.run)
            for n in (1, 2, 3):
                counter.start(bench.work(n))
            await counter.wait_done(3)
            nursery.cancel_scope.cancel()

    run(go)
    assert open_then == [1, 1, 1]


def test_a_guard_that_refuses_sends_nothing() -> None:
    """MON-3, MON-8."""
    bench = Bench()
    bench.journal.refuses = lambda guard: True
    guard = Reserve("batch/1", 1)
    assert buy(bench, bench.work(), guard) == Exceeded(guard, 0)
    assert (bench.provider.calls, bench.journal.events) == ([], [])


def test_the_guards_are_those_of_the_time_of_the_intent() -> None:
    """MON-8: at midnight the money weighs on the new day, so that one must be guarded."""
    bench, seen = Bench(), []
    bench.provider.say("submit", Accepted("j1"))

    async def go() -> None:
        gateway = Gateway(bench.log, bench.provider, bench.clock, "ledger", bench.spool)

        def guards(at_us: int) -> tuple[Guard, ...]:
            seen.append(at_us)
            return ()

        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            work = bench.work()
            gateway.start(Submission(work, bench.account, "1:1", "only", 1, guards, nothing))
            bench.clock.jump(86_400.0)
            await trio.sleep(1.0)
            assert seen == [work.attempt.intended_at_us]
            nursery.cancel_scope.cancel()

    run(go)


def test_a_task_that_changed_before_is_not_bought() -> None:
    """MON-2: an operator cancelled it in the ledger; our state of it is old."""
    bench = Bench()
    work = bench.work()
    bench.journal.versions = dict.fromkeys(bench.journal.versions, 2)
    assert buy(bench, work) == Superseded()
    assert bench.provider.calls == []


@pytest.mark.parametrize("cut_s", [0.0, 0.0005, 0.05, 0.1005])
def test_cancelled_at_any_await_the_record_is_made(cut_s: float) -> None:
    """LIVE-5, MON-5: before the intent, in it, on the wire, in the record."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    work = bench.work()

    async def go() -> None:
        counter = Counter(bench)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(counter.gateway.run)
                counter.start(work)
                scope.deadline = trio.current_time() + cut_s
                await trio.sleep_forever()
        assert counter.gateway.open == 0
        assert len(counter.results) == 1

    run(go)
    if cut_s == 0.0:
        # Trio decides who of the two runs first: not begun, or begun and stopped before the send.
        assert bench.journal.types() in ([], ["AttemptIntended", "AttemptNotSent"])
    elif cut_s < 0.001:
        assert bench.journal.types() == ["AttemptIntended", "AttemptNotSent"]
    else:
        assert bench.journal.types() == ["AttemptIntended", "AttemptAccepted"]
    assert bench.provider.count("submit") == (0 if cut_s < 0.001 else 1)


def test_a_stop_sends_nothing_more_and_a_hurry_ends_the_waiting() -> None:
    """LIVE-5: unanswered after the grace is doubtful, and says so."""
    bench = Bench(latency_s=1000.0)
    bench.provider.say("submit", Accepted("j1"))
    first, second = bench.work(1), bench.work(2)

    async def go() -> None:
        counter = Counter(bench)
        async with trio.open_nursery() as nursery:
            await nursery.start(counter.gateway.run)
            counter.start(first)
            await trio.sleep(1.0)
            counter.gateway.hurry(2.0)
            counter.start(second)
            await counter.wait_done(2)
            assert trio.current_time() < 4.0
            nursery.cancel_scope.cancel()
        assert set(map(type, counter.results)) == {Unclear, Superseded}

    run(go)
    assert (first.state.phase, second.state.phase) == ("ambiguous", "queued")
    assert bench.provider.count("submit") == 1


def test_a_broken_ledger_sends_nothing() -> None:
    """LED-7: the intent could not be made durable."""
    bench = Bench()
    bench.journal.broken = CommitFailed("io")

    async def go() -> None:
        counter = Counter(bench)
        with pytest.RaisesGroup(CommitFailed, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(counter.gateway.run)
                counter.start(bench.work())

    run(go)
    assert bench.provider.calls == []


def test_a_second_attempt_starts_without_the_first_ones_result() -> None:
    """RES-4: bytes of a bad image must not become the next attempt's result."""
    bench = Bench()
    bench.provider.say("submit", Accepted("j1"))
    work = bench.work()
    work.data, work.url, work.expires, work.polls = b"bad", "https://old", 1.0, 7
    buy(bench, work)
    assert (work.data, work.url, work.expires, work.polls) == (b"", "", float("inf"), 0)
    assert isinstance(work.intended_at, float)


def test_not_sent_says_why() -> None:
    bench = Bench()
    bench.provider.say("submit", WireError("connection refused", sent=False))
    assert buy(bench, bench.work()) == NotSent("connection refused")
