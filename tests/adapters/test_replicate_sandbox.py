"""Replicate's emulator against the recorded replies, against the codec, and in its own strictness."""

import base64
import hashlib
import hmac
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
    Gone,
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
)
from adapters.replicate import REPLICATE
from adapters.sandbox.base import Job, Reply
from adapters.sandbox.replicate import ReplicateEmulator
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, base_url, fated, json_of, raw, sandbox
from tests.adapters.replies import load

ROWS = load("replicate")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/replicate")
AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
REQUEST = ImageRequest("a red kettle on slate", output_format="png")
CREATE = "/v1/models/google/nano-banana-2/predictions"
HOUR = 3_600 * S


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> ReplicateEmulator:
    return ReplicateEmulator(world)


def buy(emulator: ReplicateEmulator, request: ImageRequest = REQUEST, now_us: int = START_US) -> str:
    outcome = REPLICATE.read_submit(ask(emulator, REPLICATE.build_submit(request, CTX), now_us))
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: ReplicateEmulator, job: str, now_us: int) -> object:
    return REPLICATE.read_poll(ask(emulator, REPLICATE.build_poll(job, CTX), now_us))


def create(emulator: ReplicateEmulator, body: object, path: str = CREATE, **headers: str) -> Reply:
    return raw(emulator, "POST", path, headers=AUTH | headers, body=body)


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("model", ["nano-banana", "nano-banana-2", "nano-banana-pro"])
@pytest.mark.parametrize("references", [(), ("https://refs.example/k.png?x=1",)])
def test_everything_the_record_offers_is_taken(
    emulator: ReplicateEmulator, model: str, references: tuple[str, ...]
) -> None:
    offered = REPLICATE.capabilities.model(model)
    assert offered is not None
    for number, aspect in enumerate(offered.aspects if references else offered.aspects[1:]):
        for resolution in offered.resolutions:
            for output_format in offered.formats:
                request = ImageRequest(
                    f"p{number}", model, aspect, resolution, references, output_format, grounding=offered.grounding
                )
                assert REPLICATE.problem(request) is None
                assert REPLICATE.lane(request) == "default"
                buy(emulator, request)


def test_a_prediction_lives_from_start_to_removal(emulator: ReplicateEmulator) -> None:
    job = buy(emulator)
    assert poll(emulator, job, START_US) == Pending()
    assert poll(emulator, job, START_US + S) == Pending()
    done = poll(emulator, job, START_US + 60 * S)
    assert done == Finished(url=f"{ORIGIN}/files/replicate/{job}.png", expires_s=3600.0, job=job)
    assert isinstance(poll(emulator, job, START_US + HOUR + 60 * S), Gone)


def test_a_pin_is_shown(emulator: ReplicateEmulator) -> None:
    version = "ab" * 32
    done = poll(emulator, buy(emulator, ImageRequest("x", model_version=version)), START_US + 60 * S)
    assert isinstance(done, Finished)
    assert done.model_version == version


@pytest.mark.parametrize(("fate", "reason"), [("fail_job", "provider"), ("policy_job", "policy")])
def test_failures_have_the_words_that_the_codec_knows(fate: str, reason: str) -> None:
    emulator = ReplicateEmulator(fated(sandbox(), fate))
    outcome = poll(emulator, buy(emulator), START_US + 60 * S)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == (reason, reason == "provider")


def test_a_check_names_the_account(emulator: ReplicateEmulator) -> None:
    standing = REPLICATE.read_check(ask(emulator, REPLICATE.build_check(CTX)))
    assert standing.state == "ok"
    assert standing.identity.startswith("user/sandbox-")
    wrong = msgspec.structs.replace(CTX, key=Secret("sandbox-wrong"))
    assert REPLICATE.read_check(ask(emulator, REPLICATE.build_check(wrong))).state == "rejected"


