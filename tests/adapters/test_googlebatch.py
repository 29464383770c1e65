"""Google's batches: what the codec builds and reads, against recorded replies, garbage, and the emulator in process."""

import base64
import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Context,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Pending,
    Refused,
    Secret,
    Throttled,
    Unclear,
    Uploaded,
    UploadRefused,
)
from adapters.batchfile import BatchFiles, BatchPage, ListedBatch, ResultFile, batch_of_job, line_job
from adapters.google import GOOGLE
from adapters.googlebatch import GOOGLE_BATCH
from adapters.references import LocalFile
from adapters.sandbox.google import GoogleBatchEmulator
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, sandbox
from tests.adapters.replies import DATA, shown

KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/google-batch")
REQUEST = ImageRequest("a red kettle on slate")
LANE = "gemini-3.1-flash-image"
INLINE = "data:image/png;base64," + base64.b64encode(b"a kettle").decode()


class Row(msgspec.Struct, frozen=True):
    name: str
    kind: str
    source: str
    status: int
    body: dict[str, object]
    outcome: dict[str, object]

    @property
    def reply(self) -> HttpReply:
        return HttpReply(self.status, {}, msgspec.json.encode(self.body))


class _Rows(msgspec.Struct, frozen=True):
    sources: dict[str, str]
    rows: list[Row]


FILE = msgspec.json.decode((DATA / "google-batch" / "replies.json").read_bytes(), type=_Rows)
ROWS = {row.name: row for row in FILE.rows}
READERS: dict[str, Callable[[HttpReply], object]] = {
    "create": GOOGLE_BATCH.read_create,
    "batch": GOOGLE_BATCH.read_batch,
    "no_results": GOOGLE_BATCH.read_no_results,
    "line": lambda reply: GOOGLE_BATCH.read_line(reply.body).outcome,
    "check": GOOGLE_BATCH.read_check,
}


def drive(emulator: GoogleBatchEmulator, data: bytes, ctx: Context = CTX) -> Uploaded:
    """Do the calls of an upload."""
    ended: list[Uploaded] = []

    def upload() -> Generator[HttpCall, HttpReply]:
        ended.append((yield from GOOGLE_BATCH.upload_lines(FileBytes("name", "application/jsonl", data), ctx)))

    answer_all(upload(), lambda call: ask(emulator, call))
    return ended[0]


def answer_all(steps: Generator[HttpCall, HttpReply], answer: Callable[[HttpCall], HttpReply]) -> None:
    """Answer each call until there is none left."""
    call = next(steps, None)
    while call is not None:
        try:
            call = steps.send(answer(call))
        except StopIteration:
            return


# --- building -----------------------------------------------------------------------------------------------


def test_the_codec_is_of_the_kind() -> None:
    assert isinstance(GOOGLE_BATCH, BatchFiles)
    assert not isinstance(GOOGLE, BatchFiles)
    record = GOOGLE_BATCH.capabilities
    assert (record.shape.value, record.recovery) == ("batch-file", "listing")


