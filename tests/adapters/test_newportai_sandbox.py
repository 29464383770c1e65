"""The emulated NewportAI: its codec understands it, it is strict, and it charges what it delivers."""

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Context,
    Failed,
    FileBytes,
    Finished,
    HttpCall,
    HttpReply,
    ImageRequest,
    NotVisible,
    Pending,
    Refused,
    Secret,
    Throttled,
    Uploaded,
    UploadRefused,
)
from adapters.newportai import CAPABILITIES, NEWPORTAI
from adapters.prices import DEFAULT_BOOK
from adapters.sandbox.base import Reply
from adapters.sandbox.newportai import NewportAiEmulator
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, base_url, fated, raw, sandbox
from tests.adapters.replies import load

ROWS = load("newportai")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/newportai")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
TOOL, RESULT = "/api/async/nano_banana_2", "/api/getAsyncResult"
REQUEST = ImageRequest("red mug")
LATER = START_US + 10 * S
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> NewportAiEmulator:
    return NewportAiEmulator(world)


def submit(
    emulator: NewportAiEmulator, request: ImageRequest = REQUEST, now_us: int = START_US, ctx: Context = CTX
) -> object:
    return NEWPORTAI.read_submit(ask(emulator, NEWPORTAI.build_submit(request, ctx), now_us))


def buy(emulator: NewportAiEmulator, request: ImageRequest = REQUEST, now_us: int = START_US) -> str:
    outcome = submit(emulator, request, now_us)
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: NewportAiEmulator, job: str, now_us: int = LATER, ctx: Context = CTX) -> object:
    return NEWPORTAI.read_poll(ask(emulator, NEWPORTAI.build_poll(job, ctx), now_us))


def balance(emulator: NewportAiEmulator, now_us: int = LATER) -> int | None:
    return NEWPORTAI.read_check(ask(emulator, NEWPORTAI.build_check(CTX), now_us)).balance_microusd


def with_key(key: str) -> Context:
    return msgspec.structs.replace(CTX, key=Secret(key))


# --- the codec and the emulator understand each other -----------------------------------------------------


def test_a_task_runs_through_its_numbers_to_its_picture(emulator: NewportAiEmulator, world: EmulatorSettings) -> None:
    job = buy(emulator)
    made = world.jobs.get("newportai", job)
    assert made is not None
    seen = []
    for share in (0.05, 0.2, 0.9):
        at_us = made.created_us + round((made.done_us - made.created_us) * share)
        shown = json.loads(ask(emulator, NEWPORTAI.build_poll(job, CTX), at_us).body)["data"]["task"]
        seen.append(shown["status"])
        assert poll(emulator, job, at_us) == Pending()
    assert seen == [0, 1, 2]
    assert poll(emulator, job) == Finished(
        url=f"{ORIGIN}/files/newportai/{job}.jpg", cost_microusd=67_500, expires_s=86_400.0, job=job
    )


@pytest.mark.parametrize("model", [model.name for model in CAPABILITIES.models.value])
def test_whatever_the_capability_record_offers_is_accepted(emulator: NewportAiEmulator, model: str) -> None:
    offered = CAPABILITIES.model(model)
    assert offered is not None
    shapes = [
        ImageRequest("x", model, aspect, resolution, references)
        for aspect in offered.aspects
        for resolution in offered.resolutions
        for references in ((), ("https://refs.example/k.png",) * offered.max_references)
    ]
    for number, shape in enumerate(shapes):
        job = emulator._settings.jobs.get("newportai", buy(emulator, shape, START_US + number * 20 * S))
        assert job is not None
        assert (job.aspect, job.resolution, job.references) == (shape.aspect, shape.resolution, shape.references)


@pytest.mark.parametrize(
    ("fate", "reason", "retryable"), [("fail_job", "provider", True), ("policy_job", "policy", False)]
)
def test_failed_tasks_say_so_and_cost_nothing(world: EmulatorSettings, fate: str, reason: str, retryable: bool) -> None:
    emulator = NewportAiEmulator(fated(world, fate))
    outcome = poll(emulator, buy(emulator))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.cost_microusd) == (reason, retryable, 0)
    assert charged(emulator, world) == 0


def test_a_reference_that_cannot_be_fetched_fails_for_good(emulator: NewportAiEmulator) -> None:
    outcome = poll(emulator, buy(emulator, ImageRequest("x", references=("https://missing.example/k.png",))))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == ("provider", False)
    assert "download" in outcome.detail


# --- money and keys ---------------------------------------------------------------------------------------


def charged(emulator: NewportAiEmulator, world: EmulatorSettings, now_us: int = LATER) -> int:
    return sum(emulator.charged(job, now_us) for _, job in world.jobs.since(0, 99))


