"""The parts every emulator stands on: pictures, job tables, limits, chaos, admission."""

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapters.sandbox.accepting import Asked, admit, job_of, jobs_of, latency_s, own_job, state_of
from adapters.sandbox.base import Call, Job, JobState, JobTable, Reply
from adapters.sandbox.faults import PROFILES, Chaos, ChaosProfile, job_fate, load_profile
from adapters.sandbox.jobs import MemoryJobs, SqliteJobs
from adapters.sandbox.limits import TokenBuckets
from adapters.sandbox.picture import draw, pixel_size, read_digest, request_digest
from adapters.sandbox.wirefmt import (
    EmulatorSettings,
    account_digest,
    bearer,
    file_url,
    json_object,
    json_reply,
    key_standing,
)

S = 1_000_000


def make_job(number: int = 1, **changes: object) -> Job:
    job = Job(
        id=f"job{number}",
        provider="kie",
        account="acc",
        model="nano-banana-2",
        wire="{}",
        prompt=f"a mug {number}",
        references=("https://example.org/a.png",),
        aspect="1:1",
        resolution="1K",
        output_format="jpg",
        created_us=number * S,
        started_us=number * S,
        done_us=number * S + 2 * S,
        charge_microusd=40_000,
    )
    return msgspec.structs.replace(job, **changes)


# --- pictures ---------------------------------------------------------------------------------------------


def digest_of(job: Job) -> bytes:
    return request_digest(job.prompt, job.references, job.aspect, job.resolution)


@pytest.mark.parametrize("output_format", ["jpg", "png"])
@pytest.mark.parametrize("aspect", ["1:1", "16:9", "9:16", "1:8", "8:1", "auto"])
@pytest.mark.parametrize("short_side", [0, 64])
def test_the_digest_survives_jpeg_and_half_size(output_format: str, aspect: str, short_side: int) -> None:
    job = make_job(aspect=aspect, output_format=output_format)
    drawn = draw(job, short_side=short_side)
    assert read_digest(drawn) == digest_of(job)
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == {"jpg": "JPEG", "png": "PNG"}[output_format]
        assert picture.size == pixel_size(aspect, "1K", short_side=short_side)
        worn = io.BytesIO()
        half = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
        half.save(worn, "JPEG", quality=85)
    assert read_digest(worn.getvalue()) == digest_of(job)


@pytest.mark.parametrize(
    ("aspect", "resolution", "size"),
    [
        ("1:1", "0.5K", (512, 512)),
        ("1:1", "2K", (2048, 2048)),
        ("1:1", "4K", (4096, 4096)),
        ("16:9", "1K", (1360, 768)),
        ("auto", "1K", (1024, 1024)),
    ],
)
def test_pictures_have_the_asked_size_class(aspect: str, resolution: str, size: tuple[int, int]) -> None:
    assert pixel_size(aspect, resolution) == size


def test_drawing_twice_gives_the_same_bytes() -> None:
    assert draw(make_job()) == draw(make_job())


@pytest.mark.parametrize("fate", ["blank", "truncated", "wrong_bytes"])
def test_spoiled_results_are_not_taken_for_ours(fate: str) -> None:
    job = make_job(fate=fate, prompt="x" * 50)
    with pytest.raises(ValueError, match="image"):
        read_digest(draw(job, short_side=64))


def test_a_blank_result_is_a_valid_image_all_the_same() -> None:
    with Image.open(io.BytesIO(draw(make_job(fate="blank"), short_side=64))) as picture:
        assert picture.getcolors() is not None
        assert len(picture.getcolors() or []) == 1


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_the_digest_tells_requests_apart(one: str, two: str, some: list[str], others: list[str]) -> None:
    same = (one, some) == (two, others)
    left = request_digest(one, tuple(some), "1:1", "1K")
    assert (left == request_digest(two, tuple(others), "1:1", "1K")) == same


# --- job tables -------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobTable]:
    if request.param == "memory":
        yield MemoryJobs()
        return
    table = SqliteJobs(tmp_path / "sandbox.db")
    yield table
    table.close()


def test_a_job_reads_back_as_it_was_added(jobs: JobTable) -> None:
    jobs.add(make_job(1))
    assert jobs.get("kie", "job1") == make_job(1)
    assert jobs.get("kie", "job2") is None
    assert jobs.get("segmind", "job1") is None
    assert jobs.count() == 1


