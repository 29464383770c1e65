"""Apertis' emulator against the recorded replies, against the codec, and in its own strictness."""

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.apertis import APERTIS
from adapters.base import Context, Finished, HttpReply, ImageRequest, Refused, Secret, Throttled, Unclear
from adapters.sandbox.apertis import ApertisEmulator
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, json_of, raw, sandbox
from tests.adapters.replies import load
from tests.adapters.synchronous import buy, whole

ROWS = load("apertis")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/apertis", reference="t1")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "User-Agent": "Mozilla/5.0"}
IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"
REQUEST = ImageRequest("x")
MODEL = "gemini-3.1-flash-image-preview"
VALID: dict[str, Any] = {"model": MODEL, "prompt": "x", "response_format": "b64_json"}
TEXT = {"type": "text", "text": "x"}
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> ApertisEmulator:
    return ApertisEmulator(world)


def submit(emulator: ApertisEmulator, body: object, path: str = IMAGES, **headers: str) -> Reply:
    return raw(emulator, "POST", path, headers=AUTH | headers, body=body)


def said(*parts: object, **fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": list(parts)}], **fields}


def outcome_of(emulator: ApertisEmulator, ctx: Context = CTX) -> object:
    return APERTIS.read_submit(ask(emulator, APERTIS.build_submit(REQUEST, ctx)))


def http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


def last(world: EmulatorSettings) -> Job:
    return world.jobs.since(world.jobs.count() - 1, 1)[0][1]


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("name", [model.name for model in APERTIS.capabilities.models.value])
def test_everything_the_record_offers_is_drawn(
    world: EmulatorSettings, emulator: ApertisEmulator, name: str, with_references: bool
) -> None:
    offered = APERTIS.capabilities.model(name)
    assert offered is not None
    files = [f"picture {n}".encode() for n in range(offered.max_references if with_references else 0)]
    references = tuple(f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in files)
    identities = tuple(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in files)
    for aspect in offered.aspects[0 if with_references else 1 :]:
        for resolution in offered.resolutions:
            request = ImageRequest("p", name, aspect, resolution, references)
            assert APERTIS.problem(request) is None
            outcome = APERTIS.read_submit(buy(emulator, world, APERTIS.build_submit(request, CTX)))
            assert isinstance(outcome, Finished)
            assert read_digest(outcome.data) == request_digest("p", identities, aspect, resolution)


def test_both_places_of_a_chat_image_occur(world: EmulatorSettings, emulator: ApertisEmulator) -> None:
    seen = set()
    for _ in range(20):
        reply = whole(emulator, world, submit(emulator, said(TEXT, PNG), CHAT))
        assert isinstance(APERTIS.read_submit(reply), Finished)
        seen.add(b'"images"' in reply.body)
    assert seen == {True, False}


def test_a_picture_in_a_request_is_kept_by_its_digest(world: EmulatorSettings, emulator: ApertisEmulator) -> None:
    submit(emulator, said(TEXT, PNG), CHAT)
    job = last(world)
    assert job.references == (f"sha256:{hashlib.sha256(base64.b64decode('AAAA')).hexdigest()}",)
    assert job.references[0] in job.wire
    assert "AAAA" not in job.wire


def test_the_answer_is_held_and_then_billed(world: EmulatorSettings, emulator: ApertisEmulator) -> None:
    reply = submit(emulator, {**VALID, "size": "4096x4096"})
    job = last(world)
    assert reply.delay_s == (job.done_us - START_US) / S > 0
    assert [emulator.state(job, at) for at in (START_US, job.done_us)] == ["running", "succeeded"]
    assert [emulator.charged(job, at) for at in (START_US, job.done_us)] == [0, 125_000]
    submit(ApertisEmulator(msgspec.structs.replace(world, price_factor=2.0)), VALID)
    assert last(world).charge_microusd == 110_000


def test_a_url_may_be_asked_for_instead(world: EmulatorSettings, emulator: ApertisEmulator) -> None:
    outcome = APERTIS.read_submit(http(submit(emulator, {"model": MODEL, "prompt": "x"})))  # it is the default
    assert isinstance(outcome, Finished)
    assert outcome.url == f"{ORIGIN}/files/apertis/{last(world).id}.png"


@pytest.mark.parametrize(
    ("fate", "outcome"),
    [
        ("fail_job", Unclear("status 502 upstream_error: The upstream provider did not answer")),
        ("policy_job", Refused("policy", "content_policy_violation: The prompt violates the content policy")),
    ],
)
def test_failures_are_not_charged(world: EmulatorSettings, fate: str, outcome: object) -> None:
    emulator = ApertisEmulator(fated(world, fate))
    assert outcome_of(emulator) == outcome
    job = last(world)
    assert emulator.state(job, job.done_us) == "failed"
    assert emulator.charged(job, job.done_us) == 0


@pytest.mark.parametrize(
    ("key", "state", "reason"),
    [
        ("sandbox-wrong", "rejected", "unauthorized"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "ok", "forbidden"),
    ],
)
def test_keys_that_cannot_buy(emulator: ApertisEmulator, key: str, state: str, reason: str) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret(key))
    assert APERTIS.read_check(ask(emulator, APERTIS.build_check(ctx))).state == state
    outcome = outcome_of(emulator, ctx)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert outcome.detail


