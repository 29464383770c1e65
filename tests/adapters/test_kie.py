"""The Kie codec: rows of the documentation, then laws over anything a network can say."""

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Callbacks,
    Cancels,
    Context,
    Failed,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    Lists,
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
from adapters.kie import CAPABILITIES, KIE
from adapters.registry import codec

DATA = Path(__file__).parent.parent / "data" / "kie"
CTX = Context(key=Secret("0123456789abcdef0123456789abcdef"))


class RequestRow(msgspec.Struct):
    name: str
    source: str
    request: ImageRequest
    body: msgspec.Raw


class ReplyRow(msgspec.Struct):
    name: str
    asked: str
    status: int
    headers: dict[str, str]
    body: str
    outcome: dict[str, object]
    source: str

    @property
    def reply(self) -> HttpReply:
        return HttpReply(self.status, self.headers, self.body.encode())


REQUESTS = msgspec.json.decode((DATA / "requests.json").read_bytes(), type=list[RequestRow])
REPLIES = msgspec.json.decode((DATA / "replies.json").read_bytes(), type=list[ReplyRow])
READERS: dict[str, Callable[[HttpReply], object]] = {
    "submit": KIE.read_submit,
    "poll": KIE.read_poll,
    "check": KIE.read_check,
}


def outcome_of(read: Callable[[HttpReply], object], reply: HttpReply) -> dict[str, object]:
    """Tell an outcome as a row does: its kind, and the fields that are not defaults."""
    try:
        outcome = read(reply)
    except MalformedReply:
        return {"kind": "MalformedReply"}
    assert isinstance(outcome, msgspec.Struct)
    told: dict[str, object] = {"kind": type(outcome).__name__}
    for field in msgspec.structs.fields(outcome):
        value = getattr(outcome, field.name)
        if value != field.default:
            told[field.name] = value
    return told


# --- rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: f"{row.asked}: {row.name}")
def test_replies_read_as_documented(row: ReplyRow) -> None:
    assert outcome_of(READERS[row.asked], row.reply) == row.outcome


def with_extra_fields(value: object) -> object:
    if isinstance(value, dict):
        return {"aNewField": [1, {"x": None}], **{key: with_extra_fields(item) for key, item in value.items()}}
    return value


@pytest.mark.parametrize("row", [row for row in REPLIES if row.body.startswith('{"code')], ids=lambda row: row.name)
def test_fields_we_do_not_know_change_nothing(row: ReplyRow) -> None:
    try:
        grown = json.dumps(with_extra_fields(json.loads(row.body)))
    except ValueError:
        grown = row.body
    assert outcome_of(READERS[row.asked], HttpReply(row.status, row.headers, grown.encode())) == row.outcome


@pytest.mark.parametrize("row", [row for row in REPLIES if row.asked == "submit"], ids=lambda row: row.name)
def test_a_cut_answer_to_a_submit_proves_nothing_by_its_body(row: ReplyRow) -> None:
    bare = KIE.read_submit(HttpReply(row.status, row.headers, b""))
    for cut in range(len(row.body.encode())):
        got = KIE.read_submit(HttpReply(row.status, row.headers, row.body.encode()[:cut]))
        assert got == bare or isinstance(got, Unclear)


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_requests_are_built_as_documented(row: RequestRow) -> None:
    call = KIE.build_submit(row.request, CTX)
    assert json.loads(call.body) == json.loads(bytes(row.body))
    assert (call.method, call.url) == ("POST", "https://api.kie.ai/api/v1/jobs/createTask")
    assert call.headers == {
        "authorization": "Bearer 0123456789abcdef0123456789abcdef",
        "user-agent": "Mozilla/5.0 (compatible; bydawn/0.1)",
        "accept": "application/json",
        "content-type": "application/json",
    }
    assert call == KIE.build_submit(row.request, CTX)


def test_the_callback_is_sent_when_there_is_one() -> None:
    ctx = msgspec.structs.replace(CTX, callback_url="https://hooks.example.net/kie?ref=a1")
    body = json.loads(KIE.build_submit(ImageRequest("a mug"), ctx).body)
    assert body["callBackUrl"] == "https://hooks.example.net/kie?ref=a1"


def test_another_base_url_may_carry_a_prefix() -> None:
    ctx = msgspec.structs.replace(CTX, base_url="http://127.0.0.1:8700/kie/")
    assert KIE.build_submit(ImageRequest("a mug"), ctx).url == "http://127.0.0.1:8700/kie/api/v1/jobs/createTask"
    assert KIE.build_check(ctx).url == "http://127.0.0.1:8700/kie/api/v1/chat/credit"


