"""Tasks with local references in the account, at the gateway and in doubt: first the uploads, then the intent."""

from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import Accepted, NotVisible, Pending, Unclear, Uploaded, UploadRefused
from adapters.capabilities import Rate
from ledger.commands import Intend, Record
from ledger.events import (
    AccountParked,
    AttemptAmbiguous,
    AttemptIntended,
    AttemptUnknown,
    ReferenceUploaded,
    TaskFailed,
)
from runtime.accountbook import open_accounts
from runtime.accountlog import AccountLog
from runtime.gateway import Submission, SubmitResult
from runtime.ports import WireError
from runtime.work import Work, WorkKey
from tests.runtime.doubting import Doubting, doubt
from tests.runtime.fakes import CAPS, Bench, known, listed, nothing, run
from tests.runtime.nights import OpenLedger, with_ledger
from tests.runtime.test_account import Desk, at_work
from tests.runtime.test_gateway import Counter
from tests.runtime.test_references import AT, INLINE, UPLOADS, at, name_of

URL = "https://a.example/1.png"


def intents(bench: Bench) -> list[AttemptIntended]:
    return [event for event in bench.journal.events if isinstance(event, AttemptIntended)]


def offer(desk: Desk, *works: Work) -> None:
    for work in works:
        desk.actor.offer(Submission(work, desk.bench.account, "1:1", "only", 40_000, lambda at_us: (), nothing))


# --- the account and its gateway --------------------------------------------------------------------------


def test_the_intent_names_the_uploads_and_the_call_carries_their_urls() -> None:
    """MON-1: the upload is durable, then the intent, then the call."""
    bench = Bench(caps=UPLOADS)
    a, b = bench.file("a.png"), bench.file("b.png")
    bench.provider.say("upload", Uploaded(AT, 7200.0))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    work = bench.work(references=(a, URL, b))

    async def body(desk: Desk) -> None:
        offer(desk, work)
        await trio.sleep(5.0)

    at_work(bench, body)
    assert bench.journal.types()[:4] == [
        "ReferenceUploaded",
        "ReferenceUploaded",
        "AttemptIntended",
        "AttemptAccepted",
    ]
    (intent,) = intents(bench)
    assert [bench.journal.texts[ref.row] for ref in intent.uploads] == [at(a), at(b)]
    assert intent.body_digest == work.body_digest(f"picture 1|{at(a)}|{URL}|{at(b)}".encode())
    assert work.fingerprint == f"picture 1|{at(a)}|{URL}|{at(b)}"
    assert work.attempt.uploads == intent.uploads


def test_inline_bytes_are_in_the_call_and_not_in_the_ledger() -> None:
    bench = Bench(caps=INLINE)
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    work = bench.work(references=(bench.file("a.png", b"abc"),))

    async def body(desk: Desk) -> None:
        offer(desk, work)
        await trio.sleep(1.0)

    at_work(bench, body)
    (intent,) = intents(bench)
    assert intent.uploads == ()
    assert intent.body_digest == work.body_digest(b"picture 1|data:image/png;base64,YWJj")
    assert all("YWJj" not in text for text in bench.journal.texts.values())


def test_a_changed_file_leaves_a_held_task_held() -> None:
    """LIVE-3: it was to be bought beside its doubtful attempt; that it cannot be fails nothing and ends no night."""
    bench = Bench(caps=UPLOADS)
    changed = bench.file("changed.png")
    bench.file("changed.png", b"other")
    work = bench.work(references=(changed,))

    async def body(desk: Desk) -> None:
        await bench.log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        await bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))
        await bench.log.record(work, Record(AttemptUnknown(attempt=1, reason="no_evidence")))
        offer(desk, work)
        await trio.sleep(5.0)
        assert desk.told == [("settled", 1)]

    at_work(bench, body)
    assert work.state.phase == "held"


