"""The emulated Kie: its codec understands it, it is strict, and it charges what it delivers."""

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

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
    Unclear,
    Uploaded,
    UploadRefused,
)
from adapters.kie import CAPABILITIES, KIE
from adapters.sandbox.base import Call, Reply
from adapters.sandbox.faults import ChaosProfile
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.kie import KieEmulator
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.wirefmt import EmulatorSettings

DATA = Path(__file__).parent.parent / "data" / "kie"
BASE = "http://sandbox.test/kie"
HOOK = "https://hooks.example.net/kie?ref=a1"
S = 1_000_000


class World:
    """One account at one emulated Kie, spoken to through the codec."""

    def __init__(
        self, *, key: str = "sandbox-one", chaos: ChaosProfile | None = None, factor: float = 1e6, webhook_key: str = ""
    ) -> None:
        self.jobs = MemoryJobs()
        self.settings = EmulatorSettings(
            jobs=self.jobs,
            limits=TokenBuckets(factor),
            files_origin="http://sandbox.test",
            chaos=chaos or ChaosProfile(),
            webhook_key=webhook_key,
        )
        self.kie = KieEmulator(self.settings)
        self.ctx = Context(key=Secret(key), base_url=BASE)
        self.now_us = 1_000 * S

    def as_account(self, key: str) -> Context:
        return msgspec.structs.replace(self.ctx, key=Secret(key))

    def send(self, call: HttpCall) -> HttpReply:
        reply = self.kie.handle(as_sent(call), self.now_us)
        return HttpReply(reply.status, reply.headers, reply.body)

    def accept(self, request: ImageRequest, *, callback_url: str = "") -> str:
        ctx = msgspec.structs.replace(self.ctx, callback_url=callback_url)
        outcome = KIE.read_submit(self.send(KIE.build_submit(request, ctx)))
        assert isinstance(outcome, Accepted)
        return outcome.job

    def poll(self, job: str) -> object:
        return KIE.read_poll(self.send(KIE.build_poll(job, self.ctx)))

    def raw(self, body: bytes, **headers: str) -> dict[str, object]:
        """Send a creation past the codec and return the envelope."""
        call = KIE.build_submit(ImageRequest("a mug"), self.ctx)
        reply = self.send(msgspec.structs.replace(call, body=body, headers={**call.headers, **headers}))
        return msgspec.json.decode(reply.body, type=dict[str, object])


def as_sent(call: HttpCall) -> Call:
    parts = urlsplit(call.url)
    path = parts.path.removeprefix("/kie")
    return Call(call.method, path, dict(parse_qsl(parts.query)), call.headers, call.body, BASE)


# --- codec and emulator -----------------------------------------------------------------------------------


def test_a_task_goes_from_creation_to_its_picture() -> None:
    world = World()
    job = world.accept(ImageRequest("a mug"))
    assert world.poll(job) == NotVisible()
    world.now_us += S
    assert world.poll(job) == Pending()
    world.now_us += 6 * S
    assert world.poll(job) == Finished(
        url=f"http://sandbox.test/files/kie/{job}.jpg", cost_microusd=40_000, expires_s=86_400.0, job=job
    )


class RequestRow(msgspec.Struct):
    name: str
    request: ImageRequest
    body: msgspec.Raw


@pytest.mark.parametrize(
    "row",
    msgspec.json.decode((DATA / "requests.json").read_bytes(), type=list[RequestRow]),
    ids=lambda row: row.name,
)
def test_documented_requests_arrive_as_they_were_meant(row: RequestRow) -> None:
    world = World()
    job = world.jobs.get("kie", world.accept(row.request))
    assert job is not None
    assert (job.prompt, job.references, job.aspect, job.resolution) == (
        row.request.prompt,
        row.request.references,
        row.request.aspect,
        row.request.resolution,
    )
    assert job.output_format == (row.request.output_format or "jpg")
    assert world.raw(bytes(row.body))["code"] == 200


EVERY_SHAPE = [
    ImageRequest("x", model.name, aspect, resolution, references, image_format)
    for model in CAPABILITIES.models.value
    for aspect in model.aspects
    for resolution in model.resolutions
    for image_format in model.formats
    for references in (("https://example.org/a.png",) * model.max_references, ())
    if references or aspect != "auto"
]


def test_whatever_the_capability_record_offers_is_accepted() -> None:
    world = World()
    for request in EVERY_SHAPE:
        assert KIE.problem(request) is None
        assert isinstance(KIE.read_submit(world.send(KIE.build_submit(request, world.ctx))), Accepted)
    assert world.jobs.count() == len(EVERY_SHAPE)


