"""NewportAI's codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

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
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
    Uploads,
)
from adapters.newportai import CAPABILITIES, CREDIT_MICROUSD, NEWPORTAI, PACKS
from adapters.references import LocalFile
from adapters.registry import codec
from tests.adapters.replies import Row, load, read, shown

ROWS = load("newportai")
CTX = Context(key=Secret("sk-0123456789abcdef"), marker=7, reference="a-1")
MUG = "https://example.org/mug.png"
FILE = FileBytes("0123abcd.png", "image/png", b"\x89PNG\r\n\x1a\n and so on")


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(NEWPORTAI.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object) -> HttpReply:
    return HttpReply(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))


# --- building ---------------------------------------------------------------------------------------------


def test_every_field_is_sent_at_the_top() -> None:
    request = ImageRequest("red mug", references=(MUG,), aspect="16:9", resolution="4K")
    assert body_of(request) == {"prompt": "red mug", "aspectRatio": "16:9", "imageSize": "4K", "images": [MUG]}


def test_text_alone_has_no_images_and_the_least_size_is_a_number() -> None:
    assert body_of(ImageRequest("x", resolution="0.5K")) == {"prompt": "x", "aspectRatio": "1:1", "imageSize": "512"}


@pytest.mark.parametrize(
    ("model", "tool"), [("nano-banana-2", "nano_banana_2"), ("nano-banana-pro", "nano_banana_pro")]
)
def test_each_model_is_a_tool_with_a_path_of_its_own(model: str, tool: str) -> None:
    call = NEWPORTAI.build_submit(ImageRequest("x", model=model), CTX)
    assert (call.method, call.url) == ("POST", f"https://api.newportai.com/api/async/{tool}")
    assert call.headers["authorization"] == "Bearer sk-0123456789abcdef"
    assert call.headers["content-type"] == "application/json"
    assert call == NEWPORTAI.build_submit(ImageRequest("x", model=tool), CTX)
    assert "sk-" not in repr(call)


@pytest.mark.parametrize("name", ["", None, 0])
@pytest.mark.parametrize("state", [0, -1, 7])
def test_an_answer_of_zeroes_shows_no_task(name: object, state: int) -> None:
    """REC-9: it counted as running, and a running task proves that the key is the account's that bought it."""
    task = {"taskId": name, "status": state}
    with pytest.raises(MalformedReply, match="neither a state nor a name"):
        NEWPORTAI.read_poll(reply(200, {"code": 0, "message": "success", "data": {"task": task, "images": []}}))
    named = {"taskId": "b0c4", "status": state}
    body = {"code": 0, "message": "success", "data": {"task": named, "images": []}}
    assert NEWPORTAI.read_poll(reply(200, body)) == Pending(str(state) if state else "")


def test_a_poll_is_a_post_with_the_task_in_its_body() -> None:
    call = NEWPORTAI.build_poll("b0c4", msgspec.structs.replace(CTX, base_url="http://127.0.0.1:8700/newportai/"))
    assert (call.method, call.url) == ("POST", "http://127.0.0.1:8700/newportai/api/getAsyncResult")
    assert call.body == b'{"taskId":"b0c4"}'


def test_the_balance_is_asked_for_with_an_empty_form() -> None:
    call = NEWPORTAI.build_check(CTX)
    assert (call.method, call.body) == ("POST", b"")
    assert call.url == "https://api.newportai.com/api/remaining_credits"
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ImageRequest("x", model="nano-banana"), "nano-banana-2, nano-banana-pro"),
        (ImageRequest("x" * 4_001), "4001 characters, NewportAI takes 4000"),
        (ImageRequest("x", references=(MUG,) * 15), "at most 14"),
        (ImageRequest("x", references=(MUG,) * 9, model="nano-banana-pro"), "at most 8"),
        (ImageRequest("x", references=(LocalFile("0" * 64, 26 << 20, "image/png", "/a").text,)), "26,214,400"),
        (ImageRequest("x", references=(LocalFile("0" * 64, 9, "image/tiff", "/a").text,)), "image/tiff"),
        (ImageRequest("x", resolution="0.5K", model="nano-banana-pro"), "resolution 0.5K"),
        (ImageRequest("x", aspect="auto", references=(MUG,)), "aspect auto"),
        (ImageRequest("x", output_format="png"), "format png"),
        (ImageRequest("x", seed=1), "seed"),
        (ImageRequest("x", grounding=True), "grounding"),
        (ImageRequest("x", model_version="abc"), "no version pins"),
    ],
)
def test_what_newportai_cannot_do_is_said_in_words(request_: ImageRequest, words: str) -> None:
    problem = NEWPORTAI.problem(request_)
    assert problem is not None
    assert words in problem
    with pytest.raises(ValueError, match=re.escape(words)):
        NEWPORTAI.build_submit(request_, CTX)


