"""Apertis' codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from adapters.apertis import APERTIS
from adapters.base import (
    Context,
    Failed,
    Finished,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Polls,
    Refused,
    Secret,
    Throttled,
    Unclear,
)
from adapters.references import LocalFile
from tests.adapters.replies import Row, load
from tests.adapters.synchronous import HEADERS, bodies, statuses

ROWS = load("apertis")
CTX = Context(key=Secret("sk-secret"), marker=77, reference="b17-t42-a1")
NO_JOB = (400, 401, 402, 403, 404, 429)
DATA = "data:image/png;base64,iVBORw0KGgo="


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(APERTIS.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


def file(size: int, media_type: str = "image/png") -> str:
    return LocalFile("ab" * 32, size, media_type, "/pictures/mug.png").text


# --- building -----------------------------------------------------------------------------------------------


def test_text_alone_goes_to_the_image_call() -> None:
    call = APERTIS.build_submit(ImageRequest("red mug"), CTX)
    assert (call.method, call.url) == ("POST", "https://api.apertis.ai/v1/images/generations")
    assert body_of(ImageRequest("red mug", aspect="9:16", resolution="2K")) == {
        "model": "gemini-3.1-flash-image-preview",
        "prompt": "red mug",
        "n": 1,
        "size": "1536x2752",
        "response_format": "b64_json",
        "user": "b17-t42-a1",
    }
    assert "user" not in body_of(ImageRequest("red mug"), msgspec.structs.replace(CTX, reference=""))


def test_images_go_to_the_chat_call() -> None:
    request = ImageRequest("red mug", "nano-banana-pro", "4:5", "4K", references=(DATA, DATA))
    call = APERTIS.build_submit(request, CTX)
    assert (call.method, call.url) == ("POST", "https://api.apertis.ai/v1/chat/completions")
    part = {"type": "image_url", "image_url": {"url": DATA}}
    assert body_of(request) == {
        "model": "gemini-3-pro-image-preview",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "red mug"}, part, part]}],
        "max_tokens": 4096,
        "n": 1,
        "stream": False,
        "modalities": ["image", "text"],
        "image_config": {"image_size": "4K", "aspect_ratio": "4:5"},
        "user": "b17-t42-a1",
    }
    auto = body_of(ImageRequest("x", aspect="auto", references=(DATA,)))
    assert auto["image_config"] == {"image_size": "1K"}


def test_the_call_looks_like_a_browser_and_waits() -> None:
    call = APERTIS.build_submit(ImageRequest("x", resolution="4K"), CTX)
    assert call.headers["Authorization"] == "Bearer sk-secret"
    assert call.headers["user-agent"].startswith("Mozilla/5.0")
    assert call.timeout_s >= 180
    assert call.max_reply_bytes == 96 << 20
    assert call == APERTIS.build_submit(ImageRequest("x", resolution="4K"), CTX)


def test_a_base_url_replaces_the_host() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    assert APERTIS.build_submit(ImageRequest("x"), ctx).url == "http://127.0.0.1:9/prefix/v1/images/generations"
    assert APERTIS.build_check(ctx).url == "http://127.0.0.1:9/prefix/v1/token/usage"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest("x", aspect="1:8"), "no aspect 1:8"),
        (ImageRequest("x", aspect="auto"), "there is none"),
        (ImageRequest("x", resolution="0.5K"), "no resolution 0.5K"),
        (ImageRequest("x", output_format="jpg"), "no format jpg"),
        (ImageRequest("x", seed=5), "takes no seed"),
        (ImageRequest("x", model_version="1"), "no version pins"),
        (ImageRequest("x", references=("https://r.example/a.png",)), "takes no URLs, only files"),
        (ImageRequest("x", references=(file(10),) * 15), "at most 14"),
        (ImageRequest("x", references=(file(10_000_001),)), "the file has 10,000,001 bytes"),
        (ImageRequest("x", references=(file(4_000_000),) * 3), "12,000,000 bytes together"),
        (ImageRequest("x", references=(file(10, "image/gif"),)), "no image/gif"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (APERTIS.problem(request_) or "")


def test_what_fits_has_no_problem() -> None:
    assert APERTIS.problem(ImageRequest("x", aspect="auto", resolution="4K", references=(file(700_000),) * 14)) is None
    assert APERTIS.problem(ImageRequest("x", references=(DATA,))) is None


def test_there_is_one_lane_and_nothing_to_ask_for() -> None:
    assert APERTIS.lane(ImageRequest("x")) == APERTIS.lane(ImageRequest("y", model="nano-banana-pro"))
    assert not isinstance(APERTIS, Polls)
    assert APERTIS.capabilities.recovery == "none"


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.kind == "submit"], ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        outcome = APERTIS.read_submit(HttpReply(row.status, row.headers, whole[:end]))
        if row.status < 300:
            assert outcome == Unclear("answered without a readable image", likely_paid=True)
        elif row.status >= 500:
            assert isinstance(outcome, Unclear)


@pytest.mark.parametrize("name", ["image", "chat_beside", "chat_markdown", "chat_parts"])
def test_the_image_is_in_the_answer(name: str) -> None:
    outcome = APERTIS.read_submit(ROWS[name].reply)
    assert isinstance(outcome, Finished)
    assert outcome.data == b"\x89PNG\r\n\x1a\n"


def test_a_part_that_is_no_image_hides_none() -> None:
    parts = [{"image_url": {"url": url}} for url in ("data:image/png;base64,!", "file:///x", DATA)]
    outcome = APERTIS.read_submit(reply(200, {"choices": [{"message": {"images": parts}}]}))
    assert isinstance(outcome, Finished)
    assert outcome.data


def test_words_are_cut_short() -> None:
    outcome = APERTIS.read_submit(reply(200, {"choices": [{"message": {"content": "no " * 9_000}}]}))
    assert isinstance(outcome, Failed)
    assert len(outcome.detail) < 300


@pytest.mark.parametrize("status", [100, 302, 408, 409, 413, 422, 500, 502, 503, 504, 524])
def test_what_is_not_documented_as_harmless_is_doubt(status: int) -> None:
    assert APERTIS.read_submit(reply(status, b"<html>so sorry</html>")) == Unclear(f"status {status}")


def test_the_door_is_not_the_api() -> None:
    door = APERTIS.read_submit(reply(403, b"error code: 1010"))
    assert door == Refused("forbidden", "turned away before the API (1010)")
    assert APERTIS.read_submit(reply(403, b"<html>no</html>")) == Refused("forbidden")
    # The key is not to blame: it was not looked at.
    told = APERTIS.read_check(reply(403, b"error code: 1010"))
    assert (told.state, told.detail) == ("unreadable", "turned away before the API (1010)")


def test_a_filter_refuses_the_prompt_whatever_the_status() -> None:
    """No document says which status carries the code; "forbidden" would stop the account for one prompt."""
    error = {"message": "Content violates usage policies", "type": "content_policy_error"}
    for status in (400, 403, 404):
        told = reply(status, {"error": {**error, "code": "content_policy_violation"}})
        assert APERTIS.read_submit(told) == Refused(
            "policy", "content_policy_violation: Content violates usage policies"
        )
    # Words alone do not turn a matter of the account into one of the prompt.
    blocked = {"error": {"message": "Your account violates our policies", "code": "account_suspended"}}
    assert isinstance(outcome := APERTIS.read_submit(reply(403, blocked)), Refused)
    assert outcome.reason == "forbidden"
    assert isinstance(
        APERTIS.read_submit(reply(502, {"error": {**error, "code": "content_policy_violation"}})), Unclear
    )


def test_usage_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        APERTIS.read_check(reply(200, {"data": {"remain_quota_usd": "much"}}))


# --- garbage ------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    status=statuses(*NO_JOB),
    headers=HEADERS,
    body=bodies(["data", "choices", "message", "content", "images", "image_url", "url", "error", "finish_reason"]),
)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = APERTIS.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in NO_JOB
    if isinstance(outcome, Finished):
        assert bool(outcome.data) != bool(outcome.url)
    try:
        standing = APERTIS.read_check(garbage)
    except MalformedReply:
        return
    assert standing.state != "ok" or 200 <= status < 300
