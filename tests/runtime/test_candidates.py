"""What a person is shown of the jobs that could be a held task's (REC-5, REC-9)."""

from collections.abc import Collection

import msgspec
import pytest

from adapters.base import (
    Accepted,
    Failed,
    Finished,
    Gone,
    ImageRequest,
    ListedJob,
    MalformedReply,
    NotVisible,
    Pending,
    Throttled,
    Unreadable,
)
from adapters.batchfile import ResultFile, line_job
from adapters.capabilities import Listing, Lookup
from ledger.commands import Intend, Record
from ledger.events import AttemptAmbiguous, AttemptUnknown
from runtime.accounts import Account
from runtime.candidates import Asked, Candidate, Held, search
from runtime.ports import WireError
from runtime.reconcile import SKEW_S
from runtime.simulated import EPOCH_US
from runtime.work import Work, WorkKey
from tests.runtime.batches import key_of, page
from tests.runtime.fakes import CAPS, Bench, known, run
from tests.runtime.test_batchpoller import FileBench
from tests.runtime.test_evidence import Directory

KEY = WorkKey(1, 1)
SECRET = "https://files.example/secret.png"
SKEW_US = int(SKEW_S * 1e6)
LATE_US = SKEW_US + int((CAPS.submit_timeout_s.value + CAPS.ingress_hold_s) * 1e6)


async def held(bench: Bench, n: int = 1, *, named: tuple[str, ...] = (), file: str = "") -> Held:
    work: Work = bench.work(n)
    for command in (
        Intend("fake", "fake", "1:1", "only", 40_000, "d", 0, file=file),
        Record(AttemptAmbiguous(attempt=1, reason="crash")),
        Record(AttemptUnknown(attempt=1, reason="several_fit")),
    ):
        await bench.log.record(work, command)
    return Held(work, work.request, named)


def asked(
    bench: Bench,
    account: Account,
    *,
    bound: Collection[str] = (),
    named: tuple[str, ...] = (),
    count: int = 1,
    file: str = "",
    known_request: bool = True,
    set_back_s: float = 0.0,
    sending_since_us: int | None = None,
) -> Asked:
    """Ask about held tasks that were sent at :data:`EPOCH_US`, or a little later."""
    answers: list[Asked] = []

    async def go() -> None:
        works = [await held(bench, n, named=named, file=file) for n in range(1, count + 1)]
        if not known_request:
            works = [msgspec.structs.replace(each, as_sent=None) for each in works]
        bench.clock.jump(-set_back_s)
        for each in works if set_back_s else ():
            each.work.intended_at = None  # as after a restart
        answers.append(
            await search(
                account,
                works,
                query=bench.provider.send,
                clock=bench.clock,
                ledger_id="ledger",
                bound=lambda jobs: set(bound) & set(jobs),
                sending_since_us=sending_since_us,
            )
        )

    run(go)
    return answers[0]


def shown(request: ImageRequest) -> str:
    """What the fake provider's list shows of a request without references."""
    return request.prompt


def jobs_of(found: Asked, n: int = 1) -> list[tuple[str, str, str]]:
    return [(each.job, each.fits, each.state) for each in found.candidates[WorkKey(1, n)]]


def test_a_list_gives_the_jobs_with_the_same_input_and_those_of_the_time_that_hide_theirs() -> None:
    """REC-5: with state, model, cost and time; a bound job, another input and another time are no candidates."""
    bench = Bench()
    mine = shown(bench.work(1).request)
    bench.provider.say(
        "list",
        (
            ListedJob("early", EPOCH_US - SKEW_US - 2_000_000, None, Pending()),
            ListedJob("hidden", EPOCH_US + 9_000_000, None, Gone("no image")),
            ListedJob("near", EPOCH_US + 1_000_000, None, Failed("provider", cost_microusd=7), model="big"),
            ListedJob("taken", EPOCH_US, mine, Pending()),
            ListedJob("other", EPOCH_US, "another input", Pending()),
            ListedJob("same", EPOCH_US + LATE_US * 2, mine, Finished(url=SECRET), cost_microusd=40_000),
            ListedJob("late", EPOCH_US + LATE_US + 60_000_000, None, Pending()),
        ),
    )
    found = asked(bench, bench.account, bound=["taken"])
    assert (found.how, found.trouble) == ("listing", "")
    assert list(found.candidates[KEY]) == [
        Candidate("same", "succeeded", "input", EPOCH_US + LATE_US * 2, "", 40_000),
        Candidate("near", "failed", "time", EPOCH_US + 1_000_000, "big", 7),
        Candidate("hidden", "gone", "time", EPOCH_US + 9_000_000),
    ]
    assert SECRET not in repr(found)


