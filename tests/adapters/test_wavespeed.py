"""WaveSpeed's codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Callbacks,
    Cancels,
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    Lists,
    MalformedReply,
    NotVisible,
    Pending,
    Polls,
    Quotes,
    Refused,
    Secret,
    Standing,
    Sweeps,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
    Uploads,
)
from adapters.prices import DEFAULT_BOOK
from adapters.wavespeed import WAVESPEED
from tests.adapters.replies import Row, load, read

ROWS = load("wavespeed")
CTX = Context(key=Secret("ws-secret"))
REQUEST = ImageRequest("a red mug on slate")
MUG = "https://refs.example/mug.png"
FAST = "google/nano-banana-2/text-to-image-fast"
SUCCESSOR = "google/nano-banana-2.1/text-to-image"


def call_of(request: ImageRequest, ctx: Context = CTX) -> tuple[str, dict[str, Any]]:
    """The path and the body of a submit."""
    call = WAVESPEED.build_submit(request, ctx)
    return call.url.removeprefix("https://api.wavespeed.ai/api/v3/"), msgspec.json.decode(call.body)


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


def success(data: object) -> HttpReply:
    return reply(200, {"code": 200, "message": "success", "data": data})


def prediction(**changes: object) -> dict[str, object]:
    data = ROWS["completed"].body["data"]
    assert isinstance(data, dict)
    return {**data, **changes}


def test_it_has_every_part_that_the_provider_has() -> None:
    for part in (Polls, Lists, Sweeps, Cancels, Uploads, Callbacks, Quotes):
        assert isinstance(WAVESPEED, part)
    record = WAVESPEED.capabilities
    assert record.recovery == "absence"  # its listing shows no input


# --- building -----------------------------------------------------------------------------------------------


def test_every_field_of_the_schema_is_sent() -> None:
    request = ImageRequest("a red mug", references=(MUG,), aspect="9:16", resolution="0.5K", output_format="png")
    assert call_of(request) == (
        "google/nano-banana-2/edit",
        {
            "prompt": "a red mug",
            "images": [MUG],
            "aspect_ratio": "9:16",
            "resolution": "0.5k",
            "output_format": "png",
            "enable_web_search": False,
            "enable_image_search": False,
            "enable_sync_mode": False,
        },
    )


@pytest.mark.parametrize(
    ("model", "path", "edit", "own"),
    [
        (
            "nano-banana",
            "google/gemini-2.5-flash-image/text-to-image",
            "google/gemini-2.5-flash-image/edit",
            {"enable_base64_output"},
        ),
        (
            "nano-banana-2",
            "google/nano-banana-2/text-to-image",
            "google/nano-banana-2/edit",
            {"resolution", "enable_web_search", "enable_image_search"},
        ),
        ("nano-banana-pro", "google/nano-banana-pro/text-to-image", "google/nano-banana-pro/edit", {"resolution"}),
        (FAST, FAST, "google/nano-banana-2/edit-fast", {"resolution", "enable_web_search"}),
        (
            SUCCESSOR,
            SUCCESSOR,
            "google/nano-banana-2.1/edit",
            {"resolution", "enable_web_search", "enable_image_search"},
        ),
    ],
)
def test_references_have_a_path_of_their_own(model: str, path: str, edit: str, own: set[str]) -> None:
    offered = WAVESPEED.capabilities.model(model)
    assert offered is not None
    request = ImageRequest("x", model=model, resolution=offered.resolutions[0])
    common = {"prompt", "aspect_ratio", "output_format", "enable_sync_mode"}
    assert call_of(request)[0] == path
    assert call_of(request)[1].keys() == common | own
    with_mug = msgspec.structs.replace(request, references=(MUG,))
    assert call_of(with_mug)[0] == edit
    assert call_of(with_mug)[1].keys() == common | own | {"images"}


def test_a_model_answers_to_its_own_id_too() -> None:
    request = ImageRequest("x", model="google/nano-banana-pro/text-to-image", resolution="4K")
    assert WAVESPEED.problem(request) is None
    assert call_of(request)[1]["resolution"] == "4k"


def test_auto_leaves_the_aspect_to_the_references() -> None:
    assert "aspect_ratio" not in call_of(ImageRequest("x", aspect="auto", references=(MUG,)))[1]


def test_jpeg_is_asked_for_unless_png_is() -> None:
    assert call_of(REQUEST)[1]["output_format"] == "jpeg"


def test_the_callback_goes_into_the_query() -> None:
    url = "https://hooks.example/w/wavespeed?attempt=t-000123.1&x=ü"
    path, body = call_of(REQUEST, Context(key=Secret("k"), callback_url=url))
    assert parse_qs(urlsplit("//x/" + path).query) == {"webhook": [url]}
    assert url not in str(body)


def test_the_call_carries_the_key_and_is_the_same_each_time() -> None:
    call = WAVESPEED.build_submit(REQUEST, CTX)
    assert (call.method, call.headers["Authorization"]) == ("POST", "Bearer ws-secret")
    assert call == WAVESPEED.build_submit(REQUEST, CTX)


def test_a_base_url_replaces_the_host_of_every_call() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    calls = [
        WAVESPEED.build_submit(REQUEST, ctx),
        WAVESPEED.build_poll("abc", ctx),
        WAVESPEED.build_cancel("abc", ctx),
        WAVESPEED.build_check(ctx),
        WAVESPEED.build_quote(REQUEST, ctx),
        WAVESPEED.build_list(ctx, since_us=0, until_us=1, cursor=None),
        WAVESPEED.build_sweep(["abc"], ctx, since_us=0, until_us=1),
        next(WAVESPEED.upload(FileBytes("a.png", "image/png", b"x"), ctx)),
    ]
    assert {call.url.partition("/api/v3/")[0] for call in calls} == {"http://127.0.0.1:9/prefix"}


def test_a_job_id_cannot_leave_its_place_in_the_url() -> None:
    assert WAVESPEED.build_poll("../balance?x", CTX).url.endswith("/predictions/..%2Fbalance%3Fx/result")
    with pytest.raises(ValueError, match="job id"):
        WAVESPEED.build_poll("", CTX)


def test_all_requests_share_one_lane() -> None:
    assert WAVESPEED.lane(REQUEST) == WAVESPEED.lane(ImageRequest("x", aspect="9:16")) == "default"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest("x", grounding=True), "$0.014 more"),
        (ImageRequest("x", model_version="latest"), "no version pins"),
        (ImageRequest("x", seed=7), "takes no seed"),
        (ImageRequest("x", aspect="1:8", model="nano-banana-pro"), "no aspect 1:8"),
        (ImageRequest("x", aspect="auto"), "there is none"),
        (ImageRequest("x", resolution="0.5K", model="nano-banana-pro"), "no resolution 0.5K"),
        (ImageRequest("x", model=FAST), "no resolution 1K"),
        (ImageRequest("x", references=(MUG,) * 15), "at most 14"),
        (ImageRequest("x", model="nano-banana", references=(MUG,) * 11), "at most 10"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (WAVESPEED.problem(request_) or "")


def test_a_request_that_does_not_fit_is_our_mistake_to_build() -> None:
    with pytest.raises(ValueError, match="no model"):
        WAVESPEED.build_submit(ImageRequest("x", model="flux"), CTX)


@pytest.mark.parametrize(
    ("model", "resolution", "microusd"),
    [
        ("nano-banana-2", "0.5K", 45_000),
        ("nano-banana-2", "1K", 70_000),
        ("nano-banana-2", "2K", 105_000),
        ("nano-banana-2", "4K", 140_000),
        (FAST, "2K", 45_000),
        (FAST, "4K", 50_000),
        ("nano-banana-pro", "2K", None),  # no source names it, and a price is not lent
        (SUCCESSOR, "1K", None),
    ],
)
def test_each_tier_has_the_price_that_a_source_names(model: str, resolution: str, microusd: int | None) -> None:
    price = DEFAULT_BOOK.quote("wavespeed", model, resolution, references=False)
    assert (price.microusd if price else None) == microusd


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        cut = HttpReply(row.status, row.headers, whole[:end])
        if row.kind == "submit" and row.status < 300:
            assert WAVESPEED.read_submit(cut) == Unclear("submitted, but without a readable id", likely_paid=True)
        elif row.kind == "poll" and row.status < 300:
            with pytest.raises(MalformedReply):
                WAVESPEED.read_poll(cut)
        else:
            outcome = read(WAVESPEED, row.kind, cut)
            assert not isinstance(outcome, NotVisible | Gone | Finished | Failed)
            assert not (isinstance(outcome, Standing) and outcome.state == "ok")


@pytest.mark.parametrize("status", [100, 301, 302, 405, 408, 409, 410, 413, 422, 451, 500, 502, 503, 504, 524, 599])
def test_what_is_not_documented_as_harmless_is_unclear(status: int) -> None:
    outcome = WAVESPEED.read_submit(reply(status, {"code": status, "message": "so sorry"}))
    assert outcome == Unclear(f"status {status} so sorry")


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "prompt was blocked by moderation", "policy"),
        (400, "Insufficient credits. Please top up.", "no_credit"),
        (403, "your balance is too low", "no_credit"),
        (403, "not for your level", "forbidden"),
        (403, "insufficient permissions", "forbidden"),
        (400, "the white balance is out of range", "invalid"),
        (404, "model google/nano-banana-9 not found", "forbidden"),
    ],
)
def test_refusals_are_told_apart_by_their_words(status: int, message: str, reason: str) -> None:
    outcome = WAVESPEED.read_submit(reply(status, {"code": status, "message": message}))
    assert outcome == Refused(reason, message)  # type: ignore[arg-type]  # the literal comes from the table


@pytest.mark.parametrize("status", [403, 404])
def test_a_no_of_somebody_on_the_way_is_not_wavespeeds_word(status: int) -> None:
    assert WAVESPEED.read_submit(reply(status, b"<html>blocked</html>")) == Unclear(f"status {status}")


def test_a_job_id_that_could_escape_a_url_is_unreadable() -> None:
    assert WAVESPEED.read_submit(success({"id": "../../x"})) == Unclear(
        "submitted, but without a readable id", likely_paid=True
    )


def test_an_id_is_a_job_whatever_the_code_says() -> None:
    """Better to ask for a job that failed at once than to lose one that runs."""
    assert WAVESPEED.read_submit(reply(200, {"code": 5004, "message": "x", "data": {"id": "abc"}})) == Accepted("abc")


@pytest.mark.parametrize(
    ("headers", "wait"), [({"retry-after": "7"}, 7.0), ({"retry-after": "soon"}, None), ({}, None)]
)
def test_the_wait_is_taken_from_its_header(headers: dict[str, str], wait: float | None) -> None:
    body = {"code": 429, "message": "Too many requests"}
    assert WAVESPEED.read_submit(reply(429, body, **headers)) == Throttled(wait)
    assert WAVESPEED.read_poll(reply(429, body, **headers)) == Throttled(wait)


@pytest.mark.parametrize("outputs", [None, [], {}, ""])
def test_a_success_without_an_output_is_paid_and_lost(outputs: object) -> None:
    assert WAVESPEED.read_poll(success(prediction(outputs=outputs))) == Gone("completed without an output")


@pytest.mark.parametrize("outputs", [7, ["ftp://x/y"], [{"url": "https://x/y"}], "data:image/png,raw"])
def test_an_output_that_cannot_be_read_is_not_given_up(outputs: object) -> None:
    """It is paid, and a later version may know its form."""
    with pytest.raises(MalformedReply):
        WAVESPEED.read_poll(success(prediction(outputs=outputs)))


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        ("request failed: HTTP 502 Bad Gateway", "provider", True),
        ("HTTP 429 from the provider", "provider", True),
        ("invalid image", "provider", False),
        ("HTTP 500: blocked by the safety filter", "policy", False),
        (None, "provider", False),
        ({"code": 3}, "provider", False),
    ],
)
def test_failures_are_sorted_by_their_words(text: object, reason: str, retryable: bool) -> None:
    outcome = WAVESPEED.read_poll(success(prediction(status="failed", outputs=[], error=text)))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.charged) == (reason, retryable, False)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("timeout", Failed("expired", "timed out at WaveSpeed", retryable=False)),
        ("cancelled", Failed("cancelled", "cancelled at WaveSpeed", retryable=False, charged=True)),
        ("queued-somewhere-new", Pending("queued-somewhere-new")),
        ("", Pending("?")),
    ],
)
def test_statuses_that_no_document_lists(status: str, outcome: object) -> None:
    assert WAVESPEED.read_poll(success(prediction(status=status, outputs=[]))) == outcome


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (404, b"<html>not here</html>", Unreadable("status 404")),
        (200, {"code": 404, "message": "task not found"}, NotVisible()),
        (200, {"code": 500, "message": "oops"}, Unreadable("status 500 oops")),
        (401, {"code": 401, "message": "Invalid API key"}, Unreadable("status 401 Invalid API key", unauthorized=True)),
        (403, {"code": 403, "message": None}, Unreadable("status 403", unauthorized=True)),
        (502, b"", Unreadable("status 502")),
    ],
)
def test_a_question_without_an_answer_concludes_nothing(status: int, body: object, outcome: object) -> None:
    assert WAVESPEED.read_poll(reply(status, body)) == outcome
    assert WAVESPEED.read_cancel(reply(status, body)) == outcome


def test_a_deletion_ends_the_job_and_may_be_charged() -> None:
    outcome = WAVESPEED.read_cancel(success({"id": "pred_abc123", "status": "deleted"}))
    assert outcome == Failed("cancelled", "deleted at WaveSpeed", retryable=False, charged=True)


@pytest.mark.parametrize(
    ("status", "message", "state"),
    [
        (402, "x", "no_credit"),
        (403, "insufficient balance", "no_credit"),
        (403, "x", "rejected"),
        (429, "x", "unreadable"),
        (500, "x", "unreadable"),
    ],
)
def test_a_check_that_fails_says_how(status: int, message: str, state: str) -> None:
    assert WAVESPEED.read_check(reply(status, {"code": status, "message": message})).state == state
    assert WAVESPEED.read_check(reply(200, {"code": status, "message": message})).state == state


def test_a_balance_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        WAVESPEED.read_check(success({"balance": "much"}))


# --- quotes -------------------------------------------------------------------------------------------------


def test_a_quote_asks_for_the_request_as_it_would_be_sent() -> None:
    request = ImageRequest("x", references=(MUG,), resolution="4K")
    call = WAVESPEED.build_quote(request, CTX)
    path, body = call_of(request)
    assert call.url == "https://api.wavespeed.ai/api/v3/model/price"
    assert msgspec.json.decode(call.body) == {"model_id": path, "inputs": body}


@pytest.mark.parametrize(
    ("data", "microusd"),
    [
        ({"price": 0.07, "discounted_price": 0.063}, 63_000),
        ({"price": 0.14}, 140_000),
        ({"price": 0.14, "discounted_price": None}, 140_000),
        ({}, None),
        ({"price": -1.0}, None),
    ],
)
def test_what_is_paid_in_the_end_is_the_price(data: object, microusd: int | None) -> None:
    assert WAVESPEED.read_quote(success(data)) == microusd


@pytest.mark.parametrize(
    "answer", [reply(404, b""), reply(200, b"{"), reply(200, {"code": 400, "message": "x"}), success({"price": "free"})]
)
def test_a_price_that_cannot_be_read_is_malformed(answer: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        WAVESPEED.read_quote(answer)


# --- the listing --------------------------------------------------------------------------------------------


def page(*items: dict[str, object], number: int = 1, **more: object) -> HttpReply:
    return success({"page": number, "items": list(items), **more})


def test_a_listing_asks_for_a_little_more_than_the_window() -> None:
    call = WAVESPEED.build_list(CTX, since_us=1_795_309_200_400_000, until_us=1_795_309_260_400_000, cursor="3")
    assert (call.method, call.url) == ("POST", "https://api.wavespeed.ai/api/v3/predictions")
    assert msgspec.json.decode(call.body) == {
        "page": 3,
        "page_size": 100,
        "created_after": "2026-11-22T00:59:59Z",
        "created_before": "2026-11-22T01:01:02Z",
    }
    first = WAVESPEED.build_list(CTX, since_us=0, until_us=0, cursor=None)
    assert msgspec.json.decode(first.body)["created_after"] == "1970-01-01T00:00:00Z"


def test_a_listing_backwards_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="until"):
        WAVESPEED.build_list(CTX, since_us=2, until_us=1, cursor=None)


def test_a_listed_job_may_be_anybodys() -> None:
    listed = WAVESPEED.read_list(page(prediction(), prediction(id="other", status="processing", outputs=[])))
    assert [job.fingerprint for job in listed.jobs] == [None, None]
    assert [type(job.outcome) for job in listed.jobs] == [Finished, Pending]
    assert listed.jobs[0].created_us == 1_795_309_200_123_457
    assert listed.next_cursor == "2"


def test_only_an_empty_page_is_the_last() -> None:
    """A short page may be a smaller page size than was asked for."""
    assert WAVESPEED.read_list(page(prediction(), number=7)).next_cursor == "8"
    assert WAVESPEED.read_list(page(number=8)).next_cursor is None
    assert WAVESPEED.read_list(page(number=2, total=100)).next_cursor is None


@pytest.mark.parametrize(
    "answer",
    [
        reply(500, {"code": 500, "message": "x"}),
        reply(200, {"code": 500, "message": "x"}),
        reply(200, b""),
        success(None),
        success({"page": 1}),
        success({"page": 0, "items": []}),
        page(number=2, total=101),
        page(prediction(), {"id": "x"}),
        page(prediction(id="../x")),
        page(prediction(created_at=None)),
        page(prediction(created_at="2026-11-22T01:00:00")),
    ],
)
def test_a_listing_that_is_not_whole_proves_nothing(answer: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        WAVESPEED.read_list(answer)


def test_a_cut_page_proves_nothing() -> None:
    whole = page(prediction(), prediction(id="other")).body
    for end in range(0, len(whole), 11):
        with pytest.raises(MalformedReply):
            WAVESPEED.read_list(HttpReply(200, {}, whole[:end]))


def test_equal_requests_have_equal_fingerprints_and_others_do_not() -> None:
    other = Context(key=Secret("other"), marker=9, base_url="http://127.0.0.1:1", callback_url="https://h.example")
    assert WAVESPEED.fingerprint(REQUEST, CTX) == WAVESPEED.fingerprint(REQUEST, other)
    wanted = [
        REQUEST,
        ImageRequest("b"),
        ImageRequest(REQUEST.prompt, aspect="9:16"),
        ImageRequest(REQUEST.prompt, resolution="2K"),
        ImageRequest(REQUEST.prompt, resolution="2K", model=FAST),
        ImageRequest(REQUEST.prompt, references=(MUG,)),
    ]
    assert len({WAVESPEED.fingerprint(request, CTX) for request in wanted}) == len(wanted)


def test_one_page_tells_of_many_jobs() -> None:
    told = WAVESPEED.read_sweep(page(prediction(id="a"), prediction(id="b", status="failed", outputs=[])))
    assert {job: type(outcome) for job, outcome in told.items()} == {"a": Finished, "b": Failed}
    assert WAVESPEED.sweep_size == 100


@pytest.mark.parametrize("outputs", [None, [], [{"url": "https://x/y"}]])
def test_a_list_that_leaves_outputs_out_loses_no_image(outputs: object) -> None:
    shown = page(prediction(id="a"), prediction(id="b", outputs=outputs))
    assert set(WAVESPEED.read_sweep(shown)) == {"a"}  # the other is asked for by itself
    assert [job.outcome for job in WAVESPEED.read_list(shown).jobs][1] == Pending()


# --- uploads ------------------------------------------------------------------------------------------------

FILE = FileBytes("0f3a.png", "image/png", b"\x89PNG bytes")
TICKET = {
    "upload": {"method": "PUT", "url": "https://store.example/put?sig=1", "headers": {"Content-Type": "image/png"}},
    "download_url": "https://cdn.wavespeed.ai/media/0f3a.png",
}


def steps(first: HttpReply, second: HttpReply | None = None, ctx: Context = CTX) -> tuple[list[HttpCall], Uploaded]:
    """Answer the calls of an upload in turn."""
    upload = WAVESPEED.upload(FILE, ctx)
    calls = [next(upload)]
    for answer in (first, second):
        assert answer is not None, "the upload wants more answers"
        try:
            calls.append(upload.send(answer))
        except StopIteration as done:
            uploaded: Uploaded = done.value
            return calls, uploaded
    raise AssertionError("the upload makes more than two calls")


def test_a_file_is_put_where_the_ticket_says_and_the_key_stays_home() -> None:
    (ask, put), uploaded = steps(success(TICKET), reply(200, b""))
    assert ask.url == "https://api.wavespeed.ai/api/v3/media/uploads"
    assert msgspec.json.decode(ask.body) == {"filename": "0f3a.png", "size": 10, "content_type": "image/png"}
    assert (put.method, put.url, put.body) == ("PUT", "https://store.example/put?sig=1", FILE.data)
    assert put.headers == {"Content-Type": "image/png"}
    assert uploaded == Uploaded("https://cdn.wavespeed.ai/media/0f3a.png", 7 * 86_400.0)


def test_what_belongs_to_the_wire_is_not_taken_from_a_ticket() -> None:
    """A storage's signature may name the host; two different lengths would break the call."""
    told = {"Host": "store.example", "content-length": "3", "Transfer-Encoding": "chunked", "x-amz-acl": "private"}
    (_, put), _ = steps(ticket(headers=told), reply(200, b""))
    assert put.headers == {"x-amz-acl": "private"}