def test_states_run_through_in_order_and_the_times_agree() -> None:
    world = World()
    job = world.accept(ImageRequest("a mug"), callback_url=HOOK)
    created = world.jobs.get("kie", job)
    assert created is not None
    seen: list[object] = []
    for share in (0.19, 0.39, 0.99, 1.0):
        at_us = created.created_us + round((created.done_us - created.created_us) * share)
        record = json.loads(world.kie.webhook(created, at_us).body)["data"]
        seen.append(record["state"])
        assert (record["completeTime"] is None) == (share < 1.0)
        param = json.loads(record["param"])
        assert param["callBackUrl"] == HOOK
        assert json.loads(param["input"])["prompt"] == "a mug"
    assert seen == ["waiting", "queuing", "generating", "success"]


@pytest.mark.parametrize(
    ("chaos", "outcome"),
    [
        (ChaosProfile(fail_job=1.0), Failed("provider", "Internal Error, Please try again later.")),
        (
            ChaosProfile(policy_job=1.0),
            Failed("policy", "The content was flagged as violating the content policy.", retryable=False),
        ),
    ],
)
def test_failed_tasks_say_so_and_cost_nothing(chaos: ChaosProfile, outcome: Failed) -> None:
    world = World(chaos=chaos)
    job = world.accept(ImageRequest("a mug"))
    world.now_us += 10 * S
    assert world.poll(job) == outcome
    assert charged(world) == 0


def test_a_reference_that_cannot_be_fetched_fails_for_good_and_costs_nothing() -> None:
    world = World()
    job = world.accept(ImageRequest("a mug", references=("https://missing.example/mug.png",)))
    world.now_us += 10 * S
    outcome = world.poll(job)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == ("provider", False)
    assert "Image fetch failed" in outcome.detail
    assert charged(world) == 0


