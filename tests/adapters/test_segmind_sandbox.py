"""Segmind's emulator against the recorded replies, against the codec, and in its own strictness."""

import uuid
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
    Uploaded,
)
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.segmind import SegmindEmulator
from adapters.sandbox.wirefmt import EmulatorSettings
from adapters.segmind import SEGMIND
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, base_url, fated, json_of, raw, sandbox
from tests.adapters.replies import load

ROWS = load("segmind")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/segmind", marker=77)
AUTH = {"x-api-key": KEY, "Content-Type": "application/json"}
REQUEST = ImageRequest("red mug, studio light")
HOUR = 3_600 * S
HISTORY = "/inference-request/request-history"


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> SegmindEmulator:
    return SegmindEmulator(world)


def buy(emulator: SegmindEmulator, request: ImageRequest = REQUEST, now_us: int = START_US, ctx: Context = CTX) -> str:
    outcome = SEGMIND.read_submit(ask(emulator, SEGMIND.build_submit(request, ctx), now_us))
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: SegmindEmulator, job: str, now_us: int) -> object:
    return SEGMIND.read_poll(ask(emulator, SEGMIND.build_poll(job, CTX), now_us))


def submit(emulator: SegmindEmulator, body: object, path: str = "/v2/nano-banana-2", **headers: str) -> Reply:
    return raw(emulator, "POST", path, headers=AUTH | headers, body=body)


def get(emulator: SegmindEmulator, path: str, now_us: int = START_US, key: str = KEY) -> Reply:
    return raw(emulator, "GET", path, now_us, headers={"x-api-key": key})


def http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("model", ["nano-banana", "nano-banana-2", "nano-banana-pro"])
def test_everything_the_record_offers_is_taken(emulator: SegmindEmulator, model: str) -> None:
    offered = SEGMIND.capabilities.model(model)
    assert offered is not None
    references = ("https://refs.example/k.png?x=1",) * offered.max_references
    for aspect in offered.aspects:
        for resolution in offered.resolutions:
            for output_format in offered.formats:
                request = ImageRequest(
                    "p", model, aspect, resolution, references, output_format, grounding=offered.grounding
                )
                assert SEGMIND.problem(request) is None
                buy(emulator, request)
    if offered.seed:
        buy(emulator, ImageRequest("p", model, seed=2**31 - 1))
        buy(emulator, ImageRequest("p", model), ctx=msgspec.structs.replace(CTX, marker=0))


def test_a_request_lives_from_queue_to_expiry(emulator: SegmindEmulator) -> None:
    job = buy(emulator)
    assert str(uuid.UUID(job)) == job
    assert poll(emulator, job, START_US) == Pending()
    done = poll(emulator, job, START_US + 60 * S)
    assert done == Finished(
        url=f"{ORIGIN}/files/segmind/{job}.jpg", cost_microusd=84_000, expires_s=7 * 86_400.0, job=job
    )
    assert poll(emulator, job, START_US + HOUR - 1) == done
    assert poll(emulator, job, START_US + HOUR) == NotVisible()


def test_the_light_status_knows_the_four_states(world: EmulatorSettings, emulator: SegmindEmulator) -> None:
    job = buy(emulator)
    path = f"/v2/requests/{job}/status"
    shown = [json_of(get(emulator, path, START_US + at))["status"] for at in (0, S, 60 * S)]
    assert shown == ["QUEUED", "PROCESSING", "COMPLETED"]
    assert json_of(get(emulator, path, START_US + 60 * S))["metrics"] != {}
    assert get(emulator, path, START_US + HOUR).status == 404
    failing = SegmindEmulator(fated(world, "fail_job"))
    failed = get(failing, f"/v2/requests/{buy(failing)}/status", START_US + 60 * S)
    assert (failed.status, json_of(failed)["status"]) == (422, "FAILED")