def ticket(**changes: object) -> HttpReply:
    upload = {**TICKET["upload"], **{k: v for k, v in changes.items() if k != "download_url"}}  # type: ignore[dict-item]
    return success({"upload": upload, "download_url": changes.get("download_url", TICKET["download_url"])})


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<html>"),
        success({}),
        ticket(method="POST"),
        ticket(url="http://store.example/put"),
        ticket(url="file:///etc/passwd"),
        ticket(url="https://["),
        ticket(url="https://store.example/a b"),
        ticket(headers={"bad name": "x"}),
        ticket(headers={"X": "two\r\nlines"}),
        ticket(headers={"X": 7}),
        ticket(download_url="http://cdn.wavespeed.ai/x"),
    ],
)
def test_a_ticket_that_cannot_be_followed_is_malformed(answer: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        steps(answer, reply(200, b""))


def test_a_gateway_of_ones_own_may_speak_plain_http() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9")
    plain = ticket(url="http://127.0.0.1:9/put", download_url="http://127.0.0.1:9/get.png")
    assert steps(plain, reply(204, b""), ctx)[1].url == "http://127.0.0.1:9/get.png"


@pytest.mark.parametrize(
    ("first", "second", "retryable", "account"),
    [
        (reply(429, {"code": 429, "message": "slow"}), None, True, False),
        (reply(500, b""), None, True, False),
        (reply(401, {"code": 401, "message": "key"}), None, False, True),
        (reply(200, {"code": 400, "message": "too large"}), None, False, False),
        (success(TICKET), reply(503, b""), True, False),
        (success(TICKET), reply(413, b""), False, False),
        (success(TICKET), reply(403, b"<Error>the ticket ran out</Error>"), True, False),
    ],
)
def test_a_file_that_is_not_taken(first: HttpReply, second: HttpReply | None, retryable: bool, account: bool) -> None:
    with pytest.raises(UploadRefused) as caught:
        steps(first, second)
    assert (caught.value.retryable, caught.value.account) == (retryable, account)


# --- callbacks ----------------------------------------------------------------------------------------------

NOW_S = 1_795_309_200.0
HOOK = msgspec.json.encode(prediction())


def signed(body: bytes = HOOK, *, secret: str = "whsec_c2VjcmV0", at_s: int = int(NOW_S)) -> dict[str, str]:
    """Sign as the documents say: the secret's text without its prefix is the key, undecoded."""
    key = secret.removeprefix("whsec_").encode()
    mac = hmac.new(key, b"msg_1." + str(at_s).encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at_s), "webhook-signature": f"v3,{mac}"}