@pytest.mark.parametrize(("key", "reason"), [("sandbox-wrong", "unauthorized"), ("sandbox-broke", "no_credit")])
def test_keys_that_cannot_buy(emulator: ReplicateEmulator, key: str, reason: str) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret(key))
    outcome = REPLICATE.read_submit(ask(emulator, REPLICATE.build_submit(REQUEST, ctx)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason


def test_too_fast_is_said_with_the_wait() -> None:
    emulator = ReplicateEmulator(sandbox(rate_factor=0.01))  # six creates a minute
    call = REPLICATE.build_submit(REQUEST, CTX)
    outcomes = [REPLICATE.read_submit(ask(emulator, call)) for _ in range(7)]
    assert outcomes[-1] == Throttled(10.0)
    assert isinstance(REPLICATE.read_submit(ask(emulator, call, START_US + 10 * S)), Accepted)
    assert REPLICATE.read_submit(_as_http(emulator.refusal("throttled"))) == Throttled(1.0)
    assert isinstance(REPLICATE.read_submit(_as_http(emulator.refusal("broken"))), Unclear)


def _as_http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


def test_polls_have_a_limit_of_their_own() -> None:
    emulator = ReplicateEmulator(sandbox(rate_factor=0.001))  # three other calls a minute
    job = buy(emulator)
    assert [type(poll(emulator, job, START_US)) for _ in range(4)] == [Pending, Pending, Pending, Throttled]


# --- cancelling ---------------------------------------------------------------------------------------------


def test_a_cancel_while_running_is_charged_and_stays(world: EmulatorSettings, emulator: ReplicateEmulator) -> None:
    job = buy(emulator)
    cancel = REPLICATE.build_cancel(job, CTX)
    outcome = REPLICATE.read_cancel(ask(emulator, cancel, START_US + S))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.charged) == ("cancelled", True)
    assert poll(emulator, job, START_US + 60 * S) == outcome
    assert REPLICATE.read_cancel(ask(emulator, cancel, START_US + 60 * S)) == outcome
    assert _charged(world, job) == 67_000


def test_a_cancel_before_the_start_is_free(world: EmulatorSettings, emulator: ReplicateEmulator) -> None:
    job = buy(emulator)
    ask(emulator, REPLICATE.build_cancel(job, CTX), START_US + 1)
    shown = json_of(ask(emulator, REPLICATE.build_poll(job, CTX), START_US + 60 * S))
    assert shown["status"] == "canceled"
    assert "started_at" not in shown
    assert _charged(world, job) == 0


def test_a_cancel_after_the_end_changes_nothing(world: EmulatorSettings, emulator: ReplicateEmulator) -> None:
    job = buy(emulator)
    assert isinstance(
        REPLICATE.read_cancel(ask(emulator, REPLICATE.build_cancel(job, CTX), START_US + 60 * S)), Finished
    )
    assert _charged(world, job) == 67_000


def test_nobody_cancels_what_is_not_theirs(emulator: ReplicateEmulator) -> None:
    job = buy(emulator)
    other = msgspec.structs.replace(CTX, key=Secret("r8_" + "a" * 37))
    assert isinstance(REPLICATE.read_cancel(ask(emulator, REPLICATE.build_cancel(job, other))), NotVisible)
    assert isinstance(REPLICATE.read_poll(ask(emulator, REPLICATE.build_poll(job, other))), NotVisible)
    assert isinstance(poll(emulator, job, START_US + 60 * S), Finished)


def _job(world: EmulatorSettings, job: str) -> Job:
    row = world.jobs.get("replicate", job)
    assert row is not None
    return row


def _charged(world: EmulatorSettings, job: str) -> int:
    return ReplicateEmulator(world).charged(_job(world, job), START_US + HOUR)


@pytest.mark.parametrize(
    ("latency_s", "status", "charged"), [(40.0, "canceled", 67_000), (400.0, "aborted", 0), (1.0, "succeeded", 67_000)]
)
def test_a_deadline_ends_the_prediction(latency_s: float, status: str, charged: int) -> None:
    world = sandbox(latency_s=latency_s)
    emulator = ReplicateEmulator(world)
    body = {"input": {"prompt": "x"}}
    job = str(json_of(create(emulator, body, **{"Cancel-After": "10"}))["id"])
    shown = json_of(ask(emulator, REPLICATE.build_poll(job, CTX), START_US + 60 * S))
    assert shown["status"] == status
    assert _charged(world, job) == charged
    assert not isinstance(poll(emulator, job, START_US + 60 * S), Pending)


@pytest.mark.parametrize("text", ["4", "4s", "0m", "", "soon", "1m30", "-5s"])
def test_an_odd_deadline_is_refused(emulator: ReplicateEmulator, text: str) -> None:
    status = create(emulator, {"input": {"prompt": "x"}}, **{"Cancel-After": text}).status
    assert status == (201 if text == "" else 422)


# --- waiting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "status", "shown", "delay_s"), [("wait", 201, "processing", None), ("wait=1", 202, "starting", 1.0)]
)
def test_a_create_may_be_held(
    emulator: ReplicateEmulator, prefer: str, status: int, shown: str, delay_s: float | None
) -> None:
    reply = create(emulator, {"input": {"prompt": "x"}}, Prefer=prefer)
    assert (reply.status, json_of(reply)["status"]) == (status, shown)
    assert (json_of(reply)["output"] is not None) == (shown == "processing")
    assert 1.0 <= reply.delay_s <= 7.0
    assert delay_s in (None, reply.delay_s)


