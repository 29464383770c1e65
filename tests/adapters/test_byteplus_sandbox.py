"""BytePlus' emulator against the recorded replies, against the codec, and in its own strictness."""

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Context, Failed, Finished, HttpReply, ImageRequest, Refused, Secret, Throttled, Unclear
from adapters.byteplus import BYTEPLUS
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.byteplus import BytePlusEmulator
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, json_of, raw, sandbox
from tests.adapters.replies import load
from tests.adapters.synchronous import whole

ROWS = load("byteplus")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/byteplus")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
IMAGES, TASKS = "/api/v3/images/generations", "/api/v3/contents/generations/tasks"
REQUEST = ImageRequest("x", "seedream-4")
VALID: dict[str, Any] = {"model": "seedream-4-0-250828", "prompt": "x"}
URL = "https://refs.example/k.png?x=1"


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> BytePlusEmulator:
    return BytePlusEmulator(world)


def submit(emulator: BytePlusEmulator, body: object, now_us: int = START_US, **headers: str) -> Reply:
    return raw(emulator, "POST", IMAGES, now_us, headers=AUTH | headers, body=body)


def outcome_of(emulator: BytePlusEmulator, ctx: Context = CTX) -> object:
    return BYTEPLUS.read_submit(ask(emulator, BYTEPLUS.build_submit(REQUEST, ctx)))


def http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


def last(world: EmulatorSettings) -> Job:
    return world.jobs.since(world.jobs.count() - 1, 1)[0][1]


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("name", [model.name for model in BYTEPLUS.capabilities.models.value])
def test_everything_the_record_offers_is_taken(world: EmulatorSettings, name: str) -> None:
    emulator = BytePlusEmulator(world, in_flight=1_000)
    offered = BYTEPLUS.capabilities.model(name)
    assert offered is not None
    references = (URL,) * offered.max_references
    for aspect in offered.aspects:
        for resolution in offered.resolutions:
            for output_format in offered.formats:
                request = ImageRequest("p", name, aspect, resolution, references, output_format)
                assert BYTEPLUS.problem(request) is None
                outcome = BYTEPLUS.read_submit(ask(emulator, BYTEPLUS.build_submit(request, CTX)))
                job = last(world)
                assert isinstance(outcome, Finished)
                assert outcome.url == f"{ORIGIN}/files/byteplus/{job.id}.{output_format}"
                assert (job.aspect, job.resolution, job.references) == (aspect, resolution, references)


