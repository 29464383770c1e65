"""Google's emulator: the plain call against the codec and the recorded replies, files, batches, and its strictness."""

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    Context,
    Failed,
    Finished,
    HttpReply,
    ImageRequest,
    Refused,
    Secret,
    Standing,
    SubmitOutcome,
    Throttled,
    Unclear,
)
from adapters.google import GOOGLE
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.google import GoogleBatchEmulator, GoogleEmulator
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, fated, json_of, raw, sandbox
from tests.adapters.replies import load
from tests.adapters.synchronous import buy, whole

ROWS = load("google")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/google")
AUTH = {"x-goog-api-key": KEY, "content-type": "application/json"}
REQUEST = ImageRequest("a red kettle on slate")
GENERATE = "/v1beta/models/gemini-3.1-flash-image:generateContent"
BATCH = "/v1beta/models/gemini-3.1-flash-image:batchGenerateContent"
KETTLE = b"\x89PNG a kettle"
INLINE = "data:image/png;base64," + base64.b64encode(KETTLE).decode()
DIGEST = "sha256:" + hashlib.sha256(KETTLE).hexdigest()
HOUR = 3_600 * S


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> GoogleEmulator:
    return GoogleEmulator(world)


def bought(emulator: GoogleEmulator, world: EmulatorSettings, request: ImageRequest = REQUEST) -> SubmitOutcome:
    return GOOGLE.read_submit(buy(emulator, world, GOOGLE.build_submit(request, CTX)))


def refused(emulator: GoogleEmulator, path: str, body: object, key: str = KEY) -> tuple[int, str]:
    reply = raw(emulator, "POST", path, headers={"x-goog-api-key": key}, body=body)
    error: Any = json_of(reply)["error"]
    assert error["code"] == reply.status
    return reply.status, error["status"] + ": " + error["message"]


def contents(prompt: str = "x") -> list[dict[str, object]]:
    return [{"role": "user", "parts": [{"text": prompt}]}]


def job_of(world: EmulatorSettings, job: str, provider: str = "google") -> Job:
    found = world.jobs.get(provider, job)
    assert found is not None
    return found


# --- the plain call -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", GOOGLE.capabilities.models.value, ids=lambda model: model.name)
def test_what_the_record_offers_is_drawn_as_asked(
    world: EmulatorSettings, emulator: GoogleEmulator, model: Any
) -> None:
    for aspect in model.aspects:
        for resolution in model.resolutions:
            references = (INLINE,) * (1 if aspect == "auto" else 0)
            request = ImageRequest("ü 漢", model.name, aspect, resolution, references, seed=3)
            assert GOOGLE.problem(request) is None
            outcome = bought(emulator, world, request)
            assert isinstance(outcome, Finished)
            digests = (DIGEST,) * len(references)
            assert read_digest(outcome.data) == request_digest("ü 漢", digests, aspect, resolution)


@pytest.mark.parametrize("model", GOOGLE.capabilities.models.value, ids=lambda model: model.name)
def test_the_cost_that_the_codec_reads_is_the_one_on_the_bill(
    world: EmulatorSettings, emulator: GoogleEmulator, model: Any
) -> None:
    for number in (0, model.max_references):
        for resolution in model.resolutions:
            outcome = bought(
                emulator, world, ImageRequest("a kettle", model.name, "1:1", resolution, (INLINE,) * number)
            )
            assert isinstance(outcome, Finished)
            job = job_of(world, outcome.job)
            assert emulator.charged(job, job.done_us) == outcome.cost_microusd
            assert emulator.charged(job, job.done_us - 1) == 0


def test_a_changed_price_is_on_the_bill(world: EmulatorSettings) -> None:
    dear = msgspec.structs.replace(world, price_factor=2.0)
    emulator = GoogleEmulator(dear)
    outcome = bought(emulator, dear)
    assert isinstance(outcome, Finished)
    assert outcome.cost_microusd is not None
    job = job_of(world, outcome.job)
    assert emulator.charged(job, job.done_us) == 2 * outcome.cost_microusd


def test_the_answer_comes_when_the_image_is_there(world: EmulatorSettings, emulator: GoogleEmulator) -> None:
    call = GOOGLE.build_submit(REQUEST, CTX)
    reply = raw(emulator, "POST", call.url, headers=call.headers, body=call.body)
    job = job_of(world, reply.draws)
    assert reply.delay_s == (job.done_us - START_US) / S
    assert emulator.state(job, job.done_us - 1) == "running"
    assert emulator.state(job, job.done_us) == "succeeded"


