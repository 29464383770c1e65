"""Together's emulator against the recorded replies, against the codec, and in its own strictness."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Context, Finished, HttpReply, ImageRequest, Refused, Secret, Standing, Throttled, Unclear
from adapters.sandbox.base import Call, Reply
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.together import TogetherEmulator
from adapters.sandbox.wirefmt import EmulatorSettings
from adapters.together import TOGETHER
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, json_of, raw, sandbox
from tests.adapters.replies import load
from tests.adapters.synchronous import buy, whole

ROWS = load("together")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/together")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
IMAGES = "/v1/images/generations"
REQUEST = ImageRequest("x")
VALID: dict[str, Any] = {"model": "google/flash-image-3.1", "prompt": "x", "response_format": "base64"}


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> TogetherEmulator:
    return TogetherEmulator(world)


def submit(emulator: TogetherEmulator, body: object, **headers: str) -> Reply:
    return raw(emulator, "POST", IMAGES, headers=AUTH | headers, body=body)


def outcome_of(emulator: TogetherEmulator, request: ImageRequest = REQUEST, ctx: Context = CTX) -> object:
    return TOGETHER.read_submit(ask(emulator, TOGETHER.build_submit(request, ctx)))


def http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("name", [model.name for model in TOGETHER.capabilities.models.value])
def test_everything_the_record_offers_is_drawn(world: EmulatorSettings, emulator: TogetherEmulator, name: str) -> None:
    offered = TOGETHER.capabilities.model(name)
    assert offered is not None
    references = ("https://refs.example/k.png?x=1",) * offered.max_references
    for aspect in offered.aspects:
        for resolution in offered.resolutions:
            request = ImageRequest("p", name, aspect, resolution, references)
            assert TOGETHER.problem(request) is None
            outcome = TOGETHER.read_submit(buy(emulator, world, TOGETHER.build_submit(request, CTX)))
            assert isinstance(outcome, Finished)
            assert read_digest(outcome.data) == request_digest("p", references, aspect, resolution)
            job = world.jobs.get("together", outcome.job)
            assert job is not None
            assert (job.aspect, job.resolution) == (aspect, resolution)


def test_the_answer_is_held_until_the_image_is_there(world: EmulatorSettings, emulator: TogetherEmulator) -> None:
    reply = submit(emulator, VALID)
    job = world.jobs.get("together", reply.draws)
    assert job is not None
    assert reply.delay_s == (job.done_us - START_US) / S > 0
    assert [emulator.state(job, at) for at in (START_US, job.done_us)] == ["running", "succeeded"]
    assert [emulator.charged(job, at) for at in (START_US, job.done_us)] == [0, 100_000]


@pytest.mark.parametrize(
    ("model", "size", "price"),
    [
        ("google/flash-image-2.5", 1024, 39_000),
        ("google/flash-image-3.1", 2048, 150_000),
        ("google/gemini-3-pro-image", 4096, 240_000),
    ],
)
def test_the_bill_is_by_tier(world: EmulatorSettings, model: str, size: int, price: int) -> None:
    dear = msgspec.structs.replace(world, price_factor=2.0)
    body = {**VALID, "model": model, "width": size, "height": size}
    for settings_, factor in ((world, 1), (dear, 2)):
        job = world.jobs.get("together", submit(TogetherEmulator(settings_), body).draws)
        assert job is not None
        assert job.charge_microusd == price * factor


def test_a_url_may_be_asked_for_instead(world: EmulatorSettings, emulator: TogetherEmulator) -> None:
    by_url = submit(emulator, {name: VALID[name] for name in ("model", "prompt")})  # it is the default
    outcome = TOGETHER.read_submit(http(by_url))
    assert isinstance(outcome, Finished)
    assert outcome.url == f"{ORIGIN}/files/together/{outcome.job}.jpg"
    assert by_url.draws == ""


@pytest.mark.parametrize(
    ("fate", "outcome"),
    [
        ("fail_job", Unclear("status 500 server_error: The server had an error while processing your request")),
        ("policy_job", Refused("policy", "invalid_request_error: The prompt was flagged by the content policy")),
    ],
)
def test_failures_are_not_charged(world: EmulatorSettings, fate: str, outcome: object) -> None:
    emulator = TogetherEmulator(fated(world, fate))
    assert outcome_of(emulator) == outcome
    ((_, job),) = world.jobs.since(0, 10)
    assert emulator.state(job, job.done_us) == "failed"
    assert emulator.charged(job, job.done_us) == 0


@pytest.mark.parametrize(
    ("key", "state", "reason"),
    [("sandbox-wrong", "rejected", "unauthorized"), ("sandbox-broke", "ok", "no_credit")],
)
def test_keys_that_cannot_buy(emulator: TogetherEmulator, key: str, state: str, reason: str) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret(key))
    assert TOGETHER.read_check(ask(emulator, TOGETHER.build_check(ctx))).state == state
    outcome = outcome_of(emulator, ctx=ctx)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason


def test_a_model_that_is_not_enabled(emulator: TogetherEmulator) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret("sandbox-locked"))
    standing = TOGETHER.read_check(ask(emulator, TOGETHER.build_check(ctx)))
    assert standing == Standing("ok", models=())
    outcome = outcome_of(emulator, ctx=ctx)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "forbidden"
    assert outcome.detail.startswith("third_party_data_sharing_blocked: ")


def test_a_good_key_lists_all_models(emulator: TogetherEmulator) -> None:
    names = tuple(model.name for model in TOGETHER.capabilities.models.value)
    assert TOGETHER.read_check(ask(emulator, TOGETHER.build_check(CTX))) == Standing("ok", models=names)


def test_each_model_has_its_own_rate() -> None:
    emulator = TogetherEmulator(sandbox(rate_factor=2 / 60))  # two calls a minute
    outcomes = [type(outcome_of(emulator)) for _ in range(2)]
    assert outcomes == [Unclear, Unclear]  # taken; the picture is still to be drawn
    throttled = outcome_of(emulator)
    assert throttled == Throttled(30.0)
    assert isinstance(outcome_of(emulator, ImageRequest("x", model="nano-banana-pro")), Unclear)


def test_a_full_house_is_not_our_rate(world: EmulatorSettings) -> None:
    emulator = TogetherEmulator(world, capacity=1)
    submit(emulator, VALID)
    jobs = world.jobs.count()
    full = outcome_of(emulator)
    assert full == Refused("unavailable", "service_unavailable: The service is at capacity; please retry")
    assert world.jobs.count() == jobs
    later = raw(emulator, "POST", IMAGES, START_US + 60 * S, headers=AUTH, body=VALID)
    assert later.status == 200


def test_chaos_speaks_together(emulator: TogetherEmulator) -> None:
    assert TOGETHER.read_submit(http(emulator.refusal("throttled"))) == Throttled(1.0)
    assert isinstance(TOGETHER.read_submit(http(emulator.refusal("broken"))), Unclear)


@pytest.mark.parametrize("name", ["image", "image_by_url", "invalid", "unauthorized", "no_model"])
def test_answers_have_the_recorded_keys(world: EmulatorSettings, emulator: TogetherEmulator, name: str) -> None:
    asked: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "image": (VALID, {}),
        "image_by_url": ({**VALID, "response_format": "url"}, {}),
        "invalid": ({**VALID, "width": 1000}, {}),
        "unauthorized": (VALID, {"Authorization": "Bearer wrong"}),
        "no_model": ({**VALID, "model": "google/none"}, {}),
    }
    body, headers = asked[name]
    reply = whole(emulator, world, submit(emulator, body, **headers))
    recorded, told = ROWS[name], json_of(reply)
    assert reply.status == recorded.status
    assert told.keys() == recorded.body.keys()
    part = "error" if "error" in told else "data"
    assert _keys(told[part]) >= _keys(recorded.body[part])
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= reply.headers.keys()


def _keys(value: object) -> set[str]:
    return set(value) if isinstance(value, dict) else {key for item in value for key in item}  # type: ignore[attr-defined]  # a list of objects


# --- strictness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "google/flash-image-3.1"},
        {**VALID, "prompt": ""},
        {**VALID, "aspect_ratio": "1:1"},
        {**VALID, "width": 1000},
        {**VALID, "width": "1024"},
        {**VALID, "width": 2048},
        {**VALID, "model": "google/flash-image-2.5", "width": 2048, "height": 2048},
        {**VALID, "n": 2},
        {**VALID, "output_format": "webp"},
        {**VALID, "response_format": "b64_json"},
        {**VALID, "response_format": ["base64"]},
        {**VALID, "reference_images": "https://r.example/a.png"},
        {**VALID, "reference_images": ["data:image/png;base64,AAAA"]},
        {**VALID, "reference_images": ["https://missing.example/a.png"]},
        {**VALID, "reference_images": ["https://r.example/a.png"] * 15},
        {**VALID, "reference_images": [7]},
        b"",
        b"[]",
        b'{"prompt":"\xff"}',
    ],
)
def test_what_is_not_documented_is_refused(
    world: EmulatorSettings, emulator: TogetherEmulator, body: dict[str, object] | bytes
) -> None:
    reply = submit(emulator, body)
    no_model = isinstance(body, dict) and "model" not in body
    assert reply.status == (404 if no_model else 400)
    outcome = TOGETHER.read_submit(http(reply))
    assert isinstance(outcome, Refused)
    assert outcome.reason == ("unavailable" if no_model else "invalid")
    assert world.jobs.count() == 0


def test_the_format_is_taken_and_not_honoured(world: EmulatorSettings, emulator: TogetherEmulator) -> None:
    submit(emulator, {**VALID, "output_format": "png"})
    ((_, job),) = world.jobs.since(0, 10)
    assert job.output_format == "jpg"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", IMAGES, 404), ("POST", "/v1/models", 404), ("GET", "/v1/x", 404)]
)
def test_what_is_not_there_is_not_found(emulator: TogetherEmulator, method: str, path: str, status: int) -> None:
    assert raw(emulator, method, path, headers=AUTH, body=VALID).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": KEY}, 401),
        ({"Authorization": "Bearer short"}, 401),
        ({"Authorization": "Bearer tgp_v1_" + "a" * 43}, 200),
    ],
)
def test_keys_are_looked_at_first(emulator: TogetherEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", "/v1/models", headers=headers).status == status


def test_one_call_costs_money(emulator: TogetherEmulator) -> None:
    assert emulator.is_submit(Call("POST", IMAGES, {}, {}, b"", ORIGIN))
    assert not emulator.is_submit(Call("GET", IMAGES, {}, {}, b"", ORIGIN))
    assert not emulator.is_submit(Call("GET", "/v1/models", {}, {}, b"", ORIGIN))


@settings(max_examples=100)
@given(body=st.dictionaries(st.sampled_from([*VALID, "width", "n", "reference_images"]), st.text(max_size=5)))
def test_any_body_gets_an_answer(body: dict[str, str]) -> None:
    reply = submit(TogetherEmulator(sandbox()), {**VALID, **body})
    assert reply.status in (200, 400, 404)
