"""Toapis' emulator against the recorded replies, against the codec, and in its own strictness."""

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
    MalformedReply,
    NotVisible,
    Pending,
    Refused,
    Secret,
    Throttled,
    Unclear,
    Uploaded,
    UploadRefused,
)
from adapters.prices import DEFAULT_BOOK
from adapters.sandbox.base import Job, Reply
from adapters.sandbox.toapis import ToapisEmulator
from adapters.sandbox.toapis_input import MODELS
from adapters.sandbox.wirefmt import EmulatorSettings
from adapters.toapis import CREDIT_MICROUSD, TOAPIS
from tests.adapters.inprocess import ORIGIN, START_US, S, ask, base_url, fated, json_of, raw, sandbox
from tests.adapters.replies import load

ROWS = load("toapis")
KEY = "sandbox-key"
CTX = Context(key=Secret(KEY), base_url=f"{ORIGIN}/toapis")
AUTH = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
REQUEST = ImageRequest("a red mug on slate")
HOOK = "https://hooks.example/toapis/b17"
LATER = START_US + 60 * S
PNG = FileBytes("ab12.png", "image/png", b"\x89PNG\r\n\x1a\n and more")


@pytest.fixture
def world() -> EmulatorSettings:
    return sandbox()


@pytest.fixture
def emulator(world: EmulatorSettings) -> ToapisEmulator:
    return ToapisEmulator(world)


def buy(
    emulator: ToapisEmulator, request: ImageRequest = REQUEST, now_us: int = START_US, *, reference: str = ""
) -> str:
    ctx = msgspec.structs.replace(CTX, reference=reference)
    outcome = TOAPIS.read_submit(ask(emulator, TOAPIS.build_submit(request, ctx), now_us))
    assert isinstance(outcome, Accepted)
    return outcome.job


def poll(emulator: ToapisEmulator, job: str, now_us: int) -> object:
    return TOAPIS.read_poll(ask(emulator, TOAPIS.build_poll(job, CTX), now_us))


def look_up(emulator: ToapisEmulator, reference: str, now_us: int) -> object:
    return TOAPIS.read_lookup(ask(emulator, TOAPIS.build_lookup(reference, CTX), now_us))


def create(emulator: ToapisEmulator, body: object, **headers: str) -> Reply:
    return raw(emulator, "POST", "/v1/images/generations", headers=AUTH | headers, body=body)


def with_key(key: str) -> Context:
    return msgspec.structs.replace(CTX, key=Secret(key))


def as_http(reply: Reply) -> HttpReply:
    return HttpReply(reply.status, reply.headers, reply.body)


def charged(emulator: ToapisEmulator, world: EmulatorSettings, now_us: int = LATER) -> int:
    return sum(emulator.charged(job, now_us) for _, job in world.jobs.since(0, 999))


# --- the codec and the emulator understand each other -------------------------------------------------------


@pytest.mark.parametrize("model", ["nano-banana", "nano-banana-2", "nano-banana-pro"])
@pytest.mark.parametrize("references", [0, 1, 14])
def test_everything_the_record_offers_is_taken(
    emulator: ToapisEmulator, world: EmulatorSettings, model: str, references: int
) -> None:
    offered = TOAPIS.capabilities.model(model)
    assert offered is not None
    urls = tuple(f"https://refs.example/{n}.png?x=1" for n in range(references))
    for aspect in offered.aspects:
        for resolution in offered.resolutions:
            request = ImageRequest("p", model, aspect, resolution, urls, grounding=offered.grounding)
            assert TOAPIS.problem(request) is None
            job = world.jobs.get("toapis", buy(emulator, request))
            assert job is not None
            assert (job.model, job.aspect, job.resolution) == (offered.provider_id, aspect, resolution)
            assert job.references == urls