def test_a_held_failure_says_so() -> None:
    emulator = ReplicateEmulator(fated(sandbox(), "fail_job"))
    assert json_of(create(emulator, {"input": {"prompt": "x"}}, Prefer="wait"))["status"] == "failed"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=x", "respond-async"])
def test_an_odd_wait_is_refused(emulator: ReplicateEmulator, prefer: str) -> None:
    assert create(emulator, {"input": {"prompt": "x"}}, Prefer=prefer).status == 422


# --- strictness ---------------------------------------------------------------------------------------------

VALID: dict[str, Any] = {"prompt": "x", "aspect_ratio": "1:1"}


@pytest.mark.parametrize(
    "body",
    [
        {"input": VALID, "metadata": {"task": 1}},
        {"input": VALID, "version": "google/nano-banana-2"},
        {"input": None},
        {},
        {"input": {**VALID, "seed": 1}},
        {"input": {**VALID, "prompt": ""}},
        {"input": {**VALID, "prompt": 7}},
        {"input": {"aspect_ratio": "1:1"}},
        {"input": {**VALID, "aspect_ratio": "7:5"}},
        {"input": {**VALID, "resolution": "0.5K"}},
        {"input": {**VALID, "output_format": "webp"}},
        {"input": {**VALID, "google_search": "yes"}},
        {"input": {**VALID, "image_input": "https://r.example/a.png"}},
        {"input": {**VALID, "image_input": ["a.png"]}},
        {"input": {**VALID, "image_input": ["https://r.example/a.png"] * 15}},
        {"input": VALID, "webhook": 7},
        {"input": VALID, "webhook": "http://hooks.example/x"},
        {"input": VALID, "webhook": "https://["},
        {"input": VALID, "webhook": "https://hooks.example/x", "webhook_events_filter": ["end"]},
        {"input": VALID, "webhook_events_filter": "completed"},
    ],
)
def test_what_the_schema_does_not_know_is_refused(emulator: ReplicateEmulator, body: object) -> None:
    reply = create(emulator, body)
    assert reply.status == 422
    assert REPLICATE.read_submit(_as_http(reply)) == Refused(
        "invalid", str(json_of(reply)["title"]) + ": " + _one_line(reply)
    )


def _one_line(reply: Reply) -> str:
    return " ".join(str(json_of(reply)["detail"]).split())


def test_the_safety_level_is_a_set(emulator: ReplicateEmulator) -> None:
    path = "/v1/models/google/nano-banana-pro/predictions"
    assert create(emulator, {"input": {"prompt": "x", "safety_filter_level": "none"}}, path).status == 422
    assert create(emulator, {"input": {"prompt": "x", "safety_filter_level": "block_only_high"}}, path).status == 201


@pytest.mark.parametrize(
    ("version", "status", "model"),
    [
        ("google/nano-banana-pro", 201, "google/nano-banana-pro"),
        ("f5318740f60d79bf0c480216aaf9ca7614977553170eacd19ff8cbcda2409ac8", 201, "google/nano-banana-pro"),
        ("google/nano-banana:" + "0" * 64, 201, "google/nano-banana"),
        ("0" * 64, 404, None),
        ("acme/other:" + "0" * 64, 404, None),
        ("latest", 422, None),
        (7, 422, None),
        (None, 422, None),
    ],
)
def test_a_version_is_named_in_three_ways(
    emulator: ReplicateEmulator, version: object, status: int, model: str | None
) -> None:
    reply = create(emulator, {"version": version, "input": {"prompt": "x"}}, "/v1/predictions")
    assert reply.status == status
    assert json_of(reply).get("model") == model


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"input":"\xff"}'])
def test_what_is_no_json_object_is_a_bad_request(emulator: ReplicateEmulator, body: bytes) -> None:
    assert create(emulator, body).status == 400
    assert create(emulator, {"input": VALID}, **{"Content-Type": "text/plain"}).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Authorization": "Bearer hello"}, 401),
        ({"Authorization": f"Token {KEY}"}, 200),
        ({"Authorization": "Bearer r8_" + "a1B" * 12 + "x"}, 200),
    ],
)
def test_keys_are_looked_at_first(emulator: ReplicateEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", "/v1/account", headers=headers).status == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/google/nano-banana-2/predictions"),
        ("DELETE", "/v1/predictions"),
        ("POST", "/v1/models/acme/other/predictions"),
        ("POST", "/v1/predictions/unknown/cancel"),
        ("GET", "/v1/predictions/unknown"),
        ("GET", "/"),
    ],
)
def test_what_is_not_there_is_not_found(emulator: ReplicateEmulator, method: str, path: str) -> None:
    body = {"input": {"prompt": "x"}} if method == "POST" else b""
    assert raw(emulator, method, path, headers=AUTH, body=body).status == 404