def test_a_poll_asks_for_its_job_only() -> None:
    call = KIE.build_poll("a&b=c/d", CTX)
    assert call.url == "https://api.kie.ai/api/v1/jobs/recordInfo?taskId=a%26b%3Dc%2Fd"
    assert (call.method, call.body) == ("GET", b"")


# --- what Kie cannot do -----------------------------------------------------------------------------------

MANY = tuple(f"https://example.org/{number}.png" for number in range(20))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ImageRequest("x", model="flux"), "nano-banana, nano-banana-2, nano-banana-pro"),
        (ImageRequest("x" * 20_001), "20001 characters, Kie takes 20000"),
        (ImageRequest("x" * 10_001, model="nano-banana-pro"), "10001 characters, Kie takes 10000"),
        (ImageRequest("x" * 5_001, model="nano-banana"), "5001 characters, Kie takes 5000"),
        (ImageRequest("x", references=MANY), "20 references, Kie takes at most 14"),
        (ImageRequest("x", references=MANY, model="nano-banana-pro"), "at most 8"),
        (ImageRequest("x", references=MANY, model="nano-banana"), "at most 10"),
        (ImageRequest("x", references=("mug.png",)), "reference 1: neither"),
        (ImageRequest("x", aspect="7:1"), "aspect 7:1"),
        (ImageRequest("x", aspect="1:8", model="nano-banana-pro"), "aspect 1:8"),
        (ImageRequest("x", resolution="0.5K"), "resolution 0.5K"),
        (ImageRequest("x", resolution="2K", model="nano-banana"), "resolution 2K"),
        (ImageRequest("x", output_format="webp"), "format webp"),
        (ImageRequest("x", seed=1), "seed"),
        (ImageRequest("x", grounding=True, model="nano-banana-pro"), "grounding"),
        (ImageRequest("x", model_version="abc"), "no version pins"),
        (ImageRequest("x", model="nano-banana-2-lite", references=MANY), "at most 10"),
        (ImageRequest("x", model="nano-banana-2-lite", resolution="2K"), "resolution 2K"),
        (ImageRequest("x", model="nano-banana-2-lite", output_format="png"), "format png"),
        (ImageRequest("x", references=("file:" + "0" * 64 + ":30000001:image/png:/a.png",)), "takes 30,000,000"),
        (ImageRequest("x", references=("file:" + "0" * 64 + ":9:image/gif:/a.gif",)), "image/gif"),
        (ImageRequest(" "), "empty"),
    ],
)
def test_what_kie_cannot_do_is_said_in_words(request_: ImageRequest, words: str) -> None:
    problem = KIE.problem(request_)
    assert problem is not None
    assert words in problem
    with pytest.raises(ValueError, match=re.escape(words)):
        KIE.build_submit(request_, CTX)


def test_it_has_the_parts_that_its_record_names() -> None:
    for part in (Polls, Uploads, Callbacks):
        assert isinstance(KIE, part)
    for missing in (Lists, LooksUp, Cancels, Sweeps):
        assert not isinstance(KIE, missing)
    assert (CAPABILITIES.listing, CAPABILITIES.lookup, CAPABILITIES.cancel) == (None, None, None)
    assert CAPABILITIES.recovery == "callback"


def test_all_requests_share_one_lane() -> None:
    assert {KIE.lane(row.request) for row in REQUESTS} == {"default"}


# --- files ------------------------------------------------------------------------------------------------

FILE = FileBytes("ab12.png", "image/png", b"\x89PNG\r\n\x1a\n...")


def uploaded(reply: HttpReply, ctx: Context = CTX) -> tuple[HttpCall, Uploaded]:
    steps = KIE.upload(FILE, ctx)
    call = next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(reply)
    assert isinstance(end.value.value, Uploaded)
    return call, end.value.value


def answer(status: int = 200, **body: object) -> HttpReply:
    return HttpReply(status, {}, json.dumps(body).encode())


@pytest.mark.parametrize("field", ["downloadUrl", "fileUrl"])
def test_a_file_goes_to_the_host_of_files(field: str) -> None:
    url = "https://tempfile.redpandaai.co/x/bydawn/ab12.png"
    call, result = uploaded(answer(success=True, code=200, msg="ok", data={field: url}))
    assert result == Uploaded(url, 86_400.0)
    assert (call.method, call.url) == ("POST", "https://kieai.redpandaai.co/api/file-stream-upload")
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert call.headers["user-agent"].startswith("Mozilla/")
    assert b'name="uploadPath"\r\n\r\nbydawn\r\n' in call.body
    assert b'name="fileName"\r\n\r\nab12.png\r\n' in call.body
    assert FILE.data in call.body


def test_a_base_url_takes_the_files_along() -> None:
    ctx = msgspec.structs.replace(CTX, base_url="http://127.0.0.1:8700/kie/")
    assert next(KIE.upload(FILE, ctx)).url == "http://127.0.0.1:8700/kie/api/file-stream-upload"