def test_a_line_is_the_request_of_the_plain_call() -> None:
    request = ImageRequest("ü \u2028 \n", aspect="9:16", resolution="2K", references=(INLINE,), seed=3, grounding=True)
    line = GOOGLE_BATCH.line("1-17-1", request)
    assert line == GOOGLE_BATCH.line("1-17-1", request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    plain = GOOGLE.build_submit(request, Context(key=Secret("k"))).body
    assert msgspec.json.decode(line) == {"key": "1-17-1", "request": msgspec.json.decode(plain)}
    assert GOOGLE_BATCH.lane(request) == LANE


@pytest.mark.parametrize("key", ["", "a/b", "a.b", "ü", "x" * 61])
def test_a_key_must_fit_its_places(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        GOOGLE_BATCH.line(key, REQUEST)


def test_jobs_are_named_by_batch_and_line() -> None:
    assert batch_of_job(line_job("abc", "1-17-1")) == ("abc", "1-17-1")


def test_references_weigh_more_than_words() -> None:
    local = LocalFile("ab" * 32, 5, "image/png", "/k.png").text
    few = GOOGLE_BATCH.tokens(ImageRequest("x" * 200))
    assert 50 <= few <= 100
    assert GOOGLE_BATCH.tokens(ImageRequest("x" * 200, references=(local, INLINE))) == few + 1_120
    assert {GOOGLE_BATCH.token_budget(model.provider_id) for model in GOOGLE.capabilities.models.value} == {
        1_000_000,
        2_000_000,
        3_000_000,
    }


def test_the_creation_names_model_file_and_batch() -> None:
    call = GOOGLE_BATCH.build_create(LANE, "files/abc", "bydawn-1", Context(key=Secret("AIza-secret")))
    assert call.url == f"https://generativelanguage.googleapis.com/v1beta/models/{LANE}:batchGenerateContent"
    assert call.headers["x-goog-api-key"] == "AIza-secret"
    body = {"batch": {"displayName": "bydawn-1", "inputConfig": {"fileName": "files/abc"}}}
    assert msgspec.json.decode(call.body) == body


def test_nothing_of_theirs_leaves_its_place_in_a_url() -> None:
    with pytest.raises(ValueError, match="no batch"):
        GOOGLE_BATCH.build_batch("../x", CTX)
    with pytest.raises(ValueError, match="no batch"):
        GOOGLE_BATCH.build_stop("x:delete", CTX)
    with pytest.raises(ValueError, match="no file"):
        GOOGLE_BATCH.build_results("files/../x", CTX)
    assert GOOGLE_BATCH.build_batches(CTX, cursor="a&b=c").url.endswith("pageToken=a%26b%3Dc")


def test_single_images_are_not_bought_here() -> None:
    with pytest.raises(ValueError, match="by the file"):
        GOOGLE_BATCH.build_submit(REQUEST, CTX)
    assert GOOGLE_BATCH.read_submit(ROWS["created"].reply) == Accepted("abc123xyz")


@pytest.mark.parametrize(
    "request_", [ImageRequest("x", output_format="png"), ImageRequest("x", references=("https://r.example/k.png",))]
)
def test_what_the_plain_call_cannot_do_a_batch_cannot_do(request_: ImageRequest) -> None:
    problem, plain = GOOGLE_BATCH.problem(request_), GOOGLE.problem(request_)
    assert problem is not None
    assert plain is not None
    assert problem.replace("Google Batch", "Google") == plain


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FILE.rows, ids=lambda row: row.name)
def test_recorded_replies_are_read(row: Row) -> None:
    assert row.source in FILE.sources
    assert shown(READERS[row.kind](row.reply), row.outcome) == row.outcome


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("succeeded", {"metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "response": {}}),
        ("succeeded", {"metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": {"responsesFile": "files/../x"}}}),
        ("succeeded", {"metadata": {"state": "BATCH_STATE_PAUSED"}}),
        ("succeeded", {"metadata": {}}),
        ("succeeded", {"metadata": None}),
    ],
)
def test_a_batch_outside_the_documentation_is_malformed(name: str, changes: dict[str, object]) -> None:
    body = msgspec.json.encode({**ROWS[name].body, **changes})
    with pytest.raises(MalformedReply):
        GOOGLE_BATCH.read_batch(HttpReply(200, {}, body))


@pytest.mark.parametrize(
    "line", [b"", b"{", b"{}", b'{"key":"a"}', b'{"key":"a","response":{}}', b'{"key":7,"response":{}}', b"[" * 50_000]
)
def test_a_line_outside_the_documentation_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedReply):
        GOOGLE_BATCH.read_line(line)


def page(*operations: object, **more: object) -> HttpReply:
    return HttpReply(200, {}, msgspec.json.encode({"operations": operations, **more}))