def test_a_task_lives_from_queue_to_picture(emulator: ToapisEmulator) -> None:
    job = buy(emulator)
    assert poll(emulator, job, START_US) == Pending()
    assert poll(emulator, job, START_US + S) == Pending()
    done = poll(emulator, job, LATER)
    assert done == Finished(url=f"{ORIGIN}/files/toapis/{job}.jpg", expires_s=86_400.0, job=job)


def test_states_and_progress_go_forward(emulator: ToapisEmulator, world: EmulatorSettings) -> None:
    job = world.jobs.get("toapis", buy(emulator))
    assert job is not None
    span = job.done_us - job.created_us
    shown = [
        json_of(ask(emulator, TOAPIS.build_poll(job.id, CTX), job.created_us + round(span * share)))
        for share in (0.0, 0.29, 0.31, 0.99, 1.0)
    ]
    assert [task["status"] for task in shown] == ["queued", "queued", "in_progress", "in_progress", "completed"]
    assert [task["progress"] for task in shown] == [0, 29, 31, 99, 100]


@pytest.mark.parametrize(("fate", "reason"), [("fail_job", "provider"), ("policy_job", "policy")])
def test_failures_have_the_words_that_the_codec_knows(fate: str, reason: str) -> None:
    world = fated(sandbox(), fate)
    emulator = ToapisEmulator(world)
    outcome = poll(emulator, buy(emulator), LATER)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == (reason, reason == "provider")
    assert charged(emulator, world) == 0


def test_a_reference_that_cannot_be_fetched_fails_for_good_and_costs_nothing(
    emulator: ToapisEmulator, world: EmulatorSettings
) -> None:
    job = buy(emulator, ImageRequest("x", references=("https://missing.example/a.png",)))
    outcome = poll(emulator, job, LATER)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == ("provider", False)
    assert "image_urls" in outcome.detail
    assert charged(emulator, world) == 0


# --- finding again ------------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_by_our_reference(emulator: ToapisEmulator) -> None:
    assert look_up(emulator, "b17-t1-a1", START_US) == NotVisible()
    jobs = [buy(emulator, ImageRequest(f"p{n}"), reference=f"b17-t{n}-a1") for n in range(3)]
    assert [look_up(emulator, f"b17-t{n}-a1", START_US + S) for n in range(3)] == [Accepted(job) for job in jobs]
    assert look_up(emulator, "b17-t1", LATER) == NotVisible()


def test_the_newest_task_of_a_reference_answers(emulator: ToapisEmulator) -> None:
    buy(emulator, reference="b17-a1")
    again = buy(emulator, reference="b17-a1")
    assert look_up(emulator, "b17-a1", START_US + S) == Accepted(again)


def test_the_reference_may_stand_in_the_metadata(emulator: ToapisEmulator) -> None:
    body = {**VALID, "metadata": {"client_business_id": "b17-a1"}}
    job = str(json_of(create(emulator, body))["id"])
    assert look_up(emulator, "b17-a1", START_US + S) == Accepted(job)


def test_a_lookup_sees_one_account(emulator: ToapisEmulator) -> None:
    job = buy(emulator, reference="b17-a1")
    other = with_key("sandbox-other")
    for call in (TOAPIS.build_lookup("b17-a1", other), TOAPIS.build_poll(job, other)):
        assert TOAPIS.read_poll(ask(emulator, call, LATER)) == NotVisible()


def test_a_lookup_may_lag(world: EmulatorSettings) -> None:
    emulator = ToapisEmulator(world, lookup_lag_s=10.0)
    job = buy(emulator, reference="b17-a1")
    assert look_up(emulator, "b17-a1", START_US + 9 * S) == NotVisible()
    assert look_up(emulator, "b17-a1", START_US + 11 * S) == Accepted(job)
    assert poll(emulator, job, START_US) == Pending()


# --- many at once -------------------------------------------------------------------------------------------


def sweep(emulator: ToapisEmulator, jobs: list[str], now_us: int = LATER) -> object:
    call = TOAPIS.build_sweep(jobs, CTX, since_us=0, until_us=now_us)
    return TOAPIS.read_sweep(ask(emulator, call, now_us))