@pytest.mark.parametrize(
    ("reply", "retryable"),
    [
        (answer(success=False, code=400, msg="bad file"), False),
        (answer(success=False, msg="bad file"), False),
        (answer(code=401, msg="You do not have access permissions"), False),
        (answer(code=455, msg="maintenance"), True),
        (answer(code=500, msg="oops"), True),
        (answer(429), True),
        (HttpReply(502, {}, b"<html>"), True),
        (HttpReply(403, {}, b"error code: 1010"), False),
        (answer(500, success=True, code=200, data={"downloadUrl": "https://a.example/x"}), True),
    ],
)
def test_a_file_that_is_not_taken_says_whether_to_try_again(reply: HttpReply, retryable: bool) -> None:
    with pytest.raises(UploadRefused, match="Kie took no file: status") as refused:
        uploaded(reply)
    assert refused.value.retryable == retryable
    assert refused.value.account == (b'"code": 401' in reply.body or reply.status == 403)


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(200, {}, b"{"),
        answer(success=True, code=200, data={}),
        answer(success=True, code=200, data=None),
        answer(success=True, code=200, data={"downloadUrl": "ftp://x", "fileUrl": 7}),
    ],
)
def test_an_upload_without_an_address_is_malformed(reply: HttpReply) -> None:
    with pytest.raises(MalformedReply):
        uploaded(reply)


# --- callbacks --------------------------------------------------------------------------------------------

NOW_S = 1_795_309_200.0
STAMP = "1795309200"
DONE = b'{"code":200,"msg":"ok","data":{"taskId":"t1","state":"success"}}'


def signature(secret: bytes, signed: str = f"t1.{STAMP}") -> str:
    return base64.b64encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest()).decode()


def genuine(headers_: dict[str, str], body: bytes = DONE, *, now_s: float = NOW_S) -> bool:
    return KIE.verify_callback(headers_, body, secrets=[Secret("new"), Secret("old")], now_s=now_s)


def signed_with(secret: bytes, *, stamp: str = STAMP) -> dict[str, str]:
    return {"x-webhook-timestamp": stamp, "x-webhook-signature": signature(secret, f"t1.{stamp}")}


def test_a_signature_of_any_secret_is_genuine() -> None:
    assert genuine(signed_with(b"new"))
    assert genuine(signed_with(b"old"))
    assert not genuine(signed_with(b"other"))
    assert not KIE.verify_callback(signed_with(b"new"), DONE, secrets=[], now_s=NOW_S)


def test_the_signature_is_for_one_task_and_one_time_and_for_no_body() -> None:
    assert not genuine(signed_with(b"new"), DONE.replace(b"t1", b"t2"))
    assert not genuine(signed_with(b"new") | {"x-webhook-timestamp": "1795309201"})
    assert genuine(signed_with(b"new"), DONE.replace(b"success", b"fail"))  # hence: ask before believing


@pytest.mark.parametrize(("off_s", "fresh"), [(300.0, True), (-300.0, True), (301.0, False), (-301.0, False)])
def test_an_old_callback_is_refused(off_s: float, fresh: bool) -> None:
    assert genuine(signed_with(b"new"), now_s=NOW_S + off_s) == fresh


@pytest.mark.parametrize(
    "headers_",
    [
        {},
        {"x-webhook-timestamp": STAMP},
        {"x-webhook-timestamp": STAMP, "x-webhook-signature": "\ud800"},
        {"x-webhook-timestamp": "-5", "x-webhook-signature": signature(b"new", "t1.-5")},
        {"x-webhook-timestamp": "soon", "x-webhook-signature": signature(b"new", "t1.soon")},
    ],
)
def test_what_is_not_signed_as_documented_is_not_genuine(headers_: dict[str, str]) -> None:
    assert not genuine(headers_)


