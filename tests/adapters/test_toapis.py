"""Toapis' codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import contextlib
import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Callbacks,
    Context,
    Failed,
    FileBytes,
    Finished,
    Gone,
    HttpCall,
    HttpReply,
    ImageRequest,
    LooksUp,
    MalformedReply,
    NotVisible,
    Pending,
    Polls,
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
from adapters.toapis import TOAPIS
from adapters.toapis_record import CAPABILITIES
from tests.adapters.replies import Row, load, read

ROWS = load("toapis")
CTX = Context(key=Secret("sk-secret"))
REQUEST = ImageRequest("a red mug on slate")
FILE = FileBytes("ab12.png", "image/png", b"\x89PNG\r\n\x1a\n...")
MANY = ("https://refs.example/a.png",) * 15


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(TOAPIS.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


def task(**changes: object) -> dict[str, object]:
    return {**ROWS["completed"].body, **changes}


# --- building -----------------------------------------------------------------------------------------------


def test_it_has_the_parts_that_its_record_names() -> None:
    for part in (Polls, Sweeps, LooksUp, Uploads, Callbacks):
        assert isinstance(TOAPIS, part)
    assert CAPABILITIES.recovery == "lookup"


def test_every_field_is_sent_and_the_aspect_is_called_size() -> None:
    request = ImageRequest("a red mug", references=("https://r.example/k.png",), aspect="9:16", resolution="2K")
    ctx = msgspec.structs.replace(CTX, reference="b17-t000042-a1", callback_url="https://hooks.example/t?x=1")
    assert body_of(request, ctx) == {
        "model": "gemini-3.1-flash-image-preview",
        "prompt": "a red mug",
        "size": "9:16",
        "n": 1,
        "response_format": "url",
        "metadata": {"resolution": "2K", "google_search": False},
        "image_urls": [{"url": "https://r.example/k.png"}],
        "client_business_id": "b17-t000042-a1",
        "callback_url": "https://hooks.example/t?x=1",
    }


@pytest.mark.parametrize(
    ("model", "provider_id", "metadata"),
    [
        ("nano-banana", "gemini-2.5-flash-image-preview", {"resolution": "1K"}),
        ("nano-banana-2", "gemini-3.1-flash-image-preview", {"resolution": "1K", "google_search": False}),
        ("gemini-3-pro-image-preview", "gemini-3-pro-image-preview", {"resolution": "1K"}),
    ],
)
def test_each_model_gets_its_own_fields(model: str, provider_id: str, metadata: dict[str, object]) -> None:
    body = body_of(ImageRequest("x", model=model))
    assert (body["model"], body["metadata"]) == (provider_id, metadata)
    assert "image_urls" not in body
    assert "client_business_id" not in body
    assert "callback_url" not in body


def test_grounding_is_asked_for_in_the_metadata() -> None:
    assert body_of(ImageRequest("x", grounding=True))["metadata"]["google_search"] is True


def test_the_same_request_is_the_same_bytes_with_the_key_in_one_place() -> None:
    call = TOAPIS.build_submit(REQUEST, CTX)
    assert call == TOAPIS.build_submit(REQUEST, CTX)
    assert (call.method, call.url) == ("POST", "https://toapis.com/v1/images/generations")
    assert call.headers["authorization"] == "Bearer sk-secret"
    assert b"sk-secret" not in call.body
    assert "sk-secret" not in repr(call)


def test_a_base_url_replaces_the_host_of_every_call() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    calls = [
        TOAPIS.build_submit(REQUEST, ctx),
        TOAPIS.build_poll("abc", ctx),
        TOAPIS.build_lookup("b17-a1", ctx),
        TOAPIS.build_sweep(["abc"], ctx, since_us=0, until_us=1),
        TOAPIS.build_check(ctx),
        next(TOAPIS.upload(FILE, ctx)),
    ]
    assert {call.url.partition("/v1/")[0] for call in calls} == {"http://127.0.0.1:9/prefix"}


def test_a_task_is_asked_for_by_its_id_or_by_our_reference() -> None:
    assert TOAPIS.build_poll("img_1", CTX).url == "https://toapis.com/v1/images/generations/img_1"
    assert TOAPIS.build_lookup("b17-a1", CTX).url == "https://toapis.com/v1/images/generations/b17-a1"
    assert TOAPIS.build_poll("../user/balance?x", CTX).url.endswith("/generations/..%2Fuser%2Fbalance%3Fx")
    with pytest.raises(ValueError, match="reference"):
        TOAPIS.build_lookup("", CTX)


def test_a_sweep_names_its_tasks_and_has_a_size() -> None:
    call = TOAPIS.build_sweep(["img_1", "img_2"], CTX, since_us=0, until_us=1)
    assert msgspec.json.decode(call.body) == {"task_ids": ["img_1", "img_2"]}
    assert TOAPIS.sweep_size == 100
    for jobs in ([], ["img_1"] * 101):
        with pytest.raises(ValueError, match="sweep"):
            TOAPIS.build_sweep(jobs, CTX, since_us=0, until_us=1)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="nano_banana_2"), "no model 'nano_banana_2'"),
        (ImageRequest("x", aspect="auto", references=MANY[:1]), "no aspect auto"),
        (ImageRequest("x", aspect="1:8", model="nano-banana-pro"), "no aspect 1:8"),
        (ImageRequest("x", aspect="21:9", model="nano-banana"), "no aspect 21:9"),
        (ImageRequest("x", resolution="0.5K", model="nano-banana-pro"), "no resolution 0.5K"),
        (ImageRequest("x", resolution="2K", model="nano-banana"), "no resolution 2K"),
        (ImageRequest("x" * 1_001, model="nano-banana"), "1001 characters"),
        (ImageRequest("x", output_format="png"), "no format png"),
        (ImageRequest("x", seed=7), "takes no seed"),
        (ImageRequest("x", grounding=True, model="nano-banana-pro"), "no grounding"),
        (ImageRequest("x", model_version="1"), "no version pins"),
        (ImageRequest("x", references=MANY), "at most 14"),
        (ImageRequest("x", references=("file:" + "0" * 64 + ":10000001:image/png:/a.png",)), "10,000,001 bytes"),
        (ImageRequest("x", references=("file:" + "0" * 64 + ":9:image/gif:/a.gif",)), "no image/gif"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (TOAPIS.problem(request_) or "")


def test_what_fits_has_no_problem_and_one_lane() -> None:
    requests = [
        ImageRequest("x", resolution="0.5K", aspect="1:8", references=MANY[:14]),
        ImageRequest("x" * 5_000, model="nano-banana-pro", resolution="4K"),
        ImageRequest("x", model="nano-banana", references=("file:" + "0" * 64 + ":10000000:image/webp:/a.webp",)),
    ]
    assert [TOAPIS.problem(request) for request in requests] == [None] * 3
    assert {TOAPIS.lane(request) for request in requests} == {"default"}


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        cut = HttpReply(row.status, row.headers, whole[:end])
        if row.kind == "submit" and row.status < 300:
            assert TOAPIS.read_submit(cut) == Unclear("a success without a readable task id", likely_paid=True)
        elif row.status < 300:
            with pytest.raises(MalformedReply):
                read(TOAPIS, row.kind, cut)
        else:
            assert not isinstance(read(TOAPIS, row.kind, cut), NotVisible | Gone | Finished | Failed)


@pytest.mark.parametrize("status", [100, 301, 404, 405, 408, 409, 413, 451, 500, 502, 503, 504, 524, 599])
def test_what_is_not_known_as_harmless_is_unclear(status: int) -> None:
    assert TOAPIS.read_submit(reply(status, {"message": "so sorry"})) == Unclear(f"HTTP {status} so sorry")


def test_a_refusal_beside_a_task_id_proves_nothing() -> None:
    outcome = TOAPIS.read_submit(reply(400, {"id": "img_1", "error": {"code": 400}}))
    assert outcome == Unclear("HTTP 400 beside a task id", likely_paid=True)


def test_a_refusal_without_words_is_told_by_its_number() -> None:
    assert TOAPIS.read_submit(reply(401, b"")) == Refused("unauthorized", "HTTP 401")
    assert TOAPIS.read_submit(reply(402, {"error": {"code": "insufficient_quota"}})) == Refused(
        "no_credit", "insufficient_quota"
    )


def test_a_no_of_somebody_on_the_way_is_not_toapis_word() -> None:
    assert TOAPIS.read_submit(reply(403, b"<html>blocked</html>")) == Unclear("HTTP 403")


def test_a_job_id_that_could_escape_a_url_is_unreadable() -> None:
    assert isinstance(TOAPIS.read_submit(reply(200, {"id": "../../x"})), Unclear)


@pytest.mark.parametrize("wait", ["7", "", "Sun, 22 Nov 2026 01:00:00 GMT"])
def test_the_pause_is_read_from_the_header(wait: str) -> None:
    expected = Throttled(7.0 if wait == "7" else None)
    throttled = reply(429, b"", **{"retry-after": wait})
    assert TOAPIS.read_submit(throttled) == expected
    assert TOAPIS.read_poll(throttled) == expected
    assert TOAPIS.read_lookup(throttled) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"result": None},
        {"result": {"data": []}},
        {"result": {"data": [{"url": "ftp://x/y"}]}},
        {"result": [], "url": 7, "data": {"url": "https://x"}},
        {"status": "paused"},
        {"status": None},
    ],
)
def test_a_task_outside_the_documentation_is_no_outcome(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedReply):
        TOAPIS.read_poll(reply(200, task(**changes)))


@pytest.mark.parametrize("expires_at", [1768381063, "soon", None, 1768381063 + 10**9, -1])
def test_a_lifetime_that_makes_no_sense_is_the_documented_one(expires_at: object) -> None:
    outcome = TOAPIS.read_poll(reply(200, task(expires_at=expires_at)))
    assert isinstance(outcome, Finished)
    assert outcome.expires_s == 86_400.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"error": {"message": "safety filter"}}, Failed("policy", "safety filter", retryable=False)),
        (
            {"error": {"code": "content_policy_violation"}},
            Failed("policy", "content_policy_violation", retryable=False),
        ),
        ({"error": "上游内容违规"}, Failed("policy", "上游内容违规", retryable=False)),
        ({"error": None, "fail_reason": "timeout"}, Failed("provider", "timeout")),
        (
            {"error": {"message": "could not read image_urls[0]"}},
            Failed("provider", "could not read image_urls[0]", False),
        ),
        ({"error": {"message": "upstream returned status 4220"}}, Failed("provider", "upstream returned status 4220")),
        ({"error": [], "fail_reason": 7}, Failed("provider", "")),
    ],
)
def test_failures_are_sorted_by_their_words(fields: dict[str, object], expected: Failed) -> None:
    assert TOAPIS.read_poll(reply(200, {"id": "img_1", "status": "failed", **fields})) == expected


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (404, b"<html>not here</html>", Unreadable("HTTP 404")),
        (404, {"error": {"code": "model_not_found"}}, Unreadable("HTTP 404 model_not_found")),
        (404, {"error": {"code": 404, "message": "Invalid URL"}}, Unreadable("HTTP 404 Invalid URL")),
        (
            401,
            ROWS["unauthorized"].body,
            Unreadable("HTTP 401 " + "Authentication failed, please check your API key", True),
        ),
        (403, {}, Unreadable("HTTP 403", unauthorized=True)),
        (500, {"message": "oops"}, Unreadable("HTTP 500 oops")),
    ],
)
def test_a_question_without_an_answer_concludes_nothing(status: int, body: object, outcome: Unreadable) -> None:
    assert TOAPIS.read_poll(reply(status, body)) == outcome
    assert TOAPIS.read_lookup(reply(status, body)) == outcome


@pytest.mark.parametrize("name", ["queued", "in_progress", "completed", "failed"])
def test_a_lookup_gives_the_task_in_any_state(name: str) -> None:
    assert TOAPIS.read_lookup(ROWS[name].reply) == Accepted(str(ROWS[name].body["id"]))


def test_a_lookup_finds_nothing_only_in_toapis_own_words() -> None:
    assert TOAPIS.read_lookup(ROWS["unknown_task"].reply) == NotVisible()
    assert isinstance(TOAPIS.read_lookup(ROWS["no_such_path"].reply), Unreadable)
    with pytest.raises(MalformedReply):
        TOAPIS.read_lookup(reply(200, {"status": "queued"}))


def test_a_sweep_tells_the_tasks_it_can_read() -> None:
    rows = [ROWS["completed"].body, {"id": "img_2", "status": "queued"}, {"id": "img_3", "status": "?"}, 7, {}]
    outcomes = TOAPIS.read_sweep(reply(200, {"object": "list", "data": [*rows, {"id": "../x", "status": "queued"}]}))
    done = TOAPIS.read_poll(ROWS["completed"].reply)
    assert outcomes == {str(ROWS["completed"].body["id"]): done, "img_2": Pending()}


@pytest.mark.parametrize("status", [404, 405, 429, 500])
def test_a_sweep_that_is_not_answered_leaves_the_tasks_to_polls(status: int) -> None:
    with pytest.raises(MalformedReply, match=str(status)):
        TOAPIS.read_sweep(reply(status, {"data": []}))


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, "rejected"), (402, "no_credit"), (403, "rejected"), (404, "unreadable"), (500, "unreadable")],
)
def test_a_check_that_fails_says_how(status: int, state: str) -> None:
    assert TOAPIS.read_check(reply(status, {"message": "x"})).state == state


@pytest.mark.parametrize("credit", ["2100", True, None, 1e300, []])
def test_credits_that_are_no_number_are_malformed(credit: object) -> None:
    with pytest.raises(MalformedReply):
        TOAPIS.read_check(reply(200, {"success": True, "remain_credits": credit}))


# --- files --------------------------------------------------------------------------------------------------


def uploaded(answer: HttpReply) -> tuple[HttpCall, object]:
    steps = TOAPIS.upload(FILE, CTX)
    call = next(steps)
    try:
        steps.send(answer)
    except StopIteration as end:
        return call, end.value
    raise AssertionError("a second call")


def test_a_file_goes_up_in_one_call() -> None:
    stored = {"success": True, "message": "ok", "data": {"id": "f1", "url": "https://files.toapis.com/u/f1.png"}}
    call, result = uploaded(reply(200, stored))
    assert result == Uploaded("https://files.toapis.com/u/f1.png", 3_600.0)
    assert (call.method, call.url) == ("POST", "https://toapis.com/v1/uploads/images")
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="purpose"\r\n\r\ngeneration\r\n' in call.body
    assert FILE.data in call.body
    assert next(TOAPIS.upload(FILE, CTX)) == call


@pytest.mark.parametrize(
    ("status", "body", "retryable"),
    [
        (400, {"success": False, "message": "too large"}, False),
        (401, {"error": {"code": 401, "message": "key"}}, False),
        (200, {"success": False, "message": "not an image"}, False),
        (429, b"", True),
        (408, b"", True),
        (502, b"<html>", True),
    ],
)
def test_a_file_that_is_not_taken_says_whether_to_try_again(status: int, body: object, retryable: bool) -> None:
    with pytest.raises(UploadRefused) as refused:
        uploaded(reply(status, body))
    assert refused.value.retryable == retryable
    assert refused.value.account == (status == 401)
    assert str(refused.value).startswith("Toapis took no file: ")


@pytest.mark.parametrize(
    "body", [b"{", {}, {"success": True}, {"success": True, "data": {"url": "ftp://x"}}, {"success": False}]
)
def test_an_upload_without_an_address_is_malformed(body: object) -> None:
    with pytest.raises(MalformedReply):
        uploaded(reply(200, body))


# --- callbacks ----------------------------------------------------------------------------------------------

BODY = b'{"id":"evt_1","type":"generation.completed","data":{"task_id":"img_1","status":"completed"}}'
NOW_S = 1_795_309_200.0


def signature(secret: bytes, body: bytes = BODY, stamp: str = "1795309200", event: str = "evt_1") -> str:
    return "v1=" + hmac.new(secret, f"{event}.{stamp}.".encode() + body, hashlib.sha256).hexdigest()


def headers(signed: str, stamp: str = "1795309200", event: str = "evt_1") -> dict[str, str]:
    return {
        "x-toapis-webhook-id": event,
        "x-toapis-webhook-timestamp": stamp,
        "x-toapis-webhook-signature": signed,
    }


def genuine(
    given_: dict[str, str], body: bytes = BODY, *, now_s: float = NOW_S, secrets: tuple[str, ...] = ("new",)
) -> bool:
    return TOAPIS.verify_callback(given_, body, secrets=[Secret(text) for text in secrets], now_s=now_s)


def test_a_signature_of_any_secret_in_any_place_is_genuine() -> None:
    assert genuine(headers(signature(b"new")))
    assert genuine(headers(f"{signature(b'new')},{signature(b'old')}"))
    assert genuine(headers(f"{signature(b'newer')}, {signature(b'new')}"))
    assert genuine(headers(signature(b"old")), secrets=("new", "old"))
    assert not genuine(headers(signature(b"old")))
    assert not genuine(headers(signature(b"new")), secrets=())


def test_id_time_and_body_are_covered() -> None:
    signed = signature(b"new")
    assert not genuine(headers(signed), BODY + b" ")
    assert not genuine(headers(signed, stamp="1795309201"))
    assert not genuine(headers(signed, event="evt_2"))


@pytest.mark.parametrize(("off_s", "fresh"), [(300.0, True), (-300.0, True), (301.0, False), (-301.0, False)])
def test_an_old_callback_is_refused(off_s: float, fresh: bool) -> None:
    assert genuine(headers(signature(b"new")), now_s=NOW_S + off_s) == fresh


@pytest.mark.parametrize(
    "given_",
    [
        {},
        headers(""),
        headers(signature(b"new").removeprefix("v1=")),
        headers("v1=é"),
        headers("v1=\ud800"),
        headers(signature(b"new"), stamp="-1"),
        headers(signature(b"new"), stamp="١"),
        headers(signature(b"new", event=""), event=""),
        headers(signature(b"new"), event="\ud800"),
    ],
)
def test_what_is_not_signed_as_documented_is_not_genuine(given_: dict[str, str]) -> None:
    assert not genuine(given_)


def test_a_callback_names_its_task() -> None:
    assert TOAPIS.read_callback(BODY) == "img_1"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"data":{}}', b'{"data":{"task_id":"../x"}}', b'{"data":{"task_id":7}}']
)
def test_a_callback_without_a_task_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        TOAPIS.read_callback(body)


# --- laws ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
codes = st.sampled_from([400, 401, 404, "task_not_found", "content_policy_violation"]) | json_values
errors = st.fixed_dictionaries(
    {}, optional={"code": codes, "message": texts | json_values, "type": st.just("not_found_error") | json_values}
)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("img_1") | json_values,
        "task_id": st.just("task_1") | json_values,
        "status": st.sampled_from(["pending", "completed", "failed", "gone"]) | json_values,
        "url": st.just("https://files.toapis.com/a.jpg") | json_values,
        "result": json_values,
        "error": errors | json_values,
        "expires_at": json_values,
        "completed_at": json_values,
        "success": st.booleans() | json_values,
        "remain_credits": json_values,
        "data": json_values | st.lists(st.fixed_dictionaries({"url": texts}), max_size=2),
    },
)
bodies = st.binary(max_size=60) | (json_values | tasks | st.fixed_dictionaries({"data": st.lists(tasks)})).map(
    msgspec.json.encode
)
replies = st.builds(
    HttpReply,
    st.sampled_from([200, 201, 204, 400, 401, 402, 403, 404, 422, 429, 500]) | st.integers(100, 599),
    st.dictionaries(st.sampled_from(["retry-after", "x"]), texts, max_size=2),
    bodies,
)


@given(replies)
def test_garbage_gives_an_outcome_or_is_called_malformed(garbage: HttpReply) -> None:
    bought = TOAPIS.read_submit(garbage)
    if isinstance(bought, Refused | Throttled):
        assert garbage.status in (400, 401, 402, 403, 422, 429)
    if isinstance(bought, Accepted):
        assert 200 <= garbage.status < 300
    for reader in (TOAPIS.read_poll, TOAPIS.read_lookup, TOAPIS.read_sweep, TOAPIS.read_check, uploaded):
        try:
            read_back: object = reader(garbage)
        except (MalformedReply, UploadRefused):
            continue
        if isinstance(read_back, NotVisible):
            assert garbage.status == 404
        if isinstance(read_back, Finished):
            assert read_back.url.startswith("http")
        if isinstance(read_back, Standing) and read_back.state == "ok":
            assert 200 <= garbage.status < 300


@given(st.dictionaries(st.sampled_from(list(headers(""))), texts), st.binary(max_size=40), st.floats(allow_nan=False))
def test_a_strange_callback_is_never_genuine_and_never_an_error(
    given_: dict[str, str], body: bytes, now_s: float
) -> None:
    assert not genuine(given_, body, now_s=now_s)
    with contextlib.suppress(MalformedReply):
        assert TOAPIS.read_callback(body)


@given(
    prompt=texts,
    model=st.sampled_from(["nano-banana", "nano-banana-2", "nano-banana-pro", "?"]),
    aspect=st.sampled_from(["1:1", "1:8", "auto", ""]),
    resolution=st.sampled_from(["0.5K", "1K", "4K"]),
    references=st.lists(texts | st.just("https://r.example/a.png"), max_size=2),
)
def test_a_request_has_a_problem_or_can_be_built(
    prompt: str, model: str, aspect: str, resolution: str, references: list[str]
) -> None:
    request = ImageRequest(prompt, model, aspect, resolution, tuple(references))
    if TOAPIS.problem(request) is None:
        assert body_of(request)["prompt"] == prompt
