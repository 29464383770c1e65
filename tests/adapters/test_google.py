"""Google's plain call: what the codec builds, what it reads, and that nothing else comes out of garbage."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Context,
    Finished,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Refused,
    Secret,
    Standing,
    Throttled,
    Unclear,
)
from adapters.google import GOOGLE
from adapters.references import LocalFile
from tests.adapters.replies import load

ROWS = load("google")
CTX = Context(key=Secret("AIza-secret"))
REQUEST = ImageRequest("a red kettle on slate")
INLINE = "data:image/png;base64," + base64.b64encode(b"a kettle").decode()


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(GOOGLE.build_submit(request, ctx).body)
    return decoded


def local(size: int, media_type: str = "image/png") -> str:
    return LocalFile("ab" * 32, size, media_type, "/k.png").text


# --- building -----------------------------------------------------------------------------------------------


def test_every_field_is_sent_by_name() -> None:
    request = ImageRequest(
        "a red kettle", references=(INLINE, INLINE), aspect="9:16", resolution="0.5K", seed=7, grounding=True
    )
    picture = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"a kettle").decode()}}
    assert body_of(request) == {
        "contents": [{"role": "user", "parts": [{"text": "a red kettle"}, picture, picture]}],
        "generationConfig": {
            "candidateCount": 1,
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "9:16", "imageSize": "512"},
            "seed": 7,
        },
        "tools": [{"googleSearch": {}}],
    }


def test_the_first_model_has_one_size_and_no_field_for_it() -> None:
    config = body_of(ImageRequest("x", model="nano-banana", aspect="auto", references=(INLINE,)))["generationConfig"]
    assert config == {"candidateCount": 1, "responseModalities": ["IMAGE"], "imageConfig": {}}


def test_the_call_names_the_model_and_the_key() -> None:
    call = GOOGLE.build_submit(ImageRequest("x", model="nano-banana-pro", resolution="4K"), CTX)
    assert (call.method, call.headers["x-goog-api-key"]) == ("POST", "AIza-secret")
    assert call.url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-pro-image:generateContent"
    assert call.max_reply_bytes > 4 * 20 * 2**20  # a 4K picture in base64
    assert call.timeout_s >= 180
    assert "AIza" not in call.url


def test_the_marker_changes_nothing_and_the_same_request_has_the_same_bytes() -> None:
    other = Context(key=Secret("AIza-secret"), marker=7, reference="r", callback_url="https://hooks.example/x")
    assert GOOGLE.build_submit(REQUEST, CTX) == GOOGLE.build_submit(REQUEST, other)


def test_a_base_url_replaces_the_host_of_every_call() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    calls = [GOOGLE.build_submit(REQUEST, ctx), GOOGLE.build_check(ctx)]
    assert {call.url.partition("/v1beta/")[0] for call in calls} == {"http://127.0.0.1:9/prefix"}


def test_each_model_has_its_lane() -> None:
    assert GOOGLE.lane(REQUEST) == GOOGLE.lane(ImageRequest("x", aspect="9:16")) == "gemini-3.1-flash-image"
    assert GOOGLE.lane(ImageRequest("x", model="nano-banana-pro")) == "gemini-3-pro-image"


def test_a_reference_must_carry_its_bytes_by_now() -> None:
    with pytest.raises(ValueError, match="carry its bytes"):
        GOOGLE.build_submit(ImageRequest("x", references=(local(5),)), CTX)
    with pytest.raises(ValueError, match="no model"):
        GOOGLE.build_submit(ImageRequest("x", model="flux"), CTX)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest("  "), "prompt is empty"),
        (ImageRequest("x", aspect="1:8", model="nano-banana-pro"), "no aspect 1:8"),
        (ImageRequest("x", aspect="auto"), "there is none"),
        (ImageRequest("x", resolution="2K", model="nano-banana"), "no resolution 2K"),
        (ImageRequest("x", resolution="0.5K", model="nano-banana-pro"), "no resolution 0.5K"),
        (ImageRequest("x", output_format="png"), "leave the format out"),
        (ImageRequest("x", model_version="v"), "no version pins"),
        (ImageRequest("x", seed=-1), "seed"),
        (ImageRequest("x", seed=2**31), "seed"),
        (ImageRequest("x", model="nano-banana", grounding=True), "no grounding"),
        (ImageRequest("x", references=("https://refs.example/k.png",)), "give the references as files"),
        (ImageRequest("x", references=(local(5),) * 15), "at most 14"),
        (ImageRequest("x", model="nano-banana", references=(local(5),) * 4), "at most 3"),
        (ImageRequest("x", references=(local(7_000_001),)), "7,000,000"),
        (ImageRequest("x", references=(local(5, "image/gif"),)), "no image/gif"),
        (ImageRequest("x", references=(local(7_000_000),) * 3), "20,000,000 in one request"),
    ],
)
def test_what_google_cannot_do_is_said_before(request_: ImageRequest, reason: str) -> None:
    problem = GOOGLE.problem(request_)
    assert problem is not None
    assert reason in problem


@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest("x", seed=0),
        ImageRequest("x", model="gemini-3-pro-image", resolution="4K"),
        ImageRequest("x", references=(local(7_000_000), INLINE), aspect="auto"),
    ],
)
def test_what_google_can_do_has_no_problem(request_: ImageRequest) -> None:
    assert GOOGLE.problem(request_) is None


# --- reading ------------------------------------------------------------------------------------------------


def test_the_image_is_the_last_part_that_is_no_thought() -> None:
    outcome = GOOGLE.read_submit(ROWS["image_after_thoughts"].reply)
    assert isinstance(outcome, Finished)
    assert outcome.data == b"\x89PNG\r\n\x1a\n"


def changed(**changes: object) -> HttpReply:
    return HttpReply(200, {}, msgspec.json.encode({**ROWS["image"].body, **changes}))


def test_an_id_that_could_not_stand_in_a_file_name_is_left_out() -> None:
    outcome = GOOGLE.read_submit(changed(responseId="../x"))
    assert isinstance(outcome, Finished)
    assert outcome.job == ""


@pytest.mark.parametrize(
    "usage",
    [
        {"promptTokenCount": -1},
        {"promptTokenCount": 7, "candidatesTokenCount": 1120},
        {"candidatesTokenCount": 5, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}]},
        {"candidatesTokenCount": -5, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": -5}]},
    ],
)
def test_tokens_that_do_not_add_up_have_no_price(usage: dict[str, object]) -> None:
    outcome = GOOGLE.read_submit(changed(usageMetadata=usage))
    assert isinstance(outcome, Finished)
    assert outcome.cost_microusd is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"candidates":[{"content":{"parts":[{"inlineData":{"data":"%"}}]}}]}', b"\xff"],
)
def test_a_success_that_cannot_be_read_was_probably_paid(body: bytes) -> None:
    outcome = GOOGLE.read_submit(HttpReply(200, {}, body))
    assert isinstance(outcome, Unclear)
    assert outcome.likely_paid


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
def test_a_page_of_somebody_between_us_proves_nothing(status: int) -> None:
    assert isinstance(GOOGLE.read_submit(HttpReply(status, {}, b"<html>no</html>")), Unclear)


def test_details_of_another_form_say_nothing() -> None:
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [7, {"retryDelay": 5}, {"retryDelay": "soon"}]}
    reply = HttpReply(429, {}, msgspec.json.encode({"error": error}))
    assert GOOGLE.read_submit(reply) == Throttled(None)


# --- garbage ------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*sorted(ROWS["image"].body), "promptFeedback", "error", "models"])
ERRORS = st.dictionaries(st.sampled_from(["code", "message", "status", "details"]), VALUES, max_size=4)
BODIES = (
    st.binary(max_size=60)
    | VALUES.map(msgspec.json.encode)
    | st.dictionaries(FIELDS, VALUES, max_size=4).map(lambda odd: changed(**odd).body)
    | ERRORS.map(lambda error: msgspec.json.encode({"error": error}))
    | st.sampled_from([b"[" * 100_000, b'{"candidates":[{"content":' * 5_000])
)
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 413, 429, 500, 503, 504]) | st.integers(100, 599)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(status=STATUSES, body=BODIES)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, body: bytes) -> None:
    garbage = HttpReply(status, {}, body)
    if isinstance(GOOGLE.read_submit(garbage), Refused | Throttled):
        assert status in (400, 401, 403, 404, 413, 429)
    try:
        standing = GOOGLE.read_check(garbage)
    except MalformedReply:
        return
    assert isinstance(standing, Standing)
    assert standing.state != "ok" or 200 <= status < 300