def test_bill_balance_and_tasks_tell_the_same_sum(emulator: NewportAiEmulator, world: EmulatorSettings) -> None:
    before = balance(emulator, START_US)
    assert before == 222_000 * 7_500
    told = 0
    for model in CAPABILITIES.models.value:
        for resolution in model.resolutions:
            outcome = poll(emulator, buy(emulator, ImageRequest("x", model.name, resolution=resolution)))
            assert isinstance(outcome, Finished)
            price = DEFAULT_BOOK.quote("newportai", model.name, resolution, references=False)
            assert price is not None
            assert outcome.cost_microusd == price.microusd
            told += outcome.cost_microusd
    assert charged(emulator, world, START_US) == 0
    assert charged(emulator, world) == told
    assert balance(emulator) == before - told


def test_a_changed_price_list_shows_to_the_micro_dollar(world: EmulatorSettings) -> None:
    dearer = NewportAiEmulator(msgspec.structs.replace(world, price_factor=1.1))
    outcome = poll(dearer, buy(dearer))
    assert isinstance(outcome, Finished)
    assert outcome.cost_microusd == charged(dearer, world) == 74_250


@pytest.mark.parametrize(
    ("key", "reason", "standing"),
    [
        ("sandbox-wrong", "unauthorized", "rejected"),
        ("", "unauthorized", "rejected"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "forbidden", "ok"),
    ],
)
def test_a_key_that_is_no_good_buys_nothing(
    emulator: NewportAiEmulator, world: EmulatorSettings, key: str, reason: str, standing: str
) -> None:
    outcome = submit(emulator, ctx=with_key(key))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert NEWPORTAI.read_check(ask(emulator, NEWPORTAI.build_check(with_key(key)))).state == standing
    assert world.jobs.count() == 0


def test_a_key_of_the_real_shape_is_good_and_tasks_are_its_own(emulator: NewportAiEmulator) -> None:
    outcome = submit(emulator, ctx=with_key("sk-0123456789abcdef"))
    assert isinstance(outcome, Accepted)
    assert poll(emulator, outcome.job) == NotVisible()
    assert isinstance(poll(emulator, outcome.job, ctx=with_key("sk-0123456789abcdef")), Finished)


# --- uploads ----------------------------------------------------------------------------------------------


def upload(emulator: NewportAiEmulator, data: bytes, ctx: Context = CTX) -> Uploaded:
    steps = NEWPORTAI.upload(FileBytes("0123abcd.png", "image/png", data), ctx)
    call: HttpCall = next(steps)
    while True:
        try:
            call = steps.send(ask(emulator, call))
        except StopIteration as done:
            uploaded: Uploaded = done.value
            return uploaded


def test_an_uploaded_file_has_an_address_of_its_content(emulator: NewportAiEmulator) -> None:
    one = upload(emulator, PNG + b"1")
    assert one.url.startswith(f"{base_url(emulator)}/uploads/")
    assert upload(emulator, PNG + b"1") == one != upload(emulator, PNG + b"2")
    assert isinstance(poll(emulator, buy(emulator, ImageRequest("x", references=(one.url,)))), Finished)


def test_what_is_no_image_and_who_has_no_key_is_refused(emulator: NewportAiEmulator) -> None:
    with pytest.raises(UploadRefused, match="HTTP 400"):
        upload(emulator, b"text")
    with pytest.raises(UploadRefused, match="code 401") as caught:
        upload(emulator, PNG, with_key("sandbox-wrong"))
    assert caught.value.account


def test_the_storage_wants_the_permit_and_the_file_last(emulator: NewportAiEmulator) -> None:
    steps = NEWPORTAI.upload(FileBytes("0123abcd.png", "image/png", PNG), CTX)
    call = steps.send(ask(emulator, next(steps)))
    assert ask(emulator, call).status == 200
    for spoilt in (
        call.body.replace(b"c2lnbmVk", b"b3RoZXI="),
        call.body.replace(b'name="file"', b'name="image"'),
        b"",
    ):
        assert ask(emulator, msgspec.structs.replace(call, body=spoilt)).status == 403
    assert ask(emulator, msgspec.structs.replace(call, body=call.body.replace(b"dream/", b"other/"))).status == 400


