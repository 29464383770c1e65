"""WaveSpeed's emulator against the recorded replies, against the codec, and in its own strictness."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Accepted,
    Context,
    Failed,
    FileBytes,
    Finished,
    HttpReply,
    ImageRequest,
    ListedJob,
    NotVisible,
    Pending,
    Refused,
    Secret,
    Throttled,
    Unclear,
    Unreadable,
    Uploaded,
    UploadRefused,
)
from adapters.sandbox.base import Reply
from adapters.sandbox.wavespeed import WaveSpeedEmulator
from adapters.sandbox.wirefmt import EmulatorSettings
from adapters.wavespeed import WAVESPEED
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, json_of, raw, sandbox
from tests.adapters.replies import load

ROWS = load("wavespeed")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/wavespeed")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
REQUEST = ImageRequest("a red mug on slate", output_format="png")
MUG = "https://refs.example/mug.png"
TEXT = "/api/v3/google/nano-banana-2/text-to-image"
EDIT = "/api/v3/google/nano-banana-2/edit"
LATER = START_US + 60 * S
WEEK = 7 * 86_400 * S


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> WaveSpeedEmulator:
    return WaveSpeedEmulator(world)


def buy(
    emulator: WaveSpeedEmulator, request: ImageRequest = REQUEST, now_us: int = START_US, ctx: Context = CTX
) -> str:
    outcome = WAVESPEED.read_submit(ask(emulator, WAVESPEED.build_submit(request, ctx), now_us))
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: WaveSpeedEmulator, job: str, now_us: int) -> object:
    return WAVESPEED.read_poll(ask(emulator, WAVESPEED.build_poll(job, CTX), now_us))


def post(emulator: WaveSpeedEmulator, path: str, body: object, now_us: int = START_US) -> Reply:
    return raw(emulator, "POST", path, now_us, headers=AUTH, body=body)


def data_of(reply: Reply | HttpReply) -> dict[str, Any]:
    data = json_of(reply)["data"]
    assert isinstance(data, dict)
    return data


def with_key(key: str) -> Context:
    return msgspec.structs.replace(CTX, key=Secret(key))


def charged(world: EmulatorSettings, job: str, now_us: int = LATER) -> int:
    row = world.jobs.get("wavespeed", job)
    assert row is not None
    return WaveSpeedEmulator(world).charged(row, now_us)


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("model", [model.name for model in WAVESPEED.capabilities.models.value])
@pytest.mark.parametrize("most", [False, True])
def test_everything_the_record_offers_is_taken(emulator: WaveSpeedEmulator, model: str, most: bool) -> None:
    offered = WAVESPEED.capabilities.model(model)
    assert offered is not None
    references = tuple(f"{MUG}?{n}" for n in range(offered.max_references)) if most else ()
    for number, aspect in enumerate(offered.aspects if most else offered.aspects[1:]):
        for resolution in offered.resolutions:
            for output_format in offered.formats:
                request = ImageRequest(f"p{number}", model, aspect, resolution, references, output_format)
                assert WAVESPEED.problem(request) is None
                buy(emulator, request)


def test_a_prediction_lives_for_a_week(emulator: WaveSpeedEmulator) -> None:
    job = buy(emulator)
    assert poll(emulator, job, START_US) == Pending()
    assert poll(emulator, job, START_US + S) == Pending()
    done = Finished(url=f"{ORIGIN}/files/wavespeed/{job}.png", expires_s=604_800.0, job=job)
    assert poll(emulator, job, LATER) == done
    assert poll(emulator, job, START_US + WEEK - 1) == done
    assert poll(emulator, job, START_US + WEEK) == NotVisible()


def test_both_poll_paths_answer(emulator: WaveSpeedEmulator) -> None:
    job = buy(emulator)
    answers = [
        raw(emulator, "GET", f"/api/v3/predictions/{job}{tail}", LATER, headers=AUTH) for tail in ("", "/result")
    ]
    assert answers[0] == answers[1]
    assert data_of(answers[0])["status"] == "completed"


@pytest.mark.parametrize(
    ("fate", "outcome"),
    [("fail_job", ("provider", True)), ("policy_job", ("policy", False))],
)
def test_failures_have_the_words_that_the_codec_knows_and_are_refunded(fate: str, outcome: tuple[str, bool]) -> None:
    world = fated(sandbox(), fate)
    emulator = WaveSpeedEmulator(world)
    job = buy(emulator)
    failed = poll(emulator, job, LATER)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.retryable) == outcome
    assert charged(world, job) == 0


def test_a_reference_that_is_not_there_fails_for_good_and_is_free(world: EmulatorSettings) -> None:
    emulator = WaveSpeedEmulator(world)
    job = buy(emulator, ImageRequest("x", references=(MUG, "https://missing.example/a.png")))
    failed = poll(emulator, job, LATER)
    assert failed == Failed("provider", "Failed to download the input image", retryable=False)
    assert charged(world, job) == 0


def test_the_balance_goes_down_by_what_was_charged(emulator: WaveSpeedEmulator) -> None:
    buy(emulator, ImageRequest("x", resolution="0.5K"))
    standing = WAVESPEED.read_check(ask(emulator, WAVESPEED.build_check(CTX), LATER))
    assert (standing.state, standing.balance_microusd) == ("ok", 1_000_000_000 - 45_000)


@pytest.mark.parametrize(
    ("key", "reason", "standing"),
    [
        ("sandbox-wrong", "unauthorized", "rejected"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "forbidden", "ok"),
    ],
)
def test_keys_that_cannot_buy(emulator: WaveSpeedEmulator, key: str, reason: str, standing: str) -> None:
    outcome = WAVESPEED.read_submit(ask(emulator, WAVESPEED.build_submit(REQUEST, with_key(key))))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert WAVESPEED.read_check(ask(emulator, WAVESPEED.build_check(with_key(key)))).state == standing


@pytest.mark.parametrize("model", [model.name for model in WAVESPEED.capabilities.models.value])
def test_a_quote_is_what_is_charged(world: EmulatorSettings, model: str) -> None:
    dearer = msgspec.structs.replace(world, price_factor=1.5)
    emulator = WaveSpeedEmulator(dearer)
    offered = WAVESPEED.capabilities.model(model)
    assert offered is not None
    for resolution in offered.resolutions:
        request = ImageRequest("x", model=model, resolution=resolution, references=(MUG,))
        quote = WAVESPEED.read_quote(ask(emulator, WAVESPEED.build_quote(request, CTX)))
        assert quote == charged(dearer, buy(emulator, request))


@pytest.mark.parametrize(
    ("switches", "microusd"),
    [
        ({}, 70_000),
        ({"enable_web_search": True}, 84_000),
        ({"enable_web_search": True, "enable_image_search": True}, 98_000),
    ],
)
def test_each_search_costs_more(
    world: EmulatorSettings, emulator: WaveSpeedEmulator, switches: dict[str, bool], microusd: int
) -> None:
    job = str(data_of(post(emulator, TEXT, {"prompt": "x", **switches}))["id"])
    assert charged(world, job) == microusd


# --- limits -------------------------------------------------------------------------------------------------


def test_too_fast_is_said_with_the_wait() -> None:
    emulator = WaveSpeedEmulator(sandbox(rate_factor=0.2))  # two images a minute
    call = WAVESPEED.build_submit(REQUEST, CTX)
    outcomes = [WAVESPEED.read_submit(ask(emulator, call)) for _ in range(3)]
    assert outcomes[-1] == Throttled(30.0)
    assert isinstance(WAVESPEED.read_submit(ask(emulator, call, START_US + 30 * S)), Accepted)
    assert WAVESPEED.read_submit(_as_http(emulator.refusal("throttled"))) == Throttled(1.0)
    assert isinstance(WAVESPEED.read_submit(_as_http(emulator.refusal("broken"))), Unclear)
    assert isinstance(WAVESPEED.read_poll(_as_http(emulator.refusal("broken"))), Unreadable)


def _as_http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


@pytest.mark.parametrize(("key", "accepted"), [("sandbox", 1), ("sandbox-silver", 50), ("sandbox-gold", 60)])
def test_a_level_lets_more_through(key: str, accepted: int) -> None:
    emulator = WaveSpeedEmulator(sandbox(rate_factor=0.1))
    call = WAVESPEED.build_submit(REQUEST, with_key(key))
    outcomes = [WAVESPEED.read_submit(ask(emulator, call)) for _ in range(60)]
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == accepted


def test_what_is_above_the_concurrency_waits() -> None:
    emulator = WaveSpeedEmulator(sandbox(rate_factor=1.0, latency_s=10.0))
    jobs = [buy(emulator) for _ in range(4)]
    at_us = START_US + 9 * S
    shown = [data_of(ask(emulator, WAVESPEED.build_poll(job, CTX), at_us))["status"] for job in jobs]
    assert shown[3] == "created"
    assert "created" not in shown[:3]


def test_polls_are_not_counted(emulator: WaveSpeedEmulator) -> None:
    job = buy(emulator)
    assert {type(poll(emulator, job, START_US)) for _ in range(200)} == {Pending}


# --- cancelling ---------------------------------------------------------------------------------------------


def test_a_deleted_task_is_charged_and_stays_deleted(world: EmulatorSettings, emulator: WaveSpeedEmulator) -> None:
    job = buy(emulator)
    outcome = WAVESPEED.read_cancel(ask(emulator, WAVESPEED.build_cancel(job, CTX), START_US + S))
    assert outcome == Failed("cancelled", "deleted at WaveSpeed", retryable=False, charged=True)
    assert poll(emulator, job, LATER) == outcome
    assert charged(world, job) == 70_000


def test_many_are_deleted_at_once(emulator: WaveSpeedEmulator) -> None:
    jobs = [buy(emulator), buy(emulator)]
    reply = post(emulator, "/api/v3/predictions/delete", {"ids": [*jobs, "unknown"]}, START_US + S)
    assert data_of(reply) == {"deleted_count": 2}
    assert [type(poll(emulator, job, LATER)) for job in jobs] == [Failed, Failed]
    assert post(emulator, "/api/v3/predictions/delete", {"ids": "all"}).status == 400


def test_nobody_reaches_what_is_not_theirs(emulator: WaveSpeedEmulator) -> None:
    job, other = buy(emulator), with_key("sandbox-other")
    assert WAVESPEED.read_cancel(ask(emulator, WAVESPEED.build_cancel(job, other))) == NotVisible()
    assert WAVESPEED.read_poll(ask(emulator, WAVESPEED.build_poll(job, other))) == NotVisible()
    assert isinstance(poll(emulator, job, LATER), Finished)


# --- sync mode ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fate", "status"), [("ok", "completed"), ("fail_job", "failed")])
def test_in_sync_mode_the_end_is_the_answer(fate: str, status: str) -> None:
    world = sandbox() if fate == "ok" else fated(sandbox(), fate)
    reply = post(WaveSpeedEmulator(world), TEXT, {"prompt": "x", "enable_sync_mode": True})
    assert data_of(reply)["status"] == status
    assert 1.0 <= reply.delay_s <= 7.0


def test_a_sync_request_that_takes_too_long_is_told_its_id() -> None:
    emulator = WaveSpeedEmulator(sandbox(latency_s=600.0))
    reply = post(emulator, TEXT, {"prompt": "x", "enable_sync_mode": True})
    data = data_of(reply)
    assert (data["code"], data["status"], reply.delay_s) == (5004, "processing", 60.0)
    assert "Sync mode timed out" in data["error"]
    assert poll(emulator, data["id"], START_US + 60 * S) == Pending()


# --- callbacks ----------------------------------------------------------------------------------------------

CALLED = msgspec.structs.replace(CTX, callback_url="https://hooks.example/w?attempt=t-1.1&x=ü")


@pytest.mark.parametrize(("fate", "status"), [("ok", "completed"), ("fail_job", "failed")])
@pytest.mark.parametrize("webhook_key", ["", "abc", "whsec_abc"])
def test_a_callback_is_flat_and_its_signature_holds(fate: str, status: str, webhook_key: str) -> None:
    world = msgspec.structs.replace(sandbox() if fate == "ok" else fated(sandbox(), fate), webhook_key=webhook_key)
    emulator = WaveSpeedEmulator(world)
    job = buy(emulator, ctx=CALLED)
    (due,) = world.jobs.due_callbacks("wavespeed", LATER, 10)
    hook = emulator.webhook(due, LATER)
    assert hook.url == CALLED.callback_url
    assert WAVESPEED.read_callback(hook.body) == job
    told = msgspec.json.decode(hook.body)
    recorded = ROWS["completed"].body["data"]
    assert isinstance(recorded, dict)
    assert (told.keys(), told["status"]) == (recorded.keys(), status)
    secret = data_of(raw(emulator, "GET", "/api/v3/webhook/secret", headers=AUTH))["secret"]
    assert not webhook_key or secret == "whsec_abc"
    now_s = LATER / 1e6
    assert WAVESPEED.verify_callback(hook.headers, hook.body, secrets=[Secret(secret)], now_s=now_s)
    assert not WAVESPEED.verify_callback(hook.headers, hook.body + b" ", secrets=[Secret(secret)], now_s=now_s)
    assert not WAVESPEED.verify_callback(hook.headers, hook.body, secrets=[Secret(secret)], now_s=now_s + 302)


@pytest.mark.parametrize("url", ["http://hooks.example/x", "ftp://hooks.example/x", "https://[", "x"])
def test_only_https_is_called_back(emulator: WaveSpeedEmulator, url: str) -> None:
    assert post(emulator, f"{TEXT}?webhook={url}", {"prompt": "x"}).status == 400


def test_this_machine_is_called_back_in_plain(world: EmulatorSettings, emulator: WaveSpeedEmulator) -> None:
    post(emulator, f"{TEXT}?webhook=http://127.0.0.1:9/x", {"prompt": "x"})
    assert [job.callback_url for job in world.jobs.due_callbacks("wavespeed", LATER, 10)] == ["http://127.0.0.1:9/x"]


# --- uploads ------------------------------------------------------------------------------------------------


def upload(emulator: WaveSpeedEmulator, data: bytes, *, cut: bool = False) -> Uploaded:
    steps = WAVESPEED.upload(FileBytes("0f3a.png", "image/png", data), CTX)
    call = next(steps)
    while True:
        if call.method == "PUT":
            assert "Authorization" not in call.headers
            call = msgspec.structs.replace(call, body=call.body[: -1 if cut else None])
        try:
            call = steps.send(ask(emulator, call))
        except StopIteration as done:
            uploaded: Uploaded = done.value
            return uploaded


def test_an_upload_can_be_referred_to(emulator: WaveSpeedEmulator) -> None:
    first, again = upload(emulator, b"mug"), upload(emulator, b"mug")
    assert first == again
    assert first.url.startswith(f"{ORIGIN}/wavespeed/uploads/")
    assert first.life_s == WEEK / S
    assert isinstance(poll(emulator, buy(emulator, ImageRequest("x", references=(first.url,))), LATER), Finished)


def test_an_upload_of_another_size_is_refused(emulator: WaveSpeedEmulator) -> None:
    with pytest.raises(UploadRefused) as caught:
        upload(emulator, b"mug", cut=True)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "body", [{}, {"filename": "", "size": 1}, {"filename": "a", "size": 0}, {"filename": "a", "size": True}]
)
def test_a_ticket_wants_a_name_and_a_size(emulator: WaveSpeedEmulator, body: object) -> None:
    assert post(emulator, "/api/v3/media/uploads", body).status == 400


def test_a_file_of_a_kind_that_is_not_told_has_an_address_too(emulator: WaveSpeedEmulator) -> None:
    data = data_of(post(emulator, "/api/v3/media/uploads", {"filename": "mug", "size": 3}))
    assert data["download_url"].endswith(".bin")
    assert raw(emulator, "PUT", data["upload"]["url"], body=b"mug").status == 200


# --- strictness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ""},
        {"prompt": 7},
        {"prompt": "x", "seed": 1},
        {"prompt": "x", "webhook_url": "https://hooks.example/x"},
        {"prompt": "x", "aspect_ratio": "7:5"},
        {"prompt": "x", "aspect_ratio": "auto"},
        {"prompt": "x", "resolution": "1K"},
        {"prompt": "x", "output_format": "jpg"},
        {"prompt": "x", "enable_web_search": "yes"},
        {"prompt": "x", "enable_base64_output": True},
        {"prompt": "x", "images": [MUG]},
    ],
)
def test_what_the_schema_does_not_know_is_refused(emulator: WaveSpeedEmulator, body: object) -> None:
    outcome = WAVESPEED.read_submit(_as_http(post(emulator, TEXT, body)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "invalid"


@pytest.mark.parametrize("images", [None, MUG, [], [MUG] * 15, ["mug.png"], [7]])
def test_an_edit_wants_images(emulator: WaveSpeedEmulator, images: object) -> None:
    assert post(emulator, EDIT, {"prompt": "x", "images": images}).status == 400


def test_an_image_may_be_data(emulator: WaveSpeedEmulator) -> None:
    assert post(emulator, EDIT, {"prompt": "x", "images": ["data:image/png;base64,AAAA"]}).status == 200


def test_base64_outputs_are_not_served(emulator: WaveSpeedEmulator) -> None:
    path = "/api/v3/google/gemini-2.5-flash-image/text-to-image"
    assert post(emulator, path, {"prompt": "x", "enable_base64_output": False}).status == 200
    assert post(emulator, path, {"prompt": "x", "enable_base64_output": True}).status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"prompt":"\xff"}'])
def test_what_is_no_json_object_is_refused(emulator: WaveSpeedEmulator, body: bytes) -> None:
    assert post(emulator, TEXT, body).status == 400
    plain = AUTH | {"Content-Type": "text/plain"}
    assert raw(emulator, "POST", TEXT, headers=plain, body={"prompt": "x"}).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": KEY}, 401),
        ({"Authorization": "Bearer hello"}, 401),
        ({"Authorization": "Bearer " + "a1" * 32}, 200),
    ],
)
def test_keys_are_looked_at_first(emulator: WaveSpeedEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", "/api/v3/balance", headers=headers).status == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", TEXT),
        ("POST", "/api/v3/google/nano-banana-9/text-to-image"),
        ("GET", "/api/v3/predictions/unknown"),
        ("DELETE", "/api/v3/predictions/unknown/result"),
        ("PUT", "/uploads/x.png"),
        ("GET", "/"),
    ],
)
def test_what_is_not_there_is_not_found(emulator: WaveSpeedEmulator, method: str, path: str) -> None:
    assert raw(emulator, method, path, headers=AUTH, body={} if method == "POST" else b"").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_id": "google/nano-banana-2/text-to-image"},
        {"model_id": "acme/other", "inputs": {"prompt": "x"}},
        {"model_id": "google/nano-banana-2/text-to-image", "inputs": {}},
    ],
)
def test_a_quote_wants_a_whole_request(emulator: WaveSpeedEmulator, body: object) -> None:
    assert post(emulator, "/api/v3/model/price", body).status == 400


def test_the_catalogue_shows_what_our_requests_are_made_of(emulator: WaveSpeedEmulator) -> None:
    catalogue = json_of(raw(emulator, "GET", "/api/v3/models", headers=AUTH))["data"]
    assert isinstance(catalogue, list)
    schemas = {row["model_id"]: row["api_schema"]["api_schemas"][0]["request_schema"] for row in catalogue}
    for model in WAVESPEED.capabilities.models.value:
        for references in ((), (MUG,)):
            request = ImageRequest("x", model=model.name, resolution=model.resolutions[0], references=references)
            call = WAVESPEED.build_submit(request, CTX)
            schema = schemas[call.url.partition("/api/v3/")[2]]
            assert msgspec.json.decode(call.body).keys() == schema["properties"].keys()
            assert set(schema["required"]) == {"prompt"} | ({"images"} if references else set())


# --- the recorded replies -----------------------------------------------------------------------------------


def test_the_emulator_answers_with_the_recorded_keys(emulator: WaveSpeedEmulator) -> None:
    upstream, policy = (WaveSpeedEmulator(fated(sandbox(), fate)) for fate in ("fail_job", "policy_job"))
    limited = WaveSpeedEmulator(sandbox(rate_factor=0.0))
    call = WAVESPEED.build_submit(REQUEST, CTX)
    ask(limited, call)
    deleted = buy(emulator)
    ask(emulator, WAVESPEED.build_cancel(deleted, CTX), START_US + 1)
    unreachable = buy(emulator, ImageRequest("x", references=("https://missing.example/a.png",)))

    def asked(of: WaveSpeedEmulator, job: str, now_us: int) -> HttpReply:
        return ask(of, WAVESPEED.build_poll(job, CTX), now_us)

    def bought_with(key: str) -> HttpReply:
        return ask(emulator, WAVESPEED.build_submit(REQUEST, with_key(key)))

    made: dict[str, Reply | HttpReply] = {
        "created": ask(emulator, call),
        "invalid": post(emulator, TEXT, {"prompt": "x", "resolution": "8k"}),
        "unauthorized": bought_with("wrong"),
        "no_credit": bought_with("sandbox-broke"),
        "forbidden": bought_with("sandbox-locked"),
        "no_model": post(emulator, "/api/v3/google/nano-banana-9/text-to-image", {"prompt": "x"}),
        "throttled": ask(limited, call),
        "broken": emulator.refusal("broken"),
        "waiting": asked(emulator, buy(emulator), START_US),
        "processing": asked(emulator, buy(emulator), START_US + S),
        "completed": asked(emulator, buy(emulator), LATER),
        "failed_upstream": asked(upstream, buy(upstream), LATER),
        "failed_policy": asked(policy, buy(policy), LATER),
        "failed_reference": asked(emulator, unreachable, LATER),
        "deleted": asked(emulator, deleted, LATER),
        "unknown_job": asked(emulator, "unknown", LATER),
        "balance": ask(emulator, WAVESPEED.build_check(CTX)),
        "no_balance": ask(emulator, WAVESPEED.build_check(with_key("sandbox-broke"))),
        "wrong_key": ask(emulator, WAVESPEED.build_check(with_key("wrong"))),
    }
    assert made.keys() == ROWS.keys() - {"created_without_id", "error_in_success"}
    for name, reply in made.items():
        recorded, body = ROWS[name], json_of(reply)
        assert (reply.status, body.keys()) == (recorded.status, recorded.body.keys()), name
        if "data" in body:
            shown, expected = body["data"], recorded.body["data"]
            assert isinstance(shown, dict)
            assert isinstance(expected, dict)
            assert shown.keys() == expected.keys(), name
            assert (shown.get("status"), shown.get("error")) == (expected.get("status"), expected.get("error")), name
        else:
            assert body["message"] == recorded.body["message"], name


# --- the listing --------------------------------------------------------------------------------------------


def listed(emulator: WaveSpeedEmulator, now_us: int, since_us: int = START_US) -> list[ListedJob]:
    """Read every page the codec asks for."""
    jobs: list[ListedJob] = []
    cursor = None
    while True:
        call = WAVESPEED.build_list(CTX, since_us=since_us, until_us=now_us, cursor=cursor)
        page = WAVESPEED.read_list(ask(emulator, call, now_us))
        jobs.extend(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return jobs


def test_every_page_together_shows_each_job_once(emulator: WaveSpeedEmulator) -> None:
    bought = [buy(emulator, ImageRequest(f"prompt {n}"), START_US + n) for n in range(230)]
    shown = listed(emulator, START_US + WEEK // 2)
    assert [job.job for job in shown] == bought[::-1]
    assert {type(job.outcome) for job in shown} == {Finished}
    assert {job.fingerprint for job in shown} == {None}


def test_a_listing_shows_one_account_one_window_and_one_week(emulator: WaveSpeedEmulator) -> None:
    old = buy(emulator, now_us=START_US)
    new = buy(emulator, now_us=START_US + 120 * S)
    buy(emulator, now_us=START_US + 121 * S, ctx=with_key("sandbox-other"))
    at_us = START_US + 200 * S
    assert [job.job for job in listed(emulator, at_us)] == [new, old]
    assert [job.job for job in listed(emulator, at_us, START_US + 60 * S)] == [new]
    assert [job.job for job in listed(emulator, START_US + WEEK + 60 * S)] == [new]


def test_a_new_prediction_may_be_listed_late() -> None:
    emulator = WaveSpeedEmulator(sandbox(), listing_lag_s=30.0)
    job = buy(emulator)
    assert listed(emulator, START_US + 29 * S) == []
    assert [item.job for item in listed(emulator, START_US + 31 * S)] == [job]


def test_a_sweep_tells_the_states_of_a_page(emulator: WaveSpeedEmulator) -> None:
    jobs = [buy(emulator, now_us=START_US + n) for n in range(120)]
    call = WAVESPEED.build_sweep(jobs[-100:], CTX, since_us=START_US, until_us=LATER)
    told = WAVESPEED.read_sweep(ask(emulator, call, LATER))
    assert told.keys() == set(jobs[-100:])
    assert {type(outcome) for outcome in told.values()} == {Finished}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"status": "completed"}, 1),
        ({"status": "failed"}, 0),
        ({"model": "google/nano-banana-2/text-to-image"}, 2),
        ({"model": "acme/other"}, 0),
        ({"page": 2, "page_size": 1}, 1),
        ({}, 2),
    ],
)
def test_a_listing_may_be_narrowed(emulator: WaveSpeedEmulator, asked: dict[str, object], found: int) -> None:
    buy(emulator)
    buy(emulator, now_us=LATER)
    reply = post(emulator, "/api/v3/predictions", asked, LATER)
    assert len(data_of(reply)["items"]) == found


@pytest.mark.parametrize(
    "asked",
    [
        {"page": 0},
        {"page": "1"},
        {"page": True},
        {"page_size": 101},
        {"status": "done"},
        {"model": 7},
        {"created_after": "yesterday"},
        {"created_after": 1},
        {"created_before": "2026-11-22T01:00:00"},
        {"limit": 5},
    ],
)
def test_a_strange_question_to_the_listing_is_refused(emulator: WaveSpeedEmulator, asked: object) -> None:
    assert post(emulator, "/api/v3/predictions", asked).status == 400


# --- garbage ------------------------------------------------------------------------------------------------


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.sampled_from([TEXT, EDIT, "/api/v3/predictions", "/api/v3/model/price", "/api/v3/media/uploads", "/"]),
    body=st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["prompt", "images", "resolution", "page", "created_after", "model_id", "inputs", "size"]),
        st.none() | st.text(max_size=6) | st.integers() | st.lists(st.text(max_size=6), max_size=2),
        max_size=4,
    ).map(msgspec.json.encode),
)
def test_any_request_is_answered_in_its_words(method: str, path: str, body: bytes) -> None:
    reply = raw(WaveSpeedEmulator(sandbox()), method, path, headers=AUTH, body=body)
    told = json_of(reply)
    assert told["code"] == reply.status
    assert isinstance(told["message"], str)