def test_a_model_that_is_not_enabled_is_refused_without_a_job() -> None:
    world = World(key="sandbox-locked")
    outcome = KIE.read_submit(world.send(KIE.build_submit(ImageRequest("a mug"), world.ctx)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "forbidden"
    assert world.jobs.count() == 0


# --- money ------------------------------------------------------------------------------------------------


def charged(world: World) -> int:
    return sum(world.kie.charged(job, world.now_us) for _, job in world.jobs.since(0, 99))


def test_the_bill_counts_what_was_delivered_and_nothing_else() -> None:
    world = World()
    world.accept(ImageRequest("a mug", resolution="4K"))
    world.accept(ImageRequest("a mug", model="nano-banana-pro"))
    world.accept(ImageRequest("a mug", model="nano-banana"))
    assert charged(world) == 0
    world.now_us += 10 * S
    assert charged(world) == (18 + 18 + 4) * 5_000
    standing = KIE.read_check(world.send(KIE.build_check(world.ctx)))
    assert (standing.state, standing.balance_microusd) == ("ok", (1_000_000 - 40) * 5_000)


def test_a_broke_account_buys_nothing() -> None:
    world = World(key="sandbox-broke")
    outcome = KIE.read_submit(world.send(KIE.build_submit(ImageRequest("a mug"), world.ctx)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "no_credit"
    assert KIE.read_check(world.send(KIE.build_check(world.ctx))).state == "no_credit"
    assert world.jobs.count() == 0


# --- strictness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sandbox-wrong", "Bearer", ""])
def test_a_wrong_key_is_refused_everywhere(key: str) -> None:
    world = World(key=key)
    submit = KIE.read_submit(world.send(KIE.build_submit(ImageRequest("a mug"), world.ctx)))
    assert submit == Refused("unauthorized", "You do not have access permissions")
    assert KIE.read_check(world.send(KIE.build_check(world.ctx))).state == "rejected"


def test_a_key_of_the_real_shape_is_good() -> None:
    world = World(key="0123456789abcdef" * 2)
    assert world.accept(ImageRequest("a mug"))


def test_another_account_does_not_see_the_task() -> None:
    world = World()
    job = world.accept(ImageRequest("a mug"))
    world.now_us += 10 * S
    stranger = world.as_account("sandbox-two")
    assert KIE.read_poll(world.send(KIE.build_poll(job, stranger))) == NotVisible()
    assert world.poll("nonsense") == NotVisible()


def test_an_unnamed_client_is_turned_away_at_the_edge() -> None:
    world = World()
    call = KIE.build_submit(ImageRequest("a mug"), world.ctx)
    plain = {**call.headers, "user-agent": "python-httpx/0.28"}
    outcome = KIE.read_submit(world.send(msgspec.structs.replace(call, headers=plain)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "forbidden"


def test_unknown_paths_are_not_found() -> None:
    world = World()
    call = msgspec.structs.replace(KIE.build_check(world.ctx), url=f"{BASE}/api/v1/jobs/list")
    assert world.send(call).status == 404
    assert isinstance(KIE.read_submit(world.send(call)), Unclear)


GOOD: dict[str, object] = {"prompt": "a mug", "aspect_ratio": "1:1"}


def wire(model: str = "nano-banana-2", **changes: object) -> bytes:
    return json.dumps({"model": model, "input": {**GOOD, **changes}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model":"nano-banana-2"}',
        b'{"model":7,"input":{"prompt":"x"}}',
        b'{"model":"nano-banana-2","input":{"prompt":"x"},"seed":1}',
        b'{"model":"nano-banana-2","input":{"prompt":"x"},"callBackUrl":"nowhere"}',
        b'{"model":"nano-banana-2","input":{"prompt":"x"},"callBackUrl":1}',
        wire("google/nano-banana-2"),
        wire(prompt=""),
        wire(prompt=7),
        wire(prompt="x" * 20_001),
        wire(seed=1),
        wire(aspect_ratio="7:1"),
        wire(aspect_ratio=1),
        wire(resolution="8K"),
        wire(output_format="jpeg"),
        wire(google_search="yes"),
        wire("nano-banana-2-lite", output_format="jpg"),
        wire("nano-banana-2-lite", resolution="1K"),
        wire("nano-banana-2-lite", image_input=[]),
        b'{"model":"nano-banana-2-lite","input":{"prompt":"x"}}',
        wire(image_input="https://example.org/a.png"),
        wire(image_input=["a.png"]),
        wire(image_input=["https://example.org/a.png"] * 15),
        wire("nano-banana-pro", google_search=True),
        wire("nano-banana-pro", aspect_ratio="1:8"),
        wire("google/nano-banana", resolution="1K"),
        wire("google/nano-banana", image_urls=["https://example.org/a.png"]),
        wire("google/nano-banana", output_format="jpg"),
        wire("google/nano-banana-edit"),
    ],
)
def test_undocumented_requests_are_refused(body: bytes) -> None:
    world = World()
    assert world.raw(body)["code"] == 422
    assert world.jobs.count() == 0


def test_a_creation_must_be_declared_as_json() -> None:
    assert World().raw(wire(), **{"content-type": "text/plain"})["code"] == 422


def test_defaults_are_those_of_the_model() -> None:
    world = World()
    world.raw(b'{"model":"nano-banana-2","input":{"prompt":"x"}}')
    world.raw(b'{"model":"nano-banana-pro","input":{"prompt":"x"}}')
    made = [(job.aspect, job.resolution, job.output_format) for _, job in world.jobs.since(0, 9)]
    assert made == [("auto", "1K", "jpg"), ("1:1", "1K", "png")]


# --- limits -----------------------------------------------------------------------------------------------


def test_twenty_creations_per_ten_seconds_and_account() -> None:
    world = World(factor=1.0)
    call = KIE.build_submit(ImageRequest("a mug"), world.ctx)
    outcomes = [KIE.read_submit(world.send(call)) for _ in range(25)]
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True] * 20 + [False] * 5
    assert outcomes[20:] == [Throttled()] * 5
    assert world.jobs.count() == 20
    other = KIE.build_submit(ImageRequest("a mug"), world.as_account("sandbox-two"))
    assert isinstance(KIE.read_submit(world.send(other)), Accepted)
    world.now_us += 10 * S
    assert isinstance(KIE.read_submit(world.send(call)), Accepted)


def test_ten_queries_per_second() -> None:
    world = World(factor=1.0)
    job = world.accept(ImageRequest("a mug"))
    world.now_us += 20 * S
    outcomes = [world.poll(job) for _ in range(12)]
    assert [isinstance(outcome, Finished) for outcome in outcomes] == [True] * 10 + [False] * 2
    assert outcomes[-1] == Throttled()


def test_what_the_chaos_says_in_kies_name_is_read_as_that() -> None:
    world = World()
    said = {"throttled": world.kie.refusal("throttled"), "broken": world.kie.refusal("broken")}
    assert KIE.read_submit(HttpReply(said["throttled"].status, {}, said["throttled"].body)) == Throttled()
    assert isinstance(KIE.read_submit(HttpReply(said["broken"].status, {}, said["broken"].body)), Unclear)
    call = KIE.build_submit(ImageRequest("a mug"), world.ctx)
    assert world.kie.is_submit(as_sent(call))
    assert not world.kie.is_submit(as_sent(next(KIE.upload(PNG, world.ctx))))


# --- callbacks --------------------------------------------------------------------------------------------


def finished_with_callback(world: World) -> tuple[str, Reply]:
    job_id = world.accept(ImageRequest("a mug"), callback_url=HOOK)
    world.now_us += 10 * S
    (job,) = world.jobs.due_callbacks("kie", world.now_us, 9)
    hook = world.kie.webhook(job, world.now_us)
    assert (hook.url, hook.job) == (HOOK, job_id)
    return job_id, Reply(200, hook.headers, hook.body)


def test_a_callback_tells_what_a_poll_tells() -> None:
    world = World()
    job, hook = finished_with_callback(world)
    assert "x-webhook-signature" not in hook.headers
    assert KIE.read_poll(HttpReply(200, hook.headers, hook.body)) == world.poll(job)


@pytest.mark.parametrize(
    ("chaos", "code", "reason"),
    [(ChaosProfile(fail_job=1.0), 501, "provider"), (ChaosProfile(policy_job=1.0), 400, "policy")],
)
def test_a_callback_tells_failures_by_code(chaos: ChaosProfile, code: int, reason: str) -> None:
    _, hook = finished_with_callback(World(chaos=chaos))
    assert json.loads(hook.body)["code"] == code
    outcome = KIE.read_poll(HttpReply(200, hook.headers, hook.body))
    assert isinstance(outcome, Failed)
    assert outcome.reason == reason


def test_the_signature_covers_id_and_time_only() -> None:
    world = World(webhook_key="hush")
    job, hook = finished_with_callback(world)
    stamp = hook.headers["x-webhook-timestamp"]
    mac = hmac.digest(b"hush", f"{job}.{stamp}".encode(), hashlib.sha256)
    assert hook.headers["x-webhook-signature"] == base64.b64encode(mac).decode()


def test_the_codec_knows_a_genuine_callback() -> None:
    world = World(webhook_key="hush")
    job, hook = finished_with_callback(world)
    now_s = world.now_us / S
    assert KIE.read_callback(hook.body) == job
    assert KIE.verify_callback(hook.headers, hook.body, secrets=[Secret("new"), Secret("hush")], now_s=now_s)
    assert not KIE.verify_callback(hook.headers, hook.body, secrets=[Secret("new")], now_s=now_s)
    assert not KIE.verify_callback(hook.headers, hook.body, secrets=[Secret("hush")], now_s=now_s + 400)


# --- files ------------------------------------------------------------------------------------------------

PNG = FileBytes("ab12.png", "image/png", b"\x89PNG\r\n\x1a\n and more")


def uploaded(world: World) -> Uploaded:
    steps = KIE.upload(PNG, world.ctx)
    reply = world.send(next(steps))
    with pytest.raises(StopIteration) as end:
        steps.send(reply)
    assert isinstance(end.value.value, Uploaded)
    return end.value.value


def test_a_file_has_one_address_and_can_be_referred_to() -> None:
    world = World()
    first = uploaded(world)
    assert first == uploaded(world)
    assert re.fullmatch(BASE + r"/uploads/[0-9a-f]{32}\.png", first.url)
    job = world.jobs.get("kie", world.accept(ImageRequest("a mug", references=(first.url,))))
    assert job is not None
    assert job.references == (first.url,)


def test_an_upload_answers_as_documented() -> None:
    world = World()
    body = json.loads(world.send(next(KIE.upload(PNG, world.ctx))).body)
    assert (body["success"], body["code"]) == (True, 200)
    assert body["data"].keys() == {"fileName", "filePath", "downloadUrl", "fileSize", "mimeType", "uploadedAt"}
    assert (body["data"]["fileName"], body["data"]["mimeType"]) == ("ab12.png", "image/png")


def test_a_file_needs_a_key_and_a_form() -> None:
    with pytest.raises(UploadRefused, match="access permissions"):
        uploaded(World(key="sandbox-wrong"))
    world = World()
    call = next(KIE.upload(PNG, world.ctx))
    refused = world.send(msgspec.structs.replace(call, body=b"{}"))
    assert json.loads(refused.body) == {"success": False, "code": 400, "msg": "file and uploadPath are required"}


# --- laws -------------------------------------------------------------------------------------------------


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.sampled_from(["/api/v1/jobs/createTask", "/api/v1/jobs/recordInfo", "/api/v1/chat/credit", "/", ""]),
    query=st.dictionaries(st.sampled_from(["taskId", "x"]), st.text(max_size=8), max_size=2),
    authorization=st.sampled_from(["Bearer sandbox", "Bearer ", "Basic x", ""]),
    body=st.binary(max_size=40) | st.sampled_from([wire(), wire(seed=1), wire(prompt="\ud800")]),
)
def test_any_call_gets_an_answer(
    method: str, path: str, query: dict[str, str], authorization: str, body: bytes
) -> None:
    headers = {"authorization": authorization, "user-agent": "Mozilla/5.0", "content-type": "application/json"}
    world = World()
    reply = world.kie.handle(Call(method, path, query, headers, body, BASE), world.now_us)
    assert reply.status in (200, 404, 429)
    assert set(json.loads(reply.body)) == {"code", "msg", "data"}