# --- strictness and limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TOOL, b"{"),
        (TOOL, {}),
        (TOOL, {"prompt": "x", "aspect_ratio": "1:1"}),
        (TOOL, {"prompt": "x", "aspectRatio": "auto"}),
        (TOOL, {"prompt": "x", "imageSize": "0.5K"}),
        (TOOL, {"prompt": "x", "images": []}),
        (TOOL, {"prompt": "x", "images": "https://example.org/a.png"}),
        (TOOL, {"prompt": "x" * 4_001}),
        ("/api/async/nano_banana_pro", {"prompt": "x", "imageSize": "512"}),
        (RESULT, {"taskID": "x"}),
        (RESULT, {"taskId": 7}),
        ("/api/file/v1/get_policy", {"scene": "Elsewhere"}),
        ("/api/file/v1/policy_upload_finish", {"reqId": "../x"}),
    ],
)
def test_undocumented_requests_are_refused(
    emulator: NewportAiEmulator, world: EmulatorSettings, path: str, body: object
) -> None:
    reply = raw(emulator, "POST", path, headers=AUTH, body=body)
    assert (reply.status, json.loads(reply.body)["code"]) == (200, 10192)
    assert world.jobs.count() == 0


def test_bodies_are_declared_and_unknown_tools_are_not_found(emulator: NewportAiEmulator) -> None:
    plain = AUTH | {"Content-Type": "text/plain"}
    assert json.loads(raw(emulator, "POST", TOOL, headers=plain, body={"prompt": "x"}).body)["code"] == 10192
    lost = raw(emulator, "POST", "/api/async/nano_banana_9", headers=AUTH, body={"prompt": "x"})
    outcome = NEWPORTAI.read_submit(HttpReply(lost.status, lost.headers, lost.body))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "forbidden"


def test_the_queue_is_full_at_ten(emulator: NewportAiEmulator) -> None:
    for _ in range(10):
        buy(emulator)
    assert submit(emulator) == Throttled()
    assert isinstance(submit(emulator, now_us=LATER), Accepted)


def test_sixty_calls_a_minute_polls_included() -> None:
    emulator = NewportAiEmulator(sandbox(rate_factor=1.0))
    outcomes = [poll(emulator, "x") for _ in range(61)]
    assert outcomes[59:] == [NotVisible(), Throttled()]
    assert submit(emulator) == Throttled()


# --- the rows ---------------------------------------------------------------------------------------------


def answer(emulator: NewportAiEmulator, row: str) -> HttpReply | Reply:
    job = buy(emulator)

    def bought(key: str) -> HttpReply:
        return ask(emulator, NEWPORTAI.build_submit(REQUEST, with_key(key)))

    calls: dict[str, Callable[[], HttpReply | Reply]] = {
        "created": lambda: bought(KEY),
        "unauthorized": lambda: bought("sandbox-wrong"),
        "no_credit": lambda: bought("sandbox-broke"),
        "forbidden": lambda: bought("sandbox-locked"),
        "just_submitted": lambda: ask(emulator, NEWPORTAI.build_poll(job, CTX)),
        "succeeded": lambda: ask(emulator, NEWPORTAI.build_poll(job, CTX), LATER),
        "unknown_task": lambda: ask(emulator, NEWPORTAI.build_poll("none", CTX)),
        "credits": lambda: ask(emulator, NEWPORTAI.build_check(CTX)),
        "throttled": lambda: emulator.refusal("throttled"),
        "broken": lambda: emulator.refusal("broken"),
    }
    return calls[row]()


@pytest.mark.parametrize(
    "row",
    [
        *(
            "created",
            "unauthorized",
            "no_credit",
            "forbidden",
            "just_submitted",
            "succeeded",
            "unknown_task",
            "credits",
        ),
        *("throttled", "broken"),
    ],
)
def test_the_emulator_answers_as_the_rows_do(emulator: NewportAiEmulator, row: str) -> None:
    reply, known = answer(emulator, row), ROWS[row]
    body = json.loads(reply.body)
    assert (reply.status, body["code"]) == (known.status, known.body["code"])
    assert set(body) == set(known.body)
    if isinstance(known.body["data"], dict):
        assert known.body["data"].keys() <= body["data"].keys()


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.sampled_from([TOOL, RESULT, "/oss", "/api/remaining_credits", "/api/file/v1/policy_upload_finish", "/"]),
    key=st.sampled_from(["Bearer sandbox", "Bearer ", "Basic x", ""]),
    body=st.binary(max_size=40) | st.just(b'{"prompt":"\\ud800"}') | st.just(b'{"taskId":[],"reqId":{}}'),
)
def test_any_call_gets_an_answer(method: str, path: str, key: str, body: bytes) -> None:
    reply = raw(NewportAiEmulator(sandbox()), method, path, headers=AUTH | {"Authorization": key}, body=body)
    if path != "/oss":
        assert set(json.loads(reply.body)) == {"code", "message", "data"}
    assert reply.status in (200, 401, 403, 404)
