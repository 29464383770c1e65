"""What is believed of doubtful attempts: what the batch trusts, read with a key of their account (REC-4, REC-9)."""

from copy import copy

import msgspec
import pytest
import trio

from adapters.base import (
    ListedJob,
)
from ledger.commands import Decide, Record
from ledger.events import AttemptAmbiguous, AttemptUnknown
from runtime.trust import Trust
from runtime.work import Work
from tests.runtime.doubting import NO_LISTING, Doubting, doubt, job, one, serve
from tests.runtime.fakes import CAPS, Bench

# --- how sure a fact must be -----------------------------------------------------------------------------------


def documented(batch: int) -> Trust:
    return "documented"


def test_an_absence_that_rests_on_an_assumption_is_not_believed_where_documents_are_asked_for() -> None:
    """REC-4: the listing of the fake provider is assumed to be complete; the job of a found one is believed all the
    same, for nothing is bought by it."""
    bench = Bench()
    bench.provider.say("list", ())
    (work,) = doubt(bench, one, trust=documented).judged
    assert (work.state.phase, work.attempt.phase, work.attempt.reason) == ("held", "unknown", "listing_assumed")
    bench = Bench()
    bench.provider.say("list", (job(),))
    (work,) = doubt(bench, one, seconds=1.0, trust=documented).judged
    assert work.attempt.job == "j1"


def test_an_absence_that_rests_on_a_document_is_believed() -> None:
    """REC-4."""
    assert CAPS.listing is not None
    sure = msgspec.structs.replace(CAPS, listing=msgspec.structs.replace(CAPS.listing, mark="confirmed"))
    bench = Bench(caps=sure)
    bench.provider.say("list", ())
    (work,) = doubt(bench, one, trust=documented).judged
    assert work.attempt.phase == "absent"


def test_a_disbelieved_answer_is_named_where_nobody_can_be_asked() -> None:
    bench = Bench(caps=NO_LISTING)

    async def body(doubting: Doubting) -> None:
        work = await doubting.doubtful(named=False)
        await bench.log.record(work, Record(AttemptAmbiguous(attempt=1, reason="answer_assumed")))
        doubting.doubts.add(work)

    (work,) = doubt(bench, body).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "answer_assumed")


# --- a key that was replaced -------------------------------------------------------------------------------------


def test_while_nobody_knows_whose_the_key_is_nothing_is_concluded() -> None:
    """REC-9, REC-2: what the other key bought waits, and holds up nothing else."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        doubting.key_epoch, doubting.key_in_doubt = 9, True
        doubting.doubts.add(await doubting.doubtful(1))

    waiting = doubt(bench, body)
    assert (waiting.judged, waiting.passes) == ([], 1)


def test_once_the_key_is_known_its_evidence_counts() -> None:
    """REC-9."""
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        doubting.key_epoch, doubting.key_in_doubt = 9, True
        doubting.doubts.add(await doubting.doubtful(1))

        async def know() -> None:
            await trio.sleep(5.0)
            doubting.key_epoch, doubting.key_in_doubt = 0, False
            doubting.doubts.look_now()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(know)
            nursery.start_soon(serve, doubting)
            await trio.sleep(6.0)
            assert [work.attempt.job for work in doubting.judged] == ["j1"]
            nursery.cancel_scope.cancel()

    doubt(bench, body, seconds=0.0)


async def held_by_key(doubting: Doubting) -> Work:
    """A task that an earlier run held, for it had another key."""
    work = await doubting.doubtful(1, old=True)
    await doubting.bench.log.record(work, Record(AttemptUnknown(attempt=1, reason="account_changed")))
    assert work.state.phase == "held"
    return work


@pytest.mark.parametrize(("listed", "phase"), [((job(),), "accepted"), ((), "absent")])
def test_what_another_key_held_is_judged_once_that_key_is_known(listed: tuple[ListedJob, ...], phase: str) -> None:
    """REC-9, LIVE-1."""
    bench = Bench()
    bench.provider.say("list", listed)

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await held_by_key(doubting))

    (work,) = doubt(bench, body).judged
    assert work.attempt.phase == phase


def test_what_nobody_can_be_asked_about_stays_held() -> None:
    bench = Bench(caps=NO_LISTING)

    async def body(doubting: Doubting) -> None:
        doubting.doubts.add(await held_by_key(doubting))

    (work,) = doubt(bench, body).judged
    assert (work.state.phase, work.attempt.reason) == ("held", "account_changed")


def test_an_operator_who_decides_meanwhile_is_not_overruled() -> None:
    """MON-2: the task is bought again by its word, and the judgement lets go of it."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        work = await held_by_key(doubting)
        doubting.doubts.add(work)
        await bench.log.record(work, Decide("ann", "buy_again", 1))

    doubting = doubt(bench, body)
    assert doubting.judged == []
    assert len(doubting.doubts) == 0


def test_an_operator_whose_decision_nobody_here_has_heard_of_is_not_overruled_either() -> None:
    """The run ended with a conflict of two owners, which is a bug everywhere else."""
    bench = Bench()
    bench.provider.say("list", ())

    async def body(doubting: Doubting) -> None:
        work = await held_by_key(doubting)
        doubting.doubts.add(work)
        await bench.log.record(copy(work), Decide("ann", "give_up", 1))

    (work,) = doubt(bench, body).judged
    assert work.state.phase == "held"
    assert "AttemptAbsent" not in bench.journal.types()


def test_a_job_that_came_too_late_for_one_attempt_is_there_for_an_equal_one() -> None:
    """LIVE-1, REC-5: an operator was faster than the verdict.  The other one waited for the job for ever."""
    bench = Bench()
    bench.provider.say("list", (job(),))

    async def body(doubting: Doubting) -> None:
        held, other = await held_by_key(doubting), await doubting.doubtful(2)
        other.wanted = held.wanted
        for work in (held, other):
            doubting.doubts.add(work)
        await bench.log.record(copy(held), Decide("ann", "give_up", 1))

    judged = doubt(bench, body).judged
    assert [(work.n, work.attempt.job) for work in judged] == [(1, ""), (2, "j1")]