def test_a_changed_file_fails_its_task_and_no_other() -> None:
    bench = Bench(caps=UPLOADS)
    changed, fine = bench.file("changed.png"), bench.file("fine.png")
    bench.file("changed.png", b"other")
    bench.provider.say("upload", Uploaded(AT, 7200.0))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    one, two = bench.work(1, references=(fine, changed)), bench.work(2, references=(fine,))

    async def body(desk: Desk) -> None:
        offer(desk, one, two)
        await trio.sleep(5.0)

    desk = at_work(bench, body)
    assert (one.state.phase, one.state.reason, one.state.attempts) == ("failed", "input_changed", ())
    (failed,) = [event for event in bench.journal.events if isinstance(event, TaskFailed)]
    assert failed.detail is not None
    assert "/pics/changed.png is not the file that it was" in bench.journal.texts[failed.detail.row]
    assert two.state.phase == "accepted"
    assert desk.told == [("settled", 1)]
    assert bench.provider.calls.count(f"upload/{name_of(fine)}") == 1


def test_an_upload_that_is_refused_for_good_fails_the_task() -> None:
    bench = Bench(caps=UPLOADS)
    bench.provider.say("upload", UploadRefused("not an image", retryable=False))
    work = bench.work(references=(bench.file("a.png"),))

    async def body(desk: Desk) -> None:
        offer(desk, work)
        await trio.sleep(5.0)

    desk = at_work(bench, body)
    assert (work.state.phase, work.state.reason) == ("failed", "rejected")
    assert desk.told == [("settled", 1)]
    assert bench.provider.count("submit") == 0


def test_a_refused_key_parks_the_account_and_gives_its_tasks_back() -> None:
    """LIVE-4: they are not failed, and not tried again and again."""
    bench = Bench(caps=UPLOADS)
    bench.provider.say("upload", UploadRefused("key refused", retryable=False, account=True))
    works = [bench.work(n, references=(bench.file(f"{n}.png"),)) for n in range(1, 5)]

    async def body(desk: Desk) -> None:
        offer(desk, *works)
        await trio.sleep(30.0)

    desk = at_work(bench, body)
    assert desk.actor.parked == "upload: key refused"
    assert AccountParked(reason="upload: key refused") in bench.journal.events
    assert sorted(desk.told) == [("queued", n) for n in range(1, 5)]
    assert {work.state.phase for work in works} == {"queued"}
    assert bench.provider.count("upload") <= 4
    assert intents(bench) == []


def test_an_upload_service_that_is_down_shuts_the_lane_for_a_while() -> None:
    bench = Bench(caps=UPLOADS)
    bench.provider.say("upload", WireError("reset", sent=True))
    works = [bench.work(n, references=(bench.file(f"{n}.png"),)) for n in range(1, 9)]

    async def body(desk: Desk) -> None:
        for _ in range(2000):  # a router that offers whatever comes back wherever there is room
            for work in works:
                if work.key not in desk.actor._owned and desk.actor.room("1:1") > 0:
                    offer(desk, work)
            await trio.sleep(0.1)

    at_work(bench, body, seconds=0.0)
    assert {work.state.phase for work in works} == {"queued"}
    assert intents(bench) == []
    # Five failures shut it; then a probe after 5, 10, 20, ... seconds, each of which tries three times.
    assert bench.provider.count("upload") < 3 * (8 + 8)


def test_tasks_that_wait_for_uploads_hold_up_nobody() -> None:
    """A slow upload takes no place in the lane and no token of the rate."""
    caps = msgspec.structs.replace(UPLOADS, submit_rate=known(Rate(1, 60.0)))
    bench = Bench(caps=caps)
    bench.provider.say("upload", Uploaded(AT, 7200.0))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    bench.provider.latency_s = 20.0
    slow, plain = bench.work(1, references=(bench.file("a.png"),)), bench.work(2)

    async def body(desk: Desk) -> None:
        offer(desk, slow, plain)
        await trio.sleep(1.0)
        assert bench.provider.calls == [f"upload/{name_of(slow.request.references[0])}", "submit/picture 2"]
        await trio.sleep(58.0)
        assert bench.provider.count("submit") == 1
        await trio.sleep(2.0)
        assert bench.provider.count("submit") == 2

    at_work(bench, body)


def test_the_room_for_tasks_that_wait_for_uploads_is_bounded() -> None:
    bench = Bench(caps=UPLOADS, latency_s=100.0)
    bench.provider.say("upload", Uploaded(AT, 7200.0))

    async def body(desk: Desk) -> None:
        n = 0
        while desk.actor.room("1:1") > 0:
            n += 1
            offer(desk, bench.work(n, references=(bench.file(f"{n}.png"),)))
        assert n == min(16, CAPS.concurrency.value)
        assert [work.n for work in desk.actor.stop_buying()] == list(range(1, n + 1))

    desk = at_work(bench, body)
    assert intents(bench) == []
    assert desk.told == []