@pytest.mark.parametrize(("fate", "reason"), [("fail_job", "provider"), ("policy_job", "policy")])
def test_failures_have_the_words_that_the_codec_knows(world: EmulatorSettings, fate: str, reason: str) -> None:
    emulator = SegmindEmulator(fated(world, fate))
    job = buy(emulator)
    outcome = poll(emulator, job, START_US + 60 * S)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable, outcome.cost_microusd) == (reason, reason == "provider", 0)
    assert emulator.charged(_job(world, job), START_US + 60 * S) == 0


def _job(world: EmulatorSettings, job: str) -> Job:
    row = world.jobs.get("segmind", job)
    assert row is not None
    return row


def test_a_reference_that_is_not_there_fails_for_good_and_is_free(
    world: EmulatorSettings, emulator: SegmindEmulator
) -> None:
    job = buy(emulator, ImageRequest("x", references=("https://missing.example/a.png",)))
    outcome = poll(emulator, job, START_US + 60 * S)
    assert outcome == Failed("provider", "Invalid image_urls: an image could not be downloaded", retryable=False)
    assert emulator.charged(_job(world, job), START_US + 60 * S) == 0


def test_a_429_out_of_turn_names_its_reset_too(emulator: SegmindEmulator) -> None:
    reply = emulator.refusal("throttled")
    dated = HttpReply(reply.status, {**reply.headers, "date": "Sun, 22 Nov 2026 01:00:00 GMT"}, reply.body)
    assert SEGMIND.read_submit(dated) == SEGMIND.read_poll(dated) == Throttled(0.0)


def test_only_what_completed_is_on_the_bill(world: EmulatorSettings, emulator: SegmindEmulator) -> None:
    job = _job(world, buy(emulator, ImageRequest("x", resolution="4K")))
    assert [emulator.charged(job, START_US + at) for at in (0, 60 * S)] == [0, 168_000]