@pytest.mark.parametrize("clash", [{"id": "job1"}, {"created_us": 1 * S}])
def test_ids_and_times_are_taken_once(jobs: JobTable, clash: dict[str, object]) -> None:
    jobs.add(make_job(1))
    with pytest.raises(ValueError, match="taken"):
        jobs.add(make_job(2, **clash))
    assert jobs.count() == 1


def test_jobs_of_one_request_are_added_all_or_none(jobs: JobTable) -> None:
    jobs.add(make_job(1))
    for clash in (make_job(1), make_job(3, id="job2")):
        with pytest.raises(ValueError, match="taken"):
            jobs.add_all([make_job(2), clash])
        assert jobs.get("kie", "job2") is None
        assert (jobs.count(), jobs.fresh_us(0)) == (1, 1 * S + 1)
    jobs.add_all([make_job(2), make_job(3)])
    assert [job.id for _, job in jobs.since(0, 9)] == ["job1", "job2", "job3"]


def test_kept_files_are_found_by_their_name_and_replaced(jobs: JobTable) -> None:
    jobs.keep("kie", "a", b"1")
    jobs.keep("kie", "a", b"2")
    assert (jobs.kept("kie", "a"), jobs.kept("kie", "b"), jobs.kept("segmind", "a")) == (b"2", None, None)


def test_listing_is_newest_first_and_pages_without_a_gap(jobs: JobTable) -> None:
    for number in range(1, 8):
        jobs.add(make_job(number, account="other" if number == 4 else "acc"))
    first = jobs.list("kie", "acc", since_us=2 * S, until_us=6 * S, limit=2)
    rest = jobs.list("kie", "acc", since_us=2 * S, until_us=6 * S, limit=9, before_us=first[-1].created_us)
    assert [job.id for job in first + rest] == ["job6", "job5", "job3", "job2"]


def test_creation_times_are_distinct_when_asked_for(jobs: JobTable) -> None:
    assert jobs.fresh_us(5) == 5
    jobs.add(make_job(1, created_us=5))
    assert jobs.fresh_us(5) == 6
    assert jobs.fresh_us(2) == 6
    assert jobs.fresh_us(9) == 9


def test_running_counts_until_the_end_or_the_cancel(jobs: JobTable) -> None:
    for number in (1, 2, 3):
        jobs.add(make_job(number, done_us=10 * S))
    jobs.add(make_job(4, account="other", done_us=10 * S))
    jobs.cancel("kie", "job2", 5 * S)
    assert jobs.running("kie", "acc", 5 * S) == 2
    assert jobs.running("kie", "acc", 10 * S) == 0
    assert jobs.running("kie", "nobody", 0) == 0


def test_a_cancel_ends_a_running_job_once(jobs: JobTable) -> None:
    jobs.add(make_job(1, done_us=10 * S, callback_url="https://hook.example.org"))
    jobs.cancel("kie", "job9", 5 * S)
    jobs.cancel("kie", "job1", 5 * S)
    jobs.cancel("kie", "job1", 6 * S)
    found = jobs.get("kie", "job1")
    assert found is not None
    assert (found.cancelled_us, found.done_us) == (5 * S, 5 * S)
    assert [job.id for job in jobs.due_callbacks("kie", 5 * S, 9)] == ["job1"]


def test_a_cancel_after_the_end_changes_nothing(jobs: JobTable) -> None:
    jobs.add(make_job(1, done_us=10 * S))
    jobs.add(make_job(2, done_us=20 * S))
    jobs.cancel("kie", "job1", 10 * S)
    jobs.cancel("kie", "job2", 10 * S)
    assert jobs.get("kie", "job1") == make_job(1, done_us=10 * S)
    assert jobs.due_callbacks("kie", 99 * S, 9) == []


