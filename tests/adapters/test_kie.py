"""The Kie codec: rows of the documentation, then laws over anything a network can say."""

import contextlib
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
    Context,
    Failed,
    Finished,
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
        (ImageRequest("x", model_version="abc"), "versions"),
        (ImageRequest(" "), "empty"),
    ],
)
def test_what_kie_cannot_do_is_said_in_words(request_: ImageRequest, words: str) -> None:
    problem = KIE.problem(request_)
    assert problem is not None
    assert words in problem
    with pytest.raises(ValueError, match=re.escape(words)):
        KIE.build_submit(request_, CTX)


def test_listing_and_cancel_are_refused_as_our_mistake() -> None:
    reply = HttpReply(200, {}, b"{}")
    misuses: list[Callable[[], object]] = [
        lambda: KIE.fingerprint(ImageRequest("x"), CTX),
        lambda: KIE.build_list(CTX, since_us=0, until_us=1, cursor=None),
        lambda: KIE.read_list(reply),
        lambda: KIE.build_cancel("t1", CTX),
        lambda: KIE.read_cancel(reply),
    ]
    for misuse in misuses:
        with pytest.raises(ValueError, match="Kie has no"):
            misuse()
    assert CAPABILITIES.listing is None
    assert CAPABILITIES.cancel is None
    assert CAPABILITIES.recovery == "callback"


def test_all_requests_share_one_lane() -> None:
    assert {KIE.lane(row.request) for row in REQUESTS} == {"default"}


# --- laws -------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
codes = st.sampled_from([200, 400, 401, 402, 404, 408, 422, 429, 433, 455, 500, 501, 505]) | st.integers()
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