def holds(headers: dict[str, str], body: bytes = HOOK, *secrets: str) -> bool:
    known = [Secret(secret) for secret in secrets or ("whsec_c2VjcmV0",)]
    return WAVESPEED.verify_callback(headers, body, secrets=known, now_s=NOW_S)


def test_a_signature_of_a_fixed_secret_and_body_is_this_one() -> None:
    """A vector of ours, made with another tool: the one that the documents print is redacted and does not hold."""
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1795309200",
        "webhook-signature": "v3,358f744d6c8b9680d6e5c10b42c75868ac5e89c35bb23cfc130257b6bf268440",
    }
    assert holds(headers, b'{"id":"abc"}')


def test_a_callback_that_was_signed_holds() -> None:
    assert holds(signed())
    assert WAVESPEED.read_callback(HOOK) == prediction()["id"]


def test_after_a_rotation_either_secret_holds() -> None:
    assert holds(signed(secret="whsec_new"), HOOK, "whsec_old", "whsec_new")
    assert holds(signed(secret="whsec_old"), HOOK, "whsec_old", "whsec_new")
    assert holds(signed(secret="bare"), HOOK, "whsec_bare")


@pytest.mark.parametrize(("apart_s", "fresh"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_an_old_or_early_callback_does_not_hold(apart_s: int, fresh: bool) -> None:
    assert holds(signed(at_s=int(NOW_S) + apart_s)) == fresh


SPOIL: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "no id": lambda headers: {**headers, "webhook-id": ""},
    "another id": lambda headers: {**headers, "webhook-id": "msg_2"},
    "another time": lambda headers: {**headers, "webhook-timestamp": str(int(NOW_S) + 1)},
    "no time": lambda headers: {k: v for k, v in headers.items() if k != "webhook-timestamp"},
    "a strange time": lambda headers: {**headers, "webhook-timestamp": "٣"},
    "another scheme": lambda headers: {
        **headers,
        "webhook-signature": headers["webhook-signature"].replace("v3", "v1"),
    },
    "no scheme": lambda headers: {**headers, "webhook-signature": headers["webhook-signature"][3:]},
    "half a signature": lambda headers: {**headers, "webhook-signature": headers["webhook-signature"][:-1]},
    "no signature": lambda headers: {k: v for k, v in headers.items() if k != "webhook-signature"},
    "odd letters": lambda headers: {**headers, "webhook-signature": "v3,\udcff", "webhook-id": "\udcff"},
}


@pytest.mark.parametrize("how", SPOIL)
def test_a_forged_callback_does_not_hold(how: str) -> None:
    assert not holds(SPOIL[how](signed()))


def test_the_raw_body_is_what_is_signed() -> None:
    assert not holds(signed(), HOOK + b" ")
    assert not holds(signed(), HOOK, "whsec_other")


def test_an_empty_secret_opens_nothing() -> None:
    assert not holds(signed(secret=""), HOOK, "", "whsec_")
    assert not WAVESPEED.verify_callback(signed(), HOOK, secrets=[], now_s=NOW_S)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"id":7}', b'{"id":"../x"}', msgspec.json.encode({"data": {"id": "x"}})]
)
def test_a_callback_without_an_id_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        WAVESPEED.read_callback(body)