def test_a_picture_in_a_request_is_kept_by_its_digest(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    data = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    submit(emulator, {**VALID, "image": data})
    job = last(world)
    assert job.references == (f"sha256:{hashlib.sha256(b'picture').hexdigest()}",)
    assert job.references[0] in job.wire
    assert data not in job.wire


def test_the_image_may_be_asked_for_inside(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    reply = whole(emulator, world, submit(emulator, {**VALID, "response_format": "b64_json", "size": "2496x1664"}))
    outcome = BYTEPLUS.read_submit(reply)
    assert isinstance(outcome, Finished)
    assert read_digest(outcome.data) == request_digest("x", (), "3:2", "2K")
    assert json_of(reply)["usage"] == {"generated_images": 1, "output_tokens": 16_224, "total_tokens": 16_224}


def test_fields_that_are_null_count_as_absent(emulator: BytePlusEmulator) -> None:
    assert submit(emulator, {**VALID, "image": None, "seed": None, "tools": None, "stream": None}).status == 200


def test_the_answer_is_held_and_then_billed_by_the_plan(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    reply = submit(emulator, VALID)
    job = last(world)
    assert reply.delay_s == (job.done_us - START_US) / S > 0
    assert [emulator.state(job, at) for at in (START_US, job.done_us)] == ["running", "succeeded"]
    assert [emulator.charged(job, at) for at in (START_US, job.done_us)] == [0, 215_000]
    submit(BytePlusEmulator(msgspec.structs.replace(world, price_factor=2.0)), VALID)
    assert last(world).charge_microusd == 430_000


def test_a_failure_is_doubt_and_not_charged(world: EmulatorSettings) -> None:
    emulator = BytePlusEmulator(fated(world, "fail_job"))
    assert outcome_of(emulator) == Unclear("status 500 InternalServiceError: The service encountered an internal error")
    job = last(world)
    assert (emulator.state(job, job.done_us), emulator.charged(job, job.done_us)) == ("failed", 0)


def test_the_policy_speaks_in_two_ways(world: EmulatorSettings) -> None:
    emulator = BytePlusEmulator(fated(world, "policy_job"), in_flight=20)
    said = "OutputImageSensitiveContentDetected: The output image may contain sensitive information"
    outcomes = [outcome_of(emulator) for _ in range(20)]
    for outcome in outcomes:
        assert outcome in (Refused("policy", said), Failed("policy", said, retryable=False))
    assert {type(outcome) for outcome in outcomes} == {Refused, Failed}
    assert emulator.charged(last(world), last(world).done_us) == 0


@pytest.mark.parametrize(
    ("key", "state", "reason"),
    [
        ("sandbox-wrong", "rejected", "unauthorized"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "ok", "forbidden"),
    ],
)
def test_keys_that_cannot_buy(emulator: BytePlusEmulator, key: str, state: str, reason: str) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret(key))
    assert BYTEPLUS.read_check(ask(emulator, BYTEPLUS.build_check(ctx))).state == state
    outcome = outcome_of(emulator, ctx)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert outcome.detail


def test_a_reference_out_of_reach_is_named(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    request = ImageRequest("x", "seedream-4", references=("https://missing.example/a.png",))
    outcome = BYTEPLUS.read_submit(ask(emulator, BYTEPLUS.build_submit(request, CTX)))
    assert outcome == Refused(
        "invalid", "InvalidParameter: The image https://missing.example/a.png could not be downloaded"
    )
    assert world.jobs.count() == 0


def test_ten_calls_may_be_open(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    for _ in range(10):
        assert isinstance(outcome_of(emulator), Finished)
    refused = submit(emulator, VALID)
    assert BYTEPLUS.read_submit(http(refused)) == Throttled(None)
    assert b"InflightBatchsizeExceeded" in refused.body
    assert world.jobs.count() == 10
    assert submit(emulator, VALID, START_US + 60 * S).status == 200


def test_images_per_minute_are_limited() -> None:
    emulator = BytePlusEmulator(sandbox(rate_factor=1 / 300))
    assert isinstance(outcome_of(emulator), Finished)
    refused = submit(emulator, VALID)
    assert (refused.status, b"ModelAccountIpmRateLimitExceeded" in refused.body) == (429, True)


def test_chaos_speaks_modelark(emulator: BytePlusEmulator) -> None:
    assert BYTEPLUS.read_submit(http(emulator.refusal("throttled"))) == Throttled(None)
    assert isinstance(BYTEPLUS.read_submit(http(emulator.refusal("broken"))), Unclear)


@pytest.mark.parametrize("name", ["image", "invalid", "unauthorized", "no_model", "tasks"])
def test_answers_have_the_recorded_keys(emulator: BytePlusEmulator, name: str) -> None:
    replies = {
        "image": submit(emulator, VALID),
        "invalid": submit(emulator, {**VALID, "size": "1x1"}),
        "unauthorized": submit(emulator, VALID, Authorization="Bearer wrong"),
        "no_model": submit(emulator, {**VALID, "model": "seedream-9"}),
        "tasks": raw(emulator, "GET", TASKS, headers=AUTH),
    }
    recorded, told = ROWS[name], json_of(replies[name])
    assert replies[name].status == recorded.status
    assert told.keys() == recorded.body.keys()
    if "error" in told:
        assert set(told["error"]) == set(recorded.body["error"])  # type: ignore[call-overload]  # both are objects


# --- strictness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"model": VALID["model"]},
        {**VALID, "prompt": ""},
        {**VALID, "aspect_ratio": "1:1"},
        {**VALID, "n": 1},
        {**VALID, "size": "1000x1000"},
        {**VALID, "size": 2048},
        {**VALID, "model": "seedream-4-5-251128", "size": "1K"},
        {**VALID, "output_format": "png"},
        {**VALID, "model": "seedream-5-0-260128", "output_format": "webp"},
        {**VALID, "response_format": "base64"},
        {**VALID, "sequential_image_generation": "auto"},
        {**VALID, "watermark": "no"},
        {**VALID, "stream": True},
        {**VALID, "image": [URL] * 15},
        {**VALID, "model": "dola-seedream-5-0-pro-260628", "image": [URL] * 11},
        {**VALID, "image": ["k.png"]},
        {**VALID, "image": [7]},
        {**VALID, "image": {"url": URL}},
        b"",
        b"[]",
        b'{"prompt":"\xff"}',
    ],
)
def test_what_is_not_documented_is_refused(world: EmulatorSettings, emulator: BytePlusEmulator, body: object) -> None:
    reply = submit(emulator, body)
    outcome = BYTEPLUS.read_submit(http(reply))
    assert isinstance(outcome, Refused)
    assert (reply.status, outcome.reason) == (400, "invalid")
    assert world.jobs.count() == 0


def test_an_image_of_more_than_10_mb_is_refused(world: EmulatorSettings, emulator: BytePlusEmulator) -> None:
    huge = "data:image/png;base64," + "AAAA" * 3_333_334
    assert submit(emulator, {**VALID, "image": [huge]}).status == 400
    assert world.jobs.count() == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer short"}, 401),
        ({"Authorization": "Bearer 2c7f59ea-0000-4000-8000-000000000001"}, 200),
        ({"Authorization": "Bearer ark-" + "a" * 32}, 200),
    ],
)
def test_keys_are_looked_at_first(emulator: BytePlusEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", TASKS, headers=headers).status == status


@pytest.mark.parametrize(("method", "path"), [("GET", IMAGES), ("POST", TASKS), ("GET", "/api/v3/x")])
def test_what_is_not_there_is_not_found(emulator: BytePlusEmulator, method: str, path: str) -> None:
    assert raw(emulator, method, path, headers=AUTH, body=VALID).status == 404


def test_one_call_costs_money(emulator: BytePlusEmulator) -> None:
    assert emulator.is_submit(Call("POST", IMAGES, {}, {}, b"", ORIGIN))
    assert not emulator.is_submit(Call("GET", IMAGES, {}, {}, b"", ORIGIN))
    assert not emulator.is_submit(Call("POST", TASKS, {}, {}, b"", ORIGIN))


@settings(max_examples=100)
@given(body=st.dictionaries(st.sampled_from(["model", "prompt", "size", "image", "stream"]), st.text(max_size=5)))
def test_any_body_gets_an_answer(body: dict[str, str]) -> None:
    assert submit(BytePlusEmulator(sandbox()), {**VALID, **body}).status in (200, 400, 404)