@pytest.mark.parametrize(
    ("key", "state", "reason"),
    [
        ("sandbox-wrong", "rejected", "unauthorized"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "ok", "forbidden"),
    ],
)
def test_keys_that_cannot_buy(emulator: SegmindEmulator, key: str, state: str, reason: str) -> None:
    ctx = msgspec.structs.replace(CTX, key=Secret(key))
    assert SEGMIND.read_check(ask(emulator, SEGMIND.build_check(ctx))).state == state
    outcome = SEGMIND.read_submit(ask(emulator, SEGMIND.build_submit(REQUEST, ctx)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason


def test_the_balance_falls_with_what_completed(emulator: SegmindEmulator) -> None:
    buy(emulator)
    check = SEGMIND.build_check(CTX)
    left = [SEGMIND.read_check(ask(emulator, check, START_US + at)).balance_microusd for at in (0, 60 * S)]
    assert left == [1_000_000_000, 1_000_000_000 - 84_000]


def test_submits_and_polls_share_one_limit() -> None:
    emulator = SegmindEmulator(sandbox(rate_factor=0.06))  # three calls a minute
    job = buy(emulator)
    assert [type(poll(emulator, job, START_US)) for _ in range(3)] == [Pending, Pending, Throttled]
    refused = ask(emulator, SEGMIND.build_submit(REQUEST, CTX))
    dated = HttpReply(refused.status, {**refused.headers, "date": "Sun, 22 Nov 2026 01:00:00 GMT"}, refused.body)
    assert SEGMIND.read_submit(refused) == Throttled(None)
    assert SEGMIND.read_submit(dated) == Throttled(20.0)
    assert get(emulator, HISTORY).status == 200  # another host, another limit


def test_chaos_speaks_segmind(emulator: SegmindEmulator) -> None:
    assert SEGMIND.read_submit(http(emulator.refusal("throttled"))) == Throttled(None)
    assert isinstance(SEGMIND.read_submit(http(emulator.refusal("broken"))), Unclear)


# --- queues -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("aspect_queues", "square_done"), [(True, True), (False, False)])
def test_a_stalled_aspect_holds_its_own_queue_only(aspect_queues: bool, square_done: bool) -> None:
    emulator = SegmindEmulator(sandbox(), stalled_s={"9:16": 900.0}, aspect_queues=aspect_queues)
    tall, square = buy(emulator, ImageRequest("x", aspect="9:16")), buy(emulator, ImageRequest("x", aspect="1:1"))
    assert poll(emulator, tall, START_US + 60 * S) == Pending()
    assert isinstance(poll(emulator, square, START_US + 60 * S), Finished) == square_done
    assert isinstance(poll(emulator, tall, START_US + 960 * S), Finished)


# --- strictness ---------------------------------------------------------------------------------------------

VALID: dict[str, Any] = {"prompt": "x"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"prompt": ""}, 400),
        ({"prompt": 7}, 400),
        ({**VALID, "samples": 1}, 400),
        ({**VALID, "aspect_ratio": "7:5"}, 406),
        ({**VALID, "aspect_ratio": None}, 406),
        ({**VALID, "output_resolution": "0.5K"}, 406),
        ({**VALID, "output_format": "webp"}, 406),
        ({**VALID, "thinking_level": "low"}, 406),
        ({**VALID, "response_modalities": "TEXT"}, 406),
        ({**VALID, "web_search": 1}, 406),
        ({**VALID, "seed": "7"}, 406),
        ({**VALID, "seed": -2}, 406),
        ({**VALID, "seed": 2**31}, 406),
        ({**VALID, "safety_tolerance": True}, 406),
        ({**VALID, "image_urls": "https://r.example/a.png"}, 406),
        ({**VALID, "image_urls": ["a.png"]}, 406),
        ({**VALID, "image_urls": ["https://r.example/a.png"] * 15}, 406),
        (b"", 400),
        (b"[]", 400),
        (b'{"prompt":"\xff"}', 400),
    ],
)
def test_what_the_page_does_not_name_is_refused(emulator: SegmindEmulator, body: object, status: int) -> None:
    reply = submit(emulator, body)
    assert reply.status == status
    assert SEGMIND.read_submit(http(reply)) == Refused("invalid", str(json_of(reply)["error"]))


def test_the_first_model_takes_four_fields_only(emulator: SegmindEmulator) -> None:
    assert submit(emulator, {**VALID, "seed": 1}, "/v2/nano-banana").status == 400
    assert submit(emulator, {**VALID, "response_modalities": "IMAGE"}, "/v2/nano-banana").status == 200


def test_the_content_type_must_be_there(emulator: SegmindEmulator) -> None:
    reply = raw(emulator, "POST", "/v2/nano-banana-2", headers={"x-api-key": KEY}, body=VALID)
    assert SEGMIND.read_submit(http(reply)) == Refused("invalid", "Invalid content type")
    assert reply.status == 406


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/nano-banana-2"),
        ("POST", "/v2/requests/x"),
        ("POST", "/v2/requests/x/status"),
        ("DELETE", "/v1/get-user-credits"),
        ("POST", HISTORY),
        ("PUT", HISTORY + "/x"),
        ("GET", "/upload-asset"),
    ],
)
def test_a_wrong_verb_answers_a_page(emulator: SegmindEmulator, method: str, path: str) -> None:
    reply = raw(emulator, method, path, headers=AUTH)
    assert reply.status == 405
    assert reply.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/v3/x", "/", "/v2/requests/unknown", "/v1/requests/unknown", HISTORY + "/unknown"])
def test_what_is_not_there_is_not_found(emulator: SegmindEmulator, path: str) -> None:
    assert get(emulator, path).status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 401),
        ({"x-api-key": "SG_0123456789abcdef"}, 200),
        ({"x-api-key": "SG_short"}, 401),
    ],
)
def test_keys_are_looked_at_first(emulator: SegmindEmulator, headers: dict[str, str], status: int) -> None:
    assert raw(emulator, "GET", "/v1/get-user-credits", headers=headers).status == status