@pytest.mark.parametrize(("fate", "reason", "cost"), [("policy_job", "policy", 3), ("fail_job", "provider", 0)])
def test_an_image_that_is_not_drawn_is_a_success_without_one(
    world: EmulatorSettings, fate: str, reason: str, cost: int
) -> None:
    emulator = GoogleEmulator(fated(world, fate))
    outcome = bought(emulator, world)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.cost_microusd, outcome.retryable) == (reason, cost, reason == "provider")
    (_, job) = world.jobs.since(0, 1)[0]
    assert emulator.state(job, job.done_us) == "failed"
    assert emulator.charged(job, job.done_us) == cost


@pytest.mark.parametrize(
    ("key", "outcome"),
    [
        ("wrong", Refused("unauthorized", "INVALID_ARGUMENT API key not valid. Please pass a valid API key.")),
        ("sandbox-locked", "forbidden"),
        ("sandbox-broke", "no_credit"),
        ("", "forbidden"),
    ],
)
def test_keys_that_cannot_buy(emulator: GoogleEmulator, world: EmulatorSettings, key: str, outcome: object) -> None:
    ctx = Context(key=Secret(key), base_url=f"{ORIGIN}/google")
    told = GOOGLE.read_submit(ask(emulator, GOOGLE.build_submit(REQUEST, ctx)))
    assert isinstance(told, Refused)
    assert outcome in (told, told.reason)
    assert world.jobs.count() == 0


def test_a_key_of_googles_shape_is_good(emulator: GoogleEmulator) -> None:
    ctx = Context(key=Secret("AIza" + "x" * 35), base_url=f"{ORIGIN}/google")
    assert GOOGLE.read_check(ask(emulator, GOOGLE.build_check(ctx))) == Standing("ok")
    wrong = Context(key=Secret("AIza-short"), base_url=f"{ORIGIN}/google")
    assert GOOGLE.read_check(ask(emulator, GOOGLE.build_check(wrong))).state == "rejected"


def test_the_rate_is_held_and_says_when(world: EmulatorSettings) -> None:
    emulator = GoogleEmulator(sandbox(rate_factor=0.05))
    outcomes = [bought(emulator, world) for _ in range(4)]
    assert isinstance(outcomes[-1], Throttled)
    assert outcomes[-1].retry_after_s == pytest.approx(20.0, abs=0.01)
    assert isinstance(GOOGLE.read_submit(http(emulator.refusal("throttled"))), Throttled)
    assert isinstance(GOOGLE.read_submit(http(emulator.refusal("broken"))), Unclear)


