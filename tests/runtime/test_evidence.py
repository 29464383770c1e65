"""Finding a doubtful attempt again by our own reference (REC-4, REC-5)."""

import msgspec
import pytest
import trio

from adapters.base import (
    Accepted,
    Context,
    HttpCall,
    HttpReply,
    ImageRequest,
    LookupOutcome,
    MalformedReply,
    NotVisible,
    Throttled,
    Unreadable,
)
from adapters.capabilities import Lookup
from ledger.commands import Intend
from runtime.evidence import LookupEvidence
from runtime.ports import WireError
from runtime.reconcile import Found, Judgement, NotThere
from runtime.work import Work
from tests.runtime.fakes import CAPS, Bench, FakeProvider, known, run
from tests.runtime.test_gateway import buy

LAG_S = 4.0
QUARANTINE_S = 10.0  # of the bench's account


class Directory(FakeProvider):
    """A provider that finds jobs by the reference they were made with; submits say which one it is."""

    def build_submit(self, request: ImageRequest, ctx: Context) -> HttpCall:
        return HttpCall("POST", f"submit/{ctx.reference}", {})

    def build_lookup(self, reference: str, ctx: Context) -> HttpCall:
        return HttpCall("GET", f"lookup/{reference}", {})

    def read_lookup(self, reply: HttpReply) -> LookupOutcome:
        found = self._told[int(reply.body)]
        if isinstance(found, MalformedReply):
            raise found
        return found  # type: ignore[return-value]  # what the test said


class Asking:
    """One account with a lookup, and its works in doubt."""

    def __init__(self) -> None:
        self.bench = Bench(caps=msgspec.structs.replace(CAPS, lookup=known(Lookup(LAG_S))))
        self.provider = Directory(caps=self.bench.provider.capabilities)
        self.account = msgspec.structs.replace(self.bench.account, codec=self.provider)
        self.evidence = LookupEvidence(
            self.account,
            self.provider,
            query=self.provider.send,
            clock=self.bench.clock,
            ledger_id="ledger",
            taken=lambda jobs: self.taken.intersection(jobs),
        )
        self.taken: set[str] = set()

    async def works(self, count: int) -> list[Work]:
        works = [self.bench.work(n) for n in range(1, count + 1)]
        for work in works:
            asked = work.reference("ledger", 1)
            await self.bench.log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0, reference=asked))
        return works


def test_a_reference_belongs_to_one_attempt() -> None:
    bench = Bench()
    references = {
        work.reference(ledger, attempt)
        for work in (bench.work(1), bench.work(2))
        for ledger in ("a", "b")
        for attempt in (1, 2)
    }
    assert len(references) == 8
    assert all(len(reference) <= 40 and set(reference) <= set("bd-0123456789acef") for reference in references)


def test_a_reference_tells_the_tasks_of_two_copies_apart() -> None:
    """REC-5: where both imported more, the same number names different tasks; only copies of one share its salt."""
    task, copy, other = Bench().work(1), Bench().work(1), Bench().work(1)
    other.salt = b"another import's"
    assert task.reference("a", 1) == copy.reference("a", 1) != other.reference("a", 1)


def test_the_intent_says_which_reference_is_sent() -> None:
    """MON-1: it is on record before, and is what a lookup asks for after a crash."""
    asking = Asking()
    asking.provider.say("submit", Accepted("j1"))
    asking.bench.account, asking.bench.provider = asking.account, asking.provider
    work = asking.bench.work()
    buy(asking.bench, work)
    assert work.attempt.reference == work.given_reference("ledger") == work.reference("ledger", 1)
    assert asking.provider.calls == [f"submit/{work.attempt.reference}"]


def test_what_an_earlier_version_intended_is_asked_for_by_the_reference_that_it_gave() -> None:
    """LED-9, MON-1: asked for by another one it would seem absent, and be bought a second time."""
    asking = Asking()
    asking.provider.say("lookup", Accepted("j1"))

    async def go() -> None:
        work = asking.bench.work(1)
        await asking.bench.log.record(work, Intend("fake", "fake", "1:1", "only", 40_000, "d", 0))
        await asking.evidence.look({work.key: work}, ripe=())
        assert asking.provider.calls == [f"lookup/{work.early_reference('ledger', 1)}"]
        assert work.early_reference("ledger", 1) != work.reference("ledger", 1)

    run(go)