def test_a_request_is_shown_to_its_owner_only(emulator: SegmindEmulator) -> None:
    job = buy(emulator)
    for path in (f"/v2/requests/{job}", f"/v2/requests/{job}/status", f"{HISTORY}/{job}"):
        assert get(emulator, path, key="sandbox-other").status == 404
        assert get(emulator, path).status == 200


@pytest.mark.parametrize(
    ("method", "path", "costs"),
    [
        ("POST", "/v2/nano-banana-2", True),
        ("POST", "/v1/nano-banana", True),
        ("GET", "/v2/nano-banana-2", False),
        ("GET", "/v2/requests/x", False),
        ("POST", "/v2/requests/x", False),
        ("POST", "/upload-asset", False),
    ],
)
def test_one_call_costs_money(emulator: SegmindEmulator, method: str, path: str, costs: bool) -> None:
    assert emulator.is_submit(Call(method, path, {}, {}, b"", ORIGIN)) == costs


# --- v1 and uploads -----------------------------------------------------------------------------------------


def test_the_blocking_form_answers_the_image_itself(world: EmulatorSettings, emulator: SegmindEmulator) -> None:
    reply = submit(emulator, {**VALID, "output_format": "png"}, "/v1/nano-banana-2")
    assert (reply.status, reply.headers["content-type"], reply.headers["x-cost"]) == (200, "image/png", "0.084")
    assert reply.delay_s > 1.0
    assert read_digest(reply.body) == request_digest("x", (), "1:1", "1K")
    job = _job(world, reply.headers["x-request-id"])
    assert emulator.charged(job, START_US + 60 * S) == 84_000
    failing = SegmindEmulator(fated(world, "fail_job"))
    assert submit(failing, VALID, "/v1/nano-banana").status == 500
    assert submit(emulator, VALID, "/v1/nano-banana").headers["content-type"] == "image/jpeg"


def test_an_upload_gives_a_name_for_the_bytes(emulator: SegmindEmulator) -> None:
    urls = ["data:image/png;base64,AAAA", "data:image/png;base64,BBBB"]
    first, second = (json_of(submit(emulator, {"data_urls": urls}, "/upload-asset"))["file_urls"] for _ in range(2))
    assert first == second
    assert isinstance(first, list)
    assert len(set(first)) == 2


def test_an_upload_of_our_codec_can_be_referred_to(emulator: SegmindEmulator) -> None:
    def upload(data: bytes) -> str:
        steps = SEGMIND.upload(FileBytes("0f3a.png", "image/png", data), CTX)
        with pytest.raises(StopIteration) as done:
            steps.send(ask(emulator, next(steps)))
        uploaded: Uploaded = done.value.value
        return uploaded.url

    assert upload(b"mug") == upload(b"mug") != upload(b"cup")
    job = buy(emulator, ImageRequest("x", references=(upload(b"mug"),)))
    assert isinstance(poll(emulator, job, START_US + 60 * S), Finished)


@pytest.mark.parametrize(
    "body", [b"", {}, {"data_urls": []}, {"data_urls": ["https://x.example/a.png"]}, {"data_urls": "x"}]
)
def test_an_upload_of_something_else_is_refused(emulator: SegmindEmulator, body: object) -> None:
    assert submit(emulator, body, "/upload-asset").status == 400


# --- the recorded replies -----------------------------------------------------------------------------------


