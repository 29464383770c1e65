"""Followers settle as their owner did, once, whoever else is at work on them."""

from pathlib import Path

import trio

from ledger.commands import Cancel, Record
from ledger.events import AttemptAccepted, ResultReady, TaskCompleted
from ledger.tasklist import TaskRow
from runtime.sharing import settle_followers
from runtime.work import Work
from tests.runtime.nights import OpenLedger, with_ledger

OWNERS = {2: 1, 3: 1}


async def settle(opened: OpenLedger, linked: list[int] | None = None) -> int:
    async def link(work: Work, owner: TaskRow) -> None:
        await trio.lowlevel.checkpoint()
        assert work.state.phase == "queued"  # the name is there before the task is settled
        if linked is not None:
            linked.append(work.n)

    return await settle_followers(1, opened.reader, opened.log, link)


def test_the_image_of_the_owner_is_theirs(tmp_path: Path) -> None:
    """RES-1: by the same digest; nothing is bought for them."""

    async def body(opened: OpenLedger) -> None:
        assert await settle(opened) == 0
        await opened.intend(1)
        done = TaskCompleted(
            attempt=1,
            version=1,
            sha256="ab" * 32,
            size=5,
            media_type="image/png",
            width=1,
            height=1,
            cost_microusd=7,
        )
        await opened.do(1, Record(AttemptAccepted(attempt=1, job="j")), Record(ResultReady(attempt=1)), Record(done))
        linked: list[int] = []
        assert await settle(opened, linked) == 2
        assert sorted(linked) == [2, 3]
        assert opened.phases() == "succeeded succeeded succeeded queued"
        for n in OWNERS:
            result = opened.work(n).state.current
            assert result is not None
            assert (result.sha256, result.owner, result.cost_microusd) == ("ab" * 32, 1, 0)
        assert await settle(opened) == 0

    with_ledger(tmp_path, body, owners=OWNERS)


def test_they_fail_and_are_cancelled_with_it(tmp_path: Path) -> None:
    """LIVE-1."""

    async def body(opened: OpenLedger) -> None:
        await opened.fail(1)
        await opened.do(4, Cancel(operator="me"))
        assert await settle(opened) == 2
        assert opened.phases() == "failed failed cancelled cancelled"
        assert opened.work(2).state.reason == "owner_failed"

    with_ledger(tmp_path, body, owners={2: 1, 3: 4})


def test_a_held_owner_keeps_them_waiting(tmp_path: Path) -> None:
    async def body(opened: OpenLedger) -> None:
        await opened.hold(1)
        assert await settle(opened) == 0
        assert opened.phases() == "held queued queued queued"

    with_ledger(tmp_path, body, owners=OWNERS)