# --- the recorded replies -----------------------------------------------------------------------------------


def test_the_emulator_answers_with_the_recorded_keys(emulator: ReplicateEmulator) -> None:
    slow = ReplicateEmulator(sandbox(latency_s=400.0))
    capacity, policy = (ReplicateEmulator(fated(sandbox(), fate)) for fate in ("fail_job", "policy_job"))
    limited = ReplicateEmulator(sandbox(rate_factor=0.0))
    call = REPLICATE.build_submit(REQUEST, CTX)
    ask(limited, call)
    later, removed = START_US + 60 * S, START_US + 2 * HOUR
    cancelled = buy(emulator)
    ask(emulator, REPLICATE.build_cancel(cancelled, CTX), START_US + S)
    aborted = str(json_of(create(slow, {"input": VALID}, **{"Cancel-After": "5s"}))["id"])
    made: dict[str, Reply | HttpReply] = {
        "created": ask(emulator, call),
        "unauthenticated": create(emulator, {}, Authorization="Bearer wrong"),
        "no_credit": create(emulator, {"input": VALID}, Authorization="Bearer sandbox-broke"),
        "no_model": create(emulator, {"input": VALID}, "/v1/models/acme/other/predictions"),
        "invalid": create(emulator, {"input": {**VALID, "resolution": "8K"}}),
        "throttled": ask(limited, call),
        "broken": emulator.refusal("broken"),
        "starting": ask(emulator, REPLICATE.build_poll(buy(emulator), CTX)),
        "succeeded": ask(emulator, REPLICATE.build_poll(buy(emulator), CTX), later),
        "removed": ask(emulator, REPLICATE.build_poll(buy(emulator), CTX), removed),
        "failed_capacity": ask(capacity, REPLICATE.build_poll(buy(capacity), CTX), later),
        "failed_policy": ask(policy, REPLICATE.build_poll(buy(policy), CTX), later),
        "canceled": ask(emulator, REPLICATE.build_poll(cancelled, CTX), later),
        "aborted": ask(slow, REPLICATE.build_poll(aborted, CTX), later),
        "unknown_job": ask(emulator, REPLICATE.build_poll("unknown", CTX)),
        "account": ask(emulator, REPLICATE.build_check(CTX)),
        "wrong_key": raw(emulator, "GET", "/v1/account", headers={"Authorization": "Bearer x"}),
    }
    assert made.keys() == ROWS.keys() - {"created_without_id"}
    for name, reply in made.items():
        recorded = ROWS[name]
        assert (reply.status, json_of(reply).keys()) == (recorded.status, recorded.body.keys()), name
        assert json_of(reply).get("status") == recorded.body.get("status"), name
        assert json_of(reply).get("error") == recorded.body.get("error"), name


# --- the listing --------------------------------------------------------------------------------------------


