"""Hints of callbacks: each leads to a look at the job, and to nothing else (REC-5, REC-7); a real ledger below."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, cast

import pytest
import trio

from adapters.base import Failed, Finished, NotVisible, Pending, PollOutcome, Unreadable
from ledger.commands import Cancel, Decide, Erase, Intend, Record
from ledger.events import AttemptAccepted, AttemptAdopted, AttemptAmbiguous
from runtime.account import AccountActor
from runtime.claims import Claims
from runtime.hints import Desk, Hints
from runtime.inbox import Hint, hints_of, leave_hint
from runtime.work import Work, WorkKey
from tests.ledger.stories import bought
from tests.runtime.nights import OpenLedger, with_ledger


class _Account:
    name = "kie"


class Actor:
    """An account that notes what it is told; its jobs are in ``jobs``."""

    def __init__(self, opened: OpenLedger) -> None:
        self.account = _Account()
        self.jobs: dict[str, PollOutcome | Sequence[PollOutcome]] = {}
        self.asked: list[str] = []
        self.foreign: Callable[[int], bool] = lambda epoch: False
        self.told: list[str] = []
        self.claimed: list[tuple[Work, str, Callable[[bool], None]]] = []
        self.claims = Claims(look=self.look, bound=opened.reader.bound, clock=opened.clock, visible_after_s=20.0)

    async def look(self, job: str) -> PollOutcome:
        await trio.sleep(0.1)
        self.asked.append(job)
        answer = self.jobs.get(job, NotVisible())
        if isinstance(answer, Sequence):
            return answer[min(self.asked.count(job), len(answer)) - 1]
        return answer

    def hinted(self, work: Work) -> None:
        self.told.append(f"hinted {work.n}")

    def claim(self, work: Work, job: str, settled: Callable[[bool], None]) -> None:
        self.claimed.append((work, job, settled))


class Night:
    """What surrounds the hints."""

    def __init__(self, opened: OpenLedger, inbox: Path) -> None:
        self.opened = opened
        self.inbox = inbox
        self.actor = Actor(opened)
        self.moving: dict[WorkKey, Work] = {}
        self.told: list[str] = []
        self.hints = Hints(
            inbox,
            actors=[cast(AccountActor, self.actor)],
            reader=opened.reader,
            log=opened.log,
            clock=opened.clock,
            desk=Desk(owned=self.moving.get, follow=self.follow, left=self.left, adopted=self.adopted),
        )

    def follow(self, works: Collection[Work]) -> None:
        for work in works:
            self.moving[work.key] = work

    def left(self, work: Work) -> None:
        self.told.append(f"left {work.n}")
        self.moving.pop(work.key, None)

    def adopted(self, work: Work) -> None:
        self.told.append(f"adopted {work.n} {work.attempt.job}")

    def hint(self, n: int = 1, job: str = "j1", *, attempt: int = 1, account: str = "kie") -> None:
        leave_hint(self.inbox, Hint(account, 1, n, attempt, job))

    def waiting(self) -> int:
        return len(list(hints_of(self.inbox).glob("*.json")))

    async def ambiguous(self, n: int = 1) -> Work:
        await self.opened.intend(n)
        return await self.opened.do(n, Record(AttemptAmbiguous(attempt=1, reason="no_reply")))

    async def accepted(self, n: int = 1, job: str = "j1") -> Work:
        await self.opened.intend(n)
        return await self.opened.do(n, Record(AttemptAccepted(attempt=1, job=job)))

    async def serve(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.hints.run()


def live(root: Path, body: Callable[[Night], Awaitable[None]]) -> None:
    async def go(opened: OpenLedger) -> None:
        await body(Night(opened, root / "n.db.inbox"))

    with_ledger(root, go)


def test_an_accepted_job_is_polled_now(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        work = await night.accepted()
        night.moving[work.key] = work
        night.hint()
        night.hints.take()
        assert (night.actor.told, night.waiting()) == (["hinted 1"], 0)

    live(tmp_path, body)


def test_what_brings_no_news_is_removed_and_asks_nobody(tmp_path: Path) -> None:
    """Forged, late, repeated: another job, an attempt that ended, a task that was never bought there."""

    async def body(night: Night) -> None:
        work = await night.accepted(1)
        night.moving[work.key] = work
        await night.opened.fail(2)
        night.hint(1, "another")
        night.hint(2)
        night.hint(3)
        night.hint(4, attempt=7)
        night.hint(99)
        night.hints.take()
        assert (night.actor.told, night.actor.claimed, night.waiting()) == ([], [], 0)
        await night.serve(5.0)
        assert night.actor.asked == []

    live(tmp_path, body)


def test_a_doubtful_attempt_is_its_accounts_to_judge(tmp_path: Path) -> None:
    """The file stays until what came of it is on record; handed back, it is looked at again."""

    async def body(night: Night) -> None:
        work = await night.ambiguous()
        night.moving[work.key] = work
        night.hint()
        night.hints.take()
        night.hints.take()
        ((claimed, job, settled),) = night.actor.claimed
        assert (claimed, job, night.waiting()) == (work, "j1", 1)
        settled(False)
        night.hints.take()
        assert len(night.actor.claimed) == 2
        night.actor.claimed[1][2](True)
        assert night.waiting() == 0

    live(tmp_path, body)


def test_an_early_hint_waits_for_our_own_answer(tmp_path: Path) -> None:
    """The provider was faster than its own reply."""

    async def body(night: Night) -> None:
        work = await night.opened.intend(1)
        night.moving[work.key] = work
        night.hint()
        night.hints.take()
        assert (night.actor.claimed, night.waiting()) == ([], 1)
        await night.opened.log.record(work, Record(AttemptAccepted(attempt=1, job="j1")))
        night.hints.take()
        assert (night.actor.told, night.waiting()) == (["hinted 1"], 0)

    live(tmp_path, body)


def test_a_doubt_that_nobody_owns_keeps_its_hint(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        await night.ambiguous()
        night.hint()
        await night.serve(2.0)
        assert (night.actor.asked, night.waiting()) == ([], 1)

    live(tmp_path, body)


@pytest.mark.parametrize("answer", [Pending(), Finished(url="https://x/1.png"), Failed("provider")])
def test_a_held_task_goes_on_when_its_job_is_there(tmp_path: Path, answer: PollOutcome) -> None:
    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.actor.jobs["j1"] = answer
        night.hint()
        night.hints.take()
        assert night.moving, "the night must not end before this was looked at"
        await night.serve(2.0)
        work = night.opened.work(1)
        assert (work.state.phase, work.attempt.job, work.attempt.adopted_by) == ("accepted", "j1", "callback")
        assert (night.told, night.waiting()) == (["adopted 1 j1"], 0)

    live(tmp_path, body)


def test_a_held_task_stays_when_its_job_is_somebody_elses(tmp_path: Path) -> None:
    """REC-5: one job binds one attempt, in the ledger and within one run."""

    async def body(night: Night) -> None:
        await night.accepted(1, "j1")
        for n in (2, 3, 4):
            await night.opened.hold(n)
        night.actor.jobs |= {"j1": Pending(), "j9": Pending()}
        night.hint(2, "j1")
        night.hint(3, "j9")
        night.hint(4, "j9")
        await night.serve(10.0)
        assert night.opened.phases() == "accepted held accepted held"
        assert night.waiting() == 0

    live(tmp_path, body)


def test_a_job_that_is_never_seen_changes_nothing(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.hint()
        await night.serve(60.0)
        assert (night.opened.phases()[:4], night.told, night.waiting()) == ("held", ["left 1"], 0)
        assert len(night.actor.asked) > 3

    live(tmp_path, body)


def test_a_provider_that_cannot_be_read_is_asked_again_and_then_left_for_another_night(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.actor.jobs["j1"] = [Unreadable("503"), Unreadable("503"), Pending()]
        night.hint()
        await night.serve(30.0)
        assert night.told == ["adopted 1 j1"]

    live(tmp_path, body)

    async def dark(night: Night) -> None:
        await night.opened.hold(2)
        night.actor.jobs["j2"] = Unreadable("503")
        night.hint(2, "j2")
        await night.serve(1000.0)
        assert (night.told, night.moving, night.waiting()) == (["left 2"], {}, 1)
        assert len(night.actor.asked) < 50

    (tmp_path / "dark").mkdir()
    live(tmp_path / "dark", dark)


def test_a_task_that_was_decided_but_not_bought_yet_is_not_bought_again(tmp_path: Path) -> None:
    """Leave to buy again was given, and the paid job calls back before that was used."""

    async def body(night: Night) -> None:
        await night.opened.hold(1)
        await night.opened.do(1, Decide(operator="ann", decision="buy_again", attempt=1))
        night.actor.jobs["j1"] = Pending()
        night.hint()
        await night.serve(2.0)
        assert night.told == ["adopted 1 j1"]

    live(tmp_path, body)


@pytest.mark.parametrize("settled", ["succeeded", "failed", "cancelled"])
def test_a_paid_image_is_kept_whatever_became_of_its_task_meanwhile(tmp_path: Path, settled: str) -> None:
    """MON-9: bought again beside the doubt, given up or cancelled; and the first purchase calls back after all."""

    async def body(night: Night) -> None:
        await night.opened.hold(1)
        if settled == "cancelled":
            await night.opened.do(1, Cancel(operator="ann"))
        elif settled == "failed":
            await night.opened.do(1, Decide(operator="ann", decision="give_up", attempt=1))
        else:
            again = Intend("kie", "kie", "default", "only", 60_000, "d", 0, beside="policy")
            await night.opened.do(1, again, *bought(2))
        assert night.opened.phases()[: len(settled)] == settled
        night.actor.jobs["j1"] = Pending()
        night.hint()
        await night.serve(2.0)
        assert (night.told, night.waiting()) == (["adopted 1 j1"], 0)
        work = night.opened.work(1)
        assert (work.state.phase, work.phase, work.attempt.number) == (settled, "accepted", 1)

    live(tmp_path, body)


def test_of_an_erased_task_nothing_is_fetched(tmp_path: Path) -> None:
    """SEC-8: nobody may look at what was to be forgotten."""

    async def body(night: Night) -> None:
        await night.opened.hold(1)
        await night.opened.do(1, Decide(operator="ann", decision="give_up", attempt=1), Erase(operator="ann"))
        night.hint()
        await night.serve(2.0)
        assert (night.actor.asked, night.waiting()) == ([], 0)

    live(tmp_path, body)


def test_a_task_that_is_being_bought_again_is_left_alone(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        await night.opened.hold(2)
        await night.opened.do(2, Decide(operator="ann", decision="buy_again", attempt=1))
        work = await night.opened.do(2, Intend("kie", "kie", "default", "only", 60_000, "d", 0))
        night.moving[work.key] = work
        night.hint(2)
        await night.serve(3.0)
        assert (night.actor.asked, night.waiting()) == ([], 1)  # it is looked at when that has come home

    live(tmp_path, body)


@pytest.mark.parametrize("decision", ["give_up", "buy_again"])
def test_an_operator_may_be_faster_and_the_paid_image_is_kept_all_the_same(
    tmp_path: Path, decision: Literal["give_up", "buy_again"]
) -> None:
    """MON-9, REC-7: the hint was thrown away with the verdict that came too late."""

    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.actor.jobs["j1"] = Pending()
        night.hint()
        night.hints.take()
        await night.opened.do(1, Decide(operator="ann", decision=decision, attempt=1))
        await night.serve(3.0)
        assert (night.told, night.waiting()) == (["left 1", "adopted 1 j1"], 0)
        assert night.opened.work(1).phase == "accepted"

    live(tmp_path, body)


def test_hints_of_other_accounts_and_garbage(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        night.hint(account="replicate")
        (hints_of(night.inbox) / "0-bad.json").write_bytes(b"{}")
        await night.serve(2.0)
        assert night.waiting() == 1
        assert (hints_of(night.inbox) / "0-bad.bad").exists()

    live(tmp_path, body)


def test_what_another_key_cannot_see_may_be_there_all_the_same(tmp_path: Path) -> None:
    """REC-9: the hint waits for a night with the right key; what the key does see is adopted."""

    async def body(night: Night) -> None:
        for n in (1, 2):
            await night.opened.hold(n)
            night.hint(n, f"j{n}")
        night.actor.foreign = lambda epoch: True
        night.actor.jobs["j2"] = Pending()
        await night.serve(60.0)
        assert (night.told, night.waiting()) == (["left 1", "adopted 2 j2"], 1)
        assert sorted(night.actor.asked) == ["j1", "j2"]

    live(tmp_path, body)


def test_parked_it_lets_the_night_end(tmp_path: Path) -> None:
    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.hint()
        night.hints.take()
        night.hints.give_up("it failed")
        assert (night.moving, night.waiting()) == ({}, 1)

    live(tmp_path, body)


def test_a_killed_night_leaves_the_hint_to_the_next(tmp_path: Path) -> None:
    """REC-3: the record first, the file after; done twice it is done once."""

    async def body(night: Night) -> None:
        await night.opened.hold(1)
        night.actor.jobs["j1"] = Pending()
        night.hint()
        await night.opened.do(1, Record(AttemptAdopted(attempt=1, job="j1", evidence="callback")))
        work = night.opened.work(1)
        night.moving[work.key] = work
        await night.serve(2.0)
        assert (night.actor.told, night.waiting()) == (["hinted 1"], 0)

    live(tmp_path, body)