def test_one_call_tells_a_hundred_tasks(emulator: ToapisEmulator) -> None:
    jobs = [buy(emulator, ImageRequest(f"p{n}")) for n in range(99)]
    assert sweep(emulator, [*jobs, "img_unknown"]) == {job: poll(emulator, job, LATER) for job in jobs}


def test_another_accounts_tasks_are_not_told(emulator: ToapisEmulator) -> None:
    job = buy(emulator)
    call = TOAPIS.build_sweep([job], with_key("sandbox-other"), since_us=0, until_us=LATER)
    assert TOAPIS.read_sweep(ask(emulator, call, LATER)) == {}


def test_where_the_call_is_not_there_polls_remain(world: EmulatorSettings) -> None:
    emulator = ToapisEmulator(world, batch_status=False)
    job = buy(emulator)
    with pytest.raises(MalformedReply, match="404"):
        sweep(emulator, [job])
    assert isinstance(poll(emulator, job, LATER), Finished)
    assert world.jobs.count() == 1


@pytest.mark.parametrize("body", [{}, {"task_ids": []}, {"task_ids": "img_1"}, {"task_ids": ["img_1"] * 101}, []])
def test_a_status_query_names_its_tasks(emulator: ToapisEmulator, body: object) -> None:
    assert raw(emulator, "POST", "/v1/images/generations/batch", headers=AUTH, body=body).status == 400


# --- money --------------------------------------------------------------------------------------------------


def test_the_bill_and_the_balance_agree(emulator: ToapisEmulator, world: EmulatorSettings) -> None:
    for resolution in ("1K", "2K", "4K"):
        buy(emulator, ImageRequest("x", resolution=resolution))
    assert charged(emulator, world, START_US) == 0
    assert charged(emulator, world) == 65_000 + 98_000 + 145_000
    standing = TOAPIS.read_check(ask(emulator, TOAPIS.build_check(CTX), LATER))
    assert standing.state == "ok"
    assert standing.balance_microusd == 200_000 * CREDIT_MICROUSD - 308_000


def test_what_the_sandbox_bills_is_what_the_price_book_expects() -> None:
    """Toapis tells no cost with a task, so the book's figure is what goes on record."""
    for (provider, model, resolution, _), price in DEFAULT_BOOK.prices.items():
        if provider == "toapis":
            offered = TOAPIS.capabilities.model(model)
            assert offered is not None
            assert MODELS[offered.provider_id].prices[resolution] == price.microusd


def test_a_changed_price_shows_on_the_bill(world: EmulatorSettings) -> None:
    dearer = msgspec.structs.replace(world, price_factor=1.5)
    emulator = ToapisEmulator(dearer)
    buy(emulator)
    assert charged(emulator, dearer) == 97_500


@pytest.mark.parametrize(
    ("key", "reason", "state"),
    [
        ("sandbox-wrong", "unauthorized", "rejected"),
        ("hello", "unauthorized", "rejected"),
        ("sandbox-broke", "no_credit", "no_credit"),
        ("sandbox-locked", "forbidden", "ok"),
    ],
)
def test_keys_that_cannot_buy(
    emulator: ToapisEmulator, world: EmulatorSettings, key: str, reason: str, state: str
) -> None:
    outcome = TOAPIS.read_submit(ask(emulator, TOAPIS.build_submit(REQUEST, with_key(key))))
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert TOAPIS.read_check(ask(emulator, TOAPIS.build_check(with_key(key)))).state == state
    assert world.jobs.count() == 0


def test_a_key_of_toapis_own_shape_is_good(emulator: ToapisEmulator) -> None:
    assert TOAPIS.read_check(ask(emulator, TOAPIS.build_check(with_key("sk-" + "a1B2" * 6)))).state == "ok"


