"""All emulators under one roof, without a socket: routing, files, bill, callbacks, and the money law of chaos."""

import io
import json
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from PIL import Image

from adapters.base import Accepted, Context, Finished, HttpCall, HttpReply, ImageRequest, Refused, Secret, Throttled
from adapters.kie import KIE
from adapters.registry import PROVIDERS
from adapters.sandbox.base import Call, Job, Reply
from adapters.sandbox.faults import PROFILES, ChaosProfile, hook_fate
from adapters.sandbox.house import House
from adapters.sandbox.jobs import MemoryJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.picture import read_digest, request_digest
from adapters.sandbox.wirefmt import EmulatorSettings

ORIGIN = "http://sandbox.test"
CTX = Context(key=Secret("sandbox-one"), base_url=f"{ORIGIN}/kie")
S = 1_000_000


class World:
    def __init__(self, chaos: ChaosProfile = PROFILES["none"], seed: int = 0) -> None:
        self.jobs = MemoryJobs()
        settings = EmulatorSettings(
            jobs=self.jobs, limits=TokenBuckets(1e6), files_origin=ORIGIN, chaos=chaos, seed=seed, small_px=64
        )
        self.house = House(settings, ("kie",))
        self.now_us = 1_000 * S

    def send(self, call: HttpCall) -> HttpReply:
        parts = urlsplit(call.url)
        at_house = Call(call.method, parts.path, dict(parse_qsl(parts.query)), call.headers, call.body, ORIGIN)
        reply = self.house.handle(at_house, self.now_us)
        return HttpReply(reply.status, reply.headers, reply.body)

    def submit(self, request: ImageRequest, callback_url: str = "") -> object:
        ctx = msgspec.structs.replace(CTX, callback_url=callback_url)
        return KIE.read_submit(self.send(KIE.build_submit(request, ctx)))

    def get(self, url: str, method: str = "GET") -> Reply:
        return self.house.handle(Call(method, urlsplit(url).path, {}, {}, b"", ORIGIN), self.now_us)

    def finished(self, request: ImageRequest) -> Finished:
        accepted = self.submit(request)
        assert isinstance(accepted, Accepted)
        self.now_us += 10 * S
        outcome = KIE.read_poll(self.send(KIE.build_poll(accepted.job, CTX)))
        assert isinstance(outcome, Finished)
        return outcome


# --- routing and files ------------------------------------------------------------------------------------


def test_a_prefix_leads_to_its_provider() -> None:
    world = World()
    assert world.house.providers == ("kie",)
    assert KIE.read_check(world.send(KIE.build_check(CTX))).state == "ok"
    stray = world.get(f"{ORIGIN}/nobody/v1")
    assert stray.status == 404
    assert b"there are kie" in stray.body
    assert world.get(ORIGIN).status == 404


def test_every_provider_of_the_registry_is_served() -> None:
    settings = EmulatorSettings(jobs=MemoryJobs(), limits=TokenBuckets(), files_origin=ORIGIN)
    assert House(settings).providers == tuple(PROVIDERS)


def test_a_provider_that_does_not_exist_is_our_mistake() -> None:
    settings = EmulatorSettings(jobs=MemoryJobs(), limits=TokenBuckets(), files_origin=ORIGIN)
    with pytest.raises(ValueError, match="no provider 'kei'"):
        House(settings, ("kei",))


@pytest.mark.parametrize(("image_format", "media"), [("jpg", "image/jpeg"), ("png", "image/png")])
def test_the_result_is_the_picture_of_its_request(image_format: str, media: str) -> None:
    world = World()
    request = ImageRequest(
        "a mug", aspect="16:9", references=("https://example.org/a.png",), output_format=image_format
    )
    reply = world.get(world.finished(request).url)
    assert (reply.status, reply.headers["content-type"]) == (200, media)
    assert read_digest(reply.body) == request_digest("a mug", request.references, "16:9", "1K")
    with Image.open(io.BytesIO(reply.body)) as picture:
        assert picture.width > picture.height


def test_a_result_is_there_for_its_documented_life_only() -> None:
    world = World()
    accepted = world.submit(ImageRequest("a mug"))
    assert isinstance(accepted, Accepted)
    url = f"{ORIGIN}/files/kie/{accepted.job}.jpg"
    assert world.get(url).status == 404
    job = world.jobs.get("kie", accepted.job)
    assert job is not None
    world.now_us = job.done_us
    assert world.get(url).status == 200
    assert world.get(url, "POST").status == 404
    world.now_us = job.done_us + 86_400 * S - 1
    assert world.get(url).status == 200
    world.now_us += 1
    assert world.get(url).status == 404


