"""Which keys are known to be of one account (REC-9)."""

import msgspec
import pytest

from adapters.base import (
    Accepted,
    Failed,
    Finished,
    Gone,
    HttpReply,
    MalformedReply,
    NotVisible,
    Pending,
    PollOutcome,
    Polls,
    Throttled,
    Unreadable,
)
from adapters.batchfile import BatchOutcome, ResultFile
from adapters.registry import PROVIDERS, codec
from adapters.sandbox.faults import ChaosProfile
from ledger.events import AccountKeyChanged, AccountOpened, AccountParked
from runtime.accountkeys import AccountKeys, KeySpan, keys_after
from runtime.keycheck import KnownJob, Seen, confirm_by_jobs, seen
from tests.adapters.everyone import CODECS, World, a_request
from tests.adapters.inprocess import S
from tests.runtime.fakes import Bench, run

A = AccountKeys((KeySpan(0, "a"),))
A_B = A.changed(5, "b", "")


def test_a_key_that_never_changed_is_ours_all_along() -> None:
    assert not A.foreign(1)
    assert A.confirmable == frozenset()


def test_another_key_is_foreign_to_what_the_first_one_bought() -> None:
    """REC-9."""
    assert [A_B.foreign(epoch) for epoch in (0, 4, 5, 9)] == [True, True, False, False]
    assert A_B.confirmable == {"a"}


def test_the_same_key_again_is_the_same_account_again() -> None:
    back = A_B.changed(7, "a", "")
    assert [back.foreign(epoch) for epoch in (4, 5, 6, 7)] == [False, True, True, False]


def test_confirming_one_key_says_nothing_of_a_third() -> None:
    """REC-9: between two keys of one account somebody had put another account's in."""
    keys = A_B.changed(7, "c", "").confirmed(["a"])
    assert [keys.foreign(epoch) for epoch in (4, 5, 6, 7)] == [False, True, True, False]
    assert keys.confirmable == {"b"}


def test_what_is_known_of_two_keys_holds_for_the_next_one() -> None:
    keys = A_B.confirmed(["a"]).changed(9, "c", "").confirmed(["b"])
    assert not keys.foreign(0)
    assert keys.same == (frozenset("abc"),)


def test_another_place_can_never_be_confirmed() -> None:
    moved = A.changed(5, "a elsewhere", "https://gateway.example")
    assert moved.foreign(4)
    assert moved.confirmable == frozenset()
    assert moved.changed(6, "b", "").confirmable == {"a"}


def test_the_events_of_an_account_say_the_same() -> None:
    keys = None
    for epoch, event in (
        (1, AccountOpened(name="kie", provider="kie", fingerprint="a")),
        (2, AccountParked(reason="x")),
        (5, AccountKeyChanged(fingerprint="b", confirmed_by="")),
        (7, AccountKeyChanged(fingerprint="c", confirmed_by="")),
        (8, AccountKeyChanged(fingerprint="c", confirmed_by="job j1", same_as=("a",))),
    ):
        keys = keys_after(keys, event, epoch)
    assert keys == A_B.changed(7, "c", "").confirmed(["a"])
    everything = keys_after(keys, AccountKeyChanged(fingerprint="d", confirmed_by="ann"), 9)
    assert everything is not None
    assert not everything.foreign(0)
    assert not everything.foreign(6)


@pytest.mark.parametrize(
    ("seen", "asked", "foreign"),
    [
        ({"j1"}, ["j3", "j2", "j1"], False),
        (set[str](), ["j3", "j2", "j1"], True),
        ({"j3"}, ["j3"], False),
    ],
)
def test_a_few_jobs_are_read_and_one_is_enough(seen: set[str], asked: list[str], foreign: bool) -> None:
    """REC-9; jobs of the key itself prove nothing, and are not asked for."""
    bench = Bench()
    log = bench.account_log(key_epoch=5)
    found: list[str] = []

    async def sees(job: str) -> Seen:
        found.append(job)
        return "yes" if job in seen else "no"

    async def go() -> None:
        jobs = iter([KnownJob("new", 6), *(KnownJob(f"j{n}", 4) for n in (3, 2, 1, 0))])
        await confirm_by_jobs(log, jobs, sees, account="kie", clock=bench.clock, random=bench.random)
        assert len(list(jobs)) == 4 - len(asked), "a large ledger is read no further than needed"

    run(go)
    assert found == asked
    assert log.foreign(4) == foreign
    assert bench.journal.types() == ([] if foreign else ["AccountKeyChanged"])