def test_the_record_claims_what_the_codec_has_and_no_more() -> None:
    assert codec("newportai") is NEWPORTAI
    assert isinstance(NEWPORTAI, Polls)
    assert isinstance(NEWPORTAI, Uploads)
    for absent in (Lists, LooksUp, Cancels, Callbacks):
        assert not isinstance(NEWPORTAI, absent)
    assert CAPABILITIES.recovery == "none"
    assert CAPABILITIES.models.mark == "assumed"  # the paths in it are
    assert {NEWPORTAI.lane(ImageRequest("x", model=model.name)) for model in CAPABILITIES.models.value} == {"default"}


def test_a_credit_counts_as_much_as_in_the_dearest_pack() -> None:
    assert CREDIT_MICROUSD == 7_500
    assert all(price <= size * CREDIT_MICROUSD for size, price in PACKS.items())


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_replies_read_as_the_rows_say(row: Row) -> None:
    assert shown(read(NEWPORTAI, row.kind, row.reply), row.outcome) == row.outcome


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.kind == "submit"])
def test_a_cut_answer_to_a_submit_proves_nothing_by_its_body(name: str) -> None:
    whole = ROWS[name].reply
    bare = NEWPORTAI.read_submit(HttpReply(whole.status, whole.headers, b""))
    for cut in range(len(whole.body)):
        got = NEWPORTAI.read_submit(HttpReply(whole.status, whole.headers, whole.body[:cut]))
        assert got == bare or isinstance(got, Unclear)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        {"data": {"task": {"status": 3}}},
        {"code": 0, "data": None},
        {"code": 0, "data": {"task": {"status": "3"}}},
        {"code": 0, "data": {"task": {"status": 3}, "images": [{"imageUrl": "file:///etc/passwd"}]}},
        {"code": 0, "data": {"task": {"status": 3}, "images": [{"imageUrl": 7}]}},
    ],
)
def test_a_poll_that_breaks_the_protocol_is_malformed(body: object) -> None:
    with pytest.raises(MalformedReply):
        NEWPORTAI.read_poll(reply(200, body))


# --- uploads ----------------------------------------------------------------------------------------------

HOST = "https://dreamapi-oss.oss-cn-hongkong.aliyuncs.com"
PERMIT = {"host": HOST, "dir": "dream/", "accessId": "id", "policy": "cA==", "signature": "cw==", "callback": "Yw=="}


def answered(data: object, code: int = 0, message: str = "success") -> HttpReply:
    return reply(200, {"code": code, "message": message, "data": data})


STORED = answered({"reqId": "r1"})
ADDRESS = answered({"url": "https://cdn.example/u/mug.png?sign=1"})


def run(replies: Sequence[HttpReply], ctx: Context = CTX) -> tuple[list[HttpCall], Uploaded]:
    """Drive an upload with these answers."""
    steps = NEWPORTAI.upload(FILE, ctx)
    calls = [next(steps)]
    try:
        for answer in replies:
            calls.append(steps.send(answer))
    except StopIteration as done:
        uploaded: Uploaded = done.value
        return calls, uploaded
    raise AssertionError("the upload did not end")


