"""Replicate's codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import base64
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from adapters.base import (
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpReply,
    ImageRequest,
    MalformedReply,
    NotVisible,
    Pending,
    Refused,
    Secret,
    Standing,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
)
from adapters.replicate import REPLICATE
from tests.adapters.replies import Row, load, read

ROWS = load("replicate")
CTX = Context(key=Secret("r8_secret"))
REQUEST = ImageRequest("a red kettle on slate")
VERSION = "2de9ad5b0425fb05efd2cac4ed145259675cfcd7ff80acd99042b460fe1c665e"


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(REPLICATE.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


def prediction(**changes: object) -> dict[str, object]:
    return {**ROWS["succeeded"].body, **changes}


# --- building -----------------------------------------------------------------------------------------------


def test_every_field_of_the_schema_is_sent() -> None:
    request = ImageRequest(
        "a red kettle", references=("https://refs.example/k.png",), aspect="9:16", resolution="2K", grounding=True
    )
    assert body_of(request) == {
        "input": {
            "prompt": "a red kettle",
            "image_input": ["https://refs.example/k.png"],
            "aspect_ratio": "9:16",
            "resolution": "2K",
            "output_format": "jpg",
            "google_search": True,
            "image_search": False,
        }
    }


def test_the_fallback_model_is_never_allowed() -> None:
    fields = body_of(ImageRequest("x", model="nano-banana-pro", output_format="png"))["input"]
    assert fields["allow_fallback_model"] is False
    assert fields["safety_filter_level"] == "block_only_high"
    assert fields["output_format"] == "png"


def test_the_first_model_has_no_resolution_field() -> None:
    request = ImageRequest("x", model="nano-banana", aspect="auto", references=("https://r.example/a.png",))
    assert body_of(request)["input"] == {
        "prompt": "x",
        "image_input": ["https://r.example/a.png"],
        "aspect_ratio": "match_input_image",
        "output_format": "jpg",
    }


def test_the_call_names_the_model_the_key_and_a_deadline() -> None:
    call = REPLICATE.build_submit(REQUEST, CTX)
    assert call.method == "POST"
    assert call.url == "https://api.replicate.com/v1/models/google/nano-banana-2/predictions"
    assert call.headers["Authorization"] == "Bearer r8_secret"
    assert call.headers["Cancel-After"] == "20m"
    assert call == REPLICATE.build_submit(REQUEST, CTX)


def test_a_pin_is_sent_by_version() -> None:
    request = ImageRequest("x", model="google/nano-banana-2", model_version=VERSION)
    assert REPLICATE.problem(request) is None
    assert REPLICATE.build_submit(request, CTX).url == "https://api.replicate.com/v1/predictions"
    assert body_of(request)["version"] == f"google/nano-banana-2:{VERSION}"


def test_a_callback_asks_for_the_end_only() -> None:
    ctx = Context(key=Secret("k"), callback_url="https://hooks.example/r?task=1")
    body = body_of(REQUEST, ctx)
    assert body["webhook"] == "https://hooks.example/r?task=1"
    assert body["webhook_events_filter"] == ["completed"]


def test_a_base_url_replaces_the_host_of_every_call() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    calls = [
        REPLICATE.build_submit(REQUEST, ctx),
        REPLICATE.build_poll("abc", ctx),
        REPLICATE.build_cancel("abc", ctx),
        REPLICATE.build_check(ctx),
        REPLICATE.build_list(ctx, since_us=0, until_us=1, cursor=None),
    ]
    assert {call.url.partition("/v1/")[0] for call in calls} == {"http://127.0.0.1:9/prefix"}


def test_a_job_id_cannot_leave_its_place_in_the_url() -> None:
    assert REPLICATE.build_poll("../account?x", CTX).url.endswith("/v1/predictions/..%2Faccount%3Fx")
    with pytest.raises(ValueError, match="job id"):
        REPLICATE.build_poll("", CTX)


def test_all_requests_share_one_lane() -> None:
    assert REPLICATE.lane(REQUEST) == REPLICATE.lane(ImageRequest("x", aspect="9:16")) == "default"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest("  "), "prompt is empty"),
        (ImageRequest("\ud83d"), "half of a Unicode character"),
        (ImageRequest("x", aspect="7:5"), "no aspect 7:5"),
        (ImageRequest("x", aspect="1:8", model="nano-banana-pro"), "no aspect 1:8"),
        (ImageRequest("x", aspect="auto"), "there is none"),
        (ImageRequest("x", resolution="0.5K"), "no resolution 0.5K"),
        (ImageRequest("x", resolution="2K", model="nano-banana"), "no resolution 2K"),
        (ImageRequest("x", output_format="webp"), "no format webp"),
        (ImageRequest("x", seed=7), "takes no seed"),
        (ImageRequest("x", grounding=True, model="nano-banana-pro"), "no grounding"),
        (ImageRequest("x", model_version="latest"), "64 hexadecimal digits"),
        (ImageRequest("x", references=("https://r.example/a.png",) * 15), "at most 14"),
        (ImageRequest("x", references=("https://r.example/a.png", "a.png")), "reference 2: neither"),
        (ImageRequest("x", references=("http://[",)), "reference 1: neither"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (REPLICATE.problem(request_) or "")


def test_what_fits_has_no_problem() -> None:
    assert REPLICATE.problem(REQUEST) is None
    assert REPLICATE.problem(ImageRequest("x", aspect="auto", references=("https://r.example/a.png?b=1",))) is None


def test_a_request_that_does_not_fit_is_our_mistake_to_build() -> None:
    with pytest.raises(ValueError, match="no model"):
        REPLICATE.build_submit(ImageRequest("x", model="flux"), CTX)


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        cut = HttpReply(row.status, row.headers, whole[:end])
        if row.kind == "submit" and row.status < 300:
            assert REPLICATE.read_submit(cut) == Unclear("created, but without a readable id", likely_paid=True)
        elif row.status < 300:
            with pytest.raises(MalformedReply):
                read(REPLICATE, row.kind, cut)
        else:
            assert not isinstance(read(REPLICATE, row.kind, cut), NotVisible | Gone | Finished | Failed)


@pytest.mark.parametrize("status", [100, 301, 302, 405, 408, 409, 410, 451, 500, 502, 503, 504, 599])
def test_what_is_not_documented_as_harmless_is_unclear(status: int) -> None:
    outcome = REPLICATE.read_submit(reply(status, {"detail": "so sorry"}))
    assert outcome == Unclear(f"status {status} so sorry")


def test_a_job_id_that_could_escape_a_url_is_unreadable() -> None:
    assert REPLICATE.read_submit(reply(201, {"id": "../../x"})) == Unclear(
        "created, but without a readable id", likely_paid=True
    )


def test_a_refusal_for_policy_is_told_apart() -> None:
    assert REPLICATE.read_submit(reply(422, {"detail": "prompt flagged as sensitive"})) == Refused(
        "policy", "prompt flagged as sensitive"
    )


@pytest.mark.parametrize(
    ("body", "headers", "wait"),
    [
        ({"detail": "Your rate limit resets in ~30s."}, {}, 30.0),
        ({"detail": "Your rate limit resets in ~30s."}, {"retry-after": "7"}, 7.0),
        ({"detail": "x", "retry_after": 2.5}, {}, 2.5),
        ({"detail": "later"}, {"retry-after": "Sun, 22 Nov 2026 01:00:00 GMT"}, None),
        ({"detail": "resets in ~999999s"}, {}, 3600.0),
        ({"detail": "x", "retry_after": -1}, {}, None),
        (b"<html>", {}, None),
    ],
)
def test_the_wait_is_found_where_it_is(body: object, headers: dict[str, str], wait: float | None) -> None:
    assert REPLICATE.read_submit(reply(429, body, **headers)) == Throttled(wait)
    assert REPLICATE.read_poll(reply(429, body, **headers)) == Throttled(wait)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("https://replicate.delivery/a.png", ("https://replicate.delivery/a.png", b"")),
        (
            ["https://replicate.delivery/a.png", "https://replicate.delivery/b.png"],
            ("https://replicate.delivery/a.png", b""),
        ),
        ("data:image/png;base64," + base64.b64encode(b"png").decode(), ("", b"png")),
    ],
)
def test_an_output_may_be_a_url_a_list_or_data(output: object, expected: tuple[str, bytes]) -> None:
    outcome = REPLICATE.read_poll(reply(200, prediction(output=output)))
    assert isinstance(outcome, Finished)
    assert (outcome.url, outcome.data) == expected


@pytest.mark.parametrize(
    "output", [None, [], {}, 7, "ftp://x/y", "data:image/png,raw", "data:x;base64,!", "data:;base64,"]
)
def test_a_success_without_a_usable_output_is_paid_and_lost(output: object) -> None:
    assert REPLICATE.read_poll(reply(200, prediction(output=output))) == Gone("succeeded without a usable output")


def test_the_version_is_kept_unless_it_is_hidden() -> None:
    outcome = REPLICATE.read_poll(reply(200, prediction(version=VERSION)))
    assert isinstance(outcome, Finished)
    assert outcome.model_version == VERSION
    hidden = REPLICATE.read_poll(ROWS["succeeded"].reply)
    assert isinstance(hidden, Finished)
    assert hidden.model_version == ""


def test_an_image_of_the_fallback_model_breaks_the_contract() -> None:
    outcome = REPLICATE.read_poll(reply(200, prediction(metrics={"resolution": "fallback"})))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.charged) == ("contract", False, True)


@pytest.mark.parametrize(("started_at", "charged"), [("2026-11-22T01:00:00Z", True), (None, False)])
def test_a_canceled_prediction_is_charged_once_it_ran(started_at: object, charged: bool) -> None:
    outcome = REPLICATE.read_poll(reply(200, {**ROWS["canceled"].body, "started_at": started_at}))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.charged) == ("cancelled", False, charged)


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        ("429 RESOURCE_EXHAUSTED", "provider", True),
        ("The model is overloaded, invalid input queue", "provider", True),
        ("Input validation error: could not read the image", "provider", False),
        ("Prediction interrupted; please retry (code: PA)", "provider", True),
        ("Blocked by the safety filter", "policy", False),
        (None, "provider", True),
        ({"code": 3}, "provider", True),
    ],
)
def test_failures_are_sorted_by_their_words(text: object, reason: str, retryable: bool) -> None:
    outcome = REPLICATE.read_poll(reply(200, prediction(status="failed", output=None, error=text)))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == (reason, retryable)


def test_long_words_are_cut() -> None:
    outcome = REPLICATE.read_poll(reply(200, prediction(status="failed", error="no " * 1000)))
    assert isinstance(outcome, Failed)
    assert len(outcome.detail) == 300


def test_an_unknown_status_is_no_outcome() -> None:
    with pytest.raises(MalformedReply):
        REPLICATE.read_poll(reply(200, prediction(status="paused")))


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (404, b"<html>not here</html>", Unreadable("status 404")),
        (401, {"title": "Unauthenticated"}, Unreadable("status 401 Unauthenticated", unauthorized=True)),
        (403, {}, Unreadable("status 403", unauthorized=True)),
        (500, {"detail": "oops"}, Unreadable("status 500 oops")),
        (302, b"", Unreadable("status 302")),
    ],
)
def test_a_question_without_an_answer_concludes_nothing(status: int, body: object, outcome: Unreadable) -> None:
    assert REPLICATE.read_poll(reply(status, body)) == outcome
    assert REPLICATE.read_cancel(reply(status, body)) == outcome


def test_a_cancel_answers_with_the_prediction() -> None:
    outcome = REPLICATE.read_cancel(ROWS["canceled"].reply)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "cancelled"


@pytest.mark.parametrize(
    ("status", "state"),
    [(402, "no_credit"), (403, "rejected"), (404, "unreadable"), (500, "unreadable"), (429, "unreadable")],
)
def test_a_check_that_fails_says_how(status: int, state: str) -> None:
    assert REPLICATE.read_check(reply(status, {"detail": "x"})).state == state


def test_an_account_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        REPLICATE.read_check(reply(200, {"username": 7}))


# --- the listing --------------------------------------------------------------------------------------------


def item(request: ImageRequest = REQUEST, /, **changes: object) -> dict[str, object]:
    return {**ROWS["starting"].body, "input": body_of(request)["input"], **changes}


def page(*items: dict[str, object], next_: object = None) -> HttpReply:
    return reply(200, {"previous": None, "next": next_, "results": list(items)})


def test_a_listing_asks_for_a_little_more_than_the_window() -> None:
    call = REPLICATE.build_list(CTX, since_us=1_795_309_200_000_000, until_us=1_795_309_260_000_000, cursor="abc=")
    parts = urlsplit(call.url)
    assert (parts.netloc, parts.path) == ("api.replicate.com", "/v1/predictions")
    assert parse_qs(parts.query) == {
        "created_after": ["2026-11-22T00:59:59.999000Z"],
        "created_before": ["2026-11-22T01:01:00.001000Z"],
        "cursor": ["abc="],
    }


def test_a_listing_backwards_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="until"):
        REPLICATE.build_list(CTX, since_us=2, until_us=1, cursor=None)


def test_a_listed_job_has_the_fingerprint_of_its_request() -> None:
    requests = [
        REQUEST,
        ImageRequest("ü 漢 \u2028", model="nano-banana", aspect="auto", references=("https://r.example/ä?x=1&y",)),
        ImageRequest("x", model="nano-banana-pro", resolution="4K", output_format="png"),
    ]
    items = [item(r, model=REPLICATE.capabilities.model(r.model).provider_id) for r in requests]  # type: ignore[union-attr]
    listed = REPLICATE.read_list(page(*items))
    assert [job.fingerprint for job in listed.jobs] == [REPLICATE.fingerprint(r, CTX) for r in requests]
    assert listed.jobs[0].created_us == 1_795_309_200_120_000
    assert listed.jobs[0].outcome == Pending()
    assert listed.next_cursor is None


def test_equal_requests_have_equal_fingerprints_and_others_do_not() -> None:
    other = Context(key=Secret("other"), marker=9, base_url="http://127.0.0.1:1")
    assert REPLICATE.fingerprint(ImageRequest("a"), CTX) == REPLICATE.fingerprint(ImageRequest("a"), other)
    wanted = [
        ImageRequest("a"),
        ImageRequest("b"),
        ImageRequest("a", aspect="9:16"),
        ImageRequest("a", resolution="2K"),
        ImageRequest("a", model="nano-banana-pro"),
        ImageRequest("a", references=("https://r.example/1.png",)),
        ImageRequest("a", output_format="png"),
    ]
    assert len({REPLICATE.fingerprint(request, CTX) for request in wanted}) == len(wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_removed": True},
        {"input": {}},
        {"input": None},
        {"input": {**body_of(REQUEST)["input"], "filled_in_later": 1}},
    ],
)
def test_an_item_that_cannot_be_compared_has_no_fingerprint(changes: dict[str, object]) -> None:
    assert REPLICATE.read_list(page(item(**changes))).jobs[0].fingerprint is None


def test_jobs_of_other_models_are_read_and_match_nothing() -> None:
    listed = REPLICATE.read_list(
        page(item(model="acme/upscaler", status="succeeded", output={"layers": 3}, input={"scale": 2.5, "deep": [{}]}))
    )
    assert listed.jobs[0].fingerprint not in (None, REPLICATE.fingerprint(REQUEST, CTX))
    assert isinstance(listed.jobs[0].outcome, Gone)


def test_only_the_cursor_of_the_next_page_is_taken() -> None:
    listed = REPLICATE.read_list(page(item(), next_="https://evil.example/v1/predictions?cursor=cD0x&created_after=x"))
    assert listed.next_cursor == "cD0x"
    call = REPLICATE.build_list(CTX, since_us=0, until_us=1, cursor=listed.next_cursor)
    assert urlsplit(call.url).netloc == "api.replicate.com"


@pytest.mark.parametrize(
    "answer",
    [
        reply(500, {"detail": "x"}),
        reply(200, {"results": []}),
        reply(200, {"results": None, "next": None}),
        reply(200, {"next": None}),
        page(next_="https://api.replicate.com/v1/predictions"),
        page(next_="https://api.replicate.com/v1/predictions?cursor=a&cursor=b"),
        page(next_="http://["),
        page(item(), {"id": "x"}),
        page(item(id="../x")),
        page(item(status="paused")),
        page(item(created_at=None)),
        page(item(created_at="2026-11-22T01:00:00")),
    ],
)
def test_a_listing_that_is_not_whole_proves_nothing(answer: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        REPLICATE.read_list(answer)


def test_a_cut_page_proves_nothing() -> None:
    whole = page(item(), item(id="other"), next_="https://x/?cursor=c").body
    for end in range(0, len(whole), 11):
        with pytest.raises(MalformedReply):
            REPLICATE.read_list(HttpReply(200, {}, whole[:end]))


# --- garbage ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATUSES = st.sampled_from([200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503]) | st.integers(
    100, 599
)
FIELDS = st.sampled_from(
    [*sorted(ROWS["succeeded"].body), "title", "detail", "retry_after", "results", "next", "username"]
)
BODIES = (
    st.binary(max_size=60)
    | JSON.map(msgspec.json.encode)
    | st.dictionaries(FIELDS, JSON, max_size=4).map(lambda odd: msgspec.json.encode(prediction(**odd)))
    | st.dictionaries(FIELDS, JSON, max_size=4).map(
        lambda odd: msgspec.json.encode({"results": [item(**odd)], "next": None})
    )
    | st.sampled_from([b"[" * 100_000, b'{"input":' * 5_000, b'{"results":[{"input":{"a":' + b"[" * 100_000])
)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "content-type"]), st.text(max_size=12), max_size=2)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = REPLICATE.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in (400, 401, 402, 403, 404, 413, 422, 429)
    for reader in (REPLICATE.read_poll, REPLICATE.read_cancel, REPLICATE.read_check, REPLICATE.read_list):
        try:
            read_back: object = reader(garbage)
        except MalformedReply:
            continue
        if isinstance(read_back, Standing) and read_back.state == "ok":
            assert 200 <= status < 300


# --- asking for many ----------------------------------------------------------------------------------------


def test_a_sweep_tells_what_polls_would_and_leaves_oddities_out() -> None:
    page = {"next": None, "results": [prediction(id="a1"), prediction(id="b2", status="new"), 7, {"id": "c3"}]}
    found = REPLICATE.read_sweep(reply(200, page))
    assert found == {"a1": REPLICATE.read_poll(reply(200, prediction(id="a1")))}
    call = REPLICATE.build_sweep(["a1"], CTX, since_us=10_000_000, until_us=20_000_000)
    assert parse_qs(urlsplit(call.url).query).keys() == {"created_after", "created_before"}
    assert REPLICATE.sweep_size == 100


@pytest.mark.parametrize("odd", [reply(500, {}), reply(200, {"results": {}}), reply(200, b"no")])
def test_a_sweep_that_cannot_be_read_says_so(odd: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        REPLICATE.read_sweep(odd)


# --- files --------------------------------------------------------------------------------------------------

KETTLE = FileBytes("0123.png", "image/png", b"\x89PNG...")


def uploaded(answer: HttpReply) -> Uploaded:
    """Take the codec through an upload that is answered so."""
    steps = REPLICATE.upload(KETTLE, CTX)
    next(steps)
    with pytest.raises(StopIteration) as ended:
        steps.send(answer)
    found: Uploaded = ended.value.value
    return found


def test_an_upload_is_one_form() -> None:
    call = next(REPLICATE.upload(KETTLE, CTX))
    assert (call.method, call.url) == ("POST", "https://api.replicate.com/v1/files")
    assert call.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="content"; filename="0123.png"' in call.body
    assert KETTLE.data in call.body
    assert call == next(REPLICATE.upload(KETTLE, CTX))


@pytest.mark.parametrize(
    ("times", "life_s"),
    [
        ({"created_at": "2026-11-22T01:00:00Z", "expires_at": "2026-11-23T01:00:00Z"}, 86_400.0),
        ({"created_at": "2026-11-22T01:00:00Z", "expires_at": "2026-11-22T00:00:00Z"}, 0.0),
        ({"created_at": "yesterday", "expires_at": None}, 3600.0),
        ({}, 3600.0),
    ],
)
def test_an_upload_lasts_as_long_as_the_answer_says(times: dict[str, object], life_s: float) -> None:
    link = "https://api.replicate.com/v1/files/abc"
    assert uploaded(reply(201, {"id": "abc", "urls": {"get": link}, **times})) == Uploaded(link, life_s)


@pytest.mark.parametrize(("status", "retryable"), [(413, False), (401, False), (422, False), (429, True), (503, True)])
def test_an_upload_may_be_refused(status: int, retryable: bool) -> None:
    steps = REPLICATE.upload(KETTLE, CTX)
    next(steps)
    with pytest.raises(UploadRefused, match="too large") as refused:
        steps.send(reply(status, {"detail": "too large"}))
    assert refused.value.retryable is retryable
    assert refused.value.account is (status == 401)


@given(status=st.integers(200, 299), body=st.binary() | st.sampled_from([b'{"urls":{"get":"file:///etc"}}', b"{}"]))
@settings(max_examples=50)
def test_garbage_for_an_upload(status: int, body: bytes) -> None:
    steps = REPLICATE.upload(KETTLE, CTX)
    next(steps)
    with pytest.raises(MalformedReply):
        steps.send(HttpReply(status, {}, body))


# --- callbacks ----------------------------------------------------------------------------------------------

SECRET = Secret("whsec_" + base64.b64encode(b"k" * 24).decode())
NOW_S = 1_795_309_200.0
HOOK = msgspec.json.encode({"id": "k9f2m0c7", "status": "succeeded", "output": None})


def signed(body: bytes = HOOK, *, at_s: float = NOW_S, message: str = "msg_1") -> dict[str, str]:
    """The headers as the package of the standard makes them."""
    signature = Webhook(SECRET.reveal()).sign(message, datetime.fromtimestamp(at_s, UTC), body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(int(at_s)), "webhook-signature": signature}


def holds(headers: dict[str, str], body: bytes = HOOK, *, secrets: Sequence[Secret] = (SECRET,)) -> bool:
    return REPLICATE.verify_callback(headers, body, secrets=secrets, now_s=NOW_S)


def test_a_callback_is_signed_as_standard_webhooks_says() -> None:
    """Checked against the standard's own package, both ways."""
    now_s = time.time()
    headers = signed(at_s=now_s)
    Webhook(SECRET.reveal()).verify(HOOK, headers)
    assert REPLICATE.verify_callback(headers, HOOK, secrets=[SECRET], now_s=now_s)
    for broken in (headers | {"webhook-id": "msg_2"}, headers | {"webhook-signature": "v1,AAAA"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET.reveal()).verify(HOOK, broken)
        assert not REPLICATE.verify_callback(broken, HOOK, secrets=[SECRET], now_s=now_s)


def test_any_of_several_signatures_and_secrets_will_do() -> None:
    good = signed()
    several = good | {"webhook-signature": f"v1,AAAA v2,x {good['webhook-signature']}"}
    assert holds(several)
    assert holds(several, secrets=[Secret("whsec_b2xk"), SECRET])
    assert not holds(several, secrets=[Secret("whsec_b2xk")])
    assert not holds(good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")})
    assert not holds(good, secrets=[Secret("whsec_"), Secret("whsec_!!!")])


def test_a_callback_names_its_job() -> None:
    assert REPLICATE.read_callback(HOOK) == "k9f2m0c7"
    for body in (b"", b"{}", b'{"id": 7}', b'{"id": "../x"}'):
        with pytest.raises(MalformedReply):
            REPLICATE.read_callback(body)