def test_a_restarted_actor_uploads_for_those_that_wait() -> None:
    bench = Bench(caps=UPLOADS)
    bench.provider.say("upload", RuntimeError("a bug"), Uploaded(AT, 7200.0))
    bench.provider.say("submit", Accepted("j1"))
    bench.provider.say("poll", Pending())
    work = bench.work(references=(bench.file("a.png"),))

    async def body(desk: Desk) -> None:
        offer(desk, work)
        await trio.sleep(20.0)

    at_work(bench, body)
    assert work.state.phase == "accepted"


def test_a_stop_cuts_an_upload_off_before_anything_is_intended() -> None:
    """LIVE-5."""
    bench = Bench(caps=UPLOADS, latency_s=1000.0)
    bench.provider.say("upload", Uploaded(AT, 7200.0))
    work = bench.work(references=(bench.file("a.png"),))
    results: list[SubmitResult] = []

    async def go() -> None:
        counter = Counter(bench)
        uploads = Desk(bench).actor._references
        async with trio.open_nursery() as nursery:
            await nursery.start(counter.gateway.run)
            counter.gateway.start(
                Submission(
                    work,
                    bench.account,
                    "1:1",
                    "only",
                    40_000,
                    lambda at_us: (),
                    lambda submission, result: results.append(result),
                    uploads.resolve,
                )
            )
            await trio.sleep(1.0)
            counter.gateway.stop()
            await trio.sleep(1.0)
            assert counter.gateway.open == 0
            nursery.cancel_scope.cancel()

    run(go)
    assert [type(result).__name__ for result in results] == ["Superseded"]
    assert bench.journal.events == []


# --- in doubt ---------------------------------------------------------------------------------------------


def test_a_doubtful_attempt_is_compared_by_the_urls_that_were_sent() -> None:
    """REC-5: the listing shows URLs, the request names a file."""
    bench = Bench(caps=UPLOADS)
    a = bench.file("a.png")
    bench.provider.say("upload", Uploaded(AT, 7200.0))
    bench.provider.say("submit", Unclear("500"))
    bench.provider.say("poll", NotVisible())
    work = bench.work(references=(a,))

    async def body(desk: Desk) -> None:
        bench.provider.say("list", (listed("j7", f"picture 1|{at(a)}", bench.clock.now_us(), Pending()),))
        offer(desk, work)
        await trio.sleep(20.0)

    at_work(bench, body)
    assert (work.state.phase, work.attempt.job) == ("accepted", "j7")


def test_where_the_urls_were_erased_nothing_is_called_absent() -> None:
    """REC-4: an empty listing proves nothing about a request that nobody knows any more."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(found: Doubting) -> None:
        for n in (1, 2):
            found.doubts.add(await found.doubtful(n, old=True))
        found.forgotten.add(WorkKey(1, 1))

    found = doubt(bench, body, seconds=60.0)
    phases = {work.n: (work.state.phase, work.attempt.phase, work.attempt.reason) for work in found.judged}
    assert phases == {1: ("held", "unknown", "no_evidence"), 2: ("queued", "absent", "listing")}


# --- over restarts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["same", "other"])
def test_uploads_are_found_again_unless_the_key_changed(tmp_path: Path, key: str) -> None:
    """REC-9: with another key it may be another account, which does not see them."""
    bench = Bench()
    found: list[dict[str, str | None]] = []

    async def body(opened: OpenLedger) -> None:
        async def accounts(key: str) -> AccountLog:
            logs = await open_accounts(
                [bench.account], opened.reader, opened.writer, opened.clock, lambda text: key * 8
            )
            return logs["fake"]

        log = await accounts("same")
        for sha256, url in (("a", "https://one"), ("b", "https://two"), ("a", "https://three")):
            ref, payload = log.text(url)
            await log.append(ReferenceUploaded(sha256=sha256, url=ref), payloads=[payload])
        for _ in range(2):  # also in the run after the one that noticed
            log = await accounts(key)
            found.append({sha256: opened.reader.payload(event.url.row) for sha256, event in log.uploads.items()})

    with_ledger(tmp_path, body)
    assert found == [{"a": "https://three", "b": "https://two"} if key == "same" else {}] * 2