@pytest.mark.parametrize("change", [(".jpg", ".png"), ("/kie/", "/nobody/"), ("/kie/", "/kie/x"), (".jpg", "")])
def test_other_names_lead_nowhere(change: tuple[str, str]) -> None:
    world = World()
    url = world.finished(ImageRequest("a mug")).url
    assert world.get(url.replace(*change)).status == 404


def test_a_failed_job_has_no_file() -> None:
    world = World(ChaosProfile(fail_job=1.0))
    accepted = world.submit(ImageRequest("a mug"))
    assert isinstance(accepted, Accepted)
    world.now_us += 10 * S
    assert world.get(f"{ORIGIN}/files/kie/{accepted.job}.jpg").status == 404


@pytest.mark.parametrize(
    ("fault", "status", "transport"),
    [("throttle", 503, ""), ("error_before", 503, ""), ("error_after", 503, ""), ("reset_after", 200, "reset")],
)
def test_a_download_may_fail_on_its_way(fault: str, status: int, transport: str) -> None:
    world = World(msgspec.convert({fault: 1.0}, ChaosProfile))
    submit = KIE.build_submit(ImageRequest("a mug"), CTX)
    calm = World()
    calm.send(submit)
    ((_, job),) = calm.jobs.since(0, 1)
    world.jobs.add(job)
    world.now_us = job.done_us
    reply = world.get(f"{ORIGIN}/files/kie/{job.id}.jpg")
    assert (reply.status, reply.transport) == (status, transport)


# --- the bill ---------------------------------------------------------------------------------------------


def test_the_bill_has_a_line_per_accepted_job() -> None:
    world = World()
    world.finished(ImageRequest("one"))
    world.submit(ImageRequest("two", resolution="4K"))
    first, second = world.house.bill(0, world.now_us)
    assert (first.n, first.prompt, first.state, first.charged_microusd) == (1, "one", "succeeded", 40_000)
    assert (second.n, second.prompt, second.state, second.charged_microusd) == (2, "two", "running", 0)
    assert bytes.fromhex(first.digest) == request_digest("one", (), "1:1", "1K")
    assert list(world.house.bill(1, world.now_us)) == [second]


def test_a_long_bill_is_complete() -> None:
    world = World()
    for number in range(1_203):
        world.submit(ImageRequest(f"p{number}"))
    lines = list(world.house.bill(0, world.now_us))
    assert [line.n for line in lines] == list(range(1, 1_204))
    assert len({line.job for line in lines}) == 1_203


def test_jobs_of_providers_not_served_now_are_left_out_of_the_bill() -> None:
    world = World()
    stray = Job("j", "elsewhere", "a", "m", "{}", "p", (), "1:1", "1K", "jpg", 1, 1, 2, 5)
    world.jobs.add(stray)
    world.submit(ImageRequest("one"))
    assert [line.n for line in world.house.bill(0, world.now_us)] == [2]


# --- callbacks --------------------------------------------------------------------------------------------


def test_a_callback_is_due_from_the_end_until_taken() -> None:
    world = World()
    world.submit(ImageRequest("a mug"), "http://hooks.test/kie?ref=a1")
    assert world.house.due_webhooks(world.now_us) == []
    world.now_us += 10 * S
    (hook,) = world.house.due_webhooks(world.now_us)
    assert (hook.url, json.loads(hook.body)["data"]["state"]) == ("http://hooks.test/kie?ref=a1", "success")
    assert [line.called for line in world.house.bill(0, world.now_us)] == [False]
    world.house.webhook_sent(hook, world.now_us, taken=True)
    assert world.house.due_webhooks(world.now_us + 3_600 * S) == []
    assert [line.called for line in world.house.bill(0, world.now_us)] == [True]


def test_a_refused_callback_is_tried_three_times() -> None:
    world = World()
    world.submit(ImageRequest("a mug"), "http://hooks.test/")
    world.now_us += 10 * S
    tries = 0
    while hooks := world.house.due_webhooks(world.now_us):
        tries += 1
        world.house.webhook_sent(hooks[0], world.now_us, taken=False)
        assert world.house.due_webhooks(world.now_us) == []
        world.now_us += 60 * S
    assert tries == 3
    assert [line.called for line in world.house.bill(0, world.now_us)] == [False]


