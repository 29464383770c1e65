"""Together's codec: what it builds, what it reads, and that nothing else than an outcome comes out of garbage."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from adapters.base import (
    Context,
    Finished,
    HttpReply,
    ImageRequest,
    MalformedReply,
    Polls,
    Refused,
    Secret,
    Standing,
    Throttled,
    Unclear,
)
from adapters.together import TOGETHER
from tests.adapters.replies import Row, load
from tests.adapters.synchronous import HEADERS, bodies, statuses

ROWS = load("together")
CTX = Context(key=Secret("tgp_v1_secret"), marker=77, reference="a-1")
NO_JOB = (400, 401, 402, 403, 404, 422, 429, 503)


def body_of(request: ImageRequest, ctx: Context = CTX) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(TOGETHER.build_submit(request, ctx).body)
    return decoded


def reply(status: int, body: object, **headers: str) -> HttpReply:
    return HttpReply(status, headers, body if isinstance(body, bytes) else msgspec.json.encode(body))


# --- building -----------------------------------------------------------------------------------------------


def test_a_size_is_a_pair_of_pixels() -> None:
    request = ImageRequest("red mug", references=("https://r.example/a.png",), aspect="9:16", resolution="2K")
    assert body_of(request) == {
        "model": "google/flash-image-3.1",
        "prompt": "red mug",
        "width": 1536,
        "height": 2688,
        "n": 1,
        "response_format": "base64",
        "reference_images": ["https://r.example/a.png"],
    }
    assert "reference_images" not in body_of(ImageRequest("red mug"))


@pytest.mark.parametrize(
    ("aspect", "resolution", "pair"),
    [
        ("1:1", "1K", (1024, 1024)),
        ("3:2", "1K", (1248, 832)),
        ("2:3", "2K", (1664, 2496)),
        ("4:3", "4K", (4736, 3456)),
        ("3:4", "1K", (864, 1184)),
        ("5:4", "4K", (4608, 3584)),
        ("4:5", "2K", (1792, 2304)),
        ("16:9", "4K", (5376, 3072)),
        ("21:9", "4K", (6144, 2688)),
    ],
)
def test_the_pairs_are_the_documented_ones(aspect: str, resolution: str, pair: tuple[int, int]) -> None:
    body = body_of(ImageRequest("x", model="nano-banana-pro", aspect=aspect, resolution=resolution))
    assert (body["width"], body["height"]) == pair


def test_the_call_waits_for_the_image_and_has_room_for_it() -> None:
    call = TOGETHER.build_submit(ImageRequest("x"), CTX)
    assert (call.method, call.url) == ("POST", "https://api.together.ai/v1/images/generations")
    assert call.headers["Authorization"] == "Bearer tgp_v1_secret"
    assert call.timeout_s >= 180
    assert TOGETHER.build_submit(ImageRequest("x", resolution="4K"), CTX).max_reply_bytes == 96 << 20
    assert call == TOGETHER.build_submit(ImageRequest("x"), msgspec.structs.replace(CTX, marker=78))


def test_a_base_url_replaces_the_host() -> None:
    ctx = Context(key=Secret("k"), base_url="http://127.0.0.1:9/prefix/")
    assert TOGETHER.build_submit(ImageRequest("x"), ctx).url == "http://127.0.0.1:9/prefix/v1/images/generations"
    assert TOGETHER.build_check(ctx).url == "http://127.0.0.1:9/prefix/v1/models"


def test_there_is_a_lane_for_each_model() -> None:
    assert TOGETHER.lane(ImageRequest("x")) == TOGETHER.lane(ImageRequest("y", model="google/flash-image-3.1"))
    assert TOGETHER.lane(ImageRequest("x", model="nano-banana-pro")) == "nano-banana-pro"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ImageRequest("x", model="flux"), "no model 'flux'"),
        (ImageRequest("x", aspect="1:8"), "no aspect 1:8"),
        (ImageRequest("x", resolution="0.5K"), "no resolution 0.5K"),
        (ImageRequest("x", model="nano-banana", resolution="2K"), "no resolution 2K"),
        (ImageRequest("x", output_format="png"), "no format png"),
        (ImageRequest("x", seed=5), "takes no seed"),
        (ImageRequest("x", grounding=True), "no grounding"),
        (ImageRequest("x", model_version="1"), "no version pins"),
        (ImageRequest("x", references=("https://r.example/a.png",) * 15), "at most 14"),
        (ImageRequest("x", model="nano-banana-2-lite", references=("https://r.example/a.png",)), "at most 0"),
        (ImageRequest("x", references=("data:image/png;base64,AA==",)), "takes no local files"),
    ],
)
def test_what_does_not_fit_is_said(request_: ImageRequest, reason: str) -> None:
    assert reason in (TOGETHER.problem(request_) or "")


def test_what_fits_has_no_problem() -> None:
    references = ("https://r.example/a.png",) * 14
    assert TOGETHER.problem(ImageRequest("x", aspect="21:9", resolution="4K", references=references)) is None


def test_there_is_nothing_to_ask_for_afterwards() -> None:
    assert not isinstance(TOGETHER, Polls)
    assert TOGETHER.capabilities.recovery == "none"


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.kind == "submit"], ids=lambda row: row.name)
def test_a_truncated_reply_never_proves_that_nothing_was_bought(row: Row) -> None:
    whole = msgspec.json.encode(row.body)
    for end in range(0, len(whole), 7):
        outcome = TOGETHER.read_submit(HttpReply(row.status, row.headers, whole[:end]))
        if row.status < 300:
            assert outcome == Unclear("answered without a readable image", likely_paid=True)
        elif row.status not in NO_JOB or row.status == 503:
            assert isinstance(outcome, Unclear)


def test_the_image_is_in_the_answer() -> None:
    outcome = TOGETHER.read_submit(ROWS["image"].reply)
    assert isinstance(outcome, Finished)
    assert outcome.data == b"\x89PNG\r\n\x1a\n"


def test_an_id_that_is_none_is_left_out() -> None:
    outcome = TOGETHER.read_submit(reply(200, {**ROWS["image"].body, "id": "../../x"}))
    assert isinstance(outcome, Finished)
    assert outcome.job == ""


@pytest.mark.parametrize("status", [100, 302, 408, 409, 413, 500, 502, 503, 504, 524])
def test_what_is_not_documented_as_harmless_is_doubt(status: int) -> None:
    assert TOGETHER.read_submit(reply(status, b"<html>so sorry</html>")) == Unclear(f"status {status}")


def test_a_wait_that_is_not_told_is_none() -> None:
    assert TOGETHER.read_submit(reply(429, b"slow down")) == Throttled(None)


def test_the_check_says_which_models_the_key_may_use() -> None:
    models = TOGETHER.capabilities.models.value
    ids, names = [model.provider_id for model in models], tuple(model.name for model in models)
    everything = TOGETHER.read_check(reply(200, [{"id": name, "object": "model"} for name in ids]))
    assert everything == Standing("ok", models=names)
    missing = TOGETHER.read_check(reply(200, [{"id": name} for name in ids if "pro" not in name]))
    assert missing == Standing("ok", models=names[:3])
    with pytest.raises(MalformedReply):
        TOGETHER.read_check(reply(200, {"models": []}))


# --- garbage ------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    status=statuses(*NO_JOB),
    headers=HEADERS,
    body=bodies(["id", "data", "error", "error_type", "message", "code", "param", "b64_json", "url"]),
)
def test_garbage_gives_an_outcome_or_is_called_malformed(status: int, headers: dict[str, str], body: bytes) -> None:
    garbage = HttpReply(status, headers, body)
    outcome = TOGETHER.read_submit(garbage)
    if isinstance(outcome, Refused | Throttled):
        assert status in NO_JOB
    if isinstance(outcome, Finished):
        assert bool(outcome.data) != bool(outcome.url)
    try:
        standing = TOGETHER.read_check(garbage)
    except MalformedReply:
        return
    assert standing.state != "ok" or 200 <= status < 300