def test_the_emulator_answers_with_the_recorded_keys(world: EmulatorSettings, emulator: SegmindEmulator) -> None:
    failing, policy = (SegmindEmulator(fated(world, fate)) for fate in ("fail_job", "policy_job"))
    later = START_US + 60 * S
    broke = {"x-api-key": "sandbox-broke"}
    made: dict[str, Reply | HttpReply] = {
        "submitted": ask(emulator, SEGMIND.build_submit(REQUEST, CTX)),
        "malformed": submit(emulator, {}),
        "unauthorized": raw(emulator, "POST", "/v2/nano-banana-2", body=VALID),
        "no_model": submit(emulator, VALID, "/v2/other"),
        "content_type": submit(emulator, VALID, **{"Content-Type": "text/plain"}),
        "rejected_value": submit(emulator, {**VALID, "output_resolution": "8K"}),
        "no_credit": submit(emulator, VALID, **broke),
        "throttled": emulator.refusal("throttled"),
        "broken": emulator.refusal("broken"),
        "queued": ask(emulator, SEGMIND.build_poll(buy(emulator), CTX)),
        "completed": ask(emulator, SEGMIND.build_poll(buy(emulator), CTX), later),
        "failed": ask(failing, SEGMIND.build_poll(buy(failing), CTX), later),
        "failed_policy": ask(policy, SEGMIND.build_poll(buy(policy), CTX), later),
        "expired": ask(emulator, SEGMIND.build_poll(buy(emulator), CTX), START_US + 2 * HOUR),
        "credits": ask(emulator, SEGMIND.build_check(CTX)),
        "no_credits": raw(emulator, "GET", "/v1/get-user-credits", headers=broke),
        "wrong_key": get(emulator, "/v1/get-user-credits", key="x"),
    }
    assert made.keys() == ROWS.keys() - {"submitted_without_id", "retired", "spend_limit"}
    for name, reply in made.items():
        recorded = ROWS[name]
        assert (reply.status, json_of(reply).keys()) == (recorded.status, recorded.body.keys()), name
        for field in ("status", "error", "error_description"):
            assert json_of(reply).get(field) == recorded.body.get(field), name
        metrics, recorded_metrics = json_of(reply).get("metrics", {}), recorded.body.get("metrics", {})
        assert isinstance(metrics, dict)
        assert isinstance(recorded_metrics, dict)
        assert metrics.keys() == recorded_metrics.keys(), name


# --- the history --------------------------------------------------------------------------------------------