def test_a_job_that_may_be_of_a_request_under_way_is_left_out() -> None:
    """REC-5: its answer may be on its way to the record, and then the job would be bound twice."""
    bench = Bench()
    mine = shown(bench.work(1).request)
    at_us = EPOCH_US + SKEW_US // 2
    jobs = (ListedJob("before", at_us - SKEW_US // 2 - 1, None, Pending()), ListedJob("now", at_us, mine, Pending()))
    bench.provider.say("list", jobs)
    found = asked(bench, bench.account, sending_since_us=at_us)
    assert jobs_of(found) == [("before", "time", "running")]
    assert found.busy == {"now"}


def test_many_held_tasks_are_one_question() -> None:
    bench = Bench()
    bench.provider.say("list", (ListedJob("a", EPOCH_US, None, Pending()),))
    found = asked(bench, bench.account, count=3)
    assert bench.provider.count("list") == 1
    assert [jobs_of(found, n) for n in (1, 2, 3)] == [[("a", "time", "running")]] * 3


def test_where_the_request_is_not_known_any_more_only_the_time_tells() -> None:
    """Its uploaded files were erased, say: then no input can be compared."""
    bench = Bench()
    bench.provider.say("list", (ListedJob("a", EPOCH_US, "some input", Pending()),))
    assert jobs_of(asked(bench, bench.account, known_request=False)) == [("a", "time", "running")]


def test_what_is_older_than_the_list_is_not_asked_about() -> None:
    bench = Bench(caps=msgspec.structs.replace(CAPS, listing=known(Listing(1.0, 3600.0, 60.0, 100))))
    found = asked(bench, bench.account)
    assert found.beyond == {KEY}
    assert bench.provider.calls == []
    assert jobs_of(found) == []


def test_of_a_task_that_a_wrong_clock_sent_only_the_same_input_counts() -> None:
    """REC-8: its time is not believed, so no job fits by its time."""
    bench = Bench()
    mine = shown(bench.work(1).request)
    jobs = (ListedJob("hidden", EPOCH_US, None, Pending()), ListedJob("same", EPOCH_US - SKEW_US * 3, mine, Pending()))
    bench.provider.say("list", jobs)
    found = asked(bench, bench.account, set_back_s=7200.0)
    assert found.beyond == {KEY}
    assert jobs_of(found) == [("same", "input", "running")]


@pytest.mark.parametrize("answer", [WireError("reset", sent=True), MalformedReply("no")])
def test_a_list_that_cannot_be_read_is_told_and_nothing_is_concluded(answer: Exception) -> None:
    bench = Bench()
    bench.provider.say("list", answer)
    found = asked(bench, bench.account)
    assert found.trouble == str(answer)
    assert found.candidates == {}


def lookup_bench() -> tuple[Bench, Account]:
    bench = Bench(caps=msgspec.structs.replace(CAPS, lookup=known(Lookup(1.0))))
    bench.provider = Directory(caps=bench.provider.capabilities)
    return bench, msgspec.structs.replace(bench.account, codec=bench.provider)


def test_a_lookup_gives_the_job_that_carries_our_reference() -> None:
    bench, account = lookup_bench()
    bench.provider.say("lookup", Accepted("j1"), NotVisible())
    bench.provider.say("poll", Finished(url=SECRET))
    found = asked(bench, account, count=2)
    assert found.how == "lookup"
    assert sorted(jobs_of(found, 1) + jobs_of(found, 2)) == [("j1", "reference", "succeeded")]


@pytest.mark.parametrize(
    ("answer", "trouble"), [(Throttled(1.0), "asked too fast"), (Unreadable("status 500"), "status 500")]
)
def test_a_lookup_without_an_answer_is_told(answer: object, trouble: str) -> None:
    bench, account = lookup_bench()
    bench.provider.say("lookup", answer)
    assert asked(bench, account).trouble == trouble


def test_a_list_of_batches_gives_the_line_of_the_file_of_that_name() -> None:
    bench = FileBench()
    bench.provider.say("batches", page(("b0", "f0", 1), ("b1", "f1", 2)))
    bench.provider.say("batch", ResultFile("results"))
    found = asked(bench, bench.account, file="f1")
    assert found.how == "batches"
    assert jobs_of(found) == [(line_job("b1", key_of(1)), "reference", "succeeded")]


def no_list() -> Bench:
    return Bench(caps=msgspec.structs.replace(CAPS, listing=None))


def test_who_cannot_be_asked_is_asked_nothing() -> None:
    bench = no_list()
    found = asked(bench, bench.account)
    assert (found.how, found.trouble, jobs_of(found)) == ("nothing", "", [])
    assert bench.provider.calls == []


def test_a_job_that_a_callback_named_is_read_and_must_be_nobody_s() -> None:
    """REC-7: the call is a hint; what is shown is what the account says now."""
    bench = no_list()
    bench.provider.say("poll", Pending(), NotVisible())
    found = asked(bench, bench.account, named=("a", "b", "bound"), bound=["bound"])
    assert sorted(bench.provider.calls) == ["poll/a", "poll/b"]
    assert [(fits, state) for _, fits, state in jobs_of(found)] == [("callback", "running")]


def test_a_named_job_that_cannot_be_read_is_told() -> None:
    bench = no_list()
    bench.provider.say("poll", Unreadable("status 502"))
    assert asked(bench, bench.account, named=("a",)).trouble == "status 502"
