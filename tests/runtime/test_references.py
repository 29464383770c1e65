"""Local references on their way: uploaded once and shared, or put inline; never other bytes than at import."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import trio

from adapters.base import HttpCall, HttpReply, ImageRequest, MalformedReply, Uploaded, UploadRefused
from adapters.capabilities import Capabilities, References
from adapters.references import local_file
from ledger.commands import Intend
from ledger.events import PayloadRef, ReferenceUploaded
from ledger.streams import account_stream
from runtime.accountlog import AccountLog
from runtime.ports import WireError
from runtime.reconcile import SKEW_S
from runtime.references import ReferenceFiles, Resolution, Resolved, Unresolved
from runtime.references import References as Uploads
from runtime.simulated import SimThreads
from tests.runtime.fakes import CAPS, Bench, known, run

URL = "https://a.example/1.png"
AT = "https://files.example"
LIFE_S = 7200.0
MARGIN_S = CAPS.submit_timeout_s.value + 3 * 2.0  # of the bench's account
UPLOADS = msgspec.structs.replace(CAPS, references=known(References(files="upload", upload_life_s=LIFE_S)))
INLINE = msgspec.structs.replace(CAPS, references=known(References(files="inline")))


class Desk:
    """The references of one account."""

    def __init__(
        self,
        *,
        caps: Capabilities = UPLOADS,
        latency_s: float = 1.0,
        earlier: dict[str, ReferenceUploaded] | None = None,
        bench: Bench | None = None,
    ) -> None:
        self.bench = bench or Bench(caps=caps, latency_s=latency_s)
        self.provider = self.bench.provider
        journal, clock = self.bench.journal, self.bench.clock
        version = journal.versions[account_stream(1)]
        self.account_log = AccountLog(journal, clock, number=1, version=version, uploads=earlier)
        self.uploads = Uploads(
            self.bench.account,
            files=self.bench.files,
            query=self.query,
            account_log=self.account_log,
            clock=self.bench.clock,
            random=self.bench.random,
            text=lambda row: self.bench.journal.texts.get(row),
        )

    async def query(self, call: HttpCall) -> HttpReply:
        return await self.provider.send(call)

    async def resolve(self, *references: str) -> Resolution:
        async with AsyncExitStack() as held:
            return await self.uploads.resolve(ImageRequest("x", references=references), held)

    async def urls(self, *references: str) -> tuple[str, ...]:
        resolution = await self.resolve(*references)
        assert isinstance(resolution, Resolved), resolution
        return resolution.request.references

    async def trouble(self, *references: str) -> Unresolved:
        resolution = await self.resolve(*references)
        assert isinstance(resolution, Unresolved), resolution
        return resolution


def at_desk(desk: Desk, body: Callable[[Desk], Awaitable[None]]) -> Desk:
    async def go() -> None:
        await body(desk)

    run(go)
    return desk


def name_of(reference: str) -> str:
    file = local_file(reference)
    assert file is not None
    return f"{file.sha256[:32]}.png"


def at(reference: str) -> str:
    """Where the fake provider puts it."""
    return f"{AT}/{name_of(reference)}"


# --- uploads ----------------------------------------------------------------------------------------------


def test_a_request_without_local_references_is_sent_as_it_is() -> None:
    async def body(desk: Desk) -> None:
        request = ImageRequest("x", references=(URL,))
        assert not desk.uploads.cold(request)
        async with AsyncExitStack() as held:
            assert await desk.uploads.resolve(request, held) == Resolved(request)

    assert at_desk(Desk(), body).provider.calls == []


def test_files_become_urls_in_their_places() -> None:
    desk = Desk()
    a, b = desk.bench.file("a.png"), desk.bench.file("b.png")
    desk.provider.say("upload", Uploaded(AT, LIFE_S))

    async def body(desk: Desk) -> None:
        resolution = await desk.resolve(a, URL, b, a)
        assert isinstance(resolution, Resolved)
        assert resolution.request.references == (at(a), URL, at(b), at(a))
        texts = [desk.bench.journal.texts[ref.row] for ref in resolution.uploads]
        assert texts == [at(a), at(b), at(a)]

    assert at_desk(desk, body).provider.calls == [f"upload/{name_of(a)}", f"upload/{name_of(b)}"]


def test_an_upload_is_on_record_before_it_is_used() -> None:
    desk = Desk()
    a = desk.bench.file("a.png")
    desk.provider.say("upload", Uploaded(AT, 3600.0))

    async def body(desk: Desk) -> None:
        started_us = desk.bench.clock.now_us()
        await desk.urls(a)
        (event,) = desk.bench.journal.events
        assert isinstance(event, ReferenceUploaded)
        assert event.sha256 == local_file(a).sha256  # type: ignore[union-attr]  # it is one
        assert 3600.0 <= (event.expires_at_us - started_us) / 1e6 < 3605.0
        assert desk.bench.journal.texts == {event.url.row: at(a)}

    at_desk(desk, body)


def test_tasks_share_an_upload_that_is_under_way() -> None:
    desk = Desk()
    logo, own = desk.bench.file("logo.png"), [desk.bench.file(f"{n}.png") for n in range(3)]
    desk.provider.say("upload", Uploaded(AT, LIFE_S))
    found: list[tuple[str, ...]] = []

    async def body(desk: Desk) -> None:
        async def one(n: int) -> None:
            found.append(await desk.urls(logo, own[n]))

        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(one, n)

    assert sorted(at_desk(desk, body).provider.calls) == sorted(f"upload/{name_of(each)}" for each in (logo, *own))
    assert sorted(found) == sorted((at(logo), at(each)) for each in own)


@pytest.mark.parametrize(
    ("life_s", "record_s", "usable_s"),
    [
        (LIFE_S, 0.0, LIFE_S - MARGIN_S),
        (0.0, LIFE_S, LIFE_S - MARGIN_S),
        (60.0, LIFE_S, 30.0),  # shorter than the margin
        (0.0, 0.0, 600.0),  # nobody says
    ],
)
def test_an_upload_is_used_until_near_its_end(life_s: float, record_s: float, usable_s: float) -> None:
    references = References(files="upload", upload_life_s=record_s)
    desk = Desk(caps=msgspec.structs.replace(CAPS, references=known(references)))
    a = desk.bench.file("a.png")
    desk.provider.say("upload", Uploaded(AT, life_s))
    request = ImageRequest("x", references=(a,))

    async def body(desk: Desk) -> None:
        assert desk.uploads.cold(request)
        await desk.uploads.warm(request)
        await trio.sleep(usable_s - 1.0)
        assert not desk.uploads.cold(request)
        await desk.urls(a)
        assert len(desk.provider.calls) == 1
        await trio.sleep(1.0)
        assert desk.uploads.cold(request)
        await desk.urls(a)
        assert len(desk.provider.calls) == 2

    at_desk(desk, body)


@pytest.mark.parametrize(
    ("left_s", "texts", "again"),
    [
        (SKEW_S + MARGIN_S + 10.0, {7: "https://earlier.example/a"}, False),
        (SKEW_S + MARGIN_S - 10.0, {7: "https://earlier.example/a"}, True),
        (1e9, {}, True),  # the address was erased
        (0.0, {7: "https://earlier.example/a"}, True),  # it was never known for how long
    ],
)
def test_an_upload_of_an_earlier_run_is_used_while_it_surely_lives(
    left_s: float, texts: dict[int, str], again: bool
) -> None:
    bench = Bench(caps=UPLOADS)
    a = bench.file("a.png")
    file = local_file(a)
    assert file is not None
    bench.journal.texts = texts
    bench.provider.say("upload", Uploaded(AT, LIFE_S))

    async def go() -> None:
        expires_at_us = bench.clock.now_us() + int(left_s * 1e6) if left_s else 0
        event = ReferenceUploaded(sha256=file.sha256, url=PayloadRef(7, "d"), expires_at_us=expires_at_us)
        desk = Desk(bench=bench, earlier={file.sha256: event})
        assert desk.uploads.cold(ImageRequest("x", references=(a,))) is again
        assert await desk.urls(a) == ((at(a),) if again else ("https://earlier.example/a",))

    run(go)
    assert bench.provider.count("upload") == again


def test_a_clock_that_was_set_back_makes_no_upload_live_longer() -> None:
    """REC-8."""
    bench = Bench(caps=UPLOADS)
    a = bench.file("a.png")
    file = local_file(a)
    assert file is not None
    bench.journal.texts = {7: "https://earlier.example/a"}

    async def go() -> None:
        event = ReferenceUploaded(
            sha256=file.sha256, url=PayloadRef(7, "d"), expires_at_us=bench.clock.now_us() + 10**12
        )
        desk = Desk(bench=bench, earlier={file.sha256: event})
        assert not desk.uploads.cold(ImageRequest("x", references=(a,)))
        await trio.sleep(LIFE_S - SKEW_S - MARGIN_S)
        assert desk.uploads.cold(ImageRequest("x", references=(a,)))

    run(go)


def test_whoever_waits_takes_over_from_a_caller_that_was_cut_off() -> None:
    desk = Desk()
    a = desk.bench.file("a.png")
    desk.provider.say("upload", Uploaded(AT, LIFE_S))
    found: list[tuple[str, ...]] = []

    async def body(desk: Desk) -> None:
        async def wait() -> None:
            found.append(await desk.urls(a))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5):
                nursery.start_soon(wait)
                await desk.urls(a)

    assert at_desk(desk, body).provider.count("upload") == 2
    assert found == [(at(a),)]


# --- bytes in the request ---------------------------------------------------------------------------------


def test_inline_references_carry_the_bytes() -> None:
    desk = Desk(caps=INLINE)
    a, b = desk.bench.file("a.png", b"\x89PNG\xff"), desk.bench.file("b.png")

    async def body(desk: Desk) -> None:
        assert not desk.uploads.cold(ImageRequest("x", references=(a,)))
        first, url, second = await desk.urls(a, URL, b)
        assert (url, second) == (URL, "data:image/png;base64," + base64.b64encode(b"b.png").decode())
        assert base64.b64decode(first.removeprefix("data:image/png;base64,")) == b"\x89PNG\xff"

    assert at_desk(desk, body).provider.calls == []
    assert desk.bench.journal.events == []


def test_the_memory_of_inline_bytes_is_held_until_they_are_sent() -> None:
    """SEC-9: who comes later waits until the exchange of the first has ended."""
    desk = Desk(caps=INLINE)
    large = desk.bench.file("a.png", b"x" * (40 << 20))
    order: list[str] = []

    async def body(desk: Desk) -> None:
        async def send(name: str, seconds: float) -> None:
            async with AsyncExitStack() as held:
                await desk.uploads.resolve(ImageRequest("x", references=(large,)), held)
                order.append(f"{name} sends")
                await trio.sleep(seconds)
                order.append(f"{name} done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, "one", 1.0)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send, "two", 1.0)

    at_desk(desk, body)
    assert order == ["one sends", "one done", "two sends", "two done"]


# --- files that changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("caps", [UPLOADS, INLINE], ids=["upload", "inline"])
@pytest.mark.parametrize(
    ("now", "why"),
    [
        (b"other", "is not the file that it was at import"),
        (b"longer than before", "more than 5 bytes"),
        (None, "No such file"),
    ],
)
def test_other_bytes_than_at_import_are_never_sent(caps: Capabilities, now: bytes | None, why: str) -> None:
    desk = Desk(caps=caps)
    a = desk.bench.file("a.png", b"first")
    if now is None:
        desk.bench.disk.remove(Path("/pics/a.png"))
    else:
        desk.bench.file("a.png", now)

    async def body(desk: Desk) -> None:
        trouble = await desk.trouble(a)
        assert trouble.reason == "input_changed"
        assert why in trouble.detail

    assert at_desk(desk, body).provider.calls == []


@pytest.mark.parametrize("before", [b"", b"something else is there now"], ids=["gone", "replaced"])
def test_a_file_that_was_moved_is_read_where_it_is_now(before: bytes) -> None:
    desk = Desk(caps=INLINE)
    a, moved = desk.bench.file("a.png", b"same"), desk.bench.file("b.png", b"same")
    old, new = local_file(a), local_file(moved)
    assert old is not None
    assert new is not None
    if before:
        desk.bench.file("a.png", before)
    else:
        desk.bench.disk.remove(Path("/pics/a.png"))
    files = ReferenceFiles(SimThreads(), desk.bench.disk, places={old.sha256: new.path})

    async def go() -> None:
        assert await files.read(old) == b"same"

    run(go)


# --- uploads that fail ------------------------------------------------------------------------------------


def tried(answers: Sequence[object]) -> tuple[Desk, Resolution]:
    desk, found = Desk(), []
    a = desk.bench.file("a.png")
    desk.provider.say("upload", *answers)

    async def body(desk: Desk) -> None:
        found.append(await desk.resolve(a))

    at_desk(desk, body)
    return desk, found[0]


@pytest.mark.parametrize(
    "trouble",
    [
        WireError("reset", sent=True),
        WireError("refused", sent=False),
        MalformedReply("what?"),
        UploadRefused("busy", retryable=True),
    ],
)
def test_an_upload_that_may_go_better_is_tried_three_times(trouble: Exception) -> None:
    desk, found = tried([trouble, trouble, Uploaded(AT, LIFE_S)])
    assert isinstance(found, Resolved)
    assert desk.provider.count("upload") == 3
    desk, found = tried([trouble])
    assert found == Unresolved("later", f"the upload failed: {trouble}")
    assert desk.provider.count("upload") == 3


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (False, Unresolved("refused", "the upload was refused: too large")),
        (True, Unresolved("account", "too large")),
    ],
)
def test_a_refusal_is_final(account: bool, expected: Unresolved) -> None:
    desk, found = tried([UploadRefused("too large", retryable=False, account=account)])
    assert found == expected
    assert desk.provider.count("upload") == 1


def test_what_failed_is_not_tried_again_at_once() -> None:
    """Many tasks may share the file: one of them finds out for all."""
    desk = Desk()
    a = desk.bench.file("a.png")
    desk.provider.say("upload", WireError("reset", sent=True))
    request = ImageRequest("x", references=(a,))

    async def body(desk: Desk) -> None:
        await desk.uploads.warm(request)
        assert not desk.uploads.cold(request)
        for _ in range(10):
            assert (await desk.trouble(a)).reason == "later"
        assert desk.provider.count("upload") == 3
        await trio.sleep(5.0)
        assert desk.uploads.cold(request)
        assert (await desk.trouble(a)).reason == "later"
        assert desk.provider.count("upload") == 6

    at_desk(desk, body)


@pytest.mark.parametrize("others", [True, False])
def test_a_file_that_never_goes_through_is_given_up_while_others_do(others: bool) -> None:
    """LIVE-1: one bad file ends its task, an upload service that is down ends none."""
    desk = Desk()
    bad, good = desk.bench.file("bad.png"), desk.bench.file("good.png")
    desk.provider.say("upload", WireError("reset", sent=True))
    reasons: list[str] = []

    async def body(desk: Desk) -> None:
        for n in range(6):
            reasons.append((await desk.trouble(bad)).reason)
            if others and n == 1:
                desk.provider.say("upload", Uploaded(AT, LIFE_S))
                assert await desk.urls(good) == (at(good),)
                desk.provider.say("upload", WireError("reset", sent=True))
                await desk.query(HttpCall("POST", "upload/", {}))  # takes the success, which would be repeated
            await trio.sleep(5.0)

    at_desk(desk, body)
    assert reasons == (["later"] * 3 + ["refused"] * 3 if others else ["later"] * 6)


# --- what was sent ----------------------------------------------------------------------------------------


def test_what_was_sent_is_told_by_the_intent() -> None:
    desk = Desk()
    a, b = desk.bench.file("a.png"), desk.bench.file("b.png")
    desk.bench.journal.texts = {1: "https://one.example", 2: "https://two.example"}

    async def body(desk: Desk) -> None:
        work = desk.bench.work(references=(a, URL, b))
        refs = (PayloadRef(1, "d"), PayloadRef(2, "d"))
        await desk.bench.log.record(work, Intend("fake", "fake", "1:1", "only", 1, "d", 0, uploads=refs))
        sent = await desk.uploads.as_sent(work)
        assert sent is not None
        assert sent.references == ("https://one.example", URL, "https://two.example")
        del desk.bench.journal.texts[1]  # erased
        assert await desk.uploads.as_sent(work) is None
        plain = desk.bench.work(2, references=(URL,))
        assert await desk.uploads.as_sent(plain) == plain.request

    at_desk(desk, body)


def test_what_was_sent_inline_is_known_while_the_file_is_there() -> None:
    desk = Desk(caps=INLINE)
    a = desk.bench.file("a.png", b"abc")

    async def body(desk: Desk) -> None:
        work = desk.bench.work(references=(a,))
        await desk.bench.log.record(work, Intend("fake", "fake", "1:1", "only", 1, "d", 0))
        sent = await desk.uploads.as_sent(work)
        assert sent is not None
        assert sent.references == ("data:image/png;base64,YWJj",)
        desk.bench.disk.remove(Path("/pics/a.png"))
        assert await desk.uploads.as_sent(work) is None

    at_desk(desk, body)