def test_a_page_of_the_list_is_read() -> None:
    created = ROWS["created"].body
    listed = ListedBatch("abc123xyz", "run7-shard0042", 1_795_309_200_123_457)
    assert GOOGLE_BATCH.read_batches(page(created, nextPageToken="t")) == BatchPage((listed,), "t")
    assert GOOGLE_BATCH.read_batches(HttpReply(200, {}, b"{}")) == BatchPage((), None)


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(500, {}, b"{}"),
        HttpReply(200, {}, b"[]"),
        page({"name": "operations/x", "metadata": {"createTime": "2026-11-22T01:00:00Z"}}),
        page({"name": "batches/x", "metadata": {}}),
        page({"name": "batches/x", "metadata": {"createTime": "yesterday"}}),
        page(7),
    ],
)
def test_a_list_that_cannot_be_read_whole_proves_nothing(reply: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        GOOGLE_BATCH.read_batches(reply)


# --- uploading ----------------------------------------------------------------------------------------------


def test_an_upload_goes_in_pieces_to_our_own_host_without_the_key() -> None:
    data = b"x" * (20 << 20)
    steps = GOOGLE_BATCH.upload_lines(FileBytes("n", "application/jsonl", data), CTX)
    start = next(steps)
    assert start.headers["X-Goog-Upload-Header-Content-Length"] == str(len(data))
    begun = HttpReply(200, {"x-goog-upload-url": "https://evil.example/x?upload_id=abc&upload_protocol=resumable"}, b"")
    pieces = [steps.send(begun), steps.send(HttpReply(200, {}, b"")), steps.send(HttpReply(200, {}, b""))]
    assert b"".join(piece.body for piece in pieces) == data
    assert [piece.headers["X-Goog-Upload-Offset"] for piece in pieces] == ["0", str(8 << 20), str(16 << 20)]
    commands = [piece.headers["X-Goog-Upload-Command"] for piece in pieces]
    assert commands == ["upload", "upload", "upload, finalize"]
    assert {piece.url for piece in pieces} == {f"{start.url}?upload_id=abc&upload_protocol=resumable"}
    assert "x-goog-api-key" not in pieces[0].headers
    with pytest.raises(StopIteration) as done:
        steps.send(HttpReply(200, {}, b'{"file":{"name":"files/abc"}}'))
    assert done.value.value == Uploaded("files/abc", 48 * 3_600.0)


@pytest.mark.parametrize(
    ("status", "retryable", "account"),
    [(400, False, False), (403, False, True), (429, True, False), (503, True, False)],
)
def test_an_upload_may_be_refused(status: int, retryable: bool, account: bool) -> None:
    steps = GOOGLE_BATCH.upload_lines(FileBytes("n", "application/jsonl", b"x"), CTX)
    next(steps)
    with pytest.raises(UploadRefused) as caught:
        steps.send(HttpReply(status, {}, b""))
    assert (caught.value.retryable, caught.value.account) == (retryable, account)


def upload_of_one() -> Generator[HttpCall, HttpReply]:
    yield from GOOGLE_BATCH.upload_lines(FileBytes("n", "application/jsonl", b"x"), CTX)


@pytest.mark.parametrize(
    "replies",
    [
        [HttpReply(200, {}, b"")],
        [HttpReply(200, {"x-goog-upload-url": "https://x/?a b"}, b"")],
        [HttpReply(200, {"x-goog-upload-url": "https://x/?upload_id=1"}, b""), HttpReply(200, {}, b"{}")],
        [
            HttpReply(200, {"x-goog-upload-url": "https://x/?upload_id=1"}, b""),
            HttpReply(200, {}, b'{"file":{"name":"files/../batches"}}'),
        ],
    ],
)
def test_an_upload_outside_the_documentation_is_malformed(replies: list[HttpReply]) -> None:
    left: Iterator[HttpReply] = iter(replies)
    with pytest.raises(MalformedReply):
        answer_all(upload_of_one(), lambda call: next(left))


# --- with the emulator --------------------------------------------------------------------------------------


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


def create(emulator: GoogleBatchEmulator, lines: list[bytes], name: str = "bydawn-1", now_us: int = START_US) -> str:
    file = drive(emulator, b"".join(lines)).url
    created = GOOGLE_BATCH.read_create(ask(emulator, GOOGLE_BATCH.build_create(LANE, file, name, CTX), now_us))
    assert isinstance(created, Accepted)
    return created.job


def test_a_file_walks_through_the_emulator(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    requests = {f"1-{n}-1": ImageRequest(f"picture {n}", aspect="16:9", references=(INLINE,)) for n in range(3)}
    batch = create(emulator, [GOOGLE_BATCH.line(key, request) for key, request in requests.items()])
    assert world.jobs.get("google-batch", line_job(batch, "1-1-1")) is not None
    look = GOOGLE_BATCH.build_batch(batch, CTX)
    assert GOOGLE_BATCH.read_batch(ask(emulator, look)) == Pending()
    done_us = START_US + 10 * S
    results = GOOGLE_BATCH.read_batch(ask(emulator, look, done_us))
    assert isinstance(results, ResultFile)
    reply = ask(emulator, GOOGLE_BATCH.build_results(results.name, CTX), done_us)
    read = [GOOGLE_BATCH.read_line(line) for line in reply.body.splitlines()]
    assert [line.key for line in read] == list(requests)
    for line in read:
        assert isinstance(line.outcome, Finished)
        job = world.jobs.get("google-batch", line_job(batch, line.key))
        assert job is not None
        assert emulator.charged(job, done_us) == line.outcome.cost_microusd
        digest = request_digest(requests[line.key].prompt, job.references, "16:9", "1K")
        assert read_digest(line.outcome.data) == digest


def test_the_list_shows_the_names(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    batches = [create(emulator, [GOOGLE_BATCH.line("k", REQUEST)], f"bydawn-{n}", START_US + n * S) for n in range(101)]
    first = GOOGLE_BATCH.read_batches(ask(emulator, GOOGLE_BATCH.build_batches(CTX, cursor=None), START_US + 200 * S))
    again = GOOGLE_BATCH.build_batches(CTX, cursor=first.next_cursor)
    second = GOOGLE_BATCH.read_batches(ask(emulator, again, START_US + 200 * S))
    assert second.next_cursor is None
    listed = [*first.batches, *second.batches]
    assert [(each.batch, each.name) for each in listed] == [(batches[n], f"bydawn-{n}") for n in reversed(range(101))]


def test_a_stopped_batch_is_cancelled(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    batch = create(emulator, [GOOGLE_BATCH.line("k", REQUEST)])
    assert ask(emulator, GOOGLE_BATCH.build_stop(batch, CTX), START_US + 1).status == 200
    outcome = GOOGLE_BATCH.read_batch(ask(emulator, GOOGLE_BATCH.build_batch(batch, CTX), START_US + 2))
    assert shown(outcome, {"reason": ""}) == {"type": "Failed", "reason": "cancelled"}


def test_a_file_that_is_gone_is_not_the_accounts_fault(world: EmulatorSettings) -> None:
    call = GOOGLE_BATCH.build_create(LANE, "files/none", "bydawn-1", CTX)
    outcome = GOOGLE_BATCH.read_create(ask(GoogleBatchEmulator(world), call))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "unavailable"


def test_a_key_that_is_refused_says_so_at_the_upload(world: EmulatorSettings) -> None:
    wrong = Context(key=Secret("wrong"), base_url=f"{ORIGIN}/google-batch")
    with pytest.raises(UploadRefused) as caught:
        drive(GoogleBatchEmulator(world), b"x", wrong)
    assert caught.value.account


# --- garbage ------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["name", "metadata", "response", "error", "operations", "nextPageToken", "key", "status", "state", "output", "file"]
)
NESTED = st.recursive(VALUES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)
BODIES = st.binary(max_size=60) | NESTED.map(msgspec.json.encode) | st.just(b'{"metadata":' * 5_000)
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 403, 404, 413, 429, 500, 503]) | st.integers(100, 599)


def upload_with(reply: HttpReply) -> None:
    with contextlib.suppress(UploadRefused):
        answer_all(upload_of_one(), lambda call: reply)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(status=STATUSES, body=BODIES, url=st.text(max_size=20))
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, body: bytes, url: str) -> None:
    garbage = HttpReply(status, {"x-goog-upload-url": url}, body)
    created: Any = GOOGLE_BATCH.read_create(garbage)
    if isinstance(created, Refused | Throttled):
        assert status in (400, 401, 403, 404, 413, 429)
    assert not isinstance(created, Unclear) or created.likely_paid == (200 <= status < 300)
    GOOGLE_BATCH.read_no_results(garbage)
    readers: list[Callable[[HttpReply], object]] = [
        GOOGLE_BATCH.read_batch,
        GOOGLE_BATCH.read_batches,
        GOOGLE_BATCH.read_check,
        lambda reply: GOOGLE_BATCH.read_line(reply.body),
        upload_with,
    ]
    for reader in readers:
        try:
            reader(garbage)
        except MalformedReply:
            continue