def test_the_balance_falls_with_what_was_drawn(emulator: ApertisEmulator) -> None:
    submit(emulator, VALID)
    check = APERTIS.build_check(CTX)
    left = [APERTIS.read_check(ask(emulator, check, START_US + at)).balance_microusd for at in (0, 60 * S)]
    assert left == [1_000_000_000, 1_000_000_000 - 55_000]


def test_a_key_has_one_rate_for_all_its_calls() -> None:
    emulator = ApertisEmulator(sandbox(rate_factor=2 / 1500))  # two calls in three minutes
    assert isinstance(outcome_of(emulator), Unclear)  # taken; the picture is still to be drawn
    assert raw(emulator, "GET", "/v1/models", headers=AUTH).status == 200
    assert outcome_of(emulator) == Throttled(90.0)


def test_chaos_speaks_apertis(emulator: ApertisEmulator) -> None:
    assert APERTIS.read_submit(http(emulator.refusal("throttled"))) == Throttled(1.0)
    assert isinstance(APERTIS.read_submit(http(emulator.refusal("broken"))), Unclear)


@pytest.mark.parametrize("name", ["image", "invalid", "unauthorized", "no_model", "usage"])
def test_answers_have_the_recorded_keys(world: EmulatorSettings, emulator: ApertisEmulator, name: str) -> None:
    replies = {
        "image": submit(emulator, VALID),
        "invalid": submit(emulator, {**VALID, "size": "1x1"}),
        "unauthorized": submit(emulator, VALID, Authorization="Bearer wrong"),
        "no_model": submit(emulator, {**VALID, "model": "gemini-9"}),
        "usage": raw(emulator, "GET", "/v1/token/usage", headers=AUTH),
    }
    recorded, told = ROWS[name], json_of(whole(emulator, world, replies[name]))
    assert replies[name].status == recorded.status
    assert told.keys() == recorded.body.keys()
    for part in ("error", "data"):
        if isinstance(recorded.body.get(part), dict):
            assert set(told[part]) >= set(recorded.body[part])  # type: ignore[call-overload]  # both are objects


# --- strictness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"model": MODEL},
        {**VALID, "prompt": ""},
        {**VALID, "aspect_ratio": "1:1"},
        {**VALID, "size": "1000x1000"},
        {**VALID, "size": "2K"},
        {**VALID, "model": "gemini-2.5-flash-image", "size": "2048x2048"},
        {**VALID, "n": 2},
        {**VALID, "response_format": "base64"},
        {**VALID, "response_format": ["url"]},
        b"",
        b"[]",
        b'{"prompt":"\xff"}',
    ],
)
def test_what_is_not_documented_is_refused(world: EmulatorSettings, emulator: ApertisEmulator, body: object) -> None:
    reply = submit(emulator, body)
    outcome = APERTIS.read_submit(http(reply))
    assert isinstance(outcome, Refused)
    assert (reply.status, outcome.reason) == (400, "invalid")
    assert world.jobs.count() == 0