def test_a_provider_that_calls_nobody_is_not_asked_to() -> None:
    jobs, url = MemoryJobs(), "http://hooks.test/"
    job = Job("j", "segmind", "a", "m", "{}", "p", (), "1:1", "1K", "jpg", 1, 1, 2, 5, callback_url=url)
    jobs.add(job)
    house = House(EmulatorSettings(jobs=jobs, limits=TokenBuckets(), files_origin=ORIGIN), ("segmind",))
    assert list(jobs.due_callbacks("segmind", S, 10)) == [job]
    assert house.due_webhooks(S) == []


def owed(fate: str) -> World:
    """A world in which somebody is to be called about an ended job, and that goes wrong so."""
    world = World(ChaosProfile(**{fate: 1.0}))
    world.submit(ImageRequest("a mug"), "http://hooks.test/callback/kie/1-1-1/abc0")
    world.now_us += 10 * S
    return world


def test_a_lost_callback_is_never_sent() -> None:
    world = owed("hook_lost")
    assert world.house.due_webhooks(world.now_us) == []
    assert world.house.due_webhooks(world.now_us + 3_600 * S) == []


def test_a_late_callback_comes_later_and_once() -> None:
    world = World(ChaosProfile(hook_late=1.0, late_s=30.0))
    world.submit(ImageRequest("a mug"), "http://hooks.test/")
    world.now_us += 10 * S
    assert world.house.due_webhooks(world.now_us) == []
    assert world.house.due_webhooks(world.now_us + S) == []
    (hook,) = world.house.due_webhooks(world.now_us + 60 * S)
    world.house.webhook_sent(hook, world.now_us + 60 * S, taken=True)
    assert world.house.due_webhooks(world.now_us + 3_600 * S) == []


def test_a_callback_may_come_twice() -> None:
    hook, again = owed("hook_twice").house.due_webhooks(2_000 * S)
    assert (hook.extra, again.extra) == (False, True)
    assert (hook.url, hook.body, hook.headers) == (again.url, again.body, again.headers)


def test_a_forger_has_neither_the_token_nor_the_job() -> None:
    world = owed("hook_forged")
    no_token, other_job, hook = world.house.due_webhooks(world.now_us)
    assert [each.extra for each in (no_token, other_job, hook)] == [True, True, False]
    assert no_token.url != hook.url == other_job.url
    job = json.loads(other_job.body)["data"]["taskId"]
    assert job != hook.job
    assert world.jobs.get("kie", job) is None


def test_the_shares_of_callbacks_are_shares_of_jobs() -> None:
    chaos = ChaosProfile(hook_lost=0.2, hook_late=0.2, hook_twice=0.2, hook_forged=0.2)
    stray = Job("j", "elsewhere", "a", "m", "{}", "p", (), "1:1", "1K", "jpg", 1, 1, 2, 5)
    fates = [hook_fate(chaos, msgspec.structs.replace(stray, id=f"j{n}")) for n in range(2_000)]
    for fate in ("hook_lost", "hook_late", "hook_twice", "hook_forged", None):
        assert 300 < fates.count(fate) < 500


# --- chaos and money --------------------------------------------------------------------------------------


def night(seed: int) -> tuple[World, dict[str, object]]:
    world = World(PROFILES["storm"], seed)
    outcomes: dict[str, object] = {}
    for number in range(300):
        outcomes[f"p{number}"] = world.submit(ImageRequest(f"p{number}"))
        world.now_us += S // 10
    world.now_us += 60 * S
    return world, outcomes


def test_a_refusal_is_never_on_the_bill_and_an_acceptance_always() -> None:
    world, outcomes = night(7)
    billed = [line.prompt for line in world.house.bill(0, world.now_us)]
    assert len(billed) == len(set(billed))
    kinds = set()
    for prompt, outcome in outcomes.items():
        kinds.add(type(outcome).__name__)
        if isinstance(outcome, Refused | Throttled):
            assert prompt not in billed
        if isinstance(outcome, Accepted):
            assert prompt in billed
    assert kinds == {"Accepted", "Throttled", "Unclear"}


def test_the_bill_charges_exactly_what_came_out() -> None:
    world, _ = night(7)
    lines = list(world.house.bill(0, world.now_us))
    assert {line.state for line in lines} == {"succeeded", "failed"}
    for line in lines:
        assert line.charged_microusd == (40_000 if line.state == "succeeded" else 0)
        fetched = world.get(f"{ORIGIN}/files/kie/{line.job}.jpg")
        assert fetched.status in ((200, 503) if line.state == "succeeded" else (404,))


def test_a_night_under_one_seed_happens_once() -> None:
    one, outcomes = night(7)
    two, same = night(7)
    assert outcomes == same
    assert list(one.house.bill(0, one.now_us)) == list(two.house.bill(0, two.now_us))
    assert night(8)[1] != outcomes