def test_a_job_that_is_found_by_our_reference_is_ours() -> None:
    asking = Asking()
    asking.provider.say("lookup", Accepted("j1"), Accepted("j2"), Accepted("j3"))
    found: list[Judgement] = []

    async def go() -> None:
        works = {work.key: work for work in await asking.works(3)}
        looked = await asking.evidence.look(works, ripe=())
        assert (looked.trouble, looked.unanswered) == ("", frozenset())
        found.extend(looked.verdicts)
        asked = {f"lookup/{work.reference('ledger', 1)}" for work in works.values()}
        assert set(asking.provider.calls) == asked

    run(go)
    assert {type(verdict) for verdict in found} == {Found}
    assert len(found) == 3


def test_a_lookup_that_shows_another_purchases_job_finds_nothing() -> None:
    """REC-5, REC-4: it did not look for our reference, so it proves neither that there is a job nor that there is none.
    The image of the other task was taken for this one's."""
    asking = Asking()
    asking.provider.say("lookup", Accepted("newest"))

    async def go() -> None:
        works = {work.key: work for work in await asking.works(2)}
        looked = await asking.evidence.look(works, ripe=works)  # the same job for two references
        assert looked.verdicts == []
        assert looked.unanswered == works.keys()
        asking.taken.add("newest")
        one = dict(list(works.items())[:1])
        looked = await asking.evidence.look(one, ripe=one)  # a job of which an attempt was told by an answer
        assert looked.verdicts == []
        assert looked.unanswered == one.keys()
        assert looked.trouble

    run(go)


def test_what_was_found_after_it_was_missed_is_not_asked_for_at_once_for_ever() -> None:
    """REC-4: the time of its second look was past, so the others in doubt were asked for without a pause."""
    asking = Asking()
    asking.provider.say("lookup", NotVisible(), NotVisible(), Accepted("j1"), NotVisible())

    async def go() -> None:
        works = {work.key: work for work in await asking.works(2)}
        await asking.evidence.look(works, ripe=works)
        await trio.sleep(LAG_S / 2)
        (found,) = (await asking.evidence.look(works, ripe=works)).verdicts
        assert isinstance(found, Found)
        await trio.sleep(LAG_S)
        left = {key: work for key, work in works.items() if key != found.key}
        assert asking.evidence.next_look() <= asking.bench.clock.monotonic()  # the other one's
        assert (await asking.evidence.look(left, ripe=left)).verdicts == [NotThere(*left)]
        assert asking.evidence.next_look() == float("inf")

    run(go)


def test_what_is_in_doubt_no_longer_is_not_waited_for() -> None:
    asking = Asking()
    asking.provider.say("lookup", NotVisible())

    async def go() -> None:
        works = {work.key: work for work in await asking.works(2)}
        await asking.evidence.look(works, ripe=works)
        await asking.evidence.look({}, ripe=())
        assert asking.evidence.next_look() == float("inf")

    run(go)


def test_absence_needs_two_answers_after_the_quarantine_and_apart_by_the_lag() -> None:
    """REC-4: one "not found" may come from a slow replica."""
    asking = Asking()
    asking.provider.say("lookup", NotVisible())

    async def go() -> None:
        (work,) = await asking.works(1)
        works = {work.key: work}
        assert (await asking.evidence.look(works, ripe=())).verdicts == []  # in quarantine: proves nothing
        await trio.sleep(QUARANTINE_S)
        assert (await asking.evidence.look(works, ripe=works)).verdicts == []
        assert asking.evidence.next_look() > asking.bench.clock.monotonic()
        await trio.sleep(LAG_S / 2)
        assert (await asking.evidence.look(works, ripe=works)).verdicts == []
        await trio.sleep(LAG_S)
        assert (await asking.evidence.look(works, ripe=works)).verdicts == [NotThere(work.key)]
        assert asking.evidence.next_look() == float("inf")

    run(go)


@pytest.mark.parametrize(
    "answer", [Unreadable("500"), Throttled(1.0), MalformedReply("no"), WireError("reset", sent=True)]
)
def test_a_question_without_an_answer_concludes_nothing(answer: object) -> None:
    asking = Asking()
    asking.provider.say("lookup", answer)

    async def go() -> None:
        works = {work.key: work for work in await asking.works(2)}
        looked = await asking.evidence.look(works, ripe=works)
        assert looked.verdicts == []
        assert looked.trouble
        assert looked.unanswered == works.keys()

    run(go)