def listed(emulator: ReplicateEmulator, now_us: int, since_us: int = START_US) -> list[ListedJob]:
    """Read every page the codec asks for."""
    jobs: list[ListedJob] = []
    cursor = None
    while True:
        call = REPLICATE.build_list(CTX, since_us=since_us, until_us=now_us, cursor=cursor)
        page = REPLICATE.read_list(ask(emulator, call, now_us))
        jobs.extend(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return jobs


def test_every_page_together_shows_each_job_once(emulator: ReplicateEmulator) -> None:
    bought = [buy(emulator, ImageRequest(f"prompt {n % 90}"), START_US + n) for n in range(230)]
    shown = listed(emulator, START_US + 60 * S)
    assert [job.job for job in shown] == bought[::-1]
    assert [job.created_us for job in shown] == sorted((job.created_us for job in shown), reverse=True)
    assert all(isinstance(job.outcome, Finished) for job in shown)
    prints = [REPLICATE.fingerprint(ImageRequest(f"prompt {n % 90}"), CTX) for n in range(230)]
    assert [job.fingerprint for job in shown] == prints[::-1]


def test_a_listing_shows_one_account_and_one_window(emulator: ReplicateEmulator) -> None:
    old = buy(emulator, now_us=START_US)
    new = buy(emulator, now_us=START_US + 120 * S)
    other = msgspec.structs.replace(CTX, key=Secret("sandbox-other"))
    ask(emulator, REPLICATE.build_submit(REQUEST, other), START_US + 130 * S)
    assert [job.job for job in listed(emulator, START_US + 200 * S)] == [new, old]
    assert [job.job for job in listed(emulator, START_US + 200 * S, START_US + 60 * S)] == [new]
    assert [job.job for job in listed(emulator, START_US + 60 * S)] == [old]


def test_a_listing_forgets_the_input_after_an_hour(emulator: ReplicateEmulator) -> None:
    buy(emulator)
    (job,) = listed(emulator, START_US + 2 * HOUR)
    assert (job.fingerprint, isinstance(job.outcome, Gone)) == (None, True)


def test_a_listing_may_be_late() -> None:
    emulator = ReplicateEmulator(sandbox(), listing_lag_s=10.0)
    job = buy(emulator)
    assert listed(emulator, START_US + 9 * S) == []
    assert [found.job for found in listed(emulator, START_US + 10 * S)] == [job]


def test_a_next_page_is_complete_as_printed(emulator: ReplicateEmulator) -> None:
    for n in range(101):
        buy(emulator, now_us=START_US + n)
    query = "?created_after=2026-11-22T00:00:00Z"
    first = json_of(raw(emulator, "GET", "/v1/predictions" + query, START_US + S, headers=AUTH))
    assert str(first["next"]).startswith(base_url(emulator) + "/v1/predictions?created_after=")
    second = json_of(raw(emulator, "GET", str(first["next"]), START_US + S, headers=AUTH))
    assert (second["next"], second["previous"]) == (None, None)
    assert isinstance(second["results"], list)
    assert len(second["results"]) == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("source=web", 200),
        ("limit=5", 422),
        ("cursor=x", 422),
        ("cursor=eHh4", 422),
        ("created_after=yesterday", 422),
        ("created_after=2026-11-22T01:00:00", 422),
    ],
)
def test_odd_questions_are_refused(emulator: ReplicateEmulator, query: str, status: int) -> None:
    buy(emulator)
    reply = raw(emulator, "GET", f"/v1/predictions?{query}", START_US + S, headers=AUTH)
    assert reply.status == status
    assert json_of(reply).get("results", []) == []


# --- webhooks -----------------------------------------------------------------------------------------------


def test_a_webhook_tells_what_a_poll_tells_and_is_signed(world: EmulatorSettings, emulator: ReplicateEmulator) -> None:
    body = {"input": VALID, "webhook": "https://hooks.example/r?task=1", "webhook_events_filter": ["completed"]}
    job_id = str(json_of(create(emulator, body))["id"])
    job = _job(world, job_id)
    assert job.callback_url == "https://hooks.example/r?task=1"
    hook = emulator.webhook(job, START_US + 60 * S)
    assert hook.url == job.callback_url
    assert msgspec.json.decode(hook.body) == json_of(
        ask(emulator, REPLICATE.build_poll(job_id, CTX), START_US + 60 * S)
    )
    secret = str(json_of(raw(emulator, "GET", "/v1/webhooks/default/secret", headers=AUTH))["key"])
    signed = b".".join((hook.headers["webhook-id"].encode(), hook.headers["webhook-timestamp"].encode(), hook.body))
    mac = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    assert hook.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({}, ""),
        ({"webhook": "http://127.0.0.1:9/x"}, "http://127.0.0.1:9/x"),
        ({"webhook": "https://hooks.example/x", "webhook_events_filter": ["start", "logs"]}, ""),
    ],
)
def test_only_who_asks_for_the_end_is_called(
    world: EmulatorSettings, emulator: ReplicateEmulator, more: dict[str, object], called: str
) -> None:
    created = json_of(create(emulator, {"input": VALID, **more}))
    assert _job(world, str(created["id"])).callback_url == called


