"""Segmind's codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Callbacks,
    Cancels,
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpReply,
    ImageRequest,
    Lists,
    LooksUp,
    MalformedReply,
    NotVisible,
    Pending,
    Polls,
    Quotes,
    Recall,
    Refused,
    Secret,
    Standing,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
    Uploads,
)
from adapters.references import LocalFile
from adapters.segmind import SEGMIND
from tests.adapters.replies import Row, load, read

ROWS = load("segmind")
CTX = Context(key=Secret("SG_0123456789abcdef"), marker=1_840_275_511)
REQUEST = ImageRequest("red mug, studio light")
JOB = "2c7f59ea-0000-4000-8000-000000000001"
DAY_US = 86_400_000_000
TOO_LARGE = LocalFile("ab" * 32, 10_000_001, "image/png", "/pictures/mug.png").text
BITMAP = LocalFile("ab" * 32, 1, "image/bmp", "/pictures/mug.bmp").text
FILE = FileBytes("0f3a.png", "image/png", b"\x89PNG bytes")
ASSET = "https://images.segmind.com/assets/0f3a.png"


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(SEGMIND.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


# --- building -----------------------------------------------------------------------------------------------


def test_every_field_of_the_page_is_sent() -> None:
    request = ImageRequest(
        "red mug",
        references=("https://assets.example/mug.png",),
        aspect="9:16",
        resolution="2K",
        output_format="png",
        grounding=True,
    )
    assert body_of(request) == {
        "prompt": "red mug",
        "image_urls": ["https://assets.example/mug.png"],
        "aspect_ratio": "9:16",
        "output_resolution": "2K",
        "output_format": "png",
        "seed": 1_840_275_511,
        "web_search": True,
        "thinking_level": "minimal",
        "safety_tolerance": 4,
        "response_modalities": "IMAGE",
    }


def test_the_first_model_takes_four_fields() -> None:
    assert body_of(ImageRequest("x", model="nano-banana")) == {
        "prompt": "x",
        "image_urls": [],
        "aspect_ratio": "1:1",
        "response_modalities": "IMAGE",
    }


def test_the_seed_is_the_users_else_the_attempts_else_random() -> None:
    assert body_of(ImageRequest("x", seed=7))["seed"] == 7
    assert body_of(ImageRequest("x"))["seed"] == CTX.marker
    assert body_of(ImageRequest("x"), Context(key=Secret("k")))["seed"] == -1


def test_the_call_names_the_model_and_the_key() -> None:
    call = SEGMIND.build_submit(ImageRequest("x", model="nano-banana-pro"), CTX)
    assert (call.method, call.url) == ("POST", "https://api.segmind.com/v2/nano-banana-pro")
    assert call.headers["x-api-key"] == "SG_0123456789abcdef"
    assert call.headers["Content-Type"] == "application/json"
    assert "Authorization" not in call.headers
    assert call == SEGMIND.build_submit(ImageRequest("x", model="nano-banana-pro"), CTX)


def test_the_history_has_a_host_of_its_own() -> None:
    assert SEGMIND.build_poll(JOB, CTX).url == f"https://api.segmind.com/v2/requests/{JOB}"
    assert SEGMIND.build_check(CTX).url == "https://api.segmind.com/v1/get-user-credits"
    listing = SEGMIND.build_list(CTX, since_us=0, until_us=1, cursor=None)
    assert listing.url.startswith("https://api.spotprod.segmind.com/inference-request/request-history?")


def test_a_base_url_replaces_every_host() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    calls = [
        SEGMIND.build_submit(REQUEST, ctx),
        SEGMIND.build_poll(JOB, ctx),
        SEGMIND.build_check(ctx),
        SEGMIND.build_list(ctx, since_us=0, until_us=1, cursor=None),
    ]
    assert all(call.url.startswith("http://127.0.0.1:9/prefix/") for call in calls)


def test_a_job_id_cannot_leave_its_place_in_the_url() -> None:
    assert SEGMIND.build_poll("../x?y", CTX).url.endswith("/v2/requests/..%2Fx%3Fy")
    with pytest.raises(ValueError, match="request id"):
        SEGMIND.build_poll("", CTX)


def test_there_is_a_lane_for_each_aspect() -> None:
    assert {SEGMIND.lane(ImageRequest("x", aspect=aspect)) for aspect in ("1:1", "9:16", "1:1")} == {"1:1", "9:16"}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest(""), "prompt is empty"),
        (ImageRequest("x", aspect="auto", references=("https://r.example/a.png",)), "no aspect auto"),
        (ImageRequest("x", resolution="0.5K"), "no resolution 0.5K"),
        (ImageRequest("x", model="nano-banana", resolution="2K"), "no resolution 2K"),
        (ImageRequest("x", model="nano-banana", output_format="png"), "no format png"),
        (ImageRequest("x", model="nano-banana", seed=5), "takes no seed"),
        (ImageRequest("x", seed=0), "between 1 and 2147483647"),
        (ImageRequest("x", seed=2**31), "between 1 and 2147483647"),
        (ImageRequest("x", model_version="1"), "no version pins"),
        (ImageRequest("x", references=("https://r.example/a.png",) * 15), "at most 14"),
        (ImageRequest("x", references=(TOO_LARGE,)), "reference 1: the file has 10,000,001 bytes"),
        (ImageRequest("x", references=(BITMAP,)), "reference 1: Segmind takes no image/bmp"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (SEGMIND.problem(request_) or "")


def test_what_fits_has_no_problem() -> None:
    assert SEGMIND.problem(ImageRequest("x", seed=1, aspect="8:1", resolution="4K", grounding=True)) is None


def test_it_has_the_parts_that_the_provider_has_and_no_others() -> None:
    for part in (Polls, Lists, Recall, Uploads):
        assert isinstance(SEGMIND, part)
    for lacking in (Cancels, Callbacks, Quotes, LooksUp):
        assert not isinstance(SEGMIND, lacking)
    record = SEGMIND.capabilities
    assert (record.recovery, record.cancel, record.callback) == ("listing", None, None)


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        cut = HttpReply(row.status, row.headers, whole[:end])
        if row.kind == "submit" and row.status < 300:
            assert isinstance(SEGMIND.read_submit(cut), Unclear)
        elif row.status < 300:
            with pytest.raises(MalformedReply):
                read(SEGMIND, row.kind, cut)
        else:
            assert not isinstance(read(SEGMIND, row.kind, cut), NotVisible | Gone | Finished | Failed)


@pytest.mark.parametrize("status", [100, 301, 302, 402, 408, 409, 422, 451, 500, 502, 503, 504])
def test_what_is_not_documented_as_harmless_is_unclear(status: int) -> None:
    assert SEGMIND.read_submit(reply(status, {"error": "so sorry"})) == Unclear(f"status {status} so sorry")


def test_a_406_without_a_reason_is_unclear() -> None:
    assert SEGMIND.read_submit(reply(406, b"<html>Not Acceptable</html>")) == Unclear("status 406")


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, "prompt was blocked by moderation", "policy"),
        (403, "model not allowed for the team", "forbidden"),
        (406, "prompt was flagged", "policy"),
    ],
)
def test_refusals_are_sorted_by_their_words(status: int, error: str, reason: str) -> None:
    outcome = SEGMIND.read_submit(reply(status, {"error": error}))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.detail) == (reason, error)


def test_a_wrong_verb_is_a_page_of_html_and_no_job() -> None:
    assert SEGMIND.read_submit(reply(405, b"<html></html>")) == Refused("unavailable")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"date": "Sun, 22 Nov 2026 01:00:00 GMT", "x-rate-limit-reset-at-utc": "2026-11-22T01:00:12.5Z"}, 12.5),
        ({"date": "Sun, 22 Nov 2026 01:00:00 GMT", "x-rate-limit-reset-at-utc": "2026-11-22 01:00:12"}, 12.0),
        ({"date": "Sun, 22 Nov 2026 01:00:00 -0000", "x-rate-limit-reset-at-utc": "2026-11-22T00:59:00"}, 0.0),
        ({"date": "Sun, 22 Nov 2026 01:00:00 GMT", "x-rate-limit-reset-at-utc": "2027-11-22T01:00:00Z"}, 3600.0),
        ({"x-rate-limit-reset-at-utc": "2026-11-22T01:00:12Z"}, None),
        ({"date": "Sun, 22 Nov 2026 01:00:00 GMT"}, None),
        ({"date": "yesterday", "x-rate-limit-reset-at-utc": "2026-11-22T01:00:12Z"}, None),
        ({}, None),
    ],
)
def test_the_wait_needs_the_replys_own_date(headers: dict[str, str], wait: float | None) -> None:
    assert SEGMIND.read_submit(reply(429, {"error": "x"}, **headers)) == Throttled(wait)
    assert SEGMIND.read_poll(reply(429, {"error": "x"}, **headers)) == Throttled(wait)


def completed(**changes: object) -> HttpReply:
    return reply(200, {**ROWS["completed"].body, **changes})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (["https://images.segmind.com/a.jpeg"], ("https://images.segmind.com/a.jpeg", b"")),
        ("data:image/png;base64," + base64.b64encode(b"png").decode(), ("", b"png")),
    ],
)
def test_an_output_may_be_a_list_or_data(output: object, expected: tuple[str, bytes]) -> None:
    outcome = SEGMIND.read_poll(completed(output=output))
    assert isinstance(outcome, Finished)
    assert (outcome.url, outcome.data) == expected


def test_a_record_without_status_is_read_by_its_output() -> None:
    body = {key: value for key, value in ROWS["completed"].body.items() if key != "status"}
    assert isinstance(SEGMIND.read_poll(reply(200, body)), Finished)
    with pytest.raises(MalformedReply):
        SEGMIND.read_poll(reply(200, {**body, "output": None}))


def test_a_completion_without_a_usable_output_is_paid_and_lost() -> None:
    assert SEGMIND.read_poll(completed(output=None)) == Gone("completed without a usable output")


@pytest.mark.parametrize("metrics", [None, {}, {"cost": None}, {"cost": "free"}, {"cost": -1}, {"cost": 1e300}, [1]])
def test_a_cost_that_is_not_told_stays_unknown(metrics: object) -> None:
    outcome = SEGMIND.read_poll(completed(metrics=metrics))
    assert isinstance(outcome, Finished)
    assert outcome.cost_microusd is None


def test_a_failure_is_read_before_its_status_code() -> None:
    failed = {"status": "FAILED", "error": "upstream timeout", "metrics": {"cost": 0.02}}
    for status in (200, 422):
        assert SEGMIND.read_poll(reply(status, failed)) == Failed("provider", "upstream timeout", cost_microusd=20_000)


@pytest.mark.parametrize("body", [b"<html>", {"detail": "nope"}, {"status": "COMPLETED"}, {"error": "x"}])
def test_a_422_that_is_no_failed_job_concludes_nothing(body: object) -> None:
    assert isinstance(SEGMIND.read_poll(reply(422, body)), Unreadable)


def test_a_bad_parameter_fails_for_good() -> None:
    outcome = SEGMIND.read_poll(reply(422, {"status": "FAILED", "error": "Invalid aspect ratio"}))
    assert isinstance(outcome, Failed)
    assert not outcome.retryable


def test_an_unknown_status_is_no_outcome() -> None:
    with pytest.raises(MalformedReply):
        SEGMIND.read_poll(completed(status="PAUSED"))


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (404, b"<html>not here</html>", Unreadable("status 404")),
        (401, {"error": "Unauthorized"}, Unreadable("status 401 Unauthorized", unauthorized=True)),
        (403, {"error": "no"}, Unreadable("status 403 no", unauthorized=True)),
        (500, {"error": "oops"}, Unreadable("status 500 oops")),
    ],
)
def test_a_question_without_an_answer_concludes_nothing(status: int, body: object, outcome: Unreadable) -> None:
    assert SEGMIND.read_poll(reply(status, body)) == outcome


@pytest.mark.parametrize(
    ("status", "body", "state", "balance"),
    [
        (200, {"credits": 0}, "no_credit", 0),
        (200, {"credits": -3.5}, "no_credit", 0),
        (403, {"error": "x"}, "rejected", None),
        (404, {"error": "Not Found"}, "unreadable", None),
        (404, b"<html>", "unreadable", None),
        (500, {"error": "x"}, "unreadable", None),
    ],
)
def test_a_check_says_how_the_account_stands(status: int, body: object, state: str, balance: int | None) -> None:
    standing = SEGMIND.read_check(reply(status, body))
    assert (standing.state, standing.balance_microusd) == (state, balance)


def test_credits_that_cannot_be_read_are_malformed() -> None:
    with pytest.raises(MalformedReply):
        SEGMIND.read_check(reply(200, {"credits": "many"}))


def test_a_recall_asks_the_history_for_one_request() -> None:
    assert isinstance(SEGMIND, Recall)
    call = SEGMIND.build_recall("../x", CTX)
    assert call.url == "https://api.spotprod.segmind.com/inference-request/request-history/..%2Fx"
    with pytest.raises(ValueError, match="request id"):
        SEGMIND.build_recall("", CTX)
    done = row(model_status="COMPLETED", generation_url="https://images.segmind.com/a.jpeg", credits_deduction=0.084)
    outcome = SEGMIND.read_recall(reply(200, done))
    assert isinstance(outcome, Finished)
    assert (outcome.url, outcome.cost_microusd) == ("https://images.segmind.com/a.jpeg", 84_000)
    assert SEGMIND.read_recall(reply(404, {"error": "Request not found"})) == NotVisible()
    assert SEGMIND.read_recall(reply(404, b"<html>")) == Unreadable("status 404")
    with pytest.raises(MalformedReply):
        SEGMIND.read_recall(reply(200, {"request_id": JOB}))


# --- the history --------------------------------------------------------------------------------------------


def row(request: ImageRequest = REQUEST, /, **changes: object) -> dict[str, object]:
    return {
        "request_id": JOB,
        "model_name": request.model,
        "model_status": "PENDING",
        "created_at": "2026-11-22T01:00:00.120Z",
        "request_body": body_of(request),
        "generation_url": None,
        "credits_deduction": None,
        "latency_ms": None,
        **changes,
    }


def page(*rows: dict[str, object], number: int = 1, size: int = 100, total: int | None = None) -> HttpReply:
    count = len(rows) if total is None else total
    return reply(200, {"data": list(rows), "page": number, "per_page": size, "total": count})


def test_the_history_is_asked_for_whole_days_with_a_day_to_spare() -> None:
    at_us = 1_795_309_200_000_000  # 2026-11-22 01:00
    call = SEGMIND.build_list(CTX, since_us=at_us, until_us=at_us + 60_000_000, cursor="3")
    assert parse_qs(urlsplit(call.url).query) == {
        "page": ["3"],
        "per_page": ["100"],
        "from_date": ["2026-11-21"],
        "to_date": ["2026-11-23"],
        "sort_by": ["model_created"],
        "sort_order": ["desc"],
    }


@pytest.mark.parametrize(("since_us", "until_us"), [(10 * DAY_US, 6 * DAY_US), (0, 30 * DAY_US)])
def test_a_window_the_history_does_not_serve_is_our_mistake(since_us: int, until_us: int) -> None:
    with pytest.raises(ValueError, match="a listing from"):
        SEGMIND.build_list(CTX, since_us=since_us, until_us=until_us, cursor=None)


def test_the_widest_window_is_what_the_record_promises() -> None:
    listing = SEGMIND.capabilities.listing
    assert listing is not None
    until_us = round(listing.value.keeps_s * 1_000_000)
    assert SEGMIND.build_list(CTX, since_us=0, until_us=until_us, cursor=None).method == "GET"


def test_a_listed_job_has_the_fingerprint_of_its_attempt() -> None:
    requests = [
        REQUEST,
        ImageRequest("ü 漢 \u2028", model="nano-banana", references=("https://r.example/ä?x=1&y",)),
        ImageRequest("x", model="nano-banana-pro", resolution="4K", output_format="png", seed=3),
    ]
    listed = SEGMIND.read_list(page(*(row(request, request_id=f"r{n}") for n, request in enumerate(requests))))
    assert [job.fingerprint for job in listed.jobs] == [SEGMIND.fingerprint(request, CTX) for request in requests]
    assert (listed.jobs[0].created_us, listed.next_cursor) == (1_795_309_200_120_000, None)


def test_an_echo_may_be_text_and_a_time_without_a_zone_is_the_latest_it_can_be() -> None:
    text = msgspec.json.encode(body_of(REQUEST)).decode()
    listed = SEGMIND.read_list(page(row(request_body=text, created_at="2026-11-22 01:00:00")))
    assert listed.jobs[0].fingerprint == SEGMIND.fingerprint(REQUEST, CTX)
    assert listed.jobs[0].created_us == 1_795_309_200_000_000 + DAY_US // 2


def test_attempts_are_told_apart_by_their_marker_unless_the_user_chose_the_seed() -> None:
    other = Context(key=Secret("k"), marker=5)
    assert SEGMIND.fingerprint(REQUEST, CTX) != SEGMIND.fingerprint(REQUEST, other)
    fixed = ImageRequest("x", seed=7)
    assert SEGMIND.fingerprint(fixed, CTX) == SEGMIND.fingerprint(fixed, other)
    oldest = ImageRequest("x", model="nano-banana")
    assert SEGMIND.fingerprint(oldest, CTX) == SEGMIND.fingerprint(oldest, other)


@pytest.mark.parametrize("shown_body", [None, {}, "", "not json", [1], {**body_of(REQUEST), "filled_in_later": 1}])
def test_a_row_that_cannot_be_compared_has_no_fingerprint(shown_body: object) -> None:
    assert SEGMIND.read_list(page(row(request_body=shown_body))).jobs[0].fingerprint is None


def test_rows_of_other_models_match_nothing() -> None:
    listed = SEGMIND.read_list(page(row(model_name="flux", request_body={"prompt": "x"})))
    assert listed.jobs[0].fingerprint not in (None, SEGMIND.fingerprint(REQUEST, CTX))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"model_status": "QUEUED"}, Pending()),
        ({"model_status": "COMPLETED"}, Pending()),
        (
            {
                "model_status": "COMPLETED",
                "generation_url": "https://images.segmind.com/a.jpeg",
                "credits_deduction": 0.084,
            },
            Finished(url="https://images.segmind.com/a.jpeg", cost_microusd=84_000, expires_s=7 * 86_400.0, job=JOB),
        ),
        ({"model_status": "FAILED", "error": "flagged"}, Failed("policy", "flagged", retryable=False)),
        (
            {"model_status": "FAILED", "error": None, "credits_deduction": 0.01},
            Failed("provider", cost_microusd=10_000),
        ),
    ],
)
def test_a_row_tells_the_outcome(changes: dict[str, object], outcome: object) -> None:
    job = SEGMIND.read_list(page(row(**changes))).jobs[0]
    assert job.outcome == outcome


def test_a_request_with_two_outputs_is_one_job() -> None:
    listed = SEGMIND.read_list(page(row(), row(), row(request_id="other")))
    assert [job.job for job in listed.jobs] == [JOB, "other"]


def test_pages_follow_until_the_total_is_reached() -> None:
    assert SEGMIND.read_list(page(row(), row(), size=2, total=5)).next_cursor == "2"
    assert SEGMIND.read_list(page(row(), number=3, size=2, total=5)).next_cursor is None
    assert SEGMIND.read_list(page(number=4, size=2, total=5)).next_cursor is None


@pytest.mark.parametrize(
    "answer",
    [
        reply(500, {"error": "x"}),
        reply(200, {"data": [], "page": 1, "per_page": 100}),
        reply(200, {"data": [], "page": 0, "per_page": 100, "total": 0}),
        reply(200, {"data": [], "page": 1, "per_page": 0, "total": 0}),
        reply(200, {"data": [], "page": 1, "per_page": 100, "total": -1}),
        page(row(), total=2),
        page(row(), size=1, total=0),
        page(row(request_id="../x")),
        page(row(model_status="PAUSED")),
        page(row(created_at=None)),
        page(row(), {"request_id": "x"}),
    ],
)
def test_a_history_that_is_not_whole_proves_nothing(answer: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        SEGMIND.read_list(answer)


def test_a_cut_page_proves_nothing() -> None:
    whole = page(row(), row(request_id="other")).body
    for end in range(0, len(whole), 11):
        with pytest.raises(MalformedReply):
            SEGMIND.read_list(HttpReply(200, {}, whole[:end]))


# --- references ---------------------------------------------------------------------------------------------


def uploaded(answer: HttpReply, ctx: Context = CTX) -> Uploaded:
    """Answer the one call of an upload."""
    steps = SEGMIND.upload(FILE, ctx)
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(answer)
    told: Uploaded = done.value.value
    return told


def test_a_file_travels_as_text_to_the_host_of_assets() -> None:
    call = next(SEGMIND.upload(FILE, CTX))
    assert (call.method, call.url) == ("POST", "https://workflows-api.segmind.com/upload-asset")
    assert call.headers["x-api-key"] == CTX.key.reveal()
    data_url = "data:image/png;base64," + base64.b64encode(FILE.data).decode()
    assert msgspec.json.decode(call.body) == {"data_urls": [data_url]}
    assert uploaded(reply(200, {"file_urls": [ASSET], "message": "ok"})) == Uploaded(ASSET, 86_400.0)


def test_a_base_url_replaces_the_host_of_uploads_too() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    assert next(SEGMIND.upload(FILE, ctx)).url == "http://127.0.0.1:9/prefix/upload-asset"
    assert uploaded(reply(200, {"file_urls": ["http://127.0.0.1:9/a.png"]}), ctx).url == "http://127.0.0.1:9/a.png"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        {},
        {"file_urls": []},
        {"file_urls": [ASSET, ASSET]},
        {"file_urls": ["http://images.segmind.com/x"]},
        {"file_urls": ["https://["]},
        {"file_urls": ["https://images.segmind.com/a b"]},
        {"file_urls": [7]},
    ],
)
def test_an_upload_without_an_address_is_malformed(body: object) -> None:
    steps = SEGMIND.upload(FILE, CTX)
    next(steps)
    with pytest.raises(MalformedReply):
        steps.send(reply(200, body))


@pytest.mark.parametrize(
    ("status", "retryable", "account"),
    [(400, False, False), (401, False, True), (413, False, False), (429, True, False), (500, True, False)],
)
def test_a_file_that_is_not_taken(status: int, retryable: bool, account: bool) -> None:
    steps = SEGMIND.upload(FILE, CTX)
    next(steps)
    with pytest.raises(UploadRefused, match=f"Segmind took no file: status {status} no") as caught:
        steps.send(reply(status, {"error": "no"}))
    assert (caught.value.retryable, caught.value.account) == (retryable, account)


# --- garbage ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.sampled_from([200, 202, 204, 301, 400, 401, 403, 404, 405, 406, 410, 422, 429, 500]) | st.integers(
    100, 599
)
JOB_FIELDS = st.sampled_from([*ROWS["completed"].body, "error", "credits"])
ROW_FIELDS = st.sampled_from(sorted(row()))
BODIES = (
    st.binary(max_size=60)
    | JSON.map(msgspec.json.encode)
    | st.dictionaries(JOB_FIELDS, JSON, max_size=4).map(lambda odd: completed(**odd).body)
    | st.dictionaries(ROW_FIELDS, JSON, max_size=4).map(lambda odd: page(row(**odd)).body)
    | st.sampled_from([b"[" * 100_000, b'{"output":' * 5_000, page(row(request_body="[" * 100_000)).body])
)
MOMENTS = st.text(max_size=12) | st.sampled_from(
    ["0001-01-01T00:00:00+23:59", "9999-12-31", "Sun, 22 Nov 2026 01:00:00 GMT"]
)
HEADERS = st.dictionaries(st.sampled_from(["date", "x-rate-limit-reset-at-utc"]), MOMENTS, max_size=2)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = SEGMIND.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in (400, 401, 403, 404, 405, 406, 410, 429)
    for reader in (SEGMIND.read_poll, SEGMIND.read_recall, SEGMIND.read_check, SEGMIND.read_list):
        try:
            read_back: object = reader(garbage)
        except MalformedReply:
            continue
        if isinstance(read_back, Standing) and read_back.state == "ok":
            assert 200 <= status < 300
    steps = SEGMIND.upload(FILE, CTX)
    next(steps)
    with pytest.raises((StopIteration, MalformedReply, UploadRefused)):
        steps.send(garbage)