# --- garbage ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 429, 500, 503]) | st.integers(100, 599)
FIELDS = st.sampled_from(
    [*sorted(prediction()), "balance", "price", "page", "items", "total", "upload", "download_url"]
)
DATA = (
    st.dictionaries(FIELDS, JSON, max_size=4).map(lambda odd: prediction(**odd))
    | st.dictionaries(FIELDS, JSON, max_size=4).map(lambda odd: {"page": 1, "items": [prediction(**odd)]})
    | st.dictionaries(FIELDS, JSON, max_size=3).map(lambda odd: {**TICKET, **odd})
    | JSON
)
BODIES = (
    st.binary(max_size=60)
    | JSON.map(msgspec.json.encode)
    | st.tuples(st.sampled_from([200, 400, 404, 5004, 2**80]), DATA).map(
        lambda pair: msgspec.json.encode({"code": pair[0], "message": "x", "data": pair[1]})
    )
    | st.sampled_from(
        [b"[" * 100_000, b'{"code":200,"data":' * 5_000, b'{"code":200,"data":{"id":"a","outputs":' + b"[" * 100_000]
    )
)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "content-type"]), st.text(max_size=12), max_size=2)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = WAVESPEED.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in (400, 401, 402, 403, 404, 429)
    readers: tuple[Callable[[HttpReply], object], ...] = (
        WAVESPEED.read_poll,
        WAVESPEED.read_cancel,
        WAVESPEED.read_check,
        WAVESPEED.read_quote,
        WAVESPEED.read_list,
        WAVESPEED.read_sweep,
        lambda answer: steps(answer, HttpReply(200, {}, b"")),
        lambda answer: WAVESPEED.read_callback(answer.body),
    )
    for reader in readers:
        try:
            read_back = reader(garbage)
        except (MalformedReply, UploadRefused):
            continue
        if isinstance(read_back, Standing) and read_back.state == "ok":
            assert 200 <= status < 300


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    headers=st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=80), max_size=3
    ),
    body=st.binary(max_size=40),
)
def test_no_garbage_is_a_signature(headers: dict[str, str], body: bytes) -> None:
    assert not holds(headers, body)