def test_callbacks_are_owed_from_the_end_until_noted(jobs: JobTable) -> None:
    hook = "https://hook.example.org"
    jobs.add(make_job(1, callback_url=hook))
    jobs.add(make_job(2, callback_url=hook))
    jobs.add(make_job(3))
    assert jobs.due_callbacks("kie", 3 * S - 1, 9) == []
    assert [job.id for job in jobs.due_callbacks("kie", 9 * S, 1)] == ["job1"]
    assert jobs.called_back("kie", "job1", retry_at_us=8 * S) == 1
    assert [job.id for job in jobs.due_callbacks("kie", 7 * S, 9)] == ["job2"]
    assert jobs.called_back("kie", "job1", retry_at_us=None) == 2
    assert [job.id for job in jobs.due_callbacks("kie", 9 * S, 9)] == ["job2"]
    assert jobs.due_callbacks("segmind", 9 * S, 9) == []


def test_acceptance_order_is_numbered_over_all_providers(jobs: JobTable) -> None:
    jobs.add(make_job(1))
    jobs.add(make_job(2, provider="segmind"))
    jobs.add(make_job(3))
    assert [(n, job.id) for n, job in jobs.since(0, 2)] == [(1, "job1"), (2, "job2")]
    assert [(n, job.id) for n, job in jobs.since(2, 9)] == [(3, "job3")]


def test_the_file_table_goes_on_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    first = SqliteJobs(path)
    first.add(make_job(1))
    # not closed: as after kill -9
    second = SqliteJobs(path)
    assert second.count() == 1
    assert second.get("kie", "job1") == make_job(1)
    assert second.fresh_us(0) == 1 * S + 1
    assert path.stat().st_mode & 0o777 == 0o600
    first.close()
    second.close()


# --- limits -----------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_then_the_rate() -> None:
    limits = TokenBuckets()
    waits = [limits.take("a", count=20, per_s=10, now_us=0) for _ in range(21)]
    assert waits[:20] == [0.0] * 20
    assert waits[20] == pytest.approx(0.5)
    assert limits.take("b", count=20, per_s=10, now_us=0) == 0.0
    assert limits.take("a", count=20, per_s=10, now_us=500_000) == 0.0
    assert limits.take("a", count=20, per_s=10, now_us=400_000) > 0.0  # a clock step back gives nothing


def test_the_factor_stretches_the_limit() -> None:
    limits = TokenBuckets(5.0)
    assert [limits.take("a", count=2, per_s=10, now_us=0) for _ in range(11)].count(0.0) == 10


@given(st.lists(st.integers(0, 3 * S), max_size=200))
def test_no_stretch_of_time_gets_more_than_burst_plus_rate(pauses: list[int]) -> None:
    limits = TokenBuckets()
    now_us, granted = 0, 0
    for pause in pauses:
        now_us += pause
        granted += limits.take("a", count=5, per_s=10, now_us=now_us) == 0.0
    assert granted <= 5 + now_us / S * 0.5 + 1e-3


# --- chaos ------------------------------------------------------------------------------------------------


class OneJobPerPost:
    """The smallest emulator: a POST makes a job, unless its body is ``no``."""

    name = "toy"
    result_life_s = 60.0

    def __init__(self, jobs: JobTable) -> None:
        self._jobs = jobs

    def is_submit(self, call: Call) -> bool:
        return call.method == "POST"

    def refusal(self, kind: str) -> Reply:
        return json_reply({"throttled": 429}.get(kind, 500), kind)

    def state(self, job: Job, now_us: int) -> JobState:
        return "running" if now_us < job.done_us else "succeeded"

    def charged(self, job: Job, now_us: int) -> int:
        return job.charge_microusd

    def handle(self, call: Call, now_us: int) -> Reply:
        if self.is_submit(call) and call.body != b"no":
            number = self._jobs.count() + 1
            self._jobs.add(make_job(number))
        return json_reply(200, {"n": self._jobs.count()})


def toy(profile: ChaosProfile, seed: int = 1) -> tuple[Chaos, MemoryJobs]:
    jobs = MemoryJobs()
    return Chaos(OneJobPerPost(jobs), jobs=jobs, profile=profile, seed=seed), jobs


def post(body: bytes = b"{}", method: str = "POST") -> Call:
    return Call(method, "/", {}, {}, body, "http://sandbox.test/toy")


