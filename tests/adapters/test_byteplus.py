"""BytePlus' codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from adapters import registry
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
from adapters.byteplus import BYTEPLUS
from adapters.references import LocalFile
from tests.adapters.replies import Row, load
from tests.adapters.synchronous import HEADERS, bodies, statuses

ROWS = load("byteplus")
CTX = Context(key=Secret("ark-secret"), marker=77, reference="b17-t42-a1")
NO_JOB = (400, 401, 403, 404, 429)
URL = "https://r.example/a.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


def asking(prompt: str = "x", model: str = "seedream-4", **fields: Any) -> ImageRequest:
    return ImageRequest(prompt, model, **fields)


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(BYTEPLUS.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


def file(size: int) -> str:
    return LocalFile("ab" * 32, size, "image/png", "/pictures/mug.png").text


# --- building -----------------------------------------------------------------------------------------------


def test_every_field_that_has_a_default_of_theirs_is_sent() -> None:
    assert body_of(asking("red mug", aspect="9:16", resolution="2K", references=(URL, DATA))) == {
        "model": "seedream-4-0-250828",
        "prompt": "red mug",
        "size": "1600x2848",
        "response_format": "url",
        "watermark": False,
        "sequential_image_generation": "disabled",
        "stream": False,
        "image": [URL, DATA],
    }
    assert "image" not in body_of(asking())


@pytest.mark.parametrize(("wanted", "sent"), [("", "jpeg"), ("jpg", "jpeg"), ("png", "png")])
def test_the_newer_models_are_told_the_format(wanted: str, sent: str) -> None:
    request = asking(model="seedream-5", resolution="2K", output_format=wanted)
    assert body_of(request)["output_format"] == sent
    assert "output_format" not in body_of(asking(output_format="jpg"))


@pytest.mark.parametrize("resolution", ["1K", "2K", "4K"])
def test_sizes_have_their_aspects(resolution: str) -> None:
    model = BYTEPLUS.capabilities.model("seedream-4")
    assert model is not None
    for aspect in model.aspects:
        width, height = map(int, body_of(asking(aspect=aspect, resolution=resolution))["size"].split("x"))
        wide, high = map(int, aspect.split(":"))
        assert abs(width * high / (height * wide) - 1) < 0.02
        assert 921_600 <= width * height <= 16_777_216  # the documented range of pixels


def test_the_call_names_the_attempt_to_their_support() -> None:
    call = BYTEPLUS.build_submit(asking(), CTX)
    assert (call.method, call.url) == (
        "POST",
        "https://ark.ap-southeast.bytepluses.com/api/v3/images/generations",
    )
    assert call.headers["Authorization"] == "Bearer ark-secret"
    assert call.headers["X-Client-Request-Id"] == "b17-t42-a1"
    assert call.timeout_s >= 180
    assert call == BYTEPLUS.build_submit(asking(), CTX)
    assert "X-Client-Request-Id" not in BYTEPLUS.build_submit(asking(), Context(key=Secret("k"))).headers


def test_a_base_url_replaces_the_host() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    assert BYTEPLUS.build_submit(asking(), ctx).url == "http://127.0.0.1:9/prefix/api/v3/images/generations"
    assert BYTEPLUS.build_check(ctx).url.startswith("http://127.0.0.1:9/prefix/api/v3/contents/generations/tasks?")


def test_it_is_another_family_and_joins_only_when_named() -> None:
    assert registry.PROVIDERS["byteplus"].named_only
    assert BYTEPLUS.capabilities.models.value[0].name == "seedream-4"
    why = BYTEPLUS.problem(ImageRequest("x"))
    assert why == (
        "BytePlus serves Seedream and has no nano-banana-2: "
        "give --model seedream-4, seedream-4.5, seedream-5, seedream-5-pro"
    )
    assert BYTEPLUS.problem(asking(model="seedream-4-0-250828")) is None


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asking(aspect="4:5"), "no aspect 4:5"),
        (asking(model="seedream-4.5"), "no resolution 1K"),
        (asking(output_format="png"), "no format png"),
        (asking(seed=5), "takes no seed"),
        (asking(model_version="1"), "no version pins"),
        (asking(references=(URL,) * 15), "at most 14"),
        (asking(model="seedream-5-pro", resolution="2K", references=(URL,) * 11), "at most 10"),
        (asking(references=(file(10_000_001),)), "the file has 10,000,001 bytes"),
        (asking(references=(file(4_000_000),) * 3), "12,000,000 bytes together"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (BYTEPLUS.problem(request_) or "")


def test_what_fits_has_no_problem() -> None:
    references = (*(file(700_000),) * 7, *(URL,) * 7)
    assert BYTEPLUS.problem(asking(aspect="21:9", resolution="4K", references=references)) is None


def test_there_is_one_lane_and_nothing_to_ask_for() -> None:
    assert BYTEPLUS.lane(asking()) == BYTEPLUS.lane(asking(model="seedream-5"))
    assert not isinstance(BYTEPLUS, Polls)
    assert BYTEPLUS.capabilities.recovery == "none"


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.kind == "submit"], ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        outcome = BYTEPLUS.read_submit(HttpReply(row.status, row.headers, whole[:end]))
        if row.status < 300:
            assert outcome == Unclear("answered without a readable image", likely_paid=True)
        elif row.status >= 500:
            assert isinstance(outcome, Unclear)


def test_an_image_may_come_inside_the_answer() -> None:
    outcome = BYTEPLUS.read_submit(ROWS["image_inside"].reply)
    assert isinstance(outcome, Finished)
    assert outcome.data == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("status", [100, 302, 402, 408, 409, 413, 422, 500, 502, 503, 504, 524])
def test_what_is_not_documented_as_harmless_is_doubt(status: int) -> None:
    assert BYTEPLUS.read_submit(reply(status, b"<html>so sorry</html>")) == Unclear(f"status {status}")


def test_a_list_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        BYTEPLUS.read_check(reply(200, {"items": []}))


# --- garbage ------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    status=statuses(*NO_JOB),
    headers=HEADERS,
    body=bodies(["data", "usage", "generated_images", "error", "code", "message", "url", "b64_json", "total"]),
)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = BYTEPLUS.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in NO_JOB
    if isinstance(outcome, Failed):
        assert 200 <= status < 300
        assert b'"generated_images":0' in body
    if isinstance(outcome, Finished):
        assert bool(outcome.data) != bool(outcome.url)
    try:
        standing = BYTEPLUS.read_check(garbage)
    except MalformedReply:
        return
    assert standing.state != "ok" or 200 <= status < 300
