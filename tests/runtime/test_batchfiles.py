"""Buying by the file: one commit of intents, one call, one commit of what it meant (MON-1, MON-5, W2 to W5)."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio

from adapters.base import (
    Accepted,
    HttpReply,
    MalformedReply,
    Pending,
    Refused,
    Throttled,
    Unclear,
    UploadRefused,
)
from adapters.batchfile import ResultFile
from adapters.capabilities import Rate
from ledger.decisions import Reserve
from ledger.events import AttemptAccepted, AttemptIntended, AttemptRejected
from ledger.streams import task_stream
from runtime.gateway import Submission
from runtime.ports import WireError
from runtime.work import Work
from tests.runtime.batches import LINES, key_of, page
from tests.runtime.fakes import Bench, nothing
from tests.runtime.test_account import Desk, at_work
from tests.runtime.test_batchpoller import FileBench


def ready_to_sell() -> FileBench:
    bench = FileBench()
    bench.provider.say("upload", "taken")
    bench.provider.say("create", Accepted("b1"))
    bench.provider.say("batch", Pending())
    bench.provider.say("batches", page())
    return bench


def buys(*, works: int, prompt: str = "") -> Callable[[Desk], Awaitable[None]]:
    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        desk.offer(*(desk.bench.work(n, prompt=prompt and f"{prompt} {n}") for n in range(1, works + 1)))

    return body


def guarded(*, works: int) -> Callable[[Desk], Awaitable[None]]:
    """The same, under a guard."""

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        guards = (Reserve("batch/1", 0),)
        for n in range(1, works + 1):
            work = desk.bench.work(n)
            desk.actor.offer(Submission(work, desk.bench.account, "1:1", "only", 1, lambda at_us: guards, nothing))

    return body


def intents(bench: Bench) -> list[AttemptIntended]:
    return [event for event in bench.journal.events if isinstance(event, AttemptIntended)]


def kinds(bench: Bench) -> list[str]:
    return [call.partition("/")[0] for call in bench.provider.calls]


def test_a_file_is_uploaded_then_intended_then_created_then_accepted() -> None:
    bench = ready_to_sell()
    seen: list[tuple[str, int]] = []
    bench.provider.before = lambda kind: seen.append((kind, len(intents(bench))))
    desk = at_work(bench, buys(works=LINES), seconds=0.5)
    assert seen[:2] == [("upload", 0), ("create", LINES)]
    assert bench.journal.types() == ["AttemptIntended"] * LINES + ["AttemptAccepted"] * LINES
    assert {intent.file for intent in intents(bench)} == {bench.provider.calls[1].rpartition("/")[2]}
    jobs = [event.job for event in bench.journal.events if isinstance(event, AttemptAccepted)]
    assert jobs == [f"b1.{key_of(n)}" for n in range(1, LINES + 1)]
    assert bench.files_of.files == ["".join(f"{key_of(n)} picture {n}\n" for n in range(1, LINES + 1)).encode()]
    assert desk.actor.in_flight == LINES


def test_no_two_files_have_one_name() -> None:
    """W16: the name is the evidence."""
    bench = ready_to_sell()
    bench.provider.say("create", Accepted("b2"), Accepted("b3"))
    at_work(bench, buys(works=2 * LINES + 1), seconds=5.0)
    names = [intent.file for intent in intents(bench)]
    assert [names.count(name) for name in dict.fromkeys(names)] == [LINES, LINES, 1]
    assert all(name.startswith("bydawn-ledger-5-") for name in names)


def test_a_night_of_files_comes_home() -> None:
    bench = ready_to_sell()
    bench.provider.say("batch", ResultFile("r"))
    bench.provider.say("results", b"".join(b"1-%d-1=image %d\n" % (n, n) for n in range(1, LINES + 1)))
    desk = at_work(bench, buys(works=LINES))
    assert sorted(desk.told) == [("ready", n) for n in range(1, LINES + 1)]
    assert desk.actor.in_flight == 0


@pytest.mark.parametrize(
    ("answer", "told", "event"),
    [
        (Throttled(1.0), "queued", "AttemptRejected"),
        (Refused("unavailable"), "queued", "AttemptRejected"),
        (WireError("no", sent=False), "queued", "AttemptNotSent"),
        (Refused("no_credit"), "queued", "AttemptRejected"),
    ],
)
def test_what_was_not_bought_goes_back_with_all_its_lines(answer: object, told: str, event: str) -> None:
    bench = ready_to_sell()
    bench.provider.answers["create"].clear()
    bench.provider.say("create", answer)
    desk = at_work(bench, buys(works=LINES))
    assert sorted(desk.told) == [(told, n) for n in range(1, LINES + 1)]
    assert bench.journal.types()[: 2 * LINES] == ["AttemptIntended"] * LINES + [event] * LINES
    assert kinds(bench).count("create") == 1
    assert desk.actor.in_flight == 0
    assert bool(desk.actor.parked) == (answer == Refused("no_credit"))


@pytest.mark.parametrize("answer", [Unclear("what", likely_paid=True), WireError("reset", sent=True)])
def test_no_clear_answer_makes_every_line_doubtful_and_the_list_finds_them(answer: object) -> None:
    """MON-2, REC-4: nothing is bought again while nobody knows."""
    bench = ready_to_sell()
    bench.provider.answers["create"].clear()
    bench.provider.say("create", answer)
    bench.provider.answers["batches"].clear()

    def made(kind: str) -> None:
        if kind == "create":
            bench.provider.say("batches", page(("b7", intents(bench)[0].file, 1)))

    bench.provider.before = made
    at_work(bench, buys(works=LINES), seconds=20.0)
    types = bench.journal.types()
    assert types == ["AttemptIntended"] * LINES + ["AttemptAmbiguous"] * LINES + ["AttemptAdopted"] * LINES
    assert kinds(bench).count("create") == 1
    assert bench.provider.count("batch/b7") >= 1


def test_a_file_that_never_became_a_batch_is_bought_again() -> None:
    bench = ready_to_sell()
    bench.provider.answers["create"].clear()
    bench.provider.say("create", WireError("reset", sent=True), Accepted("b2"))
    desk = at_work(bench, buys(works=LINES), seconds=20.0)
    assert bench.journal.types()[2 * LINES :] == ["AttemptAbsent"] * LINES
    assert sorted(desk.told) == [("queued", n) for n in range(1, LINES + 1)]


def test_a_malformed_answer_is_doubtful() -> None:
    bench = ready_to_sell()

    def malformed(reply: HttpReply) -> object:
        raise MalformedReply("no")

    bench.files_of.read_create = malformed  # type: ignore[method-assign,assignment]  # the test's own fake
    at_work(bench, buys(works=1), seconds=3.0)
    assert bench.journal.types() == ["AttemptIntended", "AttemptAmbiguous"]


def test_a_file_that_is_called_bad_fails_none_of_its_lines_and_the_next_is_smaller() -> None:
    bench = ready_to_sell()
    bench.provider.answers["create"].clear()
    bench.provider.say("create", Refused("invalid"), Accepted("b1"))

    async def body(desk: Desk) -> None:
        await buys(works=LINES)(desk)
        await trio.sleep(2.0)
        assert [event.reason for event in bench.journal.events if isinstance(event, AttemptRejected)] == [
            "unavailable"
        ] * LINES
        desk.offer(*(bench.work(n) for n in range(10, 10 + LINES)))

    at_work(bench, body)
    assert [data.count(b"\n") for data in bench.files_of.files] == [LINES, LINES // 2, LINES // 2]


def test_one_line_that_is_called_bad_fails() -> None:
    bench = ready_to_sell()
    bench.provider.answers["create"].clear()
    bench.provider.say("create", Refused("invalid"))
    desk = at_work(bench, buys(works=1), seconds=20.0)
    assert desk.told == [("settled", 1)]
    assert bench.journal.types()[-1] == "TaskFailed"


def test_a_task_that_was_cancelled_meanwhile_is_left_out() -> None:
    bench = ready_to_sell()

    def cancel(kind: str) -> None:
        if kind == "upload" and not intents(bench):
            bench.journal.versions[task_stream(1, 2)] = 2  # an operator was faster

    bench.provider.before = cancel
    desk = at_work(bench, buys(works=3), seconds=5.0)
    assert [data.count(b"\n") for data in bench.files_of.files] == [3, 2]
    assert len(intents(bench)) == 2
    assert desk.told == [("settled", 2)]
    assert desk.actor.in_flight == 2


def test_a_guard_without_room_makes_the_file_smaller() -> None:
    """MON-8: what fits is bought."""
    bench = ready_to_sell()
    refusals = [True, True, False]
    bench.journal.refuses = lambda guard: refusals.pop(0) if refusals else False
    at_work(bench, guarded(works=4), seconds=10.0)
    assert [data.count(b"\n") for data in bench.files_of.files] == [4, 3, 2, 2]
    assert len(intents(bench)) == 4


def test_a_guard_that_has_no_room_at_all_blocks_every_line_in_order() -> None:
    bench = ready_to_sell()
    bench.journal.refuses = lambda guard: True
    desk = at_work(bench, guarded(works=2), seconds=10.0)
    assert desk.told == [("blocked", 1), ("blocked", 2)]
    assert kinds(bench).count("create") == 0
    assert (intents(bench), desk.actor.in_flight) == ([], 0)


def test_files_are_made_at_the_rate_of_creations() -> None:
    bench = ready_to_sell()
    bench.account = msgspec.structs.replace(bench.account, rate=Rate(1, 10.0))
    bench.provider.say("create", Accepted("b2"))
    at_work(bench, buys(works=2 * LINES), seconds=8.0)
    assert kinds(bench).count("create") == 1
    bench = ready_to_sell()
    bench.account = msgspec.structs.replace(bench.account, rate=Rate(1, 10.0))
    bench.provider.say("create", Accepted("b2"))
    at_work(bench, buys(works=2 * LINES), seconds=12.0)
    assert kinds(bench).count("create") == 2


# --- uploads --------------------------------------------------------------------------------------------------


def test_an_upload_is_tried_a_few_times_and_then_the_lines_go_back() -> None:
    bench = ready_to_sell()
    bench.provider.answers["upload"].clear()
    bench.provider.say("upload", UploadRefused("busy", retryable=True), WireError("reset", sent=True), "taken")
    at_work(bench, buys(works=1), seconds=10.0)
    assert kinds(bench)[:4] == ["upload", "upload", "upload", "create"]
    bench = ready_to_sell()
    bench.provider.answers["upload"].clear()
    bench.provider.say("upload", UploadRefused("busy", retryable=True))
    desk = at_work(bench, buys(works=2), seconds=10.0)
    assert desk.told == [("queued", 2), ("queued", 1)]
    assert (bench.journal.events, desk.actor.in_flight) == ([], 0)


def test_an_upload_that_is_refused_for_the_account_parks_it() -> None:
    bench = ready_to_sell()
    bench.provider.answers["upload"].clear()
    bench.provider.say("upload", UploadRefused("key", retryable=False, account=True))
    desk = at_work(bench, buys(works=2), seconds=10.0)
    assert desk.actor.parked == "upload: key"
    assert sorted(desk.told) == [("queued", 1), ("queued", 2)]


@pytest.mark.parametrize("how", ["stop", "park", "gateway"])
def test_a_stop_during_the_upload_buys_nothing_and_loses_nobody(how: str) -> None:
    """LIVE-5."""
    bench = ready_to_sell()
    bench.provider.latency_s = 1.0

    async def body(desk: Desk) -> None:
        await buys(works=LINES)(desk)
        await trio.sleep(0.5)
        if how == "stop":
            assert desk.actor.stop_buying() == []
        elif how == "park":
            desk.actor.park("tired")
        else:
            desk.gateway.stop()

    desk = at_work(bench, body)
    assert sorted(desk.told) == [("queued", n) for n in range(1, LINES + 1)]
    assert kinds(bench).count("create") == 0
    assert (intents(bench), desk.actor.in_flight) == ([], 0)


def test_told_to_hurry_it_records_the_doubt_of_all_lines() -> None:
    bench = ready_to_sell()
    bench.provider.latency_s = 5.0

    async def body(desk: Desk) -> None:
        await buys(works=LINES)(desk)
        await trio.sleep(7.0)
        assert kinds(bench) == ["upload", "create"]
        desk.gateway.hurry(0.5)

    at_work(bench, body, seconds=1.0)
    assert bench.journal.types() == ["AttemptIntended"] * LINES + ["AttemptAmbiguous"] * LINES


def test_a_file_is_no_larger_than_its_bytes_allow() -> None:
    bench = ready_to_sell()
    bench.provider.say("create", Accepted("b2"))
    at_work(bench, buys(works=LINES, prompt="x" * 80), seconds=5.0)
    assert [data.count(b"\n") for data in bench.files_of.files] == [2, 2]


def test_a_reference_that_changed_stops_its_own_task_alone() -> None:
    bench = ready_to_sell()

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        old = bench.file("a.png", b"before")
        bench.file("a.png", b"after")
        good = bench.file("b.png")
        desk.offer(bench.work(1, references=(old,)), bench.work(2, references=(good,)))

    desk = at_work(bench, body, seconds=5.0)
    assert desk.told == [("settled", 1)]
    assert bench.journal.types() == ["TaskFailed", "AttemptIntended", "AttemptAccepted"]


def test_nothing_is_uploaded_when_no_line_is_left() -> None:
    bench = ready_to_sell()

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        old = bench.file("a.png", b"before")
        bench.file("a.png", b"after")
        desk.offer(bench.work(1, references=(old,)))

    desk = at_work(bench, body, seconds=5.0)
    assert (desk.told, bench.provider.calls) == ([("settled", 1)], [])


def test_a_crash_while_a_file_is_made_gives_its_tasks_back() -> None:
    """LIVE-4."""
    bench = ready_to_sell()
    line, left = bench.files_of.line, [RuntimeError("once")]

    def fragile(key: str, request: object) -> bytes:
        if left:
            raise left.pop()
        return line(key, request)  # type: ignore[arg-type]

    bench.files_of.line = fragile  # type: ignore[method-assign]  # the test's own fake
    desk = at_work(bench, buys(works=2), seconds=10.0)
    assert sorted(desk.told) == [("queued", 1), ("queued", 2)]
    assert desk.actor.in_flight == 0


# --- the account around it --------------------------------------------------------------------------------------


def test_lines_of_an_older_epoch_are_followed_and_doubted_by_batch() -> None:
    bench = ready_to_sell()
    bench.provider.say("batch", ResultFile("r"))
    bench.provider.say("results", b"1-1-1=one\n")

    async def body(desk: Desk) -> None:
        work: Work = await desk.open_work(1, job="b1.1-1-1")
        desk.actor.take_over([work], [], {})
        desk.actor.follow_adopted(work)

    desk = at_work(bench, body, seconds=10.0)
    assert desk.told == [("ready", 1)]


def test_the_rate_remembers_files_and_not_their_lines() -> None:
    bench = ready_to_sell()

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        desk.actor.take_over([], [0.25] * 999 + [0.5], {})
        assert desk.actor.seconds_until_room == float("inf")

    at_work(bench, body, seconds=0.1)


def test_a_cancelled_batch_is_stopped_at_the_provider() -> None:
    bench = ready_to_sell()
    bench.provider.say("stop", "stopped")
    works: list[Work] = []

    async def body(desk: Desk) -> None:
        works.extend(desk.bench.work(n) for n in (1, 2))
        desk.offer(*works)
        await trio.sleep(3.0)
        assert [desk.actor.cancel(work, "me") for work in works] == [True, True]
        desk.actor.hinted(works[0])

    at_work(bench, body, seconds=3.0)
    assert bench.provider.count("stop/b1") == 1


def test_one_files_worth_of_attempts_may_be_unanswered_four_times() -> None:
    """MON-3."""
    bench = ready_to_sell()

    async def body(desk: Desk) -> None:
        await trio.lowlevel.checkpoint()
        assert desk.actor.most_unacknowledged == 4 * LINES
        assert desk.actor.room("1:1") == 2 * LINES

    at_work(bench, body, seconds=0.1)