@pytest.mark.parametrize(
    ("fault", "status", "transport", "delay_s", "accepted"),
    [
        ("throttle", 429, "", 0.0, 0),
        ("error_before", 500, "", 0.0, 0),
        ("error_after", 500, "", 0.0, 1),
        ("reset_after", 200, "reset", 0.0, 1),
        ("cut_reply", 200, "cut", 0.0, 1),
        ("slow_reply", 200, "", 5.0, 1),
    ],
)
def test_each_fault_does_what_it_says(fault: str, status: int, transport: str, delay_s: float, accepted: int) -> None:
    chaos, jobs = toy(msgspec.convert({fault: 1.0}, ChaosProfile))
    reply = chaos.handle(post(), 0)
    assert (reply.status, reply.transport, reply.delay_s, jobs.count()) == (status, transport, delay_s, accepted)


def test_a_submit_that_was_refused_is_not_spoiled() -> None:
    chaos, jobs = toy(ChaosProfile(reset_after=1.0))
    assert chaos.handle(post(b"no"), 0) == json_reply(200, {"n": 0})
    assert chaos.handle(post(method="GET"), 0).transport == "reset"
    assert jobs.count() == 0


def storm(seed: int) -> list[Reply]:
    chaos, _ = toy(PROFILES["storm"], seed)
    return [chaos.handle(post(), 0) for _ in range(200)]


def test_the_same_seed_meets_the_same_faults() -> None:
    assert storm(1) == storm(1)
    assert storm(1) != storm(2)


def test_faults_come_about_as_often_as_asked() -> None:
    throttled = sum(reply.status == 429 for reply in storm(1))
    assert 15 <= throttled <= 50  # 15 % of 200


def test_chaos_is_otherwise_the_emulator_it_wraps() -> None:
    chaos, jobs = toy(PROFILES["none"])
    assert chaos.handle(post(), 0) == json_reply(200, {"n": 1})
    job = jobs.get("kie", "job1")
    assert job is not None
    assert (chaos.name, chaos.result_life_s, chaos.is_submit(post())) == ("toy", 60.0, True)
    assert (chaos.state(job, 0), chaos.charged(job, 0)) == ("running", 40_000)
    assert chaos.refusal("throttled").status == 429


def test_fates_follow_the_profile() -> None:
    draws = [job_fate(PROFILES["storm"], number.to_bytes(4, "big")) for number in range(500)]
    assert set(draws) == {"ok", "fail", "policy", "truncated", "wrong_bytes", "blank"}
    assert draws.count("ok") > 350
    assert job_fate(ChaosProfile(policy_job=1.0), b"x") == "policy"


def test_profiles_come_by_name_or_from_toml(tmp_path: Path) -> None:
    assert load_profile("flaky") is PROFILES["flaky"]
    mine = tmp_path / "mine.toml"
    mine.write_text("throttle = 0.5\nslow_s = 2\n")
    assert load_profile(str(mine)) == ChaosProfile(throttle=0.5, slow_s=2.0)


@pytest.mark.parametrize("text", ["throttle = 2.0", "thottle = 0.1", "throttle = ", b"\xff\xfe"])
def test_a_bad_profile_is_explained(tmp_path: Path, text: str | bytes) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"mine\.toml"):
        load_profile(str(mine))
    with pytest.raises(ValueError, match="none, flaky, storm"):
        load_profile(str(tmp_path / "missing"))


# --- admission and small pieces of HTTP -------------------------------------------------------------------


def settings(jobs: JobTable, **changes: object) -> EmulatorSettings:
    plain = EmulatorSettings(jobs=jobs, limits=TokenBuckets(), files_origin="http://sandbox.test")
    return msgspec.structs.replace(plain, **changes)


def test_admission_depends_on_seed_and_number_only() -> None:
    jobs = MemoryJobs()
    first = admit(settings(jobs), "kie", 5 * S)
    assert first == admit(settings(MemoryJobs()), "kie", 5 * S)
    assert first.entropy != admit(settings(jobs, seed=1), "kie", 5 * S).entropy
    assert first.entropy != admit(settings(jobs), "segmind", 5 * S).entropy
    jobs.add(make_job(1))
    assert first.entropy != admit(settings(jobs), "kie", 5 * S).entropy


def test_admission_orders_the_times_of_a_job() -> None:
    admission = admit(settings(MemoryJobs()), "kie", 5 * S, queue_s=3.0)
    assert (admission.created_us, admission.started_us) == (5 * S, 8 * S)
    assert 8 * S < admission.done_us <= 8 * S + 6 * S
    assert admission.fate == "ok"