# --- garbage ------------------------------------------------------------------------------------------------

PATHS = st.sampled_from(
    [
        "/v1/predictions",
        CREATE,
        "/v1/account",
        "/v1/predictions/x",
        "/v1/predictions/x/cancel",
        "/v1/models//x/predictions",
    ]
)
HEADER_NAMES = st.sampled_from(["Prefer", "Cancel-After", "Content-Type"])
QUERIES = st.sampled_from(
    ["", "?cursor=é", "?cursor=cD0x", "?created_after=9999-12-31T23:59:59-23:59", "?created_before=0001-01-01"]
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    path=PATHS,
    query=QUERIES,
    headers=st.dictionaries(HEADER_NAMES, st.text(max_size=8)),
    body=st.binary(max_size=40) | st.sampled_from([b'{"input":{"prompt":"x"}}', b"[" * 50_000]),
)
def test_nothing_breaks_the_emulator(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> None:
    emulator = ReplicateEmulator(sandbox())
    reply = raw(emulator, method, path + query, headers=AUTH | headers, body=body)
    assert reply.status in (200, 201, 202, 400, 404, 422)
    assert isinstance(json_of(reply), dict)
    outcome = REPLICATE.read_poll(_as_http(reply)) if reply.status >= 300 else None
    assert outcome is None or isinstance(outcome, NotVisible | Unreadable)


# --- files, and what cannot be had --------------------------------------------------------------------------


def test_an_uploaded_file_can_be_referred_to(emulator: ReplicateEmulator) -> None:
    steps = REPLICATE.upload(FileBytes("0123.png", "image/png", b"\x89PNG..."), CTX)
    with pytest.raises(StopIteration) as ended:
        steps.send(ask(emulator, next(steps)))
    stored: Uploaded = ended.value.value
    assert stored.life_s == 3600.0
    job = buy(emulator, msgspec.structs.replace(REQUEST, references=(stored.url,)))
    assert isinstance(poll(emulator, job, START_US + 60 * S), Finished)


@pytest.mark.parametrize(("headers", "body"), [({}, b"no form"), ({}, {"content": "x"})])
def test_a_file_comes_in_a_form(emulator: ReplicateEmulator, headers: dict[str, str], body: object) -> None:
    assert raw(emulator, "POST", "/v1/files", headers=AUTH | headers, body=body).status == 422


def test_a_reference_that_cannot_be_fetched_fails_for_good(emulator: ReplicateEmulator) -> None:
    job = buy(emulator, msgspec.structs.replace(REQUEST, references=("https://missing.example/k.png",)))
    outcome = poll(emulator, job, START_US + 60 * S)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.cost_microusd) == ("provider", False, 0)


def test_a_model_that_is_not_enabled_is_refused(emulator: ReplicateEmulator) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret("sandbox-locked"))
    refused = REPLICATE.read_submit(ask(emulator, REPLICATE.build_submit(REQUEST, ctx)))
    assert isinstance(refused, Refused)
    assert refused.reason == "forbidden"


def test_one_listing_tells_the_states_of_a_hundred(emulator: ReplicateEmulator) -> None:
    jobs = [buy(emulator, now_us=START_US + n) for n in range(120)]
    call = REPLICATE.build_sweep(jobs, CTX, since_us=START_US - S, until_us=START_US + S)
    found = REPLICATE.read_sweep(ask(emulator, call, START_US + 60 * S))
    assert set(found) == set(jobs[20:])
    assert all(found[job] == poll(emulator, job, START_US + 60 * S) for job in jobs[20:])


def test_the_sandbox_s_own_key_is_the_secret_where_it_has_the_form_of_one(world: EmulatorSettings) -> None:
    """So that one key may be set for all providers."""
    given = ReplicateEmulator(msgspec.structs.replace(world, webhook_key="whsec_cHJhY3RpY2U="))
    assert json_of(raw(given, "GET", "/v1/webhooks/default/secret", headers=AUTH))["key"] == "whsec_cHJhY3RpY2U="
    derived = ReplicateEmulator(msgspec.structs.replace(world, webhook_key="practice"))
    assert len({derived.webhook_secret("a"), derived.webhook_secret("b"), "practice"}) == 3