def test_an_upload_takes_three_steps() -> None:
    (permit, stored, finish), uploaded = run([answered(PERMIT), STORED, ADDRESS])
    assert uploaded == Uploaded("https://cdn.example/u/mug.png?sign=1", 86_400.0)
    assert permit.url.endswith("/api/file/v1/get_policy")
    assert json.loads(permit.body) == {"scene": "Dream-CN"}
    assert finish.url.endswith("/api/file/v1/policy_upload_finish")
    assert json.loads(finish.body) == {"reqId": "r1"}
    assert stored.url == HOST
    fields = re.findall(rb'name="(\w+)"', stored.body)
    assert set(fields) == {
        *(b"key", b"policy", b"OSSAccessKeyId", b"signature", b"success_action_status", b"callback", b"file")
    }
    assert fields[-1] == b"file"  # the storage ignores what comes behind it
    assert b"dream/0123abcd.png" in stored.body
    assert FILE.data in stored.body


def test_the_key_does_not_go_to_the_storage() -> None:
    (_, stored, _), _ = run([answered(PERMIT), STORED, ADDRESS])
    assert stored.headers.keys() == {"content-type"}
    assert b"sk-" not in stored.body


def test_newer_permits_give_the_whole_key_and_the_id() -> None:
    newer = {"host": HOST, "key": "a/b.png", "dir": "x/", "OSSAccessKeyId": "id", "policy": "p", "signature": "s"}
    (_, stored, finish), _ = run([answered(newer | {"reqId": "r2"}), reply(200, b""), ADDRESS])
    assert b"a/b.png" in stored.body
    assert b'name="callback"' not in stored.body
    assert json.loads(finish.body) == {"reqId": "r2"}


def test_the_storage_of_the_sandbox_is_under_its_own_address() -> None:
    ctx = msgspec.structs.replace(CTX, base_url="http://127.0.0.1:8700/newportai")
    here = "http://127.0.0.1:8700/newportai/oss"
    (_, stored, _), _ = run([answered(PERMIT | {"host": here}), STORED, ADDRESS], ctx)
    assert stored.url == here


@pytest.mark.parametrize(
    "host",
    [
        "",
        "http://dreamapi-oss.oss-cn-hongkong.aliyuncs.com",
        "https://evil.example",
        "https://evil.example/.aliyuncs.com",
        "https://aliyuncs.com.evil.example",
        "https://user@oss.aliyuncs.com",
        "https://oss.aliyuncs.com:8443",
        "https://oss.aliyuncs.com:x",
        "https://[oss.aliyuncs.com",
        "https://api.newportai.com.evil.example",
        "http://127.0.0.1:8700/newportai/oss",
        "https://oss.aliyuncs.com/\r\nx: y",
    ],
)
def test_a_file_is_sent_to_known_hosts_only(host: str) -> None:
    with pytest.raises(MalformedReply, match="storage"):
        run([answered(PERMIT | {"host": host})])


@pytest.mark.parametrize("field", ["accessId", "policy", "signature", "dir"])
@pytest.mark.parametrize("value", ["", 'x\r\n--b\r\nContent-Disposition: form-data; name="file"', "ä", 7])
def test_a_permit_cannot_add_to_the_form(field: str, value: object) -> None:
    with pytest.raises(MalformedReply):
        run([answered(PERMIT | {field: value})])


@pytest.mark.parametrize(
    ("replies", "retryable", "account"),
    [
        ([reply(401, {"code": 401, "message": "invalid api key"})], False, True),
        ([answered(None, 403, "no permission")], False, True),
        ([answered(None, 10402, "insufficient credits")], False, True),
        ([answered(None, 10192, "illegal parameter")], False, False),
        ([answered(None, 429, "too many requests")], True, False),
        ([answered(None, 10429, "server busy")], True, False),
        ([reply(503, b"")], True, False),
        ([answered(PERMIT), reply(403, b"<Error/>")], True, False),
        ([answered(PERMIT), reply(500, b"")], True, False),
        ([answered(PERMIT), reply(400, b"<Error/>")], False, False),
        ([answered(PERMIT), STORED, answered(None, 10192, "illegal parameter")], False, False),
    ],
)
def test_a_refused_upload_says_whether_it_may_go_better(
    replies: list[HttpReply], retryable: bool, account: bool
) -> None:
    with pytest.raises(UploadRefused) as caught:
        run(replies)
    assert (caught.value.retryable, caught.value.account) == (retryable, account)