def listed(emulator: SegmindEmulator, now_us: int, since_us: int = START_US) -> list[ListedJob]:
    """Read every page the codec asks for."""
    jobs: list[ListedJob] = []
    cursor = None
    while True:
        call = SEGMIND.build_list(CTX, since_us=since_us, until_us=now_us, cursor=cursor)
        page = SEGMIND.read_list(ask(emulator, call, now_us))
        jobs.extend(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return jobs


def test_every_page_together_shows_each_request_once(emulator: SegmindEmulator) -> None:
    contexts = [msgspec.structs.replace(CTX, marker=n + 1) for n in range(230)]
    bought = [buy(emulator, REQUEST, START_US + ctx.marker, ctx) for ctx in contexts]
    shown = listed(emulator, START_US + 2 * HOUR)
    assert [job.job for job in shown] == bought[::-1]
    assert [job.fingerprint for job in shown] == [SEGMIND.fingerprint(REQUEST, ctx) for ctx in contexts[::-1]]
    assert {job.cost_microusd for job in shown} == {84_000}
    assert all(isinstance(job.outcome, Finished) for job in shown)


def test_full_pages_end_where_the_total_does(emulator: SegmindEmulator) -> None:
    assert listed(emulator, START_US) == []
    for n in range(200):
        buy(emulator, now_us=START_US + n)
    assert len(listed(emulator, START_US + S)) == 200


def test_the_history_knows_what_a_poll_has_forgotten(world: EmulatorSettings) -> None:
    emulator = SegmindEmulator(fated(world, "policy_job"))
    job = buy(emulator)
    (running,) = listed(emulator, START_US + 1)
    (failed,) = listed(emulator, START_US + 3 * HOUR)
    assert (running.job, running.outcome) == (job, Pending())
    assert isinstance(failed.outcome, Failed)
    assert failed.outcome.reason == "policy"
    single = json_of(get(emulator, f"{HISTORY}/{job}", START_US + 3 * HOUR))
    assert (single["model_status"], single["request_body"]) == (
        "FAILED",
        msgspec.json.decode(SEGMIND.build_submit(REQUEST, CTX).body),
    )


def test_a_recall_finds_the_file_that_polls_have_forgotten(emulator: SegmindEmulator) -> None:
    job, now_us = buy(emulator), START_US + 8 * HOUR
    assert poll(emulator, job, now_us) == NotVisible()
    outcome = SEGMIND.read_recall(ask(emulator, SEGMIND.build_recall(job, CTX), now_us))
    assert isinstance(outcome, Finished)
    assert outcome.url == f"{ORIGIN}/files/segmind/{job}.jpg"
    assert SEGMIND.read_recall(ask(emulator, SEGMIND.build_recall("unknown", CTX), now_us)) == NotVisible()


def test_the_history_may_be_late(world: EmulatorSettings) -> None:
    emulator = SegmindEmulator(world, listing_lag_s=10.0)
    job = buy(emulator)
    assert listed(emulator, START_US + 9 * S) == []
    assert get(emulator, f"{HISTORY}/{job}", START_US + 9 * S).status == 404
    assert [found.job for found in listed(emulator, START_US + 10 * S)] == [job]
    assert get(emulator, f"{HISTORY}/{job}", START_US + 10 * S).status == 200


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 3),
        ("?from_date=2026-11-22&to_date=2026-11-22", 3),
        ("?from_date=2026-11-23&to_date=2026-11-23", 0),
        ("?model_name=pro", 1),
        ("?status=PENDING", 0),
        ("?status=COMPLETED&per_page=2&page=2", 1),
        ("?sort_by=model_created&sort_order=asc", 3),
    ],
)
def test_the_history_filters_by_whole_days_and_words(emulator: SegmindEmulator, query: str, count: int) -> None:
    bought = [
        buy(emulator, ImageRequest("x", model=model)) for model in ("nano-banana", "nano-banana-2", "nano-banana-pro")
    ]
    rows = json_of(get(emulator, HISTORY + query, START_US + HOUR))["data"]
    assert isinstance(rows, list)
    assert len(rows) == count
    if "asc" in query:
        assert [row["request_id"] for row in rows] == bought


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=x",
        "per_page=101",
        "from_date=yesterday",
        "from_date=1969-12-31",
        "to_date=9999-12-31",
        "from_date=2026-10-01&to_date=2026-11-22",
        "from_date=2026-11-23",
        "sort_by=credits_deduction",
    ],
)
def test_odd_questions_are_refused(emulator: SegmindEmulator, query: str) -> None:
    assert get(emulator, f"{HISTORY}?{query}").status == 400


# --- garbage ------------------------------------------------------------------------------------------------

PATHS = st.sampled_from(
    ["/v2/nano-banana-2", "/v1/nano-banana", "/v2/requests/x", HISTORY, HISTORY + "?page=é", "/upload-asset"]
)
BODIES = st.binary(max_size=40) | st.sampled_from([b'{"prompt":"x"}', b"[" * 50_000, b'{"data_urls":[null]}'])


@settings(max_examples=100, derandomize=True, deadline=None)
@given(method=st.sampled_from(["GET", "POST"]), path=PATHS, body=BODIES)
def test_nothing_breaks_the_emulator(method: str, path: str, body: bytes) -> None:
    emulator = SegmindEmulator(sandbox())
    reply = raw(emulator, method, path, headers=AUTH, body=body)
    assert reply.status in (200, 400, 404, 405, 406)


def test_the_urls_of_a_submission_are_on_our_own_host(emulator: SegmindEmulator) -> None:
    body = json_of(submit(emulator, VALID))
    for field in ("poll_url", "status_url", "response_url"):
        assert str(body[field]).startswith(base_url(emulator))
        assert get(emulator, str(body[field])).status == 200