def test_too_fast_is_said_with_the_wait_and_by_category() -> None:
    emulator = ToapisEmulator(sandbox(rate_factor=0.1))  # five creates and fifty queries in ten seconds
    call = TOAPIS.build_submit(REQUEST, CTX)
    outcomes = [TOAPIS.read_submit(ask(emulator, call)) for _ in range(6)]
    assert outcomes[-1] == Throttled(2.0)
    assert isinstance(outcomes[0], Accepted)
    assert poll(emulator, outcomes[0].job, START_US) == Pending()
    reply = ask(emulator, call)
    assert reply.headers["x-ratelimit-category"] == "async_submit"
    assert isinstance(TOAPIS.read_submit(ask(emulator, call, START_US + 2 * S)), Accepted)
    assert TOAPIS.read_submit(as_http(emulator.refusal("throttled"))) == Throttled(1.0)
    assert isinstance(TOAPIS.read_submit(as_http(emulator.refusal("broken"))), Unclear)


# --- files --------------------------------------------------------------------------------------------------


def upload(emulator: ToapisEmulator, file: FileBytes, ctx: Context = CTX) -> Uploaded:
    steps = TOAPIS.upload(file, ctx)
    answer = ask(emulator, next(steps))
    with pytest.raises(StopIteration) as end:
        steps.send(answer)
    assert isinstance(end.value.value, Uploaded)
    return end.value.value


def test_an_uploaded_file_has_one_address_and_can_be_referred_to(emulator: ToapisEmulator) -> None:
    first = upload(emulator, PNG)
    assert first == upload(emulator, PNG)
    assert first.url.startswith(base_url(emulator) + "/uploads/")
    assert first.url.endswith(".png")
    buy(emulator, ImageRequest("x", references=(first.url,)))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"%PDF", "only jpeg"), (b"\xff\xd8\xff" + bytes(10_000_000), "exceeds 10MB"), (b"", "only jpeg")],
)
def test_what_is_no_image_is_refused(emulator: ToapisEmulator, data: bytes, words: str) -> None:
    with pytest.raises(UploadRefused, match=words) as refused:
        upload(emulator, FileBytes("a.png", "image/png", data))
    assert not refused.value.retryable


def test_a_form_without_a_file_is_refused(emulator: ToapisEmulator) -> None:
    for content_type, body in (("application/json", b"{}"), ("multipart/form-data; boundary=b", b"--b--")):
        headers = AUTH | {"content-type": content_type}
        assert raw(emulator, "POST", "/v1/uploads/images", headers=headers, body=body).status == 400


def test_an_upload_with_a_wrong_key_is_refused(emulator: ToapisEmulator) -> None:
    with pytest.raises(UploadRefused, match="Authentication failed"):
        upload(emulator, PNG, with_key("sandbox-wrong"))


# --- callbacks ----------------------------------------------------------------------------------------------


def ended(world: EmulatorSettings, now_us: int = LATER) -> Job:
    (job,) = world.jobs.due_callbacks("toapis", now_us, 9)
    return job


def buy_with_hook(emulator: ToapisEmulator) -> str:
    ctx = msgspec.structs.replace(CTX, callback_url=HOOK)
    outcome = TOAPIS.read_submit(ask(emulator, TOAPIS.build_submit(REQUEST, ctx)))
    assert isinstance(outcome, Accepted)
    return outcome.job


@pytest.mark.parametrize("fate", ["", "fail_job"])
def test_a_callback_is_signed_and_names_its_task(world: EmulatorSettings, fate: str) -> None:
    keyed = msgspec.structs.replace(fated(world, fate) if fate else world, webhook_key="hush")
    emulator = ToapisEmulator(keyed)
    job = buy_with_hook(emulator)
    hook = emulator.webhook(ended(keyed), LATER)
    assert (hook.url, TOAPIS.read_callback(hook.body)) == (HOOK, job)
    assert msgspec.json.decode(hook.body)["type"] == ("generation.failed" if fate else "generation.completed")
    secrets = [Secret("newer"), Secret("hush")]
    assert TOAPIS.verify_callback(hook.headers, hook.body, secrets=secrets, now_s=LATER / S)
    assert not TOAPIS.verify_callback(hook.headers, hook.body, secrets=secrets, now_s=LATER / S + 400)
    assert not TOAPIS.verify_callback(hook.headers, hook.body, secrets=[Secret("other")], now_s=LATER / S)