def http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("image", lambda emulator, world: buy(emulator, world, GOOGLE.build_submit(REQUEST, CTX))),
        ("models", lambda emulator, world: ask(emulator, GOOGLE.build_check(CTX))),
        ("invalid", lambda emulator, world: http(raw(emulator, "POST", GENERATE, headers=AUTH, body={}))),
        ("internal", lambda emulator, world: http(emulator.refusal("broken"))),
        ("throttled", lambda emulator, world: http(emulator.refusal("throttled"))),
    ],
)
def test_answers_have_the_form_of_the_recorded_ones(
    emulator: GoogleEmulator, world: EmulatorSettings, name: str, reply: Any
) -> None:
    told, row = reply(emulator, world), ROWS[name]
    assert told.status == row.status
    assert json_of(told).keys() - {"nextPageToken"} == row.body.keys() - {"nextPageToken"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "Invalid JSON payload"),
        ({}, "contents is not specified"),
        ({"contents": []}, "contents is not specified"),
        ({"contents": [7]}, "Invalid value"),
        ({"contents": [{"parts": 7}]}, "Invalid value"),
        ({"contents": [{"parts": [{}]}]}, "must not be empty"),
        ({"contents": contents(" ")}, "prompt is empty"),
        ({"contents": contents(), "model": "x", "seed": 1}, 'Unknown name "seed"'),
        ({"contents": contents(), "generationConfig": {"outputMimeType": "image/png"}}, "outputMimeType"),
        ({"contents": contents(), "generationConfig": {"imageConfig": {"imageSize": "2k"}}}, "image_size"),
        ({"contents": contents(), "generationConfig": {"imageConfig": {"aspectRatio": "7:5"}}}, "aspect_ratio"),
        ({"contents": contents(), "generationConfig": {"imageConfig": {"prominentPeople": "x"}}}, "prominentPeople"),
        ({"contents": contents(), "generationConfig": {"seed": 2**31}}, "seed"),
        ({"contents": contents(), "generationConfig": {"candidateCount": 2}}, "Multiple candidates"),
        ({"contents": contents(), "generationConfig": {"responseModalities": ["TEXT"]}}, "modality IMAGE"),
        ({"contents": contents(), "generationConfig": {"responseModalities": "IMAGE"}}, "list is expected"),
        ({"contents": contents(), "tools": [{"codeExecution": {}}]}, "codeExecution"),
        ({"contents": [{"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/gif", "data": "AA=="}}]}]}, "MIME"),
        ({"contents": [{"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "%"}}]}]}, "Base64"),
        ({"contents": [{"parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": ""}}]}]}, "process"),
        (
            {
                "contents": [
                    {"parts": [{"text": "x"}, *[{"inlineData": {"mimeType": "image/png", "data": "AA=="}}] * 15]}
                ]
            },
            "At most 14",
        ),
        (
            {"contents": [{"parts": [{"text": "x"}, {"fileData": {"fileUri": "https://missing.example/files/a"}}]}]},
            "File a",
        ),
    ],
)
def test_what_google_would_refuse_is_refused(
    emulator: GoogleEmulator, world: EmulatorSettings, body: object, words: str
) -> None:
    status, text = refused(emulator, GENERATE, body)
    assert status in (400, 403)
    assert words in text
    assert world.jobs.count() == 0


def test_both_spellings_of_a_field_are_taken(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    picture = {"inline_data": {"mime_type": "image/png", "data": base64.b64encode(KETTLE).decode()}}
    body = {
        "contents": [{"parts": [{"text": "a"}, {"text": "b"}, picture]}],
        "generation_config": {"image_config": {"image_size": "4K"}},
    }
    reply = raw(emulator, "POST", "/v1/models/gemini-3-pro-image:generateContent", headers=AUTH, body=body)
    job = job_of(world, reply.draws)
    assert (job.prompt, job.references, job.aspect, job.resolution) == ("a\nb", (DIGEST,), "auto", "4K")


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/gemini-3-pro-image-preview:generateContent",
        "/v1beta/models/flux:batchGenerateContent",
        "/v1beta/tunedModels/x:generateContent",
        "/v1beta/batches/xyz:cancel",
    ],
)
def test_what_is_not_there_is_not_found(emulator: GoogleEmulator, path: str) -> None:
    assert refused(emulator, path, {"contents": contents()})[0] == 404


def test_a_path_outside_the_api_is_googles_page(emulator: GoogleEmulator) -> None:
    assert b"<title>" in raw(emulator, "GET", "/v2/models").body


def test_one_model_is_described(emulator: GoogleEmulator) -> None:
    reply = raw(emulator, "GET", "/v1/models/gemini-3-pro-image", headers=AUTH)
    assert json_of(reply)["name"] == "models/gemini-3-pro-image"


# --- files --------------------------------------------------------------------------------------------------


def start(emulator: GoogleEmulator, size: int, **file: str) -> Reply:
    headers = {
        **AUTH,
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-length": str(size),
        "x-goog-upload-header-content-type": "application/jsonl",
    }
    return raw(emulator, "POST", "/upload/v1beta/files", headers=headers, body={"file": file})


def send(emulator: GoogleEmulator, where: str, data: bytes, offset: int, command: str) -> Reply:
    headers = {"x-goog-upload-offset": str(offset), "x-goog-upload-command": command}
    return raw(emulator, "POST", where, headers=headers, body=data)


def upload(emulator: GoogleEmulator, data: bytes, **file: str) -> str:
    where = start(emulator, len(data), **file).headers["x-goog-upload-url"]
    reply = send(emulator, where, data, 0, "upload, finalize")
    assert reply.headers["x-goog-upload-status"] == "final"
    told: Any = json_of(reply)
    return str(told["file"]["name"])