ASKED = Asked("nano-banana-2", "a mug", ("https://a.example/1.png",), "1:1", "2K", "png", "https://hooks.example/1")


def accepted(asked: Asked, **changes: object) -> tuple[EmulatorSettings, Job]:
    world = settings(MemoryJobs(), **changes)
    admission = admit(world, "kie", 5 * S)
    job = job_of(world, asked, admission, account="acc", job_id="j-1", wire="{}", price_microusd=40_000)
    world.jobs.add(job)
    return world, job


def test_what_was_asked_is_in_the_row_at_the_price_of_today() -> None:
    _, job = accepted(ASKED, price_factor=1.5)
    assert (job.id, job.provider, job.account, job.created_us) == ("j-1", "kie", "acc", 5 * S)
    assert {name: getattr(job, name) for name in ASKED.__struct_fields__} == msgspec.structs.asdict(ASKED)
    assert (job.charge_microusd, job.fate, job.cancelled_us) == (60_000, "ok", 0)


def test_a_reference_that_nobody_can_fetch_is_the_fate_of_its_job() -> None:
    references = (*ASKED.references, "https://missing.example/2.png")
    _, job = accepted(msgspec.structs.replace(ASKED, references=references))
    assert job.fate == "unreachable"
    assert state_of(job, job.done_us, failures=("unreachable",)) == "failed"


def test_a_state_follows_from_the_row_and_the_time() -> None:
    world, job = accepted(ASKED)
    assert state_of(job, job.done_us - 1, failures=()) == "running"
    assert state_of(job, job.done_us, failures=("fail",)) == "succeeded"
    assert state_of(job, job.done_us, failures=("ok",)) == "failed"
    world.jobs.cancel("kie", "j-1", 5 * S + 1)
    cancelled = world.jobs.get("kie", "j-1")
    assert cancelled is not None
    assert state_of(cancelled, 5 * S + 1, failures=("ok",)) == "cancelled"


def test_jobs_of_other_accounts_are_not_there() -> None:
    world, job = accepted(ASKED)
    assert own_job(world, "kie", "acc", "j-1") == job
    assert own_job(world, "kie", "other", "j-1") is None
    assert jobs_of(world, "kie", "acc", until_us=5 * S) == [job]
    assert jobs_of(world, "kie", "other", until_us=5 * S) == []


def test_latency_is_jittered_around_the_median() -> None:
    draws = sorted(latency_s(2.0, number.to_bytes(4, "big")) for number in range(400))
    assert draws[0] >= 1.2
    assert draws[-1] == 6.0
    assert draws[200] == pytest.approx(2.0, rel=0.1)


def test_files_are_named_by_provider_and_job() -> None:
    assert file_url(settings(MemoryJobs()), make_job(1)) == "http://sandbox.test/files/kie/job1.jpg"


def test_keys_are_kept_as_digests_only() -> None:
    assert account_digest("sandbox-1") != account_digest("sandbox-2")
    assert "sandbox" not in account_digest("sandbox-1")


@pytest.mark.parametrize(
    ("key", "looks_right", "standing"),
    [
        ("sandbox", False, "good"),
        ("r8_abc", True, "good"),
        ("r8_abc", False, "refused"),
        ("", True, "refused"),
        ("sandbox-wrong", True, "refused"),
        ("sandbox-broke", False, "no_credit"),
    ],
)
def test_keys_are_judged_by_their_text(key: str, looks_right: bool, standing: str) -> None:
    assert key_standing(key, looks_right=looks_right) == standing


def test_bearer_takes_the_key_from_its_header_only() -> None:
    assert bearer({"authorization": "Bearer  k1 "}) == "k1"
    assert bearer({"authorization": "Basic k1"}) == ""
    assert bearer({}) == ""


def test_bodies_must_be_json_objects() -> None:
    assert json_object(b'{"a": 1}') == {"a": 1}
    assert json_object(b"[1]") is None
    assert json_object(b"\xff") is None
    assert json_reply(200, {"a": 1}, {"x-y": "z"}) == Reply(
        200, {"content-type": "application/json", "x-y": "z"}, b'{"a":1}'
    )
