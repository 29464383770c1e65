"""The emulated ApiPass: its codec understands it, it is strict, and it charges what it delivers."""

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.apipass import APIPASS, CAPABILITIES
from adapters.base import (
    Accepted,
    Context,
    Failed,
    Finished,
    HttpReply,
    ImageRequest,
    NotVisible,
    Pending,
    Refused,
    Secret,
    Throttled,
)
from adapters.sandbox.apipass import ApiPassEmulator
from adapters.sandbox.base import Reply
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, raw, sandbox
from tests.adapters.replies import load

ROWS = load("apipass")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/apipass")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "User-Agent": "Mozilla/5.0"}
CREATE, RECORD = "/api/v1/jobs/createTask", "/api/v1/jobs/recordInfo"
HOOK = "https://hooks.example.net/apipass?ref=a1"
REQUEST = ImageRequest("red mug")
LATER = START_US + 10 * S


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> ApiPassEmulator:
    return ApiPassEmulator(world)


def submit(emulator: ApiPassEmulator, request: ImageRequest = REQUEST, ctx: Context = CTX) -> object:
    return APIPASS.read_submit(ask(emulator, APIPASS.build_submit(request, ctx)))


def buy(emulator: ApiPassEmulator, request: ImageRequest = REQUEST, ctx: Context = CTX) -> str:
    outcome = submit(emulator, request, ctx)
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: ApiPassEmulator, job: str, now_us: int = LATER, ctx: Context = CTX) -> object:
    return APIPASS.read_poll(ask(emulator, APIPASS.build_poll(job, ctx), now_us))


def with_key(key: str) -> Context:
    return msgspec.structs.replace(CTX, key=Secret(key))


# --- the codec and the emulator understand each other -----------------------------------------------------


def test_a_task_goes_from_creation_to_its_picture(emulator: ApiPassEmulator) -> None:
    job = buy(emulator)
    assert poll(emulator, job, START_US) == NotVisible()
    assert poll(emulator, job, START_US + S) == Pending()
    assert poll(emulator, job) == Finished(url=f"{ORIGIN}/files/apipass/{job}.jpg", expires_s=86_400.0, job=job)


def test_results_come_in_both_of_the_forms_that_were_seen(emulator: ApiPassEmulator) -> None:
    jobs = [buy(emulator, ImageRequest(f"mug {number}")) for number in range(20)]
    forms = set()
    for job in jobs:
        record = json.loads(ask(emulator, APIPASS.build_poll(job, CTX), LATER).body)["data"]
        forms.add(type(record["resultJson"]))
        assert isinstance(poll(emulator, job), Finished)
    assert forms == {str, dict}


@pytest.mark.parametrize("model", [model.name for model in CAPABILITIES.models.value])
def test_whatever_the_capability_record_offers_is_accepted(emulator: ApiPassEmulator, model: str) -> None:
    offered = CAPABILITIES.model(model)
    assert offered is not None
    shapes = [
        ImageRequest("x", model, aspect, resolution, references, image_format)
        for aspect in offered.aspects
        for resolution in offered.resolutions
        for image_format in offered.formats
        for references in ((), ("https://refs.example/k.png",) * offered.max_references)
        if references or aspect != "auto"
    ]
    for shape in shapes:
        job = emulator._settings.jobs.get("apipass", buy(emulator, shape))
        assert job is not None
        assert (job.aspect, job.resolution, job.references) == (shape.aspect, shape.resolution, shape.references)
        assert job.output_format == shape.output_format


@pytest.mark.parametrize(
    ("fate", "reason", "retryable"), [("fail_job", "provider", True), ("policy_job", "policy", False)]
)
def test_failed_tasks_say_so_in_both_spellings_and_cost_nothing(
    world: EmulatorSettings, fate: str, reason: str, retryable: bool
) -> None:
    emulator = ApiPassEmulator(fated(world, fate))
    spelt = set()
    for number in range(20):
        job = buy(emulator, ImageRequest(f"mug {number}"))
        spelt.add(json.loads(ask(emulator, APIPASS.build_poll(job, CTX), LATER).body)["data"]["state"])
        outcome = poll(emulator, job)
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.retryable) == (reason, retryable)
    assert spelt == {"fail", "failed"}
    assert charged(emulator, world) == 0


def test_a_reference_that_cannot_be_fetched_fails_for_good(emulator: ApiPassEmulator) -> None:
    outcome = poll(emulator, buy(emulator, ImageRequest("x", references=("https://missing.example/k.png",))))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == ("provider", False)
    assert "Image fetch failed" in outcome.detail


# --- money and keys ---------------------------------------------------------------------------------------


def charged(emulator: ApiPassEmulator, world: EmulatorSettings, now_us: int = LATER) -> int:
    return sum(emulator.charged(job, now_us) for _, job in world.jobs.since(0, 99))


def test_the_bill_counts_what_was_delivered(emulator: ApiPassEmulator, world: EmulatorSettings) -> None:
    for resolution in ("1K", "2K", "4K"):
        buy(emulator, ImageRequest("a mug", resolution=resolution))
    assert charged(emulator, world, START_US) == 0
    assert charged(emulator, world) == 45_500 + 68_200 + 100_000


def test_a_changed_price_list_shows_in_the_charge(world: EmulatorSettings) -> None:
    dearer = msgspec.structs.replace(world, price_factor=2.0)
    emulator = ApiPassEmulator(dearer)
    buy(emulator)
    assert charged(emulator, world) == 91_000