def test_without_a_secret_there_is_no_signature(emulator: ToapisEmulator, world: EmulatorSettings) -> None:
    buy_with_hook(emulator)
    hook = emulator.webhook(ended(world), LATER)
    assert "x-toapis-webhook-signature" not in hook.headers
    assert not TOAPIS.verify_callback(hook.headers, hook.body, secrets=[Secret("")], now_s=LATER / S)


def test_a_key_calls_back_one_origin(world: EmulatorSettings) -> None:
    here = ToapisEmulator(world, callback_origin="https://hooks.example")
    buy_with_hook(here)
    elsewhere = ToapisEmulator(world, callback_origin="https://hooks.example.org")
    ctx = msgspec.structs.replace(CTX, callback_url=HOOK)
    outcome = TOAPIS.read_submit(ask(elsewhere, TOAPIS.build_submit(REQUEST, ctx)))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "forbidden"


# --- strictness ---------------------------------------------------------------------------------------------

VALID: dict[str, Any] = {"model": "gemini-3.1-flash-image-preview", "prompt": "x"}
PRO = {"model": "nano-banana-pro", "prompt": "x"}


@pytest.mark.parametrize(
    "body",
    [
        {**VALID, "seed": 1},
        {**VALID, "resolution": "1K"},
        {**VALID, "reference_images": []},
        {**VALID, "model": "nano_banana_2"},
        {**VALID, "model": 7},
        {**VALID, "prompt": ""},
        {**VALID, "prompt": None},
        {"model": "nano-banana", "prompt": "x" * 1_001},
        {**VALID, "size": "1024x1024"},
        {**VALID, "size": "auto"},
        {**PRO, "size": "1:8"},
        {**VALID, "n": "1"},
        {**VALID, "n": True},
        {**VALID, "n": 2},
        {**VALID, "response_format": "b64_json"},
        {**VALID, "client_business_id": 7},
        {**VALID, "metadata": []},
        {**VALID, "metadata": {"resolution": "8K"}},
        {**VALID, "metadata": {"google_search": "yes"}},
        {**VALID, "metadata": {"google_image_search": True}},
        {**VALID, "metadata": {"orientation": "portrait"}},
        {**PRO, "metadata": {"google_search": True}},
        {**PRO, "metadata": {"orientation": "up"}},
        {**VALID, "image_urls": "https://r.example/a.png"},
        {**VALID, "image_urls": ["data:image/png;base64,AAAA"]},
        {**VALID, "image_urls": [{"href": "https://r.example/a.png"}]},
        {**VALID, "image_urls": ["https://r.example/a.png"] * 15},
        {**VALID, "callback_url": 7},
        {**VALID, "callback_url": "http://hooks.example/x"},
        {**VALID, "callback_url": "https://["},
        [],
    ],
)
def test_what_the_pages_do_not_know_is_refused(emulator: ToapisEmulator, world: EmulatorSettings, body: object) -> None:
    assert isinstance(TOAPIS.read_submit(as_http(create(emulator, body))), Refused)
    assert world.jobs.count() == 0


@pytest.mark.parametrize(
    "body",
    [
        VALID,
        {**PRO, "metadata": {"orientation": "portrait"}},
        {**VALID, "metadata": {"google_search": True, "google_image_search": True}},
        {**VALID, "image_urls": ["https://r.example/a.png", {"url": "https://r.example/b.png"}]},
        {**VALID, "callback_url": "http://127.0.0.1:8710/hooks/toapis", "client_business_id": "a"},
    ],
)
def test_what_the_pages_know_is_taken(emulator: ToapisEmulator, body: object) -> None:
    assert create(emulator, body).status == 200