@pytest.mark.parametrize(
    "body", [DONE, b'{"data":{"task_id":"t1"}}', b'{"taskId":"t1"}', b'{"task_id":"t1","data":{"taskId":"t1"}}']
)
def test_a_callback_names_its_task_in_one_of_four_places(body: bytes) -> None:
    assert KIE.read_callback(body) == "t1"
    assert genuine(signed_with(b"new"), body)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":{"taskId":"../x"}}', b'{"data":{"taskId":"t1","task_id":"t2"}}']
)
def test_a_callback_without_one_task_is_malformed_and_not_genuine(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        KIE.read_callback(body)
    assert not genuine(signed_with(b"new"), body)


# --- laws -------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
codes = st.sampled_from([200, 400, 401, 402, 404, 408, 422, 429, 433, 455, 500, 501, 505]) | st.integers()


@pytest.mark.parametrize("state", ["cancelled", "canceled"])
def test_a_task_that_somebody_cancelled_is_not_bought_again(state: str) -> None:
    """MON-2: by whoever has the key; it counted as the provider's failure, and was bought again at once."""
    body = {"code": 200, "data": {"taskId": "bf5a", "state": state, "failMsg": "by the user"}}
    outcome = KIE.read_poll(HttpReply(200, {}, msgspec.json.encode(body)))
    assert outcome == Failed("cancelled", "by the user", retryable=False)


states = st.sampled_from(["waiting", "success", "fail", "", "sucess"])
results = st.sampled_from(['{"resultUrls":["https://a.example/x.png"]}', '"\\ud800"', '{"resultUrls":[]}', ""])
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "code": codes | json_values,
        "msg": texts | json_values,
        "message": texts | json_values,
        "data": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "taskId": texts | json_values,
                "state": states | json_values,
                "resultJson": results | json_values,
                "failCode": codes | json_values,
                "failMsg": texts | json_values,
                "creditsConsumed": st.floats() | json_values,
            },
        ),
    },
).map(lambda value: json.dumps(value).encode())
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()) | near_misses
headers = st.dictionaries(st.sampled_from(["retry-after", "content-type", "x-y"]), texts, max_size=2)
replies = st.builds(HttpReply, status=st.integers(100, 599), headers=headers, body=bodies)


@given(replies)
def test_a_submit_reads_to_an_outcome_whatever_comes(reply: HttpReply) -> None:
    outcome = KIE.read_submit(reply)
    assert isinstance(outcome, Accepted | Refused | Throttled | Unclear)
    # The law that guards the money: without one of the documented numbers there is no proof of "no job".
    proven = {401, 402, 422, 429, 433, 455, 505}
    if isinstance(outcome, Refused | Throttled):
        numbers = {reply.status}
        with contextlib.suppress(ValueError, TypeError, KeyError):
            numbers.add(json.loads(reply.body)["code"])
        assert numbers & proven or b"error code: 1010" in reply.body
    if isinstance(outcome, Accepted):
        assert 200 <= reply.status < 300
        assert outcome.job


@given(replies)
def test_a_poll_reads_to_an_outcome_or_is_malformed(reply: HttpReply) -> None:
    try:
        outcome = KIE.read_poll(reply)
    except MalformedReply:
        return
    assert isinstance(outcome, Pending | Finished | Failed | NotVisible | Throttled | Unreadable)
    if isinstance(outcome, Finished):
        assert outcome.url.startswith("http")
        assert outcome.cost_microusd is None or outcome.cost_microusd >= 0


@given(replies)
def test_a_check_reads_to_a_standing_whatever_comes(reply: HttpReply) -> None:
    assert isinstance(KIE.read_check(reply), Standing)


@given(replies)
def test_an_upload_reads_to_an_address_or_says_why_not(reply: HttpReply) -> None:
    try:
        _, result = uploaded(reply)
    except (MalformedReply, UploadRefused):
        return
    assert result.url.startswith("http")


@given(st.dictionaries(st.sampled_from(list(signed_with(b"x"))), texts), bodies, st.floats(allow_nan=False))
def test_a_strange_callback_is_never_genuine_and_never_an_error(
    headers_: dict[str, str], body: bytes, now_s: float
) -> None:
    assert not genuine(headers_, body, now_s=now_s)
    with contextlib.suppress(MalformedReply):
        assert KIE.read_callback(body)


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_depth_is_malformed_and_not_a_crash(depth: int) -> None:
    deep = b'{"code":200,"data":' + b"[" * depth + b"]" * depth + b"}"
    assert isinstance(KIE.read_submit(HttpReply(200, {}, deep)), Unclear)
    with pytest.raises(MalformedReply):
        KIE.read_poll(HttpReply(200, {}, deep))
    assert KIE.read_check(HttpReply(200, {}, deep)).state == "unreadable"


def test_half_a_character_is_malformed_and_not_a_crash() -> None:
    half = b'{"code":200,"msg":"\\ud800","data":{"taskId":"t1","state":"success","resultJson":"\\udc00"}}'
    assert isinstance(KIE.read_submit(HttpReply(200, {}, half)), Unclear)
    with pytest.raises(MalformedReply):
        KIE.read_poll(HttpReply(200, {}, half))


# --- the registry -----------------------------------------------------------------------------------------


def test_the_registry_gives_the_codec_by_name() -> None:
    assert codec("kie") is KIE
    with pytest.raises(ValueError, match=r"there are .*kie"):
        codec("kei")


def test_secrets_stay_out_of_what_is_printed() -> None:
    assert "0123456789abcdef" not in repr(KIE.build_submit(ImageRequest("a mug"), CTX))