def test_a_file_is_uploaded_in_pieces_and_described(emulator: GoogleEmulator) -> None:
    where = start(emulator, 6, display_name="shard", name="files/shard-1").headers["x-goog-upload-url"]
    assert send(emulator, where, b"abc", 0, "upload").headers["x-goog-upload-status"] == "active"
    file: Any = json_of(send(emulator, where, b"def", 3, "upload, finalize"))["file"]
    assert (file["name"], file["displayName"], file["sizeBytes"]) == ("files/shard-1", "shard", "6")
    assert json_of(raw(emulator, "GET", "/v1beta/files/shard-1", headers=AUTH)) == file
    assert start(emulator, 6, name="files/shard-1").status == 409


def test_an_upload_can_begin_again_and_must_be_whole(emulator: GoogleEmulator) -> None:
    where = start(emulator, 3).headers["x-goog-upload-url"]
    send(emulator, where, b"ab", 0, "upload")
    assert send(emulator, where, b"c", 1, "upload, finalize").status == 400
    assert send(emulator, where, b"ab", 0, "upload, finalize").status == 400
    assert send(emulator, where, b"abcd", 0, "upload, finalize").status == 400
    assert send(emulator, where, b"abc", 0, "upload, finalize").status == 200
    assert send(emulator, where.replace("upload_id=", "upload_id=x"), b"abc", 0, "upload, finalize").status == 400


def test_an_upload_begins_as_documented(emulator: GoogleEmulator) -> None:
    assert raw(emulator, "POST", "/upload/v1beta/files", headers=AUTH, body={}).status == 400
    assert start(emulator, 3_000_000_000).status == 400
    assert start(emulator, 3, name="files/No_Such_Name").status == 409


def test_files_belong_to_their_account_and_end(emulator: GoogleEmulator) -> None:
    name = upload(emulator, b"x")
    path = f"/v1beta/{name}"
    assert raw(emulator, "GET", path, headers={"x-goog-api-key": "sandbox-other"}).status == 403
    assert raw(emulator, "GET", path, START_US + 48 * HOUR, headers=AUTH).status == 403
    assert raw(emulator, "GET", f"{path}:download?alt=media", headers=AUTH).status == 400
    assert raw(emulator, "DELETE", path, headers=AUTH).status == 200
    assert raw(emulator, "GET", path, headers=AUTH).status == 403
    assert raw(emulator, "PUT", path, headers=AUTH).status == 404


def test_an_uploaded_picture_is_a_reference(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    name = upload(emulator, KETTLE)
    uri = f"{ORIGIN}/google/v1beta/{name}"
    body = {"contents": [{"parts": [{"text": "x"}, {"fileData": {"fileUri": uri, "mimeType": "image/png"}}]}]}
    reply = raw(emulator, "POST", GENERATE, headers=AUTH, body=body)
    assert job_of(world, reply.draws).references == (DIGEST,)


# --- batches ------------------------------------------------------------------------------------------------


def batch(prompts: list[str], name: str = "run7-1", **more: object) -> dict[str, object]:
    requests = [
        {"metadata": {"key": f"k{number}"}, "request": {"contents": contents(prompt)}}
        for number, prompt in enumerate(prompts)
    ]
    return {"batch": {"displayName": name, "inputConfig": {"requests": {"requests": requests}}, **more}}


def rows(*prompts: str) -> bytes:
    return b"".join(
        msgspec.json.encode({"key": f"k{number}", "request": {"contents": contents(prompt)}}) + b"\n"
        for number, prompt in enumerate(prompts)
    )


def create(emulator: GoogleEmulator, body: object, now_us: int = START_US) -> dict[str, Any]:
    reply = raw(emulator, "POST", BATCH, now_us, headers=AUTH, body=body)
    assert reply.status == 200, reply.body
    return json_of(reply)


def create_by_file(emulator: GoogleEmulator, data: bytes, name: str = "run7-1") -> dict[str, Any]:
    config = {"fileName": upload(emulator, data)}
    return create(emulator, {"batch": {"displayName": name, "inputConfig": config}})


def get(emulator: GoogleEmulator, name: str, now_us: int) -> dict[str, Any]:
    reply = raw(emulator, "GET", f"/v1beta/{name}", now_us, headers=AUTH)
    assert reply.status == 200, reply.body
    return msgspec.json.decode(reply.late() if reply.late else reply.body, type=dict[str, Any])


def results(emulator: GoogleEmulator, operation: dict[str, Any], now_us: int) -> list[dict[str, Any]]:
    path = f"/download/v1beta/{operation['response']['responsesFile']}:download?alt=media"
    reply = raw(emulator, "GET", path, now_us, headers=AUTH)
    assert reply.late is not None
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in reply.late().splitlines()]