@pytest.mark.parametrize(
    "body",
    [
        {"model": MODEL},
        {"model": MODEL, "messages": []},
        {"model": MODEL, "messages": "x"},
        said(),
        said(PNG),
        said(TEXT, *[PNG] * 15),
        said(TEXT, {"type": "image_url", "image_url": {"url": "https://r.example/a.png"}}),
        said(TEXT, {"type": "image_url"}),
        said(TEXT, {"type": "input_audio"}),
        said(TEXT, stream=True),
        said(TEXT, n=2),
        said(TEXT, temperature=1),
        said(TEXT, image_config={"aspect_ratio": "7:5"}),
        said(TEXT, image_config={"image_size": "8K"}),
        said(TEXT, image_config={"size": "1K"}),
    ],
)
def test_a_chat_that_is_not_documented_is_refused(
    world: EmulatorSettings, emulator: ApertisEmulator, body: object
) -> None:
    assert submit(emulator, body, CHAT).status == 400
    assert world.jobs.count() == 0


def test_an_image_of_more_than_20_mb_is_refused(world: EmulatorSettings, emulator: ApertisEmulator) -> None:
    huge = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "AAAA" * 6_666_667}}
    assert submit(emulator, said(TEXT, huge), CHAT).status == 400
    assert world.jobs.count() == 0


def test_too_fast_tells_the_wait_and_when_it_ends() -> None:
    emulator = ApertisEmulator(sandbox(rate_factor=1 / 1500))
    assert submit(emulator, VALID).status == 200
    refused = submit(emulator, VALID)
    assert APERTIS.read_submit(http(refused)) == Throttled(float(refused.headers["retry-after"]))
    assert int(refused.headers["x-ratelimit-reset"]) == START_US // S + int(refused.headers["retry-after"])


@pytest.mark.parametrize("agent", ["python-httpx/0.28", ""])
def test_the_door_keeper_wants_a_browser(emulator: ApertisEmulator, agent: str) -> None:
    reply = raw(emulator, "GET", "/v1/models", headers=AUTH | {"User-Agent": agent})
    assert (reply.status, reply.body) == (403, b"error code: 1010")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": KEY}, 200),
        ({"Authorization": "Bearer sk-short"}, 401),
        ({"Authorization": "Bearer sk-" + "a" * 32}, 200),
        ({"Authorization": "Bearer sk-sub-" + "a" * 32}, 200),
        ({"Authorization": "Bearer sk-sub_" + "a" * 32, "x-api-key": "wrong"}, 200),
    ],
)
def test_keys_are_looked_at_first(emulator: ApertisEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", "/v1/models", headers={"User-Agent": "curl/8"} | headers).status == status


@pytest.mark.parametrize(("method", "path"), [("GET", IMAGES), ("POST", "/v1/models"), ("GET", "/v1/x")])
def test_what_is_not_there_is_not_found(emulator: ApertisEmulator, method: str, path: str) -> None:
    assert raw(emulator, method, path, headers=AUTH, body=VALID).status == 404


@pytest.mark.parametrize(
    ("method", "path", "costs"), [("POST", IMAGES, True), ("POST", CHAT, True), ("GET", CHAT, False)]
)
def test_two_calls_cost_money(emulator: ApertisEmulator, method: str, path: str, costs: bool) -> None:
    assert emulator.is_submit(Call(method, path, {}, {}, b"", ORIGIN)) == costs


@settings(max_examples=100)
@given(
    path=st.sampled_from([IMAGES, CHAT]),
    body=st.dictionaries(st.sampled_from(["model", "prompt", "size", "messages", "image_config"]), st.text(max_size=5)),
)
def test_any_body_gets_an_answer(path: str, body: dict[str, str]) -> None:
    assert submit(ApertisEmulator(sandbox()), {"model": MODEL, **body}, path).status in (200, 400, 404)