@pytest.mark.parametrize(
    "replies",
    [
        [reply(200, b"<html>")],
        [reply(200, {"message": "ok"})],
        [answered(None)],
        [answered(PERMIT), STORED, answered({"url": "ftp://x"})],
        [answered(PERMIT), STORED, answered({"url": "https://x.example/a b.png"})],
        [answered(PERMIT), STORED, answered({})],
    ],
)
def test_an_upload_outside_the_protocol_is_malformed(replies: list[HttpReply]) -> None:
    with pytest.raises(MalformedReply):
        run(replies)


# --- laws -------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
codes = st.sampled_from([0, 200, 401, 403, 404, 429, 500, 10192, 10402]) | st.integers()
messages = st.sampled_from(["success", "server busy", "not enough credits"])
tasks = st.fixed_dictionaries(
    {},
    optional={
        "taskId": texts | json_values,
        "status": st.integers(0, 5) | json_values,
        "reason": texts | json_values,
        "creditsConsumed": st.floats() | json_values,
    },
)
images = st.just([{"imageUrl": "https://a.example/x.jpg"}]) | json_values
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "code": codes | json_values,
        "message": messages | json_values,
        "data": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "taskId": texts | json_values,
                "task": tasks | json_values,
                "images": images,
                "available_credits": st.floats() | json_values,
                **{field: st.just(value) | json_values for field, value in PERMIT.items()},
            },
        ),
    },
).map(lambda value: json.dumps(value).encode())
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()) | near_misses
headers = st.dictionaries(st.sampled_from(["retry-after", "content-type"]), texts, max_size=2)
replies = st.builds(HttpReply, status=st.just(200) | st.integers(100, 599), headers=headers, body=bodies)


@given(replies)
def test_a_submit_reads_to_an_outcome_whatever_comes(answer: HttpReply) -> None:
    outcome = NEWPORTAI.read_submit(answer)
    assert isinstance(outcome, Accepted | Refused | Throttled | Unclear)
    if isinstance(outcome, Refused | Throttled):  # the law that guards the money
        decoded: dict[str, object] = {}
        with contextlib.suppress(ValueError, TypeError):
            decoded |= json.loads(answer.body)
        numbers = {str(answer.status), str(decoded.get("code"))}
        said = decoded.get("message") in ("server busy", "not enough credits")
        edge = b"error code: 1010" in answer.body
        assert numbers & {"401", "403", "404", "429", "10192"} or (said and answer.status < 500) or edge
    if isinstance(outcome, Accepted):
        assert 200 <= answer.status < 300
        assert outcome.job


@given(replies)
def test_a_poll_reads_to_an_outcome_or_is_malformed(answer: HttpReply) -> None:
    try:
        outcome = NEWPORTAI.read_poll(answer)
    except MalformedReply:
        return
    assert isinstance(outcome, Pending | Finished | Failed | NotVisible | Throttled | Unreadable)
    if isinstance(outcome, Finished):
        assert outcome.url.startswith("http")
        assert outcome.cost_microusd is None or outcome.cost_microusd >= 0


@given(replies)
def test_a_check_reads_to_a_standing_whatever_comes(answer: HttpReply) -> None:
    assert isinstance(NEWPORTAI.read_check(answer), Standing)


@given(st.lists(replies | st.sampled_from([answered(PERMIT), STORED]), min_size=3, max_size=3))
def test_an_upload_ends_in_an_address_or_says_why_not(answers: list[HttpReply]) -> None:
    with contextlib.suppress(MalformedReply, UploadRefused):
        _, uploaded = run(answers)
        assert uploaded.url.startswith("http")