def test_a_batch_by_file_walks_to_its_result_file(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    created = create_by_file(emulator, rows("a", "b"))
    assert created["metadata"]["state"] == "BATCH_STATE_PENDING"
    assert created["metadata"]["displayName"] == "run7-1"
    assert created["metadata"]["batchStats"]["requestCount"] == "2"
    assert "done" not in created
    jobs = [job for _, job in world.jobs.since(0, 9)]
    assert [job.id for job in jobs] == [created["name"].removeprefix("batches/") + f".k{number}" for number in (0, 1)]
    done_us = jobs[0].done_us
    assert get(emulator, created["name"], done_us - 1)["metadata"]["state"] == "BATCH_STATE_RUNNING"
    done = get(emulator, created["name"], done_us)
    assert done["done"] is True
    assert done["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert done["metadata"]["batchStats"]["successfulRequestCount"] == "2"
    assert done["metadata"]["output"] == {"responsesFile": done["response"]["responsesFile"]}
    lines = results(emulator, done, done_us)
    assert [line["key"] for line in lines] == ["k0", "k1"]
    for line, prompt in zip(lines, "ab", strict=True):
        part = line["response"]["candidates"][0]["content"]["parts"][-1]
        picture = base64.b64decode(part["inlineData"]["data"])
        assert read_digest(picture) == request_digest(prompt, (), "1:1", "1K")


def test_a_batch_costs_half(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    create_by_file(emulator, rows("aaaa"))
    (_, job) = world.jobs.since(0, 1)[0]
    assert emulator.charged(job, job.done_us) == -(-(1_120 * 60_000 + 500) // 2_000)


def test_a_batch_asked_inline_answers_inline(world: EmulatorSettings, emulator: GoogleEmulator) -> None:
    created = create(emulator, batch(["a", "b"], priority="3"))
    done = get(emulator, created["name"], START_US + 10 * S)
    answers = done["response"]["inlinedResponses"]["inlinedResponses"]
    assert [each["metadata"]["key"] for each in answers] == ["k0", "k1"]
    assert "inlineData" in answers[0]["response"]["candidates"][0]["content"]["parts"][0]
    assert done["metadata"]["output"]["inlinedResponses"] == done["response"]["inlinedResponses"]


def test_requests_without_a_key_are_numbered(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    body = {"batch": {"displayName": "x", "inputConfig": {"requests": {"requests": [{"request": {}}]}}}}
    created = create(emulator, body)
    done = get(emulator, created["name"], START_US + 10 * S)
    (answer,) = done["response"]["inlinedResponses"]["inlinedResponses"]
    assert (answer["metadata"]["key"], answer["error"]["code"]) == ("0", 3)


def test_lines_fail_by_themselves(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world)
    wrong = msgspec.json.encode({"key": "bad", "request": {"model": "x", "contents": contents(), "seed": 1}})
    created = create_by_file(emulator, rows("a") + wrong)
    (_, job) = world.jobs.since(0, 1)[0]
    done = get(emulator, created["name"], job.done_us)
    assert done["metadata"]["batchStats"]["failedRequestCount"] == "1"
    good, bad = results(emulator, done, job.done_us)
    assert "response" in good
    assert bad == {"key": "bad", "error": {"code": 3, "message": bad["error"]["message"]}}
    failed = job_of(world, f"{job.id.partition('.')[0]}.bad", "google-batch")
    assert (emulator.state(failed, job.done_us), emulator.charged(failed, job.done_us)) == ("failed", 0)


@pytest.mark.parametrize(("fate", "cost"), [("fail_job", 0), ("policy_job", 1)])
def test_lines_can_end_badly(world: EmulatorSettings, fate: str, cost: int) -> None:
    emulator = GoogleBatchEmulator(fated(world, fate))
    created = create_by_file(emulator, rows("aaaaaaaaaaaa"))
    (_, job) = world.jobs.since(0, 1)[0]
    (line,) = results(emulator, get(emulator, created["name"], job.done_us), job.done_us)
    if fate == "fail_job":
        assert line["error"]["code"] == 13
    else:
        assert line["response"]["candidates"][0]["finishReason"] == "IMAGE_SAFETY"
    assert emulator.charged(job, job.done_us) == cost


def test_what_is_not_done_after_48_hours_has_no_results(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world, stalled_s=50 * 3_600.0)
    created = create_by_file(emulator, rows("a"))
    (_, job) = world.jobs.since(0, 1)[0]
    before, after = job.created_us + 48 * HOUR - 1, job.created_us + 48 * HOUR
    assert get(emulator, created["name"], before)["metadata"]["state"] == "BATCH_STATE_RUNNING"
    expired = get(emulator, created["name"], after)
    assert (expired["metadata"]["state"], expired["done"]) == ("BATCH_STATE_EXPIRED", True)
    assert "response" not in expired
    assert [emulator.state(job, at) for at in (before, after, job.done_us)] == ["running", "failed", "failed"]
    assert emulator.charged(job, after + 100 * HOUR) == 0


def test_the_same_batch_twice_is_two_batches(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    first, second = (create(emulator, batch(["a", "b"])) for _ in range(2))
    assert first["name"] != second["name"]
    assert world.jobs.count() == 4


def test_a_cancelled_batch_costs_nothing(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    name = create(emulator, batch(["a", "b"]))["name"]
    assert raw(emulator, "POST", f"/v1beta/{name}:cancel", START_US + 1, headers=AUTH).status == 200
    cancelled = get(emulator, name, START_US + 2)
    assert (cancelled["metadata"]["state"], cancelled["done"]) == ("BATCH_STATE_CANCELLED", True)
    jobs = [job for _, job in world.jobs.since(0, 9)]
    assert [emulator.state(job, START_US + 100 * S) for job in jobs] == ["cancelled"] * 2
    assert [emulator.charged(job, START_US + 100 * S) for job in jobs] == [0, 0]


def test_the_list_pages_newest_first_and_forgets_what_is_deleted(world: EmulatorSettings) -> None:
    emulator = GoogleBatchEmulator(world, listing_lag_s=1.0)
    names = [create(emulator, batch(["a"], f"n{number}"), START_US + number * S)["name"] for number in range(4)]
    raw(emulator, "DELETE", f"/v1/{names[0]}", headers=AUTH)
    assert raw(emulator, "GET", f"/v1/{names[0]}", headers=AUTH).status == 404
    first = page(emulator, "?pageSize=1", START_US + 3 * S)
    assert [each["name"] for each in first["operations"]] == [names[2]]  # the newest one is not visible yet
    second = page(emulator, f"?pageSize=5&pageToken={first['nextPageToken']}", START_US + 3 * S)
    assert [each["name"] for each in second["operations"]] == [names[1]]
    assert "nextPageToken" not in second
    assert raw(emulator, "GET", "/v1beta/batches?pageSize=x", headers=AUTH).status == 400


def page(emulator: GoogleEmulator, query: str, now_us: int) -> dict[str, Any]:
    return json_of(raw(emulator, "GET", f"/v1beta/batches{query}", now_us, headers=AUTH))


def test_batches_belong_to_their_account(emulator: GoogleEmulator) -> None:
    name = create(emulator, batch(["a"]))["name"]
    other = {"x-goog-api-key": "sandbox-other"}
    assert raw(emulator, "GET", f"/v1beta/{name}", headers=other).status == 404
    assert json_of(raw(emulator, "GET", "/v1beta/batches", headers=other)) == {"operations": []}


def test_results_end_and_are_not_there_before(world: EmulatorSettings, emulator: GoogleEmulator) -> None:
    created = create_by_file(emulator, rows("a"))
    (_, job) = world.jobs.since(0, 1)[0]
    path = f"/v1beta/files/batch-{created['name'].removeprefix('batches/')}:download?alt=media"
    at = [job.done_us - 1, job.done_us, job.done_us + 48 * HOUR]
    assert [raw(emulator, "GET", path, now_us, headers=AUTH).status for now_us in at] == [404, 200, 404]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "batch is not specified"),
        ({"batch": {}}, "display_name is required"),
        ({"batch": {"displayName": "x"}}, "input_config"),
        ({"batch": {"displayName": "x", "colour": 1}}, 'Unknown name "colour"'),
        ({"batch": {"displayName": "x", "inputConfig": {"requests": {"requests": []}}}}, "input_config"),
        ({"batch": {"displayName": "x", "inputConfig": {"requests": {"requests": [7]}}}}, "not specified"),
        ({"batch": {"displayName": "x", "inputConfig": {"fileName": "files/none"}}}, "may not exist"),
    ],
)
def test_batches_that_are_refused(emulator: GoogleEmulator, world: EmulatorSettings, body: object, words: str) -> None:
    assert words in refused(emulator, BATCH, body)[1]
    assert world.jobs.count() == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n", "empty"),
        (b"{", "Line 1"),
        (b'{"key":"a","request":{}}\n{"key":"a","request":{}}', "not unique"),
        (b'{"key":7,"request":{}}', "no usable key"),
        (b'{"key":"a/b","request":{}}', "no usable key"),
        (b'{"request":{}}', "not a request with a key"),
    ],
)
def test_files_that_are_refused(emulator: GoogleEmulator, world: EmulatorSettings, data: bytes, words: str) -> None:
    config = {"fileName": upload(emulator, data)}
    assert words in refused(emulator, BATCH, {"batch": {"displayName": "x", "inputConfig": config}})[1]
    assert world.jobs.count() == 0


def test_a_large_inline_batch_needs_a_file(emulator: GoogleEmulator) -> None:
    assert "20 MB" in refused(emulator, BATCH, batch(["x" * 20_000_000]))[1]


def test_a_hundred_batches_run_at_one_time(emulator: GoogleEmulator, world: EmulatorSettings) -> None:
    for number in range(100):
        create(emulator, batch(["a"], f"n{number}"))
    assert "Too many concurrent" in refused(emulator, BATCH, batch(["a"]))[1]
    ended_us = max(job.done_us for _, job in world.jobs.since(0, 100))
    create(emulator, batch(["a"]), ended_us)


def test_tokens_that_wait_are_limited_per_model(emulator: GoogleEmulator) -> None:
    create(emulator, batch(["x" * 3_000_000]))
    assert "Enqueued token limit" in refused(emulator, BATCH, batch(["x" * 1_100_000]))[1]
    other = BATCH.replace("gemini-3.1-flash-image", "gemini-3-pro-image")
    assert raw(emulator, "POST", other, headers=AUTH, body=batch(["x" * 1_100_000])).status == 200


def test_a_batch_needs_money(emulator: GoogleEmulator) -> None:
    assert "spending cap" in refused(emulator, BATCH, batch(["a"]), key="sandbox-broke")[1]


def test_the_two_providers_have_a_bill_each(world: EmulatorSettings) -> None:
    create(GoogleBatchEmulator(world), batch(["a"]))
    bought(GoogleEmulator(world), world)
    assert [job.provider for _, job in world.jobs.since(0, 9)] == ["google-batch", "google"]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.sampled_from(
        [GENERATE, BATCH, "/v1/batches", "/v1/batches/x", "/v1/batches/x:cancel", "/upload/v1/files", "/v1/files/x"]
    )
    | st.text(max_size=20),
    query=st.dictionaries(st.sampled_from(["pageSize", "pageToken", "upload_id", "alt"]), st.text(max_size=5)),
    body=st.binary(max_size=40)
    | st.sampled_from([b'{"batch":{"displayName":"x","inputConfig":{"fileName":"files/\xff"}}}', b"[" * 20_000]),
)
def test_nothing_breaks_it(method: str, path: str, query: dict[str, str], body: bytes) -> None:
    call = Call(method=method, path=path, query=query, headers=AUTH, body=body, origin=ORIGIN)
    reply = GoogleEmulator(sandbox()).handle(call, START_US)
    assert 200 <= reply.status < 500


def test_whole_answers_are_drawn_by_the_house(world: EmulatorSettings, emulator: GoogleEmulator) -> None:
    call = GOOGLE.build_submit(ImageRequest("x", "nano-banana-pro"), CTX)
    reply = whole(emulator, world, raw(emulator, "POST", call.url, headers=call.headers, body=call.body))
    told: Any = json_of(reply)
    draft, image = told["candidates"][0]["content"]["parts"]
    assert (draft["thought"], "thought" in image) == (True, False)