@pytest.mark.parametrize(
    ("key", "reason", "standing"),
    [
        ("sandbox-wrong", "unauthorized", "rejected"),
        ("", "unauthorized", "rejected"),
        ("sandbox-broke", "no_credit", "ok"),  # nothing but a creation tells: there is no balance
        ("sandbox-locked", "forbidden", "ok"),
    ],
)
def test_a_key_that_is_no_good_buys_nothing(
    emulator: ApiPassEmulator, world: EmulatorSettings, key: str, reason: str, standing: str
) -> None:
    outcome = submit(emulator, ctx=with_key(key))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert APIPASS.read_check(ask(emulator, APIPASS.build_check(with_key(key)))).state == standing
    assert world.jobs.count() == 0


def test_a_key_of_the_real_shape_is_good_and_sees_its_own_tasks_only(emulator: ApiPassEmulator) -> None:
    mine = with_key("apk_0123456789abcdef")
    job = buy(emulator, ctx=mine)
    assert isinstance(poll(emulator, job, ctx=mine), Finished)
    assert poll(emulator, job) == NotVisible()


# --- callbacks --------------------------------------------------------------------------------------------


def test_a_callback_tells_what_a_poll_tells_and_is_not_signed(
    emulator: ApiPassEmulator, world: EmulatorSettings
) -> None:
    job_id = buy(emulator, ctx=msgspec.structs.replace(CTX, callback_url=HOOK))
    (job,) = world.jobs.due_callbacks("apipass", LATER, 9)
    hook = emulator.webhook(job, LATER)
    assert (hook.url, hook.job, hook.headers) == (HOOK, job_id, {"content-type": "application/json"})
    assert APIPASS.read_callback(hook.body) == job_id
    assert APIPASS.read_poll(HttpReply(200, hook.headers, hook.body)) == poll(emulator, job_id)


# --- strictness and limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        {"model": "google/nano-banana-2", "prompt": "x"},  # parameters belong into input
        {"model": "google/nano-banana-2", "input": {"prompt": "x"}, "seed": 1},
        {"model": "nano-banana-2", "input": {"prompt": "x"}},  # that is Kie's name
        {"model": "google/nano-banana-2", "input": {"prompt": "x", "images": []}},
        {"model": "google/nano-banana-2", "input": {"prompt": "x", "image_search": "no"}},
        {"model": "google/nano-banana-pro", "input": {"prompt": "x", "google_search": True}},
        {"model": "google/nano-banana", "input": {"prompt": "x", "resolution": "1K"}},
    ],
)
def test_undocumented_requests_are_refused(emulator: ApiPassEmulator, world: EmulatorSettings, body: object) -> None:
    assert raw(emulator, "POST", CREATE, headers=AUTH, body=body).status == 422
    assert world.jobs.count() == 0


def test_an_unnamed_client_is_turned_away_and_unknown_paths_are_not_found(emulator: ApiPassEmulator) -> None:
    assert raw(emulator, "POST", CREATE, headers=AUTH | {"User-Agent": "curl"}).status == 403
    assert raw(emulator, "GET", "/api/v1/balance", headers=AUTH).status == 404


def test_twenty_creations_per_ten_seconds_and_ten_queries_a_second() -> None:
    world = sandbox(rate_factor=1.0)
    emulator = ApiPassEmulator(world)
    outcomes = [submit(emulator) for _ in range(22)]
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 20 + [Throttled] * 2
    polls = [poll(emulator, "x") for _ in range(11)]
    assert polls[9:] == [NotVisible(), Throttled()]


# --- the rows ---------------------------------------------------------------------------------------------


def as_reply(said: Reply) -> HttpReply:
    return HttpReply(said.status, said.headers, said.body)


def answer(emulator: ApiPassEmulator, row: str) -> HttpReply:
    job = buy(emulator)
    calls: dict[str, Callable[[], HttpReply]] = {
        "created": lambda: ask(emulator, APIPASS.build_submit(REQUEST, CTX)),
        "unauthorized": lambda: ask(emulator, APIPASS.build_submit(REQUEST, with_key("sandbox-wrong"))),
        "no_credit": lambda: ask(emulator, APIPASS.build_submit(REQUEST, with_key("sandbox-broke"))),
        "disabled": lambda: ask(emulator, APIPASS.build_submit(REQUEST, with_key("sandbox-locked"))),
        "not_visible": lambda: ask(emulator, APIPASS.build_poll("none", CTX)),
        "broken": lambda: as_reply(emulator.refusal("broken")),
        "throttled": lambda: as_reply(emulator.refusal("throttled")),
        "waiting": lambda: ask(emulator, APIPASS.build_poll(job, CTX), START_US + S // 2),
    }
    return calls[row]()


@pytest.mark.parametrize(
    "row",
    ["created", "unauthorized", "no_credit", "disabled", "not_visible", "waiting", "broken", "throttled"],
)
def test_the_emulator_answers_as_the_rows_do(row: str) -> None:
    reply = answer(ApiPassEmulator(sandbox(latency_s=1.0)), row)
    known = ROWS[row]
    assert reply.status == known.status
    body = json.loads(reply.body)
    assert set(body) == set(known.body)
    assert body["code"] == known.body["code"]
    if isinstance(known.body["data"], dict):
        assert known.body["data"].keys() <= body["data"].keys()


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.sampled_from([CREATE, RECORD, "/"]),
    key=st.sampled_from(["Bearer sandbox", "Bearer ", "Basic x", ""]),
    body=st.binary(max_size=40) | st.just(b'{"model":"google/nano-banana-2","input":{"prompt":"\\ud800"}}'),
)
def test_any_call_gets_an_answer(method: str, path: str, key: str, body: bytes) -> None:
    reply = raw(ApiPassEmulator(sandbox()), method, path, headers=AUTH | {"Authorization": key}, body=body)
    assert set(json.loads(reply.body)) == {"code", "message", "data"}
    assert json.loads(reply.body)["code"] == reply.status
