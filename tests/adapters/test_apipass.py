"""ApiPass' codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.apipass import APIPASS, CAPABILITIES
from adapters.base import (
    Accepted,
    Callbacks,
    Cancels,
    Context,
    Failed,
    Finished,
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
    Uploads,
)
from adapters.references import LocalFile
from adapters.registry import codec
from tests.adapters.replies import Row, load, read, shown

ROWS = load("apipass")
CTX = Context(key=Secret("apk_0123456789abcdef"))
HOOK = "https://hooks.example.net/apipass?ref=b17-t000042-a1"
MUG = "https://example.org/mug.png"


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(APIPASS.build_submit(request, ctx).body)
    return decoded


# --- building ---------------------------------------------------------------------------------------------


def test_every_field_that_is_known_is_sent() -> None:
    request = ImageRequest("red mug", references=(MUG,), aspect="16:9", resolution="4K", output_format="png")
    assert body_of(request) == {
        "model": "google/nano-banana-2",
        "input": {
            "prompt": "red mug",
            "image_input": [MUG],
            "aspect_ratio": "16:9",
            "resolution": "4K",
            "output_format": "png",
            "google_search": False,
            "image_search": False,
        },
    }


def test_grounding_asks_for_the_search() -> None:
    assert body_of(ImageRequest("the weather", grounding=True))["input"]["google_search"] is True


def test_each_model_takes_the_fields_of_its_form() -> None:
    assert body_of(ImageRequest("x", model="nano-banana-pro", resolution="2K")) == {
        "model": "google/nano-banana-pro",
        "input": {"prompt": "x", "image_input": [], "aspect_ratio": "1:1", "resolution": "2K", "output_format": "jpg"},
    }
    assert body_of(ImageRequest("x", model="google/nano-banana", aspect="9:16")) == {
        "model": "google/nano-banana",
        "input": {"prompt": "x", "aspect_ratio": "9:16", "output_format": "jpeg"},
    }


def test_the_callback_stands_beside_the_input() -> None:
    body = body_of(ImageRequest("x"), msgspec.structs.replace(CTX, callback_url=HOOK))
    assert body["callBackUrl"] == HOOK
    assert "callBackUrl" not in body_of(ImageRequest("x"))


def test_calls_name_the_key_and_a_client() -> None:
    call = APIPASS.build_submit(ImageRequest("x"), CTX)
    assert (call.method, call.url) == ("POST", "https://api.apipass.dev/api/v1/jobs/createTask")
    assert call.headers["authorization"] == "Bearer apk_0123456789abcdef"
    assert call.headers["user-agent"].startswith("Mozilla/5.0 (compatible; bydawn")
    assert call == APIPASS.build_submit(ImageRequest("x"), CTX)
    assert "apk_" not in repr(call)


def test_another_base_url_may_carry_a_prefix() -> None:
    ctx = msgspec.structs.replace(CTX, base_url="http://127.0.0.1:8700/apipass/")
    assert APIPASS.build_poll("a&b", ctx).url == ("http://127.0.0.1:8700/apipass/api/v1/jobs/recordInfo?taskId=a%26b")


def test_the_check_asks_for_a_task_that_cannot_exist() -> None:
    call = APIPASS.build_check(CTX)
    assert (call.method, call.body) == ("GET", b"")
    assert call.url == "https://api.apipass.dev/api/v1/jobs/recordInfo?taskId=bydawn-check"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ImageRequest("x", model="flux"), "nano-banana, nano-banana-2, nano-banana-pro"),
        (ImageRequest("x", references=(MUG,) * 15), "15 references, ApiPass takes at most 14"),
        (ImageRequest("x", references=(MUG,) * 9, model="nano-banana-pro"), "at most 8"),
        (ImageRequest("x", references=(MUG,), model="nano-banana"), "at most 0"),
        (ImageRequest("x", references=(LocalFile("0" * 64, 9, "image/png", "/a.png").text,)), "no local files"),
        (ImageRequest("x", resolution="0.5K"), "resolution 0.5K"),
        (ImageRequest("x", seed=1), "seed"),
        (ImageRequest("x", grounding=True, model="nano-banana-pro"), "grounding"),
        (ImageRequest("x", model_version="abc"), "no version pins"),
        (ImageRequest(" "), "empty"),
    ],
)
def test_what_apipass_cannot_do_is_said_in_words(request_: ImageRequest, words: str) -> None:
    problem = APIPASS.problem(request_)
    assert problem is not None
    assert words in problem
    with pytest.raises(ValueError, match=re.escape(words)):
        APIPASS.build_submit(request_, CTX)


def test_the_record_claims_what_the_codec_has_and_no_more() -> None:
    assert codec("apipass") is APIPASS
    assert isinstance(APIPASS, Polls)
    assert isinstance(APIPASS, Callbacks)
    for absent in (Lists, LooksUp, Cancels, Uploads):
        assert not isinstance(APIPASS, absent)
    assert (CAPABILITIES.listing, CAPABILITIES.cancel, CAPABILITIES.balance) == (None, None, None)
    assert CAPABILITIES.recovery == "callback"
    assert {APIPASS.lane(ImageRequest("x", model=model.name)) for model in CAPABILITIES.models.value} == {"default"}


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_replies_read_as_the_rows_say(row: Row) -> None:
    assert shown(read(APIPASS, row.kind, row.reply), row.outcome) == row.outcome


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.kind == "submit"])
def test_a_cut_answer_to_a_submit_proves_nothing_by_its_body(name: str) -> None:
    reply = ROWS[name].reply
    bare = APIPASS.read_submit(HttpReply(reply.status, reply.headers, b""))
    for cut in range(len(reply.body)):
        got = APIPASS.read_submit(HttpReply(reply.status, reply.headers, reply.body[:cut]))
        assert got == bare or isinstance(got, Unclear)


def test_the_edge_in_front_is_a_refusal() -> None:
    outcome = APIPASS.read_submit(HttpReply(403, {}, b"error code: 1010"))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, "ApiPass" in outcome.detail) == ("forbidden", True)


# --- callbacks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "data": {"taskId": "9f2c", "state": "success"}},
        {"code": 501, "data": {"task_id": "9f2c", "state": "fail"}},
        {"taskId": "9f2c", "state": "success", "resultJson": "{}"},
        {"task_id": "9f2c", "data": {"taskId": "../x"}},
        {"taskId": "9f2c", "data": "text"},
    ],
)
def test_a_callback_names_its_task_in_any_of_its_shapes(body: object) -> None:
    raw = msgspec.json.encode(body)
    assert APIPASS.read_callback(raw) == "9f2c"
    assert APIPASS.verify_callback({}, raw, secrets=(), now_s=0.0)  # nothing is signed: the token in the URL decides


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"taskId":7}', b'{"data":{"taskId":"../x"}}', b"\xff"])
def test_a_callback_without_a_task_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        APIPASS.read_callback(body)


# --- laws -------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
codes = st.sampled_from([200, 400, 401, 402, 403, 404, 422, 429, 455, 500, 501, 505]) | st.integers()
results = st.just({"resultUrls": ["https://a.example/x.png"]}) | st.sampled_from(['{"resultUrls":["http://a/x"]}', ""])
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "code": codes | json_values,
        "message": st.sampled_from(["success", "not enough credits"]) | json_values,
        "data": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "taskId": texts | json_values,
                "state": st.sampled_from(["waiting", "success", "failed", "error"]) | json_values,
                "resultJson": results | json_values,
                "failCode": codes | json_values,
                "failMsg": texts | json_values,
            },
        ),
    },
).map(lambda value: json.dumps(value).encode())
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()) | near_misses
headers = st.dictionaries(st.sampled_from(["retry-after", "content-type"]), texts, max_size=2)
replies = st.builds(HttpReply, status=st.integers(100, 599), headers=headers, body=bodies)


@given(replies)
def test_a_submit_reads_to_an_outcome_whatever_comes(reply: HttpReply) -> None:
    outcome = APIPASS.read_submit(reply)
    assert isinstance(outcome, Accepted | Refused | Throttled | Unclear)
    if isinstance(outcome, Refused | Throttled):  # the law that guards the money
        decoded: dict[str, object] = {}
        with contextlib.suppress(ValueError, TypeError):
            decoded |= json.loads(reply.body)
        numbers = {str(reply.status), str(decoded.get("code"))}
        in_words = numbers & {"400", "403"} and "not enough credits" in str(decoded.get("message"))
        proven = {"401", "402", "422", "429", "455", "505"}
        assert numbers & proven or in_words or b"error code: 1010" in reply.body
    if isinstance(outcome, Accepted):
        assert 200 <= reply.status < 300
        assert outcome.job


@given(replies)
def test_a_poll_reads_to_an_outcome_or_is_malformed(reply: HttpReply) -> None:
    try:
        outcome = APIPASS.read_poll(reply)
    except MalformedReply:
        return
    assert isinstance(outcome, Pending | Finished | Failed | NotVisible | Throttled | Unreadable)
    if isinstance(outcome, Finished):
        assert outcome.url.startswith("http")
        assert outcome.cost_microusd is None


@given(replies)
def test_a_check_reads_to_a_standing_whatever_comes(reply: HttpReply) -> None:
    assert isinstance(APIPASS.read_check(reply), Standing)


@given(bodies)
def test_a_callback_gives_a_job_or_is_malformed(body: bytes) -> None:
    with contextlib.suppress(MalformedReply):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", APIPASS.read_callback(body))


@given(st.builds(ImageRequest, prompt=st.text(max_size=8), aspect=texts, resolution=texts, model=texts))
def test_every_request_is_judged(request_: ImageRequest) -> None:
    judge: Callable[[ImageRequest], str | None] = APIPASS.problem
    assert judge(request_) is None or judge(request_)