def test_a_job_that_could_not_be_read_is_asked_for_again_for_a_while() -> None:
    """A connection that breaks says nothing about the key."""
    bench = Bench()
    log = bench.account_log(key_epoch=5)
    answers: list[Seen] = ["later", "later", "yes"]

    async def sees(job: str) -> Seen:
        return answers.pop(0)

    async def go() -> None:
        jobs = [KnownJob("j1", 4)]
        await confirm_by_jobs(log, jobs, sees, account="kie", clock=bench.clock, random=bench.random)
        assert not log.foreign(4)

    run(go)
    answers = ["later"] * 20
    log = bench.account_log(key_epoch=5)

    async def in_vain() -> None:
        jobs = [KnownJob(f"j{n}", 4) for n in range(3)]
        await confirm_by_jobs(log, jobs, sees, account="kie", clock=bench.clock, random=bench.random)
        assert log.foreign(4)
        assert bench.clock.monotonic() <= 601.0

    run(in_vain)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Pending(), "yes"),
        (Pending("upscaling"), "later"),
        (Finished(url="https://x/1.png"), "yes"),
        (Gone("expired"), "yes"),
        (ResultFile("files/1"), "yes"),
        (NotVisible(), "no"),
        (Failed("provider"), "no"),
        (Failed("cancelled", charged=True), "no"),
        (Unreadable("401", unauthorized=True), "no"),
        (Unreadable("500"), "later"),
        (Throttled(), "later"),
    ],
)
def test_what_a_read_tells_of_a_key(outcome: PollOutcome | BatchOutcome, told: Seen) -> None:
    """REC-9: only a job that runs, finished, or has expired since proves whose the key is."""
    assert seen(outcome) == told


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if isinstance(codec, Polls)])
@pytest.mark.parametrize("later_s", [1, 20])
@pytest.mark.parametrize("fate", ["", "fail_job"])
def test_the_key_of_another_account_sees_no_job_at_any_provider(name: str, later_s: int, fate: str) -> None:
    """REC-9: of its own account it does, running or finished, at every provider that can be polled."""
    told: list[Seen] = []
    world, stranger = World(name), World(name, key="sandbox-of-a-stranger")
    if fate:
        msgspec.structs.force_setattr(world.solo.settings, "chaos", ChaosProfile(fail_job=1.0))
    codec = world.codec
    assert isinstance(codec, Polls)
    bought = codec.read_submit(world.send(codec.build_submit(a_request(codec.capabilities.models.value[0]), world.ctx)))
    if not isinstance(bought, Accepted):
        assert isinstance(bought, Failed if fate else Finished)  # at once: there is no job to ask for
        return
    world.solo.now_us += later_s * S
    for ctx in (world.ctx, msgspec.structs.replace(stranger.ctx, base_url=world.ctx.base_url)):
        told.append(seen(codec.read_poll(world.send(codec.build_poll(bought.job, ctx)))))
    assert told == ["no" if fate and later_s == 20 else "yes", "no"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 429, 500, 503])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_refused_read_confirms_a_key(provider: str, status: int) -> None:
    """REC-9: whatever the body, as long as it names no job."""
    dialect = codec(provider)
    if not isinstance(dialect, Polls):
        return
    for body in (b"", b"{}", b'{"error": "not found", "detail": "no", "message": "no", "code": 404}'):
        try:
            outcome = dialect.read_poll(HttpReply(status, {}, body))
        except MalformedReply:
            continue
        assert not isinstance(outcome, Pending | Finished | Gone), outcome