def test_a_body_must_say_that_it_is_json(emulator: ToapisEmulator) -> None:
    assert create(emulator, VALID, **{"content-type": "text/plain"}).status == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("DELETE", "/v1/images/generations"), ("POST", "/v1/balance")]
)
def test_what_is_not_there_is_no_unknown_task(emulator: ToapisEmulator, method: str, path: str) -> None:
    reply = as_http(raw(emulator, method, path, headers=AUTH))
    assert reply.status == 404
    assert not isinstance(TOAPIS.read_lookup(reply), NotVisible)


# --- the recorded replies -----------------------------------------------------------------------------------


def test_the_emulator_answers_with_the_recorded_keys(emulator: ToapisEmulator, world: EmulatorSettings) -> None:
    capacity, policy = (ToapisEmulator(fated(sandbox(), fate)) for fate in ("fail_job", "policy_job"))
    limited = ToapisEmulator(sandbox(rate_factor=0.0))
    call = TOAPIS.build_submit(REQUEST, CTX)
    ask(limited, call)
    pinned = ToapisEmulator(world, callback_origin="https://hooks.example.org")
    job = buy(emulator, reference="b17-t000042-a1")
    plain = buy(emulator)
    made: dict[str, Reply | HttpReply] = {
        "created": ask(emulator, call),
        "invalid": create(emulator, {**VALID, "size": "7:5"}),
        "foreign_callback": create(pinned, {**VALID, "callback_url": HOOK}),
        "unauthorized": create(emulator, VALID, authorization="Bearer wrong"),
        "no_credit": create(emulator, VALID, authorization="Bearer sandbox-broke"),
        "locked": create(emulator, VALID, authorization="Bearer sandbox-locked"),
        "throttled": ask(limited, call),
        "broken": emulator.refusal("broken"),
        "queued": ask(emulator, TOAPIS.build_poll(plain, CTX)),
        "in_progress": ask(emulator, TOAPIS.build_poll(plain, CTX), START_US + S),
        "completed": ask(emulator, TOAPIS.build_poll(job, CTX), LATER),
        "failed": ask(capacity, TOAPIS.build_poll(buy(capacity), CTX), LATER),
        "failed_policy": ask(policy, TOAPIS.build_poll(buy(policy), CTX), LATER),
        "unknown_task": ask(emulator, TOAPIS.build_poll("unknown", CTX)),
        "balance": ask(emulator, TOAPIS.build_check(CTX)),
        "balance_empty": ask(emulator, TOAPIS.build_check(with_key("sandbox-broke"))),
    }
    for name, reply in made.items():
        recorded = ROWS[name]
        assert (reply.status, json_of(reply).keys()) == (recorded.status, recorded.body.keys()), name
        for field in ("object", "status", "success"):
            assert json_of(reply).get(field) == recorded.body.get(field), name
        error, told = json_of(reply).get("error"), recorded.body.get("error")
        if isinstance(told, dict):
            assert isinstance(error, dict)
            assert error.keys() == told.keys(), name


# --- laws ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.sampled_from(
        [
            "/v1/images/generations",
            "/v1/images/generations/x",
            "/v1/images/generations/batch",
            "/v1/uploads/images",
            "/",
        ]
    ),
    authorization=st.sampled_from([f"Bearer {KEY}", "Bearer ", "Basic x", ""]),
    body=st.binary(max_size=40)
    | st.fixed_dictionaries({"model": st.just("nano-banana"), "prompt": st.text(max_size=9)}).map(msgspec.json.encode),
)
def test_any_call_gets_a_json_answer(method: str, path: str, authorization: str, body: bytes) -> None:
    emulator = ToapisEmulator(sandbox())
    headers = {"authorization": authorization, "content-type": "application/json"}
    reply = raw(emulator, method, path, headers=headers, body=body)
    assert reply.status in (200, 400, 401, 404)
    assert json_of(reply)
